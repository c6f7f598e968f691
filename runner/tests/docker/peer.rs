//! The server's end of the protocol, played over real HTTP: it keeps what it is sent by the
//! protocol's rules and can be told to go away, to lose bytes, to cancel and to take back.

use git2::Repository;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use roadstead_protocol::*;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::watch};

/// Waits are level-triggered; this only bounds them.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);
pub(crate) const REGISTRATION_TOKEN: &str = "a-registration-token";
const CREDENTIAL: &str = "a-runner-credential";

/// What became of one attempt.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) accepted: bool,
    pub(crate) states: BTreeMap<String, Vec<StepState>>,
    pub(crate) logs: BTreeMap<String, Vec<u8>>,
    pub(crate) sealed: BTreeSet<String>,
    pub(crate) result: Option<AttemptResult>,
    /// What each request for sources said to have.
    pub(crate) haves: Vec<Option<String>>,
}

impl Seen {
    pub(crate) fn last(&self, step: &str) -> Option<&StepState> {
        self.states.get(step)?.last()
    }

    pub(crate) fn log(&self, step: &str) -> String {
        String::from_utf8_lossy(self.logs.get(step).map_or(&[][..], Vec::as_slice)).into_owned()
    }
}

#[derive(Default)]
struct State {
    runner_id: String,
    known: bool,
    repository: PathBuf,
    credentials: Option<RegistryCredentials>,
    secrets: Secrets,
    queue: VecDeque<Assignment>,
    tokens: BTreeMap<String, (String, u64, String)>,
    attempts: BTreeMap<String, Seen>,
    cancel: BTreeSet<String>,
    lost: BTreeSet<String>,
    drain: bool,
    away: bool,
    damages_packs: bool,
    /// So many more registrations find their name taken.
    names_taken: u32,
    /// So many more requests for sources are sent away.
    busy: u32,
    /// When one was, as long as nobody has asked again.
    sent_away: Option<Instant>,
    asked_too_soon: bool,
    running: Vec<AttemptRef>,
    free_slots: Option<u32>,
}

const BUSY_FOR: Duration = Duration::from_secs(2);

