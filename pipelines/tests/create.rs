//! Stories of a service that does not exist yet.

mod support;

use insta::assert_snapshot;
use roadstead_pipelines::deployment::DeploymentState;
use roadstead_pipelines::durations::Seconds;
use roadstead_pipelines::id::DeploymentId;
use roadstead_pipelines::spec::{BeforeDeploy, Create, Pipeline, parse};
use support::{AUTO, Stage, pipeline};

/// The stories' pipeline, in which staging's service is made when it is missing. It is.
fn stage_with(change: impl FnOnce(&mut Pipeline)) -> Stage {
    let mut file = pipeline(AUTO);
    file.environments[0].ecs.create = Some(Create::default());
    change(&mut file);
    let mut stage = Stage::new(file);
    stage.is_missing("staging/web");
    stage
}

#[test]
fn a_service_that_is_missing_is_made_once_and_updated_from_then_on() {
    let mut stage = stage_with(|_| ());
    stage.ship();
    assert_eq!(stage.updates, []);
    stage.ecs_completes("staging/web");
    stage.wait(10);
    assert_snapshot!(stage.transcript);
    let first = DeploymentId::new(&stage.world.project, 1);
    let state = &stage.world.deployments[&first].state;
    assert_eq!(state.word(), "deployed");

    stage.transcript.clear();
    stage.ship();
    stage.ecs_completes("staging/web");
    stage.wait(10);
    assert!(
        stage.transcript.contains("update_service"),
        "{}",
        stage.transcript
    );
    assert!(
        !stage.transcript.contains("create_service"),
        "{}",
        stage.transcript
    );
    assert_eq!(stage.running("staging/web").unwrap().as_str(), "shop.r2");
}

#[test]
fn before_deploy_runs_before_the_service_is_made() {
    let mut stage = stage_with(|file| {
        let service = file.services.values_mut().next().unwrap();
        service.before_deploy = Some(BeforeDeploy {
            command: vec!["/bin/migrate".into()],
            timeout: Seconds(90),
        });
    });
    stage.ship();
    assert!(!stage.performed.contains("create_service:shop.d1"));
    stage.before_deploy_ends("staging/web", 0);
    assert!(stage.performed.contains("create_service:shop.d1"));
    assert_eq!(stage.updates, []);
    stage.ecs_completes("staging/web");
    stage.wait(10);
    assert_eq!(stage.running("staging/web").unwrap().as_str(), "shop.r1");
}

#[test]
fn a_new_service_whose_tasks_crash_stays_and_the_next_release_updates_it() {
    let mut stage = stage_with(|_| ());
    stage.ship();
    stage.tasks_crash("staging/web", 2);
    stage.wait(20);
    let first = DeploymentId::new(&stage.world.project, 1);
    let DeploymentState::Failed { failure, .. } = &stage.world.deployments[&first].state else {
        panic!("{}", stage.transcript)
    };
    let last = failure.details.last().unwrap();
    assert!(last.contains("nothing to roll back to"), "{failure:?}");
    assert_snapshot!(stage.transcript);
    assert_eq!(stage.world.place(&Stage::place("staging/web")).hold, None);

    stage.ship();
    stage.ecs_completes("staging/web");
    stage.wait(10);
    assert_eq!(stage.running("staging/web").unwrap().as_str(), "shop.r2");
    assert_eq!(stage.updates.len(), 1);
}

const FILE: &str = "\
version: 1
name: shop
images:
  api: { repository: shop/api }
services:
  api: { image: api, task_definition: { file: ecs/api.json } }
  web: { image: api, task_definition: { file: ecs/web.json } }
environments:
  staging:
    ecs:
      cluster: staging
      service: \"{service}\"
      create: { launch_type: fargate, subnets: [subnet-1, subnet-2], desired_count: 2 }
    overrides:
      web:
        ecs:
          create:
            subnets: [subnet-3]
            target_group: { arn: \"arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/web/1\", port: 80 }
";

#[test]
fn what_an_override_says_is_laid_over_its_environment() {
    let file = parse("pipeline.yml", FILE).unwrap_or_else(|error| panic!("{error}"));
    let stored = serde_json::to_string(&file).unwrap();
    assert_eq!(serde_json::from_str::<Pipeline>(&stored).unwrap(), file);
    let shown: Vec<String> = file
        .services
        .keys()
        .map(|service| {
            let create = file.environments[0].target(service).create.unwrap();
            let port = create.target_group.and_then(|group| group.port);
            let (count, subnets) = (create.desired_count, create.subnets);
            format!(
                "{service}: {:?} {count:?} {subnets:?} {port:?}",
                create.launch_type
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            r#"api: Some(Fargate) Some(2) ["subnet-1", "subnet-2"] None"#,
            r#"web: Some(Fargate) Some(2) ["subnet-3"] Some(80)"#,
        ]
    );
}
