//! CloudWatch Logs: what the tasks with the `awslogs` driver wrote.
//!
//! Groups exist as soon as a container logs to them, as with `awslogs-create-group`. Events are
//! read from the backend at each call. A page token is a position in the stream, which only grows,
//! so it stays valid. Empty lines are no events, as with AWS's driver.

use serde_json::{Map, Value, json};

use super::{AwsError, JsonResult, Reply, paging};
use crate::app::App;
use crate::backends::{LogLine, LogStream};

/// AWS's largest page of events.
const MOST_EVENTS: u64 = 10_000;

/// Answers one call of `Logs_20140328`.
pub(crate) async fn handle(app: &App, operation: &str, input: &Value) -> JsonResult {
    let logs = Logs { app, input };
    let answer = match operation {
        "DescribeLogGroups" => logs.describe_log_groups().await,
        "DescribeLogStreams" => logs.describe_log_streams().await,
        "GetLogEvents" => logs.get_log_events().await,
        "FilterLogEvents" => logs.filter_log_events().await,
        _ => Err(AwsError::unsupported_operation(operation)),
    };
    answer.map(Reply::read)
}

struct Logs<'a> {
    app: &'a App,
    input: &'a Value,
}

impl Logs<'_> {
    async fn describe_log_groups(&self) -> Result<Value, AwsError> {
        let prefix = self.text("logGroupNamePrefix").unwrap_or_default();
        let mut groups: Vec<(String, i64)> = Vec::new();
        for stream in self.streams().await? {
            let name = stream.awslogs.group;
            match groups.iter_mut().find(|(known, _)| *known == name) {
                Some((_, created)) => *created = stream.created.min(*created),
                None if name.starts_with(prefix) => groups.push((name, stream.created)),
                None => {}
            }
        }
        groups.sort_unstable();
        let groups = groups.into_iter().map(|(name, created)| {
            let arn = self.group_arn(&name);
            json!({
                "logGroupName": name,
                "creationTime": created,
                "metricFilterCount": 0,
                "storedBytes": 0,
                "arn": format!("{arn}:*"),
                "logGroupArn": arn,
            })
        });
        self.page("logGroups", groups.collect(), 50)
    }

    async fn describe_log_streams(&self) -> Result<Value, AwsError> {
        let (group, streams) = self.group_streams().await?;
        let prefix = self.text("logStreamNamePrefix").unwrap_or_default();
        let mut found = Vec::new();
        for stream in streams {
            let name = stream.name();
            if !name.starts_with(prefix) {
                continue;
            }
            let events = self.events(&stream).await?;
            let first = events.first().map(|event| event.timestamp);
            let last = events.last().map(|event| event.timestamp);
            let arn = format!("{}:log-stream:{name}", self.group_arn(&group));
            let value = without_nulls(json!({
                "logStreamName": name,
                "creationTime": stream.created,
                "firstEventTimestamp": first,
                "lastEventTimestamp": last,
                "lastIngestionTime": last,
                "arn": arn,
                "storedBytes": 0,
            }));
            found.push((name, last, value));
        }
        if self.text("orderBy") == Some("LastEventTime") {
            found.sort_by_key(|(_, last, _)| *last);
        } else {
            found.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        }
        if self.input["descending"].as_bool() == Some(true) {
            found.reverse();
        }
        let values = found.into_iter().map(|(.., value)| value);
        self.page("logStreams", values.collect(), 50)
    }

    async fn get_log_events(&self) -> Result<Value, AwsError> {
        let (_, streams) = self.group_streams().await?;
        let name = self.text("logStreamName").ok_or_else(|| {
            invalid("1 validation error detected: Value at 'logStreamName' must not be null")
        })?;
        let stream = streams.iter().find(|stream| stream.name() == name);
        let stream = stream.ok_or_else(|| not_found("log stream"))?;
        let events = self.events(stream).await?;
        let (from, until) = (self.time("startTime"), self.time("endTime"));
        let limit = self.limit(MOST_EVENTS)?;
        let start = match self.text("nextToken") {
            Some(token) => {
                Start::parse(token).ok_or_else(|| invalid("The specified nextToken is invalid."))?
            }
            None if self.input["startFromHead"].as_bool() == Some(true) => Start::Forward(0),
            None => Start::Backward(events.len()),
        };
        let in_time = |event: &LogLine| {
            from.is_none_or(|from| event.timestamp >= from)
                && until.is_none_or(|until| event.timestamp < until)
        };
        let (page, backward, forward) = start.page(&events, in_time, limit);
        let page: Vec<Value> = page
            .into_iter()
            .map(|event| event_value(event, None))
            .collect();
        Ok(json!({
            "events": page,
            "nextForwardToken": Start::Forward(forward).token(),
            "nextBackwardToken": Start::Backward(backward).token(),
        }))
    }

    async fn filter_log_events(&self) -> Result<Value, AwsError> {
        let (_, streams) = self.group_streams().await?;
        let pattern = Pattern::parse(self.text("filterPattern").unwrap_or_default())?;
        let names: Option<Vec<&str>> = self.input["logStreamNames"]
            .as_array()
            .map(|names| names.iter().filter_map(Value::as_str).collect());
        let prefix = self.text("logStreamNamePrefix").unwrap_or_default();
        let (from, until) = (self.time("startTime"), self.time("endTime"));
        let mut found = Vec::new();
        for stream in streams {
            let name = stream.name();
            if !name.starts_with(prefix)
                || names
                    .as_ref()
                    .is_some_and(|names| !names.contains(&name.as_str()))
            {
                continue;
            }
            let events = self.events(&stream).await?.into_iter().enumerate();
            found.extend(events.filter_map(|(number, event)| {
                let matches = from.is_none_or(|from| event.timestamp >= from)
                    && until.is_none_or(|until| event.timestamp <= until)
                    && pattern.matches(&event.message);
                matches.then(|| (event.timestamp, name.clone(), number, event))
            }));
        }
        found.sort_by(|one, other| (one.0, &one.1, one.2).cmp(&(other.0, &other.1, other.2)));
        let events = found
            .iter()
            .map(|(_, name, number, event)| event_value(event, Some((name, *number))));
        self.page("events", events.collect(), MOST_EVENTS)
    }

    async fn streams(&self) -> Result<Vec<LogStream>, AwsError> {
        let streams = self.app.backend.log_streams().await;
        streams.map_err(|error| AwsError::server(format!("{error:#}")))
    }

    /// The streams of the group that the call names.
    async fn group_streams(&self) -> Result<(String, Vec<LogStream>), AwsError> {
        let group = self
            .text("logGroupName")
            .or_else(|| {
                let identifier = self.text("logGroupIdentifier")?;
                let name = identifier.rsplit(":log-group:").next()?;
                Some(name.strip_suffix(":*").unwrap_or(name))
            })
            .ok_or_else(|| {
                invalid("1 validation error detected: Value at 'logGroupName' must not be null")
            })?;
        let mut streams = self.streams().await?;
        streams.retain(|stream| stream.awslogs.group == group);
        if streams.is_empty() {
            return Err(not_found("log group"));
        }
        Ok((group.to_owned(), streams))
    }

    async fn events(&self, stream: &LogStream) -> Result<Vec<LogLine>, AwsError> {
        let lines = self
            .app
            .backend
            .logs(&stream.task_id, &stream.container)
            .await
            .map_err(|error| AwsError::server(format!("{error:#}")))?;
        let mut lines = lines.unwrap_or_default();
        lines.retain(|line| !line.message.is_empty());
        Ok(lines)
    }

    fn group_arn(&self, group: &str) -> String {
        self.app.config.arn("logs", &format!("log-group:{group}"))
    }

    fn text(&self, member: &str) -> Option<&str> {
        self.input[member].as_str()
    }

    /// Milliseconds since the epoch.
    fn time(&self, member: &str) -> Option<i64> {
        self.input[member].as_i64()
    }

    fn limit(&self, most: u64) -> Result<usize, AwsError> {
        let wanted = &self.input["limit"];
        let limit = match wanted {
            Value::Null => Some(most),
            wanted => wanted.as_u64().filter(|limit| (1..=most).contains(limit)),
        };
        limit
            .and_then(|limit| usize::try_from(limit).ok())
            .ok_or_else(|| {
                invalid(&format!(
                    "1 validation error detected: Value '{wanted}' at 'limit' failed to satisfy \
                 constraint: Member must have a value between 1 and {most}"
                ))
            })
    }

    /// One page of a list.
    fn page(&self, member: &str, items: Vec<Value>, most: u64) -> Result<Value, AwsError> {
        let (page, next) = paging::page(items, self.text("nextToken"), self.limit(most)?)
            .ok_or_else(|| invalid("The specified nextToken is invalid."))?;
        Ok(without_nulls(json!({ member: page, "nextToken": next })))
    }
}

