//! contrib/threat-model.md is in step with the tests: each threat is answered, and each test that it names exists.

use std::fs;
use std::path::Path;

#[test]
fn each_threat_is_answered_and_each_test_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("contrib/threat-model.md")).unwrap();
    let mut sources = String::new();
    for folder in ["src", "tests/it"] {
        read_all(&root.join(folder), &mut sources);
    }
    let answers = document
        .split_once("## Threats and answers")
        .map(|(_, answers)| answers)
        .unwrap();
    let rows = answers.lines().filter(|line| line.starts_with("| "));
    let mut threats = 0;
    for row in rows.filter(|row| !row.contains("---") && !row.starts_with("| threat |")) {
        let columns: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let [threat, answer, shown_by] = columns.as_slice() else {
            panic!("three columns, not {columns:?}")
        };
        assert!(!answer.trim().is_empty(), "nothing answers {threat:?}");
        let named: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test shows the answer to {threat:?}");
        let (fuzzed, tests): (Vec<&str>, Vec<&str>) =
            named.iter().partition(|name| !name.contains('_'));
        for test in tests {
            assert!(
                sources.contains(&format!("fn {test}(")),
                "there is no test {test}"
            );
        }
        for target in fuzzed {
            let target = format!("contrib/fuzz/targets/{target}.rs");
            assert!(root.join(&target).exists(), "there is no {target}");
        }
        threats += 1;
    }
    assert!(threats >= 25, "only {threats} threats were found");
}

/// Appends every source file below a folder.
fn read_all(folder: &Path, sources: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, sources);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            sources.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}
