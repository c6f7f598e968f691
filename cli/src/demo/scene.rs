//! The stage of the story: where everything is, how it is set up beforehand and taken down afterwards.

use super::aws::Aws;
use super::repository::Repository;
use crate::children::until;
use crate::client::Client;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Where everything is.
pub(crate) struct Scene {
    pub(crate) url: String,
    pub(crate) registry: String,
    pub(crate) sandbox: String,
    pub(crate) staging: String,
    pub(crate) production: String,
    pub(crate) aws: Aws,
    pub(crate) repository: Repository,
    pub(crate) base: String,
    pub(crate) password: String,
}

impl Scene {
    /// Pushes a placeholder image, so that the services have something to run.
    pub(super) async fn placeholder(&self) -> anyhow::Result<String> {
        self.aws
            .ecr("CreateRepository", json!({"repositoryName": "placeholder"}))
            .await?;
        let (user, password) = self.aws.registry_login().await?;
        let host = self.registry.trim_start_matches("http://");
        let name = format!("{host}/placeholder:1");
        let docker = async |arguments: &[&str]| -> anyhow::Result<()> {
            let output = Command::new("docker")
                .args(arguments)
                .stdin(Stdio::null())
                .output()
                .await?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                bail!("docker {}: {said}", arguments.first().unwrap_or(&""));
            }
            Ok(())
        };
        docker(&["login", "--username", &user, "--password", &password, host]).await?;
        let folder =
            std::env::temp_dir().join(format!("roadstead-placeholder-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("www"))?;
        std::fs::write(
            folder.join("www/index.html"),
            "nothing is deployed here yet\n",
        )?;
        std::fs::write(
            folder.join("Dockerfile"),
            format!(
                "FROM {}\nCOPY www /www\nENTRYPOINT [\"/bin/busybox\", \"httpd\", \"-f\", \"-p\", \
                 \"8080\", \"-h\", \"/www\"]\n",
                self.base
            ),
        )?;
        let built = docker(&[
            "build",
            "--quiet",
            "--tag",
            &name,
            &folder.display().to_string(),
        ])
        .await;
        std::fs::remove_dir_all(&folder)?;
        built?;
        docker(&["push", "--quiet", &name]).await?;
        docker(&["image", "rm", &name]).await?;
        docker(&["logout", host]).await?;
        Ok(name)
    }

    /// An API token, made with a session as the dashboard makes one.
    pub(super) async fn sign_in(&self) -> anyhow::Result<Client> {
        let token = self.session().await?;
        Client::new(&self.url, Some(token))
    }

    async fn session(&self) -> anyhow::Result<String> {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let cookie = self.cookie(&http).await?;
        let answer = http
            .post(format!("{}/api/v1/tokens", self.url))
            .header("cookie", cookie)
            .json(&json!({"name": "demo", "role": "admin"}))
            .send()
            .await?
            .error_for_status()?;
        let value: Value = answer.json().await?;
        Ok(value["token"].as_str().context("no token came")?.to_owned())
    }

    pub(super) async fn cookie(&self, http: &reqwest::Client) -> anyhow::Result<String> {
        let form = [
            ("user", "admin"),
            ("password", self.password.as_str()),
            ("next", "/"),
        ];
        let answer = http
            .post(format!("{}/login", self.url))
            .form(&form)
            .send()
            .await?;
        let cookie = answer
            .headers()
            .get_all("set-cookie")
            .iter()
            .filter_map(|value| value.to_str().ok()?.split(';').next())
            .find(|pair| pair.starts_with("roadstead_session="));
        Ok(cookie
            .with_context(|| format!("no session came: {}", answer.status()))?
            .to_owned())
    }

    /// Takes the services down, so that no container stays behind.
    pub(crate) async fn put_away(&self) {
        for cluster in ["staging", "production"] {
            let body = json!({"cluster": cluster, "service": "shop", "force": true});
            // At the end of a story that failed there may be nothing to take down.
            drop(self.aws.ecs("DeleteService", body).await);
        }
        let gone = until("the tasks' end", Duration::from_secs(90), async || {
            let mut left = 0;
            for cluster in ["staging", "production"] {
                left += self.tasks_left(cluster).await.unwrap_or(0);
            }
            Ok((left == 0).then_some(()))
        });
        if let Err(error) = gone.await {
            eprintln!("{error:#}");
        }
    }

    /// Tasks that have not stopped yet, whatever is wanted of them.
    async fn tasks_left(&self, cluster: &str) -> anyhow::Result<usize> {
        let mut left = 0;
        for desired in ["RUNNING", "STOPPED"] {
            let body = json!({"cluster": cluster, "desiredStatus": desired});
            let tasks = self.aws.ecs("ListTasks", body).await?["taskArns"].clone();
            for some in tasks
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default()
                .chunks(100)
            {
                let body = json!({"cluster": cluster, "tasks": some});
                let found = self.aws.ecs("DescribeTasks", body).await?;
                let tasks = found["tasks"].as_array().into_iter().flatten();
                left += tasks
                    .filter(|t| t["lastStatus"] != json!("STOPPED"))
                    .count();
            }
        }
        Ok(left)
    }
}
