//! Places: the cells of the matrix, and what a service's page offers.

use super::scene::gate_name;
use super::{Scene, deployment, short, time};
use crate::http::pages::view_of;
use roadstead_pipelines::deployment::{Deployment, DeploymentState};
use roadstead_pipelines::id::{ImageName, Place, ReleaseId};
use roadstead_pipelines::observation::{self, LONGEST_GAP, PlaceStatus};
use roadstead_pipelines::release::Release;
use roadstead_pipelines::spec::{self, Role};
use roadstead_pipelines::world::PlaceState;
use roadstead_web::view::{
    Candidate, Cell, DeployMode, EnvironmentHead, Health, Hold, InFlight, LiveRelease, Matrix,
    MatrixRow, Permission, RollbackTarget, Time, Waiting,
};
use std::collections::BTreeSet;

/// Releases that are offered for promotion.
const MOST_CANDIDATES: usize = 10;
/// Releases that are offered for going back.
const MOST_TARGETS: usize = 20;

impl Scene {
    /// What is where; none before the first pipeline file.
    pub(in super::super) fn matrix(&self) -> Option<Matrix> {
        let pipeline = self.world.pipeline.as_ref()?;
        let environments = pipeline.environments.iter().map(|(name, environment)| {
            let gates: Vec<_> = environment.gates.iter().map(gate_name).collect();
            EnvironmentHead {
                name: name.to_string(),
                mode: match environment.deploy {
                    spec::DeployMode::Auto => DeployMode::Auto,
                    spec::DeployMode::Manual => DeployMode::Manual,
                },
                gates: gates.join(", "),
            }
        });
        let rows = pipeline.services.keys().map(|service| MatrixRow {
            service: service.to_string(),
            cells: pipeline
                .environments
                .keys()
                .map(|environment| {
                    self.cell(&Place {
                        environment: environment.clone(),
                        service: service.clone(),
                    })
                })
                .collect(),
        });
        Some(Matrix {
            project: self.world.project.to_string(),
            environments: environments.collect(),
            rows: rows.collect(),
        })
    }

    /// One service in one environment.
    pub(in super::super) fn cell(&self, place: &Place) -> Cell {
        let state = self.world.place(place);
        let (health, health_detail) = self.health(&state);
        let moving = self
            .live_in(place)
            .filter(|d| d.state != DeploymentState::Queued)
            .last();
        Cell {
            environment: place.environment.to_string(),
            live: self.live(place, &state),
            health,
            health_detail,
            last_seen: self.last_seen(&state),
            behind: None,
            in_flight: moving.map(|deployment| self.in_flight(deployment, &state)),
            waiting: self.waiting(place),
            hold: self.hold(&state),
        }
    }

    /// The image that a service runs.
    fn image_of(&self, place: &Place) -> Option<&ImageName> {
        let pipeline = self.world.pipeline.as_ref()?;
        Some(&pipeline.services.get(&place.service)?.image)
    }

    /// The digest that a release brings to a place; empty when it holds no such image.
    pub(in super::super) fn digest(&self, place: &Place, release: &Release) -> String {
        self.image_of(place)
            .and_then(|image| release.image(&place.environment, image))
            .map(|(_, image)| image.digest.to_string())
            .unwrap_or_default()
    }

    /// What is to be said of the image that a release brings to a place, if the environment before does not prove
    /// that very one.
    pub(in super::super) fn sibling_note(
        &self,
        place: &Place,
        release: &Release,
    ) -> Option<String> {
        let before = self.world.environment(place)?.after.as_ref()?;
        release.sibling_note(place, self.image_of(place)?, before)
    }

    fn live(&self, place: &Place, state: &PlaceState) -> Option<LiveRelease> {
        let verified = state.last_verified()?;
        let release = self.world.releases.get(&verified.release)?;
        Some(LiveRelease {
            release: short(release.id.as_str()).to_owned(),
            commit: self.commit_of(release),
            digest: self.digest(place, release),
            deployment: verified.deployment.to_string(),
            since: time(verified.at),
        })
    }

