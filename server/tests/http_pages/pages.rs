//! Every page with data in it, and what its buttons do.

use crate::site::{ADMIN, DEPLOYER, Site, VIEWER, Who, cookie, location};
use crate::story::place;
use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use roadstead_pipelines::commit_status::Answer;
use roadstead_pipelines::fact::{Change, RunFact};
use roadstead_pipelines::id::StepName;
use roadstead_pipelines::report::Failure;
use roadstead_pipelines::run::AttemptOutcome;
use roadstead_protocol::StepState;
use roadstead_server::forge::Forge;
use roadstead_server::store::hash_secret;
use roadstead_web::assets;
use std::collections::BTreeMap;

const STAGING: &str = "/projects/shop/environments/staging/services/web";
const PRODUCTION: &str = "/projects/shop/environments/production/services/web";

/// A run's page says why a step is left out, and which try another one is at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_are_left_out_or_tried_again_say_so() {
    let mut site = Site::start().await;
    let left_out = StepName::parse("image").unwrap();
    site.story.left_out = [(left_out, "it is for tags, `main` is none".to_owned())].into();
    let run = site.story.push().await;
    let store = site.story.store.clone();
    let claim = store.claim_job("harbour", hash_secret("again"), site.story.now);
    let claim = claim.await.unwrap().unwrap();
    let again = StepState::Retrying { number: 2 };
    let told = store.report_step(&claim.attempt, 1, "test", again, site.story.now);
    told.await.unwrap();
    let html = site.page(VIEWER, &format!("/runs/{run}")).await;
    for wanted in ["it is for tags, `main` is none", "2nd try"] {
        assert!(html.contains(wanted), "{wanted}: {html}");
    }
    let outcome = AttemptOutcome::Succeeded {
        images: BTreeMap::new(),
    };
    let ended = store.end_attempt(&claim.attempt, 1, outcome, site.story.now);
    ended.await.unwrap();
    let html = site.page(VIEWER, &format!("/runs/{run}")).await;
    assert!(
        html.contains("no release: step image, which builds images"),
        "{html}"
    );
    site.stop().await;
}

