//! The files of image builds: what arrives, what is sent again, which times they have.

use crate::{
    client::docker_client,
    peer::{Peer, Seen},
    world::{
        BaseImage, Registry, Repository, RunnerUnderTest, assignment, build_step, busybox,
        copy_busybox, credentials, run_step, unique,
    },
};
use roadstead_protocol::{ImageBuild, Outcome, RegistryUse, Step};
use std::{
    collections::BTreeMap,
    fs,
    io::{Cursor, Read},
    path::Path,
    process::Command,
};

/// Lists a context as it arrived. The argument is new in every build, so that no cache keeps the list.
const LISTING: &str = r#"FROM scratch
COPY busybox /bin/busybox
COPY . /context
ARG NONCE
RUN ["/bin/busybox", "sh", "-c", "cd /context; B=/bin/busybox; echo $NONCE; $B find . -type d -exec $B stat -c 'entry %n %f %u %g' {} ';'; $B find . ! -type d -exec $B stat -c 'entry %n %f %u %g %s %N' {} ';'; $B find . -type f -exec $B md5sum {} ';' | $B sed 's/^/entry /'"]
"#;

/// What steps and people may leave in a folder.
const LEFTOVERS: &str = r"cd app
mkdir -p empty deep/er/est one.d kept/sub src/a src/b logs/keep
echo 1 > one; echo 2 > one.d/two; echo 3 > one-more; echo 4 > deep/er/est/file
chmod 4755 one; chmod 1777 empty; chmod 600 one-more; chmod 700 deep/er
ln -s /etc/passwd absolute; ln -s ../../.. out; ln -s deep/er/est/file inside; ln -s nowhere dangling
ln one hard; ln deep/er/est/file deep/again
mkfifo pipe
echo k > kept/a.txt; echo k > kept/sub/b.txt; echo k > kept/sub/c.log
echo s > src/a/main.rs; echo s > src/a/test.rs; echo s > src/b/main.rs
echo l > logs/1.log; echo l > logs/keep/2.log; echo l > logs/keep/3.txt
echo g > 'grüße und mehr.txt'; echo q > 'quoted [x] $y.txt'";

const IGNORES: [&str; 6] = [
    "",
    "**/*.log\n!logs/keep/2.log\nempty\n",
    "*\n!busybox\n!Dockerfile\n!kept/sub\nkept/sub/*.log\n!src/a/main.rs\n",
    "# nothing but\n  deep/er  \n./one.d/\n/one-more\nsrc/?/test.rs\n\n[h-i]*\nDockerfile\n.dockerignore\n",
    "**\n!busybox\n!kept/**\n!gr*\n!logs/keep/[23].*\n",
    "kept\n!kept/sub/b.txt\n**/est\nout\nabsolute\nquoted*\\$y.txt\n",
];

fn image(port: u16, repository: &str, tag: &str, args: &[(&str, &str)]) -> ImageBuild {
    let args = args.iter();
    ImageBuild {
        name: "web".into(),
        repository_uri: format!("127.0.0.1:{port}/{repository}"),
        tag: tag.into(),
        context: "app".into(),
        dockerfile: "Dockerfile".into(),
        target: None,
        args: args
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect::<BTreeMap<_, _>>(),
        secrets: vec![],
        registry: RegistryUse::Push,
    }
}

fn build_after(needs: &[&str], image: ImageBuild) -> Step {
    Step {
        needs: needs.iter().map(ToString::to_string).collect(),
        ..build_step(vec![image])
    }
}

/// Runs `steps` to a good end and gives the log of the one that builds.
async fn built(peer: &Peer, commit: &str, steps: Vec<Step>) -> (Seen, String) {
    let attempt = unique("shop.1.a1");
    peer.assign(assignment(&attempt, commit, steps));
    let seen = peer.result(&attempt).await;
    let log = seen.log("build");
    let outcome = &seen.result.as_ref().unwrap().outcome;
    assert_eq!(*outcome, Outcome::Succeeded, "{log}");
    (seen, log)
}

