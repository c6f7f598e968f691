//! Secrets of image builds: who gets them, and where they are not.

use crate::{
    peer::{Peer, Seen},
    world::{
        Registry, Repository, RunnerUnderTest, assignment, build_step, busybox, credentials, unique,
    },
};
use roadstead_protocol::{ImageBuild, ImageSecret, Outcome, RegistryUse, Secrets, Step, StepState};
use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
};

const DOCKERFILE: &str = r#"FROM scratch
COPY busybox /bin/busybox
SHELL ["/bin/busybox", "sh", "-euc"]
RUN --mount=type=secret,id=TOKEN,required=true \
    --mount=type=secret,id=staging.KEY,target=/key,required=true \
    echo NONCE; \
    echo "the token is $(/bin/busybox cat /run/secrets/TOKEN)"; \
    echo "they have $(/bin/busybox cat /run/secrets/TOKEN /key | /bin/busybox wc -c) bytes"; \
    /bin/busybox md5sum /run/secrets/TOKEN > /made-with-it
"#;

fn step(port: u16, repository: &str, dockerfile: &str) -> Step {
    let secret = |secret: &str| ImageSecret {
        secret: secret.into(),
        id: secret.replace('/', "."),
    };
    let image = ImageBuild {
        name: "web".into(),
        repository_uri: format!("127.0.0.1:{port}/{repository}"),
        tag: "1".into(),
        context: "app".into(),
        dockerfile: dockerfile.into(),
        target: None,
        args: BTreeMap::new(),
        secrets: vec![secret("TOKEN"), secret("staging/KEY")],
        registry: RegistryUse::Push,
    };
    build_step(vec![image])
}

async fn end(peer: &Peer, commit: &str, step: Step) -> Seen {
    let attempt = unique("shop.1.a1");
    peer.assign(assignment(&attempt, commit, vec![step]));
    peer.result(&attempt).await
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn a_secret_is_mounted_and_is_in_no_layer_no_history_and_no_log() {
    let registry = Registry::start().await;
    let repository = Repository::new();
    // What an instruction mounts is nothing to the cache, in which one of an earlier test is.
    let dockerfile = DOCKERFILE.replace("NONCE", &unique("n"));
    let other = dockerfile.replace("id=TOKEN", "id=UNLISTED");
    let failing = dockerfile.replace("    /bin/busybox md5sum", "    exit 3; /bin/busybox md5sum");
    let commit = repository.commit(&[
        ("app/Failing", failing.as_bytes(), false),
        ("app/Dockerfile", dockerfile.as_bytes(), false),
        ("app/Other", other.as_bytes(), false),
        ("app/busybox", &busybox(), true),
        ("app/unique", unique("u").as_bytes(), false),
    ]);
    let token = unique("token");
    let key = format!("{}\nof two lines\n", unique("key"));
    let told = Secrets {
        values: BTreeMap::from([
            ("TOKEN".to_owned(), token.clone()),
            ("staging/KEY".to_owned(), key.clone()),
        ]),
        withheld: BTreeMap::new(),
    };
    let peer = Peer::start(&unique("r"), repository.path()).await;
    peer.set_credentials(credentials(registry.port));
    peer.set_secrets(told.clone());
    let data = tempfile::tempdir().unwrap();
    let runner = RunnerUnderTest::start(&peer, data.path());
    let name = unique("shop/web");

    let seen = end(&peer, &commit, step(registry.port, &name, "Dockerfile")).await;
    let log = seen.log("build");
    assert_eq!(seen.result.unwrap().outcome, Outcome::Succeeded, "{log}");
    assert!(log.contains("the token is ***"), "{log}");
    let bytes = token.len() + key.len();
    assert!(log.contains(&format!("they have {bytes} bytes")), "{log}");
    assert!(!log.contains(&token), "{log}");
    let config = registry.image_config(&name, "1").await;
    assert!(holds(&config, "made-with-it"), "it tells the history");
    let layers = registry.layers(&name, "1").await;
    let mut all = vec![config];
    for layer in layers {
        let mut bytes = Vec::new();
        let mut unpacked = flate2::read::GzDecoder::new(Cursor::new(layer));
        unpacked.read_to_end(&mut bytes).unwrap();
        all.push(bytes);
    }
    assert!(all.iter().any(|bytes| holds(bytes, "/run/secrets/TOKEN")));
    for bytes in &all {
        assert!(!holds(bytes, &token) && !holds(bytes, key.trim_end()));
    }

    let seen = end(&peer, &commit, step(registry.port, &name, "Other")).await;
    let Some(StepState::Failed { reason, .. }) = seen.last("build") else {
        panic!("{seen:#?}")
    };
    assert!(
        reason.contains("UNLISTED") && reason.contains("not found"),
        "{reason}"
    );

    let seen = end(&peer, &commit, step(registry.port, &name, "Failing")).await;
    let Some(StepState::Failed { reason, .. }) = seen.last("build") else {
        panic!("{seen:#?}")
    };
    assert!(reason.contains("exit code: 3"), "{reason}");
    assert!(reason.contains("the token is ***"), "its output: {reason}");
    let told_of_run = format!("{:?}", seen.result);
    assert!(!reason.contains(&token) && !told_of_run.contains(&token));

    let mut withheld = told;
    withheld.values.remove("TOKEN");
    let why = "it is for branch `main` alone";
    withheld.withheld.insert("TOKEN".into(), why.into());
    peer.set_secrets(withheld);
    let seen = end(&peer, &commit, step(registry.port, &name, "Dockerfile")).await;
    let Some(StepState::Failed { reason, .. }) = seen.last("build") else {
        panic!("{seen:#?}")
    };
    let expected = format!("image `web` does not get secret `TOKEN`: {why}");
    assert_eq!(*reason, expected);
    runner.stop().await.unwrap();
}
