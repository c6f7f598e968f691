//! Reads the test reports that a step left and tells what they come to.
//!
//! Owns which files are read, and that no report keeps a step from its end: what cannot be read is told in the step's log.
//! Files are found and opened as [`artifacts`] are; secrets are masked as in logs.

mod junit;

use crate::{
    artifacts::{self, find},
    client::{AttemptClient, RESULT_PATIENCE, retry},
    logs::StepLog,
};
use junit::Tally;
use roadstead_masking::Masker;
use roadstead_protocol::{LARGEST_REPORT, MOST_REPORTS, TestReport};
use std::{
    io::{self, Read},
    path::Path,
};

/// Most files that the log names for what is wrong with them.
const MOST_TOLD: usize = 20;

/// What was read.
#[derive(Default)]
struct Reading {
    tally: Tally,
    files: usize,
    /// What could not be read, and why.
    trouble: Vec<String>,
    /// Said instead of all that when no file matches.
    nothing: Option<String>,
}

/// Reads the JUnit reports of `workspace` that `patterns` name, says in the log what they come to, and tells it to the
/// `keeper`, if there is one. `secrets` are masked.
pub(crate) async fn tell(
    workspace: &Path,
    step: &str,
    patterns: &[String],
    secrets: Vec<String>,
    keeper: Option<&AttemptClient>,
    log: &StepLog,
) {
    let said = async |line: String| {
        // A log that cannot take this line shows when it is closed.
        let _ = log.line(&format!("reports: {line}")).await;
    };
    let (workspace, owned) = (workspace.to_owned(), patterns.to_vec());
    let read = tokio::task::spawn_blocking(move || read(&workspace, &owned));
    let reading = match read.await.map_err(io::Error::other).flatten() {
        Ok(reading) => reading,
        Err(error) => return said(format!("they could not be looked for: {error}")).await,
    };
    if let Some(nothing) = reading.nothing {
        return said(nothing).await;
    }
    for line in reading.trouble.iter().take(MOST_TOLD) {
        said(line.clone()).await;
    }
    let Tally {
        tests,
        failed,
        skipped,
        mut cases,
    } = reading.tally;
    said(format!(
        "{tests} tests, {failed} failed, {skipped} skipped, in {} files",
        reading.files
    ))
    .await;
    let Some(keeper) = keeper else { return };
    for case in &mut cases {
        for text in [&mut case.class, &mut case.name, &mut case.message] {
            match masked(text, &secrets) {
                Some(shown) => *text = shown,
                // What cannot be masked is not told.
                None => text.clear(),
            }
        }
    }
    let report = TestReport {
        fence: keeper.fence(),
        tests,
        failed,
        skipped,
        unread: reading.trouble.len() as u64,
        cases,
    };
    if let Err(error) = retry(RESULT_PATIENCE, || keeper.put_tests(step, &report)).await {
        said(format!("the server does not take them: {error}")).await;
    }
}

fn masked(text: &str, secrets: &[String]) -> Option<String> {
    let mut masker = Masker::default();
    masker.hide(secrets).ok()?;
    let mut shown = masker.push(text.as_bytes());
    shown.extend(masker.finish());
    Some(String::from_utf8_lossy(&shown).into_owned())
}

fn read(workspace: &Path, patterns: &[String]) -> io::Result<Reading> {
    let found = find::find(workspace, patterns)?;
    let mut reading = Reading::default();
    if found.files.is_empty() && found.trouble.is_empty() {
        reading.nothing = Some(found.nothing(patterns));
        return Ok(reading);
    }
    reading.trouble.clone_from(&found.trouble);
    for (number, name) in found.files.iter().enumerate() {
        let done = if number < MOST_REPORTS {
            one(&found.folder, name).and_then(|xml| reading.tally.add(&xml))
        } else {
            Err(format!("is one too many: {MOST_REPORTS} are read"))
        };
        match done {
            Ok(()) => reading.files += 1,
            Err(why) => reading.trouble.push(format!("`{name}` is not read: {why}")),
        }
    }
    Ok(reading)
}

/// The text of one file, as far as it goes now.
fn one(folder: &cap_std::fs::Dir, name: &str) -> Result<String, String> {
    let opened = artifacts::open(folder, name).map_err(|error| error.to_string())?;
    let file = opened.ok_or("it is no regular file any more")?;
    let mut bytes = vec![];
    file.take(LARGEST_REPORT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LARGEST_REPORT {
        return Err(format!("it has more than {LARGEST_REPORT} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests;