/// The listing that Docker's client gets for `folder`.
fn listing_of_docker(folder: &Path) -> Vec<String> {
    let tag = unique("roadstead-test-context");
    let output = Command::new(docker_client())
        .args(["build", "--progress=plain", "-t", &tag, "--build-arg"])
        .arg(format!("NONCE={}", unique("n")))
        .arg(folder)
        .env("DOCKER_BUILDKIT", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let _ = Command::new("docker").args(["rmi", "-f", &tag]).output();
    listing(&text)
}

fn listing(log: &str) -> Vec<String> {
    let entries = log.lines().filter_map(|line| line.split_once("entry "));
    let mut entries: Vec<_> = entries.map(|(_, entry)| entry.to_owned()).collect();
    // The instruction's own text is printed, too.
    entries.retain(|entry| entry.contains("./") || entry.starts_with(". "));
    entries.sort();
    entries
}

#[tokio::test]
async fn a_context_arrives_as_dockers_own_client_sends_it() {
    let registry = Registry::start().await;
    let base = BaseImage::build();
    let repository = Repository::new();
    let busybox = busybox();
    let peer = Peer::start(&unique("r"), repository.path()).await;
    peer.set_credentials(credentials(registry.port));
    let data = tempfile::tempdir().unwrap();
    let runner = RunnerUnderTest::start(&peer, data.path());
    let name = unique("shop/web");
    for ignore in IGNORES {
        let commit = repository.commit(&[
            ("app/Dockerfile", LISTING.as_bytes(), false),
            ("app/busybox", &busybox, true),
            ("app/.dockerignore", ignore.as_bytes(), false),
        ]);
        let nonce = unique("n");
        let image = image(registry.port, &name, &nonce, &[("NONCE", &nonce)]);
        let steps = vec![
            run_step("leave", &[], &base, LEFTOVERS),
            build_after(&["leave"], image),
        ];
        let (_, log) = built(&peer, &commit, steps).await;
        let ours = listing(&log);

        let folder = tempfile::tempdir().unwrap();
        let app = folder.path().join("app");
        fs::create_dir(&app).unwrap();
        fs::write(app.join("Dockerfile"), LISTING).unwrap();
        fs::write(app.join(".dockerignore"), ignore).unwrap();
        copy_busybox(&app.join("busybox"));
        let left = Command::new("/bin/busybox")
            .args(["sh", "-euc", LEFTOVERS])
            .current_dir(folder.path())
            .status();
        assert!(left.unwrap().success());
        let theirs = listing_of_docker(&app);
        assert!(theirs.len() > 4, "{theirs:#?}");
        let difference: Vec<_> = ours
            .iter()
            .filter(|entry| !theirs.contains(entry))
            .chain(theirs.iter().filter(|entry| !ours.contains(entry)))
            .collect();
        assert_eq!(ours, theirs, "{ignore:?}: {difference:#?}");
    }
    runner.stop().await.unwrap();
}

/// How many bytes of the context were sent, as the log tells it.
fn transferred(log: &str) -> f64 {
    let lines = log.lines();
    let amounts = lines.filter_map(|line| line.split_once("transferring context: "));
    // `.dockerignore` comes by itself.
    amounts
        .map(|(_, amount)| {
            let (number, unit) = amount.split_once(' ').unwrap();
            let factor = match unit {
                "B" => 1.0,
                "kB" => 1e3,
                "MB" => 1e6,
                other => panic!("{other}"),
            };
            number.parse::<f64>().unwrap() * factor
        })
        .reduce(f64::max)
        .unwrap_or_else(|| panic!("{log}"))
}

const WORD: &str = r#"FROM scratch
COPY busybox /bin/busybox
COPY . /context
RUN ["/bin/busybox", "sh", "-c", "echo the word is $(/bin/busybox cat /context/word)"]
"#;

#[tokio::test]
async fn only_what_changed_is_sent_and_the_size_does_not_tell() {
    let registry = Registry::start().await;
    let repository = Repository::new();
    let data: Vec<u8> = (0..2_000_000).map(|_| rand::random()).collect();
    let first = repository.commit(&[
        ("app/Dockerfile", WORD.as_bytes(), false),
        ("app/busybox", &busybox(), true),
        ("app/data", &data, false),
        ("app/word", b"one", false),
    ]);
    let second = repository.commit(&[("app/word", b"two", false)]);
    let peer = Peer::start(&unique("r"), repository.path()).await;
    peer.set_credentials(credentials(registry.port));
    let folder = tempfile::tempdir().unwrap();
    let runner = RunnerUnderTest::start(&peer, folder.path());
    let name = unique("shop/web");
    let build = |commit: String, tag: &'static str| {
        let step = build_after(&[], image(registry.port, &name, tag, &[]));
        let peer = &peer;
        async move { built(peer, &commit, vec![step]).await }
    };
    let (_, log) = build(first.clone(), "1").await;
    assert!(log.contains("the word is one"), "{log}");
    assert!(transferred(&log) > 2e6, "{log}");
    let (_, log) = build(second, "2").await;
    assert!(log.contains("the word is two"), "{log}");
    assert!(transferred(&log) < 1e5, "{log}");
    // The first commit's word again, for which no instruction has to run.
    let (one, log) = build(first, "3").await;
    assert!(transferred(&log) < 1e5, "{log}");
    assert!(
        log.contains("CACHED") && !log.contains("the word is o"),
        "{log}"
    );
    let digests = one.result.unwrap().images;
    assert_eq!(
        Some(&digests[0].digest),
        registry.digest(&name, "3").await.as_ref()
    );
    runner.stop().await.unwrap();
}

