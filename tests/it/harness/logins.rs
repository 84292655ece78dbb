//! Connections of users: strangers, those who log in, and how their sessions end.

use super::{Client, Daemon};

/// A trusted and a login listener, and limits so high that only a test about them meets them.
pub const LOGINS: &str = r#"
[[listen]]
address = "127.0.0.1:0"
access = "trusted"
[[listen]]
address = "127.0.0.1:0"
access = "login"
[limits]
max_connections_per_address = 10000
max_connections_not_logged_in = 10000
requests_per_second = 1000000
requests_per_second_per_address = 1000000
requests_per_second_per_user = 1000000
bytes_per_second = 1000000000
bytes_per_second_per_address = 1000000000
bytes_per_second_per_user = 1000000000
max_sessions_per_user = 10000
[security]
bcrypt_cost = 4
login_seconds = 600
failed_logins_per_minute = 1000000
"#;

impl Daemon {
    /// A new connection to the login listener, on which nobody is logged in.
    pub fn stranger(&self) -> Client {
        Client::connect(self.address_of("login"))
    }

    /// A new connection to the login listener, of the user with this login and the password `s3cret`.
    pub fn user(&self, login: &str) -> Client {
        let mut client = self.stranger();
        client.login(login, "s3cret");
        client
    }
}

impl Client {
    /// Asserts that nothing comes but the line that says that the session ended, and the end.
    pub fn expect_session_ended(&mut self) {
        let line = self.next_value();
        assert_eq!(line["subclass"], "session", "{line}");
        assert_eq!(line["type"], "closed", "{line}");
        assert_eq!(line["body"]["code"], "session_ended", "{line}");
        self.expect_end();
    }
}
