//! Where a place's task definition comes from.

#![expect(
    clippy::unwrap_used,
    reason = "what a test needs and cannot have is a failed test"
)]

use roadstead_pipelines::id::{EnvironmentName, Place, ServiceName};
use roadstead_pipelines::release::TaskDefinitions;
use roadstead_pipelines::spec::{DefinitionBase, Pipeline, parse, parse_task_definition};
use serde_json::json;

const DOCUMENTATION: &str = include_str!("../../docs/pipeline-file.md");

const FILE: &str = "\
version: 1
name: shop
images:
  api: { repository: shop/api }
services:
  api:
    image: api
    task_definition: { file: ./ecs/api.json, variables: { A: service, B: service, C: service } }
  worker: { image: api, task_definition: { base: family } }
  plain: { image: api }
environments:
  staging:
    ecs: { cluster: staging, service: \"{service}\" }
  production:
    after: staging
    ecs:
      region: eu-north-1
      cluster: production
      service: \"shop-{service}\"
      task_definition: { file: ecs/production.json, variables: { B: environment, C: environment } }
    overrides:
      api: { ecs: { cluster: api, task_definition: { variables: { C: override } } } }
      worker: { ecs: { task_definition: { base: service } } }
";

fn pipeline() -> Pipeline {
    parse("pipeline.yml", FILE).unwrap_or_else(|error| panic!("{error}"))
}

fn place(name: &str) -> Place {
    let (environment, service) = name.split_once('/').unwrap();
    Place {
        environment: EnvironmentName::parse(environment).unwrap(),
        service: ServiceName::parse(service).unwrap(),
    }
}

#[test]
fn the_more_special_place_wins_key_by_key() {
    let pipeline = pipeline();
    let file = |path: &str| DefinitionBase::File { path: path.into() };
    for (name, base, variables) in [
        ("staging/api", file("ecs/api.json"), &["service"; 3][..]),
        ("staging/worker", DefinitionBase::Family, &[]),
        ("staging/plain", DefinitionBase::Service, &[]),
        (
            "production/api",
            file("ecs/production.json"),
            &["service", "environment", "override"],
        ),
        (
            "production/worker",
            DefinitionBase::Service,
            &["environment"; 2],
        ),
        (
            "production/plain",
            file("ecs/production.json"),
            &["environment"; 2],
        ),
    ] {
        let (found, has) = pipeline.task_definition(&place(name));
        assert_eq!(found, base, "{name}");
        assert_eq!(has.values().collect::<Vec<_>>(), variables, "{name}");
    }
}

#[test]
fn every_place_with_a_file_gets_what_roadstead_knows_of_it() {
    let all = pipeline().definitions_from_files("eu-west-1");
    let shown: Vec<String> = all
        .iter()
        .map(|(place, from)| format!("{place} {} {}", from.file, json!(from.variables)))
        .collect();
    assert_eq!(
        shown,
        [
            r#"staging/api ecs/api.json {"A":"service","B":"service","C":"service","cluster":"staging","environment":"staging","project":"shop","region":"eu-west-1","service":"api"}"#,
            r#"production/api ecs/production.json {"A":"service","B":"environment","C":"override","cluster":"api","environment":"production","project":"shop","region":"eu-north-1","service":"api"}"#,
            r#"production/plain ecs/production.json {"B":"environment","C":"environment","cluster":"production","environment":"production","project":"shop","region":"eu-north-1","service":"plain"}"#,
        ]
    );
}

#[test]
fn it_is_stored_with_the_file_and_one_without_it_reads_back() {
    let pipeline = pipeline();
    let stored = serde_json::to_value(&pipeline).unwrap();
    assert_eq!(
        serde_json::from_value::<Pipeline>(stored.clone()).unwrap(),
        pipeline
    );
    // As a server stored it that knew of none.
    assert_eq!(stored["services"]["plain"].get("task_definition"), None);
    assert_eq!(
        stored["environments"]["staging"]["ecs"].get("task_definition"),
        None
    );
}

#[test]
fn a_release_gives_a_place_its_file_with_the_variables_put_in() {
    let mut all = TaskDefinitions::default();
    for (place, from) in pipeline().definitions_from_files("eu-west-1") {
        let text = r#"{ "family": "${service}-${environment}", "containerDefinitions": [{ "name": "${B}" }] }"#;
        all.files.insert(from.file.clone(), text.to_owned());
        let services = all.places.entry(place.environment).or_default();
        services.insert(place.service, from);
    }
    assert_eq!(
        all.of(&place("production/api")).unwrap().unwrap(),
        json!({"family": "api-production", "containerDefinitions": [{"name": "environment"}]})
    );
    assert_eq!(all.of(&place("production/worker")), None);
}

/// The file of the documentation, with the variables that stand there.
#[test]
fn the_file_of_the_documentation_is_accepted() {
    let block = |language: &str, holds: &str| {
        let opening = format!("```{language}\n");
        let pieces = DOCUMENTATION.split(opening.as_str()).skip(1);
        let mut blocks = pieces.map(|piece| piece.split("\n```").next().unwrap_or(piece));
        blocks
            .find(|block| block.contains(holds))
            .unwrap_or_else(|| panic!("{holds} is gone"))
    };
    let pipeline = parse("docs", block("yaml", "ecs/api.json")).unwrap();
    let text = block("json", "${LOG_GROUP}");
    for (place, from) in pipeline.definitions_from_files("eu-west-1") {
        let container = pipeline.services[&place.service].container.as_deref();
        let read = parse_task_definition(&from.file, text, &from.variables, container);
        let read = read.unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(read["family"], format!("api-{}", place.environment));
        assert_eq!(
            read["containerDefinitions"][0]["command"][2],
            "exec /app/serve --home \"${HOME}\""
        );
    }
}
