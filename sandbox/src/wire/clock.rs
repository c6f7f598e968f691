//! `/_sandbox/clock`: what time it is, and letting virtual time pass.

use bytes::Bytes;
use hyper::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::oneshot;

use super::{Answer, own_json, plain};
use crate::app::App;
use crate::clock::Time;
use crate::time_travel::{Advance, Goal};

/// What `advance` says when no length of time is meant.
const UNTIL_SETTLED: &str = "until settled";

/// How far time passes at most until everything is settled, unless the request says so.
const WITHIN: Duration = Duration::from_secs(24 * 60 * 60);

/// No request lets more time pass.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// A length of time such as `90s` or `1h 30m`, or [`UNTIL_SETTLED`].
    advance: String,
    /// With [`UNTIL_SETTLED`]: at most that long.
    within: Option<String>,
}

/// Answers a request for the clock.
pub(super) async fn handle(app: &App, method: &Method, body: &Bytes) -> Answer {
    match *method {
        Method::GET => own_json(StatusCode::OK, &show(app.clock.now(), app)),
        Method::POST => match advance(app, body).await {
            Ok(shown) => own_json(StatusCode::OK, &shown),
            Err(refusal) => refusal,
        },
        _ => plain(
            StatusCode::METHOD_NOT_ALLOWED,
            "GET tells the time, POST {\"advance\": \"1h\"} lets it pass.\n",
        ),
    }
}

fn show(now: Time, app: &App) -> Value {
    json!({
        "now": now.epoch_seconds(),
        "at": Timestamp::from_millisecond(now.0).ok().map(|at| at.to_string()),
        "virtual": app.clock.is_virtual(),
    })
}

async fn advance(app: &App, body: &Bytes) -> Result<Value, Answer> {
    let goal = read(body).map_err(|error| plain(StatusCode::BAD_REQUEST, &format!("{error}\n")))?;
    let real = || {
        plain(
            StatusCode::CONFLICT,
            "Time passes by itself here. Start the sandbox with --backend simulated \
             --virtual-clock to let it pass on request.\n",
        )
    };
    if !app.clock.is_virtual() {
        return Err(real());
    }
    let ending = || {
        plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "The sandbox is shutting down.\n",
        )
    };
    let (reply, answer) = oneshot::channel();
    app.advances
        .send(Advance { goal, reply })
        .map_err(|_| ending())?;
    let advanced = answer.await.map_err(|_| ending())?;
    let advanced = advanced
        .map_err(|error| plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")))?;
    let mut shown = show(advanced.now, app);
    shown["settled"] = json!(advanced.settled);
    shown["moments"] = json!(advanced.moments);
    Ok(shown)
}

fn read(body: &Bytes) -> Result<Goal, String> {
    let request: Request = serde_json::from_slice(body).map_err(|error| {
        format!("Not a request to let time pass: {error}. Send {{\"advance\": \"1h\"}}.")
    })?;
    match (request.advance.as_str(), request.within) {
        (UNTIL_SETTLED, within) => Ok(Goal::Settled {
            within: within.map_or(Ok(WITHIN), |text| length(&text))?,
        }),
        (text, None) => length(text).map(Goal::By),
        (_, Some(_)) => Err(format!("`within` goes with \"{UNTIL_SETTLED}\" alone.")),
    }
}

fn length(text: &str) -> Result<Duration, String> {
    let length: SignedDuration = text.parse().map_err(|error| {
        format!(
            "`{text}` is no length of time ({error}): use one such as 90s or 1h 30m, or \
             \"{UNTIL_SETTLED}\"."
        )
    })?;
    Duration::try_from(length)
        .ok()
        .filter(|length| *length <= LONGEST)
        .ok_or_else(|| format!("`{text}` must not be negative, nor longer than 366 days."))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::{Goal, WITHIN, read};

    fn goal(body: &str) -> Result<Goal, String> {
        read(&Bytes::from(body.to_owned()))
    }

    #[test]
    fn lengths_of_time_are_read_as_people_write_them() {
        let seconds = |seconds| Ok(Goal::By(Duration::from_secs(seconds)));
        assert_eq!(goal(r#"{"advance": "90s"}"#), seconds(90));
        assert_eq!(goal(r#"{"advance": "1h 30m"}"#), seconds(5400));
        assert_eq!(goal(r#"{"advance": "0s"}"#), seconds(0));
        let settled = goal(r#"{"advance": "until settled"}"#);
        assert_eq!(settled, Ok(Goal::Settled { within: WITHIN }));
        let within = Duration::from_secs(60);
        let settled = goal(r#"{"advance": "until settled", "within": "1m"}"#);
        assert_eq!(settled, Ok(Goal::Settled { within }));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_way_out() {
        for (body, named) in [
            ("", "Send {\"advance\": \"1h\"}"),
            (r#"{"advance": "soon"}"#, "such as 90s"),
            (r#"{"advance": "-1s"}"#, "must not be negative"),
            (r#"{"advance": "9000h"}"#, "longer than 366 days"),
            (r#"{"advance": "1h", "within": "2h"}"#, "`within`"),
        ] {
            let error = goal(body).unwrap_err();
            assert!(error.contains(named), "{body}: {error}");
        }
    }
}
