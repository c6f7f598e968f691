//! What outlives a container: how it ended and what it wrote.
//!
//! `<data>/containers/<task>/<container>.json` is written when a container is created and again
//! when it has ended; `<container>.log` (one JSON line per event) before the second write.
//! Invariant: a record that says how a container ended has its log beside it. Must not know: Docker.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::super::{AwsLogs, LogLine, LogStream};
use crate::disk::{read_json, write_atomically, write_json};

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) exit_code: i64,
    pub(super) oom: bool,
    pub(super) ran_for_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    task_id: String,
    container: String,
    awslogs: Option<AwsLogs>,
    /// Milliseconds since the epoch.
    created: i64,
    pub(super) end: Option<End>,
}

#[derive(Serialize, Deserialize)]
struct StoredLine<'a> {
    t: i64,
    m: std::borrow::Cow<'a, str>,
}

/// The journal of one sandbox. Its files are small or written once; calls block.
pub(super) struct Journal {
    directory: PathBuf,
}

impl Journal {
    pub(super) fn new(data: &Path) -> Self {
        Self {
            directory: data.join("containers"),
        }
    }

    /// Notes a container that is about to be created. An existing entry stays.
    pub(super) fn open(
        &self,
        task_id: &str,
        container: &str,
        awslogs: Option<AwsLogs>,
        created: i64,
    ) -> anyhow::Result<()> {
        if self.entry(task_id, container)?.is_some() {
            return Ok(());
        }
        let entry = Entry {
            task_id: task_id.to_owned(),
            container: container.to_owned(),
            awslogs,
            created,
            end: None,
        };
        write_json(&self.path(task_id, container, "json"), &entry)?;
        Ok(())
    }

    /// Keeps the log and then the end of a container, so that it may be removed.
    pub(super) fn close(
        &self,
        task_id: &str,
        container: &str,
        end: End,
        lines: &[LogLine],
    ) -> anyhow::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            let stored = StoredLine {
                t: line.timestamp,
                m: line.message.as_str().into(),
            };
            serde_json::to_writer(&mut text, &stored)?;
            text.push(b'\n');
        }
        let log = self.path(task_id, container, "log");
        write_atomically(&log, &text).with_context(|| format!("cannot write {}", log.display()))?;
        let mut entry = self.entry(task_id, container)?.unwrap_or(Entry {
            task_id: task_id.to_owned(),
            container: container.to_owned(),
            awslogs: None,
            created: 0,
            end: None,
        });
        entry.end = Some(end);
        write_json(&self.path(task_id, container, "json"), &entry)?;
        Ok(())
    }

    pub(super) fn entry(&self, task_id: &str, container: &str) -> anyhow::Result<Option<Entry>> {
        Ok(read_json(&self.path(task_id, container, "json"))?)
    }

    /// The kept log; None until the container was closed.
    pub(super) fn log(
        &self,
        task_id: &str,
        container: &str,
    ) -> anyhow::Result<Option<Vec<LogLine>>> {
        let ended = self
            .entry(task_id, container)?
            .is_some_and(|it| it.end.is_some());
        if !ended {
            return Ok(None);
        }
        let path = self.path(task_id, container, "log");
        let text =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let lines = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        let lines = lines.map(|line| {
            let stored: StoredLine<'_> = serde_json::from_slice(line)?;
            Ok(LogLine {
                timestamp: stored.t,
                message: stored.m.into_owned(),
            })
        });
        lines
            .collect::<Result<Vec<_>, serde_json::Error>>()
            .map(Some)
            .with_context(|| format!("{} is damaged", path.display()))
    }

    /// Every stream of CloudWatch Logs that was ever opened.
    pub(super) fn streams(&self) -> anyhow::Result<Vec<LogStream>> {
        let mut streams = Vec::new();
        for task in entries(&self.directory)? {
            for file in entries(&task)? {
                if file.extension().is_none_or(|it| it != "json") {
                    continue;
                }
                let Some(entry) = read_json::<Entry>(&file)? else {
                    continue;
                };
                if let Some(awslogs) = entry.awslogs {
                    streams.push(LogStream {
                        task_id: entry.task_id,
                        container: entry.container,
                        awslogs,
                        created: entry.created,
                    });
                }
            }
        }
        Ok(streams)
    }

    fn path(&self, task_id: &str, container: &str, extension: &str) -> PathBuf {
        self.directory
            .join(task_id)
            .join(format!("{container}.{extension}"))
    }
}

fn entries(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    match std::fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", directory.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_there_once_its_container_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::new(directory.path());
        assert_eq!(journal.streams().unwrap(), []);
        let awslogs = AwsLogs {
            group: "/ecs/web".to_owned(),
            prefix: Some("web".to_owned()),
        };
        journal.open("t1", "app", Some(awslogs), 7).unwrap();
        journal.open("t1", "quiet", None, 7).unwrap();
        assert_eq!(journal.log("t1", "app").unwrap(), None);
        let lines = vec![LogLine {
            timestamp: 8,
            message: "an \u{1b}[31m\"odd\"\nline".to_owned(),
        }];
        let end = End {
            exit_code: 3,
            oom: false,
            ran_for_ms: Some(5),
        };
        journal.close("t1", "app", end, &lines).unwrap();
        journal.open("t1", "app", None, 9).unwrap();
        assert_eq!(journal.log("t1", "app").unwrap(), Some(lines));
        let entry = journal.entry("t1", "app").unwrap().unwrap();
        assert_eq!((entry.created, entry.end), (7, Some(end)));
        let streams = journal.streams().unwrap();
        assert_eq!(streams.len(), 1);
        assert_eq!(streams[0].name(), "web/app/t1");
    }
}
