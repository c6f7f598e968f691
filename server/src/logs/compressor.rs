//! Compresses sealed logs, one at a time, on a thread of its own.
//!
//! It takes raw files away and so waits for backups, which hold the [`Lock`]. What is to be compressed has a marker, an empty file named for the log, which goes once it is done:
//! after a restart nobody has to search millions of folders. A marker that a power cut takes leaves a
//! log as it was sealed, which costs room and nothing else.

use super::files::{Files, SMALL};
use super::lock::Lock;
use crate::private;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// Where the markers are, below the folder of all logs. No run's name begins with a dot.
const MARKERS: &str = ".to-compress";
/// Between the parts of a marker's name; none of them can hold it.
const BETWEEN: char = '~';

/// Between two looks whether a backup is over.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// The way to the thread, which ends with the last of these.
pub(super) struct Compressor {
    markers: PathBuf,
    queue: mpsc::Sender<PathBuf>,
}

impl Compressor {
    /// Starts the thread for the logs below `root` in the folder `data`, with what earlier ones left.
    pub(super) fn start(data: &Path, root: &Path) -> io::Result<Self> {
        let markers = root.join(MARKERS);
        private::folder(&markers)?;
        let (queue, waiting) = mpsc::channel::<PathBuf>();
        for entry in fs::read_dir(&markers)? {
            // The receiver is still here.
            let _ = queue.send(entry?.path());
        }
        let (data, root) = (data.to_owned(), root.to_owned());
        std::thread::Builder::new()
            .name("log-compressor".into())
            .spawn(move || {
                for marker in waiting {
                    if let Err(error) = compress(&data, &root, &marker) {
                        tracing::warn!(%error, marker = %marker.display(), "a log stays uncompressed: {error}");
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

fn compress(data: &Path, root: &Path, marker: &Path) -> io::Result<()> {
    let _lock = loop {
        match Lock::exclusive(data)? {
            Some(lock) => break lock,
            None => std::thread::sleep(BETWEEN_LOOKS),
        }
    };
    let name = marker.file_name().and_then(|name| name.to_str());
    let parts: Vec<_> = name.unwrap_or_default().split(BETWEEN).collect();
    if let [run, attempt, step] = parts[..] {
        let raw = root.join(run).join(attempt).join(format!("{step}.log"));
        Files::new(raw).compress()?;
    }
    fs::remove_file(marker)
}
