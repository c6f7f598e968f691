//! The world around a runner under test: a repository, a base image, a registry, the runner
//! itself. Everything has a name of its own and is removed when its value is dropped.

use crate::peer::{PATIENCE, Peer, REGISTRATION_TOKEN};
use roadstead_protocol::*;
use roadstead_runner::{Config, Ends, Secret, StepMost, Url};
use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::{runtime::Runtime, task::JoinHandle};

/// A name that no other test or run of tests has.
pub(crate) fn unique(prefix: &str) -> String {
    format!("{prefix}-{:08x}", rand::random::<u32>())
}

/// Output of `docker` with `arguments`, which must succeed.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker")
        .args(arguments)
        .output()
        .expect("docker's client is installed");
    assert!(
        output.status.success(),
        "docker {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Containers and networks that carry the attempt's label.
pub(crate) fn left_of(attempt: &str) -> Vec<String> {
    let filter = format!("label=roadstead.attempt={attempt}");
    let containers = docker(&["ps", "-aq", "--filter", &filter]);
    let networks = docker(&["network", "ls", "-q", "--filter", &filter]);
    containers
        .lines()
        .chain(networks.lines())
        .map(str::to_owned)
        .collect()
}

/// The volumes of the attempt's containers.
pub(crate) fn volumes_of(attempt: &str) -> Vec<String> {
    let filter = format!("label=roadstead.attempt={attempt}");
    let containers = docker(&["ps", "-aq", "--filter", &filter]);
    let volumes = containers.lines().map(|container| {
        let format = "{{range .Mounts}}{{if eq .Type \"volume\"}}{{.Name}} {{end}}{{end}}";
        docker(&["inspect", "-f", format, container])
    });
    let volumes: Vec<_> = volumes.collect();
    let names = volumes.iter().flat_map(|names| names.split_whitespace());
    names.map(str::to_owned).collect()
}

/// Checks until `holds`, for at most [`PATIENCE`].
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// An image of its own tag with a static busybox, the shell of all steps here.
pub(crate) struct BaseImage(pub(crate) String);

impl BaseImage {
    pub(crate) fn build() -> Self {
        Self::build_with("")
    }

    /// One whose containers bring a volume of their own.
    pub(crate) fn with_volume() -> Self {
        Self::build_with("VOLUME /cache\n")
    }

    fn build_with(instruction: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy_busybox(&folder.path().join("busybox"));
        let dockerfile = format!(
            "FROM scratch\nCOPY busybox /bin/busybox\n\
             RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n{instruction}"
        );
        fs::write(folder.path().join("Dockerfile"), dockerfile).unwrap();
        let tag = unique("roadstead-test-base");
        docker(&["build", "-q", "-t", &tag, folder.path().to_str().unwrap()]);
        Self(tag)
    }
}

impl Drop for BaseImage {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "-f", &self.0]).output();
    }
}

pub(crate) fn copy_busybox(to: &Path) {
    fs::copy("/bin/busybox", to).expect("busybox-static is installed");
}

pub(crate) fn busybox() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    copy_busybox(&folder.path().join("busybox"));
    fs::read(folder.path().join("busybox")).unwrap()
}

/// A repository that grows by whole trees.
pub(crate) struct Repository {
    folder: tempfile::TempDir,
    repository: git2::Repository,
}

impl Repository {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repository = git2::Repository::init(folder.path()).unwrap();
        Self { folder, repository }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// When a commit was made, in seconds since 1970.
    pub(crate) fn made(&self, commit: &str) -> i64 {
        let commit = git2::Oid::from_str(commit).unwrap();
        self.repository
            .find_commit(commit)
            .unwrap()
            .time()
            .seconds()
    }

