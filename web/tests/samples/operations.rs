//! Deliveries, runners, audit.

use roadstead_web::urls;
use roadstead_web::view::{
    AuditEntry, AuditPage, DeliveriesPage, Delivery, DeliveryDecision, Paging, Permission, Runner,
    RunnerState, RunnersPage,
};

use super::{ago, frame};

pub(crate) fn deliveries() -> DeliveriesPage {
    let delivery =
        |id: &str, event: &str, subject: &str, decision, reason: &str, age, redeliver| Delivery {
            id: id.into(),
            forge_id: format!("72d3162e-cc78-11e3-81ab-{id}"),
            forge: "github".into(),
            project: "shop".into(),
            event: event.into(),
            subject: subject.into(),
            decision,
            reason: reason.into(),
            run: (decision == DeliveryDecision::Run).then(|| ("41".into(), "#41".into())),
            received: ago(age),
            redeliver,
        };
    DeliveriesPage {
        frame: frame(),
        deliveries: vec![
            delivery(
                "106",
                "push",
                "main at 9c1d2e3",
                DeliveryDecision::Pending,
                "stored; waits for the next tick",
                1,
                Permission::Absent,
            ),
            delivery(
                "105",
                "push",
                "main at 9c1d2e3",
                DeliveryDecision::Run,
                "main is in trigger.push.branches",
                130,
                Permission::Allowed,
            ),
            delivery(
                "104",
                "push",
                "docs at 77ab001",
                DeliveryDecision::Ignored,
                "no path matched services/shop/**",
                900,
                Permission::Allowed,
            ),
            delivery(
                "103",
                "push",
                "main at 9c1d2e3",
                DeliveryDecision::Duplicate,
                "the same push arrived as delivery 105",
                129,
                Permission::Denied("Needs the role deployer.".into()),
            ),
            delivery(
                "102",
                "push",
                "main at 1200abc",
                DeliveryDecision::Failed,
                "the repository could not be fetched: connection refused",
                4_000,
                Permission::Allowed,
            ),
            delivery(
                "101",
                "ping",
                "",
                DeliveryDecision::Rejected,
                "wrong signature; compare the secret at the forge with webhook_secret_file",
                9_000,
                Permission::Absent,
            ),
        ],
        paging: Paging {
            page: 1,
            more: true,
        },
    }
}

pub(crate) fn runners() -> RunnersPage {
    let runner = |name: &str, state, detail: &str, busy, disk, age| Runner {
        name: name.into(),
        state,
        detail: detail.into(),
        labels: vec!["linux".into(), "amd64".into()],
        version: "0.1.0".into(),
        busy_slots: busy,
        slots: if state == RunnerState::Gone { 0 } else { 4 },
        disk_free: disk,
        last_seen: ago(age),
        running: (0..busy)
            .map(|slot| ("41".into(), "shop #41".into(), format!("step {slot}")))
            .collect(),
        drain: match state {
            RunnerState::Draining | RunnerState::Drained | RunnerState::Gone => Permission::Absent,
            _ => Permission::Allowed,
        },
        resume: match state {
            RunnerState::Draining | RunnerState::Drained => Permission::Allowed,
            _ => Permission::Absent,
        },
    };
    RunnersPage {
        frame: frame(),
        runners: vec![
            runner("build-1", RunnerState::Busy, "", 2, Some(81_000_000_000), 2),
            runner(
                "build-2",
                RunnerState::Idle,
                "",
                0,
                Some(212_000_000_000),
                4,
            ),
            runner(
                "build-3",
                RunnerState::LowDisk,
                "takes nothing below 5 GB",
                0,
                Some(3_100_000_000),
                3,
            ),
            runner(
                "build-4",
                RunnerState::Draining,
                "asked to drain by ole",
                1,
                None,
                1,
            ),
            runner(
                "build-5",
                RunnerState::Drained,
                "has nothing to do and takes nothing new",
                0,
                None,
                86_400,
            ),
            runner("i-0a41c7", RunnerState::Gone, "left for good", 0, None, 600),
            runner(
                "laptop",
                RunnerState::Lost,
                "its attempts were given to others",
                0,
                None,
                7_200,
            ),
        ],
        queued_jobs: 1,
        oldest_job: Some(ago(25)),
        register_command:
            "roadstead runner --server https://ci.example.com --token-file runner.token".into(),
    }
}

pub(crate) fn audit() -> AuditPage {
    let entry = |age,
                 actor: &str,
                 via: &str,
                 action: &str,
                 subject: &str,
                 url: Option<String>,
                 reason: &str| AuditEntry {
        at: ago(age),
        actor: actor.into(),
        via: via.into(),
        action: action.into(),
        subject: subject.into(),
        url,
        change: match action {
            "user.role" => "viewer → deployer".into(),
            "promote" => "→ queued".into(),
            _ => String::new(),
        },
        reason: reason.into(),
    };
    AuditPage {
        frame: frame(),
        export: true,
        entries: vec![
            entry(
                430,
                "ole",
                "dashboard",
                "promote",
                "shop / production / api r14",
                Some(urls::deployment("d-30")),
                "the auditors wait for it",
            ),
            entry(
                5_400,
                "automatic rollback",
                "verification",
                "hold.set",
                "shop / production / web",
                Some(urls::service("shop", "production", "web")),
                "r13 failed verification",
            ),
            entry(
                9_000,
                "maya",
                "api token laptop",
                "run.retry",
                "shop #39",
                Some(urls::run("39")),
                "",
            ),
            entry(
                1_000_000,
                "maya",
                "dashboard",
                "token.create",
                "laptop",
                None,
                "",
            ),
        ],
        paging: Paging {
            page: 3,
            more: false,
        },
    }
}
