//! Does a push start a run.
//!
//! Of a file that names tags and no branches, branches start none. Whether a tag does is asked twice: of
//! the files that were read lately when it is told of, so that tags which nobody builds make no runs, and
//! of its own.
//!
//! Patterns are looked at from top to bottom and the last one that matches decides, a `!` in front
//! taking away. A list that begins with `!` begins from everything. `*` stays within one part of a
//! path or branch, `**` goes through all.

use super::model::Trigger;
use crate::git_ref::{BRANCHES, GitRef};
use crate::pull_request::PullRequest;
use globset::{Glob, GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

/// Which pull requests start a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequestTrigger {
    /// Globs over the branches that they are to be merged to. Empty: any branch.
    pub branches: Vec<String>,
    /// Globs over what all of their commits change together. Empty: any path.
    pub paths: Vec<String>,
}

/// Whether a push starts a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Triggered {
    /// It does.
    Yes,
    /// It does not.
    No {
        /// Why, for the page of deliveries: ``no changed path matches `services/**` ``.
        reason: String,
    },
}

/// Decides about a push to `git_ref`, `refs/heads/main` or `refs/tags/v1`.
///
/// `changed_paths` are relative to the repository's root; `None` when it is not known what changed,
/// as with a new branch, which counts as everything. Of a tag they are not asked for.
#[must_use]
pub fn triggered_by(
    trigger: &Trigger,
    git_ref: &str,
    changed_paths: Option<&[String]>,
) -> Triggered {
    let no = |reason| Triggered::No { reason };
    match GitRef::of(git_ref) {
        GitRef::Branch(branch) => {
            if trigger.branches.is_empty() && !trigger.tags.is_empty() {
                return no("`trigger.push` names tags alone, so branches start no run".to_owned());
            }
            if let Some(reason) = misfit("branch", branch, &trigger.branches) {
                return no(reason);
            }
        }
        GitRef::Tag(_) if trigger.tags.is_empty() => {
            return no("tags start no run: the file has no `trigger.push.tags`".to_owned());
        }
        GitRef::Tag(tag) => {
            return misfit("tag", tag, &trigger.tags).map_or(Triggered::Yes, no);
        }
        GitRef::PullRequest(_) | GitRef::Other(_) => {
            return no(format!("{git_ref} is no branch and no tag"));
        }
    }
    no_path(&trigger.paths, changed_paths).map_or(Triggered::Yes, no)
}

/// Why a pull request starts no run; `None` when it does. `changed_paths` are those of all its commits; `None` when
/// that is not known, which counts as everything.
#[must_use]
pub(super) fn pull_request_misfit(
    trigger: &Trigger,
    pull_request: &PullRequest,
    changed_paths: Option<&[String]>,
) -> Option<String> {
    let Some(wanted) = &trigger.pull_request else {
        let reason = "pull requests start no run: the file has no `trigger.pull_request`";
        return Some(reason.to_owned());
    };
    let base = &pull_request.base_ref;
    let base = base.strip_prefix(BRANCHES).unwrap_or(base);
    misfit("base branch", base, &wanted.branches).or_else(|| no_path(&wanted.paths, changed_paths))
}

/// Why a pull request is not even looked at: of the files that were read lately, none wants it. Without any there is
/// no telling.
#[must_use]
pub fn pull_request_is_unwanted(lately: &[Trigger], pull_request: &PullRequest) -> Option<String> {
    let wanted = |trigger| pull_request_misfit(trigger, pull_request, None).is_none();
    if lately.is_empty() || lately.iter().any(wanted) {
        return None;
    }
    Some(format!(
        "no pipeline file that was read lately has `trigger.pull_request` for pull requests to {}; to have \
         the file asked, send this delivery again",
        GitRef::of(&pull_request.base_ref)
    ))
}

/// Why the name of a branch or tag does not fit.
pub(super) fn misfit(what: &str, name: &str, patterns: &[String]) -> Option<String> {
    let fits = Patterns::new(patterns).matches(name);
    (!fits).then(|| format!("{what} `{name}` does not match {}", list(patterns)))
}

