//! One-shot runners: the job that counts is the one that was accepted.

use crate::peer::Peer;
use crate::world::{BaseImage, Repository, RunnerUnderTest, assignment, config, run_step, unique};
use roadstead_protocol::Outcome;

#[tokio::test]
async fn an_assignment_that_came_too_late_is_not_its_one_job() {
    let image = BaseImage::build();
    let repository = Repository::new();
    let commit = repository.commit(&[("a", b"a", false)]);
    let peer = Peer::start(&unique("r"), repository.path()).await;
    let data = tempfile::tempdir().unwrap();
    let mut once = config(&peer, data.path());
    once.once = true;
    let mut runner = RunnerUnderTest::start_with(once);
    assert_eq!(peer.offered_slots().await, 1, "however many slots it has");

    let step = || vec![run_step("test", &[], &image, "echo done")];
    let (late, next) = (unique("shop.1.a1"), unique("shop.1.a2"));
    peer.lose(&late);
    peer.assign(assignment(&late, &commit, step()));
    peer.assign(assignment(&next, &commit, step()));
    let seen = peer.result(&next).await;
    assert_eq!(seen.result.unwrap().outcome, Outcome::Succeeded);
    assert!(!peer.seen(&late).accepted);
    runner.ended().await.unwrap();
}
