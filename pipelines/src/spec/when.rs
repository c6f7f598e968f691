//! Which steps of a run are left out, by their `when`.

use super::fields::list;
use super::model::{Pipeline, When};
use super::trigger::{self, Triggered, pull_request_misfit, triggered_by};
use crate::git_ref::GitRef;
use crate::id::StepName;
use crate::started_by::StartedBy;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What starts a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A push to a branch.
    Push,
    /// A push of a tag.
    Tag,
    /// A pull request that was opened, got commits or was opened again.
    PullRequest,
    /// A person.
    Manual,
    /// The time, as `trigger.schedule` says.
    Schedule,
}

impl Event {
    /// Every one there is.
    pub const ALL: [Self; 5] = [
        Self::Push,
        Self::Tag,
        Self::PullRequest,
        Self::Manual,
        Self::Schedule,
    ];

    /// The word in files.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Tag => "tag",
            Self::PullRequest => "pull_request",
            Self::Manual => "manual",
            Self::Schedule => "schedule",
        }
    }
}

/// Steps that a run leaves out, each with the reason.
pub type LeftOut = BTreeMap<StepName, String>;

/// What a run of `git_ref`, `refs/heads/main` or `refs/tags/v1`, runs: everything but what is left out. What
/// the file says of pushes is asked of a push alone.
///
/// `changed_paths` are relative to the repository's root; `None` when it is not known what changed, which
/// counts as everything. A run of no step at all is not wanted either.
///
/// # Errors
/// Why it runs nothing, for pages: ``no changed path matches `services/**` ``.
pub fn wanted_steps(
    pipeline: &Pipeline,
    git_ref: &str,
    started_by: &StartedBy,
    changed_paths: Option<&[String]>,
) -> Result<LeftOut, String> {
    let trigger = &pipeline.trigger;
    let unwanted = match started_by {
        StartedBy::Push => match triggered_by(trigger, git_ref, changed_paths) {
            Triggered::Yes => None,
            Triggered::No { reason } => Some(reason),
        },
        StartedBy::PullRequest(pull_request) => {
            pull_request_misfit(trigger, pull_request, changed_paths)
        }
        StartedBy::Manual { .. } | StartedBy::Schedule { .. } => None,
    };
    if let Some(reason) = unwanted {
        return Err(reason);
    }
    let event = started_by.event(git_ref);
    let left_out = left_out(pipeline, git_ref, event, changed_paths);
    if !left_out.is_empty() && left_out.len() == pipeline.steps.len() {
        return Err("`when` lets none of its steps run".to_owned());
    }
    Ok(left_out)
}

/// The steps whose `when` does not hold.
#[must_use]
pub fn left_out(
    pipeline: &Pipeline,
    git_ref: &str,
    event: Event,
    changed_paths: Option<&[String]>,
) -> LeftOut {
    let reason = |when: &Option<When>| misfit(when.as_ref()?, git_ref, event, changed_paths);
    let steps = pipeline.steps.iter();
    steps
        .filter_map(|(name, step)| Some((name.clone(), reason(&step.when)?)))
        .collect()
}

/// Why a condition does not hold.
fn misfit(
    when: &When,
    git_ref: &str,
    event: Event,
    changed_paths: Option<&[String]>,
) -> Option<String> {
    if !when.events.is_empty() && !when.events.contains(&event) {
        let words: Vec<&str> = when.events.iter().map(|event| event.word()).collect();
        let wanted = list(&words, "or");
        return Some(format!(
            "it is for runs started by {wanted}, not by `{}`",
            event.word()
        ));
    }
    let pushed = GitRef::of(git_ref);
    let any_ref = when.branches.is_empty() && when.tags.is_empty();
    let by_ref = match pushed {
        _ if any_ref => None,
        GitRef::Branch(branch) if !when.branches.is_empty() => {
            trigger::misfit("branch", branch, &when.branches)
        }
        GitRef::Tag(tag) if !when.tags.is_empty() => trigger::misfit("tag", tag, &when.tags),
        GitRef::Tag(tag) => Some(format!("it is for branches, `{tag}` is a tag")),
        GitRef::PullRequest(number) => {
            let wanted = branches_or_tags(when);
            Some(format!(
                "it is for {wanted}, pull request #{number} is none"
            ))
        }
        GitRef::Branch(name) | GitRef::Other(name) => {
            let wanted = branches_or_tags(when);
            Some(format!("it is for {wanted}, `{name}` is none"))
        }
    };
    by_ref.or_else(|| match pushed {
        GitRef::Tag(_) => None,
        GitRef::Branch(_) | GitRef::PullRequest(_) | GitRef::Other(_) => {
            trigger::no_path(&when.paths, changed_paths)
        }
    })
}

