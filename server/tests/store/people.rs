//! Users, sessions and API tokens on rows: what is taken from somebody is gone at once, and somebody
//! can always administer the server.

use crate::databases::{self, on_both_databases};
use crate::story::{Story, place};
use jiff::SignedDuration;
use roadstead_pipelines::action::{self, Actor};
use roadstead_pipelines::authorship::Addresses;
use roadstead_pipelines::fact::Change;
use roadstead_pipelines::gate;
use roadstead_pipelines::spec::{Gate, Role};
use roadstead_pipelines::world::World;
use roadstead_server::store::{NewApiToken, Store, StoreError, User, hash_secret};

on_both_databases!(
    people_sign_in_and_out,
    no_two_names_differ_in_case_alone,
    a_changed_user_does_not_sign_in,
    a_disabled_user_is_out_at_once,
    the_last_admin_stays,
    two_admins_cannot_take_each_other_away,
    tokens_end_when_they_are_revoked,
    a_revoked_token_takes_along_what_was_made_with_it,
    a_token_is_never_more_than_its_owner,
    nobody_has_tokens_without_end,
    one_person_approves_once,
    an_approval_is_worth_what_its_person_is,
    an_address_is_one_persons,
    whoever_plans_knows_the_addresses,
    everything_is_told_in_the_history,
);

async fn add(story: &Story, name: &str, role: Role) -> User {
    let store = &story.store;
    store
        .create_user(name, "a hash", role, &Addresses::new(), "boss", story.now)
        .await
        .unwrap();
    store.get_user(name).await.unwrap().unwrap()
}

async fn session(story: &Story, user: &User, secret: &str) -> Result<(), StoreError> {
    let until = story.now + SignedDuration::from_hours(1);
    let hash = hash_secret(secret);
    story
        .store
        .create_session(hash, user, None, story.now, until)
        .await
}

async fn user_of(story: &Story, secret: &str) -> Option<User> {
    let hash = hash_secret(secret);
    story.store.session_user(&hash, story.now).await.unwrap()
}

async fn token(story: &Story, owner: &str, role: Role, secret: &str) -> String {
    let token = new_token(owner, role, secret);
    let made = story.store.create_api_token(token, story.now);
    made.await.unwrap()
}

fn new_token(owner: &str, role: Role, secret: &str) -> NewApiToken {
    NewApiToken {
        token_hash: hash_secret(secret),
        name: secret.to_owned(),
        role,
        owner: owner.to_owned(),
        expires_at: None,
        made_with: None,
    }
}

/// The role that a token gives now.
async fn role_of(story: &Story, secret: &str) -> Option<Role> {
    let hash = hash_secret(secret);
    let found = story.store.use_api_token(&hash, story.now).await.unwrap();
    found.map(|token| token.role)
}

fn is_conflict(result: Result<(), StoreError>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error:?}");
    error.to_string()
}

async fn people_sign_in_and_out(url: &str) {
    let story = Story::begin(url).await;
    let ada = add(&story, "ada", Role::Admin).await;
    assert_eq!((ada.last_sign_in_at, ada.disabled_at), (None, None));
    session(&story, &ada, "s").await.unwrap();
    let user = user_of(&story, "s").await.unwrap();
    assert_eq!((user.name.as_str(), user.role), ("ada", Role::Admin));
    assert_eq!(user.last_sign_in_at, Some(story.now));
    assert!(user_of(&story, "t").await.is_none());
    let (store, until) = (&story.store, story.now + SignedDuration::from_hours(1));
    let late = store.session_user(&hash_secret("s"), until).await.unwrap();
    assert!(late.is_none());
    store
        .delete_session(&hash_secret("s"), story.now)
        .await
        .unwrap();
    assert!(user_of(&story, "s").await.is_none());

    for secret in ["u", "v"] {
        session(&story, &ada, secret).await.unwrap();
    }
    assert_eq!(store.count_sessions("ada", story.now).await.unwrap(), 2);
    assert_eq!(store.count_sessions("ada", until).await.unwrap(), 0);
    store
        .set_password("ada", "a new hash", "ada", story.now)
        .await
        .unwrap();
    assert!(user_of(&story, "u").await.is_none());
    assert!(user_of(&story, "v").await.is_none());
    let ada = store.get_user("ada").await.unwrap().unwrap();
    assert_eq!(ada.password_hash, "a new hash");
    session(&story, &ada, "w").await.unwrap();
    store.end_sessions("ada", "ada", story.now).await.unwrap();
    assert!(user_of(&story, "w").await.is_none());

    assert_eq!(store.list_users().await.unwrap().len(), 1);
    assert!(store.get_user("bob").await.unwrap().is_none());
    let missing = store.set_password("bob", "x", "ada", story.now).await;
    assert_eq!(missing.unwrap_err().to_string(), "there is no user `bob`");
}

