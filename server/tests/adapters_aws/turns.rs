//! A forge that does not answer, beside everybody else.

use crate::executor::{MAIN, PIPELINE, Server};
use crate::support::{Sandbox, container, eventually};
use git2::FileMode;
use roadstead_pipelines::id::{CommitSha, ProjectName, RunId};
use roadstead_pipelines::run::RunState;
use roadstead_sandbox::BackendKind::Simulated;
use roadstead_server::adapters::sources::Remote;
use roadstead_server::clock;
use roadstead_server::store::EffectState;
use serde_json::json;
use std::net::TcpListener;

/// More than are performed at the same time, whatever they wait for.
const FETCHES: u64 = 40;

/// The kernel takes connections without anybody's help, and nobody answers on them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetches_that_hang_hold_up_neither_deployments_nor_other_projects() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let sandbox = Sandbox::start(Simulated).await;
    sandbox.service(container(&json!({}))).await;
    let mut server = Server::start(sandbox.aws()).await;
    server.die().await;
    let blog = ProjectName::parse("blog").unwrap();
    let address = format!("https://{}/blog.git", silent.local_addr().unwrap());
    let (secret, now) = ("0123456789abcdef".to_owned(), clock::now());
    let made = server
        .store
        .upsert_project(blog.clone(), address.clone(), secret, now);
    made.await.unwrap();
    let remote = Remote {
        address,
        username: None,
        password: None,
    };
    server.remotes.insert(blog.clone(), remote);
    let mut runs: Vec<RunId> = vec![];
    for number in 0..FETCHES {
        let commit = CommitSha::parse(&format!("{number:040x}")).unwrap();
        let asked = server
            .store
            .ask_for_run(&blog, commit, MAIN.into(), "test", clock::now());
        runs.push(asked.await.unwrap());
    }
    server.start_again(sandbox.aws()).await;
    // All of them are due, and the first of them hang: whatever comes now comes after them.
    eventually("fetches to hang", async || {
        let mut states = vec![];
        for run in &runs {
            let effects = server.store.get_run(run).await.unwrap().effects;
            states.extend(effects.iter().map(|effect| effect.state));
        }
        let hanging = states.iter().filter(|it| **it == EffectState::Leased);
        (states.len() == runs.len() && hanging.count() > 0).then_some(())
    })
    .await;

    let file = (".roadstead/pipeline.yml", FileMode::Blob, PIPELINE);
    let commit = server.commit_saying("Change", &[file]);
    let read = server.read(commit).await;
    // What comes after that needs a registry, which there is none of here.
    assert!(read.pipeline.is_some(), "{read:?}");
    let release = Server::new_release(&server.project, 1);
    let release = server.bring(release, PIPELINE).await;
    let deployment = server.deployed(&release.id).await;
    assert_eq!(deployment.state.word(), "deployed", "{deployment:?}");
    for run in &runs {
        let run = server.store.get_run(run).await.unwrap().run;
        assert_eq!(run.state, RunState::Fetching, "{run:?}");
    }
    // What hangs in a thread of its own hears of that.
    drop(silent);
    server.stop().await;
    sandbox.stop().await;
}
