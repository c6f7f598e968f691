//! Deployment alarms: CloudWatch alarms that fail a rollout.
//!
//! An alarm that is in ALARM already when a deployment begins says nothing about it and is left
//! out. The others are watched until the end, and for as long after the last old task is gone as
//! the slowest of them looks back: the bake time, of which AWS documents no more than that it
//! follows from the alarms. A rollback is not watched, because what it goes back to is proven.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::deployments::{self, ALARM};
use super::model::{Moment, RolloutState, Service};
use crate::clock::Time;

/// What a service's configuration says of alarms.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct AlarmRules {
    pub names: Vec<String>,
    pub enabled: bool,
    /// Whether a deployment that they fail goes back.
    pub rollback: bool,
}

/// An alarm as CloudWatch last told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AlarmSight {
    pub name: String,
    /// It is in ALARM.
    pub fires: bool,
    /// How far back it looks, at AWS's pace.
    pub window: Duration,
}

/// How a deployment stands with its alarms.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct AlarmWatch {
    /// In ALARM when it began.
    pub ignored: Vec<String>,
    /// The end of the bake time, once it runs.
    pub bakes_until: Option<Time>,
}

/// Whether the rollout in flight is watched.
fn is_watched(service: &Service) -> bool {
    let rolling_back = service
        .current_service_deployment()
        .is_none_or(|record| record.rollback.is_some());
    let in_progress = service
        .primary()
        .is_some_and(|primary| primary.rollout == RolloutState::InProgress);
    service.configuration.alarms.enabled && in_progress && !rolling_back
}

/// Fails the rollout in flight when one of its alarms fires.
pub(super) fn watch(service: &mut Service, moment: &mut Moment<'_>) {
    if !is_watched(service) {
        return;
    }
    let firing: Vec<String> = service
        .alarms_seen
        .iter()
        .filter(|seen| seen.fires)
        .map(|seen| seen.name.clone())
        .collect();
    let Some(primary) = service.primary_mut() else {
        return;
    };
    let watch = primary.watch.get_or_insert_with(|| AlarmWatch {
        ignored: firing.clone(),
        bakes_until: None,
    });
    let triggered: Vec<String> = firing
        .into_iter()
        .filter(|name| !watch.ignored.contains(name))
        .collect();
    if triggered.is_empty() {
        return;
    }
    if let Some(record) = deployments::open_record(service) {
        record.triggered_alarms = triggered;
    }
    let go_back = service.configuration.alarms.rollback;
    deployments::fail(service, &ALARM, go_back, moment);
}

/// Whether the rollout, all of whose tasks are as they should be, has to wait for its alarms.
pub(super) fn still_baking(service: &mut Service, moment: &Moment<'_>) -> bool {
    if !is_watched(service) {
        return false;
    }
    let longest = service.alarms_seen.iter().map(|seen| seen.window).max();
    let wait = moment.timings.wait(longest.unwrap_or_default());
    let Some(watch) = service.primary_mut().and_then(|one| one.watch.as_mut()) else {
        return false;
    };
    moment.now < *watch.bakes_until.get_or_insert(moment.now + wait)
}
