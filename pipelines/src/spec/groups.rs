//! `concurrency` of a step: the group that its job is in.
//!
//! A group's name may hold places for values: `{branch}` stays in it until there is a run, `{matrix.NAME}` is filled
//! with each combination.

use super::diagnostic::{At, Reporter};
use super::fields::{Fields, list, nearest};
use super::keys;
use super::matrix::{self, Values};
use super::model::Pipeline;
use super::tree::{Entry, Node};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// How many jobs of a group may be at work at once.
pub(super) const LIMITS: RangeInclusive<u32> = 1..=100;
/// Most characters of a group's name, a place for a value counting as one.
const LONGEST_NAME: usize = 100;
/// The place for the branch, tag or pull request of the run.
const BRANCH: &str = "{branch}";
/// How the place for a value of the matrix begins.
const MATRIX: &str = "matrix.";

/// A group of jobs, of which at most so many are at work at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name. In the file of a run `{branch}` in it stands for the run's branch.
    pub name: String,
    /// At most so many at once.
    pub limit: u32,
}

impl Group {
    /// The group of a run of this branch.
    #[must_use]
    pub fn on(&self, branch: &str) -> Self {
        Self {
            name: self.name.replace(BRANCH, branch),
            limit: self.limit,
        }
    }

    /// With the values of a combination.
    pub(super) fn with(&self, values: &Values) -> Self {
        let value = |place: &str| {
            let name = place.strip_prefix(MATRIX)?;
            values.get(name).cloned()
        };
        Self {
            name: filled(&self.name, value),
            limit: self.limit,
        }
    }
}

/// A text with each `{place}` replaced by its value, where it has one.
fn filled(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, place, after)) = next_place(rest) {
        whole.push_str(before);
        match value(place) {
            Some(value) => whole.push_str(&value),
            None => whole.push_str(&format!("{{{place}}}")),
        }
        rest = after;
    }
    whole + rest
}

/// What is before the first `{place}`, the place, and what is behind.
fn next_place(text: &str) -> Option<(&str, &str, &str)> {
    let (before, behind) = text.split_once('{')?;
    let (place, after) = behind.split_once('}')?;
    Some((before, place, after))
}

/// The places of a name, as they stand there without braces.
fn places(text: &str) -> Vec<&str> {
    let mut found = vec![];
    let mut rest = text;
    while let Some((_, place, after)) = next_place(rest) {
        found.push(place);
        rest = after;
    }
    found
}

/// A group's name, whatever its places stand for.
///
/// # Errors
/// What is wrong with it.
pub(super) fn name(text: &str) -> Result<String, &'static str> {
    let plain = filled(text, |_| Some("x".to_owned()));
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
    if plain.is_empty() || plain.len() > LONGEST_NAME || !plain.bytes().all(allowed) {
        return Err(
            "cannot be the name of a group: use 1 to 100 letters, digits, `.`, `_`, `/` and `-`",
        );
    }
    Ok(text.to_owned())
}

/// The first place of a name that never stands for anything.
pub(super) fn unknown_place(text: &str) -> Option<&str> {
    let is_known = |place: &str| match place.strip_prefix(MATRIX) {
        Some(name) => matrix::is_name(name),
        None => place == "branch",
    };
    places(text).into_iter().find(|place| !is_known(place))
}

/// Reads `concurrency` of a step.
pub(super) fn of_step(fields: &Fields<'_>, reporter: &mut Reporter<'_>) -> Option<Group> {
    let entry = fields.get("concurrency", reporter)?;
    let fields = Fields::read(
        &entry.value,
        None,
        entry.at,
        &keys::STEP_CONCURRENCY,
        reporter,
    )?;
    let limit = fields.number("limit", LIMITS, reporter).unwrap_or(1);
    let entry = fields.require("group", reporter)?;
    Some(Group {
        name: group(entry, reporter)?,
        limit,
    })
}

fn group(entry: &Entry, reporter: &mut Reporter<'_>) -> Option<String> {
    let text = super::fields::text(entry, reporter)?;
    match name(text) {
        Err(reason) => {
            let shown = text.lines().next().unwrap_or_default();
            reporter.error(entry.value.at, format!("`group`: `{shown}` {reason}"));
            None
        }
        Ok(name) => {
            if let Some(place) = unknown_place(text) {
                let message = format!("there is no `{{{place}}}`");
                let help = match nearest(place, ["branch", "matrix"]) {
                    Some("branch") => format!("did you mean `{BRANCH}`?"),
                    _ => format!("it can be `{BRANCH}`, or `{{matrix.NAME}}` of a step's matrix"),
                };
                reporter.error_with_help(entry.value.at, message, help);
            }
            Some(name)
        }
    }
}

