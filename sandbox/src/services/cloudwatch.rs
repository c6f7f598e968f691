//! CloudWatch alarms, as far as deployments watch them.
//!
//! There are no metrics here, so nothing evaluates an alarm: `SetAlarmState` alone moves it, and
//! unlike at AWS it stays where it was set. Members are kept as they came and shown again. Numbers
//! may come as text, because the Query protocol has nothing else.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{AwsError, JsonResult, Reply, paging};
use crate::app::App;
use crate::clock::Time;
use crate::scheduler::AlarmSight;
use crate::state::Table;

/// One metric alarm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Alarm {
    /// PutMetricAlarm's members.
    pub raw: Map<String, Value>,
    pub configured_at: Time,
    /// `OK`, `ALARM` or `INSUFFICIENT_DATA`.
    pub state: String,
    pub reason: String,
    pub reason_data: Option<String>,
    pub updated_at: Time,
    pub transitioned_at: Time,
}

impl Alarm {
    /// How far back it looks, at AWS's pace.
    fn window(&self) -> Duration {
        let number = |name: &str| self.raw.get(name).and_then(Value::as_u64);
        let period = number("Period").unwrap_or(60);
        Duration::from_secs(period.saturating_mul(number("EvaluationPeriods").unwrap_or(1)))
    }
}

/// PutMetricAlarm's members by kind; those of `KEPT` are shown as they came.
const WHOLE: [&str; 3] = ["Period", "EvaluationPeriods", "DatapointsToAlarm"];
const KEPT: [&str; 17] = [
    "AlarmName",
    "AlarmDescription",
    "OKActions",
    "AlarmActions",
    "InsufficientDataActions",
    "MetricName",
    "Namespace",
    "Statistic",
    "ExtendedStatistic",
    "Dimensions",
    "Unit",
    "ComparisonOperator",
    "TreatMissingData",
    "EvaluateLowSampleCountPercentile",
    "Metrics",
    "ThresholdMetricId",
    "Tags",
];

const MOST_RECORDS: usize = 100;

fn invalid(message: impl Into<String>) -> AwsError {
    AwsError::client("ValidationError", message)
}

fn not_found(what: &str) -> AwsError {
    AwsError {
        status: 404,
        ..AwsError::client("ResourceNotFound", format!("Unknown alarm: {what}"))
    }
}

/// Answers one call of the API version 2010-08-01.
pub(crate) async fn handle(app: &App, operation: &str, input: &Value) -> JsonResult {
    let Value::Object(input) = input else {
        return Err(invalid("The request body must be a structure."));
    };
    match operation {
        "PutMetricAlarm" => put(app, input).await,
        "DescribeAlarms" => describe(app, input),
        "SetAlarmState" => set_state(app, input).await,
        "DeleteAlarms" => delete(app, input).await,
        other => Err(AwsError::unsupported_operation(other)),
    }
}

fn text<'a>(input: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, AwsError> {
    match input.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(format!("{name} must be a string."))),
    }
}

fn required<'a>(input: &'a Map<String, Value>, name: &str) -> Result<&'a str, AwsError> {
    text(input, name)?
        .filter(|text| !text.is_empty())
        .ok_or_else(|| invalid(format!("The parameter {name} is required.")))
}

fn texts<'a>(input: &'a Map<String, Value>, name: &str) -> Result<Vec<&'a str>, AwsError> {
    let wrong = || invalid(format!("{name} must be a list of strings."));
    match input.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().ok_or_else(wrong))
            .collect(),
        Some(_) => Err(wrong()),
    }
}

/// A number, or the text of one.
fn number(input: &Map<String, Value>, name: &str) -> Result<Option<f64>, AwsError> {
    let read = match input.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.parse().ok(),
        Some(_) => None,
    };
    read.filter(|number| number.is_finite())
        .map(Some)
        .ok_or_else(|| invalid(format!("{name} must be a number.")))
}

/// A positive whole number.
fn whole(input: &Map<String, Value>, name: &str) -> Result<Option<u32>, AwsError> {
    let Some(read) = number(input, name)? else {
        return Ok(None);
    };
    if read >= 1.0 && read <= f64::from(u32::MAX) && read.fract() == 0.0 {
        Ok(Some(read as u32))
    } else {
        Err(invalid(format!("{name} must be a positive whole number.")))
    }
}

