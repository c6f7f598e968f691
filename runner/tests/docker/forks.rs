//! Images of pull requests: built, pushed nowhere, and those of forks without a login and without others' cache mounts.

use crate::{
    peer::{Peer, Seen},
    world::{Repository, RunnerUnderTest, assignment, build_step, busybox, docker, unique},
};
use roadstead_protocol::{ImageBuild, Outcome, RegistryUse, Step, StepState};
use std::collections::BTreeMap;

/// Says what it finds in a cache mount, and leaves `WORD` there.
const DOCKERFILE: &str = r#"FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
COPY unique /unique
ARG WORD
RUN --mount=type=cache,id=MOUNT,target=/kept \
    echo "found: $(cat /kept/word || echo nothing)"; echo "$WORD" > /kept/word
"#;

fn step(repository: &str, word: &str, space: Option<&str>, registry: RegistryUse) -> Step {
    let mut args = BTreeMap::from([("WORD".to_owned(), word.to_owned())]);
    let space = space.map(|space| ("BUILDKIT_CACHE_MOUNT_NS".to_owned(), space.to_owned()));
    args.extend(space);
    let image = ImageBuild {
        name: "web".into(),
        repository_uri: repository.into(),
        tag: "git-1".into(),
        context: ".".into(),
        dockerfile: "Dockerfile".into(),
        target: None,
        args,
        secrets: vec![],
        registry,
    };
    build_step(vec![image])
}

async fn end(peer: &Peer, commit: &str, step: Step) -> Seen {
    let attempt = unique("shop.1.a1");
    peer.assign(assignment(&attempt, commit, vec![step]));
    peer.result(&attempt).await
}

#[tokio::test]
async fn what_a_fork_leaves_in_a_mount_nobody_else_finds_and_its_image_is_nowhere() {
    let repository = Repository::new();
    let mount = unique("mount");
    let dockerfile = DOCKERFILE.replace("MOUNT", &mount);
    let commit = repository.commit(&[
        ("Dockerfile", dockerfile.as_bytes(), false),
        ("busybox", &busybox(), true),
        ("unique", unique("u").as_bytes(), false),
    ]);
    // It has no login to give.
    let peer = Peer::start(&unique("r"), repository.path()).await;
    let data = tempfile::tempdir().unwrap();
    let runner = RunnerUnderTest::start(&peer, data.path());
    let name = unique("shop-web");
    let space = unique("pull-request");
    for (word, space, found) in [
        ("poison", Some(space.as_str()), "found: nothing"),
        ("clean", None, "found: nothing"),
        ("poison again", Some(space.as_str()), "found: poison"),
        ("after", None, "found: clean"),
    ] {
        let seen = end(&peer, &commit, step(&name, word, space, RegistryUse::None)).await;
        let log = seen.log("build");
        let result = seen.result.unwrap();
        assert_eq!(result.outcome, Outcome::Succeeded, "{log}");
        assert!(log.contains(found), "{word}: {log}");
        assert!(log.contains("pushed nowhere"), "{log}");
        assert!(result.images.is_empty(), "{:?}", result.images);
    }
    peer.until_idle().await;
    assert_eq!(docker(&["images", "-q", &name]), "", "no tag is left");

    let own = format!("# syntax=evil.example/frontend\n{dockerfile}");
    let commit = repository.commit(&[("Dockerfile", own.as_bytes(), false)]);
    let seen = end(&peer, &commit, step(&name, "x", None, RegistryUse::None)).await;
    let Some(StepState::Failed { reason, .. }) = seen.last("build") else {
        panic!("{seen:#?}")
    };
    assert!(reason.contains("names a frontend"), "{reason}");
    runner.stop().await.unwrap();
}
