//! Two servers on one PostgreSQL database: each store stands for one.

use crate::databases;
use crate::databases::{Cluster, on_both_databases};
use crate::psql::sql;
use crate::story::{Story, place, service};
use jiff::SignedDuration;
use roadstead_pipelines::id::ProjectName;
use roadstead_pipelines::observation::PlaceStatus;
use roadstead_server::clock;
use roadstead_server::http::people;
use roadstead_server::store::{Store, hash_secret};
use roadstead_server::wake::{Bell, Listener};
use std::time::Duration;

/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);

on_both_databases!(a_look_that_was_overtaken_is_not_stored,);

async fn a_look_that_was_overtaken_is_not_stored(url: &str) {
    let mut story = Story::begin(url).await;
    let release = story.verified_in_staging().await;
    let staging = place("staging");
    let before = story.store.load_world(&story.shop).await.unwrap();
    let before = before.place(&staging).status;
    // One server looks and is stopped; meanwhile another one sees it failing.
    let definition = before.as_ref().unwrap().service.task_definition.clone();
    let seen = service(&definition, 2);
    let known = Some(release.clone());
    let stale = PlaceStatus::observe(before.as_ref(), seen, vec![], known, story.now);
    story.wait(5);
    story.see("staging", &release, 0).await;
    let saving = story
        .store
        .save_place_status(&story.shop, staging.clone(), before, stale);
    assert!(!saving.await.unwrap());
    let world = story.store.load_world(&story.shop).await.unwrap();
    let status = world.place(&staging).status.unwrap();
    assert_eq!((status.service.running, status.observed_at), (0, story.now));
}

async fn open(url: &str) -> Store {
    Store::open(url).await.unwrap()
}

