//! People who sign in, and their sessions. Passwords and sessions are hashes here.
//!
//! A session is looked up with its user each time, so a new role or a disabled user counts from the
//! next request on. What they approved counts with the role that they have now, so each of these changes
//! moves every lane on. Every change writes its line of the history in the same transaction. Somebody can
//! always administer the server: whoever would take away the last admin is refused.

use super::codec::{Row, micros};
use super::conn::AnyConnection;
use super::events::Line;
use super::schema::{sessions, user_emails, users};
use super::{Result, Store, StoreError, User, audit, lane, tokens};
use diesel::prelude::*;
use jiff::Timestamp;
use roadstead_pipelines::authorship::Addresses;
use roadstead_pipelines::spec::Role;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

type UserRecord = (String, String, String, i64, Option<i64>, Option<i64>);

fn read_user(record: UserRecord) -> Result<User> {
    let (name, password_hash, role, created_at, disabled_at, last_sign_in_at) = record;
    let row = Row("user", &name);
    Ok(User {
        role: row.word("role", &role)?,
        created_at: row.time(created_at)?,
        disabled_at: row.maybe_time(disabled_at)?,
        last_sign_in_at: row.maybe_time(last_sign_in_at)?,
        name,
        password_hash,
        emails: Addresses::new(),
    })
}

/// The addresses of every user, by name.
pub(super) fn addresses(connection: &mut AnyConnection) -> Result<BTreeMap<String, Addresses>> {
    let found: Vec<(String, String)> = user_emails::table.load(connection)?;
    let mut all = BTreeMap::<String, Addresses>::new();
    for (email, user) in found {
        all.entry(user).or_default().insert(email);
    }
    Ok(all)
}

fn addresses_of(connection: &mut AnyConnection, name: &str) -> Result<Addresses> {
    let found: Vec<String> = user_emails::table
        .filter(user_emails::user_name.eq(name))
        .select(user_emails::email)
        .load(connection)?;
    Ok(found.into_iter().collect())
}

/// A user whose row nobody else changes until the transaction ends.
pub(super) fn locked(connection: &mut AnyConnection, name: &str) -> Result<User> {
    let found = diesel::update(users::table.find(name))
        .set(users::created_at.eq(users::created_at))
        .execute(connection)?;
    if found == 0 {
        return Err(StoreError::not_found(format!("user `{name}`")));
    }
    read_user(users::table.find(name).first(connection)?)
}

/// The user, unless they are disabled.
pub(super) fn active(connection: &mut AnyConnection, name: &str) -> Result<Option<User>> {
    let found: Option<UserRecord> = users::table
        .find(name)
        .filter(users::disabled_at.is_null())
        .first(connection)
        .optional()?;
    found.map(read_user).transpose()
}

/// Refuses to go on when `name` is the last admin that can sign in.
fn keep_an_admin(connection: &mut AnyConnection, name: &str) -> Result<()> {
    let admins = || users::table.filter(users::role.eq(Role::Admin.as_str()));
    // Locks every admin's row: two admins cannot take away each other at the same moment.
    diesel::update(admins())
        .set(users::role.eq(Role::Admin.as_str()))
        .execute(connection)?;
    let others: i64 = admins()
        .filter(users::disabled_at.is_null())
        .filter(users::name.ne(name))
        .count()
        .get_result(connection)?;
    if others > 0 {
        return Ok(());
    }
    Err(StoreError::conflict(format!(
        "`{name}` is the last admin: make somebody else an admin first"
    )))
}

fn end_sessions_of(connection: &mut AnyConnection, name: &str) -> Result<usize> {
    Ok(diesel::delete(sessions::table.filter(sessions::user_name.eq(name))).execute(connection)?)
}

/// What changed is nothing that may be shown.
const NO_TURN: (Value, Value) = (Value::Null, Value::Null);

fn tell(
    connection: &mut AnyConnection,
    user: &str,
    (by, now): (&str, Timestamp),
    what: &str,
    (before, after): (Value, Value),
    detail: &Value,
) -> Result<()> {
    let line = Line {
        at: now,
        project: None,
        subject: &format!("user {user}"),
        actor: by,
        what,
        before,
        after,
        detail,
    };
    audit::append(connection, &line)
}

/// Makes `emails` the addresses of a user, whose row this transaction has.
fn replace_emails(
    connection: &mut AnyConnection,
    name: &str,
    emails: &Addresses,
    by: (&str, Timestamp),
) -> Result<()> {
    let before = addresses_of(connection, name)?;
    if before == *emails {
        return Ok(());
    }
    let others: Option<(String, String)> = user_emails::table
        .filter(user_emails::email.eq_any(emails))
        .filter(user_emails::user_name.ne(name))
        .first(connection)
        .optional()?;
    if let Some((email, user)) = others {
        let message = format!("{email} is the address of `{user}` already");
        return Err(StoreError::conflict(message));
    }
    diesel::delete(user_emails::table.filter(user_emails::user_name.eq(name)))
        .execute(connection)?;
    for email in emails {
        diesel::insert_into(user_emails::table)
            .values((
                user_emails::email.eq(email),
                user_emails::user_name.eq(name),
            ))
            .execute(connection)?;
    }
    lane::bump_all(connection)?;
    let detail = json!({"from": before, "to": emails});
    let turn = (json!(before), json!(emails));
    tell(connection, name, by, "emails_changed", turn, &detail)
}

