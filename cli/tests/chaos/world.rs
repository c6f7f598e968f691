//! Everything that a run starts: parts, proxies, database, forge, AWS; and how it goes away again.

use crate::aws::Aws;
use crate::database::Database;
use crate::disk::Disk;
use crate::docker;
use crate::draw::{Line, Victim};
use crate::forge::Forge;
use crate::options::Options;
use crate::parts::{PATIENCE, Process, answers, binary, until};
use crate::tcp::Proxy;
use crate::work::{Caller, SECRET};
use anyhow::Context;
use serde_json::{Value, json};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tempfile::TempDir;
use tokio::process::Command;

const REGISTRATION: &str = "a registration token of this run";
const PASSWORD: &str = "the password of this run";

/// The parts of a run and what lies between them.
pub(crate) struct World {
    folder: Option<TempDir>,
    pub(crate) path: PathBuf,
    pub(crate) caller: Caller,
    pub(crate) forge: Forge,
    pub(crate) database: Database,
    pub(crate) disk: Option<Disk>,
    /// The folder of logs that all servers share.
    pub(crate) logs: PathBuf,
    pub(crate) aws: Aws,
    pub(crate) sandbox: Process,
    pub(crate) servers: Vec<Process>,
    pub(crate) runners: Vec<Process>,
    to_server: Proxy,
    to_aws: Proxy,
    sandbox_url: String,
    registry: String,
    base: String,
}

/// Free addresses, all different.
fn free_addresses<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    let listeners: Vec<_> = (0..N)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    let addresses: Vec<_> = listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<_, _>>()?;
    addresses
        .try_into()
        .map_err(|_| anyhow::anyhow!("an address is missing"))
}

async fn base_image(folder: &Path, name: &str) -> anyhow::Result<()> {
    let folder = folder.join("base");
    fs::create_dir_all(folder.join("www"))?;
    fs::copy("/bin/busybox", folder.join("busybox"))
        .context("a static busybox is missing: run `make setup`")?;
    fs::write(folder.join("www/index.html"), "nothing is deployed yet\n")?;
    fs::write(
        folder.join("Dockerfile"),
        "FROM scratch\nCOPY busybox /bin/busybox\n\
         RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nCOPY www /nothing\n\
         CMD [\"/bin/busybox\", \"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/nothing\"]\n",
    )?;
    let folder = folder.display().to_string();
    docker::docker(&["build", "--quiet", "--tag", name, &folder]).await?;
    Ok(())
}

impl World {
    /// Starts everything, with two services that run a placeholder.
    pub(crate) async fn start(options: &Options) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("roadstead-chaos-")
            .tempdir()?;
        let path = folder.path().to_owned();
        // PostgreSQL may run as another user; what is secret lies in folders of its own.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711))?;
        fs::copy(env!("CARGO_BIN_EXE_roadstead"), binary(&path))?;
        let [sandbox_at, registry_at, staging, production] = free_addresses()?;
        let base = format!(
            "roadstead-chaos-base:{}-{}",
            std::process::id(),
            sandbox_at.port()
        );
        base_image(&path, &base).await?;
        let forge = Forge::create(&path, &base, staging.port(), production.port()).await?;
        let disk = match options.full_disk {
            true => Some(Disk::mount(&path).await?),
            false => None,
        };
        let of_servers = disk.as_ref().map_or(&path, |disk| &disk.folder).clone();
        let database = Database::start(options.database, &path, &of_servers).await?;
        let logs = of_servers.join("logs");
        let (to_server, to_aws) = (Proxy::start().await?, Proxy::start().await?);
        to_aws.lead_to(vec![sandbox_at]);

