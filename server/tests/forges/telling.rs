//! What a forge is told, and what it shows in the end when calls go wrong.

use crate::databases::{self, on_both_databases};
use crate::forge::{KINDS, TOKEN, Trouble};
use crate::scene::{PAGES, Scene};
use crate::story::commit;
use roadstead_pipelines::commit_status::{CONTEXT, SETTLED_AFTER, Standing};
use roadstead_server::forge::Forge;
use serde_json::json;

on_both_databases!(
    a_run_is_told_from_waiting_to_success,
    a_run_that_fails_says_why,
    a_lost_answer_changes_nothing,
    a_call_that_comes_late_does_not_stay,
    a_forge_that_is_away_hears_the_last_word_when_it_is_back,
    a_wrong_token_is_said_and_a_right_one_needs_no_restart,
    a_forge_that_asks_to_wait_is_left_alone,
    what_a_forge_will_never_take_is_given_up,
    runs_of_one_commit_have_one_status_or_one_for_each_branch,
    nothing_is_told_where_no_forge_is,
);

/// The words of a forge for waiting, at work, well, failed.
fn words(kind: Forge) -> [&'static str; 4] {
    match kind {
        Forge::Github | Forge::Gitea | Forge::Git => ["pending", "pending", "success", "failure"],
        Forge::Gitlab => ["pending", "running", "success", "failed"],
        Forge::Bitbucket => ["INPROGRESS", "INPROGRESS", "SUCCESSFUL", "FAILED"],
    }
}

fn settled() -> i64 {
    SETTLED_AFTER.as_secs()
}

async fn a_run_is_told_from_waiting_to_success(url: &str) {
    let mut scene = Scene::begin(url, Forge::Github).await;
    let run = scene.push().await;
    // It prepared the registry before: the last word is what is told.
    assert_eq!(scene.tell().await, 1);
    scene.story.build(&run).await;
    scene.wait(1);
    assert_eq!(scene.tell().await, 1);
    for _ in 0..2 {
        scene.story.reconcile().await;
        scene.story.act().await;
    }
    scene.story.reconcile().await;
    assert_eq!(scene.tell().await, 1);
    let told = scene.forge.told();
    let told: Vec<_> = told.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(
        told,
        [
            ("pending", "waits for a runner"),
            ("pending", "looks its images up in the registry"),
            ("success", "succeeded, made release shop.r1"),
        ]
    );
    // Nothing new is nothing to tell.
    scene.wait(10_000);
    scene.story.reconcile().await;
    assert_eq!(scene.tell().await, 0);
}

async fn a_run_that_fails_says_why(url: &str) {
    // Each forge needs a project of its own, so on PostgreSQL only the first kind is played.
    let kinds = if url.starts_with("postgres") {
        &KINDS[..1]
    } else {
        &KINDS[..]
    };
    for kind in kinds.iter().copied() {
        let folder = tempfile::tempdir().unwrap();
        let own = databases::sqlite(&folder);
        let url = if kind == KINDS[0] { url } else { &own };
        let mut scene = Scene::begin(url, kind).await;
        let run = scene.push().await;
        scene.tell().await;
        let attempt = scene.claim(&run).await;
        scene.tell().await;
        scene
            .fail(&attempt, "step test failed: exit status 101")
            .await;
        scene.tell().await;
        let [waits, runs, _, failed] = words(kind);
        let expected = [
            (waits, "waits for a runner"),
            (runs, "builds"),
            (failed, "step test failed: exit status 101"),
        ];
        let told = scene.forge.told();
        let told: Vec<_> = told.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(told, expected, "{kind:?}");
        let inner = scene.forge.inner();
        let last = inner.taken.last().unwrap();
        assert_eq!(last.page, format!("{PAGES}/runs/shop.1"), "{kind:?}");
        assert_eq!(last.commit, commit(1).as_str());
        match kind {
            Forge::Gitlab | Forge::Bitbucket => assert_eq!(last.git_ref.as_deref(), Some("main")),
            Forge::Github | Forge::Gitea | Forge::Git => assert_eq!(last.git_ref, None),
        }
        for call in &inner.calls {
            let named = ["context", "name", "key"].map(|name| call.body.get(name));
            assert!(named.contains(&Some(&json!(CONTEXT))), "{call:?}");
        }
    }
}

