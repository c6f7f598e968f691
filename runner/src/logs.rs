//! A step's log on its way to the server: spooled on disk, sent at byte offsets, sealed by hash.
//!
//! Owns the spool file and the sending. Invariants: the spool is the truth and only grows; bytes
//! reach the server in order and exactly once, however often calls are cut off, because the server
//! appends only at its own offset; while the server is away the step runs on.

use crate::client::{AttemptClient, Backoff, CallError, RESULT_PATIENCE};
use bytes::Bytes;
use roadstead_masking::{Masker, TooMuch};
use roadstead_protocol::{LOG_CHUNK_BYTES, LogSeal};
use sha2::{Digest, Sha256};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    sync::{Mutex, watch},
};

/// Small writes gather for this long before they are sent.
const GATHER: Duration = Duration::from_millis(100);
/// A log ends here, with a line that says so; the step goes on. Less than the 1 GiB that a server
/// keeps, so that the line has room.
const LONGEST_LOG_BYTES: u64 = (1 << 30) - 4096;
/// A server that sends us back more often than this in a row will never have the whole log.
const MOST_REWINDS: u32 = 10;

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    length: u64,
    closed: bool,
}

struct Writer {
    file: tokio::fs::File,
    hash: Sha256,
    length: u64,
    masker: Masker,
    full: bool,
}

/// Writes a step's log; clones write to the same one.
#[derive(Clone)]
pub(crate) struct StepLog {
    writer: Arc<Mutex<Writer>>,
    progress: Arc<watch::Sender<Progress>>,
    /// For reading back what is to be sent.
    spool: Arc<File>,
}

impl StepLog {
    /// Begins a log in a new file at `path`.
    pub(crate) async fn create(path: &Path) -> io::Result<Self> {
        let path = path.to_owned();
        let file = tokio::task::spawn_blocking(move || {
            OpenOptions::new()
                .read(true)
                .append(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
        })
        .await
        .map_err(io::Error::other)??;
        let spool = Arc::new(file.try_clone()?);
        Ok(Self {
            writer: Arc::new(Mutex::new(Writer {
                file: tokio::fs::File::from_std(file),
                hash: Sha256::new(),
                length: 0,
                masker: Masker::default(),
                full: false,
            })),
            progress: Arc::new(watch::Sender::new(Progress::default())),
            spool,
        })
    }

    /// Never shows one of `secrets` from now on, in any encoding that is known to `masking`.
    ///
    /// # Errors
    /// When they are too much; none of them may be used then.
    pub(crate) async fn hide<S: AsRef<str>>(
        &self,
        secrets: impl IntoIterator<Item = S>,
    ) -> Result<(), TooMuch> {
        self.writer.lock().await.masker.hide(secrets)
    }

    /// Appends bytes as they are.
    pub(crate) async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut writer = self.writer.lock().await;
        let shown = writer.masker.push(bytes);
        self.append(&mut writer, &shown).await
    }

    /// Appends a line of the runner's own.
    pub(crate) async fn line(&self, text: &str) -> io::Result<()> {
        self.write(format!("{text}\n").as_bytes()).await
    }

    /// Nothing follows.
    pub(crate) async fn close(&self) -> io::Result<()> {
        let mut writer = self.writer.lock().await;
        let rest = writer.masker.finish();
        let appended = self.append(&mut writer, &rest).await;
        // Closed even when the disk is full: the sender must come to an end.
        self.progress.send_modify(|progress| progress.closed = true);
        appended
    }

    async fn append(&self, writer: &mut Writer, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() || writer.full {
            return Ok(());
        }
        let mut bytes = bytes;
        let notice;
        if writer.length + bytes.len() as u64 > LONGEST_LOG_BYTES {
            writer.full = true;
            notice = format!(
                "\n[the log is longer than {LONGEST_LOG_BYTES} bytes; the rest is not kept]\n"
            );
            bytes = notice.as_bytes();
        }
        writer.file.write_all(bytes).await?;
        // Without this the bytes may still be on their way when the sender reads the file.
        writer.file.flush().await?;
        writer.hash.update(bytes);
        writer.length += bytes.len() as u64;
        let length = writer.length;
        self.progress
            .send_modify(|progress| progress.length = length);
        Ok(())
    }

    async fn seal(&self, fence: u64) -> LogSeal {
        let writer = self.writer.lock().await;
        LogSeal {
            fence,
            length: writer.length,
            sha256: hex::encode(writer.hash.clone().finalize()),
        }
    }

