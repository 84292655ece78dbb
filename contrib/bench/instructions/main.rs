//! The hot paths, one at a time, so often as told: for counting instructions, not for taking time.
//!
//! contrib/bench/guard runs each under callgrind twice, with a small and a large count: the difference, divided by the
//! difference of the counts, is what one costs, whatever the preparations cost and on whatever threads it runs. The time
//! and the ids are the same in every run. The dearest lines (worst.rs) are counted in the same way; `lines` names them.

mod worst;

use bytes::{Bytes, BytesMut};
use chatd::command::{self, Action, Context, NewUser, ServerInfo, Step};
use chatd::counters::Counters;
use chatd::error::Code;
use chatd::limits::Limits;
use chatd::model::{
    Clock, ConversationId, EventType, Id, Message, MessageId, PasswordHash, Subclass, UserId,
};
use chatd::store::{self, Answer, Asker, Ended, Outcome, Principal, Settings, Store};
use chatd::wire::{self, EventBody, LineDecoder};
use std::error::Error;
use std::hint::black_box;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::codec::Decoder;

type Done<T> = Result<T, Box<dyn Error>>;

/// The time at which everything happens.
const NOW_MS: u64 = 1_795_000_000_000;
/// Messages in the conversation whose pages are read.
const MESSAGES: usize = 500;
/// Bytes in a message.
const MESSAGE_BYTES: usize = 200;
/// Operations that wait together, as those of many connections do.
const TOGETHER: usize = 64;

fn main() -> Done<()> {
    let mut arguments = std::env::args().skip(1);
    let (name, count) = (arguments.next(), arguments.next());
    if name.as_deref() == Some("lines") {
        println!("{}", worst::names().join("\n"));
        return Ok(());
    }
    let count = count.ok_or("which hot path, and how often?")?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        match name.as_deref().unwrap_or_default() {
            "decode" => return decode(count),
            "send" => return send(count).await,
            "event" => event(count),
            "reply" => reply(count),
            "page" => return page(count).await,
            name => match name.strip_prefix("line ") {
                Some(name) => return worst::run(name, count),
                None => return Err("there are decode, send, event, reply, page and lines".into()),
            },
        }
        Ok(())
    })
}

/// Cuts a line, takes it apart, and reads its fields.
fn decode(count: usize) -> Done<()> {
    let (connection, line) = (
        Connection::new(),
        send_line("0000000000001", "0000000000002"),
    );
    let mut decoder = LineDecoder::new(connection.limits.max_line_bytes);
    let mut buffer = BytesMut::new();
    for _ in 0..count {
        buffer.extend_from_slice(line.as_bytes());
        let line = decoder.decode(&mut buffer)?.ok_or("no line")?;
        let line = line.map_err(|error| format!("no line: {error:?}"))?;
        black_box(connection.step(&line)?);
    }
    Ok(())
}

/// Decides a message, with the event that it causes, and commits it to the store in memory.
async fn send(count: usize) -> Done<()> {
    let chat = Chat::new().await?;
    chat.send(count.div_ceil(TOGETHER) * TOGETHER).await
}

/// Encodes the event of a message.
fn event(count: usize) {
    let text = "x".repeat(MESSAGE_BYTES);
    let (conversation, user) = (Id(1), UserId(Id(2)));
    let message = Message {
        message_id: MessageId(Id(3)),
        conversation_id: ConversationId(conversation),
        user_id: user,
        message: text.as_str().into(),
        created_time: NOW_MS,
        updated_time: None,
    };
    for seq in 1..=count as u64 {
        black_box(wire::event_line(
            Subclass::Conversation,
            EventType::CreatedMessage,
            conversation,
            Some(&EventBody::Message(&message)),
            seq,
            NOW_MS,
            Some(user),
        ));
    }
}

