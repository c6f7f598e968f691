//! What each line of the story looks at: from outside only, through the API, the registry, the load
//! balancers and the sandbox's call log.

use super::evidence::array;
use super::scene::Scene;
use crate::children::until;
use crate::client::Client;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::time::Duration;

/// Longest wait for anything: generous, for a machine that does other things too.
const LIMIT: Duration = Duration::from_secs(180);

impl Scene {
    /// Waits until the placeholder runs: the story begins on a quiet stage.
    pub(super) async fn settled(&self) -> anyhow::Result<()> {
        for address in [&self.staging, &self.production] {
            self.serves(address, "nothing is deployed here yet").await?;
        }
        Ok(())
    }

    pub(super) async fn push(
        &self,
        client: &Client,
        version: u32,
    ) -> anyhow::Result<(String, Value)> {
        let commit = self.repository.push(version).await?;
        self.run_of(client, version, &commit).await
    }

    /// The run that the push of a commit started.
    pub(super) async fn run_of(
        &self,
        client: &Client,
        version: u32,
        commit: &str,
    ) -> anyhow::Result<(String, Value)> {
        let run = format!("shop.{version}");
        let found = until(&format!("run {run}"), Duration::from_secs(30), async || {
            let runs = client.get("/projects/shop/runs").await?;
            let found = array(&runs["runs"]).iter().find(|r| r["id"] == json!(run));
            Ok(found.cloned())
        })
        .await?;
        if found["commit"] != json!(commit) {
            bail!("{run} is of commit {}, not {commit}", found["commit"]);
        }
        Ok((
            format!("run {run} of {}", &commit[..7]),
            json!({"run": run, "commit": commit, "git_ref": found["git_ref"]}),
        ))
    }

    pub(super) async fn built(
        &self,
        client: &Client,
        version: u32,
    ) -> anyhow::Result<(String, Value)> {
        let run = format!("shop.{version}");
        let found = until(&format!("the end of {run}"), LIMIT, async || {
            let found = client.get(&format!("/runs/{run}")).await?;
            let state = found["run"]["state"]["state"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            match state.as_str() {
                "succeeded" => Ok(Some(found)),
                "failed" | "timed_out" | "cancelled" | "skipped" => {
                    bail!("{run} {state}: {}", found["run"]["state"])
                }
                _ => Ok(None),
            }
        })
        .await?;
        let release = found["run"]["state"]["release"]
            .as_str()
            .context("no release")?
            .to_owned();
        let releases = client.get("/projects/shop/releases").await?;
        let image = array(&releases["releases"])
            .iter()
            .find(|r| r["id"] == json!(release))
            .map(|r| r["images"]["app"].clone())
            .context("the release is not listed")?;
        let digest = image["digest"].as_str().context("no digest")?;
        let (user, password) = self.aws.registry_login().await?;
        let answer = reqwest::Client::new()
            .head(format!("{}/v2/shop/manifests/{digest}", self.registry))
            .basic_auth(user, Some(password))
            .header(
                "accept",
                "application/vnd.docker.distribution.manifest.v2+json",
            )
            .header("accept", "application/vnd.oci.image.manifest.v1+json")
            .send()
            .await?
            .error_for_status()?;
        let said = answer
            .headers()
            .get("docker-content-digest")
            .and_then(|v| v.to_str().ok());
        if said != Some(digest) {
            bail!("the registry says {said:?}, the release {digest}");
        }
        Ok((
            format!("{release} = {}…", &digest[..19]),
            json!({
                "release": release, "image": image, "registry": {"docker-content-digest": said},
                "attempts": found["attempts"], "steps": found["steps"],
            }),
        ))
    }

    pub(super) async fn deployment(
        &self,
        client: &Client,
        environment: &str,
        release: &str,
        wanted: &str,
    ) -> anyhow::Result<(String, Value)> {
        let id = self.forward(client, environment, release).await?;
        self.ends(client, environment, &id, wanted).await
    }

    /// The deployment that brings a release to an environment, once there is one.
    pub(super) async fn forward(
        &self,
        client: &Client,
        environment: &str,
        release: &str,
    ) -> anyhow::Result<String> {
        let what = format!("a deployment of {release} to {environment}");
        until(&what, LIMIT, async || {
            let all = client
                .get(&format!(
                    "/projects/shop/deployments?environment={environment}"
                ))
                .await?;
            let all = all["deployments"].as_array().cloned().unwrap_or_default();
            Ok(all
                .iter()
                .find(|d| d["release"] == json!(release) && d["kind"]["kind"] == json!("forward"))
                .and_then(|d| d["id"].as_str().map(str::to_owned)))
        })
        .await
    }

    /// Waits for a deployment's end, and looks at what runs then.
    pub(super) async fn ends(
        &self,
        client: &Client,
        environment: &str,
        id: &str,
        wanted: &str,
    ) -> anyhow::Result<(String, Value)> {
        let found = until(&format!("{id} {wanted}"), LIMIT, async || {
            let found = client.get(&format!("/deployments/{id}")).await?;
            let state = found["deployment"]["state"]["state"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            match state.as_str() {
                state if state == wanted => Ok(Some(found)),
                "queued" | "rolling_out" | "verifying" | "rolling_back" => Ok(None),
                other => bail!("{id} ended {other}: {}", found["deployment"]["state"]),
            }
        })
        .await?;
        let state = &found["deployment"]["state"];
        let why = state["failure"]["message"]
            .as_str()
            .map(|m| format!(": {m}"))
            .unwrap_or_default();
        if wanted == "rolled_back" && why.is_empty() {
            bail!("{id} is rolled back without a reason");
        }
        let mut evidence = json!({
            "deployment": id, "release": found["deployment"]["release"], "state": state,
        });
        if wanted == "deployed" {
            let image = &found["release"]["images"]["app"];
            let digest = image["digest"].as_str().context("no digest")?;
            evidence["aws"] = self.runs_only(environment, digest).await?;
            evidence["probes"] = self.probed(client, environment, id).await?;
        } else {
            evidence["aws"] = self.shown(environment).await?;
        }
        Ok((format!("{id} {wanted}{why}"), evidence))
    }

    /// The requests that verified a deployment: `deployed` without any is only a word.
    async fn probed(&self, client: &Client, environment: &str, id: &str) -> anyhow::Result<Value> {
        let probes = self.place(client, environment).await?["status"]["probes"].clone();
        if array(&probes).is_empty() {
            bail!("{id} is called deployed, and no request verified it");
        }
        Ok(probes)
    }

    /// What the server says of an environment's only service.
    async fn place(&self, client: &Client, environment: &str) -> anyhow::Result<Value> {
        let project = client.get("/projects/shop").await?;
        let found = array(&project["places"])
            .iter()
            .find(|place| place["environment"] == json!(environment));
        found
            .cloned()
            .with_context(|| format!("{environment} is not listed"))
    }

    pub(super) async fn serves(
        &self,
        address: &str,
        wanted: &str,
    ) -> anyhow::Result<(String, Value)> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(5))
            .build()?;
        let mut row = 0;
        // Old tasks drain for a moment: ten answers in a row count.
        let (status, body) = until(
            &format!("{wanted:?} at {address}"),
            Duration::from_secs(60),
            async || {
                let (status, body) = match http.get(address).send().await {
                    Ok(answer) => {
                        let status = answer.status().as_u16();
                        (status, answer.text().await.unwrap_or_default())
                    }
                    Err(_) => (0, String::new()),
                };
                let is_wanted = status == 200 && body.trim() == wanted;
                row = if is_wanted { row + 1 } else { 0 };
                Ok((row >= 10).then_some((status, body)))
            },
        )
        .await?;
        Ok((
            body.trim().to_owned(),
            json!({"url": address, "status": status, "body": body}),
        ))
    }

