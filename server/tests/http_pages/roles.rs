//! Every route × role, denied by default.

use crate::site::{ADMIN, DEPLOYER, Site, Who, location};
use reqwest::{Method, StatusCode};
use roadstead_pipelines::spec::Role;
use roadstead_web::urls::{self, route};
use serde_json::json;

const PLACE: &str = "/projects/shop/environments/production/services/web";
const API_SECRET: &str = "/api/v1/projects/shop/secrets/TOKEN";
const API_PLACE: &str = "/api/v1/projects/shop/environments/production/services/web";

/// Every address of the dashboard and the API with the least role that it asks for.
fn table() -> Vec<(Method, String, Role)> {
    let gets = [
        "/",
        "/events?topic=all",
        "/projects/shop",
        "/runs/shop.1",
        "/runs/shop.1/steps/test/log",
        "/runs/shop.1/steps/test/log/events",
        "/runs/shop.2/steps/test/artifacts/dist/app.js",
        "/deployments/shop.d1",
        PLACE,
        "/deliveries",
        "/runners",
        "/settings/account",
        "/audit",
        "/api/v1/projects",
        "/api/v1/projects/shop",
        "/api/v1/projects/shop/runs",
        "/api/v1/projects/shop/releases",
        "/api/v1/projects/shop/deployments",
        "/api/v1/projects/shop/events",
        "/api/v1/projects/shop/secrets",
        "/api/v1/runs/shop.1",
        "/api/v1/runs/shop.1/steps/test/log",
        "/api/v1/runs/shop.2/artifacts",
        "/api/v1/runs/shop.2/steps/test/artifacts/dist/app.js",
        "/api/v1/deployments/shop.d1",
        "/api/v1/runners",
        "/api/v1/account",
        "/api/v1/tokens",
    ];
    let posts = [
        "/projects/shop/runs",
        "/api/v1/projects/shop/runs",
        "/runs/shop.1/cancel",
        "/runs/shop.1/approve",
        "/runs/shop.1/retry",
        "/runs/shop.1/rerun",
        "/deployments/shop.d1/cancel",
        "/deliveries/1/redeliver",
        "/runners/harbour/drain",
        "/runners/harbour/resume",
        "/api/v1/runs/shop.1/cancel",
        "/api/v1/runs/shop.1/approve",
        "/api/v1/runs/shop.1/retry",
        "/api/v1/runs/shop.1/rerun",
        "/api/v1/deployments/shop.d1/cancel",
        "/api/v1/deliveries/1/redeliver",
        "/api/v1/runners/harbour/drain",
        "/api/v1/runners/harbour/resume",
    ];
    let verbs = ["promote", "rollback", "approve", "hold", "resume"];
    let verbs = verbs
        .iter()
        .flat_map(|verb| [format!("{PLACE}/{verb}"), format!("{API_PLACE}/{verb}")]);
    // What one does with one's own account.
    let own = [
        "/settings/account/password",
        "/settings/tokens",
        "/settings/tokens/0123456789ab/revoke",
        "/api/v1/tokens",
        "/api/v1/tokens/0123456789ab/revoke",
    ];
    let user_verbs = ["role", "emails", "password", "disable", "enable"];
    let user_verbs = user_verbs.iter().flat_map(|verb| {
        [
            format!("/settings/users/nobody/{verb}"),
            format!("/api/v1/users/nobody/{verb}"),
        ]
    });
    let users = ["/settings/users", "/api/v1/users"];
    let gets = gets
        .iter()
        .map(|path| (Method::GET, (*path).to_owned(), Role::Viewer));
    let posts = posts.iter().map(|path| (*path).to_owned()).chain(verbs);
    let posts = posts.map(|path| (Method::POST, path, Role::Deployer));
    let own = own.map(|path| (Method::POST, path.to_owned(), Role::Viewer));
    let secrets = ["/projects/shop/secrets", "/projects/shop/secrets/remove"];
    let lists = users
        .into_iter()
        .chain(["/api/v1/audit/export", "/projects/shop/secrets"]);
    let lists = lists.map(|path| (Method::GET, path.to_owned(), Role::Admin));
    let admins = users.map(str::to_owned).into_iter().chain(user_verbs);
    let admins = admins.chain(secrets.map(str::to_owned));
    let admins = admins.map(|path| (Method::POST, path, Role::Admin));
    let stored = [Method::PUT, Method::DELETE];
    let stored = stored.map(|method| (method, API_SECRET.to_owned(), Role::Admin));
    gets.chain(posts)
        .chain(own)
        .chain(lists)
        .chain(admins)
        .chain(stored)
        .collect()
}

/// Whether an address is one of a pattern with `{name}`s.
fn is_of(pattern: &str, path: &str) -> bool {
    let (pattern, path) = (pattern.split('/'), path.split('/'));
    let pattern: Vec<_> = pattern.collect();
    let path: Vec<_> = path.collect();
    pattern.len() == path.len()
        && pattern
            .iter()
            .zip(path)
            .all(|(part, given)| part.starts_with('{') || *part == given)
}

