//! The body of a push as Bitbucket Cloud sends it (*Repository events* of its documentation): one call for all
//! branches and tags of one `git push`. Each is stored as a call of its own, with its own change alone.

use super::payload::{self, BadPayload, Wish};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Body {
    push: Push,
}

#[derive(Deserialize)]
struct Push {
    changes: Vec<Change>,
}

#[derive(Deserialize)]
struct Change {
    /// None when it was deleted.
    new: Option<Reference>,
    old: Option<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    target: Target,
}

#[derive(Deserialize)]
struct Target {
    hash: String,
    #[serde(default)]
    message: String,
}

impl Reference {
    fn git_ref(&self) -> String {
        match self.kind.as_str() {
            "branch" | "named_branch" => format!("refs/heads/{}", self.name),
            _ => format!("refs/tags/{}", self.name),
        }
    }
}

/// A body for each ref that a push moved, with nothing of the others; as many copies of all of it would be
/// stored otherwise.
///
/// # Errors
/// [`BadPayload`].
pub(super) fn parts(body: &[u8]) -> Result<Vec<Vec<u8>>, BadPayload> {
    let mut whole: Value =
        serde_json::from_slice(body).map_err(|error| BadPayload::no_push(&error))?;
    Ok(match whole["push"]["changes"].take() {
        Value::Array(changes) if changes.len() > 1 => changes
            .into_iter()
            .map(|change| {
                json!({ "push": { "changes": [change] } })
                    .to_string()
                    .into()
            })
            .collect(),
        _ => vec![body.to_vec()],
    })
}

/// Reads a push of one ref.
///
/// # Errors
/// [`BadPayload`].
pub(super) fn read(body: &[u8]) -> Result<Wish, BadPayload> {
    let body: Body = serde_json::from_slice(body).map_err(|error| BadPayload::no_push(&error))?;
    match &body.push.changes[..] {
        [] => Ok(Wish::Nothing("the push changed nothing".into())),
        [change] => match (&change.new, &change.old) {
            (Some(new), _) => payload::wish(new.git_ref(), &new.target.hash, &new.target.message),
            (None, Some(old)) => Ok(payload::deleted(&old.git_ref())),
            (None, None) => Err(BadPayload("a change has neither `new` nor `old`".into())),
        },
        several => Err(BadPayload(format!(
            "it tells of {} refs at once",
            several.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "709d658dc5b6d6afcd46049c2f332ee3f515a67d";

    fn reference(kind: &str, name: &str, message: &str) -> Value {
        json!({
            "type": kind, "name": name,
            "target": { "type": "commit", "hash": COMMIT, "message": message, "date": "2026-11-27T10:00:00+00:00" },
        })
    }

    fn wishes(changes: &Value) -> Vec<Wish> {
        let body = json!({ "actor": {}, "repository": {}, "push": { "changes": changes } });
        let parts = parts(body.to_string().as_bytes()).unwrap();
        parts.iter().map(|part| read(part).unwrap()).collect()
    }

    #[test]
    fn each_branch_of_a_push_is_told() {
        let told = wishes(&json!([
            { "new": reference("branch", "main", "Sails\n"), "old": reference("branch", "main", ""), "forced": false },
            { "new": reference("branch", "feature/masts", "Masts [skip ci]"), "old": null, "created": true },
            { "new": reference("tag", "v1", "Sails [skip ci]"), "old": null },
            { "new": null, "old": reference("branch", "gone", ""), "closed": true },
            { "new": null, "old": reference("tag", "v0", ""), "closed": true },
        ]));
        let expected = payload::wish("refs/heads/main".into(), COMMIT, "").unwrap();
        let nothing = |reason: &str| Wish::Nothing(reason.into());
        assert_eq!(
            told,
            [
                expected,
                nothing("the commit's message says [skip ci]"),
                payload::wish("refs/tags/v1".into(), COMMIT, "").unwrap(),
                nothing("refs/heads/gone was deleted"),
                nothing("refs/tags/v0 was deleted"),
            ]
        );
        assert_eq!(wishes(&json!([])), [nothing("the push changed nothing")]);
        let neither = json!({ "push": { "changes": [{ "new": null, "old": null }] } });
        assert!(read(neither.to_string().as_bytes()).is_err());
    }
}
