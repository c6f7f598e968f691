//! One project as it is drawn: the world, what a plan on it says, and who looks.

use super::{commits_address, time, who_acts};
use crate::store::Project;
use jiff::Timestamp;
use roadstead_pipelines::action::Actor;
use roadstead_pipelines::deployment::Deployment;
use roadstead_pipelines::gate::{self, GateVerdict};
use roadstead_pipelines::id::{DeploymentId, EnvironmentName, Place, ReleaseId, RunId};
use roadstead_pipelines::planner::{self, Plan};
use roadstead_pipelines::release::Release;
use roadstead_pipelines::report::{Subject, WaitingOn};
use roadstead_pipelines::spec::{self, Role};
use roadstead_pipelines::started_by::StartedBy;
use roadstead_pipelines::world::World;
use roadstead_web::view::{Commit, Gate, GateVerdict as Verdict, Permission, Waiting};

/// Everything that the places, gates and waits of a project are drawn from.
pub(in super::super) struct Scene {
    pub(in super::super) world: World,
    pub(in super::super) plan: Plan,
    pub(in super::super) actor: Actor,
    pub(in super::super) now: Timestamp,
    /// Where commits can be looked at.
    pub(in super::super) commits: Option<String>,
}

impl Scene {
    /// Plans on the world; nothing is stored of it.
    pub(in super::super) fn new(
        project: &Project,
        world: World,
        actor: &Actor,
        now: Timestamp,
    ) -> Self {
        Self {
            plan: planner::plan(&world, now),
            commits: commits_address(&project.repository),
            actor: actor.clone(),
            world,
            now,
        }
    }

    /// Whether the viewer may do what deployers do.
    pub(in super::super) fn deployer(&self) -> Permission {
        super::needs_role(&self.actor, Role::Deployer)
    }

    /// The commit of a release.
    pub(in super::super) fn commit_of(&self, release: &Release) -> Commit {
        super::commit(
            &release.commit,
            &release.message,
            &release.author,
            ("", &StartedBy::Push),
            self.commits.as_deref(),
        )
    }

    fn waits(&self, fits: impl Fn(&Subject) -> bool) -> Vec<&WaitingOn> {
        let all = self.plan.waiting_on.iter();
        all.filter(|waiting| fits(&waiting.subject)).collect()
    }

    /// What a run waits for.
    pub(in super::super) fn run_waits(&self, run: &RunId) -> Option<Waiting> {
        let fits =
            |subject: &Subject| matches!(subject, Subject::Run { run: other } if other == run);
        joined("run".to_owned(), &self.waits(fits))
    }

    /// What a deployment waits for.
    pub(in super::super) fn deployment_waits(&self, id: &DeploymentId) -> Option<Waiting> {
        let fits = |subject: &Subject| matches!(subject, Subject::Deployment { deployment } if deployment == id);
        joined(super::short(id.as_str()).to_owned(), &self.waits(fits))
    }

    /// A release that no deployment to the place was opened for, and what it waits for.
    pub(in super::super) fn candidate_waits(&self, place: &Place) -> Option<(ReleaseId, Waiting)> {
        let release = self.plan.waiting_on.iter().find_map(|w| match &w.subject {
            Subject::Candidate {
                release,
                place: other,
            } if other == place => Some(release),
            Subject::Candidate { .. } | Subject::Run { .. } | Subject::Deployment { .. } => None,
        })?;
        let fits = |subject: &Subject| matches!(subject, Subject::Candidate { release: r, place: p } if r == release && p == place);
        let waiting = joined(super::short(release.as_str()).to_owned(), &self.waits(fits))?;
        Some((release.clone(), waiting))
    }

    /// The gates of a place for a release.
    pub(in super::super) fn gates(&self, place: &Place, release: &ReleaseId) -> Vec<Gate> {
        let gates = gate::gates(&self.world, place, release);
        gates
            .iter()
            .map(|gate| self.gate(gate, place, release))
            .collect()
    }

