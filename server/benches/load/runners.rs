//! The runner's side of the protocol, as far as load needs it.

use crate::child::{self, REGISTRATION, SECRET, Server};
use anyhow::ensure;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, RequestBuilder};
use roadstead_protocol as wire;
use serde::de::DeserializeOwned;
use serde_json::json;
use sha2::Sha256;
use std::time::{Duration, Instant};

/// Bounds a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// One attempt and what its calls need.
#[derive(Clone)]
pub(crate) struct Attempt {
    pub(crate) client: Client,
    pub(crate) address: String,
    pub(crate) assignment: wire::Assignment,
}

impl Attempt {
    pub(crate) fn call(&self, method: reqwest::Method, rest: &str) -> RequestBuilder {
        let id = &self.assignment.attempt.attempt;
        let url = format!("{}/runner/v1/attempts/{id}/{rest}", self.address);
        self.client
            .request(method, url)
            .bearer_auth(&self.assignment.token)
    }

    /// Says that its runner works on it.
    pub(crate) async fn accept(&self) -> anyhow::Result<()> {
        let accept = self.call(reqwest::Method::POST, "accept");
        accept.send().await?.error_for_status()?;
        Ok(())
    }

    /// Says that every step of it succeeded.
    pub(crate) async fn succeed(&self) -> anyhow::Result<()> {
        let result = wire::AttemptResult {
            fence: self.assignment.attempt.fence,
            outcome: wire::Outcome::Succeeded,
            images: vec![],
        };
        let put = self.call(reqwest::Method::PUT, "result").json(&result);
        put.send().await?.error_for_status()?;
        Ok(())
    }
}

async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> anyhow::Result<T> {
    Ok(request.send().await?.error_for_status()?.json().await?)
}

/// One runner, with a connection of its own.
#[derive(Clone)]
pub(crate) struct Runner {
    client: Client,
    address: String,
    credential: String,
}

impl Runner {
    pub(crate) async fn register(address: &str, name: &str) -> anyhow::Result<Self> {
        let client = Client::builder().tcp_nodelay(true).build()?;
        let introduction = wire::Register {
            registration_token: REGISTRATION.to_owned(),
            name: name.to_owned(),
            labels: vec![],
        };
        let url = format!("{address}/runner/v1/register");
        let registered: wire::Registered = answer(client.post(url).json(&introduction)).await?;
        Ok(Self {
            client,
            address: address.to_owned(),
            credential: registered.credential,
        })
    }

    /// The same runner at a server that was started again.
    pub(crate) fn at(&self, address: &str) -> Self {
        let address = address.to_owned();
        Self {
            address,
            ..self.clone()
        }
    }

    /// One poll with `free_slots`; what it was given.
    pub(crate) async fn poll(
        &self,
        free_slots: u32,
        running: &[wire::AttemptRef],
    ) -> anyhow::Result<Option<Attempt>> {
        let poll = wire::Poll {
            protocol_version: wire::PROTOCOL_VERSION,
            labels: vec![],
            free_slots,
            disk_free_bytes: 1 << 40,
            running: running.to_vec(),
        };
        let url = format!("{}/runner/v1/poll", self.address);
        let ask = self.client.post(url).bearer_auth(&self.credential);
        let reply: wire::PollReply = answer(ask.json(&poll)).await?;
        Ok(reply.assign.map(|assignment| Attempt {
            client: self.client.clone(),
            address: self.address.clone(),
            assignment,
        }))
    }

    /// Takes a job and says that it does.
    pub(crate) async fn take(&self, running: &[wire::AttemptRef]) -> anyhow::Result<Attempt> {
        let begun = Instant::now();
        loop {
            if let Some(attempt) = self.poll(1, running).await? {
                attempt.accept().await?;
                return Ok(attempt);
            }
            ensure!(begun.elapsed() < PATIENCE, "no job came of a push");
        }
    }

    /// Says that attempts live; which of them the server has given up.
    pub(crate) async fn beat(&self, running: &[wire::AttemptRef]) -> anyhow::Result<Vec<String>> {
        let beat = wire::Heartbeat {
            running: running.to_vec(),
        };
        let url = format!("{}/runner/v1/heartbeat", self.address);
        let sent = self.client.post(url).bearer_auth(&self.credential);
        let reply: wire::HeartbeatReply = answer(sent.json(&beat)).await?;
        Ok(reply.lost)
    }

    /// Keeps the lease of one attempt until the server is gone.
    async fn keep(self, attempt: wire::AttemptRef) {
        while self.beat(std::slice::from_ref(&attempt)).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(wire::HEARTBEAT_SECONDS)).await;
        }
    }
}

/// Tells the server of a push to a project: the commit at its head.
pub(crate) async fn push(client: &Client, server: &Server, number: usize) -> anyhow::Result<()> {
    let body =
        json!({"ref": "refs/heads/main", "after": server.kept().commits[number]}).to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())?;
    mac.update(body.as_bytes());
    let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    let url = format!("{}/webhooks/git/{}", server.address, child::project(number));
    let push = client.post(url).header("x-hub-signature-256", signature);
    push.body(body).send().await?.error_for_status()?;
    Ok(())
}

/// Pushes to every project and takes the jobs that come of it, one runner for each, which keeps its lease.
pub(crate) async fn attempts(server: &Server) -> anyhow::Result<Vec<Attempt>> {
    let client = Client::new();
    let mut taken = vec![];
    for number in 0..server.kept().commits.len() {
        push(&client, server, number).await?;
        let runner = Runner::register(&server.address, &format!("load-{number}")).await?;
        let attempt = runner.take(&[]).await?;
        tokio::spawn(runner.keep(attempt.assignment.attempt.clone()));
        taken.push(attempt);
    }
    Ok(taken)
}