fn flag(input: &Map<String, Value>, name: &str) -> Result<Option<bool>, AwsError> {
    match input.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(Value::String(text)) if text == "true" || text == "false" => Ok(Some(text == "true")),
        Some(_) => Err(invalid(format!("{name} must be a boolean."))),
    }
}

/// The members of a new alarm, each in its own type.
fn read_alarm(input: &Map<String, Value>) -> Result<Map<String, Value>, AwsError> {
    required(input, "AlarmName")?;
    required(input, "ComparisonOperator")?;
    if !input.contains_key("MetricName") && !input.contains_key("Metrics") {
        return Err(invalid(
            "Exactly one of MetricName and Metrics must be given.",
        ));
    }
    let mut raw = Map::new();
    for name in KEPT {
        if let Some(value) = input.get(name).filter(|value| !value.is_null()) {
            raw.insert(name.to_owned(), value.clone());
        }
    }
    for name in WHOLE {
        if let Some(number) = whole(input, name)? {
            raw.insert(name.to_owned(), json!(number));
        }
    }
    if !raw.contains_key("EvaluationPeriods") {
        return Err(invalid("The parameter EvaluationPeriods is required."));
    }
    if let Some(threshold) = number(input, "Threshold")? {
        raw.insert("Threshold".to_owned(), json!(threshold));
    }
    let enabled = flag(input, "ActionsEnabled")?.unwrap_or(true);
    raw.insert("ActionsEnabled".to_owned(), json!(enabled));
    Ok(raw)
}

async fn put(app: &App, input: &Map<String, Value>) -> JsonResult {
    let raw = read_alarm(input)?;
    let name = required(input, "AlarmName")?.to_owned();
    let now = app.clock.now();
    app.store
        .change(|state| {
            match state.alarms.get_mut(&name) {
                Some(known) => {
                    known.raw = raw;
                    known.configured_at = now;
                }
                None => {
                    let alarm = Alarm {
                        raw,
                        configured_at: now,
                        state: "INSUFFICIENT_DATA".to_owned(),
                        reason: "Unchecked: Initial alarm creation".to_owned(),
                        reason_data: None,
                        updated_at: now,
                        transitioned_at: now,
                    };
                    state.alarms.insert(name, alarm);
                }
            }
            Ok(Reply::changed(json!({})))
        })
        .await
}

fn describe(app: &App, input: &Map<String, Value>) -> JsonResult {
    let names = texts(input, "AlarmNames")?;
    let prefix = text(input, "AlarmNamePrefix")?;
    if !names.is_empty() && prefix.is_some() {
        return Err(invalid(
            "AlarmNames and AlarmNamePrefix cannot be given together.",
        ));
    }
    let types = texts(input, "AlarmTypes")?;
    let metric = types.is_empty() || types.contains(&"MetricAlarm");
    let wanted = text(input, "StateValue")?;
    let action = text(input, "ActionPrefix")?;
    let most = match whole(input, "MaxRecords")? {
        None => 50,
        Some(most @ 1..=100) => most as usize,
        Some(_) => return Err(invalid("MaxRecords must be between 1 and 100.")),
    };
    let shown = app.store.read(|state| -> Vec<Value> {
        let mut found: Vec<(&String, &Alarm)> = state
            .alarms
            .iter()
            .filter(|(name, alarm)| {
                metric
                    && (names.is_empty() || names.contains(&name.as_str()))
                    && prefix.is_none_or(|prefix| name.starts_with(prefix))
                    && wanted.is_none_or(|state| alarm.state == state)
                    && action.is_none_or(|prefix| acts(alarm, prefix))
            })
            .collect();
        found.sort_by_key(|(name, _)| *name);
        found
            .into_iter()
            .map(|(name, alarm)| show(app, name, alarm))
            .collect()
    });
    let token = text(input, "NextToken")?;
    let (page, next) = paging::page(shown, token, most.clamp(1, MOST_RECORDS))
        .ok_or_else(|| AwsError::client("InvalidNextToken", "The next token is not valid."))?;
    let mut reply = json!({"MetricAlarms": page, "CompositeAlarms": []});
    if let Some(next) = next {
        reply["NextToken"] = json!(next);
    }
    Ok(Reply::read(reply))
}

