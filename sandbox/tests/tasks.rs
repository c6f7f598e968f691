//! Tasks as real containers: how they start, end, log, and survive a restart of the sandbox.

#![expect(
    clippy::unwrap_used,
    reason = "a test helper that fails should fail the test where it stands"
)]

mod support;

use hyper::Method;
use serde_json::{Value, json};
use support::docker::{
    containers, engine, exec, make_image, networks, push, remove_image, tag_image,
};
use support::{Sandbox, eventually, http, unique};

/// A sandbox and an image that is only on this machine.
struct Bench {
    sandbox: Sandbox,
    image: String,
}

impl Bench {
    async fn new() -> Self {
        Self::with_image(&[]).await
    }

    async fn with_image(changes: &[&str]) -> Self {
        let name = unique("roadstead-test");
        make_image(&name, "v1", "hello", changes).await;
        let image = format!("{name}:v1");
        let mut sandbox = Sandbox::start().await;
        sandbox.remove_at_end(&image);
        Self { sandbox, image }
    }

    /// Container definition `name` that runs `script` in a shell, with more `members`.
    fn container(&self, name: &str, script: &str, members: Value) -> Value {
        let mut definition = json!({
            "name": name,
            "image": self.image,
            "essential": true,
            "memory": 64,
            "command": ["/bin/sh", "-c", script],
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {
                    "awslogs-group": "/ecs/test",
                    "awslogs-region": "us-east-1",
                    "awslogs-stream-prefix": "app",
                },
            },
        });
        if let Value::Object(members) = members {
            for (member, value) in members {
                definition[member] = value;
            }
        }
        definition
    }

    /// Runs one task of these containers; its ARN.
    async fn run(&self, containers: Value) -> String {
        let definition = json!({ "containerDefinitions": containers });
        self.run_defined(definition, json!({})).await
    }

    /// The same on Fargate.
    async fn run_on_fargate(&self, containers: Value) -> String {
        let definition = json!({"containerDefinitions": containers, "networkMode": "awsvpc",
            "cpu": "256", "memory": "512", "executionRoleArn": "arn:aws:iam::000000000000:role/app"});
        let members = json!({"launchType": "FARGATE",
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}});
        self.run_defined(definition, members).await
    }

    /// Runs one task of `definition`, asked for with these `members`, too; its ARN.
    async fn run_defined(&self, mut definition: Value, mut members: Value) -> String {
        let family = unique("family");
        definition["family"] = json!(family);
        self.sandbox
            .ecs("RegisterTaskDefinition", definition)
            .await
            .unwrap();
        // The second one finds it already there.
        let _ = self.sandbox.ecs("CreateCluster", json!({})).await;
        members["taskDefinition"] = json!(family);
        let ran = self.sandbox.ecs("RunTask", members).await.unwrap();
        ran["tasks"][0]["taskArn"].as_str().unwrap().to_owned()
    }

    /// Asks the sandbox itself, not AWS: `/_sandbox/<path>`.
    async fn own(&self, path: &str, body: Value) {
        let url = format!("{}/_sandbox/{path}", self.sandbox.endpoint);
        let answer = http(Method::POST, &url, &[], body.to_string()).await;
        let answer = answer.unwrap();
        assert!(answer.status.is_success(), "{}", answer.text());
    }

    async fn describe(&self, arn: &str) -> Value {
        let input = json!({ "tasks": [arn] });
        self.sandbox.ecs("DescribeTasks", input).await.unwrap()["tasks"][0].clone()
    }

    /// Waits until the task is in `status`, or has stopped instead, which fails the test.
    async fn until(&self, arn: &str, status: &str) -> Value {
        eventually(&format!("a task to be {status}"), || async {
            let task = self.describe(arn).await;
            let last = task["lastStatus"].as_str().unwrap().to_owned();
            assert!(
                last == status || last != "STOPPED",
                "stopped instead: {task:#}"
            );
            (last == status).then_some(task)
        })
        .await
    }

    /// Waits until a container has written `ready`, which it does once it heeds signals.
    async fn until_ready(&self, arn: &str, container: &str) {
        eventually("a container to be ready", || async {
            let lines = self.lines(arn, container).await;
            lines.contains(&"ready".to_owned()).then_some(())
        })
        .await;
    }

    async fn stop(&self, arn: &str) {
        let input = json!({ "task": arn, "reason": "the test is over" });
        self.sandbox.ecs("StopTask", input).await.unwrap();
    }

    /// The lines of a container's stream; empty while there is none.
    async fn lines(&self, arn: &str, container: &str) -> Vec<String> {
        let task_id = arn.rsplit('/').next().unwrap();
        let input = json!({
            "logGroupName": "/ecs/test",
            "logStreamName": format!("app/{container}/{task_id}"),
            "startFromHead": true,
        });
        let Ok(answer) = self.sandbox.logs("GetLogEvents", input).await else {
            return Vec::new();
        };
        let events = answer["events"].as_array().unwrap();
        let lines = events
            .iter()
            .map(|event| event["message"].as_str().unwrap());
        lines.map(str::to_owned).collect()
    }
}

