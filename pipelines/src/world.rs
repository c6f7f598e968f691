//! What a plan is made from: the rows of one project as they were read, and the generations of the
//! lanes that were read. A plan made on a world whose lanes have moved on is thrown away.

use crate::authorship::{Addresses, Authorship};
use crate::deployment::{Deployment, DeploymentState, Kind};
use crate::group::Lines;
use crate::id::{DeploymentId, Place, ProjectName, ReleaseId, RunId};
use crate::observation::PlaceStatus;
use crate::release::Release;
use crate::run::Run;
use crate::spec::{Environment, Pipeline, Role};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Automation leaves the place alone until somebody resumes it or a person promotes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Why, in words.
    pub reason: String,
    /// Who set it: a person's name, or `Roadstead`.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
}

/// A person's word for a release in a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The release.
    pub release: ReleaseId,
    /// Who.
    pub by: String,
    /// Their role then.
    pub role: Role,
    /// When.
    pub at: Timestamp,
}

/// A release that was verified in a place, with the definition that ran it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The release.
    pub release: ReleaseId,
    /// The task definition's ARN.
    pub task_definition: String,
    /// The deployment that proved it.
    pub deployment: DeploymentId,
    /// When.
    pub at: Timestamp,
}

/// What is known of a place apart from its live deployments.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PlaceState {
    /// Set when automation has to stay away.
    pub hold: Option<Hold>,
    /// Approvals, oldest first.
    pub approvals: Vec<Approval>,
    /// Verified releases, newest proof first.
    pub verified: Vec<Verified>,
    /// The newest release that a forward deployment was opened for, whatever became of it.
    pub newest_tried: Option<ReleaseId>,
    /// What ECS and the probes last said.
    pub status: Option<PlaceStatus>,
}

impl PlaceState {
    /// The release that the place returns to.
    #[must_use]
    pub fn last_verified(&self) -> Option<&Verified> {
        self.verified.first()
    }

    /// Whether a release was ever verified here.
    #[must_use]
    pub fn has_verified(&self, release: &ReleaseId) -> bool {
        self.verified.iter().any(|v| v.release == *release)
    }
}

/// One project as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// The project.
    pub project: ProjectName,
    /// The generation of every lane that was read; the commit compares and swaps each.
    pub generations: BTreeMap<ProjectName, i64>,
    /// Number of the next release.
    pub next_release: u64,
    /// Number of the next deployment.
    pub next_deployment: u64,
    /// The file whose environments and gates hold now; none before the first accepted run.
    pub pipeline: Option<Pipeline>,
    /// Runs that are not over.
    pub runs: BTreeMap<RunId, Run>,
    /// The lines of groups in which their jobs stand, when a page asks what runs wait for.
    pub lines: Lines,
    /// Releases that a plan may need: the newest, the verified, those of live deployments.
    pub releases: BTreeMap<ReleaseId, Release>,
    /// Who made releases that are not among those above, as far as a `not_author` gate may ask.
    pub authorship: BTreeMap<ReleaseId, Authorship>,
    /// The e-mail addresses of users, by their names, when a `not_author` gate may ask.
    pub addresses: BTreeMap<String, Addresses>,
    /// Deployments that are not over, and those that a live one waits for.
    pub deployments: BTreeMap<DeploymentId, Deployment>,
    /// The places, by name.
    pub places: BTreeMap<Place, PlaceState>,
}

impl World {
    /// A project in which nothing has happened yet.
    #[must_use]
    pub fn empty(project: ProjectName) -> Self {
        Self {
            project,
            generations: BTreeMap::new(),
            next_release: 1,
            next_deployment: 1,
            pipeline: None,
            runs: BTreeMap::new(),
            lines: Lines::new(),
            releases: BTreeMap::new(),
            authorship: BTreeMap::new(),
            addresses: BTreeMap::new(),
            deployments: BTreeMap::new(),
            places: BTreeMap::new(),
        }
    }

    /// Who made a release, when that is known.
    #[must_use]
    pub fn authorship(&self, release: &ReleaseId) -> Option<&Authorship> {
        match self.releases.get(release) {
            Some(found) => found.authorship.as_ref(),
            None => self.authorship.get(release),
        }
    }

    /// Places of the file in promotion order, service by service.
    #[must_use]
    pub fn places_in_order(&self) -> Vec<(Place, &Environment)> {
        let Some(pipeline) = &self.pipeline else {
            return vec![];
        };
        let mut places = vec![];
        for (environment, definition) in &pipeline.environments {
            for service in pipeline.services.keys() {
                let place = Place {
                    environment: environment.clone(),
                    service: service.clone(),
                };
                places.push((place, definition));
            }
        }
        places
    }

