use super::*;
use crate::registry::Access;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new(""), Overrides::default())
}

fn refusal(text: &str) -> String {
    parse(text).unwrap_err().0
}

#[test]
fn the_shipped_file_has_every_key_at_its_default() {
    let shipped = include_str!("../../chatd.toml");
    let config = parse(shipped).unwrap();
    let plain = parse("").unwrap();
    assert_eq!(format!("{config:?}"), format!("{plain:?}"));
    let limits = serde_json::to_value(Limits::default()).unwrap();
    for key in limits
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .chain([
            "data_dir",
            "keep",
            "registration",
            "directory",
            "bcrypt_cost",
            "password_min_bytes",
            "login_seconds",
            "failed_logins_per_minute",
            "level",
            "format",
        ])
    {
        assert!(
            shipped.lines().any(|line| line
                .trim_start_matches("# ")
                .starts_with(&format!("{key} = "))),
            "{key}"
        );
    }
}

#[test]
fn where_anybody_may_register_users_see_their_companions_unless_it_is_said() {
    for (text, directory) in [
        ("", Directory::Everyone),
        ("registration = \"closed\"", Directory::Everyone),
        ("registration = \"open\"", Directory::Companions),
        (
            "registration = \"open\"\ndirectory = \"everyone\"",
            Directory::Everyone,
        ),
        ("directory = \"companions\"", Directory::Companions),
    ] {
        let config = parse(&format!("[security]\n{text}")).unwrap();
        assert_eq!(config.security.directory(), directory, "{text}");
    }
    let text = refusal("[security]\ndirectory = \"friends\"");
    assert!(
        text.starts_with("line 2: ") && text.contains("companions"),
        "{text}"
    );
}

#[test]
fn refusals_say_where_and_what_to_do() {
    assert_eq!(
        refusal("\n[limits]\nmax_lines = 3\n").split(':').next(),
        Some("line 3")
    );
    for access in ["trusted", "login"] {
        let text = refusal(&format!(
            "[[listen]]\naddress = \"0.0.0.0:1\"\naccess = \"{access}\""
        ));
        assert!(text.contains("insecure = true"), "{text}");
    }
    let here = "[[listen]]\naddress = \"127.0.0.1:1\"\n";
    assert!(refusal(&format!("{here}mode = \"0600\"")).contains("Unix socket"));
    assert!(refusal(&format!("{here}access = \"none\"")).contains("trusted"));
    let socket = "[[listen]]\naddress = \"unix:/run/x\"\n";
    assert!(refusal(&format!("{socket}mode = \"999\"")).contains("0660"));
    assert!(refusal(&format!("{socket}tls = {{ cert = \"c\", key = \"k\" }}")).contains("TCP"));
    assert!(
        refusal(&format!("{socket}allow_groups = [\"no such group\"]")).contains("no such group")
    );
    assert!(refusal("[limits]\nbytes_per_second = 100").contains("13108"));
    assert!(refusal("[security]\nbcrypt_cost = 99").contains("4 to 31"));
    assert!(refusal("[[listen]]\naddress = \"here\"").contains("127.0.0.1:24283"));
    assert!(refusal("listen = []").contains("[[listen]]"));
    assert!(refusal("[events]\nkeep = \"7 days\"").contains("7d"));
    assert!(refusal("[events]\nkeep = \"\"").contains("7d"));
    assert!(refusal("[limits]\nmax_message_bytes = 1000000").contains("max_message_bytes"));
}

#[test]
fn access_is_trusted_on_this_machine_and_login_elsewhere() {
    let listen = |text: &str| {
        let config = parse(text).unwrap();
        config.listen.into_iter().next().unwrap()
    };
    let access = |address: &str| {
        listen(&format!(
            "[[listen]]\naddress = \"{address}\"\ninsecure = true"
        ))
        .access
    };
    assert_eq!(access("127.0.0.1:0"), Access::Trusted);
    assert_eq!(access("[::1]:0"), Access::Trusted);
    assert_eq!(access("unix:/run/x"), Access::Trusted);
    assert_eq!(access("0.0.0.0:0"), Access::Login);
    let tls = listen(
        "[[listen]]\naddress = \"0.0.0.0:0\"\ntls = { cert = \"c\", key = \"k\", client_ca = \"a\" }",
    );
    assert_eq!(tls.tls.unwrap().client_ca, Some("a".into()));
    let socket = listen(
        "[[listen]]\naddress = \"unix:/run/x\"\nmode = \"0620\"\nallow_uids = [7]\nallow_groups = [\"root\"]",
    );
    assert_eq!(socket.mode, 0o620);
    assert_eq!(socket.allowed.as_ref().unwrap().group(), Some(0));
    let allowed = socket.allowed.unwrap();
    assert!(allowed.allows(7, 99) && allowed.allows(8, 0) && !allowed.allows(8, 99));
}

