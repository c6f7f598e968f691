//! Secrets over HTTP: they go in and never come out.

use crate::site::{ADMIN, Site, VIEWER, location};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const VALUE: &str = "correct horse\nbattery <staple>";
const API: &str = "/api/v1/projects/shop/secrets";

async fn put(site: &Site, path: &str, body: &Value) -> StatusCode {
    let request = site.request(ADMIN, Method::PUT, &format!("{API}/{path}"));
    request.json(body).send().await.unwrap().status()
}

async fn listed(site: &Site) -> Vec<Value> {
    let answer = site.request(VIEWER, Method::GET, API).send().await.unwrap();
    let text = answer.text().await.unwrap();
    assert!(!text.contains("battery"), "{text}");
    let list: Value = serde_json::from_str(&text).unwrap();
    list["secrets"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_goes_in_and_only_its_name_comes_out() {
    let site = Site::start().await;
    let value = json!({"value": VALUE, "branches": ["main", "release/*"]});
    assert_eq!(put(&site, "TOKEN", &value).await, StatusCode::OK);
    assert_eq!(
        put(&site, "TOKEN?environment=staging", &json!({"value": VALUE})).await,
        StatusCode::OK
    );
    let wrong = [
        ("TOKEN", json!({"value": "short"})),
        ("TOKEN", json!({"value": VALUE, "branches": ["/main"]})),
        ("TOKEN", json!({"value": VALUE, "branch": "main"})),
        ("TOKEN?environment=No", json!({"value": VALUE})),
        ("1TOKEN", json!({"value": VALUE})),
    ];
    for (path, body) in wrong {
        assert_eq!(
            put(&site, path, &body).await,
            StatusCode::BAD_REQUEST,
            "{path} {body}"
        );
    }
    let list = listed(&site).await;
    assert_eq!(list.len(), 2);
    assert_eq!(
        (&list[0]["name"], &list[0]["version"], &list[0]["set_by"]),
        (&json!("TOKEN"), &json!(1), &json!("admin"))
    );
    assert_eq!(list[0]["branches"], json!(["main", "release/*"]));
    assert_eq!(list[1]["environment"], json!("staging"));

    // By the page, where a browser makes two bytes of each line's end.
    let page = "/projects/shop/secrets";
    let form = [
        ("name", "TOKEN"),
        ("environment", ""),
        ("branches", " main  "),
        ("value", "a new value\r\nin two lines"),
    ];
    let answer = site.submit(ADMIN, page, &form).await;
    assert_eq!(location(&answer), page);
    let shown = site.page(ADMIN, page).await;
    assert!(
        shown.contains("staging/TOKEN")
            && !shown.contains("battery")
            && !shown.contains("two lines")
    );
    let short = [("name", "TOKEN"), ("value", "tiny-77")];
    let answer = site.submit(ADMIN, page, &short).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let shown = answer.text().await.unwrap();
    assert!(
        shown.contains("at least 8 bytes") && !shown.contains("tiny-77"),
        "{shown}"
    );
    let list = listed(&site).await;
    assert_eq!(
        (&list[0]["version"], &list[0]["branches"]),
        (&json!(2), &json!(["main"]))
    );

    let answer = site
        .submit(
            ADMIN,
            "/projects/shop/secrets/remove",
            &[("name", "staging/TOKEN")],
        )
        .await;
    assert_eq!(location(&answer), page);
    let gone = site.request(
        ADMIN,
        Method::DELETE,
        &format!("{API}/TOKEN?environment=staging"),
    );
    assert_eq!(gone.send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let gone = site.request(ADMIN, Method::DELETE, &format!("{API}/TOKEN"));
    assert_eq!(gone.send().await.unwrap().status(), StatusCode::OK);
    assert!(listed(&site).await.is_empty());
    site.stop().await;
}
