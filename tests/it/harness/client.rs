//! One connection, used the way a simple client program would use it.

#![allow(
    clippy::needless_pass_by_value,
    reason = "tests write json!({…}) in place"
)]

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::sync::Arc;

use rustls::ClientConfig;
use serde_json::{Value, json};

use super::PATIENCE;
use super::socket::Socket;

/// A connection that numbers its requests and keeps apart the answers and the events that come back on it.
pub struct Client {
    reader: BufReader<Socket>,
    writer: Socket,
    next_tid: u64,
    /// Events that arrived before an answer that was waited for; [`Client::next_event`] gives them first.
    events: VecDeque<Value>,
}

impl Client {
    /// Connects to `127.0.0.1:PORT` or `unix:PATH`.
    pub fn connect(address: &str) -> Self {
        let socket = Socket::connect(address)
            .unwrap_or_else(|error| panic!("connect to {address}: {error}"));
        Self::over(socket)
    }

    /// Connects to `127.0.0.1:PORT` from another address of this machine, such as `127.0.3.1`.
    pub fn connect_from(source: IpAddr, address: &str) -> Self {
        let socket = Socket::connect_from(source, address)
            .unwrap_or_else(|error| panic!("connect to {address} from {source}: {error}"));
        Self::over(socket)
    }

    /// Connects to `127.0.0.1:PORT`, where TLS is spoken, as `config` says.
    pub fn connect_tls(address: &str, config: &Arc<ClientConfig>) -> Self {
        let socket = Socket::connect(address).and_then(|socket| socket.tls(config));
        Self::over(socket.unwrap_or_else(|error| panic!("connect to {address} with TLS: {error}")))
    }

    /// A client on a connection that is made already.
    pub fn over(writer: Socket) -> Self {
        let reader = BufReader::new(writer.try_clone().expect("clone the socket"));
        Self {
            reader,
            writer,
            next_tid: 1,
            events: VecDeque::new(),
        }
    }

