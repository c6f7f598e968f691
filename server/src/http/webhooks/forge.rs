//! What the senders of webhooks have in common, and in what they differ: how a call proves whose it is, what
//! its event and its id are called, and whose form its body has. Pure: headers and bytes in.

use super::payload::{BadPayload, Wish};
use super::{bitbucket, github, gitlab, pull_request};
use crate::forge::Forge;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use subtle::ConstantTimeEq;

/// The event of a push, whatever a forge calls it: a push that is told twice is one by its event, too.
pub(super) const PUSH: &str = "push";
/// The event of a pull request.
pub(super) const PULL_REQUEST: &str = "pull_request";

/// The value of a header by its name in small letters.
pub(super) type Header<'a> = &'a dyn Fn(&str) -> Option<&'a str>;

/// Whose call it is, and of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// The event; [`PUSH`] for every forge's push.
    pub(super) event: String,
    /// What is the same when the call is repeated.
    pub(super) delivery_id: String,
}

impl Forge {
    /// Whether the sender knows the secret: a signature of the body with it, or the secret itself where the
    /// forge sends that; in constant time.
    ///
    /// # Errors
    /// What is missing or wrong, for whoever sets the webhook up.
    pub(super) fn check(
        self,
        secret: &str,
        header: Header<'_>,
        body: &[u8],
    ) -> Result<(), &'static str> {
        const MISFIT: &str = "the signature does not fit this project's secret";
        let holds = match self {
            Self::Github | Self::Git => {
                let given = header("x-hub-signature-256")
                    .ok_or("the header X-Hub-Signature-256 is missing: set the webhook's secret")?;
                hexadecimal(given).is_some_and(|given| signature_holds(secret, body, &given))
            }
            Self::Bitbucket => {
                let given = header("x-hub-signature")
                    .ok_or("the header X-Hub-Signature is missing: set the webhook's secret")?;
                hexadecimal(given).is_some_and(|given| signature_holds(secret, body, &given))
            }
            Self::Gitea => {
                let given = header("x-gitea-signature")
                    .or_else(|| header("x-forgejo-signature"))
                    .ok_or("the header X-Gitea-Signature is missing: set the webhook's secret")?;
                hex::decode(given).is_ok_and(|given| signature_holds(secret, body, &given))
            }
            Self::Gitlab => {
                let given = header("x-gitlab-token").ok_or(
                    "the header X-Gitlab-Token is missing: set the webhook's secret token",
                )?;
                if !bool::from(given.as_bytes().ct_eq(secret.as_bytes())) {
                    return Err("the header X-Gitlab-Token is not this project's secret");
                }
                true
            }
        };
        if holds { Ok(()) } else { Err(MISFIT) }
    }

    /// The event and the id of a call.
    ///
    /// # Errors
    /// The name of a header that is missing.
    pub(super) fn call(self, header: Header<'_>, body: &[u8]) -> Result<Call, BadPayload> {
        let need = |name: &'static str| {
            header(name).ok_or_else(|| BadPayload(format!("the header {name} is missing")))
        };
        let or_body = |id: Option<&str>| id.map_or_else(|| id_of_body(body), str::to_owned);
        let (event, delivery_id) = match self {
            Self::Github => (
                need("x-github-event")?,
                need("x-github-delivery")?.to_owned(),
            ),
            Self::Gitea => {
                let event = header("x-gitea-event").or_else(|| header("x-forgejo-event"));
                let id = header("x-gitea-delivery").or_else(|| header("x-forgejo-delivery"));
                let missing = || BadPayload("the header x-gitea-event is missing".into());
                (event.ok_or_else(missing)?, or_body(id))
            }
            Self::Gitlab => {
                // The first of them stays the same when GitLab tries again.
                let id = header("idempotency-key").or_else(|| header("x-gitlab-event-uuid"));
                let event = match need("x-gitlab-event")? {
                    "Push Hook" | "Tag Push Hook" => PUSH,
                    "Merge Request Hook" => PULL_REQUEST,
                    other => other,
                };
                (event, or_body(id))
            }
            Self::Bitbucket => {
                let event = match need("x-event-key")? {
                    "repo:push" => PUSH,
                    other => other,
                };
                (event, or_body(header("x-request-uuid")))
            }
            Self::Git => (PUSH, or_body(header("x-roadstead-delivery"))),
        };
        if delivery_id.len() > 200 || event.len() > 100 {
            let message = "the delivery's id or event is too long";
            return Err(BadPayload(message.into()));
        }
        Ok(Call {
            event: event.to_owned(),
            delivery_id,
        })
    }

    /// A body for each ref that a call tells of: at least one.
    ///
    /// # Errors
    /// [`BadPayload`] when it is no JSON.
    pub(super) fn parts<'a>(
        self,
        event: &str,
        body: &'a [u8],
    ) -> Result<Vec<Cow<'a, [u8]>>, BadPayload> {
        match self {
            Self::Bitbucket if event == PUSH => {
                let parts = bitbucket::parts(body)?;
                Ok(parts.into_iter().map(Cow::from).collect())
            }
            Self::Github | Self::Gitlab | Self::Gitea | Self::Bitbucket | Self::Git => {
                Ok(vec![Cow::from(body)])
            }
        }
    }

    /// What one of these bodies asks for.
    ///
    /// # Errors
    /// [`BadPayload`] when it is no JSON, or lacks what a push has.
    pub(super) fn read(self, event: &str, body: &[u8]) -> Result<Wish, BadPayload> {
        if event == "ping" {
            return Ok(Wish::Nothing("a ping: the webhook works".into()));
        }
        if event == PULL_REQUEST {
            match self {
                Self::Github | Self::Gitea => return pull_request::of_github(body),
                Self::Gitlab => return pull_request::of_gitlab(body),
                Self::Bitbucket | Self::Git => {}
            }
        }
        if self == Self::Bitbucket && event.starts_with("pullrequest:") {
            return Ok(Wish::Nothing(pull_request::NOT_OF_BITBUCKET.into()));
        }
        if event != PUSH {
            let reason = format!("event `{event}` starts nothing; pushes and pull requests do");
            return Ok(Wish::Nothing(reason));
        }
        match self {
            Self::Github | Self::Gitea | Self::Git => github::read(body),
            Self::Gitlab => gitlab::read(body),
            Self::Bitbucket => bitbucket::read(body),
        }
    }
}