impl Store {
    /// Makes a user, who commits with `emails`. No two names differ in case alone.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the name is taken, or an address is somebody else's.
    pub async fn create_user(
        &self,
        name: &str,
        password_hash: &str,
        role: Role,
        emails: &Addresses,
        by: &str,
        now: Timestamp,
    ) -> Result<()> {
        let (name, password_hash, by) = (name.to_owned(), password_hash.to_owned(), by.to_owned());
        let emails = emails.clone();
        self.write(move |c| {
            let names: Vec<String> = users::table.select(users::name).load(c)?;
            let same = |known: &&String| known.to_lowercase() == name.to_lowercase();
            if let Some(known) = names.iter().find(same) {
                return Err(StoreError::conflict(format!(
                    "there is a user `{known}` already"
                )));
            }
            diesel::insert_into(users::table)
                .values((
                    users::name.eq(&name),
                    users::password_hash.eq(&password_hash),
                    users::role.eq(role.as_str()),
                    users::created_at.eq(micros(now)),
                ))
                .execute(c)?;
            let turn = (Value::Null, json!(role));
            let detail = json!({"role": role});
            tell(c, &name, (&by, now), "user_added", turn, &detail)?;
            replace_emails(c, &name, &emails, (&by, now))
        })
        .await
    }

    /// Changes the addresses that a user commits with: all of them, to these. Approvals count by them
    /// from the next plan on. Nothing happens when they are just these already.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] when one of them is somebody else's.
    pub async fn set_emails(
        &self,
        name: &str,
        emails: &Addresses,
        by: &str,
        now: Timestamp,
    ) -> Result<()> {
        let (name, emails, by) = (name.to_owned(), emails.clone(), by.to_owned());
        self.write(move |c| {
            locked(c, &name)?;
            replace_emails(c, &name, &emails, (&by, now))
        })
        .await
    }

    /// Changes a user's password and ends their sessions.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_password(
        &self,
        name: &str,
        password_hash: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<()> {
        let (name, password_hash, by) = (name.to_owned(), password_hash.to_owned(), by.to_owned());
        self.write(move |c| {
            locked(c, &name)?;
            diesel::update(users::table.find(&name))
                .set(users::password_hash.eq(&password_hash))
                .execute(c)?;
            let ended = end_sessions_of(c, &name)?;
            let what = if by == name {
                "password_changed"
            } else {
                "password_reset"
            };
            let detail = json!({"sessions": ended});
            tell(c, &name, (&by, now), what, NO_TURN, &detail)
        })
        .await
    }

    /// Changes what a user may do, from their next request on. Nothing happens when they may do
    /// just that already.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] for the last admin.
    pub async fn set_role(&self, name: &str, role: Role, by: &str, now: Timestamp) -> Result<()> {
        let (name, by) = (name.to_owned(), by.to_owned());
        self.write(move |c| {
            let user = locked(c, &name)?;
            if user.role == role {
                return Ok(());
            }
            if user.role == Role::Admin && user.disabled_at.is_none() {
                keep_an_admin(c, &name)?;
            }
            diesel::update(users::table.find(&name))
                .set(users::role.eq(role.as_str()))
                .execute(c)?;
            lane::bump_all(c)?;
            let detail = json!({"from": user.role, "to": role});
            let turn = (json!(user.role), json!(role));
            tell(c, &name, (&by, now), "role_changed", turn, &detail)
        })
        .await
    }

    /// Lets a user in no more: ends their sessions and revokes their API tokens for good. Nothing
    /// happens when they are disabled already.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] for the last admin.
    pub async fn disable_user(&self, name: &str, by: &str, now: Timestamp) -> Result<()> {
        let (name, by) = (name.to_owned(), by.to_owned());
        self.write(move |c| {
            let user = locked(c, &name)?;
            if user.disabled_at.is_some() {
                return Ok(());
            }
            if user.role == Role::Admin {
                keep_an_admin(c, &name)?;
            }
            diesel::update(users::table.find(&name))
                .set(users::disabled_at.eq(Some(micros(now))))
                .execute(c)?;
            lane::bump_all(c)?;
            let detail = json!({
                "sessions": end_sessions_of(c, &name)?,
                "tokens": tokens::revoke_all_of(c, &name, now)?,
            });
            let turn = (json!("enabled"), json!("disabled"));
            tell(c, &name, (&by, now), "user_disabled", turn, &detail)
        })
        .await
    }

