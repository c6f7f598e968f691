//! The server's database: one of a benchmark's own, read and filled from outside. It is filled while no server has it open.

use anyhow::{Context, bail, ensure};
use std::fmt;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Bounds a failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where Debian has the versions of PostgreSQL.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Which database a server has.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Sqlite,
    Postgresql,
}

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgresql => "postgresql",
        }
    }
}

/// The database of one server.
pub(crate) enum Database {
    Sqlite(PathBuf),
    Postgresql(Cluster),
}

/// A PostgreSQL cluster with the settings that Debian's has, but for its socket: what it commits is on the disk.
pub(crate) struct Cluster {
    server: Child,
    programs: PathBuf,
    folder: TempDir,
}

impl Database {
    /// A new one; SQLite's is made by the server, in its folder of data.
    pub(crate) fn start(kind: Kind, data: &Path) -> anyhow::Result<Self> {
        Ok(match kind {
            Kind::Sqlite => Self::Sqlite(data.join("roadstead.db")),
            Kind::Postgresql => Self::Postgresql(Cluster::start()?),
        })
    }

    /// What the server's settings call it; none: its own.
    pub(crate) fn url(&self) -> Option<String> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgresql(cluster) => Some(cluster.url()),
        }
    }

    /// Makes `total` more runs of those that are there; how many there are then.
    pub(crate) fn runs(&self, total: u64) -> anyhow::Result<u64> {
        let mut fill = Command::new("python3");
        fill.args(["-c", include_str!("fill.py")]);
        match self {
            Self::Sqlite(path) => fill.arg(path),
            Self::Postgresql(cluster) => fill.arg(cluster.url()).env("PSQL", cluster.psql()),
        };
        let told = told(fill.arg(total.to_string()))?;
        Ok(told.trim().parse()?)
    }

    /// The first column of what a query gives.
    pub(crate) fn query(&self, sql: &str) -> anyhow::Result<Vec<String>> {
        let script = "import sqlite3,sys\nfor row in sqlite3.connect(sys.argv[1]).execute(sys.argv[2]): print(row[0])";
        let told = match self {
            Self::Sqlite(path) => told(
                Command::new("python3")
                    .args(["-c", script])
                    .arg(path)
                    .arg(sql),
            ),
            Self::Postgresql(cluster) => {
                let mut psql = Command::new(cluster.psql());
                told(psql.args(["-XAtq", &cluster.url(), "-c", sql]))
            }
        }?;
        Ok(told.lines().map(str::to_owned).collect())
    }

    /// How large it is, in bytes.
    pub(crate) fn size(&self) -> anyhow::Result<u64> {
        match self {
            Self::Sqlite(path) => Ok(std::fs::metadata(path)?.len()),
            Self::Postgresql(_) => {
                let size = self.query("select pg_database_size('roadstead')")?;
                Ok(size.concat().parse()?)
            }
        }
    }
}

/// What a program printed.
fn told(command: &mut Command) -> anyhow::Result<String> {
    let asked = command.stdin(Stdio::null()).output();
    let Output {
        status,
        stdout,
        stderr,
    } = asked.with_context(|| format!("{command:?}"))?;
    ensure!(
        status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&stderr)
    );
    Ok(String::from_utf8(stdout)?)
}

impl Cluster {
    fn start() -> anyhow::Result<Self> {
        let versions = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
        let newest = versions.filter_map(|version| {
            let number: u32 = version.file_name().to_str()?.parse().ok()?;
            Some((number, version.path().join("bin")))
        });
        let (_, programs) = newest
            .max()
            .context("PostgreSQL is missing: run `make setup`")?;
        let folder = tempfile::Builder::new()
            .prefix("roadstead-load-")
            .tempdir()?;
        if rustix::process::geteuid().is_root() {
            let of = |flag| told(Command::new("id").args([flag, "postgres"]));
            let (user, group) = (of("-u")?.trim().parse()?, of("-g")?.trim().parse()?);
            chown(folder.path(), Some(user), Some(group))?;
        }
        let data = folder.path().join("data");
        let initdb = [
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--pgdata",
        ];
        told(program(&programs, "initdb").args(initdb).arg(&data))?;
        let mut postgres = program(&programs, "postgres");
        postgres.arg("-D").arg(&data).arg("-k").arg(folder.path());
        postgres.args(["-c", "listen_addresses="]);
        let log = std::fs::File::create(folder.path().join("log"))?;
        postgres
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let cluster = Self {
            server: postgres.spawn()?,
            programs,
            folder,
        };
        let begun = Instant::now();
        let mut createdb = Command::new(cluster.programs.join("createdb"));
        createdb.args(["--username=postgres", "roadstead", "--host"]);
        createdb.arg(cluster.folder.path());
        // Until it takes connections.
        while let Err(error) = told(&mut createdb) {
            if begun.elapsed() > PATIENCE {
                bail!("PostgreSQL: {error}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(cluster)
    }

    fn url(&self) -> String {
        let folder = self.folder.path().display();
        format!("postgres:///roadstead?user=postgres&host={folder}")
    }

    fn psql(&self) -> PathBuf {
        self.programs.join("psql")
    }
}

/// One of PostgreSQL's programs; it refuses to run as root, and runs as the user that its package made then.
fn program(programs: &Path, name: &str) -> Command {
    let path = programs.join(name);
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
            "--",
        ]);
        command.arg(path);
        command
    } else {
        Command::new(path)
    };
    // Not a folder that the other user may not enter.
    command.current_dir("/");
    command
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let stopped = rustix::process::Pid::from_child(&self.server);
        // It ends at once and cuts connections.
        let told = rustix::process::kill_process(stopped, rustix::process::Signal::INT);
        if let Err(error) = told
            .map_err(std::io::Error::from)
            .and_then(|()| self.server.wait())
        {
            eprintln!("PostgreSQL's end is unknown: {error}");
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgresql => "PostgreSQL",
        })
    }
}
