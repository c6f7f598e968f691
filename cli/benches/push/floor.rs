//! The script that Roadstead is measured against: clone, build, push, and nothing else.
//!
//! It is as quick as a script can be: it is logged in beforehand, clones from a folder on the same
//! disk (git then links the objects instead of copying them), uses BuildKit, and always clones to the
//! same place, so that BuildKit knows the context again. What it cloned before is removed before the
//! push, at no cost to it.

use crate::engine::Engine;
use crate::registry::Registry;
use anyhow::bail;
use base64::Engine as _;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SCRIPT: &str = r#"#!/bin/sh
# Arguments: bare repository, folder to clone to, image.
set -eu
git clone --quiet --branch main "$1" "$2"
docker build --quiet --tag "$3" "$2"
docker push --quiet "$3"
"#;

/// Where its images go.
pub(crate) const REPOSITORY: &str = "script";

/// Longest wait for a script that has pushed already.
const LONGEST_END: Duration = Duration::from_secs(120);

/// The script and its surroundings.
pub(crate) struct Floor {
    folder: PathBuf,
    host: String,
    search_path: String,
}

impl Floor {
    /// Writes the script below `folder` and logs in to the registry for it.
    pub(crate) async fn new(
        folder: &Path,
        engine: &Engine,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let folder = folder.join("script");
        let login = folder.join("docker");
        fs::create_dir_all(&login)?;
        fs::write(folder.join("script.sh"), SCRIPT)?;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!(
            "{}:{}",
            registry.user(),
            registry.password()
        ));
        fs::write(
            login.join("config.json"),
            json!({"auths": {(registry.host()): {"auth": auth}}}).to_string(),
        )?;
        registry.create(REPOSITORY).await?;
        let path = std::env::var("PATH").unwrap_or_default();
        Ok(Self {
            folder,
            host: registry.host().to_owned(),
            search_path: format!("{}:{path}", engine.client_folder().display()),
        })
    }

    /// Where its images go.
    pub(crate) fn repository(&self) -> &str {
        REPOSITORY
    }

    /// The image of a commit.
    pub(crate) fn image(&self, commit: &str) -> String {
        format!("{}/{}:{commit}", self.host, REPOSITORY)
    }

    /// Makes room for a clone for `name`.
    pub(crate) async fn prepare(&self, name: &str) -> anyhow::Result<()> {
        let clone = self.clone_of(name);
        tokio::task::spawn_blocking(move || match fs::remove_dir_all(&clone) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await??;
        drop(fs::remove_file(self.folder.join("status")));
        Ok(())
    }

    fn clone_of(&self, name: &str) -> PathBuf {
        self.folder.join("clones").join(name)
    }

    /// The hook's lines that start the script behind the push.
    pub(crate) fn hook(&self, name: &str) -> String {
        let folder = self.folder.display();
        format!(
            "export PATH='{}' DOCKER_CONFIG='{folder}/docker' DOCKER_BUILDKIT=1\n\
             export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null\n\
             bare=$PWD\nunset GIT_DIR GIT_QUARANTINE_PATH\n\
             (sh '{folder}/script.sh' \"$bare\" '{}' \"{}/{}:$new\" >'{folder}/log' 2>&1\n \
             echo $? >'{folder}/status.part'\n mv '{folder}/status.part' '{folder}/status') \
             </dev/null >/dev/null 2>&1 &",
            self.search_path,
            self.clone_of(name).display(),
            self.host,
            REPOSITORY,
        )
    }

    /// Fails when the script failed.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.status().map(drop)
    }

    fn status(&self) -> anyhow::Result<Option<()>> {
        match fs::read_to_string(self.folder.join("status")) {
            Ok(status) if status.trim() == "0" => Ok(Some(())),
            Ok(status) => {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                bail!("the script ended with {}: {}", status.trim(), log.trim())
            }
            Err(_) => Ok(None),
        }
    }

    /// Waits for the script's end.
    pub(crate) async fn ended(&self) -> anyhow::Result<()> {
        let end = Instant::now() + LONGEST_END;
        while self.status()?.is_none() {
            if Instant::now() > end {
                bail!("the script does not end");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}
