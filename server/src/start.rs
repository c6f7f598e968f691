//! Puts the rooms together, and takes them apart in order.

use crate::adapters;
use crate::adapters::aws::{Aws, AwsError};
use crate::adapters::bucket::{Bucket, Patience};
use crate::adapters::cluster::Cluster;
use crate::adapters::forges::Forges;
use crate::adapters::probes::Probes;
use crate::adapters::registry::Registry;
use crate::adapters::sources::{Remote, Sources};
use crate::background::Background;
use crate::config::{self, Config, ToldForge};
use crate::dispatcher::{Dispatcher, Waiters};
use crate::executor::Executor;
use crate::gap_filler::GapFiller;
use crate::http::{self, App, people};
use crate::logs::LogStore;
use crate::observer::Observer;
use crate::private;
use crate::reaper::Reaper;
use crate::reconciler::Reconciler;
use crate::retention::Retention;
use crate::schedules::Schedules;
use crate::secrets::Keys;
use crate::store::Store;
use crate::store::backup::{Place, place_of};
use crate::teller::Teller;
use crate::wake::Bell;
use anyhow::{Context, bail};
use roadstead_pipelines::id::{CommitSha, ProjectName};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Longest wait for requests under way when the server stops.
const LAST_REQUESTS: Duration = Duration::from_secs(10);
/// So long a server that starts waits for a PostgreSQL that does not answer.
const LONGEST_START: Duration = Duration::from_secs(600);
/// What a PostgreSQL that does answer says: waiting does not help.
const ANSWERED: [&str; 3] = ["authentication", "does not exist", "pg_hba.conf"];
/// Between two tries to reach it.
const AGAIN: Duration = Duration::from_secs(2);

/// Runs a server until `shutdown` completes. Prints `server ready on http://…` once it answers.
///
/// # Errors
/// When the database cannot be opened, the address is taken, or a folder cannot be made.
pub async fn serve(config: Config, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    adapters::sources::limit_waits()
        .context("cannot limit how long repositories are waited for")?;
    private::folder(&config.data)
        .with_context(|| format!("cannot make the data folder {}", config.data.display()))?;
    let _alone = alone(&config)?;
    let mut shutdown = std::pin::pin!(shutdown);
    let database = config.store_url();
    tokio::select! {
        () = &mut shutdown => return Ok(()),
        () = database_answers(&database) => {}
    }
    let store = Store::open(&database)
        .await
        .context("cannot open the database")?;
    let Projects {
        webhook_secrets,
        remotes,
        told,
    } = set_up_projects(&config, &store).await?;
    set_up_admin(&config, &store).await?;

    let bell = Bell::default();
    let carrier = store.join_others(&bell)?;
    tracing::info!("this server is {} in `leases` and `effects`", store.id());
    let stop = CancellationToken::new();
    let sources = Sources::new(&config.data);
    if let Err(error) = sources.sweep().await {
        tracing::warn!(%error, "old mirrors stay where they are");
    }
    let aws = Aws::new(&config.aws);
    let registry = Registry::new(aws.clone());
    let cluster = Cluster::new(aws);
    // What follows from a push can wait; whoever sent it cannot.
    let later = store.in_background();
    let reconciler = Reconciler {
        store: later.clone(),
        bell: bell.clone(),
        effects_bell: bell.clone(),
    };
    let waiters = Waiters::default();
    let dispatcher = Dispatcher {
        store: store.clone(),
        bell: bell.clone(),
        waiters: waiters.clone(),
    };
    let reaper = Reaper {
        store: store.clone(),
        bell: bell.clone(),
    };
    let executor = Executor::new(
        later.clone(),
        sources.clone(),
        registry.clone(),
        cluster.clone(),
        remotes.clone(),
        bell.clone(),
    );
    let gap_filler = GapFiller::new(later.clone(), sources.clone(), bell.clone());
    let schedules = Schedules::new(later.clone(), sources.clone(), bell.clone());
    let teller = Teller::new(
        later.clone(),
        Forges::new()?,
        told,
        config.http.public_url(),
        bell.clone(),
    );
    let observer = Observer::new(store.clone(), cluster, Probes::new()?, bell.clone());
    let logs = open_logs(&config).await?;
    let retention = Retention {
        store: later,
        logs: logs.clone(),
        policies: config.retention.clone(),
        started_at: crate::clock::now(),
    };

    let keys = Keys::new(config.key_file());
    if let Err(error) = keys.look(&store.list_key_ids().await?) {
        tracing::error!(%error, "steps that name secrets will fail: {error}");
    }
    let watched = remotes.clone();
    let leaving = bell.clone();
    let listener = http::bind(config.http.listen)?;
    let address = listener.local_addr()?;
    let app = App {
        store,
        logs,
        sources,
        remotes,
        registry,
        bell,
        waiters,
        config,
        webhook_secrets,
        keys,
        masks: http::secrets::Masks::default(),
        pages: http::pages::Shared::default(),
        sign_ins: http::SignInLimit::default(),
    };
    let server = http::server(actix_web::web::Data::new(app), listener)?;
    let handle = server.handle();
    let mut serving = tokio::spawn(server);
    let background = Background::start().context("cannot start threads")?;
    let workers = [
        background.spawn({
            let stop = stop.clone();
            async move {
                stop.run_until_cancelled(reconciler.run()).await;
            }
        }),
        tokio::spawn({
            let stop = stop.clone();
            async move {
                stop.run_until_cancelled(dispatcher.run()).await;
            }
        }),
        tokio::spawn({
            let stop = stop.clone();
            async move {
                stop.run_until_cancelled(reaper.run()).await;
            }
        }),
        background.spawn(executor.run(stop.clone())),
        tokio::spawn(observer.run(stop.clone())),
        background.spawn(retention.run(stop.clone())),
        background.spawn(gap_filler.run(watched.clone(), stop.clone())),
        background.spawn(schedules.run(watched, stop.clone())),
        background.spawn(teller.run(stop.clone())),
    ];
    println!("server ready on http://{address}");
    tokio::select! {
        () = &mut shutdown => {}
        ended = &mut serving => ended?.context("the HTTP server ended")?,
    }
    tracing::info!("stopping");
    stop.cancel();
    // Long polls and event streams end; what stays after that is cut.
    leaving.put_away();
    let _ = tokio::time::timeout(LAST_REQUESTS, handle.stop(true)).await;
    for worker in workers {
        let _ = tokio::time::timeout(LAST_REQUESTS, worker).await;
    }
    if let Some(carrier) = carrier {
        carrier.ended(LAST_REQUESTS).await;
    }
    Ok(())
}

