//! What is under way here, and what may begin beside it.
//!
//! Each counterpart has turns of its own: what waits for a forge takes none from what waits for ECS. Of
//! the forge's, one project has few, because a repository that does not answer keeps each of them for
//! as long as it is waited for; a mirror has one fetch at a time anyhow. The store is not asked here.

use crate::store::{EffectRow, Wanted};
use roadstead_pipelines::effect::Counterpart;
use roadstead_pipelines::id::ProjectName;
use std::collections::BTreeMap;
use tokio::task::AbortHandle;

/// Turns of one project at its forge.
const OF_ONE_PROJECT: usize = 2;

/// Turns of a counterpart.
fn turns(counterpart: Counterpart) -> usize {
    match counterpart {
        Counterpart::Ecs | Counterpart::Forge => 8,
        Counterpart::Registry => 4,
    }
}

struct UnderWay {
    project: ProjectName,
    counterpart: Counterpart,
    work: AbortHandle,
}

/// Effects that are performed at the same time, by their keys.
#[derive(Default)]
pub(super) struct Turns(BTreeMap<String, UnderWay>);

impl Turns {
    /// Forgets what is over.
    pub(super) fn free_finished(&mut self) {
        self.0.retain(|_, one| !one.work.is_finished());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys of what is under way.
    pub(super) fn keys(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// What may begin now of those that wait for this counterpart; `None` when all turns are taken. Once it
    /// has begun, more may be wanted.
    pub(super) fn wanted(&self, counterpart: Counterpart) -> Option<Wanted> {
        let same = self.0.values().filter(|one| one.counterpart == counterpart);
        let mut of_projects = BTreeMap::new();
        for one in same {
            *of_projects.entry(&one.project).or_insert(0) += 1;
        }
        let taken: usize = of_projects.values().sum();
        let free = turns(counterpart).saturating_sub(taken);
        if free == 0 {
            return None;
        }
        let (limit, not_of) = match counterpart {
            Counterpart::Ecs | Counterpart::Registry => (free, vec![]),
            // One after the other: each may be its project's last.
            Counterpart::Forge => {
                let busy = of_projects.iter().filter(|(_, n)| **n >= OF_ONE_PROJECT);
                (1, busy.map(|(project, _)| (*project).clone()).collect())
            }
        };
        Some(Wanted {
            limit: u32::try_from(limit).unwrap_or(1),
            of: vec![counterpart],
            not_of,
        })
    }

    /// An effect has begun. What was under way under its key, whose lease was lost in between, is broken
    /// off.
    pub(super) fn begin(&mut self, row: &EffectRow, work: AbortHandle) {
        let one = UnderWay {
            project: row.project.clone(),
            counterpart: row.effect.counterpart(),
            work,
        };
        if let Some(lost) = self.0.insert(row.key.clone(), one) {
            lost.work.abort();
        }
    }

    /// Breaks one off; whether it was under way.
    pub(super) fn break_off(&mut self, key: &str) -> bool {
        let Some(lost) = self.0.remove(key) else {
            return false;
        };
        let was_under_way = !lost.work.is_finished();
        lost.work.abort();
        was_under_way
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::EffectState;
    use jiff::Timestamp;
    use roadstead_pipelines::effect::Effect;
    use roadstead_pipelines::id::{DeploymentId, RunId};
    use std::future::pending;

    fn row(project: &str, number: u64, of: Counterpart) -> EffectRow {
        let project = ProjectName::parse(project).unwrap();
        let run = RunId::new(&project, number);
        let effect = match of {
            Counterpart::Forge => Effect::ReadSources { run },
            Counterpart::Registry => Effect::PrepareRegistry { run },
            Counterpart::Ecs => Effect::UpdateService {
                deployment: DeploymentId::new(&project, number),
            },
        };
        assert_eq!(effect.counterpart(), of);
        EffectRow {
            key: effect.key(),
            project,
            effect,
            state: EffectState::Leased,
            attempts: 1,
            not_before: Timestamp::UNIX_EPOCH,
            last_error: None,
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn begin(turns: &mut Turns, row: &EffectRow) {
        let work = tokio::spawn(pending::<()>());
        turns.begin(row, work.abort_handle());
    }

    #[tokio::test]
    async fn each_counterpart_has_turns_of_its_own() {
        let mut turns = Turns::default();
        let mut number = 0;
        while let Some(wanted) = turns.wanted(Counterpart::Forge) {
            assert_eq!((wanted.limit, wanted.of), (1, vec![Counterpart::Forge]));
            let busy: Vec<_> = (0..number / 2).map(|n| format!("shop-{n}")).collect();
            let not_of: Vec<_> = wanted.not_of.iter().map(ProjectName::as_str).collect();
            assert_eq!(not_of, busy);
            let project = format!("shop-{}", number / 2);
            begin(&mut turns, &row(&project, number, Counterpart::Forge));
            number += 1;
        }
        assert_eq!(number, 8);
        let ecs = turns.wanted(Counterpart::Ecs).unwrap();
        assert_eq!((ecs.limit, ecs.not_of), (8, vec![]));
        for number in 0..3 {
            begin(&mut turns, &row("shop", number, Counterpart::Ecs));
        }
        assert_eq!(turns.wanted(Counterpart::Ecs).unwrap().limit, 5);
        assert_eq!(turns.wanted(Counterpart::Registry).unwrap().limit, 4);
    }

    #[tokio::test]
    async fn what_is_over_or_broken_off_gives_its_turn_back() {
        let mut turns = Turns::default();
        for number in 0..8 {
            begin(&mut turns, &row("shop", number, Counterpart::Ecs));
        }
        assert_eq!(turns.wanted(Counterpart::Ecs), None);
        assert!(turns.break_off("update_service:shop.d3"));
        assert!(!turns.break_off("update_service:shop.d3"));
        assert_eq!(turns.wanted(Counterpart::Ecs).unwrap().limit, 1);
        let over = tokio::spawn(async {});
        turns.begin(&row("shop", 3, Counterpart::Ecs), over.abort_handle());
        over.await.unwrap();
        assert_eq!(turns.wanted(Counterpart::Ecs), None);
        turns.free_finished();
        assert_eq!(turns.wanted(Counterpart::Ecs).unwrap().limit, 1);
    }
}
