//! Runs at work as the version before jobs stored them.

use super::super::conn::AnyConnection;
use super::super::{Store, hash_secret};
use super::databases::{self, on_both_databases};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use jiff::Timestamp;
use roadstead_pipelines::id::{CommitSha, ProjectName, RunId};
use roadstead_pipelines::spec;

on_both_databases!(runs_of_the_version_before_go_on);

const SINCE: &str = "2026-01-05T10:00:00Z";

/// How runs stood, and what is made of it: word, state, attempts, lost ones, and the runner.
const CASES: [(&str, &str, u32, u32, Option<&str>); 3] = [
    (
        "queued",
        r#"{"state":"queued","attempt":2,"since":"2026-01-05T10:00:00Z"}"#,
        1,
        1,
        None,
    ),
    (
        "building",
        r#"{"state":"building","attempt":3,"runner":"harbour \"1\"","since":"2026-01-05T10:00:00Z"}"#,
        3,
        2,
        Some("harbour \"1\""),
    ),
    (
        "cancelling",
        r#"{"state":"cancelling","attempt":1,"runner":"harbour","by":"ada","until":"2026-01-05T10:00:00Z"}"#,
        1,
        0,
        Some("harbour"),
    ),
];

/// For SQLite and for PostgreSQL.
const DOWN: [&str; 2] = [
    include_str!("../../../../migrations/sqlite/2026-11-27-190000_jobs/down.sql"),
    include_str!("../../../../migrations/postgres/2026-11-27-190000_jobs/down.sql"),
];
const UP: [&str; 2] = [
    include_str!("../../../../migrations/sqlite/2026-11-27-190000_jobs/up.sql"),
    include_str!("../../../../migrations/postgres/2026-11-27-190000_jobs/up.sql"),
];

fn migrate(connection: &mut AnyConnection, [sqlite, postgres]: [&str; 2]) {
    match connection {
        AnyConnection::Sqlite(c) => c.batch_execute(sqlite),
        AnyConnection::Postgres(c) => c.batch_execute(postgres),
    }
    .unwrap();
}

async fn runs_of_the_version_before_go_on(url: &str) {
    let store = Store::open(url).await.unwrap();
    let shop = ProjectName::parse("shop").unwrap();
    let now: Timestamp = SINCE.parse().unwrap();
    let project = store.upsert_project(shop.clone(), "/srv/one.git".into(), "key".into(), now);
    project.await.unwrap();
    let file = "version: 1\nname: shop\nsteps: { test: { image: a, run: b } }\n";
    let pipeline = spec::parse("f", file).unwrap();
    let pipeline = serde_json::to_string(&pipeline).unwrap();
    let mut runs: Vec<RunId> = vec![];
    for number in 1..=CASES.len() {
        let commit = CommitSha::parse(&format!("{number:040x}")).unwrap();
        let asked = store.ask_for_run(&shop, commit, "refs/heads/main".into(), "ada", now);
        runs.push(asked.await.unwrap());
    }
    let ids: Vec<String> = runs.iter().map(ToString::to_string).collect();
    let there_and_back = move |c: &mut AnyConnection| {
        migrate(c, DOWN);
        for (id, (word, state, ..)) in ids.iter().zip(CASES) {
            let quoted = state.replace('\'', "''");
            let file = pipeline.replace('\'', "''");
            let sql = format!(
                "UPDATE runs SET word = '{word}', state = '{quoted}', pipeline = '{file}' WHERE id = '{id}'"
            );
            diesel::sql_query(sql).execute(c)?;
        }
        migrate(c, UP);
        Ok(())
    };
    store.write(there_and_back).await.unwrap();
    for (id, (word, _, attempts, lost, runner)) in runs.iter().zip(CASES) {
        let state = store.get_run(id).await.unwrap().run.state;
        assert_eq!(state.word(), word);
        let jobs = state.jobs().unwrap();
        assert_eq!(jobs.attempts, attempts, "{word}");
        let at_work = jobs.at_work().map(|it| (it.lost, Some(it.runner)));
        let queued = jobs.queued().map(|(_, lost, _)| (lost, None));
        let all: Vec<_> = at_work.chain(queued).collect();
        assert_eq!(all, [(lost, runner)], "{word}");
    }
    // The one that waits is given out, under the number that it would have had.
    let claim = store.claim_job("harbour", hash_secret("token"), now).await;
    let claim = claim.unwrap().unwrap();
    assert_eq!((claim.run.id, claim.number), (runs[0].clone(), 2));
    let none = store.claim_job("harbour", hash_secret("other"), now).await;
    assert_eq!(none.unwrap(), None);
}
