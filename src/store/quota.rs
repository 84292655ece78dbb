//! How much each user has stored today: rows and bytes, of which a user may store so many in a day (`[limits]`).
//!
//! A day is one of UTC. It is counted in memory, from the start of the daemon on: whoever can start it anew is the
//! operator. What only deletes is never refused, nor is a new password: whoever took a session over must not keep its
//! user from ending that.

use crate::error::{Code, Error};
use crate::limits::QUOTA_USERS_REMEMBERED_MAX;
use crate::model::UserId;
use crate::store::operation::Change;
use rustc_hash::FxHashMap;

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Rows and bytes: what a change stores, or what a user may store in a day. Of the latter, 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Messages, edits, conversations, members that were named, tokens.
    pub rows: u64,
    /// Bytes as they are written, with those of the event.
    pub bytes: u64,
}

/// What the users have stored today.
#[derive(Debug)]
pub struct Quotas {
    most: Amount,
    day: u64,
    users: FxHashMap<UserId, Used>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    amount: Amount,
    /// The log was told that it may store no more.
    told: bool,
}

impl Quotas {
    /// Nothing is stored yet, and so much may be in a day.
    pub fn new(most: Amount) -> Self {
        Self {
            most,
            day: 0,
            users: FxHashMap::default(),
        }
    }

    /// Counts what a user stores now, or refuses it where that is too much and `is_exempt` does not say that it may.
    pub fn charge(
        &mut self,
        user: UserId,
        stored: Amount,
        now_ms: u64,
        is_exempt: impl FnOnce() -> Result<bool, Error>,
    ) -> Result<(), Error> {
        if self.most == Amount::default() || stored == Amount::default() {
            return Ok(());
        }
        if now_ms / DAY_MS != self.day {
            self.day = now_ms / DAY_MS;
            self.users = FxHashMap::default();
        }
        if self.users.len() >= QUOTA_USERS_REMEMBERED_MAX && !self.users.contains_key(&user) {
            self.forget_the_modest();
        }
        let most = self.most;
        let today = self.users.entry(user).or_default();
        let after = Amount {
            rows: today.amount.rows.saturating_add(stored.rows),
            bytes: today.amount.bytes.saturating_add(stored.bytes),
        };
        let over = [
            ("rows", after.rows, most.rows),
            ("bytes", after.bytes, most.bytes),
        ];
        let over = over
            .iter()
            .find(|&&(_, used, most)| most > 0 && used > most);
        if let Some((what, _, most)) = over
            && !is_exempt()?
        {
            if !std::mem::replace(&mut today.told, true) {
                tracing::warn!(%user, what, most, "a user has stored as much as a user may in a day");
            }
            return Err(exceeded(what, *most, DAY_MS - now_ms % DAY_MS));
        }
        today.amount = after;
        Ok(())
    }

    /// Takes back what was counted, since it was not stored after all.
    pub fn give_back(&mut self, user: UserId, stored: Amount) {
        if let Some(today) = self.users.get_mut(&user) {
            today.amount.rows = today.amount.rows.saturating_sub(stored.rows);
            today.amount.bytes = today.amount.bytes.saturating_sub(stored.bytes);
        }
    }

    /// Forgets the half that has stored least: who has stored much stays known.
    fn forget_the_modest(&mut self) {
        let part =
            |amount: u64, most: u64| u128::from(amount) * 1_000_000 / u128::from(most.max(1));
        let most = self.most;
        let share = |used: &Used| {
            let rows = part(used.amount.rows, most.rows);
            let bytes = part(used.amount.bytes, most.bytes);
            match (most.rows, most.bytes) {
                (0, _) => bytes,
                (_, 0) => rows,
                _ => rows.max(bytes),
            }
        };
        let mut shares: Vec<(u128, UserId)> = self
            .users
            .iter()
            .map(|(&user, used)| (share(used), user))
            .collect();
        shares.sort_unstable();
        shares.truncate(shares.len() / 2);
        for (_, user) in shares {
            self.users.remove(&user);
        }
    }
}

