//! The planner: from a world to what follows from it. Decides everything, does nothing.
//!
//! Level-triggered: it looks at states, never at events, so a crash between any two steps changes
//! nothing about what follows. Changes are applied to a copy and the planning goes on until nothing
//! new follows; effects and reasons are read off the last copy.
//!
//! Rules, each in a room of its own: [`superseded`] cancels builds that a newer push takes the place of;
//! [`runs`] moves runs; [`candidates`] opens deployments where an
//! environment deploys by itself; [`queue`] starts what waits; [`rollouts`] judges what moves and
//! takes back what fails.

mod before_deploy;
mod candidates;
mod queue;
mod rollouts;
mod runs;
mod superseded;

pub use runs::MOST_FETCHING;
pub(crate) use superseded::takes_place_of;

use crate::deployment::{Kind, Trigger};
use crate::effect::Effect;
use crate::fact::Change;
use crate::id::{DeploymentId, Place, ReleaseId};
use crate::report::WaitingOn;
use crate::world::World;
use jiff::Timestamp;

/// More rounds than any chain of consequences has; reaching it is a defect of the planner.
const MOST_ROUNDS: usize = 32;

/// What follows from a world.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Changes, in the order in which they apply.
    pub changes: Vec<Change>,
    /// External calls that the world after the changes needs. One that is stored already is not
    /// stored again (see [`Effect::key`]).
    pub effects: Vec<Effect>,
    /// Why what does not move does not move.
    pub waiting_on: Vec<WaitingOn>,
}

/// Collects one round's consequences.
struct Draft<'a> {
    world: &'a World,
    now: Timestamp,
    plan: Plan,
    next_release: u64,
    next_deployment: u64,
}

impl<'a> Draft<'a> {
    fn new(world: &'a World, now: Timestamp) -> Self {
        Self {
            world,
            now,
            plan: Plan::default(),
            next_release: world.next_release,
            next_deployment: world.next_deployment,
        }
    }

    fn change(&mut self, change: Change) {
        self.plan.changes.push(change);
    }

    fn effect(&mut self, effect: Effect) {
        self.plan.effects.push(effect);
    }

    fn waits(&mut self, waiting: WaitingOn) {
        self.plan.waiting_on.push(waiting);
    }

    fn release_id(&mut self) -> ReleaseId {
        let id = ReleaseId::new(&self.world.project, self.next_release);
        self.next_release += 1;
        id
    }

    fn open(
        &mut self,
        place: &Place,
        release: &ReleaseId,
        kind: Kind,
        trigger: Trigger,
    ) -> DeploymentId {
        let id = DeploymentId::new(&self.world.project, self.next_deployment);
        self.next_deployment += 1;
        self.change(Change::OpenDeployment {
            deployment: id.clone(),
            place: place.clone(),
            release: release.clone(),
            kind,
            trigger,
        });
        id
    }
}

/// Plans from `world` at `now` until nothing new follows.
#[must_use]
pub fn plan(world: &World, now: Timestamp) -> Plan {
    let mut current = world.clone();
    let mut changes = vec![];
    for _ in 0..MOST_ROUNDS {
        let mut draft = Draft::new(&current, now);
        superseded::plan(&mut draft);
        runs::plan(&mut draft);
        rollouts::plan(&mut draft);
        if draft.plan.changes.is_empty() {
            candidates::plan(&mut draft);
        }
        if draft.plan.changes.is_empty() {
            queue::plan(&mut draft);
        }
        if draft.plan.changes.is_empty() {
            return Plan {
                changes,
                ..draft.plan
            };
        }
        let round = std::mem::take(&mut draft.plan.changes);
        match current.with(&round, now) {
            Ok(next) => current = next,
            // A rule proposed what `apply` refuses: leave the world as it is rather than guess.
            Err(_) => {
                return Plan {
                    changes,
                    ..Plan::default()
                };
            }
        }
        changes.extend(round);
    }
    Plan {
        changes,
        ..Plan::default()
    }
}