async fn no_two_names_differ_in_case_alone(url: &str) {
    let story = Story::begin(url).await;
    add(&story, "Åsa", Role::Viewer).await;
    for taken in ["Åsa", "åsa", "ÅSA"] {
        let none = addresses(&[]);
        let again = story
            .store
            .create_user(taken, "x", Role::Admin, &none, "boss", story.now);
        assert_eq!(is_conflict(again.await), "there is a user `Åsa` already");
    }
}

async fn a_changed_user_does_not_sign_in(url: &str) {
    let story = Story::begin(url).await;
    add(&story, "boss", Role::Admin).await;
    let checked = add(&story, "ada", Role::Viewer).await;
    let store = &story.store;
    // Between the check of the password and the session.
    store
        .set_password("ada", "new", "boss", story.now)
        .await
        .unwrap();
    is_conflict(session(&story, &checked, "s").await);
    let checked = store.get_user("ada").await.unwrap().unwrap();
    store.disable_user("ada", "boss", story.now).await.unwrap();
    is_conflict(session(&story, &checked, "s").await);
    assert!(user_of(&story, "s").await.is_none());
}

async fn a_disabled_user_is_out_at_once(url: &str) {
    let story = Story::begin(url).await;
    add(&story, "boss", Role::Admin).await;
    let ada = add(&story, "ada", Role::Deployer).await;
    session(&story, &ada, "s").await.unwrap();
    token(&story, "ada", Role::Deployer, "t").await;
    assert_eq!(role_of(&story, "t").await, Some(Role::Deployer));

    let store = &story.store;
    store.disable_user("ada", "boss", story.now).await.unwrap();
    assert!(user_of(&story, "s").await.is_none());
    assert_eq!(role_of(&story, "t").await, None);
    let made = store.create_api_token(new_token("ada", Role::Viewer, "u"), story.now);
    is_conflict(made.await.map(drop));

    // What was taken does not come back.
    store.enable_user("ada", "boss", story.now).await.unwrap();
    assert!(user_of(&story, "s").await.is_none());
    assert_eq!(role_of(&story, "t").await, None);
    let ada = store.get_user("ada").await.unwrap().unwrap();
    assert_eq!((ada.disabled_at, ada.role), (None, Role::Deployer));
    session(&story, &ada, "s2").await.unwrap();
    let missing = store.disable_user("bob", "boss", story.now).await;
    assert_eq!(missing.unwrap_err().to_string(), "there is no user `bob`");
}