/// Rows that a change stores, if it changes anything. None is charged for what it stores where a user may always do it.
pub fn rows_of(change: &Change) -> Option<u64> {
    let rows = match change {
        Change::CreateConversation { users, .. } => 1 + users.len(),
        Change::AddMembers { users, .. } => users.len(),
        Change::UpdateUser { password: None, .. }
        | Change::CreateUser { .. }
        | Change::UpdateConversation { .. }
        | Change::CreateMessage { .. }
        | Change::UpdateMessage { .. }
        | Change::CreateToken { .. } => 1,
        Change::UpdateUser { .. }
        | Change::DeleteUser { .. }
        | Change::DeleteConversation { .. }
        | Change::RemoveMembers { .. }
        | Change::DeleteMessage { .. }
        | Change::DeleteToken { .. }
        | Change::NoteTime
        | Change::UseToken { .. }
        | Change::RenewHash { .. } => return None,
    };
    Some(rows as u64)
}

fn exceeded(what: &str, most: u64, left_ms: u64) -> Error {
    let minutes = left_ms.div_ceil(60_000);
    let text = format!(
        "a user may store {most} {what} in a day (limits.{what}_per_day_per_user); a new day begins at midnight UTC, in \
         {} h {} min; deleting goes on meanwhile",
        minutes / 60,
        minutes % 60
    );
    Error::new(Code::QuotaExceeded, text).detail("retry_after_ms", left_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Id;

    const NOON: u64 = 20_000 * DAY_MS + DAY_MS / 2;

    fn charge(quotas: &mut Quotas, user: u64, amount: (u64, u64), now_ms: u64) -> bool {
        let amount = Amount {
            rows: amount.0,
            bytes: amount.1,
        };
        let charged = quotas.charge(UserId(Id(user)), amount, now_ms, || Ok(false));
        charged.is_ok()
    }

    fn quotas(rows: u64, bytes: u64) -> Quotas {
        Quotas::new(Amount { rows, bytes })
    }

    #[test]
    fn each_user_has_its_own_day_of_rows_and_of_bytes() {
        let mut quotas = quotas(3, 1000);
        for _ in 0..3 {
            assert!(charge(&mut quotas, 1, (1, 10), NOON));
        }
        assert!(!charge(&mut quotas, 1, (1, 10), NOON));
        assert!(charge(&mut quotas, 2, (1, 1000), NOON));
        assert!(!charge(&mut quotas, 2, (1, 1), NOON));
        // What is refused counts for nothing, and less may still fit.
        assert!(charge(&mut quotas, 3, (1, 600), NOON));
        assert!(!charge(&mut quotas, 3, (1, 600), NOON));
        assert!(charge(&mut quotas, 3, (1, 400), NOON));
        let amount = Amount { rows: 1, bytes: 10 };
        let refused = quotas.charge(UserId(Id(1)), amount, NOON, || Ok(false));
        let refused = serde_json::to_value(refused.unwrap_err()).unwrap();
        assert_eq!(refused["code"], "quota_exceeded");
        assert_eq!(refused["retry_after_ms"], DAY_MS / 2);
        // An admin is counted, and not refused.
        assert!(
            quotas
                .charge(UserId(Id(1)), amount, NOON, || Ok(true))
                .is_ok()
        );
        assert!(!charge(&mut quotas, 1, (1, 10), NOON + DAY_MS / 2 - 1));
        assert!(charge(&mut quotas, 1, (1, 10), NOON + DAY_MS / 2));
    }

    #[test]
    fn nothing_is_limited_where_the_limit_is_0_and_what_was_not_stored_is_given_back() {
        let mut quotas = quotas(0, 100);
        assert!(charge(&mut quotas, 1, (1_000_000, 100), NOON));
        assert!(!charge(&mut quotas, 1, (1, 1), NOON));
        let stored = Amount { rows: 1, bytes: 50 };
        quotas.give_back(UserId(Id(1)), stored);
        assert!(charge(&mut quotas, 1, (1, 50), NOON));
        let mut none = Quotas::new(Amount::default());
        assert!(charge(&mut none, 1, (u64::MAX, u64::MAX), NOON));
        assert!(none.users.is_empty());
    }

    #[test]
    fn the_users_that_are_remembered_are_bounded_and_the_greediest_stay() {
        let mut quotas = quotas(10, 1000);
        assert!(charge(&mut quotas, 0, (10, 1), NOON));
        for user in 1..=2 * QUOTA_USERS_REMEMBERED_MAX as u64 {
            assert!(charge(&mut quotas, user, (1, 1), NOON));
        }
        assert!(quotas.users.len() <= QUOTA_USERS_REMEMBERED_MAX);
        assert!(!charge(&mut quotas, 0, (1, 1), NOON));
    }
}
