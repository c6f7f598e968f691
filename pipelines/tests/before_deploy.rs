//! Stories of what runs before a service is touched.

mod support;

use insta::assert_snapshot;
use roadstead_pipelines::action::cancel_deployment;
use roadstead_pipelines::deployment::{DeploymentState, Rollout};
use roadstead_pipelines::durations::Seconds;
use roadstead_pipelines::id::DeploymentId;
use roadstead_pipelines::report::FailureKind;
use roadstead_pipelines::spec::BeforeDeploy;
use support::{AUTO, Stage, pipeline};

/// The stories' pipeline with something to do before each deployment.
fn stage_with_before_deploy() -> Stage {
    let mut file = pipeline(AUTO);
    for service in file.services.values_mut() {
        service.before_deploy = Some(BeforeDeploy {
            command: ["/bin/sh", "-c", "bin/migrate"].map(str::to_owned).into(),
            timeout: Seconds(90),
        });
    }
    Stage::new(file)
}

#[test]
fn the_service_is_touched_once_before_deploy_ended_well() {
    let mut stage = stage_with_before_deploy();
    stage.ship();
    stage.wait(20);
    assert_eq!(stage.updates, [], "it still runs");
    stage.before_deploy_ends("staging/web", 0);
    stage.ecs_completes("staging/web");
    stage.wait(70);
    stage.before_deploy_ends("production/web", 0);
    stage.ecs_completes("production/web");
    stage.wait(10);
    assert_eq!(stage.running("production/web").unwrap().as_str(), "shop.r1");
    assert_snapshot!(stage.transcript);

    // Going back does not run it: the release has run there before.
    stage.ship();
    stage.before_deploy_ends("staging/web", 0);
    stage.transcript.clear();
    stage.tasks_crash("staging/web", 2);
    stage.wait(120);
    assert_eq!(stage.running("staging/web").unwrap().as_str(), "shop.r1");
    assert!(
        !stage.transcript.contains("before_deploy"),
        "{}",
        stage.transcript
    );
}

#[test]
fn a_before_deploy_that_fails_leaves_the_service_alone() {
    let mut stage = stage_with_before_deploy();
    stage.ship();
    stage.before_deploy_ends("staging/web", 1);
    stage.wait(200);
    assert_eq!(stage.updates, []);
    assert_snapshot!(stage.transcript);
    // The next release begins with its own.
    stage.ship();
    stage.before_deploy_ends("staging/web", 0);
    assert_eq!(stage.updates.len(), 1);
}

#[test]
fn a_before_deploy_that_does_not_end_is_stopped() {
    let mut stage = stage_with_before_deploy();
    stage.ship();
    let d1 = DeploymentId::new(&stage.world.project, 1);
    let refused = cancel_deployment(&stage.world, &d1, &Stage::actor()).unwrap_err();
    assert!(refused.to_string().contains("before_deploy"), "{refused}");
    stage.wait(89);
    assert!(!stage.performed.contains("stop_before_deploy:shop.d1"));
    stage.wait(2);
    assert!(stage.performed.contains("stop_before_deploy:shop.d1"));
    assert!(
        !stage.world.deployments[&d1].state.is_over(),
        "its end is waited for"
    );
    stage.before_deploy_stops("staging/web");
    let DeploymentState::Failed { failure, .. } = &stage.world.deployments[&d1].state else {
        panic!("{:?}", stage.world.deployments[&d1].state)
    };
    assert_eq!(failure.kind, FailureKind::TimedOut);
    assert_eq!(stage.updates, []);
}

#[test]
fn a_file_that_is_adopted_meanwhile_moves_no_task() {
    let mut stage = stage_with_before_deploy();
    stage.ship();
    let d1 = DeploymentId::new(&stage.world.project, 1);
    let settled = |stage: &Stage| match &stage.world.deployments[&d1].state {
        DeploymentState::RollingOut {
            rollout: Rollout::BeforeDeploy { before_deploy, .. },
            ..
        } => before_deploy.clone(),
        other => panic!("{other:?}"),
    };
    let before = settled(&stage);
    assert_eq!(
        (before.cluster.as_str(), before.service.as_str()),
        ("staging", "web")
    );
    for environment in stage.pipeline.environments.values_mut() {
        environment.ecs.cluster = "elsewhere".into();
    }
    stage.ship();
    assert_eq!(settled(&stage), before);
}

#[test]
fn one_that_cannot_be_started_is_not_given_up_here() {
    let mut stage = stage_with_before_deploy();
    // ECS takes no task.
    stage.performed.insert("start_before_deploy:shop.d1".into());
    stage.ship();
    stage.wait(700);
    let d1 = DeploymentId::new(&stage.world.project, 1);
    assert!(!stage.world.deployments[&d1].state.is_over());
}
