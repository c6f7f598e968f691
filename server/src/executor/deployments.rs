//! Brings a release to a service: registers its task definition, updates the service, and asks ECS to
//! take a rollout back.

use super::before_deploy::token;
use super::sources::wrong;
use super::{Executor, Interrupted, Outcome, Tried, may_pass};
use crate::adapters::aws::AwsError;
use crate::adapters::cluster::{Base, NewService, ServiceAddress, Stopping};
use crate::store::EffectRow;
use jiff::SignedDuration;
use roadstead_pipelines::deployment::{Deployment, DeploymentState, Kind, Rollout, TakenBackBy};
use roadstead_pipelines::fact::DeploymentFact;
use roadstead_pipelines::id::{DeploymentId, Place};
use roadstead_pipelines::release::Release;
use roadstead_pipelines::report::Failure;
use roadstead_pipelines::spec::{DefinitionBase, Pipeline, ResolvedTarget};
use roadstead_pipelines::task_definition::{Revision, revise};
use std::collections::BTreeMap;

/// Where a deployment goes, by the file that holds now.
pub(super) struct Target {
    pipeline: Pipeline,
    ecs: ResolvedTarget,
    address: ServiceAddress,
    pub(super) rollout_timeout: SignedDuration,
}

impl Executor {
    pub(super) async fn target(
        &self,
        deployment: &Deployment,
    ) -> Result<Result<Target, Failure>, Interrupted> {
        let world = self
            .store
            .load_world_of_places(&deployment.id.project())
            .await?;
        let place = &deployment.place;
        let (Some(environment), Some(pipeline)) = (world.environment(place), &world.pipeline)
        else {
            let message = format!(
                "the pipeline file no longer has environment `{}`",
                place.environment
            );
            return Ok(Err(Failure::failed(message)));
        };
        let ecs = environment.target(&place.service);
        let address = ServiceAddress::from(&ecs);
        let seconds = i64::try_from(environment.rollout_timeout.0).unwrap_or(i64::MAX);
        Ok(Ok(Target {
            rollout_timeout: SignedDuration::from_secs(seconds),
            pipeline: pipeline.clone(),
            ecs,
            address,
        }))
    }

    pub(super) async fn register_task_definition(
        &self,
        id: &DeploymentId,
        row: &EffectRow,
    ) -> Tried {
        let detail = self.store.get_deployment(id).await?;
        let (deployment, release) = (&detail.deployment, &detail.release);
        let DeploymentState::RollingOut {
            rollout: Rollout::Registering { .. },
            ..
        } = &deployment.state
        else {
            return Ok(Outcome::moved_on());
        };
        let fail = |failure| Ok(Outcome::deployment_failed(id, failure));
        let Target {
            pipeline,
            ecs,
            address,
            ..
        } = match self.target(deployment).await? {
            Ok(target) => target,
            Err(failure) => return fail(failure),
        };
        let place = &deployment.place;
        let Some(service) = pipeline.services.get(&place.service) else {
            let message = format!(
                "the pipeline file no longer has service `{}`",
                place.service
            );
            return fail(Failure::failed(message));
        };
        let Some((_, image)) = release.image(&place.environment, &service.image) else {
            let message = format!(
                "{} holds no image `{}`, which {place} runs",
                release.id, service.image
            );
            return fail(Failure::failed(message));
        };
        let creates = match &ecs.create {
            Some(_) if release.task_definitions.has(place) => {
                match self.cluster.find_service(&address).await {
                    Ok(()) => false,
                    Err(error) if error.is_absence() && !may_pass(&error, row) => true,
                    Err(error) => return Err(error.into()),
                }
            }
            Some(_) | None => false,
        };
        let base = match self.base(&pipeline, release, place, &address).await? {
            Ok(base) => base,
            Err(failure) => return fail(failure),
        };
        let none = BTreeMap::new();
        let revision = Revision {
            container: service.container.as_deref(),
            image: &image.pinned(),
            variables: release.variables.get(&place.environment).unwrap_or(&none),
            cpu: ecs.cpu,
            memory: ecs.memory,
            deployment: id.as_str(),
        };
        let next = match revise(&base.definition, &base.tags, &revision) {
            Ok(next) => next,
            Err(error) => {
                let message = format!("service `{}` of {place}: {error}", address.service);
                return fail(Failure::failed(message));
            }
        };
        let region = address.region.as_deref();
        self.check_leases()?;
        let task_definition = self.cluster.register(region, &next, id.as_str()).await?;
        Ok(Outcome::deployment(
            id,
            DeploymentFact::TaskDefinitionRegistered {
                task_definition,
                creates,
            },
        ))
    }

    /// What the next revision of a place is made from. Which file that is was settled at the release's commit, and
    /// so was what stands in it; a release of a commit that named none goes on from what runs.
    async fn base(
        &self,
        pipeline: &Pipeline,
        release: &Release,
        place: &Place,
        address: &ServiceAddress,
    ) -> Result<Result<Base, Failure>, Interrupted> {
        match release.task_definitions.of(place) {
            Some(Ok(definition)) => Ok(Ok(Base::from_file(definition))),
            Some(Err(diagnostics)) => Ok(Err(wrong("its task definition", &diagnostics))),
            None => Ok(Ok(match pipeline.task_definition(place).0 {
                DefinitionBase::Family => self.cluster.describe_newest(address).await?,
                DefinitionBase::Service | DefinitionBase::File { .. } => {
                    self.cluster.describe_base(address).await?
                }
            })),
        }
    }

