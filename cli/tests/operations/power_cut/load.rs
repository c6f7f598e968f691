//! Webhooks, and a runner that sends the logs of its steps, until the server is gone; with a record
//! of what was acknowledged.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use roadstead_protocol as wire;
use serde_json::json;
use sha2::Sha256;
use tokio::task::JoinHandle;

const SECRET: &str = "a webhook's key of this test";
const REGISTRATION: &str = "a registration token of this test";
const STEPS: usize = 2;
const WRITERS: u64 = 3;
/// Bounds a failure.
const PATIENCE: Duration = Duration::from_secs(120);

/// One project, whose repository is made in `folder`; and the commit in it.
pub(crate) fn project(folder: &Path) -> (String, String) {
    let repository = folder.join("shop");
    std::fs::create_dir_all(repository.join(".roadstead")).unwrap();
    let mut pipeline =
        "version: 1\nname: shop\ntrigger: {push: {branches: [main]}}\nsteps:\n".to_owned();
    for number in 0..STEPS {
        pipeline += &format!("  step-{number}: {{image: busybox, run: 'true'}}\n");
    }
    std::fs::write(repository.join(".roadstead/pipeline.yml"), pipeline).unwrap();
    for arguments in [
        &["init", "--quiet", "--initial-branch=main"][..],
        &["add", "."],
        &["commit", "--quiet", "--message", "first"],
    ] {
        let done = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args(arguments)
            .current_dir(&repository)
            .status();
        assert!(done.unwrap().success());
    }
    let head = Command::new("git")
        .args(["rev-parse", "HEAD"])
        .current_dir(&repository)
        .output()
        .unwrap();
    let head = String::from_utf8(head.stdout).unwrap().trim().to_owned();
    let configuration = format!(
        "[[projects]]\nname = \"shop\"\nrepository = \"{}\"\nwebhook_secret = \"{SECRET}\"\n\
         [runners]\nregistration_token = \"{REGISTRATION}\"\n",
        repository.display()
    );
    (configuration, head)
}

/// What the server has promised.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acknowledged {
    pub(crate) deliveries: BTreeSet<String>,
    /// The bytes of each step's log, from its beginning.
    pub(crate) logs: Vec<Vec<u8>>,
    pieces: usize,
}

#[derive(Clone)]
struct Attempt {
    client: Client,
    credential: String,
    assignment: wire::Assignment,
}

impl Attempt {
    fn call(&self, url: &str, method: Method, rest: &str) -> RequestBuilder {
        let id = &self.assignment.attempt.attempt;
        let url = format!("{url}/runner/v1/attempts/{id}/{rest}");
        self.client
            .request(method, url)
            .bearer_auth(&self.assignment.token)
    }

    /// Keeps the lease; false when there is no server.
    async fn beat(&self, url: &str) -> bool {
        let beat = wire::Heartbeat {
            running: vec![self.assignment.attempt.clone()],
        };
        let beat = self
            .client
            .post(format!("{url}/runner/v1/heartbeat"))
            .bearer_auth(&self.credential)
            .json(&beat);
        beat.send().await.is_ok()
    }
}

pub(crate) struct Load {
    attempt: Attempt,
    record: Arc<Mutex<Acknowledged>>,
    senders: Mutex<Vec<JoinHandle<()>>>,
}

fn signed(client: &Client, url: &str, body: String) -> RequestBuilder {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    client
        .post(url)
        .header("x-hub-signature-256", format!("sha256={signature}"))
        .body(body)
}

/// Pushes commit after commit that nobody has until the server is gone.
async fn push(url: String, writer: u64, record: Arc<Mutex<Acknowledged>>) {
    let client = Client::new();
    let hook = format!("{url}/webhooks/github/shop");
    for number in 1_u64.. {
        let commit = format!("{:040x}", writer * 1_000_000 + number);
        let body = json!({"ref": "refs/heads/other", "after": commit}).to_string();
        let answer = signed(&client, &hook, body)
            .header("x-github-event", "push")
            .header("x-github-delivery", &commit)
            .send()
            .await;
        let Ok(answer) = answer else { return };
        assert!(answer.status().is_success(), "{}", answer.status());
        record.lock().unwrap().deliveries.insert(commit);
    }
}

fn piece(step: usize, number: usize) -> Vec<u8> {
    format!("step {step} says line {number} of many\n")
        .repeat(20)
        .into_bytes()
}

/// Sends one step's log, piece by piece, until the server is gone.
async fn log(url: String, attempt: Attempt, step: usize, record: Arc<Mutex<Acknowledged>>) {
    let mut offset = 0;
    for number in 0.. {
        let bytes = piece(step, number);
        let rest = format!("steps/step-{step}/log?offset={offset}");
        let sent = attempt
            .call(&url, Method::PATCH, &rest)
            .body(bytes.clone())
            .send()
            .await;
        let Ok(answer) = sent else { return };
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        offset += bytes.len();
        let mut record = record.lock().unwrap();
        record.logs[step].extend(bytes);
        record.pieces += 1;
    }
}

