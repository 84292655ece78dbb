//! Events: what happened, numbered, as subscribers receive it (protocol.md, 6).

use crate::model::{Id, UserId};
use bytes::Bytes;
use serde::Serialize;
use std::collections::HashMap;

/// The number of an event: one higher than the one before it across the whole server; 0 before the first.
pub type Seq = u64;

macro_rules! names {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $vdoc:literal])+ $variant:ident = $number:literal $text:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[doc = $vdoc])+ $variant = $number,)+ }

        impl $name {
            /// Every one of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The one with this name on the wire.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }

            /// The number in the journal; never reordered or reused.
            #[must_use]
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// The one with this number in the journal.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

names! {
    /// The parts of the protocol (protocol.md, 2).
    Subclass {
        /// Users and their events.
        User = 1 "user",
        /// Conversations and their events, those of their messages among them.
        Conversation = 2 "conversation",
        /// Messages.
        Message = 3 "message",
        /// Subscriptions.
        Event = 4 "event",
        /// The connection itself.
        Session = 5 "session",
        /// The server itself.
        Server = 6 "server",
    }
}

names! {
    /// The types of the server's own stored events (protocol.md, 4 and 8), spelled as the wire spells them.
    EventType {
        /// A user or conversation was created.
        Created = 1 "created",
        /// A user or conversation was updated.
        Updated = 2 "updated",
        /// A user or conversation was deleted.
        Deleted = 3 "deleted",
        /// Users were added to a conversation.
        AddedMembers = 4 "added_memebers",
        /// Users were removed from a conversation.
        RemovedMembers = 5 "removed_memebers",
        /// A message was created.
        CreatedMessage = 6 "created_message",
        /// A message was updated.
        UpdatedMessage = 7 "updated_message",
        /// A message was deleted.
        DeletedMessage = 8 "deleted_message",
    }
}

impl EventType {
    /// The wire's spelling of a type that a subscription names: the two misspelt ones may be spelled either way.
    #[must_use]
    pub fn canonical(text: &str) -> &str {
        match text {
            "added_members" => Self::AddedMembers.as_str(),
            "removed_members" => Self::RemovedMembers.as_str(),
            other => other,
        }
    }

    /// Whether it is about a message: such an event changes nothing in who may see what.
    #[must_use]
    pub const fn is_of_message(self) -> bool {
        matches!(
            self,
            Self::CreatedMessage | Self::UpdatedMessage | Self::DeletedMessage
        )
    }

    /// Whether an application's own events may not use this type.
    #[must_use]
    pub fn is_reserved(text: &str) -> bool {
        Self::parse(Self::canonical(text)).is_some()
            || matches!(text, "position" | "gap" | "closed")
    }
}

/// Whose sight an event changes.
///
/// That of a conversation: the members that it adds, and those that it lets see this event as the last one. That of a
/// user: the user itself, where the event makes it an admin (added), or one no more (removed).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// Users that are members, or an admin, from this event on.
    pub added: Vec<UserId>,
    /// Users whose membership, or being an admin, this event ends.
    pub removed: Vec<UserId>,
}

/// Which conversations a user may see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// All of them: it is an admin.
    pub everything: bool,
    /// Those that it is a member of.
    pub conversations: Vec<Id>,
}

/// The conversations of the users that some events are about, where users see the events of their companions alone.
pub type Company = HashMap<Id, Vec<Id>>;

/// A committed event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number.
    pub seq: Seq,
    /// The subclass it belongs to.
    pub subclass: Subclass,
    /// Its type.
    pub kind: EventType,
    /// The object it is about.
    pub object: Id,
    /// Whom it adds or removes.
    pub audience: Audience,
    /// The line as it is sent, its end included.
    pub line: Bytes,
}

#[cfg(any(test, fuzzing))]
impl Event {
    /// An event of a user's, for tests of what carries events.
    #[must_use]
    pub fn plain(seq: Seq, line: Bytes) -> Self {
        Self {
            seq,
            subclass: Subclass::User,
            kind: EventType::Created,
            object: Id(seq),
            audience: Audience::default(),
            line,
        }
    }
}
