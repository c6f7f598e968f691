//! One suite of rollouts, each through several clients and on both backends, with one table of
//! outcomes (`table.rs`). Every answer that a client had is held against AWS's own API models.
//!
//! boto3 and the server's adapter drive every scenario in `make test`. The AWS command line and
//! `ecs-deploy`, below `clients`, take longer and are driven by `make test-clients`.

#![expect(
    clippy::unwrap_used,
    reason = "a test helper that fails should fail the test where it stands"
)]

#[path = "../../../sandbox/tests/clients/answers.rs"]
mod answers;
mod clients;
mod image;
mod look;
mod play;
#[path = "../../../sandbox/tests/clients/python.rs"]
mod python;
mod stage;
mod table;

use std::path::Path;

/// A test of each scenario, as `$client` plays it on `$backend`.
macro_rules! scenarios {
    ($client:ident on $backend:ident: $($test:ident = $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                $crate::play::$client($name, roadstead_sandbox::BackendKind::$backend);
            }
        )*

        /// So that no scenario is forgotten.
        #[test]
        fn every_scenario_has_a_test() {
            let tested = [$($name),*];
            for one in &$crate::table::SCENARIOS {
                assert!(tested.contains(&one.name), "{} is not tested", one.name);
            }
        }
    };
}

/// Every scenario.
macro_rules! all {
    ($client:ident on $backend:ident) => {
        scenarios! {
            $client on $backend:
            good_image = "good image",
            missing_image = "missing image",
            exit_1_at_start = "exit 1 at start",
            crash_with_a_health_check = "crash with a health check",
            crash_without_a_health_check = "crash without a health check",
            answers_500 = "answers 500",
            slow_boot_within_the_grace_period = "slow boot within the grace period",
            slow_boot_without_a_grace_period = "slow boot without a grace period",
            superseded_in_mid_rollout = "superseded in mid-rollout",
            stopped_with_rollback = "stopped with rollback",
            first_deployment_fails = "first deployment fails",
            no_rollback_wanted = "no rollback wanted",
            minimum_and_maximum_leave_no_room = "minimum and maximum leave no room",
            breaker_at_a_bounded_percentage = "breaker at a bounded percentage",
            breaker_at_an_unbounded_percentage = "breaker at an unbounded percentage",
            breaker_at_a_count = "breaker at a count",
            out_of_memory = "out of memory",
            instance_lost = "instance lost",
            scaled_to_zero_and_back = "scaled to zero and back",
        }
    };
}

mod boto3_on_docker {
    all!(boto3 on Docker);
}

mod boto3_on_simulated {
    all!(boto3 on Simulated);
}

mod adapter_on_docker {
    all!(adapter on Docker);
}

mod adapter_on_simulated {
    all!(adapter on Simulated);
}

/// By `make test-clients`.
mod other_clients {
    mod command_line_on_docker {
        all!(command_line on Docker);
    }

    mod command_line_on_simulated {
        all!(command_line on Simulated);
    }

    /// It waits in real time, so it needs real tasks. What ECS takes back is a success to it, unless
    /// it sees an event with the word "unable" in between.
    mod ecs_deploy {
        use crate::clients::ecs_deploy::commands;
        use crate::play::ecs_deploy;
        use crate::table::SCENARIOS;

        /// A test of each scenario, with what it has to think of the outcome in the end.
        macro_rules! deployed {
            ($($test:ident = $name:literal, $satisfied:expr;)*) => {
                $(
                    #[test]
                    fn $test() {
                        ecs_deploy($name, $satisfied);
                    }
                )*

                #[test]
                fn every_scenario_that_it_can_begin_has_a_test() {
                    let tested = [$($name),*];
                    for one in &SCENARIOS {
                        let played = one.beyond_ecs_deploy().is_none_or(|beyond| beyond.played);
                        assert_eq!(tested.contains(&one.name), played, "{}", one.name);
                    }
                }
            };
        }

        deployed! {
            good_image = "good image", Some(true);
            missing_image = "missing image", None;
            exit_1_at_start = "exit 1 at start", None;
            crash_with_a_health_check = "crash with a health check", None;
            crash_without_a_health_check = "crash without a health check", Some(false);
            answers_500 = "answers 500", None;
            slow_boot_within_the_grace_period = "slow boot within the grace period", Some(true);
            slow_boot_without_a_grace_period = "slow boot without a grace period", None;
            superseded_in_mid_rollout = "superseded in mid-rollout", Some(true);
            stopped_with_rollback = "stopped with rollback", Some(true);
            no_rollback_wanted = "no rollback wanted", Some(false);
            minimum_and_maximum_leave_no_room = "minimum and maximum leave no room", Some(false);
            breaker_at_a_bounded_percentage = "breaker at a bounded percentage", None;
            breaker_at_an_unbounded_percentage = "breaker at an unbounded percentage", None;
            breaker_at_a_count = "breaker at a count", None;
            out_of_memory = "out of memory", None;
            scaled_to_zero_and_back = "scaled to zero and back", Some(true);
        }

        /// What the table says that it cannot do, it cannot.
        #[tokio::test]
        async fn it_has_no_other_commands() {
            let known = ["cron", "deploy", "diff", "run", "scale", "update"];
            assert_eq!(commands().await, known);
        }
    }
}

#[test]
fn the_documentation_shows_the_table() {
    const BEGIN: &str = "<!-- scenarios -->\n";
    const END: &str = "<!-- end of scenarios -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sandbox.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (shown, tail) = rest.split_once(END).unwrap();
    let table = table::render();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{table}{END}{tail}")).unwrap();
        return;
    }
    assert!(
        shown == table,
        "docs/sandbox.md shows other scenarios; UPDATE_DOCS=1 writes them anew"
    );
}
