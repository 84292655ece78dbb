//! What the audit log tells of a connection besides its changes and logins: what an admin reads, and why it was closed.

use super::Session;
use crate::audit::Record;
use crate::command::Row;
use crate::model::MessageId;
use crate::store::Outside;

impl Session {
    /// Tells what an admin reads of conversations that it is not in: a line for each of them, or one for all.
    pub(super) fn audit_reading(&self, row: &Row, message: Option<MessageId>, read: &Outside) {
        let conversations = match read {
            Outside::All => vec![None],
            Outside::Of(ids) => ids.iter().copied().map(Some).collect(),
        };
        let (session, event) = (self.ticket.session(), row.event());
        for conversation in conversations {
            Record {
                object: message.map(|id| id.0),
                ..Record::of_reading(session.as_ref(), &event, conversation)
            }
            .write();
        }
    }

    /// Tells why the server closed the connection, if that lies in what the client did.
    pub(super) fn audit_closing(&self) {
        let reason = self.outbox.close_reason();
        if let Some(reason) = reason.filter(|reason| reason.is_abuse())
            && let Some(session) = self.ticket.session()
        {
            Record::of_closing(Some(&session), &session.remote, reason.as_str()).write();
        }
    }
}