#[test]
fn the_number_of_brackets_is_answered_with_the_right_one() {
    for (text, said) in [
        (
            "\n[listen]\naddress = \"127.0.0.1:1\"",
            "line 2: [listen] is to be [[listen]]",
        ),
        (
            "[ listen ] # here\naddress = \"127.0.0.1:1\"",
            "line 1: [listen] is to be [[listen]]",
        ),
        (
            "[[limits]]\nmax_page = 7",
            "line 1: [[limits]] is to be [limits]",
        ),
        (
            "\n\n[[security]]\nbcrypt_cost = 7",
            "line 3: [[security]] is to be [security]",
        ),
        ("[[log]]", "line 1: [[log]] is to be [log]"),
        (
            "[[events]]\nkeep = \"1d\"",
            "line 1: [[events]] is to be [events]",
        ),
    ] {
        assert!(refusal(text).starts_with(said), "{}", refusal(text));
    }
    // What is wrong otherwise is said as it is.
    let text = refusal("[[listen]]\naddress = 7");
    assert!(text.starts_with("line 2: invalid type"), "{text}");
}

#[test]
fn equal_listeners_are_refused_with_their_lines() {
    let two = |one: &str, other: &str| {
        format!(
            "[[listen]]\naddress = \"{one}\"\n\n[[listen]]\naccess = \"login\"\ninsecure = true\naddress = \"{other}\"\n"
        )
    };
    for (one, other) in [
        ("127.0.0.1:24283", "127.0.0.1:24283"),
        ("127.0.0.1:24283", "0.0.0.0:24283"),
        ("[::1]:24283", "[0:0::1]:24283"),
        ("[::1]:24283", "[::]:24283"),
        ("unix:/run/chatd.sock", "unix:/run/chatd.sock"),
        ("unix:chatd.sock", "unix:./chatd.sock"),
    ] {
        let text = refusal(&two(one, other));
        assert!(
            text.contains("at line 7") && text.contains("at line 2"),
            "{text}"
        );
    }
    for (one, other) in [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.1:24283", "127.0.0.2:24283"),
        ("127.0.0.1:24283", "127.0.0.1:24284"),
        ("127.0.0.1:24283", "[::]:24283"),
        ("unix:/run/one.sock", "unix:/run/other.sock"),
        ("unix:/run/24283", "127.0.0.1:24283"),
    ] {
        assert!(parse(&two(one, other)).is_ok(), "{one} {other}");
    }
    let overrides = Overrides {
        listen: vec!["127.0.0.1:1".to_owned(); 2],
        ..Overrides::default()
    };
    let text = Config::parse("", Path::new(""), overrides).unwrap_err().0;
    assert!(text.contains("--listen 127.0.0.1:1"), "{text}");
}

#[test]
fn relative_paths_begin_where_the_file_is() {
    let text = "data_dir = \"data\"\n[[listen]]\naddress = \"unix:chatd.sock\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
                tls = { cert = \"tls/cert.pem\", key = \"/keys/key.pem\", client_ca = \"../ca.pem\" }\n";
    let config =
        |folder: &str, overrides| Config::parse(text, Path::new(folder), overrides).unwrap();
    let found = config("/etc/chatd", Overrides::default());
    assert_eq!(found.data_dir, Path::new("/etc/chatd/data"));
    assert_eq!(
        found.listen[0].address.to_string(),
        "unix:/etc/chatd/chatd.sock"
    );
    let tls = found.listen[1].tls.as_ref().unwrap();
    assert_eq!(tls.cert, Path::new("/etc/chatd/tls/cert.pem"));
    assert_eq!(tls.key, Path::new("/keys/key.pem"));
    assert_eq!(
        tls.client_ca.as_deref(),
        Some(Path::new("/etc/chatd/../ca.pem"))
    );
    // Beside the file, everything is named as it is written.
    let here = config("", Overrides::default());
    assert_eq!(here.data_dir, Path::new("data"));
    assert_eq!(here.listen[0].address.to_string(), "unix:chatd.sock");
    // The command line begins where it is typed.
    let typed = Overrides {
        listen: vec!["unix:typed.sock".to_owned()],
        data_dir: Some("typed".into()),
    };
    let typed = config("/etc/chatd", typed);
    assert_eq!(typed.data_dir, Path::new("typed"));
    assert_eq!(typed.listen[0].address.to_string(), "unix:typed.sock");
}

#[test]
fn a_mode_that_keeps_the_allowed_groups_out_is_refused_with_one_that_does_not() {
    let listen = |more: &str| format!("[[listen]]\naddress = \"unix:/run/x\"\n{more}");
    for more in [
        "allow_groups = [\"1\", \"2\"]",
        "mode = \"0660\"\nallow_groups = [\"1\", \"2\"]",
        "mode = \"0600\"\nallow_groups = [\"1\"]",
        "mode = \"0640\"\nallow_groups = [\"1\"]",
    ] {
        let text = refusal(&listen(more));
        assert!(text.contains("mode = \"0666\""), "{more}: {text}");
    }
    for more in [
        "allow_groups = [\"1\"]",
        "mode = \"0666\"\nallow_groups = [\"1\", \"2\"]",
        "mode = \"0600\"\nallow_uids = [7]",
        "allow_groups = []",
    ] {
        assert!(parse(&listen(more)).is_ok(), "{more}");
    }
    let allowed = parse(&listen("allow_uids = [0, 4000001, 4000002]")).unwrap();
    let allowed = allowed.listen[0].allowed.clone().unwrap();
    let kept_out = |mode| {
        allowed
            .kept_out(mode, 4_000_001, 4_000_003)
            .collect::<Vec<u32>>()
    };
    assert_eq!(kept_out(0o660), [4_000_002]);
    assert_eq!(kept_out(0o666), Vec::<u32>::new());
}
