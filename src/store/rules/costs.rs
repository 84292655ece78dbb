//! With which cost the passwords are hashed: what is computed for a login that nobody has takes as long as for most others.

use crate::error::Error;
use crate::model::PasswordHash;
use crate::store::keys;
use crate::store::rows::{self, CostsRow, UserRow};
use crate::store::state::State;
use crate::store::txn::Txn;

/// Notes that a user is about to get another hash: its first one, another one, or none any more.
pub fn note(
    txn: &mut Txn<'_>,
    before: Option<&PasswordHash>,
    after: Option<&PasswordHash>,
) -> Result<(), Error> {
    let [before, after] = [before, after].map(|hash| hash.and_then(PasswordHash::cost));
    if before == after {
        return Ok(());
    }
    let mut costs = match txn.row::<CostsRow>(keys::COSTS)? {
        Some(costs) => costs,
        None => count(txn)?,
    };
    if let Some(users) = of(&mut costs, before) {
        *users = users.saturating_sub(1);
    }
    if let Some(users) = of(&mut costs, after) {
        *users += 1;
    }
    txn.put_row(keys::COSTS, &costs)
}

/// The cost that most hashes have, the higher of two; none if there is none.
pub fn usual(state: &dyn State) -> Result<Option<u32>, Error> {
    let Some(row) = state.get(keys::COSTS)? else {
        return Ok(None);
    };
    let costs = rows::decode::<CostsRow>(&row)?;
    let most = (0..).zip(costs.users).max_by_key(|&(_, users)| users);
    Ok(most.filter(|&(_, users)| users > 0).map(|(cost, _)| cost))
}

/// Counts them: once, where the data is from before they were noted.
fn count(txn: &Txn<'_>) -> Result<CostsRow, Error> {
    let mut costs = CostsRow::default();
    if txn.head.users > 0 {
        for entry in txn.scan(&keys::prefix(b"u")) {
            let row = entry?.1;
            let cost = rows::decode::<UserRow<'_>>(&row)?.hash().cost();
            if let Some(users) = of(&mut costs, cost) {
                *users += 1;
            }
        }
    }
    Ok(costs)
}

fn of(costs: &mut CostsRow, cost: Option<u32>) -> Option<&mut u64> {
    costs.users.get_mut(usize::try_from(cost?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Given, Login, Name, UserId};
    use crate::store::operation::{Change, Outcome, Patch, Principal, Query};
    use crate::store::steps::Steps;

    fn hash(cost: u32, salt: &str) -> PasswordHash {
        PasswordHash::new(format!("$2b${cost:02}${salt}"))
    }

    fn create(steps: &mut Steps, login: &str, cost: u32) -> UserId {
        let change = Change::CreateUser {
            login: Login::new(login.to_owned()).unwrap(),
            name: Name::new(login.to_owned()).unwrap(),
            surname: None,
            password: hash(cost, login),
            role: None,
        };
        match steps.apply(change) {
            Outcome::User { user_id } => user_id,
            other => panic!("{other:?}"),
        }
    }

    fn update(user: UserId, password: PasswordHash) -> Change {
        Change::UpdateUser {
            user: Given::Id(user),
            name: None,
            surname: Patch::Keep,
            password: Some(password),
            old_password: None,
            keep_tokens: false,
            role: None,
        }
    }

    #[test]
    fn the_usual_cost_is_that_of_most_users() {
        let mut steps = Steps::new();
        let usual = |steps: &Steps| usual(&steps.state).unwrap();
        assert_eq!(usual(&steps), None);
        let ann = create(&mut steps, "ann", 10);
        let ben = create(&mut steps, "ben", 10);
        assert_eq!(usual(&steps), Some(10));
        create(&mut steps, "cy", 12);
        assert_eq!(usual(&steps), Some(10));
        // Of two, the higher one.
        steps.delete_user(ben);
        assert_eq!(usual(&steps), Some(12));
        create(&mut steps, "di", 10);
        assert_eq!(usual(&steps), Some(10));
        steps.apply(update(ann, hash(12, "new")));
        assert_eq!(usual(&steps), Some(12));
        // Data from before this was noted is counted with the first change.
        steps.state.remove(keys::COSTS);
        assert_eq!(usual(&steps), None);
        for number in 0..2 {
            create(&mut steps, &format!("user-{number}"), 10);
        }
        assert_eq!(usual(&steps), Some(10));
        steps.apply(update(ann, hash(10, "new")));
        steps.state.remove(keys::COSTS);
        steps.delete_user(ann);
        let row = steps.state.get(keys::COSTS).unwrap();
        let costs: CostsRow = rows::decode(row).unwrap();
        assert_eq!((costs.users[10], costs.users[12]), (3, 1));
    }

    #[test]
    fn a_hash_is_renewed_only_if_its_password_was_not_changed() {
        let mut steps = Steps::new();
        let ann = create(&mut steps, "ann", 10);
        let shown = |steps: &Steps| {
            let query = Query::User(Given::Id(ann));
            steps.query(Principal::Trusted, &query)
        };
        let before = (shown(&steps), steps.events.len());
        let renew = |known: PasswordHash| Change::RenewHash {
            user: ann,
            known,
            hash: hash(12, "renewed"),
        };
        steps.apply(renew(hash(10, "another")));
        assert_eq!(usual(&steps.state).unwrap(), Some(10));
        steps.apply(renew(hash(10, "ann")));
        assert_eq!(usual(&steps.state).unwrap(), Some(12));
        let row = steps.state.get(&keys::user(ann)[..]).unwrap();
        let kept = rows::decode::<UserRow<'_>>(row).unwrap().hash();
        assert!(kept == hash(12, "renewed"));
        // Nobody is told.
        assert_eq!((shown(&steps), steps.events.len()), before);
        steps.delete_user(ann);
        steps.apply(renew(hash(12, "renewed")));
        assert_eq!(usual(&steps.state).unwrap(), None);
    }
}
