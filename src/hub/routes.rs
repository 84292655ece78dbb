//! How an event finds the connections that may want it, without asking every one.

use super::ConnectionId;
use super::mask::Mask;
use super::sight::Sights;
use super::subscriber::Subscriber;
use crate::model::{Audience, Company, Event, Id, Sight, Subclass, UserId};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;

/// How an event finds the connections that may want it, without asking every one.
#[derive(Debug, Default)]
pub struct Routes {
    /// Those subscribed to an object, and what their subscriptions to it match. A tree, as clients choose the keys, and
    /// there may be very many: it never grows at one stroke.
    by_object: BTreeMap<(Id, ConnectionId), Mask>,
    /// Those subscribed to every object.
    everywhere: FxHashSet<ConnectionId>,
    /// Those of `everywhere` that may see every conversation.
    overseers: FxHashSet<ConnectionId>,
    /// What the users of the others may see.
    sights: Sights,
    /// The user of each connection that sees what a user sees.
    viewers: FxHashMap<ConnectionId, UserId>,
}

/// How an event came to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// It is subscribed to the object: to what its subscriptions to it match.
    Object(Mask),
    /// It is subscribed to every object, and may see every event of this subclass.
    Everything,
    /// Its user is in the conversation.
    Member,
}

/// What says who may see an event.
pub struct Matter<'a> {
    /// Not everybody may: it is about a conversation, or about a user where users see their companions alone.
    pub private: bool,
    /// What it is about.
    pub object: Id,
    /// Whom it adds or removes.
    pub audience: &'a Audience,
    /// About a user whose companions alone may see it: those of them who are known here, without the user itself.
    pub company: Option<&'a FxHashSet<UserId>>,
}

impl<'a> Matter<'a> {
    /// An event; of a user, `company` are its companions, where they alone may see it.
    pub fn of(event: &'a Event, company: Option<&'a FxHashSet<UserId>>) -> Self {
        let company = company.filter(|_| event.subclass == Subclass::User);
        Self {
            private: event.subclass == Subclass::Conversation || company.is_some(),
            object: event.object,
            audience: &event.audience,
            company,
        }
    }
}

impl Routes {
    /// Says with whose eyes a connection sees.
    pub fn view(&mut self, user: UserId, connection: ConnectionId) {
        self.viewers.insert(connection, user);
    }

    /// Whether a user that is followed may see every conversation.
    pub fn sees_everything(&self, user: UserId) -> bool {
        self.sights.sees_everything(user)
    }

    /// Begins to follow what a user may see; true if the rest is still to be loaded.
    pub fn follow(&mut self, user: UserId, connection: ConnectionId) -> bool {
        self.view(user, connection);
        self.sights.follow(user, connection)
    }

    /// Takes in some of what the store says that a user sees, and takes it off `sight`; false once all is taken in.
    pub fn load(&mut self, user: UserId, sight: &mut Sight) -> bool {
        self.sights.load(user, sight)
    }

    /// Forgets some of what is left of users that are gone; false if nothing is left.
    pub fn forget_some(&mut self) -> bool {
        self.sights.forget_some()
    }

    /// Forgets with whose eyes a connection sees.
    pub fn leave(&mut self, connection: ConnectionId) {
        if let Some(user) = self.viewers.remove(&connection) {
            self.sights.leave(user, connection);
        }
    }

