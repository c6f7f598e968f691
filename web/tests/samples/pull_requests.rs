//! The run of a pull request from a fork that nobody has let run yet.

use super::ago;
use super::runs::{run, run_broken_file};
use roadstead_web::view::{Permission, RunPage, RunState, Waiting};

pub(crate) fn run_unapproved() -> RunPage {
    let mut run = run(
        44,
        RunState::Unapproved,
        "Mend the <sails>",
        "Mallory",
        300,
        None,
    );
    run.started = None;
    run.commit.branch = "pull request #7 from mallory/<b>shop (fork)".into();
    run.trigger = "told by a github webhook".into();
    run.reason = "code from a fork runs once somebody has looked at it".into();
    RunPage {
        run,
        notes: vec![
            "Its pipeline file is the one of main at 0f3a91c, as it comes from a fork; the pull request has another \
             one, which is not used. It gets no secrets."
                .into(),
        ],
        waiting: Some(Waiting {
            what: "run #44".into(),
            reason: "somebody to let commit 2c1f0aa run, as it comes from a fork".into(),
            since: ago(290),
            until: None,
            who: "a deployer".into(),
        }),
        diagnostics: Vec::new(),
        approve: Permission::Allowed,
        cancel: Permission::Allowed,
        retry: Permission::Absent,
        ..run_broken_file()
    }
}