/// Where a page of a stream begins: at an event, or before one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Forward(usize),
    Backward(usize),
}

impl Start {
    fn parse(token: &str) -> Option<Self> {
        let (direction, position) = token.split_once('/')?;
        let position = position.parse().ok()?;
        match direction {
            "f" => Some(Self::Forward(position)),
            "b" => Some(Self::Backward(position)),
            _ => None,
        }
    }

    fn token(self) -> String {
        match self {
            Self::Forward(position) => format!("f/{position:056}"),
            Self::Backward(position) => format!("b/{position:056}"),
        }
    }

    /// The events of the page, and the positions before and after it. At an end, the position is
    /// the one that was given, which tells clients that there is no more.
    fn page(
        self,
        events: &[LogLine],
        wanted: impl Fn(&LogLine) -> bool,
        limit: usize,
    ) -> (Vec<&LogLine>, usize, usize) {
        let wanted = events.iter().enumerate().filter(|(_, event)| wanted(event));
        let (given, page) = match self {
            Self::Forward(from) => {
                let later = wanted.filter(|(at, _)| *at >= from);
                (from, later.take(limit).collect::<Vec<_>>())
            }
            Self::Backward(before) => {
                let earlier: Vec<_> = wanted.filter(|(at, _)| *at < before).collect();
                let skipped = earlier.len().saturating_sub(limit);
                (before, earlier.into_iter().skip(skipped).collect())
            }
        };
        let backward = page.first().map_or(given, |(at, _)| *at);
        let forward = page.last().map_or(given, |(at, _)| at + 1);
        (
            page.into_iter().map(|(_, event)| event).collect(),
            backward,
            forward,
        )
    }
}