    /// The sandbox's own call log against the deployments: each brought its digest to its cluster by
    /// one effective update, and a forward one by one revision of its own.
    pub(super) async fn updated_once(&self, client: &Client) -> anyhow::Result<(String, Value)> {
        let releases = client.get("/projects/shop/releases?limit=200").await?;
        let all = client.get("/projects/shop/deployments?limit=200").await?;
        let updates = self.effective_calls("UpdateService").await?;
        let revisions = self.effective_calls("RegisterTaskDefinition").await?;
        let mut evidence = vec![];
        for environment in ["staging", "production"] {
            let mut there: Vec<_> = array(&all["deployments"])
                .iter()
                .filter(|d| d["place"]["environment"] == json!(environment))
                .collect();
            there.sort_by_key(|d| number(&d["id"]));
            let made: Vec<_> = updates
                .iter()
                .filter(|call| call["request"]["cluster"] == json!(environment))
                .map(|call| {
                    call["request"]["taskDefinition"]
                        .as_str()
                        .unwrap_or_default()
                })
                .collect();
            if made.len() != there.len() {
                bail!(
                    "{} effective updates of {environment} for {} deployments: {made:?}",
                    made.len(),
                    there.len()
                );
            }
            for (deployment, definition) in there.into_iter().zip(made) {
                let id = &deployment["id"];
                let release = array(&releases["releases"])
                    .iter()
                    .find(|r| r["id"] == deployment["release"])
                    .with_context(|| format!("{} is not listed", deployment["release"]))?;
                let digest = self.digest_of(definition).await?;
                if release["images"]["app"]["digest"] != json!(digest) {
                    bail!(
                        "{id} of {} brought {definition}, which runs {digest}",
                        release["id"]
                    );
                }
                let own = revisions.iter().filter(|call| is_tagged(call, id)).count();
                let wanted = usize::from(deployment["kind"]["kind"] == json!("forward"));
                if own != wanted {
                    bail!("{own} revisions were registered for {id}, not {wanted}");
                }
                evidence.push(json!({
                    "deployment": id, "cluster": environment, "task_definition": definition,
                    "digest": digest, "revisions": own,
                }));
            }
        }
        Ok((
            format!(
                "{} updates for {} deployments",
                updates.len(),
                evidence.len()
            ),
            json!(evidence),
        ))
    }

