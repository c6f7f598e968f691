//! Users over HTTP, by pages and by the API: what an admin does to somebody holds from that person's
//! next request on.

use crate::site::{ADMIN, DEPLOYER, Site, VIEWER, Who, cookie, location};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

/// The secret that a page shows once.
fn shown(html: &str, prefix: &str) -> String {
    let mut parts = html.split("<code>").filter(|part| part.starts_with(prefix));
    let secret = parts
        .next()
        .unwrap_or_else(|| panic!("no {prefix} in {html}"));
    assert!(parts.next().is_none());
    secret.split('<').next().unwrap().to_owned()
}

/// The cookie of a new session.
async fn sign_in(site: &Site, name: &str, password: &str) -> Result<String, StatusCode> {
    let fields = [("user", name), ("password", password)];
    let answer = site.submit(Who::Nobody, "/login", &fields).await;
    let set = cookie(&answer, "roadstead_session").ok_or(answer.status())?;
    Ok(set.split(';').next().unwrap().to_owned())
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.unwrap().status()
}

async fn json_of(request: RequestBuilder, expected: StatusCode) -> Value {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!(status, expected, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_looks_after_people_by_pages() {
    let site = Site::start().await;
    let new = [
        ("name", "Ada Lovelace"),
        ("role", "viewer"),
        ("password", ""),
    ];
    let answer = site.submit(ADMIN, "/settings/users", &new).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let html = answer.text().await.unwrap();
    let password = shown(&html, "rsp-");
    assert!(html.contains("Password of Ada Lovelace"));
    let again = site.page(ADMIN, "/settings/users").await;
    assert!(again.contains("Ada Lovelace") && !again.contains(&password));

    let session = sign_in(&site, "Ada Lovelace", &password).await.unwrap();
    let hold = "/projects/shop/environments/production/services/web/hold";
    let as_ada = |method, path: &str| {
        let request = site.request(Who::Nobody, method, path);
        request.header("cookie", &session)
    };
    let reason = [("reason", "mine")];
    let refused = as_ada(Method::POST, hold).form(&reason);
    assert_eq!(status(refused).await, StatusCode::FORBIDDEN);

    // A role holds from the next request on.
    let ada = "/settings/users/Ada%20Lovelace";
    let role = [("role", "deployer")];
    let answer = site.submit(ADMIN, &format!("{ada}/role"), &role).await;
    assert_eq!(location(&answer), "/settings/users");
    let allowed = as_ada(Method::POST, hold).form(&reason);
    assert_eq!(status(allowed).await, StatusCode::SEE_OTHER);
    let history = site.page(VIEWER, "/audit").await;
    assert!(history.contains("viewer → deployer"));
    assert!(history.contains("<strong>Ada Lovelace</strong>"));

    // Another password ends the session.
    let answer = site.submit(ADMIN, &format!("{ada}/password"), &[]).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let second = shown(&answer.text().await.unwrap(), "rsp-");
    assert_ne!(password, second);
    let out = status(as_ada(Method::GET, "/api/v1/account")).await;
    assert_eq!(out, StatusCode::UNAUTHORIZED);
    let old = sign_in(&site, "Ada Lovelace", &password).await;
    assert_eq!(old, Err(StatusCode::UNAUTHORIZED));

    let session = sign_in(&site, "Ada Lovelace", &second).await.unwrap();
    let answer = site.submit(ADMIN, &format!("{ada}/disable"), &[]).await;
    assert_eq!(location(&answer), "/settings/users");
    let request = site.request(Who::Nobody, Method::GET, "/api/v1/account");
    let out = status(request.header("cookie", &session)).await;
    assert_eq!(out, StatusCode::UNAUTHORIZED);
    let disabled = sign_in(&site, "Ada Lovelace", &second).await;
    assert_eq!(disabled, Err(StatusCode::UNAUTHORIZED));
    let answer = site.submit(ADMIN, &format!("{ada}/enable"), &[]).await;
    assert_eq!(location(&answer), "/settings/users");
    sign_in(&site, "Ada Lovelace", &second).await.unwrap();
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_says_how_people_commit() {
    let site = Site::start().await;
    let path = "/settings/users/deployer/emails";
    let sent = [("emails", "Dep@Example.com\n dep@home.example, ")];
    let answer = site.submit(ADMIN, path, &sent).await;
    assert_eq!(location(&answer), "/settings/users");
    let page = site.page(ADMIN, "/settings/users").await;
    assert!(page.contains("dep@example.com, dep@home.example"), "{page}");
    for (path, emails, said) in [
        (path, "dep@", "`dep@` is no e-mail address"),
        (
            "/settings/users/viewer/emails",
            "DEP@example.com",
            "is the address of `deployer` already",
        ),
    ] {
        let answer = site.submit(ADMIN, path, &[("emails", emails)]).await;
        assert!(answer.status().is_client_error(), "{emails}");
        let html = answer.text().await.unwrap();
        assert!(html.contains(said), "{said}: {html}");
    }
    let request = site.request(ADMIN, Method::POST, "/api/v1/users/deployer/emails");
    let user = json_of(
        request.json(&json!({"emails": ["d@example.com"]})),
        StatusCode::OK,
    )
    .await;
    assert_eq!(user["emails"], json!(["d@example.com"]));

    // With the rest of what is known of somebody new, or not at all.
    let mut new = [
        ("name", "Ada"),
        ("role", "viewer"),
        ("password", ""),
        ("emails", "ada@example.com D@example.com"),
    ];
    let answer = site.submit(ADMIN, "/settings/users", &new).await;
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    new[3].1 = "ada@example.com,ada@home.example";
    let answer = site.submit(ADMIN, "/settings/users", &new).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let page = site.page(ADMIN, "/settings/users").await;
    assert!(page.contains("ada@example.com, ada@home.example"), "{page}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_offered_what_is_refused() {
    let site = Site::start().await;
    let page = site.page(ADMIN, "/settings/users").await;
    assert!(!page.contains("/settings/users/admin/password"), "{page}");
    assert!(page.contains("/settings/users/viewer/password"), "{page}");
    assert!(page.contains("Change your password"), "{page}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_told_beside_the_form() {
    let site = Site::start().await;
    for (name, role, password, said) in [
        ("", "viewer", "", "1 to 64 characters"),
        ("a/b", "viewer", "", "without slashes"),
        ("Roadstead", "viewer", "", "nobody can be called"),
        ("ada", "king", "", "viewer, deployer or admin"),
        ("ada", "viewer", "short", "12 to 256 characters"),
        ("VIEWER", "viewer", "", "there is a user `viewer` already"),
    ] {
        let fields = [("name", name), ("role", role), ("password", password)];
        let answer = site.submit(ADMIN, "/settings/users", &fields).await;
        assert!(answer.status().is_client_error(), "{name} {role}");
        let html = answer.text().await.unwrap();
        assert!(html.to_lowercase().contains(said), "{said}: {html}");
    }
    assert_eq!(site.story.store.list_users().await.unwrap().len(), 3);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_admin_can_be_nothing_less() {
    let site = Site::start().await;
    let page = site.page(ADMIN, "/settings/users").await;
    assert_eq!(page.matches("the last admin").count(), 2, "{page}");
    assert!(!page.contains("/settings/users/admin/disable"));
    for (verb, fields) in [("disable", vec![]), ("role", vec![("role", "viewer")])] {
        let path = format!("/settings/users/admin/{verb}");
        let answer = site.submit(ADMIN, &path, &fields).await;
        assert_eq!(answer.status(), StatusCode::CONFLICT);
        let html = answer.text().await.unwrap();
        assert!(html.contains("is the last admin"), "{html}");
    }
    // One of two may go, and sees at once that it did.
    let role = [("role", "admin")];
    let path = "/settings/users/deployer/role";
    site.submit(ADMIN, path, &role).await;
    let path = "/settings/users/admin/role";
    let answer = site.submit(ADMIN, path, &[("role", "viewer")]).await;
    assert_eq!(location(&answer), "/");
    let answer = site.browse(ADMIN, "/settings/users").await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    site.page(DEPLOYER, "/settings/users").await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_looks_after_people_by_the_api() {
    let site = Site::start().await;
    let get = |path: &str| site.request(ADMIN, Method::GET, path);
    let post = |path: &str, body: Value| site.request(ADMIN, Method::POST, path).json(&body);
    let (ok, created) = (StatusCode::OK, StatusCode::CREATED);

    let new = json!({"name": "ada", "role": "deployer"});
    let made = json_of(post("/api/v1/users", new.clone()), created).await;
    assert_eq!(
        (&made["name"], &made["role"]),
        (&json!("ada"), &json!("deployer"))
    );
    let password = made["password"].as_str().unwrap();
    sign_in(&site, "ada", password).await.unwrap();
    json_of(post("/api/v1/users", new), StatusCode::CONFLICT).await;
    let given = json!({"name": "bob", "role": "viewer", "password": "bob's own sentence"});
    let made = json_of(post("/api/v1/users", given), created).await;
    assert_eq!(made.get("password"), None);
    sign_in(&site, "bob", "bob's own sentence").await.unwrap();

    let changed = post("/api/v1/users/ada/role", json!({"role": "viewer"}));
    assert_eq!(json_of(changed, ok).await["role"], "viewer");
    let disabled = json_of(post("/api/v1/users/ada/disable", json!({})), ok).await;
    assert!(disabled["disabled_at"].is_string());
    let list = json_of(get("/api/v1/users"), ok).await;
    let names: Vec<_> = list["users"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| user["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["ada", "admin", "bob", "deployer", "viewer"]);
    assert!(!list.to_string().contains("hash"));
    let enabled = json_of(post("/api/v1/users/ada/enable", json!({})), ok).await;
    assert_eq!(enabled["disabled_at"], Value::Null);
    let reset = json_of(post("/api/v1/users/ada/password", json!({})), ok).await;
    let password = reset["password"].as_str().unwrap();
    sign_in(&site, "ada", password).await.unwrap();
    let nobody = post("/api/v1/users/zoe/disable", json!({}));
    json_of(nobody, StatusCode::NOT_FOUND).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_gives_no_more_than_it_has() {
    let site = Site::start().await;
    let (ok, created) = (StatusCode::OK, StatusCode::CREATED);
    let with = |secret: &Value, method, path: &str| {
        let request = site.request(Who::Nobody, method, path);
        request.bearer_auth(secret.as_str().unwrap())
    };
    let ask = |role: &str, days: Value| json!({"name": "ci", "role": role, "days": days});
    let request = site.request(DEPLOYER, Method::POST, "/api/v1/tokens");
    let weak = json_of(request.json(&ask("viewer", json!(7))), created).await;
    let account = with(&weak["token"], Method::GET, "/api/v1/account");
    let account = json_of(account, ok).await;
    assert_eq!(
        account,
        json!({"name": "deployer", "role": "viewer", "via": "token"})
    );

    // With a token one makes no stronger one, none that lives longer, and no password.
    let make = |body: Value| with(&weak["token"], Method::POST, "/api/v1/tokens").json(&body);
    json_of(make(ask("deployer", json!(1))), StatusCode::FORBIDDEN).await;
    let second = json_of(make(ask("viewer", Value::Null)), created).await;
    assert_eq!(second["expires_at"], weak["expires_at"]);
    let use_second = || with(&second["token"], Method::GET, "/api/v1/account");
    json_of(use_second(), ok).await;
    let fields = [("password", "x"), ("new_password", "a sentence of mine")];
    let change = with(&weak["token"], Method::POST, "/settings/account/password");
    assert_eq!(status(change.form(&fields)).await, StatusCode::FORBIDDEN);

    // Everybody's list is for admins; their own for everybody.
    let all = "/api/v1/tokens?all=true";
    let refused = site.request(DEPLOYER, Method::GET, all);
    assert_eq!(status(refused).await, StatusCode::FORBIDDEN);
    let all = json_of(site.request(ADMIN, Method::GET, all), ok).await;
    let own = json_of(site.request(DEPLOYER, Method::GET, "/api/v1/tokens"), ok).await;
    assert_eq!(all["tokens"].as_array().unwrap().len(), 2);
    assert_eq!(own, all);
    assert_eq!(own["tokens"][0]["owner"], "deployer");
    assert_eq!(own["tokens"][0]["made_with"], weak["id"]);
    assert!(!own.to_string().contains(weak["token"].as_str().unwrap()));
    let none = json_of(site.request(VIEWER, Method::GET, "/api/v1/tokens"), ok).await;
    assert_eq!(none, json!({"tokens": []}));

    let revoke = format!("/api/v1/tokens/{}/revoke", weak["id"].as_str().unwrap());
    let others = site.request(VIEWER, Method::POST, &revoke);
    assert_eq!(status(others).await, StatusCode::NOT_FOUND);
    let revoked = site.request(ADMIN, Method::POST, &revoke);
    assert_eq!(json_of(revoked, ok).await["name"], "ci");
    let account = with(&weak["token"], Method::GET, "/api/v1/account");
    assert_eq!(status(account).await, StatusCode::UNAUTHORIZED);
    // Nor does what was made with it.
    assert_eq!(status(use_second()).await, StatusCode::UNAUTHORIZED);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_resets_their_own_password() {
    let site = Site::start().await;
    let conflict = StatusCode::CONFLICT;
    let request = site.request(ADMIN, Method::POST, "/api/v1/tokens");
    let token = json!({"name": "ci", "role": "admin", "days": 1});
    let token = json_of(request.json(&token), StatusCode::CREATED).await;
    let request = site.request(Who::Nobody, Method::POST, "/api/v1/users/admin/password");
    let request = request.bearer_auth(token["token"].as_str().unwrap());
    let body = json!({"password": "a sentence of mine"});
    let refused = json_of(request.json(&body), conflict).await;
    let said = "change your own password on the account page";
    assert_eq!(refused["message"], said);
    let path = "/settings/users/admin/password";
    let answer = site.submit(ADMIN, path, &[("password", "")]).await;
    assert_eq!(answer.status(), conflict);
    let html = answer.text().await.unwrap();
    assert!(
        html.contains(&said[1..]) && !html.contains("rsp-"),
        "{html}"
    );
    // Their session goes on.
    site.page(ADMIN, "/settings/account").await;
    site.stop().await;
}
