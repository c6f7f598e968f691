//! A project whose forge is told: a story on a store, a forge, and a server's teller by the story's clock.

use crate::forge::{FakeForge, TOKEN};
use crate::story::{Story, commit};
use roadstead_pipelines::commit_status::Standing;
use roadstead_pipelines::id::{ProjectName, RunId};
use roadstead_pipelines::report::Failure;
use roadstead_pipelines::run::AttemptOutcome;
use roadstead_server::adapters::forges::Forges;
use roadstead_server::clock::Clock;
use roadstead_server::config::{Project, Statuses, ToldForge};
use roadstead_server::forge::Forge;
use roadstead_server::store::{Store, hash_secret};
use roadstead_server::teller::Teller;
use roadstead_server::wake::Bell;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tempfile::TempDir;

pub(crate) const PAGES: &str = "https://roadstead.example";

/// Writes a token where only its owner reads it.
pub(crate) fn token_file(folder: &Path, token: &str) -> PathBuf {
    let file = folder.join("token");
    fs::write(&file, format!("{token}\n")).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    file
}

/// A project's settings with a forge that is told.
pub(crate) fn project(name: &str, kind: Forge, api: String, token_file: PathBuf) -> Project {
    Project {
        name: name.into(),
        repository: "/srv/shop.git".into(),
        webhook_secret: "a webhook's key of the tests".into(),
        username: None,
        password: None,
        statuses: Some(Statuses {
            forge: Some(kind),
            api: Some(api),
            repository: Some("team/shop".into()),
            token_file: Some(token_file),
            token_variable: None,
        }),
    }
}

pub(crate) struct Scene {
    pub(crate) story: Story,
    pub(crate) forge: FakeForge,
    pub(crate) teller: Teller,
    told: BTreeMap<ProjectName, ToldForge>,
    time: Arc<AtomicI64>,
    folder: TempDir,
}

impl Scene {
    pub(crate) async fn begin(url: &str, kind: Forge) -> Self {
        let story = Story::begin(url).await;
        story
            .store
            .register_runner(
                "harbour",
                hash_secret("credential"),
                vec!["linux".into()],
                story.now,
            )
            .await
            .unwrap();
        let forge = FakeForge::start(kind).await;
        let folder = tempfile::tempdir().unwrap();
        let token = token_file(folder.path(), TOKEN);
        let told = project("shop", kind, forge.api(), token).told_forge();
        let told = BTreeMap::from([(story.shop.clone(), told.unwrap().unwrap())]);
        let setting = story.store.set_told_forge(&story.shop, Some(kind));
        setting.await.unwrap();
        let time = Arc::new(AtomicI64::new(story.now.as_microsecond()));
        let teller = teller(&story.store, &told, &time);
        Self {
            story,
            forge,
            teller,
            told,
            time,
            folder,
        }
    }

    /// The teller of another server on this store's database.
    pub(crate) fn teller_of(&self, store: &Store) -> Teller {
        teller(store, &self.told, &self.time)
    }

    pub(crate) fn set_token(&self, token: &str) {
        token_file(self.folder.path(), token);
    }

    /// A push that the forge knows, as far as its job waits for a runner.
    pub(crate) async fn push(&mut self) -> RunId {
        let run = self.story.push().await;
        self.forge.push(commit(run.number()).as_str());
        run
    }

    /// A runner takes the job of a run: its attempt.
    pub(crate) async fn claim(&self, run: &RunId) -> String {
        let token = hash_secret(&format!("token of {run}"));
        let claiming = self.story.store.claim_job("harbour", token, self.story.now);
        let claim = claiming.await.unwrap().unwrap();
        assert_eq!(claim.run.id, *run);
        claim.attempt
    }

    /// The attempt ends with a failure of the user's.
    pub(crate) async fn fail(&self, attempt: &str, message: &str) {
        let outcome = AttemptOutcome::Failed {
            failure: Failure::failed(message),
        };
        let ending = self
            .story
            .store
            .end_attempt(attempt, 1, outcome, self.story.now);
        ending.await.unwrap();
    }

    /// The image of a run is built, and its release is made.
    pub(crate) async fn succeed(&mut self, run: &RunId) {
        self.story.build(run).await;
        for _ in 0..2 {
            self.story.reconcile().await;
            self.story.act().await;
        }
        self.story.reconcile().await;
    }

    /// Time goes by.
    pub(crate) fn wait(&mut self, seconds: i64) {
        self.story.wait(seconds);
    }

    /// The forge is told all that is due now: how many calls that took.
    pub(crate) async fn tell(&self) -> usize {
        self.tell_by(&self.teller).await
    }

    /// The same by a server's teller.
    pub(crate) async fn tell_by(&self, teller: &Teller) -> usize {
        let now = self.story.now.as_microsecond();
        self.time.store(now, Ordering::SeqCst);
        let mut calls = 0;
        while teller.tell_one(&self.story.shop).await.unwrap().is_some() {
            calls += 1;
            assert!(calls < 100, "it is told again and again");
        }
        calls
    }

    pub(crate) async fn standing(&self, run: &RunId) -> Standing {
        let found = self.story.store.status_of_run(run).await.unwrap();
        found.unwrap().standing
    }

    /// Why the forge does not show how a run went.
    pub(crate) async fn reason(&self, run: &RunId) -> String {
        match self.standing(run).await {
            Standing::Untold {
                failed: Some(reason),
                ..
            }
            | Standing::GivenUp { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }
}

fn teller(store: &Store, told: &BTreeMap<ProjectName, ToldForge>, time: &Arc<AtomicI64>) -> Teller {
    let time = Arc::clone(time);
    let clock =
        Clock::new(move || jiff::Timestamp::from_microsecond(time.load(Ordering::SeqCst)).unwrap());
    let forges = Forges::new().unwrap();
    Teller::new(
        store.clone(),
        forges,
        told.clone(),
        PAGES.into(),
        Bell::default(),
    )
    .with_clock(clock)
}