    /// Adds `files` (path, content, executable) to what is there and commits.
    pub(crate) fn commit(&self, files: &[(&str, &[u8], bool)]) -> String {
        let mut index = self.repository.index().unwrap();
        for (path, content, executable) in files {
            let entry = git2::IndexEntry {
                ctime: git2::IndexTime::new(0, 0),
                mtime: git2::IndexTime::new(0, 0),
                dev: 0,
                ino: 0,
                mode: if *executable { 0o100755 } else { 0o100644 },
                uid: 0,
                gid: 0,
                file_size: 0,
                id: git2::Oid::ZERO_SHA1,
                flags: 0,
                flags_extended: 0,
                path: path.as_bytes().to_vec(),
            };
            index.add_frombuffer(&entry, content).unwrap();
        }
        let tree = self
            .repository
            .find_tree(index.write_tree().unwrap())
            .unwrap();
        index.write().unwrap();
        let author = git2::Signature::now("tester", "tester@example.org").unwrap();
        let parent = self
            .repository
            .head()
            .ok()
            .map(|head| head.peel_to_commit().unwrap());
        let parents: Vec<_> = parent.iter().collect();
        self.repository
            .commit(Some("HEAD"), &author, &author, "test", &tree, &parents)
            .unwrap()
            .to_string()
    }
}

/// An assignment of `steps` at `commit`.
pub(crate) fn assignment(attempt: &str, commit: &str, steps: Vec<Step>) -> Assignment {
    Assignment {
        attempt: AttemptRef {
            attempt: attempt.to_owned(),
            fence: 7,
        },
        token: format!("token-of-{attempt}"),
        project: "shop".into(),
        run: "shop.12".into(),
        commit: commit.to_owned(),
        git_ref: "refs/heads/main".into(),
        steps,
    }
}

/// Step `build`, which builds `images`.
pub(crate) fn build_step(images: Vec<ImageBuild>) -> Step {
    Step {
        name: "build".into(),
        needs: vec![],
        timeout_seconds: 600,
        retry: 0,
        artifacts_from: vec![],
        action: StepAction::Build { images },
    }
}

pub(crate) fn run_step(name: &str, needs: &[&str], image: &BaseImage, run: &str) -> Step {
    Step {
        name: name.to_owned(),
        needs: needs.iter().map(ToString::to_string).collect(),
        timeout_seconds: 600,
        retry: 0,
        artifacts_from: vec![],
        action: StepAction::Run {
            image: image.0.clone(),
            run: run.to_owned(),
            env: BTreeMap::new(),
            sidecars: BTreeMap::new(),
            secrets: vec![],
            limits: StepLimits::default(),
            files: StepFiles::default(),
        },
    }
}

/// A runner in a runtime of its own, which can be cut off as `kill -9` does.
pub(crate) struct RunnerUnderTest {
    runtime: Option<Runtime>,
    handle: Option<JoinHandle<anyhow::Result<()>>>,
    ends: Ends,
}

impl RunnerUnderTest {
    pub(crate) fn start(peer: &Peer, data: &Path) -> Self {
        Self::start_with(config(peer, data))
    }

    pub(crate) fn start_with(config: Config) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let ends = Ends::default();
        let handle = runtime.spawn(roadstead_runner::run(config, ends.clone()));
        Self {
            runtime: Some(runtime),
            handle: Some(handle),
            ends,
        }
    }

    /// Drops every task where it stands: nothing of the runner cleans up after itself on drop.
    pub(crate) async fn kill(mut self) {
        let runtime = self.runtime.take().unwrap();
        // Waits for the tasks to be gone, as the system does when it has killed a process.
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE))
            .await
            .unwrap();
    }

    /// Asks the runner to leave and gives how it ended.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.ends.stop.cancel();
        self.ended().await
    }

    /// Waits until the runner ends by itself.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<()> {
        tokio::time::timeout(PATIENCE, self.handle.take().unwrap())
            .await
            .expect("the runner did not end")
            .expect("the runner panicked")
    }
}

impl Drop for RunnerUnderTest {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) fn config(peer: &Peer, data: &Path) -> Config {
    Config {
        server: Url::parse(&peer.address).unwrap(),
        registration_token: Some(Secret::new(REGISTRATION_TOKEN)),
        name: "tester".into(),
        labels: vec!["test".into()],
        data: data.to_owned(),
        slots: 2,
        docker_socket: None,
        // The tests' machine may be nearly full; the watermark has a test of its own.
        disk_watermark_bytes: 1,
        disk_least_bytes: 1,
        step_most: StepMost::default(),
        once: false,
    }
}

