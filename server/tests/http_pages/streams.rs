//! Server-sent events: lines of a running step, and that something has changed.

use crate::site::{PATIENCE, Site, VIEWER, Who, log_key};
use futures_util::StreamExt;
use reqwest::{Method, Response, StatusCode};
use roadstead_pipelines::id::RunId;
use roadstead_protocol::{PROTOCOL_VERSION, Poll, PollReply};
use roadstead_server::store::hash_secret;
use sha2::{Digest, Sha256};

/// Reads a stream until it says something.
struct Reader {
    stream: futures_util::stream::BoxStream<'static, reqwest::Result<actix_web::web::Bytes>>,
    text: String,
}

impl Reader {
    fn of(answer: Response) -> Self {
        assert_eq!(answer.status(), StatusCode::OK);
        let headers = answer.headers();
        assert_eq!(headers["content-type"], "text/event-stream");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["x-accel-buffering"], "no");
        Self {
            stream: answer.bytes_stream().boxed(),
            text: String::new(),
        }
    }

    async fn until(&mut self, wanted: &str) {
        let read = async {
            while !self.text.contains(wanted) {
                let chunk = self.stream.next().await;
                let chunk =
                    chunk.unwrap_or_else(|| panic!("ended without {wanted}: {}", self.text));
                self.text
                    .push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
            }
        };
        let read = tokio::time::timeout(PATIENCE, read).await;
        assert!(read.is_ok(), "no {wanted} in {}", self.text);
    }
}

/// A run whose job a runner works on.
async fn running(site: &mut Site) -> RunId {
    let run = site.story.push().await;
    let store = &site.story.store;
    let claim = store
        .claim_job("harbour", hash_secret("attempt"), site.story.now)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(claim.run.id, run);
    run
}

async fn open(site: &Site, path: &str, last_seen: Option<u64>) -> Reader {
    let mut request = site.request(VIEWER, Method::GET, path);
    request = request.header("accept", "text/event-stream");
    if let Some(last_seen) = last_seen {
        request = request.header("last-event-id", last_seen.to_string());
    }
    Reader::of(request.send().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_arrive_while_the_step_runs() {
    let mut site = Site::start().await;
    let run = running(&mut site).await;
    let path = format!("/runs/{run}/steps/test/log/events");
    site.log(&run, "test", "first\n").await;

    let mut reader = open(&site, &path, None).await;
    reader.until("first").await;
    reader.until("id: 2\n").await;
    // Half a line waits for its other half.
    site.log(&run, "test", "<b>sec").await;
    site.log(&run, "test", "ond</b>\nthird\n").await;
    reader.until("third").await;
    assert!(reader.text.contains("&lt;b&gt;second") || reader.text.contains("&#60;b&#62;second"));
    assert!(!reader.text.contains("<b>"), "{}", reader.text);
    assert!(!reader.text.contains("event: end"));

    let mut again = open(&site, &path, Some(3)).await;
    again.until("third").await;
    assert!(!again.text.contains("first"), "{}", again.text);

    let text = "first\n<b>second</b>\nthird\n";
    let length = text.len() as u64;
    let sum = hex::encode(Sha256::digest(text.as_bytes()));
    let logs = &site.app.logs;
    logs.seal(log_key(&run, "test"), length, sum).await.unwrap();
    reader.until("event: end").await;
    again.until("event: end").await;

    let unknown = site.request(
        VIEWER,
        Method::GET,
        &format!("/runs/{run}/steps/x/log/events"),
    );
    assert_eq!(
        unknown.send().await.unwrap().status(),
        StatusCode::NOT_FOUND
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_hear_of_changes() {
    let mut site = Site::start().await;
    let run = running(&mut site).await;
    let mut all = open(&site, "/events?topic=all", None).await;
    let mut project = open(&site, "/events?topic=project%2Fshop", None).await;
    let mut one = open(&site, &format!("/events?topic=run%2F{run}"), None).await;
    // The first comment is sent after the stream has looked how things are.
    for reader in [&mut all, &mut project, &mut one] {
        reader.until(": alive").await;
    }
    let cancel = format!("/runs/{run}/cancel");
    let answer = site.submit(crate::site::DEPLOYER, &cancel, &[]).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    for reader in [&mut all, &mut project, &mut one] {
        reader.until("event: change").await;
    }
    let unknown = site.request(VIEWER, Method::GET, "/events?topic=weather");
    assert_eq!(
        unknown.send().await.unwrap().status(),
        StatusCode::BAD_REQUEST
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_lets_everybody_go_and_hands_out_no_work() {
    let mut site = Site::start().await;
    let run = running(&mut site).await;
    site.log(&run, "test", "first\n").await;
    let log = format!("/runs/{run}/steps/test/log/events");
    let mut readers = vec![];
    for path in ["/events?topic=all", log.as_str()] {
        let mut reader = open(&site, path, None).await;
        reader.until(": alive").await;
        readers.push(reader);
    }
    site.story.push().await;
    site.app.bell.put_away();
    for mut reader in readers {
        let rest = async { while reader.stream.next().await.is_some() {} };
        let ended = tokio::time::timeout(PATIENCE, rest).await;
        assert!(ended.is_ok(), "the stream goes on: {}", reader.text);
    }
    let poll = Poll {
        protocol_version: PROTOCOL_VERSION,
        labels: vec![],
        free_slots: 1,
        disk_free_bytes: 1 << 40,
        running: vec![],
    };
    let request = site.request(Who::Nobody, Method::POST, "/runner/v1/poll");
    let answer = request.bearer_auth("credential").json(&poll).send().await;
    let reply: PollReply = answer.unwrap().json().await.unwrap();
    assert_eq!(reply.assign, None);
    // There was work to hand out.
    let store = &site.story.store;
    let claim = store.claim_job("harbour", hash_secret("later"), site.story.now);
    assert!(claim.await.unwrap().is_some());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_its_reader() {
    let mut site = Site::start().await;
    let run = running(&mut site).await;
    let path = format!("/runs/{run}/steps/test/log/events");
    site.log(&run, "test", "first\n").await;
    let mut reader = open(&site, &path, None).await;
    reader.until("first").await;

    let store = &site.story.store;
    store
        .disable_user("viewer", "test", crate::site::now())
        .await
        .unwrap();
    site.log(&run, "test", "a secret of the others\n").await;
    let rest = tokio::time::timeout(PATIENCE, async {
        while let Some(chunk) = reader.stream.next().await {
            let text = String::from_utf8(chunk.unwrap().to_vec()).unwrap();
            reader.text.push_str(&text);
        }
    });
    assert!(rest.await.is_ok(), "the stream goes on: {}", reader.text);
    assert!(!reader.text.contains("a secret"), "{}", reader.text);
    site.stop().await;
}
