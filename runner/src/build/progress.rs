//! Turns BuildKit's trace into the lines of a log, and remembers what failed.
//!
//! Pure. Lines look as in Docker's plain progress: `#3 [2/4] RUN make`, `#3 CACHED`, output
//! indented under its number, `#3 DONE 1.2s`, `#3 ERROR: …`.

use bollard::grpc::build::moby::buildkit::v1::{StatusResponse, Vertex, VertexStatus};
use std::{
    collections::{HashMap, VecDeque},
    fmt::Write,
};

/// How many lines of a failed instruction's output its reason carries.
const LINES_IN_REASON: usize = 15;

/// The state of one build as its trace told it.
#[derive(Default)]
pub(crate) struct Progress {
    instructions: HashMap<String, Instruction>,
    failure: Option<String>,
}

#[derive(Default)]
struct Instruction {
    number: usize,
    name: String,
    ended: bool,
    cached: bool,
    /// Output behind the last line feed.
    partial: Vec<u8>,
    last_lines: VecDeque<String>,
}

impl Progress {
    /// Takes one message of the trace and gives the text that it adds to the log.
    pub(crate) fn take(&mut self, status: &StatusResponse) -> String {
        let mut text = String::new();
        for vertex in &status.vertexes {
            // Vertices are announced before they run; numbers go to those that do.
            if vertex.started.is_some() || vertex.cached || vertex.completed.is_some() {
                self.begin(vertex, &mut text);
            }
        }
        for log in &status.logs {
            if let Some(instruction) = self.instructions.get_mut(&log.vertex) {
                instruction.output(&log.msg, &mut text);
            }
        }
        for transfer in &status.statuses {
            if transfer.completed.is_some()
                && let Some(instruction) = self.instructions.get(&transfer.vertex)
            {
                instruction.transferred(transfer, &mut text);
            }
        }
        for warning in &status.warnings {
            let short = String::from_utf8_lossy(&warning.short);
            let _ = writeln!(text, "WARN: {short}");
        }
        for vertex in &status.vertexes {
            if vertex.completed.is_some() || !vertex.error.is_empty() {
                self.end(vertex, &mut text);
            }
        }
        text
    }

    /// The instruction that failed, why, and the end of its output.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// How many instructions there were, and how many of them the cache spared.
    pub(crate) fn cache_hits(&self) -> (usize, usize) {
        let instructions = self.instructions.values();
        // What BuildKit does on its own account, as reading the Dockerfile, has another kind of name.
        let instructions = instructions.filter(|instruction| {
            instruction.name.starts_with('[') && !instruction.name.starts_with("[internal]")
        });
        let cached = instructions
            .clone()
            .filter(|instruction| instruction.cached);
        (cached.count(), instructions.count())
    }

    fn begin(&mut self, vertex: &Vertex, text: &mut String) {
        if self.instructions.contains_key(&vertex.digest) {
            return;
        }
        let number = self.instructions.len() + 1;
        let _ = writeln!(text, "#{number} {}", vertex.name);
        self.instructions.insert(
            vertex.digest.clone(),
            Instruction {
                number,
                name: vertex.name.clone(),
                ..Default::default()
            },
        );
    }

    fn end(&mut self, vertex: &Vertex, text: &mut String) {
        let Some(instruction) = self.instructions.get_mut(&vertex.digest) else {
            return;
        };
        if instruction.ended {
            return;
        }
        instruction.ended = true;
        instruction.flush(text);
        let number = instruction.number;
        if !vertex.error.is_empty() {
            let _ = writeln!(text, "#{number} ERROR: {}", vertex.error);
            // Instructions that ran beside the failed one are cancelled; they are not the reason.
            if self.failure.is_none() && !vertex.error.contains("context canceled") {
                let mut failure = format!("`{}` failed: {}", instruction.name, vertex.error);
                for line in &instruction.last_lines {
                    let _ = write!(failure, "\n{line}");
                }
                self.failure = Some(failure);
            }
        } else if vertex.cached {
            instruction.cached = true;
            let _ = writeln!(text, "#{number} CACHED");
        } else {
            let _ = writeln!(text, "#{number} DONE {:.1}s", seconds(vertex));
        }
    }
}

impl Instruction {
    /// Files that went from here to the engine; other transfers tell of themselves too often.
    fn transferred(&self, transfer: &VertexStatus, text: &mut String) {
        let name = transfer.id.trim_end_matches(':');
        if name.starts_with("transferring ") {
            let bytes = amount(transfer.current);
            let _ = writeln!(text, "#{} {name}: {bytes}", self.number);
        }
    }

    fn output(&mut self, bytes: &[u8], text: &mut String) {
        self.partial.extend_from_slice(bytes);
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            self.line(&line[..end], text);
        }
    }

    fn flush(&mut self, text: &mut String) {
        let rest = std::mem::take(&mut self.partial);
        if !rest.is_empty() {
            self.line(&rest, text);
        }
    }

    fn line(&mut self, line: &[u8], text: &mut String) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches('\r');
        let _ = writeln!(text, "#{} {line}", self.number);
        if self.last_lines.len() == LINES_IN_REASON {
            self.last_lines.pop_front();
        }
        self.last_lines.push_back(line.to_owned());
    }
}

