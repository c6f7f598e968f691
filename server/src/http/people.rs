//! What pages and the API ask of users, passwords and API tokens: one function per verb, used by both.
//! Rules for names and passwords are here; that an admin is always left is the store's.

use super::App;
use super::auth::{self, Via};
use super::error::HttpError;
use super::sign_in_limit::Wait;
use crate::store::{ApiToken, NewApiToken, StoreError, User, hash_secret};
use actix_web::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use roadstead_pipelines::action::Actor;
use roadstead_pipelines::authorship::{Addresses, address};
use roadstead_pipelines::spec::Role;
use std::net::IpAddr;
use std::time::Instant;

/// Nobody's name or password is longer, in bytes.
pub(super) const LONGEST: usize = 256;
/// Bytes of a password that somebody chooses.
const SHORTEST_PASSWORD: usize = 12;
/// Characters of a user's name.
const LONGEST_NAME: usize = 64;

/// The user when the password is theirs.
///
/// # Errors
/// 401 when it is not, with the same words and after the same time whether there is such a user or
/// not; 429 after too many failures.
pub(super) async fn sign_in(
    app: &App,
    client: Option<IpAddr>,
    name: &str,
    password: &str,
) -> Result<User, HttpError> {
    if name.len() > LONGEST || password.len() > LONGEST {
        return Err(HttpError::bad_request(
            "a name or password has at most 256 characters",
        ));
    }
    let user = app.store.get_user(name).await?;
    let known = known(user.as_ref());
    if let Err(wait) = app.sign_ins.begin(name, client, Instant::now()) {
        tracing::warn!(name = known, ?client, "too many failed sign-ins");
        let (whose, seconds) = match wait {
            Wait::Name(_) => ("for this name", wait.seconds()),
            Wait::Address(_) => ("from this address", wait.seconds()),
        };
        let message = format!("too many failed tries {whose}: try again in {seconds} s");
        return Err(HttpError::too_many(message, seconds));
    }
    let active = user.as_ref().filter(|user| user.disabled_at.is_none());
    let stored = active.map(|user| user.password_hash.as_str());
    let holds = auth::password_holds(password, stored).await?;
    let Some(user) = active.filter(|_| holds).cloned() else {
        tracing::info!(name = known, ?client, "a sign-in failed");
        let message = "this name and password do not fit";
        return Err(HttpError::new(StatusCode::UNAUTHORIZED, message));
    };
    app.sign_ins.succeeded(name, client);
    Ok(user)
}

/// What the log calls somebody who tried to sign in: people type passwords where names belong.
fn known(user: Option<&User>) -> &str {
    user.map_or("(unknown)", |user| user.name.as_str())
}

/// Begins a session for somebody at `client`; gives its secret.
///
/// # Errors
/// 409 when the user was changed since their password was checked.
pub(super) async fn begin_session(
    app: &App,
    client: Option<IpAddr>,
    user: &User,
) -> Result<String, HttpError> {
    let secret = auth::new_secret("rss");
    let now = crate::clock::now();
    let end = now + SignedDuration::from_hours(auth::SESSION_HOURS);
    app.store
        .create_session(hash_secret(&secret), user, client, now, end)
        .await?;
    Ok(secret)
}

/// Whether this may be a user's name: the history and approvals show it as who did something.
fn check_name(name: &str) -> Result<(), HttpError> {
    let length = name.chars().count();
    let odd = |c: char| c.is_control() || matches!(c, '/' | '\\');
    if !(1..=LONGEST_NAME).contains(&length) || name.chars().any(odd) || name.trim() != name {
        return Err(HttpError::bad_request(
            "a user's name has 1 to 64 characters, without slashes and without blanks around it",
        ));
    }
    if name.eq_ignore_ascii_case("roadstead") || matches!(name, "." | "..") {
        return Err(HttpError::bad_request(format!(
            "nobody can be called `{name}`"
        )));
    }
    Ok(())
}

fn check_password(name: &str, password: &str) -> Result<(), HttpError> {
    if !(SHORTEST_PASSWORD..=LONGEST).contains(&password.len()) {
        return Err(HttpError::bad_request(
            "a password has 12 to 256 characters",
        ));
    }
    if password.eq_ignore_ascii_case(name) {
        return Err(HttpError::bad_request("a password is not the name"));
    }
    Ok(())
}

/// The password that was given, or a new one; its hash; and whether it is new.
async fn chosen(name: &str, given: Option<&str>) -> Result<(String, Option<String>), HttpError> {
    let made = match given {
        Some(given) => {
            check_password(name, given)?;
            None
        }
        None => Some(auth::new_password()),
    };
    let password = made.as_deref().or(given).unwrap_or_default();
    Ok((auth::hash_password(password).await?, made))
}

