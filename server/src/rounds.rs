//! Looks at every project's repository again and again: what some rooms do that nobody rings for.
//!
//! Owns how often, and how many repositories are asked at the same time. A look begins where one that
//! ended early left off, so it is repeated as a whole.

use crate::adapters::sources::{Remote, SourcesError};
use crate::store::StoreError;
use futures_util::future::join_all;
use roadstead_pipelines::id::ProjectName;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Repositories that one room asks at the same time.
const AT_ONCE: usize = 4;
/// How soon it is looked again when something failed.
const AGAIN: Duration = Duration::from_secs(20);

/// Why a look ended early.
#[derive(Debug, thiserror::Error)]
pub enum BrokenOff {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The repository.
    #[error(transparent)]
    Sources(#[from] SourcesError),
}

/// What a room does with each project.
pub(crate) trait Look {
    /// Between two looks at a project.
    const EVERY: Duration;
    /// What the runs are that a look makes, for the log.
    const MADE: &'static str;
    /// What became of a look that ended early, for the log.
    const FAILED: &'static str;

    /// Looks at one project: how many runs were made. Takes one of `turns` while it asks the repository.
    async fn look(
        &self,
        project: &ProjectName,
        remote: &Remote,
        turns: &Semaphore,
    ) -> Result<usize, BrokenOff>;
}

/// Looks at every project until it is told to stop.
pub(crate) async fn run<L: Look>(
    room: &L,
    remotes: BTreeMap<ProjectName, Remote>,
    stop: CancellationToken,
) {
    let turns = Semaphore::new(AT_ONCE);
    let watching = remotes
        .iter()
        .map(|(project, remote)| watch(room, project, remote, &turns));
    stop.run_until_cancelled(join_all(watching)).await;
}

async fn watch<L: Look>(room: &L, project: &ProjectName, remote: &Remote, turns: &Semaphore) {
    loop {
        let rest = match room.look(project, remote, turns).await {
            Ok(made) => {
                if made > 0 {
                    tracing::info!(%project, made, "{}", L::MADE);
                }
                L::EVERY
            }
            Err(error) => {
                tracing::warn!(%project, "{}: {error}", L::FAILED);
                AGAIN
            }
        };
        tokio::time::sleep(rest).await;
    }
}