/// Why what changed does not fit; `None` also when it is not known what changed.
pub(super) fn no_path(patterns: &[String], changed_paths: Option<&[String]>) -> Option<String> {
    let changed = changed_paths?;
    if patterns.is_empty() {
        return None;
    }
    let ready = Patterns::new(patterns);
    let fits = changed.iter().any(|path| ready.matches(path));
    (!fits).then(|| format!("no changed path matches {}", list(patterns)))
}

/// Why a push of a tag is not even looked at: of the files that were read lately, none wants it. Without
/// any there is no telling, and none of them need be the tag's own.
#[must_use]
pub fn tag_is_unwanted(lately: &[Trigger], git_ref: &str) -> Option<String> {
    let wanted = |trigger| triggered_by(trigger, git_ref, None) == Triggered::Yes;
    if lately.is_empty() || lately.iter().any(wanted) {
        return None;
    }
    Some(format!(
        "no pipeline file that was read lately has {} in `trigger.push.tags`; to have its own file \
         asked, send this delivery again",
        GitRef::of(git_ref)
    ))
}

/// Whether `pattern` can be used.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    let positive = pattern.strip_prefix('!').unwrap_or(pattern);
    if positive.is_empty() {
        return Err("nothing follows the `!`".to_owned());
    }
    if positive.starts_with('!') {
        return Err("one `!` is enough".to_owned());
    }
    if positive.starts_with('/') || positive.starts_with("./") {
        return Err("patterns begin without `/` and `./`".to_owned());
    }
    compile(positive)
        .map(|_| ())
        .map_err(|error| error.kind().to_string())
}

/// Whether `text` is one that `patterns` name; no pattern at all names everything.
pub(crate) fn matches_patterns(patterns: &[String], text: &str) -> bool {
    Patterns::new(patterns).matches(text)
}

fn compile(pattern: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(pattern).literal_separator(true).build()
}

/// A list of patterns, made ready once for many texts.
struct Patterns {
    from_everything: bool,
    /// Each with whether it takes or takes away.
    globs: Vec<(bool, GlobMatcher)>,
}

impl Patterns {
    /// A pattern that cannot be used, which [`check_pattern`] keeps out of a checked file, matches
    /// nothing.
    fn new(patterns: &[String]) -> Self {
        let globs = patterns.iter().filter_map(|pattern| {
            let positive = pattern.strip_prefix('!');
            let glob = compile(positive.unwrap_or(pattern)).ok()?;
            Some((positive.is_none(), glob.compile_matcher()))
        });
        Self {
            from_everything: patterns.first().is_none_or(|first| first.starts_with('!')),
            globs: globs.collect(),
        }
    }

    /// The last pattern that matches decides; no pattern at all means everything.
    fn matches(&self, text: &str) -> bool {
        let last = self
            .globs
            .iter()
            .rev()
            .find(|(_, glob)| glob.is_match(text));
        last.map_or(self.from_everything, |(wanted, _)| *wanted)
    }
}

