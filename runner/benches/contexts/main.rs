//! `cargo bench --package roadstead-runner`: how long a build of an image with many files takes, beside
//! `docker build` of the same files (`DOCKER_BUILDKIT=1`), cold and warm.
//!
//! A real runner, an engine and a registry, as in its tests. Each attempt unpacks its files anew, so that
//! every file is fresh for the runner; those of Docker's client stay where they are. The clock of Docker's
//! client is its process, that of the runner what the step's log says, from opening the session to the image.
//! Owns the order of turns: who begins alternates, and no two repositories share a file.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on panics")]
#![expect(dead_code, reason = "the tests' world can do more than is needed here")]

#[path = "../../tests/docker/client.rs"]
mod client;
#[path = "../../tests/docker/peer.rs"]
mod peer;
#[path = "../../tests/docker/world.rs"]
mod world;

use client::docker_client;
use peer::Peer;
use roadstead_protocol::{ImageBuild, Outcome, RegistryUse, Step, StepAction};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use world::{
    BaseImage, Registry, Repository, RunnerUnderTest, assignment, credentials, run_step, unique,
};

/// Files and bytes of each.
const CASES: [(usize, usize); 3] = [(100, 20_000), (1_800, 100_000), (50_000, 3_660)];
const DOCKERFILE: &str = "FROM scratch\nCOPY files /files\nCOPY small /small\n";

/// Times of one side, in the order of turns.
#[derive(Default)]
struct Times {
    cold: Vec<Duration>,
    warm: Vec<Duration>,
}

/// One repository: files that nobody has seen.
struct Sources {
    folder: tempfile::TempDir,
    repository: Repository,
    archive: Vec<u8>,
}

impl Sources {
    fn new(files: usize, bytes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        for number in 0..files {
            let mut content: Vec<u8> = (0..bytes / 2).map(|_| rand::random()).collect();
            content.resize(bytes, b'x');
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes as u64);
            header.set_mode(0o644);
            let path = format!("files/{:03}/{number}", number / 100);
            archive
                .append_data(&mut header, path, content.as_slice())
                .unwrap();
        }
        Self {
            folder,
            repository: Repository::new(),
            archive: archive.into_inner().unwrap(),
        }
    }

    fn context(&self) -> PathBuf {
        self.folder.path().join("app")
    }

    /// Unpacks the files for Docker's client, which then finds them where they are.
    fn unpack(&self) {
        let app = self.context();
        fs::create_dir(&app).unwrap();
        tar::Archive::new(self.archive.as_slice())
            .unpack(&app)
            .unwrap();
        fs::write(app.join("Dockerfile"), DOCKERFILE).unwrap();
    }

    fn commit(&self, small: &str) -> String {
        self.repository.commit(&[
            ("files.tar", &self.archive, false),
            ("app/Dockerfile", DOCKERFILE.as_bytes(), false),
            ("app/small", small.as_bytes(), false),
        ])
    }
}

async fn of_roadstead(peer: &Peer, base: &BaseImage, commit: &str, port: u16) -> Duration {
    let image = ImageBuild {
        name: "app".into(),
        repository_uri: format!("127.0.0.1:{port}/bench"),
        tag: unique("t"),
        context: "app".into(),
        dockerfile: "Dockerfile".into(),
        target: None,
        args: BTreeMap::new(),
        secrets: vec![],
        registry: RegistryUse::Push,
    };
    let build = Step {
        name: "build".into(),
        needs: vec!["unpack".into()],
        timeout_seconds: 900,
        retry: 0,
        artifacts_from: vec![],
        action: StepAction::Build {
            images: vec![image],
        },
    };
    let unpack = run_step("unpack", &[], base, "tar xf files.tar -C app");
    let attempt = unique("bench.1.a1");
    peer.assign(assignment(&attempt, commit, vec![unpack, build]));
    let seen = peer.result(&attempt).await;
    let log = seen.log("build");
    assert_eq!(seen.result.unwrap().outcome, Outcome::Succeeded, "{log}");
    let (_, rest) = log.split_once("built in ").unwrap();
    let (seconds, _) = rest.split_once(" s:").unwrap();
    Duration::from_secs_f64(seconds.parse().unwrap())
}

fn of_docker(context: &Path, small: &str) -> Duration {
    fs::write(context.join("small"), small).unwrap();
    let tag = unique("roadstead-bench");
    let began = Instant::now();
    let output = Command::new(docker_client())
        .args(["build", "--quiet", "--tag", &tag])
        .arg(context)
        .env("DOCKER_BUILDKIT", "1")
        .output()
        .unwrap();
    let took = began.elapsed();
    assert!(output.status.success(), "{output:?}");
    let removed = Command::new("docker").args(["rmi", "-f", &tag]).output();
    assert!(removed.unwrap().status.success());
    took
}

/// Median, and in brackets the smallest and the largest.
fn figures(times: &[Duration]) -> String {
    let mut seconds: Vec<_> = times.iter().map(Duration::as_secs_f64).collect();
    seconds.sort_by(f64::total_cmp);
    let middle = f64::midpoint(seconds[(seconds.len() - 1) / 2], seconds[seconds.len() / 2]);
    let last = seconds.last().unwrap();
    format!("{middle:.2} ({:.2}–{last:.2})", seconds[0])
}

async fn measure(files: usize, bytes: usize, pairs: usize) {
    let registry = Registry::start().await;
    let base = BaseImage::build();
    let (mut docker, mut roadstead) = (Times::default(), Times::default());
    for pair in 0..pairs {
        let theirs = Sources::new(files, bytes);
        theirs.unpack();
        let ours = Sources::new(files, bytes);
        let commits = ["one", "two"].map(|small| ours.commit(&format!("{small} {pair}")));
        let peer = Peer::start(&unique("r"), ours.repository.path()).await;
        peer.set_credentials(credentials(registry.port));
        let data = tempfile::tempdir().unwrap();
        let runner = RunnerUnderTest::start(&peer, data.path());
        for warm in [false, true] {
            let commit = &commits[usize::from(warm)];
            for turn in 0..2 {
                if (turn == 0) == (pair % 2 == 0) {
                    let took = of_docker(&theirs.context(), commit);
                    if warm {
                        &mut docker.warm
                    } else {
                        &mut docker.cold
                    }
                    .push(took);
                } else {
                    let took = of_roadstead(&peer, &base, commit, registry.port).await;
                    if warm {
                        &mut roadstead.warm
                    } else {
                        &mut roadstead.cold
                    }
                    .push(took);
                }
            }
        }
        runner.stop().await.unwrap();
    }
    let megabytes = files * bytes / 1_000_000;
    println!("| files | | `docker build` | Roadstead |\n|---|---|---|---|");
    for (state, docker, roadstead) in [
        ("cold", &docker.cold, &roadstead.cold),
        ("warm", &docker.warm, &roadstead.warm),
    ] {
        let (docker, roadstead) = (figures(docker), figures(roadstead));
        println!("| {files}, {megabytes} MB | {state} | {docker} | {roadstead} |");
    }
}

fn main() {
    let pairs = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .next();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (files, bytes) in CASES {
        runtime.block_on(measure(files, bytes, pairs.unwrap_or(5)));
    }
}
