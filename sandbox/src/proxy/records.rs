//! What the load balancer keeps on disk, named as the API names it.
//!
//! Targets are not kept: whoever registered them does it again after a restart.

use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::clock::Time;

/// Everything configured, by ARN, in order of creation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct BalancerRecords {
    pub target_groups: IndexMap<String, TargetGroup>,
    pub load_balancers: IndexMap<String, LoadBalancer>,
    pub listeners: IndexMap<String, Listener>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TargetGroup {
    pub name: String,
    /// Only the default of a target registered without a port; targets here always have one.
    pub port: u16,
    pub vpc_id: Option<String>,
    pub target_type: String,
    pub health_check: HealthCheckSettings,
    pub deregistration_delay_seconds: u32,
}

/// How targets of a group are checked; times in seconds at AWS's pace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HealthCheckSettings {
    pub path: String,
    pub interval_seconds: u32,
    /// Never scaled: what answers is real.
    pub timeout_seconds: u32,
    pub healthy_threshold: u32,
    pub unhealthy_threshold: u32,
    pub matcher: Matcher,
}

impl Default for HealthCheckSettings {
    fn default() -> Self {
        Self {
            path: "/".to_owned(),
            interval_seconds: 30,
            timeout_seconds: 5,
            healthy_threshold: 5,
            unhealthy_threshold: 2,
            matcher: Matcher("200".to_owned()),
        }
    }
}

impl HealthCheckSettings {
    pub(super) fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_seconds.into())
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.into())
    }
}

/// Which status codes are healthy: `200`, `200,302` or `200-299`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Matcher(String);

impl Matcher {
    /// Reads a matcher; None unless every code is from 200 to 499.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let valid = ranges(text).all(|range| {
            range.is_some_and(|(first, last)| 200 <= first && first <= last && last <= 499)
        });
        valid.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn matches(&self, status: u16) -> bool {
        ranges(&self.0)
            .flatten()
            .any(|(first, last)| (first..=last).contains(&status))
    }
}

fn ranges(text: &str) -> impl Iterator<Item = Option<(u16, u16)>> {
    text.split(',').map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    })
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoadBalancer {
    pub name: String,
    pub scheme: String,
    pub created_at: Time,
    /// Only shown again.
    #[serde(default)]
    pub subnets: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Listener {
    pub load_balancer_arn: String,
    /// On 127.0.0.1.
    pub port: u16,
    /// Target groups with their weights, at least one of them above zero.
    pub forward: Vec<Forward>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Forward {
    pub target_group_arn: String,
    /// 0 to 999.
    pub weight: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_take_codes_lists_and_ranges() {
        for (text, status, expected) in [
            ("200", 200, true),
            ("200", 201, false),
            ("200,302", 302, true),
            ("200-299,404", 250, true),
            ("200-299,404", 404, true),
            ("200-299,404", 300, false),
        ] {
            let matcher = Matcher::parse(text).unwrap();
            assert_eq!(matcher.matches(status), expected, "{text} {status}");
        }
        for text in ["", "abc", "200-", "299-200", "199", "200,500"] {
            assert_eq!(Matcher::parse(text), None, "{text}");
        }
    }
}
