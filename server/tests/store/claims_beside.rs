//! Claims beside others who are at work in a project's lane: PostgreSQL alone has several writers.

use crate::databases::Cluster;
use crate::story::Story;
use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use roadstead_pipelines::id::{ProjectName, RunId};
use roadstead_server::store::{Claim, Store, hash_secret};
use std::time::Duration;

/// Bounds a failure.
const PATIENCE: Duration = Duration::from_secs(60);
const FILE: &str = "version: 1\nname: shop\nsteps: { test: { image: busybox, run: make } }\n";

async fn ready(story: &mut Story) -> RunId {
    story.wait(1);
    let run = story.read("main", 1, FILE).await;
    story.reconcile().await;
    story.act().await;
    run
}

async fn claim(store: Store, story: &Story, token: &str) -> Option<Claim> {
    let claim = store.claim_job("harbour", hash_secret(token), story.now);
    let claimed = tokio::time::timeout(PATIENCE, claim).await;
    claimed.expect("a claim that waits for nobody").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_passes_by_who_is_at_work_elsewhere_and_waits_when_there_is_nothing_else() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let mut story = Story::begin(&url).await;
    let first = ready(&mut story).await;
    let shop = std::mem::replace(&mut story.shop, ProjectName::parse("dock").unwrap());
    let dock = (story.shop.clone(), "/srv/dock.git".into(), "key".into());
    let made = story
        .store
        .upsert_project(dock.0, dock.1, dock.2, story.now);
    made.await.unwrap();
    let second = ready(&mut story).await;

    let mut other = PgConnection::establish(&url).unwrap();
    let begin = format!("BEGIN; SELECT project FROM lanes WHERE project = '{shop}' FOR UPDATE");
    other.batch_execute(&begin).unwrap();
    let claimed = claim(story.store.clone(), &story, "one").await.unwrap();
    assert_eq!(claimed.run.id, second);

    let waits = story
        .store
        .claim_job("harbour", hash_secret("two"), story.now);
    let (waited, ended) = tokio::join!(tokio::time::timeout(PATIENCE, waits), async {
        // Once somebody waits for the lane.
        let mut tries = 0;
        let mut look = PgConnection::establish(&url).unwrap();
        while waiting(&mut look) == 0 {
            tries += 1;
            assert!(tries < 600, "nobody waits for the lane");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        other.batch_execute("COMMIT")
    });
    ended.unwrap();
    assert_eq!(waited.unwrap().unwrap().unwrap().run.id, first);
}

/// How many sessions wait for a lock.
fn waiting(connection: &mut PgConnection) -> i64 {
    use diesel::RunQueryDsl;
    #[derive(diesel::QueryableByName)]
    struct Count {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        count: i64,
    }
    let count = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let found: Count = diesel::sql_query(count).get_result(connection).unwrap();
    found.count
}