/// Waits for a ring; time alone is none.
async fn hears(listener: &mut Listener) {
    assert!(listener.wait(PATIENCE).await, "no ring came");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ring_is_heard_at_every_server_also_after_its_connection_broke() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let (first, second) = (open(&url).await, open(&url).await);
    let (here, there) = (Bell::default(), Bell::default());
    let mut heard = there.listen();
    let carriers = [first.join_others(&here), second.join_others(&there)];
    // What may have been missed before it listened counts as a ring.
    hears(&mut heard).await;
    let story = Story::begin(&url).await;
    story
        .store
        .accept_delivery(story.delivery("one", 1))
        .await
        .unwrap();
    here.ring();
    hears(&mut heard).await;

    let ended = sql(
        &url,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE application_name = 'roadstead bell'",
    );
    assert!(ended.parse::<u32>().unwrap() >= 2, "{ended}");
    // Both have come back once each has heard itself listen.
    hears(&mut heard).await;
    let back = async {
        loop {
            // A ring that meets a broken connection is carried by the next one.
            here.ring();
            if heard.wait(Duration::from_millis(500)).await {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, back).await.unwrap();
    // And back.
    let mut own = here.listen();
    there.ring();
    hears(&mut own).await;

    here.put_away();
    there.put_away();
    for carrier in carriers {
        carrier.unwrap().unwrap().ended(PATIENCE).await;
    }
    assert_eq!(sql(&url, "SELECT count(*) FROM leases"), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_is_to_do_is_held_by_one_until_it_lets_go_or_dies() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let (first, second) = (open(&url).await, open(&url).await);
    let long = SignedDuration::from_secs(3_600);
    let racing = [&first, &second, &first, &second].map(|store| store.hold("one", long));
    let held = futures_util::future::join_all(racing).await;
    let held: Vec<bool> = held.into_iter().map(Result::unwrap).collect();
    assert!(
        held == [true, false, true, false] || held == [false, true, false, true],
        "{held:?}"
    );
    let (holder, other) = if held[0] {
        (&first, &second)
    } else {
        (&second, &first)
    };
    other.let_go("one").await.unwrap();
    assert!(!other.hold("one", long).await.unwrap());
    holder.let_go("one").await.unwrap();
    assert!(other.hold("one", long).await.unwrap());
    // It dies: what it held is over by now.
    assert!(other.hold("one", -long).await.unwrap());
    assert!(holder.hold("one", long).await.unwrap());
    assert!(!other.hold("one", long).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_beside_a_living_server_prolongs_no_lease() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let bell = Bell::default();
    let living = open(&url).await;
    let carrier = living.join_others(&bell).unwrap().unwrap();
    let lives = async {
        while sql(&url, "SELECT count(*) FROM leases") != "1" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, lives).await.unwrap();
    let mut story = Story::begin(&url).await;
    for token in ["one", "two"] {
        story.push().await;
        let claiming = story.store.claim_job("gone", hash_secret(token), story.now);
        claiming.await.unwrap().unwrap();
    }
    // The runner is silent since long ago, and the living server may find that at any moment.
    let leases =
        "SELECT count(*) FROM attempts WHERE lease_until > extract(epoch FROM now()) * 1000000";
    drop(open(&url).await);
    assert_eq!(sql(&url, leases), "0");
    bell.put_away();
    carrier.ended(PATIENCE).await;
    drop(open(&url).await);
    assert_eq!(sql(&url, leases), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_is_its_holders_until_the_lease_runs_out() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let mut story = Story::begin(&url).await;
    let other = open(&url).await;
    story
        .store
        .accept_delivery(story.delivery("one", 1))
        .await
        .unwrap();
    story.reconcile().await;
    let until = story.now + SignedDuration::from_secs(20);
    let leased = story
        .store
        .lease_effects(10, story.now, until)
        .await
        .unwrap();
    let key = leased[0].key.clone();
    // Held for longer than it was leased first, and none of the others can prolong it.
    let later = story.now + SignedDuration::from_secs(60);
    let keys = vec![key.clone()];
    assert!(
        story
            .store
            .prolong_effects(keys.clone(), later)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        other.prolong_effects(keys.clone(), later).await.unwrap(),
        keys
    );
    story.wait(30);
    assert!(
        other
            .lease_effects(10, story.now, later)
            .await
            .unwrap()
            .is_empty()
    );
    story.wait(31);
    let until = story.now + SignedDuration::from_secs(20);
    let taken = other.lease_effects(10, story.now, until).await.unwrap();
    assert_eq!(taken[0].key, key);
    // Whoever was held up has lost it, and does not give it back for others to take at once.
    assert_eq!(
        story
            .store
            .prolong_effects(keys.clone(), later)
            .await
            .unwrap(),
        keys
    );
    story
        .store
        .retry_effect(&key, story.now, "late")
        .await
        .unwrap();
    assert!(
        story
            .store
            .lease_effects(10, story.now, until)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(other.prolong_effects(keys, until).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn servers_that_start_at_once_set_one_installation_up() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let starts: Vec<_> = (0..4)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move {
                let store = Store::open(&url).await.unwrap();
                for project in ["shop", "blog", "docs"] {
                    let name = ProjectName::parse(project).unwrap();
                    let (address, secret) = (format!("/srv/{project}.git"), "s".repeat(16));
                    let made = store.upsert_project(name, address, secret, clock::now());
                    made.await.unwrap();
                }
                people::set_up_admin(&store, "admin", "").await.unwrap()
            })
        })
        .collect();
    let mut passwords = vec![];
    for start in starts {
        passwords.extend(start.await.unwrap());
    }
    assert_eq!(passwords.len(), 1, "printed once in all");
    let store = open(&url).await;
    assert_eq!(store.list_projects().await.unwrap().len(), 3);
    let told = "SELECT string_agg(what || ' ' || n, ', ' ORDER BY what) FROM \
                (SELECT what, count(*) AS n FROM events GROUP BY what) AS told";
    assert_eq!(sql(&url, told), "project_added 3, user_added 1");
}