/// A server that listens on a free port of this machine until it is dropped.
pub(crate) struct Peer {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    listener: tokio::task::JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Peer {
    /// Serves sources from `repository` to a runner that it will call `runner_id`.
    pub(crate) async fn start(runner_id: &str, repository: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            runner_id: runner_id.to_owned(),
            repository,
            ..Default::default()
        }));
        let changed = watch::Sender::new(0);
        let listener = tokio::spawn({
            let (state, changed) = (Arc::clone(&state), changed.clone());
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (state, changed) = (Arc::clone(&state), changed.clone());
                    tokio::spawn(async move {
                        let service = service_fn(move |request| {
                            let (state, changed) = (Arc::clone(&state), changed.clone());
                            async move { Ok::<_, Infallible>(answer(request, &state, &changed).await) }
                        });
                        // A runner that hangs up is part of the tests.
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    });
                }
            }
        });
        Self {
            address,
            state,
            changed,
            listener,
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let value = change(&mut self.state.lock().unwrap());
        self.changed.send_modify(|version| *version += 1);
        value
    }

    pub(crate) fn assign(&self, assignment: Assignment) {
        self.change(|state| {
            let attempt = &assignment.attempt;
            let entry = (
                assignment.token.clone(),
                attempt.fence,
                assignment.commit.clone(),
            );
            state.tokens.insert(attempt.attempt.clone(), entry);
            state.queue.push_back(assignment);
        });
    }

    pub(crate) fn cancel(&self, attempt: &str) {
        self.change(|state| state.cancel.insert(attempt.to_owned()));
    }

    pub(crate) fn lose(&self, attempt: &str) {
        self.change(|state| state.lost.insert(attempt.to_owned()));
    }

    pub(crate) fn drain(&self) {
        self.change(|state| state.drain = true);
    }

    /// While away, every call is answered with 503.
    pub(crate) fn set_away(&self, away: bool) {
        self.change(|state| state.away = away);
    }

    /// Spoils a byte in the middle of each stored pack from now on, or does so no more.
    pub(crate) fn set_damages_packs(&self, damages_packs: bool) {
        self.change(|state| state.damages_packs = damages_packs);
    }

    /// Refuses so many registrations because of the name.
    pub(crate) fn set_names_taken(&self, names_taken: u32) {
        self.change(|state| state.names_taken = names_taken);
    }

    /// Sends so many requests for sources away, for [`BUSY_FOR`] each.
    pub(crate) fn set_busy(&self, busy: u32) {
        self.change(|state| state.busy = busy);
    }

    /// Whether nobody has to be sent away any more, and nobody came back before that was over.
    pub(crate) fn was_left_alone(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.busy == 0 && !state.asked_too_soon
    }

    pub(crate) fn set_credentials(&self, credentials: RegistryCredentials) {
        self.change(|state| state.credentials = Some(credentials));
    }

    pub(crate) fn set_secrets(&self, secrets: Secrets) {
        self.change(|state| state.secrets = secrets);
    }

    /// Loses the end of a step's log, as a power cut may.
    pub(crate) fn lose_log_after(&self, attempt: &str, step: &str, length: usize) {
        self.change(|state| {
            let seen = state.attempts.get_mut(attempt).unwrap();
            seen.logs.get_mut(step).unwrap().truncate(length);
        });
    }

    pub(crate) fn seen(&self, attempt: &str) -> Seen {
        self.state
            .lock()
            .unwrap()
            .attempts
            .get(attempt)
            .cloned()
            .unwrap_or_default()
    }

    /// Waits until what was seen of `attempt` is `enough`.
    pub(crate) async fn until(
        &self,
        attempt: &str,
        what: &str,
        enough: impl Fn(&Seen) -> bool,
    ) -> Seen {
        let mut changed = self.changed.subscribe();
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                changed.borrow_and_update();
                let seen = self.seen(attempt);
                if enough(&seen) {
                    return seen;
                }
                changed.changed().await.unwrap();
            }
        })
        .await;
        waited.unwrap_or_else(|_| panic!("{attempt}: {what}; seen: {:#?}", self.seen(attempt)))
    }

    /// Waits for the attempt's result.
    pub(crate) async fn result(&self, attempt: &str) -> Seen {
        self.until(attempt, "no result came", |seen| seen.result.is_some())
            .await
    }

    /// Waits for a poll and gives how many slots the last one offered.
    pub(crate) async fn offered_slots(&self) -> u32 {
        let mut changed = self.changed.subscribe();
        tokio::time::timeout(PATIENCE, async {
            loop {
                changed.borrow_and_update();
                if let Some(slots) = self.state.lock().unwrap().free_slots {
                    return slots;
                }
                changed.changed().await.unwrap();
            }
        })
        .await
        .expect("the runner never polled")
    }

    /// Waits until the runner says that it runs nothing.
    pub(crate) async fn until_idle(&self) {
        let mut changed = self.changed.subscribe();
        tokio::time::timeout(PATIENCE, async {
            while !self.state.lock().unwrap().running.is_empty() {
                changed.changed().await.unwrap();
                changed.borrow_and_update();
            }
        })
        .await
        .expect("the runner never said that it is idle");
    }
}

type Answer = Response<Full<Bytes>>;

fn empty(status: StatusCode) -> Answer {
    Response::builder()
        .status(status)
        .body(Full::default())
        .unwrap()
}

fn json(value: &impl Serialize) -> Answer {
    Response::new(Full::from(serde_json::to_vec(value).unwrap()))
}

fn problem(status: StatusCode, message: &str) -> Answer {
    let body = serde_json::to_vec(&Problem {
        message: message.to_owned(),
    })
    .unwrap();
    Response::builder()
        .status(status)
        .body(Full::from(body))
        .unwrap()
}

fn go_on_at(status: StatusCode, offset: usize) -> Answer {
    Response::builder()
        .status(status)
        .header(LOG_OFFSET_HEADER, offset)
        .body(Full::default())
        .unwrap()
}

async fn answer(
    request: Request<Incoming>,
    state: &Mutex<State>,
    changed: &watch::Sender<u64>,
) -> Answer {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return empty(StatusCode::BAD_REQUEST);
    };
    let body = body.to_bytes();
    let path = parts.uri.path().to_owned();
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let token = parts.headers.get("authorization").and_then(|value| {
        value
            .to_str()
            .ok()?
            .strip_prefix("Bearer ")
            .map(str::to_owned)
    });
    if state.lock().unwrap().away {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "away");
    }
    let answer = match segments.as_slice() {
        ["runner", "v1", "register"] => register(state, &body),
        ["runner", "v1", "poll"] if token.as_deref() == Some(CREDENTIAL) => {
            poll(state, changed, &body).await
        }
        ["runner", "v1", "heartbeat"] if token.as_deref() == Some(CREDENTIAL) => {
            heartbeat(&mut state.lock().unwrap(), &body)
        }
        ["runner", "v1", "attempts", attempt, rest @ ..] => {
            let mut state = state.lock().unwrap();
            match state.tokens.get(*attempt) {
                Some((expected, ..)) if token.as_ref() == Some(expected) => {}
                _ => return problem(StatusCode::UNAUTHORIZED, "unknown token"),
            }
            if state.lost.contains(*attempt) {
                return problem(StatusCode::CONFLICT, "lost");
            }
            let query = parts.uri.query().unwrap_or("");
            of_attempt(&mut state, attempt, &parts.method, rest, query, &body)
        }
        _ => problem(StatusCode::UNAUTHORIZED, "unknown credential"),
    };
    changed.send_modify(|version| *version += 1);
    answer
}

