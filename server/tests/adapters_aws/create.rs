//! Services that do not exist when their first release comes.

use crate::executor::{PIPELINE, Server};
use crate::support::{Sandbox, eventually};
use roadstead_pipelines::deployment::{Deployment, DeploymentState, Kind, Trigger};
use roadstead_pipelines::fact::{Change, DeploymentFact};
use roadstead_pipelines::id::{DeploymentId, EnvironmentName, Place, ServiceName};
use roadstead_pipelines::release::Release;
use roadstead_pipelines::report::Failure;
use roadstead_pipelines::spec;
use roadstead_sandbox::BackendKind::Simulated;
use roadstead_server::clock;
use serde_json::{Value, json};

/// The pipeline file with a service that is made with this. `service` says more of it.
fn pipeline(service: &str, create: &str) -> String {
    let of_file = "web: { image: app, container: app, task_definition: { file: web.json }";
    PIPELINE
        .replace("web: { image: app }", &format!("{of_file}{service} }}"))
        .replace(
            "service: web }",
            &format!("service: web, create: {create} }}"),
        )
}

/// Tasks on Fargate, in which `tool` ends by itself.
fn definition() -> Value {
    json!({
        "family": "${service}-${environment}", "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"], "cpu": "256", "memory": "512",
        "containerDefinitions": [
            {"name": "tool", "image": "tool:1", "essential": false,
             "dockerLabels": {"simulate.exit": "0@10s"}},
            {"name": "app", "image": "app:1", "essential": true,
             "portMappings": [{"containerPort": 8080, "name": "http"}],
             "healthCheck": {"command": ["CMD-SHELL", "true"], "interval": 5}},
        ],
    })
}

/// A sandbox with a cluster and nothing in it.
async fn empty() -> Sandbox {
    let sandbox = Sandbox::start(Simulated).await;
    sandbox
        .ecs("CreateCluster", json!({"clusterName": "shop"}))
        .await;
    sandbox
}

/// A release whose commit had the definition, and whose image is this.
fn release(server: &Server, number: u64, file: &str, image: &str) -> Release {
    let mut release = Server::new_release(&server.project, number);
    for built in release.images.values_mut() {
        built.repository_uri = image.to_owned();
    }
    let pipeline = spec::parse("pipeline.yml", file).unwrap();
    for (place, from) in pipeline.definitions_from_files("us-east-1") {
        let all = &mut release.task_definitions;
        all.files
            .insert(from.file.clone(), definition().to_string());
        let services = all.places.entry(place.environment).or_default();
        services.insert(place.service, from);
    }
    release
}

async fn service(sandbox: &Sandbox) -> Value {
    let asked = json!({"cluster": "shop", "services": ["web"]});
    let answer = sandbox.ecs("DescribeServices", asked).await;
    answer["services"][0].clone()
}

fn runs(deployment: &Deployment) -> &str {
    match &deployment.state {
        DeploymentState::Deployed {
            task_definition, ..
        } => task_definition,
        other => panic!("{other:?}"),
    }
}

fn failure(deployment: &Deployment) -> &Failure {
    match &deployment.state {
        DeploymentState::Failed { failure, .. } => failure,
        other => panic!("{other:?}"),
    }
}

const FARGATE: &str = "{ desired_count: 2, launch_type: fargate, subnets: [subnet-1], \
    security_groups: [sg-1], assign_public_ip: true, health_check_grace_period: 1m }";

