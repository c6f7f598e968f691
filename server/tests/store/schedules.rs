//! Schedules as several servers start them: on rows that they share, each with a mirror of its own.

use crate::databases::{self, on_both_databases};
use crate::story::{Story, commit};
use git2::{Repository, Signature};
use jiff::{SignedDuration, Timestamp};
use roadstead_pipelines::heads::{Branches, Heads};
use roadstead_pipelines::id::CommitSha;
use roadstead_pipelines::spec::Schedule;
use roadstead_pipelines::started_by::StartedBy;
use roadstead_server::adapters::sources::{Remote, Sources};
use roadstead_server::schedules::Schedules;
use roadstead_server::store::{RunLine, Store};
use roadstead_server::wake::Bell;
use tempfile::TempDir;
use tokio::sync::Semaphore;

on_both_databases!(
    two_servers_start_one_run_of_a_moment,
    of_what_was_missed_the_newest_is_made_up_for,
    the_newest_file_of_the_branch_decides,
    a_branch_that_is_gone_starts_nothing,
    the_oldest_moments_are_forgotten,
);

const MAIN: &str = "refs/heads/main";
const HOURLY: &str = "\
version: 1
name: shop
trigger:
  schedule: [{ cron: \"0 * * * *\" }]
steps:
  test: { image: busybox, run: make }
";

/// Two servers on one database, and the repository.
struct Fleet {
    story: Story,
    servers: Vec<Schedules>,
    remote: Remote,
    origin: Repository,
    at_once: Semaphore,
    _folder: TempDir,
}

impl Fleet {
    async fn start(url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let story = Story::begin(url).await;
        let path = folder.path().join("shop.git");
        let origin = Repository::init_bare(&path).unwrap();
        let mut servers = vec![];
        for name in ["a", "b"] {
            let sources = Sources::new(&folder.path().join(name));
            let store = Store::open(url).await.unwrap();
            servers.push(Schedules::new(store, sources, Bell::default()));
        }
        let remote = Remote {
            address: path.display().to_string(),
            username: None,
            password: None,
        };
        let fleet = Self {
            story,
            servers,
            remote,
            origin,
            at_once: Semaphore::new(4),
            _folder: folder,
        };
        fleet.commit("main");
        fleet.note(&["main"]).await;
        fleet
    }

    fn commit(&self, branch: &str) -> CommitSha {
        let origin = &self.origin;
        let author = Signature::now("Ada Lovelace", "ada@example.org").unwrap();
        let name = format!("refs/heads/{branch}");
        let parent = origin.find_reference(&name).ok();
        let parent = parent.map(|parent| parent.peel_to_commit().unwrap());
        let parents: Vec<_> = parent.iter().collect();
        let tree = origin.treebuilder(None).unwrap().write().unwrap();
        let tree = origin.find_tree(tree).unwrap();
        let made = origin.commit(Some(&name), &author, &author, "Sails", &tree, &parents);
        CommitSha::parse(&made.unwrap().to_string()).unwrap()
    }

    /// As the branches are compared; main is the repository's own.
    async fn note(&self, branches: &[&str]) {
        let store = &self.story.store;
        let address = store
            .get_project(&self.story.shop)
            .await
            .unwrap()
            .repository;
        let heads = branches.iter();
        let heads: Heads = heads
            .map(|branch| (format!("refs/heads/{branch}"), commit(1)))
            .collect();
        let branches = Branches {
            heads,
            default: Some(MAIN.into()),
        };
        let noted = store.note_heads(&self.story.shop, &address, branches, self.story.now);
        noted.await.unwrap();
    }

    /// Every server looks several times at once: how many runs were made.
    async fn look(&self, now: &str) -> usize {
        let now = at(now);
        let mut looks = vec![];
        for server in self.servers.iter().cycle().take(6) {
            let (server, shop) = (server.clone(), &self.story.shop);
            let (remote, at_once) = (&self.remote, &self.at_once);
            looks.push(async move { server.look_at(shop, remote, at_once, now).await.unwrap() });
        }
        let made = futures_util::future::join_all(looks).await;
        made.into_iter().sum()
    }

    /// Runs of schedules, oldest first.
    async fn runs(&self) -> Vec<RunLine> {
        let runs = self.story.store.list_runs(&self.story.shop, None, 100);
        let mut runs = runs.await.unwrap();
        runs.retain(|run| matches!(run.started_by, StartedBy::Schedule { .. }));
        runs.reverse();
        runs
    }
}

/// A time of 5 January 2026 and the days after: the story begins at 10:00 on the first.
fn at(text: &str) -> Timestamp {
    format!("2026-01-{text}Z").parse().unwrap()
}

fn moment(run: &RunLine) -> Timestamp {
    match &run.started_by {
        StartedBy::Schedule { at, .. } => *at,
        other => panic!("{other:?}"),
    }
}

async fn two_servers_start_one_run_of_a_moment(url: &str) {
    let fleet = Fleet::start(url).await;
    fleet.story.read("main", 1, HOURLY).await;
    assert_eq!(fleet.look("05T10:30:00").await, 0, "10:00 was before");
    assert_eq!(fleet.look("05T11:00:00").await, 1);
    assert_eq!(fleet.look("05T11:00:10").await, 0);
    let head = fleet.commit("main");
    for hour in 12..20 {
        assert_eq!(fleet.look(&format!("05T{hour}:00:03")).await, 1, "{hour}");
    }
    // The clocks are put back, and go on.
    for now in ["05T18:00:03", "05T12:30:00", "05T19:00:01"] {
        assert_eq!(fleet.look(now).await, 0, "{now}");
    }
    assert_eq!(fleet.look("05T20:00:00").await, 1);
    let runs = fleet.runs().await;
    let moments: Vec<Timestamp> = runs.iter().map(moment).collect();
    let hours = (11..=20).map(|hour| at(&format!("05T{hour}:00:00")));
    assert_eq!(moments, hours.collect::<Vec<_>>());
    assert_ne!(runs[0].commit, head);
    assert_eq!(runs[1].commit, head, "where the branch stands then");
    assert_eq!(runs[1].git_ref, MAIN);
    let (store, shop) = (&fleet.story.store, &fleet.story.shop);
    let events = store.list_events(Some(shop), Some(runs[1].id.as_str()), None, 10);
    let asked = events.await.unwrap();
    let asked = asked
        .iter()
        .find(|event| event.what == "asked_for")
        .unwrap();
    assert_eq!(asked.actor, "schedule");
    assert_eq!(asked.detail["started_by"]["cron"], "0 * * * *");
}

async fn of_what_was_missed_the_newest_is_made_up_for(url: &str) {
    let fleet = Fleet::start(url).await;
    fleet.story.read("main", 1, HOURLY).await;
    assert_eq!(fleet.look("05T11:00:00").await, 1);
    // The repository does not answer for a while, and then nobody looks for days.
    let nowhere = Remote {
        address: "/nowhere/shop.git".into(),
        ..fleet.remote.clone()
    };
    let server = &fleet.servers[0];
    let look = server.look_at(
        &fleet.story.shop,
        &nowhere,
        &fleet.at_once,
        at("05T12:00:00"),
    );
    look.await.unwrap_err();
    assert_eq!(fleet.look("08T09:59:00").await, 1);
    assert_eq!(fleet.look("08T09:59:10").await, 0);
    let runs = fleet.runs().await;
    assert_eq!(moment(&runs[1]), at("08T09:00:00"));
}

async fn the_newest_file_of_the_branch_decides(url: &str) {
    let fleet = Fleet::start(url).await;
    let story = &fleet.story;
    let daily = HOURLY.replace("0 * * * *", "0 12 * * *");
    story.read("main", 1, HOURLY).await;
    // A copy in another branch starts nothing; one that names it does.
    story.read("topic", 2, HOURLY).await;
    let named = HOURLY.replace("\" }]", "\", branch: release }]");
    story.read("release", 3, &named).await;
    story.read("topic", 4, &named).await;
    fleet.commit("topic");
    let release = fleet.commit("release");
    assert_eq!(fleet.look("05T11:00:00").await, 2);
    let runs = fleet.runs().await;
    let of_release = runs.iter().find(|run| run.git_ref == "refs/heads/release");
    assert_eq!(of_release.unwrap().commit, release);
    let bare = "version: 1\nname: shop\nsteps:\n  test: { image: busybox, run: make }\n";
    story.read("release", 5, bare).await;
    story.read("main", 6, &daily).await;
    assert_eq!(fleet.look("05T11:59:59").await, 0);
    assert_eq!(fleet.look("05T12:00:00").await, 1);
    assert_eq!(fleet.look("05T13:00:00").await, 0);
}

async fn a_branch_that_is_gone_starts_nothing(url: &str) {
    let fleet = Fleet::start(url).await;
    let named = HOURLY.replace("\" }]", "\", branch: release }]");
    fleet.story.read("release", 1, &named).await;
    assert_eq!(fleet.look("05T11:00:00").await, 0);
    // It is over, though the branch is pushed again within the hour.
    fleet.commit("release");
    assert_eq!(fleet.look("05T11:10:00").await, 0);
    assert_eq!(fleet.look("05T12:00:00").await, 1);
    // Once it is seen that a branch is gone, its schedules are, too.
    fleet.note(&["main", "release"]).await;
    fleet.note(&["main"]).await;
    assert_eq!(fleet.look("05T13:00:00").await, 0);
    let scheduled = fleet
        .story
        .store
        .schedules(&fleet.story.shop, at("05T13:00:00"));
    assert_eq!(scheduled.await.unwrap(), []);
}

async fn the_oldest_moments_are_forgotten(url: &str) {
    let story = Story::begin(url).await;
    let schedule = Schedule {
        cron: "* * * * *".into(),
        timezone: "UTC".into(),
        branch: None,
    };
    let minutely = HOURLY.replace("0 * * * *", "* * * * *");
    story.read("main", 1, &minutely).await;
    let start = async |number: i64| {
        let moment = story.now + SignedDuration::from_mins(number);
        let what = (MAIN, &schedule);
        let started = story
            .store
            .start_scheduled(&story.shop, what, (moment, None), moment);
        assert_eq!(started.await.unwrap(), None);
    };
    for number in 0..2_003 {
        start(number).await;
    }
    let kept = story.store.schedules(&story.shop, story.now).await.unwrap();
    assert_eq!(kept[0].started.len(), 2_000);
    assert_eq!(
        kept[0].started.first(),
        Some(&(story.now + SignedDuration::from_mins(3)))
    );
}
