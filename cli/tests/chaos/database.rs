//! The database of a run, and reading it from outside: a PostgreSQL cluster of the run's own, which can
//! be shut down at once and started again, or the embedded database's file. Queries change nothing.

use crate::options;
use crate::parts::{PATIENCE, until};
use anyhow::{Context, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use tokio::process::{Child, Command};

/// Reads the embedded database: prints the rows of a query as a JSON list.
const READ_SQLITE: &str = "
import json, sqlite3, sys
connection = sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True, timeout=30)
connection.row_factory = sqlite3.Row
print(json.dumps([dict(row) for row in connection.execute(sys.argv[2])]))
";

/// The database of one run.
pub(crate) enum Database {
    Sqlite(PathBuf),
    Postgresql(Box<Cluster>),
}

/// A PostgreSQL cluster in the run's folder.
pub(crate) struct Cluster {
    folder: PathBuf,
    programs: PathBuf,
    server: Option<Child>,
}

fn checked(output: Output, what: &str) -> anyhow::Result<String> {
    if !output.status.success() {
        bail!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

async fn output_of(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output().await?;
    checked(output, program)
}

fn programs() -> anyhow::Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let newest = folders
        .flatten()
        .filter_map(|folder| {
            let version: u32 = folder.file_name().to_str()?.parse().ok()?;
            Some((version, folder.path().join("bin")))
        })
        .max();
    let (_, programs) = newest.context("PostgreSQL is missing: run `make setup`")?;
    Ok(programs)
}

impl Cluster {
    async fn start(folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.join("postgresql");
        std::fs::create_dir(&folder)?;
        if rustix::process::geteuid().is_root() {
            // PostgreSQL refuses to run as root: then it runs as the user that its package made.
            let user: u32 = output_of("id", &["-u", "postgres"]).await?.parse()?;
            let group: u32 = output_of("id", &["-g", "postgres"]).await?.parse()?;
            std::os::unix::fs::chown(&folder, Some(user), Some(group))?;
        }
        let mut cluster = Self {
            programs: programs()?,
            folder,
            server: None,
        };
        let data = cluster.folder.join("data");
        let mut initdb = cluster.command("initdb");
        initdb.args([
            "--username=postgres",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
        ]);
        checked(initdb.arg("--pgdata").arg(data).output().await?, "initdb")?;
        cluster.begin().await?;
        let mut createdb = Command::new(cluster.programs.join("createdb"));
        createdb.args(["--username=postgres", "roadstead", "--host"]);
        checked(createdb.arg(&cluster.folder).output().await?, "createdb")?;
        Ok(cluster)
    }

    fn command(&self, program: &str) -> Command {
        let path = self.programs.join(program);
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
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    /// Starts it and waits until it answers.
    pub(crate) async fn begin(&mut self) -> anyhow::Result<()> {
        if self.server.is_some() {
            return Ok(());
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.with_extension("log"))?;
        let mut server = self.command("postgres");
        server.arg("-D").arg(self.folder.join("data"));
        server.arg("-k").arg(&self.folder);
        server.args(["-c", "listen_addresses=", "-c", "max_connections=100"]);
        server.stdout(log.try_clone()?).stderr(log);
        self.server = Some(server.spawn()?);
        let isready = self.programs.join("pg_isready");
        until("PostgreSQL", PATIENCE, async || {
            let mut command = Command::new(&isready);
            let asked = command.arg("--host").arg(&self.folder).output().await?;
            Ok(asked.status.success().then_some(()))
        })
        .await
    }

    /// An immediate shutdown: no checkpoint, every connection is torn.
    pub(crate) async fn shut_down_at_once(&mut self) -> anyhow::Result<()> {
        if let Some(mut server) = self.server.take() {
            let id = server.id().context("PostgreSQL ended by itself")?;
            output_of("kill", &["-QUIT", &id.to_string()]).await?;
            server.wait().await?;
        }
        Ok(())
    }
}

impl Database {
    /// `of_servers`: where the servers keep what is theirs.
    pub(crate) async fn start(
        kind: options::Database,
        folder: &Path,
        of_servers: &Path,
    ) -> anyhow::Result<Self> {
        Ok(match kind {
            options::Database::Sqlite => Self::Sqlite(of_servers.join("server-1/roadstead.db")),
            options::Database::Postgresql => {
                Self::Postgresql(Box::new(Cluster::start(folder).await?))
            }
        })
    }

    /// As the server's configuration takes it.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
            Self::Postgresql(cluster) => {
                let host = cluster.folder.display();
                format!("postgres:///roadstead?user=postgres&host={host}")
            }
        }
    }

    /// The rows of a query that both databases understand, as objects.
    pub(crate) async fn rows(&self, query: &str) -> anyhow::Result<Vec<Value>> {
        let text = match self {
            Self::Sqlite(path) => {
                let path = path.display().to_string();
                output_of("python3", &["-c", READ_SQLITE, &path, query]).await?
            }
            Self::Postgresql(cluster) => {
                let mut psql = Command::new(cluster.programs.join("psql"));
                psql.args([
                    "--username=postgres",
                    "--dbname=roadstead",
                    "-qAt",
                    "--host",
                ]);
                psql.arg(&cluster.folder);
                psql.env("PGOPTIONS", "-c default_transaction_read_only=on");
                psql.args([
                    "-c",
                    &format!("select coalesce(json_agg(q), '[]') from ({query}) q"),
                ]);
                checked(psql.output().await?, query)?
            }
        };
        Ok(serde_json::from_str(&text)?)
    }

    pub(crate) async fn end(&mut self) {
        if let Self::Postgresql(cluster) = self
            && let Some(mut server) = cluster.server.take()
            && let Some(id) = server.id()
        {
            drop(output_of("kill", &["-INT", &id.to_string()]).await);
            drop(tokio::time::timeout(PATIENCE, server.wait()).await);
        }
    }
}
