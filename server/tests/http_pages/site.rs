//! A server on a free port with something in it, and a client that says who it is.

use crate::story::Story;
use actix_web::dev::ServerHandle;
use actix_web::web;
use git2::{Repository, RepositoryInitOptions, Signature};
use jiff::{SignedDuration, Timestamp};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, redirect};
use roadstead_pipelines::authorship::Addresses;
use roadstead_pipelines::id::{ReleaseId, RunId};
use roadstead_pipelines::spec::Role;
use roadstead_server::adapters::aws::Aws;
use roadstead_server::adapters::registry::Registry;
use roadstead_server::adapters::sources::{Remote, Sources};
use roadstead_server::config::Config;
use roadstead_server::dispatcher::{Dispatcher, Waiters};
use roadstead_server::http::{self, App};
use roadstead_server::logs::{LogKey, LogStore};
use roadstead_server::secrets::Keys;
use roadstead_server::store::hash_secret;
use roadstead_server::wake::Bell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// The key of the project's webhooks.
pub(crate) const SECRET: &str = "a webhook's key of the tests";
/// Longer than anything here takes on a slow and busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A running server, with a project `shop` whose first release is verified in staging and waits for
/// production.
pub(crate) struct Site {
    pub(crate) base: String,
    pub(crate) app: web::Data<App>,
    pub(crate) story: Story,
    pub(crate) release: ReleaseId,
    /// Where the project's commits are.
    pub(crate) origin: Repository,
    client: Client,
    handle: ServerHandle,
    /// Its data.
    pub(crate) folder: TempDir,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Nobody,
    Somebody(Role),
}

impl Who {
    pub(crate) const ALL: [Self; 4] = [
        Self::Nobody,
        Self::Somebody(Role::Viewer),
        Self::Somebody(Role::Deployer),
        Self::Somebody(Role::Admin),
    ];
}

pub(crate) const ADMIN: Who = Who::Somebody(Role::Admin);
pub(crate) const DEPLOYER: Who = Who::Somebody(Role::Deployer);
pub(crate) const VIEWER: Who = Who::Somebody(Role::Viewer);

pub(crate) fn now() -> Timestamp {
    Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap()
}

/// A repository whose branch main has one commit.
fn repository(folder: &Path) -> (Repository, Remote) {
    let path = folder.join("shop.git");
    let origin = Repository::init_opts(
        &path,
        RepositoryInitOptions::new().bare(true).initial_head("main"),
    );
    let origin = origin.unwrap();
    let author = Signature::now("Ada Lovelace", "ada@example.org").unwrap();
    let tree = origin.treebuilder(None).unwrap().write().unwrap();
    let main = Some("refs/heads/main");
    let tree = origin.find_tree(tree).unwrap();
    let made = origin.commit(main, &author, &author, "Sails", &tree, &[]);
    made.unwrap();
    drop(tree);
    let remote = Remote {
        address: path.display().to_string(),
        username: None,
        password: None,
    };
    (origin, remote)
}

fn session_of(role: Role) -> String {
    format!("session of the {role}")
}

impl Site {
    pub(crate) async fn start() -> Self {
        Self::with_logs(|data| LogStore::new(&data.join("logs")).unwrap()).await
    }

