//! The audit trail as the store writes it: each transition and each button once, with how it stood.

use crate::databases::{self, on_both_databases};
use crate::story::{Story, place};
use roadstead_pipelines::action::{self, Actor};
use roadstead_pipelines::authorship::Addresses;
use roadstead_pipelines::id::ProjectName;
use roadstead_pipelines::spec::Role;
use roadstead_server::audit::{Chain, Entry, Head, Verifier};
use roadstead_server::store::{Redelivery, Store};
use serde_json::{Value, json};
use std::collections::BTreeMap;

on_both_databases!(
    what_changed_is_told_with_before_and_after,
    many_writers_make_chains_that_hold,
);

/// Everything, verified.
async fn trail(store: &Store) -> (Vec<Entry>, Vec<Head>) {
    let (mut verifier, mut entries) = (Verifier::new(vec![]), vec![]);
    for chain in store.audit_chains().await.unwrap() {
        let mut after = 0;
        loop {
            let page = store.audit_page(&chain, after, 7).await.unwrap();
            for entry in page.entries {
                verifier.entry(&entry).unwrap();
                entries.push(entry);
            }
            if page.whole {
                verifier.head(&page.head).unwrap();
                break;
            }
            after = page.last;
        }
    }
    (entries, verifier.finish().unwrap())
}

async fn what_changed_is_told_with_before_and_after(url: &str) {
    let mut story = Story::begin(url).await;
    story.verified_in_staging().await;
    let ada = Actor {
        name: "ada".into(),
        role: Role::Deployer,
    };
    let production = place("production");
    let (store, shop, now) = (&story.store, &story.shop, story.now);
    let hold = |world: &_| action::hold(world, &production, &ada, "the regatta", now);
    store.record(shop, "ada", now, hold).await.unwrap();
    let resume = |world: &_| action::resume(world, &production, &ada);
    store.record(shop, "ada", now, resume).await.unwrap();
    let mut again = story.delivery("again", 1);
    again.redelivery = Some(Redelivery {
        of: 1,
        by: "ada".into(),
    });
    story.store.accept_delivery(again).await.unwrap();

    let (entries, heads) = trail(&story.store).await;
    assert_eq!(heads[1].length, entries.len() as u64);
    // Each run and deployment: one line from nothing to where it stands.
    let mut stands: BTreeMap<&str, Value> = BTreeMap::new();
    for entry in &entries {
        if entry.subject.starts_with("shop.") && entry.what != "report_dropped" {
            let before = stands.insert(&entry.subject, entry.after.clone());
            assert_eq!(entry.before, before.unwrap_or(Value::Null), "{entry:?}");
        }
    }
    assert_eq!(stands["shop.1"], json!("succeeded"));
    assert_eq!(stands["shop.d1"], json!("deployed"));
    assert_eq!(stands["shop.2"], json!("fetching"));

    let found = |what: &str| -> Vec<_> {
        let of_it = entries.iter().filter(|entry| entry.what == what);
        of_it.collect()
    };
    let (held, resumed) = (found("held"), found("resumed"));
    assert_eq!(held[0].actor, "ada");
    assert_eq!(held[0].reason, "the regatta");
    assert_eq!(held[0].before, Value::Null);
    assert_eq!(held[0].after["reason"], "the regatta");
    assert_eq!(resumed[0].before, held[0].after);
    assert_eq!(resumed[0].after, Value::Null);
    let sent = found("redelivered");
    assert_eq!((sent[0].actor.as_str(), sent.len()), ("ada", 1));
    let asked: Vec<_> = found("asked_for");
    assert_eq!(asked[1].actor, "ada");
}

async fn many_writers_make_chains_that_hold(url: &str) {
    let story = Story::begin(url).await;
    let quay = ProjectName::parse("quay").unwrap();
    story
        .store
        .upsert_project(
            quay.clone(),
            "/srv/quay.git".into(),
            "key".into(),
            story.now,
        )
        .await
        .unwrap();
    let mut writers = vec![];
    for number in 0..60 {
        let mut delivery = story.delivery(&format!("d{number}"), number);
        if number % 2 == 0 {
            delivery.project = quay.clone();
        }
        let (store, now) = (story.store.clone(), story.now);
        writers.push(tokio::spawn(async move {
            store.accept_delivery(delivery).await.unwrap();
            let name = format!("user-{number}");
            store
                .create_user(&name, "hash", Role::Viewer, &Addresses::new(), "root", now)
                .await
                .unwrap();
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let (_, heads) = trail(&story.store).await;
    let lengths: Vec<_> = heads.into_iter().map(|h| (h.chain, h.length)).collect();
    let expected = [
        (Chain::Installation, 60),
        (Chain::Project(quay), 31),
        (Chain::Project(story.shop.clone()), 31),
    ];
    assert_eq!(lengths, expected);
}