/// Waits for a PostgreSQL that does not answer, as when a machine starts both or one fails over. Not for ever, so
/// that a wrong address ends in an error, which opening it then tells; at once when it turns this server away.
async fn database_answers(url: &str) {
    if !matches!(place_of(url), Ok(Place::Elsewhere)) {
        return;
    }
    let begun = Instant::now();
    while let Err(error) = Store::probe(url).await {
        let said = error.to_string();
        if begun.elapsed() > LONGEST_START || ANSWERED.iter().any(|it| said.contains(it)) {
            return;
        }
        tracing::warn!(
            "waits for its database, for {} minutes at most: {error}",
            LONGEST_START.as_secs() / 60
        );
        tokio::time::sleep(AGAIN).await;
    }
}

/// Locks what no two servers may have: the data folder, with its mirrors, and an embedded database,
/// which may be elsewhere. Held as long as the process lives.
fn alone(config: &Config) -> anyhow::Result<Vec<File>> {
    let mut locks = vec![(config.data.join("server.lock"), config.data.clone())];
    if let Place::File(database) = place_of(&config.store_url())? {
        let mut lock = database.clone().into_os_string();
        lock.push(".lock");
        locks.push((PathBuf::from(lock), database));
    }
    let mut held = vec![];
    for (path, of) in locks {
        let opened = private::file(&path).and_then(|()| File::options().write(true).open(&path));
        let file = opened.with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => held.push(file),
            Err(TryLockError::WouldBlock) => bail!(
                "another server is at work on {}: each needs a data folder of its own, and several \
                 servers share a PostgreSQL database (`store.url`), never an embedded one",
                of.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
    Ok(held)
}

/// What is known of the projects beside their rows.
struct Projects {
    webhook_secrets: BTreeMap<ProjectName, String>,
    remotes: BTreeMap<ProjectName, Remote>,
    told: BTreeMap<ProjectName, ToldForge>,
}

async fn set_up_projects(config: &Config, store: &Store) -> anyhow::Result<Projects> {
    let mut projects = Projects {
        webhook_secrets: BTreeMap::new(),
        remotes: BTreeMap::new(),
        told: BTreeMap::new(),
    };
    for project in &config.projects {
        let name = ProjectName::parse(&project.name)?;
        let (repository, secret) = (project.repository.clone(), project.webhook_secret.clone());
        store
            .upsert_project(
                name.clone(),
                repository,
                secret.clone(),
                crate::clock::now(),
            )
            .await?;
        let told = project.told_forge().map_err(anyhow::Error::msg)?;
        let forge = told.as_ref().map(|told| told.forge);
        store.set_told_forge(&name, forge).await?;
        projects.webhook_secrets.insert(name.clone(), secret);
        projects.remotes.insert(name.clone(), Remote::from(project));
        projects.told.extend(told.map(|told| (name, told)));
    }
    Ok(projects)
}

/// Where logs go. A bucket that says no keeps the server from starting; one that does not answer may later, and
/// until then runners keep their logs.
async fn open_logs(config: &Config) -> anyhow::Result<LogStore> {
    let Some(s3) = &config.logs.s3 else {
        return LogStore::new(&config.logs_folder()).context("cannot make the logs' folder");
    };
    let bucket = Bucket::new(s3, &config.aws.region, Patience::default())
        .context("cannot use the bucket of logs (`logs.s3`)")?;
    match bucket.probe().await {
        Ok(()) => tracing::info!("logs are in {}", bucket.place()),
        Err(error) if error.is_transient() => {
            tracing::error!("runners keep their logs until their bucket answers: {error}");
        }
        Err(error) => {
            return Err(error).context("cannot use the bucket of logs (`logs.s3`)");
        }
    }
    Ok(LogStore::in_bucket(bucket, &config.data))
}

/// The first administrator.
async fn set_up_admin(config: &Config, store: &Store) -> anyhow::Result<()> {
    let (name, password) = (&config.admin.name, &config.admin.password);
    let made = people::set_up_admin(store, name, password)
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))
        .context("cannot set the administrator up")?;
    if let Some(password) = made {
        println!("administrator `{name}`, password `{password}` (shown this once)");
    }
    Ok(())
}

