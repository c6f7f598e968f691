//! Steps with a `matrix`: each becomes as many steps as its matrix has combinations.
//!
//! Nothing behind the reader knows of a matrix: it meets the steps, each with a safe name and its values. What
//! needs a step with a matrix needs all of its combinations.

use super::diagnostic::{At, Reporter};
use super::fields::{self, list};
use super::groups;
use super::model::{Pipeline, Step, StepAction};
use super::tree::{Entry, Node, Value};
use super::values;
use crate::id::{JobName, StepName};
use indexmap::{IndexMap, IndexSet};
use serde::{Deserialize, Serialize};

/// Most combinations of one step's matrix.
pub const MOST_COMBINATIONS: usize = 50;
/// Most values of a matrix multiplied, before `exclude`.
const MOST_MULTIPLIED: usize = 1_000;
/// Most steps of a file that are jobs of their own, combinations counted.
pub const MOST_OWN_JOBS: usize = 250;
/// How the variable of a matrix's value begins.
const VARIABLE: &str = "MATRIX_";
/// The key of a matrix that is no name of values.
pub(super) const EXCLUDE: &str = "exclude";

/// One combination of a matrix's values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Combination {
    /// The step as the file names it.
    pub of: StepName,
    /// A value for each of the matrix's names.
    pub values: IndexMap<String, String>,
}

/// The values of one combination, by their names.
pub(super) type Values = IndexMap<String, String>;

/// The combinations of those steps that have a matrix.
pub(super) type Matrices = IndexMap<StepName, Vec<Values>>;

/// The variable in which a step finds a value of its matrix: `MATRIX_RUST` of `rust`.
#[must_use]
pub fn matrix_variable(name: &str) -> String {
    format!("{VARIABLE}{}", name.to_ascii_uppercase())
}

/// A text in which every `{matrix.name}` is replaced by what `value` says of the name.
fn filled(text: &str, mut value: impl FnMut(&str) -> String) -> String {
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("{matrix.") {
        let Some((name, after)) = behind.split_once('}') else {
            break;
        };
        whole.push_str(before);
        whole.push_str(&value(name));
        rest = after;
    }
    whole + rest
}

/// The image of a container, in which `{matrix.name}` stands for a value.
///
/// # Errors
/// What is wrong with it, whatever the values are.
pub(super) fn container_image(text: &str) -> Result<String, &'static str> {
    values::container_image(&filled(text, |_| "x".to_owned())).map(|_| text.to_owned())
}

/// Letters in lower case, digits and `_`, a letter first.
pub(super) fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase());
    let more = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    first && text.len() <= 40 && bytes.all(more)
}

/// The combinations of a matrix; none when something is wrong with it.
pub(super) fn read(entry: &Entry, reporter: &mut Reporter<'_>) -> Option<Vec<Values>> {
    let mut axes: IndexMap<&str, Vec<&str>> = IndexMap::new();
    let mut exclude = None;
    for axis in fields::named(entry, reporter)? {
        match axis.key.as_str() {
            EXCLUDE => exclude = Some(axis),
            "include" => reporter.error_with_help(
                axis.at,
                "`include` is not supported yet",
                "name the values and `exclude` what is too much",
            ),
            name if !is_name(name) => reporter.error_with_help(
                axis.at,
                format!("`{name}` cannot be the name of values"),
                "use 1 to 40 of a-z, 0-9 and `_`, a letter first",
            ),
            name => {
                let values = axis_values(axis, reporter);
                axes.insert(name, values);
            }
        }
    }
    if axes.is_empty() {
        let help = "give it names with values, as in `rust: [\"1.94\", \"1.95\"]`";
        reporter.error_with_help(entry.at, "`matrix` says nothing", help);
        return None;
    }
    let excluded = exclude.map(|it| exclusions(it, &axes, reporter));
    if axes.values().any(Vec::is_empty) {
        return None;
    }
    let combinations = multiplied(&axes)
        .map(|all| without(all, &excluded.unwrap_or_default()))
        .filter(|kept| kept.len() <= MOST_COMBINATIONS);
    match &combinations {
        None => {
            let message = format!("`matrix` has more than {MOST_COMBINATIONS} combinations");
            reporter.error_with_help(entry.at, message, "name fewer values, or `exclude` some");
        }
        Some(kept) if kept.is_empty() => {
            reporter.error(entry.at, "`exclude` leaves no combination of the `matrix`");
            return None;
        }
        Some(_) => {}
    }
    combinations
}

fn axis_values<'n>(axis: &'n Entry, reporter: &mut Reporter<'_>) -> Vec<&'n str> {
    let mut found: Vec<&str> = vec![];
    let Some(items) = fields::items(axis, reporter) else {
        return found;
    };
    if items.is_empty() {
        reporter.error(axis.value.at, format!("`{}` has no values", axis.key));
    }
    for item in items {
        let Some(value) = value(item, &axis.key, reporter) else {
            continue;
        };
        if found.contains(&value) {
            let message = format!("`{value}` stands in `{}` twice", axis.key);
            reporter.error(item.at, message);
        } else {
            found.push(value);
        }
    }
    found
}

