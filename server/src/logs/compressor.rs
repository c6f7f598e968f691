//! Compresses sealed logs, one at a time, on a thread of its own. Of several servers on one folder each
//! does so, and none what another one does now.
//!
//! What is to be compressed has a marker, an empty file named for the log, which goes once it is done:
//! after a restart nobody has to search millions of folders. A marker that a power cut takes leaves a
//! log as it was sealed, which costs room and nothing else. Whoever compresses a log has its marker
//! locked; those that a killed server leaves are found by the others. Raw files and markers go while no backup
//! reads them, which the [`Lock`] tells, held for that moment alone.

use super::files::{Files, SMALL};
use super::lock::Lock;
use crate::private;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// Where the markers are, below the folder of all logs. No run's name begins with a dot.
const MARKERS: &str = ".to-compress";
/// Between the parts of a marker's name; none of them can hold it.
const BETWEEN: char = '~';

/// Between two looks for markers that another server left.
const BETWEEN_SEARCHES: Duration = Duration::from_secs(60);
/// Between two looks whether a backup is over.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// The way to the thread, which ends with the last of these.
pub(super) struct Compressor {
    markers: PathBuf,
    queue: mpsc::Sender<PathBuf>,
}

impl Compressor {
    /// Starts the thread for the logs below `root`, with what earlier ones left.
    pub(super) fn start(root: &Path) -> io::Result<Self> {
        let markers = root.join(MARKERS);
        private::folder(&markers)?;
        let (queue, waiting) = mpsc::channel::<PathBuf>();
        search(&markers, |marker| {
            // The receiver is still here.
            let _ = queue.send(marker);
        })?;
        let (root, folder) = (root.to_owned(), markers.clone());
        std::thread::Builder::new()
            .name("log-compressor".into())
            .spawn(move || {
                // Until the next start: each try reads all of it.
                let mut given_up = BTreeSet::new();
                let mut work = |marker: PathBuf| {
                    if given_up.contains(&marker) {
                        return;
                    }
                    if let Err(error) = compress(&root, &marker) {
                        tracing::warn!(%error, marker = %marker.display(), "a log stays uncompressed: {error}");
                        given_up.insert(marker);
                    }
                };
                loop {
                    match waiting.recv_timeout(BETWEEN_SEARCHES) {
                        Ok(marker) => work(marker),
                        Err(RecvTimeoutError::Timeout) => {
                            if let Err(error) = search(&folder, &mut work) {
                                tracing::warn!(%error, "logs to compress cannot be looked for");
                            }
                        }
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            })?;
        Ok(Self { markers, queue })
    }

    /// Has the sealed log `parts` (run, attempt, step) of `length` bytes compressed before long.
    pub(super) fn add(&self, parts: [&str; 3], length: u64) -> io::Result<()> {
        if length <= SMALL {
            return Ok(());
        }
        let marker = self.markers.join(parts.join(&BETWEEN.to_string()));
        private::file(&marker)?;
        self.queue
            .send(marker)
            .map_err(|_| io::Error::other("the compressor has stopped"))
    }
}

#[cfg(test)]
impl Compressor {
    /// Has a marker looked at that another server may have made.
    pub(super) fn look_at(&self, marker: PathBuf) {
        let _ = self.queue.send(marker);
    }
}

fn search(markers: &Path, mut each: impl FnMut(PathBuf)) -> io::Result<()> {
    for entry in fs::read_dir(markers)? {
        each(entry?.path());
    }
    Ok(())
}

fn compress(root: &Path, marker: &Path) -> io::Result<()> {
    let Some(_lock) = Lock::of(marker)? else {
        return Ok(());
    };
    let name = marker.file_name().and_then(|name| name.to_str());
    let parts: Vec<_> = name.unwrap_or_default().split(BETWEEN).collect();
    let files = match parts[..] {
        [run, attempt, step] => {
            let raw = root.join(run).join(attempt).join(format!("{step}.log"));
            let files = Files::new(raw);
            files.compress()?.then_some(files)
        }
        _ => None,
    };
    while !finish(root, files.as_ref(), marker)? {
        std::thread::sleep(BETWEEN_LOOKS);
    }
    Ok(())
}

/// Takes the raw file and the marker away; `false` while somebody reads them.
fn finish(root: &Path, files: Option<&Files>, marker: &Path) -> io::Result<bool> {
    let Some(_lock) = Lock::exclusive(root)? else {
        return Ok(false);
    };
    files.map_or(Ok(()), Files::take_raw_away)?;
    fs::remove_file(marker)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::index::LineIndex;
    use super::super::seal::Seal;
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn the_raw_file_and_the_marker_stay_while_a_backup_reads() {
        let data = tempfile::tempdir().unwrap();
        let raw = data.path().join("logs/shop.1/1/test.log");
        let marker = data.path().join("shop.1~1~test");
        let bytes = b"a line\n".repeat(1_000);
        let files = Files::new(raw.clone());
        files.append(0, &bytes).unwrap();
        let mut index = LineIndex::default();
        index.extend(&bytes);
        let seal = Seal {
            length: bytes.len() as u64,
            sha256: hex::encode(Sha256::digest(&bytes)),
            blotted: None,
        };
        files.write_seal(&seal, &index).unwrap();
        private::file(&marker).unwrap();
        assert!(files.compress().unwrap());
        let backup = Lock::shared(&data.path().join("logs")).unwrap();
        assert!(!finish(&data.path().join("logs"), Some(&files), &marker).unwrap());
        assert!(raw.exists() && marker.exists());
        drop(backup);
        assert!(finish(&data.path().join("logs"), Some(&files), &marker).unwrap());
        assert!(!raw.exists() && !marker.exists());
        assert!(files.hold_their_seal().unwrap());
    }
}
