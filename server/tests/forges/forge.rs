//! Forges as their documentation describes them, as far as commit statuses go, on a real socket: who may call, what
//! has to be in a call, its limits, and what is shown then. A call can be made to go wrong.

use roadstead_server::forge::Forge;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(crate) const TOKEN: &str = "forge-token-of-the-tests";
pub(crate) const KINDS: [Forge; 4] = [Forge::Github, Forge::Gitlab, Forge::Gitea, Forge::Bitbucket];

/// A call as it came.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
}

/// A status that was taken, in the forge's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) commit: String,
    pub(crate) git_ref: Option<String>,
    pub(crate) state: String,
    pub(crate) description: String,
    pub(crate) page: String,
}

/// How a call goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    /// It does its work, and the connection closes without an answer.
    AnswerLost,
    /// The connection closes, and it does its work when the test says so.
    Late,
    /// It is never answered.
    Silence,
    /// It is answered so, and does nothing.
    Answer(u16, Vec<(&'static str, String)>, Value),
}

pub(crate) struct Inner {
    kind: Forge,
    commits: BTreeSet<String>,
    pub(crate) taken: Vec<Taken>,
    pub(crate) calls: Vec<Call>,
    /// What was answered to each call that was answered.
    pub(crate) answers: Vec<(u16, Value)>,
    pub(crate) troubles: VecDeque<Trouble>,
    late: Vec<Call>,
}

type Answer = (u16, Vec<(&'static str, String)>, Value);

/// A forge of one kind with a repository `team/shop`.
pub(crate) struct FakeForge {
    kind: Forge,
    port: u16,
    inner: Arc<Mutex<Inner>>,
    serving: Option<JoinHandle<()>>,
}

impl FakeForge {
    pub(crate) async fn start(kind: Forge) -> Self {
        let inner = Inner {
            kind,
            commits: BTreeSet::new(),
            taken: vec![],
            calls: vec![],
            answers: vec![],
            troubles: VecDeque::new(),
            late: vec![],
        };
        let mut forge = Self {
            kind,
            port: 0,
            inner: Arc::new(Mutex::new(inner)),
            serving: None,
        };
        forge.come_back().await;
        forge
    }

    /// Nobody listens there any more.
    pub(crate) async fn go_away(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }

    /// Listens again where it did.
    pub(crate) async fn come_back(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.port = listener.local_addr().unwrap().port();
        let inner = Arc::clone(&self.inner);
        self.serving = Some(tokio::spawn(async move {
            while let Ok((peer, _)) = listener.accept().await {
                tokio::spawn(serve(peer, Arc::clone(&inner)));
            }
        }));
    }

    /// Where its API is.
    pub(crate) fn api(&self) -> String {
        let prefix = match self.kind {
            Forge::Github | Forge::Git => "",
            Forge::Gitlab => "/api/v4",
            Forge::Gitea => "/api/v1",
            Forge::Bitbucket => "/2.0",
        };
        format!("http://127.0.0.1:{}{prefix}", self.port)
    }

    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It knows a commit, as it was pushed to it.
    pub(crate) fn push(&self, commit: &str) {
        self.inner().commits.insert(commit.to_owned());
    }

    /// The next calls go wrong like this, one after another.
    pub(crate) fn troubled(&self, by: impl IntoIterator<Item = Trouble>) {
        self.inner().troubles.extend(by);
    }

    /// What was held up does its work.
    pub(crate) fn land(&self) {
        let mut inner = self.inner();
        for call in std::mem::take(&mut inner.late) {
            inner.act(&call);
        }
    }

    /// States and descriptions that were taken, oldest first.
    pub(crate) fn told(&self) -> Vec<(String, String)> {
        let taken = self.inner().taken.clone();
        let told = taken.into_iter().map(|it| (it.state, it.description));
        told.collect()
    }

    /// What it shows beside a commit: the newest word, of GitLab the newest job's.
    pub(crate) fn shown(&self) -> Option<String> {
        self.inner().taken.last().map(|it| it.state.clone())
    }

    pub(crate) fn calls(&self) -> usize {
        self.inner().calls.len()
    }
}

impl Drop for FakeForge {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

async fn read(peer: &mut BufReader<TcpStream>) -> Option<Call> {
    let mut line = String::new();
    peer.read_line(&mut line).await.ok()?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        peer.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or("0", String::as_str);
    let mut body = vec![0; length.parse().ok()?];
    peer.read_exact(&mut body).await.ok()?;
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Some(Call {
        method,
        path,
        headers,
        body,
    })
}

async fn serve(peer: TcpStream, inner: Arc<Mutex<Inner>>) {
    let mut peer = BufReader::new(peer);
    let Some(call) = read(&mut peer).await else {
        return;
    };
    let answer = {
        let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.calls.push(call.clone());
        match inner.troubles.pop_front() {
            None => Some(inner.act(&call)),
            Some(Trouble::Answer(status, headers, body)) => Some((status, headers, body)),
            Some(Trouble::AnswerLost) => {
                inner.act(&call);
                return;
            }
            Some(Trouble::Late) => {
                inner.late.push(call);
                return;
            }
            Some(Trouble::Silence) => None,
        }
    };
    let Some((status, headers, body)) = answer else {
        // Until the caller has had enough.
        let _ = peer.read_u8().await;
        return;
    };
    let recorded = (status, body.clone());
    inner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .answers
        .push(recorded);
    let body = body.to_string();
    let mut head = format!(
        "HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let _ = peer.write_all(format!("{head}\r\n{body}").as_bytes()).await;
}

fn says(status: u16, body: Value) -> Answer {
    (status, vec![], body)
}

/// A member that has to be there as a text.
fn text<'a>(body: &'a Value, name: &str) -> Option<&'a str> {
    body.get(name)?.as_str()
}

impl Inner {
    fn act(&mut self, call: &Call) -> Answer {
        let header = match self.kind {
            Forge::Gitlab => ("private-token", TOKEN.to_owned()),
            Forge::Gitea => ("authorization", format!("token {TOKEN}")),
            Forge::Github | Forge::Bitbucket | Forge::Git => {
                ("authorization", format!("Bearer {TOKEN}"))
            }
        };
        if call.headers.get(header.0) != Some(&header.1) {
            return says(401, self.error("Bad credentials"));
        }
        // GitHub refuses whoever does not say who it is.
        if !call.headers.contains_key("user-agent") {
            return says(403, self.error("Request forbidden by administrative rules"));
        }
        let path = call.path.split('?').next().unwrap_or_default();
        let names: Vec<&str> = path.split('/').skip(1).collect();
        let commit = match (self.kind, call.method.as_str(), names.as_slice()) {
            (Forge::Github, "POST", ["repos", "team", "shop", "statuses", commit])
            | (Forge::Github, "GET", ["repos", "team", "shop", "commits", commit, "statuses"])
            | (Forge::Gitea, _, ["api", "v1", "repos", "team", "shop", "statuses", commit])
            | (
                Forge::Gitlab,
                "POST",
                ["api", "v4", "projects", "team%2Fshop", "statuses", commit],
            )
            | (
                Forge::Gitlab,
                "GET",
                [
                    "api",
                    "v4",
                    "projects",
                    "team%2Fshop",
                    "repository",
                    "commits",
                    commit,
                    "statuses",
                ],
            )
            | (
                Forge::Bitbucket,
                "POST",
                [
                    "2.0",
                    "repositories",
                    "team",
                    "shop",
                    "commit",
                    commit,
                    "statuses",
                    "build",
                ],
            )
            | (
                Forge::Bitbucket,
                "GET",
                [
                    "2.0",
                    "repositories",
                    "team",
                    "shop",
                    "commit",
                    commit,
                    "statuses",
                ],
            ) => (*commit).to_owned(),
            _ => return says(404, self.error("Not Found")),
        };
        if !self.commits.contains(&commit) {
            return match self.kind {
                Forge::Github => says(
                    422,
                    self.error(&format!("No commit found for SHA: {commit}")),
                ),
                Forge::Gitlab => says(404, self.error("404 Commit Not Found")),
                _ => says(404, self.error("Not Found")),
            };
        }
        if call.method == "GET" {
            return says(200, json!([]));
        }
        match self.kind {
            Forge::Gitlab => self.gitlab(&commit, &call.body),
            Forge::Bitbucket => self.bitbucket(&commit, &call.body),
            Forge::Github | Forge::Gitea | Forge::Git => self.github(&commit, &call.body),
        }
    }

    /// An error in the form that each has.
    fn error(&self, message: &str) -> Value {
        match self.kind {
            Forge::Bitbucket => json!({"type": "error", "error": {"message": message}}),
            Forge::Github => {
                json!({"message": message, "documentation_url": "https://docs.github.com/rest"})
            }
            Forge::Gitlab | Forge::Gitea | Forge::Git => json!({"message": message}),
        }
    }

    fn keep(&mut self, commit: &str, body: &Value, page: &str, git_ref: Option<&str>) -> &Taken {
        self.taken.push(Taken {
            commit: commit.to_owned(),
            git_ref: git_ref.map(str::to_owned),
            state: text(body, "state").unwrap_or_default().to_owned(),
            description: text(body, "description").unwrap_or_default().to_owned(),
            page: page.to_owned(),
        });
        &self.taken[self.taken.len() - 1]
    }

    fn github(&mut self, commit: &str, body: &Value) -> Answer {
        let invalid = |field: &str, why: &str| {
            let error =
                json!({"resource": "Status", "code": "custom", "field": field, "message": why});
            says(
                422,
                json!({"message": "Validation Failed", "errors": [error], "documentation_url": "x"}),
            )
        };
        let known = ["error", "failure", "pending", "success"];
        if !text(body, "state").is_some_and(|state| known.contains(&state)) {
            return invalid("state", "state is not included in the list");
        }
        if text(body, "description").is_some_and(|it| it.chars().count() > 140) {
            return invalid(
                "description",
                "description is too long (maximum is 140 characters)",
            );
        }
        let context = text(body, "context").unwrap_or("default").to_owned();
        let page = text(body, "target_url").unwrap_or_default().to_owned();
        let number = self.taken.len() + 1;
        let taken = self.keep(commit, body, &page, None);
        says(
            201,
            json!({
                "url": format!("https://api.github.com/repos/team/shop/statuses/{commit}"),
                "avatar_url": null,
                "id": number,
                "node_id": "MDY6U3RhdHVzMQ==",
                "state": taken.state,
                "description": taken.description,
                "target_url": page,
                "context": context,
                "created_at": "2026-11-27T10:00:00Z",
                "updated_at": "2026-11-27T10:00:00Z",
                "creator": null,
            }),
        )
    }

    /// A job of this name that waits or is at work goes on; otherwise there is a new one.
    fn gitlab(&mut self, commit: &str, body: &Value) -> Answer {
        let known = [
            "pending", "running", "success", "failed", "canceled", "skipped",
        ];
        let Some(state) = text(body, "state").filter(|it| known.contains(it)) else {
            return says(400, json!({"error": "state does not have a valid value"}));
        };
        for (name, value) in body.as_object().unwrap() {
            if value.as_str().is_some_and(|it| it.chars().count() > 255) {
                return says(400, json!({"message": {name: ["is too long"]}}));
            }
        }
        let git_ref = text(body, "ref").map(str::to_owned);
        let of_this = |it: &&Taken| it.commit == commit && it.git_ref == git_ref;
        let open = self
            .taken
            .iter()
            .rev()
            .find(of_this)
            .map(|it| it.state.clone());
        let event = match (open.as_deref(), state) {
            (Some("pending" | "running"), "pending") => Some("enqueue"),
            (Some("running"), "running") => Some("run"),
            _ => None,
        };
        if let Some(event) = event {
            let from = open.unwrap_or_default();
            let message = format!(
                "Cannot transition status via :{event} from :{from} (Reason(s): Status cannot transition via \"{event}\")"
            );
            return says(400, json!({ "message": message }));
        }
        let page = text(body, "target_url").unwrap_or_default().to_owned();
        self.keep(commit, body, &page, git_ref.as_deref());
        says(
            201,
            json!({"sha": commit, "status": state, "name": text(body, "name")}),
        )
    }

    fn bitbucket(&mut self, commit: &str, body: &Value) -> Answer {
        let invalid = |name: &str, why: &str| {
            let message = format!("{name}: {why}");
            says(
                400,
                json!({"type": "error", "error": {"message": message, "fields": {name: [why]}}}),
            )
        };
        match text(body, "key") {
            None => return invalid("key", "This field is required."),
            Some(key) if key.len() > 40 => {
                return invalid("key", "Ensure this value has at most 40 characters.");
            }
            Some(_) => {}
        }
        let known = ["INPROGRESS", "SUCCESSFUL", "FAILED", "STOPPED"];
        if !text(body, "state").is_some_and(|state| known.contains(&state)) {
            return invalid("state", "Select a valid choice.");
        }
        let Some(page) = text(body, "url").filter(|it| it.starts_with("http")) else {
            return invalid("url", "Enter a valid URL.");
        };
        let (page, git_ref) = (page.to_owned(), text(body, "refname").map(str::to_owned));
        self.keep(commit, body, &page, git_ref.as_deref());
        says(
            201,
            json!({"type": "build", "key": text(body, "key"), "state": text(body, "state")}),
        )
    }
}
