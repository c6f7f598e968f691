//! Secrets on rows: what is stored opens only as what it is, versions grow, and a rotation finds every
//! one of them.

use crate::databases::{self, on_both_databases};
use crate::story::Story;
use roadstead_pipelines::id::ProjectName;
use roadstead_pipelines::secret::SecretRef;
use roadstead_server::secrets::{KeyError, Keys, Of, Sealed};
use roadstead_server::store::{SecretLine, Store, StoreError};
use std::os::unix::fs::MetadataExt;
use tempfile::TempDir;

on_both_databases!(
    a_secret_is_set_again_listed_and_removed,
    a_new_value_keeps_the_branches,
    what_cannot_be_sealed_is_not_stored,
    a_rotation_finds_every_secret,
);

const VALUE: &str = "correct horse battery staple";

fn named(text: &str) -> SecretRef {
    SecretRef::parse(text).unwrap()
}

fn keys() -> (TempDir, Keys) {
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::new(folder.path().join("secrets.key"));
    (folder, keys)
}

async fn set(story: &Story, keys: &Keys, name: &str, branches: &[&str]) -> Result<u64, StoreError> {
    let branches = branches.iter().map(ToString::to_string).collect();
    let stored = set_for(story, keys, name, Some(branches)).await;
    Ok(stored?.version)
}

async fn set_for(
    story: &Story,
    keys: &Keys,
    name: &str,
    branches: Option<Vec<String>>,
) -> Result<SecretLine, StoreError> {
    let (keys, shop) = (keys.clone(), story.shop.clone());
    let (secret, own) = (named(name), named(name));
    let seal = move |version, in_use: &[String]| {
        let of = Of {
            project: &shop,
            secret: &own,
            version,
        };
        keys.seal(of, VALUE, in_use)
    };
    let turn = ("ada", story.now);
    let stored = story
        .store
        .set_secret(&story.shop, &secret, branches, turn, seal);
    stored.await
}

/// The values that can be opened.
async fn opened(story: &Story, keys: &Keys) -> Vec<(String, u64)> {
    let all = story.store.sealed_secrets(&story.shop).await.unwrap();
    let open = all.iter().map(|found| {
        let of = Of {
            project: &story.shop,
            secret: &found.line.secret,
            version: found.line.version,
        };
        let value = keys.open(of, &found.sealed).unwrap();
        assert_eq!(value.as_str(), VALUE);
        (found.line.secret.to_string(), found.line.version)
    });
    open.collect()
}

async fn a_secret_is_set_again_listed_and_removed(url: &str) {
    let story = Story::begin(url).await;
    let (_folder, keys) = keys();
    assert_eq!(set(&story, &keys, "TOKEN", &[]).await.unwrap(), 1);
    let protected = ["main", "release/*"];
    assert_eq!(
        set(&story, &keys, "staging/TOKEN", &protected)
            .await
            .unwrap(),
        1
    );
    assert_eq!(set(&story, &keys, "TOKEN", &["main"]).await.unwrap(), 2);
    let expected = [("TOKEN".to_owned(), 2), ("staging/TOKEN".to_owned(), 1)];
    assert_eq!(opened(&story, &keys).await, expected);
    let lines = story.store.list_secrets(&story.shop).await.unwrap();
    assert_eq!(
        (lines[0].branches.as_slice(), lines[0].set_by.as_str()),
        (&["main".to_owned()][..], "ada")
    );
    assert_eq!(lines[1].branches, protected);

    // One row cannot be put in the place of another.
    let all = story.store.sealed_secrets(&story.shop).await.unwrap();
    let of = Of {
        project: &story.shop,
        secret: &all[0].line.secret,
        version: 2,
    };
    let error = keys.open(of, &all[1].sealed).unwrap_err();
    assert!(matches!(error, KeyError::Changed { .. }), "{error}");

    let (store, token) = (&story.store, named("TOKEN"));
    store
        .remove_secret(&story.shop, &token, "bob", story.now)
        .await
        .unwrap();
    let again = store
        .remove_secret(&story.shop, &token, "bob", story.now)
        .await;
    assert!(matches!(again, Err(StoreError::NotFound { .. })));
    assert_eq!(opened(&story, &keys).await, expected[1..]);

    let told = store
        .list_events(Some(&story.shop), Some("secret TOKEN"), None, 10)
        .await
        .unwrap();
    let told: Vec<_> = told
        .iter()
        .map(|e| {
            (
                e.what.as_str(),
                e.actor.as_str(),
                e.after["version"].as_u64(),
            )
        })
        .collect();
    let expected = [
        ("secret_removed", "bob", None),
        ("secret_set", "ada", Some(2)),
        ("secret_set", "ada", Some(1)),
    ];
    assert_eq!(told, expected);
}

