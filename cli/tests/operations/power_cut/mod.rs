//! A power cut under load: what was acknowledged is there afterwards, because it was synced first.
//!
//! The server's data folder is on a disk that forgets what no `fsync` covered (`disk.rs`, which says
//! what that simulates and what not). Webhooks and pieces of logs come in; the power goes at one moment
//! for the whole disk; a server starts on what is left. The same disk takes commits from a writer of
//! its own, whose database is set as ours and, to show that the disk does forget, less carefully.

mod disk;
mod load;

use std::path::Path;
use std::process::Command;

use crate::server::Server;
use disk::Disk;
use load::Load;

/// What a program in Python prints that has to succeed.
fn python(program: &str, arguments: &[&str]) -> Vec<String> {
    let output = Command::new("python3")
        .args(["-c", program])
        .args(arguments)
        .output()
        .expect("python3 looks at databases from outside");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// What a query finds in a database that a power cut left, which must be sound.
fn found(database: &Path, query: &str) -> Vec<String> {
    const LOOK: &str = "import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
assert database.execute('pragma integrity_check').fetchall() == [('ok',)]
for row in database.execute(sys.argv[2]): print(row[0])";
    python(LOOK, &[database.to_str().unwrap(), query])
}

/// Commits two hundred rows, and ends without closing anything. How many are left after a power cut.
fn rows_left(synchronous: &str) -> usize {
    const WRITE: &str = "import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute('pragma synchronous = full')
database.execute('pragma journal_mode = wal')
database.execute('create table rows (number)')
database.execute('pragma wal_checkpoint(truncate)')
database.execute('pragma synchronous = ' + sys.argv[2])
for number in range(200): database.execute('insert into rows values (?)', (number,))
print('committed', flush=True)
os._exit(0)";
    let folder = tempfile::tempdir().unwrap();
    let (mounted, left) = (folder.path().join("disk"), folder.path().join("left"));
    std::fs::create_dir(&mounted).unwrap();
    let disk = Disk::mount(&mounted);
    let database = mounted.join("rows.db");
    let said = python(WRITE, &[database.to_str().unwrap(), synchronous]);
    assert_eq!(said, ["committed"]);
    disk.cut(&left);
    found(&left.join("rows.db"), "select number from rows").len()
}

/// Otherwise this file shows nothing.
#[test]
fn the_disk_forgets_commits_that_were_not_synced_and_keeps_those_that_were() {
    assert_eq!(rows_left("full"), 200);
    let left = rows_left("normal");
    assert!(left < 200, "{left} rows of a careless database are left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_acknowledged_is_there_after_a_power_cut() {
    let (ground, sources) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let disk = Disk::mount(ground.path());
    let (configuration, head) = load::project(sources.path());
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(ground.path(), folder.path().join("data")).unwrap();
    let mut server = Server::start_with(&configuration, folder);

    let load = Load::begin(&server.url, &head).await;
    load.until_acknowledged(200, 100).await;
    // In this order: what was acknowledged until now must be on the disk now.
    let acknowledged = load.acknowledged();
    let after = tempfile::tempdir().unwrap();
    let left = after.path().join("data");
    disk.cut(&left);
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    load.end().await;

    let stored = found(
        &left.join("roadstead.db"),
        "select delivery_id from deliveries",
    );
    let lost = acknowledged.deliveries.iter();
    let lost: Vec<_> = lost.filter(|id| !stored.contains(id)).collect();
    assert!(lost.is_empty(), "lost of {}: {lost:?}", stored.len());
    let files = files_below(&left.join("logs"));
    for log in &acknowledged.logs {
        let there = files.iter().any(|file| file.starts_with(log));
        assert!(there, "{} bytes of a log are lost", log.len());
    }
    // A server goes on from there, and the runner with it.
    let server = Server::start_with(&configuration, after);
    load.go_on(&server.url, &acknowledged).await;
}

/// The content of every file below a folder.
fn files_below(folder: &Path) -> Vec<Vec<u8>> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(std::fs::read(path).unwrap());
        }
    }
    found
}
