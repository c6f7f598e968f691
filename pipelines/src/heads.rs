//! Pushes that may have gone untold: a forge tells of each once, and not again to a server that was down.
//!
//! Knows nothing of how the heads of branches are learnt, nor of what was told.

use crate::id::CommitSha;
use std::collections::BTreeMap;

/// Where branches stand: commits by ref, `refs/heads/main`.
pub type Heads = BTreeMap<String, CommitSha>;

/// The branches of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Branches {
    /// Where they stand.
    pub heads: Heads,
    /// The one that the repository names as its own, `refs/heads/main`.
    pub default: Option<String>,
}

/// The branches that stand elsewhere than when they were noted, or are new. Before the first time nothing
/// was noted: then none, as a repository is not built anew because it was set up here.
#[must_use]
pub fn moved(noted: Option<&Heads>, now: &Heads) -> Heads {
    let Some(noted) = noted else {
        return Heads::new();
    };
    let elsewhere = now
        .iter()
        .filter(|(git_ref, commit)| noted.get(*git_ref) != Some(commit));
    elsewhere
        .map(|(git_ref, commit)| (git_ref.clone(), commit.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(of: &[(&str, char)]) -> Heads {
        of.iter()
            .map(|(branch, digit)| {
                let commit = CommitSha::parse(&digit.to_string().repeat(40)).unwrap();
                (format!("refs/heads/{branch}"), commit)
            })
            .collect()
    }

    #[test]
    fn what_moved_or_is_new_may_be_untold() {
        let noted = heads(&[("main", '1'), ("gone", '2'), ("still", '3')]);
        let now = heads(&[("main", '4'), ("new", '5'), ("still", '3')]);
        let untold = heads(&[("main", '4'), ("new", '5')]);
        assert_eq!(moved(Some(&noted), &now), untold);
        assert_eq!(moved(Some(&now), &now), Heads::new());
    }

    #[test]
    fn the_first_look_only_notes() {
        assert_eq!(moved(None, &heads(&[("main", '1')])), Heads::new());
        let empty = Heads::new();
        assert_eq!(moved(Some(&empty), &heads(&[("main", '1')])).len(), 1);
    }
}