/// The forge did what it was asked to, and nobody heard.
async fn a_lost_answer_changes_nothing(url: &str) {
    let mut scene = Scene::begin(url, Forge::Gitlab).await;
    let run = scene.push().await;
    scene.forge.troubled([Trouble::AnswerLost]);
    assert_eq!(scene.tell().await, 1);
    assert!(scene.reason(&run).await.contains("was not reached"));
    // GitLab refuses what it shows already: that is as good as taking it.
    scene.wait(1);
    assert_eq!(scene.tell().await, 1);
    assert_eq!(scene.forge.inner().answers.last().unwrap().0, 400);
    assert!(matches!(scene.standing(&run).await, Standing::Told { .. }));
    let attempt = scene.claim(&run).await;
    scene.fail(&attempt, "no").await;
    scene.forge.troubled([Trouble::AnswerLost]);
    scene.tell().await;
    scene.wait(settled() + 1);
    scene.tell().await;
    assert!(matches!(scene.standing(&run).await, Standing::Told { .. }));
    assert_eq!(scene.forge.shown().unwrap(), "failed");
    scene.wait(10_000);
    scene.tell().await;
    assert_eq!(scene.tell().await, 0, "once it is settled it is over");
}

/// A proxy holds *pending* up until after *success*.
async fn a_call_that_comes_late_does_not_stay(url: &str) {
    let mut scene = Scene::begin(url, Forge::Github).await;
    let run = scene.push().await;
    scene.forge.troubled([Trouble::Late]);
    assert_eq!(scene.tell().await, 1);
    scene.wait(1);
    scene.succeed(&run).await;
    assert_eq!(scene.tell().await, 1);
    assert_eq!(scene.forge.shown().unwrap(), "success");
    scene.forge.land();
    assert_eq!(scene.forge.shown().unwrap(), "pending");
    scene.wait(settled() - 2);
    assert_eq!(scene.tell().await, 0, "another one may still be under way");
    scene.wait(2);
    assert_eq!(scene.tell().await, 1);
    assert_eq!(scene.forge.shown().unwrap(), "success");
    scene.wait(10_000);
    assert_eq!(scene.tell().await, 0);
}

async fn a_forge_that_is_away_hears_the_last_word_when_it_is_back(url: &str) {
    let mut scene = Scene::begin(url, Forge::Gitea).await;
    scene.forge.go_away().await;
    let run = scene.push().await;
    for _ in 0..10 {
        scene.tell().await;
        scene.wait(300);
    }
    let reason = scene.reason(&run).await;
    assert!(reason.contains("Connection refused"), "{reason}");
    // The run went on meanwhile.
    scene.succeed(&run).await;
    scene.tell().await;
    scene.forge.come_back().await;
    scene.wait(300);
    assert_eq!(scene.tell().await, 1);
    let expected = (
        "success".to_owned(),
        "succeeded, made release shop.r1".to_owned(),
    );
    assert_eq!(
        scene.forge.told(),
        [expected],
        "what was between is not told"
    );
    scene.wait(10_000);
    assert_eq!(
        scene.tell().await,
        0,
        "nothing was sent that could come late"
    );
}

async fn a_wrong_token_is_said_and_a_right_one_needs_no_restart(url: &str) {
    let mut scene = Scene::begin(url, Forge::Github).await;
    let run = scene.push().await;
    scene.set_token("another-token");
    assert_eq!(scene.tell().await, 1);
    let reason = scene.reason(&run).await;
    assert!(
        reason.contains("401: the token is wrong") && reason.contains("Bad credentials"),
        "{reason}"
    );
    // A forge that shows the token back is not quoted with it.
    let back = json!({"message": "who is another-token?"});
    scene.forge.troubled([Trouble::Answer(403, vec![], back)]);
    scene.wait(30);
    assert_eq!(scene.tell().await, 1);
    let reason = scene.reason(&run).await;
    assert!(reason.contains("who is ***?"), "{reason}");
    scene.set_token(TOKEN);
    scene.wait(300);
    assert_eq!(scene.tell().await, 1);
    assert_eq!(scene.forge.shown().unwrap(), "pending");
}

