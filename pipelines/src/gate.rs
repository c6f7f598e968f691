//! Gates, evaluated live from the world: each is open, or says what it waits for.

use crate::authorship;
use crate::durations::{self, in_words};
use crate::id::{Place, ReleaseId};
use crate::observation::{Health, LONGEST_GAP};
use crate::report::WhoActs;
use crate::spec::{Environment, Gate, Role, Variants};
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
        /// For what it waits: completes "it waits for …".
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

/// What every place has without a gate that says so: a release is proved in the environment that comes before,
/// whoever wants to bring it here.
#[must_use]
pub fn proved_before(
    environment: &Environment,
    world: &World,
    place: &Place,
    release: &ReleaseId,
) -> GateVerdict {
    let Some(before) = &environment.after else {
        return GateVerdict::Open {
            because: "no environment comes before this one".to_owned(),
        };
    };
    let upstream = Place {
        environment: before.clone(),
        service: place.service.clone(),
    };
    if world.place(&upstream).has_verified(release) {
        return GateVerdict::Open {
            because: format!("it was verified in {upstream}"),
        };
    }
    unproved(&upstream, release)
}

fn unproved(upstream: &Place, release: &ReleaseId) -> GateVerdict {
    let reason = format!("{release} to be verified in {upstream}");
    GateVerdict::closed(reason, WhoActs::Role(Role::Deployer))
}

/// The gates of a place for a release: the file's, and one for somebody's yes where none of these asks for it and the
/// release brings a variant that the environment before does not prove, to a service that does not trust such. A file
/// with variants has that gate itself; what it was built under may not be the file that holds now.
#[must_use]
pub fn gates(world: &World, place: &Place, release: &ReleaseId) -> Vec<Gate> {
    let Some(environment) = world.environment(place) else {
        return vec![];
    };
    let mut gates = environment.gates.clone();
    let asks = |gate: &Gate| matches!(gate, Gate::Approval { .. });
    if is_untrusted_sibling(world, environment, place, release) && !gates.iter().any(asks) {
        gates.push(Gate::Approval {
            from: vec![Role::Deployer],
            count: 1,
            not_author: false,
        });
    }
    gates
}

fn is_untrusted_sibling(
    world: &World,
    environment: &Environment,
    place: &Place,
    release: &ReleaseId,
) -> bool {
    let pipeline = world.pipeline.as_ref();
    let service = pipeline.and_then(|pipeline| pipeline.services.get(&place.service));
    let (Some(before), Some(service), Some(release)) =
        (&environment.after, service, world.releases.get(release))
    else {
        return false;
    };
    service.variants == Variants::Approved
        && release.brings_a_sibling(place, &service.image, before)
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
        return unproved(upstream, release);
    }
    let Some(status) = &state.status else {
        return GateVerdict::closed(format!("the first look at {upstream}"), WhoActs::Roadstead);
    };
    let soaked = status.soaked.get(release).copied().unwrap_or(0);
    let needed = in_words(soak);
    if status.release.as_ref() != Some(release) {
        return if soaked >= soak {
            GateVerdict::Open {
                because: format!("it was healthy in {upstream} for {}", in_words(soaked)),
            }
        } else {
            let reason = format!(
                "{release} to be healthy in {upstream} for {needed}: after {} something else took its \
                 place there",
                in_words(soaked)
            );
            GateVerdict::closed(reason, WhoActs::Role(Role::Deployer))
        };
    }
    if let Some((since, reason)) = &status.unseen {
        let lost = durations::since(*since, now);
        let reason = format!("{upstream} to be seen again, out of sight for {lost}: {reason}");
        return GateVerdict::closed(reason, WhoActs::Roadstead);
    }
    if now.duration_since(status.observed_at) > LONGEST_GAP {
        let ago = durations::since(status.observed_at, now);
        let reason = format!("a new look at {upstream}: the last one was {ago} ago");
        return GateVerdict::closed(reason, WhoActs::Roadstead);
    }
    match &status.health {
        Health::Fail { reason } => {
            let reason = format!("{upstream} to be healthy again: {reason}");
            return GateVerdict::closed(reason, WhoActs::Role(Role::Deployer));
        }
        Health::Inconclusive { reason } => {
            let reason = format!("{upstream} to show whether it is healthy: {reason}");
            return GateVerdict::closed(reason, WhoActs::Ecs);
        }
        Health::Pass => {}
    }
    let running = status.service.running;
    if running < min_running {
        let reason = format!(
            "{} to run in {upstream}: {running} now",
            counted(min_running, "task", "tasks")
        );
        return GateVerdict::closed(reason, WhoActs::Ecs);
    }
    if soaked >= soak {
        return GateVerdict::Open {
            because: format!(
                "{upstream} has been healthy for {}, with {}",
                in_words(soaked),
                counted(running, "task", "tasks")
            ),
        };
    }
    let held = status
        .healthy_since
        .map_or_else(|| in_words(0), |since| durations::since(since, now));
    let seconds = i64::try_from(soak).unwrap_or(i64::MAX);
    let broke = status
        .last_break
        .as_ref()
        .map(|(at, why)| format!("; it broke {} ago: {why}", durations::since(*at, now)))
        .unwrap_or_default();
    GateVerdict::Closed {
        reason: format!("{upstream} to stay healthy for {needed}: {held} so far{broke}"),
        until: status
            .healthy_since
            .map(|since| since + SignedDuration::from_secs(seconds)),
        who: WhoActs::Roadstead,
    }
}

