//! What keeps the story at a moment until somebody lets it go on: the sandbox's faults, and a file
//! that the build wants.
//!
//! Level-triggered: a caller that waits is waited for, and goes on only when it is told to. Knows
//! nothing of moments, nor of who is killed.

use crate::children::until;
use anyhow::Context;
use serde_json::{Value, json};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longest wait until something waits here.
const LIMIT: Duration = Duration::from_secs(180);
/// How long the sandbox keeps a call by itself: until it is let go, in every story.
const KEPT_MS: u64 = 30 * 60 * 1000;
/// A request for the file is shorter.
const LONGEST_HEAD: usize = 16 * 1024;

/// What a kept call waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// To be performed.
    Effect,
    /// To be answered; it took effect.
    Reply,
}

/// The sandbox's faults.
pub(crate) struct Faults {
    http: reqwest::Client,
    sandbox: String,
}

impl Faults {
    pub(crate) fn new(sandbox: String) -> Self {
        let http = reqwest::Client::new();
        Self { http, sandbox }
    }

    /// Keeps the next `times` calls of an operation.
    pub(crate) async fn keep(
        &self,
        operation: &str,
        before: Before,
        times: u32,
    ) -> anyhow::Result<()> {
        let kind = match before {
            Before::Effect => "delay",
            Before::Reply => "delay_reply",
        };
        let fault =
            json!({"operation": operation, "kind": kind, "times": times, "delay_ms": KEPT_MS});
        let address = format!("{}/_sandbox/faults", self.sandbox);
        let answer = self.http.post(address).json(&fault).send().await?;
        answer.error_for_status()?;
        Ok(())
    }

    /// The calls that wait.
    pub(crate) async fn waiting(&self) -> anyhow::Result<Vec<Value>> {
        let address = format!("{}/_sandbox/held", self.sandbox);
        let answer = self.http.get(address).send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }

    /// Waits until the reply of this operation waits, and shows the call.
    pub(crate) async fn reply_waits(&self, operation: &str) -> anyhow::Result<Value> {
        until(&format!("the reply to {operation}"), LIMIT, async || {
            let waiting = self.waiting().await?;
            Ok(waiting.into_iter().find(|call| {
                call["operation"] == json!(operation) && call["performed"] == json!(true)
            }))
        })
        .await
    }

    /// Lets go what waits; calls to come are kept as before.
    pub(crate) async fn step(&self) -> anyhow::Result<()> {
        self.delete("held").await
    }

    /// Lets go what waits and keeps nothing more.
    pub(crate) async fn let_go(&self) -> anyhow::Result<()> {
        self.delete("faults").await
    }

    async fn delete(&self, what: &str) -> anyhow::Result<()> {
        let address = format!("{}/_sandbox/{what}", self.sandbox);
        self.http.delete(address).send().await?.error_for_status()?;
        Ok(())
    }
}

/// A file on this machine that arrives only once the latch is open. Docker Engine fetches it while it
/// builds, so a build that wants it stands still.
pub(crate) struct Latch {
    address: SocketAddr,
    open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
    server: JoinHandle<()>,
}

impl Latch {
    pub(crate) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (open, waiting) = (watch::Sender::new(false), watch::Sender::new(0));
        let server = tokio::spawn(serve(listener, open.clone(), waiting.clone()));
        Ok(Self {
            address,
            open,
            waiting,
            server,
        })
    }

    /// Where the file is.
    pub(crate) fn address(&self) -> String {
        format!("http://{}/latch", self.address)
    }

    /// Waits until somebody waits for the file.
    pub(crate) async fn waits(&self) -> anyhow::Result<()> {
        let mut waiting = self.waiting.subscribe();
        tokio::time::timeout(LIMIT, waiting.wait_for(|waiting| *waiting > 0))
            .await
            .context("the build did not ask for its file in time")??;
        Ok(())
    }

    /// Gives the file to all who wait and who come.
    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, open: watch::Sender<bool>, waiting: watch::Sender<usize>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (open, waiting) = (open.clone(), waiting.clone());
        tokio::spawn(async move {
            // Whoever hangs up asks again, or no longer wants it.
            let _ = answer(stream, &open, &waiting).await;
        });
    }
}

async fn answer(
    mut stream: TcpStream,
    open: &watch::Sender<bool>,
    waiting: &watch::Sender<usize>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > LONGEST_HEAD || stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    waiting.send_modify(|waiting| *waiting += 1);
    let mut opened = open.subscribe();
    let mut more = Vec::new();
    let is_there = tokio::select! {
        opened = opened.wait_for(|open| *open) => opened.is_ok(),
        _ = stream.read_buf(&mut more) => false,
    };
    waiting.send_modify(|waiting| *waiting -= 1);
    if is_there {
        let file = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nopen\n";
        stream.write_all(file.as_bytes()).await?;
        stream.shutdown().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Latch;
    use std::time::Duration;

    #[tokio::test]
    async fn a_file_arrives_when_the_latch_is_open_and_not_before() {
        let latch = Latch::start().await.unwrap();
        let get = || tokio::spawn(reqwest::get(latch.address()));
        let (stays, leaves) = (get(), get());
        latch.waits().await.unwrap();
        leaves.abort();
        let left = latch
            .waiting
            .subscribe()
            .wait_for(|n| *n == 1)
            .await
            .map(|n| *n);
        assert_eq!(left.unwrap(), 1, "one of them hung up");
        assert!(!stays.is_finished());
        latch.open();
        let answer = stays.await.unwrap().unwrap();
        assert_eq!(answer.text().await.unwrap(), "open\n");
        let again = tokio::time::timeout(Duration::from_secs(60), get()).await;
        assert_eq!(
            again.unwrap().unwrap().unwrap().text().await.unwrap(),
            "open\n"
        );
    }
}