    /// Lets a disabled user in again, with the password and the role of then.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn enable_user(&self, name: &str, by: &str, now: Timestamp) -> Result<()> {
        let (name, by) = (name.to_owned(), by.to_owned());
        self.write(move |c| {
            if locked(c, &name)?.disabled_at.is_none() {
                return Ok(());
            }
            diesel::update(users::table.find(&name))
                .set(users::disabled_at.eq(None::<i64>))
                .execute(c)?;
            lane::bump_all(c)?;
            let turn = (json!("disabled"), json!("enabled"));
            tell(c, &name, (&by, now), "user_enabled", turn, &json!({}))
        })
        .await
    }

    /// A user, disabled or not.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn get_user(&self, name: &str) -> Result<Option<User>> {
        let name = name.to_owned();
        self.read(move |c| {
            let found: Option<UserRecord> = users::table.find(&name).first(c).optional()?;
            let Some(mut user) = found.map(read_user).transpose()? else {
                return Ok(None);
            };
            user.emails = addresses_of(c, &name)?;
            Ok(Some(user))
        })
        .await
    }

    /// Every user, by name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list_users(&self) -> Result<Vec<User>> {
        self.read(|c| {
            let found: Vec<UserRecord> = users::table.order(users::name).load(c)?;
            let mut emails = addresses(c)?;
            let with_emails = |record| {
                let mut user = read_user(record)?;
                user.emails = emails.remove(&user.name).unwrap_or_default();
                Ok(user)
            };
            found.into_iter().map(with_emails).collect()
        })
        .await
    }

    /// Begins a session of a user whose password was just checked, and forgets sessions that have
    /// expired. The trail tells of it, and from which address it was, where that is known.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the user was disabled or got another password meanwhile.
    pub async fn create_session(
        &self,
        token_hash: String,
        checked: &User,
        from: Option<IpAddr>,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<()> {
        let checked = checked.clone();
        self.write(move |c| {
            // Also locks the user's row: whoever disables them ends this session too.
            let same = users::table
                .find(&checked.name)
                .filter(users::password_hash.eq(&checked.password_hash))
                .filter(users::disabled_at.is_null());
            let found = diesel::update(same)
                .set(users::last_sign_in_at.eq(Some(micros(now))))
                .execute(c)?;
            if found == 0 {
                return Err(StoreError::conflict(format!(
                    "`{}` was changed meanwhile: sign in again",
                    checked.name
                )));
            }
            let expired = sessions::table.filter(sessions::expires_at.le(micros(now)));
            diesel::delete(expired).execute(c)?;
            diesel::insert_into(sessions::table)
                .values((
                    sessions::token_hash.eq(&token_hash),
                    sessions::user_name.eq(&checked.name),
                    sessions::created_at.eq(micros(now)),
                    sessions::expires_at.eq(micros(expires_at)),
                ))
                .execute(c)?;
            let detail = json!({"from": from});
            let by = (checked.name.as_str(), now);
            tell(c, &checked.name, by, "signed_in", NO_TURN, &detail)
        })
        .await
    }

    /// The user of a session that has not expired, unless they are disabled.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn session_user(&self, token_hash: &str, now: Timestamp) -> Result<Option<User>> {
        let token_hash = token_hash.to_owned();
        self.read(move |c| {
            let name: Option<String> = sessions::table
                .find(&token_hash)
                .filter(sessions::expires_at.gt(micros(now)))
                .select(sessions::user_name)
                .first(c)
                .optional()?;
            match name {
                Some(name) => active(c, &name),
                None => Ok(None),
            }
        })
        .await
    }

    /// How many sessions of a user have not expired.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn count_sessions(&self, name: &str, now: Timestamp) -> Result<u64> {
        let name = name.to_owned();
        self.read(move |c| {
            let count: i64 = sessions::table
                .filter(sessions::user_name.eq(&name))
                .filter(sessions::expires_at.gt(micros(now)))
                .count()
                .get_result(c)?;
            Ok(count.unsigned_abs())
        })
        .await
    }

    /// Ends a session, and tells it in the trail. One that has ended stays ended.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn delete_session(&self, token_hash: &str, now: Timestamp) -> Result<()> {
        let token_hash = token_hash.to_owned();
        self.write(move |c| {
            let session = sessions::table.find(&token_hash);
            let name: Option<String> = session.select(sessions::user_name).first(c).optional()?;
            let Some(name) = name else {
                return Ok(());
            };
            // Of two that end it at once the second one finds nothing to end.
            if diesel::delete(session).execute(c)? == 0 {
                return Ok(());
            }
            tell(c, &name, (&name, now), "signed_out", NO_TURN, &json!({}))
        })
        .await
    }

    /// Ends every session of a user.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn end_sessions(&self, name: &str, by: &str, now: Timestamp) -> Result<()> {
        let (name, by) = (name.to_owned(), by.to_owned());
        self.write(move |c| {
            locked(c, &name)?;
            let ended = end_sessions_of(c, &name)?;
            let detail = json!({"sessions": ended});
            tell(c, &name, (&by, now), "sessions_ended", NO_TURN, &detail)
        })
        .await
    }
}
