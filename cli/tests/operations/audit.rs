//! The audit trail from the command line, against a server of its own.

use crate::server::{ADMIN_PASSWORD, Server, token_of};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_verified_against_itself_and_against_a_noted_head() {
    let server = Server::start();
    let admin = token_of(&server.url, "admin", ADMIN_PASSWORD, "admin").await;
    server.text(&admin, &["users", "add", "ada", "--role", "viewer"]);
    let first = server.json(&admin, &["audit", "verify"]);
    let head = &first["heads"][0];
    let noted = format!(
        "{}={}:{}",
        head["chain"].as_str().unwrap(),
        head["length"],
        head["head"].as_str().unwrap()
    );

    server.text(&admin, &["users", "role", "ada", "deployer"]);
    let told = server.text(&admin, &["audit", "verify", "--head", &noted]);
    assert!(
        told.contains(" entries hold.") && told.contains("\ninstallation="),
        "{told}"
    );
    assert!(!told.contains(&noted), "one entry more: {told}");

    let export = server.text(&admin, &["audit", "export"]);
    let turn = export
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|entry| entry["what"] == "role_changed")
        .unwrap();
    let (before, after) = (&turn["before"], &turn["after"]);
    assert_eq!(
        (before.as_str(), after.as_str()),
        (Some("viewer"), Some("deployer"))
    );
    assert_eq!(
        (&turn["actor"], &turn["subject"]),
        (&"admin".into(), &"user ada".into())
    );

    // What somebody did to the copy.
    let file = server.folder.path().join("trail.jsonl");
    let path = file.to_str().unwrap();
    let verify = |text: &str| {
        std::fs::write(&file, text).unwrap();
        server.run("", &["audit", "verify", path, "--head", &noted])
    };
    assert!(verify(&export).status.success());
    let position = turn["position"].as_u64().unwrap();
    let without = |needle: &str| -> String {
        let kept = export.lines().filter(|line| !line.contains(needle));
        kept.flat_map(|line| [line, "\n"]).collect()
    };
    let tampered = [
        (
            export.replace("\"after\":\"deployer\"", "\"after\":\"admin\""),
            format!("entry {position} of installation (role_changed user ada by admin"),
        ),
        (
            without("\"what\":\"role_changed\""),
            format!("entry {position} of installation is missing, 1 in all"),
        ),
        (
            without("\"length\":"),
            "the export is not whole: it has no head of installation".to_owned(),
        ),
        (
            "{\"chain\":\"installation\"}\n".to_owned(),
            "line 1 is no line of an export".to_owned(),
        ),
    ];
    for (text, expected) in tampered {
        let output = verify(&text);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&expected), "{expected}: {said}");
    }

    let ada = server.json(&admin, &["users", "reset-password", "ada"]);
    let password = ada["password"].as_str().unwrap();
    let ada = token_of(&server.url, "ada", password, "deployer").await;
    let (status, said) = server.refused(&ada, &["audit", "verify"]);
    assert_eq!(status, 4);
    assert!(said.contains("this needs the role admin"), "{said}");
}
