//! API tokens: each acts in its owner's name, with its own role and never with more than its owner
//! has at that moment. A disabled owner's tokens are revoked, and with a token all that were made with
//! it. Secrets are hashes here.

use super::codec::{Row, micros};
use super::conn::AnyConnection;
use super::events::Line;
use super::schema::api_tokens;
use super::{ApiToken, NewApiToken, Result, Store, StoreError, accounts, audit};
use diesel::prelude::*;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// The last use of a token is noted this often: its calls are not to wait for the writer.
const USE_IS_NOTED_EVERY: SignedDuration = SignedDuration::from_mins(1);
/// So much of the hash names a token; it tells nothing of the secret.
const TOKEN_ID_DIGITS: usize = 12;
/// Tokens of one person that are neither revoked nor over.
const MOST_TOKENS: i64 = 50;

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
    Option<String>,
);

fn read_token(record: TokenRecord) -> Result<ApiToken> {
    let (
        id,
        _,
        name,
        role,
        created_by,
        created_at,
        expires_at,
        last_used_at,
        revoked_at,
        made_with,
    ) = record;
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
        made_with,
    })
}

/// Revokes what a user has; gives how many that were.
pub(super) fn revoke_all_of(
    connection: &mut AnyConnection,
    owner: &str,
    now: Timestamp,
) -> Result<usize> {
    let valid = api_tokens::table
        .filter(api_tokens::created_by.eq(owner))
        .filter(api_tokens::revoked_at.is_null());
    Ok(diesel::update(valid)
        .set(api_tokens::revoked_at.eq(Some(micros(now))))
        .execute(connection)?)
}

/// Revokes what was made with a token, with what was made with that, and so on; gives how many that
/// were. The owner's row has to be locked: nothing is then made with any of them meanwhile.
fn revoke_all_below(connection: &mut AnyConnection, id: &str, now: Timestamp) -> Result<usize> {
    let mut revoked = 0;
    let mut above = vec![id.to_owned()];
    // A token is younger than the one that it was made with, so this comes to an end.
    while !above.is_empty() {
        let below: Vec<String> = api_tokens::table
            .filter(api_tokens::made_with.eq_any(&above))
            .select(api_tokens::id)
            .load(connection)?;
        let valid = api_tokens::table
            .filter(api_tokens::id.eq_any(&below))
            .filter(api_tokens::revoked_at.is_null());
        revoked += diesel::update(valid)
            .set(api_tokens::revoked_at.eq(Some(micros(now))))
            .execute(connection)?;
        above = below;
    }
    Ok(revoked)
}

fn tell(
    connection: &mut AnyConnection,
    token: &str,
    (by, now): (&str, Timestamp),
    what: &str,
    (before, after): (Value, Value),
    detail: &Value,
) -> Result<()> {
    let line = Line {
        at: now,
        project: None,
        subject: &format!("token {token}"),
        actor: by,
        what,
        before,
        after,
        detail,
    };
    audit::append(connection, &line)
}

