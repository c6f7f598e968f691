//! Deliveries, runners and the audit list.

use askama::Template;

use super::frame::{Frame, Paging, Permission, Time};
use super::state::{DeliveryDecision, RunnerState};
use crate::page::Page;
use crate::{assets, format, parts, urls};

/// `/deliveries`.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "deliveries.html")]
pub struct DeliveriesPage {
    /// The layout around the page.
    pub frame: Frame,
    /// Newest first.
    pub deliveries: Vec<Delivery>,
    /// Where the list stands.
    pub paging: Paging,
}

/// One webhook delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its id in addresses.
    pub id: String,
    /// The forge's own id, to find it there.
    pub forge_id: String,
    /// The kind of receiver: `github`, `git`.
    pub forge: String,
    /// The project's name.
    pub project: String,
    /// The event: `push`, `ping`.
    pub event: String,
    /// Branch and commit in words: `main at 3f2a91c`. May be empty.
    pub subject: String,
    /// What became of it.
    pub decision: DeliveryDecision,
    /// Why, as a phrase: `no path matched services/shop/**`.
    pub reason: String,
    /// The run that it started: id and name.
    pub run: Option<(String, String)>,
    /// When it arrived.
    pub received: Time,
    /// Whether the viewer may process it again.
    pub redeliver: Permission,
}

/// `/runners`.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "runners.html")]
pub struct RunnersPage {
    /// The layout around the page.
    pub frame: Frame,
    /// In the order of names.
    pub runners: Vec<Runner>,
    /// How many jobs wait for a runner.
    pub queued_jobs: u64,
    /// Since when the oldest of them waits.
    pub oldest_job: Option<Time>,
    /// The command that registers a runner, without its secret: shown as text.
    pub register_command: String,
}

/// One runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runner {
    /// Its name.
    pub name: String,
    /// How the server sees it.
    pub state: RunnerState,
    /// A few words on the state. May be empty.
    pub detail: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// Its version.
    pub version: String,
    /// Slots in use.
    pub busy_slots: u32,
    /// Slots in all.
    pub slots: u32,
    /// Free disk in bytes, if reported.
    pub disk_free: Option<u64>,
    /// When it last polled.
    pub last_seen: Time,
    /// What it runs: run id, run name, step names joined.
    pub running: Vec<(String, String, String)>,
    /// Whether the viewer may drain it; absent when it drains already.
    pub drain: Permission,
    /// Whether they may let it take work again; absent when it does.
    pub resume: Permission,
}

/// `/audit`.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "audit.html")]
pub struct AuditPage {
    /// The layout around the page.
    pub frame: Frame,
    /// Newest first.
    pub entries: Vec<AuditEntry>,
    /// The whole of it is to be had: for admins.
    pub export: bool,
    /// Where the list stands.
    pub paging: Paging,
}

/// Who did what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at: Time,
    /// Who.
    pub actor: String,
    /// How: `dashboard`, `api token ci`.
    pub via: String,
    /// What: `promote`, `token.create`.
    pub action: String,
    /// To what: `shop / production / api`.
    pub subject: String,
    /// Its page, if it has one; an address made by [`crate::urls`].
    pub url: Option<String>,
    /// How it stood and how it stands: `queued → rolling_out`. May be empty.
    pub change: String,
    /// Why, in the person's words. May be empty.
    pub reason: String,
}
