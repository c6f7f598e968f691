//! The executor dies at every single call that it makes: before it, after it took effect, and with the
//! reply lost; or is told that what it asked for is not there. The cases are made from what the effects call in a story without faults; which story that
//! is, a `match` without a wildcard says, so a new effect does not compile until it has one.
//!
//! Whoever tries again looks first, with calls that a story without faults never has. So what each case's
//! second try calls is recorded, too, and where that is news, each of those calls is cut in its turn.

use crate::checks::{Trail, check_trail};
use crate::databases;
use crate::stage::Stage;
use crate::stories::{STORIES, Story, WITHOUT_CALLS};
use crate::wire::{At, Call, MOMENTS, Moment, Try};
use futures_util::{StreamExt, stream};
use roadstead_pipelines::effect::Effect;
use roadstead_pipelines::planner;
use std::collections::BTreeSet;

/// Cases that are played at the same time.
const AT_ONCE: usize = 6;

macro_rules! told_in {
    ($($effect:ident: $story:ident,)*) => {
        /// The story in which the calls of an effect are cut.
        fn story_of(effect: &Effect) -> Story {
            match effect {
                $(Effect::$effect { .. } => Story::$story,)*
            }
        }

        /// Every effect there is.
        const EFFECTS: &[&str] = &[$(stringify!($effect)),*];
    };
}

told_in! {
    ReadSources: Pushed,
    PrepareRegistry: Pushed,
    ConfirmImages: Pushed,
    RegisterTaskDefinition: Migrated,
    StartBeforeDeploy: Migrated,
    WatchBeforeDeploy: Migrated,
    StopBeforeDeploy: Hung,
    UpdateService: Migrated,
    CreateService: Created,
    StopRollout: TakenBack,
}

/// The variant's name of an effect's word.
fn variant(word: &str) -> String {
    let parts = word.split('_');
    let capital = |part: &str| part[..1].to_uppercase() + &part[1..];
    parts.map(capital).collect()
}

/// Everything is over: no row waits, no effect is open, and the history is whole.
async fn quiet(stage: &mut Stage) -> Trail {
    stage.reconcile().await;
    let now = stage.now() + jiff::SignedDuration::from_hours(24);
    let open = stage.store.lease_effects(50, now, now).await.unwrap();
    assert!(open.is_empty(), "{open:?}");
    let marks = stage.store.lane_marks().await.unwrap();
    assert!(marks.iter().all(|lane| !lane.live), "the lane is not free");
    let world = stage.store.load_world(&stage.project).await.unwrap();
    let plan = planner::plan(&world, stage.now());
    assert_eq!((plan.changes, plan.effects), (vec![], vec![]));
    check_trail(stage).await.unwrap()
}

/// What happens to a story.
#[derive(Debug, Clone)]
enum Cut {
    Call(Call, Moment),
    Sources(Moment),
    /// What it cuts by itself.
    Own,
}

/// One way for a story to go.
#[derive(Debug, Clone)]
struct Case {
    story: Story,
    cut: Cut,
    /// What is cut of the second try.
    then: Option<(Call, Moment)>,
}

enum Database {
    Sqlite,
    Postgres(databases::Cluster),
}

impl Database {
    fn url(&self) -> Option<String> {
        match self {
            Self::Sqlite => None,
            Self::Postgres(cluster) => Some(cluster.database()),
        }
    }
}

/// Plays it to its end; what the second try of the effect called that was cut, if there was one.
async fn play(url: Option<String>, case: Case) -> Option<Try> {
    let mut stage = Stage::start(url, case.story.backend(), 7).await;
    let sources = match case.cut {
        Cut::Call(call, moment) => {
            stage.wire.cut(At::Call(call), moment);
            None
        }
        Cut::Sources(moment) => Some(moment),
        Cut::Own => None,
    };
    if let Some((call, moment)) = case.then {
        stage.wire.then_cut(call, moment);
    }
    case.story.play(&mut stage, sources).await;
    assert!(!stage.wire.heal(), "the call was not made");
    let second = stage.wire.second_try();
    quiet(&mut stage).await;
    stage.stop().await;
    second
}

/// The cases of first tries, and every try there was without faults.
struct Recorded {
    cases: Vec<Case>,
    tries: BTreeSet<Try>,
}