/// Encodes the answer to a message.
fn reply(count: usize) {
    let data = Bytes::from_static(br#"{"message_id":"0000000000003"}"#);
    for _ in 0..count {
        black_box(wire::reply_line(&Ok(data.clone()), Some(b"12345")));
    }
}

/// Reads the newest 50 of a conversation.
async fn page(count: usize) -> Done<()> {
    let chat = Chat::new().await?;
    chat.send(MESSAGES).await?;
    let line = format!(
        r#"{{"class":"chat","subclass":"message","cmd":"search","data":{{"filter":{{"conversation_id":"{}"}},"fields":"_all","sort_order":"desc","size":50}}}}"#,
        chat.conversation
    );
    for _ in 0..count {
        let Step::Act(Action::Read(query)) = chat.connection.step(line.as_bytes())? else {
            return Err("a search is a query".into());
        };
        let answer = chat
            .store
            .query(Principal::Trusted, Asker::Connection(1), query)
            .await;
        let page: Bytes = answer
            .map(Answer::into_data)
            .map_err(|error| refused(&error))?;
        if memchr::memmem::find_iter(&page, br#""message_id""#).count() != 50 {
            return Err("a page has 50 rows".into());
        }
    }
    Ok(())
}

/// What a command sees of its connection.
struct Connection {
    limits: Limits,
    counters: Counters,
}

impl Connection {
    fn new() -> Self {
        Self {
            limits: Limits::default(),
            counters: Counters::default(),
        }
    }

    fn step(&self, line: &[u8]) -> Done<Step> {
        self.answer(line).map_err(|error| refused(&error))
    }

    /// What a line asks for, or why it is refused.
    fn answer(&self, line: &[u8]) -> Result<Step, chatd::error::Error> {
        let server = || ServerInfo {
            uptime_seconds: 1,
            connections: 1,
            seq: 1,
            epoch: Id(8),
            counters: &self.counters,
            memory_bytes_pending: 0,
        };
        let context = Context {
            by: Principal::Trusted,
            limits: &self.limits,
            server: &server,
        };
        let envelope = match wire::parse_envelope(line) {
            Ok(envelope) => envelope,
            Err(refusal) if refusal.error.code() == Code::BadJson => {
                return Err(command::explained(refusal.error, line, &context));
            }
            Err(refusal) => return Err(refusal.error),
        };
        let row = command::find(&envelope.subclass, &envelope.cmd)?;
        command::run(row, envelope.data, &context)
    }
}

/// A store in memory, with a user and a conversation.
struct Chat {
    connection: Connection,
    store: Store,
    user: String,
    conversation: String,
}

impl Chat {
    async fn new() -> Done<Self> {
        let settings = Settings {
            keep_ms: 1000,
            search_time: Duration::from_secs(60),
            memory: std::sync::Arc::new(chatd::memory::Memory::new(
                &chatd::limits::Limits::default(),
            )),
            directory: chatd::model::Directory::Everyone,
            quota: store::Amount::default(),
            max_message_bytes: 16_384,
            must_exist: false,
            upgrade: false,
            clock: Clock::manual(NOW_MS),
        };
        let on_commit = Box::new(|events: &[_], _: &_| {
            black_box(events);
        });
        let mut chat = Self {
            connection: Connection::new(),
            store: store::open_memory(settings, on_commit)?,
            user: String::new(),
            conversation: String::new(),
        };
        let user = r#"{"class":"chat","subclass":"user","cmd":"create","data":{"login":"ann","name":"Ann","password":"s3cret"}}"#;
        let Step::CreateUser(NewUser {
            then: operation, ..
        }) = chat.connection.step(user.as_bytes())?
        else {
            return Err("a new user's password is hashed".into());
        };
        let hash = PasswordHash::new("no password has this hash".to_owned());
        chat.user = chat.id(operation(hash)).await?;
        let conversation = format!(
            r#"{{"class":"chat","subclass":"conversation","cmd":"create","data":{{"name":"lunch","user_ids":["{}"]}}}}"#,
            chat.user
        );
        let Step::Apply(operation) = chat.connection.step(conversation.as_bytes())? else {
            return Err("a new conversation is a change".into());
        };
        chat.conversation = chat.id(operation).await?;
        Ok(chat)
    }

    async fn id(&self, operation: store::Operation) -> Done<String> {
        let (done, outcome) = oneshot::channel();
        let done = Box::new(|outcome| {
            let _ = done.send(outcome);
        });
        self.store.apply(operation, Ended::default(), done).await;
        match outcome.await?.map_err(|error| refused(&error))? {
            Outcome::User { user_id } => Ok(user_id.to_string()),
            Outcome::Conversation { conversation_id } => Ok(conversation_id.to_string()),
            Outcome::Message { message_id } => Ok(message_id.to_string()),
            Outcome::Done {} | Outcome::Noted { .. } | Outcome::Token { .. } => Ok(String::new()),
        }
    }

    /// Sends messages, as many together as there might be connections.
    async fn send(&self, count: usize) -> Done<()> {
        let line = send_line(&self.conversation, &self.user);
        for _ in 0..count.div_ceil(TOGETHER) {
            let mut outcomes = Vec::with_capacity(TOGETHER);
            for _ in 0..TOGETHER {
                let Step::Apply(operation) = self.connection.step(line.as_bytes())? else {
                    return Err("a message is a change".into());
                };
                let (done, outcome) = oneshot::channel();
                let done = Box::new(|outcome| {
                    let _ = done.send(outcome);
                });
                self.store.apply(operation, Ended::default(), done).await;
                outcomes.push(outcome);
            }
            for outcome in outcomes {
                outcome.await?.map_err(|error| refused(&error))?;
            }
        }
        Ok(())
    }
}

fn send_line(conversation: &str, user: &str) -> String {
    format!(
        "{{\"class\":\"chat\",\"subclass\":\"message\",\"cmd\":\"create\",\"data\":{{\"conversation_id\":\"{conversation}\",\"user_id\":\"{user}\",\"message\":\"{}\"}},\"tid\":12345}}\n",
        "x".repeat(MESSAGE_BYTES)
    )
}

fn refused(error: &chatd::error::Error) -> Box<dyn Error> {
    format!("refused: {error:?}").into()
}
