//! The stage of the story: where everything is, how it is set up beforehand and taken down afterwards.

use super::aws::Aws;
use super::crew::Crew;
use super::docker::{self, docker};
use super::repository::Repository;
use super::take_down::temporary;
use crate::children::until;
use crate::client::Client;
use anyhow::Context;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::time::Duration;

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
    /// Clusters in which this story asked for a service.
    pub(super) clusters: RefCell<Vec<String>>,
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
        let folder = temporary("roadstead-placeholder-")?;
        let context = folder.path().join("context");
        std::fs::create_dir_all(context.join("www"))?;
        std::fs::write(
            context.join("www/index.html"),
            "nothing is deployed here yet\n",
        )?;
        std::fs::write(
            context.join("Dockerfile"),
            format!(
                "FROM {}\nCOPY www /www\nENTRYPOINT [\"/bin/busybox\", \"httpd\", \"-f\", \"-p\", \
                 \"8080\", \"-h\", \"/www\"]\n",
                self.base
            ),
        )?;
        let context = context.display().to_string();
        docker(&["build", "--quiet", "--tag", &name, &context]).await?;
        docker::push(folder.path(), &name, &user, &password).await?;
        docker(&["image", "rm", &name]).await?;
        Ok(name)
    }

    /// Makes a cluster with one service behind a load balancer on `port`.
    pub(super) async fn environment(
        &self,
        cluster: &str,
        port: u16,
        image: &str,
    ) -> anyhow::Result<()> {
        // Noted before: a story that is broken off meanwhile may have made it.
        self.clusters.borrow_mut().push(cluster.to_owned());
        let made = self.aws.environment(cluster, port, image).await;
        if made.is_err() {
            self.clusters.borrow_mut().retain(|noted| noted != cluster);
        }
        made
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

    /// Takes down the services that this story made, and waits until their tasks have ended.
    ///
    /// # Errors
    /// When it is not known that they have: after 90 s, or at once when the sandbox has ended.
    pub(super) async fn put_away(&self, crew: &mut Crew) -> anyhow::Result<()> {
        let clusters = self.clusters.borrow().clone();
        if clusters.is_empty() {
            return Ok(());
        }
        for cluster in &clusters {
            let body = json!({"cluster": cluster, "service": "shop", "force": true});
            // A service that stays is told of by its tasks.
            drop(self.aws.ecs("DeleteService", body).await);
        }
        until("the tasks' end", Duration::from_secs(90), async || {
            crew.sandbox_alive()?;
            for cluster in &clusters {
                // No answer does not say that nothing runs.
                if !matches!(self.tasks_left(cluster).await, Ok(0)) {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await
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
