//! Requests that make sense, chosen by the fuzzer, against the model of chatd's own tests: they never differ.
#![no_main]

#[allow(dead_code, unused_imports, reason = "it serves the tests too")]
mod model;
#[allow(dead_code, unused_imports, reason = "it serves the tests too")]
mod random;
#[allow(dead_code, unused_imports, reason = "it serves other targets too")]
mod world;

use chatd::registry::Access;
use libfuzzer_sys::fuzz_target;
use model::{Expected, Model};
use rand::SeedableRng;
use rand::rngs::StdRng;
use random::operations::operation;
use serde_json::{Value, json};
use world::{World, world};

fuzz_target!(|seeds: Vec<u16>| {
    world(async |world| {
        let mut model = Model::default();
        for seed in seeds {
            let operation = operation(&mut StdRng::seed_from_u64(seed.into()), &model);
            let (subclass, cmd, data) = (operation.subclass, operation.cmd, &operation.data);
            let answer = call(world, subclass, cmd, data).await;
            let expected = model.execute(None, subclass, cmd, data, &answer["data"]);
            let agrees = match &expected {
                Expected::Data(any) => answer["result"] == "ok" && any.contains(&answer["data"]),
                Expected::Refused(refusal) => {
                    answer["result"] == "error"
                        && refusal
                            .codes
                            .iter()
                            .any(|code| answer["data"]["code"] == *code)
                }
            };
            assert!(
                agrees,
                "{subclass} {cmd} {data} was answered with {answer}, not {expected:?}"
            );
            for (kind, id) in std::mem::take(&mut model.unread) {
                let ask = json!({ kind.id_field(): id });
                let got = call(world, kind.subclass(), "get", &ask).await;
                model.learn(kind, &id, &got["data"]);
            }
        }
    });
});

async fn call(world: &World, subclass: &str, cmd: &str, data: &Value) -> Value {
    let request = json!({"class": "chat", "subclass": subclass, "cmd": cmd, "data": data});
    let mut came = world
        .exchange(Access::Trusted, request.to_string().as_bytes())
        .await;
    assert_eq!(came.lines.len(), 1, "{:?}", came.lines);
    came.lines.remove(0)
}