#[tokio::test]
async fn it_is_made_once_as_the_file_says_though_replies_are_lost() {
    let sandbox = empty().await;
    sandbox.fault("CreateService", "drop_reply", 2).await;
    let server = Server::start(sandbox.aws()).await;
    let create = FARGATE.replace(
        " }",
        ", service_connect: { namespace: shop.internal, port_name: http, dns_name: web, port: 8080 } }",
    );
    let file = pipeline("", &create).replace("create:", "min_healthy_percent: 50, create:");
    let first = release(&server, 1, &file, "simulated");
    let first = server.bring(first, &file).await;
    let deployment = server.deployed(&first.id).await;
    let task_definition = runs(&deployment);
    let made = ["RegisterTaskDefinition", "CreateService", "UpdateService"];
    let mut times = vec![];
    for operation in made {
        times.push(sandbox.effective(operation).await);
    }
    assert_eq!(times, [1, 1, 0]);
    let service = service(&sandbox).await;
    assert_eq!(service["taskDefinition"], task_definition);
    let shown = [
        "desiredCount",
        "launchType",
        "healthCheckGracePeriodSeconds",
    ];
    assert_eq!(
        shown.map(|it| service[it].clone()),
        [json!(2), json!("FARGATE"), json!(60)]
    );
    assert_eq!(
        service["networkConfiguration"]["awsvpcConfiguration"],
        json!({"subnets": ["subnet-1"], "securityGroups": ["sg-1"], "assignPublicIp": "ENABLED"})
    );
    let configuration = &service["deploymentConfiguration"];
    assert_eq!(configuration["minimumHealthyPercent"], 50);
    let breaker = &configuration["deploymentCircuitBreaker"];
    assert_eq!(
        (&breaker["enable"], &breaker["rollback"]),
        (&json!(true), &json!(true))
    );
    let connect = &service["deployments"][0]["serviceConnectConfiguration"];
    assert_eq!(
        connect["services"][0]["clientAliases"][0],
        json!({"port": 8080, "dnsName": "web"})
    );

    // From then on it is updated like any other, and its number of tasks is its own.
    let scaled = json!({"cluster": "shop", "service": "web", "desiredCount": 1});
    sandbox.ecs("UpdateService", scaled).await;
    let second = release(&server, 2, &file, "simulated");
    let second = server.bring(second, &file).await;
    let task_definition = runs(&server.deployed(&second.id).await).to_owned();
    let service = self::service(&sandbox).await;
    assert_eq!(
        (&service["taskDefinition"], &service["desiredCount"]),
        (&json!(task_definition), &json!(1))
    );
    assert_eq!(sandbox.effective("CreateService").await, 1);
    server.stop().await;
    sandbox.stop().await;
}

/// The simulated sandbox has every group, and nobody who asks for the health of its targets is answered: only that
/// it is named is looked at.
#[tokio::test]
async fn a_load_balancer_finds_the_container_that_gets_the_image() {
    let sandbox = empty().await;
    let server = Server::start(sandbox.aws()).await;
    let group = "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/web/1";
    let create = FARGATE.replace(
        " }",
        &format!(", target_group: {{ arn: \"{group}\", port: 8080 }} }}"),
    );
    // The first essential one, as the file names none.
    let file = pipeline("", &create).replace("container: app, ", "");
    let release = release(&server, 1, &file, "simulated");
    server.bring(release, &file).await;
    eventually("the service", async || {
        (sandbox.effective("CreateService").await == 1).then_some(())
    })
    .await;
    let targets = &service(&sandbox).await["loadBalancers"][0];
    let expected = json!({"targetGroupArn": group, "containerName": "app", "containerPort": 8080});
    assert_eq!(*targets, expected);
    server.stop().await;
    sandbox.stop().await;
}

