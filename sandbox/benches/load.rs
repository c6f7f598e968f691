//! How much the sandbox takes for itself: memory and processor time with nothing to do, with 1,000
//! services at rest, and with a service rolling every 60 ms; how fast it answers meanwhile; how fast
//! virtual time passes.
//!
//! The sandbox runs in a process of its own, so that the figures are its own. `cargo bench --package
//! roadstead-sandbox` prints a table with what docs/sandbox.md promises beside what was measured.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use roadstead_sandbox::{BackendKind, Config, serve};
use serde_json::{Value, json};

const SERVICES: usize = 1000;
const TASKS: usize = 4;
/// How long each load lasts.
const WINDOW: Duration = Duration::from_secs(30);
/// One forced deployment this often: each of the services rolls once a minute.
const BETWEEN_ROLLOUTS: Duration = Duration::from_millis(60);
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(20);
/// Linux tells processor time in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;
/// Bounds a failure.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", data, clock] => runtime.block_on(be_the_sandbox(data, clock == "virtual")),
        _ => runtime.block_on(measure()),
    }
}

/// Serves until standard input ends, which it does when the measuring process does.
async fn be_the_sandbox(data: &str, is_virtual: bool) -> anyhow::Result<()> {
    let mut config = Config::new(data);
    config.listen.set_port(0);
    config.registry_listen.set_port(0);
    config.backend = BackendKind::Simulated;
    config.virtual_clock = is_virtual;
    config.seed = Some(1);
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let read = std::io::stdin().read_to_end(&mut Vec::new());
        drop((read, end));
    });
    serve(config, async {
        // A sender that is gone means stop.
        let _ = ended.await;
    })
    .await
}

/// A sandbox in a process of its own.
struct Sandbox {
    child: Child,
    endpoint: String,
    client: Client<HttpConnector, Full<Bytes>>,
    _directory: tempfile::TempDir,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if let Err(error) = self.child.wait() {
            eprintln!("the sandbox's end is unknown: {error}");
        }
    }
}

