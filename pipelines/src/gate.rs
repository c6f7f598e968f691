//! Gates, evaluated live from the world: each is open, or says what it waits for.

use crate::id::{Place, ReleaseId};
use crate::observation::{Health, LONGEST_GAP};
use crate::report::WhoActs;
use crate::spec::{Gate, Role};
use crate::world::World;
use jiff::{SignedDuration, Timestamp};

/// What a gate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateVerdict {
    /// The release may pass.
    Open {
        /// What was seen, in words.
        because: String,
    },
    /// Not yet, or not ever unless something changes.
    Closed {
        /// For what it waits, in words.
        reason: String,
        /// Earliest time at which it can open by itself.
        until: Option<Timestamp>,
        /// Who can act.
        who: WhoActs,
    },
}

impl GateVerdict {
    fn closed(reason: String, who: WhoActs) -> Self {
        Self::Closed {
            reason,
            until: None,
            who,
        }
    }
}

/// Evaluates one gate of `place` for `release`.
#[must_use]
pub fn evaluate(
    gate: &Gate,
    world: &World,
    place: &Place,
    release: &ReleaseId,
    now: Timestamp,
) -> GateVerdict {
    match gate {
        Gate::Healthy {
            environment,
            soak,
            min_running,
        } => {
            let upstream = Place {
                environment: environment.clone(),
                service: place.service.clone(),
            };
            healthy(world, &upstream, release, soak.0, *min_running, now)
        }
        Gate::Approval {
            from,
            count,
            not_author,
        } => approval(world, place, release, from, *count, *not_author),
    }
}

fn healthy(
    world: &World,
    upstream: &Place,
    release: &ReleaseId,
    soak: u64,
    min_running: u32,
    now: Timestamp,
) -> GateVerdict {
    let state = world.place(upstream);
    if !state.has_verified(release) {
        let reason = format!("{release} is not verified in {upstream}");
        return GateVerdict::closed(reason, WhoActs::Role(Role::Deployer));
    }
    let Some(status) = &state.status else {
        return GateVerdict::closed(
            format!("{upstream} was not observed yet"),
            WhoActs::Roadstead,
        );
    };
    let soaked = status.soaked.get(release).copied().unwrap_or(0);
    if status.release.as_ref() != Some(release) {
        return if soaked >= soak {
            GateVerdict::Open {
                because: format!("it was healthy in {upstream} for {soaked} s"),
            }
        } else {
            let reason = format!(
                "{upstream} left {release} after {soaked} s of health; {soak} s are needed"
            );
            GateVerdict::closed(reason, WhoActs::Role(Role::Deployer))
        };
    }
    if let Some((since, reason)) = &status.unseen {
        let reason = format!("{upstream} is out of sight since {since}: {reason}");
        return GateVerdict::closed(reason, WhoActs::Roadstead);
    }
    if now.duration_since(status.observed_at) > LONGEST_GAP {
        let reason = format!("{upstream} was last observed at {}", status.observed_at);
        return GateVerdict::closed(reason, WhoActs::Roadstead);
    }
    match &status.health {
        Health::Fail { reason } => {
            let reason = format!("{upstream} is unhealthy: {reason}");
            return GateVerdict::closed(reason, WhoActs::Role(Role::Deployer));
        }
        Health::Inconclusive { reason } => {
            let reason = format!("the health of {upstream} cannot be told: {reason}");
            return GateVerdict::closed(reason, WhoActs::Ecs);
        }
        Health::Pass => {}
    }
    let running = status.service.running;
    if running < min_running {
        let reason = format!("{running} of at least {min_running} tasks run in {upstream}");
        return GateVerdict::closed(reason, WhoActs::Ecs);
    }
    if soaked >= soak {
        return GateVerdict::Open {
            because: format!("{upstream} is healthy, for {soaked} s, with {running} tasks"),
        };
    }
    let held = status
        .healthy_since
        .map_or(0, |since| now.duration_since(since).as_secs().max(0));
    let seconds = i64::try_from(soak).unwrap_or(i64::MAX);
    let broke = status
        .last_break
        .as_ref()
        .map(|(at, why)| format!("; broken at {at} by: {why}"))
        .unwrap_or_default();
    GateVerdict::Closed {
        reason: format!("{upstream} has to stay healthy: {held} of {soak} s{broke}"),
        until: status
            .healthy_since
            .map(|since| since + SignedDuration::from_secs(seconds)),
        who: WhoActs::Roadstead,
    }
}

/// No two users differ in case alone, and git takes a name as it is typed.
fn same_person(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

fn approval(
    world: &World,
    place: &Place,
    release: &ReleaseId,
    from: &[Role],
    count: u32,
    not_author: bool,
) -> GateVerdict {
    let author = world
        .releases
        .get(release)
        .map(|r| r.author.as_str())
        .unwrap_or_default();
    let lowest = from.iter().min().copied().unwrap_or(Role::Deployer);
    let state = world.place(place);
    // People, not clicks: whoever says it twice is one.
    let mut given: Vec<&str> = vec![];
    for approval in &state.approvals {
        let counts = approval.release == *release
            && approval.role >= lowest
            && !(not_author && same_person(&approval.by, author))
            && !given.iter().any(|by| same_person(by, &approval.by));
        if counts {
            given.push(&approval.by);
        }
    }
    if given.len() >= count as usize {
        return GateVerdict::Open {
            because: format!("approved by {}", given.join(", ")),
        };
    }
    let but = if not_author {
        ", not by its author"
    } else {
        ""
    };
    let reason = format!("approval: {} of {count} given{but}", given.len());
    GateVerdict::closed(reason, WhoActs::Role(lowest))
}
