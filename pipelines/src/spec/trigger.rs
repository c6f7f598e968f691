//! Does a push start a run.
//!
//! Patterns are looked at from top to bottom and the last one that matches decides, a `!` in front
//! taking away. A list that begins with `!` begins from everything. `*` stays within one part of a
//! path or branch, `**` goes through all.

use super::model::Trigger;
use globset::{Glob, GlobBuilder, GlobMatcher};

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

/// Decides about a push to `branch`, which is the name without `refs/heads/`.
///
/// `changed_paths` are relative to the repository's root; `None` when it is not known what changed,
/// as with a new branch, which counts as everything.
#[must_use]
pub fn triggered_by(
    trigger: &Trigger,
    branch: &str,
    changed_paths: Option<&[String]>,
) -> Triggered {
    if !Patterns::new(&trigger.branches).matches(branch) {
        let patterns = list(&trigger.branches);
        return Triggered::No {
            reason: format!("branch `{branch}` does not match {patterns}"),
        };
    }
    if let Some(changed) = changed_paths
        && !trigger.paths.is_empty()
    {
        let patterns = Patterns::new(&trigger.paths);
        if !changed.iter().any(|path| patterns.matches(path)) {
            let patterns = list(&trigger.paths);
            return Triggered::No {
                reason: format!("no changed path matches {patterns}"),
            };
        }
    }
    Triggered::Yes
}

/// Whether `pattern` can be used.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn check_glob(pattern: &str) -> Result<(), String> {
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
    /// A pattern that cannot be used, which [`check_glob`] keeps out of a checked file, matches
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

    fn trigger(branches: &[&str], paths: &[&str]) -> Trigger {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Trigger {
            branches: owned(branches),
            paths: owned(paths),
        }
    }

    fn decide(trigger: &Trigger, branch: &str, paths: &[&str]) -> Triggered {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        triggered_by(trigger, branch, Some(&paths))
    }

    #[test]
    fn a_trigger_that_says_nothing_takes_every_push() {
        assert_eq!(
            decide(&Trigger::default(), "any/branch", &["a"]),
            Triggered::Yes
        );
        assert_eq!(decide(&Trigger::default(), "main", &[]), Triggered::Yes);
        assert_eq!(
            triggered_by(&Trigger::default(), "main", None),
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
            triggered_by(&trigger(&[], &["services/**"]), "main", None),
            Triggered::Yes
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn a_pattern_that_passes_the_check_is_a_pattern_that_decides(pattern in "[a-c*?/!\\[\\]{},.-]{1,12}") {
            if check_glob(&pattern).is_ok() {
                let trigger = Trigger { branches: vec![pattern.clone()], paths: Vec::new() };
                let inverse = match pattern.strip_prefix('!') {
                    Some(rest) => rest.to_owned(),
                    None => format!("!{pattern}"),
                };
                let inverse = Trigger { branches: vec![inverse], paths: Vec::new() };
                for branch in ["a", "a/b", "main", "c.d-e"] {
                    let yes = triggered_by(&trigger, branch, None) == Triggered::Yes;
                    let other = triggered_by(&inverse, branch, None) == Triggered::Yes;
                    prop_assert!(yes != other, "{pattern} {branch}");
                }
            }
        }
    }
}
