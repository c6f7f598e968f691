//! A story that somebody ends before it is told, by SIGINT or SIGTERM: everything that it started ends
//! with it, and neither Docker Engine nor the folder for temporary files keeps anything.

#![expect(
    clippy::unwrap_used,
    reason = "a story that breaks off is a failed test"
)]

mod story;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use story::{Stage, images, labelled};

/// How long anything may take before a test gives up; machines that run tests are slow.
const PATIENCE: Duration = Duration::from_secs(180);

fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A story under way, in a folder below the stage's own.
struct UnderWay {
    child: Child,
    stage: Stage,
}

impl UnderWay {
    /// Begins a story and waits until it says `word`.
    fn begin(word: &str) -> Self {
        let stage = Stage::new();
        let mut child = stage
            .demo_in_a_temporary_folder()
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = vec![];
        let mut lines = lines.map_while(Result::ok);
        let found = lines.by_ref().any(|line| {
            said.push(line);
            said.last().is_some_and(|line| line.contains(word))
        });
        assert!(found, "it ended: {said:?}");
        // It goes on writing, and must not have to wait for a reader.
        std::thread::spawn(move || lines.for_each(|line| eprintln!("{line}")));
        Self { child, stage }
    }

    /// Its folder, below the one for temporary files.
    fn folder(&self) -> PathBuf {
        let found = fs::read_dir(self.stage.folder()).unwrap();
        let paths = found.map(|entry| entry.unwrap().path());
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        let mut of_demo = paths.filter(|path| name(path).starts_with("roadstead-demo-"));
        of_demo.next().unwrap()
    }

    /// Sends the signal and gives the status that followed.
    fn end(&mut self, signal: &str) -> Option<i32> {
        let pid = self.child.id().to_string();
        let sent = Command::new("sh")
            .args(["-c", "kill \"-$0\" \"$1\"", signal, &pid])
            .status();
        assert!(sent.unwrap().success());
        until("the story's end", || self.child.try_wait().unwrap()).code()
    }

    /// Nothing runs and nothing is kept.
    fn assert_nothing_stays(&self, folder: &Path, labels: &[String]) {
        for label in labels {
            assert_eq!(labelled(label), "", "{label}");
        }
        assert_eq!(images(&self.stage.registry()), "");
        let left: Vec<_> = fs::read_dir(self.stage.folder()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        let folder = folder.display().to_string();
        until("the parts' end", || {
            let mut processes = fs::read_dir("/proc").unwrap().flatten();
            let runs = processes.any(|process| {
                let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(&folder)
            });
            (!runs).then_some(())
        });
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            // Not by a kill, which its children would outlive.
            self.end("TERM");
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_story_that_ctrl_c_ends_takes_everything_down() {
    let mut story = UnderWay::begin("with a placeholder in them");
    let folder = story.folder();
    let sandbox = roadstead_sandbox::label(&folder.join("sandbox")).unwrap();
    let runner = roadstead_runner::label(&folder.join("runner")).unwrap();
    let labels = [sandbox.unwrap(), runner.unwrap()];
    until("a task", || {
        (!labelled(&labels[0]).is_empty()).then_some(())
    });

    assert_eq!(mode(&folder), 0o700);
    for (name, wanted) in [
        ("roadstead.toml", 0o600),
        ("webhook-secret", 0o600),
        ("server.log", 0o600),
        ("shop.git/hooks/post-receive", 0o700),
    ] {
        assert_eq!(mode(&folder.join(name)), wanted, "{name}");
    }

    assert_eq!(story.end("INT"), Some(130));
    story.assert_nothing_stays(&folder, &labels);
}

#[test]
fn a_story_that_is_terminated_while_it_starts_leaves_nothing_either() {
    let mut story = UnderWay::begin("built from scratch");
    let folder = story.folder();
    until("the sandbox", || {
        folder.join("sandbox.log").exists().then_some(())
    });
    assert_eq!(story.end("TERM"), Some(143));
    story.assert_nothing_stays(&folder, &[]);
}