    pub(crate) async fn with_logs(logs: impl FnOnce(&Path) -> LogStore) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("roadstead.db").display());
        let mut story = Story::begin(&url).await;
        story.now = now();
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
        let release = story.verified_in_staging().await;
        for role in Role::ALL {
            let name = role.as_str();
            let end = now() + SignedDuration::from_hours(12);
            story
                .store
                .create_user(
                    name,
                    "no hash: comes by session",
                    role,
                    &Addresses::new(),
                    "test",
                    now(),
                )
                .await
                .unwrap();
            let user = story.store.get_user(name).await.unwrap().unwrap();
            story
                .store
                .create_session(hash_secret(&session_of(role)), &user, None, now(), end)
                .await
                .unwrap();
        }

        let (origin, remote) = repository(folder.path());
        let listener = http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let mut config = Config {
            data: folder.path().to_owned(),
            ..Config::default()
        };
        config.http.public_url = Some(base.clone());
        config.http.behind_proxy = true;
        let (bell, waiters) = (Bell::default(), Waiters::default());
        let dispatcher = Dispatcher {
            store: story.store.clone(),
            bell: bell.clone(),
            waiters: waiters.clone(),
        };
        tokio::spawn(dispatcher.run());
        let app = web::Data::new(App {
            store: story.store.clone(),
            logs: logs(folder.path()),
            sources: Sources::new(folder.path()),
            remotes: BTreeMap::from([(story.shop.clone(), remote)]),
            registry: Registry::new(Aws::new(&config.aws)),
            bell,
            waiters,
            keys: Keys::new(config.key_file()),
            config,
            masks: http::secrets::Masks::default(),
            webhook_secrets: BTreeMap::from([(story.shop.clone(), SECRET.to_owned())]),
            pages: http::pages::Shared::default(),
            sign_ins: http::SignInLimit::default(),
        });
        let server = http::server(app.clone(), listener).unwrap();
        let handle = server.handle();
        tokio::spawn(server);
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .timeout(PATIENCE)
            .build()
            .unwrap();
        Self {
            base,
            app,
            story,
            release,
            origin,
            client,
            handle,
            folder,
        }
    }

    pub(crate) fn request(&self, who: Who, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match who {
            Who::Nobody => request,
            Who::Somebody(role) => {
                request.header("cookie", format!("roadstead_session={}", session_of(role)))
            }
        }
    }

    /// As a browser asks for a page.
    pub(crate) async fn browse(&self, who: Who, path: &str) -> Response {
        let request = self.request(who, Method::GET, path);
        let request = request.header("accept", "text/html,application/xhtml+xml");
        request.send().await.unwrap()
    }

    /// A page that has to be there.
    pub(crate) async fn page(&self, who: Who, path: &str) -> String {
        let answer = self.browse(who, path).await;
        let status = answer.status();
        let html = answer.text().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{path}: {html}");
        assert!(html.starts_with("<!doctype html>") || html.starts_with("<!DOCTYPE html>"));
        html
    }

    /// As a browser sends a form of this site.
    pub(crate) async fn submit(&self, who: Who, path: &str, fields: &[(&str, &str)]) -> Response {
        let request = self.request(who, Method::POST, path);
        let request = request
            .header("accept", "text/html")
            .header("origin", &self.base)
            .header("sec-fetch-site", "same-origin");
        request.form(fields).send().await.unwrap()
    }

    /// Bytes of a log, after those that are there.
    pub(crate) async fn log(&self, run: &RunId, step: &str, text: &str) {
        let key = log_key(run, step);
        let offset = self.app.logs.state(key.clone()).await.unwrap().bytes;
        let bytes = text.to_owned().into();
        self.app.logs.append(key, offset, bytes).await.unwrap();
    }

    pub(crate) async fn stop(self) {
        self.handle.stop(false).await;
    }
}

pub(crate) fn log_key(run: &RunId, step: &str) -> LogKey {
    LogKey {
        run: run.to_string(),
        attempt: 1,
        step: step.to_owned(),
    }
}

/// Where an answer leads.
pub(crate) fn location(answer: &Response) -> &str {
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    answer.headers()["location"].to_str().unwrap()
}

/// The cookie of this name that an answer sets, up to its first `;`.
pub(crate) fn cookie(answer: &Response, name: &str) -> Option<String> {
    let all = answer.headers().get_all("set-cookie");
    let mut all = all.iter().map(|value| value.to_str().unwrap().to_owned());
    all.find(|cookie| cookie.starts_with(&format!("{name}=")))
}
