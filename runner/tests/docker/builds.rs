//! Image builds: context, cache, push, digests, and what a person reads when one fails.

use crate::{
    peer::Peer,
    world::{
        REGISTRY_PASSWORD, Registry, Repository, RunnerUnderTest, assignment, build_step, busybox,
        credentials, docker, eventually, free_port, unique,
    },
};
use roadstead_protocol::{ImageBuild, Outcome, RegistryUse, StepState};
use std::{collections::BTreeMap, fs};

fn image(port: u16, repository: &str, tag: &str, dockerfile: &str) -> ImageBuild {
    ImageBuild {
        name: "web".into(),
        repository_uri: format!("127.0.0.1:{port}/{repository}"),
        tag: tag.into(),
        context: "app".into(),
        dockerfile: dockerfile.into(),
        target: None,
        args: BTreeMap::from([("WORDS".into(), "from an argument".into())]),
        secrets: vec![],
        registry: RegistryUse::Push,
    }
}

const DOCKERFILE: &[u8] = b"FROM scratch AS base
COPY busybox /bin/busybox
RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]
FROM base
ARG WORDS
ARG SOURCE_DATE_EPOCH
WORKDIR /srv
COPY . .
RUN test ! -e ignored.txt && test -x run.sh && echo \"built $WORDS at $SOURCE_DATE_EPOCH\"
CMD [\"/srv/run.sh\"]
";

#[tokio::test]
async fn an_image_is_built_from_the_commit_pushed_with_a_login_and_named_by_digest() {
    let registry = Registry::start().await;
    let repository = Repository::new();
    let busybox = busybox();
    let commit = repository.commit(&[
        ("app/Dockerfile", DOCKERFILE, false),
        ("app/busybox", &busybox, true),
        ("app/run.sh", b"#!/bin/sh\necho v1\n", true),
        ("app/ignored.txt", b"x", false),
        ("app/.dockerignore", b"ignored.txt\n", false),
    ]);
    let peer = Peer::start(&unique("r"), repository.path()).await;
    peer.set_credentials(credentials(registry.port));
    let data = tempfile::tempdir().unwrap();
    let runner = RunnerUnderTest::start(&peer, data.path());
    let name = unique("shop/web");
    let attempt = unique("shop.1.a1");
    let tag = format!("git-{commit}");
    let wanted = image(registry.port, &name, &tag, "Dockerfile");
    peer.assign(assignment(
        &attempt,
        &commit,
        vec![build_step(vec![wanted])],
    ));
    let seen = peer.result(&attempt).await;
    let log = seen.log("build");
    let result = seen.result.unwrap();
    assert_eq!(result.outcome, Outcome::Succeeded, "{log}");
    let digest = registry
        .digest(&name, &tag)
        .await
        .expect("the registry has the tag");
    assert_eq!(result.images.len(), 1);
    assert_eq!(result.images[0].digest, digest, "{log}");
    assert_eq!(
        result.images[0].repository_uri,
        format!("127.0.0.1:{}/{name}", registry.port)
    );
    let made = repository.made(&commit);
    let built = format!("built from an argument at {made}");
    assert!(log.contains(&built), "{log}");
    assert!(log.contains(&digest), "{log}");
    assert!(!log.contains(REGISTRY_PASSWORD), "{log}");

    // One file changes: only what lies behind it is built, and only the difference is fetched.
    let second = repository.commit(&[("app/run.sh", b"#!/bin/sh\necho v2\n", true)]);
    let attempt = unique("shop.2.a1");
    let tag = format!("git-{second}");
    let wanted = image(registry.port, &name, &tag, "Dockerfile");
    peer.assign(assignment(
        &attempt,
        &second,
        vec![build_step(vec![wanted])],
    ));
    let seen = peer.result(&attempt).await;
    let log = seen.log("build");
    assert_eq!(seen.haves, [Some(commit)]);
    assert!(log.contains("CACHED"), "{log}");
    let result = seen.result.unwrap();
    let second_digest = registry.digest(&name, &tag).await.unwrap();
    assert_eq!(result.images[0].digest, second_digest, "{log}");
    assert_ne!(second_digest, digest);

    peer.until_idle().await;
    let left = docker(&[
        "images",
        "-q",
        &format!("127.0.0.1:{}/{name}", registry.port),
    ]);
    assert_eq!(left, "", "images pile up");
    runner.stop().await.unwrap();
}

#[tokio::test]
async fn a_failing_build_names_the_instruction_and_shows_its_output() {
    let repository = Repository::new();
    let busybox = busybox();
    let failing = b"FROM scratch
COPY busybox /bin/sh
RUN echo the-output-tells; exit 4
";
    let commit = repository.commit(&[
        ("app/Dockerfile", failing, false),
        ("app/Nonsense", b"FROM scratch\nFETCH everything\n", false),
        ("app/busybox", &busybox, true),
    ]);
    let port = free_port();
    let peer = Peer::start(&unique("r"), repository.path()).await;
    peer.set_credentials(credentials(port));
    let data = tempfile::tempdir().unwrap();
    let runner = RunnerUnderTest::start(&peer, data.path());
    for (dockerfile, expected) in [
        (
            "Dockerfile",
            vec![
                "RUN echo the-output-tells; exit 4",
                "exit code: 4",
                "\nthe-output-tells",
            ],
        ),
        ("Nonsense", vec!["unknown instruction: FETCH"]),
        (
            "Missing",
            vec!["the Dockerfile `Missing` is not in the context folder `app`"],
        ),
    ] {
        let attempt = unique("shop.1.a1");
        let wanted = image(port, "shop/web", "git-1", dockerfile);
        peer.assign(assignment(
            &attempt,
            &commit,
            vec![build_step(vec![wanted])],
        ));
        let seen = peer.result(&attempt).await;
        let Some(StepState::Failed {
            exit_code: None,
            reason,
        }) = seen.last("build")
        else {
            panic!("{dockerfile}: {seen:#?}");
        };
        for words in expected {
            assert!(
                reason.contains(words),
                "{dockerfile}: {words:?} not in {reason:?}"
            );
        }
        assert!(reason.starts_with("image `web`: "), "{reason}");
        assert!(matches!(
            seen.result.unwrap().outcome,
            Outcome::Failed { .. }
        ));
    }
    runner.stop().await.unwrap();
}

#[tokio::test]
async fn a_registry_that_is_down_is_tried_again_and_one_that_refuses_is_not() {
    let repository = Repository::new();
    let commit = repository.commit(&[(
        "app/Dockerfile",
        b"FROM scratch\nCOPY Dockerfile /x\n",
        false,
    )]);
    let peer = Peer::start(&unique("r"), repository.path()).await;
    let data = tempfile::tempdir().unwrap();
    let runner = RunnerUnderTest::start(&peer, data.path());
    let name = unique("shop/web");
    // Another process may take the port before the registry does; then the story begins again.
    let registry = loop {
        let port = free_port();
        peer.set_credentials(credentials(port));
        let attempt = unique("shop.1.a1");
        let wanted = image(port, &name, "git-1", "Dockerfile");
        peer.assign(assignment(
            &attempt,
            &commit,
            vec![build_step(vec![wanted])],
        ));
        peer.until(&attempt, "the log tells of the registry", |seen| {
            seen.log("build").contains("trying again")
        })
        .await;
        let Some(registry) = Registry::start_on(port).await else {
            peer.cancel(&attempt);
            peer.result(&attempt).await;
            continue;
        };
        let seen = peer.result(&attempt).await;
        let result = seen.result.clone().unwrap();
        assert_eq!(result.outcome, Outcome::Succeeded, "{}", seen.log("build"));
        assert_eq!(
            Some(&result.images[0].digest),
            registry.digest(&name, "git-1").await.as_ref()
        );
        break registry;
    };

    let mut wrong = credentials(registry.port);
    wrong.password = "not-the-password".into();
    peer.set_credentials(wrong);
    let attempt = unique("shop.2.a1");
    let wanted = image(registry.port, &name, "git-2", "Dockerfile");
    peer.assign(assignment(
        &attempt,
        &commit,
        vec![build_step(vec![wanted])],
    ));
    let seen = peer.result(&attempt).await;
    let Some(StepState::Failed { reason, .. }) = seen.last("build") else {
        panic!("{seen:#?}")
    };
    assert!(reason.contains("could not be pushed"), "{reason}");
    assert!(
        seen.log("build").contains("fetching a fresh login"),
        "{}",
        seen.log("build")
    );
    assert_eq!(registry.digest(&name, "git-2").await, None);
    runner.stop().await.unwrap();
}

/// Whether a process of this machine has `word` among its arguments.
fn runs_somewhere(word: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap();
    processes.flatten().any(|process| {
        // Processes end while one looks at them.
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        arguments
            .split(|byte| *byte == 0)
            .any(|argument| argument == word.as_bytes())
    })
}

#[tokio::test]
async fn a_cancelled_build_stops_in_the_engine_too() {
    let repository = Repository::new();
    let seconds = format!("{}", 100_000 + u64::from(rand::random::<u32>()));
    let dockerfile = format!(
        "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"sleep\", \"{seconds}\"]\n"
    );
    let commit = repository.commit(&[
        ("app/Dockerfile", dockerfile.as_bytes(), false),
        ("app/busybox", &busybox(), true),
    ]);
    let port = free_port();
    let peer = Peer::start(&unique("r"), repository.path()).await;
    peer.set_credentials(credentials(port));
    let data = tempfile::tempdir().unwrap();
    let runner = RunnerUnderTest::start(&peer, data.path());
    let attempt = unique("shop.1.a1");
    let wanted = image(port, "shop/web", "git-1", "Dockerfile");
    peer.assign(assignment(
        &attempt,
        &commit,
        vec![build_step(vec![wanted])],
    ));
    eventually("the instruction runs", || runs_somewhere(&seconds)).await;
    peer.cancel(&attempt);
    let seen = peer.result(&attempt).await;
    assert_eq!(seen.last("build"), Some(&StepState::Cancelled));
    assert_eq!(seen.result.unwrap().outcome, Outcome::Cancelled);
    eventually("the instruction is stopped", || !runs_somewhere(&seconds)).await;
    runner.stop().await.unwrap();
}
