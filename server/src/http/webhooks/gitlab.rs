//! The body of a push as GitLab sends it (*Push events* and *Tag push events* of its documentation). They
//! differ in the name of the event alone.

use super::payload::{self, BadPayload, Wish};
use serde::Deserialize;

#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    git_ref: String,
    after: String,
    /// At most twenty, the newest last.
    #[serde(default)]
    commits: Vec<Commit>,
}

#[derive(Deserialize)]
struct Commit {
    id: String,
    #[serde(default)]
    message: String,
}

/// Reads a push.
///
/// # Errors
/// [`BadPayload`].
pub(super) fn read(body: &[u8]) -> Result<Wish, BadPayload> {
    let push: Push = serde_json::from_slice(body).map_err(|error| BadPayload::no_push(&error))?;
    let head = push.commits.iter().find(|commit| commit.id == push.after);
    let message = head.map_or("", |commit| &commit.message);
    payload::wish(push.git_ref, &push.after, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_push_is_read_as_it_is_sent() {
        let commit = "da1560886d4f094c3e6c9ef40349f7d38b5d27d7";
        let body = |message: &str| {
            let body = json!({
                "object_kind": "push", "event_name": "push",
                "before": "95790bf891e76fee5e1747ab589903a6a1f80f22", "after": commit,
                "ref": "refs/heads/main", "ref_protected": true, "checkout_sha": commit,
                "project_id": 15, "total_commits_count": 2,
                "commits": [
                    { "id": "b6568db1bc1dcd7f8b4d5a946b0b91f9dacd7327", "message": "Masts [skip ci]", "title": "Masts" },
                    { "id": commit, "message": message, "title": message },
                ],
            });
            read(body.to_string().as_bytes()).unwrap()
        };
        let expected = payload::wish("refs/heads/main".into(), commit, "").unwrap();
        assert_eq!(
            body("Sails"),
            expected,
            "only the newest commit's message counts"
        );
        assert!(matches!(body("Sails [skip ci]"), Wish::Nothing(_)));
        let gone = json!({
            "object_kind": "push", "ref": "refs/heads/x", "before": commit, "after": "0".repeat(40),
            "checkout_sha": null, "commits": [],
        });
        let gone = read(gone.to_string().as_bytes()).unwrap();
        assert_eq!(gone, Wish::Nothing("refs/heads/x was deleted".into()));
    }

    #[test]
    fn a_tag_is_read_as_it_is_sent() {
        let tag = "82b3d5ae55f7080f1e6022629cdb57bfae7cccc7";
        let body = json!({
            "object_kind": "tag_push", "event_name": "tag_push", "ref": "refs/tags/v1.0.0",
            "before": "0".repeat(40), "after": tag, "ref_protected": true,
            "checkout_sha": "da1560886d4f094c3e6c9ef40349f7d38b5d27d7", "commits": [], "total_commits_count": 0,
        });
        let expected = payload::wish("refs/tags/v1.0.0".into(), tag, "").unwrap();
        assert_eq!(read(body.to_string().as_bytes()).unwrap(), expected);
        let mut gone = body;
        gone["after"] = "0".repeat(40).into();
        let gone = read(gone.to_string().as_bytes()).unwrap();
        assert_eq!(gone, Wish::Nothing("refs/tags/v1.0.0 was deleted".into()));
    }
}