/// What only all steps together can tell: whether a group has one limit.
pub(super) fn check(pipeline: &Pipeline, root: &Node, reporter: &mut Reporter<'_>) {
    let mut first = IndexMap::new();
    for (name, step) in &pipeline.steps {
        let Some(group) = &step.group else {
            continue;
        };
        let (of, limit) = first.entry(&group.name).or_insert((name, group.limit));
        if *limit != group.limit {
            let path = ["steps", name.as_str(), "concurrency"];
            let at = root.value_at(&[path.as_slice(), &["limit"]].concat());
            let said = &group.name;
            let message = format!(
                "group `{said}` has the limit {limit} in step `{of}`, and {} here",
                group.limit
            );
            let help = "say the same in both, or give one of them another group";
            reporter.error_with_help(at, message, help);
        }
    }
}

/// What only a step's group and its matrix together can tell. `names` are those of the matrix.
pub(super) fn check_matrix(
    group: &Group,
    at: At,
    (names, matrix): (&[&str], Option<&Vec<Values>>),
    reporter: &mut Reporter<'_>,
) {
    let unknown = places(&group.name).into_iter().find(|place| {
        let name = place.strip_prefix(MATRIX);
        name.is_some_and(|name| !names.contains(&name))
    });
    if let Some(place) = unknown {
        let message = format!("there is no `{{{place}}}`");
        let help = match names {
            [] => "the step has no `matrix`".to_owned(),
            some => format!("the step's matrix has {}", list(some, "and")),
        };
        return reporter.error_with_help(at, message, help);
    }
    for values in matrix.into_iter().flatten() {
        let whole = group.with(values).name;
        if let Err(reason) = name(&whole) {
            let message = format!("with its matrix, `group` becomes `{whole}`, which {reason}");
            return reporter.error(at, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::parse;

    fn read(keys: &str) -> Result<Vec<(String, Group)>, String> {
        let text =
            format!("version: 1\nname: shop\nsteps:\n  ship: {{ image: a, run: b, {keys} }}\n");
        let pipeline = parse("f", &text).map_err(|diagnostics| diagnostics.to_string())?;
        let steps = pipeline.steps.iter();
        Ok(steps
            .map(|(name, step)| (name.to_string(), step.group.clone().unwrap()))
            .collect())
    }

    fn group(name: &str, limit: u32) -> Group {
        let name = name.to_owned();
        Group { name, limit }
    }

    #[test]
    fn a_group_is_a_name_and_a_limit() {
        let found = read("concurrency: { group: deploys }").unwrap();
        assert_eq!(found, [("ship".to_owned(), group("deploys", 1))]);
        let found = read("concurrency: { group: 'to-{branch}', limit: 3 }").unwrap();
        assert_eq!(found[0].1, group("to-{branch}", 3));
        assert_eq!(found[0].1.on("release/1.0"), group("to-release/1.0", 3));
    }

    #[test]
    fn each_combination_is_in_a_group_of_its_own_values() {
        let keys = "concurrency: { group: '{matrix.to}/{branch}' }, matrix: { to: [eu, us] }";
        let found = read(keys).unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|(step, group)| (step.as_str(), group.name.as_str()))
            .collect();
        assert_eq!(
            names,
            [("ship-eu", "eu/{branch}"), ("ship-us", "us/{branch}")]
        );
    }

    #[test]
    fn a_value_that_looks_like_a_place_is_none() {
        // A name with braces is refused where it is made, so that no value is filled in twice.
        let told = read("concurrency: { group: '{matrix.to}' }, matrix: { to: ['x {y'] }");
        assert!(told.unwrap_err().contains("with its matrix"));
    }

    #[test]
    fn what_leads_nowhere_is_said() {
        for (wrong, said) in [
            ("deploys", "has to be a mapping"),
            ("{}", "needs `group`"),
            ("{ limit: 2 }", "needs `group`"),
            ("{ group: '' }", "`group` is empty"),
            ("{ group: 'two words' }", "cannot be the name of a group"),
            ("{ group: 'forks: x' }", "cannot be the name of a group"),
            ("{ group: '{branch' }", "cannot be the name of a group"),
            ("{ group: '{brnach}' }", "did you mean `{branch}`?"),
            ("{ group: '{sha}' }", "it can be `{branch}`"),
            ("{ group: '{matrix.os}' }", "the step has no `matrix`"),
            ("{ group: a, limit: 0 }", "from 1 to 100"),
            ("{ group: a, limit: 101 }", "from 1 to 100"),
            ("{ name: a }", "did you mean `group`?"),
            ("{ group: a, max: 2 }", "did you mean `limit`?"),
        ] {
            let told = read(&format!("concurrency: {wrong}")).unwrap_err();
            assert!(told.contains(said), "{wrong}: {told}");
        }
        let told = read("concurrency: { group: '{matrix.os}' }, matrix: { db: [a] }").unwrap_err();
        assert!(told.contains("the step's matrix has `db`"), "{told}");
    }
}
