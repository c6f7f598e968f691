//! One service in one environment, as a deployer and as a viewer see it.

use roadstead_web::view::{
    Candidate, DeploymentState, Paging, Permission, RollbackTarget, ServicePage,
};

use super::releases::{deployment_rolled_back, deployments, gates, hold, matrix_shop};
use super::{ago, commit, digest, frame};

pub(crate) fn service() -> ServicePage {
    let target = |release: &str, sha: &str, message: &str, age: i64, removed: u64, available| {
        RollbackTarget {
            release_id: release.into(),
            release: release.into(),
            commit: commit(sha, message, "Ole"),
            digest: digest(sha),
            verified: ago(age),
            live_seconds: Some(90_000),
            commits_removed: Some(removed),
            note: if removed == 1 {
                "the release that was live before".into()
            } else {
                String::new()
            },
            available,
        }
    };
    let mut history = deployments();
    history.remove(0);
    let mut earlier = deployment_rolled_back().deployment;
    earlier.service = "api".into();
    history.push(earlier);
    let mut first = deployments().remove(0);
    (first.state, first.environment, first.reason) = (
        DeploymentState::Deployed,
        "production".into(),
        String::new(),
    );
    (first.created, first.ended) = (ago(173_500), Some(ago(172_900)));
    history.push(first);
    let mut matrix = matrix_shop();
    ServicePage {
        frame: frame(),
        project: "shop".into(),
        service: "api".into(),
        cell: matrix.rows.remove(0).cells.remove(1),
        place: "cluster prod, service shop-api, eu-west-1".into(),
        before_deploy: Some("./bin/migrate --wait".into()),
        confirm: Some("production".into()),
        candidates: vec![Candidate {
            release_id: "r14".into(),
            release: "r14".into(),
            commit: commit("9c1d2e3", "Charge the card once", "Maya"),
            digest: digest("9c1d2e3"),
            built: ago(600),
            commits_added: Some(2),
            note:
                "same commit, production variant: staging proves its sibling, built in the same run"
                    .into(),
            gates: gates(),
            needs_approval: true,
        }],
        promote: Permission::Allowed,
        approve: Permission::Denied(
            "You wrote this commit; another deployer has to approve it.".into(),
        ),
        rollback_targets: vec![
            target(
                "r11",
                "aa10f34",
                "Cache the exchange rates",
                260_000,
                1,
                Permission::Allowed,
            ),
            target(
                "r10",
                "c0ffee1",
                "Split the cart from the order",
                610_000,
                6,
                Permission::Allowed,
            ),
            target(
                "r4",
                "d00d1e5",
                "First release",
                3_000_000,
                41,
                Permission::Denied("Its image is no longer in the registry.".into()),
            ),
        ],
        rollback: Permission::Allowed,
        hold: Permission::Allowed,
        history,
        paging: Some(Paging {
            page: 1,
            more: true,
        }),
    }
}

pub(crate) fn service_viewer() -> ServicePage {
    let page = service();
    let denied = || Permission::Denied("Needs the role deployer in production.".into());
    let mut cell = page.cell;
    cell.hold = Some(hold(denied()));
    ServicePage {
        cell,
        promote: denied(),
        approve: denied(),
        rollback: denied(),
        hold: denied(),
        paging: None,
        ..page
    }
}