#[test]
fn the_table_misses_no_form() {
    let table = table();
    for pattern in route::POSTS {
        // Signing in and out is for everybody, and ends what the others need; both have tests of
        // their own.
        let open = [route::LOGIN, route::LOGOUT, route::ACCOUNT_SIGN_OUT].contains(&pattern);
        let listed = table
            .iter()
            .any(|(method, path, _)| *method == Method::POST && is_of(pattern, path));
        assert!(open || listed, "{pattern}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_asks_for_its_role() {
    let site = Site::start().await;
    site.log(&"shop.1".parse_run(), "test", "a line\n").await;
    assert_eq!(crate::artifacts::left(&site).await, "shop.2");
    for (method, path, least) in table() {
        for who in Who::ALL {
            let mut request = site.request(who, method.clone(), &path);
            if method != Method::GET {
                request = if path.starts_with("/api/") {
                    let body = match path.as_str() {
                        "/api/v1/tokens" => json!({"name": "x", "role": "viewer"}),
                        "/api/v1/users" => {
                            json!({"name": format!("x of {who:?}"), "role": "viewer"})
                        }
                        API_SECRET => json!({"value": "no secret at all"}),
                        "/api/v1/users/nobody/emails" => json!({"emails": []}),
                        "/api/v1/users/nobody/role" => json!({"role": "viewer"}),
                        _ => json!({}),
                    };
                    request.json(&body)
                } else {
                    request.form(&[("confirm", "")])
                };
            }
            let answer = request.send().await.unwrap();
            let status = answer.status();
            match who {
                Who::Nobody => assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}"),
                Who::Somebody(role) if role < least => {
                    assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path} as {role}");
                }
                Who::Somebody(role) => {
                    let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
                    assert!(
                        !refused.contains(&status),
                        "{method} {path} as {role}: {status}"
                    );
                    assert!(
                        !status.is_server_error(),
                        "{method} {path} as {role}: {status}"
                    );
                    if method == Method::GET {
                        assert_eq!(status, StatusCode::OK, "{method} {path} as {role}");
                    }
                }
            }
        }
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_not_do_it_is_told_that_and_not_what_is_wrong_with_it() {
    let site = Site::start().await;
    let odd = "before=x&limit=x&page=x&attempt=x&from=x&topic=x&all=x";
    for (method, path, least) in table() {
        for who in Who::ALL {
            let separator = if path.contains('?') { '&' } else { '?' };
            let path = format!("{path}{separator}{odd}");
            let mut request = site.request(who, method.clone(), &path);
            if method != Method::GET {
                let kind = if path.starts_with("/api/") {
                    "application/json"
                } else {
                    "application/x-www-form-urlencoded"
                };
                request = request
                    .header("content-type", kind)
                    .body(b"{\xff&%".to_vec());
            }
            let status = request.send().await.unwrap().status();
            let expected = match who {
                Who::Nobody => StatusCode::UNAUTHORIZED,
                Who::Somebody(role) if role < least => StatusCode::FORBIDDEN,
                Who::Somebody(_) => {
                    assert!(!status.is_server_error(), "{method} {path}: {status}");
                    continue;
                }
            };
            assert_eq!(status, expected, "{method} {path} as {who:?}");
        }
    }
    for path in [
        "poll",
        "heartbeat",
        "goodbye",
        "attempts/shop.1.a1/steps/test/log/seal",
    ] {
        let path = format!("/runner/v1/{path}");
        let request = site.request(Who::Nobody, Method::POST, &path);
        let request = request.header("content-type", "application/json");
        let answer = request.bearer_auth("wrong").body("{").send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    site.stop().await;
}

trait ParseRun {
    fn parse_run(&self) -> roadstead_pipelines::id::RunId;
}

impl ParseRun for str {
    fn parse_run(&self) -> roadstead_pipelines::id::RunId {
        roadstead_pipelines::id::RunId::parse(self).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_without_a_session_is_led_to_sign_in_and_back() {
    let site = Site::start().await;
    for (method, path, _) in table() {
        if method != Method::GET || path.starts_with("/api/") {
            continue;
        }
        let answer = site.browse(Who::Nobody, &path).await;
        assert_eq!(location(&answer), urls::login(&path), "{path}");
    }
    let form = site.submit(Who::Nobody, "/runs/shop.1/cancel", &[]).await;
    assert_eq!(form.status(), StatusCode::UNAUTHORIZED);
    assert!(form.text().await.unwrap().contains("/login?next="));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_open_to_runners_or_forges_is_closed() {
    let site = Site::start().await;
    for path in ["poll", "heartbeat", "goodbye"] {
        let path = &format!("/runner/v1/{path}");
        let request = site.request(ADMIN, Method::POST, path);
        let answer = request.json(&serde_json::json!({})).send().await.unwrap();
        assert!(answer.status().is_client_error(), "{path}");
    }
    let wrong = site
        .request(Who::Nobody, Method::GET, "/api/v1/projects")
        .bearer_auth("rst_of_nobody");
    let answer = wrong.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_sites_form_changes_nothing() {
    let site = Site::start().await;
    let hold = format!("{PLACE}/hold");
    let foreign = [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example.com"),
        ("origin", "null"),
    ];
    for (name, value) in foreign {
        let request = site
            .request(DEPLOYER, Method::POST, &hold)
            .header(name, value);
        let answer = request.form(&[("reason", "mine")]).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{name}: {value}");
        assert!(answer.headers().contains_key("content-security-policy"));
    }
    let world = site.story.store.load_world(&site.story.shop).await.unwrap();
    assert!(world.places.values().all(|place| place.hold.is_none()));

    let answer = site.submit(DEPLOYER, &hold, &[("reason", "mine")]).await;
    assert_eq!(location(&answer), PLACE);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybodys_editor_gets_the_schema_of_the_pipeline_file() {
    let site = Site::start().await;
    let answer = site.browse(Who::Nobody, "/schema/pipeline.json").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "application/schema+json");
    assert_eq!(
        answer.text().await.unwrap(),
        roadstead_pipelines::spec::SCHEMA
    );
    site.stop().await;
}
