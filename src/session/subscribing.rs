//! What a connection subscribes to, and lists (protocol.md, 6).

use super::listing::Listing;
use super::{Session, Shared};
use crate::command::{Row, Subscribe, too_many_subscriptions};
use crate::error::{Code, Error};
use crate::hub::{Begin, Pattern, Size, Wish, subscribed_conversations};
use crate::store::{Answer, Query};
use bytes::Bytes;

impl Session {
    /// Adds subscriptions, where they fit.
    pub(super) async fn subscribe(&self, asked: Subscribe, row: &Row) -> Result<Bytes, Error> {
        let Shared {
            store,
            hub,
            clock,
            limits,
            counters,
            ..
        } = self.shared.as_ref();
        let id = self.ticket.id();
        let existing = hub.size(id);
        let asked_for: Size = asked.subscriptions.iter().map(Pattern::size).sum();
        let fits = |more: Size| {
            let all = existing + more;
            all.count <= limits.max_subscriptions
                && all.bytes <= limits.max_subscription_bytes
                && self.outbox.fits_for_good(more.bytes)
        };
        // Subscribing twice is subscribing once: which of them are new is found out where that matters.
        if !fits(asked_for) && !fits(hub.new_of(id, &asked.subscriptions)) {
            counters.refused_subscriptions.add();
            return Err(too_many_subscriptions(limits));
        }
        let mut begin = Begin::Now;
        let mut outside = None;
        if let Some(since) = asked.since {
            if hub.has_begun(id) {
                let text = "since goes with a connection's first subscription only; resume on a new connection";
                return Err(Error::new(Code::BadRequest, text).field("since"));
            }
            let head = store.log_head(self.asker()).await?;
            let epoch = head.epoch.to_string();
            let other_log = asked.epoch.is_some_and(|asked| asked != epoch);
            if other_log || since > head.seq || since + 1 < head.oldest {
                let text = "the events after since are not stored here; read the present state, then subscribe without since";
                return Err(Error::new(Code::EventsExpired, text)
                    .detail("oldest", head.oldest)
                    .detail("seq", head.seq)
                    .detail("epoch", epoch));
            }
            if since < head.seq {
                // What cannot be read is refused before anything is subscribed.
                store.events_after(since, None, self.asker()).await?;
            }
            begin = Begin::After(since);
        }
        let viewer = self.user();
        if let Some(user) = viewer
            && hub.follow(user, id)
            && let Answer::Sight(mut sight) = store
                .query(self.by, self.asker(), Query::Sight(user))
                .await?
        {
            while hub.show_some(user, &mut sight) {
                tokio::task::yield_now().await;
            }
        }
        if let Some(user) = viewer
            && hub.sees_everything(user)
        {
            let query = Query::Outside(subscribed_conversations(&asked.subscriptions));
            if let Answer::Outside(Some(read)) = store.query(self.by, self.asker(), query).await? {
                outside = Some(read);
            }
        }
        let wish = Wish {
            added: asked.subscriptions,
            begin,
            position: asked.position,
            viewer,
        };
        let (seq, size) = hub.subscribe(id, &self.outbox, wish, clock.now_ms());
        self.outbox.hold(size.bytes);
        let epoch = store.epoch();
        if let Some(read) = outside {
            self.audit_reading(row, None, &read);
        }
        Ok(Bytes::from(format!(r#"{{"seq":{seq},"epoch":"{epoch}"}}"#)))
    }

    /// Lists the subscriptions, in slices between which others have their turn.
    pub(super) async fn list_subscriptions(&self) -> Result<Bytes, Error> {
        let hub = &self.shared.hub;
        let id = self.ticket.id();
        self.keep_room(hub.size(id).bytes).await?;
        let mut listing = Listing::begin("subscriptions");
        let mut last = None;
        loop {
            last = hub.list_some(id, last.as_ref(), |one| listing.add(one));
            if last.is_none() {
                return listing.end();
            }
            tokio::task::yield_now().await;
        }
    }
}
