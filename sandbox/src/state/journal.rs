//! The state on disk: a file with everything, and a journal of what changed since.
//!
//! A line of the journal holds the changed rows whole, so that it is applied at once or not at all.
//! When the journal has outgrown the file, everything is written anew and the next journal begins;
//! the file names its journal, so a kill in between leaves a pair that fits. Invariant: what
//! `append` acknowledged is on disk. Must not know: what the rows mean.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{Batch, State};
use crate::disk;

/// The file with everything, in the data directory.
const FILE: &str = "state.json";

/// A journal shorter than this is not worth writing everything anew.
const SHORT: u64 = 4 << 20;

/// The open journal.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    number: u64,
    /// Opened at the first line.
    file: Option<File>,
    /// Up to the end of the last whole line.
    length: u64,
    /// Of the file with everything.
    base: u64,
}

impl Journal {
    /// Reads the state of a data directory; absent files are an empty state. A line that a kill cut
    /// off is left out; any other damage is an error that names the file.
    pub(super) fn open(directory: &Path) -> anyhow::Result<(State, Self)> {
        let path = directory.join(FILE);
        let (mut state, base) = match fs::read(&path) {
            Ok(bytes) => {
                let state: State = serde_json::from_slice(&bytes).with_context(|| {
                    format!(
                        "{} is not a state file of this version: move it away to start empty",
                        path.display()
                    )
                })?;
                (state, bytes.len() as u64)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (State::default(), 0),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let number = state.journal;
        let path = journal_path(directory, number);
        let length =
            replay(&path, &mut state).with_context(|| format!("cannot read {}", path.display()))?;
        state.index_tasks();
        let journal = Self {
            directory: directory.to_owned(),
            number,
            file: None,
            length,
            base,
        };
        Ok((state, journal))
    }

    /// Writes a line and waits until it is on disk. When that fails, the journal is as before.
    pub(super) fn append(&mut self, batch: &Batch) -> io::Result<()> {
        let mut line = serde_json::to_vec(batch)?;
        line.push(b'\n');
        let length = self.length;
        let file = self.file()?;
        // Cuts off what an earlier failure left, or a kill.
        file.set_len(length)?;
        file.write_all(&line)?;
        file.sync_data()?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Whether reading the journal would take longer than reading everything.
    pub(super) fn is_long(&self) -> bool {
        self.length > SHORT.max(2 * self.base)
    }

    /// The number of the journal that follows this one.
    pub(super) fn next(&self) -> u64 {
        self.number + 1
    }

    /// Writes everything, `state` being a snapshot that names the next journal, and goes on there.
    pub(super) fn begin_anew(&mut self, state: &State) -> io::Result<()> {
        let path = self.directory.join(FILE);
        disk::replace(&path, |file| {
            let mut file = BufWriter::new(file);
            serde_json::to_writer(&mut file, state)?;
            file.flush()
        })?;
        let old = journal_path(&self.directory, self.number);
        self.number = state.journal;
        self.file = None;
        self.length = 0;
        self.base = fs::metadata(&path)?.len();
        match fs::remove_file(&old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // Nothing reads it any more.
                tracing::warn!(%error, path = %old.display(), "cannot remove an old journal");
            }
            _ => {}
        }
        Ok(())
    }

    fn file(&mut self) -> io::Result<&mut File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                fs::create_dir_all(&self.directory)?;
                let file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(journal_path(&self.directory, self.number))?;
                File::open(&self.directory)?.sync_all()?;
                file
            }
        };
        Ok(self.file.insert(file))
    }
}

fn journal_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("state.{number}.jsonl"))
}

/// Applies a journal's lines; the length up to the end of the last whole one.
fn replay(path: &Path, state: &mut State) -> anyhow::Result<u64> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let mut reader = BufReader::new(file);
    let (mut length, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok(length);
        }
        let batch: Batch = serde_json::from_slice(&line)
            .with_context(|| format!("the line that begins at byte {length} is damaged"))?;
        state.restore(batch);
        length += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::Journal;
    use crate::state::State;

    fn tagged(state: &mut State, arn: &str) {
        state.tags.insert(arn.to_owned(), [].into_iter().collect());
    }

    fn store(journal: &mut Journal, state: &mut State) {
        let names = state.take_changed();
        journal.append(&state.batch(&names, None)).unwrap();
    }

    fn tags(state: &State) -> Vec<&String> {
        state.tags.keys().collect()
    }

    #[test]
    fn a_line_that_a_kill_cut_off_is_left_out_and_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let (mut state, mut journal) = Journal::open(directory.path()).unwrap();
        tagged(&mut state, "one");
        store(&mut journal, &mut state);
        let path = directory.path().join("state.0.jsonl");
        let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"{\"tags\":{\"half").unwrap();
        let (mut state, mut journal) = Journal::open(directory.path()).unwrap();
        tagged(&mut state, "two");
        store(&mut journal, &mut state);
        let (state, _) = Journal::open(directory.path()).unwrap();
        assert_eq!(tags(&state), ["one", "two"]);
    }

    #[test]
    fn a_damaged_line_is_named() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("state.0.jsonl"), "{}\n").unwrap();
        let error = format!("{:#}", Journal::open(directory.path()).unwrap_err());
        assert!(error.contains("state.0.jsonl"), "{error}");
        assert!(error.contains("byte 0"), "{error}");
    }

    #[test]
    fn after_everything_was_written_anew_the_old_journal_no_longer_counts() {
        let directory = tempfile::tempdir().unwrap();
        let (mut state, mut journal) = Journal::open(directory.path()).unwrap();
        for arn in ["one", "two"] {
            tagged(&mut state, arn);
        }
        store(&mut journal, &mut state);
        let old = directory.path().join("state.0.jsonl");
        let kept = std::fs::read(&old).unwrap();
        state.tags.shift_remove("one");
        let snapshot = state.snapshot(None, journal.next());
        journal.begin_anew(&snapshot).unwrap();
        assert!(!old.exists());
        // As after a kill before the old journal went.
        std::fs::write(&old, kept).unwrap();
        tagged(&mut state, "three");
        store(&mut journal, &mut state);
        let (state, _) = Journal::open(directory.path()).unwrap();
        assert_eq!(tags(&state), ["two", "three"]);
    }
}
