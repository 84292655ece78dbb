//! One connection that asks and waits for the answer: it makes what a scenario needs, and takes it away again.

use super::connection::Stream;
use super::{Failure, driver, interrupt};
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Write};
use std::time::{Duration, Instant, SystemTime};

/// How often a wait looks whether the user asked for the end.
const LOOK: Duration = Duration::from_millis(100);
/// The password of every user that a run makes.
pub const PASSWORD: &str = "chatd bench";

/// The connection.
pub struct Control {
    reader: BufReader<Stream>,
    line: Vec<u8>,
    timeout: Duration,
    /// What the run made, for its end.
    conversations: Vec<String>,
    users: Vec<String>,
    /// What makes the logins of this run its own.
    run: String,
}

impl Control {
    /// Connects to a trusted listener.
    pub fn open(address: &str, timeout: Duration) -> Result<Self, Failure> {
        let stream = Stream::connect(address)?;
        stream.set_read_timeout(LOOK).map_err(broke)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let run = format!(
            "bench-{}-{}",
            std::process::id(),
            now.unwrap_or_default().as_nanos()
        );
        Ok(Self {
            reader: BufReader::new(stream),
            line: Vec::new(),
            timeout,
            conversations: Vec::new(),
            users: Vec::new(),
            run,
        })
    }

    /// Makes a request and gives the `data` of its answer, which must be `ok`.
    pub fn call(&mut self, subclass: &str, cmd: &str, data: &Value) -> Result<Value, Failure> {
        self.send(&request(subclass, cmd, data))?;
        self.answer(subclass, cmd, true)
    }

    /// Makes a user and gives its id.
    pub fn user(&mut self) -> Result<String, Failure> {
        let login = self.login(self.users.len());
        let data = json!({"login": login, "name": "Bench", "password": PASSWORD});
        let id = id(&self.call("user", "create", &data)?, "user_id")?;
        self.users.push(id.clone());
        Ok(id)
    }

    /// The login of the `number`th user.
    pub fn login(&self, number: usize) -> String {
        format!("{}-{number}", self.run)
    }

    /// Makes a conversation with one member and gives its id.
    pub fn conversation(&mut self, user: &str) -> Result<String, Failure> {
        let data = json!({"name": "bench", "user_ids": [user]});
        let id = id(
            &self.call("conversation", "create", &data)?,
            "conversation_id",
        )?;
        self.conversations.push(id.clone());
        Ok(id)
    }

    /// Says that a conversation is gone already.
    pub fn forget_conversation(&mut self, id: &str) {
        self.conversations.retain(|kept| kept != id);
    }

    /// Removes what the run made from a daemon that lives on, also after ctrl-c.
    pub fn remove_all(&mut self) -> Result<(), Failure> {
        for conversation in std::mem::take(&mut self.conversations) {
            let data = json!({"conversation_id": conversation});
            self.send(&request("conversation", "delete", &data))?;
            self.answer("conversation", "delete", false)?;
        }
        for user in std::mem::take(&mut self.users) {
            self.send(&request("user", "delete", &json!({"user_id": user})))?;
            self.answer("user", "delete", false)?;
        }
        Ok(())
    }

    fn send(&mut self, line: &str) -> Result<(), Failure> {
        self.reader
            .get_mut()
            .write_all(line.as_bytes())
            .map_err(broke)
    }

    fn answer(&mut self, subclass: &str, cmd: &str, interruptible: bool) -> Result<Value, Failure> {
        let began = Instant::now();
        self.line.clear();
        while !self.line.ends_with(b"\n") {
            if interruptible {
                interrupt::check()?;
            }
            match self.reader.read_until(b'\n', &mut self.line) {
                Ok(0) => return Err(Failure::run("the server closed the connection")),
                Ok(_) => {}
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Err(broke(error));
                }
                Err(_) if began.elapsed() < self.timeout => {}
                Err(_) => {
                    let text = format!(
                        "{subclass} {cmd} was not answered within {:?}",
                        self.timeout
                    );
                    return Err(Failure::Run(text));
                }
            }
        }
        let wrong = || {
            let line = driver::excerpt(&self.line);
            Failure::Run(format!("{subclass} {cmd} was answered with {line}"))
        };
        if !self.line.starts_with(driver::OK) {
            return Err(wrong());
        }
        let mut answer: Value = serde_json::from_slice(&self.line).map_err(|_| wrong())?;
        answer.get_mut("data").map(Value::take).ok_or_else(wrong)
    }
}

/// A request as a line.
pub fn request(subclass: &str, cmd: &str, data: &Value) -> String {
    format!(
        "{{\"class\":\"chat\",\"subclass\":\"{subclass}\",\"cmd\":\"{cmd}\",\"data\":{data}}}\n"
    )
}

/// A `message create` as a line.
pub fn message(conversation: &str, user: &str, text: &str) -> String {
    let data = json!({"conversation_id": conversation, "user_id": user, "message": text});
    request("message", "create", &data)
}

/// An id of an answer's data.
pub fn id(data: &Value, field: &str) -> Result<String, Failure> {
    data.get(field)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| Failure::Run(format!("an answer has no {field}: {data}")))
}

fn broke(error: impl std::fmt::Display) -> Failure {
    Failure::Run(format!("the connection that sets up broke: {error}"))
}
