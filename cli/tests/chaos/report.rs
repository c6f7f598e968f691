//! What a run came to, as a table.

use crate::checks::Checks;
use crate::ledger::Ledger;
use crate::options::Options;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A run's outcome.
#[derive(Debug)]
pub(crate) struct Report {
    title: String,
    pub(crate) faults: BTreeMap<String, u32>,
    pub(crate) work: BTreeMap<String, u32>,
    cases: BTreeMap<&'static str, u64>,
    pub(crate) violations: Vec<String>,
}

impl Report {
    pub(crate) fn new(
        options: &Options,
        settled: Duration,
        ledger: &Ledger,
        checks: Checks,
    ) -> Self {
        let acknowledged = ledger
            .answered
            .iter()
            .filter(|a| a.is_acknowledged())
            .count();
        let mut work = ledger.work.clone();
        work.insert("deliveries sent".into(), count(ledger.answered.len()));
        work.insert("deliveries acknowledged".into(), count(acknowledged));
        work.extend(checks.work);
        Self {
            title: format!(
                "seed {}, {} s of faults on {}, {} server(s), {} runners, quiet and checked after {} s",
                options.seed,
                options.length.as_secs(),
                options.database.word(),
                options.servers,
                options.runners,
                settled.as_secs()
            ),
            faults: ledger.faults.clone(),
            work,
            cases: checks.cases,
            violations: checks.violations,
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        let faults: u32 = self.faults.values().sum();
        writeln!(f, "\nfaults injected: {faults}")?;
        for (kind, times) in &self.faults {
            writeln!(f, "  {times:>6}  {kind}")?;
        }
        writeln!(f, "\nwork")?;
        for (kind, times) in &self.work {
            writeln!(f, "  {times:>6}  {kind}")?;
        }
        writeln!(f, "\ncases checked")?;
        for (invariant, cases) in &self.cases {
            writeln!(f, "  {cases:>6}  {invariant}")?;
        }
        writeln!(f, "\nviolations: {}", self.violations.len())?;
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        Ok(())
    }
}
