//! Secrets of a project: how they are named, what may be one, and which runs get them.
//!
//! Owns these rules and never sees a value for longer than it takes to judge it. [`withheld_from`] alone
//! decides whether a run gets a secret.

use crate::git_ref::BRANCHES;
use crate::id::{EnvironmentName, InvalidName};
use crate::pull_request::Trust;
use crate::run::Run;
use crate::spec::matches_patterns;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Fewer bytes are no secret: to mask them would blot out whatever else looks like them.
pub const SHORTEST_SECRET: usize = 8;
/// More bytes belong into a file that is fetched with a secret.
pub const LONGEST_SECRET: usize = 48 << 10;
/// Longest name, in bytes.
const LONGEST_NAME: usize = 64;

/// What a secret is called: 1 to 64 letters, digits and `_`, not a digit first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName(String);

/// A text that names no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    /// The name itself.
    #[error("`{0}` is no name of a secret: use 1 to 64 letters, digits and `_`, not a digit first")]
    Name(String),
    /// The environment before it.
    #[error(transparent)]
    Environment(#[from] InvalidName),
}

impl SecretName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`InvalidSecret::Name`].
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let first = text.bytes().next();
        let is_name = text.len() <= LONGEST_NAME
            && first.is_some_and(|byte| !byte.is_ascii_digit())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_name {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidSecret::Name(text.to_owned()))
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One secret of a project: `DATABASE_URL` of all of it, `staging/DATABASE_URL` of one environment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SecretRef {
    /// The environment that it belongs to, if it is one's.
    pub environment: Option<EnvironmentName>,
    /// Its name, unique there.
    pub name: SecretName,
}

impl SecretRef {
    /// Reads `NAME` or `ENVIRONMENT/NAME`.
    ///
    /// # Errors
    /// What is no name.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let (environment, name) = match text.split_once('/') {
            Some((environment, name)) => (Some(EnvironmentName::parse(environment)?), name),
            None => (None, text),
        };
        Ok(Self {
            environment,
            name: SecretName::parse(name)?,
        })
    }

    /// The name of its file in a step: `DATABASE_URL`, `staging.DATABASE_URL`. No two have the same.
    #[must_use]
    pub fn file_name(&self) -> String {
        self.to_string().replace('/', ".")
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.environment {
            Some(environment) => write!(f, "{environment}/{}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

impl From<SecretRef> for String {
    fn from(secret: SecretRef) -> Self {
        secret.to_string()
    }
}

impl TryFrom<String> for SecretRef {
    type Error = InvalidSecret;

    fn try_from(text: String) -> Result<Self, InvalidSecret> {
        Self::parse(&text)
    }
}

/// Whether `value` may be a secret's.
///
/// # Errors
/// What is wrong with it, in words that hold nothing of it.
pub fn check_value(value: &str) -> Result<(), String> {
    let length = value.len();
    if value.trim().len() < SHORTEST_SECRET {
        return Err(format!(
            "a secret has at least {SHORTEST_SECRET} bytes: a shorter one could not be kept out of logs"
        ));
    }
    if length > LONGEST_SECRET {
        return Err(format!(
            "a secret has at most {LONGEST_SECRET} bytes, this has {length}"
        ));
    }
    if value.contains('\0') {
        return Err("a secret is text: encode other bytes, as with `base64`".to_owned());
    }
    Ok(())
}

/// Why a run does not get a secret that is for `branches` alone. `None`: it gets it. Untrusted code gets none, whoever
/// let it run; a pull request of the project's own repository those of the branch that it comes from, as a push there
/// would.
#[must_use]
pub fn withheld_from(run: &Run, branches: &[String]) -> Option<String> {
    let Some(pull_request) = run.pull_request() else {
        return withheld(branches, &run.git_ref);
    };
    match pull_request.trust {
        Trust::Trusted => withheld(branches, &format!("{BRANCHES}{}", pull_request.head_branch)),
        Trust::Untrusted { .. } => Some(format!(
            "{} is of a pull request from a fork, and these get no secrets; `when: {{ events: [push] }}` leaves \
             the step out of pull requests",
            run.id
        )),
    }
}

/// Why the run of `git_ref` does not get a secret that is for `branches` alone (patterns as those of
/// `trigger.push.branches`; none: every branch). `None`: it gets it.
#[must_use]
fn withheld(branches: &[String], git_ref: &str) -> Option<String> {
    if branches.is_empty() {
        return None;
    }
    let Some(branch) = git_ref.strip_prefix("refs/heads/") else {
        return Some(format!("it is for branches, and `{git_ref}` is none"));
    };
    if matches_patterns(branches, branch) {
        return None;
    }
    let patterns: Vec<_> = branches.iter().map(|glob| format!("`{glob}`")).collect();
    Some(format!(
        "it is for branches that match {}, and `{branch}` does not",
        patterns.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_with_and_without_an_environment() {
        for (text, file) in [
            ("TOKEN", "TOKEN"),
            ("_x1", "_x1"),
            ("staging/DATABASE_URL", "staging.DATABASE_URL"),
        ] {
            let secret = SecretRef::parse(text).unwrap();
            assert_eq!(
                (secret.to_string(), secret.file_name().as_str()),
                (text.to_owned(), file)
            );
        }
        let long = "x".repeat(65);
        for bad in [
            "",
            "1X",
            "A-B",
            "A.B",
            "../A",
            "a/b/c",
            "Staging/A",
            "staging/",
            "/A",
            &long,
        ] {
            assert!(SecretRef::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_value_is_text_of_a_length_that_can_be_masked() {
        check_value("12345678").unwrap();
        check_value(&"x".repeat(LONGEST_SECRET)).unwrap();
        for (bad, words) in [
            ("1234567", "at least 8"),
            ("  1234567  \n", "at least 8"),
            (&"x".repeat(LONGEST_SECRET + 1), "at most 49152"),
            ("1234\x005678", "base64"),
        ] {
            let why = check_value(bad).unwrap_err();
            assert!(why.contains(words) && !why.contains("1234"), "{why}");
        }
    }

    #[test]
    fn a_secret_of_protected_branches_goes_to_these_alone() {
        let protected = ["main".to_owned(), "release/*".to_owned()];
        for git_ref in ["refs/heads/main", "refs/heads/release/1"] {
            assert_eq!(withheld(&protected, git_ref), None, "{git_ref}");
        }
        for git_ref in [
            "refs/heads/fix",
            "refs/heads/release/1/x",
            "refs/tags/main",
            "main",
        ] {
            assert!(withheld(&protected, git_ref).is_some(), "{git_ref}");
            assert_eq!(withheld(&[], git_ref), None);
        }
    }
}
