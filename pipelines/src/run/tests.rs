use super::*;
use crate::id::ImageDigest;
use crate::release::ImageRef;
use crate::spec;

const FILE: &str = "\
version: 1
name: shop
images: { api: { repository: shop/api }, web: { repository: shop/web } }
steps:
  api: { build: [api] }
  web: { build: [web], when: { branches: [main] } }
  docs: { image: a, run: b, when: { branches: [main] } }
";

fn built(left_out: &str) -> RunState {
    let project = ProjectName::parse("shop").unwrap();
    let commit = CommitSha::parse(&"1".repeat(40)).unwrap();
    let now = Timestamp::UNIX_EPOCH;
    let id = RunId::new(&project, 1);
    let mut run = Run::asked_for(id, commit, "refs/heads/topic".into(), now);
    run.pipeline = Some(spec::parse("f", FILE).unwrap());
    run.left_out = [(StepName::parse(left_out).unwrap(), "a reason".to_owned())].into();
    let running = JobState::Running {
        attempt: 1,
        lost: 0,
        runner: "harbour".into(),
        since: now,
    };
    let mut jobs = Jobs::new([]).with(&JobName::shared(0), running);
    jobs.attempts = 1;
    run.state = RunState::Building { jobs };
    let api = ImageRef {
        repository_uri: "registry.test/shop/api".into(),
        digest: ImageDigest::parse(&format!("sha256:{}", "1".repeat(64))).unwrap(),
    };
    let images = [(ImageName::parse("api").unwrap().into(), api)].into();
    let outcome = AttemptOutcome::Succeeded { images };
    let fact = RunFact::AttemptEnded {
        attempt: 1,
        outcome,
    };
    run.apply(&fact, now).unwrap().state
}

#[test]
fn a_run_that_leaves_a_build_out_makes_no_release() {
    let state = built("web");
    assert!(
        matches!(state, RunState::Succeeded { release: None, .. }),
        "{state:?}"
    );
    let state = built("docs");
    assert!(matches!(state, RunState::Confirming { .. }), "{state:?}");
}
