//! Lifecycle policies of repositories. A policy is kept and shown again; no image expires by it, so
//! that an image which a service may go back to is never gone in the middle of a test.

use serde_json::{Value, json};

use super::{Ecr, invalid_parameter, without_nulls};
use crate::services::AwsError;

/// How long the text of a policy is, in characters, by AWS's model.
const LENGTH: std::ops::RangeInclusive<usize> = 100..=30_720;

impl Ecr<'_> {
    /// Keeps the policy instead of the one that was there.
    ///
    /// # Errors
    /// `InvalidParameterException` for a text that is no policy, and `RepositoryNotFoundException`.
    pub(super) async fn put_lifecycle_policy(&self) -> Result<Value, AwsError> {
        let name = self.repository_name()?;
        let text = self.input["lifecyclePolicyText"]
            .as_str()
            .unwrap_or_default();
        check(text)?;
        self.registry
            .change(|records| {
                let repository = records.repositories.get_mut(name);
                let repository = repository.ok_or_else(|| self.no_repository(name))?;
                repository.lifecycle_policy = Some(text.to_owned());
                Ok::<_, AwsError>(())
            })
            .await?;
        Ok(self.policy_value(name, text))
    }

    /// The policy as it came.
    ///
    /// # Errors
    /// `LifecyclePolicyNotFoundException` when the repository has none.
    pub(super) fn get_lifecycle_policy(&self) -> Result<Value, AwsError> {
        let name = self.repository_name()?;
        let policy = self.repository(name)?.lifecycle_policy;
        let policy = policy.ok_or_else(|| self.no_policy(name))?;
        Ok(self.policy_value(name, &policy))
    }

    /// Forgets the policy; the one that was there.
    ///
    /// # Errors
    /// `LifecyclePolicyNotFoundException` when the repository has none.
    pub(super) async fn delete_lifecycle_policy(&self) -> Result<Value, AwsError> {
        let name = self.repository_name()?;
        let policy = self
            .registry
            .change(|records| {
                let repository = records.repositories.get_mut(name);
                let repository = repository.ok_or_else(|| self.no_repository(name))?;
                let policy = repository.lifecycle_policy.take();
                policy.ok_or_else(|| self.no_policy(name))
            })
            .await?;
        Ok(self.policy_value(name, &policy))
    }

    fn policy_value(&self, name: &str, policy: &str) -> Value {
        without_nulls(json!({
            "registryId": self.app.config.account,
            "repositoryName": name,
            "lifecyclePolicyText": policy,
        }))
    }

    fn no_policy(&self, name: &str) -> AwsError {
        AwsError::client(
            "LifecyclePolicyNotFoundException",
            format!(
                "Lifecycle policy does not exist for the repository with name '{name}' in the registry with id '{}'",
                self.app.config.account
            ),
        )
    }
}

/// Refuses what is no policy. What its rules say is not looked at, because nobody follows them.
fn check(text: &str) -> Result<(), AwsError> {
    let refused = |why: &str| {
        invalid_parameter(format!(
            "Invalid parameter at 'LifecyclePolicyText' failed to satisfy constraint: '{why}'"
        ))
    };
    if !LENGTH.contains(&text.chars().count()) {
        return Err(refused(&format!(
            "Lifecycle policy text must have {} to {} characters",
            LENGTH.start(),
            LENGTH.end()
        )));
    }
    let policy: Value = serde_json::from_str(text).map_err(|error| {
        refused(&format!(
            "Lifecycle policy validation failure: it is no JSON: {error}"
        ))
    })?;
    match policy["rules"].as_array() {
        Some(rules) if !rules.is_empty() => Ok(()),
        _ => Err(refused(
            "Lifecycle policy validation failure: object has missing required properties ([\"rules\"])",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn what_is_no_policy_is_refused_with_the_reason() {
        let padding = " ".repeat(100);
        for (text, why) in [
            ("", "must have 100 to 30720 characters"),
            (&format!("{{{padding}"), "it is no JSON"),
            (&format!("{{{padding}}}"), "missing required properties"),
            (
                &format!("{{\"rules\": []{padding}}}"),
                "missing required properties",
            ),
        ] {
            let refused = check(text).unwrap_err();
            assert_eq!(refused.code, "InvalidParameterException");
            assert!(refused.message.contains(why), "{}", refused.message);
        }
        let policy = format!("{{\"rules\": [{{\"rulePriority\": 1}}]{padding}}}");
        check(&policy).unwrap();
    }
}
