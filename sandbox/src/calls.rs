//! The call log: every AWS call with its request, its answer's status and whether it changed
//! anything.
//!
//! Invariant: a call is in the log before its answer leaves. The file survives restarts; a kill of
//! the process loses no line that was answered.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const FILE: &str = "calls.jsonl";
/// Holds what came before the present file.
const OLD_FILE: &str = "calls.old.jsonl";
/// A file that grew beyond this becomes the old one.
const LARGEST: u64 = 64 << 20;
/// So much of the file's end is read for the newest calls.
const LATEST: u64 = 512 << 10;

/// One call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Call {
    /// Seconds since the epoch at which the answer was ready.
    pub at: f64,
    /// `ecs`, `ecr`, `logs`, `elbv2`, `sts` or `cloudwatch`.
    pub service: String,
    pub operation: String,
    pub request: Value,
    /// The answer's HTTP status, also when the answer was dropped.
    pub status: u16,
    /// AWS's name for the refusal.
    pub error: Option<String>,
    /// Whether the sandbox's state changed.
    pub effective: bool,
    /// The kind of the injected fault that met the call.
    pub fault: Option<String>,
    /// What was answered to a call that went well, when `record_answers` asks for it: values as
    /// JSON has them, or the text of an XML document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Value>,
}

/// Which calls to read; absent means any.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub operation: Option<String>,
    pub effective: Option<bool>,
}

/// The open log.
pub(crate) struct CallLog {
    directory: PathBuf,
    file: Mutex<File>,
}

impl CallLog {
    /// Opens the log of a data directory to append to it.
    pub(crate) fn open(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join(FILE);
        let file = append_to(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self {
            directory: directory.to_owned(),
            file: Mutex::new(file),
        })
    }

    /// Appends a call.
    pub(crate) fn append(&self, call: &Call) -> io::Result<()> {
        let mut line = serde_json::to_vec(call)?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.metadata()?.len() > LARGEST {
            let path = self.directory.join(FILE);
            std::fs::rename(&path, self.directory.join(OLD_FILE))?;
            *file = append_to(&path)?;
        }
        file.write_all(&line)
    }

    /// The last `most` calls at most, newest first: those in the end of the file, so that a page may
    /// ask again and again.
    pub(crate) fn newest(&self, most: usize) -> io::Result<Vec<Call>> {
        let mut file = File::open(self.directory.join(FILE))?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LATEST)))?;
        let mut end = Vec::new();
        file.read_to_end(&mut end)?;
        // A line that was begun before is no call.
        let lines = end.split(|byte| *byte == b'\n').rev();
        Ok(lines
            .filter_map(|line| serde_json::from_slice(line).ok())
            .take(most)
            .collect())
    }

    /// The calls that match, oldest first. Reads the file; a line that a kill cut off is left out.
    pub(crate) fn read(&self, filter: &Filter) -> io::Result<Vec<Call>> {
        let file = File::open(self.directory.join(FILE))?;
        let mut calls = Vec::new();
        for line in BufReader::new(file).split(b'\n') {
            let Ok(call) = serde_json::from_slice::<Call>(&line?) else {
                continue;
            };
            let wanted = filter
                .operation
                .as_ref()
                .is_none_or(|operation| *operation == call.operation)
                && filter
                    .effective
                    .is_none_or(|effective| effective == call.effective);
            if wanted {
                calls.push(call);
            }
        }
        Ok(calls)
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    // Ends a line that a kill cut off, so that the next one stands alone.
    if file.metadata()?.len() > 0 {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::json;

    use super::{Call, CallLog, Filter};

    fn call(operation: &str, effective: bool) -> Call {
        Call {
            at: 1.5,
            service: "ecs".to_owned(),
            operation: operation.to_owned(),
            request: json!({"service": "web"}),
            status: 200,
            error: None,
            effective,
            fault: None,
            answer: None,
        }
    }

    #[test]
    fn calls_survive_a_reopening_and_a_line_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let log = CallLog::open(directory.path()).unwrap();
        log.append(&call("UpdateService", true)).unwrap();
        log.append(&call("UpdateService", false)).unwrap();
        std::fs::OpenOptions::new()
            .append(true)
            .open(directory.path().join("calls.jsonl"))
            .unwrap()
            .write_all(b"{\"at\": 2.0, \"serv")
            .unwrap();
        drop(log);
        let log = CallLog::open(directory.path()).unwrap();
        log.append(&call("DescribeServices", false)).unwrap();
        assert_eq!(log.read(&Filter::default()).unwrap().len(), 3);
        let effective = log
            .read(&Filter {
                operation: Some("UpdateService".to_owned()),
                effective: Some(true),
            })
            .unwrap();
        assert_eq!(effective, [call("UpdateService", true)]);
    }
}
