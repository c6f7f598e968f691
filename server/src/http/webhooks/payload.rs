//! What a webhook says, told from its headers and raw body. Pure: signatures and payloads in, a
//! [`Push`] or a reason to ignore out.

use hmac::{Hmac, KeyInit, Mac};
use roadstead_pipelines::id::CommitSha;
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The kinds of sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forge {
    /// GitHub's webhooks.
    Github,
    /// A `post-receive` hook with curl.
    Git,
}

impl Forge {
    /// From the address; `None` for others.
    #[must_use]
    pub(super) fn parse(word: &str) -> Option<Self> {
        match word {
            "github" => Some(Self::Github),
            "git" => Some(Self::Git),
            _ => None,
        }
    }

    /// The word in the address.
    #[must_use]
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Git => "git",
        }
    }
}

/// A branch moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Push {
    /// `refs/heads/…`.
    pub git_ref: String,
    /// Where it is now.
    pub commit: CommitSha,
}

/// What a delivery asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// A run for this push.
    Run(Push),
    /// Nothing, for this reason.
    Nothing(String),
}

/// A body that is not what its sender's documentation says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPayload(pub String);

/// Whether `signature` (`sha256=<hex>`) is the HMAC-SHA256 of `body` under `secret`, in constant
/// time.
#[must_use]
pub(super) fn signature_holds(secret: &str, body: &[u8], signature: &str) -> bool {
    let Some(given) = signature
        .strip_prefix("sha256=")
        .and_then(|text| hex::decode(text).ok())
    else {
        return false;
    };
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return false;
    };
    mac.update(body);
    mac.verify_slice(&given).is_ok()
}

/// An id for a sender that gives none: the same body twice is the same delivery.
#[must_use]
pub(super) fn id_of_body(body: &[u8]) -> String {
    format!("sha256-{}", hex::encode(Sha256::digest(body)))
}

#[derive(Deserialize)]
struct PushBody {
    #[serde(rename = "ref")]
    git_ref: String,
    after: String,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    head_commit: Option<HeadCommit>,
}

#[derive(Deserialize)]
struct HeadCommit {
    #[serde(default)]
    message: String,
}

/// Reads an event's body.
///
/// # Errors
/// [`BadPayload`] when it is no JSON, or lacks what a push has.
pub(super) fn read(event: &str, body: &[u8]) -> Result<Wish, BadPayload> {
    if event == "ping" {
        return Ok(Wish::Nothing("a ping: the webhook works".into()));
    }
    if event != "push" {
        return Ok(Wish::Nothing(format!(
            "event `{event}` starts nothing; push does"
        )));
    }
    let push: PushBody = serde_json::from_slice(body)
        .map_err(|error| BadPayload(format!("the body is no push event: {error}")))?;
    if push.deleted || push.after.bytes().all(|b| b == b'0') {
        return Ok(Wish::Nothing(format!("{} was deleted", push.git_ref)));
    }
    let Some(commit) = CommitSha::parse(&push.after) else {
        return Err(BadPayload(format!(
            "`after` is no commit id: `{}`",
            clip(&push.after)
        )));
    };
    let Some(branch) = push.git_ref.strip_prefix("refs/heads/") else {
        return Ok(Wish::Nothing(format!(
            "{} is no branch",
            clip(&push.git_ref)
        )));
    };
    let plain = |c: char| !c.is_control() && !" ~^:?*[\\".contains(c);
    if branch.is_empty()
        || branch.len() > 250
        || branch.starts_with('-')
        || branch.contains("..")
        || !branch.chars().all(plain)
    {
        return Err(BadPayload(format!(
            "`{}` is no branch name that git allows",
            clip(branch)
        )));
    }
    let message = push.head_commit.map(|c| c.message).unwrap_or_default();
    if let Some(marker) = ["[skip ci]", "[ci skip]"]
        .into_iter()
        .find(|m| message.contains(m))
    {
        return Ok(Wish::Nothing(format!("the commit's message says {marker}")));
    }
    Ok(Wish::Run(Push {
        git_ref: push.git_ref,
        commit,
    }))
}

fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn body(git_ref: &str, after: &str) -> Vec<u8> {
        serde_json::json!({"ref": git_ref, "after": after, "head_commit": {"message": "x"}})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn only_the_right_key_over_the_very_bytes_holds() {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"key").unwrap();
        mac.update(b"body");
        let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        assert!(signature_holds("key", b"body", &signature));
        assert!(!signature_holds("kez", b"body", &signature));
        assert!(!signature_holds("key", b"bodY", &signature));
        assert!(!signature_holds(
            "key",
            b"body",
            &signature[..signature.len() - 2]
        ));
        for bad in ["", "sha256=", "sha1=00", "sha256=zz"] {
            assert!(!signature_holds("key", b"body", bad), "{bad}");
        }
    }

    #[test]
    fn a_push_to_a_branch_asks_for_a_run() {
        let wish = read("push", &body("refs/heads/main", COMMIT)).unwrap();
        let commit = CommitSha::parse(COMMIT).unwrap();
        assert_eq!(
            wish,
            Wish::Run(Push {
                git_ref: "refs/heads/main".into(),
                commit
            })
        );
    }

    #[test]
    fn what_starts_nothing_says_why() {
        for (event, body, reason) in [
            ("ping", b"{}".to_vec(), "a ping"),
            ("star", b"{}".to_vec(), "event `star`"),
            ("push", body("refs/tags/v1", COMMIT), "no branch"),
            ("push", body("refs/heads/x", &"0".repeat(40)), "was deleted"),
        ] {
            match read(event, &body).unwrap() {
                Wish::Nothing(why) => assert!(why.contains(reason), "{why}"),
                wish @ Wish::Run(_) => panic!("{wish:?}"),
            }
        }
    }

    #[test]
    fn hostile_bodies_are_refused() {
        for bad in [
            b"not json".to_vec(),
            body("refs/heads/-x", COMMIT),
            body("refs/heads/a..b", COMMIT),
            body("refs/heads/main", "HEAD"),
        ] {
            assert!(
                read("push", &bad).is_err(),
                "{}",
                String::from_utf8_lossy(&bad)
            );
        }
    }
}