    /// The order of events: staging's health had to last before production started.
    pub(super) async fn gate_held(&self, client: &Client) -> anyhow::Result<(String, Value)> {
        let events = client.get("/projects/shop/events?limit=200").await?;
        let events = events["events"].as_array().cloned().unwrap_or_default();
        let at = |subject: &str, what: &str| -> anyhow::Result<jiff::Timestamp> {
            let found = events
                .iter()
                .find(|e| e["subject"] == json!(subject) && e["what"] == json!(what))
                .with_context(|| format!("no event {what} of {subject}"))?;
            Ok(found["at"].as_str().unwrap_or_default().parse()?)
        };
        let verified = at("shop.d1", "rollout_done")?;
        let started = at("shop.d2", "started")?;
        let waited = started.duration_since(verified).as_secs_f64();
        // Health is known from the first look after the rollout, a second or so later at most.
        if waited < 8.0 - 1.5 {
            bail!("production started {waited:.1} s after staging's rollout");
        }
        Ok((
            format!("{waited:.1} s between staging's rollout and production's start"),
            json!({"staging_rollout_done": verified.to_string(), "production_started": started.to_string()}),
        ))
    }

    pub(super) async fn untouched(&self, client: &Client) -> anyhow::Result<(String, Value)> {
        let all = client
            .get("/projects/shop/deployments?environment=production")
            .await?;
        let all = all["deployments"].as_array().cloned().unwrap_or_default();
        if let Some(bad) = all.iter().find(|d| d["release"] == json!("shop.r2")) {
            bail!("{} brought v2 to production", bad["id"]);
        }
        let (body, serves) = self.serves(&self.production, "v1 production").await?;
        let evidence = json!({
            "serves": serves, "aws": self.shown("production").await?,
            "deployments": all.iter().map(|d| json!({"id": d["id"], "release": d["release"]}))
                .collect::<Vec<_>>(),
        });
        Ok((format!("no deployment of shop.r2; serves {body}"), evidence))
    }

    pub(super) async fn held(&self, client: &Client) -> anyhow::Result<(String, Value)> {
        let hold = until("a hold on production", LIMIT, async || {
            let found = self.place(client, "production").await?;
            Ok(Some(found["hold"].clone()).filter(|hold| !hold.is_null()))
        })
        .await?;
        // Several ticks of the planner: time enough for automation to do it again, if it would.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let live = array(&self.place(client, "production").await?["live"]).len();
        if live > 0 {
            bail!("{live} deployments are under way in production in spite of the hold");
        }
        let reason = hold["reason"].as_str().unwrap_or_default();
        Ok((
            format!("held by {}: {reason}", hold["by"].as_str().unwrap_or("-")),
            hold.clone(),
        ))
    }

    /// Presses a button: the very form that the page sends, with its session.
    pub(super) async fn press(
        &self,
        client: &Client,
        verb: &str,
        release: &str,
    ) -> anyhow::Result<(String, Value)> {
        let newest = async || -> anyhow::Result<(u64, String)> {
            let all = client
                .get("/projects/shop/deployments?environment=staging")
                .await?;
            let id = &all["deployments"][0]["id"];
            Ok((number(id), id.as_str().unwrap_or_default().to_owned()))
        };
        let (before, _) = newest().await?;
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let cookie = self.cookie(&http).await?;
        let address = format!(
            "{}/projects/shop/environments/staging/services/web/{verb}",
            self.url
        );
        let form = [
            ("release", release),
            ("reason", "the demo says so"),
            ("confirm", "staging"),
        ];
        let answer = http
            .post(address)
            .header("cookie", cookie)
            .header("origin", &self.url)
            .form(&form)
            .send()
            .await?;
        if answer.status().as_u16() != 303 {
            bail!(
                "the form was answered with {}: {}",
                answer.status(),
                answer.text().await?
            );
        }
        let location = answer.headers().get("location");
        let location = location.and_then(|l| l.to_str().ok()).map(str::to_owned);
        let (after, id) = newest().await?;
        if after <= before {
            bail!("no deployment was opened");
        }
        let (said, mut evidence) = self.ends(client, "staging", &id, "deployed").await?;
        evidence["form"] = json!({"status": 303, "location": location});
        Ok((said, evidence))
    }
}

/// The number in a deployment's id.
fn number(id: &Value) -> u64 {
    let id = id.as_str().unwrap_or_default();
    let number = id.rsplit(".d").next().and_then(|n| n.parse().ok());
    number.unwrap_or(0)
}

/// Whether a revision was registered for this deployment.
fn is_tagged(call: &Value, deployment: &Value) -> bool {
    let tags = array(&call["request"]["tags"]);
    tags.iter()
        .any(|tag| tag["key"] == json!("roadstead:deployment") && tag["value"] == *deployment)
}
