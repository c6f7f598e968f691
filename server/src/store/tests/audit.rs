//! What somebody with the database's password may do to the audit trail, and that it is found.

use super::super::conn::AnyConnection;
use super::super::{Result, Store, StoreError, audit};
use super::databases::{self, on_both_databases};
use crate::audit::{Head, Verifier};
use diesel::connection::SimpleConnection;
use jiff::Timestamp;
use roadstead_pipelines::authorship::Addresses;
use roadstead_pipelines::id::ProjectName;
use roadstead_pipelines::spec::Role;

on_both_databases!(
    every_tampering_is_found_and_named,
    the_database_itself_refuses_to_change_an_entry,
    what_was_told_before_there_were_chains_is_chained_once,
    without_its_head_a_chain_stands_still_and_says_so,
);

/// Three entries of the installation and two of project `shop`.
async fn begin(url: &str) -> Store {
    let store = Store::open(url).await.unwrap();
    let now: Timestamp = "2026-01-05T10:00:00Z".parse().unwrap();
    for name in ["ada", "bob", "cy"] {
        store
            .create_user(name, "hash", Role::Viewer, &Addresses::new(), "root", now)
            .await
            .unwrap();
    }
    let shop = ProjectName::parse("shop").unwrap();
    for repository in ["/srv/one.git", "/srv/two.git"] {
        store
            .upsert_project(shop.clone(), repository.into(), "key".into(), now)
            .await
            .unwrap();
    }
    store
}

/// The heads, or what is broken, as this transaction sees it; two entries at a time.
fn verify(
    connection: &mut AnyConnection,
    noted: &[Head],
) -> std::result::Result<Vec<Head>, String> {
    let mut verifier = Verifier::new(noted.to_vec());
    for chain in audit::chains(connection).unwrap() {
        let mut after = 0;
        loop {
            let page = audit::page(connection, &chain, after, 2).unwrap();
            for entry in &page.entries {
                verifier.entry(entry).map_err(|broken| broken.to_string())?;
            }
            if page.whole {
                let held = verifier.head(&page.head);
                held.map_err(|broken| broken.to_string())?;
                break;
            }
            after = page.last;
        }
    }
    verifier.finish().map_err(|broken| broken.to_string())
}

async fn heads(store: &Store) -> Vec<Head> {
    store.read(|c| Ok(verify(c, &[]).unwrap())).await.unwrap()
}

/// What whoever owns the tables can do first.
fn disarm(connection: &mut AnyConnection) {
    let on = match connection {
        AnyConnection::Sqlite(_) => "",
        AnyConnection::Postgres(_) => " ON events",
    };
    let statements = format!(
        "DROP TRIGGER events_are_not_changed{on}; DROP TRIGGER events_are_not_removed{on}; \
         DROP INDEX events_position;"
    );
    connection.batch_execute(&statements).unwrap();
}

const INSERT: &str = "INSERT INTO events (at, project, subject, actor, what, detail, position, hash) \
     SELECT at, project, subject, 'eve', what, detail,";

