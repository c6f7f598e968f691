//! When a container may start, by what its definition says it depends on. Pure; every backend asks
//! here.

use super::{Dependency, DependencyCondition};

/// Where a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backends) enum Phase {
    Waiting,
    Started {
        healthy: Option<bool>,
        /// Its `startTimeout` is over, counted from its start as ECS's agent does.
        overdue: bool,
    },
    Ended {
        exit_code: i64,
    },
}

impl Phase {
    /// It has just started.
    pub(super) const STARTED: Self = Self::Started {
        healthy: None,
        overdue: false,
    };
}

/// Whether a container may start.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    NotYet,
    Never(String),
}

/// What `dependsOn` says about a container now; `phase` knows the containers of its task by name.
pub(super) fn readiness(
    depends_on: &[Dependency],
    phase: impl Fn(&str) -> Option<Phase>,
) -> Readiness {
    use DependencyCondition::{Complete, Healthy, Start, Success};
    for Dependency {
        container: name,
        condition,
    } in depends_on
    {
        let Some(phase) = phase(name) else {
            return Readiness::Never(format!("depends on the unknown container {name}"));
        };
        let met = match (condition, phase) {
            (_, Phase::Waiting) => false,
            (Start, _)
            | (
                Healthy,
                Phase::Started {
                    healthy: Some(true),
                    ..
                },
            )
            | (Complete, Phase::Ended { .. })
            | (Success, Phase::Ended { exit_code: 0 }) => true,
            (
                Healthy,
                Phase::Started {
                    healthy: Some(false),
                    ..
                },
            ) => {
                return Readiness::Never(format!("dependency container {name} is unhealthy"));
            }
            (Healthy, Phase::Ended { .. }) => {
                return Readiness::Never(format!(
                    "dependency container {name} stopped before it was healthy"
                ));
            }
            (Success, Phase::Ended { exit_code }) => {
                return Readiness::Never(format!(
                    "dependency container {name} exited with code {exit_code}"
                ));
            }
            (_, Phase::Started { overdue: true, .. }) => {
                return Readiness::Never(format!("dependency container {name} has timed out"));
            }
            (_, Phase::Started { .. }) => false,
        };
        if !met {
            return Readiness::NotYet;
        }
    }
    Readiness::Ready
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_decide_when_a_container_starts() {
        use DependencyCondition::{Complete, Healthy, Start, Success};
        let started = |healthy| Phase::Started {
            healthy,
            overdue: false,
        };
        let overdue = |healthy| Phase::Started {
            healthy,
            overdue: true,
        };
        let ended = |exit_code| Phase::Ended { exit_code };
        let never = |why: &str| Readiness::Never(format!("dependency container db {why}"));
        for (condition, phase, expected) in [
            (Start, Phase::Waiting, Readiness::NotYet),
            (Start, started(None), Readiness::Ready),
            (Start, overdue(None), Readiness::Ready),
            (Start, ended(1), Readiness::Ready),
            (Healthy, started(None), Readiness::NotYet),
            (Healthy, started(Some(true)), Readiness::Ready),
            (Healthy, started(Some(false)), never("is unhealthy")),
            (Healthy, overdue(None), never("has timed out")),
            (Healthy, overdue(Some(true)), Readiness::Ready),
            (Healthy, ended(0), never("stopped before it was healthy")),
            (Complete, started(None), Readiness::NotYet),
            (Complete, overdue(None), never("has timed out")),
            (Complete, ended(1), Readiness::Ready),
            (Success, started(None), Readiness::NotYet),
            (Success, overdue(Some(true)), never("has timed out")),
            (Success, ended(0), Readiness::Ready),
            (Success, ended(2), never("exited with code 2")),
        ] {
            let needed = [Dependency {
                container: "db".to_owned(),
                condition,
            }];
            let found = readiness(&needed, |name| (name == "db").then_some(phase));
            assert_eq!(found, expected, "{condition:?} {phase:?}");
        }
    }
}