/// A run's page says why its forge does not show how it went.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forge_that_could_not_be_told_is_said() {
    let mut site = Site::start().await;
    let (store, shop) = (site.story.store.clone(), site.story.shop.clone());
    let setting = store.set_told_forge(&shop, Some(Forge::Github));
    setting.await.unwrap();
    let run = site.story.push().await;
    let page = format!("/runs/{run}");
    let quiet = "status at its forge is not up to date";
    assert!(!site.page(VIEWER, &page).await.contains(quiet));
    let (now, until) = (
        site.story.now,
        site.story.now + SignedDuration::from_secs(60),
    );
    let due = store
        .lease_status(&shop, now, until)
        .await
        .unwrap()
        .unwrap();
    let mend = Answer::Mend {
        reason: "the forge answered 401: the token is wrong".into(),
    };
    store.status_answered(&due, mend, now).await.unwrap();
    let html = site.page(VIEWER, &page).await;
    for wanted in [quiet, "401: the token is wrong", "The next try is"] {
        assert!(html.contains(wanted), "{wanted}: {html}");
    }
    let due = store
        .lease_status(&shop, until, until)
        .await
        .unwrap()
        .unwrap();
    let taken = store.status_answered(&due, Answer::Taken, until);
    taken.await.unwrap();
    assert!(!site.page(VIEWER, &page).await.contains(quiet));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_shows_what_is_there() {
    let site = Site::start().await;
    let run = roadstead_pipelines::id::RunId::new(&site.story.shop, 1);
    site.log(&run, "test", "\u{1b}[31mred\u{1b}[0m <script>\nlast line\n")
        .await;
    let show = async |path: &str, wanted: &[&str]| {
        let html = site.page(VIEWER, path).await;
        for wanted in wanted {
            assert!(html.contains(wanted), "{path} lacks {wanted}: {html}");
        }
        html
    };
    show("/", &["shop", "staging", "production", "r1"]).await;
    show(
        "/projects/shop",
        &["Change the sails", "/webhooks/github/shop", "#1"],
    )
    .await;
    let html = show(
        "/runs/shop.1?step=test",
        &[
            "Change the sails",
            "Ada",
            "last line",
            "sha256:",
            "make test",
            "git webhook",
        ],
    )
    .await;
    assert!(!html.contains("<script>\nlast") && !html.contains("red\u{1b}"));
    show(
        "/deployments/shop.d1",
        &[
            "staging",
            "verified",
            "r1",
            "registry.test/shop-web@sha256:",
        ],
    )
    .await;
    show(
        "/deployments/shop.d2",
        &["production", "2m healthy in staging", "queued"],
    )
    .await;
    show(STAGING, &["r1", "cluster staging, service web"]).await;
    show(PRODUCTION, &["r1", "Promote"]).await;
    show("/deliveries", &["started a run", "main at 0000000"]).await;
    show("/runners", &["harbour", "linux"]).await;
    show("/settings/account", &["viewer", "No token yet"]).await;
    show("/audit", &["deployments/shop.d1", "asked_for"]).await;
    // A viewer is told who may press what.
    show(PRODUCTION, &["a deployer can; you are viewer"]).await;
    let raw = site
        .request(VIEWER, Method::GET, "/runs/shop.1/steps/test/log")
        .send()
        .await
        .unwrap();
    assert!(raw.text().await.unwrap().ends_with("<script>\nlast line\n"));
    large_logs_are_sent_as_they_are_read(&site).await;
    for far in [
        "/audit?page=99",
        "/deliveries?page=0",
        "/projects/shop?page=3",
    ] {
        show(far, &[]).await;
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_says_why_and_waits_for_a_person() {
    let mut site = Site::start().await;
    let run = site.story.push().await;
    let failure = Failure::failed(".roadstead/pipeline.yml:3:7: unknown key").with_details(vec![
        ".roadstead/pipeline.yml:3:7: unknown key\n3 | stepz: 1\n  = help: did you mean `steps`?"
            .to_owned(),
    ]);
    let fact = RunFact::Refused { failure };
    let story = &site.story;
    let change = Change::Run {
        run: run.clone(),
        fact,
    };
    story
        .store
        .record(&story.shop, "Roadstead", story.now, |_| {
            Ok(vec![change.clone()])
        })
        .await
        .unwrap();
    let html = site.page(VIEWER, &format!("/runs/{run}")).await;
    assert!(
        html.contains("stepz: 1") && html.contains("did you mean"),
        "{html}"
    );
    assert!(html.contains("The pipeline file has 1 error"), "{html}");
    let home = site.page(VIEWER, "/").await;
    assert!(home.contains("shop: run #2"), "{home}");

    let retry = format!("/runs/{run}/retry");
    let answer = site.submit(DEPLOYER, &retry, &[]).await;
    assert_eq!(location(&answer), "/runs/shop.3");
    let html = site.page(VIEWER, "/runs/shop.3").await;
    assert!(html.contains("asked for by deployer"), "{html}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buttons_do_what_they_say() {
    let site = Site::start().await;
    let r1 = site.release.to_string();
    let world = async || site.story.store.load_world(&site.story.shop).await.unwrap();

    // A hold, its notice once, and its end.
    let hold = format!("{STAGING}/hold");
    let empty = site.submit(DEPLOYER, &hold, &[("reason", " ")]).await;
    assert_eq!(empty.status(), StatusCode::BAD_REQUEST);
    let answer = site
        .submit(DEPLOYER, &hold, &[("reason", "<i>storm</i>")])
        .await;
    assert_eq!(location(&answer), STAGING);
    let notice = cookie(&answer, "roadstead_notice").unwrap();
    assert!(notice.contains("HttpOnly"), "{notice}");
    let notice = notice.split(';').next().unwrap();
    let shown = site.request(Who::Nobody, Method::GET, "/login");
    assert!(
        !shown
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
            .contains("on hold")
    );
    let session = "roadstead_session=session of the viewer";
    let with_notice = site
        .request(Who::Nobody, Method::GET, STAGING)
        .header("cookie", format!("{session}; {notice}"));
    let answer = with_notice.send().await.unwrap();
    let removed = cookie(&answer, "roadstead_notice").unwrap();
    assert!(removed.starts_with("roadstead_notice=;"), "{removed}");
    let html = answer.text().await.unwrap();
    assert!(html.contains("web in staging is on hold."), "{html}");
    assert!(
        html.contains("storm") && !html.contains("<i>storm"),
        "{html}"
    );
    let hold = world().await.place(&place("staging")).hold.unwrap();
    assert_eq!(
        (hold.by.as_str(), hold.reason.as_str()),
        ("deployer", "<i>storm</i>")
    );
    assert!(site.page(VIEWER, "/").await.contains("held by deployer"));
    let answer = site
        .submit(DEPLOYER, &format!("{STAGING}/resume"), &[])
        .await;
    assert_eq!(location(&answer), STAGING);
    assert_eq!(world().await.place(&place("staging")).hold, None);

    // Production is the last environment: promote wants its name.
    let d2 = "/deployments/shop.d2";
    let answer = site.submit(DEPLOYER, &format!("{d2}/cancel"), &[]).await;
    assert_eq!(location(&answer), d2);
    assert!(
        site.page(VIEWER, d2)
            .await
            .contains("cancelled by deployer")
    );
    let promote = format!("{PRODUCTION}/promote");
    for confirm in ["", "staging", "Production"] {
        let fields = [("release", r1.as_str()), ("confirm", confirm)];
        let answer = site.submit(DEPLOYER, &promote, &fields).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{confirm}");
        assert!(answer.text().await.unwrap().contains("to confirm"));
    }
    assert_eq!(world().await.live_in(&place("production")).count(), 0);
    let fields = [
        ("release", r1.as_str()),
        ("confirm", "production"),
        ("reason", "the tide"),
    ];
    let answer = site.submit(DEPLOYER, &promote, &fields).await;
    assert_eq!(location(&answer), "/deployments/shop.d3");
    let html = site.page(VIEWER, "/deployments/shop.d3").await;
    assert!(html.contains("by deployer: the tide"), "{html}");
    // Once more is refused with the reason, as a page.
    let answer = site.submit(DEPLOYER, &promote, &fields).await;
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    assert!(answer.text().await.unwrap().contains("on its way"));

    // Staging is not the last one.
    let answer = site
        .submit(
            DEPLOYER,
            &format!("{STAGING}/rollback"),
            &[("release", &r1)],
        )
        .await;
    assert_eq!(location(&answer), "/deployments/shop.d4");
    let back = world().await;
    assert!(back.live_in(&place("staging")).any(|d| d.is_rollback()));
    let held = back.place(&place("staging")).hold.unwrap();
    assert!(held.reason.contains("rolled back to shop.r1"), "{held:?}");

    let answer = site
        .submit(ADMIN, &format!("{PRODUCTION}/approve"), &[("release", &r1)])
        .await;
    assert_eq!(location(&answer), PRODUCTION);
    let approvals = world().await.place(&place("production")).approvals;
    assert_eq!(approvals.len(), 1);

    let deliveries = site
        .story
        .store
        .list_deliveries(&site.story.shop, None, 1)
        .await;
    let id = deliveries.unwrap()[0].id;
    // Its stored body is no push: said so, and nothing is made of it.
    let answer = site
        .submit(DEPLOYER, &format!("/deliveries/{id}/redeliver"), &[])
        .await;
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_pages_for_people_and_json_for_programs() {
    let site = Site::start().await;
    for path in [
        "/runs/shop.99",
        "/deployments/x",
        "/projects/none",
        "/nothing/here",
    ] {
        let answer = site.browse(VIEWER, path).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
        let html = answer.text().await.unwrap();
        assert!(
            html.contains("Not found") && html.contains("viewer"),
            "{html}"
        );
        let answer = site
            .request(VIEWER, Method::GET, path)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        let problem: serde_json::Value = answer.json().await.unwrap();
        assert!(problem["message"].is_string(), "{problem}");
    }
    let denied = site.submit(VIEWER, "/runs/shop.1/cancel", &[]).await;
    assert_eq!(denied.status(), StatusCode::FORBIDDEN);
    let html = denied.text().await.unwrap();
    assert!(html.contains("You may not do that"), "{html}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_forbid_what_is_not_theirs() {
    let site = Site::start().await;
    for path in ["/login", "/", "/runs/shop.1", "/runs/shop.99", "/audit"] {
        let answer = site.browse(VIEWER, path).await;
        let headers = answer.headers();
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert_eq!(policy, roadstead_web::CONTENT_SECURITY_POLICY, "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["referrer-policy"], "same-origin");
        assert_eq!(headers["cache-control"], "no-store", "{path}");
    }
    for name in assets::names() {
        let address = assets::url(&name);
        let answer = site.browse(Who::Nobody, &address).await;
        assert_eq!(answer.status(), StatusCode::OK, "{address}");
        let headers = answer.headers();
        assert!(
            headers["cache-control"]
                .to_str()
                .unwrap()
                .contains("immutable")
        );
        let etag = headers["etag"].clone();
        let again = site
            .request(Who::Nobody, Method::GET, &format!("/assets/{name}"))
            .header("if-none-match", etag);
        let again = again.send().await.unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{name}");
        assert_eq!(again.headers()["cache-control"], "no-cache");
    }
    let missing = site.browse(Who::Nobody, "/assets/no.css").await;
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    site.stop().await;
}

/// Such a log as no memory holds, which is only a hole on the disk.
async fn large_logs_are_sent_as_they_are_read(site: &Site) {
    let path = "/runs/shop.1/steps/hole/log";
    let logs = site.folder.path().join("logs/shop.1/1");
    let length = 4_u64 << 40;
    std::fs::write(logs.join("hole.log"), "\x1b[31mred").unwrap();
    let file = std::fs::File::options()
        .append(true)
        .open(logs.join("hole.log"));
    file.unwrap().set_len(length).unwrap();
    std::fs::write(logs.join("hole.seal"), format!("{length} 0\n1 0\n")).unwrap();
    let get = || site.request(VIEWER, Method::GET, path);
    let mut answer = get().send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-length"], length.to_string());
    let etag = answer.headers()["etag"].clone();
    let first = answer.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"\x1b[31mred"), "{first:?}");
    drop(answer);
    let known = get().header("if-none-match", etag).send().await.unwrap();
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
}
