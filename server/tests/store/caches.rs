//! Which caches there are: the first of a key stays, and what is used least lately goes.

use crate::databases::{self, on_both_databases};
use crate::story::Story;
use jiff::{SignedDuration, Timestamp};
use roadstead_pipelines::id::ProjectName;
use roadstead_server::store::{CacheSearch, NewCache, Place, Store, hash_secret};

on_both_databases!(
    of_two_that_store_one_key_at_once_the_first_stays,
    what_was_used_least_lately_goes_until_the_rest_fits,
    what_never_came_whole_or_is_not_used_goes,
);

const MAIN: &str = "refs/heads/main";

/// New caches of one attempt.
struct Scene {
    story: Story,
    attempt: NewCache,
}

impl Scene {
    async fn begin(url: &str) -> Self {
        let mut story = Story::begin(url).await;
        let run = story.push().await;
        let token = hash_secret(run.as_str());
        let claim = story.store.claim_job("a", token, story.now).await;
        let attempt = NewCache {
            id: String::new(),
            attempt: claim.unwrap().unwrap().attempt,
            fence: 1,
            project: run.project(),
            run,
            scope: MAIN.into(),
            name: "deps".into(),
            kind: "k".repeat(64),
            key: String::new(),
            length: 10,
            sha256: "0".repeat(64),
        };
        Self { story, attempt }
    }

    fn cache(&self, id: &str, key: &str) -> NewCache {
        NewCache {
            id: id.into(),
            key: key.into(),
            ..self.attempt.clone()
        }
    }

    fn store(&self) -> &Store {
        &self.story.store
    }

    fn after(&self, minutes: i64) -> Timestamp {
        self.story.now + SignedDuration::from_mins(minutes)
    }

    fn search(&self, key: &str) -> CacheSearch {
        CacheSearch {
            project: self.attempt.project.clone(),
            scopes: vec![MAIN.into()],
            kind: self.attempt.kind.clone(),
            key: key.into(),
        }
    }

    async fn keep(&self, id: &str, most: u64, at: Timestamp) -> Place {
        let new = self.cache(id, id);
        let begun = self.store().begin_cache(&new, at).await.unwrap();
        assert_eq!(begun, Place::Free);
        self.store().record_cache(&new, most, at).await.unwrap()
    }

    async fn is_there(&self, key: &str) -> bool {
        let found = self.store().find_cache(&self.search(key)).await.unwrap();
        found.is_some_and(|found| found.key == key)
    }

    async fn to_go(&self, since: Option<Timestamp>, now: Timestamp) -> Vec<String> {
        let project: &ProjectName = &self.attempt.project;
        let going = self.store().caches_to_go(project, since, u64::MAX, now);
        going.await.unwrap()
    }
}

async fn of_two_that_store_one_key_at_once_the_first_stays(url: &str) {
    let scene = Scene::begin(url).await;
    let (store, now) = (scene.store(), scene.story.now);
    let ids = ["one", "two", "three", "four"];
    let news: Vec<_> = ids.iter().map(|id| scene.cache(id, "a")).collect();
    for new in &news {
        assert_eq!(store.begin_cache(new, now).await.unwrap(), Place::Free);
    }
    assert!(!scene.is_there("a").await, "none is whole");
    let recorded = news.iter().map(|new| store.record_cache(new, 100, now));
    let recorded = futures_util::future::join_all(recorded).await;
    let places: Vec<_> = recorded.into_iter().map(Result::unwrap).collect();
    let free = places.iter().filter(|place| **place == Place::Free);
    assert_eq!(free.count(), 1, "{places:?}");
    assert!(places.iter().all(|place| *place != Place::Lost));
    let late = scene.cache("five", "a");
    assert_eq!(store.begin_cache(&late, now).await.unwrap(), Place::Taken);
    let mut other = scene.cache("six", "b");
    other.fence = 2;
    assert_eq!(store.begin_cache(&other, now).await.unwrap(), Place::Lost);
}

async fn what_was_used_least_lately_goes_until_the_rest_fits(url: &str) {
    let scene = Scene::begin(url).await;
    for (minute, id) in [(0, "a"), (1, "b"), (2, "c")] {
        let kept = scene.keep(id, 30, scene.after(minute)).await;
        assert_eq!(kept, Place::Free);
    }
    let (a, b) = (scene.search("a"), scene.search("b"));
    let used = scene.store().use_cache(&a, "a", scene.after(3));
    assert_eq!(used.await.unwrap().unwrap().key, "a");
    assert_eq!(scene.keep("d", 30, scene.after(4)).await, Place::Free);
    for (key, there) in [("a", true), ("b", false), ("c", true), ("d", true)] {
        assert_eq!(scene.is_there(key).await, there, "{key}");
    }
    let reads = scene.store().use_cache(&b, "b", scene.after(5));
    assert_eq!(reads.await.unwrap(), None, "it is let go");
    // The row stays until the bytes are gone.
    let now = scene.after(5);
    assert_eq!(scene.to_go(None, now).await, ["b"]);
    assert_eq!(scene.to_go(None, now).await, ["b"], "a kill in between");
    let all = vec!["b".to_owned(), "a".to_owned()];
    scene.store().forget_caches(all).await.unwrap();
    assert!(scene.to_go(None, now).await.is_empty());
    assert!(scene.is_there("a").await, "what is stored is not forgotten");
    // One that fits alone, and one that does not.
    assert_eq!(scene.keep("e", 10, scene.after(6)).await, Place::Free);
    assert!(scene.is_there("e").await && !scene.is_there("a").await);
}

async fn what_never_came_whole_or_is_not_used_goes(url: &str) {
    let scene = Scene::begin(url).await;
    let torn = scene.cache("torn", "torn");
    let begun = scene.store().begin_cache(&torn, scene.after(0)).await;
    assert_eq!(begun.unwrap(), Place::Free);
    scene.keep("old", 100, scene.after(0)).await;
    scene.keep("new", 100, scene.after(100)).await;
    assert!(scene.to_go(None, scene.after(119)).await.is_empty());
    assert_eq!(scene.to_go(None, scene.after(121)).await, ["torn"]);
    let late = scene.store().record_cache(&torn, 100, scene.after(121));
    assert_eq!(late.await.unwrap(), Place::Lost);
    let since = Some(scene.after(50));
    assert_eq!(scene.to_go(since, scene.after(121)).await, ["old", "torn"]);
    assert!(scene.is_there("new").await && !scene.is_there("old").await);
}
