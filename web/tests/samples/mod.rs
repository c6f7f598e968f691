//! Views of an imaginary team's server, for the snapshots and the gallery: every state, every
//! button in each permission, long texts and empty lists.

pub(crate) mod operations;
pub(crate) mod people;
mod pull_requests;
pub(crate) mod releases;
pub(crate) mod runs;
pub(crate) mod secrets;
pub(crate) mod services;

use roadstead_web::render;
use roadstead_web::view::{Commit, ErrorPage, Frame, LoginPage, Notice, Role, Time, Tone, Viewer};

/// 2026-11-25 14:02:11 UTC.
pub(crate) const NOW: Time = Time(1_795_615_331_000);

/// Every sample page: its file name and its HTML.
pub(crate) fn pages() -> Vec<(&'static str, String)> {
    let rendered = [
        ("home", render(&releases::home())),
        ("home-empty", render(&releases::home_empty())),
        ("project", render(&runs::project())),
        ("project-new", render(&runs::project_new())),
        ("run-failed", render(&runs::run_failed())),
        ("run-running", render(&runs::run_running())),
        ("run-broken-file", render(&runs::run_broken_file())),
        ("run-unapproved", render(&pull_requests::run_unapproved())),
        (
            "deployment-rolled-back",
            render(&releases::deployment_rolled_back()),
        ),
        (
            "deployment-waiting",
            render(&releases::deployment_waiting()),
        ),
        ("service", render(&services::service())),
        ("service-viewer", render(&services::service_viewer())),
        ("deliveries", render(&operations::deliveries())),
        ("runners", render(&operations::runners())),
        ("account", render(&people::account())),
        ("account-new", render(&people::account_new())),
        ("users", render(&people::users())),
        ("secrets", render(&secrets::secrets())),
        ("secrets-none", render(&secrets::secrets_none())),
        ("audit", render(&operations::audit())),
        ("login", render(&login())),
        (
            "error-403",
            render(&error(
                403,
                "You may not do this",
                "Promoting to production needs the role deployer in shop. You are a viewer; an admin can change that.",
            )),
        ),
        (
            "error-404",
            render(&error(
                404,
                "No such run",
                "There is no run 99. It may have been removed by the retention of its project.",
            )),
        ),
        (
            "error-500",
            render(&error(
                500,
                "Something went wrong here",
                "The page could not be made. It was not your fault; trying again in a moment may help.",
            )),
        ),
    ];
    rendered
        .into_iter()
        .map(|(name, html)| (name, html.expect("a page renders")))
        .collect()
}

pub(crate) fn ago(seconds: i64) -> Time {
    NOW.plus_seconds(-seconds)
}

pub(crate) fn frame() -> Frame {
    Frame {
        now: NOW,
        viewer: Some(Viewer {
            name: "maya".into(),
            role: Role::Deployer,
        }),
        notice: None,
        needs: 3,
        version: "0.1.0".into(),
    }
}

pub(crate) fn noticed(tone: Tone, text: &str) -> Frame {
    Frame {
        notice: Some(Notice {
            tone,
            text: text.into(),
        }),
        ..frame()
    }
}

pub(crate) fn commit(sha: &str, message: &str, author: &str) -> Commit {
    Commit {
        sha: sha.repeat(8).chars().take(40).collect(),
        message: message.into(),
        author: author.into(),
        branch: "main".into(),
        url: Some(format!("https://forge.example.com/shop/commit/{sha}")),
    }
}

pub(crate) fn digest(seed: &str) -> String {
    format!(
        "sha256:{}",
        seed.repeat(16).chars().take(64).collect::<String>()
    )
}

fn login() -> LoginPage {
    LoginPage {
        frame: Frame {
            viewer: None,
            ..frame()
        },
        user: "maya".into(),
        next: "/runs/41?step=test".into(),
        error: "User or password is wrong.".into(),
    }
}

fn error(status: u16, title: &str, detail: &str) -> ErrorPage {
    ErrorPage {
        frame: frame(),
        status,
        title: title.into(),
        detail: detail.into(),
        request_id: if status == 500 {
            "7c1f04ab".into()
        } else {
            String::new()
        },
        login_url: None,
    }
}