/// The plain form of filter patterns: words and quoted phrases that must all occur, `?word` of
/// which one must, `-word` of which none may.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pattern {
    all: Vec<String>,
    any: Vec<String>,
    none: Vec<String>,
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, AwsError> {
        let mut pattern = Self::default();
        let mut rest = text.trim();
        if rest.starts_with(['{', '[', '%']) {
            return Err(AwsError::unsupported_member(
                "filterPattern of structured or regular expressions",
            ));
        }
        while !rest.is_empty() {
            let list = match rest.as_bytes()[0] {
                b'?' => &mut pattern.any,
                b'-' => &mut pattern.none,
                _ => &mut pattern.all,
            };
            rest = rest.strip_prefix(['?', '-']).unwrap_or(rest);
            let (word, after) = match rest.strip_prefix('"') {
                Some(quoted) => quoted
                    .split_once('"')
                    .ok_or_else(|| invalid("Invalid filterPattern: a quote is not closed"))?,
                None => rest.split_once(' ').unwrap_or((rest, "")),
            };
            list.push(word.to_owned());
            rest = after.trim_start();
        }
        Ok(pattern)
    }

    fn matches(&self, message: &str) -> bool {
        let occurs = |word: &String| message.contains(word.as_str());
        self.all.iter().all(occurs)
            && (self.any.is_empty() || self.any.iter().any(occurs))
            && !self.none.iter().any(occurs)
    }
}

/// With the stream's name and the event's number in it for FilterLogEvents.
fn event_value(event: &LogLine, place: Option<(&str, usize)>) -> Value {
    let mut value = json!({
        "timestamp": event.timestamp,
        "message": event.message,
        "ingestionTime": event.timestamp,
    });
    if let Some((stream, number)) = place {
        value["logStreamName"] = json!(stream);
        value["eventId"] = json!(format!("{:020}{number:036}", event.timestamp));
    }
    value
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept: Map<String, Value> = members
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .collect();
            Value::Object(kept)
        }
        other => other,
    }
}

fn invalid(message: &str) -> AwsError {
    AwsError::client("InvalidParameterException", message)
}

fn not_found(what: &str) -> AwsError {
    AwsError::client(
        "ResourceNotFoundException",
        format!("The specified {what} does not exist."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(count: i64) -> Vec<LogLine> {
        (0..count)
            .map(|timestamp| LogLine {
                timestamp,
                message: timestamp.to_string(),
            })
            .collect()
    }

    fn page(start: Start, count: i64, limit: usize) -> (Vec<i64>, usize, usize) {
        let events = events(count);
        let (page, backward, forward) = start.page(&events, |event| event.timestamp != 3, limit);
        let times = page.iter().map(|event| event.timestamp).collect();
        (times, backward, forward)
    }

    #[test]
    fn pages_go_both_ways_and_stand_still_at_the_ends() {
        assert_eq!(page(Start::Forward(0), 6, 2), (vec![0, 1], 0, 2));
        assert_eq!(page(Start::Forward(2), 6, 2), (vec![2, 4], 2, 5));
        assert_eq!(page(Start::Forward(6), 6, 2), (vec![], 6, 6));
        assert_eq!(page(Start::Forward(6), 8, 2), (vec![6, 7], 6, 8));
        assert_eq!(page(Start::Backward(6), 6, 3), (vec![2, 4, 5], 2, 6));
        assert_eq!(page(Start::Backward(0), 6, 3), (vec![], 0, 0));
        for start in [Start::Forward(7), Start::Backward(0)] {
            assert_eq!(Start::parse(&start.token()), Some(start));
        }
        assert_eq!(Start::parse("x/1"), None);
    }

    #[test]
    fn patterns_select_by_words() {
        for (pattern, message, expected) in [
            ("", "anything", true),
            ("ERROR db", "db: ERROR", true),
            ("ERROR db", "db: fine", false),
            ("\"not found\"", "page not found", true),
            ("?WARN ?ERROR", "a WARN", true),
            ("?WARN ?ERROR", "a note", false),
            ("ERROR -ignored", "ERROR ignored", false),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(parsed.matches(message), expected, "{pattern} on {message}");
        }
        assert!(Pattern::parse("{ $.level = \"x\" }").is_err());
        assert!(Pattern::parse("\"open").is_err());
    }
}
