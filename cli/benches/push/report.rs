//! The figures: every turn, and of each case the median, the spread and what was to be reached.

use crate::parts::Memory;
use crate::{Side, Warmth};
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// To reach: so many times the script's time …
const FACTOR: f64 = 1.05;
/// … and so many seconds more.
const SECONDS_MORE: f64 = 0.3;
/// To reach, in bytes.
const SERVER_MEMORY: u64 = 40_000_000;
const RUNNER_MEMORY: u64 = 20_000_000;

/// When each phase of a run was over, in seconds since the push.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Phases {
    /// The webhook was committed.
    pub(crate) taken: f64,
    /// A runner had the job; the sources had been fetched and read before.
    pub(crate) claimed: f64,
    /// The files were in the workspace.
    pub(crate) checked_out: f64,
    /// The step that builds and pushes had ended.
    pub(crate) pushed: f64,
    /// The registry had confirmed the digest, and the release was made.
    pub(crate) over: f64,
}

/// The phases in a line of progress; nothing for the script, which has none.
pub(crate) fn phases(of: &Phases) -> String {
    if of.over == 0.0 {
        return String::new();
    }
    format!(
        " (taken {:.2}, claimed {:.2}, checked out {:.2}, pushed {:.2}, over {:.2})",
        of.taken, of.claimed, of.checked_out, of.pushed, of.over
    )
}

/// Two turns, one of each side.
#[derive(Debug, Serialize)]
pub(crate) struct Pair {
    first: Side,
    script_seconds: f64,
    roadstead_seconds: f64,
    phases: Phases,
}

impl Pair {
    pub(crate) fn new(first: Side) -> Self {
        Self {
            first,
            script_seconds: 0.0,
            roadstead_seconds: 0.0,
            phases: Phases::default(),
        }
    }

    pub(crate) fn note(&mut self, side: Side, seconds: f64, phases: Phases) {
        match side {
            Side::Floor => self.script_seconds = seconds,
            Side::Roadstead => {
                self.roadstead_seconds = seconds;
                self.phases = phases;
            }
        }
    }
}

/// Median and spread.
#[derive(Debug, Clone, Copy, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            (at(middle.saturating_sub(1)) + at(middle)) / 2.0
        } else {
            at(middle)
        };
        Self {
            median,
            min: at(0),
            max: at(sorted.len().saturating_sub(1)),
        }
    }

    fn text(self) -> String {
        format!("{:6.2} ({:.2}–{:.2})", self.median, self.min, self.max)
    }
}

/// One size of context in one state of the caches.
pub(crate) struct Case {
    megabytes: usize,
    state: Warmth,
    pub(crate) pairs: Vec<Pair>,
}

impl Case {
    pub(crate) fn new(megabytes: usize, state: Warmth) -> Self {
        Self {
            megabytes,
            state,
            pairs: vec![],
        }
    }

    fn script(&self) -> Spread {
        Spread::of(self.pairs.iter().map(|pair| pair.script_seconds))
    }

    fn roadstead(&self) -> Spread {
        Spread::of(self.pairs.iter().map(|pair| pair.roadstead_seconds))
    }

    fn target(&self) -> f64 {
        FACTOR * self.script().median + SECONDS_MORE
    }

    fn held(&self) -> bool {
        self.roadstead().median <= self.target()
    }

    /// The case's row of the table.
    pub(crate) fn line(&self) -> String {
        let (script, roadstead) = (self.script(), self.roadstead());
        format!(
            "{:>4} MB {:4} | {:2} | {:<21} | {:<21} | {:4.2} × | {:+6.2} s | {:6.2} | {}",
            self.megabytes,
            self.state.word(),
            self.pairs.len(),
            script.text(),
            roadstead.text(),
            roadstead.median / script.median,
            roadstead.median - script.median,
            self.target(),
            if self.held() { "yes" } else { "no" }
        )
    }

    fn json(&self) -> Value {
        json!({
            "context_megabytes": self.megabytes,
            "state": self.state,
            "script": self.script(),
            "roadstead": self.roadstead(),
            "ratio": self.roadstead().median / self.script().median,
            "target_seconds": self.target(),
            "held": self.held(),
            "pairs": self.pairs,
        })
    }
}

/// Everything that was measured.
pub(crate) struct Report {
    engine: String,
    cores: usize,
    pub(crate) cases: Vec<Case>,
    pub(crate) memory: Option<Memory>,
}

impl Report {
    pub(crate) fn new(engine: String) -> Self {
        Self {
            engine,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cases: vec![],
            memory: None,
        }
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "\npush → image in the registry, seconds, median (min–max); {} cores, Docker Engine {}\n\
             to reach: {FACTOR} × the script + {SECONDS_MORE} s\n\n\
             {:12} | n  | {:21} | {:21} | ratio  | more     | target | reached\n",
            self.cores, self.engine, "context", "script", "Roadstead"
        );
        for case in &self.cases {
            let _ = writeln!(text, "{}", case.line());
        }
        if let Some(memory) = &self.memory {
            let megabytes = |bytes: u64| bytes as f64 / 1e6;
            for (name, seen, most) in [
                ("server", memory.server, SERVER_MEMORY),
                ("runner", memory.runner, RUNNER_MEMORY),
            ] {
                let _ = writeln!(
                    text,
                    "\nidle {name}: {:.1} MB resident, {:.1} MB of it its own; to reach: {:.0} MB: {}",
                    megabytes(seen.all),
                    megabytes(seen.own),
                    megabytes(most),
                    if seen.all <= most { "yes" } else { "no" }
                );
            }
        }
        text
    }
}

impl Serialize for Report {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let cases: Vec<_> = self.cases.iter().map(Case::json).collect();
        json!({
            "cores": self.cores,
            "engine": self.engine,
            "cases": cases,
            "memory": self.memory,
        })
        .serialize(serializer)
    }
}
