//! Chromium without a screen, driven over WebDriver. Owns chromedriver, a child of the test that takes
//! a free port by itself, and one folder for all that browsers write; both go when the test goes.
//!
//! Every wait looks at the level, not at the edge, and ends after [`PATIENCE`]. Must not know what
//! Roadstead is.

use crate::waiting::{PATIENCE, PAUSE, until};
use fantoccini::error::{CmdError, ErrorStatus};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;
use tempfile::TempDir;

/// Whether pages may run scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scripts {
    Run,
    Refused,
}

/// chromedriver, running. Its browsers end with it, also when the test fails.
pub(crate) struct Driver {
    child: Child,
    address: String,
    /// Profiles, shared memory, crash reports.
    folder: TempDir,
}

impl Driver {
    /// Starts it and waits until it says where it listens.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            .env("TMPDIR", folder.path())
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is missing: run `make setup`");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, receiver) = mpsc::channel();
        // Reads to the end, so that the driver never waits for a reader.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let port = line.rsplit_once("successfully on port ");
                if let Some((_, port)) = port {
                    drop(sender.send(port.trim_end_matches('.').to_owned()));
                }
            }
        });
        let port = receiver.recv_timeout(PATIENCE);
        let driver = Self {
            child,
            address: format!("http://127.0.0.1:{}", port.as_deref().unwrap_or("0")),
            folder,
        };
        port.expect("chromedriver did not say on which port it listens");
        driver
    }

    /// A new browser with a profile of its own.
    pub(crate) async fn open(&self, scripts: Scripts) -> Browser {
        let profile = self.folder.path().join(format!("profile-{scripts:?}"));
        let content = match scripts {
            Scripts::Run => 1,
            Scripts::Refused => 2,
        };
        let capabilities = json!({
            "goog:chromeOptions": {
                "args": [
                    "--headless=new",
                    // Tests may run as root, where Chromium has no sandbox.
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-dev-shm-usage",
                    "--window-size=1280,1000",
                    format!("--user-data-dir={}", profile.display()),
                ],
                "prefs": {"profile.default_content_setting_values.javascript": content},
            },
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let Value::Object(capabilities) = capabilities else {
            unreachable!("an object was written down");
        };
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.into_iter().collect())
            .connect(&self.address)
            .await
            .expect("Chromium does not start: run `make setup`");
        let session = client.session_id().await.unwrap().unwrap();
        let log = format!("{}/session/{session}/se/log", self.address);
        Browser { client, log }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Killed, it would leave its browsers behind: it is asked to end them and itself.
        let shutdown = format!("{}/shutdown", self.address);
        let asked = Command::new("curl")
            .args(["--silent", "--max-time", "60", &shutdown])
            .output();
        drop(asked);
        let end = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(PAUSE);
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One browser with one tab.
pub(crate) struct Browser {
    client: Client,
    /// Where the driver hands out what the console showed.
    log: String,
}

impl Browser {
    /// Goes to an address.
    pub(crate) async fn visit(&self, address: &str) {
        self.client.goto(address).await.unwrap();
    }

    /// Loads the page again.
    pub(crate) async fn reload(&self) {
        self.client.refresh().await.unwrap();
    }

    /// Path and query of the page.
    pub(crate) async fn path(&self) -> String {
        let url = self.client.current_url().await.unwrap();
        let query = url
            .query()
            .map_or(String::new(), |query| format!("?{query}"));
        format!("{}{query}", url.path())
    }

    /// Waits until the page is another one, of which only the beginning of the path is known.
    pub(crate) async fn arrives(&self, start: &str) {
        until(&format!("a page below {start}"), async || {
            let path = self.path().await;
            if path.starts_with(start) {
                Ok(())
            } else {
                Err(path)
            }
        })
        .await;
    }

    /// What a person reads in the first element that fits; none when there is no such element now.
    pub(crate) async fn text(&self, css: &str) -> Option<String> {
        let found = match self.client.find(Locator::Css(css)).await {
            Ok(element) => element.text().await,
            Err(error) => Err(error),
        };
        match found {
            Ok(text) => Some(text),
            Err(error) if is_passing(&error) => None,
            Err(error) => panic!("{css}: {error}"),
        }
    }

    /// Waits until the first element that fits reads as wanted. The page has to get there by itself.
    pub(crate) async fn shows(&self, css: &str, wanted: &str) {
        until(&format!("{wanted:?} in {css}"), async || {
            self.reads(css, wanted).await
        })
        .await;
    }

    /// As [`Browser::shows`], for pages without scripts: somebody loads them again and again.
    pub(crate) async fn shows_when_reloaded(&self, css: &str, wanted: &str) {
        until(&format!("{wanted:?} in {css}, reloading"), async || {
            self.reload().await;
            self.reads(css, wanted).await
        })
        .await;
    }

    async fn reads(&self, css: &str, wanted: &str) -> Result<(), String> {
        let seen = self.text(css).await;
        match &seen {
            Some(text) if text.contains(wanted) => Ok(()),
            Some(text) => Err(text.clone()),
            None => Err(format!(
                "nothing like it on {}: {}",
                self.path().await,
                self.text("main").await.unwrap_or_default()
            )),
        }
    }

    /// Clicks the first element that fits, as soon as that can be done.
    pub(crate) async fn press(&self, css: &str) {
        until(&format!("a click on {css}"), async || {
            let clicked = match self.client.find(Locator::Css(css)).await {
                Ok(element) => element.click().await,
                Err(error) => Err(error),
            };
            passing(css, clicked)
        })
        .await;
    }

    /// Writes into a field, in place of what was there.
    pub(crate) async fn fill(&self, css: &str, text: &str) {
        until(&format!("{css} to write into"), async || {
            let typed = async {
                let field = self.client.find(Locator::Css(css)).await?;
                field.clear().await?;
                field.send_keys(text).await
            };
            passing(css, typed.await)
        })
        .await;
    }

    /// What a script of the test returns. Works in pages whose own scripts are refused, too.
    pub(crate) async fn evaluate(&self, script: &str) -> Value {
        self.client.execute(script, vec![]).await.unwrap()
    }

    /// Leaves a mark that the next load of a page wipes out.
    pub(crate) async fn mark(&self) {
        self.evaluate("window.markOfTheTest = true;").await;
    }

    /// Whether the page is still the one that was marked: nothing was loaded since.
    pub(crate) async fn is_marked(&self) -> bool {
        self.evaluate("return window.markOfTheTest === true;").await == json!(true)
    }

    /// What the console showed since the last call: errors and warnings, also of a broken content
    /// security policy.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let answer = reqwest::Client::new()
            .post(&self.log)
            .json(&json!({"type": "browser"}))
            .send()
            .await
            .unwrap();
        let said: Value = answer.error_for_status().unwrap().json().await.unwrap();
        let entries = said["value"].as_array().unwrap();
        let grave = entries
            .iter()
            .filter(|entry| ["SEVERE", "WARNING"].contains(&entry["level"].as_str().unwrap()));
        grave
            .map(|entry| entry["message"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Ends the browser.
    pub(crate) async fn close(self) {
        self.client.close().await.unwrap();
    }
}

/// The page may be swapping a part of itself at this moment; a look later it is there.
fn is_passing(error: &CmdError) -> bool {
    const PASSING: [ErrorStatus; 4] = [
        ErrorStatus::NoSuchElement,
        ErrorStatus::StaleElementReference,
        ErrorStatus::ElementNotInteractable,
        ErrorStatus::ElementClickIntercepted,
    ];
    matches!(error, CmdError::Standard(error) if PASSING.contains(&error.error))
}

fn passing(css: &str, done: Result<(), CmdError>) -> Result<(), String> {
    match done {
        Ok(()) => Ok(()),
        Err(error) if is_passing(&error) => Err(error.to_string()),
        Err(error) => panic!("{css}: {error}"),
    }
}