async fn the_last_admin_stays(url: &str) {
    let story = Story::begin(url).await;
    add(&story, "boss", Role::Admin).await;
    add(&story, "ada", Role::Deployer).await;
    let (store, now) = (&story.store, story.now);
    let refused = is_conflict(store.disable_user("boss", "boss", now).await);
    assert!(refused.contains("`boss` is the last admin"), "{refused}");
    is_conflict(store.set_role("boss", Role::Viewer, "boss", now).await);

    // A disabled admin is none.
    add(&story, "old", Role::Admin).await;
    store.disable_user("old", "boss", now).await.unwrap();
    is_conflict(store.disable_user("boss", "boss", now).await);
    store
        .set_role("old", Role::Viewer, "boss", now)
        .await
        .unwrap();

    store
        .set_role("ada", Role::Admin, "boss", now)
        .await
        .unwrap();
    store
        .set_role("boss", Role::Viewer, "boss", now)
        .await
        .unwrap();
    is_conflict(store.disable_user("ada", "boss", now).await);
    store.disable_user("boss", "ada", now).await.unwrap();
}

async fn admins(store: &Store) -> usize {
    let users = store.list_users().await.unwrap();
    let active = users.iter().filter(|user| user.disabled_at.is_none());
    active.filter(|user| user.role == Role::Admin).count()
}

async fn two_admins_cannot_take_each_other_away(url: &str) {
    let story = Story::begin(url).await;
    let (store, now) = (&story.store, story.now);
    for name in ["ada", "bob"] {
        add(&story, name, Role::Admin).await;
    }
    for round in 0..10 {
        let by_ada = store.set_role("bob", Role::Viewer, "ada", now);
        let by_bob = store.disable_user("ada", "bob", now);
        let (one, other) = tokio::join!(by_ada, by_bob);
        assert!(
            one.is_ok() != other.is_ok(),
            "round {round}: {one:?} {other:?}"
        );
        assert_eq!(admins(store).await, 1);
        store.enable_user("ada", "test", now).await.unwrap();
        store
            .set_role("bob", Role::Admin, "test", now)
            .await
            .unwrap();
    }
}

async fn tokens_end_when_they_are_revoked(url: &str) {
    let mut story = Story::begin(url).await;
    add(&story, "ada", Role::Deployer).await;
    add(&story, "bob", Role::Deployer).await;
    let id = token(&story, "ada", Role::Deployer, "t").await;
    story.wait(300);
    let (store, now) = (&story.store, story.now);
    let found = store.use_api_token(&hash_secret("t"), now).await.unwrap();
    let found = found.unwrap();
    assert_eq!(
        (found.id.as_str(), found.role),
        (id.as_str(), Role::Deployer)
    );
    let listed = store.list_api_tokens(Some("ada")).await.unwrap();
    assert_eq!(listed[0].last_used_at, Some(now));
    assert_eq!(store.list_api_tokens(Some("bob")).await.unwrap(), []);
    assert_eq!(store.list_api_tokens(None).await.unwrap(), listed);

    let others = store.revoke_api_token(&id, Some("bob"), "bob", now).await;
    assert!(matches!(others, Err(StoreError::NotFound { .. })));
    assert_eq!(role_of(&story, "t").await, Some(Role::Deployer));
    let revoked = store.revoke_api_token(&id, Some("ada"), "ada", now).await;
    assert_eq!(revoked.unwrap().name, "t");
    assert_eq!(role_of(&story, "t").await, None);
    let twice = store.revoke_api_token(&id, None, "boss", now).await;
    assert!(matches!(twice, Err(StoreError::NotFound { .. })));
}

