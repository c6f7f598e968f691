//! What each line of the story looks at: from outside only, through the API, the registry, the load
//! balancers and the sandbox's call log.

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
    pub(super) async fn settled(&self, _client: &Client, _place: &str) -> anyhow::Result<()> {
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
        let run = format!("shop.{version}");
        let found = until(&format!("run {run}"), Duration::from_secs(30), async || {
            let runs = client.get("/projects/shop/runs").await?;
            let runs = runs["runs"].as_array().cloned().unwrap_or_default();
            Ok(runs.into_iter().find(|r| r["id"] == json!(run)))
        })
        .await?;
        if found["commit"] != json!(commit) {
            bail!("{run} is of commit {}, not {commit}", found["commit"]);
        }
        Ok((
            format!("run {run} of {}", &commit[..7]),
            json!({"run": run, "commit": commit}),
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
        let image = releases["releases"]
            .as_array()
            .into_iter()
            .flatten()
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
            json!({"release": release, "image": image}),
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
        self.ends(client, &id, wanted).await
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

    /// Waits for a deployment's end.
    pub(super) async fn ends(
        &self,
        client: &Client,
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
        Ok((
            format!("{id} {wanted}{why}"),
            json!({"deployment": id, "state": state}),
        ))
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
        let body = until(
            &format!("{wanted:?} at {address}"),
            Duration::from_secs(60),
            async || {
                let text = match http.get(address).send().await {
                    Ok(answer) => answer.text().await.unwrap_or_default(),
                    Err(_) => String::new(),
                };
                row = if text.trim() == wanted { row + 1 } else { 0 };
                Ok((row >= 10).then_some(text))
            },
        )
        .await?;
        Ok((
            body.trim().to_owned(),
            json!({"url": address, "body": body}),
        ))
    }

    /// Waits until a run or deployment stands in one of these states.
    pub(super) async fn reaches(
        &self,
        client: &Client,
        path: &str,
        states: &[&str],
    ) -> anyhow::Result<()> {
        until(
            &format!("{path} {}", states.join(" or ")),
            LIMIT,
            async || {
                // It may not exist yet.
                let Ok(found) = client.get(path).await else {
                    return Ok(None);
                };
                let state = ["run", "deployment"]
                    .iter()
                    .find_map(|k| found[k]["state"]["state"].as_str());
                Ok(state.filter(|state| states.contains(state)).map(drop))
            },
        )
        .await
    }

    /// The sandbox's own call log against the deployments that asked ECS for anything.
    pub(super) async fn updated_once(&self, client: &Client) -> anyhow::Result<(String, Value)> {
        let all = client.get("/projects/shop/deployments?limit=200").await?;
        let deployments = all["deployments"].as_array().map_or(0, Vec::len);
        let address = format!("{}/_sandbox/calls", self.sandbox);
        let calls: Value = reqwest::get(address).await?.json().await?;
        let effective =
            |c: &&Value| c["operation"] == json!("UpdateService") && c["effective"] == json!(true);
        let updates = calls
            .as_array()
            .into_iter()
            .flatten()
            .filter(effective)
            .count();
        if updates != deployments {
            bail!("{updates} effective updates for {deployments} deployments");
        }
        Ok((
            format!("{updates} updates for {deployments} deployments"),
            json!({"updates": updates, "deployments": deployments}),
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
        let (body, evidence) = self.serves(&self.production, "v1 production").await?;
        Ok((format!("no deployment of shop.r2; serves {body}"), evidence))
    }

    pub(super) async fn held(&self, client: &Client) -> anyhow::Result<(String, Value)> {
        let place = async || -> anyhow::Result<Value> {
            let project = client.get("/projects/shop").await?;
            let places = project["places"].as_array().cloned().unwrap_or_default();
            places
                .into_iter()
                .find(|p| p["environment"] == json!("production"))
                .context("production is not listed")
        };
        let hold = until("a hold on production", LIMIT, async || {
            let found = place().await?;
            Ok(Some(found["hold"].clone()).filter(|hold| !hold.is_null()))
        })
        .await?;
        // Several ticks of the planner: time enough for automation to do it again, if it would.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let live = place().await?["live"].as_array().map_or(0, Vec::len);
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
            let id = all["deployments"][0]["id"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let number = id
                .rsplit(".d")
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or(0);
            Ok((number, id))
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
        let (after, id) = newest().await?;
        if after <= before {
            bail!("no deployment was opened");
        }
        self.ends(client, &id, "deployed").await
    }
}