    /// The definition of a place's environment, when the file has it.
    #[must_use]
    pub fn environment(&self, place: &Place) -> Option<&Environment> {
        self.pipeline.as_ref()?.environments.get(&place.environment)
    }

    /// State of a place; a place never touched is empty.
    #[must_use]
    pub fn place(&self, place: &Place) -> PlaceState {
        self.places.get(place).cloned().unwrap_or_default()
    }

    /// The newest release of the project.
    #[must_use]
    pub fn newest_release(&self) -> Option<&Release> {
        self.releases
            .values()
            .max_by_key(|release| release.id.number())
    }

    /// Live deployments of a place, oldest first.
    pub fn live_in<'a>(&'a self, place: &'a Place) -> impl Iterator<Item = &'a Deployment> {
        let mut live: Vec<_> = self
            .deployments
            .values()
            .filter(|d| d.place == *place && !d.state.is_over())
            .collect();
        live.sort_by_key(|d| d.id.number());
        live.into_iter()
    }

    /// The world after changes: what a commit would store. Used by the planner to plan until
    /// nothing new follows, and by tests.
    ///
    /// # Errors
    /// [`crate::fact::IllegalTransition`] when a change does not fit; nothing is changed then.
    pub fn with(
        &self,
        changes: &[crate::fact::Change],
        now: Timestamp,
    ) -> Result<Self, crate::fact::IllegalTransition> {
        use crate::fact::{Change, IllegalTransition};
        let mut next = self.clone();
        let missing = |subject: String, fact| IllegalTransition {
            subject,
            state: "unknown",
            fact,
        };
        for change in changes {
            match change {
                Change::Run { run, fact } => {
                    let old = next
                        .runs
                        .get(run)
                        .ok_or_else(|| missing(run.to_string(), fact.word()))?;
                    let new = old.apply(fact, now)?;
                    next.runs.insert(run.clone(), new);
                }
                Change::Deployment { deployment, fact } => {
                    let old = next
                        .deployments
                        .get(deployment)
                        .ok_or_else(|| missing(deployment.to_string(), fact.word()))?;
                    let new = old.apply(fact, now)?;
                    if let DeploymentState::Deployed {
                        task_definition,
                        at,
                    } = &new.state
                    {
                        let verified = Verified {
                            release: new.release.clone(),
                            task_definition: task_definition.clone(),
                            deployment: new.id.clone(),
                            at: *at,
                        };
                        let place = next.places.entry(new.place.clone()).or_default();
                        place.verified.insert(0, verified);
                    }
                    next.deployments.insert(deployment.clone(), new);
                }
                Change::MakeRelease { release } => {
                    next.next_release = next.next_release.max(release.id.number() + 1);
                    next.releases.insert(release.id.clone(), release.clone());
                }
                Change::OpenDeployment {
                    deployment,
                    place,
                    release,
                    kind,
                    trigger,
                } => {
                    next.next_deployment = next.next_deployment.max(deployment.number() + 1);
                    let opened = Deployment {
                        id: deployment.clone(),
                        place: place.clone(),
                        release: release.clone(),
                        kind: kind.clone(),
                        trigger: trigger.clone(),
                        created_at: now,
                        state: DeploymentState::Queued,
                    };
                    next.deployments.insert(deployment.clone(), opened);
                    if *kind == Kind::Forward {
                        let state = next.places.entry(place.clone()).or_default();
                        let newest = state.newest_tried.as_ref().map_or(0, ReleaseId::number);
                        if release.number() > newest {
                            state.newest_tried = Some(release.clone());
                        }
                    }
                }
                Change::SetHold { place, hold } => {
                    next.places.entry(place.clone()).or_default().hold = Some(hold.clone());
                }
                Change::ReleaseHold { place, .. } => {
                    next.places.entry(place.clone()).or_default().hold = None;
                }
                Change::Approve { place, approval } => {
                    let state = next.places.entry(place.clone()).or_default();
                    let again = state
                        .approvals
                        .iter()
                        .any(|a| a.release == approval.release && a.by == approval.by);
                    if !again {
                        state.approvals.push(approval.clone());
                    }
                }
                Change::AdoptPipeline { pipeline } => next.pipeline = Some((**pipeline).clone()),
            }
        }
        Ok(next)
    }
}