    fn health(&self, state: &PlaceState) -> (Health, String) {
        let Some(status) = &state.status else {
            return match state.last_verified() {
                Some(_) => (Health::Unknown, "not observed yet".to_owned()),
                None => (Health::Empty, String::new()),
            };
        };
        if let Some((_, reason)) = &status.unseen {
            return (Health::Unknown, reason.clone());
        }
        if self.last_seen(state).is_some() {
            return (Health::Unknown, String::new());
        }
        match &status.health {
            observation::Health::Pass => (Health::Healthy, tasks(status)),
            observation::Health::Fail { reason } if serving(status) == 0 => {
                (Health::Unhealthy, reason.clone())
            }
            observation::Health::Fail { reason } => (Health::Degraded, reason.clone()),
            observation::Health::Inconclusive { reason } if status.service.desired > 0 => {
                (Health::Starting, reason.clone())
            }
            observation::Health::Inconclusive { reason } => (Health::Unknown, reason.clone()),
        }
    }

    /// When the place was last seen, if that has to be said.
    pub(in super::super) fn last_seen(&self, state: &PlaceState) -> Option<Time> {
        let status = state.status.as_ref()?;
        let old = self.now.duration_since(status.observed_at) > LONGEST_GAP;
        (old || status.unseen.is_some()).then(|| time(status.observed_at))
    }

    fn in_flight(&self, deployment: &Deployment, state: &PlaceState) -> InFlight {
        let release = self.world.releases.get(&deployment.release);
        InFlight {
            deployment: deployment.id.to_string(),
            kind: deployment::kind(deployment),
            state: deployment::state(&deployment.state),
            release: short(deployment.release.as_str()).to_owned(),
            commit: release.map_or_else(deployment::unknown_commit, |r| self.commit_of(r)),
            progress: state.status.as_ref().map(tasks).unwrap_or_default(),
            since: time(deployment::since(deployment)),
        }
    }

    fn waiting(&self, place: &Place) -> Vec<Waiting> {
        let queued = self
            .live_in(place)
            .filter(|d| d.state == DeploymentState::Queued);
        let mut all: Vec<_> = queued
            .filter_map(|deployment| {
                let waiting = self.deployment_waits(&deployment.id)?;
                Some(Waiting {
                    what: short(deployment.release.as_str()).to_owned(),
                    ..waiting
                })
            })
            .collect();
        all.extend(self.candidate_waits(place).map(|(_, waiting)| waiting));
        all
    }

    /// The hold of a place.
    pub(in super::super) fn hold(&self, state: &PlaceState) -> Option<Hold> {
        let hold = state.hold.as_ref()?;
        Some(Hold {
            by: hold.by.clone(),
            since: time(hold.since),
            reason: hold.reason.clone(),
            who: "a deployer can resume, or promote another release".to_owned(),
            resume: self.deployer(),
        })
    }

