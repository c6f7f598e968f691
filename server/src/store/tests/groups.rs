//! A claim looks at the group itself, whatever the table of jobs that wait says.

use super::super::schema::{group_places, pending_jobs};
use super::super::{Store, hash_secret};
use super::databases::{self, on_both_databases};
use diesel::prelude::*;
use jiff::Timestamp;
use roadstead_pipelines::fact::{Change, RunFact};
use roadstead_pipelines::id::{CommitSha, ProjectName, RunId};
use roadstead_pipelines::run::{Run, RunState};
use roadstead_pipelines::spec;

on_both_databases!(a_job_without_a_place_is_refused_though_it_is_listed);

const FILE: &str = "\
version: 1
name: shop
steps:
  deploy: { image: a, run: b, concurrency: { group: deploys } }
";

/// A run whose file was read, as its row has it.
async fn ready(store: &Store, number: u64, now: Timestamp) -> RunId {
    let shop = ProjectName::parse("shop").unwrap();
    let commit = CommitSha::parse(&format!("{number:040x}")).unwrap();
    let asked = store.ask_for_run(&shop, commit, "refs/heads/main".into(), "ada", now);
    let id = asked.await.unwrap();
    let mut run: Run = store.get_run(&id).await.unwrap().run;
    run.pipeline = Some(spec::parse("f", FILE).unwrap());
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
        repositories: std::collections::BTreeMap::new(),
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
    let (first, second) = (ready(&store, 1, now).await, ready(&store, 2, now).await);
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
