//! The load balancer against real servers on this machine.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::http::{Client, answer, full, serve};
use super::*;
use crate::services::AwsError;

const PATIENCE: Duration = Duration::from_secs(60);
const GROUP: &str = "arn:group";

/// A server whose health and pace the test decides.
struct Upstream {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    /// Requests of clients that have arrived.
    arrived: Arc<AtomicUsize>,
    /// A client's request is answered when it gets a permit.
    gate: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Upstream {
    /// Answers `/health` with its status, and everything else with `name`.
    async fn start(name: &'static str) -> Self {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let upstream = Self {
            address: socket.local_addr().unwrap(),
            status: Arc::new(AtomicU16::new(200)),
            arrived: Arc::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            stop: CancellationToken::new(),
        };
        let (status, arrived, gate) = (
            Arc::clone(&upstream.status),
            Arc::clone(&upstream.arrived),
            Arc::clone(&upstream.gate),
        );
        let handler = move |request: Request<hyper::body::Incoming>, _| {
            let (status, arrived, gate) =
                (Arc::clone(&status), Arc::clone(&arrived), Arc::clone(&gate));
            async move {
                if request.uri().path() == "/health" {
                    let status = StatusCode::from_u16(status.load(Ordering::SeqCst)).unwrap();
                    return Ok::<_, Infallible>(answer(status, "text/plain", ""));
                }
                arrived.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                Ok(answer(StatusCode::OK, "text/plain", name))
            }
        };
        tokio::spawn(serve(socket, upstream.stop.clone(), handler));
        upstream
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Bench {
    data: tempfile::TempDir,
    balancer: Arc<Balancer>,
    port: u16,
}

impl Bench {
    /// A balancer with one group, `GROUP`, behind one listener.
    async fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let balancer = open(data.path()).await;
        add_group(&balancer, GROUP).await;
        let listener = |_: &mut BalancerRecords, port| {
            Ok::<_, AwsError>(Listener {
                load_balancer_arn: "arn:balancer".to_owned(),
                port,
                forward: vec![Forward {
                    target_group_arn: GROUP.to_owned(),
                    weight: 1,
                }],
            })
        };
        loop {
            // Below the ports that the kernel gives away, so that it is free again at a restart.
            let port = rand::random_range(20_000..32_000);
            if balancer
                .listen("arn:listener", port, listener)
                .await
                .is_ok()
            {
                return Self {
                    data,
                    balancer,
                    port,
                };
            }
        }
    }

    async fn get(&self) -> (StatusCode, String) {
        get(self.port).await.expect("the listener answers")
    }

    /// How many of `requests` each server answered.
    async fn shares(&self, requests: usize) -> HashMap<String, usize> {
        let mut shares = HashMap::new();
        for _ in 0..requests {
            let (status, text) = self.get().await;
            assert_eq!(status, StatusCode::OK, "{text}");
            *shares.entry(text).or_default() += 1;
        }
        shares
    }

    async fn until(&self, task_id: &str, state: &TargetState) {
        eventually(&format!("{task_id} to be {state:?}"), async || {
            (self.balancer.health(GROUP, task_id) == *state).then_some(())
        })
        .await;
    }
}

async fn open(data: &std::path::Path) -> Arc<Balancer> {
    // Health checks every 5 s of AWS's time: 50 ms here.
    let clock = Clock::new(100.0).unwrap();
    Balancer::open(&Config::new(data), clock, Arc::default())
        .await
        .unwrap()
}

async fn add_group(balancer: &Balancer, arn: &str) {
    let group = TargetGroup {
        name: arn.replace(':', "-"),
        port: 80,
        vpc_id: None,
        target_type: "ip".to_owned(),
        health_check: HealthCheckSettings {
            path: "/health".to_owned(),
            interval_seconds: 5,
            timeout_seconds: 30,
            healthy_threshold: 2,
            unhealthy_threshold: 2,
            ..HealthCheckSettings::default()
        },
        deregistration_delay_seconds: 7,
    };
    balancer
        .change(|records| {
            records.target_groups.insert(arn.to_owned(), group);
            Ok::<_, AwsError>(())
        })
        .await
        .unwrap();
}

async fn get(port: u16) -> Option<(StatusCode, String)> {
    let request = Request::get(format!("http://127.0.0.1:{port}/"))
        .body(full(""))
        .unwrap();
    let response = Client::new().send(request).await.ok()?;
    let status = response.status();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some((status, String::from_utf8_lossy(&body).into_owned()))
}

async fn eventually<T, Look: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> Look) -> T {
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    found
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

fn unhealthy(reason: &str) -> TargetState {
    TargetState::Unhealthy {
        reason: reason.to_owned(),
    }
}

#[tokio::test]
async fn requests_go_round_the_healthy_targets_only() {
    let bench = Bench::new().await;
    let (status, text) = bench.get().await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("no healthy target"), "{text}");

    let (one, two) = (Upstream::start("one").await, Upstream::start("two").await);
    for (task_id, upstream) in [("a", &one), ("b", &two)] {
        bench.balancer.register(GROUP, task_id, upstream.address);
        bench.until(task_id, &TargetState::Healthy).await;
    }
    let even = HashMap::from([("one".to_owned(), 5), ("two".to_owned(), 5)]);
    assert_eq!(bench.shares(10).await, even);

    two.status.store(500, Ordering::SeqCst);
    let reason = "Health checks failed with these codes: [500]";
    bench.until("b", &unhealthy(reason)).await;
    assert_eq!(
        bench.shares(3).await,
        HashMap::from([("one".to_owned(), 3)])
    );
    two.status.store(200, Ordering::SeqCst);
    bench.until("b", &TargetState::Healthy).await;
    assert_eq!(bench.shares(10).await, even);
}

