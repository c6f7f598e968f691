//! What answers of forges mean, in the forms that their documentations give.

use super::*;
use serde_json::json;

fn reply(status: u16, headers: &[(&'static str, &'static str)], body: &Value) -> Reply {
    let headers = headers.iter().map(|(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    });
    let status = StatusCode::from_u16(status).unwrap();
    let body = body.to_string();
    Reply::read(status, headers.collect(), body.as_bytes(), "the-token")
}

fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &Value) -> Answer {
    let now = Timestamp::from_second(1_000).unwrap();
    judge(&reply(status, headers, body), now)
}

fn waits(answer: &Answer) -> (Option<i64>, bool) {
    match answer {
        Answer::Later { after, unsure, .. } => (after.map(|after| after.as_secs()), *unsure),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_every_forge_says_is_read_in_its_own_form() {
    let github = json!({
        "message": "Validation Failed",
        "errors": [{"resource": "Status", "code": "custom", "message": "too long"}],
    });
    let gitlab = json!({"message": {"description": ["is too long"]}});
    for (body, wanted) in [
        (&github, "Validation Failed; [{\"resource\":\"Status\""),
        (
            &json!({"message": "404 Project Not Found"}),
            "404 Project Not Found",
        ),
        (
            &json!({"error": "insufficient_scope", "error_description": "x"}),
            "insufficient_scope",
        ),
        (&gitlab, "{\"description\":[\"is too long\"]}"),
        (
            &json!({"message": "token is required", "url": "x"}),
            "token is required",
        ),
        (
            &json!({"type": "error", "error": {"message": "key: too long"}}),
            "key: too long",
        ),
        (&json!("a page of a proxy"), ""),
        (&json!({"message": null}), ""),
    ] {
        let said = said(body.to_string().as_bytes());
        assert!(
            said.starts_with(wanted) && said.is_empty() == wanted.is_empty(),
            "{said}"
        );
    }
    assert_eq!(said(b"<html>"), "");
    let long = reply(500, &[], &json!({"message": "ä\n".repeat(400)})).said;
    assert_eq!(long.chars().count(), LONGEST_REASON + 1);
    assert!(!long.contains('\n'));
}

#[test]
fn an_answer_is_taken_never_mended_or_tried_later() {
    let said = json!({"message": "Forbidden"});
    assert_eq!(answer(201, &[], &said), Answer::Taken);
    assert_eq!(answer(200, &[], &said), Answer::Taken);
    for status in [400, 413, 422] {
        assert!(
            matches!(answer(status, &[], &said), Answer::Never { .. }),
            "{status}"
        );
    }
    for (status, wanted) in [
        (401, "the token is wrong"),
        (403, "lacks a right"),
        (404, "no such repository"),
        (301, "set the project's `statuses`"),
        (405, "answered 405 (it said: Forbidden)"),
    ] {
        match answer(status, &[], &said) {
            Answer::Mend { reason } => assert!(reason.contains(wanted), "{reason}"),
            other => panic!("{status}: {other:?}"),
        }
    }
    for status in [409, 429] {
        assert_eq!(
            waits(&answer(status, &[], &said)),
            (None, false),
            "{status}"
        );
    }
    for status in [500, 502, 504] {
        assert_eq!(waits(&answer(status, &[], &said)), (None, true), "{status}");
    }
}

#[test]
fn the_token_is_in_nothing_that_a_forge_says() {
    let said = json!({"message": "who is the-token?"});
    let moved = [("location", "https://forge.example/api?token=the-token")];
    let words = in_words(&reply(301, &moved, &said));
    assert!(
        words.contains("token=***") && words.contains("who is ***?"),
        "{words}"
    );
    assert!(!words.contains("the-token"), "{words}");
}

#[test]
fn a_forge_that_asks_to_wait_is_understood() {
    let said = json!({"message": "API rate limit exceeded for user ID 1."});
    let left = ("x-ratelimit-remaining", "0");
    let reset = |at| ("x-ratelimit-reset", at);
    type Case<'c> = (u16, &'c [(&'static str, &'static str)], Option<i64>);
    let cases: [Case<'_>; 7] = [
        (403, &[("retry-after", "60")], Some(60)),
        (429, &[("retry-after", "60"), left, reset("1200")], Some(60)),
        (403, &[left, reset("1200")], Some(201)),
        (
            429,
            &[("ratelimit-remaining", "0"), ("ratelimit-reset", "1030")],
            Some(31),
        ),
        (403, &[left, reset("900")], Some(1)),
        (403, &[], None),
        (429, &[("x-ratelimit-remaining", "12"), reset("1200")], None),
    ];
    for (status, headers, wanted) in cases {
        let answer = answer(status, headers, &said);
        assert_eq!(waits(&answer), (wanted, false), "{status} {headers:?}");
    }
    // Limits that are not used up say nothing about a 403.
    let headers = [
        ("x-ratelimit-remaining", "12"),
        ("x-ratelimit-reset", "1200"),
    ];
    let refused = answer(
        403,
        &headers,
        &json!({"message": "Resource not accessible"}),
    );
    assert!(matches!(refused, Answer::Mend { .. }), "{refused:?}");
}

#[test]
fn a_pull_request_is_told_under_a_name_of_its_own() {
    let commit = CommitSha::parse(&"1".repeat(40)).unwrap();
    let status = Status {
        state: roadstead_pipelines::commit_status::State::Success,
        description: "succeeded".into(),
    };
    let context = |git_ref, base_branch| {
        let told = Told {
            commit: &commit,
            git_ref,
            base_branch,
            status: &status,
            page: "https://roadstead.example/runs/shop.1",
        };
        github::body(told)["context"].clone()
    };
    for git_ref in ["refs/pull/7/head", "refs/merge-requests/7/head"] {
        assert_eq!(context(git_ref, None), "roadstead/pull-request");
    }
    let to_main = context("refs/pull/7/head", Some("main"));
    assert_eq!(to_main, "roadstead/pull-request/main");
    for git_ref in [
        "refs/heads/main",
        "refs/heads/refs/pull/7/head",
        "refs/tags/v1",
    ] {
        assert_eq!(context(git_ref, None), "roadstead/run");
    }
}
