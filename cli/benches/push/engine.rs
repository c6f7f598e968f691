//! Docker Engine: the client that the script uses, the base image, and what has to be cleared away.
//!
//! Every layer is made below a folder that carries this process's number, so that the build cache's
//! records of the instruction between them, and with it their own, can be told from everybody else's.

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// Engine 20.10's version of the API, which newer engines speak too.
const API: &str = "v1.41";

/// The engine, by its client and by its socket.
pub(crate) struct Engine {
    client: PathBuf,
    http: reqwest::Client,
    id: String,
    version: String,
    /// Records of the build cache that were there before.
    known: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Usage {
    build_cache: Option<Vec<Cached>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Cached {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    parent: String,
    #[serde(default)]
    parents: Option<Vec<String>>,
    description: String,
    in_use: bool,
}

impl Cached {
    fn stands_on(&self, other: &str) -> bool {
        self.parent == other || self.parents.iter().flatten().any(|parent| parent == other)
    }

    /// What a client sent as a build's context, from either side.
    fn is_context(&self) -> bool {
        self.description.starts_with("local source for context")
            || self
                .description
                .starts_with("http url http://build-context-")
    }
}

impl Engine {
    /// Takes the first client in `PATH` that builds with BuildKit, by building the base image below
    /// `folder`. `id` is in the name of everything.
    pub(crate) async fn find(folder: &Path, id: &str) -> anyhow::Result<Self> {
        let context = folder.join("base");
        fs::create_dir_all(&context)?;
        fs::copy("/bin/busybox", context.join("busybox"))
            .context("a static busybox is missing: run `make setup`")?;
        fs::write(
            context.join("Dockerfile"),
            "FROM scratch\nCOPY busybox /bin/busybox\n",
        )?;
        let host = std::env::var("DOCKER_HOST").unwrap_or_default();
        let socket = match host.strip_prefix("unix://") {
            Some(path) => path.to_owned(),
            None if host.is_empty() => "/var/run/docker.sock".to_owned(),
            None => bail!("DOCKER_HOST is {host}: the benchmark needs an engine on this machine"),
        };
        let http = reqwest::Client::builder().unix_socket(socket).build()?;
        let mut engine = Self {
            client: PathBuf::new(),
            http,
            id: id.to_owned(),
            version: String::new(),
            known: BTreeSet::new(),
        };
        engine.known = engine.cache().await?.into_iter().map(|it| it.id).collect();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut said = String::new();
        for client in std::env::split_paths(&path).map(|folder| folder.join("docker")) {
            if !client.is_file() {
                continue;
            }
            engine.client = client;
            let built = engine
                .docker(&[
                    "build",
                    "--quiet",
                    "--tag",
                    &engine.base(),
                    &context.display().to_string(),
                ])
                .await;
            match built {
                Ok(_) => {
                    engine.version = engine
                        .docker(&["version", "--format", "{{.Server.Version}}"])
                        .await?;
                    return Ok(engine);
                }
                Err(error) => said.push_str(&format!("\n  {error:#}")),
            }
        }
        bail!("no docker in PATH builds with DOCKER_BUILDKIT=1; run `make setup`{said}")
    }

    pub(crate) fn version(&self) -> String {
        self.version.clone()
    }

    /// Where the client is.
    pub(crate) fn client_folder(&self) -> &Path {
        self.client.parent().unwrap_or(Path::new("/"))
    }

    fn base(&self) -> String {
        format!("{}-base:1", self.id)
    }

    /// What both sides build: files that hardly ever change, an instruction that needs them, and files
    /// that do change.
    pub(crate) fn dockerfile(&self) -> String {
        let (base, id) = (self.base(), &self.id);
        format!(
            "FROM {base}\nCOPY vendor /{id}/vendor\n\
             RUN [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox ls -R /{id}/vendor >/{id}/list\"]\n\
             COPY src /{id}/src\n"
        )
    }

    async fn docker(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(&self.client)
            .args(arguments)
            .env("DOCKER_BUILDKIT", "1")
            .stdin(Stdio::null())
            .output()
            .await
            .with_context(|| format!("cannot start {}", self.client.display()))?;
        if !output.status.success() {
            bail!(
                "{} {}: {}",
                self.client.display(),
                arguments.first().unwrap_or(&""),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Removes an image that was pushed.
    pub(crate) async fn remove_image(&self, name: &str) -> anyhow::Result<()> {
        self.docker(&["image", "rm", name]).await.map(drop)
    }

    /// Removes everything that carries this process's number.
    pub(crate) async fn clean(&self) -> anyhow::Result<()> {
        // A run that was cut off may have left an image of the script's under its tag; those of a
        // runner carry the runner's own label and are gone with its attempt.
        let filter = format!("reference=*/{}*", crate::floor::REPOSITORY);
        let left = self
            .docker(&["image", "ls", "--quiet", "--filter", &filter])
            .await?;
        for image in left.lines() {
            let history = self.docker(&["history", "--no-trunc", image]).await?;
            if history.contains(&format!("/{}/", self.id)) {
                self.docker(&["image", "rm", "--force", image]).await?;
            }
        }
        self.clean_cache().await?;
        self.docker(&["image", "rm", "--force", &self.base()])
            .await
            .map(drop)
    }

    /// Removes the build cache's records of our layers and contexts. What somebody else uses this
    /// moment stays, and so does what was there before.
    pub(crate) async fn clean_cache(&self) -> anyhow::Result<()> {
        let all = self.cache().await?;
        let mark = format!("/{}/", self.id);
        let mut ours: BTreeSet<&str> = BTreeSet::new();
        for record in all.iter().filter(|it| it.description.contains(&mark)) {
            ours.insert(&record.id);
            ours.extend(
                all.iter()
                    .filter(|it| it.stands_on(&record.id))
                    .map(|it| it.id.as_str()),
            );
            let below = all.iter().filter(|it| record.stands_on(&it.id));
            ours.extend(below.map(|it| it.id.as_str()));
        }
        let contexts = all.iter().filter(|it| it.is_context());
        ours.extend(contexts.map(|it| it.id.as_str()));
        for record in &all {
            if ours.contains(record.id.as_str())
                && !record.in_use
                && !self.known.contains(&record.id)
            {
                self.forget(&record.id).await?;
            }
        }
        Ok(())
    }

    async fn cache(&self) -> anyhow::Result<Vec<Cached>> {
        let usage: Usage = self
            .http
            .get(format!("http://docker/{API}/system/df"))
            .send()
            .await
            .context("Docker Engine does not answer: run `make setup`")?
            .error_for_status()?
            .json()
            .await?;
        Ok(usage.build_cache.unwrap_or_default())
    }

    async fn forget(&self, record: &str) -> anyhow::Result<()> {
        let filters = json!({"id": {record: true}}).to_string();
        self.http
            .post(format!("http://docker/{API}/build/prune"))
            .query(&[("all", "1"), ("filters", &filters)])
            .send()
            .await?
            .error_for_status()
            .context("Docker Engine keeps a part of the build cache")
            .map(drop)
    }
}
