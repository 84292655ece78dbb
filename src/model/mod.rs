//! The domain's validated types: ids, texts, users, conversations, messages, searches, events.
//!
//! A value of one of these types is valid wherever it stands: it was checked when it was made, at the edge. Nothing
//! here knows the wire's envelope, the store, or a connection.

mod clock;
mod directory;
mod event;
mod events;
mod id;
mod object;
mod search;
mod text;
mod token;
mod value;

pub use clock::{Clock, ClockNote, Moment};
pub use directory::Directory;
pub use event::{Audience, Company, Event, EventType, Seq, Sight, Subclass};
pub use events::{Events, Gathered};
pub use id::{ConversationId, ID_CHARS, Id, IdMaker, IdText, MessageId, TokenId, UserId};
pub use object::{
    Conversation, Field, FieldKind, FieldValue, Kind, Message, Object, Projection, Role, User,
};
pub use search::{Comparison, Condition, Search, Test};
pub use text::{Unmatchable, Words, acts_on_text, fold_login, is_default_ignorable};
pub use token::{Token, TokenHash};
pub use value::{
    CustomType, Description, Given, Login, MessageText, Name, Nonce, Password, PasswordHash, Rule,
    Surname, Text, TriedLogin,
};