/// A value, from which a part of a name can be made.
fn value<'n>(node: &'n Node, key: &str, reporter: &mut Reporter<'_>) -> Option<&'n str> {
    let text = fields::scalar(node, key, reporter)?.text.as_str();
    if text.len() > 100 || text.chars().any(char::is_control) || safe(text).is_empty() {
        reporter.error_with_help(
            node.at,
            format!("`{text}` cannot be a value of `{key}`"),
            "use one line of at most 100 bytes with at least one letter or digit in it",
        );
        return None;
    }
    Some(text)
}

/// What `exclude` lists: of each combination some values, or all.
fn exclusions(
    entry: &Entry,
    axes: &IndexMap<&str, Vec<&str>>,
    reporter: &mut Reporter<'_>,
) -> Vec<Values> {
    let mut found = vec![];
    for item in fields::items(entry, reporter).unwrap_or_default() {
        let Value::Map(entries) = &item.value else {
            let message = format!("`{EXCLUDE}` lists mappings from names to values");
            reporter.error(item.at, message);
            continue;
        };
        let mut values = Values::new();
        for part in entries {
            let Some(known) = axes.get(part.key.as_str()) else {
                let names: Vec<&str> = axes.keys().copied().collect();
                let message = format!("the matrix has no `{}`", part.key);
                let help = format!("it has {}", list(&names, "and"));
                reporter.error_with_help(part.at, message, help);
                continue;
            };
            let Some(scalar) = fields::scalar(&part.value, &part.key, reporter) else {
                continue;
            };
            if !known.contains(&scalar.text.as_str()) {
                let message = format!("`{}` is no value of `{}`", scalar.text, part.key);
                let help = format!("its values are {}", list(known, "and"));
                reporter.error_with_help(part.value.at, message, help);
            }
            values.insert(part.key.clone(), scalar.text.clone());
        }
        if entries.is_empty() {
            reporter.error(item.at, format!("this entry of `{EXCLUDE}` says nothing"));
        } else if !values.is_empty() {
            found.push(values);
        }
    }
    found
}

/// Every combination, the last name's values changing first; none when there are far too many.
fn multiplied(axes: &IndexMap<&str, Vec<&str>>) -> Option<Vec<Values>> {
    let mut all = vec![Values::new()];
    for (name, values) in axes {
        if all.len() * values.len() > MOST_MULTIPLIED {
            return None;
        }
        let with = |one: &Values| {
            let one = one.clone();
            values.iter().map(move |value| {
                let mut longer = one.clone();
                longer.insert((*name).to_owned(), (*value).to_owned());
                longer
            })
        };
        all = all.iter().flat_map(with).collect();
    }
    Some(all)
}

fn without(mut all: Vec<Values>, excluded: &[Values]) -> Vec<Values> {
    let is_meant = |one: &Values, excluded: &Values| {
        let mut parts = excluded.iter();
        parts.all(|(name, value)| one.get(name) == Some(value))
    };
    all.retain(|one| !excluded.iter().any(|excluded| is_meant(one, excluded)));
    all
}

/// A text as a part of a name: in lower case, with one `-` for whatever is neither a letter nor a digit.
fn safe(text: &str) -> String {
    let plain = text.to_ascii_lowercase();
    let words = plain.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join("-")
}

/// Puts the combinations into the places of the steps that have them, once nothing else is wrong with the file.
pub(super) fn expand(
    pipeline: &mut Pipeline,
    matrices: &Matrices,
    root: &Node,
    reporter: &mut Reporter<'_>,
) {
    for (name, step) in &pipeline.steps {
        check(name, step, matrices.get(name), root, reporter);
    }
    let combinations = matrices.values().map(Vec::len).sum::<usize>();
    let others = pipeline
        .steps
        .iter()
        .filter(|(name, step)| !matrices.contains_key(*name) && step.has_own_job());
    let own = combinations + others.count();
    if own > MOST_OWN_JOBS {
        let at = root.key_at(&["steps"]);
        let message = format!(
            "a file has at most {MOST_OWN_JOBS} steps with jobs of their own, this has {own}"
        );
        reporter.error_with_help(at, message, "a combination of a `matrix` counts as one");
    }
    if !reporter.is_clean() || matrices.is_empty() {
        return;
    }
    let taken: IndexSet<StepName> = pipeline.steps.keys().cloned().collect();
    let mut made: IndexMap<StepName, Vec<StepName>> = IndexMap::new();
    let mut all: IndexMap<StepName, Step> = IndexMap::new();
    for (name, step) in std::mem::take(&mut pipeline.steps) {
        let Some(matrix) = matrices.get(&name) else {
            all.insert(name, step);
            continue;
        };
        let at = root.key_at(&["steps", name.as_str(), "matrix"]);
        for values in matrix {
            let Some(one) = name_of(&name, values, at, reporter) else {
                continue;
            };
            if taken.contains(&one) || all.contains_key(&one) {
                let message = format!("two jobs of the file would be called `{one}`");
                let help = "names have `-` for all that is neither a letter nor a digit";
                reporter.error_with_help(at, message, help);
                continue;
            }
            made.entry(name.clone()).or_default().push(one.clone());
            all.insert(one, with(&step, &name, values));
        }
    }
    for step in all.values_mut() {
        let each = |need: StepName| made.get(&need).cloned().unwrap_or_else(|| vec![need]);
        for names in [&mut step.needs, &mut step.artifacts_from] {
            let all = std::mem::take(names).into_iter();
            *names = all.flat_map(each).collect();
        }
    }
    pipeline.steps = all;
}

