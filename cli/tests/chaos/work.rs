//! The harness as a forge and as a person: signed webhook calls and buttons, noted with their answers.

use crate::draw::Button;
use crate::ledger::{Answered, Delivery, Ledger, Pressed};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The key of the project's webhooks.
pub(crate) const SECRET: &str = "a webhook's key of this run";
/// Nobody waits for ever for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whoever calls the server from outside; clones share the notes.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) http: reqwest::Client,
    url: String,
    pub(crate) token: String,
    ledger: Arc<Mutex<Ledger>>,
    /// Odd while the database is known to be down.
    pub(crate) database_turns: Arc<AtomicU64>,
}

impl Caller {
    pub(crate) fn new(url: String) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()?;
        Ok(Self {
            http,
            url,
            token: String::new(),
            ledger: Arc::default(),
            database_turns: Arc::default(),
        })
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an API token as the dashboard does.
    pub(crate) async fn sign_in(&mut self, password: &str) -> anyhow::Result<()> {
        let form = [("user", "admin"), ("password", password), ("next", "/")];
        let url = format!("{}/login", self.url);
        let answer = self.http.post(url).form(&form).send().await?;
        let set = answer.headers().get_all("set-cookie").iter();
        let cookie = set
            .filter_map(|value| value.to_str().ok()?.split(';').next())
            .find(|pair| pair.starts_with("roadstead_session="));
        let cookie = cookie.ok_or_else(|| anyhow::anyhow!("no session came"))?;
        let made: Value = self
            .http
            .post(format!("{}/api/v1/tokens", self.url))
            .header("cookie", cookie)
            .json(&json!({"name": "chaos", "role": "admin"}))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        self.token = made["token"].as_str().unwrap_or_default().to_owned();
        Ok(())
    }

    /// Tells the server of a push, and notes what it answered.
    pub(crate) async fn deliver(&self, delivery: Delivery) -> Option<u16> {
        let before = self.database_turns.load(Ordering::SeqCst);
        let body = json!({
            "ref": delivery.git_ref, "before": delivery.before, "after": delivery.commit,
            "head_commit": {"message": "a push of chaos"},
        })
        .to_string();
        let status = self.post_hook(&delivery.id, body).await;
        let after = self.database_turns.load(Ordering::SeqCst);
        let database_was_down = before == after && before % 2 == 1;
        self.ledger().answered.push(Answered {
            delivery,
            status,
            database_was_down,
        });
        status
    }

    async fn post_hook(&self, id: &str, body: String) -> Option<u16> {
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).ok()?;
        mac.update(body.as_bytes());
        let signature = hex::encode(mac.finalize().into_bytes());
        let answer = self
            .http
            .post(format!("{}/webhooks/github/shop", self.url))
            .header("x-hub-signature-256", format!("sha256={signature}"))
            .header("x-github-event", "push")
            .header("x-github-delivery", id)
            .body(body)
            .send()
            .await;
        Some(answer.ok()?.status().as_u16())
    }

    /// `GET` below `/api/v1`; none without an answer.
    pub(crate) async fn get(&self, path: &str) -> Option<Value> {
        let url = format!("{}/api/v1{path}", self.url);
        let answer = self.http.get(url).bearer_auth(&self.token).send().await;
        answer.ok()?.error_for_status().ok()?.json().await.ok()
    }

    /// The bytes of a step's log.
    pub(crate) async fn log(&self, run: &str, attempt: i64) -> Option<Vec<u8>> {
        let url = format!(
            "{}/api/v1/runs/{run}/steps/test/log?attempt={attempt}",
            self.url
        );
        let answer = self.http.get(url).bearer_auth(&self.token).send().await;
        let bytes = answer.ok()?.error_for_status().ok()?.bytes().await.ok()?;
        Some(bytes.to_vec())
    }

    /// Presses a button on something that is there, and notes the answer.
    pub(crate) async fn press(&self, button: Button, production: bool, pick: usize) {
        let environment = if production { "production" } else { "staging" };
        let place = format!("/projects/shop/environments/{environment}/services/web");
        let Some((name, path, body)) = self.button(button, &place, pick).await else {
            return;
        };
        let request = self.http.post(format!("{}/api/v1{path}", self.url));
        let answer = request
            .bearer_auth(&self.token)
            .json(&body)
            .send()
            .await
            .ok();
        let status = answer.as_ref().map(|answer| answer.status().as_u16());
        let told: Value = match answer {
            Some(answer) => answer.json().await.unwrap_or_default(),
            None => Value::Null,
        };
        let made = told["deployment"].as_str().or(told["run"].as_str());
        let mut ledger = self.ledger();
        ledger.work(format!("button: {name}"));
        ledger.pressed.push(Pressed {
            button: name,
            status,
            made: made.map(str::to_owned),
        });
    }

    async fn button(
        &self,
        button: Button,
        place: &str,
        pick: usize,
    ) -> Option<(&'static str, String, Value)> {
        let reason = json!({"reason": "chaos"});
        let one_of = |value: Value, what: &str, id: &str| -> Option<String> {
            let all = value[what].as_array()?.clone();
            let one = all.get(pick % all.len().max(1))?;
            let id = &one[id];
            Some(id.as_str().map_or_else(|| id.to_string(), str::to_owned))
        };
        let release = async || {
            one_of(
                self.get("/projects/shop/releases?limit=10").await?,
                "releases",
                "id",
            )
        };
        let run = async || {
            one_of(
                self.get("/projects/shop/runs?limit=10").await?,
                "runs",
                "id",
            )
        };
        let with = |release: String| json!({"release": release, "reason": "chaos"});
        Some(match button {
            Button::Promote => (
                "promote",
                format!("{place}/promote"),
                with(release().await?),
            ),
            Button::Rollback => (
                "rollback",
                format!("{place}/rollback"),
                with(release().await?),
            ),
            Button::Hold => ("hold", format!("{place}/hold"), reason),
            Button::Resume => ("resume", format!("{place}/resume"), reason),
            Button::CancelRun => (
                "cancel a run",
                format!("/runs/{}/cancel", run().await?),
                json!({}),
            ),
            Button::Retry => ("retry", format!("/runs/{}/retry", run().await?), json!({})),
            Button::CancelDeployment => {
                let all = self.get("/projects/shop/deployments?limit=5").await?;
                let id = one_of(all, "deployments", "id")?;
                (
                    "cancel a deployment",
                    format!("/deployments/{id}/cancel"),
                    json!({}),
                )
            }
            Button::Redeliver => {
                let number = 1 + pick % 20;
                (
                    "redeliver",
                    format!("/deliveries/{number}/redeliver"),
                    json!({}),
                )
            }
        })
    }
}
