//! A step's log on its way to the server: spooled on disk, sent at byte offsets, sealed by hash.
//!
//! Owns the spool file and the sending. Invariants: the spool is the truth and only grows; bytes
//! reach the server in order and exactly once, however often calls are cut off, because the server
//! appends only at its own offset; while the server is away the step runs on.

use crate::{
    client::{AttemptClient, Backoff, CallError, RESULT_PATIENCE},
    mask::Masker,
};
use bytes::Bytes;
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
/// A log ends here, with a line that says so; the step goes on.
const LONGEST_LOG_BYTES: u64 = 1 << 30;
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

    /// Never shows `secret` from now on.
    pub(crate) async fn hide(&self, secret: &str) {
        self.writer.lock().await.masker.hide(secret);
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