    fn of_object(&self, object: Id) -> impl Iterator<Item = (ConnectionId, Mask)> + '_ {
        let all = (object, ConnectionId::MIN)..=(object, ConnectionId::MAX);
        let routes = self.by_object.range(all);
        routes.map(|(&(_, id), &mask)| (id, mask))
    }

    /// What a connection's subscriptions to an object match.
    pub fn mask(&self, object: Id, connection: ConnectionId) -> Mask {
        let mask = self.by_object.get(&(object, connection));
        mask.copied().unwrap_or_default()
    }

    /// The connections that may want an event, and how it comes to them: a connection may come twice, by two routes.
    pub fn of<'a>(
        &'a self,
        matter: &Matter<'a>,
    ) -> impl Iterator<Item = (ConnectionId, Route)> + 'a {
        let object = self.of_object(matter.object);
        let object = object.map(|(id, mask)| (id, Route::Object(mask)));
        let everything = if matter.private {
            &self.overseers
        } else {
            &self.everywhere
        };
        let everything = everything.iter().map(|&id| (id, Route::Everything));
        let members = (matter.private && matter.company.is_none())
            .then(|| self.sights.concerned(matter.object, matter.audience));
        let members = members.into_iter().flatten();
        let itself = matter.company.map(|_| UserId(matter.object));
        let company = matter.company.into_iter().flatten().copied();
        let company = self.sights.connections(company.chain(itself));
        let members = members.chain(company).map(|id| (id, Route::Member));
        object.chain(everything).chain(members)
    }

    /// Whether a connection gets an event by this route: of several, one does, and only if it may see the event.
    pub fn lead(
        &self,
        matter: &Matter<'_>,
        id: ConnectionId,
        to: &Subscriber,
        route: Route,
    ) -> bool {
        match route {
            Route::Object(_) => to.everywhere.is_none() && self.show(matter, to.viewer),
            Route::Everything => true,
            Route::Member => to.everywhere.is_some() && !self.overseers.contains(&id),
        }
    }

    /// Whether somebody may see an event.
    pub fn show(&self, matter: &Matter<'_>, viewer: Option<UserId>) -> bool {
        !matter.private
            || viewer.is_none_or(|user| match matter.company {
                Some(company) => {
                    user.0 == matter.object
                        || company.contains(&user)
                        || self.sights.sees_everything(user)
                }
                None => {
                    self.sights.sees(user, matter.object) || matter.audience.removed.contains(&user)
                }
            })
    }

    /// The companions of an event's user who are followed here, where `company` says where they are.
    pub fn company(&self, event: &Event, company: &Company) -> FxHashSet<UserId> {
        let conversations = company
            .get(&event.object)
            .filter(|_| event.subclass == Subclass::User);
        conversations.map_or_else(FxHashSet::default, |conversations| {
            self.sights.company(UserId(event.object), conversations)
        })
    }

    /// Says that a connection is subscribed to an object, or to more of it.
    pub fn add(&mut self, connection: ConnectionId, object: Id, mask: Mask) {
        *self.by_object.entry((object, connection)).or_default() |= mask;
    }

    /// Says what is left of a connection's subscriptions to an object.
    pub fn set(&mut self, connection: ConnectionId, object: Id, mask: Option<Mask>) {
        match mask {
            Some(mask) => self.by_object.insert((object, connection), mask),
            None => self.by_object.remove(&(object, connection)),
        };
    }

    /// Says that a connection is subscribed to every object.
    pub fn add_everywhere(&mut self, connection: ConnectionId) {
        self.everywhere.insert(connection);
        let viewer = self.viewers.get(&connection);
        if viewer.is_none_or(|&user| self.sights.sees_everything(user)) {
            self.overseers.insert(connection);
        }
    }

    /// Says that a connection is not subscribed to every object any more.
    pub fn remove_everywhere(&mut self, connection: ConnectionId) {
        self.everywhere.remove(&connection);
        self.overseers.remove(&connection);
    }

    /// Takes in what an event lets users see, before it is given out.
    pub fn promote(&mut self, event: &Event) {
        for connection in self.sights.gain(event) {
            if self.everywhere.contains(&connection) {
                self.overseers.insert(connection);
            }
        }
    }

    /// Takes in what an event lets users see no more, after it was given out.
    pub fn demote(&mut self, event: &Event) {
        for connection in self.sights.lose(event) {
            self.overseers.remove(&connection);
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.by_object.is_empty()
            && self.everywhere.is_empty()
            && self.overseers.is_empty()
            && self.viewers.is_empty()
            && self.sights.is_empty()
    }
}