    async fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let spool = Arc::clone(&self.spool);
        tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; length];
            spool.read_exact_at(&mut bytes, offset)?;
            Ok(Bytes::from(bytes))
        })
        .await
        .map_err(io::Error::other)?
    }

    /// What stands from byte `offset` on, at most [`LOG_CHUNK_BYTES`], as soon as something does; `None`
    /// when the log is closed and nothing does.
    pub(crate) async fn next(&self, offset: u64) -> io::Result<Option<Bytes>> {
        let mut progress = self.progress.subscribe();
        let enough = |progress: &Progress| progress.length > offset || progress.closed;
        // The sender lives in `self`, so the channel cannot be closed.
        let length = progress
            .wait_for(enough)
            .await
            .map_or(offset, |progress| progress.length);
        if length <= offset {
            return Ok(None);
        }
        let size = (length - offset).min(LOG_CHUNK_BYTES as u64) as usize;
        self.read(offset, size).await.map(Some)
    }

    /// Sends the log as it grows and seals it when it is closed.
    ///
    /// # Errors
    /// When the server refuses the log, stays away for an hour, or the spool cannot be read.
    pub(crate) async fn ship(&self, client: &AttemptClient, step: &str) -> Result<(), ShipError> {
        let mut progress = self.progress.subscribe();
        let mut offset = 0;
        let mut rewinds = 0;
        let mut backoff = Backoff::new(RESULT_PATIENCE);
        loop {
            let Progress { length, closed } = *progress.borrow_and_update();
            let sent = if offset < length {
                let size = (length - offset).min(LOG_CHUNK_BYTES as u64) as usize;
                let bytes = self.read(offset, size).await?;
                client.append_log(step, offset, bytes).await.map(|()| {
                    offset += size as u64;
                    rewinds = 0;
                })
            } else if closed {
                match client
                    .seal_log(step, &self.seal(client.fence()).await)
                    .await
                {
                    Ok(()) => return Ok(()),
                    Err(error) => Err(error),
                }
            } else {
                // The sender lives in `self`, so the channel cannot be closed.
                let _ = progress.changed().await;
                continue;
            };
            match sent {
                Ok(()) => {
                    backoff = Backoff::new(RESULT_PATIENCE);
                    let enough = |progress: &Progress| {
                        progress.closed || progress.length - offset >= LOG_CHUNK_BYTES as u64
                    };
                    let _ = tokio::time::timeout(GATHER, progress.wait_for(enough)).await;
                }
                Err(CallError::Offset(server)) => {
                    rewinds += 1;
                    if server > length || rewinds > MOST_REWINDS {
                        return Err(ShipError::NeverTheSame {
                            server,
                            here: length,
                        });
                    }
                    offset = server;
                }
                Err(error) if error.is_transient() => match backoff.next_pause() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(error.into()),
                },
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Why a log did not reach the server whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShipError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the log's spool file cannot be read: {0}")]
    Spool(#[from] io::Error),
    #[error("the server's log goes on at byte {server}, the spool has {here}: they will not meet")]
    NeverTheSame { server: u64, here: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{client::Client, secret::Secret};
    use http_body_util::{BodyExt, Full};
    use hyper::{Request, Response, StatusCode, body::Incoming, service::service_fn};
    use hyper_util::rt::TokioIo;
    use reqwest::Url;
    use roadstead_protocol::{AttemptRef, LOG_OFFSET_HEADER};
    use std::collections::VecDeque;
    use tokio::net::TcpListener;

    /// What the other end does to one call instead of keeping to the rules.
    #[derive(Debug, Clone, Copy)]
    enum Trouble {
        /// Does as asked and hangs up without a word.
        HangUp,
        /// Is not there.
        Away,
        /// Forgets all but so many bytes, then goes by the rules.
        Forget(usize),
        /// Spoils the first byte, then goes by the rules.
        Spoil,
        /// Says that it has this much.
        Claim(u64),
        /// Will not have the log.
        Refuse,
    }

    /// The server's end of one log.
    #[derive(Default)]
    struct Kept {
        bytes: Vec<u8>,
        sealed: bool,
        calls: usize,
        troubles: VecDeque<Trouble>,
    }

    type Shared = Arc<std::sync::Mutex<Kept>>;

    async fn answer(
        request: Request<Incoming>,
        kept: &Shared,
    ) -> Result<Response<Full<Bytes>>, &'static str> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let mut kept = kept.lock().unwrap();
        kept.calls += 1;
        let at = |status, offset: u64| {
            let builder = Response::builder()
                .status(status)
                .header(LOG_OFFSET_HEADER, offset);
            Ok(builder.body(Full::default()).unwrap())
        };
        let status = |status| {
            Ok(Response::builder()
                .status(status)
                .body(Full::default())
                .unwrap())
        };
        let trouble = kept.troubles.pop_front();
        match trouble {
            Some(Trouble::Away) => return status(StatusCode::SERVICE_UNAVAILABLE),
            Some(Trouble::Refuse) => return status(StatusCode::FORBIDDEN),
            Some(Trouble::Claim(offset)) => return at(StatusCode::RANGE_NOT_SATISFIABLE, offset),
            Some(Trouble::Forget(length)) => kept.bytes.truncate(length),
            Some(Trouble::Spoil) => {
                if let Some(first) = kept.bytes.first_mut() {
                    *first ^= 1;
                }
            }
            Some(Trouble::HangUp) | None => {}
        }
        let length = kept.bytes.len() as u64;
        if parts.uri.path().ends_with("/seal") {
            let seal: LogSeal = serde_json::from_slice(&body).unwrap();
            if seal.length != length || seal.sha256 != hex::encode(Sha256::digest(&kept.bytes)) {
                if seal.length == length {
                    // The bytes themselves are wrong: everything again.
                    kept.bytes.clear();
                }
                return at(StatusCode::PRECONDITION_FAILED, kept.bytes.len() as u64);
            }
            kept.sealed = true;
        } else {
            if parts.uri.query() != Some(&format!("offset={length}")) {
                return at(StatusCode::RANGE_NOT_SATISFIABLE, length);
            }
            assert!(body.len() <= LOG_CHUNK_BYTES);
            kept.bytes.extend_from_slice(&body);
        }
        if matches!(trouble, Some(Trouble::HangUp)) {
            return Err("hangs up");
        }
        status(StatusCode::NO_CONTENT)
    }

    struct World {
        kept: Shared,
        client: AttemptClient,
        log: StepLog,
        _spool: tempfile::TempDir,
    }

    async fn world(troubles: impl IntoIterator<Item = Trouble>) -> World {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let kept: Shared = Arc::default();
        kept.lock().unwrap().troubles = troubles.into_iter().collect();
        let server = Arc::clone(&kept);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let kept = Arc::clone(&server);
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(request, &kept));
                    // Hanging up is what some tests are about.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let attempt = AttemptRef {
            attempt: "a".into(),
            fence: 1,
        };
        let client = Client::new(&address)
            .unwrap()
            .attempt(attempt, Secret::new("token"));
        let spool = tempfile::tempdir().unwrap();
        let log = StepLog::create(&spool.path().join("0.log")).await.unwrap();
        World {
            kept,
            client,
            log,
            _spool: spool,
        }
    }

    /// Writes `pieces` while the log is shipped.
    async fn ship(world: &World, pieces: &[&[u8]]) -> Result<(), ShipError> {
        let writing = async {
            for piece in pieces {
                world.log.write(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            world.log.close().await.unwrap();
        };
        tokio::join!(writing, world.log.ship(&world.client, "test")).1
    }

    #[tokio::test]
    async fn a_log_arrives_whole_whatever_the_network_does() {
        let big = vec![b'x'; 3 * LOG_CHUNK_BYTES + 17];
        let pieces: [&[u8]; 4] = [b"first\n", &big, b"", b"the last line has no end"];
        let expected = pieces.concat();
        use Trouble::{Away, Forget, HangUp, Spoil};
        let nothing = Forget(usize::MAX);
        for troubles in [
            vec![],
            vec![HangUp],
            vec![Away, Away, HangUp, HangUp],
            vec![nothing, Forget(0), nothing, Forget(3), HangUp, Away],
            vec![nothing, nothing, Spoil],
            vec![
                nothing,
                nothing,
                nothing,
                nothing,
                nothing,
                Forget(5),
                Away,
                HangUp,
            ],
        ] {
            let world = world(troubles.clone()).await;
            ship(&world, &pieces).await.unwrap();
            let kept = world.kept.lock().unwrap();
            assert!(
                kept.bytes == expected,
                "{troubles:?}: {} bytes",
                kept.bytes.len()
            );
            assert!(kept.sealed, "{troubles:?}");
        }
    }

    #[tokio::test]
    async fn a_secret_never_reaches_the_spool() {
        let world = world([]).await;
        world.log.hide(["correct-horse-battery"]).await.unwrap();
        ship(&world, &[b"login correct-ho", b"rse-battery ok\n"])
            .await
            .unwrap();
        assert_eq!(world.kept.lock().unwrap().bytes, b"login *** ok\n");
    }

    #[tokio::test]
    async fn an_empty_log_is_sealed_too() {
        let world = world([]).await;
        ship(&world, &[]).await.unwrap();
        let kept = world.kept.lock().unwrap();
        assert!(kept.sealed && kept.calls == 1);
    }

    #[tokio::test]
    async fn a_log_that_can_never_be_the_same_is_given_up() {
        let world_ahead = world([Trouble::Claim(1000)]).await;
        let error = ship(&world_ahead, &[b"short"]).await.unwrap_err();
        assert!(
            matches!(
                error,
                ShipError::NeverTheSame {
                    server: 1000,
                    here: 5
                }
            ),
            "{error}"
        );

        let world_stuck = world(std::iter::repeat_n(Trouble::Claim(0), 100)).await;
        let error = ship(&world_stuck, &[b"short"]).await.unwrap_err();
        assert!(matches!(error, ShipError::NeverTheSame { .. }), "{error}");

        let world_refusing = world([Trouble::Refuse]).await;
        let error = ship(&world_refusing, &[b"short"]).await.unwrap_err();
        assert!(
            matches!(error, ShipError::Call(CallError::Refused { .. })),
            "{error}"
        );
        assert_eq!(
            world_refusing.kept.lock().unwrap().calls,
            1,
            "a refusal is not tried again"
        );
    }
}
