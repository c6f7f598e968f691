//! The server as people and programs see it: a session, pages, the API.

use serde_json::{Value, json};

use crate::eventually;
use crate::project::Project;

/// Somebody who signed in.
pub(crate) struct Dashboard {
    http: reqwest::Client,
    url: String,
    cookie: String,
    token: String,
}

impl Dashboard {
    /// The administrator of `.env`, as soon as the server answers.
    pub(crate) async fn sign_in(project: &Project) -> Self {
        let url = format!("http://127.0.0.1:{}", project.ports.server);
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        let form = [
            ("user", "admin"),
            ("password", &*project.secrets.admin),
            ("next", "/"),
        ];
        let cookie = eventually("a session", async || {
            let request = http.post(format!("{url}/login")).form(&form);
            let answer = request.send().await.map_err(|e| e.to_string())?;
            let cookie = answer.headers().get("set-cookie");
            let cookie = cookie.and_then(|it| it.to_str().ok()?.split(';').next());
            cookie.map(str::to_owned).ok_or(answer.status().to_string())
        })
        .await;
        let answer = http
            .post(format!("{url}/api/v1/tokens"))
            .header("cookie", &cookie)
            .json(&json!({"name": "compose", "role": "viewer"}))
            .send()
            .await
            .unwrap();
        let made: Value = answer.error_for_status().unwrap().json().await.unwrap();
        let token = made["token"].as_str().unwrap().to_owned();
        Self {
            http,
            url,
            cookie,
            token,
        }
    }

    /// The JSON at an address below `/api/v1`.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, String> {
        let request = self.http.get(format!("{}/api/v1{path}", self.url));
        let answer = request.bearer_auth(&self.token).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status);
        let answer = answer.map_err(|e| e.to_string())?;
        answer.json().await.map_err(|e| e.to_string())
    }

    /// A page.
    pub(crate) async fn page(&self, path: &str) -> String {
        let request = self.http.get(format!("{}{path}", self.url));
        let answer = request.header("cookie", &self.cookie).send().await;
        let answer = answer.unwrap().error_for_status().unwrap();
        answer.text().await.unwrap()
    }
}
