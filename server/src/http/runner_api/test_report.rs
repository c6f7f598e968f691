//! What the test reports of a step come to, as its runner counted them.

use super::super::App;
use super::super::auth::Then;
use super::super::error::HttpError;
use super::super::secrets::mask_of;
use super::{OwnAttempt, stored};
use actix_web::{HttpResponse, web};
use roadstead_masking::Patterns;
use roadstead_pipelines::id::StepName;
use roadstead_protocol as wire;

/// Keeps them, cut to what may be kept, with secrets blotted as in logs.
pub(super) async fn take(
    app: web::Data<App>,
    Then(own, body): Then<OwnAttempt, web::Json<wire::TestReport>>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, HttpError> {
    let mut report = body.into_inner();
    let own = own.live(Some(report.fence))?;
    // Only a step of the run.
    let step = own.log(path.into_inner().1)?.step;
    let step = StepName::parse(&step).map_err(|error| HttpError::bad_request(error.to_string()))?;
    let told = [report.tests, report.failed, report.skipped, report.unread];
    let sound = told.iter().all(|number| *number < 1 << 40)
        && report.failed.saturating_add(report.skipped) <= report.tests
        && report.cases.len() as u64 <= report.failed;
    if !sound {
        let message = "the numbers of tests do not fit together";
        return Err(HttpError::bad_request(message));
    }
    let secrets = mask_of(&app, &own.attempt.id, (&own.run, &own.job())).await?;
    report.cases.truncate(wire::MOST_FAILED_CASES);
    for case in &mut report.cases {
        let texts = [
            (&mut case.class, wire::LONGEST_CASE_NAME),
            (&mut case.name, wire::LONGEST_CASE_NAME),
            (&mut case.message, wire::LONGEST_CASE_MESSAGE),
        ];
        for (text, most) in texts {
            *text = kept(text, most, secrets.as_deref());
        }
    }
    stored(
        app.store
            .record_tests(&own.attempt.id, &step, report)
            .await?,
    )
}

/// At most so many bytes of a text, with secrets blotted, and nothing that a database does not take.
fn kept(text: &str, most: usize, secrets: Option<&Patterns>) -> String {
    let mut bytes = text.as_bytes().to_vec();
    if let Some(secrets) = secrets {
        secrets.blot(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}");
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_holds_no_secret() {
        let secrets = Patterns::of(["hunter2-hunter2"]).unwrap().unwrap();
        let text = kept("it is hunter2-hunter2\0", 100, Some(&secrets));
        assert_eq!(text, "it is ***************\u{fffd}");
        assert_eq!(kept("aüü", 4, None), "aü");
    }
}