/// What `check` found of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// Whether it is as it has to be.
    pub ok: bool,
    /// What was seen, and what to do.
    pub detail: String,
}

/// Looks at everything that the configuration names: data folder, database, repositories, registry.
pub async fn check(config: &Config) -> Vec<Finding> {
    let mut findings = vec![];
    let mut find = |what: String, seen: Result<String, String>| {
        let ok = seen.is_ok();
        let detail = seen.unwrap_or_else(|error| error);
        findings.push(Finding { what, ok, detail });
    };
    let data = private::folder(&config.data)
        .and_then(|()| tempfile::tempfile_in(&config.data).map(drop))
        .map(|()| format!("{} can be written", config.data.display()))
        .map_err(|error| format!("{}: {error}", config.data.display()));
    find("data folder".into(), data);
    find("logs".into(), check_logs(config).await);
    let answer = Store::probe(&config.store_url())
        .await
        .map(|()| "answers".to_owned())
        .map_err(|error| error.to_string());
    find("database".into(), answer);
    // A database that does not tell them has no secrets yet, or a finding of its own.
    let in_use = Store::probe_key_ids(&config.store_url()).await;
    let keys = Keys::new(config.key_file()).look(&in_use.unwrap_or_default());
    find("key of secrets".into(), keys.map_err(|e| e.to_string()));
    let kept = &config.retention;
    let policies = [
        ("runs", &kept.runs),
        ("logs", &kept.logs),
        ("deliveries", &kept.deliveries),
    ];
    let told = policies.map(|(what, kept)| format!("{what}: {}", kept.policy()));
    let told = told.join("; ");
    let told = format!("{told}; caches: {}; runners: {}", kept.caches, kept.runners);
    find("retention".into(), Ok(told));
    if config.projects.is_empty() {
        find(
            "projects".into(),
            Err("there is none: add [[projects]]".into()),
        );
    }
    let sources = Sources::new(&config.data);
    for project in &config.projects {
        let Ok(name) = ProjectName::parse(&project.name) else {
            continue;
        };
        let branches = sources.branches(&name, &Remote::from(project)).await;
        let heads = branches.map(|branches| branches.heads);
        let seen = match &heads {
            Ok(heads) => Ok(format!("{} branches", heads.len())),
            Err(error) => Err(error.to_string()),
        };
        find(format!("repository of {name}"), seen);
        let commit = heads.ok().and_then(|heads| heads.into_values().next());
        let seen = check_statuses(config, project, commit).await;
        find(format!("commit statuses of {name}"), seen);
    }
    let registry = Registry::new(Aws::new(&config.aws));
    let login = registry.push_credentials().await;
    let seen = login.map(|login| format!("gives a login for {}", login.registry));
    let place = match &config.aws.endpoint_url {
        Some(url) => format!("{url} (`aws.endpoint_url`)"),
        None => format!("AWS in {} (`aws.region`)", config.aws.region),
    };
    let seen = seen.map_err(|error| match error {
        AwsError::Unavailable { .. } => format!(
            "{error}; asked was {place}: look whether it runs and can be reached from this machine, \
             and whether there are credentials"
        ),
        other => other.to_string(),
    });
    find("registry".into(), seen);
    findings
}

