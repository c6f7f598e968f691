//! Whose registry a call means: that of the own account is the only one with something in it.

use super::{Ecr, invalid_parameter};
use crate::app::App;
use crate::services::AwsError;

impl Ecr<'_> {
    /// Refuses registries of other accounts, in which nothing is.
    pub(super) fn check_registry(&self, operation: &str) -> Result<(), AwsError> {
        let own = &self.app.config.account;
        let id = self.input["registryId"]
            .as_str()
            .filter(|id| !id.is_empty());
        let Some(id) = id.filter(|id| id != own) else {
            return Ok(());
        };
        let named = self.strings("repositoryNames");
        let name = self.input["repositoryName"].as_str();
        match name.or(named.first().copied()) {
            Some(name) if operation != "CreateRepository" => Err(unknown_repository_in(name, id)),
            _ => Err(invalid_parameter(format!(
                "Invalid parameter at 'registryId' failed to satisfy constraint: the sandbox has the \
                 registry of {own} alone, not one of {id}"
            ))),
        }
    }
}

pub(super) fn unknown_repository(app: &App, name: &str) -> AwsError {
    unknown_repository_in(name, &app.config.account)
}

fn unknown_repository_in(name: &str, registry: &str) -> AwsError {
    AwsError::client(
        "RepositoryNotFoundException",
        format!(
            "The repository with name '{name}' does not exist in the registry with id '{registry}'"
        ),
    )
}
