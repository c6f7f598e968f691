//! Servers that share a database and a folder of logs, each with a data folder of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

pub(crate) const PASSWORD: &str = "the one that both are told";
pub(crate) const REGISTRATION: &str = "known-to-the-servers-test-alone";

/// What servers are told alike.
pub(crate) struct Shared {
    pub(crate) database: String,
    /// Address of every AWS service.
    pub(crate) aws: String,
    /// Holds the configuration, `logs`, and a data folder for each server.
    pub(crate) folder: PathBuf,
}

/// One server, ended with the test.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    log: PathBuf,
}

impl Shared {
    pub(crate) fn new(database: String, aws: String, folder: &Path, configuration: &str) -> Self {
        std::fs::write(folder.join("roadstead.toml"), configuration).unwrap();
        Self {
            database,
            aws,
            folder: folder.to_owned(),
        }
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roadstead"));
        command
            .args(["server", "--config"])
            .arg(self.folder.join("roadstead.toml"))
            .env("ROADSTEAD__HTTP__LISTEN", "127.0.0.1:0")
            .env("ROADSTEAD__DATA", self.folder.join(name))
            .env("ROADSTEAD__LOGS__FOLDER", self.folder.join("logs"))
            .env("ROADSTEAD__STORE__URL", &self.database)
            .env("ROADSTEAD__RUNNERS__REGISTRATION_TOKEN", REGISTRATION)
            .env("ROADSTEAD__AWS__ENDPOINT_URL", &self.aws)
            .env("AWS_ACCESS_KEY_ID", "sandbox")
            .env("AWS_SECRET_ACCESS_KEY", "sandbox")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    /// Starts the server of this name and waits until it answers.
    pub(crate) fn start(&self, name: &str) -> Server {
        let mut command = self.command(name);
        command.env("ROADSTEAD__ADMIN__PASSWORD", PASSWORD);
        self.start_command(command, name).0
    }

    /// Without a password for the administrator; also gives what it prints before it answers.
    pub(crate) fn start_without_password(&self, name: &str) -> (Server, Vec<String>) {
        self.start_command(self.command(name), name)
    }

    fn start_command(&self, mut command: Command, name: &str) -> (Server, Vec<String>) {
        let path = self.folder.join(format!("{name}.log"));
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut printed = vec![];
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(url) = line.strip_prefix("server ready on ") {
                let url = url.to_owned();
                let server = Server {
                    child,
                    url,
                    log: path,
                };
                return (server, printed);
            }
            printed.push(line);
        }
        child.wait().unwrap();
        panic!("{name} ended: {}", std::fs::read_to_string(path).unwrap());
    }

    /// What the server of this name has logged so far.
    pub(crate) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default()
    }

    /// What a server says that does not start.
    pub(crate) fn refused(&self, name: &str) -> Output {
        self.command(name).output().unwrap()
    }
}

impl Server {
    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its name among the servers on its database, as its log tells it.
    pub(crate) fn id(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap();
        let told = log.lines().rev().find_map(|line| {
            let (_, id) = line.split_once("this server is ")?;
            Some(id.split_whitespace().next()?.to_owned())
        });
        told.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