fn container<'a>(task: &'a Value, name: &str) -> &'a Value {
    let containers = task["containers"].as_array().unwrap();
    let found = containers.iter().find(|it| it["name"] == name);
    found.unwrap_or_else(|| panic!("no container {name} in {task:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ends_leaves_its_exit_code_and_its_log() {
    let bench = Bench::new().await;
    let script = "echo started $GREETING; echo oops >&2; sleep 2; exit 3";
    let environment = json!({ "environment": [{ "name": "GREETING", "value": "well" }] });
    let arn = bench
        .run(json!([bench.container("app", script, environment)]))
        .await;
    eventually("the log of a running container", || async {
        bench
            .lines(&arn, "app")
            .await
            .contains(&"started well".to_owned())
            .then_some(())
    })
    .await;
    let task = bench.until(&arn, "STOPPED").await;
    assert_eq!(task["stopCode"], "EssentialContainerExited", "{task:#}");
    assert_eq!(task["stoppedReason"], "Essential container in task exited");
    assert_eq!(container(&task, "app")["exitCode"], 3);

    // Nothing is left of it but its log.
    assert_eq!(containers(&bench.sandbox.instance()).await.len(), 0);
    eventually("a sandbox without tasks to have no network", || async {
        let left = networks(&bench.sandbox.instance()).await;
        left.is_empty().then_some(())
    })
    .await;
    let mut lines = bench.lines(&arn, "app").await;
    lines.sort();
    assert_eq!(lines, ["oops", "started well"]);
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_there_cannot_be_pulled() {
    let bench = Bench::new().await;
    let input = json!({ "repositoryName": "web" });
    let created = bench.sandbox.ecr("CreateRepository", input).await.unwrap();
    let uri = created["repository"]["repositoryUri"].as_str().unwrap();
    let missing = json!({ "image": format!("{uri}:missing") });
    let arn = bench
        .run(json!([bench.container("app", "true", missing)]))
        .await;
    let task = bench.until(&arn, "STOPPED").await;
    assert_eq!(task["stopCode"], "TaskFailedToStart", "{task:#}");
    let reason = task["stoppedReason"].as_str().unwrap();
    assert!(reason.starts_with("CannotPullContainerError: "), "{reason}");
    assert!(
        reason.contains("not found") || reason.contains("unknown"),
        "{reason}"
    );
    assert_eq!(container(&task, "app").get("exitCode"), None);
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_removed_before_its_container_starts_is_pulled_again() {
    let mut bench = Bench::new().await;
    let (password, registry) = bench.sandbox.token().await;
    let input = json!({ "repositoryName": "late" });
    bench.sandbox.ecr("CreateRepository", input).await.unwrap();
    let name = format!("{registry}/late");
    let late = format!("{name}:v1");
    bench.sandbox.remove_at_end(&late);
    tag_image(&bench.image, &name, "v1").await;
    push(&name, "v1", &password).await.unwrap();

    let script = "echo ready; while [ ! -e /go ]; do sleep 1; done";
    let first = bench.container("first", script, json!({ "essential": false }));
    let members = json!({
        "image": late, "dependsOn": [{ "containerName": "first", "condition": "SUCCESS" }],
    });
    let second = bench.container("second", "echo second", members);
    let arn = bench.run(json!([first, second])).await;
    // Both images were pulled by now.
    bench.until_ready(&arn, "first").await;
    remove_image(&late).await;
    let task = bench.describe(&arn).await;
    let running = container(&task, "first")["runtimeId"].as_str().unwrap();
    assert!(exec(running, "touch /go").await.0);
    let task = bench.until(&arn, "STOPPED").await;
    assert_eq!(container(&task, "second")["exitCode"], 0, "{task:#}");
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_task_gets_sigterm_and_then_sigkill() {
    let bench = Bench::new().await;
    let polite = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 1; done";
    let rude = "trap '' TERM; echo ready; while :; do sleep 1; done";
    let timeout = json!({ "stopTimeout": 2 });
    let patient = json!({ "stopTimeout": 60 });
    let arn = bench
        .run(json!([
            bench.container("polite", polite, patient),
            bench.container("rude", rude, timeout),
        ]))
        .await;
    bench.until(&arn, "RUNNING").await;
    for name in ["polite", "rude"] {
        bench.until_ready(&arn, name).await;
    }
    bench.stop(&arn).await;
    let task = bench.until(&arn, "STOPPED").await;
    assert_eq!(task["stopCode"], "UserInitiated", "{task:#}");
    assert_eq!(task["stoppedReason"], "the test is over");
    assert_eq!(container(&task, "polite")["exitCode"], 0);
    assert_eq!(container(&task, "rude")["exitCode"], 137);
    assert_eq!(bench.lines(&arn, "polite").await, ["ready", "bye"]);
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_loses_its_spot_capacity_gets_sigterm() {
    let bench = Bench::new().await;
    let script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 1; done";
    let app = bench.container("app", script, json!({}));
    let arn = bench.run_on_fargate(json!([app])).await;
    bench.until_ready(&arn, "app").await;
    bench.own("interruptions", json!({ "task": arn })).await;
    let task = bench.until(&arn, "STOPPED").await;
    assert_eq!(task["stopCode"], "SpotInterruption", "{task:#}");
    assert_eq!(task["stoppedReason"], "Your Spot Task was interrupted.");
    assert_eq!(container(&task, "app")["exitCode"], 0);
    assert_eq!(bench.lines(&arn, "app").await, ["ready", "bye"]);
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_without_its_log_stream_has_no_container() {
    let bench = Bench::new().await;
    let fault = json!({"operation": "CreateLogStream", "kind": "deny", "times": 1});
    bench.own("faults", fault).await;
    let app = bench.container("app", "echo never", json!({}));
    let arn = bench.run_on_fargate(json!([app])).await;
    let task = bench.until(&arn, "STOPPED").await;
    assert_eq!(task["stopCode"], "TaskFailedToStart", "{task:#}");
    let reason = task["stoppedReason"].as_str().unwrap();
    let expected = "ResourceInitializationError: failed to validate logger args";
    assert!(reason.starts_with(expected), "{reason}");
    assert!(container(&task, "app")["runtimeId"].is_null(), "{task:#}");
    assert!(bench.lines(&arn, "app").await.is_empty());
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_over_its_memory_limit_is_killed_and_says_so() {
    let bench = Bench::new().await;
    // Doubles a string until the limit.
    let greedy = "x=0123456789abcdef; while :; do x=$x$x; done";
    let arn = bench
        .run(json!([bench.container(
            "app",
            greedy,
            json!({ "memory": 16 })
        )]))
        .await;
    let task = bench.until(&arn, "STOPPED").await;
    let app = container(&task, "app");
    assert_eq!(app["exitCode"], 137, "{task:#}");
    let reason = app["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("OutOfMemoryError"), "{task:#}");
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_start_in_the_order_of_their_dependencies() {
    let bench = Bench::new().await;
    let depends = |name: &str, condition: &str| json!({ "dependsOn": [{ "containerName": name, "condition": condition }] });
    let init = bench.container("init", "echo init", json!({ "essential": false }));
    let check = json!({
        "dependsOn": [{ "containerName": "init", "condition": "SUCCESS" }],
        "healthCheck": { "command": ["CMD-SHELL", "true"], "interval": 5, "timeout": 60, "retries": 10 },
    });
    let db = bench.container("db", "trap 'exit 0' TERM; while :; do sleep 1; done", check);
    let app = bench.container("app", "echo app; sleep 1; exit 7", depends("db", "HEALTHY"));
    let arn = bench.run(json!([app, db, init])).await;
    let task = bench.until(&arn, "STOPPED").await;
    assert_eq!(container(&task, "app")["exitCode"], 7, "{task:#}");
    assert_eq!(container(&task, "init")["exitCode"], 0);
    assert_eq!(container(&task, "db")["exitCode"], 0);

    let failing = bench.container("init", "exit 9", json!({ "essential": false }));
    let waiting = bench.container("app", "echo app", depends("init", "SUCCESS"));
    let arn = bench.run(json!([failing, waiting])).await;
    let task = bench.until(&arn, "STOPPED").await;
    assert_eq!(task["stopCode"], "TaskFailedToStart", "{task:#}");
    assert!(task.to_string().contains("exited with code 9"), "{task:#}");
    assert_eq!(container(&task, "app").get("exitCode"), None);
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_gives_up_on_one_that_takes_longer_than_its_start_timeout() {
    let bench = Bench::new().await;
    let needs = json!({"dependsOn": [{"containerName": "init", "condition": "SUCCESS"}]});
    // The limit counts from the start of `init`, and not once `init` has ended.
    for (lasts, limit, stop_code) in [(30, 2, "TaskFailedToStart"), (1, 3, "UserInitiated")] {
        let init = format!("trap 'exit 0' TERM; sleep {lasts}");
        let members = json!({"essential": false, "startTimeout": limit, "stopTimeout": 2});
        let arn = bench
            .run(json!([
                bench.container("app", "trap 'exit 0' TERM; sleep 5 & wait", needs.clone()),
                bench.container("init", &init, members),
            ]))
            .await;
        if stop_code == "UserInitiated" {
            bench.until(&arn, "RUNNING").await;
            // Longer than the limit.
            tokio::time::sleep(std::time::Duration::from_secs(3)).await;
            assert_eq!(bench.describe(&arn).await["lastStatus"], "RUNNING");
            bench.stop(&arn).await;
        }
        let task = eventually("the task to stop", || async {
            let task = bench.describe(&arn).await;
            (task["lastStatus"] == "STOPPED").then_some(task)
        })
        .await;
        assert_eq!(task["stopCode"], stop_code, "{task:#}");
        if stop_code == "TaskFailedToStart" {
            let reason = "CannotStartContainerError: dependency container init has timed out";
            assert_eq!(task["stoppedReason"], reason);
            assert_eq!(container(&task, "app")["reason"], reason);
            assert_eq!(container(&task, "app")["exitCode"], Value::Null);
        }
    }
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_a_terminal_and_open_input_only_when_it_asks() {
    let bench = Bench::new().await;
    let script = "test -t 1 && echo terminal; echo asks; read line; echo over";
    let wants = json!({"pseudoTerminal": true, "interactive": true});
    let asking = bench.run(json!([bench.container("app", script, wants)]));
    let asking = asking.await;
    bench.until(&asking, "RUNNING").await;
    let plain = bench.run(json!([bench.container("app", script, json!({}))]));
    let plain = plain.await;
    eventually("the plain one to end", || async {
        (bench.lines(&plain, "app").await == ["asks", "over"]).then_some(())
    })
    .await;
    assert_eq!(bench.lines(&asking, "app").await, ["terminal", "asks"]);
    assert_eq!(bench.describe(&asking).await["lastStatus"], "RUNNING");
    bench.stop(&asking).await;
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_definitions_health_check_counts() {
    let failing = "HEALTHCHECK --interval=1s --retries=1 CMD [\"/bin/false\"]";
    let bench = Bench::with_image(&[failing]).await;
    let forever = "trap 'exit 0' TERM; while :; do sleep 1; done";
    let check = |command: &str| {
        json!({ "healthCheck": {
            "command": ["CMD-SHELL", command], "interval": 5, "timeout": 60, "retries": 2,
        } })
    };
    for (check, expected) in [(check("true"), "HEALTHY"), (check("exit 1"), "UNHEALTHY")] {
        let arn = bench
            .run(json!([bench.container("app", forever, check)]))
            .await;
        eventually(&format!("the container to be {expected}"), || async {
            let task = bench.describe(&arn).await;
            let status = &container(&task, "app")["healthStatus"];
            (status == expected).then_some(())
        })
        .await;
        bench.stop(&arn).await;
    }
    // Without a check of the definition there is none at all.
    let arn = bench
        .run(json!([bench.container("app", forever, json!({}))]))
        .await;
    let task = bench.until(&arn, "RUNNING").await;
    let id = container(&task, "app")["runtimeId"].as_str().unwrap();
    let inspected = engine().await.inspect_container(id, None).await.unwrap();
    assert_eq!(
        inspected.config.unwrap().healthcheck.unwrap().test.unwrap(),
        ["NONE"]
    );
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_adopts_what_runs_and_sweeps_what_nobody_knows() {
    let mut bench = Bench::new().await;
    let script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 1; done";
    let arn = bench
        .run(json!([bench.container("app", script, json!({}))]))
        .await;
    let other = "trap 'exit 5' TERM; echo ready; while :; do sleep 1; done";
    let other = bench
        .run(json!([bench.container("app", other, json!({}))]))
        .await;
    let before = bench.until(&arn, "RUNNING").await;
    let gone = bench.until(&other, "RUNNING").await;
    bench.until_ready(&other, "app").await;
    bench.sandbox.halt().await;

    // One more container with the sandbox's label, of a task that it never heard of.
    let instance = bench.sandbox.instance();
    let engine = engine().await;
    let gone = container(&gone, "app")["runtimeId"].as_str().unwrap();
    engine.stop_container(gone, None).await.unwrap();
    let stray = bollard::models::ContainerCreateBody {
        image: Some(bench.image.clone()),
        labels: Some(std::collections::HashMap::from([
            ("roadstead.sandbox".to_owned(), instance.clone()),
            ("roadstead.task".to_owned(), "0".repeat(32)),
            ("roadstead.container".to_owned(), "stray".to_owned()),
        ])),
        ..Default::default()
    };
    let none = None::<bollard::query_parameters::CreateContainerOptions>;
    let stray = engine.create_container(none, stray).await.unwrap().id;
    engine.start_container(&stray, None).await.unwrap();

    bench.sandbox.resume().await;
    eventually("the stray container to go", || async {
        let gone = engine.inspect_container(&stray, None).await.is_err();
        gone.then_some(())
    })
    .await;
    let ended = bench.until(&other, "STOPPED").await;
    assert_eq!(container(&ended, "app")["exitCode"], 5);
    let after = bench.until(&arn, "RUNNING").await;
    let runtime_id = |task: &Value| container(task, "app")["runtimeId"].clone();
    assert_eq!(runtime_id(&after), runtime_id(&before));
    bench.until_ready(&arn, "app").await;
    bench.stop(&arn).await;
    let stopped = bench.until(&arn, "STOPPED").await;
    assert_eq!(container(&stopped, "app")["exitCode"], 0);
    assert_eq!(bench.lines(&arn, "app").await, ["ready", "bye"]);
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_answers_on_this_machine() {
    let bench = Bench::new().await;
    let web = json!([{
        "name": "web",
        "image": bench.image,
        "memory": 64,
        "portMappings": [{ "containerPort": 80, "hostPort": 0 }],
        "stopTimeout": 2,
    }]);
    let arn = bench.run(web).await;
    let task = bench.until(&arn, "RUNNING").await;
    let binding = &container(&task, "web")["networkBindings"][0];
    assert_eq!(binding["containerPort"], 80, "{task:#}");
    let url = format!("http://127.0.0.1:{}/", binding["hostPort"]);
    let text = eventually("the container to serve", || async {
        let answer = http(Method::GET, &url, &[], "").await.ok()?;
        answer.status.is_success().then(|| answer.text())
    })
    .await;
    assert_eq!(text, "hello");
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_found_by_group_stream_and_words() {
    let bench = Bench::new().await;
    let script = "for i in 1 2 3 4 5; do echo line $i; done; echo ERROR broken";
    let arn = bench
        .run(json!([bench.container("app", script, json!({}))]))
        .await;
    bench.until(&arn, "STOPPED").await;
    let logs = |operation: &'static str, input: Value| bench.sandbox.logs(operation, input);
    let groups = logs("DescribeLogGroups", json!({ "logGroupNamePrefix": "/ecs" }))
        .await
        .unwrap();
    assert_eq!(groups["logGroups"][0]["logGroupName"], "/ecs/test");
    let group = json!({ "logGroupName": "/ecs/test" });
    let streams = logs("DescribeLogStreams", group).await.unwrap();
    let stream = streams["logStreams"][0]["logStreamName"].as_str().unwrap();
    assert_eq!(
        stream,
        format!("app/app/{}", arn.rsplit('/').next().unwrap())
    );

    let found = json!({ "logGroupName": "/ecs/test", "filterPattern": "ERROR" });
    let found = logs("FilterLogEvents", found).await.unwrap();
    assert_eq!(found["events"].as_array().unwrap().len(), 1);
    assert_eq!(found["events"][0]["message"], "ERROR broken");
    assert_eq!(found["events"][0]["logStreamName"], stream);

    // The last two, and the two before them.
    let mut page = json!({ "logGroupName": "/ecs/test", "logStreamName": stream, "limit": 2 });
    let last = logs("GetLogEvents", page.clone()).await.unwrap();
    assert_eq!(last["events"][0]["message"], "line 5");
    page["nextToken"] = last["nextBackwardToken"].clone();
    let earlier = logs("GetLogEvents", page.clone()).await.unwrap();
    assert_eq!(earlier["events"][1]["message"], "line 4");
    page["nextToken"] = last["nextForwardToken"].clone();
    let later = logs("GetLogEvents", page).await.unwrap();
    assert_eq!(later["events"], json!([]));
    assert_eq!(later["nextForwardToken"], last["nextForwardToken"]);

    for (operation, most) in [("GetLogEvents", 10_000), ("DescribeLogStreams", 50)] {
        for (limit, fits) in [(0, false), (1, true), (most, true), (most + 1, false)] {
            let mut input = json!({ "logGroupName": "/ecs/test", "limit": limit });
            if operation == "GetLogEvents" {
                input["logStreamName"] = json!(stream);
            }
            let answer = logs(operation, input).await;
            assert_eq!(answer.is_ok(), fits, "{operation} of {limit}: {answer:?}");
            if let Err(refused) = answer {
                assert_eq!(refused.code, "InvalidParameterException");
            }
        }
    }

    let missing = json!({ "logGroupName": "/ecs/other", "logStreamName": "x" });
    let refused = logs("GetLogEvents", missing).await.unwrap_err();
    assert_eq!(refused.code, "ResourceNotFoundException");
    bench.sandbox.finish().await;
}
