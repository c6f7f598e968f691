//! A runner as a process of its own, until the test ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

pub(crate) const REGISTRATION_TOKEN: &str = "a token for the runner of this test";

pub(crate) struct Runner {
    pub(crate) child: Child,
    pub(crate) data: PathBuf,
}

impl Runner {
    /// Starts one, which says all that it can beside its data folder.
    pub(crate) fn start(server: &str, name: &str, data: PathBuf) -> Self {
        Self::start_with(server, name, data, &[])
    }

    /// With more arguments.
    pub(crate) fn start_with(server: &str, name: &str, data: PathBuf, more: &[&str]) -> Self {
        let log = fs::File::create(data.with_extension("log")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_roadstead"))
            .args(["runner", "--server", server, "--name", name, "--data"])
            .arg(&data)
            .args(more)
            .env("ROADSTEAD_REGISTRATION_TOKEN", REGISTRATION_TOKEN)
            .env("ROADSTEAD_LOG", "debug")
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "runner ready"));
        Self { child, data }
    }

    /// Sends a signal, `-TERM` or `-QUIT`, to a runner that has not been waited for.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        drop(Command::new("kill").args([signal, &pid]).status());
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // One that has been waited for is gone, and its number may be somebody else's by now.
        if let Ok(None) = self.child.try_wait() {
            self.signal("-TERM");
            let _ = self.child.wait();
        }
    }
}
