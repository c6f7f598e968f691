//! A server without its HTTP, a sandbox, and the time that passes for both.

use crate::wire::{Http, Wire, http};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::http::request::Builder;
use jiff::{SignedDuration, Timestamp};
use roadstead_pipelines::deployment::Deployment;
use roadstead_pipelines::effect::Effect;
use roadstead_pipelines::fact::Change;
use roadstead_pipelines::id::ProjectName;
use roadstead_pipelines::spec::{self, Pipeline};
use roadstead_sandbox::{BackendKind, Config, serve};
use roadstead_server::adapters::aws::Aws;
use roadstead_server::adapters::cluster::Cluster;
use roadstead_server::adapters::probes::Probes;
use roadstead_server::adapters::registry::Registry;
use roadstead_server::adapters::sources::{Remote, Sources};
use roadstead_server::clock::Clock;
use roadstead_server::config;
use roadstead_server::executor::Executor;
use roadstead_server::observer::Observer;
use roadstead_server::reconciler::Reconciler;
use roadstead_server::store::{DeploymentFilter, Store};
use roadstead_server::wake::Bell;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Where virtual time begins: as the sandbox's does.
const BEGINNING: &str = "2026-01-01T00:00:00Z";
/// What passes between two rounds.
pub(crate) const TICK: SignedDuration = SignedDuration::from_secs(5);
/// How long an executor holds what it leases.
const LEASE: SignedDuration = SignedDuration::from_secs(20);
/// Longer than any wait for another try, which is partly left to chance: whatever is not over is due.
const AHEAD: SignedDuration = SignedDuration::from_secs(90);
/// A sandbox begins within this time: it bounds a failure.
const LONGEST_START: Duration = Duration::from_secs(60);
/// Effects of one round.
const AT_ONCE: u32 = 50;
/// Nothing takes so many rounds.
const MOST_ROUNDS: usize = 400;

/// A folder of its own, in memory where there is such a place: what is tested here is no disk.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("roadstead-simulation-");
    if memory.is_dir() {
        builder.tempdir_in(memory).unwrap()
    } else {
        builder.tempdir().unwrap()
    }
}

