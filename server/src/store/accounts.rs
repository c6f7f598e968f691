//! People who sign in, their sessions, and tokens for the command line. Secrets are hashes here.

use super::codec::{Row, micros};
use super::schema::{api_tokens, sessions, users};
use super::{ApiToken, Result, Store, StoreError, User};
use diesel::prelude::*;
use jiff::{SignedDuration, Timestamp};
use roadstead_pipelines::spec::Role;

/// The last use of a token is noted this often: its calls are not to wait for the writer.
const USE_IS_NOTED_EVERY: SignedDuration = SignedDuration::from_mins(1);
/// So much of the hash names a token; it tells nothing of the secret.
const TOKEN_ID_DIGITS: usize = 12;

type UserRecord = (String, String, String, i64);

fn read_user((name, password_hash, role, created_at): UserRecord) -> Result<User> {
    let row = Row("user", &name);
    Ok(User {
        role: row.word("role", &role)?,
        created_at: row.time(created_at)?,
        name,
        password_hash,
    })
}

type TokenRecord = (
    String,
    String,
    String,
    String,
    String,
    i64,
    Option<i64>,
    Option<i64>,
    Option<i64>,
);

fn read_token(record: TokenRecord) -> Result<ApiToken> {
    let (id, _, name, role, created_by, created_at, expires_at, last_used_at, revoked_at) = record;
    let row = Row("API token", &id);
    Ok(ApiToken {
        role: row.word("role", &role)?,
        created_at: row.time(created_at)?,
        expires_at: row.maybe_time(expires_at)?,
        last_used_at: row.maybe_time(last_used_at)?,
        revoked_at: row.maybe_time(revoked_at)?,
        id,
        name,
        created_by,
    })
}

impl Store {
    /// Makes a user.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the name is taken.
    pub async fn create_user(
        &self,
        name: &str,
        password_hash: &str,
        role: Role,
        now: Timestamp,
    ) -> Result<()> {
        let (name, password_hash) = (name.to_owned(), password_hash.to_owned());
        self.write(move |c| {
            let taken: Option<String> = users::table
                .find(&name)
                .select(users::name)
                .first(c)
                .optional()?;
            if taken.is_some() {
                return Err(StoreError::conflict(format!(
                    "there is a user `{name}` already"
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
            Ok(())
        })
        .await
    }

    /// Changes a user's password and ends their sessions.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_password(&self, name: &str, password_hash: &str) -> Result<()> {
        let (name, password_hash) = (name.to_owned(), password_hash.to_owned());
        self.write(move |c| {
            let changed = diesel::update(users::table.find(&name))
                .set(users::password_hash.eq(&password_hash))
                .execute(c)?;
            if changed == 0 {
                return Err(StoreError::not_found(format!("user `{name}`")));
            }
            diesel::delete(sessions::table.filter(sessions::user_name.eq(&name))).execute(c)?;
            Ok(())
        })
        .await
    }

    /// A user.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn get_user(&self, name: &str) -> Result<Option<User>> {
        let name = name.to_owned();
        self.read(move |c| {
            let found: Option<UserRecord> = users::table.find(&name).first(c).optional()?;
            found.map(read_user).transpose()
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
            found.into_iter().map(read_user).collect()
        })
        .await
    }

    /// Begins a session and forgets those that have expired.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn create_session(
        &self,
        token_hash: String,
        user: &str,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<()> {
        let user = user.to_owned();
        self.write(move |c| {
            let expired = sessions::table.filter(sessions::expires_at.le(micros(now)));
            diesel::delete(expired).execute(c)?;
            diesel::insert_into(sessions::table)
                .values((
                    sessions::token_hash.eq(&token_hash),
                    sessions::user_name.eq(&user),
                    sessions::created_at.eq(micros(now)),
                    sessions::expires_at.eq(micros(expires_at)),
                ))
                .execute(c)?;
            Ok(())
        })
        .await
    }

    /// The user of a session that has not expired.
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
            let Some(name) = name else {
                return Ok(None);
            };
            let found: Option<UserRecord> = users::table.find(&name).first(c).optional()?;
            found.map(read_user).transpose()
        })
        .await
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn delete_session(&self, token_hash: &str) -> Result<()> {
        let token_hash = token_hash.to_owned();
        self.write(move |c| {
            diesel::delete(sessions::table.find(&token_hash)).execute(c)?;
            Ok(())
        })
        .await
    }

    /// Makes a token for the command line; gives its id. Without `expires_at` it does not end by
    /// itself.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn create_api_token(
        &self,
        token_hash: String,
        name: &str,
        role: Role,
        created_by: &str,
        now: Timestamp,
        expires_at: Option<Timestamp>,
    ) -> Result<String> {
        let (name, created_by) = (name.to_owned(), created_by.to_owned());
        self.write(move |c| {
            let id = token_hash.get(..TOKEN_ID_DIGITS).unwrap_or(&token_hash);
            diesel::insert_into(api_tokens::table)
                .values((
                    api_tokens::id.eq(id),
                    api_tokens::token_hash.eq(&token_hash),
                    api_tokens::name.eq(&name),
                    api_tokens::role.eq(role.as_str()),
                    api_tokens::created_by.eq(&created_by),
                    api_tokens::created_at.eq(micros(now)),
                    api_tokens::expires_at.eq(expires_at.map(micros)),
                ))
                .execute(c)?;
            Ok(id.to_owned())
        })
        .await
    }

    /// The token with this hash, unless it is revoked or has expired; its use is noted.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn use_api_token(
        &self,
        token_hash: &str,
        now: Timestamp,
    ) -> Result<Option<ApiToken>> {
        let token_hash = token_hash.to_owned();
        let found = self
            .read(move |c| {
                let found: Option<TokenRecord> = api_tokens::table
                    .filter(api_tokens::token_hash.eq(&token_hash))
                    .filter(api_tokens::revoked_at.is_null())
                    .filter(
                        api_tokens::expires_at
                            .is_null()
                            .or(api_tokens::expires_at.gt(micros(now))),
                    )
                    .first(c)
                    .optional()?;
                found.map(read_token).transpose()
            })
            .await?;
        if let Some(token) = &found
            && token
                .last_used_at
                .is_none_or(|used| now.duration_since(used) >= USE_IS_NOTED_EVERY)
        {
            let id = token.id.clone();
            self.write(move |c| {
                diesel::update(api_tokens::table.find(&id))
                    .set(api_tokens::last_used_at.eq(Some(micros(now))))
                    .execute(c)?;
                Ok(())
            })
            .await?;
        }
        Ok(found)
    }

    /// Every token, revoked ones too, newest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list_api_tokens(&self) -> Result<Vec<ApiToken>> {
        self.read(|c| {
            let found: Vec<TokenRecord> = api_tokens::table
                .order(api_tokens::created_at.desc())
                .load(c)?;
            found.into_iter().map(read_token).collect()
        })
        .await
    }

    /// A token is not accepted any more.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such token, or it is revoked.
    pub async fn revoke_api_token(&self, id: &str, now: Timestamp) -> Result<()> {
        let id = id.to_owned();
        self.write(move |c| {
            let valid = api_tokens::table
                .find(&id)
                .filter(api_tokens::revoked_at.is_null());
            let revoked = diesel::update(valid)
                .set(api_tokens::revoked_at.eq(Some(micros(now))))
                .execute(c)?;
            match revoked {
                0 => Err(StoreError::not_found(format!("API token {id}"))),
                _ => Ok(()),
            }
        })
        .await
    }
}