/// `1 task`, `2 tasks`.
fn counted(number: u32, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// No two users differ in case alone.
fn same_person(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

/// Why somebody's yes to a release does not count at a gate with `not_author`, if so.
///
/// Compared are e-mail addresses: those of the user with those of everybody behind what the release
/// changes in the place. Whoever has none may be anybody, and so an author, too.
#[must_use]
pub fn is_no_stranger(
    world: &World,
    place: &Place,
    release: &ReleaseId,
    name: &str,
) -> Option<String> {
    let state = world.place(place);
    let deployed = state.last_verified().map(|verified| &verified.release);
    let behind = match authorship::people_behind(world, release, deployed) {
        Ok(behind) => behind,
        Err(unknown) => return Some(unknown.to_string()),
    };
    let addresses = world.addresses.get(name).filter(|known| !known.is_empty());
    let Some(addresses) = addresses else {
        return Some(format!(
            "{name} has no e-mail address here and so may be the author; an admin gives it on the \
             page Users"
        ));
    };
    let own = addresses.intersection(&behind).next()?;
    Some(format!("{name} wrote or committed part of it, as {own}"))
}

fn approval(
    world: &World,
    place: &Place,
    release: &ReleaseId,
    from: &[Role],
    count: u32,
    not_author: bool,
) -> GateVerdict {
    let lowest = from.iter().min().copied().unwrap_or(Role::Deployer);
    let state = world.place(place);
    // People, not clicks: whoever says it twice is one.
    let mut given: Vec<&str> = vec![];
    let mut passed_over: Vec<String> = vec![];
    for approval in &state.approvals {
        let again = given.iter().any(|by| same_person(by, &approval.by));
        if approval.release != *release || approval.role < lowest || again {
            continue;
        }
        let known = not_author.then(|| is_no_stranger(world, place, release, &approval.by));
        match known.flatten() {
            None => given.push(&approval.by),
            Some(why) if passed_over.contains(&why) => {}
            Some(why) => passed_over.push(why),
        }
    }
    if given.len() >= count as usize {
        return GateVerdict::Open {
            because: format!("approved by {}", given.join(", ")),
        };
    }
    let article = if lowest == Role::Admin { "an" } else { "a" };
    let whose = match (count, not_author) {
        (1, false) => format!("{article} {lowest}"),
        (1, true) => format!("{article} {lowest} who wrote none of it"),
        (_, false) => format!("{count} {lowest}s"),
        (_, true) => format!("{count} {lowest}s who wrote none of it"),
    };
    let mut reason = format!("approval by {whose}");
    if !given.is_empty() {
        reason.push_str(&format!(", so far by {}", given.join(", ")));
    }
    if !passed_over.is_empty() {
        reason.push_str(&format!(" (not counted: {})", passed_over.join("; ")));
    }
    GateVerdict::closed(reason, WhoActs::Role(lowest))
}
