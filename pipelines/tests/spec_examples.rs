//! The examples and the documentation hold what they promise.

use roadstead_pipelines::durations::Seconds;
use roadstead_pipelines::id::{EnvironmentName, ImageName, ServiceName, StepName};
use roadstead_pipelines::spec::{
    DeployMode, DoneWhen, Environment, Gate, Pipeline, ResolvedTarget, Role, StepAction,
    StepSecret, Triggered, parse, parse_env_file, triggered_by,
};
use std::path::{Path, PathBuf};

const ONE_SERVICE: &str = include_str!("../examples/one-service.yml");
const MONOREPO: &str = include_str!("../examples/monorepo.yml");
const APPROVAL: &str = include_str!("../examples/approval.yml");
const MIGRATION: &str = include_str!("../examples/database-migration.yml");
const DEV_QA_PRODUCTION: &str = include_str!("../examples/dev-qa-production.yml");
const DOCUMENTATION: &str = include_str!("../../docs/pipeline-file.md");

fn read(text: &str) -> Pipeline {
    parse("example.yml", text).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

fn environment(name: &str) -> EnvironmentName {
    EnvironmentName::parse(name).expect("a valid name")
}

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).expect("a valid name")
}

/// The fenced blocks of one language.
fn blocks(language: &str) -> Vec<&'static str> {
    let opening = format!("```{language}\n");
    let pieces = DOCUMENTATION.split(opening.as_str()).skip(1);
    pieces
        .map(|piece| piece.split("\n```").next().unwrap_or(piece))
        .collect()
}

#[test]
fn every_file_of_the_examples_is_accepted_and_survives_its_storage() {
    let directory: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let pipeline = read(&std::fs::read_to_string(&path).unwrap());
        let stored = serde_json::to_string(&pipeline).unwrap();
        let loaded: Pipeline = serde_json::from_str(&stored).unwrap();
        assert_eq!(loaded, pipeline, "{}", path.display());
        let order = |pipeline: &Pipeline| Vec::from_iter(pipeline.environments.keys().cloned());
        assert_eq!(
            order(&loaded),
            order(&pipeline),
            "the promotion order is part of what is stored"
        );
        count += 1;
    }
    assert_eq!(count, 7);
}

#[test]
fn environment_files_are_stored_as_they_were_when_there_could_be_one() {
    let staging = environment("staging");
    let stored = |env_file: &str| {
        let text = MONOREPO.replace("env_file: env/staging.env", env_file);
        serde_json::to_value(read(&text).environments.shift_remove(&staging)).unwrap()
    };
    let one = stored("env_file: env/staging.env");
    assert_eq!(one["env_file"], "env/staging.env");
    let two = stored("env_file: [env/all.env, ./env/staging.env]");
    assert_eq!(
        two["env_file"],
        serde_json::json!(["env/all.env", "env/staging.env"])
    );
    for (value, files) in [
        (stored("done_when: drained"), &[][..]),
        (one, &["env/staging.env"]),
        (two, &["env/all.env", "env/staging.env"]),
    ] {
        let environment: Environment = serde_json::from_value(value).unwrap();
        assert_eq!(environment.env_files, files);
    }
}

#[test]
fn every_example_of_the_documentation_is_accepted() {
    let files = blocks("yaml");
    assert!(files.len() >= 6, "the examples are gone");
    for file in files {
        read(file);
    }
    let environment_files = blocks("sh");
    let variables = parse_env_file("documentation", environment_files[0]).unwrap();
    assert_eq!(variables["GREETING"], "Hello, \"world\"");
    assert_eq!(variables["PATTERN"], r"^\d+$");
}

#[test]
fn a_file_without_steps_builds_every_image() {
    let pipeline = read(ONE_SERVICE);
    let step = &pipeline.steps[&StepName::parse("build").unwrap()];
    let images = vec![ImageName::parse("app").unwrap()];
    assert_eq!(step.action, StepAction::Build { images });
    assert_eq!(pipeline.steps.len(), 1);
}

#[test]
fn a_step_names_its_secrets_with_and_without_variables() {
    let file = |secrets: &str| {
        let text = format!(
            "version: 1\nname: shop\nsteps:\n  test: {{ image: busybox, run: make, secrets: {secrets} }}\n"
        );
        let pipeline = read(&text);
        let stored = serde_json::to_string(&pipeline).unwrap();
        assert_eq!(serde_json::from_str::<Pipeline>(&stored).unwrap(), pipeline);
        let step = pipeline.steps.into_iter().next().unwrap().1;
        let StepAction::Run { secrets, .. } = step.action else {
            unreachable!()
        };
        let named = |named: &StepSecret| (named.secret.to_string(), named.variable.clone());
        secrets.iter().map(named).collect::<Vec<_>>()
    };
    assert_eq!(
        file("[NPM_TOKEN, OTHER]"),
        [("NPM_TOKEN".to_owned(), None), ("OTHER".to_owned(), None)]
    );
    let variables = [("A", "NPM_TOKEN"), ("B", "NPM_TOKEN")];
    let expected = variables.map(|(variable, name)| (name.to_owned(), Some(variable.to_owned())));
    assert_eq!(file("{ A: NPM_TOKEN, B: NPM_TOKEN }"), expected);
    assert_eq!(file("[]"), []);
}

