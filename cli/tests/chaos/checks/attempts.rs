//! I5, I6 and I7: who may write, that nothing is left behind, and that logs are what was printed.

use super::{Checks, json, text};
use crate::forge::stream;
use crate::world::World;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

const I5: &str = "I5 nothing is written under an old fence";
const I6: &str = "I6 nothing is left behind without a reason";
const I7: &str = "I7 a log is what was printed, byte for byte";

/// A write that was let in just before its attempt ended may reach the disk after.
const SLACK: Duration = Duration::from_secs(5);

pub(super) async fn check(world: &World, checks: &mut Checks) -> anyhow::Result<()> {
    let attempts = world
        .database
        .rows(
            "select a.id, a.run, a.number, a.ended_at, a.outcome, r.commit_sha from attempts a \
             join runs r on r.id = a.run order by a.run, a.number",
        )
        .await?;
    fences(world, checks, &attempts).await?;
    left_behind(world, checks).await?;
    logs(world, checks, &attempts).await
}

/// One end per attempt, none after it was lost, attempts of a run one after the other, and neither
/// steps nor logs that changed after their attempt's end.
async fn fences(world: &World, checks: &mut Checks, attempts: &[Value]) -> anyhow::Result<()> {
    let events = world
        .database
        .rows(
            "select subject, what, detail, position from events \
             where what in ('job_claimed', 'attempt_lost', 'attempt_ended') order by position",
        )
        .await?;
    let mut last: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    for event in &events {
        let run = text(event, "subject");
        let number = json(event, "detail")["attempt"]
            .as_u64()
            .unwrap_or_default();
        let what = text(event, "what");
        let (before, how) = last.insert(run, (number, what)).unwrap_or((0, "nothing"));
        let follows = match what {
            "job_claimed" => number == before + 1 && how != "job_claimed",
            _ => number == before && how == "job_claimed",
        };
        checks.case(I5, follows, || {
            format!("{run}: {what} of attempt {number} after {how} of attempt {before}")
        });
    }
    let late = world
        .database
        .rows(
            "select s.attempt, s.name from steps s join attempts a on a.id = s.attempt \
             where s.ended_at > a.ended_at or s.started_at > a.ended_at",
        )
        .await?;
    checks.case(I5, late.is_empty(), || {
        format!("steps changed after the end: {late:?}")
    });
    for attempt in attempts
        .iter()
        .filter(|attempt| attempt["outcome"].is_null())
    {
        let (run, number) = (
            text(attempt, "run"),
            attempt["number"].as_u64().unwrap_or_default(),
        );
        let ended = Duration::from_micros(attempt["ended_at"].as_u64().unwrap_or_default());
        let path = log_file(&world.logs, run, number);
        let Ok(written) = std::fs::metadata(&path).and_then(|found| found.modified()) else {
            continue;
        };
        let end = SystemTime::UNIX_EPOCH + ended + SLACK;
        checks.case(I5, written <= end, || {
            format!("{} was written after {end:?}", path.display())
        });
    }
    Ok(())
}

fn log_file(folder: &Path, run: &str, attempt: u64) -> std::path::PathBuf {
    folder.join(format!("{run}/{attempt}/test.log"))
}

/// What is not over says what it waits for.
async fn left_behind(world: &World, checks: &mut Checks) -> anyhow::Result<()> {
    let rows = world
        .database
        .rows(
            "select id, word, ended_at from runs union all select id, word, ended_at from deployments \
             union all select id, 'attempt', ended_at from attempts \
             union all select key, 'effect', finished_at from effects",
        )
        .await?;
    let project = world.caller.get("/projects/shop").await.unwrap_or_default();
    let waiting = project["waiting_on"].to_string();
    for row in &rows {
        let id = text(row, "id");
        let says_why = text(row, "word") == "queued" && waiting.contains(&format!("\"{id}\""));
        checks.case(I6, !row["ended_at"].is_null() || says_why, || {
            format!("{row}")
        });
    }
    Ok(())
}

/// The log of each step that came to its end is what its script printed; of others, a beginning of it.
async fn logs(world: &World, checks: &mut Checks, attempts: &[Value]) -> anyhow::Result<()> {
    let pushes: BTreeMap<String, u32> = {
        let ledger = world.caller.ledger();
        let deliveries = ledger.deliveries.iter();
        deliveries.map(|d| (d.commit.clone(), d.push)).collect()
    };
    let steps = world
        .database
        .rows("select attempt, state from steps where name = 'test'")
        .await?;
    let states: BTreeMap<&str, Value> = steps
        .iter()
        .map(|step| (text(step, "attempt"), json(step, "state")))
        .collect();
    for attempt in attempts {
        let (id, run) = (text(attempt, "id"), text(attempt, "run"));
        let number = attempt["number"].as_i64().unwrap_or_default();
        let Some(push) = pushes.get(text(attempt, "commit_sha")) else {
            anyhow::bail!("nobody pushed the commit of {run}");
        };
        let found = world.caller.log(run, number).await;
        let expected = stream(*push);
        let state = states
            .get(id)
            .map(|state| state["state"].clone())
            .unwrap_or_default();
        if state == "succeeded" {
            let same = found.as_deref() == Some(expected.as_bytes());
            checks.case(I7, same, || {
                let length = found.as_ref().map(Vec::len);
                format!("{id} has {length:?} bytes of {}, or others", expected.len())
            });
        } else if let Some(found) = found
            && attempt["outcome"].is_null()
        {
            let begins = expected.as_bytes().starts_with(&found);
            checks.case(I7, begins, || {
                format!("{id} ({state}) is no beginning of its stream")
            });
        }
    }
    Ok(())
}
