//! What comes of runs that no push started: their releases are like any other.

mod support;

use support::{AUTO, Stage, pipeline};

fn stage() -> Stage {
    Stage::new(pipeline(AUTO))
}

/// Ships a release through staging and production.
fn ship_everywhere(stage: &mut Stage) {
    stage.ship();
    stage.ecs_completes("staging/web");
    stage.wait(70);
    stage.ecs_completes("production/web");
    stage.wait(10);
}

#[test]
fn a_run_of_an_earlier_commit_that_a_person_starts_moves_nothing_back_by_itself() {
    let mut stage = stage();
    let first = stage.push();
    stage.build(&first);
    for place in ["staging/web", "production/web"] {
        stage.ecs_completes(place);
        stage.wait(70);
    }
    ship_everywhere(&mut stage);
    let newest = stage.running("production/web").unwrap().clone();
    let updates = stage.updates.len();
    let again = stage.start(&first);
    stage.build(&again);
    stage.wait(600);
    let made = stage.world.newest_release().unwrap();
    assert_eq!(made.run, Some(again), "it is released all the same");
    assert_eq!(stage.updates.len(), updates, "{}", stage.transcript);
    for place in ["staging/web", "production/web"] {
        assert_eq!(stage.running(place), Some(&newest));
    }
    // One of the newest commit is a release like any other.
    let newest = stage.world.releases[&newest].run.clone().unwrap();
    let fresh = stage.start(&newest);
    stage.build(&fresh);
    stage.ecs_completes("staging/web");
    stage.wait(70);
    let in_staging = stage.running("staging/web").unwrap();
    assert_eq!(stage.world.releases[in_staging].run, Some(fresh));
}