#[test]
fn an_image_names_its_secrets() {
    let image = |secrets: &str| {
        let text = format!(
            "version: 1\nname: shop\nimages:\n  app: {{ repository: shop/app, secrets: {secrets} }}\n\
             services:\n  app: {{ image: app }}\nenvironments:\n  staging: {{ ecs: {{ cluster: c, service: s }} }}\n"
        );
        let pipeline = read(&text);
        let stored = serde_json::to_string(&pipeline).unwrap();
        assert_eq!(serde_json::from_str::<Pipeline>(&stored).unwrap(), pipeline);
        pipeline.images[&ImageName::parse("app").unwrap()].clone()
    };
    let named = image("[NPM_TOKEN, staging/KEY]").secrets;
    let named: Vec<_> = named.iter().map(ToString::to_string).collect();
    assert_eq!(named, ["NPM_TOKEN", "staging/KEY"]);
    assert_eq!(image("[]").secrets, []);
}

#[test]
fn what_is_left_out_has_the_documented_value() {
    let pipeline = read(ONE_SERVICE);
    assert!(pipeline.trigger.branches.is_empty() && pipeline.trigger.paths.is_empty());
    let image = &pipeline.images[&ImageName::parse("app").unwrap()];
    assert_eq!(
        (image.context.as_str(), image.dockerfile.as_str()),
        (".", "Dockerfile")
    );
    let staging = &pipeline.environments[&environment("staging")];
    assert_eq!(staging.deploy, DeployMode::Auto);
    assert_eq!(staging.done_when, DoneWhen::AllHealthy);
    assert_eq!(staging.rollout_timeout, Seconds::from_minutes(30));
    assert!(staging.rollback.auto);
    assert!(staging.verify.is_none() && staging.gates.is_empty());
    let production = &pipeline.environments[&environment("production")];
    assert_eq!(production.deploy, DeployMode::Manual);
    let gate = Gate::Healthy {
        environment: environment("staging"),
        soak: Seconds::from_minutes(10),
        min_running: 1,
    };
    assert_eq!(production.gates, [gate]);
    let catalog = read(DEV_QA_PRODUCTION);
    let production = &catalog.environments[&environment("production")];
    let approval = Gate::Approval {
        from: vec![Role::Deployer],
        count: 1,
        not_author: false,
    };
    assert_eq!(production.gates.last(), Some(&approval));
    assert_eq!(
        production.verify.as_ref().map(|verify| verify.watch),
        Some(Seconds(120))
    );
    assert_eq!(
        production
            .verify
            .as_ref()
            .map(|verify| verify.http[0].expect_status),
        Some(200)
    );
}

#[test]
fn a_service_is_where_its_override_and_its_environment_say() {
    let pipeline = read(MONOREPO);
    let production = &pipeline.environments[&environment("production")];
    let api = ResolvedTarget {
        region: Some("eu-west-1".to_owned()),
        cluster: "production".to_owned(),
        service: "shop-api".to_owned(),
        cpu: None,
        memory: None,
        min_healthy_percent: Some(100),
        max_percent: Some(200),
        create: None,
    };
    assert_eq!(production.target(&service("api")), api);
    let worker = ResolvedTarget {
        region: Some("eu-west-1".to_owned()),
        cluster: "batch".to_owned(),
        service: "shop-worker".to_owned(),
        cpu: Some(1024),
        memory: Some(2048),
        min_healthy_percent: Some(0),
        max_percent: Some(100),
        create: None,
    };
    assert_eq!(production.target(&service("worker")), worker);
}

#[test]
fn a_step_with_a_sidecar_is_read_whole() {
    let pipeline = read(MONOREPO);
    let step = &pipeline.steps[&StepName::parse("test").unwrap()];
    assert_eq!(step.timeout, Some(Seconds::from_minutes(20)));
    let StepAction::Run {
        image,
        run,
        env,
        sidecars,
        secrets: _,
        limits: _,
        files: _,
    } = &step.action
    else {
        panic!("{step:?}");
    };
    assert_eq!(image, "rust:1.95-slim");
    assert_eq!(run, "cargo test --workspace\ncargo test --doc\n");
    assert_eq!(env["DATABASE_URL"], "postgres://postgres:test@db/postgres");
    assert_eq!(sidecars["db"].command, ["postgres", "-c", "fsync=off"]);
}

#[test]
fn steps_come_as_the_file_has_them_each_after_what_it_needs() {
    let step = |needs: &str| format!("{{image: a, run: b, needs: [{needs}]}}");
    let steps = [
        ("last", "d, b"),
        ("b", ""),
        ("c", "b"),
        ("d", "e"),
        ("e", ""),
    ];
    let steps = steps.map(|(name, needs)| format!("  {name}: {}\n", step(needs)));
    let pipeline = read(&format!(
        "version: 1\nname: shop\nsteps:\n{}",
        steps.concat()
    ));
    let order: Vec<&str> = pipeline
        .steps_in_order()
        .into_iter()
        .map(StepName::as_str)
        .collect();
    assert_eq!(order, ["b", "c", "e", "d", "last"]);
}