async fn a_new_value_keeps_the_branches(url: &str) {
    let story = Story::begin(url).await;
    let (_folder, keys) = keys();
    let releases = || vec!["release/*".to_owned()];
    for (given, stored) in [
        (None, vec![]),
        (Some(releases()), releases()),
        (None, releases()),
        (Some(vec![]), vec![]),
    ] {
        let said = set_for(&story, &keys, "TOKEN", given).await.unwrap();
        assert_eq!(said.branches, stored, "version {}", said.version);
        let listed = story.store.list_secrets(&story.shop).await.unwrap();
        assert_eq!(listed, [said]);
    }
}

async fn what_cannot_be_sealed_is_not_stored(url: &str) {
    let story = Story::begin(url).await;
    let (folder, keys) = keys();
    set(&story, &keys, "TOKEN", &[]).await.unwrap();
    std::fs::rename(keys.file(), folder.path().join("elsewhere")).unwrap();
    for name in ["TOKEN", "OTHER"] {
        let error = set(&story, &keys, name, &[]).await.unwrap_err();
        assert!(error.to_string().contains("bring it back"), "{error}");
    }
    std::fs::rename(folder.path().join("elsewhere"), keys.file()).unwrap();
    assert_eq!(opened(&story, &keys).await, [("TOKEN".to_owned(), 1)]);

    let nobodys = ProjectName::parse("nobodys").unwrap();
    let seal =
        |_, _: &[String]| -> Result<Sealed, KeyError> { panic!("nothing is sealed for nobody") };
    let (turn, token) = (("ada", story.now), named("TOKEN"));
    let stored = story.store.set_secret(&nobodys, &token, None, turn, seal);
    assert!(matches!(stored.await, Err(StoreError::NotFound { .. })));
}

async fn a_rotation_finds_every_secret(url: &str) {
    let story = Story::begin(url).await;
    let (_folder, keys) = keys();
    let all = ["A", "B", "staging/A"];
    for name in all {
        set(&story, &keys, name, &[]).await.unwrap();
    }
    let user = std::fs::metadata(keys.file()).unwrap().uid();
    let rotation = keys.rotate(user).unwrap();
    rotation.add().unwrap();
    // Set between the two: under the new key already.
    set(&story, &keys, "C", &[]).await.unwrap();
    let before = story.store.sealed_secrets(&story.shop).await.unwrap();
    let rewrapping = keys.clone();
    let changed = story
        .store
        .rewrap_secrets(story.now, move |of, sealed| rewrapping.rewrap(of, sealed));
    assert_eq!(changed.await.unwrap(), all.len());
    // A server that was not given the new file neither opens nor seals.
    let others = tempfile::tempdir().unwrap();
    let other = Keys::new(others.path().join("secrets.key"));
    std::fs::copy(keys.file(), other.file()).unwrap();
    other.rotate(user).unwrap().add().unwrap();
    set(&story, &other, "D", &[]).await.unwrap();
    let error = set(&story, &keys, "TOKEN", &[]).await.unwrap_err();
    assert!(
        error.to_string().contains("from the server that rotated"),
        "{error}"
    );
    let in_use = Store::probe_key_ids(url).await.unwrap();
    assert_eq!(in_use, story.store.list_key_ids().await.unwrap());
    let error = keys.look(&in_use).unwrap_err();
    assert!(matches!(error, KeyError::Lacking { .. }), "{error}");
    other.look(&in_use).unwrap();
    let d = named("D");
    let removed = story.store.remove_secret(&story.shop, &d, "ada", story.now);
    removed.await.unwrap();
    rotation.keep_newest().unwrap();
    assert_eq!(opened(&story, &keys).await.len(), all.len() + 1);
    let after = story.store.sealed_secrets(&story.shop).await.unwrap();
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.sealed.value, after.sealed.value);
        let same = before.sealed.data_key == after.sealed.data_key;
        assert_eq!(
            same,
            after.line.secret == named("C"),
            "{}",
            after.line.secret
        );
    }
}