impl Sandbox {
    async fn start(clock: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", &directory.path().display().to_string(), clock])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let begun = Instant::now();
        let endpoint = loop {
            if let Ok(text) = std::fs::read_to_string(directory.path().join("endpoint")) {
                break text.trim().to_owned();
            }
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("the sandbox ended with {status}");
            }
            ensure!(begun.elapsed() < PATIENCE, "the sandbox does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        Ok(Self {
            child,
            endpoint,
            client: Client::builder(TokioExecutor::new()).build_http(),
            _directory: directory,
        })
    }

    async fn send(&self, path: &str, target: &str, body: &Value) -> anyhow::Result<Value> {
        let request = Request::post(format!("{}{path}", self.endpoint))
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", target)
            .body(Full::new(Bytes::from(body.to_string())))?;
        let response = self.client.request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(
            status.is_success(),
            "{target}: {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(serde_json::from_slice(&body)?)
    }

    async fn ecs(&self, operation: &str, body: &Value) -> anyhow::Result<Value> {
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        self.send("/", &target, body).await
    }

    async fn advance(&self, how: &str) -> anyhow::Result<(Value, Duration)> {
        let begun = Instant::now();
        let passed = self
            .send("/_sandbox/clock", "", &json!({"advance": how}))
            .await?;
        Ok((passed, begun.elapsed()))
    }

    /// A cluster, a definition whose tasks take a few seconds, and that many services of it.
    async fn fill(&self, services: usize) -> anyhow::Result<()> {
        self.ecs("CreateCluster", &json!({})).await?;
        let container = json!({
            "name": "app",
            "image": "simulated:start-1s..5s_healthy-5s..15s",
            "memory": 64,
            "healthCheck": {"command": ["CMD", "true"]},
        });
        let definition = json!({"family": "web", "containerDefinitions": [container]});
        self.ecs("RegisterTaskDefinition", &definition).await?;
        for number in 0..services {
            let service = json!({
                "serviceName": name(number),
                "taskDefinition": "web",
                "desiredCount": TASKS,
                "deploymentConfiguration": {
                    "deploymentCircuitBreaker": {"enable": true, "rollback": true},
                },
            });
            self.ecs("CreateService", &service).await?;
        }
        Ok(())
    }

    /// Waits until the rollouts of all services are complete.
    async fn until_steady(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        for first in (0..SERVICES).step_by(10) {
            loop {
                let described = self.ecs("DescribeServices", &ten(first)).await?;
                let services = described["services"].as_array();
                let steady = services.into_iter().flatten().all(|service| {
                    let deployments = &service["deployments"];
                    deployments.as_array().is_some_and(|all| all.len() == 1)
                        && deployments[0]["rolloutState"] == "COMPLETED"
                });
                if steady {
                    break;
                }
                ensure!(begun.elapsed() < PATIENCE, "services do not come to rest");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
        Ok(())
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        std::fs::read_to_string(Path::new(&path)).context(path)
    }

    /// Processor seconds so far.
    fn processor(&self) -> anyhow::Result<f64> {
        let stat = self.proc("stat")?;
        let (_, fields) = stat.rsplit_once(')').context("no `)` in stat")?;
        let mut fields = fields.split_whitespace().skip(11);
        let mut next =
            || -> anyhow::Result<f64> { Ok(fields.next().context("stat is short")?.parse()?) };
        Ok((next()? + next()?) / TICKS_PER_SECOND)
    }

    /// MiB in memory now.
    fn memory(&self) -> anyhow::Result<f64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        Ok(kib.context("no VmRSS")?.trim().parse::<f64>()? / 1024.0)
    }

    /// The share of one processor that it takes while `busy` lasts.
    async fn share(&self, busy: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<f64> {
        let (begun, before) = (Instant::now(), self.processor()?);
        busy.await?;
        Ok((self.processor()? - before) / begun.elapsed().as_secs_f64())
    }

    /// Rolls one service after the other for a while.
    async fn roll(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut beat = tokio::time::interval(BETWEEN_ROLLOUTS);
        for number in (0..SERVICES).cycle() {
            beat.tick().await;
            if begun.elapsed() >= WINDOW {
                break;
            }
            let update = json!({"service": name(number), "forceNewDeployment": true});
            self.ecs("UpdateService", &update).await?;
        }
        Ok(())
    }

    /// How long answers to DescribeServices of ten take, shortest first.
    async fn ask(&self) -> anyhow::Result<Vec<Duration>> {
        let begun = Instant::now();
        let mut beat = tokio::time::interval(BETWEEN_QUESTIONS);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut times = Vec::new();
        for first in (0..SERVICES).step_by(10).cycle() {
            beat.tick().await;
            if begun.elapsed() >= WINDOW {
                break;
            }
            let asked = Instant::now();
            self.ecs("DescribeServices", &ten(first)).await?;
            times.push(asked.elapsed());
        }
        times.sort_unstable();
        Ok(times)
    }
}

fn name(number: usize) -> String {
    format!("service-{number:04}")
}

fn ten(first: usize) -> Value {
    json!({"services": (first..first + 10).map(name).collect::<Vec<_>>()})
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted
        .get(at)
        .map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

async fn measure() -> anyhow::Result<()> {
    let mut table = String::from("| what | to reach | measured |\n|---|---|---|\n");
    let mut row = |what: &str, wanted: &str, measured: String| {
        eprintln!("{what}: {measured}");
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| {what} | {wanted} | {measured} |");
    };
    let idle = || async {
        tokio::time::sleep(WINDOW).await;
        Ok(())
    };

    let sandbox = Sandbox::start("real").await?;
    let share = sandbox.share(idle()).await?;
    row(
        "memory, empty",
        "≤ 30 MB",
        format!("{:.1} MB", sandbox.memory()?),
    );
    row(
        "processor, empty",
        "about 0",
        format!("{:.2} %", share * 100.0),
    );
    let before = sandbox.processor()?;
    let begun = Instant::now();
    sandbox.fill(SERVICES).await?;
    sandbox.until_steady().await?;
    row(
        &format!("{SERVICES} services of {TASKS} tasks created and rolled out"),
        "",
        format!(
            "{:.0} s, {:.1} s of processor time",
            begun.elapsed().as_secs_f64(),
            sandbox.processor()? - before
        ),
    );
    let share = sandbox.share(idle()).await?;
    row(
        "processor, all of them at rest",
        "about 0",
        format!("{:.2} %", share * 100.0),
    );
    row(
        "memory, all of them at rest",
        "",
        format!("{:.1} MB", sandbox.memory()?),
    );
    let share = sandbox.share(sandbox.roll()).await?;
    row(
        "processor, each of them rolling once a minute",
        "≤ 50 %",
        format!("{:.1} %", share * 100.0),
    );
    let (rolled, times) = tokio::join!(sandbox.roll(), sandbox.ask());
    rolled?;
    let times = times?;
    row(
        "DescribeServices of 10 meanwhile",
        "p99 ≤ 5 ms",
        format!(
            "p50 {:.2} ms, p99 {:.2} ms, longest {:.1} ms, of {}",
            percentile(&times, 50),
            percentile(&times, 99),
            percentile(&times, 100),
            times.len()
        ),
    );
    sandbox.until_steady().await?;
    row(
        "memory afterwards",
        "",
        format!("{:.1} MB", sandbox.memory()?),
    );
    drop(sandbox);

    let sandbox = Sandbox::start("virtual").await?;
    sandbox.fill(1).await?;
    sandbox.advance("until settled").await?;
    let broken = json!({"family": "web", "containerDefinitions": [
        {"name": "app", "image": "simulated:healthy-10m_exit-1-1m..5m", "memory": 64,
         "healthCheck": {"command": ["CMD", "true"]}},
    ]});
    sandbox.ecs("RegisterTaskDefinition", &broken).await?;
    let update = json!({"service": name(0), "taskDefinition": "web"});
    sandbox.ecs("UpdateService", &update).await?;
    let (passed, took) = sandbox.advance("1h").await?;
    row(
        "a virtual hour with a rollout that fails and is taken back",
        "milliseconds",
        format!(
            "{:.1} ms, {} moments",
            took.as_secs_f64() * 1000.0,
            passed["moments"]
        ),
    );
    drop(sandbox);
    let sandbox = Sandbox::start("virtual").await?;
    sandbox.fill(SERVICES).await?;
    let (passed, took) = sandbox.advance("until settled").await?;
    row(
        &format!("{SERVICES} services of {TASKS} tasks rolled out in virtual time"),
        "",
        format!("{:.2} s, {} moments", took.as_secs_f64(), passed["moments"]),
    );
    drop(sandbox);
    println!("\n{table}");
    Ok(())
}