impl Store {
    /// Makes a token for the command line; gives its id.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the owner has too many, or is disabled, or the token that it is
    /// made with was revoked.
    pub async fn create_api_token(&self, token: NewApiToken, now: Timestamp) -> Result<String> {
        self.write(move |c| {
            let NewApiToken {
                token_hash,
                name,
                role,
                owner,
                expires_at,
                made_with,
            } = &token;
            // Locks the owner's row: a token is not made while its owner is being disabled, or the
            // token that it is made with revoked.
            if accounts::locked(c, owner)?.disabled_at.is_some() {
                return Err(StoreError::conflict(format!("`{owner}` is disabled")));
            }
            if let Some(id) = made_with {
                let still_valid = api_tokens::table
                    .find(id)
                    .filter(api_tokens::created_by.eq(owner))
                    .filter(api_tokens::revoked_at.is_null());
                let found: i64 = still_valid.count().get_result(c)?;
                if found == 0 {
                    let message = format!("API token {id} was revoked meanwhile");
                    return Err(StoreError::conflict(message));
                }
            }
            let valid: i64 = api_tokens::table
                .filter(api_tokens::created_by.eq(owner))
                .filter(api_tokens::revoked_at.is_null())
                .filter(
                    api_tokens::expires_at
                        .is_null()
                        .or(api_tokens::expires_at.gt(micros(now))),
                )
                .count()
                .get_result(c)?;
            if valid >= MOST_TOKENS {
                return Err(StoreError::conflict(format!(
                    "`{owner}` has {valid} API tokens: revoke one first"
                )));
            }
            let id = token_hash.get(..TOKEN_ID_DIGITS).unwrap_or(token_hash);
            diesel::insert_into(api_tokens::table)
                .values((
                    api_tokens::id.eq(id),
                    api_tokens::token_hash.eq(token_hash),
                    api_tokens::name.eq(name),
                    api_tokens::role.eq(role.as_str()),
                    api_tokens::created_by.eq(owner),
                    api_tokens::created_at.eq(micros(now)),
                    api_tokens::expires_at.eq(expires_at.map(micros)),
                    api_tokens::made_with.eq(made_with.as_deref()),
                ))
                .execute(c)?;
            let detail = json!({"id": id, "role": role, "expires_at": expires_at});
            let turn = (Value::Null, json!("valid"));
            tell(c, name, (owner, now), "token_created", turn, &detail)?;
            Ok(id.to_owned())
        })
        .await
    }

    /// The token with this hash and the role that it has now, unless it is revoked, has expired or
    /// its owner is disabled; its use is noted.
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
                let Some(mut token) = found.map(read_token).transpose()? else {
                    return Ok(None);
                };
                let Some(owner) = accounts::active(c, &token.created_by)? else {
                    return Ok(None);
                };
                token.role = token.role.min(owner.role);
                Ok(Some(token))
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

    /// Tokens, revoked ones too, newest first: one person's, or all of them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list_api_tokens(&self, owner: Option<&str>) -> Result<Vec<ApiToken>> {
        let owner = owner.map(str::to_owned);
        self.read(move |c| {
            let mut query = api_tokens::table
                .order((api_tokens::created_at.desc(), api_tokens::id))
                .into_boxed();
            if let Some(owner) = owner {
                query = query.filter(api_tokens::created_by.eq(owner));
            }
            let found: Vec<TokenRecord> = query.load(c)?;
            found.into_iter().map(read_token).collect()
        })
        .await
    }

    /// A token is not accepted any more, nor any that was made with it. With `owner`, only theirs are
    /// looked for. Gives the token as it was.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such token, or it is revoked.
    pub async fn revoke_api_token(
        &self,
        id: &str,
        owner: Option<&str>,
        by: &str,
        now: Timestamp,
    ) -> Result<ApiToken> {
        let (id, by, owner) = (id.to_owned(), by.to_owned(), owner.map(str::to_owned));
        self.write(move |c| {
            let missing = || StoreError::not_found(format!("API token {id}"));
            let found: Option<TokenRecord> = api_tokens::table.find(&id).first(c).optional()?;
            let token = read_token(found.ok_or_else(missing)?)?;
            if owner
                .as_ref()
                .is_some_and(|owner| *owner != token.created_by)
            {
                return Err(missing());
            }
            accounts::locked(c, &token.created_by)?;
            let valid = api_tokens::table
                .find(&id)
                .filter(api_tokens::revoked_at.is_null());
            let revoked = diesel::update(valid)
                .set(api_tokens::revoked_at.eq(Some(micros(now))))
                .execute(c)?;
            if revoked == 0 {
                return Err(missing());
            }
            let below = revoke_all_below(c, &id, now)?;
            let detail = json!({"id": id, "owner": token.created_by, "made_with_it": below});
            let turn = (json!("valid"), json!("revoked"));
            tell(c, &token.name, (&by, now), "token_revoked", turn, &detail)?;
            Ok(token)
        })
        .await
    }
}
