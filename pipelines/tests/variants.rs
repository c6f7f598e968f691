//! Images that are built anew for single environments: which sibling goes where, and who has to say yes.

#![expect(
    clippy::unwrap_used,
    reason = "a story that breaks off is a failed test"
)]

mod support;

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseError};
use roadstead_pipelines::id::{EnvironmentName, ImageName, ReleaseId};
use roadstead_pipelines::planner::{Plan, plan};
use roadstead_pipelines::release::Release;
use roadstead_pipelines::spec::{Pipeline, Variants, parse};
use roadstead_pipelines::variant::ImageVariant;
use roadstead_pipelines::world::World;
use std::collections::BTreeSet;
use support::Stage;

/// What a commit's file says of its image and of the yes that production asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// One image for all.
    Plain,
    /// Variants, and a gate for somebody's yes.
    Approval,
    /// Variants that the service trusts.
    Trusted,
    /// A variant of staging alone, which production does not get; trusted.
    OfStaging,
}

fn file(says: Says) -> Pipeline {
    let args = match says {
        Says::Plain => "",
        Says::Approval | Says::Trusted => {
            ", args_by_environment: { staging: { API: a }, production: { API: b } }"
        }
        Says::OfStaging => ", args_by_environment: { staging: { API: a } }",
    };
    let trusted = match says {
        Says::Trusted | Says::OfStaging => ", variants: trusted",
        Says::Plain | Says::Approval => "",
    };
    let gate = if says == Says::Approval {
        "\n    gates: [{ approval: {} }]"
    } else {
        ""
    };
    let text = format!(
        "version: 1\nname: shop\nimages:\n  app: {{ repository: shop{args} }}\nservices:\n  web: {{ image: \
         app{trusted} }}\nenvironments:\n  staging:\n    ecs: {{ cluster: staging, service: web }}\n    \
         verify: {{ watch: 5s }}\n  production:\n    after: staging\n    ecs: {{ cluster: prod, service: web }}\n    \
         verify: {{ watch: 5s }}{gate}\n"
    );
    parse("pipeline.yml", &text).unwrap_or_else(|e| panic!("{e}"))
}

fn environment(name: &str) -> EnvironmentName {
    EnvironmentName::parse(name).unwrap()
}

fn image() -> ImageName {
    ImageName::parse("app").unwrap()
}

/// The name and the digest of what a release brings to an environment.
fn brings(release: &Release, to: &str) -> (String, String) {
    let (name, found) = release.image(&environment(to), &image()).unwrap();
    (name.to_string(), found.digest.to_string())
}

fn ship_to_staging(stage: &mut Stage, says: Says) -> ReleaseId {
    stage.pipeline = file(says);
    let release = stage.ship();
    stage.ecs_completes("staging/web");
    stage.wait(20);
    release
}

#[test]
fn every_environment_gets_its_own_sibling_of_one_run() {
    let mut stage = Stage::new(file(Says::Trusted));
    let release = ship_to_staging(&mut stage, Says::Trusted);
    let found = &stage.world.releases[&release];
    let names: Vec<_> = found.images.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["production/app", "staging/app"], "no plain image");
    let (staging, production) = (brings(found, "staging"), brings(found, "production"));
    assert_eq!(staging.0, "staging/app");
    assert_eq!(production.0, "production/app");
    assert_ne!(staging.1, production.1);
    let place = Stage::place("production/web");
    assert_eq!(
        found
            .sibling_note(&place, &image(), &environment("staging"))
            .as_deref(),
        Some("same commit, production variant: staging proves its sibling, built in the same run")
    );
    assert!(found.brings_a_sibling(&place, &image(), &environment("staging")));
    assert_eq!(found.image(&environment("preview"), &image()), None);
    assert_eq!(stage.running("production/web"), Some(&release), "trusted");
}

#[test]
fn an_environment_without_arguments_of_its_own_gets_the_plain_image() {
    let mut stage = Stage::new(file(Says::OfStaging));
    let release = ship_to_staging(&mut stage, Says::OfStaging);
    let found = &stage.world.releases[&release];
    assert_eq!(brings(found, "production").0, "app");
    assert_eq!(brings(found, "staging").0, "staging/app");
    let place = Stage::place("production/web");
    assert_eq!(
        found
            .sibling_note(&place, &image(), &environment("staging"))
            .as_deref(),
        Some("same commit, plain image: staging proves its sibling, built in the same run")
    );
    let plain = file(Says::Plain);
    assert_eq!(
        plain.variants_of(&image()),
        [ImageVariant::from(image())],
        "no variants"
    );
}

#[test]
fn a_variant_needs_a_yes_whatever_the_file_that_holds_now_says() {
    let mut stage = Stage::new(file(Says::Approval));
    let first = ship_to_staging(&mut stage, Says::Approval);
    assert_eq!(stage.running("production/web"), None, "nobody said yes");
    // The next file has neither variants nor a gate; its own release needs no yes.
    let second = ship_to_staging(&mut stage, Says::Plain);
    stage.ecs_completes("production/web");
    stage.wait(20);
    assert_eq!(stage.running("production/web"), Some(&second));
    stage.promote("production/web", &first).unwrap();
    stage.wait(60);
    assert_eq!(
        stage.running("production/web"),
        Some(&second),
        "\n{}",
        stage.transcript
    );
    assert!(
        stage.transcript.contains("waits: approval by a deployer"),
        "{}",
        stage.transcript
    );
    stage.approve("production/web", &first, "maya");
    assert_eq!(stage.running("production/web"), Some(&first));
}

