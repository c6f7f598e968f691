//! Makes repositories for a run's images, and looks up what a runner says it pushed.

use super::{Executor, Outcome, Tried};
use crate::adapters::registry::Confirmed;
use crate::adapters::sources::Remote;
use roadstead_pipelines::fact::RunFact;
use roadstead_pipelines::id::{CommitSha, RunId};
use roadstead_pipelines::report::Failure;
use roadstead_pipelines::run::{Run, RunState};
use roadstead_pipelines::variant::ImageVariant;
use std::collections::{BTreeMap, BTreeSet};

/// Looks for an image that the registry does not show yet, before it counts as never pushed.
const LOOKS: u32 = 5;

impl Executor {
    pub(super) async fn prepare_registry(&self, run: &RunId) -> Tried {
        let run = self.store.get_run(run).await?.run;
        let (RunState::Preparing, Some(pipeline)) = (&run.state, &run.pipeline) else {
            return Ok(Outcome::moved_on());
        };
        let mut repositories = BTreeMap::new();
        for (name, image) in &pipeline.images {
            match self.registry.ensure_repository(&image.repository).await {
                Ok(uri) => {
                    repositories.insert(name.clone(), uri);
                }
                Err(error) if error.is_transient() => return Err(error.into()),
                Err(error) => {
                    let message = format!(
                        "repository `{}` of image `{name}`: {error}",
                        image.repository
                    );
                    return Ok(Outcome::run_refused(&run.id, Failure::failed(message)));
                }
            }
        }
        Ok(Outcome::run(
            &run.id,
            RunFact::RegistryPrepared { repositories },
        ))
    }

    pub(super) async fn confirm_images(&self, run: &RunId, attempts: u32) -> Tried {
        let run = self.store.get_run(run).await?.run;
        let RunState::Confirming { images } = &run.state else {
            return Ok(Outcome::moved_on());
        };
        let refuse = |message: String| Ok(Outcome::run_refused(&run.id, Failure::errored(message)));
        let wanted: BTreeSet<ImageVariant> = run
            .pipeline
            .iter()
            .flat_map(|pipeline| pipeline.images.keys().map(|it| pipeline.variants_of(it)))
            .flatten()
            .collect();
        if let Some(missing) = wanted.iter().find(|name| !images.contains_key(*name)) {
            return refuse(format!(
                "the runner did not say which image it pushed for `{missing}`"
            ));
        }
        for (name, image) in images {
            if !wanted.contains(name) {
                return refuse(format!(
                    "the runner says that it pushed `{name}`, which the pipeline file does not build"
                ));
            }
            // A runner is believed only about what can be looked up where it was told to push.
            if run.repositories.get(&name.image) != Some(&image.repository_uri) {
                return refuse(format!(
                    "the runner says that image `{name}` is in {}, which is not its repository",
                    image.repository_uri
                ));
            }
            match self
                .registry
                .confirm(&image.repository_uri, &image.digest)
                .await?
            {
                Confirmed::Found => {}
                Confirmed::Missing => {
                    let error = format!(
                        "the registry does not hold {} of image `{name}`",
                        image.pinned()
                    );
                    if attempts < LOOKS {
                        return Ok(Outcome::Later { error });
                    }
                    return refuse(error);
                }
            }
        }
        let remote = match self.remote_of(&run, attempts) {
            Ok(remote) => remote,
            Err(outcome) => return Ok(outcome),
        };
        let descendants = self.descendants(&run, remote).await?;
        Ok(Outcome::run(
            &run.id,
            RunFact::ImagesConfirmed { descendants },
        ))
    }

    /// Commits that come after the run's own, among those that are released or may be before it is: one
    /// that waits for a runner yet will have a later release.
    async fn descendants(
        &self,
        run: &Run,
        remote: &Remote,
    ) -> Result<BTreeSet<CommitSha>, super::Interrupted> {
        let world = self.store.load_world_of_places(&run.project).await?;
        let released = world.releases.into_values();
        // By the branch of this one: that of a run that is over may not be known any more.
        let mut others: BTreeMap<CommitSha, String> = released
            .map(|release| (release.commit, run.git_ref.clone()))
            .collect();
        others.extend(self.store.commits_being_built(&run.project).await?);
        others.remove(&run.commit);
        let commit = (&run.commit, run.git_ref.as_str());
        let after = self
            .sources
            .descendants(&run.project, remote, commit, others);
        Ok(after.await?)
    }
}