/// Pushes the commit that is there, and takes the job that comes of it.
async fn take_a_job(url: &str) -> Attempt {
    let client = Client::new();
    let introduction = wire::Register {
        registration_token: REGISTRATION.to_owned(),
        name: "runner".to_owned(),
        labels: vec![],
    };
    let registered = client
        .post(format!("{url}/runner/v1/register"))
        .json(&introduction)
        .send()
        .await
        .unwrap();
    let registered: wire::Registered = registered.error_for_status().unwrap().json().await.unwrap();
    let poll = wire::Poll {
        protocol_version: wire::PROTOCOL_VERSION,
        labels: vec![],
        free_slots: 1,
        disk_free_bytes: 1 << 40,
        running: vec![],
    };
    let begun = Instant::now();
    loop {
        let ask = client
            .post(format!("{url}/runner/v1/poll"))
            .bearer_auth(&registered.credential)
            .json(&poll);
        let reply = ask.send().await.unwrap().error_for_status().unwrap();
        let reply: wire::PollReply = reply.json().await.unwrap();
        if let Some(assignment) = reply.assign {
            let attempt = Attempt {
                client,
                credential: registered.credential,
                assignment,
            };
            let accepted = attempt.call(url, Method::POST, "accept").send().await;
            accepted.unwrap().error_for_status().unwrap();
            return attempt;
        }
        assert!(begun.elapsed() < PATIENCE, "no job came of a push");
    }
}

impl Load {
    pub(crate) async fn begin(url: &str, head: &str) -> Self {
        let body = json!({"ref": "refs/heads/main", "after": head}).to_string();
        let hook = format!("{url}/webhooks/git/shop");
        let pushed = signed(&Client::new(), &hook, body).send().await.unwrap();
        pushed.error_for_status().unwrap();
        let attempt = take_a_job(url).await;
        let record = Arc::new(Mutex::new(Acknowledged {
            logs: vec![vec![]; STEPS],
            ..Acknowledged::default()
        }));
        let mut senders = vec![];
        for writer in 0..WRITERS {
            senders.push(tokio::spawn(push(
                url.to_owned(),
                writer,
                Arc::clone(&record),
            )));
        }
        let (beating, at) = (attempt.clone(), url.to_owned());
        senders.push(tokio::spawn(async move {
            while beating.beat(&at).await {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }));
        for step in 0..STEPS {
            let attempt = attempt.clone();
            let record = Arc::clone(&record);
            senders.push(tokio::spawn(log(url.to_owned(), attempt, step, record)));
        }
        Self {
            attempt,
            record,
            senders: Mutex::new(senders),
        }
    }

    /// Waits until so many deliveries and pieces of logs were acknowledged.
    pub(crate) async fn until_acknowledged(&self, deliveries: usize, pieces: usize) {
        let begun = Instant::now();
        loop {
            let record = self.acknowledged();
            if record.deliveries.len() >= deliveries && record.pieces >= pieces {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "the server is too slow");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What was acknowledged until now.
    pub(crate) fn acknowledged(&self) -> Acknowledged {
        self.record.lock().unwrap().clone()
    }

    /// Waits until every sender has met the server's end; fails when one met something else.
    pub(crate) async fn end(&self) {
        let senders = std::mem::take(&mut *self.senders.lock().unwrap());
        for sender in senders {
            sender.await.unwrap();
        }
    }

    /// Goes on as a runner does that has lost its place: it asks from the beginning, hears how much
    /// is there, which must be what was `acknowledged` at least, and sends what comes next.
    pub(crate) async fn go_on(&self, url: &str, acknowledged: &Acknowledged) {
        assert!(self.attempt.beat(url).await);
        for (step, known) in acknowledged.logs.iter().enumerate() {
            let send = async |offset: usize| {
                let rest = format!("steps/step-{step}/log?offset={offset}");
                let again = self.attempt.call(url, Method::PATCH, &rest);
                again.body(piece(step, 0)).send().await.unwrap()
            };
            let answer = send(0).await;
            assert_eq!(answer.status(), StatusCode::RANGE_NOT_SATISFIABLE);
            let there = answer.headers()[wire::LOG_OFFSET_HEADER].to_str().unwrap();
            let there: usize = there.parse().unwrap();
            assert!(there >= known.len(), "{there} of {} bytes", known.len());
            assert_eq!(send(there).await.status(), StatusCode::NO_CONTENT);
        }
    }
}
