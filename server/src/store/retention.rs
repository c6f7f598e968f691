//! Takes away what a policy lets go, in small transactions. What may go is read first, so that nothing
//! that stays ever waits for the writer; each transaction looks again before it removes.
//!
//! A run goes with its attempts, steps, artifacts, test reports, effects, what its forge was told and the release that it made, if that is neither listed
//! nor named. Deployments, and the history, stay.

use super::codec::{Row, micros};
use super::conn::AnyConnection;
use super::events::Line;
use super::schema::{
    approvals, attempts, deliveries, deployments, effects, places, releases, removed_logs, runs,
    steps,
};
use super::world::NEWEST_RELEASES;
use super::{Gone, Result, Store, artifacts, audit, lane, starts, statuses, test_reports};
use diesel::prelude::*;
use jiff::{SignedDuration, Timestamp};
use roadstead_pipelines::git_ref::GitRef;
use roadstead_pipelines::id::{ProjectName, ReleaseId, RunId};
use roadstead_pipelines::retention::{self, Age, Pin, Policy};
use roadstead_pipelines::run::Run;
use serde_json::{Value, json};

/// Rows that are looked at in one read.
const LOOK: i64 = 200;
/// Forges may send a delivery again for three days: so long each one is known, whatever the policy.
const FORGES_REPEAT_FOR: SignedDuration = SignedDuration::from_hours(24 * 4);

/// An ended run, oldest first.
struct Old {
    id: String,
    number: i64,
    git_ref: String,
    age: Age,
}

fn highest_run(connection: &mut AnyConnection, project: &ProjectName) -> Result<i64> {
    let highest: Option<i64> = runs::table
        .filter(runs::project.eq(project.as_str()))
        .select(diesel::dsl::max(runs::number))
        .first(connection)?;
    Ok(highest.unwrap_or(0))
}

/// Runs of a project behind a number, oldest first, whose age alone lets them go; with `with_logs`
/// only those whose logs are there. And the number to go on behind, if there may be more.
fn old_runs(
    connection: &mut AnyConnection,
    project: &ProjectName,
    policy: &Policy,
    (after, with_logs): (i64, bool),
    now: Timestamp,
) -> Result<(Vec<Old>, Option<i64>)> {
    let highest = highest_run(connection, project)?;
    let mut query = runs::table
        .filter(runs::project.eq(project.as_str()))
        .filter(runs::number.gt(after))
        .filter(runs::number.le(highest - i64::from(policy.newest.unwrap_or(0))))
        .filter(runs::ended_at.is_not_null())
        .order(runs::number)
        .limit(LOOK)
        .select((runs::id, runs::number, runs::git_ref, runs::ended_at))
        .into_boxed();
    if let Some(since) = policy.kept_since(now) {
        query = query.filter(runs::ended_at.lt(Some(micros(since))));
    }
    if with_logs {
        let gone = removed_logs::table.select(removed_logs::run);
        query = query.filter(runs::id.ne_all(gone));
    }
    let found: Vec<(String, i64, String, Option<i64>)> = query.load(connection)?;
    let last = found.last().map(|(_, number, ..)| *number);
    let more = if found.len() == LOOK as usize {
        last
    } else {
        None
    };
    let mut old = vec![];
    for (id, number, git_ref, ended_at) in found {
        let age = Age {
            ended_at: Row("run", &id).maybe_time(ended_at)?,
            newer: (highest - number).unsigned_abs(),
        };
        if policy.lets_go(age, now) {
            old.push(Old {
                id,
                number,
                git_ref,
                age,
            });
        }
    }
    Ok((old, more))
}

/// How old a run is for a policy.
pub(super) fn age_of(
    connection: &mut AnyConnection,
    run: &Run,
    ended_at: Option<Timestamp>,
) -> Result<Age> {
    let highest = highest_run(connection, &run.project)?;
    Ok(Age {
        ended_at,
        newer: highest.unsigned_abs().saturating_sub(run.id.number()),
    })
}

