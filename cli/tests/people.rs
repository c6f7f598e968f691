//! Users and API tokens from the command line, against a server of its own.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what broke by panicking where it broke"
)]

#[path = "support/server.rs"]
mod server;

use serde_json::Value;
use server::{ADMIN_PASSWORD, Server, token_of};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_looks_after_people() {
    let server = Server::start();
    let admin = token_of(&server.url, "admin", ADMIN_PASSWORD, "admin").await;
    let added = server.text(&admin, &["users", "add", "ada", "--role", "deployer"]);
    let password = added.split("password ").nth(1).unwrap();
    let password = password.split_whitespace().next().unwrap();
    let ada = token_of(&server.url, "ada", password, "deployer").await;

    let own = server.text(&ada, &["tokens", "create", "laptop", "--role", "viewer"]);
    let own = own.trim();
    assert!(own.starts_with("rst_"), "{own}");
    let listed = server.json(own, &["tokens", "list"]);
    assert_eq!(listed["tokens"].as_array().unwrap().len(), 2);
    let (status, said) = server.refused(own, &["users", "list"]);
    assert_eq!(status, 4);
    assert!(
        said.contains("this needs the role admin; ada is viewer"),
        "{said}"
    );

    let users = server.json(&admin, &["users", "list"]);
    let names: Vec<_> = users["users"].as_array().unwrap().iter().collect();
    assert_eq!((names.len(), &names[0]["name"]), (2, &Value::from("ada")));
    let line = server.text(&admin, &["users", "role", "ada", "viewer"]);
    assert!(
        line.starts_with("ada ") && line.contains("viewer"),
        "{line}"
    );

    let tokens = server.json(&admin, &["tokens", "list", "--all"]);
    let mut all = tokens["tokens"].as_array().unwrap().iter();
    let laptop = all.find(|token| token["name"] == "laptop").unwrap();
    let id = laptop["id"].as_str().unwrap();
    server.text(&admin, &["tokens", "revoke", id]);
    let (status, _) = server.refused(own, &["tokens", "list"]);
    assert_eq!(status, 4);

    let line = server.text(&admin, &["users", "disable", "ada"]);
    assert!(line.contains("disabled since"), "{line}");
    let (status, _) = server.refused(&ada, &["tokens", "list"]);
    assert_eq!(status, 4);
    let line = server.text(&admin, &["users", "enable", "ada"]);
    assert!(line.contains("signed in at"), "{line}");
    let (status, said) = server.refused(&admin, &["users", "disable", "admin"]);
    assert_eq!(status, 1);
    assert!(said.contains("`admin` is the last admin"), "{said}");
    let reset = server.json(&admin, &["users", "reset-password", "ada"]);
    let second = reset["password"].as_str().unwrap();
    assert_ne!(second, password);
    token_of(&server.url, "ada", second, "viewer").await;
}

#[test]
fn a_password_comes_by_standard_input() {
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let token_of =
        |name, password: &str| runtime.block_on(token_of(&server.url, name, password, "viewer"));
    let admin = runtime.block_on(token_of_admin(&server.url));
    let mut add = Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .args(["users", "add", "Bob B.", "--password-stdin"])
        .env("ROADSTEAD_URL", &server.url)
        .env("ROADSTEAD_TOKEN", admin)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = add.stdin.take().unwrap();
    input.write_all(b"a sentence of bob's\n").unwrap();
    drop(input);
    let added = add.wait_with_output().unwrap();
    assert!(added.status.success());
    let said = String::from_utf8(added.stdout).unwrap();
    assert!(
        said.starts_with("Bob B. ") && !said.contains("password"),
        "{said}"
    );
    token_of("Bob B.", "a sentence of bob's");
}

async fn token_of_admin(url: &str) -> String {
    token_of(url, "admin", ADMIN_PASSWORD, "admin").await
}

#[test]
fn what_the_server_keeps_is_its_own() {
    let server = Server::start();
    let data = server.folder.path().join("data");
    for folder in ["", "logs"] {
        assert_eq!(mode(&data.join(folder)), 0o700, "{folder}");
    }
    for file in ["roadstead.db", "roadstead.db-wal", "roadstead.db-shm"] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
}