fn branches_or_tags(when: &When) -> &'static str {
    if when.branches.is_empty() {
        "tags"
    } else {
        "branches"
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use crate::pull_request::{PullRequest, Trust};
    use crate::spec::InputValues;

    const MAIN: &str = "refs/heads/main";

    fn file(steps: &str) -> Pipeline {
        let text = format!("version: 1\nname: shop\nsteps:\n{steps}");
        parse("pipeline.yml", &text).unwrap()
    }

    fn step(name: &str, when: &str) -> String {
        format!("  {name}: {{ image: a, run: b, when: {{ {when} }} }}\n")
    }

    /// The reason, empty when the step runs.
    fn reason(when: &str, git_ref: &str, changed: Option<&str>) -> String {
        let changed = changed.map(|path| vec![path.to_owned()]);
        let file = file(&step("one", when));
        let event = StartedBy::Push.event(git_ref);
        let left_out = left_out(&file, git_ref, event, changed.as_deref());
        left_out.into_values().next().unwrap_or_default()
    }

    #[test]
    fn a_step_runs_where_its_condition_holds() {
        let (main, topic, tag) = ("refs/heads/main", "refs/heads/topic", "refs/tags/v1");
        let branches = "branches: [main]";
        assert_eq!(reason(branches, main, None), "");
        assert_eq!(
            reason(branches, topic, None),
            "branch `topic` does not match `main`"
        );
        assert_eq!(
            reason(branches, tag, None),
            "it is for branches, `v1` is a tag"
        );
        assert_eq!(
            reason(branches, "HEAD", None),
            "it is for branches, `HEAD` is none"
        );
        let tags = "tags: [\"v*\"]";
        assert_eq!(reason(tags, tag, None), "");
        assert_eq!(
            reason(tags, "refs/tags/x", None),
            "tag `x` does not match `v*`"
        );
        assert_eq!(reason(tags, main, None), "it is for tags, `main` is none");
        let both = "branches: [main], tags: [\"v*\"]";
        assert_eq!(reason(both, main, None), "");
        assert_eq!(reason(both, tag, None), "");
        assert_ne!(reason(both, topic, None), "");
    }

    #[test]
    fn paths_hold_for_branches_and_what_changed_there() {
        let paths = "paths: [\"web/**\"]";
        let main = "refs/heads/main";
        assert_eq!(reason(paths, main, Some("web/a")), "");
        assert_eq!(
            reason(paths, main, None),
            "",
            "unknown counts as everything"
        );
        assert_eq!(
            reason(paths, main, Some("api/a")),
            "no changed path matches `web/**`"
        );
        assert_eq!(reason(paths, "refs/tags/v1", Some("api/a")), "");
        let both = "branches: [main], paths: [\"web/**\"]";
        assert_eq!(reason(both, main, Some("web/a")), "");
        assert_ne!(reason(both, main, Some("api/a")), "");
        assert_ne!(reason(both, "refs/heads/topic", Some("web/a")), "");
    }

    fn manual() -> StartedBy {
        StartedBy::Manual {
            by: "ada".into(),
            inputs: InputValues::new(),
            commit_named: false,
        }
    }

    #[test]
    fn a_step_waits_for_the_event_that_it_names() {
        let file = file(&(step("one", "events: [push, manual]") + &step("two", "events: [tag]")));
        let left_out = |started_by: &StartedBy, git_ref: &str| {
            let event = started_by.event(git_ref);
            let left_out = left_out(&file, git_ref, event, None);
            Vec::from_iter(
                left_out
                    .into_iter()
                    .map(|(name, reason)| (name.to_string(), reason)),
            )
        };
        let two = |event: &str| {
            let reason = format!("it is for runs started by `tag`, not by `{event}`");
            vec![("two".to_owned(), reason)]
        };
        assert_eq!(left_out(&StartedBy::Push, MAIN), two("push"));
        assert_eq!(left_out(&manual(), MAIN), two("manual"));
        // A person who starts a run of a tag pushes none.
        assert_eq!(left_out(&manual(), "refs/tags/v1"), two("manual"));
        let one = left_out(&StartedBy::Push, "refs/tags/v1");
        assert_eq!(
            one,
            [(
                "one".to_owned(),
                "it is for runs started by `push` or `manual`, not by `tag`".to_owned()
            )]
        );
    }

    #[test]
    fn what_the_file_says_of_pushes_is_asked_of_a_push_alone() {
        let text = "version: 1\nname: shop\ntrigger: { push: { branches: [main] }, paths: [src/**] }\n\
                    steps:\n  one: { image: a, run: b }\n";
        let file = parse("pipeline.yml", text).unwrap();
        let changed = ["docs/a".to_owned()];
        let topic = "refs/heads/topic";
        assert!(wanted_steps(&file, topic, &StartedBy::Push, None).is_err());
        assert!(wanted_steps(&file, MAIN, &StartedBy::Push, Some(&changed)).is_err());
        for git_ref in [topic, MAIN, "refs/tags/v1"] {
            let wanted = wanted_steps(&file, git_ref, &manual(), Some(&changed));
            assert_eq!(wanted, Ok(LeftOut::new()), "{git_ref}");
        }
    }

    #[test]
    fn a_pull_request_is_of_no_branch_whatever_its_own_is_called() {
        let pull_request = StartedBy::PullRequest(PullRequest {
            number: 7,
            base_ref: MAIN.into(),
            head_branch: "main".into(),
            trust: Trust::Trusted,
        });
        let text = "version: 1\nname: shop\ntrigger: { pull_request: { branches: [main], paths: [src/**] } }\n\
                    steps:\n  one: { image: a, run: b }\n  publish: { image: a, run: b, when: { branches: [main] } }\n  \
                    check: { image: a, run: b, when: { events: [pull_request], paths: [src/**] } }\n";
        let file = parse("pipeline.yml", text).unwrap();
        let (head, changed) = ("refs/pull/7/head", ["src/a".to_owned()]);
        let left_out = wanted_steps(&file, head, &pull_request, Some(&changed)).unwrap();
        let publish = StepName::parse("publish").unwrap();
        let reason = "it is for branches, pull request #7 is none".to_owned();
        assert_eq!(left_out, LeftOut::from([(publish, reason)]));
        let other = ["docs/a".to_owned()];
        assert!(wanted_steps(&file, head, &pull_request, Some(&other)).is_err());
        // What the file says of pull requests is asked of these alone.
        let left_out = wanted_steps(&file, MAIN, &StartedBy::Push, Some(&other)).unwrap();
        assert_eq!(left_out.len(), 1, "{left_out:?}");
    }

    #[test]
    fn a_run_that_leaves_all_steps_out_is_not_wanted() {
        let never = step("one", "branches: [none]");
        let only = wanted_steps(&file(&never), MAIN, &StartedBy::Push, None);
        assert_eq!(only.unwrap_err(), "`when` lets none of its steps run");
        let two = file(&(never + "  two: { image: a, run: b }\n"));
        let left_out = wanted_steps(&two, MAIN, &StartedBy::Push, None).unwrap();
        assert_eq!(
            left_out.keys().map(StepName::as_str).collect::<Vec<_>>(),
            ["one"]
        );
        let said = wanted_steps(&two, "refs/tags/v1", &StartedBy::Push, None).unwrap_err();
        assert!(said.contains("trigger.push.tags"), "{said}");
    }
}
