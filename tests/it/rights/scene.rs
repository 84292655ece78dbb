//! One actor, one other user, and fresh objects that the two have or do not have in common.

use serde_json::{Value, json};

use crate::harness::{Client, Daemon};

/// Who acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// Nobody is logged in.
    Stranger,
    /// A user that never was a member.
    Outsider,
    /// A user that was a member.
    Former,
    /// A member.
    Member,
    /// A member that created the conversation.
    Creator,
    /// The creator, that is a member no more.
    Departed,
    /// An admin that never was a member.
    Admin,
    /// A trusted connection.
    Trusted,
    /// A member that logged in with a token.
    ByToken,
    /// An admin that logged in with a token.
    AdminByToken,
}

impl Actor {
    pub const ALL: [Self; 10] = [
        Self::Stranger,
        Self::Outsider,
        Self::Former,
        Self::Member,
        Self::Creator,
        Self::Departed,
        Self::Admin,
        Self::Trusted,
        Self::ByToken,
        Self::AdminByToken,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::Outsider => "outsider",
            Self::Former => "former",
            Self::Member => "member",
            Self::Creator => "creator",
            Self::Departed => "departed",
            Self::Admin => "admin",
            Self::Trusted => "trusted",
            Self::ByToken => "by_token",
            Self::AdminByToken => "admin_by_token",
        }
    }
}

/// Fresh objects, and the actor's connection.
pub struct Scene {
    /// The actor's connection.
    pub client: Client,
    /// The actor's user; for those who are nobody, one that they name.
    pub itself: String,
    /// Its login.
    pub login: String,
    /// Its token.
    pub token: String,
    another: String,
    another_login: String,
    third: String,
    here: String,
    elsewhere: String,
    my_message: String,
    their_message: String,
    message_elsewhere: String,
    my_token: String,
    their_token: String,
    my_session: String,
    their_session: String,
    /// A login that nobody has yet.
    free_login: String,
    /// The other user's connection, whose session can be stopped.
    _theirs: Client,
}

impl Scene {
    /// A scene of its own; `number` makes its logins differ from those of others.
    pub fn new(daemon: &Daemon, root: &mut Client, actor: Actor, number: usize) -> Self {
        let login = format!("itself{number}@example.org");
        let another_login = format!("another{number}@example.org");
        let itself = root.create_user(&login);
        let another = root.create_user(&another_login);
        let third = root.create_user(&format!("third{number}@example.org"));
        if matches!(actor, Actor::Admin | Actor::AdminByToken) {
            root.ok(
                "user",
                "update",
                json!({"user_id": itself, "role": "admin"}),
            );
        }
        let mut theirs = daemon.stranger();
        let their_session = theirs.login(&another_login, "s3cret");
        let mut client = match actor {
            Actor::Trusted => daemon.client(),
            _ => daemon.stranger(),
        };
        let mut token_of = |user: &str| {
            let data = json!({"name": "bot", "user_id": user});
            let token = root.ok("session", "token_create", data);
            ["token_id", "token"].map(|field| token[field].as_str().unwrap().to_owned())
        };
        let [my_token, token] = token_of(&itself);
        let [their_token, _] = token_of(&another);
        match actor {
            Actor::Trusted | Actor::Stranger => {}
            Actor::ByToken | Actor::AdminByToken => {
                client.ok("session", "login", json!({"token": token}));
            }
            _ => {
                client.login(&login, "s3cret");
            }
        }
        let here = match actor {
            Actor::Creator | Actor::Departed => client.create_conversation("here", &[&another]),
            Actor::Member | Actor::Former | Actor::ByToken => {
                theirs.create_conversation("here", &[&itself])
            }
            _ => theirs.create_conversation("here", &[]),
        };
        let elsewhere = theirs.create_conversation("elsewhere", &[]);
        let my_message = root.send_message(&here, &itself, "mine");
        let their_message = root.send_message(&here, &another, "theirs");
        let message_elsewhere = root.send_message(&elsewhere, &another, "elsewhere");
        if matches!(actor, Actor::Former | Actor::Departed) {
            root.ok(
                "conversation",
                "remove_members",
                json!({"conversation_id": here, "user_ids": [itself]}),
            );
        }
        let my_session = client.ok("session", "get", json!({}));
        Self {
            my_session: my_session["session_id"].as_str().unwrap().to_owned(),
            free_login: format!("free{number}@example.org"),
            client,
            itself,
            login,
            token,
            another,
            another_login,
            third,
            here,
            elsewhere,
            my_message,
            their_message,
            message_elsewhere,
            my_token,
            their_token,
            their_session,
            _theirs: theirs,
        }
    }

