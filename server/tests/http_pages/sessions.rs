//! Signing in and out, and API tokens.

use crate::site::{ADMIN, Site, VIEWER, Who, cookie, location, now};
use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use roadstead_pipelines::spec::Role;
use roadstead_server::http::auth;
use roadstead_server::store::hash_secret;

const PASSWORD: &str = "a long sentence of ada's";

async fn with_ada() -> Site {
    let site = Site::start().await;
    let hash = auth::hash_password(PASSWORD).unwrap();
    let store = &site.story.store;
    store
        .create_user("ada", &hash, Role::Deployer, now())
        .await
        .unwrap();
    site
}

async fn as_session(site: &Site, session: &str, path: &str) -> reqwest::Response {
    let request = site.request(Who::Nobody, Method::GET, path);
    let request = request
        .header("cookie", session)
        .header("accept", "text/html");
    request.send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_signs_in_and_out() {
    let site = with_ada().await;
    let form = site.page(Who::Nobody, "/login?next=/runs/shop.1").await;
    assert!(form.contains(r#"value="/runs/shop.1""#), "{form}");

    let wrong = [("user", "ada"), ("password", "no"), ("next", "/deliveries")];
    let answer = site.submit(Who::Nobody, "/login", &wrong).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(cookie(&answer, "roadstead_session"), None);
    let html = answer.text().await.unwrap();
    assert!(
        html.contains("do not fit") && !html.contains(">no<"),
        "{html}"
    );

    for (next, leads_to) in [
        ("/deliveries", "/deliveries"),
        ("//evil.example.com", "/"),
        ("https://evil.example.com", "/"),
    ] {
        let right = [("user", "ada"), ("password", PASSWORD), ("next", next)];
        let answer = site.submit(Who::Nobody, "/login", &right).await;
        assert_eq!(location(&answer), leads_to);
        let set = cookie(&answer, "roadstead_session").unwrap();
        assert!(
            set.contains("HttpOnly") && set.contains("SameSite=Lax"),
            "{set}"
        );
        // This site is reached by http.
        assert!(!set.contains("Secure"), "{set}");
        let session = set.split(';').next().unwrap();
        assert_eq!(
            as_session(&site, session, "/").await.status(),
            StatusCode::OK
        );

        let out = site.request(Who::Nobody, Method::POST, "/logout");
        let out = out.header("cookie", session).send().await.unwrap();
        assert_eq!(location(&out), "/login");
        let gone = cookie(&out, "roadstead_session").unwrap();
        assert!(gone.contains("Max-Age=0"), "{gone}");
        let after = as_session(&site, session, "/").await;
        assert_eq!(location(&after), "/login?next=%2F");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends() {
    let site = Site::start().await;
    let past = now() - SignedDuration::from_hours(13);
    let end = now() - SignedDuration::from_hours(1);
    let store = &site.story.store;
    store
        .create_session(hash_secret("old"), "viewer", past, end)
        .await
        .unwrap();
    let answer = as_session(&site, "roadstead_session=old", "/").await;
    assert_eq!(location(&answer), "/login?next=%2F");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_has_to_wait() {
    let site = Site::start().await;
    // At the same time: how long a password takes to check does not matter then.
    let guesses = (0..11).map(|number| {
        let password = format!("guess {number}");
        let site = &site;
        async move {
            let fields = [("user", "viewer"), ("password", password.as_str())];
            let answer = site.submit(Who::Nobody, "/login", &fields).await;
            let wait = answer.headers().contains_key("retry-after");
            (answer.status(), wait)
        }
    });
    let mut answers = futures_util::future::join_all(guesses).await;
    answers.sort();
    let (last, ten) = answers.split_last().unwrap();
    assert_eq!(*last, (StatusCode::TOO_MANY_REQUESTS, true));
    assert!(
        ten.iter()
            .all(|(status, _)| *status == StatusCode::UNAUTHORIZED)
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_works_until_it_is_revoked_or_ends() {
    let site = Site::start().await;
    let fields = [("name", "laptop"), ("role", "viewer"), ("days", "90")];
    let answer = site.submit(ADMIN, "/settings/tokens", &fields).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let html = answer.text().await.unwrap();
    let secret = html.split("<code>").find(|part| part.starts_with("rst_"));
    let secret = secret.unwrap().split('<').next().unwrap().to_owned();

    let use_it = |secret: String, path: &'static str, method: Method| {
        let request = site.request(Who::Nobody, method, path).bearer_auth(secret);
        async move { request.send().await.unwrap().status() }
    };
    let runners = "/api/v1/runners";
    assert_eq!(
        use_it(secret.clone(), runners, Method::GET).await,
        StatusCode::OK
    );
    let cancel = "/api/v1/runs/shop.1/cancel";
    let answer = use_it(secret.clone(), cancel, Method::POST).await;
    assert_eq!(answer, StatusCode::FORBIDDEN);

    let listed = site.page(ADMIN, "/settings/tokens").await;
    assert!(listed.contains("laptop") && !listed.contains(&secret));
    let others = site.page(VIEWER, "/settings/tokens").await;
    assert!(!others.contains("laptop"));

    let tokens = site.story.store.list_api_tokens().await.unwrap();
    assert!(tokens[0].expires_at.is_some());
    let revoke = format!("/settings/tokens/{}/revoke", tokens[0].id);
    let answer = site.submit(ADMIN, &revoke, &[]).await;
    assert_eq!(location(&answer), "/settings/tokens");
    let answer = use_it(secret, runners, Method::GET).await;
    assert_eq!(answer, StatusCode::UNAUTHORIZED);

    let (made, ended) = (now() - SignedDuration::from_hours(48), now());
    let store = &site.story.store;
    let hash = hash_secret("rst_old");
    store
        .create_api_token(hash, "old", Role::Admin, "admin", made, Some(ended))
        .await
        .unwrap();
    let answer = use_it("rst_old".into(), runners, Method::GET).await;
    assert_eq!(answer, StatusCode::UNAUTHORIZED);
    for bad in [("role", "king"), ("days", "-1"), ("days", "99999")] {
        let mut fields = vec![("name", "x"), ("role", "viewer"), ("days", "1")];
        fields.retain(|(name, _)| *name != bad.0);
        fields.push(bad);
        let answer = site.submit(ADMIN, "/settings/tokens", &fields).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{bad:?}");
    }
    site.stop().await;
}
