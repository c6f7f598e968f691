use super::*;

fn step(name: &str, needs: &[&str]) -> Step {
    Step {
        name: name.into(),
        needs: needs.iter().map(ToString::to_string).collect(),
        timeout_seconds: 1,
        retry: 0,
        artifacts_from: vec![],
        action: StepAction::Build { images: vec![] },
    }
}

#[test]
fn what_needs_a_failed_step_never_runs_and_the_rest_does() {
    let steps = [
        step("a", &[]),
        step("b", &["a"]),
        step("c", &["b"]),
        step("d", &[]),
    ];
    let mut places = vec![Place::Waiting; 4];
    assert_eq!(ready(&steps, &places), [0, 3]);
    places[0] = Place::Bad;
    assert_eq!(settle(&steps, &mut places, false), [1, 2]);
    assert_eq!(ready(&steps, &places), [3]);
    assert_eq!(settle(&steps, &mut places, false), Vec::<usize>::new());
    assert_eq!(settle(&steps, &mut places, true), [3]);
}

#[test]
fn a_step_is_ready_when_all_that_it_needs_went_well() {
    let steps = [step("a", &[]), step("b", &[]), step("c", &["a", "b"])];
    assert_eq!(
        ready(&steps, &[Place::Good, Place::Running, Place::Waiting]),
        Vec::<usize>::new()
    );
    assert_eq!(
        ready(&steps, &[Place::Good, Place::Good, Place::Waiting]),
        [2]
    );
}

#[test]
fn the_first_failure_stands_unless_the_runner_itself_failed() {
    let outcome = worse(None, "a", StepEnd::failed("first"));
    let outcome = worse(outcome, "b", StepEnd::TimedOut);
    assert_eq!(
        outcome,
        Some(Outcome::Failed {
            step: "a".into(),
            reason: "first".into()
        })
    );
    let outcome = worse(
        outcome,
        "c",
        StepEnd::Errored {
            reason: "disk".into(),
        },
    );
    let outcome = worse(outcome, "d", StepEnd::failed("late"));
    assert_eq!(
        outcome,
        Some(Outcome::Errored {
            reason: "step `c`: disk".into()
        })
    );
    assert_eq!(worse(None, "a", StepEnd::Succeeded), None);
}
