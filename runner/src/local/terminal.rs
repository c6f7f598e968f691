//! Shows the logs of steps that run side by side on one terminal.
//!
//! Owns the look of a line. A line is written whole, so lines of two steps never mix; one that does not
//! end is shown in pieces.

use crate::logs::StepLog;
use roadstead_protocol::{Step, StepState};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// Cyan, magenta, blue, yellow and their bright sisters; green and red tell how a step ended.
const COLOURS: [u8; 8] = [36, 35, 34, 33, 96, 95, 94, 93];
const GREEN: u8 = 32;
const RED: u8 = 31;
/// Bytes of one line that are held back until its end comes.
const LONGEST_LINE: usize = 64 << 10;

/// Standard output as the audience of one attempt.
pub(crate) struct Terminal {
    attempt: String,
    names: Vec<String>,
    width: usize,
    colours: bool,
    begun: Mutex<BTreeMap<String, Instant>>,
}

impl Terminal {
    pub(crate) fn new(attempt: &str, steps: &[Step], colours: bool) -> Self {
        let names: Vec<String> = steps.iter().map(|step| step.name.clone()).collect();
        Self {
            attempt: attempt.to_owned(),
            width: names.iter().map(String::len).max().unwrap_or_default(),
            names,
            colours,
            begun: Mutex::default(),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.attempt
    }

    /// Shows a log as it grows, until it is closed.
    pub(crate) async fn follow(&self, log: &StepLog, step: &str) -> io::Result<()> {
        let mut offset = 0;
        let mut begun_line = Vec::new();
        while let Some(bytes) = log.next(offset).await? {
            offset += bytes.len() as u64;
            begun_line.extend_from_slice(&bytes);
            let whole = match begun_line.iter().rposition(|byte| *byte == b'\n') {
                Some(end) => end + 1,
                None if begun_line.len() > LONGEST_LINE => begun_line.len(),
                None => 0,
            };
            let rest = begun_line.split_off(whole);
            self.show(step, &begun_line);
            begun_line = rest;
        }
        self.show(step, &begun_line);
        Ok(())
    }

    /// Shows how a step stands.
    pub(crate) fn hear(&self, step: &str, state: &StepState) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let after = begun
            .get(step)
            .map(|begun| format!(" after {:.1} s", begun.elapsed().as_secs_f64()))
            .unwrap_or_default();
        let (colour, text) = match state {
            // The log says that a step is tried again.
            StepState::Waiting | StepState::Retrying { .. } => return,
            StepState::Running => {
                begun.insert(step.to_owned(), Instant::now());
                return;
            }
            StepState::Succeeded => (GREEN, format!("succeeded{after}")),
            StepState::Failed { reason, .. } => (RED, format!("failed{after}: {reason}")),
            StepState::Skipped => (
                RED,
                "did not run: a step that it needs did not succeed".into(),
            ),
            StepState::Cancelled => (RED, format!("stopped{after}")),
            StepState::TimedOut => (RED, format!("timed out{after}")),
        };
        let text = if self.colours {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text
        };
        self.show(step, text.as_bytes());
    }

    fn show(&self, step: &str, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        let mut out = Vec::with_capacity(text.len() + 64);
        for line in text
            .strip_suffix(b"\n")
            .unwrap_or(text)
            .split(|byte| *byte == b'\n')
        {
            self.line(&mut out, step, line);
        }
        // Nobody reads any more: the steps go on, and their end shows in the exit status.
        let _ = io::stdout().lock().write_all(&out);
    }

    /// One line as it is shown.
    fn line(&self, out: &mut Vec<u8>, step: &str, line: &[u8]) {
        let width = self.width;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.colours {
            let index = self.names.iter().position(|name| name == step);
            let colour = COLOURS[index.unwrap_or_default() % COLOURS.len()];
            out.extend_from_slice(format!("\x1b[{colour}m{step:width$} |\x1b[0m ").as_bytes());
        } else {
            out.extend_from_slice(format!("{step:width$} | ").as_bytes());
        }
        out.extend_from_slice(line);
        // A step's own colour must not run on into the next one's lines.
        if self.colours && line.contains(&0x1b) {
            out.extend_from_slice(b"\x1b[0m");
        }
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roadstead_protocol::StepAction;

    fn shown(colours: bool, step: &str, line: &str) -> String {
        let steps = ["test", "image"].map(|name| Step {
            name: name.into(),
            needs: vec![],
            timeout_seconds: 1,
            retry: 0,
            artifacts_from: vec![],
            action: StepAction::Build { images: vec![] },
        });
        let mut out = Vec::new();
        Terminal::new("local", &steps, colours).line(&mut out, step, line.as_bytes());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_stand_behind_names_of_one_width() {
        assert_eq!(shown(false, "test", "ok\r"), "test  | ok\n");
        assert_eq!(shown(false, "image", ""), "image | \n");
    }

    #[test]
    fn each_step_has_its_colour_and_keeps_it_to_itself() {
        assert_eq!(shown(true, "test", "ok"), "\x1b[36mtest  |\x1b[0m ok\n");
        assert_eq!(
            shown(true, "image", "\x1b[31mno"),
            "\x1b[35mimage |\x1b[0m \x1b[31mno\x1b[0m\n"
        );
    }
}