fn register(state: &Mutex<State>, body: &[u8]) -> Answer {
    let register: Register = serde_json::from_slice(body).unwrap();
    if register.registration_token != REGISTRATION_TOKEN {
        return problem(
            StatusCode::UNAUTHORIZED,
            "this registration token is unknown",
        );
    }
    let mut state = state.lock().unwrap();
    if state.names_taken > 0 {
        state.names_taken -= 1;
        return problem(StatusCode::CONFLICT, "there is a runner of this name");
    }
    state.known = true;
    json(&Registered {
        runner_id: state.runner_id.clone(),
        credential: CREDENTIAL.into(),
    })
}

async fn poll(state: &Mutex<State>, changed: &watch::Sender<u64>, body: &[u8]) -> Answer {
    let poll: Poll = serde_json::from_slice(body).unwrap();
    assert_eq!(poll.protocol_version, PROTOCOL_VERSION);
    let mut versions = changed.subscribe();
    {
        let mut state = state.lock().unwrap();
        state.running.clone_from(&poll.running);
        state.free_slots = Some(poll.free_slots);
    }
    changed.send_modify(|version| *version += 1);
    let reply = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            versions.borrow_and_update();
            let reply = {
                let mut state = state.lock().unwrap();
                let of_runner = |ids: &BTreeSet<String>| {
                    let running = poll.running.iter().map(|running| running.attempt.clone());
                    running.filter(|id| ids.contains(id)).collect::<Vec<_>>()
                };
                let (cancel, lost) = (of_runner(&state.cancel), of_runner(&state.lost));
                let drain = state.drain;
                let assign = if poll.free_slots > 0 && !drain {
                    state.queue.pop_front()
                } else {
                    None
                };
                PollReply {
                    assign,
                    cancel,
                    lost,
                    drain,
                }
            };
            if reply != PollReply::default() {
                return reply;
            }
            versions.changed().await.unwrap();
        }
    })
    .await
    .unwrap_or_default();
    json(&reply)
}

fn heartbeat(state: &mut State, body: &[u8]) -> Answer {
    if !state.known {
        return problem(StatusCode::UNAUTHORIZED, "unknown runner");
    }
    let heartbeat: Heartbeat = serde_json::from_slice(body).unwrap();
    let ids: Vec<_> = heartbeat
        .running
        .iter()
        .map(|running| running.attempt.clone())
        .collect();
    let among =
        |set: &BTreeSet<String>| ids.iter().filter(|id| set.contains(*id)).cloned().collect();
    json(&HeartbeatReply {
        cancel: among(&state.cancel),
        lost: among(&state.lost),
    })
}