#[tokio::test]
async fn an_open_port_without_http_is_not_healthy() {
    let bench = Bench::new().await;
    let deaf = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = deaf.local_addr().unwrap();
    // As Docker's port proxy does: it takes the connection, and closes it.
    let proxy = tokio::spawn(async move {
        loop {
            drop(deaf.accept().await);
        }
    });
    bench.balancer.register(GROUP, "a", address);
    bench.until("a", &unhealthy("Health checks failed")).await;
    assert_eq!(bench.get().await.0, StatusCode::SERVICE_UNAVAILABLE);
    proxy.abort();
}

#[tokio::test]
async fn a_draining_target_finishes_what_it_has() {
    let bench = Bench::new().await;
    let upstream = Upstream::start("slow").await;
    bench.balancer.register(GROUP, "a", upstream.address);
    bench.until("a", &TargetState::Healthy).await;
    upstream.gate.forget_permits(Semaphore::MAX_PERMITS);
    let port = bench.port;
    let in_flight = tokio::spawn(async move { get(port).await });
    eventually("the request to arrive", async || {
        (upstream.arrived.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;

    bench.balancer.deregister(GROUP, "a");
    assert_eq!(bench.balancer.health(GROUP, "a"), TargetState::Draining);
    assert_eq!(bench.get().await.0, StatusCode::SERVICE_UNAVAILABLE);
    upstream.gate.add_permits(1);
    let finished = in_flight.await.unwrap();
    assert_eq!(finished, Some((StatusCode::OK, "slow".to_owned())));

    assert_eq!(
        bench.balancer.deregistration_delay(GROUP),
        Some(Duration::from_secs(7))
    );
    bench.balancer.remove(GROUP, "a");
    assert_eq!(bench.balancer.health(GROUP, "a"), TargetState::Unused);
    // Registered again, it starts anew.
    bench.balancer.register(GROUP, "a", upstream.address);
    bench.until("a", &TargetState::Healthy).await;
}

#[tokio::test]
async fn a_target_that_dies_gives_502_until_its_checks_fail() {
    let bench = Bench::new().await;
    // Checked once an hour, so that it stays healthy while it is gone.
    bench
        .balancer
        .change(|records| {
            let group = records.target_groups.get_mut(GROUP).unwrap();
            group.health_check.interval_seconds = 3600 * 100;
            Ok::<_, AwsError>(())
        })
        .await
        .unwrap();
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let dead = Arc::new(AtomicBool::new(false));
    let server = tokio::spawn({
        let dead = Arc::clone(&dead);
        async move {
            while let Ok((mut stream, _)) = socket.accept().await {
                if !dead.load(Ordering::SeqCst) {
                    let mut request = [0; 1024];
                    assert!(stream.read(&mut request).await.unwrap() > 0);
                    let reply = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(reply.as_bytes()).await.unwrap();
                }
            }
        }
    });
    bench.balancer.register(GROUP, "a", address);
    bench.until("a", &TargetState::Healthy).await;
    assert_eq!(bench.get().await.0, StatusCode::OK);
    dead.store(true, Ordering::SeqCst);
    let (status, text) = bench.get().await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{text}");
    // Checked more often again, which takes effect at once.
    add_group(&bench.balancer, GROUP).await;
    bench.until("a", &unhealthy("Health checks failed")).await;
    server.abort();
}

#[tokio::test]
async fn weights_can_be_changed_while_it_runs() {
    const GREEN: &str = "arn:green";
    let bench = Bench::new().await;
    add_group(&bench.balancer, GREEN).await;
    let (blue, green) = (
        Upstream::start("blue").await,
        Upstream::start("green").await,
    );
    bench.balancer.register(GROUP, "a", blue.address);
    bench.balancer.register(GREEN, "b", green.address);
    bench.until("a", &TargetState::Healthy).await;
    eventually("the green target", async || {
        (bench.balancer.health(GREEN, "b") == TargetState::Healthy).then_some(())
    })
    .await;
    for (blue_weight, green_weight, expected) in [(9, 1, (18, 2)), (0, 1, (0, 20))] {
        bench
            .balancer
            .change(|records| {
                let forward = |arn: &str, weight| Forward {
                    target_group_arn: arn.to_owned(),
                    weight,
                };
                let listener = records.listeners.get_mut("arn:listener").unwrap();
                listener.forward = vec![forward(GROUP, blue_weight), forward(GREEN, green_weight)];
                Ok::<_, AwsError>(())
            })
            .await
            .unwrap();
        let shares = bench.shares(20).await;
        let share = |name: &str| shares.get(name).copied().unwrap_or_default();
        assert_eq!((share("blue"), share("green")), expected);
    }
}

#[tokio::test]
async fn listeners_open_again_after_a_restart_and_close_when_deleted() {
    let bench = Bench::new().await;
    bench.balancer.shut_down().await;
    assert_eq!(get(bench.port).await, None);

    let again = open(bench.data.path()).await;
    let upstream = Upstream::start("back").await;
    again.register(GROUP, "a", upstream.address);
    eventually("the listener to answer again", async || {
        get(bench.port).await.filter(|it| it.0 == StatusCode::OK)
    })
    .await;
    again
        .change(|records| {
            records.listeners.clear();
            Ok::<_, AwsError>(())
        })
        .await
        .unwrap();
    assert_eq!(get(bench.port).await, None);
}