#[test]
fn values_keep_their_spelling() {
    let catalog = read(DEV_QA_PRODUCTION);
    let image = &catalog.images[&ImageName::parse("catalog").unwrap()];
    assert_eq!(image.args["NODE_VERSION"], "22.10");
    let dev = &catalog.environments[&environment("dev")];
    assert_eq!(dev.variables["FEATURE_PREVIEW"], "true");
    let spelled = [
        ("1.10", "1.10"),
        ("0x1F", "0x1F"),
        ("007", "007"),
        ("1_000", "1_000"),
        ("1e3", "1e3"),
        ("1e999", "1e999"),
        (".nan", ".nan"),
        ("+5", "+5"),
        (
            "123456789012345678901234567890",
            "123456789012345678901234567890",
        ),
        ("yes", "yes"),
        ("True", "True"),
        ("2026-11-25", "2026-11-25"),
        ("'1.10'", "1.10"),
        ("\"true\"", "true"),
        ("\"null\"", "null"),
        ("\"\"", ""),
        ("&anchor 1.10", "1.10"),
        ("1.10 # comment", "1.10"),
        ("ü 1.10", "ü 1.10"),
        ("|\n        1\n        2", "1\n2\n"),
    ];
    for (written, expected) in spelled {
        let text = format!(
            "version: 1\nname: shop\nimages:\n  app:\n    repository: app\n    args:\n      OTHER: ü\n      KEY: {written}\n"
        );
        let image = &read(&text).images[&ImageName::parse("app").unwrap()];
        assert_eq!(image.args["KEY"], expected, "{written}");
    }
}

#[test]
fn an_alias_and_a_merge_stand_for_what_they_name() {
    let text = "version: 1\nname: shop\nimages:\n  app: { repository: app }\n\
                services:\n  app: { image: app }\nenvironments:\n  \
                staging:\n    ecs: &ecs { cluster: a, service: app, max_percent: 150 }\n    \
                variables: &variables { LEVEL: 1.10 }\n  \
                production:\n    after: staging\n    ecs: { <<: *ecs, cluster: b }\n    \
                variables: *variables\n";
    let pipeline = read(text);
    let production = &pipeline.environments[&environment("production")];
    let target = production.target(&service("app"));
    assert_eq!(
        (target.cluster.as_str(), target.service.as_str()),
        ("b", "app")
    );
    assert_eq!(target.max_percent, Some(150));
    assert_eq!(production.variables["LEVEL"], "1.10");
}

#[test]
fn the_trigger_of_the_monorepo_decides_as_it_reads() {
    let pipeline = read(MONOREPO);
    assert!(pipeline.concurrency.cancel_superseded);
    let retries = pipeline.steps.values().map(|step| step.retry);
    assert_eq!(retries.collect::<Vec<_>>(), [0, 1, 0]);
    let trigger = pipeline.trigger;
    let push = |branch: &str, path: &str| {
        triggered_by(
            &trigger,
            &format!("refs/heads/{branch}"),
            Some(&[path.to_owned()]),
        )
    };
    assert_eq!(push("main", "services/api/src/main.rs"), Triggered::Yes);
    assert_eq!(push("release/1", "libs/a"), Triggered::Yes);
    assert!(matches!(
        push("main", "services/api/README.md"),
        Triggered::No { .. }
    ));
    assert!(matches!(
        push("feature", "services/api/src/main.rs"),
        Triggered::No { .. }
    ));
}

#[test]
fn approvals_count_people_other_than_the_author() {
    let pipeline = read(APPROVAL);
    let production = &pipeline.environments[&environment("production")];
    let approval = Gate::Approval {
        from: vec![Role::Deployer],
        count: 2,
        not_author: true,
    };
    assert_eq!(production.gates[1], approval);
    assert_eq!(production.done_when, DoneWhen::Drained);
}

#[test]
fn a_command_before_a_deployment_is_a_script_or_words() {
    let file = read(MIGRATION);
    let orders = &file.services[&service("orders")];
    let before = orders.before_deploy.as_ref().unwrap();
    assert_eq!(before.command, ["/bin/sh", "-c", "alembic upgrade head"]);
    assert_eq!(before.timeout, Seconds::from_minutes(10));
    assert_eq!(before.shown(), "alembic upgrade head");
    let words = MIGRATION.replace(
        "{ command: alembic upgrade head, timeout: 10m }",
        "[/bin/migrate, 1.10]",
    );
    let file = read(&words);
    let before = file.services[&service("orders")].before_deploy.clone();
    let before = before.unwrap();
    assert_eq!(before.command, ["/bin/migrate", "1.10"]);
    assert_eq!(before.timeout, Seconds::from_minutes(30));
}