/// Why a run stays, and the release that would go with it.
fn pin_of(
    connection: &mut AnyConnection,
    project: &ProjectName,
    run: &Old,
) -> Result<(Option<Pin>, Option<ReleaseId>)> {
    let newer_of_ref = runs::table
        .filter(runs::project.eq(project.as_str()))
        .filter(runs::git_ref.eq(run.git_ref.clone()))
        .filter(runs::number.gt(run.number))
        .count();
    let newer: i64 = newer_of_ref.get_result(connection)?;
    // Nobody compares tags and pull requests, of which there may be many.
    let is_compared = match GitRef::of(&run.git_ref) {
        GitRef::Branch(_) | GitRef::Other(_) => true,
        GitRef::Tag(_) | GitRef::PullRequest(_) => false,
    };
    if newer == 0 && is_compared {
        return Ok((Some(Pin::NewestOfItsRef), None));
    }
    let made: Option<(String, i64)> = releases::table
        .filter(releases::run.eq(Some(&run.id)))
        .select((releases::id, releases::number))
        .first(connection)
        .optional()?;
    let Some((release, number)) = made else {
        return Ok((None, None));
    };
    let newer: i64 = releases::table
        .filter(releases::project.eq(project.as_str()))
        .filter(releases::number.gt(number))
        .count()
        .get_result(connection)?;
    if newer < i64::from(NEWEST_RELEASES) {
        return Ok((Some(Pin::ListedRelease), None));
    }
    let deployed: i64 = deployments::table
        .filter(deployments::release.eq(&release))
        .count()
        .get_result(connection)?;
    let approved: i64 = approvals::table
        .filter(approvals::release.eq(&release))
        .count()
        .get_result(connection)?;
    let tried: i64 = places::table
        .filter(places::project.eq(project.as_str()))
        .filter(places::newest_tried.eq(Some(&release)))
        .count()
        .get_result(connection)?;
    if deployed + approved + tried > 0 {
        return Ok((Some(Pin::NamedRelease), None));
    }
    let id = Row("release", &release).word("id", &release)?;
    Ok((None, Some(id)))
}

/// Removes one run with what belongs to it.
fn remove_run(
    connection: &mut AnyConnection,
    run: &str,
    release: Option<&ReleaseId>,
) -> Result<()> {
    diesel::update(deliveries::table.filter(deliveries::run.eq(Some(run))))
        .set(deliveries::run.eq(None::<String>))
        .execute(connection)?;
    let its = attempts::table
        .filter(attempts::run.eq(run))
        .select(attempts::id);
    diesel::delete(steps::table.filter(steps::attempt.eq_any(its))).execute(connection)?;
    diesel::delete(attempts::table.filter(attempts::run.eq(run))).execute(connection)?;
    diesel::delete(effects::table.filter(effects::subject.eq(run))).execute(connection)?;
    diesel::delete(removed_logs::table.find(run)).execute(connection)?;
    artifacts::forget(connection, run)?;
    test_reports::forget(connection, run)?;
    statuses::forget(connection, run)?;
    if let Some(release) = release {
        diesel::delete(releases::table.find(release.as_str())).execute(connection)?;
    }
    starts::forget(connection, run)?;
    diesel::delete(runs::table.find(run)).execute(connection)?;
    Ok(())
}

/// Tells in the history what a policy took away.
fn tell(
    connection: &mut AnyConnection,
    project: &ProjectName,
    what: &str,
    (policy, gone): (&Policy, Value),
    now: Timestamp,
) -> Result<()> {
    let line = Line {
        at: now,
        project: Some(project),
        subject: "retention",
        actor: "Roadstead",
        what,
        before: Value::Null,
        after: Value::Null,
        detail: &json!({"reason": format!("the policy: {policy}"), "removed": gone}),
    };
    audit::append(connection, &line)
}

fn parsed(id: &str) -> Result<RunId> {
    Row("run", id).word("id", id)
}

