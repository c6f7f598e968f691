//! What servers do to each other by starting.

use crate::databases::Cluster;
use crate::pair::Shared;
use crate::psql::sql;
use crate::waiting::{PATIENCE, PAUSE};
use std::time::Instant;

const PROJECT: &str = "[[projects]]\nname = \"shop\"\nrepository = \"/nowhere/shop.git\"\n\
                       webhook_secret = \"sixteen characters\"\n";
const NO_AWS: &str = "http://127.0.0.1:9";

/// Looks until it is so; fails when it is not within two minutes.
fn until(what: &str, so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "{what}: not in time");
        std::thread::sleep(PAUSE);
    }
}

#[test]
fn two_that_start_at_once_print_one_password() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start();
    let shared = Shared::new(cluster.database(), NO_AWS.into(), folder.path(), PROJECT);
    let started = std::thread::scope(|scope| {
        let starting = ["a", "b", "c"].map(|name| {
            let shared = &shared;
            scope.spawn(move || shared.start_without_password(name))
        });
        starting.map(|started| started.join().unwrap())
    });
    let printed: Vec<_> = started.iter().flat_map(|(_, printed)| printed).collect();
    assert_eq!(printed.len(), 1, "{printed:?}");
    assert!(printed[0].starts_with("administrator `admin`, password `"));
    let users = sql(&shared.database, "SELECT string_agg(name, ',') FROM users");
    assert_eq!(users, "admin");
    let (again, printed) = shared.start_without_password("d");
    assert_eq!(printed, Vec::<String>::new());
    drop(again);
}

#[test]
fn a_server_waits_at_its_start_for_a_database_that_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start();
    let shared = Shared::new(cluster.database(), NO_AWS.into(), folder.path(), PROJECT);
    cluster.stop();
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| shared.start("a"));
        until("the server says that it waits", || {
            shared.log("a").contains("waits for its database")
        });
        assert!(!starting.is_finished());
        cluster.start_again();
        drop(starting.join().unwrap());
    });
}

#[test]
fn no_two_servers_have_one_data_folder_or_one_embedded_database() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| format!("sqlite:{}", folder.path().join(path).display());
    let mut shared = Shared::new(at("shared.db"), NO_AWS.into(), folder.path(), PROJECT);
    let first = shared.start("a");
    for (name, database, named) in [("b", "shared.db", "shared.db"), ("a", "other.db", "/a")] {
        shared.database = at(database);
        let refused = shared.refused(name);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        let expected = format!(
            "another server is at work on {}",
            folder.path().join(named.trim_start_matches('/')).display()
        );
        assert!(said.contains(&expected), "{said}");
    }
    // A folder of its own and a database of its own; and what a killed one had is free at once.
    drop(shared.start("b"));
    shared.database = at("shared.db");
    first.kill();
    drop(shared.start("a"));
}
