//! The commands of subclass `event` (protocol.md, 6).

use super::fields::{Body, FieldType, Opaque, fields, list, object, one_of, string, wrong};
use super::{Access, Action, Command, Context, Step, Subscribe};
use crate::error::{Code, Error, excerpt};
use crate::hub::{ANY, Object, Pattern, Type};
use crate::limits::{Limits, OPAQUE_MAX_BYTES};
use crate::model::{ConversationId, CustomType, EventType, Given, Seq, Subclass};
use crate::spelling::{nearest, there_are};
use serde_json::value::RawValue;

/// One name, or a list of names, of which `"*"` stands for every one.
pub struct Names(Vec<Type>);

impl FieldType for Names {
    fn describe(_: &Limits) -> String {
        format!("string of 1 to {OPAQUE_MAX_BYTES} bytes, or a list of them; \"*\" for every one")
    }

    fn parse(raw: &RawValue, limits: &Limits) -> Result<Self, Error> {
        let raws = if raw.get().starts_with('[') {
            list(raw)?
        } else {
            vec![raw]
        };
        if raws.is_empty() {
            return Err(wrong("must name at least one"));
        }
        let types = raws.into_iter().map(|raw| {
            let Opaque(name) = Opaque::parse(raw, limits)?;
            Ok(Type::new(&name))
        });
        types.collect::<Result<_, _>>().map(Self)
    }
}

/// A subclass that has events; every one, where there is none (protocol.md, 6).
pub struct SubclassName(Option<Subclass>);

/// The subclasses that have events.
const WITH_EVENTS: [&str; 2] = [Subclass::User.as_str(), Subclass::Conversation.as_str()];

/// The types that events of users have.
const OF_USERS: [&str; 3] = [
    EventType::Created.as_str(),
    EventType::Updated.as_str(),
    EventType::Deleted.as_str(),
];
/// Types in one request in which slips are looked for: a request costs no more, however many it names.
const SLIPS_LOOKED_FOR: usize = 64;

impl FieldType for SubclassName {
    fn describe(_: &Limits) -> String {
        format!("{}, or \"*\"", WITH_EVENTS.join(", "))
    }

    fn parse(raw: &RawValue, _: &Limits) -> Result<Self, Error> {
        let name = string(raw)?;
        if name == ANY || WITH_EVENTS.contains(&&*name) {
            return Ok(Self(Subclass::parse(&name)));
        }
        let subscribe_to = there_are(&name, &WITH_EVENTS);
        Err(wrong(match Subclass::parse(&name) {
            Some(Subclass::Message) => {
                "has no events of its own: those of messages are created_message, updated_message and deleted_message of subclass conversation".to_owned()
            }
            Some(_) => format!("has no events; subscribe to another subclass: {subscribe_to}, and \"*\" for both"),
            None => format!(
                "is no subclass: {}; {subscribe_to}",
                excerpt(&name)
            ),
        }))
    }
}

/// `"chat"`, or `"*"`.
#[derive(Clone, Copy)]
pub struct ClassName;

impl FieldType for ClassName {
    fn describe(_: &Limits) -> String {
        "\"chat\" or \"*\"".to_owned()
    }

    fn parse(raw: &RawValue, _: &Limits) -> Result<Self, Error> {
        one_of(raw, &[("chat", Self), (ANY, Self)])
    }
}

/// What the fields of a subscription match. There is one class: it is checked where it is read, and matches every event.
fn pattern(
    _: Option<ClassName>,
    subclass: Option<SubclassName>,
    kind: Option<Names>,
    obj_id: Option<&Opaque>,
) -> Pattern {
    Pattern {
        subclass: subclass.and_then(|SubclassName(subclass)| subclass),
        types: kind.map_or_else(|| vec![Type::Stored(None)], |Names(types)| types),
        object: Object::new(obj_id.map_or(ANY, |Opaque(text)| text)),
    }
}

/// A list of subscriptions, each an object.
pub struct Patterns(Vec<Pattern>);

impl FieldType for Patterns {
    fn describe(_: &Limits) -> String {
        "list of objects with class, subclass, type and obj_id".to_owned()
    }

