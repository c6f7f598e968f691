//! Who hears how a job's steps go, and says where their images are to go.
//!
//! Owns the difference between an attempt of a server's and a run on this machine alone; what performs
//! steps and builds images does not know which of the two it is.

use crate::{
    artifacts::{Keeper, fetch::Source, shelf::Shelf},
    client::{AttemptClient, CallError, RESULT_PATIENCE, retry},
    local::Terminal,
    logins::Logins,
    logs::{ShipError, StepLog},
};
use roadstead_protocol::{StepReport, StepState};
use std::sync::Arc;

/// Who hears of one attempt.
#[derive(Clone)]
pub(crate) enum Audience {
    /// The server that gave it out.
    Server(AttemptClient),
    /// Whoever began a run on this machine.
    Terminal(Arc<Terminal>, Arc<Shelf>),
}

impl Audience {
    /// The attempt's id.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Server(client) => client.id(),
            Self::Terminal(terminal, _) => terminal.id(),
        }
    }

    /// Takes a step's log as it grows, until it is closed and all of it is there.
    ///
    /// # Errors
    /// See [`StepLog::ship`]; a terminal fails only when the spool cannot be read.
    pub(crate) async fn follow(&self, log: &StepLog, step: &str) -> Result<(), ShipError> {
        match self {
            Self::Server(client) => log.ship(client, step).await,
            Self::Terminal(terminal, _) => Ok(terminal.follow(log, step).await?),
        }
    }

    /// Hears how a step stands.
    ///
    /// # Errors
    /// When the server refuses to, or stays away for an hour.
    pub(crate) async fn hear(&self, step: &str, state: StepState) -> Result<(), CallError> {
        match self {
            Self::Server(client) => {
                let report = StepReport {
                    fence: client.fence(),
                    state,
                };
                retry(RESULT_PATIENCE, || client.report_step(step, &report)).await
            }
            Self::Terminal(terminal, _) => {
                terminal.hear(step, &state);
                Ok(())
            }
        }
    }

    /// The server, if it is one.
    pub(crate) fn server(&self) -> Option<&AttemptClient> {
        match self {
            Self::Server(client) => Some(client),
            Self::Terminal(..) => None,
        }
    }

    /// Who keeps the files that a step leaves to be kept, if anybody does.
    pub(crate) fn keeper(&self, step: &str) -> Option<Keeper<'_>> {
        match self {
            Self::Server(client) => Some(Keeper::Server(client)),
            Self::Terminal(_, shelf) => shelf.wants(step).then_some(Keeper::Shelf(shelf)),
        }
    }

    /// Who has the artifacts of earlier jobs.
    pub(crate) fn source(&self) -> Source<'_> {
        match self {
            Self::Server(client) => Source::Server(client),
            Self::Terminal(_, shelf) => Source::Shelf(shelf),
        }
    }

    /// Logins for the registry that images are pushed to; without them images stay here.
    pub(crate) fn logins(&self) -> Option<Logins<'_>> {
        match self {
            Self::Server(client) => Some(Logins::new(client)),
            Self::Terminal(..) => None,
        }
    }
}