/// Makes a user; gives the password when one had to be made.
///
/// # Errors
/// 400 for a name, password or address that is none, 409 when the name or an address is taken.
pub(super) async fn add_user<'a>(
    app: &App,
    by: &Actor,
    name: &str,
    role: Role,
    emails: impl Iterator<Item = &'a str>,
    password: Option<&str>,
) -> Result<Option<String>, HttpError> {
    check_name(name)?;
    let emails = checked_emails(emails)?;
    let (hash, made) = chosen(name, password).await?;
    let now = crate::clock::now();
    app.store
        .create_user(name, &hash, role, &emails, &by.name, now)
        .await?;
    Ok(made)
}

/// The most addresses of one person.
const MOST_EMAILS: usize = 20;

/// The addresses among `given`; blanks are none.
fn checked_emails<'a>(given: impl Iterator<Item = &'a str>) -> Result<Addresses, HttpError> {
    let emails: Addresses = given.map(address).filter(|one| !one.is_empty()).collect();
    let wrong = |one: &&String| {
        let parts = one.split_once('@');
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | ',');
        one.len() > 254
            || one.contains(odd)
            || parts.is_none_or(|(a, b)| a.is_empty() || b.is_empty())
    };
    if let Some(wrong) = emails.iter().find(wrong) {
        let message =
            format!("`{wrong}` is no e-mail address: write them as in git, `ada@example.com`");
        return Err(HttpError::bad_request(message));
    }
    if emails.len() > MOST_EMAILS {
        let message = format!("one person has at most {MOST_EMAILS} addresses");
        return Err(HttpError::bad_request(message));
    }
    Ok(emails)
}

/// Changes the addresses that a user commits with, to all of these.
///
/// # Errors
/// 400 for what is no address or too many of them, 404 for an unknown user, 409 for somebody else's.
pub(super) async fn set_emails<'a>(
    app: &App,
    by: &Actor,
    name: &str,
    given: impl Iterator<Item = &'a str>,
) -> Result<(), HttpError> {
    let emails = checked_emails(given)?;
    let now = crate::clock::now();
    Ok(app.store.set_emails(name, &emails, &by.name, now).await?)
}

/// Gives a user another password and ends their sessions; gives the password when one had to be made.
///
/// # Errors
/// 400 for a password that is none, 404 for an unknown user, 409 for oneself: one's own password is
/// changed by whoever knows the current one.
pub(super) async fn reset_password(
    app: &App,
    by: &Actor,
    name: &str,
    password: Option<&str>,
) -> Result<Option<String>, HttpError> {
    if name == by.name {
        return Err(HttpError::conflict(
            "change your own password on the account page",
        ));
    }
    if app.store.get_user(name).await?.is_none() {
        return Err(HttpError::not_found(format!("there is no user `{name}`")));
    }
    let (hash, made) = chosen(name, password).await?;
    let now = crate::clock::now();
    app.store.set_password(name, &hash, &by.name, now).await?;
    Ok(made)
}

/// Changes one's own password and ends all sessions; gives the secret of a new one for this device.
///
/// # Errors
/// 400 when the current password is wrong or the new one is none; 429 after too many failures.
pub(super) async fn change_password(
    app: &App,
    client: Option<IpAddr>,
    who: &Actor,
    current: &str,
    new: &str,
) -> Result<String, HttpError> {
    check_password(&who.name, new)?;
    if let Err(error) = sign_in(app, client, &who.name, current).await {
        if error.status() == StatusCode::UNAUTHORIZED {
            return Err(HttpError::bad_request("the current password is wrong"));
        }
        return Err(error);
    }
    let hash = auth::hash_password(new).await?;
    let now = crate::clock::now();
    app.store
        .set_password(&who.name, &hash, &who.name, now)
        .await?;
    let user = app.store.get_user(&who.name).await?;
    let user = user.ok_or_else(|| HttpError::not_found("you are no user any more"))?;
    begin_session(app, client, &user).await
}

/// An API token that was just made.
pub(super) struct NewToken {
    /// Its id.
    pub(super) id: String,
    /// What it is used by; not stored.
    pub(super) secret: String,
    /// When it ends.
    pub(super) expires_at: Option<Timestamp>,
}

