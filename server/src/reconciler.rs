//! Lets what follows follow: loads each project that may have something to decide, plans, commits.
//!
//! It takes no input and keeps nothing that matters: whoever records a fact rings the bell, and a
//! lost ring costs one interval. It never stops on an error; what failed is tried again.

use crate::store::{Committed, LaneMark, Result, Store};
use crate::wake::Bell;
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use roadstead_pipelines::id::ProjectName;
use roadstead_pipelines::planner;
use roadstead_pipelines::world::World;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Without a ring it looks this often: deadlines and soak times pass without one.
const INTERVAL: Duration = Duration::from_secs(1);
/// After a round it rests three times as long as that took, and no longer than this: where thousands of
/// runs are under way, what keeps arriving is planned in one go, and most of the time is left to others.
const LONGEST_REST: Duration = INTERVAL;
/// Projects that are planned at the same time.
const AT_ONCE: usize = 4;
/// A project that keeps changing under the planner gets its next chance with the next round.
const MOST_PLANS: u32 = 20;
/// After so many plans that were stale before they could be stored, one is made while others wait.
const MOST_STALE: u32 = 3;
/// Who makes a plan's changes, for the history.
const ACTOR: &str = "Roadstead";

/// The loop from worlds to commits.
pub struct Reconciler {
    /// The rows.
    pub store: Store,
    /// Rung by whoever records a fact; rung again here when a commit may interest others.
    pub bell: Bell,
    /// Rung when there may be effects to perform.
    pub effects_bell: Bell,
}

impl Reconciler {
    /// Runs until it is dropped.
    pub async fn run(self) {
        let mut listener = self.bell.listen();
        // Generations that were planned to the end; what is not live and has not moved on since
        // needs no look. Lost with a restart, which only costs one look at each project.
        let mut settled = BTreeMap::new();
        loop {
            let begun = Instant::now();
            let now = crate::clock::now();
            if let Err(error) = self.round(&mut settled, now).await {
                tracing::error!("the projects could not be listed, trying again: {error}");
            }
            tokio::time::sleep((begun.elapsed() * 3).min(LONGEST_REST)).await;
            listener.wait(INTERVAL).await;
        }
    }

    async fn round(&self, settled: &mut BTreeMap<ProjectName, i64>, now: Timestamp) -> Result<()> {
        let marks = self.store.lane_marks().await?;
        let to_plan: Vec<_> = marks
            .into_iter()
            .filter(|it| it.live || settled.get(&it.project) != Some(&it.generation))
            .collect();
        let plans = to_plan.into_iter().map(async |LaneMark { project, .. }| {
            let planned = self.reconcile(&project, now).await;
            (project, planned)
        });
        // Most of a plan is waiting for the database.
        let mut planned = stream::iter(plans).buffer_unordered(AT_ONCE);
        while let Some((project, planned)) = planned.next().await {
            match planned {
                Ok(Some(generation)) => {
                    settled.insert(project, generation);
                }
                Ok(None) => {
                    tracing::debug!(%project, "{project} keeps changing; planned again next time");
                }
                Err(error) => {
                    tracing::error!(%project, "{project} could not be planned, trying again: {error}");
                }
            }
        }
        Ok(())
    }

    /// Plans one project until nothing new follows, and tells the generation at which that was so;
    /// `None` when others kept changing it.
    ///
    /// # Errors
    /// Those of the store; nothing of the plan at hand is stored then.
    pub async fn reconcile(&self, project: &ProjectName, now: Timestamp) -> Result<Option<i64>> {
        let mut stale = 0;
        for _ in 0..MOST_PLANS {
            let world = self.store.load_movable_world(project).await?;
            let plan = planner::plan(&world, now);
            let effects = self.store.effects_not_stored(plan.effects).await?;
            if plan.changes.is_empty() && effects.is_empty() {
                return Ok(world.generations.get(project).copied());
            }
            let (changed, acts) = (plan.changes.len(), !effects.is_empty());
            let committed = self
                .store
                .commit(
                    project,
                    world.generations,
                    plan.changes,
                    effects,
                    ACTOR,
                    now,
                )
                .await?;
            if committed == Committed::Stale {
                stale += 1;
                if stale == MOST_STALE {
                    return self.reconcile_undisturbed(project, now).await;
                }
                continue;
            }
            tracing::debug!(%project, changed, "{project}: {changed} changes follow");
            if acts {
                self.effects_bell.ring();
            }
            if changed > 0 {
                // Pollers and pages listen to the same bell: a queued job is news for a runner.
                self.bell.ring();
            }
        }
        Ok(None)
    }

    async fn reconcile_undisturbed(
        &self,
        project: &ProjectName,
        now: Timestamp,
    ) -> Result<Option<i64>> {
        let planned = move |world: &World| {
            let plan = planner::plan(world, now);
            (plan.changes, plan.effects)
        };
        self.store
            .commit_undisturbed(project, ACTOR, now, planned)
            .await?;
        self.effects_bell.ring();
        // What others did meanwhile is looked at in the next round.
        self.bell.ring();
        Ok(None)
    }
}
