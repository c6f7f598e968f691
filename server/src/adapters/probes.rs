//! HTTP probes: one request each, and whether the answer was the expected one.

use futures_util::future::join_all;
use roadstead_pipelines::observation::ProbeSeen;
use roadstead_pipelines::spec::HttpProbe;
use std::time::Duration;

/// A probe that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a body that are searched for the expected text.
const LARGEST_BODY: usize = 64 * 1024;

/// Asks addresses that pipeline files name.
#[derive(Clone)]
pub struct Probes {
    client: reqwest::Client,
}

impl Probes {
    /// A prober. Redirects are answers, not directions: a probe is for the address that it names.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .user_agent("roadstead-probe")
            // What serves may be replaced between two probes: each one connects anew.
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self { client })
    }

    /// Asks all, at the same time, and answers in their order.
    pub async fn ask(&self, probes: &[HttpProbe]) -> Vec<ProbeSeen> {
        join_all(probes.iter().map(|probe| self.one(probe))).await
    }

    async fn one(&self, probe: &HttpProbe) -> ProbeSeen {
        let (ok, detail) = match self.look(probe).await {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        ProbeSeen {
            url: probe.url.clone(),
            ok,
            detail,
        }
    }

    async fn look(&self, probe: &HttpProbe) -> Result<String, String> {
        let mut answer = self
            .client
            .get(&probe.url)
            .send()
            .await
            .map_err(|e| in_words(&e))?;
        let status = answer.status().as_u16();
        if status != probe.expect_status {
            return Err(format!("{status} instead of {}", probe.expect_status));
        }
        let Some(expected) = &probe.expect_body else {
            return Ok(status.to_string());
        };
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|e| in_words(&e))? {
            body.extend_from_slice(&piece);
            if body.len() > LARGEST_BODY {
                body.truncate(LARGEST_BODY);
                break;
            }
        }
        if String::from_utf8_lossy(&body).contains(expected.as_str()) {
            Ok(status.to_string())
        } else {
            Err(format!(
                "{status}, and its first {LARGEST_BODY} bytes do not contain `{expected}`"
            ))
        }
    }
}

/// The error and its innermost cause: `connection refused` rather than `error sending request`.
fn in_words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("nothing within {} s", TIMEOUT.as_secs());
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    format!("no answer: {cause}")
}
