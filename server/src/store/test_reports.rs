//! What test reports of steps come to. No decision reads it: a step's end is its exit status.

use super::codec::{Row, json, signed};
use super::conn::AnyConnection;
use super::schema::test_reports;
use super::{Report, Result, Store, attempts};
use diesel::prelude::*;
use roadstead_pipelines::id::{RunId, StepName};
use roadstead_protocol::{FailedCase, TestReport};

/// What the test reports of one attempt at a step come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepTests {
    /// The step.
    pub step: StepName,
    /// All cases.
    pub tests: u64,
    /// Those that failed, or broke off.
    pub failed: u64,
    /// Those that were not tried.
    pub skipped: u64,
    /// Files that could not be read.
    pub unread: u64,
    /// The first cases that failed.
    pub cases: Vec<FailedCase>,
}

type Record = (String, i64, i64, i64, i64, String);

fn read((step, tests, failed, skipped, unread, cases): Record) -> Result<StepTests> {
    let row = Row("test report of step", &step);
    Ok(StepTests {
        step: row.word("step", &step)?,
        tests: row.number("tests", tests)?,
        failed: row.number("failed", failed)?,
        skipped: row.number("skipped", skipped)?,
        unread: row.number("unread", unread)?,
        cases: row.json("cases", &cases)?,
    })
}

/// Forgets the test reports of a run.
pub(super) fn forget(connection: &mut AnyConnection, run: &str) -> Result<()> {
    diesel::delete(test_reports::table.filter(test_reports::run.eq(run))).execute(connection)?;
    Ok(())
}

impl Store {
    /// Stores what the test reports of a step come to; what is there already stands.
    ///
    /// # Errors
    /// [`super::StoreError::NotFound`] when there is no such attempt.
    pub async fn record_tests(
        &self,
        attempt: &str,
        step: &StepName,
        report: TestReport,
    ) -> Result<Report> {
        let (id, step) = (attempt.to_owned(), step.clone());
        self.write(move |c| {
            attempts::lock(c, &id)?;
            let attempt = attempts::find(c, &id)?;
            if !attempt.takes(report.fence) {
                return Ok(Report::Lost);
            }
            let number = i64::from(attempt.number);
            let known: i64 = test_reports::table
                .find((attempt.run.as_str(), number, step.as_str()))
                .count()
                .get_result(c)?;
            if known > 0 {
                return Ok(Report::Repeated);
            }
            diesel::insert_into(test_reports::table)
                .values((
                    test_reports::run.eq(attempt.run.as_str()),
                    test_reports::attempt.eq(number),
                    test_reports::step.eq(step.as_str()),
                    test_reports::tests.eq(signed(report.tests)),
                    test_reports::failed.eq(signed(report.failed)),
                    test_reports::skipped.eq(signed(report.skipped)),
                    test_reports::unread.eq(signed(report.unread)),
                    test_reports::cases.eq(json(&report.cases)?),
                ))
                .execute(c)?;
            Ok(Report::Recorded)
        })
        .await
    }

    /// What the test reports of these attempts of a run come to, by step.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn list_tests(&self, run: &RunId, attempts: &[u32]) -> Result<Vec<StepTests>> {
        let run = run.to_string();
        let attempts: Vec<i64> = attempts.iter().copied().map(i64::from).collect();
        self.read(move |c| {
            let found: Vec<Record> = test_reports::table
                .filter(test_reports::run.eq(&run))
                .filter(test_reports::attempt.eq_any(attempts))
                .order(test_reports::step)
                .select((
                    test_reports::step,
                    test_reports::tests,
                    test_reports::failed,
                    test_reports::skipped,
                    test_reports::unread,
                    test_reports::cases,
                ))
                .load(c)?;
            found.into_iter().map(read).collect()
        })
        .await
    }
}