    /// What a command is sent with, for the object that a row names.
    pub fn data(&self, subclass: &str, cmd: &str, object: &str) -> Value {
        match (subclass, cmd) {
            ("user", _) => self.of_user(cmd, object),
            ("conversation", _) => self.of_conversation(cmd, object),
            ("message", _) => self.of_message(cmd, object),
            ("event", "get_subscriptions") => json!({}),
            ("event", "send") => json!({"type": "typing", "obj_id": self.conversation(object)}),
            ("event", _) => json!({"obj_id": self.conversation(object)}),
            ("session" | "server", _) => self.of_session(cmd, object),
            _ => panic!("no data for {subclass} {cmd}"),
        }
    }

    fn user(&self, object: &str) -> &str {
        match object {
            "itself" | "my_role" | "my_password" | "my_unproven" | "my_short" => &self.itself,
            "another" | "its_role" | "its_password" => &self.another,
            "a_third" | "elsewhere" => &self.third,
            _ => panic!("the user {object}"),
        }
    }

    fn conversation(&self, object: &str) -> &str {
        if object == "elsewhere" {
            &self.elsewhere
        } else {
            &self.here
        }
    }

    fn message(&self, object: &str) -> &str {
        match object {
            "mine" => &self.my_message,
            "theirs" => &self.their_message,
            "elsewhere" => &self.message_elsewhere,
            _ => panic!("the message {object}"),
        }
    }

    fn of_user(&self, cmd: &str, object: &str) -> Value {
        match (cmd, object) {
            ("create", _) => {
                let mut data =
                    json!({"login": self.free_login, "name": "new", "password": "s3cret"});
                if object == "with_role" {
                    data["role"] = json!("admin");
                }
                data
            }
            ("update", "my_role" | "its_role") => {
                json!({"user_id": self.user(object), "role": "admin"})
            }
            ("update", "my_unproven" | "its_password") => {
                json!({"user_id": self.user(object), "password": "another"})
            }
            ("update", "my_password" | "my_short") => {
                let password = if object == "my_short" {
                    "another"
                } else {
                    "a good one"
                };
                json!({"user_id": self.user(object), "password": password, "old_password": "s3cret"})
            }
            ("update", _) => json!({"user_id": self.user(object), "name": "Renamed"}),
            ("search", _) => json!({"filter": {"user_id": self.user(object)}}),
            _ => json!({"user_id": self.user(object)}),
        }
    }

    fn of_conversation(&self, cmd: &str, object: &str) -> Value {
        let conversation = self.conversation(object);
        match cmd {
            "create" => json!({"name": "new", "user_ids": [self.user(object)]}),
            "update" => json!({"conversation_id": conversation, "name": "renamed"}),
            "add_members" | "remove_members" => {
                json!({"conversation_id": conversation, "user_ids": [self.user(object)]})
            }
            "search" => json!({"filter": {"conversation_id": conversation}, "fields": "_all"}),
            _ => json!({"conversation_id": conversation}),
        }
    }

    fn of_message(&self, cmd: &str, object: &str) -> Value {
        let conversation = self.conversation(object);
        match (cmd, object) {
            ("create", "unnamed") => json!({"conversation_id": conversation, "message": "hello"}),
            ("create", _) => {
                let user = match object {
                    "elsewhere" => &self.itself,
                    _ => self.user(object),
                };
                json!({"conversation_id": conversation, "user_id": user, "message": "hello"})
            }
            ("get", _) => json!({"message_id": self.message(object)}),
            ("search", _) => json!({"filter": {"message_id": self.message(object)}}),
            _ => {
                let mut data =
                    json!({"conversation_id": conversation, "message_id": self.message(object)});
                if cmd == "update" {
                    data["message"] = json!("changed");
                }
                data
            }
        }
    }

    fn of_session(&self, cmd: &str, object: &str) -> Value {
        let is_mine = object == "mine";
        let pick = |mine: &str, theirs: &str| json!(if is_mine { mine } else { theirs });
        match cmd {
            "login" if object == "named" => {
                json!({"user_id": self.another, "remote": "192.0.2.7"})
            }
            "login" => {
                let login = match object {
                    "itself" => &self.login,
                    _ => &self.another_login,
                };
                json!({"login": login, "password": "s3cret"})
            }
            "token_create" | "token_list" => {
                let mut data = json!({});
                if cmd == "token_create" {
                    data["name"] = json!("bot");
                }
                if object != "unnamed" {
                    data["user_id"] = json!(self.user(object));
                }
                data
            }
            "token_delete" => json!({"token_id": pick(&self.my_token, &self.their_token)}),
            "stop" => json!({"session_id": pick(&self.my_session, &self.their_session)}),
            _ => json!({}),
        }
    }
}