async fn a_revoked_token_takes_along_what_was_made_with_it(url: &str) {
    let story = Story::begin(url).await;
    add(&story, "ada", Role::Admin).await;
    add(&story, "bob", Role::Admin).await;
    let (store, now) = (&story.store, story.now);
    let made_with = |above: &str, owner: &str, secret: &str| {
        let token = NewApiToken {
            made_with: Some(above.to_owned()),
            ..new_token(owner, Role::Viewer, secret)
        };
        store.create_api_token(token, now)
    };
    let root = token(&story, "ada", Role::Admin, "root").await;
    let one = made_with(&root, "ada", "one").await.unwrap();
    let two = made_with(&root, "ada", "two").await.unwrap();
    let below = made_with(&one, "ada", "below").await.unwrap();
    token(&story, "ada", Role::Admin, "beside").await;
    let listed = store.list_api_tokens(None).await.unwrap();
    let found = listed.iter().find(|token| token.id == below).unwrap();
    assert_eq!(found.made_with, Some(one.clone()));

    // One that is revoked already does not hide what is below it.
    store
        .revoke_api_token(&two, None, "ada", now)
        .await
        .unwrap();
    store
        .revoke_api_token(&root, None, "bob", now)
        .await
        .unwrap();
    for secret in ["root", "one", "two", "below"] {
        assert_eq!(role_of(&story, secret).await, None, "{secret}");
    }
    assert_eq!(role_of(&story, "beside").await, Some(Role::Admin));
    let told = store.list_events(None, None, None, 1).await.unwrap();
    assert_eq!(told[0].detail["made_with_it"], 2);

    // Nothing is made with one that is revoked, nor with somebody else's.
    let late = is_conflict(made_with(&one, "ada", "late").await.map(drop));
    assert_eq!(late, format!("API token {one} was revoked meanwhile"));
    let mine = token(&story, "ada", Role::Admin, "mine").await;
    is_conflict(made_with(&mine, "bob", "stolen").await.map(drop));
}

async fn a_token_is_never_more_than_its_owner(url: &str) {
    let story = Story::begin(url).await;
    add(&story, "boss", Role::Admin).await;
    add(&story, "ada", Role::Admin).await;
    token(&story, "ada", Role::Admin, "strong").await;
    token(&story, "ada", Role::Viewer, "weak").await;
    let (store, now) = (&story.store, story.now);
    for (owner, strong) in [
        (Role::Deployer, Role::Deployer),
        (Role::Viewer, Role::Viewer),
        (Role::Admin, Role::Admin),
    ] {
        store.set_role("ada", owner, "boss", now).await.unwrap();
        assert_eq!(role_of(&story, "strong").await, Some(strong));
        assert_eq!(role_of(&story, "weak").await, Some(Role::Viewer));
    }
}

async fn nobody_has_tokens_without_end(url: &str) {
    let story = Story::begin(url).await;
    add(&story, "ada", Role::Viewer).await;
    let (store, now) = (&story.store, story.now);
    let over = NewApiToken {
        expires_at: Some(now - SignedDuration::from_hours(1)),
        ..new_token("ada", Role::Viewer, "x")
    };
    store.create_api_token(over, now).await.unwrap();
    let mut ids = vec![];
    for number in 0..50 {
        let secret = number.to_string();
        ids.push(token(&story, "ada", Role::Viewer, &secret).await);
    }
    let more = || store.create_api_token(new_token("ada", Role::Viewer, "y"), now);
    let refused = is_conflict(more().await.map(drop));
    assert_eq!(refused, "`ada` has 50 API tokens: revoke one first");
    store
        .revoke_api_token(&ids[0], None, "ada", now)
        .await
        .unwrap();
    more().await.unwrap();
}

async fn one_person_approves_once(url: &str) {
    let mut story = Story::begin(url).await;
    let release = story.verified_in_staging().await;
    let production = place("production");
    for (role, stored) in [
        (Role::Deployer, Role::Deployer),
        (Role::Deployer, Role::Deployer),
        // Who has become an admin says it with more weight; who was one keeps it.
        (Role::Admin, Role::Admin),
        (Role::Deployer, Role::Admin),
    ] {
        let ada = Actor {
            name: "ada".into(),
            role,
        };
        let (now, shop) = (story.now, story.shop.clone());
        let said = story.store.record(&shop, "ada", now, |world| {
            action::approve(world, &production, &release, &ada, now)
        });
        said.await.unwrap();
        let world = story.store.load_world(&shop).await.unwrap();
        let approvals = &world.places[&production].approvals;
        assert_eq!(approvals.len(), 1);
        assert_eq!(approvals[0].role, stored);
    }
}