    /// `again`: it was tried before, and how that ended may not have been heard.
    pub(super) async fn update_service(&self, id: &DeploymentId, again: bool) -> Tried {
        let deployment = self.store.get_deployment(id).await?.deployment;
        let DeploymentState::RollingOut {
            rollout: Rollout::Updating { task_definition },
            since,
        } = &deployment.state
        else {
            return Ok(Outcome::moved_on());
        };
        let Target {
            ecs,
            address,
            rollout_timeout,
            ..
        } = match self.target(&deployment).await? {
            Ok(target) => target,
            Err(failure) => return Ok(Outcome::deployment_failed(id, failure)),
        };
        // While nobody listened ECS may have made the rollout and given it up. Only a definition of its own
        // tells; asking once more for one that was verified before harms nobody.
        if again && deployment.kind == Kind::Forward {
            let taken_back = self.cluster.taken_back(&address, task_definition).await?;
            if let Some(rollout) = taken_back {
                let fact = DeploymentFact::ServiceUpdated { rollout };
                return Ok(Outcome::deployment(id, fact));
            }
        }
        self.check_leases()?;
        let (min, max) = (ecs.min_healthy_percent, ecs.max_percent);
        let updated = self
            .cluster
            .update_service(&address, task_definition, min, max)
            .await;
        let rollout = match updated {
            Ok(rollout) => rollout,
            // Given up here and not by the planner: only here nothing is under way at this moment, and
            // the effect ends with the deployment, so that it is not performed after all.
            Err(error)
                if error.is_transient()
                    && self.clock.now().duration_since(*since) >= rollout_timeout =>
            {
                let failure = not_accepted("the update", &error, rollout_timeout);
                return Ok(Outcome::deployment_failed(id, failure));
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Outcome::deployment(
            id,
            DeploymentFact::ServiceUpdated { rollout },
        ))
    }

    pub(super) async fn create_service(&self, id: &DeploymentId) -> Tried {
        let deployment = self.store.get_deployment(id).await?.deployment;
        let DeploymentState::RollingOut {
            rollout: Rollout::Creating { task_definition },
            since,
        } = &deployment.state
        else {
            return Ok(Outcome::moved_on());
        };
        let Target {
            pipeline,
            ecs,
            address,
            rollout_timeout,
        } = match self.target(&deployment).await? {
            Ok(target) => target,
            Err(failure) => return Ok(Outcome::deployment_failed(id, failure)),
        };
        let place = &deployment.place;
        let Some(create) = &ecs.create else {
            let message = format!(
                "{place} has no ECS service yet, and the pipeline file no longer has `create` for it"
            );
            return Ok(Outcome::deployment_failed(id, Failure::failed(message)));
        };
        let service = pipeline.services.get(&place.service);
        let new = NewService {
            task_definition,
            container: service.and_then(|service| service.container.as_deref()),
            create,
            min_healthy_percent: ecs.min_healthy_percent,
            max_percent: ecs.max_percent,
            token: &token(&deployment, task_definition),
        };
        self.check_leases()?;
        match self.cluster.create_service(&address, &new).await {
            Ok(rollout) => {
                let fact = DeploymentFact::ServiceCreated { rollout };
                Ok(Outcome::deployment(id, fact))
            }
            // As with an update: given up where nothing is under way at this moment.
            Err(error)
                if error.is_transient()
                    && self.clock.now().duration_since(*since) >= rollout_timeout =>
            {
                let failure = not_accepted("the service", &error, rollout_timeout);
                Ok(Outcome::deployment_failed(id, failure))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn stop_rollout(&self, id: &DeploymentId, row: &EffectRow) -> Tried {
        let deployment = self.store.get_deployment(id).await?.deployment;
        let DeploymentState::RollingBack {
            failure,
            by: TakenBackBy::Ecs { ecs, .. },
            ..
        } = &deployment.state
        else {
            return Ok(Outcome::moved_on());
        };
        let address = match self.target(&deployment).await? {
            Ok(target) => target.address,
            Err(other) => {
                return Ok(Outcome::deployment_failed(
                    id,
                    both(failure, &other.message),
                ));
            }
        };
        self.check_leases()?;
        let stopped = match self.cluster.stop_rollout(&address, ecs).await {
            Ok(stopped) => stopped,
            Err(error) if may_pass(&error, row) => return Err(error.into()),
            Err(error) => Stopping::Impossible {
                reason: error.to_string(),
            },
        };
        Ok(match stopped {
            // What comes of it is seen at ECS.
            Stopping::TakingBack => Outcome::Done(vec![]),
            Stopping::Impossible { reason } => {
                Outcome::deployment_failed(id, both(failure, &reason))
            }
        })
    }
}

/// ECS could not be reached, or did not want to, for as long as a rollout may take.
fn not_accepted(what: &str, error: &AwsError, limit: SignedDuration) -> Failure {
    let seconds = limit.as_secs();
    let message = format!("ECS did not accept {what} within {seconds} s: {error}");
    Failure::timed_out(message).with_details(vec![
        "an answer may have been lost: look at what the service runs before going on".into(),
    ])
}

/// The failure that was there, with why it was not taken back.
fn both(failure: &Failure, not_taken_back: &str) -> Failure {
    let mut failure = failure.clone();
    failure
        .details
        .push(format!("it was not taken back: {not_taken_back}"));
    failure
}
