//! Who asks, and whether they may: denied unless a handler's typed extractor lets them in.
//!
//! A handler takes [`Allowed<Viewer>`], [`Allowed<Deployer>`] or [`Allowed<Admin>`]; there is no
//! other way to learn who asks, so a handler that forgets it cannot act in anybody's name. What was
//! sent with a request is read through it too, and so not before the asker is known and allowed:
//! `Allowed<Deployer, web::Json<Ask>>`. People carry a session cookie, programs a bearer token.
//! Passwords are argon2id; sessions and tokens are stored as SHA-256 and found by it. Users and roles
//! are read anew for each request.

use super::App;
use super::error::HttpError;
use crate::store::hash_secret;
use actix_web::cookie::{Cookie, SameSite};
use actix_web::http::{Method, StatusCode, header};
use actix_web::{FromRequest, HttpRequest, dev, web};
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use jiff::Timestamp;
use rand::RngExt;
use roadstead_pipelines::action::Actor;
use roadstead_pipelines::spec::Role;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::OnceLock;
use tokio::sync::Semaphore;

/// The session's cookie. The `__Host-` prefix needs https, which a laptop has not.
pub const SESSION_COOKIE: &str = "roadstead_session";
/// A session ends after so many hours.
pub const SESSION_HOURS: i64 = 12;

/// The least role that a handler asks for.
pub trait Least {
    /// That role.
    const ROLE: Role;
}

/// May look.
pub struct Viewer;
/// May run, promote, roll back, approve, hold.
pub struct Deployer;
/// May do everything.
pub struct Admin;

impl Least for Viewer {
    const ROLE: Role = Role::Viewer;
}
impl Least for Deployer {
    const ROLE: Role = Role::Deployer;
}
impl Least for Admin {
    const ROLE: Role = Role::Admin;
}

/// Somebody who may do what the handler does, and what they sent.
pub struct Allowed<R, S = ()> {
    /// Who.
    pub actor: Actor,
    /// How they came.
    pub via: Via,
    /// Body or query, read after they were let in.
    pub sent: S,
    least: PhantomData<R>,
}

/// How somebody came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// By signing in.
    Session,
    /// With an API token.
    Token {
        /// Its id.
        id: String,
        /// When that token ends, if it does so by itself.
        expires_at: Option<Timestamp>,
    },
}

impl<R: Least + 'static, S: FromRequest + 'static> FromRequest for Allowed<R, S> {
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, actix_web::Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut dev::Payload) -> Self::Future {
        let (request, mut payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let (actor, via) = identify(&request).await?.ok_or_else(|| {
                HttpError::new(StatusCode::UNAUTHORIZED, "sign in, or send an API token")
            })?;
            if actor.role < R::ROLE {
                let message = format!(
                    "this needs the role {}; {} is {}",
                    R::ROLE,
                    actor.name,
                    actor.role
                );
                return Err(HttpError::new(StatusCode::FORBIDDEN, message).into());
            }
            let sent = S::from_request(&request, &mut payload);
            Ok(Self {
                actor,
                via,
                sent: sent.await.map_err(Into::into)?,
                least: PhantomData,
            })
        })
    }
}

/// Reads what was sent only once the first one has let the request in, as [`Allowed`] does.
pub struct Then<A, S>(
    /// Who was let in.
    pub A,
    /// Body or query.
    pub S,
);

impl<A: FromRequest + 'static, S: FromRequest + 'static> FromRequest for Then<A, S> {
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, actix_web::Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut dev::Payload) -> Self::Future {
        let (request, mut payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let first = A::from_request(&request, &mut dev::Payload::None);
            let first = first.await.map_err(Into::into)?;
            let sent = S::from_request(&request, &mut payload);
            Ok(Self(first, sent.await.map_err(Into::into)?))
        })
    }
}

/// Who asks, if they say so and it is true.
///
/// # Errors
/// 503 when the database is out of reach; a wrong credential is nobody.
pub async fn identify(request: &HttpRequest) -> Result<Option<(Actor, Via)>, HttpError> {
    let Some(app) = request.app_data::<web::Data<App>>() else {
        return Ok(None);
    };
    let now = crate::clock::now();
    if let Some(token) = bearer(request) {
        let found = app.store.use_api_token(&hash_secret(&token), now).await?;
        return Ok(found.map(|token| {
            let via = Via::Token {
                id: token.id,
                expires_at: token.expires_at,
            };
            (
                Actor {
                    name: token.created_by,
                    role: token.role,
                },
                via,
            )
        }));
    }
    let Some(cookie) = request.cookie(SESSION_COOKIE) else {
        return Ok(None);
    };
    let found = app
        .store
        .session_user(&hash_secret(cookie.value()), now)
        .await?;
    Ok(found.map(|user| {
        (
            Actor {
                name: user.name,
                role: user.role,
            },
            Via::Session,
        )
    }))
}

/// The bearer token of a request.
#[must_use]
pub fn bearer(request: &HttpRequest) -> Option<String> {
    let value = request
        .headers()
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim().to_owned())
}