    fn parse(raw: &RawValue, limits: &Limits) -> Result<Self, Error> {
        fields! {
            /// One of several subscriptions.
            Element {
                /// Always "chat".
                class: Option<ClassName>,
                /// The subclass.
                subclass: Option<SubclassName>,
                /// The types.
                r#type: Option<Names>,
                /// The object.
                obj_id: Option<Opaque>,
            }
        }
        let mut subscriptions = Vec::new();
        for raw in list(raw)? {
            let object =
                object(raw, "a subscription")?.ok_or_else(|| wrong("must be a list of objects"))?;
            let Element {
                class,
                subclass,
                r#type,
                obj_id,
            } = super::Fields::parse(&object, limits)?;
            subscriptions.push(pattern(class, subclass, r#type, obj_id.as_ref()));
        }
        if subscriptions.is_empty() {
            return Err(wrong("must have at least one subscription"));
        }
        Ok(Self(subscriptions))
    }
}

fields! {
    /// `event subscribe`.
    SubscribeCommand {
        /// Always "chat".
        class: Option<ClassName>,
        /// Events of this subclass only.
        subclass: Option<SubclassName>,
        /// Events of this type, or these types, only.
        r#type: Option<Names>,
        /// Events about this object only.
        obj_id: Option<Opaque>,
        /// Several subscriptions at once, instead of the four fields above.
        subscriptions: Option<Patterns>,
        /// Resume: begin with the stored events after this number.
        since: Option<Seq>,
        /// Which log since counts in, as an earlier answer said.
        epoch: Option<Opaque>,
        /// Whether to be told one's position when caught up, and at most once a minute.
        position: Option<bool>,
    }
}

impl Command for SubscribeCommand {
    const SUBCLASS: Subclass = Subclass::Event;
    const NAME: &'static str = "subscribe";
    const ACCESS: Access = Access::Users;
    const HELP: &'static str = "Sends the events that match from now on, or from an earlier one on. A field left out, or \"*\", matches everything.";
    const ANSWER: &'static str = "seq, epoch";
    const EXAMPLE: &'static str = r#"{"subclass":"conversation","obj_id":"01k9conv00001"}"#;
    const ERRORS: &'static [Code] = &[Code::EventsExpired, Code::TooManySubscriptions];

    fn run(self, context: &Context<'_>) -> Result<Step, Error> {
        let single = self.class.is_some()
            || self.subclass.is_some()
            || self.r#type.is_some()
            || self.obj_id.is_some();
        let subscriptions = match self.subscriptions {
            Some(_) if single => {
                let text = "subscriptions stands instead of class, subclass, type and obj_id, not beside them";
                return Err(Error::invalid("subscriptions", text));
            }
            Some(Patterns(subscriptions)) => subscriptions,
            None => vec![pattern(
                self.class,
                self.subclass,
                self.r#type,
                self.obj_id.as_ref(),
            )],
        };
        let count: usize = subscriptions.iter().map(|one| one.types.len()).sum();
        if count > context.limits.max_subscriptions {
            return Err(too_many_subscriptions(context.limits));
        }
        refuse_slips(&subscriptions)?;
        Ok(Step::Act(Action::Subscribe(Subscribe {
            subscriptions,
            since: self.since,
            epoch: self.epoch.map(|Opaque(epoch)| epoch),
            position: self.position.unwrap_or(false),
        })))
    }
}

/// Refuses a type that is nearly one of those that events of users have. They have no others, so it would match nothing;
/// conversations have those of applications besides.
fn refuse_slips(subscriptions: &[Pattern]) -> Result<(), Error> {
    let of_users = subscriptions
        .iter()
        .filter(|wanted| wanted.subclass == Some(Subclass::User));
    let others = of_users
        .flat_map(|wanted| &wanted.types)
        .filter_map(|kind| match kind {
            Type::Other(text) => Some(text),
            Type::Stored(_) => None,
        });
    for text in others.take(SLIPS_LOOKED_FOR) {
        if nearest(text, OF_USERS).is_some() {
            let text = format!(
                "is no type of the events of users: {}; {}",
                excerpt(text),
                there_are(text, &OF_USERS)
            );
            return Err(Error::invalid("type", text));
        }
    }
    Ok(())
}

/// The refusal of a subscription too many.
#[must_use]
pub fn too_many_subscriptions(limits: &Limits) -> Error {
    let text = format!(
        "a connection may have at most {} subscriptions, of {} bytes with what each costs; subscribe to more at once with \"*\"",
        limits.max_subscriptions, limits.max_subscription_bytes
    );
    Error::new(Code::TooManySubscriptions, text)
}

fields! {
    /// `event unsubscribe`.
    Unsubscribe {
        /// As in the subscription.
        class: Option<ClassName>,
        /// As in the subscription.
        subclass: Option<SubclassName>,
        /// As in the subscription.
        r#type: Option<Names>,
        /// As in the subscription.
        obj_id: Option<Opaque>,
    }
}

impl Command for Unsubscribe {
    const SUBCLASS: Subclass = Subclass::Event;
    const NAME: &'static str = "unsubscribe";
    const ACCESS: Access = Access::Users;
    const HELP: &'static str =
        "Ends the subscription that was made with the same fields. Ending none is no error.";
    const ANSWER: &'static str = "";
    const EXAMPLE: &'static str = r#"{"subclass":"conversation","obj_id":"01k9conv00001"}"#;

    fn run(self, _: &Context<'_>) -> Result<Step, Error> {
        let removed = pattern(self.class, self.subclass, self.r#type, self.obj_id.as_ref());
        Ok(Step::Act(Action::Unsubscribe(removed)))
    }
}

fields! {
    /// `event get_subscriptions`.
    GetSubscriptions {}
}

impl Command for GetSubscriptions {
    const SUBCLASS: Subclass = Subclass::Event;
    const NAME: &'static str = "get_subscriptions";
    const ACCESS: Access = Access::Users;
    const HELP: &'static str = "Lists the subscriptions of this connection.";
    const ANSWER: &'static str = "subscriptions: a list of subclass, type, obj_id";
    const EXAMPLE: &'static str = "{}";

    fn run(self, _: &Context<'_>) -> Result<Step, Error> {
        Ok(Step::Act(Action::ListSubscriptions))
    }
}

fields! {
    /// `event send`.
    Send {
        /// The event's type.
        r#type: CustomType,
        /// The conversation it is about.
        obj_id: Given<ConversationId>,
        /// Anything.
        body: Option<Body>,
    }
}

impl Command for Send {
    const SUBCLASS: Subclass = Subclass::Event;
    const NAME: &'static str = "send";
    const ACCESS: Access = Access::Users;
    const HELP: &'static str = "Gives an event to those subscribed now, the sender too, and stores nothing: typing, calls.";
    const ANSWER: &'static str = "";
    const EVENT: Option<&'static str> =
        Some("conversation, with the given type, obj_id and body, and without seq");
    const EXAMPLE: &'static str =
        r#"{"type":"typing","obj_id":"01k9conv00001","body":{"user_id":"01k9user00001"}}"#;
    const ERRORS: &'static [Code] = &[Code::ConversationNotFound];

    fn run(self, _: &Context<'_>) -> Result<Step, Error> {
        let body = self.body.map(|Body(body)| body);
        Ok(Step::Act(Action::Send {
            kind: self.r#type,
            conversation: self.obj_id,
            body,
        }))
    }
}
