//! Who a caller is, and whether its role lets it do what it asks for.
//!
//! Any credentials are the account's root, because signatures are not checked. Those that
//! AssumeRole gave out are their role's, and nothing else: they expire, and every call with them
//! is held against the role's lists. A deny wins over an allow; what neither names is denied.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wildmatch::WildMatch;

use super::{AwsError, JsonResult, Reply};
use crate::app::App;
use crate::clock::Time;
use crate::scheduler::Ids;
use crate::state::State;

/// How the key ids begin that AssumeRole gives out, so that one which is not known any more is
/// told from somebody's real one.
const KEY_PREFIX: &str = "ASIASANDBOX";

/// How long an expired session is remembered, so that its caller is told that it expired.
const KEEP_EXPIRED_MS: i64 = 24 * 60 * 60 * 1000;

/// A role and what it may do. Entries are actions such as `ecs:UpdateService`, with `*` and `?`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Role {
    pub name: String,
    #[serde(default)]
    pub allow: Vec<String>,
    #[serde(default)]
    pub deny: Vec<String>,
}

/// What one AssumeRole gave out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    pub role: String,
    pub name: String,
    pub secret: String,
    pub token: String,
    pub expires: Time,
}

/// Who makes a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    Root,
    Role { role: String, session: String },
}

impl Caller {
    /// The ARN that GetCallerIdentity and refusals name.
    pub(crate) fn arn(&self, app: &App) -> String {
        let account = &app.config.account;
        match self {
            Self::Root => format!("arn:aws:iam::{account}:root"),
            Self::Role { role, session } => {
                format!("arn:aws:sts::{account}:assumed-role/{role}/{session}")
            }
        }
    }

    /// The user id that GetCallerIdentity names.
    pub(crate) fn user_id(&self, app: &App) -> String {
        match self {
            Self::Root => app.config.account.clone(),
            Self::Role { role, session } => format!("{}:{session}", role_id(role)),
        }
    }
}

/// The unchanging id of a role, in IAM's form.
pub(crate) fn role_id(role: &str) -> String {
    use sha2::Digest;
    let hash = hex::encode_upper(sha2::Sha256::digest(role.as_bytes()));
    format!("AROA{}", &hash[..17])
}

/// The ARN of a role.
pub(crate) fn role_arn(app: &App, role: &str) -> String {
    format!("arn:aws:iam::{}:role/{role}", app.config.account)
}

/// Why a call is refused before anything looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denial {
    /// The keys are not known any more.
    Unknown,
    Expired,
    /// The whole sentence.
    NotAllowed(String),
}

impl Denial {
    /// In the words of the JSON protocols, or of the Query protocol.
    pub(crate) fn into_error(self, query: bool) -> AwsError {
        let (json_code, query_code, message) = match self {
            Self::Unknown => (
                "UnrecognizedClientException",
                "InvalidClientTokenId",
                "The security token included in the request is invalid.".to_owned(),
            ),
            Self::Expired => (
                "ExpiredTokenException",
                "ExpiredToken",
                "The security token included in the request is expired".to_owned(),
            ),
            Self::NotAllowed(message) => ("AccessDeniedException", "AccessDenied", message),
        };
        if query {
            AwsError {
                status: 403,
                ..AwsError::client(query_code, message)
            }
        } else {
            AwsError::client(json_code, message)
        }
    }
}

/// The key id in an `Authorization` header of Signature Version 4.
fn key_id(authorization: &str) -> Option<&str> {
    let (_, rest) = authorization.split_once("Credential=")?;
    rest.split(['/', ',', ' ']).next()
}

/// Who sends these headers.
pub(crate) fn identify(app: &App, authorization: &str, token: &str) -> Result<Caller, Denial> {
    let Some(key) = key_id(authorization).filter(|key| key.starts_with(KEY_PREFIX)) else {
        return Ok(Caller::Root);
    };
    let session = app
        .store
        .read(|state| state.sessions.get(key).cloned())
        .filter(|session| session.token == token)
        .ok_or(Denial::Unknown)?;
    if session.expires <= app.clock.now() {
        return Err(Denial::Expired);
    }
    Ok(Caller::Role {
        role: session.role,
        session: session.name,
    })
}

/// The prefix of a service's actions in IAM.
fn prefix(service: &str) -> &str {
    match service {
        "elbv2" => "elasticloadbalancing",
        other => other,
    }
}

/// Whether the caller may do that.
pub(crate) fn authorize(
    app: &App,
    caller: &Caller,
    service: &str,
    operation: &str,
) -> Result<(), Denial> {
    let Caller::Role { role, .. } = caller else {
        return Ok(());
    };
    // As at AWS, nobody can be kept from asking who they are.
    if (service, operation) == ("sts", "GetCallerIdentity") {
        return Ok(());
    }
    let action = format!("{}:{operation}", prefix(service));
    let why = app.store.read(|state| match state.roles.get(role) {
        Some(role) => role.refusal(&action),
        None => Some(no_allow(&action)),
    });
    match why {
        None => Ok(()),
        Some(why) => Err(not_allowed(&caller.arn(app), &action, "*", &why)),
    }
}

