//! Which passwords there are to be (protocol.md, 7 and 8). What may not be done is refused before anything is hashed.

use super::Session;
use crate::command::{NewPassword, NewUser};
use crate::error::{Code, Error};
use crate::model::{Login, Password, PasswordHash, Role, fold_login};
use crate::store::{Answer, LoginHolder, Operation, Principal, Query, no_old_password};

impl Session {
    /// The change that creates a user, for whoever is logged in or trusted.
    pub(super) async fn new_user(&mut self, asked: NewUser) -> Result<Operation, Error> {
        if self.by != Principal::Trusted {
            self.allow_user(asked.login, asked.role).await?;
        }
        let NewUser { password, then, .. } = asked;
        Ok(then(self.hash(password).await?))
    }

    /// Whether this user may be created.
    pub(super) async fn allow_user(&self, login: Login, role: Option<Role>) -> Result<(), Error> {
        let allowed = self.query(Query::NewUser { login, role }).await;
        allowed.map(drop)
    }

    /// The change of a password. What is sent without need, the old password, must be right all the same.
    pub(super) async fn new_password(&mut self, asked: NewPassword) -> Result<Operation, Error> {
        let NewPassword {
            user,
            password,
            old_password,
            names_role,
            then,
        } = asked;
        if self.by != Principal::Trusted || old_password.is_some() {
            let query = Query::NewPassword { user, names_role };
            let Answer::LoginHolder(Some(holder)) = self.query(query).await? else {
                return Err(Error::internal());
            };
            if self.user() == Some(holder.user) {
                if old_password.is_none() {
                    return Err(no_old_password());
                }
                self.check_choice(&password)?;
            }
            if let Some(old) = old_password {
                let (hash, known) = self.replace(&holder, old, password).await?;
                return Ok(then(hash, Some(known)));
            }
        }
        Ok(then(self.hash(password).await?, None))
    }

    /// The hash of a user's new password, and the hash that the old one fits. That one is verified, and its failures are
    /// counted, as in a login; both are one turn on a thread.
    async fn replace(
        &mut self,
        holder: &LoginHolder,
        old_password: Password,
        password: Password,
    ) -> Result<(PasswordHash, PasswordHash), Error> {
        let folded = fold_login(&holder.login);
        let found = self.verify(&folded, old_password, Some(password)).await?;
        let right = found.filter(|(found, _)| found.user == holder.user);
        if let Some((found, Some(hash))) = right {
            return Ok((hash, found.password_hash));
        }
        self.shared.counters.failed_logins.add();
        let text = "old_password is not the password of this user";
        Err(Error::new(Code::LoginFailed, text).field("old_password"))
    }

    /// Refuses a password that its user chooses too short.
    pub(super) fn check_choice(&self, password: &Password) -> Result<(), Error> {
        let least = self.shared.password_min_bytes;
        if password.bytes() >= least {
            return Ok(());
        }
        let text = format!("password must have at least {least} bytes where a user chooses it");
        Err(Error::invalid("password", text))
    }

    /// The hash of a password, for whoever is logged in or trusted.
    async fn hash(&mut self, password: Password) -> Result<PasswordHash, Error> {
        let caller = self.caller(&self.user());
        let thread = self.thread(None, caller).await?;
        self.shared.hasher.hash(password, thread).await
    }
}
