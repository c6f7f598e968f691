//! Reads which secrets a step or an image build gets.

use super::diagnostic::{At, Reporter};
use super::fields::{self, Fields};
use super::model::StepSecret;
use super::tree::Value;
use crate::secret::SecretRef;
use indexmap::IndexMap;

/// Most secrets of one step or image.
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
        let listed = listed(fields, reporter).into_iter();
        found.extend(listed.map(|secret| StepSecret {
            secret,
            variable: None,
        }));
    }
    refuse_too_many("a step", found.len(), entry.at, reporter);
    found
}

/// A list of secrets.
pub(super) fn of_image(fields: &Fields<'_>, reporter: &mut Reporter<'_>) -> Vec<SecretRef> {
    let Some(entry) = fields.get("secrets", reporter) else {
        return vec![];
    };
    let found = listed(fields, reporter);
    refuse_too_many("an image", found.len(), entry.at, reporter);
    found
}

fn listed(fields: &Fields<'_>, reporter: &mut Reporter<'_>) -> Vec<SecretRef> {
    let texts = fields.texts("secrets", reporter).unwrap_or_default();
    let secrets = texts.into_iter();
    secrets
        .filter_map(|(text, at)| secret(text, at, reporter))
        .collect()
}

fn refuse_too_many(whose: &str, count: usize, at: At, reporter: &mut Reporter<'_>) {
    if count > MOST_SECRETS {
        let message = format!("{whose} has at most {MOST_SECRETS} secrets, this has {count}");
        reporter.error(at, message);
    }
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