    /// Sends bytes as they are, for everything that is not one well-formed line.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).expect("write to chatd");
    }

    /// Sends bytes as they are, to a daemon that may have closed the connection.
    pub fn send_bytes_or_end(&mut self, bytes: &[u8]) {
        let _ = self.writer.write_all(bytes);
    }

    /// Reads bytes as they are, and gives how many; none where the connection has ended.
    pub fn read_bytes_or_end(&mut self, bytes: &mut [u8]) -> usize {
        self.reader.read(bytes).unwrap_or(0)
    }

    /// A second handle on the sending side, for a thread that writes while this one reads.
    pub fn sender(&self) -> impl Write + Send + 'static {
        self.writer.try_clone().expect("clone the socket")
    }

    /// Sends one line; the end of line is added.
    pub fn send_line(&mut self, line: &str) {
        self.send_bytes(format!("{line}\n").as_bytes());
    }

    /// Sends one value as a line.
    pub fn send(&mut self, request: &Value) {
        self.send_line(&request.to_string());
    }

    /// Sends a request under the next `tid`, which it returns, and does not wait.
    pub fn request(&mut self, subclass: &str, cmd: &str, data: Value) -> u64 {
        let tid = self.next_tid;
        self.next_tid += 1;
        self.send(
            &json!({"class": "chat", "subclass": subclass, "cmd": cmd, "data": data, "tid": tid}),
        );
        tid
    }

    /// Sends a request and gives its whole response. Events that come before it are kept for [`Client::next_event`].
    pub fn call(&mut self, subclass: &str, cmd: &str, data: Value) -> Value {
        let tid = self.request(subclass, cmd, data);
        loop {
            let line = self.next_value();
            if line.get("tid") == Some(&json!(tid)) {
                return line;
            }
            assert!(
                line.get("type").is_some(),
                "waiting for the answer to tid {tid} ({subclass} {cmd}), got {line}"
            );
            self.events.push_back(line);
        }
    }

    /// The answer to a request, or `None` where the connection ends instead, with or without a word.
    pub fn call_or_end(&mut self, subclass: &str, cmd: &str, data: Value) -> Option<Value> {
        let request = json!({"class": "chat", "subclass": subclass, "cmd": cmd, "data": data});
        self.writer
            .write_all(format!("{request}\n").as_bytes())
            .ok()?;
        let line = self.read_line_or_end()?;
        let line: Value = serde_json::from_str(&line).expect("JSON from chatd");
        (line["type"] != "closed").then_some(line)
    }

    /// Makes a call that must succeed, and gives the `data` of its answer.
    pub fn ok(&mut self, subclass: &str, cmd: &str, data: Value) -> Value {
        let mut answer = self.call(subclass, cmd, data.clone());
        assert_eq!(
            answer["result"], "ok",
            "{subclass} {cmd} {data} was answered with {answer}"
        );
        answer["data"].take()
    }

    /// Makes a call that must be refused, and gives the `data` of its answer.
    pub fn error(&mut self, subclass: &str, cmd: &str, data: Value) -> Value {
        let mut answer = self.call(subclass, cmd, data.clone());
        assert_eq!(
            answer["result"], "error",
            "{subclass} {cmd} {data} was answered with {answer}"
        );
        answer["data"].take()
    }

    /// Makes a call that must be refused, and gives the error's code.
    pub fn code(&mut self, subclass: &str, cmd: &str, data: Value) -> String {
        text(&self.error(subclass, cmd, data), "code")
    }

    /// The next event, waiting for it if none is kept.
    pub fn next_event(&mut self) -> Value {
        if let Some(event) = self.events.pop_front() {
            return event;
        }
        let line = self.next_value();
        assert!(
            line.get("type").is_some(),
            "waiting for an event, got {line}"
        );
        line
    }

    /// An event that arrived before an answer, if there is one; does not wait.
    pub fn take_kept_event(&mut self) -> Option<Value> {
        self.events.pop_front()
    }

    /// The next line without its end; `None` once the daemon has closed the connection.
    pub fn read_line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        match self.reader.read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            // A daemon that closes while bytes of ours are unread resets the connection: the end, all the same.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && line.is_empty() => {
                return None;
            }
            Err(error) => panic!(
                "no whole line from chatd within {PATIENCE:?}: {error} after {} bytes",
                line.len()
            ),
        }
        assert_eq!(
            line.pop(),
            Some(b'\n'),
            "the connection ended inside a line"
        );
        let line = String::from_utf8(line).expect("a line in UTF-8");
        // Many line readers end a line at these, too.
        assert!(
            !line.contains(['\u{85}', '\u{2028}', '\u{2029}']),
            "{line:?}"
        );
        Some(line)
    }

    /// The next line, or `None` at the end of a connection that may be cut anywhere, as by kill -9.
    pub fn read_line_or_end(&mut self) -> Option<String> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).ok()?;
        (line.pop() == Some(b'\n')).then(|| String::from_utf8(line).expect("a line in UTF-8"))
    }

    /// The next line, which must come, as JSON.
    pub fn next_value(&mut self) -> Value {
        let line = self
            .read_line()
            .expect("a line from chatd, not the end of the connection");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("chatd sent {line}: {error}"))
    }

    /// Closes the sending side; answers and events can still be read.
    pub fn shutdown_write(&mut self) {
        self.writer
            .shutdown(Shutdown::Write)
            .expect("shut down the sending side");
    }

    /// Closes the connection, whoever still holds a handle on it.
    pub fn shutdown_both(&mut self) {
        // One that the daemon has closed already is no error.
        let _ = self.writer.shutdown(Shutdown::Both);
    }

    /// Resets the connection, as a crash or a firewall does.
    pub fn reset(self) {
        self.writer
            .reset_when_dropped()
            .expect("set up a reset of the connection");
    }

    /// Asserts that no event waits: asks for a ping, and finds nothing before its answer.
    pub fn no_more_events(&mut self) {
        self.ok("session", "ping", json!({}));
        assert!(
            self.events.is_empty(),
            "events that nobody expected: {:?}",
            self.events
        );
    }

    /// Asserts that the daemon closes the connection without another word.
    pub fn expect_end(&mut self) {
        let line = self.read_line();
        assert_eq!(line, None, "expected the end of the connection");
    }

    /// Creates a user with this login and the password `s3cret`, and gives its id.
    pub fn create_user(&mut self, login: &str) -> String {
        let name = login.split('@').next().unwrap_or(login);
        text(
            &self.ok(
                "user",
                "create",
                json!({"login": login, "name": name, "password": "s3cret"}),
            ),
            "user_id",
        )
    }

    /// Creates a conversation with these members, and gives its id.
    pub fn create_conversation(&mut self, name: &str, user_ids: &[&str]) -> String {
        let data = json!({"name": name, "user_ids": user_ids});
        text(&self.ok("conversation", "create", data), "conversation_id")
    }

    /// Posts a text as this user, and gives the message's id.
    pub fn send_message(&mut self, conversation_id: &str, user_id: &str, message: &str) -> String {
        let data =
            json!({"conversation_id": conversation_id, "user_id": user_id, "message": message});
        text(&self.ok("message", "create", data), "message_id")
    }

    /// Subscribes as `data` says, and gives the newest event's number and the log's epoch.
    pub fn subscribe(&mut self, data: Value) -> (u64, String) {
        let answer = self.ok("event", "subscribe", data);
        let seq = answer["seq"]
            .as_u64()
            .unwrap_or_else(|| panic!("no seq in {answer}"));
        (seq, text(&answer, "epoch"))
    }

    /// Logs in with a password, and gives the session's id.
    pub fn login(&mut self, login: &str, password: &str) -> String {
        text(
            &self.ok(
                "session",
                "login",
                json!({"login": login, "password": password}),
            ),
            "session_id",
        )
    }
}

/// A text that must be there.
fn text(object: &Value, field: &str) -> String {
    object[field]
        .as_str()
        .unwrap_or_else(|| panic!("no text {field} in {object}"))
        .to_owned()
}
