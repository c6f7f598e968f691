//! The body of a push as GitHub sends it. Gitea and Forgejo have the same members, and so has a
//! `post-receive` hook.

use super::payload::{self, BadPayload, Wish};
use serde::Deserialize;

#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    git_ref: String,
    after: String,
    #[serde(default)]
    deleted: bool,
    head_commit: Option<Commit>,
}

#[derive(Deserialize)]
struct Commit {
    #[serde(default)]
    message: String,
}

/// Reads a push.
///
/// # Errors
/// [`BadPayload`].
pub(super) fn read(body: &[u8]) -> Result<Wish, BadPayload> {
    let push: Push = serde_json::from_slice(body).map_err(|error| BadPayload::no_push(&error))?;
    if push.deleted {
        return Ok(payload::deleted(&push.git_ref));
    }
    let message = push.head_commit.map(|commit| commit.message);
    payload::wish(push.git_ref, &push.after, &message.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_push_is_read_as_it_is_sent() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let body = |message: &str, deleted: bool| {
            let body = json!({
                "ref": "refs/heads/main", "before": "0".repeat(40), "after": commit,
                "created": false, "deleted": deleted, "forced": false,
                "head_commit": { "id": commit, "message": message, "timestamp": "2026-11-27T10:00:00Z" },
            });
            read(body.to_string().as_bytes()).unwrap()
        };
        let expected = payload::wish("refs/heads/main".into(), commit, "").unwrap();
        assert_eq!(body("Sails", false), expected);
        assert!(matches!(body("Sails [ci skip]", false), Wish::Nothing(_)));
        assert!(matches!(body("Sails", true), Wish::Nothing(_)));
        let tag = json!({
            "ref": "refs/tags/v1", "before": "0".repeat(40), "after": commit, "created": true, "deleted": false,
            "base_ref": "refs/heads/main", "head_commit": { "id": commit, "message": "Sails [skip ci]" },
        });
        let tag = read(tag.to_string().as_bytes()).unwrap();
        assert_eq!(
            tag,
            payload::wish("refs/tags/v1".into(), commit, "").unwrap()
        );
        // A deleted branch has no head commit.
        let gone = json!({"ref": "refs/heads/x", "after": "0".repeat(40), "deleted": true, "head_commit": null});
        let gone = read(gone.to_string().as_bytes()).unwrap();
        assert_eq!(gone, Wish::Nothing("refs/heads/x was deleted".into()));
    }
}
