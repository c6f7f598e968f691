//! Throwaway databases: a file for SQLite, a cluster of its own for PostgreSQL, reached through a
//! socket in its own folder. A machine without PostgreSQL fails the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// Runs every scenario on SQLite, each as a test, and all of them on one PostgreSQL cluster, each
/// on a new database.
macro_rules! on_both_databases {
    ($($scenario:ident),+ $(,)?) => {
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $scenario() {
                    let folder = tempfile::tempdir().unwrap();
                    super::$scenario(&super::databases::sqlite(&folder)).await;
                }
            )+
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn on_postgres() {
            let cluster = databases::Cluster::start();
            $(
                eprintln!("scenario {}", stringify!($scenario));
                $scenario(&cluster.database()).await;
            )+
        }
    };
}

pub(crate) use on_both_databases;

/// The URL of a new SQLite database in a folder.
pub(crate) fn sqlite(folder: &TempDir) -> String {
    format!("sqlite:{}", folder.path().join("roadstead.db").display())
}

/// A PostgreSQL server that ends with the test.
pub(crate) struct Cluster {
    server: Child,
    folder: TempDir,
    programs: PathBuf,
    databases: AtomicU32,
}

/// PostgreSQL refuses to run as root: then it runs as the user that its package made.
fn command(programs: &Path, program: &str) -> Command {
    let path = programs.join(program);
    if !is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=postgres",
        "--regid=postgres",
        "--clear-groups",
        "--",
    ]);
    command.arg(path);
    // Not a folder that the other user may not enter.
    command.current_dir("/");
    command
}

fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn is_root() -> bool {
    output_of("id", &["-u"]) == "0"
}

fn programs() -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|folders| {
            folders
                .flatten()
                .filter_map(|folder| {
                    let version = folder.file_name().to_str()?.parse().ok()?;
                    let programs = folder.path().join("bin");
                    programs
                        .join("initdb")
                        .exists()
                        .then_some((version, programs))
                })
                .collect()
        })
        .unwrap_or_default();
    versions.sort();
    versions.pop().map(|(_, programs)| programs).expect(
        "PostgreSQL is needed for the store's tests: install the package `postgresql` (`make setup`)",
    )
}

fn run(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Starts a server on the cluster in a folder, and waits until it answers.
fn serve(programs: &Path, folder: &Path) -> Child {
    let mut server = command(programs, "postgres");
    server.arg("-D").arg(folder.join("data"));
    server.arg("-k").arg(folder);
    server.args(["-c", "listen_addresses="]);
    server.args(["-c", "fsync=off", "-c", "max_connections=60"]);
    server.stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = server.spawn().unwrap();
    for _ in 0..600 {
        let ready = Command::new(programs.join("pg_isready"))
            .arg("--host")
            .arg(folder)
            .output()
            .unwrap();
        if ready.status.success() {
            return server;
        }
        let ended = server.try_wait().unwrap();
        assert!(ended.is_none(), "PostgreSQL ended at its start: {ended:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("PostgreSQL did not answer within two minutes");
}

impl Cluster {
    /// Makes a cluster and waits until it answers.
    pub(crate) fn start() -> Self {
        let programs = programs();
        let folder = tempfile::Builder::new()
            .prefix("roadstead-pg-")
            .tempdir()
            .unwrap();
        if is_root() {
            let user: u32 = output_of("id", &["-u", "postgres"]).parse().unwrap();
            let group: u32 = output_of("id", &["-g", "postgres"]).parse().unwrap();
            std::os::unix::fs::chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let data = folder.path().join("data");
        let mut initdb = command(&programs, "initdb");
        initdb.args([
            "--username=postgres",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
        ]);
        initdb.arg("--pgdata").arg(&data);
        run(initdb);

        Self {
            server: serve(&programs, folder.path()),
            folder,
            programs,
            databases: AtomicU32::new(0),
        }
    }

    /// Shuts the server down at once; connections are cut.
    pub(crate) fn stop(&mut self) {
        let pid = self.server.id().to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).status();
        for _ in 0..150 {
            if matches!(self.server.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// Starts the server again, with all that it held, and waits until it answers.
    pub(crate) fn start_again(&mut self) {
        self.server = serve(&self.programs, self.folder.path());
    }

    /// The URL of a new, empty database.
    pub(crate) fn database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("roadstead_{number}");
        let host = self.folder.path();
        let mut createdb = Command::new(self.programs.join("createdb"));
        createdb
            .args(["--username=postgres", &name])
            .arg("--host")
            .arg(host);
        run(createdb);
        format!("postgres:///{name}?user=postgres&host={}", host.display())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}
