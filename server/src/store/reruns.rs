//! Sends jobs of a run that ended badly back to work.
//!
//! Decided and stored in one transaction behind the project's lane, as a claim is: two who press at the same time
//! come one after the other, and the second finds it done.

use super::commit::{self, By};
use super::conn::AnyConnection;
use super::schema::{removed_logs, runs};
use super::{Result, RunDetail, Store, attempts, lane, retention, runs as run_rows};
use diesel::prelude::*;
use jiff::{SignedDuration, Timestamp};
use roadstead_pipelines::fact::{Change, RunFact};
use roadstead_pipelines::group::Lines;
use roadstead_pipelines::id::{JobName, RunId};
use roadstead_pipelines::rerun::{self, Seen, Tried, Wish};
use roadstead_pipelines::retention::Policy;
use roadstead_pipelines::run::{FETCHING, Run};
use std::collections::BTreeSet;

/// By so much the clocks of servers may differ, one of which sweeps.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_hours(1);

impl RunDetail {
    /// The run as a decision about its jobs reads it.
    #[must_use]
    pub fn seen<'a>(&'a self, logs_removed: bool, open: Vec<&'a Run>) -> Seen<'a> {
        let tried = self.attempts.iter().map(|it| Tried {
            number: it.number,
            job: &it.job,
            runner: &it.runner,
            at: it.ended_at.unwrap_or(it.claimed_at),
            outcome: it.outcome.as_ref(),
        });
        Seen {
            run: &self.run,
            ended_at: self.ended_at,
            attempts: tried.collect(),
            logs_removed,
            open,
        }
    }
}

/// Runs of a run's branch or tag that have read their file and are not over.
fn open_beside(connection: &mut AnyConnection, run: &Run) -> Result<Vec<Run>> {
    let found: Vec<run_rows::Record> = runs::table
        .filter(runs::project.eq(run.project.as_str()))
        .filter(runs::git_ref.eq(&run.git_ref))
        .filter(runs::ended_at.is_null())
        .filter(runs::word.ne(FETCHING))
        .filter(runs::id.ne(run.id.as_str()))
        .load(connection)?;
    found.into_iter().map(run_rows::Record::read).collect()
}

impl Store {
    /// Sends jobs of a run back to work: which; none when that was done since the wish was made. `kept` are the
    /// policies of runs and of logs. What they let go is refused even while it is there: retention may have it on its
    /// list. What it lists later is over by then, and this run is not.
    ///
    /// # Errors
    /// [`super::StoreError::Refused`] with the reason; [`super::StoreError::NotFound`] when there is no such run.
    pub async fn rerun(
        &self,
        run: &RunId,
        wish: Wish,
        kept: [Policy; 2],
        now: Timestamp,
    ) -> Result<Option<BTreeSet<JobName>>> {
        let id = run.clone();
        self.write(move |c| {
            let project = id.project();
            lane::bump(c, &project)?;
            let run = run_rows::find(c, &id)?;
            let (attempts, steps) = attempts::of_run(c, &id)?;
            let detail = RunDetail {
                ended_at: run_rows::ended_at(&run.state),
                effects: vec![],
                lines: Lines::new(),
                run,
                attempts,
                steps,
            };
            let removed: i64 = removed_logs::table
                .find(id.as_str())
                .count()
                .get_result(c)?;
            let open = open_beside(c, &detail.run)?;
            let age = retention::age_of(c, &detail.run, detail.ended_at)?;
            let goes = kept.iter().any(|it| it.lets_go(age, now + CLOCKS_DIFFER));
            let seen = detail.seen(removed > 0 || goes, open.iter().collect());
            let Some(fact) = rerun::rerun(&seen, &wish)? else {
                return Ok(None);
            };
            let RunFact::RerunRequested { again, .. } = &fact else {
                return Ok(None);
            };
            let again = again.clone();
            let change = Change::Run {
                run: id.clone(),
                fact,
            };
            let by = By {
                actor: &wish.by,
                now,
            };
            commit::apply(c, &project, &change, by)?;
            Ok(Some(again))
        })
        .await
    }
}