    fn gate(&self, gate: &spec::Gate, place: &Place, release: &ReleaseId) -> Gate {
        let name = gate_name(gate);
        match gate::evaluate(gate, &self.world, place, release, self.now) {
            GateVerdict::Open { because } => Gate {
                name,
                verdict: Verdict::Pass,
                reason: because,
                since: None,
                until: None,
                who: String::new(),
            },
            GateVerdict::Closed { reason, until, who } => Gate {
                name,
                verdict: Verdict::Wait,
                reason,
                since: None,
                until: until.map(time),
                who: who_acts(&who),
            },
        }
    }

    /// Whether the viewer may say yes to a release: absent when no closed gate asks for it.
    pub(in super::super) fn approve(&self, place: &Place, release: &ReleaseId) -> Permission {
        for gate in &gate::gates(&self.world, place, release) {
            let spec::Gate::Approval {
                from, not_author, ..
            } = gate
            else {
                continue;
            };
            let verdict = gate::evaluate(gate, &self.world, place, release, self.now);
            if matches!(verdict, GateVerdict::Open { .. }) {
                continue;
            }
            let least = from.iter().min().copied().unwrap_or(Role::Deployer);
            let mut said = self.world.place(place).approvals.into_iter();
            if said.any(|a| a.release == *release && a.by == self.actor.name) {
                return Permission::Denied(
                    "you have approved it; somebody else has to, too".into(),
                );
            }
            let known = not_author
                .then(|| gate::is_no_stranger(&self.world, place, release, &self.actor.name));
            if let Some(why) = known.flatten() {
                return Permission::Denied(format!("not by its author: {why}"));
            }
            return super::needs_role(&self.actor, least.max(Role::Deployer));
        }
        Permission::Absent
    }

    /// The word to type before promote and rollback: where no other environment follows, nothing
    /// stands behind a mistake.
    pub(in super::super) fn confirm(&self, place: &Place) -> Option<String> {
        confirm_word(&self.world, &place.environment)
    }

    /// Deployments of a place that are not over, the oldest first.
    pub(in super::super) fn live_in<'a>(
        &'a self,
        place: &'a Place,
    ) -> impl Iterator<Item = &'a Deployment> {
        self.world.live_in(place)
    }
}

/// The environment's name when promote and rollback there have to be confirmed with it.
pub(in super::super) fn confirm_word(world: &World, name: &EnvironmentName) -> Option<String> {
    let environments = &world.pipeline.as_ref()?.environments;
    let last = environments
        .values()
        .all(|other| other.after.as_ref() != Some(name));
    (environments.contains_key(name) && last).then(|| name.to_string())
}

/// A gate in words.
pub(super) fn gate_name(gate: &spec::Gate) -> String {
    match gate {
        spec::Gate::Healthy {
            environment, soak, ..
        } => format!("{soak} healthy in {environment}"),
        spec::Gate::Approval { count: 1, .. } => "approval".to_owned(),
        spec::Gate::Approval { count, .. } => format!("{count} approvals"),
    }
}

/// Several reasons of one thing as one wait: since the first, until the last.
fn joined(what: String, waits: &[&WaitingOn]) -> Option<Waiting> {
    let first = waits.first()?;
    let reasons: Vec<_> = waits.iter().map(|w| w.reason.as_str()).collect();
    let mut who: Vec<_> = waits.iter().map(|w| who_acts(&w.who)).collect();
    who.dedup();
    let all_timed = waits.iter().all(|w| w.until.is_some());
    let last = waits.iter().filter_map(|w| w.until).max();
    Some(Waiting {
        what,
        reason: reasons.join("; "),
        since: time(waits.iter().map(|w| w.since).min().unwrap_or(first.since)),
        until: last.filter(|_| all_timed).map(time),
        who: who.join("; "),
    })
}