    /// Releases that may be promoted to a place, the newest first.
    pub(in super::super) fn candidates(&self, place: &Place) -> Vec<Candidate> {
        let Some(environment) = self.world.environment(place) else {
            return vec![];
        };
        let state = self.world.place(place);
        let live = state.last_verified().map_or(0, |v| v.release.number());
        let upstream = environment.after.as_ref().map(|before| {
            self.world.place(&Place {
                environment: before.clone(),
                service: place.service.clone(),
            })
        });
        let proved = |release: &ReleaseId| {
            upstream
                .as_ref()
                .is_none_or(|upstream| upstream.has_verified(release))
        };
        let on_its_way: BTreeSet<_> = self
            .live_in(place)
            .filter(|d| !d.is_rollback())
            .map(|d| &d.release)
            .collect();
        let mut found: Vec<_> = self
            .world
            .releases
            .values()
            .filter(|release| release.id.number() > live && proved(&release.id))
            .filter(|release| {
                let image = self.image_of(place);
                image.is_some_and(|it| release.image(&place.environment, it).is_some())
            })
            .collect();
        found.sort_by_key(|release| std::cmp::Reverse(release.id.number()));
        let tried = state.newest_tried.as_ref();
        let tried = tried.and_then(|id| self.world.releases.get(id));
        let come_here: Vec<&Release> = found.iter().copied().chain(tried).collect();
        let candidates = found.into_iter().take(MOST_CANDIDATES).map(|release| {
            let overtaken = |other: &&&Release| release.is_overtaken_by(other);
            let special = if on_its_way.contains(&release.id) {
                "on its way here already".to_owned()
            } else if let Some(later) = come_here.iter().find(overtaken) {
                format!(
                    "passed over: {} is of a later commit",
                    short(later.id.as_str())
                )
            } else if state.newest_tried.as_ref().map_or(0, ReleaseId::number)
                >= release.id.number()
            {
                "was tried here before, or passed over for a newer one".to_owned()
            } else {
                String::new()
            };
            let notes = self.sibling_note(place, release).into_iter();
            let notes = notes.chain(Some(special).filter(|it| !it.is_empty()));
            let note = notes.collect::<Vec<_>>().join("; ");
            Candidate {
                release_id: release.id.to_string(),
                release: short(release.id.as_str()).to_owned(),
                commit: self.commit_of(release),
                digest: self.digest(place, release),
                built: time(release.created_at),
                commits_added: None,
                note,
                gates: self.gates(place, &release.id),
                needs_approval: self.approve(place, &release.id).present(),
            }
        });
        candidates.collect()
    }

    /// Releases that a place can go back to, the newest proof first.
    pub(in super::super) fn rollback_targets(&self, place: &Place) -> Vec<RollbackTarget> {
        let state = self.world.place(place);
        let mut seen: BTreeSet<_> = state
            .last_verified()
            .map(|v| &v.release)
            .into_iter()
            .collect();
        let mut targets = vec![];
        let mut left_at = None;
        for verified in &state.verified {
            let until = left_at.replace(verified.at);
            if targets.len() == MOST_TARGETS || !seen.insert(&verified.release) {
                continue;
            }
            let Some(release) = self.world.releases.get(&verified.release) else {
                continue;
            };
            let live = until.map(|until| until.duration_since(verified.at).as_secs());
            targets.push(RollbackTarget {
                release_id: release.id.to_string(),
                release: short(release.id.as_str()).to_owned(),
                commit: self.commit_of(release),
                digest: self.digest(place, release),
                verified: time(verified.at),
                live_seconds: live.and_then(|seconds| u64::try_from(seconds).ok()),
                commits_removed: None,
                note: String::new(),
                available: Permission::Allowed,
            });
        }
        targets
    }

    /// Where a place is, in words.
    pub(in super::super) fn place_in_words(&self, place: &Place) -> String {
        let Some(environment) = self.world.environment(place) else {
            return "no longer in the pipeline file".to_owned();
        };
        let target = environment.target(&place.service);
        let mut words = format!("cluster {}, service {}", target.cluster, target.service);
        if let Some(region) = target.region {
            words.push_str(", ");
            words.push_str(&region);
        }
        words
    }

    /// What runs before each deployment to a place.
    pub(in super::super) fn before_deploy(&self, place: &Place) -> Option<String> {
        let service = self.world.pipeline.as_ref()?.services.get(&place.service)?;
        Some(service.before_deploy.as_ref()?.shown())
    }

    /// Whether the viewer may set a hold.
    pub(in super::super) fn may_hold(&self) -> Permission {
        view_of::needs_role(&self.actor, Role::Deployer)
    }
}

fn serving(status: &PlaceStatus) -> u32 {
    let primary = status.service.primary();
    primary.map_or(status.service.running, |p| p.healthy.unwrap_or(p.running))
}

fn tasks(status: &PlaceStatus) -> String {
    format!(
        "{} of {} tasks healthy",
        serving(status),
        status.service.desired
    )
}