#[tokio::test]
async fn before_deploy_runs_in_the_network_that_the_service_will_have() {
    let sandbox = empty().await;
    let server = Server::start(sandbox.aws()).await;
    let file = pipeline(", before_deploy: [/bin/migrate]", FARGATE)
        .replace("container: app", "container: tool");
    let release = release(&server, 1, &file, "simulated");
    let release = server.bring(release, &file).await;
    runs(&server.deployed(&release.id).await);
    let asked = json!({"cluster": "shop", "family": "web-staging-before-deploy", "desiredStatus": "STOPPED"});
    let ended = sandbox.ecs("ListTasks", asked).await;
    let asked = json!({"cluster": "shop", "tasks": ended["taskArns"]});
    let described = sandbox.ecs("DescribeTasks", asked).await;
    let tasks = described["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 1, "{described}");
    assert_eq!(tasks[0]["launchType"], "FARGATE");
    assert_eq!(service(&sandbox).await["desiredCount"], 2);
    server.stop().await;
    sandbox.stop().await;
}

#[tokio::test]
async fn a_first_release_that_fails_leaves_the_service_to_the_next_one() {
    let sandbox = empty().await;
    let server = Server::start(sandbox.aws()).await;
    let file = pipeline("", FARGATE);
    let bad = release(&server, 1, &file, "simulated:healthy-10m_exit-1-5s");
    let bad = server.bring(bad, &file).await;
    let deployment = server.deployed(&bad.id).await;
    let failure = failure(&deployment);
    let last = failure.details.last().unwrap();
    assert!(last.contains("nothing to roll back to"), "{failure:?}");
    let left = service(&sandbox).await;
    let primary = &left["deployments"][0];
    assert_eq!(
        (&left["status"], &primary["rolloutState"]),
        (&json!("ACTIVE"), &json!("FAILED"))
    );

    let good = release(&server, 2, &file, "simulated");
    let good = server.bring(good, &file).await;
    let task_definition = runs(&server.deployed(&good.id).await).to_owned();
    assert_eq!(service(&sandbox).await["taskDefinition"], task_definition);
    let times = [
        sandbox.effective("CreateService").await,
        sandbox.effective("UpdateService").await,
    ];
    assert_eq!(times, [1, 1]);
    server.stop().await;
    sandbox.stop().await;
}

#[tokio::test]
async fn one_that_somebody_made_meanwhile_is_updated() {
    let sandbox = empty().await;
    let server = Server::start(sandbox.aws()).await;
    let theirs = json!({"family": "theirs", "containerDefinitions": [{"name": "app", "image": "a:1", "memory": 64}]});
    sandbox.ecs("RegisterTaskDefinition", theirs).await;
    let ours = json!({"family": "ours", "containerDefinitions": [
        {"name": "app", "image": "a:2", "memory": 64, "healthCheck": {"command": ["CMD", "true"], "interval": 5}},
    ]});
    let ours = sandbox.ecs("RegisterTaskDefinition", ours).await;
    let task_definition = ours["taskDefinition"]["taskDefinitionArn"]
        .as_str()
        .unwrap();
    let service_of_theirs = json!({
        "cluster": "shop", "serviceName": "web", "taskDefinition": "theirs", "desiredCount": 1,
    });
    sandbox.ecs("CreateService", service_of_theirs).await;
    let file = pipeline("", "{ desired_count: 3 }");
    let release = release(&server, 1, &file, "simulated");
    let id = DeploymentId::new(&server.project, 1);
    let fact = |fact| Change::Deployment {
        deployment: id.clone(),
        fact,
    };
    // As if it had been looked for before.
    let changes = vec![
        Change::AdoptPipeline {
            pipeline: Box::new(spec::parse("pipeline.yml", &file).unwrap()),
        },
        Change::MakeRelease {
            release: release.clone(),
        },
        Change::OpenDeployment {
            deployment: id.clone(),
            place: Place {
                environment: EnvironmentName::parse("staging").unwrap(),
                service: ServiceName::parse("web").unwrap(),
            },
            release: release.id.clone(),
            kind: Kind::Forward,
            trigger: Trigger::Auto,
        },
        fact(DeploymentFact::Started {
            task_definition: None,
            before_deploy: None,
        }),
        fact(DeploymentFact::TaskDefinitionRegistered {
            task_definition: task_definition.to_owned(),
            creates: true,
        }),
    ];
    let decide = |_: &_| Ok(changes.clone());
    let recorded = server
        .store
        .record(&server.project, "test", clock::now(), decide);
    recorded.await.unwrap();
    server.bell.ring();
    assert_eq!(runs(&server.deployed(&release.id).await), task_definition);
    let service = service(&sandbox).await;
    assert_eq!(
        (&service["taskDefinition"], &service["desiredCount"]),
        (&json!(task_definition), &json!(1))
    );
    assert_eq!(sandbox.effective("CreateService").await, 1, "theirs");
    server.stop().await;
    sandbox.stop().await;
}

#[tokio::test]
async fn what_ecs_does_not_take_is_told_in_its_words() {
    let sandbox = empty().await;
    let server = Server::start(sandbox.aws()).await;
    let registry =
        "{ service_registry: { arn: \"arn:aws:servicediscovery:us-east-1:1:service/srv-1\" } }";
    let file = pipeline("", registry);
    let refused = release(&server, 1, &file, "simulated");
    let refused = server.bring(refused, &file).await;
    let deployment = server.deployed(&refused.id).await;
    let message = &failure(&deployment).message;
    assert!(
        message.starts_with("AWS refuses ecs:CreateService: The service registry")
            && message.contains("does not exist"),
        "{message}"
    );
    assert_eq!(service(&sandbox).await, Value::Null);

    // A release of a commit that named no file has nothing to begin with.
    let without = Server::new_release(&server.project, 2);
    let without = server.bring(without, &file).await;
    let deployment = server.deployed(&without.id).await;
    let message = &failure(&deployment).message;
    assert!(message.contains("no active service `web`"), "{message}");
    server.stop().await;
    sandbox.stop().await;
}