async fn an_approval_is_worth_what_its_person_is(url: &str) {
    let mut story = Story::begin(url).await;
    let release = story.verified_in_staging().await;
    add(&story, "boss", Role::Admin).await;
    add(&story, "ada", Role::Admin).await;
    let (store, now, shop) = (&story.store, story.now, story.shop.clone());
    let production = place("production");
    let ada = Actor {
        name: "ada".into(),
        role: Role::Admin,
    };
    let said = store.record(&shop, "ada", now, |world| {
        action::approve(world, &production, &release, &ada, now)
    });
    said.await.unwrap();
    // Whoever plans looks again after each change.
    let mut before = store.load_world(&shop).await.unwrap();
    let counted = async |before: &mut World| {
        let world = store.load_world(&shop).await.unwrap();
        assert!(world.generations[&shop] > before.generations[&shop]);
        *before = world.clone();
        let approvals = world.place(&production).approvals;
        approvals.first().map(|approval| approval.role)
    };
    let role = async |role| store.set_role("ada", role, "boss", now).await.unwrap();
    role(Role::Deployer).await;
    assert_eq!(counted(&mut before).await, Some(Role::Deployer));
    role(Role::Viewer).await;
    assert_eq!(counted(&mut before).await, Some(Role::Viewer));
    role(Role::Admin).await;
    assert_eq!(counted(&mut before).await, Some(Role::Admin));
    store.disable_user("ada", "boss", now).await.unwrap();
    assert_eq!(counted(&mut before).await, None);
    store.enable_user("ada", "boss", now).await.unwrap();
    assert_eq!(counted(&mut before).await, Some(Role::Admin));
}

fn addresses(all: &[&str]) -> Addresses {
    all.iter().map(|one| (*one).to_owned()).collect()
}

async fn an_address_is_one_persons(url: &str) {
    let story = Story::begin(url).await;
    let (store, now) = (&story.store, story.now);
    add(&story, "ada", Role::Viewer).await;
    add(&story, "bob", Role::Viewer).await;
    let two = addresses(&["ada@example.com", "ada@home.example"]);
    store.set_emails("ada", &two, "boss", now).await.unwrap();
    assert_eq!(store.get_user("ada").await.unwrap().unwrap().emails, two);
    let taken = addresses(&["bob@example.com", "ada@home.example"]);
    is_conflict(store.set_emails("bob", &taken, "boss", now).await);
    let users = store.list_users().await.unwrap();
    let bob = users.iter().find(|user| user.name == "bob").unwrap();
    assert_eq!(bob.emails, addresses(&[]), "all or nothing");
    let cleo = store.create_user("cleo", "x", Role::Viewer, &taken, "boss", now);
    is_conflict(cleo.await);
    assert_eq!(store.get_user("cleo").await.unwrap(), None);
    // What somebody gives up is free.
    let one = addresses(&["ada@example.com"]);
    store.set_emails("ada", &one, "boss", now).await.unwrap();
    store.set_emails("bob", &taken, "boss", now).await.unwrap();
    let unknown = store.set_emails("zoe", &one, "boss", now).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })));
}

