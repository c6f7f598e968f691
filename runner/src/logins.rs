//! Logins for the registry, as the server hands them over per attempt.
//!
//! Owns the order that keeps a password out of logs: it is hidden before anybody else has it.

use crate::{
    client::{AttemptClient, retry},
    logs::StepLog,
};
use anyhow::Context;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use roadstead_protocol::RegistryCredentials;
use std::time::Duration;

/// How long a login is asked for.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where one attempt gets its logins.
pub(crate) struct Logins<'a>(&'a AttemptClient);

impl<'a> Logins<'a> {
    pub(crate) fn new(client: &'a AttemptClient) -> Self {
        Self(client)
    }

    /// A fresh login, of which `log` shows nothing secret.
    pub(crate) async fn fetch(&self, log: &StepLog) -> anyhow::Result<RegistryCredentials> {
        let login = retry(PATIENCE, || self.0.registry_credentials())
            .await
            .context("cannot get a login for the registry from the server")?;
        let basic = format!("{}:{}", login.username, login.password);
        log.hide([&login.password, &BASE64_STANDARD.encode(basic)])
            .await?;
        Ok(login)
    }
}
