//! Kills parts of the product in the middle of the story, as a power cut would, and starts them again.

use super::table::Table;
use crate::children::Part;
use crate::up::{self, Parts, UpArgs};
use std::path::PathBuf;

/// Which part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Server,
    Runner,
    Sandbox,
}

/// The parts, and what it takes to start one again.
pub(crate) struct Crew {
    pub(crate) parts: Parts,
    pub(crate) up: UpArgs,
    pub(crate) data: PathBuf,
    /// Nothing is killed otherwise.
    pub(crate) armed: bool,
}

impl Crew {
    /// Kills a part (SIGKILL), starts it again and waits until it answers.
    pub(crate) async fn strike(
        &mut self,
        victim: Victim,
        when: &str,
        table: &Table,
    ) -> anyhow::Result<()> {
        if !self.armed {
            return Ok(());
        }
        table.say(&format!("kill -9 {victim:?} {when}").to_lowercase());
        let token = up::secret(&self.data, "registration-token")?;
        match victim {
            Victim::Server => {
                self.parts.server.kill().await?;
                self.parts.server =
                    up::server(&self.up, &self.data, &self.parts.admin_password, &token)?;
                up::server_answers(&self.up, &mut self.parts.server).await
            }
            Victim::Runner => {
                self.parts.runner.kill().await?;
                self.parts.runner = up::runner(&self.up, &self.data, &token)?;
                Ok(())
            }
            Victim::Sandbox => {
                self.parts.sandbox.kill().await?;
                self.parts.sandbox = up::sandbox(&self.up, &self.data)?;
                up::sandbox_answers(&self.up, &mut self.parts.sandbox).await
            }
        }
    }

    /// Fails when a part has ended by itself.
    pub(crate) fn alive(&mut self) -> anyhow::Result<()> {
        let all: [&mut Part; 3] = [
            &mut self.parts.sandbox,
            &mut self.parts.server,
            &mut self.parts.runner,
        ];
        all.into_iter().try_for_each(Part::alive)
    }
}
