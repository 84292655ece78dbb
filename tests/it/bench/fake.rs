//! A server that speaks just enough of the protocol to be put under load, and that fails in one chosen way.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// What a server does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The fifth ping is not answered.
    LosesAnAnswer,
    /// No ping is answered.
    AnswersNothing,
    /// The fifth ping is answered with other data.
    AnswersWrong,
    /// The fifth ping is refused.
    Refuses,
    /// The fifth ping is answered twice.
    AnswersTwice,
    /// Hangs up at the fifth ping.
    HangsUp,
    /// The second message does not reach the subscriber that came first.
    LosesAnEvent,
    /// The second message reaches the subscriber that came first twice.
    DoublesAnEvent,
}

#[derive(Default)]
struct State {
    pings: usize,
    messages: usize,
    subscribers: Vec<TcpStream>,
}

/// Starts a server and gives its address. It ends with the test process.
pub fn serve(fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let state = Arc::new(Mutex::new(State::default()));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let state = Arc::clone(&state);
            // A client that goes away ends its thread, and nothing else.
            thread::spawn(move || converse(stream, &state, fault));
        }
    });
    address
}

fn converse(stream: TcpStream, state: &Mutex<State>, fault: Fault) -> Option<()> {
    let mut output = stream.try_clone().ok()?;
    for line in BufReader::new(stream).lines() {
        let request: Value = serde_json::from_str(&line.ok()?).ok()?;
        let mut state = state.lock().ok()?;
        let answer = match (request["subclass"].as_str()?, request["cmd"].as_str()?) {
            ("session", "ping") => ping(&mut state, fault, &request["data"])?,
            ("event", "subscribe") => {
                state.subscribers.push(output.try_clone().ok()?);
                ok(&json!({"seq": 0, "epoch": "1"}))
            }
            ("message", "create") => {
                publish(&mut state, fault, &request["data"]);
                ok(&json!({"message_id": "3"}))
            }
            _ => ok(&json!({"user_id": "1", "conversation_id": "2"})),
        };
        output.write_all(answer.as_bytes()).ok()?;
    }
    None
}

/// The answer of a ping; none hangs up.
fn ping(state: &mut State, fault: Fault, data: &Value) -> Option<String> {
    state.pings += 1;
    let fifth = state.pings == 5;
    match fault {
        Fault::AnswersNothing => Some(String::new()),
        Fault::LosesAnAnswer if fifth => Some(String::new()),
        Fault::AnswersWrong if fifth => Some(ok(&json!({"other": 1}))),
        Fault::AnswersTwice if fifth => Some(ok(data) + &ok(data)),
        Fault::Refuses if fifth => Some(
            "{\"result\":\"error\",\"data\":{\"code\":\"internal\",\"error\":\"no\"}}\n".into(),
        ),
        Fault::HangsUp if fifth => None,
        _ => Some(ok(data)),
    }
}

fn publish(state: &mut State, fault: Fault, data: &Value) {
    state.messages += 1;
    let line = format!(
        "{{\"class\":\"chat\",\"subclass\":\"conversation\",\"type\":\"created_message\",\"obj_id\":\"2\",\
         \"body\":{data},\"seq\":{}}}\n",
        state.messages
    );
    let second = state.messages == 2;
    for (number, subscriber) in state.subscribers.iter_mut().enumerate() {
        let times = match fault {
            Fault::LosesAnEvent if second && number == 0 => 0,
            Fault::DoublesAnEvent if second && number == 0 => 2,
            _ => 1,
        };
        let _ = subscriber.write_all(line.repeat(times).as_bytes());
    }
}

fn ok(data: &Value) -> String {
    format!("{{\"result\":\"ok\",\"data\":{data}}}\n")
}