fn name_of(
    step: &StepName,
    values: &Values,
    at: At,
    reporter: &mut Reporter<'_>,
) -> Option<StepName> {
    let parts: Vec<String> = values.values().map(|value| safe(value)).collect();
    let text = format!("{step}-{}", parts.join("-"));
    let name = StepName::parse(&text);
    if name.is_err() {
        let message = format!("the job `{text}` has a name of more than 63 characters");
        let help = "shorten the step's name or the values";
        reporter.error_with_help(at, message, help);
    }
    name.ok()
}

/// One combination of a step.
fn with(step: &Step, of: &StepName, values: &Values) -> Step {
    let mut one = step.clone();
    let value = |name: &str| values.get(name).cloned().unwrap_or_default();
    if let StepAction::Run {
        image, sidecars, ..
    } = &mut one.action
    {
        *image = filled(image, value);
        for sidecar in sidecars.values_mut() {
            sidecar.image = filled(&sidecar.image, value);
        }
    }
    one.group = step.group.as_ref().map(|group| group.with(values));
    one.matrix = Some(Combination {
        of: of.clone(),
        values: values.clone(),
    });
    one
}

/// What only the step and its matrix together can tell.
fn check(
    name: &StepName,
    step: &Step,
    matrix: Option<&Vec<Values>>,
    root: &Node,
    reporter: &mut Reporter<'_>,
) {
    if (matrix.is_some() || step.has_own_job()) && JobName::is_of_shared(name.as_str()) {
        let at = root.key_at(&["steps", name.as_str()]);
        let message = format!("a step with a job of its own cannot be called `{name}`");
        let help = "the job that other steps share is called so: choose another name";
        reporter.error_with_help(at, message, help);
    }
    let names: Vec<&str> = matrix
        .and_then(|all| all.first())
        .into_iter()
        .flat_map(|one| one.keys().map(String::as_str))
        .collect();
    if let Some(group) = &step.group {
        let at = root.value_at(&["steps", name.as_str(), "concurrency", "group"]);
        groups::check_matrix(group, at, (&names, matrix), reporter);
    }
    let StepAction::Run {
        image,
        env,
        sidecars,
        secrets,
        ..
    } = &step.action
    else {
        return;
    };
    for of in &names {
        let variable = matrix_variable(of);
        let is_secret = |it: &&super::StepSecret| it.variable.as_ref() == Some(&variable);
        let taken = [
            (env.contains_key(&variable), "env"),
            (secrets.iter().any(|it| is_secret(&it)), "secrets"),
        ];
        for (_, key) in taken.into_iter().filter(|(is_taken, _)| *is_taken) {
            let at = root.key_at(&["steps", name.as_str(), key, &variable]);
            let message = format!("`{variable}` holds the value `{of}` of the matrix already");
            reporter.error_with_help(at, message, "rename the variable, or the value");
        }
    }
    let own = (vec!["steps", name.as_str(), "image"], image.as_str());
    let beside = sidecars.iter().map(|(sidecar, it)| {
        let path = vec![
            "steps",
            name.as_str(),
            "sidecars",
            sidecar.as_str(),
            "image",
        ];
        (path, it.image.as_str())
    });
    for (path, image) in std::iter::once(own).chain(beside) {
        check_image(image, root.value_at(&path), (&names, matrix), reporter);
    }
}

/// An image names values of the matrix alone, and is one with each of them.
fn check_image(
    image: &str,
    at: At,
    (names, matrix): (&[&str], Option<&Vec<Values>>),
    reporter: &mut Reporter<'_>,
) {
    let mut unknown = None;
    filled(image, |name| {
        if !names.contains(&name) {
            unknown = Some(name.to_owned());
        }
        String::new()
    });
    if let Some(name) = unknown {
        let message = format!("there is no `{{matrix.{name}}}`");
        let help = match names {
            [] => "the step has no `matrix`".to_owned(),
            some => format!("the step's matrix has {}", list(some, "and")),
        };
        return reporter.error_with_help(at, message, help);
    }
    for values in matrix.into_iter().flatten() {
        let whole = filled(image, |name| values.get(name).cloned().unwrap_or_default());
        if let Err(reason) = values::container_image(&whole) {
            let message = format!("with its matrix, `image` becomes `{whole}`, which {reason}");
            return reporter.error(at, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_and_placeholders_are_filled() {
        assert_eq!(safe("1.95-Beta (x86_64)"), "1-95-beta-x86-64");
        assert_eq!(safe("…"), "");
        let image = filled("rust:{matrix.rust}-{matrix.os}{matrix.", |it| {
            it.to_uppercase()
        });
        assert_eq!(image, "rust:RUST-OS{matrix.");
    }
}