/// 256 random bits behind a prefix that tells people and scanners what it is.
#[must_use]
pub fn new_secret(prefix: &str) -> String {
    let bytes: [u8; 32] = rand::rng().random();
    format!("{prefix}_{}", hex::encode(bytes))
}

/// A password for somebody to begin with: 96 random bits.
#[must_use]
pub fn new_password() -> String {
    let bytes: [u8; 12] = rand::rng().random();
    format!("rsp-{}", hex::encode(bytes))
}

/// Passwords that are hashed at the same time: each takes 19 MiB for a moment.
static HASHING: Semaphore = Semaphore::const_new(2);

/// A password as it is stored (argon2id with its salt).
///
/// # Errors
/// When the hasher fails.
pub async fn hash_password(password: &str) -> Result<String, HttpError> {
    let password = password.to_owned();
    off_thread(move || hashed(&password)).await?
}

/// Whether a password is the stored one. Without a stored one it is not, after the same time.
///
/// # Errors
/// When the hasher fails.
pub async fn password_holds(password: &str, stored: Option<&str>) -> Result<bool, HttpError> {
    let (password, stored) = (password.to_owned(), stored.map(str::to_owned));
    off_thread(move || match stored {
        Some(stored) => Ok(holds(&password, &stored)),
        None => {
            holds(&password, nobodys()?);
            Ok(false)
        }
    })
    .await?
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, HttpError> {
    let _permit = HASHING.acquire().await.map_err(HttpError::internal)?;
    let done = tokio::task::spawn_blocking(work);
    done.await.map_err(HttpError::internal)
}

fn hashed(password: &str) -> Result<String, HttpError> {
    let hash = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(HttpError::internal)?;
    Ok(hash.to_string())
}

fn holds(password: &str, stored: &str) -> bool {
    PasswordHash::new(stored).is_ok_and(|hash| {
        Argon2::default()
            .verify_password(password.as_bytes(), &hash)
            .is_ok()
    })
}

/// The hash of a password that nobody knows.
fn nobodys() -> Result<&'static str, HttpError> {
    static HASH: OnceLock<String> = OnceLock::new();
    if let Some(known) = HASH.get() {
        return Ok(known);
    }
    let hash = hashed(&new_secret("nobody"))?;
    Ok(HASH.get_or_init(|| hash))
}

/// The cookie of a new session.
#[must_use]
pub fn session_cookie(secret: String, secure: bool) -> Cookie<'static> {
    Cookie::build(SESSION_COOKIE, secret)
        .path("/")
        .http_only(true)
        .secure(secure)
        .same_site(SameSite::Lax)
        .finish()
}

/// Refuses a request that another site's page makes in a person's name: a browser says where it
/// comes from in `Sec-Fetch-Site` or `Origin`. Requests without either are no browser's, and a
/// bearer token is never sent by a browser on its own.
///
/// # Errors
/// 403 for a cross-site request that could change something.
pub fn refuse_cross_site(request: &dev::ServiceRequest) -> Result<(), HttpError> {
    let safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    // Of other logins a browser sends those that it remembers, and `identify` looks at the cookie.
    if safe || bearer(request.request()).is_some() {
        return Ok(());
    }
    let text = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
    let same = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            let host = text("host").unwrap_or_default();
            origin
                .split_once("://")
                .is_some_and(|(_, from)| from == host)
        }
        (None, None) => true,
    };
    if same {
        return Ok(());
    }
    Err(HttpError::new(
        StatusCode::FORBIDDEN,
        "this form was sent from another site",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[tokio::test]
    async fn passwords_are_salted_and_checked() {
        let stored = hash_password("correct horse").await.unwrap();
        assert_ne!(stored, hash_password("correct horse").await.unwrap());
        assert!(stored.starts_with("$argon2id$"));
        for (password, stored, holds) in [
            ("correct horse", Some(stored.as_str()), true),
            ("correct mule", Some(&stored), false),
            ("x", Some("no hash"), false),
            ("correct horse", None, false),
            ("", None, false),
        ] {
            assert_eq!(password_holds(password, stored).await.unwrap(), holds);
        }
    }

    #[test]
    fn another_sites_form_is_refused() {
        let post = |headers: &[(&'static str, &'static str)]| {
            let mut request = TestRequest::post().insert_header(("host", "ci.example.com"));
            for header in headers {
                request = request.insert_header(*header);
            }
            refuse_cross_site(&request.to_srv_request()).is_ok()
        };
        assert!(post(&[]));
        assert!(post(&[("sec-fetch-site", "same-origin")]));
        assert!(post(&[("origin", "https://ci.example.com")]));
        assert!(post(&[
            ("sec-fetch-site", "cross-site"),
            ("authorization", "Bearer x")
        ]));
        assert!(!post(&[("sec-fetch-site", "cross-site")]));
        let basic = ("authorization", "Basic eDp5");
        assert!(post(&[basic]));
        assert!(!post(&[("sec-fetch-site", "cross-site"), basic]));
        assert!(!post(&[
            ("origin", "https://evil.example.com"),
            ("authorization", "x")
        ]));
        assert!(!post(&[("sec-fetch-site", "same-site")]));
        assert!(!post(&[("origin", "https://evil.example.com")]));
        assert!(!post(&[("origin", "null")]));
    }
}