pub(crate) const REGISTRY_USER: &str = "pusher";
pub(crate) const REGISTRY_PASSWORD: &str = "correct-horse-battery";
/// bcrypt of the password.
const REGISTRY_USER_LINE: &str =
    "pusher:$2b$04$Wx.vasxE8ETJ.fB/HY.uz.fB75Vhh8q2EaCrhZeym4B4ETRMaslPe";

/// A real registry with a login, on a port of this machine.
pub(crate) struct Registry {
    child: Child,
    pub(crate) port: u16,
    _folder: tempfile::TempDir,
}

impl Registry {
    /// Starts on a free port.
    pub(crate) async fn start() -> Self {
        for _ in 0..20 {
            let port = free_port();
            if let Some(registry) = Self::start_on(port).await {
                return registry;
            }
        }
        panic!("no registry would start");
    }

    /// Starts on `port`; `None` when another process was quicker to take it.
    pub(crate) async fn start_on(port: u16) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let realm = unique("realm");
        let users = folder.path().join("users");
        fs::write(&users, format!("{REGISTRY_USER_LINE}\n")).unwrap();
        let config = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: 127.0.0.1:{port}\nauth:\n  htpasswd:\n    realm: {realm}\n    path: {}\n",
            folder.path().join("data").display(),
            users.display()
        );
        fs::write(&config, text).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        let until = Instant::now() + PATIENCE;
        loop {
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            let answer = reqwest::get(format!("http://127.0.0.1:{port}/v2/")).await;
            let ours = answer.is_ok_and(|answer| {
                let wanted = answer.headers().get("www-authenticate");
                wanted.is_some_and(|value| value.to_str().unwrap_or("").contains(&realm))
            });
            if ours {
                return Some(Self {
                    child,
                    port,
                    _folder: folder,
                });
            }
            assert!(Instant::now() < until, "the registry never answered");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The digest of a tag as the registry tells it.
    pub(crate) async fn digest(&self, repository: &str, tag: &str) -> Option<String> {
        let path = format!("{repository}/manifests/{tag}");
        let answer = self.ask(reqwest::Method::HEAD, &path).await;
        let digest = answer.headers().get("docker-content-digest")?;
        Some(digest.to_str().unwrap().to_owned())
    }

    /// The layers of a tag's image, compressed as they are stored.
    pub(crate) async fn layers(&self, repository: &str, tag: &str) -> Vec<Vec<u8>> {
        let manifest = self.manifest(repository, tag).await;
        let mut layers = Vec::new();
        for layer in manifest["layers"].as_array().unwrap() {
            layers.push(self.blob(repository, layer).await);
        }
        layers
    }

    /// The configuration of a tag's image, with its history.
    pub(crate) async fn image_config(&self, repository: &str, tag: &str) -> Vec<u8> {
        let manifest = self.manifest(repository, tag).await;
        self.blob(repository, &manifest["config"]).await
    }

    async fn manifest(&self, repository: &str, tag: &str) -> serde_json::Value {
        let path = format!("{repository}/manifests/{tag}");
        let answer = self.ask(reqwest::Method::GET, &path).await;
        answer.error_for_status().unwrap().json().await.unwrap()
    }

    async fn blob(&self, repository: &str, named: &serde_json::Value) -> Vec<u8> {
        let digest = named["digest"].as_str().unwrap();
        let path = format!("{repository}/blobs/{digest}");
        let answer = self.ask(reqwest::Method::GET, &path).await;
        answer
            .error_for_status()
            .unwrap()
            .bytes()
            .await
            .unwrap()
            .to_vec()
    }

    async fn ask(&self, method: reqwest::Method, path: &str) -> reqwest::Response {
        let manifest = "application/vnd.docker.distribution.manifest.v2+json";
        reqwest::Client::new()
            .request(method, format!("http://127.0.0.1:{}/v2/{path}", self.port))
            .basic_auth(REGISTRY_USER, Some(REGISTRY_PASSWORD))
            .header("accept", manifest)
            .send()
            .await
            .unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listened on a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

pub(crate) fn credentials(port: u16) -> RegistryCredentials {
    RegistryCredentials {
        registry: format!("127.0.0.1:{port}"),
        username: REGISTRY_USER.into(),
        password: REGISTRY_PASSWORD.into(),
    }
}
