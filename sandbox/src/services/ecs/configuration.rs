//! The deployment configuration of a service: read, completed with defaults, shown.

use serde_json::{Value, json};

use super::input::{Input, invalid};
use crate::scheduler::{AlarmRules, Breaker, Configuration, Threshold};
use crate::services::AwsError;

/// What the request changes of `present`. Members that are absent keep their values.
pub(super) fn read(
    input: &Input<'_>,
    present: Configuration,
) -> Result<Option<Configuration>, AwsError> {
    let Some(members) = input.object("deploymentConfiguration")? else {
        return Ok(None);
    };
    if members
        .text("strategy")?
        .is_some_and(|one| one != "ROLLING")
    {
        return Err(AwsError::unsupported_member(
            "deploymentConfiguration.strategy other than ROLLING",
        ));
    }
    let configuration = Configuration {
        minimum_healthy_percent: members
            .number("minimumHealthyPercent")?
            .unwrap_or(present.minimum_healthy_percent),
        maximum_percent: members
            .number("maximumPercent")?
            .unwrap_or(present.maximum_percent),
        breaker: match members.object("deploymentCircuitBreaker")? {
            Some(breaker) => read_breaker(&breaker)?,
            None => present.breaker,
        },
        alarms: match members.object("alarms")? {
            Some(alarms) => read_alarms(&alarms)?,
            None => present.alarms,
        },
    };
    if configuration.maximum_percent < 100 && configuration.minimum_healthy_percent > 0
        || configuration.maximum_percent == 0
    {
        return Err(invalid(
            "maximumPercent must be at least 100 unless minimumHealthyPercent is 0, and never 0.",
        ));
    }
    if configuration.minimum_healthy_percent == 100 && configuration.maximum_percent == 100 {
        return Err(invalid(
            "Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block \
             deployments.",
        ));
    }
    Ok(Some(configuration))
}

fn read_alarms(members: &Input<'_>) -> Result<AlarmRules, AwsError> {
    let rules = AlarmRules {
        names: members
            .texts("alarmNames")?
            .into_iter()
            .map(str::to_owned)
            .collect(),
        enabled: members.flag("enable")?.unwrap_or(false),
        rollback: members.flag("rollback")?.unwrap_or(false),
    };
    if rules.enabled && rules.names.is_empty() {
        return Err(invalid(
            "alarmNames must name at least one alarm when alarms are enabled.",
        ));
    }
    Ok(rules)
}

fn read_breaker(members: &Input<'_>) -> Result<Breaker, AwsError> {
    let threshold = match members.object("thresholdConfiguration")? {
        None => Breaker::default().threshold,
        Some(threshold) => {
            let value = threshold
                .number("value")?
                .filter(|value| *value > 0)
                .ok_or_else(|| invalid("thresholdConfiguration.value must be positive."))?;
            match threshold.required("type")? {
                "BOUNDED_PERCENT" => Threshold::BoundedPercent(value),
                "UNBOUNDED_PERCENT" => Threshold::UnboundedPercent(value),
                "COUNT" => Threshold::Count(value),
                other => {
                    return Err(invalid(format!(
                        "Unknown thresholdConfiguration.type {other}."
                    )));
                }
            }
        }
    };
    Ok(Breaker {
        enabled: members.flag("enable")?.unwrap_or(false),
        rollback: members.flag("rollback")?.unwrap_or(false),
        threshold,
        reset_on_healthy_task: members.flag("resetOnHealthyTask")?.unwrap_or(true),
    })
}

/// The configuration as AWS shows it.
pub(super) fn show(configuration: &Configuration) -> Value {
    let breaker = &configuration.breaker;
    let (kind, value) = match breaker.threshold {
        Threshold::BoundedPercent(value) => ("BOUNDED_PERCENT", value),
        Threshold::UnboundedPercent(value) => ("UNBOUNDED_PERCENT", value),
        Threshold::Count(value) => ("COUNT", value),
    };
    let mut shown = json!({
        "strategy": "ROLLING",
        "minimumHealthyPercent": configuration.minimum_healthy_percent,
        "maximumPercent": configuration.maximum_percent,
        "deploymentCircuitBreaker": {
            "enable": breaker.enabled,
            "rollback": breaker.rollback,
            "resetOnHealthyTask": breaker.reset_on_healthy_task,
            "thresholdConfiguration": {"type": kind, "value": value},
        },
    });
    let alarms = &configuration.alarms;
    if !alarms.names.is_empty() {
        shown["alarms"] = json!({
            "alarmNames": alarms.names,
            "enable": alarms.enabled,
            "rollback": alarms.rollback,
        });
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{read, show};
    use crate::scheduler::{Configuration, Threshold};
    use crate::services::AwsError;
    use crate::services::ecs::input::Input;

    fn read_value(value: &Value) -> Result<Option<Configuration>, AwsError> {
        let body = json!({ "deploymentConfiguration": value });
        read(&Input::new(&body).unwrap(), Configuration::default())
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same() {
        for (kind, threshold) in [
            ("BOUNDED_PERCENT", Threshold::BoundedPercent(20)),
            ("UNBOUNDED_PERCENT", Threshold::UnboundedPercent(20)),
            ("COUNT", Threshold::Count(20)),
        ] {
            let configuration = read_value(&json!({
                "minimumHealthyPercent": 50,
                "deploymentCircuitBreaker": {
                    "enable": true,
                    "rollback": true,
                    "resetOnHealthyTask": false,
                    "thresholdConfiguration": {"type": kind, "value": 20},
                },
                "alarms": {"alarmNames": ["a"], "enable": true, "rollback": true},
            }))
            .unwrap()
            .unwrap();
            assert_eq!(configuration.breaker.threshold, threshold);
            assert_eq!(configuration.minimum_healthy_percent, 50);
            assert_eq!(configuration.maximum_percent, 200);
            let again = read_value(&show(&configuration)).unwrap().unwrap();
            assert_eq!(again, configuration);
        }
        assert_eq!(read_value(&Value::Null).unwrap(), None);
    }

    #[test]
    fn what_would_block_every_rollout_or_cannot_be_done_is_refused() {
        for (value, part) in [
            (
                json!({"minimumHealthyPercent": 100, "maximumPercent": 100}),
                "cannot be 100",
            ),
            (json!({"maximumPercent": 0}), "never 0"),
            (json!({"strategy": "CANARY"}), "strategy"),
            (json!({"maximumPercent": "200"}), "maximumPercent"),
        ] {
            let refusal = read_value(&value).unwrap_err();
            assert!(refusal.message.contains(part), "{refusal}");
        }
    }
}