/// Makes an API token for whoever asks. It can do no more than they can now, and one that is made
/// with a token does not outlive that: it ends with it, and is revoked with it.
///
/// # Errors
/// 400 when the name is empty or long, or the token would live longer than ten years; 403 for a role
/// above one's own.
pub(super) async fn new_token(
    app: &App,
    who: &Actor,
    via: &Via,
    name: &str,
    role: Role,
    days: Option<u32>,
) -> Result<NewToken, HttpError> {
    if !(1..=64).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        return Err(HttpError::bad_request(
            "a token's name has 1 to 64 characters",
        ));
    }
    if days.is_some_and(|days| !(1..=3_650).contains(&days)) {
        return Err(HttpError::bad_request("a token lives for 1 to 3,650 days"));
    }
    if role > who.role {
        let message = format!("a token of yours can be {} at most, not {role}", who.role);
        return Err(HttpError::new(StatusCode::FORBIDDEN, message));
    }
    let now = crate::clock::now();
    let asked = days.map(|days| now + SignedDuration::from_hours(24 * i64::from(days)));
    let (made_with, end) = match via {
        Via::Token { id, expires_at } => (Some(id.clone()), *expires_at),
        Via::Session => (None, None),
    };
    let expires_at = match (asked, end) {
        (Some(asked), Some(end)) => Some(asked.min(end)),
        (asked, end) => asked.or(end),
    };
    let secret = auth::new_secret("rst");
    let token = NewApiToken {
        token_hash: hash_secret(&secret),
        name: name.to_owned(),
        role,
        owner: who.name.clone(),
        expires_at,
        made_with,
    };
    let id = app.store.create_api_token(token, now).await?;
    Ok(NewToken {
        id,
        secret,
        expires_at,
    })
}

/// Revokes one's own token, and all that were made with it; an admin anybody's.
///
/// # Errors
/// 404 when there is no such token, it is somebody else's, or it is revoked.
pub(super) async fn revoke_token(app: &App, who: &Actor, id: &str) -> Result<ApiToken, HttpError> {
    let own = (who.role < Role::Admin).then_some(who.name.as_str());
    let now = crate::clock::now();
    Ok(app.store.revoke_api_token(id, own, &who.name, now).await?)
}

/// Why a user may not be disabled or lose the role of an admin, if that is so. The store decides;
/// this is for pages, beforehand.
pub(super) fn last_admin(users: &[User], user: &User) -> bool {
    let admin = |user: &User| user.role == Role::Admin && user.disabled_at.is_none();
    admin(user) && users.iter().filter(|user| admin(user)).count() == 1
}

/// Brings the configured administrator into the store: with the configured password, or with one that
/// is made. Gives the password when it was made now.
///
/// # Errors
/// When the database is out of reach.
pub async fn set_up_admin(
    store: &crate::store::Store,
    name: &str,
    configured: &str,
) -> Result<Option<String>, HttpError> {
    let configured = Some(configured).filter(|password| !password.is_empty());
    let known = store.get_user(name).await?;
    let now = crate::clock::now();
    match (known, configured) {
        (Some(_), None) => Ok(None),
        (Some(user), Some(password)) => {
            // Setting it ends every session: not at a start that changes nothing.
            if !auth::password_holds(password, Some(&user.password_hash)).await? {
                let hash = auth::hash_password(password).await?;
                store.set_password(name, &hash, CONFIGURATION, now).await?;
            }
            Ok(None)
        }
        (None, configured) => {
            let made = auth::new_password();
            let password = configured.unwrap_or(&made);
            let hash = auth::hash_password(password).await?;
            let none = Addresses::new();
            let added = store.create_user(name, &hash, Role::Admin, &none, CONFIGURATION, now);
            match added.await {
                Ok(()) => Ok(configured.is_none().then_some(made)),
                // Another server on the same database was faster.
                Err(StoreError::Conflict { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }
    }
}

/// Who did it, in the history, when the configuration did.
const CONFIGURATION: &str = "Roadstead";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_names_nobody_who_is_none() {
        assert_eq!(known(None), "(unknown)");
        let ada = User {
            name: "ada".into(),
            password_hash: String::new(),
            role: Role::Viewer,
            created_at: Timestamp::UNIX_EPOCH,
            disabled_at: Some(Timestamp::UNIX_EPOCH),
            last_sign_in_at: None,
            emails: Addresses::new(),
        };
        assert_eq!(known(Some(&ada)), "ada");
    }

    #[test]
    fn names_and_passwords_have_rules() {
        for good in ["ada", "Ada Lovelace", "ada@example.com", "Åsa", "x"] {
            check_name(good).unwrap();
        }
        let long = "x".repeat(65);
        for bad in [
            "",
            " ada",
            "ada ",
            "a/b",
            "a\\b",
            "a\nb",
            "Roadstead",
            "..",
            &long,
        ] {
            check_name(bad).unwrap_err();
        }
        check_password("ada", "twelve bytes").unwrap();
        check_password("ada", "eleven byte").unwrap_err();
        check_password("ada", &"x".repeat(257)).unwrap_err();
        check_password("Ada.Lovelace", "ada.lovelace").unwrap_err();
    }
}