struct Sandbox {
    endpoint: String,
    http: Http,
    backend: BackendKind,
    stop: CancellationToken,
    serving: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Sandbox {
    async fn start(data: PathBuf, backend: BackendKind, seed: u64) -> Self {
        let any_port = ([127, 0, 0, 1], 0).into();
        let is_simulated = backend == BackendKind::Simulated;
        let config = Config {
            listen: any_port,
            registry_listen: any_port,
            backend,
            virtual_clock: is_simulated,
            seed: is_simulated.then_some(seed),
            ..Config::new(&data)
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let mut serving =
            tokio::spawn(async move { serve(config, stopped.cancelled_owned()).await });
        let answers = async {
            loop {
                match std::fs::read_to_string(data.join("endpoint")) {
                    Ok(text) if text.ends_with('\n') => break text.trim().to_owned(),
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let endpoint = tokio::select! {
            endpoint = answers => endpoint,
            ended = &mut serving => panic!("the sandbox ended at its start: {ended:?}"),
            () = tokio::time::sleep(LONGEST_START) => panic!("the sandbox does not begin"),
        };
        Self {
            endpoint,
            http: http(),
            backend,
            stop,
            serving: Some(serving),
        }
    }

    /// Asks for this, and is answered well.
    async fn ask(&self, request: Builder, body: String) -> Bytes {
        let request = request.body(Full::from(body)).unwrap();
        let told = request.uri().clone();
        let (head, answer) = self.http.request(request).await.unwrap().into_parts();
        let answer = answer.collect().await.unwrap().to_bytes();
        assert!(head.status.is_success(), "{told}: {answer:?}");
        answer
    }

    async fn own(&self, path: &str, body: &Value) {
        let request = Request::post(format!("{}/_sandbox/{path}", self.endpoint));
        self.ask(request, body.to_string()).await;
    }
}

/// Everything of one story.
pub(crate) struct Stage {
    pub(crate) project: ProjectName,
    pub(crate) store: Store,
    pub(crate) wire: Wire,
    /// Where the server keeps its files, and its sandbox.
    pub(crate) folder: TempDir,
    /// Holds what each effect calls against the sandbox's log: nothing goes past the wire.
    pub(crate) is_watched: bool,
    /// What was performed so far.
    pub(crate) performed: BTreeSet<Effect>,
    /// How long nobody is there when an executor has died: at least until its leases have run out.
    pub(crate) away: SignedDuration,
    sandbox: Sandbox,
    url: String,
    time: Arc<AtomicI64>,
    outside: Outside,
    executor: Executor,
    observer: Observer,
}

/// Nobody asks them anything here; they keep no connections.
static PROBES: LazyLock<Probes> = LazyLock::new(|| Probes::new().unwrap());

/// How a server reaches what is outside. A new server gets the same: what it costs is to set TLS up.
struct Outside {
    /// Through the wire.
    by_effects: Aws,
    /// Past it.
    by_looks: Aws,
    probes: Probes,
}

impl Stage {
    /// On this database; a new one in the stage's folder when there is none.
    pub(crate) async fn start(url: Option<String>, backend: BackendKind, seed: u64) -> Self {
        let folder = folder();
        let sandbox = Sandbox::start(folder.path().join("sandbox"), backend, seed).await;
        let wire = Wire::start(&sandbox.endpoint).await;
        let file = folder.path().join("rows.db");
        let url = url.unwrap_or_else(|| format!("sqlite:{}", file.display()));
        let store = Store::open(&url).await.unwrap();
        let project = ProjectName::parse("shop").unwrap();
        let beginning: Timestamp = BEGINNING.parse().unwrap();
        let time = Arc::new(AtomicI64::new(beginning.as_microsecond()));
        // Not where it really is: the history tells it, and is to be the same each time.
        let added = store.upsert_project(
            project.clone(),
            "/srv/shop.git".into(),
            "0123456789abcdef".into(),
            beginning,
        );
        added.await.unwrap();
        let clock = clock(&time);
        let outside = Outside {
            by_effects: aws(&wire.endpoint),
            by_looks: aws(&sandbox.endpoint),
            probes: PROBES.clone(),
        };
        Self {
            executor: executor(&project, &store, &outside, folder.path(), clock.clone()),
            observer: observer(&store, &outside, clock),
            project,
            store,
            wire,
            folder,
            is_watched: false,
            performed: BTreeSet::new(),
            away: LEASE + SignedDuration::from_secs(1),
            sandbox,
            url,
            time,
            outside,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        clock(&self.time).now()
    }

    /// AWS without anything in between.
    pub(crate) fn aws(&self) -> Aws {
        self.outside.by_looks.clone()
    }

    /// The bare repository that the project is fetched from.
    pub(crate) fn origin(&self) -> PathBuf {
        origin(self.folder.path())
    }

    /// Calls ECS as it is spoken on the wire, past the executor's.
    pub(crate) async fn ecs(&self, operation: &str, body: Value) -> Value {
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        let request = Request::post(&self.sandbox.endpoint)
            .header("x-amz-target", target)
            .header("content-type", "application/x-amz-json-1.1");
        let answer = self.sandbox.ask(request, body.to_string()).await;
        serde_json::from_slice(&answer).unwrap()
    }

    /// The next `times` calls of an operation go wrong.
    pub(crate) async fn fault(&self, operation: &str, kind: &str, times: u32) {
        let fault = json!({"operation": operation, "kind": kind, "times": times});
        self.sandbox.own("faults", &fault).await;
    }

    /// No call goes wrong any more.
    pub(crate) async fn forget_faults(&self) {
        let faults = format!("{}/_sandbox/faults", self.sandbox.endpoint);
        self.sandbox
            .ask(Request::delete(faults), String::new())
            .await;
    }

    /// A cluster with the service `web`, two tasks of which run `containers`.
    pub(crate) async fn service(&self, cluster: &str, containers: &Value) {
        self.ecs("CreateCluster", json!({"clusterName": cluster}))
            .await;
        let family = format!("web-{cluster}");
        let definition = json!({"family": family, "containerDefinitions": containers});
        self.ecs("RegisterTaskDefinition", definition).await;
        let service = json!({
            "cluster": cluster, "serviceName": "web", "taskDefinition": family, "desiredCount": 2,
            "deploymentConfiguration": {
                "minimumHealthyPercent": 100, "maximumPercent": 200,
                "deploymentCircuitBreaker": {"enable": true, "rollback": true},
            },
        });
        self.ecs("CreateService", service).await;
        self.pass(SignedDuration::from_secs(60)).await;
    }

    /// What is in the sandbox's log of calls.
    pub(crate) fn calls(&self) -> Vec<Value> {
        let file = self.folder.path().join("sandbox/calls.jsonl");
        let text = std::fs::read_to_string(file).unwrap();
        let lines = text.lines().filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Lets time pass, for the sandbox first: what the server notes then is not older than what it saw.
    pub(crate) async fn pass(&self, time: SignedDuration) {
        if self.sandbox.backend == BackendKind::Simulated {
            let advance = json!({"advance": format!("{}s", time.as_secs())});
            self.sandbox.own("clock", &advance).await;
        }
        let micros = i64::try_from(time.as_micros()).unwrap();
        self.time.fetch_add(micros, Ordering::SeqCst);
    }

    /// Records changes as if the core had decided them.
    pub(crate) async fn record(&self, changes: Vec<Change>) {
        let decide = |_: &_| Ok(changes.clone());
        let recorded = self
            .store
            .record(&self.project, "test", self.now(), decide)
            .await;
        recorded.unwrap();
    }

    pub(crate) fn reconciler(&self) -> Reconciler {
        Reconciler {
            store: self.store.clone(),
            bell: Bell::default(),
            effects_bell: Bell::default(),
        }
    }

    pub(crate) async fn reconcile(&self) {
        let planned = self.reconciler().reconcile(&self.project, self.now()).await;
        assert!(
            planned.unwrap().is_some(),
            "the plans do not come to an end"
        );
    }

    /// Performs what is due, one effect after the other by their keys, until the executor dies. Whether
    /// it lived.
    pub(crate) async fn act(&mut self) -> bool {
        let now = self.now() + AHEAD;
        let leased = self.store.lease_effects(AT_ONCE, now, now + LEASE).await;
        let mut due = leased.unwrap();
        due.sort_by(|one, other| one.key.cmp(&other.key));
        for row in due {
            let noted = self.is_watched.then(|| self.calls().len());
            self.performed.insert(row.effect.clone());
            self.wire.begin(row.effect.word());
            let executor = self.executor.clone();
            let mut work = tokio::spawn(async move { executor.perform(&row).await });
            let lives = tokio::select! {
                done = &mut work => {
                    done.unwrap();
                    true
                }
                () = self.wire.died() => false,
            };
            let calls = self.wire.end();
            if !lives {
                work.abort();
                drop(work.await);
                self.restart().await;
                return false;
            }
            if let Some(noted) = noted {
                let log = self.calls();
                let log: Vec<_> = log[noted..].iter().map(|it| &it["operation"]).collect();
                assert_eq!(log, calls.iter().collect::<Vec<_>>(), "past the wire");
            }
        }
        true
    }

    /// Another server on the same database, after a while.
    pub(crate) async fn restart(&mut self) {
        self.pass(self.away).await;
        self.store = Store::open(&self.url).await.unwrap();
        let (clock, folder) = (clock(&self.time), self.folder.path());
        let (store, outside) = (&self.store, &self.outside);
        self.executor = executor(&self.project, store, outside, folder, clock.clone());
        self.observer = observer(store, outside, clock);
    }

    pub(crate) async fn look(&self) {
        self.observer.look_everywhere().await.unwrap();
    }

    /// Everybody has a turn, and time passes.
    pub(crate) async fn round(&mut self) {
        self.round_of(TICK).await;
    }

    /// The same, and so much of it passes.
    pub(crate) async fn round_of(&mut self, time: SignedDuration) {
        self.reconcile().await;
        self.act().await;
        self.look().await;
        self.pass(time).await;
    }

    /// Rounds until there is an answer.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        ask: impl AsyncFn(&Self) -> Option<T>,
    ) -> T {
        for _ in 0..MOST_ROUNDS {
            if let Some(answer) = ask(self).await {
                return answer;
            }
            self.round().await;
        }
        let world = self.store.load_world(&self.project).await.unwrap();
        let waits = roadstead_pipelines::planner::plan(&world, self.now()).waiting_on;
        panic!(
            "in vain: {what}; {:?} waits: {waits:?}",
            self.deployments().await
        );
    }

    pub(crate) async fn deployments(&self) -> Vec<Deployment> {
        let all = DeploymentFilter::default();
        let found = self
            .store
            .list_deployments(&self.project, all, None, 10_000);
        let mut found = found.await.unwrap();
        found.sort_by_key(|deployment| deployment.id.number());
        found
    }

    /// Ends the sandbox; its log of calls stays until the stage goes.
    pub(crate) async fn stop(&mut self) {
        self.sandbox.stop.cancel();
        if let Some(serving) = self.sandbox.serving.take() {
            serving.await.unwrap().unwrap();
        }
    }
}

fn clock(time: &Arc<AtomicI64>) -> Clock {
    let time = time.clone();
    Clock::new(move || Timestamp::from_microsecond(time.load(Ordering::SeqCst)).unwrap())
}

fn aws(endpoint: &str) -> Aws {
    Aws::new(&config::Aws {
        region: "us-east-1".into(),
        endpoint_url: Some(endpoint.to_owned()),
    })
}

fn origin(folder: &Path) -> PathBuf {
    folder.join("shop.git")
}

fn executor(
    project: &ProjectName,
    store: &Store,
    outside: &Outside,
    folder: &Path,
    clock: Clock,
) -> Executor {
    let aws = outside.by_effects.clone();
    let remote = Remote {
        address: origin(folder).display().to_string(),
        username: None,
        password: None,
    };
    let executor = Executor::new(
        store.clone(),
        Sources::new(folder),
        Registry::new(aws.clone()),
        Cluster::new(aws),
        BTreeMap::from([(project.clone(), remote)]),
        Bell::default(),
    );
    executor.with_clock(clock)
}

fn observer(store: &Store, outside: &Outside, clock: Clock) -> Observer {
    let cluster = Cluster::new(outside.by_looks.clone());
    let probes = outside.probes.clone();
    Observer::new(store.clone(), cluster, probes, Bell::default()).with_clock(clock)
}

/// A pipeline file as the core reads it.
pub(crate) fn pipeline(file: &str) -> Box<Pipeline> {
    let parsed = spec::parse("pipeline.yml", file);
    Box::new(parsed.unwrap_or_else(|error| panic!("{file}\n{:?}", error.list())))
}