/// `12 B`, `1.23 MB`.
fn amount(bytes: i64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut number = bytes as f64 / 1e3;
    let mut units = UNITS.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for larger in units {
        // What would be rounded to 1000 is one of the next unit.
        if number < 999.995 {
            break;
        }
        number /= 1e3;
        unit = larger;
    }
    format!("{number:.2} {unit}")
}

fn seconds(vertex: &Vertex) -> f64 {
    let (Some(started), Some(completed)) = (&vertex.started, &vertex.completed) else {
        return 0.0;
    };
    let whole = (completed.seconds - started.seconds) as f64;
    whole + f64::from(completed.nanos - started.nanos) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::grpc::build::moby::buildkit::v1::VertexLog;

    /// Times of the same type as a vertex's, which has no name outside the protocol's crate.
    fn vertex(digest: &str, name: &str, times: Option<(i64, Option<i64>)>) -> Vertex {
        let mut vertex = Vertex {
            digest: digest.into(),
            name: name.into(),
            ..Default::default()
        };
        if let Some((started, completed)) = times {
            vertex.started.get_or_insert_default().seconds = started;
            if let Some(completed) = completed {
                vertex.completed.get_or_insert_default().seconds = completed;
            }
        }
        vertex
    }

    fn log(vertex: &str, text: &str) -> VertexLog {
        VertexLog {
            vertex: vertex.into(),
            msg: text.into(),
            ..Default::default()
        }
    }

    fn status(vertexes: Vec<Vertex>, logs: Vec<VertexLog>) -> StatusResponse {
        StatusResponse {
            vertexes,
            logs,
            ..Default::default()
        }
    }

    #[test]
    fn a_build_reads_as_docker_writes_it() {
        let mut progress = Progress::default();
        let mut text = String::new();
        let cached = Vertex {
            cached: true,
            ..vertex("c", "[2/3] RUN setup", Some((2, Some(2))))
        };
        for status in [
            status(vec![vertex("a", "[1/3] FROM scratch", None)], vec![]),
            status(
                vec![vertex("a", "[1/3] FROM scratch", Some((1, Some(3))))],
                vec![],
            ),
            status(vec![cached], vec![]),
            status(
                vec![vertex("b", "[3/3] RUN make", Some((3, None)))],
                vec![log("b", "one\ntw")],
            ),
            status(vec![], vec![log("b", "o\r\nend")]),
            status(
                vec![vertex("b", "[3/3] RUN make", Some((3, Some(4))))],
                vec![],
            ),
        ] {
            text.push_str(&progress.take(&status));
        }
        assert_eq!(
            text,
            "#1 [1/3] FROM scratch\n#1 DONE 2.0s\n#2 [2/3] RUN setup\n#2 CACHED\n\
             #3 [3/3] RUN make\n#3 one\n#3 two\n#3 end\n#3 DONE 1.0s\n"
        );
        assert_eq!(progress.cache_hits(), (1, 3));
        assert_eq!(progress.failure(), None);
    }

    #[test]
    fn files_that_were_sent_are_told_once_they_are_there() {
        let mut progress = Progress::default();
        let context = vertex("c", "[internal] load build context", Some((1, None)));
        let transfer = |current, is_complete: bool| StatusResponse {
            statuses: vec![VertexStatus {
                id: "transferring context:".into(),
                vertex: "c".into(),
                current,
                completed: is_complete.then(Default::default),
                ..Default::default()
            }],
            ..Default::default()
        };
        let mut text = progress.take(&status(vec![context], vec![]));
        text.push_str(&progress.take(&transfer(700, false)));
        text.push_str(&progress.take(&transfer(1_999_999, true)));
        assert_eq!(
            text,
            "#1 [internal] load build context\n#1 transferring context: 2.00 MB\n"
        );
        assert_eq!(progress.cache_hits(), (0, 0));
        let amounts = [0, 999, 1000, 999_994, 999_995, 183_000_000].map(amount);
        let expected = [
            "0 B",
            "999 B",
            "1.00 kB",
            "999.99 kB",
            "1.00 MB",
            "183.00 MB",
        ];
        assert_eq!(amounts, expected);
    }

    #[test]
    fn the_reason_names_the_instruction_and_ends_with_its_output() {
        let mut progress = Progress::default();
        let lines: String = (0..100).map(|number| format!("line {number}\n")).collect();
        let mut cancelled = vertex("x", "[1/1] RUN other", Some((1, Some(1))));
        cancelled.error = "context canceled".into();
        let mut failed = vertex("a", "[2/2] RUN false", Some((1, Some(2))));
        failed.error = "exit code: 1".into();
        progress.take(&status(vec![cancelled], vec![]));
        progress.take(&status(vec![failed], vec![log("a", &lines)]));
        let failure = progress.failure().unwrap();
        assert!(
            failure.starts_with("`[2/2] RUN false` failed: exit code: 1\nline 85\n"),
            "{failure}"
        );
        assert!(failure.ends_with("line 99"));
    }
}