fn of_attempt(
    state: &mut State,
    attempt: &str,
    method: &Method,
    rest: &[&str],
    query: &str,
    body: &[u8],
) -> Answer {
    let (_, fence, commit) = state.tokens[attempt].clone();
    if rest == ["sources"] {
        let sent_away = state.sent_away.take();
        state.asked_too_soon |= sent_away.is_some_and(|at| at.elapsed() < BUSY_FOR);
        if state.busy > 0 {
            state.busy -= 1;
            state.sent_away = Some(Instant::now());
            let mut answer = problem(StatusCode::SERVICE_UNAVAILABLE, "too many packs");
            let seconds = hyper::header::HeaderValue::from(BUSY_FOR.as_secs());
            answer.headers_mut().insert("retry-after", seconds);
            return answer;
        }
    }
    let repository = state.repository.clone();
    let credentials = state.credentials.clone();
    let secrets = state.secrets.clone();
    let damages_packs = state.damages_packs;
    let seen = state.attempts.entry(attempt.to_owned()).or_default();
    let argument = |name: &str| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(&format!("{name}=")).map(str::to_owned))
    };
    match (method.as_str(), rest) {
        ("POST", ["accept"]) => {
            seen.accepted = true;
            empty(StatusCode::NO_CONTENT)
        }
        ("GET", ["sources"]) => {
            let have = argument("have");
            let answer = Response::builder().header(COMMIT_HEADER, &commit);
            if argument("beside").is_none() {
                seen.haves.push(have.clone());
            }
            if argument("stored").is_some()
                && let Some((name, index, mut pack)) = stored(&repository)
            {
                if damages_packs {
                    let middle = pack.len() / 2;
                    pack[middle] ^= 0x55;
                }
                return answer
                    .header(PACK_HEADER, name)
                    .header(INDEX_BYTES_HEADER, index.len())
                    .body(Full::from([index, pack].concat()))
                    .unwrap();
            }
            let pack = match argument("beside") {
                Some(_) => loose(&repository),
                None => pack(&repository, &commit, have.as_deref()),
            };
            answer.body(Full::from(pack)).unwrap()
        }
        ("GET", ["registry-credentials"]) => match credentials {
            Some(credentials) => json(&credentials),
            None => problem(StatusCode::NOT_FOUND, "no registry in this test"),
        },
        ("GET", ["secrets"]) => json(&secrets),
        ("PUT", ["steps", step]) => {
            let report: StepReport = serde_json::from_slice(body).unwrap();
            assert_eq!(report.fence, fence);
            seen.states
                .entry((*step).to_owned())
                .or_default()
                .push(report.state);
            empty(StatusCode::NO_CONTENT)
        }
        ("PATCH", ["steps", step, "log"]) => {
            assert!(body.len() <= LOG_CHUNK_BYTES);
            let log = seen.logs.entry((*step).to_owned()).or_default();
            if argument("offset") != Some(log.len().to_string()) {
                return go_on_at(StatusCode::RANGE_NOT_SATISFIABLE, log.len());
            }
            log.extend_from_slice(body);
            empty(StatusCode::NO_CONTENT)
        }
        ("POST", ["steps", step, "log", "seal"]) => {
            let seal: LogSeal = serde_json::from_slice(body).unwrap();
            assert_eq!(seal.fence, fence);
            let log = seen.logs.entry((*step).to_owned()).or_default();
            if seal.length != log.len() as u64 || seal.sha256 != hex::encode(Sha256::digest(&*log))
            {
                return go_on_at(StatusCode::PRECONDITION_FAILED, log.len());
            }
            seen.sealed.insert((*step).to_owned());
            empty(StatusCode::NO_CONTENT)
        }
        ("PUT", ["result"]) => {
            let result: AttemptResult = serde_json::from_slice(body).unwrap();
            assert_eq!(result.fence, fence);
            seen.result = Some(result);
            empty(StatusCode::NO_CONTENT)
        }
        _ => problem(StatusCode::NOT_FOUND, "no such call"),
    }
}

/// The repository's own pack, its name and its index, if it was packed.
fn stored(repository: &std::path::Path) -> Option<(String, Vec<u8>, Vec<u8>)> {
    let mut files = std::fs::read_dir(repository.join(".git/objects/pack")).ok()?;
    let index = files.find_map(|file| {
        let path = file.unwrap().path();
        path.extension()
            .is_some_and(|end| end == "idx")
            .then_some(path)
    })?;
    let name = index.file_stem()?.to_str()?.strip_prefix("pack-")?;
    let pack = std::fs::read(index.with_extension("pack")).unwrap();
    Some((name.to_owned(), std::fs::read(&index).unwrap(), pack))
}

/// What lies beside the repository's own pack.
fn loose(repository: &std::path::Path) -> Vec<u8> {
    let opened = Repository::open(repository).unwrap();
    let mut builder = opened.packbuilder().unwrap();
    let objects = repository.join(".git/objects");
    for fan in std::fs::read_dir(&objects).unwrap() {
        let fan = fan.unwrap();
        let name = fan.file_name().into_string().unwrap();
        if name.len() == 2 {
            for object in std::fs::read_dir(fan.path()).unwrap() {
                let rest = object.unwrap().file_name().into_string().unwrap();
                let id = format!("{name}{rest}").parse().unwrap();
                builder.insert_object(id, None).unwrap();
            }
        }
    }
    let mut pack = git2::Buf::new();
    builder.write_buf(&mut pack).unwrap();
    pack.to_vec()
}

/// As a server builds it: without history for whoever has nothing.
fn pack(repository: &std::path::Path, commit: &str, have: Option<&str>) -> Vec<u8> {
    let repository = Repository::open(repository).unwrap();
    let mut builder = repository.packbuilder().unwrap();
    match have {
        None => builder.insert_commit(commit.parse().unwrap()).unwrap(),
        Some(have) => {
            let mut walk = repository.revwalk().unwrap();
            walk.push(commit.parse().unwrap()).unwrap();
            walk.hide(have.parse().unwrap()).unwrap();
            builder.insert_walk(&mut walk).unwrap();
        }
    }
    let mut pack = git2::Buf::new();
    builder.write_buf(&mut pack).unwrap();
    pack.to_vec()
}