/// AWS's sentence for what a policy forbids.
pub(crate) fn not_allowed(user: &str, action: &str, resource: &str, why: &str) -> Denial {
    Denial::NotAllowed(format!(
        "User: {user} is not authorized to perform: {action} on resource: {resource} {why}"
    ))
}

/// The refusal of any call at all, as an injected fault has it.
pub(crate) fn denied(app: &App, service: &str, operation: &str) -> Denial {
    let action = format!("{}:{operation}", prefix(service));
    let why = "with an explicit deny in an injected fault";
    not_allowed(&Caller::Root.arn(app), &action, "*", why)
}

/// Why an action is denied that no list names.
pub(crate) fn no_allow(action: &str) -> String {
    format!("because no identity-based policy allows the {action} action")
}

impl Role {
    /// Why the role may not do that; None when it may.
    fn refusal(&self, action: &str) -> Option<String> {
        let names = |patterns: &[String]| {
            patterns
                .iter()
                .any(|one| WildMatch::new_case_insensitive(one).matches(action))
        };
        if names(&self.deny) {
            Some("with an explicit deny in an identity-based policy".to_owned())
        } else if names(&self.allow) {
            None
        } else {
            Some(no_allow(action))
        }
    }
}

/// Gives out keys for a role until `expires`, drawn from `ids`.
pub(crate) fn open_session(
    state: &mut State,
    ids: &mut Ids<'_>,
    role: &str,
    name: &str,
    now: Time,
    expires: Time,
) -> (String, Session) {
    let forgotten: Vec<String> = state
        .sessions
        .iter()
        .filter(|(_, one)| one.expires.0 + KEEP_EXPIRED_MS <= now.0)
        .map(|(key, _)| key.clone())
        .collect();
    for key in forgotten {
        state.sessions.shift_remove(&key);
    }
    let key = format!("{KEY_PREFIX}{}", ids.hex()[..9].to_ascii_uppercase());
    let session = Session {
        role: role.to_owned(),
        name: name.to_owned(),
        secret: format!("{}{}", ids.base64(), &ids.base64()[..19]),
        token: (0..6).map(|_| ids.hex()).collect(),
        expires,
    };
    state.sessions.insert(key.clone(), session.clone());
    (key, session)
}

/// Every role, for `/_sandbox/roles`.
pub(crate) fn overview(app: &App, state: &State) -> Value {
    let show = |role: &Role| {
        json!({"name": role.name, "arn": role_arn(app, &role.name),
               "allow": role.allow, "deny": role.deny})
    };
    state.roles.values().map(show).collect()
}

/// Defines a role, or defines it anew.
pub(crate) async fn define(app: &App, role: Role) -> JsonResult {
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
    if !(1..=64).contains(&role.name.len()) || !role.name.bytes().all(named) {
        return Err(AwsError::client(
            "ValidationError",
            "A role's name has 1 to 64 letters, digits and characters of +=,.@_-",
        ));
    }
    if let Some(wrong) = role.allow.iter().chain(&role.deny).find(|one| {
        let service = one.split_once(':').map(|(service, _)| service);
        one.as_str() != "*" && service.is_none_or(str::is_empty)
    }) {
        return Err(AwsError::client(
            "ValidationError",
            format!("`{wrong}` is no action: write `ecs:UpdateService`, `ecs:Describe*` or `*`."),
        ));
    }
    app.store
        .change(|state| {
            state.roles.insert(role.name.clone(), role);
            Ok(Reply::changed(overview(app, state)))
        })
        .await
}

/// Forgets a role; whoever acts in it may do nothing from now on.
pub(crate) async fn remove(app: &App, name: &str) -> JsonResult {
    app.store
        .change(|state| {
            if !state.roles.contains_key(name) {
                return Err(AwsError::client(
                    "ValidationError",
                    format!("There is no role {name}: GET /_sandbox/roles lists all."),
                ));
            }
            state.roles.shift_remove(name);
            Ok(Reply::changed(overview(app, state)))
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::{Role, key_id};

    #[test]
    fn a_deny_wins_over_an_allow_and_what_nobody_names_is_denied() {
        let role = Role {
            name: "deployer".to_owned(),
            allow: vec!["ecs:*".to_owned(), "logs:get*".to_owned()],
            deny: vec!["ecs:Delete?ervice".to_owned()],
        };
        assert_eq!(role.refusal("ecs:UpdateService"), None);
        assert_eq!(role.refusal("logs:GetLogEvents"), None);
        let denied = role.refusal("ecs:DeleteService").unwrap();
        assert!(denied.contains("explicit deny"), "{denied}");
        let unnamed = role.refusal("ecr:PutImage").unwrap();
        assert!(unnamed.contains("no identity-based policy allows the ecr:PutImage action"));
    }

    #[test]
    fn the_key_is_found_in_the_signature() {
        let header = "AWS4-HMAC-SHA256 Credential=ASIA1/20260101/us-east-1/ecs/aws4_request, \
                      SignedHeaders=host, Signature=00";
        assert_eq!(key_id(header), Some("ASIA1"));
        assert_eq!(key_id("Bearer x"), None);
    }
}
