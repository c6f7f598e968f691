//! The repository that the demo pushes: a shop of one shell script, its Dockerfile and its pipeline,
//! in three versions; and the bare repository with the hook that it is pushed to.

use super::Break;
use crate::own_files;
use anyhow::{Context, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// Where things are, for the files.
pub(crate) struct Setting {
    /// The base image's name on this engine.
    pub(crate) base: String,
    /// Ports of the two load balancers.
    pub(crate) staging: u16,
    pub(crate) production: u16,
    /// What is left out on purpose.
    pub(crate) broken: Option<Break>,
    /// A file that the first build wants.
    pub(crate) wanted_file: Option<String>,
}

/// A work tree and the bare repository that it pushes to.
pub(crate) struct Repository {
    work: PathBuf,
    bare: PathBuf,
    setting: Setting,
}

const DOCKERFILE: &str = "\
FROM BASE
COPY www /www
RUN [\"/bin/busybox\", \"chmod\", \"+x\", \"/www/cgi-bin/index.cgi\", \"/www/cgi-bin/checkout\"]
ENTRYPOINT [\"/bin/busybox\", \"httpd\", \"-f\", \"-v\", \"-p\", \"8080\", \"-h\", \"/www\"]
";

const HOOK: &str = r#"#!/bin/sh
# Tells Roadstead of every branch that was pushed.
while read -r old new ref; do
  body="{\"ref\":\"$ref\",\"before\":\"$old\",\"after\":\"$new\"}"
  signature=$(printf '%s' "$body" | openssl dgst -sha256 -hmac 'SECRET' | sed 's/^.* //')
  said=$(printf '%s' "$body" | curl --fail-with-body -sS --max-time 20 --data-binary @- \
    -H 'content-type: application/json' -H "x-hub-signature-256: sha256=$signature" 'URL') ||
    echo "Roadstead did not take the push: $said" >&2
done
"#;

/// What differs between the versions, as shell.
fn scripts(version: u32) -> (String, String) {
    let answer = |status: &str, text: &str| {
        format!("printf 'Status: {status}\\r\\nContent-Type: text/plain\\r\\n\\r\\n{text}\\n'")
    };
    let page = match version {
        2 => answer("500 Internal Server Error", "v2 cannot find its templates"),
        n => answer("200 OK", &format!("v{n} '\"$ENVIRONMENT\"'")),
    };
    let fine = answer("200 OK", "checkout works");
    let checkout = match version {
        3 => {
            let broken = answer("500 Internal Server Error", "no payment provider");
            format!("if [ \"$ENVIRONMENT\" = production ]; then {broken}; else {fine}; fi")
        }
        _ => fine,
    };
    (
        format!("#!/bin/sh\n{page}\n"),
        format!("#!/bin/sh\n{checkout}\n"),
    )
}

impl Repository {
    /// Makes both below `folder`; the hook calls `webhook` with `secret`.
    pub(crate) async fn create(
        folder: &Path,
        setting: Setting,
        webhook: &str,
        secret: &str,
    ) -> anyhow::Result<Self> {
        let (work, bare) = (folder.join("work"), folder.join("shop.git"));
        fs::create_dir_all(&work)?;
        git(
            folder,
            &[
                "init",
                "--quiet",
                "--bare",
                "--initial-branch=main",
                "shop.git",
            ],
        )
        .await?;
        git(&work, &["init", "--quiet", "--initial-branch=main"]).await?;
        git(
            &work,
            &["remote", "add", "origin", &bare.display().to_string()],
        )
        .await?;
        if setting.broken != Some(Break::Push) {
            let text = HOOK.replace("SECRET", secret).replace("URL", webhook);
            own_files::write(&bare.join("hooks/post-receive"), &text, own_files::RUN)?;
        }
        Ok(Self {
            work,
            bare,
            setting,
        })
    }

    /// The bare repository's folder.
    pub(crate) fn address(&self) -> &Path {
        &self.bare
    }

    /// Commits a version and pushes it. Returns the commit.
    pub(crate) async fn push(&self, version: u32) -> anyhow::Result<String> {
        let (page, checkout) = scripts(version);
        let folder = self.work.join("www/cgi-bin");
        fs::create_dir_all(&folder)?;
        fs::create_dir_all(self.work.join(".roadstead"))?;
        fs::write(folder.join("index.cgi"), page)?;
        fs::write(folder.join("checkout"), checkout)?;
        let mut dockerfile = DOCKERFILE.replace("BASE", &self.setting.base);
        if let Some(file) = self.setting.wanted_file.as_ref().filter(|_| version == 1) {
            dockerfile.push_str(&format!("ADD {file} /www/latch\n"));
        }
        fs::write(self.work.join("Dockerfile"), dockerfile)?;
        fs::write(self.work.join(".roadstead/pipeline.yml"), self.pipeline())?;
        git(&self.work, &["add", "--all"]).await?;
        let message = match version {
            1 => "Open the shop",
            2 => "Move the templates",
            _ => "Change the payment provider",
        };
        git(&self.work, &["commit", "--quiet", "-m", message]).await?;
        git(&self.work, &["push", "--quiet", "origin", "main"]).await?;
        git(&self.work, &["rev-parse", "HEAD"]).await
    }

    fn pipeline(&self) -> String {
        let Setting {
            base,
            staging,
            production,
            broken,
            ..
        } = &self.setting;
        let gates = match broken {
            Some(Break::Gate) => "",
            _ => "    gates:\n      - healthy: { for: 8s, min_running: 2 }\n",
        };
        let verify = |port: &u16| match broken {
            Some(Break::Verify) => String::new(),
            _ => format!(
                "    verify:\n      http: [{{ url: \"http://127.0.0.1:{port}/cgi-bin/checkout\" }}]\n      \
                 watch: 4s\n"
            ),
        };
        let rollback = match broken {
            Some(Break::Rollback) => "    rollback: { auto: false }\n",
            _ => "",
        };
        format!(
            "version: 1\n\
             name: shop\n\
             trigger:\n  push: {{ branches: [main] }}\n\
             images:\n  app: {{ repository: shop }}\n\
             steps:\n  \
               test:\n    image: {base}\n    run: |\n      echo checking the scripts\n      \
               for script in www/cgi-bin/*; do sh -n \"$script\"; done\n  \
               image:\n    build: [app]\n    needs: [test]\n\
             services:\n  web: {{ image: app, container: app }}\n\
             environments:\n  \
               staging:\n    deploy: auto\n    ecs: {{ cluster: staging, service: shop }}\n    \
               variables: {{ ENVIRONMENT: staging }}\n{}  \
               production:\n    after: staging\n    deploy: auto\n    \
               ecs: {{ cluster: production, service: shop }}\n    \
               variables: {{ ENVIRONMENT: production }}\n{gates}{}{rollback}",
            verify(staging),
            verify(production),
        )
    }
}

async fn git(folder: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git")
        .args(["-c", "user.name=Maya", "-c", "user.email=maya@shop.example"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("git is missing: run `make setup`")?;
    if !output.status.success() {
        bail!(
            "git {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
