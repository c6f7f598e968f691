//! What a target's health checks add up to, and one such check.
//!
//! A check needs an HTTP answer: a published port accepts connections even when nothing listens
//! behind it. Must not know: who registered a target.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Request, header};

use super::http::{Client, full};
use super::records::HealthCheckSettings;
use crate::targets::TargetState;

/// How one check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    Passed,
    /// Another status than the matcher wants.
    Mismatch(u16),
    TimedOut,
    /// No HTTP answer.
    Failed,
}

impl Check {
    /// AWS's reason code and description; None for a passed check.
    fn failure(self) -> Option<(&'static str, String)> {
        match self {
            Self::Passed => None,
            Self::Mismatch(status) => Some((
                "Target.ResponseCodeMismatch",
                format!("Health checks failed with these codes: [{status}]"),
            )),
            Self::TimedOut => Some(("Target.Timeout", "Request timed out".to_owned())),
            Self::Failed => Some((
                "Target.FailedHealthChecks",
                "Health checks failed".to_owned(),
            )),
        }
    }
}

/// A target's state with AWS's reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    pub state: TargetState,
    /// AWS's reason code and description; None when healthy.
    pub reason: Option<(&'static str, String)>,
}

/// Counts checks in a row. A new target is healthy after one passed check; later it takes the
/// group's thresholds to change.
#[derive(Debug)]
pub(super) struct HealthTrack {
    health: Health,
    checked: bool,
    passed: u32,
    failed: u32,
}

impl HealthTrack {
    pub(super) fn new() -> Self {
        Self {
            health: Health {
                state: TargetState::Initial,
                reason: Some((
                    "Elb.RegistrationInProgress",
                    "Target registration is in progress".to_owned(),
                )),
            },
            checked: false,
            passed: 0,
            failed: 0,
        }
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.health.state == TargetState::Healthy
    }

    pub(super) fn record(&mut self, check: Check, settings: &HealthCheckSettings) {
        if self.health.state == TargetState::Draining {
            return;
        }
        self.checked = true;
        let Some((code, description)) = check.failure() else {
            self.failed = 0;
            self.passed = self.passed.saturating_add(1);
            let needed = match self.health.state {
                TargetState::Initial => 1,
                _ => settings.healthy_threshold,
            };
            if self.passed >= needed {
                self.health = Health {
                    state: TargetState::Healthy,
                    reason: None,
                };
            }
            return;
        };
        self.passed = 0;
        self.failed = self.failed.saturating_add(1);
        let is_unhealthy = matches!(self.health.state, TargetState::Unhealthy { .. });
        if is_unhealthy || self.failed >= settings.unhealthy_threshold {
            self.health = Health {
                state: TargetState::Unhealthy {
                    reason: description.clone(),
                },
                reason: Some((code, description)),
            };
        } else if self.health.state == TargetState::Initial {
            self.health.reason = Some((
                "Elb.InitialHealthChecking",
                "Initial health checks in progress".to_owned(),
            ));
        }
    }

    /// No new requests; checks no longer count.
    pub(super) fn drain(&mut self) {
        self.health = Health {
            state: TargetState::Draining,
            reason: Some((
                "Target.DeregistrationInProgress",
                "Target deregistration is in progress".to_owned(),
            )),
        };
    }
}

/// Asks a target once.
pub(super) async fn check(
    client: &Client,
    address: SocketAddr,
    settings: &HealthCheckSettings,
) -> Check {
    let request = Request::get(format!("http://{address}{}", settings.path))
        .header(header::USER_AGENT, "ELB-HealthChecker/2.0")
        .header(header::CONNECTION, "close")
        .body(full(Bytes::new()));
    let Ok(request) = request else {
        return Check::Failed;
    };
    let timeout = settings.timeout().max(Duration::from_secs(1));
    match tokio::time::timeout(timeout, client.send(request)).await {
        Err(_) => Check::TimedOut,
        Ok(Err(_)) => Check::Failed,
        Ok(Ok(response)) if settings.matcher.matches(response.status().as_u16()) => Check::Passed,
        Ok(Ok(response)) => Check::Mismatch(response.status().as_u16()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> HealthCheckSettings {
        HealthCheckSettings {
            healthy_threshold: 3,
            unhealthy_threshold: 2,
            ..HealthCheckSettings::default()
        }
    }

    fn after(checks: &[Check]) -> HealthTrack {
        let mut track = HealthTrack::new();
        for check in checks {
            track.record(*check, &settings());
        }
        track
    }

    #[test]
    fn a_new_target_needs_one_passed_check() {
        assert_eq!(after(&[]).health().state, TargetState::Initial);
        assert!(after(&[Check::Passed]).is_healthy());
        assert!(after(&[Check::Failed, Check::Passed]).is_healthy());
    }

    #[test]
    fn failures_in_a_row_make_it_unhealthy_and_name_the_last_one() {
        let once = after(&[Check::Passed, Check::Failed]);
        assert!(once.is_healthy());
        let twice = after(&[Check::Passed, Check::Failed, Check::Mismatch(500)]);
        assert_eq!(
            twice.health().reason,
            Some((
                "Target.ResponseCodeMismatch",
                "Health checks failed with these codes: [500]".to_owned()
            ))
        );
        let broken_row = after(&[Check::Passed, Check::Failed, Check::Passed, Check::TimedOut]);
        assert!(broken_row.is_healthy());
    }

    #[test]
    fn an_unhealthy_target_needs_the_whole_threshold() {
        let mut track = after(&[Check::TimedOut, Check::TimedOut]);
        for expected in [false, false, true] {
            track.record(Check::Passed, &settings());
            assert_eq!(track.is_healthy(), expected);
        }
    }

    #[test]
    fn a_draining_target_stays_so() {
        let mut track = after(&[Check::Passed]);
        track.drain();
        track.record(Check::Passed, &settings());
        assert_eq!(track.health().state, TargetState::Draining);
    }
}
