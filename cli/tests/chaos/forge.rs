//! The forge of a run: one bare repository, commits of all kinds, and the stream that each commit's
//! step prints, so that a log can be held against it byte for byte.

use crate::draw::Commit;
use anyhow::bail;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// Blocks of lines that a step prints.
const BLOCKS: u32 = 30;
/// Lines of a block.
const LINES: u32 = 100;

/// The repository, and where its services are probed.
pub(crate) struct Forge {
    work: PathBuf,
    pub(crate) bare: PathBuf,
    base: String,
    staging: u16,
    production: u16,
    pushes: u32,
}

/// What a push moved.
pub(crate) struct Pushed {
    pub(crate) number: u32,
    pub(crate) git_ref: String,
    pub(crate) before: String,
    pub(crate) commit: String,
}

/// What the step of a push prints when it comes to its end.
pub(crate) fn stream(push: u32) -> String {
    let mut text = String::new();
    for block in 1..=BLOCKS {
        for line in 1..=LINES {
            text.push_str(&format!("push {push} block {block} line {line}\n"));
        }
    }
    // No feed at the end, and more bytes than characters.
    text.push_str(&format!("the end of push {push}, naïve ✓"));
    text
}

impl Forge {
    pub(crate) async fn create(
        folder: &Path,
        base: &str,
        staging: u16,
        production: u16,
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
        let origin = bare.display().to_string();
        git(&work, &["remote", "add", "origin", &origin]).await?;
        Ok(Self {
            work,
            bare,
            base: base.to_owned(),
            staging,
            production,
            pushes: 0,
        })
    }

    /// Commits and pushes; nobody is told of it.
    pub(crate) async fn push(&mut self, commit: Commit) -> anyhow::Result<Pushed> {
        self.pushes += 1;
        let number = self.pushes;
        let branch = match commit {
            Commit::OtherBranch => "topic",
            _ => "main",
        };
        let answer = |fails: bool| {
            let status = if fails {
                "500 Internal Server Error"
            } else {
                "200 OK"
            };
            format!(
                "printf 'Status: {status}\\r\\nContent-Type: text/plain\\r\\n\\r\\npush {number}\\n'"
            )
        };
        let page = answer(commit == Commit::Broken);
        let checkout = match commit {
            Commit::BrokenInProduction => format!(
                "if [ \"$ENVIRONMENT\" = production ]; then {}; else {}; fi",
                answer(true),
                answer(false)
            ),
            _ => answer(false),
        };
        let folder = self.work.join("www/cgi-bin");
        fs::create_dir_all(&folder)?;
        fs::create_dir_all(self.work.join(".roadstead"))?;
        for (name, script) in [("index.cgi", page), ("checkout", checkout)] {
            let path = folder.join(name);
            fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        let entry = match commit {
            Commit::Exits => "[\"/bin/busybox\", \"false\"]",
            _ => "[\"/bin/busybox\", \"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]",
        };
        let dockerfile = format!("FROM {}\nCOPY www /www\nENTRYPOINT {entry}\n", self.base);
        fs::write(self.work.join("Dockerfile"), dockerfile)?;
        let file = self.work.join(".roadstead/pipeline.yml");
        fs::write(file, self.pipeline(number, commit))?;
        let refspec = format!("HEAD:refs/heads/{branch}");
        let before = git(&self.bare, &["rev-parse", "--verify", "--quiet", branch]).await;
        let before = before.unwrap_or_else(|_| "0".repeat(40));
        git(&self.work, &["add", "--all"]).await?;
        let message = format!("Push {number}: {commit:?}");
        git(&self.work, &["commit", "--quiet", "-m", &message]).await?;
        git(
            &self.work,
            &["push", "--quiet", "--force", "origin", &refspec],
        )
        .await?;
        Ok(Pushed {
            number,
            git_ref: format!("refs/heads/{branch}"),
            before,
            commit: git(&self.work, &["rev-parse", "HEAD"]).await?,
        })
    }

    /// Commits of the branch, the oldest first.
    pub(crate) async fn history(&self) -> anyhow::Result<Vec<String>> {
        let text = git(&self.bare, &["rev-list", "--reverse", "main"]).await?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn pipeline(&self, number: u32, commit: Commit) -> String {
        let (base, staging, production) = (&self.base, self.staging, self.production);
        let status = u8::from(commit == Commit::FailsTest) * 3;
        let verify = |port: u16| {
            format!(
                "    verify:\n      http: [{{ url: \"http://127.0.0.1:{port}/cgi-bin/checkout\" }}]\n      \
                 watch: 1s\n"
            )
        };
        format!(
            "version: 1\nname: shop\n\
             trigger:\n  push: {{ branches: [main] }}\n\
             images:\n  app: {{ repository: shop }}\n\
             steps:\n  test:\n    image: {base}\n    run: |\n      \
               block=0\n      \
               while [ $block -lt {BLOCKS} ]; do\n        \
                 block=$((block + 1))\n        \
                 seq 1 {LINES} | sed \"s/^/push {number} block $block line /\"\n        \
                 if [ $((block % 10)) = 0 ]; then sleep 0.2; fi\n      \
               done\n      \
               printf 'the end of push {number}, naïve ✓'\n      \
               exit {status}\n  \
               image:\n    build: [app]\n    needs: [test]\n\
             services:\n  web: {{ image: app, container: app }}\n\
             environments:\n  \
               staging:\n    deploy: auto\n    ecs: {{ cluster: staging, service: shop }}\n    \
               variables: {{ ENVIRONMENT: staging }}\n{}  \
               production:\n    after: staging\n    deploy: auto\n    \
               ecs: {{ cluster: production, service: shop }}\n    \
               variables: {{ ENVIRONMENT: production }}\n    \
               gates:\n      - healthy: {{ for: 1s, min_running: 2 }}\n{}",
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
        .output()
        .await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("git {}: {said}", arguments.join(" "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