#[tokio::test]
async fn layers_hold_whole_seconds_of_one_day() {
    let registry = Registry::start().await;
    let repository = Repository::new();
    let random: [u8; 32] = rand::random();
    let commit = repository.commit(&[
        ("app/Dockerfile", b"FROM scratch\nCOPY . /context\n", false),
        ("app/some", &random, false),
        ("app/folder/other", b"other", false),
    ]);
    let peer = Peer::start(&unique("r"), repository.path()).await;
    peer.set_credentials(credentials(registry.port));
    let name = unique("shop/web");
    let mut layers = Vec::new();
    for tag in ["1", "2"] {
        // Each is a runner of its own, which agrees with the other on no nanosecond.
        let data = tempfile::tempdir().unwrap();
        let runner = RunnerUnderTest::start(&peer, data.path());
        let step = build_after(&[], image(registry.port, &name, tag, &[]));
        built(&peer, &commit, vec![step]).await;
        runner.stop().await.unwrap();
        layers.push(registry.layers(&name, tag).await);
    }
    assert_eq!(layers[0], layers[1]);
    let mut files = 0;
    for layer in &layers[0] {
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(Cursor::new(layer)));
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            if !entry.header().entry_type().is_file() {
                continue;
            }
            files += 1;
            let second = entry.header().mtime().unwrap();
            assert!(
                (315_532_800..315_532_800 + 86_400).contains(&second),
                "{second}"
            );
            let extensions = entry.pax_extensions().unwrap().into_iter().flatten();
            let keys: Vec<_> = extensions
                .map(|extension| extension.unwrap().key().unwrap().to_owned())
                .collect();
            assert!(!keys.contains(&"mtime".to_owned()), "{keys:?}");
            entry.read_to_end(&mut Vec::new()).unwrap();
        }
    }
    assert_eq!(files, 3);
}

fn sockets() -> usize {
    let files = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = files.filter_map(|file| fs::read_link(file.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

#[tokio::test]
async fn builds_leave_no_connection_behind() {
    let registry = Registry::start().await;
    let repository = Repository::new();
    let commit = repository.commit(&[
        ("app/Dockerfile", b"FROM scratch\nCOPY . /context\n", false),
        ("app/Wrong", b"FROM scratch\nCOPY missing /x\n", false),
    ]);
    let peer = Peer::start(&unique("r"), repository.path()).await;
    peer.set_credentials(credentials(registry.port));
    let data = tempfile::tempdir().unwrap();
    let runner = RunnerUnderTest::start(&peer, data.path());
    let name = unique("shop/web");
    let build = async |dockerfile: &str| {
        let mut image = image(registry.port, &name, &unique("t"), &[]);
        image.dockerfile = dockerfile.to_owned();
        let attempt = unique("shop.1.a1");
        peer.assign(assignment(&attempt, &commit, vec![build_after(&[], image)]));
        peer.result(&attempt).await.result.unwrap().outcome
    };
    build("Dockerfile").await;
    let before = sockets();
    for _ in 0..4 {
        assert_eq!(build("Dockerfile").await, Outcome::Succeeded);
        assert!(matches!(build("Wrong").await, Outcome::Failed { .. }));
    }
    // Two for each build would be sixteen; a few are kept open for later calls.
    crate::world::eventually("the builds' connections are closed", || {
        sockets() < before + 8
    })
    .await;
    runner.stop().await.unwrap();
}

const OUTSIDE: &str = r#"FROM scratch
COPY busybox /bin/busybox
COPY . /context
RUN ["/bin/busybox", "sh", "-c", "cd /context && /bin/busybox test -e kept -a ! -e dropped && echo as its own file says"]
"#;

#[tokio::test]
async fn a_dockerfile_outside_of_its_context_brings_its_own_ignore_file() {
    let registry = Registry::start().await;
    let repository = Repository::new();
    let commit = repository.commit(&[
        ("docker/web.Dockerfile", OUTSIDE.as_bytes(), false),
        ("docker/web.Dockerfile.dockerignore", b"dropped\n", false),
        ("app/.dockerignore", b"kept\n", false),
        ("app/busybox", &busybox(), true),
        ("app/kept", unique("k").as_bytes(), false),
        ("app/dropped", b"", false),
    ]);
    let peer = Peer::start(&unique("r"), repository.path()).await;
    peer.set_credentials(credentials(registry.port));
    let data = tempfile::tempdir().unwrap();
    let runner = RunnerUnderTest::start(&peer, data.path());
    let mut image = image(registry.port, &unique("shop/web"), "1", &[]);
    image.dockerfile = "../docker/web.Dockerfile".to_owned();
    let (_, log) = built(&peer, &commit, vec![build_after(&[], image)]).await;
    assert!(log.contains("as its own file says\n"), "{log}");
    runner.stop().await.unwrap();
}
