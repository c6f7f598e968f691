//! Reads which secrets a step gets.

use super::diagnostic::{At, Reporter};
use super::fields::{self, Fields};
use super::model::StepSecret;
use super::tree::Value;
use crate::secret::SecretRef;
use indexmap::IndexMap;

/// Most secrets of one step.
pub(super) const MOST_SECRETS: usize = 64;

/// A list of secrets, or a mapping from variables to them.
pub(super) fn of_step(
    fields: &Fields<'_>,
    env: &IndexMap<String, String>,
    reporter: &mut Reporter<'_>,
) -> Vec<StepSecret> {
    let Some(entry) = fields.get("secrets", reporter) else {
        return vec![];
    };
    let mut found = vec![];
    if let Value::Map(_) = &entry.value.value {
        for variable in fields::named(entry, reporter).into_iter().flatten() {
            let name = &variable.key;
            let text = fields::scalar(&variable.value, name, reporter).map(|s| s.text.as_str());
            let secret = text.and_then(|text| secret(text, variable.value.at, reporter));
            if !fields::is_variable_name(name) {
                reporter.error_with_help(
                    variable.at,
                    format!("`{name}` cannot be the name of a variable"),
                    "use letters, digits and `_`, not a digit first",
                );
            } else if env.contains_key(name) {
                let message = format!("`{name}` stands in `env`, too");
                reporter.error_with_help(variable.at, message, "keep one of the two");
            } else if let Some(secret) = secret {
                let variable = Some(name.clone());
                found.push(StepSecret { secret, variable });
            }
        }
    } else {
        for (text, at) in fields.texts("secrets", reporter).unwrap_or_default() {
            if let Some(secret) = secret(text, at, reporter) {
                let variable = None;
                found.push(StepSecret { secret, variable });
            }
        }
    }
    if found.len() > MOST_SECRETS {
        let message = format!(
            "a step has at most {MOST_SECRETS} secrets, this has {}",
            found.len()
        );
        reporter.error(entry.at, message);
    }
    found
}

fn secret(text: &str, at: At, reporter: &mut Reporter<'_>) -> Option<SecretRef> {
    match SecretRef::parse(text) {
        Ok(secret) => Some(secret),
        Err(error) => {
            let help = "write `NAME`, or `ENVIRONMENT/NAME` for one of an environment";
            reporter.error_with_help(at, error.to_string(), help);
            None
        }
    }
}