fn list(patterns: &[String]) -> String {
    let patterns: Vec<String> = patterns
        .iter()
        .map(|pattern| format!("`{pattern}`"))
        .collect();
    patterns.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    /// Cases that runners are held to as well.
    const PATTERNS: &str = include_str!("../../../protocol/patterns.json");

    #[derive(serde::Deserialize)]
    struct Case {
        patterns: Vec<String>,
        paths: std::collections::BTreeMap<String, bool>,
    }

    #[test]
    fn patterns_mean_what_they_mean_to_a_runner() {
        let cases: Vec<Case> = serde_json::from_str(PATTERNS).unwrap();
        assert!(cases.len() > 5);
        for Case { patterns, paths } in cases {
            for (path, named) in paths {
                assert_eq!(
                    matches_patterns(&patterns, &path),
                    named,
                    "{patterns:?} {path}"
                );
            }
        }
    }

    fn trigger(branches: &[&str], paths: &[&str]) -> Trigger {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Trigger {
            branches: owned(branches),
            paths: owned(paths),
            ..Trigger::default()
        }
    }

    fn decide(trigger: &Trigger, branch: &str, paths: &[&str]) -> Triggered {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        triggered_by(trigger, &format!("refs/heads/{branch}"), Some(&paths))
    }

    fn tags(branches: &[&str], tags: &[&str]) -> Trigger {
        Trigger {
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..trigger(branches, &["src/**"])
        }
    }

    #[test]
    fn a_trigger_that_says_nothing_takes_every_push() {
        assert_eq!(
            decide(&Trigger::default(), "any/branch", &["a"]),
            Triggered::Yes
        );
        assert_eq!(decide(&Trigger::default(), "main", &[]), Triggered::Yes);
        assert_eq!(
            triggered_by(&Trigger::default(), "refs/heads/main", None),
            Triggered::Yes
        );
    }

    #[test]
    fn branches_match_part_by_part() {
        let trigger = trigger(&["main", "release/*"], &[]);
        assert_eq!(decide(&trigger, "main", &["a"]), Triggered::Yes);
        assert_eq!(decide(&trigger, "release/1.2", &["a"]), Triggered::Yes);
        for branch in ["release/1/2", "release", "mainline", "Main"] {
            let reason = format!("branch `{branch}` does not match `main`, `release/*`");
            assert_eq!(decide(&trigger, branch, &["a"]), Triggered::No { reason });
        }
    }

    #[test]
    fn paths_take_and_take_away_in_their_order() {
        let trigger = trigger(
            &[],
            &["services/shop/**", "!**/*.md", "services/shop/API.md"],
        );
        assert_eq!(
            decide(&trigger, "main", &["services/shop/src/main.rs"]),
            Triggered::Yes
        );
        assert_eq!(
            decide(&trigger, "main", &["x", "services/shop/a"]),
            Triggered::Yes
        );
        assert_eq!(
            decide(&trigger, "main", &["services/shop/API.md"]),
            Triggered::Yes
        );
        let no = Triggered::No {
            reason:
                "no changed path matches `services/shop/**`, `!**/*.md`, `services/shop/API.md`"
                    .to_owned(),
        };
        assert_eq!(decide(&trigger, "main", &["services/shop/README.md"]), no);
        assert_eq!(decide(&trigger, "main", &["services/web/a"]), no);
        assert_eq!(decide(&trigger, "main", &[]), no);
    }

    #[test]
    fn a_list_of_exceptions_begins_from_everything() {
        let trigger = trigger(&["!dependabot/**"], &["!docs/**"]);
        assert_eq!(decide(&trigger, "main", &["src/a"]), Triggered::Yes);
        assert!(matches!(
            decide(&trigger, "main", &["docs/a"]),
            Triggered::No { .. }
        ));
        assert!(matches!(
            decide(&trigger, "dependabot/npm/x", &["src/a"]),
            Triggered::No { .. }
        ));
    }

    #[test]
    fn an_unknown_change_counts_as_every_change() {
        assert_eq!(
            triggered_by(&trigger(&[], &["services/**"]), "refs/heads/main", None),
            Triggered::Yes
        );
    }

    fn pull_request(base: &str) -> PullRequest {
        PullRequest {
            number: 7,
            base_ref: format!("refs/heads/{base}"),
            head_branch: "main".into(),
            trust: crate::pull_request::Trust::Untrusted { fork: None },
        }
    }

    #[test]
    fn pull_requests_start_runs_where_the_file_says_so_by_what_they_change() {
        let misfit = |trigger: &Trigger, base: &str, path: &str| {
            let changed = [path.to_owned()];
            pull_request_misfit(trigger, &pull_request(base), Some(&changed)).unwrap_or_default()
        };
        let wants = Trigger {
            pull_request: Some(PullRequestTrigger {
                branches: vec!["main".into(), "release/*".into()],
                paths: vec!["src/**".into()],
            }),
            ..trigger(&["topic"], &["docs/**"])
        };
        assert_eq!(misfit(&wants, "main", "src/a"), "");
        assert_eq!(misfit(&wants, "release/1", "src/a"), "");
        // The branch that it comes from is called main.
        assert_eq!(
            misfit(&wants, "topic", "src/a"),
            "base branch `topic` does not match `main`, `release/*`"
        );
        assert_eq!(
            misfit(&wants, "main", "docs/a"),
            "no changed path matches `src/**`"
        );
        let all = Trigger {
            pull_request: Some(PullRequestTrigger::default()),
            ..Trigger::default()
        };
        assert_eq!(misfit(&all, "any/branch", "any/path"), "");
        let none = misfit(&Trigger::default(), "main", "src/a");
        assert!(none.contains("no `trigger.pull_request`"), "{none}");

        let lately = |files: &[Trigger]| pull_request_is_unwanted(files, &pull_request("main"));
        assert_eq!(lately(&[]), None);
        assert_eq!(lately(&[Trigger::default(), wants]), None);
        let said = lately(&[Trigger::default()]).unwrap();
        assert!(said.contains("pull requests to main"), "{said}");
    }

    fn reason(trigger: &Trigger, git_ref: &str) -> String {
        match triggered_by(trigger, git_ref, Some(&["docs/a".to_owned()])) {
            Triggered::Yes => String::new(),
            Triggered::No { reason } => reason,
        }
    }

    #[test]
    fn tags_start_runs_where_the_file_says_so_whatever_they_change() {
        let both = tags(&["main"], &["v*", "!v0.*"]);
        assert_eq!(reason(&both, "refs/tags/v1.2"), "");
        assert_eq!(
            reason(&both, "refs/tags/v0.9"),
            "tag `v0.9` does not match `v*`, `!v0.*`"
        );
        assert_eq!(
            reason(&both, "refs/heads/main"),
            "no changed path matches `src/**`"
        );
        assert_eq!(
            reason(&Trigger::default(), "refs/tags/v1"),
            "tags start no run: the file has no `trigger.push.tags`"
        );
        assert!(reason(&both, "refs/notes/v1").contains("no branch and no tag"));
    }

    #[test]
    fn with_tags_alone_branches_start_nothing() {
        let alone = tags(&[], &["v*"]);
        assert_eq!(reason(&alone, "refs/tags/v1"), "");
        let said = reason(&alone, "refs/heads/v1");
        assert!(said.contains("branches start no run"), "{said}");
    }

    #[test]
    fn a_tag_is_not_looked_at_when_no_file_read_lately_wants_it() {
        let (wants, not) = (tags(&["main"], &["v*"]), Trigger::default());
        assert_eq!(tag_is_unwanted(&[], "refs/tags/v1"), None);
        assert_eq!(
            tag_is_unwanted(&[not.clone(), wants.clone()], "refs/tags/v1"),
            None
        );
        for files in [&[not][..], &[wants]] {
            let said = tag_is_unwanted(files, "refs/tags/nightly").unwrap();
            assert!(
                said.contains("tag nightly in `trigger.push.tags`"),
                "{said}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn a_pattern_that_passes_the_check_is_a_pattern_that_decides(pattern in "[a-c*?/!\\[\\]{},.-]{1,12}") {
            if check_pattern(&pattern).is_ok() {
                let trigger = Trigger { branches: vec![pattern.clone()], ..Trigger::default() };
                let inverse = match pattern.strip_prefix('!') {
                    Some(rest) => rest.to_owned(),
                    None => format!("!{pattern}"),
                };
                let inverse = Trigger { branches: vec![inverse], ..Trigger::default() };
                for branch in ["a", "a/b", "main", "c.d-e"].map(|name| format!("refs/heads/{name}")) {
                    let yes = triggered_by(&trigger, &branch, None) == Triggered::Yes;
                    let other = triggered_by(&inverse, &branch, None) == Triggered::Yes;
                    prop_assert!(yes != other, "{pattern} {branch}");
                }
            }
        }
    }
}
