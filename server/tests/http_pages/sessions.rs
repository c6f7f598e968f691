//! Signing in and out, changing the password, and API tokens.

use crate::site::{ADMIN, Site, VIEWER, Who, cookie, location, now};
use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use roadstead_pipelines::authorship::Addresses;
use roadstead_pipelines::spec::Role;
use roadstead_server::http::auth;
use roadstead_server::store::{NewApiToken, hash_secret};
use std::time::{Duration, Instant};

const PASSWORD: &str = "a long sentence of ada's";

async fn with_ada() -> Site {
    let site = Site::start().await;
    let hash = auth::hash_password(PASSWORD).await.unwrap();
    let store = &site.story.store;
    store
        .create_user(
            "ada",
            &hash,
            Role::Deployer,
            &Addresses::new(),
            "test",
            now(),
        )
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
    let viewer = store.get_user("viewer").await.unwrap().unwrap();
    store
        .create_session(hash_secret("old"), &viewer, None, past, end)
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
async fn an_address_that_tries_many_names_has_to_wait() {
    let site = Site::start().await;
    // A minute ahead: however slow the machine is, the budget is still used up.
    let soon = Instant::now() + Duration::from_secs(60);
    let address = Some("192.0.2.7".parse().unwrap());
    for number in 0..60 {
        let name = format!("name {number}");
        site.app.sign_ins.begin(&name, address, soon).unwrap();
    }
    let guess = async |forwarded: &str| {
        let request = site.request(Who::Nobody, Method::POST, "/login");
        let request = request.header("x-forwarded-for", forwarded);
        let fields = [("user", "viewer"), ("password", "a guess")];
        request.form(&fields).send().await.unwrap()
    };
    let refused = guess("203.0.113.9, 192.0.2.7").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers().contains_key("retry-after"));
    let html = refused.text().await.unwrap();
    let said = "Too many failed tries from this address: try again in";
    assert!(html.contains(said), "{html}");
    // What the client itself wrote does not count.
    let other = guess("192.0.2.7, 203.0.113.9").await;
    assert_eq!(other.status(), StatusCode::UNAUTHORIZED);
    site.stop().await;
}

/// The cookie of a new session.
async fn sign_in(site: &Site, name: &str, password: &str) -> String {
    let fields = [("user", name), ("password", password), ("next", "/")];
    let answer = site.submit(Who::Nobody, "/login", &fields).await;
    assert_eq!(location(&answer), "/");
    let set = cookie(&answer, "roadstead_session").unwrap();
    set.split(';').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_ends_the_sessions_of_the_old_one() {
    let site = with_ada().await;
    let here = sign_in(&site, "ada", PASSWORD).await;
    let elsewhere = sign_in(&site, "ada", PASSWORD).await;
    let change = |session: String, current: &'static str, new: &'static str| {
        let request = site.request(Who::Nobody, Method::POST, "/settings/account/password");
        let request = request
            .header("cookie", session)
            .header("accept", "text/html")
            .form(&[("password", current), ("new_password", new)]);
        async move { request.send().await.unwrap() }
    };
    let new = "another sentence of ada's";
    let wrong = change(here.clone(), "not it", new).await;
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
    let html = wrong.text().await.unwrap();
    assert!(html.contains("The current password is wrong."), "{html}");
    let short = change(here.clone(), PASSWORD, "short").await;
    assert_eq!(short.status(), StatusCode::BAD_REQUEST);
    let page = as_session(&site, &elsewhere, "/settings/account").await;
    let html = page.text().await.unwrap();
    assert!(html.contains("signed in on 2 devices"), "{html}");

    let changed = change(here.clone(), PASSWORD, new).await;
    assert_eq!(location(&changed), "/settings/account");
    let set = cookie(&changed, "roadstead_session").unwrap();
    let fresh = set.split(';').next().unwrap();
    let page = as_session(&site, fresh, "/").await;
    assert_eq!(page.status(), StatusCode::OK);
    for old in [&here, &elsewhere] {
        let page = as_session(&site, old, "/").await;
        assert_eq!(location(&page), "/login?next=%2F");
    }
    let fields = [("user", "ada"), ("password", PASSWORD)];
    let answer = site.submit(Who::Nobody, "/login", &fields).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);

    // And out everywhere, here too.
    let other = sign_in(&site, "ada", new).await;
    let out = site.request(Who::Nobody, Method::POST, "/settings/account/sign-out");
    let out = out.header("cookie", fresh).send().await.unwrap();
    assert_eq!(location(&out), "/login");
    for ended in [fresh, &other] {
        let page = as_session(&site, ended, "/").await;
        assert_eq!(location(&page), "/login?next=%2F");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_current_password_cannot_be_guessed_with_a_session() {
    let site = with_ada().await;
    let session = sign_in(&site, "ada", PASSWORD).await;
    let guesses = (0..11).map(|number| {
        let request = site.request(Who::Nobody, Method::POST, "/settings/account/password");
        let guess = format!("guess {number}");
        let fields = [("password", guess.as_str()), ("new_password", PASSWORD)];
        let request = request.header("cookie", &session).form(&fields);
        async move { request.send().await.unwrap() }
    });
    let answers = futures_util::future::join_all(guesses).await;
    let refused: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status() == StatusCode::TOO_MANY_REQUESTS)
        .collect();
    assert_eq!(refused.len(), 1);
    assert!(refused[0].headers().contains_key("retry-after"));
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

    let own = site.page(ADMIN, "/settings/account").await;
    assert!(own.contains("laptop") && !own.contains(&secret));
    let others = site.page(VIEWER, "/settings/account").await;
    assert!(!others.contains("laptop"));

    let tokens = site.story.store.list_api_tokens(None).await.unwrap();
    assert!(tokens[0].expires_at.is_some());
    let revoke = format!("/settings/tokens/{}/revoke", tokens[0].id);
    let answer = site.submit(VIEWER, &revoke, &[]).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let answer = site.submit(ADMIN, &revoke, &[]).await;
    assert_eq!(location(&answer), "/settings/account");
    let answer = use_it(secret, runners, Method::GET).await;
    assert_eq!(answer, StatusCode::UNAUTHORIZED);

    let (made, ended) = (now() - SignedDuration::from_hours(48), now());
    let store = &site.story.store;
    let old = NewApiToken {
        token_hash: hash_secret("rst_old"),
        name: "old".into(),
        role: Role::Admin,
        owner: "admin".into(),
        expires_at: Some(ended),
        made_with: None,
    };
    store.create_api_token(old, made).await.unwrap();
    let answer = use_it("rst_old".into(), runners, Method::GET).await;
    assert_eq!(answer, StatusCode::UNAUTHORIZED);
    for bad in [("role", "king"), ("days", "-1"), ("days", "99999")] {
        let mut fields = vec![("name", "x"), ("role", "viewer"), ("days", "1")];
        fields.retain(|(name, _)| *name != bad.0);
        fields.push(bad);
        let answer = site.submit(ADMIN, "/settings/tokens", &fields).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{bad:?}");
    }
    // Nobody gives away more than they have.
    let fields = [("name", "x"), ("role", "deployer"), ("days", "1")];
    let answer = site.submit(VIEWER, "/settings/tokens", &fields).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    site.stop().await;
}
