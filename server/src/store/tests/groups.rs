//! A claim looks at the group itself, whatever the table of jobs that wait says; and where there is none, nobody looks.

use super::super::schema::{group_places, pending_jobs};
use super::super::{Report, Store, hash_secret};
use super::databases::{self, on_both_databases};
use diesel::connection::InstrumentationEvent;
use diesel::prelude::*;
use jiff::Timestamp;
use roadstead_pipelines::fact::{Change, RunFact};
use roadstead_pipelines::id::{CommitSha, ProjectName, RunId};
use roadstead_pipelines::run::{AttemptOutcome, Run, RunState};
use roadstead_pipelines::spec;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

on_both_databases!(a_job_without_a_place_is_refused_though_it_is_listed);

const FILE: &str = "\
version: 1
name: shop
steps:
  deploy: { image: a, run: b, concurrency: { group: deploys } }
";
/// The same without a group.
const ALONE: &str = "\
version: 1
name: shop
steps:
  deploy: { image: a, run: b }
";

/// A run whose file was read, as its row has it.
async fn ready(store: &Store, number: u64, file: &str, now: Timestamp) -> RunId {
    let shop = ProjectName::parse("shop").unwrap();
    let commit = CommitSha::parse(&format!("{number:040x}")).unwrap();
    let asked = store.ask_for_run(&shop, commit, "refs/heads/main".into(), "ada", now);
    let id = asked.await.unwrap();
    let mut run: Run = store.get_run(&id).await.unwrap().run;
    run.pipeline = Some(spec::parse("f", file).unwrap());
    run.state = RunState::Preparing;
    let pipeline = serde_json::to_string(&run.pipeline).unwrap();
    let state = serde_json::to_string(&run.state).unwrap();
    let row = id.clone();
    let put = move |c: &mut super::AnyConnection| {
        use super::super::schema::runs::dsl;
        diesel::update(dsl::runs.find(row.as_str()))
            .set((dsl::pipeline.eq(&pipeline), dsl::state.eq(&state)))
            .execute(c)?;
        Ok(())
    };
    store.write(put).await.unwrap();
    let fact = RunFact::RegistryPrepared {
        repositories: BTreeMap::new(),
    };
    let changes = vec![Change::Run {
        run: id.clone(),
        fact,
    }];
    let decide = |_: &_| Ok(changes.clone());
    store.record(&shop, "ada", now, decide).await.unwrap();
    id
}

async fn a_job_without_a_place_is_refused_though_it_is_listed(url: &str) {
    let store = Store::open(url).await.unwrap();
    let now: Timestamp = "2026-01-05T10:00:00Z".parse().unwrap();
    let shop = ProjectName::parse("shop").unwrap();
    let project = store.upsert_project(shop, "/srv/one.git".into(), "key".into(), now);
    project.await.unwrap();
    let (first, second) = (
        ready(&store, 1, FILE, now).await,
        ready(&store, 2, FILE, now).await,
    );
    let row = second.clone();
    let list = move |c: &mut super::AnyConnection| {
        diesel::insert_into(pending_jobs::table)
            .values((
                pending_jobs::run.eq(row.as_str()),
                pending_jobs::job.eq("deploy"),
                pending_jobs::created_at.eq(0),
                pending_jobs::labels.eq("[]"),
            ))
            .execute(c)?;
        Ok(())
    };
    store.write(list).await.unwrap();
    let claim = store.claim_job("harbour", hash_secret("1"), now).await;
    assert_eq!(claim.unwrap().unwrap().run.id, first, "it is listed behind");
    let claim = store.claim_job("harbour", hash_secret("2"), now).await;
    assert_eq!(claim.unwrap(), None);
    let held = move |c: &mut super::AnyConnection| {
        let holders = group_places::table.filter(group_places::holds.eq(true));
        Ok(holders.select(group_places::run).load::<String>(c)?)
    };
    assert_eq!(store.read(held).await.unwrap(), [first.to_string()]);
}

/// Notes each statement of the connection that writes.
async fn listen(store: &Store) -> Arc<Mutex<Vec<String>>> {
    let heard = Arc::new(Mutex::new(vec![]));
    let ear = Arc::clone(&heard);
    let tell = move |c: &mut super::AnyConnection| {
        let ear = Arc::clone(&ear);
        let note = move |event: InstrumentationEvent<'_>| {
            if let InstrumentationEvent::StartQuery { query, .. } = event {
                ear.lock().unwrap().push(query.to_string());
            }
        };
        match c {
            super::AnyConnection::Sqlite(c) => c.set_instrumentation(note),
            super::AnyConnection::Postgres(c) => c.set_instrumentation(note),
        }
        Ok(())
    };
    store.write(tell).await.unwrap();
    heard
}

#[tokio::test]
async fn a_run_without_groups_asks_nothing_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("rows.db").display());
    let store = Store::open(&url).await.unwrap();
    let now: Timestamp = "2026-01-05T10:00:00Z".parse().unwrap();
    let shop = ProjectName::parse("shop").unwrap();
    let project = store.upsert_project(shop, "/srv/one.git".into(), "key".into(), now);
    project.await.unwrap();
    // The embedded database has one connection that writes.
    let heard = listen(&store).await;
    for (number, file, asks) in [(1, ALONE, false), (2, FILE, true)] {
        let id = ready(&store, number, file, now).await;
        let token = hash_secret(&format!("token {number}"));
        let claim = store.claim_job("harbour", token, now).await.unwrap();
        let claim = claim.unwrap();
        assert_eq!(claim.run.id, id);
        let outcome = AttemptOutcome::Succeeded {
            images: BTreeMap::new(),
        };
        let fence = u64::from(claim.number);
        let ended = store.end_attempt(&claim.attempt, fence, outcome, now);
        assert_eq!(ended.await.unwrap(), Report::Recorded);
        let statements = std::mem::take(&mut *heard.lock().unwrap());
        assert!(statements.iter().any(|it| it.contains("pending_jobs")));
        let asked: Vec<_> = statements
            .iter()
            .filter(|it| it.contains("group_places"))
            .collect();
        assert_eq!(!asked.is_empty(), asks, "{asked:?}");
    }
}