/// Plays every story without faults, and makes the cases from what its effects called.
async fn record(database: &Database) -> Recorded {
    let (mut cases, mut performed) = (vec![], BTreeSet::new());
    let mut tries = BTreeSet::new();
    for story in STORIES {
        let mut stage = Stage::start(database.url(), story.backend(), 7).await;
        stage.is_watched = true;
        let before = stage.calls().len();
        story.play(&mut stage, None).await;
        let trail = quiet(&mut stage).await;
        assert!(!trail.entries.is_empty());
        tries.extend(stage.wire.tries());
        let own = stage.wire.seen();
        // Whatever changed something was a call of an effect; the rest was the story's own doing.
        let calls = stage.calls();
        let ours = calls[before..].iter().filter(|it| it["fault"].is_null());
        for call in ours.filter(|it| it["effective"] == true) {
            let operation = call["operation"].as_str().unwrap();
            let set_up = ["CreateCluster", "CreateService", "PutImage"];
            let covered = own.iter().any(|it| it.operation == operation);
            assert!(covered || set_up.contains(&operation), "{operation}");
        }
        for effect in &stage.performed {
            if story_of(effect) != story || !performed.insert(variant(effect.word())) {
                continue;
            }
            let calls: Vec<_> = own.iter().filter(|it| it.effect == effect.word()).collect();
            assert_eq!(
                calls.is_empty(),
                effect.word() == WITHOUT_CALLS,
                "{effect:?}"
            );
            for moment in MOMENTS {
                let cut = calls.iter().filter(|it| moment.is_of(&it.operation));
                let mut cuts: Vec<_> = cut.map(|it| Cut::Call((*it).clone(), moment)).collect();
                if calls.is_empty() && moment != Moment::Missing {
                    cuts.push(Cut::Sources(moment));
                }
                cases.extend(cuts.into_iter().map(|cut| Case {
                    story,
                    cut,
                    then: None,
                }));
            }
        }
        stage.stop().await;
    }
    for effect in EFFECTS {
        assert!(performed.contains(*effect), "no story performs {effect}");
    }
    let given_up = Case {
        story: Story::GivenUp,
        cut: Cut::Own,
        then: None,
    };
    cases.push(given_up);
    Recorded { cases, tries }
}

/// Plays all of them, and gives each one's second try.
async fn play_all(database: &Database, cases: Vec<Case>) -> Vec<(Case, Option<Try>)> {
    let count = cases.len();
    let played = cases.into_iter().map(|case| {
        let (url, told) = (database.url(), case.clone());
        let runtime = tokio::runtime::Handle::current();
        let play = move || runtime.block_on(play(url, case));
        async move { (told, tokio::task::spawn_blocking(play).await) }
    });
    let played: Vec<_> = stream::iter(played).buffered(AT_ONCE).collect().await;
    let failed: Vec<_> = played.iter().filter(|(_, ended)| ended.is_err()).collect();
    assert!(
        failed.is_empty(),
        "{} of {count}: {failed:#?}",
        failed.len()
    );
    let played = played.into_iter();
    played.map(|(case, ended)| (case, ended.unwrap())).collect()
}

/// The cases of second tries: of those that call what none before them called.
fn second_cases(played: Vec<(Case, Option<Try>)>, mut known: BTreeSet<Try>) -> Vec<Case> {
    let mut cases = vec![];
    for (case, second) in played {
        let Some(second) = second.filter(|second| known.insert(second.clone())) else {
            continue;
        };
        for (index, operation) in second.calls.iter().enumerate() {
            let moments = MOMENTS.into_iter().filter(|moment| moment.is_of(operation));
            cases.extend(moments.map(|moment| {
                let call = Call {
                    effect: second.effect.clone(),
                    index,
                    operation: operation.clone(),
                };
                Case {
                    then: Some((call, moment)),
                    ..case.clone()
                }
            }));
        }
    }
    cases
}

async fn every_case(database: Database) {
    let Recorded { cases, tries } = record(&database).await;
    let firsts = cases.len();
    let played = play_all(&database, cases).await;
    let again: BTreeSet<_> = played.iter().filter_map(|(_, it)| it.as_ref()).collect();
    for first in tries.iter().filter(|it| !it.calls.is_empty()) {
        let is_again = again.iter().any(|it| it.effect == first.effect);
        assert!(is_again, "nobody tries {} again", first.effect);
    }
    let cases = second_cases(played, tries);
    let seconds = cases.len();
    assert_ne!(seconds, 0, "second tries call what first ones do");
    play_all(&database, cases).await;
    println!("{firsts} cases of first tries, {seconds} of second ones");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_death_at_any_call_changes_nothing_on_sqlite() {
    every_case(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_death_at_any_call_changes_nothing_on_postgres() {
    every_case(Database::Postgres(databases::Cluster::start())).await;
}