/// Whether logs can be kept where they are to go.
async fn check_logs(config: &Config) -> Result<String, String> {
    let Some(s3) = &config.logs.s3 else {
        let logs = config.logs_folder();
        return private::folder(&logs)
            .and_then(|()| tempfile::tempfile_in(&logs).map(drop))
            .map(|()| format!("{} can be written", logs.display()))
            .map_err(|error| format!("{}: {error}", logs.display()));
    };
    let bucket = Bucket::new(s3, &config.aws.region, Patience::default());
    let bucket = bucket.map_err(|error| error.to_string())?;
    match bucket.probe().await {
        Ok(()) => Ok(format!(
            "in {} objects can be made once, read, listed and removed",
            bucket.place()
        )),
        Err(error) if error.is_transient() => Err(format!(
            "{error}; look whether it can be reached from this machine, and whether there are credentials"
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether a project's forge can be told how runs went, as far as that shows without telling it anything.
async fn check_statuses(
    config: &Config,
    project: &config::Project,
    commit: Option<CommitSha>,
) -> Result<String, String> {
    let Some(told) = project.told_forge()? else {
        return Ok("none are told: `statuses` of the project would say with which token".into());
    };
    let token = told.token()?;
    if config.http.public_url.is_none() {
        return Err("they would lead to this machine: set `http.public_url`".into());
    }
    let place = format!("{} at {}", told.repository_path(), told.api);
    let Some(commit) = commit else {
        return Ok(format!("not tried: no commit is known of {place}"));
    };
    let forges = Forges::new().map_err(|error| error.to_string())?;
    match forges.look(&told, &token, &commit).await {
        Ok(()) => Ok(format!(
            "{place} shows its statuses to the token; whether that may write them shows with the first one"
        )),
        Err(error) => Err(format!("{place}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::tests::s3::{Fault, S3Server};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_bucket_that_says_no_keeps_a_server_from_starting_and_one_that_is_silent_does_not() {
        let s3 = S3Server::start().await;
        let data = tempfile::tempdir().unwrap();
        let mut config = Config {
            data: data.path().to_owned(),
            ..Config::default()
        };
        config.logs.s3 = Some(s3.settings());
        open_logs(&config).await.unwrap();
        let said = check_logs(&config).await.unwrap();
        assert!(
            said.contains("s3://logs-of-tests/roadstead/logs at"),
            "{said}"
        );
        for (fault, word) in [
            (Fault::Answer(403, "AccessDenied"), "denies s3:ListBucket"),
            (Fault::Unconditional, "If-None-Match"),
            (Fault::Answer(404, "NoSuchBucket"), "create it or correct"),
        ] {
            s3.plan(move |_| Some(fault));
            let refused = open_logs(&config).await.err().unwrap();
            assert!(format!("{refused:#}").contains(word), "{refused:#}");
            let told = check_logs(&config).await.unwrap_err();
            assert!(told.contains(word), "{told}");
        }
        s3.plan(|_| Some(Fault::Answer(503, "SlowDown")));
        open_logs(&config).await.unwrap();
        let told = check_logs(&config).await.unwrap_err();
        assert!(told.contains("does not answer s3:ListBucket"), "{told}");
    }
}