async fn whoever_plans_knows_the_addresses(url: &str) {
    let mut story = Story::begin(url).await;
    let release = story.verified_in_staging().await;
    add(&story, "ada", Role::Deployer).await;
    let (store, now, shop) = (&story.store, story.now, story.shop.clone());
    let mut world = store.load_world(&shop).await.unwrap();
    // No gate asks, so nobody is looked up; what git told is with the release.
    assert!(world.addresses.is_empty());
    let told = world.authorship(&release).unwrap().commit.clone();
    assert_eq!(told, addresses(&["ada@example.com"]));
    let before = world.generations[&shop];
    let mut pipeline = world.pipeline.take().unwrap();
    let production = pipeline.environments.values_mut().last().unwrap();
    production.gates = vec![Gate::Approval {
        from: vec![Role::Deployer],
        count: 1,
        not_author: true,
    }];
    let adopted = store.record(&shop, "ada", now, |_| {
        let pipeline = Box::new(pipeline.clone());
        Ok(vec![Change::AdoptPipeline { pipeline }])
    });
    adopted.await.unwrap();
    let own = addresses(&["ada@example.com"]);
    store.set_emails("ada", &own, "boss", now).await.unwrap();
    let world = store.load_world(&shop).await.unwrap();
    // A plan that was made before is thrown away.
    assert!(world.generations[&shop] > before + 1);
    assert_eq!(world.addresses["ada"], own);
    assert!(world.authorship.contains_key(&release));
    let why = gate::is_no_stranger(&world, &place("production"), &release, "ada").unwrap();
    assert!(why.contains("as ada@example.com"), "{why}");
    let why = gate::is_no_stranger(&world, &place("production"), &release, "zoe").unwrap();
    assert!(why.contains("has no e-mail address"), "{why}");
}

async fn everything_is_told_in_the_history(url: &str) {
    let story = Story::begin(url).await;
    let (store, now) = (&story.store, story.now);
    add(&story, "boss", Role::Admin).await;
    add(&story, "ada", Role::Viewer).await;
    let id = token(&story, "ada", Role::Viewer, "laptop").await;
    store
        .set_role("ada", Role::Deployer, "boss", now)
        .await
        .unwrap();
    // Nothing changes, nothing is told.
    store
        .set_role("ada", Role::Deployer, "boss", now)
        .await
        .unwrap();
    store.enable_user("ada", "boss", now).await.unwrap();
    let emails = addresses(&["ada@example.com"]);
    store.set_emails("ada", &emails, "boss", now).await.unwrap();
    store.set_emails("ada", &emails, "boss", now).await.unwrap();
    store.set_password("ada", "x", "ada", now).await.unwrap();
    store.set_password("ada", "y", "boss", now).await.unwrap();
    store.end_sessions("ada", "ada", now).await.unwrap();
    let user = store.get_user("ada").await.unwrap().unwrap();
    let (hash, from) = (hash_secret("a session"), "192.0.2.7".parse().unwrap());
    let beginning = store.create_session(hash.clone(), &user, Some(from), now, now);
    beginning.await.unwrap();
    for _ in 0..2 {
        store.delete_session(&hash, now).await.unwrap();
    }
    store
        .revoke_api_token(&id, None, "boss", now)
        .await
        .unwrap();
    token(&story, "ada", Role::Viewer, "phone").await;
    store.disable_user("ada", "boss", now).await.unwrap();
    store.enable_user("ada", "boss", now).await.unwrap();
    is_conflict(store.disable_user("boss", "boss", now).await);

    let mut told = store.list_events(None, None, None, 100).await.unwrap();
    told.reverse();
    let told: Vec<_> = told
        .iter()
        .map(|e| format!("{} {} {} {}", e.actor, e.what, e.subject, e.detail))
        .collect();
    let expected = [
        r#"Roadstead project_added project"#,
        r#"boss user_added user boss {"role":"admin"}"#,
        r#"boss user_added user ada {"role":"viewer"}"#,
        r#"ada token_created token laptop"#,
        r#"boss role_changed user ada {"from":"viewer","to":"deployer"}"#,
        r#"boss emails_changed user ada {"from":[],"to":["ada@example.com"]}"#,
        r#"ada password_changed user ada {"sessions":0}"#,
        r#"boss password_reset user ada {"sessions":0}"#,
        r#"ada sessions_ended user ada {"sessions":0}"#,
        r#"ada signed_in user ada {"from":"192.0.2.7"}"#,
        r#"ada signed_out user ada {}"#,
        r#"boss token_revoked token laptop"#,
        r#"ada token_created token phone"#,
        r#"boss user_disabled user ada {"sessions":0,"tokens":1}"#,
        r#"boss user_enabled user ada {}"#,
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (line, expected) in told.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}");
    }
}
