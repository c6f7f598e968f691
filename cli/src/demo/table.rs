//! The lines of the story: what was expected, what was seen, how long it took, and the evidence.

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

/// All lines so far.
pub(crate) struct Table {
    lines: Vec<Line>,
    began: Instant,
    last: Instant,
    quiet: bool,
}

impl Table {
    pub(crate) fn new(quiet: bool) -> Self {
        let now = Instant::now();
        Self {
            lines: vec![],
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

    pub(crate) fn lines(&self) -> &[Line] {
        &self.lines
    }

    pub(crate) fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// Prints the table, for people or as JSON.
    pub(crate) fn print(&self, json: bool) {
        if json {
            let held = self.lines.iter().all(|line| line.held);
            let value = serde_json::json!({
                "held": held, "seconds": self.took().as_secs_f64(), "lines": self.lines,
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