impl Store {
    /// Runs of a project that a policy lets go, oldest first, behind the run with number `after` (0:
    /// from the first); and the number to go on behind, if there may be more.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn runs_to_go(
        &self,
        project: &ProjectName,
        policy: Policy,
        after: i64,
        now: Timestamp,
    ) -> Result<(Vec<RunId>, Option<i64>)> {
        let project = project.clone();
        self.read(move |c| {
            let (old, more) = old_runs(c, &project, &policy, (after, false), now)?;
            let mut go = vec![];
            for run in old {
                let (pin, _) = pin_of(c, &project, &run)?;
                if retention::run_goes(&policy, run.age, pin, now) {
                    go.push(parsed(&run.id)?);
                }
            }
            Ok((go, more))
        })
        .await
    }

    /// Removes runs, whose logs are gone already, unless they have been pinned meanwhile. Gives how
    /// many went.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`]: then none went.
    pub async fn remove_runs(
        &self,
        project: &ProjectName,
        ids: Vec<RunId>,
        policy: Policy,
        now: Timestamp,
    ) -> Result<usize> {
        let project = project.clone();
        self.write(move |c| {
            // Nothing is deployed or approved meanwhile.
            lane::bump(c, &project)?;
            let highest = highest_run(c, &project)?;
            let mut gone = vec![];
            for id in &ids {
                let found: Option<(i64, String, Option<i64>)> = runs::table
                    .find(id.as_str())
                    .select((runs::number, runs::git_ref, runs::ended_at))
                    .first(c)
                    .optional()?;
                let Some((number, git_ref, ended_at)) = found else {
                    continue;
                };
                let run = Old {
                    id: id.to_string(),
                    number,
                    git_ref,
                    age: Age {
                        ended_at: Row("run", id.as_str()).maybe_time(ended_at)?,
                        newer: (highest - number).unsigned_abs(),
                    },
                };
                let (pin, release) = pin_of(c, &project, &run)?;
                if retention::run_goes(&policy, run.age, pin, now) {
                    remove_run(c, id.as_str(), release.as_ref())?;
                    gone.push(Gone {
                        run: id.clone(),
                        release,
                    });
                }
            }
            if !gone.is_empty() {
                tell(c, &project, "runs_removed", (&policy, json!(gone)), now)?;
            }
            Ok(gone.len())
        })
        .await
    }

    /// Runs of a project whose logs are there and which a policy lets go, oldest first.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn logs_to_go(
        &self,
        project: &ProjectName,
        policy: Policy,
        now: Timestamp,
    ) -> Result<Vec<RunId>> {
        let project = project.clone();
        self.read(move |c| {
            let (old, _) = old_runs(c, &project, &policy, (0, true), now)?;
            old.iter().map(|run| parsed(&run.id)).collect()
        })
        .await
    }

    /// Notes that the logs and artifacts of runs are gone. Noting it twice changes nothing.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn note_removed_logs(
        &self,
        project: &ProjectName,
        ids: Vec<RunId>,
        policy: Policy,
        now: Timestamp,
    ) -> Result<()> {
        let project = project.clone();
        self.write(move |c| {
            let mut noted = vec![];
            for id in &ids {
                let there: i64 = runs::table.find(id.as_str()).count().get_result(c)?;
                let known: i64 = removed_logs::table
                    .find(id.as_str())
                    .count()
                    .get_result(c)?;
                if there == 0 || known > 0 {
                    continue;
                }
                diesel::insert_into(removed_logs::table)
                    .values((
                        removed_logs::run.eq(id.as_str()),
                        removed_logs::removed_at.eq(micros(now)),
                    ))
                    .execute(c)?;
                artifacts::forget(c, id.as_str())?;
                noted.push(id);
            }
            if !noted.is_empty() {
                tell(c, &project, "logs_removed", (&policy, json!(noted)), now)?;
            }
            Ok(())
        })
        .await
    }

    /// When the logs of a run were removed, if they were.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn logs_removed_at(&self, run: &RunId) -> Result<Option<Timestamp>> {
        let id = run.to_string();
        self.read(move |c| {
            let found: Option<i64> = removed_logs::table
                .find(&id)
                .select(removed_logs::removed_at)
                .first(c)
                .optional()?;
            Row("removed logs of run", &id).maybe_time(found)
        })
        .await
    }

    /// Removes at most so many of a project's deliveries that a policy lets go; gives how many went.
    /// None younger than four days goes: a forge may send it again.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`]: then none went.
    pub async fn remove_deliveries(
        &self,
        project: &ProjectName,
        limit: u32,
        policy: Policy,
        now: Timestamp,
    ) -> Result<usize> {
        if policy.keeps_all() {
            return Ok(0);
        }
        let young = now - FORGES_REPEAT_FOR;
        let before = policy
            .kept_since(now)
            .map_or(young, |since| since.min(young));
        let project = project.clone();
        let look = project.clone();
        let ids: Vec<i64> = self
            .read(move |c| {
                let newest: Vec<i64> = deliveries::table
                    .filter(deliveries::project.eq(look.as_str()))
                    .order(deliveries::id.desc())
                    .offset(i64::from(policy.newest.unwrap_or(0)))
                    .limit(1)
                    .select(deliveries::id)
                    .load(c)?;
                let live = runs::table
                    .filter(runs::project.eq(look.as_str()))
                    .filter(runs::ended_at.is_null())
                    .select(runs::id.nullable());
                Ok(deliveries::table
                    .filter(deliveries::project.eq(look.as_str()))
                    .filter(deliveries::id.le(newest.first().copied().unwrap_or(0)))
                    .filter(deliveries::received_at.lt(micros(before)))
                    .filter(deliveries::run.is_null().or(deliveries::run.ne_all(live)))
                    .order(deliveries::id)
                    .limit(i64::from(limit))
                    .select(deliveries::id)
                    .load(c)?)
            })
            .await?;
        if ids.is_empty() {
            return Ok(0);
        }
        self.write(move |c| {
            let again = deliveries::table.filter(deliveries::redelivery_of.eq_any(&ids));
            diesel::update(again)
                .set(deliveries::redelivery_of.eq(None::<i64>))
                .execute(c)?;
            let old = deliveries::table.filter(deliveries::id.eq_any(&ids));
            let gone = diesel::delete(old).execute(c)?;
            if gone > 0 {
                let told = json!({"deliveries": gone, "up_to": ids.last()});
                tell(c, &project, "deliveries_removed", (&policy, told), now)?;
            }
            Ok(gone)
        })
        .await
    }
}
