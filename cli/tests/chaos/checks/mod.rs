//! Holds what a run left against the promises, from outside: the database's rows, the HTTP API, the
//! files of logs, and the sandbox's own log of calls. The names are those of docs/reliability.md.

mod attempts;
mod intake;
mod places;
mod trail;

use crate::world::World;
use serde_json::Value;
use std::collections::BTreeMap;

/// What was checked, how often, and what did not hold.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) cases: BTreeMap<&'static str, u64>,
    /// What the product did, counted in its own rows.
    pub(crate) work: BTreeMap<String, u32>,
    pub(crate) violations: Vec<String>,
}

impl Checks {
    /// Counts a case, and notes it when it does not hold.
    fn case(&mut self, invariant: &'static str, holds: bool, what: impl FnOnce() -> String) {
        *self.cases.entry(invariant).or_default() += 1;
        if !holds {
            self.violations.push(format!("{invariant}: {}", what()));
        }
    }
}

/// The text in a column; empty when it is null.
fn text<'a>(row: &'a Value, column: &str) -> &'a str {
    row[column].as_str().unwrap_or_default()
}

/// The JSON in a column; null when it is none.
fn json(row: &Value, column: &str) -> Value {
    serde_json::from_str(text(row, column)).unwrap_or_default()
}

/// All checks, once everything is quiet.
///
/// # Errors
/// When something cannot be read.
pub(crate) async fn check(world: &World) -> anyhow::Result<Checks> {
    let mut checks = Checks::default();
    count(world, &mut checks).await?;
    intake::check(world, &mut checks).await?;
    attempts::check(world, &mut checks).await?;
    places::check(world, &mut checks).await?;
    trail::check(world, &mut checks).await?;
    Ok(checks)
}

async fn count(world: &World, checks: &mut Checks) -> anyhow::Result<()> {
    let counted = world
        .database
        .rows(
            "select 'runs ' || word as what, count(*) as times from runs group by word \
             union all select 'deployments ' || word, count(*) from deployments group by word \
             union all select 'attempts lost', count(*) from events where what = 'attempt_lost' \
             union all select 'late reports dropped', count(*) from events where what = 'report_dropped' \
             union all select 'effects tried more than once', count(*) from effects where attempts > 1",
        )
        .await?;
    for row in &counted {
        let times = row["times"].as_u64().unwrap_or_default();
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        checks.work.insert(text(row, "what").to_owned(), times);
    }
    Ok(())
}
