//! What pages say of pull requests beside their titles.

use super::{Scene, time};
use roadstead_pipelines::git_ref::GitRef;
use roadstead_pipelines::run::{Run, RunState};
use roadstead_web::urls;
use roadstead_web::view::{Need, NeedKind};

/// Whose pipeline file the run of a pull request has, and who let it run.
pub(in super::super) fn notes(run: &Run) -> Vec<String> {
    let Some(pull_request) = run.pull_request() else {
        return vec![];
    };
    let base = GitRef::of(&pull_request.base_ref);
    let mut notes = vec![];
    if let Some(file) = &run.base_file {
        let other = if file.head_differs {
            "; the pull request has another one, which is not used"
        } else {
            ""
        };
        let at = file.commit.short();
        notes.push(format!(
            "Its pipeline file is the one of {base} at {at}, as it comes from a fork{other}. It gets no secrets."
        ));
    }
    if let Some(approval) = &run.approval {
        let (by, commit) = (&approval.by, approval.commit.short());
        notes.push(format!("{by} let commit {commit} run."));
    }
    notes
}

/// Runs of a project that wait for somebody to let them run.
pub(super) fn unapproved(scene: &Scene) -> Vec<Need> {
    let runs = scene.world.runs.values();
    runs.filter_map(|run| {
        let RunState::WaitingForApproval { since } = &run.state else {
            return None;
        };
        let title = run.pull_request()?.title();
        Some(Need {
            kind: NeedKind::Approval,
            title: format!("{}: {title}", run.project),
            reason: "its code runs once a deployer has looked at it".to_owned(),
            since: time(*since),
            url: urls::run(run.id.as_str()),
        })
    })
    .collect()
}