/// The bytes of `sha256=<hex>`.
fn hexadecimal(given: &str) -> Option<Vec<u8>> {
    hex::decode(given.strip_prefix("sha256=")?).ok()
}

/// Whether `given` is the HMAC-SHA256 of `body` under `secret`, in constant time.
fn signature_holds(secret: &str, body: &[u8], given: &[u8]) -> bool {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return false;
    };
    mac.update(body);
    mac.verify_slice(given).is_ok()
}

/// An id for a sender that gives none: the same body twice is the same delivery.
fn id_of_body(body: &[u8]) -> String {
    format!("sha256-{}", hex::encode(Sha256::digest(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(key: &str, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(body);
        hex::encode(mac.finalize().into_bytes())
    }

    /// Whether a call with this one header is taken.
    fn holds(forge: Forge, name: &str, value: &str, body: &[u8]) -> bool {
        let header = |asked: &str| (asked == name).then_some(value);
        forge.check("key", &header, body).is_ok()
    }

    #[test]
    fn only_the_right_key_over_the_very_bytes_holds() {
        let plain = signature("key", b"body");
        let prefixed = format!("sha256={plain}");
        for (forge, name, right) in [
            (Forge::Github, "x-hub-signature-256", &prefixed),
            (Forge::Git, "x-hub-signature-256", &prefixed),
            (Forge::Bitbucket, "x-hub-signature", &prefixed),
            (Forge::Gitea, "x-gitea-signature", &plain),
            (Forge::Gitea, "x-forgejo-signature", &plain),
        ] {
            assert!(holds(forge, name, right, b"body"), "{forge:?}");
            assert!(!holds(forge, name, right, b"bodY"), "{forge:?}");
            assert!(!holds(forge, "x-other", right, b"body"), "{forge:?}");
            let other = right.replace(&plain, &signature("kez", b"body"));
            assert!(!holds(forge, name, &other, b"body"), "{forge:?}");
            assert!(!holds(forge, name, &right[..right.len() - 2], b"body"));
            for bad in ["", "sha256=", "sha1=00", "sha256=zz", "zz"] {
                assert!(!holds(forge, name, bad, b"body"), "{forge:?}: {bad}");
            }
        }
        assert!(holds(Forge::Gitlab, "x-gitlab-token", "key", b"any body"));
        for bad in ["", "ke", "keyy", "kez"] {
            assert!(!holds(Forge::Gitlab, "x-gitlab-token", bad, b"any body"));
        }
    }

    #[test]
    fn a_call_has_one_event_and_one_id_whoever_sends_it() {
        let call = |forge: Forge, headers: &[(&str, &str)]| {
            let headers: std::collections::BTreeMap<String, String> = headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            let header = |asked: &str| headers.get(asked).map(String::as_str);
            forge
                .call(&header, b"{}")
                .map(|call| (call.event, call.delivery_id))
        };
        let expected = Ok((PUSH.to_owned(), "7".to_owned()));
        for (forge, headers) in [
            (
                Forge::Github,
                [("x-github-event", "push"), ("x-github-delivery", "7")],
            ),
            (
                Forge::Gitlab,
                [
                    ("x-gitlab-event", "Push Hook"),
                    ("x-gitlab-event-uuid", "7"),
                ],
            ),
            (
                Forge::Gitlab,
                [
                    ("x-gitlab-event", "Tag Push Hook"),
                    ("x-gitlab-event-uuid", "7"),
                ],
            ),
            (
                Forge::Gitea,
                [("x-gitea-event", "push"), ("x-gitea-delivery", "7")],
            ),
            (
                Forge::Gitea,
                [("x-forgejo-event", "push"), ("x-forgejo-delivery", "7")],
            ),
            (
                Forge::Bitbucket,
                [("x-event-key", "repo:push"), ("x-request-uuid", "7")],
            ),
            (Forge::Git, [("x-roadstead-delivery", "7"), ("x-other", "")]),
        ] {
            assert_eq!(call(forge, &headers), expected, "{forge:?}");
        }
        // GitLab's attempts of one call have different ids of the event, and one key.
        let again = [
            ("x-gitlab-event", "Push Hook"),
            ("x-gitlab-event-uuid", "8"),
            ("idempotency-key", "7"),
        ];
        assert_eq!(call(Forge::Gitlab, &again), expected);
        assert!(call(Forge::Git, &[]).unwrap().1.starts_with("sha256-"));
        assert!(call(Forge::Github, &[("x-github-event", "push")]).is_err());
        assert!(call(Forge::Bitbucket, &[]).is_err());
        let long = "i".repeat(201);
        assert!(call(Forge::Git, &[("x-roadstead-delivery", &long)]).is_err());
    }

    #[test]
    fn other_events_say_why_they_start_nothing() {
        for forge in Forge::ALL {
            for (event, reason) in [("ping", "a ping"), ("star", "event `star`")] {
                match forge.read(event, b"{}").unwrap() {
                    Wish::Nothing(why) => assert!(why.contains(reason), "{why}"),
                    wish => panic!("{wish:?}"),
                }
            }
            assert!(forge.read(PUSH, b"not json").is_err(), "{forge:?}");
        }
    }
}
