//! Creating, updating and deleting messages.

use super::conversation::governs;
use super::{Rights, existing_user, forbidden, no_conversation, no_message, visible_conversation};
use crate::error::{Code, Error};
use crate::model::{
    Audience, ConversationId, EventType, Given, Id, MessageId, MessageText, Nonce, Subclass, UserId,
};
use crate::store::keys;
use crate::store::operation::Outcome;
use crate::store::rows::{MessageRow, NonceRow};
use crate::store::state::State;
use crate::store::txn::Txn;
use crate::wire::EventBody;
use sha2::{Digest, Sha256};

pub fn create(
    txn: &mut Txn<'_>,
    rights: Rights,
    (conversation, user): (&Given<ConversationId>, &Given<UserId>),
    text: &MessageText,
    nonce: Option<&Nonce>,
) -> Result<Outcome, Error> {
    let conversation_id = match conversation.id() {
        Some(id) if rights.may_see(txn, id)? && txn.contains(&keys::conversation(id))? => id,
        _ => return Err(no_conversation(conversation)),
    };
    let user_id = existing_user(txn, user)?;
    if !rights.may_act_for(user_id) {
        return Err(forbidden("a user writes as itself only").field("user_id"));
    }
    let nonce_key = nonce.map(|nonce| keys::nonce(conversation_id, user_id, nonce.as_str()));
    let text_hash = nonce_key
        .as_ref()
        .map(|_| Sha256::digest(text.as_str().as_bytes()).into());
    if let (Some(key), Some(text_hash)) = (&nonce_key, text_hash)
        && let Some(first) = txn.row::<NonceRow>(key)?
    {
        let forgotten = first
            .deleted_time
            .is_some_and(|deleted| deleted < txn.kept_since_ms());
        if !forgotten {
            if first.text_hash != text_hash {
                let text = "this nonce was used with another text; a new message needs a new nonce";
                return Err(Error::new(Code::NonceReused, text).field("nonce"));
            }
            return Ok(Outcome::Message {
                message_id: MessageId(Id(first.message)),
            });
        }
        if let Some(deleted) = first.deleted_time {
            txn.remove(&keys::nonce_expiry(deleted, key));
        }
    }
    let message_id = MessageId(txn.new_id());
    let mut counters = txn.counters(conversation_id)?;
    let row = MessageRow {
        user: user_id.0.0,
        ordinal: counters.created,
        created_time: txn.now_ms(),
        updated_time: None,
        nonce: nonce.map(|nonce| nonce.as_str().into()),
        text: text.as_str().into(),
    };
    txn.put_row(&keys::message(conversation_id, message_id), &row)?;
    txn.put(&keys::place(message_id), &conversation_id.0.key());
    let author = keys::author(user_id, conversation_id);
    if !txn.contains(&author)? {
        txn.put(&author, &[]);
    }
    if let (Some(key), Some(text_hash)) = (&nonce_key, text_hash) {
        txn.put_row(
            key,
            &NonceRow {
                message: message_id.0.0,
                text_hash,
                deleted_time: None,
            },
        )?;
    }
    counters.created += 1;
    counters.messages += 1;
    txn.put_row(&keys::counters(conversation_id), &counters)?;
    txn.head.messages += 1;
    emit_message(
        txn,
        rights.user(),
        EventType::CreatedMessage,
        conversation_id,
        message_id,
        &row,
    );
    Ok(Outcome::Message { message_id })
}

pub fn update(
    txn: &mut Txn<'_>,
    rights: Rights,
    (conversation, message): (&Given<ConversationId>, &Given<MessageId>),
    text: MessageText,
) -> Result<Outcome, Error> {
    let (conversation_id, message_id, mut row) =
        visible_message(txn, rights, conversation, message)?;
    if !rights.may_act_for(UserId(Id(row.user))) {
        return Err(forbidden("only a message's author may change it"));
    }
    row.text = text.into_string().into();
    row.updated_time = Some(txn.now_ms());
    txn.put_row(&keys::message(conversation_id, message_id), &row)?;
    emit_message(
        txn,
        rights.user(),
        EventType::UpdatedMessage,
        conversation_id,
        message_id,
        &row,
    );
    Ok(Outcome::Done {})
}

pub fn delete(
    txn: &mut Txn<'_>,
    rights: Rights,
    (conversation, message): (&Given<ConversationId>, &Given<MessageId>),
) -> Result<Outcome, Error> {
    let (conversation_id, message_id, row) = visible_message(txn, rights, conversation, message)?;
    if !rights.may_act_for(UserId(Id(row.user))) {
        let (_, conversation) = visible_conversation(txn, rights, conversation)?;
        if !governs(rights, &conversation) {
            return Err(forbidden(
                "only a message's author or the conversation's creator may delete it",
            ));
        }
    }
    txn.remove(&keys::message(conversation_id, message_id));
    txn.remove(&keys::place(message_id));
    if let Some(nonce) = &row.nonce {
        let key = keys::nonce(conversation_id, UserId(Id(row.user)), nonce);
        if let Some(used) = txn.row::<NonceRow>(&key)? {
            let now = txn.log_ms();
            txn.put_row(
                &key,
                &NonceRow {
                    deleted_time: Some(now),
                    ..used
                },
            )?;
            txn.put(&keys::nonce_expiry(now, &key), &[]);
        }
    }
    let mut counters = txn.counters(conversation_id)?;
    counters.messages -= 1;
    txn.put_row(&keys::counters(conversation_id), &counters)?;
    txn.head.messages -= 1;
    let event = (
        Subclass::Conversation,
        EventType::DeletedMessage,
        conversation_id.0,
    );
    txn.emit(
        rights.user(),
        event,
        Audience::default(),
        Some(&EventBody::MessageId { message_id }),
    );
    Ok(Outcome::Done {})
}

fn visible_message(
    txn: &Txn<'_>,
    rights: Rights,
    conversation: &Given<ConversationId>,
    message: &Given<MessageId>,
) -> Result<(ConversationId, MessageId, MessageRow<'static>), Error> {
    if let (Some(conversation_id), Some(message_id)) = (conversation.id(), message.id())
        && rights.may_see(txn, conversation_id)?
        && txn.contains(&keys::conversation(conversation_id))?
        && let Some(row) = txn.message(conversation_id, message_id)?
    {
        return Ok((conversation_id, message_id, row));
    }
    Err(no_message(message))
}

fn emit_message(
    txn: &mut Txn<'_>,
    by: Option<UserId>,
    kind: EventType,
    conversation: ConversationId,
    message: MessageId,
    row: &MessageRow<'_>,
) {
    let object = row.object(conversation, message);
    let event = (Subclass::Conversation, kind, conversation.0);
    txn.emit(
        by,
        event,
        Audience::default(),
        Some(&EventBody::Message(&object)),
    );
}