async fn a_forge_that_asks_to_wait_is_left_alone(url: &str) {
    let mut scene = Scene::begin(url, Forge::Github).await;
    let run = scene.push().await;
    let limit = |status, headers: &[(&'static str, String)]| {
        let body = json!({"message": "API rate limit exceeded"});
        Trouble::Answer(status, headers.to_vec(), body)
    };
    let reset = (scene.story.now.as_second() + 1_800).to_string();
    scene.forge.troubled([
        limit(429, &[("retry-after", "60".into())]),
        limit(
            403,
            &[
                ("x-ratelimit-remaining", "0".into()),
                ("x-ratelimit-reset", reset),
            ],
        ),
        // The second kind of limit says nothing but that; then it is as with a forge that is away.
        limit(403, &[]),
        Trouble::Answer(
            503,
            vec![("retry-after", "Fri, 27 Nov 2026 10:00:00 GMT".into())],
            json!(null),
        ),
    ]);
    let mut waited = vec![];
    let begin = scene.story.now;
    for second in 0..2_400 {
        if scene.tell().await > 0 {
            waited.push(second);
        }
        // What is new waits, too.
        if second == 70 {
            scene.claim(&run).await;
        }
        scene.wait(1);
    }
    assert_eq!(scene.story.now.duration_since(begin).as_secs(), 2_400);
    // After 4 and 8 s; and once more because a 503 may yet do its work.
    assert_eq!(waited, [0, 60, 1_801, 1_805, 1_813, 1_925]);
    let told = scene.forge.told();
    assert_eq!(told[0].1, "builds", "{told:?}");
}

async fn what_a_forge_will_never_take_is_given_up(url: &str) {
    let mut scene = Scene::begin(url, Forge::Github).await;
    // The forge does not know this commit.
    let run = scene.story.push().await;
    assert_eq!(scene.tell().await, 1);
    let reason = scene.reason(&run).await;
    assert!(
        reason.contains("422") && reason.contains("No commit found"),
        "{reason}"
    );
    assert!(matches!(
        scene.standing(&run).await,
        Standing::GivenUp { .. }
    ));
    scene.wait(10_000);
    assert_eq!(scene.tell().await, 0);
    // Another repository is for people to mend.
    let moved = Trouble::Answer(
        301,
        vec![("location", "https://elsewhere.example/".into())],
        json!(null),
    );
    scene.forge.troubled([moved]);
    let run = scene.push().await;
    assert_eq!(scene.tell().await, 1);
    let reason = scene.reason(&run).await;
    assert!(
        reason.contains("it is at https://elsewhere.example/ now"),
        "{reason}"
    );
    assert_eq!(scene.forge.calls(), 2, "a redirect is not followed");
}

async fn runs_of_one_commit_have_one_status_or_one_for_each_branch(url: &str) {
    let mut scene = Scene::begin(url, Forge::Github).await;
    let first = scene.push().await;
    scene.tell().await;
    // The same commit once more, as after *Run again*.
    let again = scene
        .story
        .store
        .ask_for_run(
            &scene.story.shop,
            commit(1),
            "refs/tags/v1".into(),
            "ada",
            scene.story.now,
        )
        .await
        .unwrap();
    for _ in 0..3 {
        scene.story.reconcile().await;
        scene.story.act().await;
    }
    scene.tell().await;
    let attempt = scene.claim(&first).await;
    scene.fail(&attempt, "too late to be told").await;
    scene.succeed(&again).await;
    scene.tell().await;
    let pages: Vec<_> = scene
        .forge
        .inner()
        .taken
        .iter()
        .map(|it| it.page.clone())
        .collect();
    let page = |run: u32| format!("{PAGES}/runs/shop.{run}");
    assert_eq!(pages, [page(1), page(2), page(2)]);
    assert_eq!(scene.forge.shown().unwrap(), "success");
    assert_eq!(scene.story.store.status_of_run(&first).await.unwrap(), None);

    // GitLab shows each branch's and tag's own.
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(&databases::sqlite(&folder), Forge::Gitlab).await;
    let first = scene.push().await;
    let store = scene.story.store.clone();
    let tag = "refs/tags/v1".to_owned();
    let asked = store.ask_for_run(&scene.story.shop, commit(1), tag, "ada", scene.story.now);
    asked.await.unwrap();
    for _ in 0..3 {
        scene.story.reconcile().await;
        scene.story.act().await;
    }
    let attempt = scene.claim(&first).await;
    scene.fail(&attempt, "told").await;
    scene.tell().await;
    let mut told: Vec<_> = scene
        .forge
        .inner()
        .taken
        .iter()
        .map(|it| (it.git_ref.clone().unwrap(), it.state.clone()))
        .collect();
    told.sort();
    let expected = [("main", "failed"), ("v1", "pending")];
    assert_eq!(told, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

async fn nothing_is_told_where_no_forge_is(url: &str) {
    let mut scene = Scene::begin(url, Forge::Github).await;
    let store = scene.story.store.clone();
    let run = scene.push().await;
    // The configuration names none any more, and later one again: what was between was not noted.
    store.set_told_forge(&scene.story.shop, None).await.unwrap();
    assert_eq!(store.status_of_run(&run).await.unwrap(), None);
    let attempt = scene.claim(&run).await;
    assert_eq!(store.status_of_run(&run).await.unwrap(), None);
    let again = Some(Forge::Github);
    store
        .set_told_forge(&scene.story.shop, again)
        .await
        .unwrap();
    assert_eq!(scene.tell().await, 0);
    scene.fail(&attempt, "no").await;
    assert_eq!(scene.tell().await, 1);
    store
        .set_told_forge(&scene.story.shop, again)
        .await
        .unwrap();
    assert!(
        store.status_of_run(&run).await.unwrap().is_some(),
        "the same one"
    );
}