#[test]
fn a_rollback_brings_back_the_very_image_that_was_verified() {
    let mut stage = Stage::new(file(Says::Trusted));
    let first = ship_to_staging(&mut stage, Says::Trusted);
    stage.ecs_completes("production/web");
    stage.wait(20);
    let before = brings(&stage.world.releases[&first], "production");
    ship_to_staging(&mut stage, Says::Plain);
    stage.ecs_completes("production/web");
    stage.wait(20);
    stage.rollback("production/web", &first).unwrap();
    assert_eq!(stage.running("production/web"), Some(&first));
    // What it brings is the release's alone, whatever the newest file builds.
    let after = brings(&stage.world.releases[&first], "production");
    assert_eq!(
        (before, after.0.as_str()),
        (after.clone(), "production/app")
    );
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Happens {
    Push(Says),
    Completes(bool),
    Wait(i64),
    Promote(u64),
    Approve(u64),
}

fn happens() -> impl Strategy<Value = Happens> {
    let says = prop_oneof![
        Just(Says::Plain),
        Just(Says::Approval),
        Just(Says::Trusted),
        Just(Says::OfStaging)
    ];
    prop_oneof![
        3 => says.prop_map(Happens::Push),
        4 => any::<bool>().prop_map(Happens::Completes),
        4 => (1i64..30).prop_map(Happens::Wait),
        2 => (1u64..5).prop_map(Happens::Promote),
        1 => (1u64..5).prop_map(Happens::Approve),
    ]
}

/// Whether a file trusts variants of the only service.
fn trusts(world: &World) -> bool {
    let services = world.pipeline.iter().flat_map(|it| it.services.values());
    services
        .into_iter()
        .any(|it| it.variants == Variants::Trusted)
}

fn tell(story: &[Happens], planner: fn(&World, Timestamp) -> Plan) -> Result<(), TestCaseError> {
    let mut stage = Stage::with_planner(file(Says::Plain), planner);
    let release = |number: u64| ReleaseId::parse(&format!("shop.r{number}")).unwrap();
    let (mut seen, mut proved) = (0, BTreeSet::new());
    for what in story {
        let trusted = trusts(&stage.world);
        match what {
            Happens::Push(says) => {
                stage.pipeline = file(*says);
                stage.ship();
            }
            Happens::Completes(true) => stage.ecs_completes("production/web"),
            Happens::Completes(false) => stage.ecs_completes("staging/web"),
            Happens::Wait(seconds) => stage.wait(*seconds),
            // A refusal is an answer too: nothing happens then.
            Happens::Promote(number) => {
                drop(stage.promote("production/web", &release(*number)));
            }
            Happens::Approve(number) => {
                if stage.world.releases.contains_key(&release(*number)) {
                    stage.approve("production/web", &release(*number), "maya");
                }
            }
        }
        let (staging, production) = (Stage::place("staging/web"), Stage::place("production/web"));
        let verified = stage.world.place(&staging).verified;
        proved.extend(verified.into_iter().map(|it| it.release));
        for (deployment, place, id) in &stage.updates[seen..] {
            let found = &stage.world.releases[id];
            if *place != production || stage.world.deployments[deployment].is_rollback() {
                continue;
            }
            prop_assert!(
                proved.contains(id),
                "proved: {deployment} brought {id}, of which staging had proved nothing\n{}",
                stage.transcript
            );
            let approvals = stage.world.place(&production).approvals;
            let may = brings(found, "production").1 == brings(found, "staging").1
                || trusted
                || trusts(&stage.world)
                || approvals.iter().any(|it| it.release == *id);
            prop_assert!(
                may,
                "asked: {deployment} brought a sibling to production, and nobody had said yes\n{}",
                stage.transcript
            );
        }
        seen = stage.updates.len();
    }
    Ok(())
}

fn stories(cases: u32, planner: fn(&World, Timestamp) -> Plan) -> Result<(), String> {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(22),
        ..ProptestConfig::default()
    };
    let all = prop::collection::vec(happens(), 1..30);
    proptest::test_runner::TestRunner::new(config)
        .run(&all, |story| tell(&story, planner))
        .map_err(|found| found.to_string())
}

#[test]
fn production_gets_what_staging_proved_or_its_sibling_that_somebody_let_in() {
    stories(200, plan).unwrap_or_else(|found| panic!("{found}"));
}

#[test]
fn a_planner_that_trusts_every_variant_is_found_out() {
    let found = stories(1_000, |world, now| {
        let mut blind = world.clone();
        let services = blind
            .pipeline
            .iter_mut()
            .flat_map(|it| it.services.values_mut());
        for service in services {
            service.variants = Variants::Trusted;
        }
        plan(&blind, now)
    });
    let found = found.expect_err("the broken planner was not found out");
    assert!(found.contains("asked: "), "found otherwise: {found}");
}