fn acts(alarm: &Alarm, prefix: &str) -> bool {
    let lists = ["OKActions", "AlarmActions", "InsufficientDataActions"];
    lists
        .iter()
        .filter_map(|list| alarm.raw.get(*list)?.as_array())
        .flatten()
        .filter_map(Value::as_str)
        .any(|action| action.starts_with(prefix))
}

fn show(app: &App, name: &str, alarm: &Alarm) -> Value {
    let mut shown = Map::new();
    shown.extend(alarm.raw.clone());
    shown.shift_remove("Tags");
    let arn = app.config.arn("cloudwatch", &format!("alarm:{name}"));
    shown.insert("AlarmArn".to_owned(), json!(arn));
    for list in [
        "OKActions",
        "AlarmActions",
        "InsufficientDataActions",
        "Dimensions",
    ] {
        shown.entry(list).or_insert_with(|| json!([]));
    }
    for (member, time) in [
        ("AlarmConfigurationUpdatedTimestamp", alarm.configured_at),
        ("StateUpdatedTimestamp", alarm.updated_at),
        ("StateTransitionedTimestamp", alarm.transitioned_at),
    ] {
        shown.insert(member.to_owned(), json!(time.epoch_seconds()));
    }
    shown.insert("StateValue".to_owned(), json!(alarm.state));
    shown.insert("StateReason".to_owned(), json!(alarm.reason));
    if let Some(data) = &alarm.reason_data {
        shown.insert("StateReasonData".to_owned(), json!(data));
    }
    Value::Object(shown)
}

async fn set_state(app: &App, input: &Map<String, Value>) -> JsonResult {
    let name = required(input, "AlarmName")?;
    let value = required(input, "StateValue")?;
    if !["OK", "ALARM", "INSUFFICIENT_DATA"].contains(&value) {
        return Err(invalid(format!("Unknown state {value}.")));
    }
    let reason = text(input, "StateReason")?
        .ok_or_else(|| invalid("The parameter StateReason is required."))?;
    let data = text(input, "StateReasonData")?.map(str::to_owned);
    let now = app.clock.now();
    let reply = app
        .store
        .change(|state| {
            let alarm = state.alarms.get_mut(name).ok_or_else(|| not_found(name))?;
            if alarm.state != value {
                alarm.transitioned_at = now;
            }
            alarm.state = value.to_owned();
            alarm.reason = reason.to_owned();
            alarm.reason_data = data;
            alarm.updated_at = now;
            // Whose rollouts it may fail: handing them out is enough to have them looked at.
            let watching: Vec<String> = state
                .services
                .iter()
                .filter(|(_, one)| one.configuration.alarms.names.iter().any(|it| it == name))
                .map(|(key, _)| key.clone())
                .collect();
            for key in watching {
                state.services.get_mut(&key);
            }
            Ok(Reply::changed(json!({})))
        })
        .await?;
    app.wake.notify_one();
    Ok(reply)
}

async fn delete(app: &App, input: &Map<String, Value>) -> JsonResult {
    let names = texts(input, "AlarmNames")?;
    app.store
        .change(|state| {
            // All or none, as at AWS.
            if let Some(unknown) = names.iter().find(|name| !state.alarms.contains_key(name)) {
                return Err(not_found(unknown));
            }
            for name in &names {
                state.alarms.shift_remove(name);
            }
            Ok(Reply {
                body: json!({}),
                changed: !names.is_empty(),
            })
        })
        .await
}

/// How the alarms of these names stand; those that do not exist are left out.
pub(crate) fn look(alarms: &Table<Alarm>, names: &[String]) -> Vec<AlarmSight> {
    names
        .iter()
        .filter_map(|name| {
            let alarm = alarms.get(name)?;
            Some(AlarmSight {
                name: name.clone(),
                fires: alarm.state == "ALARM",
                window: alarm.window(),
            })
        })
        .collect()
}