async fn every_tampering_is_found_and_named(url: &str) {
    let store = begin(url).await;
    let noted = heads(&store).await;
    let told: Vec<_> = noted.iter().map(ToString::to_string).collect();
    assert!(told[0].starts_with("installation=3:"), "{told:?}");
    assert!(told[1].starts_with("project/shop=2:"), "{told:?}");

    let second = "WHERE project IS NULL AND position = 2";
    let insert = |position: &str| format!("{INSERT} {position}, hash FROM events {second}");
    let changed = "entry 2 of installation (";
    let cases = [
        (format!("UPDATE events SET actor = 'eve' {second}"), changed),
        (format!("UPDATE events SET at = at + 1 {second}"), changed),
        (format!("UPDATE events SET what = 'x' {second}"), changed),
        (format!("UPDATE events SET subject = 'x' {second}"), changed),
        (format!("UPDATE events SET reason = 'x' {second}"), changed),
        (format!("UPDATE events SET before = '1' {second}"), changed),
        (format!("UPDATE events SET after = NULL {second}"), changed),
        (
            format!("UPDATE events SET detail = '{{}}' {second}"),
            changed,
        ),
        // The same to JSON, but not what was written.
        (
            format!("UPDATE events SET detail = detail || ' ' {second}"),
            changed,
        ),
        (format!("UPDATE events SET hash = 'x' {second}"), changed),
        (
            format!("DELETE FROM events {second}"),
            "entry 2 of installation is missing, 1 in all: removed from before entry 3",
        ),
        (
            "DELETE FROM events WHERE project IS NULL AND position = 3".to_owned(),
            "entry 3 of installation is missing, 1 in all: removed from the chain's end",
        ),
        // With its head: only the noted one tells.
        (
            format!(
                "DELETE FROM events WHERE project IS NULL AND position = 3; \
                 UPDATE audit_heads SET length = 2, hash = (SELECT hash FROM events {second}) \
                 WHERE chain = 'installation'"
            ),
            "entry 3 of installation is missing, 1 in all: removed from the chain's end",
        ),
        (
            "DELETE FROM events WHERE project = 'shop'; DELETE FROM audit_heads \
             WHERE chain = 'project/shop'"
                .to_owned(),
            "entry 1 of project/shop is missing, 2 in all",
        ),
        (insert("2"), "was inserted: entry 4 has to stand there"),
        (insert("0"), "was inserted: entry 4 has to stand there"),
        (insert("4"), "entry 4 of installation ("),
        (
            format!("UPDATE events SET project = 'shop' {second}"),
            "entry 2 of installation is missing",
        ),
        (
            "UPDATE events SET position = 5 - position WHERE project IS NULL AND position > 1"
                .to_owned(),
            "entry 2 of installation is missing",
        ),
        (
            "UPDATE audit_heads SET hash = 'x' WHERE chain = 'project/shop'".to_owned(),
            "the head of project/shop was changed",
        ),
        (
            "UPDATE audit_heads SET length = 1 WHERE chain = 'project/shop'".to_owned(),
            "entry 2 of project/shop was inserted",
        ),
        (
            "DELETE FROM audit_heads WHERE chain = 'project/shop'".to_owned(),
            "entry 1 of project/shop was inserted",
        ),
    ];
    for (statements, expected) in cases {
        let (tampering, noted) = (statements.clone(), noted.clone());
        let undone = store
            .write(move |c| -> Result<()> {
                disarm(c);
                c.batch_execute(&tampering)?;
                Err(StoreError::conflict(match verify(c, &noted) {
                    Ok(heads) => format!("everything held: {heads:?}"),
                    Err(broken) => broken,
                }))
            })
            .await;
        let said = undone.unwrap_err().to_string();
        assert!(said.contains(expected), "{statements}: {said}");
    }
    // And it was the tampering, not the looking.
    assert_eq!(heads(&store).await, noted);
}

async fn the_database_itself_refuses_to_change_an_entry(url: &str) {
    let store = begin(url).await;
    let before = heads(&store).await;
    for statement in [
        "UPDATE events SET actor = 'eve'",
        "DELETE FROM events WHERE position = 1",
    ] {
        let refused = store
            .write(move |c| Ok(c.batch_execute(statement)?))
            .await
            .unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("audit trail are never"), "{said}");
    }
    assert_eq!(heads(&store).await, before);
}

async fn what_was_told_before_there_were_chains_is_chained_once(url: &str) {
    const OLD: &str = "INSERT INTO events (at, project, subject, actor, what, detail) \
         VALUES (1, NULL, 'user ada', 'root', 'user_added', '{\"role\":\"viewer\"}')";
    let store = Store::open(url).await.unwrap();
    store
        .write(|c| Ok(c.batch_execute(&format!("{OLD}; {OLD}"))?))
        .await
        .unwrap();
    drop(store);
    let store = begin(url).await;
    let chained = heads(&store).await;
    assert_eq!(chained[0].length, 5);
    // Once a chain has begun, nothing gets into it but by its end.
    store.write(|c| Ok(c.batch_execute(OLD)?)).await.unwrap();
    drop(store);
    let store = Store::open(url).await.unwrap();
    let said = store.read(|c| Ok(verify(c, &[]))).await.unwrap();
    let said = said.unwrap_err();
    assert!(said.contains("was inserted: entry 6"), "{said}");
}

async fn without_its_head_a_chain_stands_still_and_says_so(url: &str) {
    let store = begin(url).await;
    store
        .write(|c| Ok(c.batch_execute("DELETE FROM audit_heads WHERE chain = 'installation'")?))
        .await
        .unwrap();
    let now: Timestamp = "2026-01-05T10:00:00Z".parse().unwrap();
    let refused = store
        .create_user("dora", "hash", Role::Viewer, &Addresses::new(), "root", now)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("audit head installation") && refused.contains("put it back"),
        "{refused}"
    );
    let known = store.get_user("dora").await.unwrap();
    assert!(known.is_none(), "nothing is done that is not told");
}
