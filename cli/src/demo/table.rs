//! The lines of the story: what was expected, what was seen, how long it took, and the evidence.

use super::crew::Victim;
use serde::Serialize;
use serde_json::Value;
use std::time::{Duration, Instant};

/// One line.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    /// What was done.
    pub(crate) step: String,
    /// What had to follow.
    pub(crate) expected: String,
    /// What followed.
    pub(crate) observed: String,
    /// Whether that is it.
    pub(crate) held: bool,
    /// Seconds since the line before.
    pub(crate) seconds: f64,
    /// What anybody can check again.
    pub(crate) evidence: Value,
}

/// A part that was killed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Kill {
    /// In which moment, in words.
    pub(crate) moment: &'static str,
    pub(crate) part: Victim,
    /// The process that was killed.
    pub(crate) pid: Option<u32>,
    /// The run or deployment that was under way.
    pub(crate) subject: String,
    /// What was kept waiting then.
    pub(crate) kept: Value,
}

/// All lines so far.
pub(crate) struct Table {
    lines: Vec<Line>,
    kills: Vec<Kill>,
    /// Labels of whatever the story made on Docker Engine, as `key=value`.
    pub(crate) labels: Vec<String>,
    began: Instant,
    last: Instant,
    quiet: bool,
}

impl Table {
    pub(crate) fn new(quiet: bool) -> Self {
        let now = Instant::now();
        Self {
            lines: vec![],
            kills: vec![],
            labels: vec![],
            began: now,
            last: now,
            quiet,
        }
    }

    /// Says what goes on, on standard error.
    pub(crate) fn say(&self, text: &str) {
        eprintln!("{:7.1} s  {text}", self.began.elapsed().as_secs_f64());
    }

    /// Writes a line down.
    pub(crate) fn line(
        &mut self,
        step: &str,
        expected: &str,
        observed: Result<(String, Value), String>,
    ) {
        let (observed, evidence, held) = match observed {
            Ok((observed, evidence)) => (observed, evidence, true),
            Err(observed) => (observed, Value::Null, false),
        };
        let seconds = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        let mark = if held { "✓" } else { "✗" };
        self.say(&format!("{mark} {step}: {observed}"));
        self.lines.push(Line {
            step: step.to_owned(),
            expected: expected.to_owned(),
            observed,
            held,
            seconds: (seconds * 100.0).round() / 100.0,
            evidence,
        });
    }

    /// Says that a part was killed, and notes it.
    pub(crate) fn kill(&mut self, kill: Kill) {
        let part = format!("{:?}", kill.part).to_lowercase();
        self.say(&format!("kill -9 {part} {}", kill.moment));
        self.kills.push(kill);
    }

    pub(crate) fn lines(&self) -> &[Line] {
        &self.lines
    }

    pub(crate) fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// Prints the table, for people or as JSON. A story that was broken off is not `whole`, and has
    /// not held whatever its lines say.
    pub(crate) fn print(&self, json: bool, whole: bool) {
        if json {
            let held = whole && self.lines.iter().all(|line| line.held);
            let value = serde_json::json!({
                "held": held, "seconds": self.took().as_secs_f64(), "lines": self.lines,
                "kills": self.kills, "labels": self.labels,
            });
            println!("{value:#}");
            return;
        }
        if self.quiet {
            return;
        }
        let clip = |text: &str, width: usize| {
            let short: String = text.chars().take(width).collect();
            if short.len() < text.len() {
                format!("{short}…")
            } else {
                short
            }
        };
        let width = self
            .lines
            .iter()
            .map(|l| l.step.chars().count())
            .max()
            .unwrap_or(0);
        println!(
            "\n{:width$}   {:<44} {:<58} {:>7}",
            "step", "expected", "observed", "time"
        );
        for line in &self.lines {
            let mark = if line.held { "✓" } else { "✗" };
            println!(
                "{:width$} {mark} {:<44} {:<58} {:>5.1} s",
                line.step,
                clip(&line.expected, 42),
                clip(&line.observed, 56),
                line.seconds
            );
        }
        let held = self.lines.iter().filter(|line| line.held).count();
        println!(
            "\n{held} of {} lines held in {:.0} s",
            self.lines.len(),
            self.took().as_secs_f64()
        );
    }
}