        let data = |name: &str| format!("--data={}", path.join(name).display());
        let sandbox = Process::new(
            &path,
            "sandbox",
            &[
                "sandbox",
                &format!("--listen={sandbox_at}"),
                &format!("--registry={registry_at}"),
                &data("sandbox"),
                "--time-scale=30",
            ],
            &[],
        );
        let config = path.join("roadstead.toml");
        let project = format!(
            "[[projects]]\nname = \"shop\"\nrepository = \"{}\"\nwebhook_secret = \"{SECRET}\"\n",
            forge.bare.display()
        );
        fs::write(&config, project)?;
        let (mut servers, mut addresses) = (vec![], vec![]);
        for number in 1..=options.servers {
            let [listen] = free_addresses()?;
            addresses.push(listen);
            servers.push(Process::new(
                &path,
                format!("server-{number}"),
                &["server", &format!("--config={}", config.display())],
                &[
                    ("ROADSTEAD__HTTP__LISTEN", &listen.to_string()),
                    (
                        "ROADSTEAD__DATA",
                        &of_servers
                            .join(format!("server-{number}"))
                            .display()
                            .to_string(),
                    ),
                    ("ROADSTEAD__LOGS__FOLDER", &logs.display().to_string()),
                    ("ROADSTEAD__STORE__URL", &database.url()),
                    (
                        "ROADSTEAD__AWS__ENDPOINT_URL",
                        &format!("http://{}", to_aws.address),
                    ),
                    ("ROADSTEAD__ADMIN__PASSWORD", PASSWORD),
                    ("ROADSTEAD__RUNNERS__REGISTRATION_TOKEN", REGISTRATION),
                    ("AWS_ACCESS_KEY_ID", "sandbox"),
                    ("AWS_SECRET_ACCESS_KEY", "sandbox"),
                ],
            ));
        }
        to_server.lead_to(addresses);
        let runners = (1..=options.runners).map(|number| {
            let name = format!("runner-{number}");
            let arguments = [
                "runner",
                &format!("--server=http://{}", to_server.address),
                &data(&name),
                &format!("--name={name}"),
            ];
            Process::new(
                &path,
                &name,
                &arguments,
                &[("ROADSTEAD_REGISTRATION_TOKEN", REGISTRATION)],
            )
        });
        let sandbox_url = format!("http://{sandbox_at}");
        let mut world = Self {
            caller: Caller::new(format!("http://{}", to_server.address))?,
            runners: runners.collect(),
            aws: Aws::new(sandbox_url.clone()),
            registry: registry_at.to_string(),
            folder: Some(folder),
            path,
            forge,
            database,
            disk,
            logs,
            sandbox,
            servers,
            to_server,
            to_aws,
            sandbox_url,
            base,
        };
        let begun = world.begin(staging.port(), production.port()).await;
        if let Err(error) = begun {
            world.end(true).await?;
            return Err(error);
        }
        Ok(world)
    }

    async fn begin(&mut self, staging: u16, production: u16) -> anyhow::Result<()> {
        self.sandbox.start()?;
        self.sandbox_answers().await?;
        self.aws
            .ecr("CreateRepository", json!({"repositoryName": "placeholder"}))
            .await?;
        let (user, password) = self.aws.registry_login().await?;
        let name = format!("{}/placeholder:1", self.registry);
        docker::docker(&["tag", &self.base, &name]).await?;
        docker::push(&self.path, &name, &user, &password).await?;
        self.aws.environment("staging", staging, &name).await?;
        self.aws
            .environment("production", production, &name)
            .await?;
        for server in &mut self.servers {
            server.start()?;
        }
        self.server_answers().await?;
        self.caller.sign_in(PASSWORD).await?;
        self.runners.iter_mut().try_for_each(Process::start)
    }

    async fn sandbox_answers(&self) -> anyhow::Result<()> {
        let url = format!("{}/_sandbox/faults", self.sandbox_url);
        answers(&self.caller.http, "the sandbox", &url).await
    }

    async fn server_answers(&self) -> anyhow::Result<()> {
        let url = format!("http://{}/readyz", self.to_server.address);
        answers(&self.caller.http, "the server", &url).await
    }

    pub(crate) fn process(&mut self, victim: Victim) -> &mut Process {
        match victim {
            Victim::Server(number) => &mut self.servers[number],
            Victim::Runner(number) => &mut self.runners[number],
            Victim::Sandbox => &mut self.sandbox,
        }
    }

    pub(crate) fn proxy(&self, line: Line) -> &Proxy {
        match line {
            Line::Server => &self.to_server,
            Line::Aws => &self.to_aws,
        }
    }

    /// Lets the next calls of an operation meet a fault; whether there was a sandbox to hear of it.
    pub(crate) async fn break_calls(&self, fault: Value) -> bool {
        let url = format!("{}/_sandbox/faults", self.sandbox_url);
        let told = self.caller.http.post(url).json(&fault).send().await;
        told.is_ok_and(|answer| answer.status().is_success())
    }

    /// Ends all faults, and waits until everything answers.
    pub(crate) async fn heal(&mut self) -> anyhow::Result<()> {
        if let Database::Postgresql(cluster) = &mut self.database {
            cluster.begin().await?;
        }
        if let Some(disk) = &self.disk {
            disk.clear()?;
        }
        self.to_server.refuse(false);
        self.to_aws.refuse(false);
        let parts = [&mut self.sandbox].into_iter();
        for part in parts.chain(&mut self.servers).chain(&mut self.runners) {
            part.go_on()?;
            part.start()?;
        }
        self.sandbox_answers().await?;
        let url = format!("{}/_sandbox/faults", self.sandbox_url);
        self.caller
            .http
            .delete(url)
            .send()
            .await?
            .error_for_status()?;
        self.server_answers().await
    }

    /// Fails when a part has ended that nobody killed.
    pub(crate) fn alive(&mut self) -> anyhow::Result<()> {
        let parts = [&mut self.sandbox].into_iter();
        parts
            .chain(&mut self.servers)
            .chain(&mut self.runners)
            .try_for_each(Process::alive)
    }

    /// Checks the audit trail as people do; what the command said.
    pub(crate) async fn verify_audit(&self) -> anyhow::Result<(bool, String)> {
        let output = Command::new(binary(&self.path))
            .args(["audit", "verify"])
            .env(
                "ROADSTEAD_URL",
                format!("http://{}", self.to_server.address),
            )
            .env("ROADSTEAD_TOKEN", &self.caller.token)
            .stdin(Stdio::null())
            .output()
            .await?;
        let said = [output.stdout, output.stderr].concat();
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        ))
    }

    /// Ends every process, removes what is left in Docker Engine, and the folder unless it is to stay.
    pub(crate) async fn end(&mut self, keep: bool) -> anyhow::Result<()> {
        for part in self.runners.iter_mut().chain(&mut self.servers) {
            part.end().await;
        }
        self.sandbox.end().await;
        self.database.end().await;
        let data = self.path.join("sandbox");
        if data.exists() {
            // The folder is free once the sandbox's registry has ended as well.
            until("the sandbox's containers to go", PATIENCE, async || {
                let mut purge = Command::new(binary(&self.path));
                purge.args(["sandbox", "--purge", "--data"]).arg(&data);
                let purged = purge.stdin(Stdio::null()).output().await?;
                Ok(purged.status.success().then_some(()))
            })
            .await?;
        }
        for runner in &self.runners {
            if let Some(label) = roadstead_runner::label(&self.path.join(&runner.name))? {
                docker::remove_labelled(&label).await?;
            }
        }
        for repository in ["shop", "placeholder"] {
            docker::remove_images(&format!("{}/{repository}", self.registry)).await?;
        }
        drop(docker::docker(&["image", "rm", "--force", &self.base]).await);
        if let Some(folder) = self.folder.take()
            && keep
        {
            eprintln!("the data stays in {}", folder.keep().display());
        }
        if let Some(disk) = self.disk.take() {
            disk.unmount().await?;
        }
        Ok(())
    }
}
