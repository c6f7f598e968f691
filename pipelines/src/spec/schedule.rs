//! `trigger.schedule`: when runs start by themselves.

use super::cron::{self, Cron};
use super::diagnostic::Reporter;
use super::fields::{self, Fields};
use super::keys;
use super::tree::{Entry, Node, Value};
use crate::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Schedules of one file.
pub(super) const MOST_SCHEDULES: usize = 20;

/// When runs of a branch start by themselves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Schedule {
    /// A cron expression of five fields, with one blank between each two.
    pub cron: String,
    /// The time zone by its name, `Europe/Berlin`.
    pub timezone: String,
    /// The branch whose file this has to be, `main`; the repository's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
}

/// The zone of a file that names none.
const UTC: &str = "UTC";

impl Schedule {
    /// The newest moment that it names after one and up to another, if there is one.
    #[must_use]
    pub fn newest(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        // Both were checked when the file was read; a version that knew more may have stored them.
        let cron = Cron::parse(&self.cron).ok()?;
        let zone: TimeZone = cron::zone(&self.timezone)?;
        cron.newest(&zone, after, until)
    }
}

/// For rows and pages: `30 3 * * mon-fri Europe/Berlin`. What has another one is another schedule.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.cron, self.timezone)
    }
}

/// Reads `trigger.schedule`.
pub(super) fn read(fields: &Fields<'_>, reporter: &mut Reporter<'_>) -> Vec<Schedule> {
    let Some(entry) = fields.get("schedule", reporter) else {
        return Vec::new();
    };
    let items = fields::items(entry, reporter).unwrap_or_default();
    if matches!(&entry.value.value, Value::List(items) if items.is_empty()) {
        reporter.error(entry.value.at, "`schedule` is empty");
    }
    if let Some(beyond) = items.get(MOST_SCHEDULES) {
        let message = format!("a file has at most {MOST_SCHEDULES} schedules");
        reporter.error(beyond.at, message);
    }
    let mut schedules: Vec<Schedule> = Vec::new();
    for item in items.iter().take(MOST_SCHEDULES) {
        let Some(schedule) = one(item, reporter) else {
            continue;
        };
        if schedules.contains(&schedule) {
            reporter.error(item.at, format!("`{schedule}` stands in `schedule` twice"));
        } else {
            schedules.push(schedule);
        }
    }
    schedules
}

fn one(item: &Node, reporter: &mut Reporter<'_>) -> Option<Schedule> {
    let fields = Fields::read(item, None, item.at, &keys::SCHEDULE, reporter)?;
    let cron = fields
        .require("cron", reporter)
        .and_then(|entry| cron_of(entry, reporter));
    let timezone = match fields.text("timezone", reporter) {
        None => Some(UTC.to_owned()),
        Some(name) if cron::zone(name).is_some() => Some(name.to_owned()),
        Some(name) => {
            let at = fields
                .get("timezone", reporter)
                .map_or(fields.owner, |entry| entry.value.at);
            let message = format!("there is no time zone `{name}`");
            let help = match cron::nearest_zone(name) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "write its name in the time zone database: `Europe/Berlin`".to_owned(),
            };
            reporter.error_with_help(at, message, help);
            None
        }
    };
    let branch = fields.text("branch", reporter).map(str::to_owned);
    if let Some(branch) = &branch
        && branch.contains(['*', '?', '[', '!'])
    {
        let at = fields
            .get("branch", reporter)
            .map_or(fields.owner, |entry| entry.value.at);
        reporter.error_with_help(
            at,
            format!("`{branch}` is no branch"),
            "name one branch: patterns are for pushes",
        );
    }
    Some(Schedule {
        cron: cron?,
        timezone: timezone?,
        branch,
    })
}

fn cron_of(entry: &Entry, reporter: &mut Reporter<'_>) -> Option<String> {
    let text = fields::text(entry, reporter)?;
    match Cron::parse(text) {
        Ok(_) => {
            let fields: Vec<&str> = text.split(' ').filter(|field| !field.is_empty()).collect();
            Some(fields.join(" "))
        }
        Err(wrong) => {
            let at = reporter.within(entry.value.at, wrong.offset, wrong.width);
            reporter.error_with_help(at, format!("`cron`: {}", wrong.message), wrong.help);
            None
        }
    }
}
