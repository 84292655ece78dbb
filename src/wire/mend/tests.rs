use super::Habit::{
    Backslash, BareName, BareText, Behind, ByteOrderMark, Comment, ControlCharacter, CurlyQuotes,
    EqualsSign, EscapedQuotes, Middle, MissingComma, NoBreakSpace, OtherNumber, OtherWord,
    QuotedLine, SingleQuotes, TrailingComma, Unfinished,
};
use super::*;

const PING: &str = r#"{"class":"chat","subclass":"session","cmd":"ping"}"#;

/// Lines, the habits in them, and what they become.
const CASES: &[(&str, &[Habit], Option<&str>)] = &[
    (
        r#"{class: "chat", subclass: "session", cmd: "ping"}"#,
        &[BareName],
        Some(PING),
    ),
    (
        r"{'class':'chat','subclass':'session','cmd':'ping'}",
        &[SingleQuotes],
        Some(PING),
    ),
    (
        "{“class”:“chat”,“subclass”:“session”,“cmd”:“ping”}",
        &[CurlyQuotes],
        Some(PING),
    ),
    (
        "{class:chat,subclass:session,cmd:ping}",
        &[BareName, BareText],
        Some(PING),
    ),
    (
        r#"{"class":"chat","subclass":"session","cmd":"ping",}"#,
        &[TrailingComma],
        Some(PING),
    ),
    (
        r#"{"class":"chat" "subclass":"session" "cmd":"ping"}"#,
        &[MissingComma],
        Some(PING),
    ),
    (
        r#"{"class"=>"chat","subclass"=>"session","cmd"="ping"}"#,
        &[EqualsSign],
        Some(PING),
    ),
    (
        r#"{"class":"chat",/* a */"subclass":"session","cmd":"ping"} // b"#,
        &[Comment],
        Some(PING),
    ),
    (
        r#"{\"class\":\"chat\",\"subclass\":\"session\",\"cmd\":\"ping\"}"#,
        &[EscapedQuotes],
        Some(PING),
    ),
    (
        r#"'{"class":"chat","subclass":"session","cmd":"ping"}'"#,
        &[QuotedLine],
        Some(PING),
    ),
    (
        "{\u{a0}\"class\":\"chat\",\u{3000}\"subclass\":\"session\",\"cmd\":\"ping\"}",
        &[NoBreakSpace],
        Some(PING),
    ),
    (
        "\u{feff}{\"class\":\"chat\",\"subclass\":\"session\",\"cmd\":\"ping\"}",
        &[ByteOrderMark],
        Some(PING),
    ),
    (
        r#"{"class":"chat","subclass":"session","cmd":"ping""#,
        &[Unfinished],
        Some(PING),
    ),
    (
        r#"{"class":"chat","subclass":"session","cmd":"ping"};"#,
        &[TrailingComma],
        Some(PING),
    ),
    (r#"{"class":"chat"} {"class":"chat"}"#, &[Behind], None),
    (
        r#"{"a":True,"b":None,"c":[False,]}"#,
        &[OtherWord, TrailingComma],
        Some(r#"{"a":true,"b":null,"c":[false]}"#),
    ),
    (
        r#"{"a":+5,"b":.5,"c":5.,"d":007,"e":0x10,"f":-.5}"#,
        &[OtherNumber],
        Some(r#"{"a":5,"b":0.5,"c":5,"d":7,"e":16,"f":-0.5}"#),
    ),
    (
        "{\"a\":\"one\ttwo\"}",
        &[ControlCharacter],
        Some("{\"a\":\"one\\u0009two\"}"),
    ),
    (
        r#"{"a":"C:\data\x41"}"#,
        &[Backslash],
        Some(r#"{"a":"C:\\data\u0041"}"#),
    ),
    (
        r#"{'a':'don't say "x"'}"#,
        &[SingleQuotes],
        Some(r#"{"a":"don't say \"x\""}"#),
    ),
    ("{‘a’:‘don’t’}", &[CurlyQuotes], Some(r#"{"a":"don’t"}"#)),
    (r#"{"a":1e400,"b":-0}"#, &[], Some(r#"{"a":1e400,"b":-0}"#)),
    ("{", &[Unfinished], None),
    (
        r#"{"class":"chat","#,
        &[Unfinished, TrailingComma],
        Some(r#"{"class":"chat"}"#),
    ),
    (r#""class": "chat","#, &[Middle], None),
    ("class: chat", &[Middle], None),
    ("}", &[Middle], None),
    ("hello", &[], None),
    ("hello: you", &[], None),
    ("{]", &[], None),
    ("{\"a\"}", &[], None),
    ("{\"a\":}", &[], None),
];

#[test]
fn each_habit_is_named_and_mended() {
    for (line, habits, mended) in CASES {
        let found = mend(line);
        assert_eq!(found.habits, *habits, "{line}");
        assert_eq!(found.line.as_deref(), *mended, "{line}");
        if let Some(mended) = found.line {
            serde_json::from_str::<&RawValue>(&mended).expect(line);
        }
    }
}

#[test]
fn what_is_secret_is_not_shown() {
    for line in [
        "{login:a,password:hunter2}",
        "{'login':'a','pass\\u0077ord':'hunter2'}",
        "{login:a,Password:{x:hunter2,y:[hunter2]},}",
        "{login:a,old_password:hunter2,token:hunter2}",
        "{login:a,data:[{token:'hunter2'}]}",
        "{login:a,password:12hunter2}",
    ] {
        let mended = mend(line).line.expect(line);
        assert!(!mended.contains("hunter2"), "{mended}");
        assert!(mended.contains("\"login\":\"a\""), "{mended}");
    }
    let mended = mend("{password:a,login:b}").line;
    assert_eq!(mended.as_deref(), Some(r#"{"password":"…","login":"b"}"#));
}

#[test]
fn a_hostile_line_is_given_up_in_time() {
    let size = 60_000;
    for part in [
        "{", "[", "{a:", "{a:[", "' ", "{'a", "/*", ",", "“ ", "\\", "{\"a\":'",
    ] {
        let line = format!("{{a:{}", part.repeat(size / part.len()));
        let begun = std::time::Instant::now();
        let _ = mend(&line);
        assert!(begun.elapsed().as_secs() < 5, "{part}");
    }
}
