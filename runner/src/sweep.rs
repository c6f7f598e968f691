//! Clears away what nobody works on any more: what a killed process left, and what Docker Engine
//! made for it only after it was killed.
//!
//! Owns the order: containers first, then files, then the word to the server that those attempts
//! are over, upon which it makes new ones. Afterwards it looks again and again, at what there is and
//! not at what it remembers. Touches nothing without this runner's own label.

use crate::{
    Runner,
    client::{CallError, RESULT_PATIENCE, retry},
    engine::{ATTEMPT_LABEL, Engine, RUNNER_LABEL},
    state::{KnownAttempt, State},
    workspace::Workspaces,
};
use anyhow::Context;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListNetworksOptionsBuilder,
};
use roadstead_protocol::{AttemptResult, Outcome};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// How often a runner at work looks.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How often a starting runner tries to clear away everything before it leaves that to later looks.
const TRIES_AT_START: u32 = 10;
/// How long a leaving runner may take for its last look.
const LAST_LOOK: Duration = Duration::from_secs(8);

/// Removes containers, networks, tags and files; gives the attempts whose end nobody knows.
pub(crate) async fn at_start(
    state: &State,
    engine: &Engine,
    folders: &[&Workspaces],
) -> anyhow::Result<Vec<KnownAttempt>> {
    for number in 1..=TRIES_AT_START {
        let Err(error) = sweep(engine, BTreeSet::new).await else {
            break;
        };
        let error = format!("{error:#}");
        tracing::warn!(number, error, "cannot clear away everything yet");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for folder in folders {
        folder.remove_all().await?;
    }
    state.attempts()
}

/// Looks every few seconds; never ends by itself.
pub(crate) async fn regularly(runner: &Runner) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let at_work = || {
            let running = runner.board.running().into_iter();
            running.map(|attempt| attempt.attempt).collect()
        };
        if let Err(error) = sweep(&runner.engine, at_work).await {
            tracing::warn!(error = format!("{error:#}"), "cannot sweep Docker Engine");
        }
    }
}

/// Removes what is left when nothing runs here any more: the next start may be far away.
pub(crate) async fn at_end(engine: &Engine) {
    match tokio::time::timeout(LAST_LOOK, sweep(engine, BTreeSet::new)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = format!("{error:#}"), "leaves something behind"),
        Err(_) => tracing::warn!("leaves before Docker Engine was cleared"),
    }
}

/// Something in Docker Engine that an attempt made.
enum Leftover {
    Container(String),
    Network(String),
    Tag(String),
}

/// Removes the containers, networks and half-made images of attempts that are not `at_work`. What
/// cannot be removed keeps nothing else from being removed.
async fn sweep(engine: &Engine, at_work: impl FnOnce() -> BTreeSet<String>) -> anyhow::Result<()> {
    let found = leftovers(engine).await?;
    // In this order: whatever was found belongs to an attempt that was at work before.
    let at_work = at_work();
    let mut outcome = Ok(());
    for (attempt, leftover) in found {
        // Tags are in lower case.
        if at_work.iter().any(|it| it.eq_ignore_ascii_case(&attempt)) {
            continue;
        }
        let removed = match &leftover {
            Leftover::Container(id) => engine.remove_container(id).await,
            Leftover::Network(id) => engine.remove_network(id).await,
            Leftover::Tag(tag) => engine.remove_tag(tag).await,
        };
        match removed {
            Ok(()) => tracing::info!(attempt, "removed what an attempt left in Docker Engine"),
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    outcome
}

/// What carries this runner's label, with its attempt; containers before the networks they are in.
async fn leftovers(engine: &Engine) -> anyhow::Result<Vec<(String, Leftover)>> {
    let label = format!("{RUNNER_LABEL}={}", engine.instance());
    let filters = HashMap::from([("label", vec![label])]);
    let attempt = |labels: Option<HashMap<String, String>>| {
        labels
            .and_then(|mut labels| labels.remove(ATTEMPT_LABEL))
            .unwrap_or_default()
    };
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&filters)
        .build();
    let containers = engine.docker().list_containers(Some(options)).await;
    let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
    let networks = engine.docker().list_networks(Some(options)).await;
    let filters = HashMap::from([("reference", vec![engine.build_repository()])]);
    let options = ListImagesOptionsBuilder::new().filters(&filters).build();
    let images = engine.docker().list_images(Some(options)).await;
    let context = "cannot see what is left in Docker Engine";

    let mut found = Vec::new();
    for container in containers.context(context)? {
        let attempt = attempt(container.labels);
        found.extend(container.id.map(|id| (attempt, Leftover::Container(id))));
    }
    for network in networks.context(context)? {
        let attempt = attempt(network.labels);
        found.extend(network.id.map(|id| (attempt, Leftover::Network(id))));
    }
    let prefix = format!("{}:", engine.build_repository());
    let tags = images.context(context)?.into_iter();
    for tag in tags.flat_map(|image| image.repo_tags) {
        if let Some(attempt) = tag.strip_prefix(&prefix).map(attempt_of_build) {
            found.push((attempt.to_owned(), Leftover::Tag(tag)));
        }
    }
    Ok(found)
}

/// The attempt in the name of a build: `<attempt>-<step>-<image>`.
fn attempt_of_build(name: &str) -> &str {
    name.rsplitn(3, '-').last().unwrap_or(name)
}

/// Reports attempts that ended with an earlier process.
pub(crate) async fn report(runner: Arc<Runner>, attempts: Vec<KnownAttempt>) {
    for known in attempts {
        let id = known.attempt.attempt.clone();
        let client = runner.client.attempt(known.attempt, known.token);
        let result = AttemptResult {
            fence: client.fence(),
            outcome: Outcome::Errored {
                reason: "the runner was stopped while it ran this and has started again".to_owned(),
            },
            images: vec![],
        };
        match retry(RESULT_PATIENCE, || client.put_result(&result)).await {
            Err(error) if error.is_transient() => {
                tracing::warn!(attempt = id, %error, "could not report an attempt's end");
                continue;
            }
            Ok(()) | Err(CallError::Lost(_) | CallError::Unauthorized(_)) => {}
            Err(error) => {
                tracing::warn!(attempt = id, %error, "the server has no use for a result");
            }
        }
        if let Err(error) = runner.with_state(move |state| state.forget(&id)).await {
            tracing::warn!(error = format!("{error:#}"), "cannot forget an attempt");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_known_by_its_attempt() {
        assert_eq!(attempt_of_build("web-shop.12.a1-0-3"), "web-shop.12.a1");
        assert_eq!(attempt_of_build("shop.12.a1-10-0"), "shop.12.a1");
    }
}
