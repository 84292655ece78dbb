//! Any bytes on a connection: each line has its answer, a refusal has a known code, and the next client is served.
#![no_main]

mod world;

use chatd::error::Code;
use chatd::registry::Access;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use world::{World, world};

/// Who the world holds before.
const BEFORE: &str = r#"{"class":"chat","subclass":"user","cmd":"create","data":{"login":"ann","name":"Ann","password":"s3cret!!"}}"#;
const LOGIN: &str = concat!(
    r#"{"class":"chat","subclass":"session","cmd":"login","data":{"login":"ann","password":"s3cret!!"}}"#,
    "\n"
);

// The first byte says who sends the rest.
fuzz_target!(|input: &[u8]| {
    let Some((who, bytes)) = input.split_first() else {
        return;
    };
    world(async |world| {
        let users = world.exchange(Access::Trusted, BEFORE.as_bytes()).await;
        assert_eq!(users.lines.len(), 1);
        let before = head(world).await;
        let (access, login) = match who % 3 {
            0 => (Access::Trusted, ""),
            1 => (Access::Login, LOGIN),
            _ => (Access::Login, ""),
        };
        let input = [login.as_bytes(), bytes].concat();
        let came = world.exchange(access, &input).await;
        let answers: Vec<&Value> = came
            .lines
            .iter()
            .filter(|line| line.get("result").is_some())
            .collect();
        let sent = sent(&input);
        assert!(
            answers.len() == sent || came.closed && answers.len() < sent,
            "{} answers to {sent} requests",
            answers.len()
        );
        assert!(
            answers.iter().all(|answer| is_well_formed(answer)),
            "{answers:?}"
        );
        let done = answers
            .iter()
            .filter(|answer| answer["result"] == "ok")
            .count();
        if done == usize::from(!login.is_empty()) {
            assert_eq!(head(world).await, before, "refusals changed something");
        }
    });
});

/// How many answers are due: one for each line that is not blank.
fn sent(bytes: &[u8]) -> usize {
    let lines = bytes.split(|&byte| byte == b'\n');
    lines
        .filter(|line| !line.iter().all(u8::is_ascii_whitespace))
        .count()
}

/// Whether an answer is as protocol.md, 2 says.
fn is_well_formed(answer: &Value) -> bool {
    let data = &answer["data"];
    let refused = || {
        let is_known = |code: &str| Code::ALL.iter().any(|known| known.as_str() == code);
        data["code"].as_str().is_some_and(is_known)
            && data["error"].as_str().is_some_and(|text| !text.is_empty())
    };
    data.is_object() && (answer["result"] == "ok" || answer["result"] == "error" && refused())
}

/// How much the server holds.
async fn head(world: &World) -> Value {
    let ask = br#"{"class":"chat","subclass":"server","cmd":"info"}"#;
    let came = world.exchange(Access::Trusted, ask).await;
    let [answer] = came.lines.as_slice() else {
        panic!("{:?}", came.lines)
    };
    assert_eq!(answer["result"], "ok");
    let names = ["seq", "users", "conversations", "messages"];
    names
        .iter()
        .map(|&name| answer["data"][name].clone())
        .collect()
}
