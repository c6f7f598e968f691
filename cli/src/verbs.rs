//! The client's verbs: what the dashboard's buttons do, and what its lists show.

mod approve_run;
mod artifacts;
mod audit;
mod drain_runner;
mod included;
mod init;
mod people;
mod rerun;
mod run;
mod secrets;
mod start;
mod validate;

pub(crate) use validate::{ValidateArgs, validate};

use crate::Exit;
use crate::client::{Client, ServerArgs};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Looks at a repository and writes a first pipeline file.
    Init(init::InitArgs),
    /// A pipeline's steps and image builds on this machine, without a server.
    Run(run::RunArgs),
    /// Starts a run of a branch or tag.
    Start(start::StartArgs),
    /// The newest runs of a project, or one run.
    Runs {
        /// Project, or a run's id (`shop.12`).
        what: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// The log of a step.
    Logs {
        /// The run's id.
        run: String,
        /// The step.
        step: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// The files that a run's steps left to be kept.
    Artifacts(artifacts::ArtifactsArgs),
    /// Cancels a run, or a deployment that has not begun.
    Cancel {
        /// The id of a run or deployment.
        id: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Sends jobs of a run that ended badly back to work, in the same run.
    Rerun(rerun::RerunArgs),
    /// Runs the commit of a finished run again, all of it as a new run.
    Retry {
        /// The run's id.
        run: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// The newest deployments of a project, or one deployment.
    Deployments {
        /// Project, or a deployment's id (`shop.d31`).
        what: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// The newest releases of a project.
    Releases {
        /// Project.
        project: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// What runs where, and what waits for what.
    Status {
        /// Project.
        project: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Brings a release into an environment.
    Promote(PlaceArgs),
    /// Goes back to a verified release and holds the place.
    Rollback(PlaceArgs),
    /// Approves a release for an environment.
    Approve(PlaceArgs),
    /// Lets the code of a pull request from a fork run.
    ApproveRun(approve_run::ApproveRunArgs),
    /// Keeps automation away from a place.
    Hold(PlaceArgs),
    /// Lets automation go on.
    Resume(PlaceArgs),
    /// Lets a runner finish what it has and take no more work, or take work again.
    DrainRunner(drain_runner::DrainRunnerArgs),
    /// Who may sign in, and what they may do.
    #[command(subcommand)]
    Users(people::UserVerb),
    /// Your API tokens.
    #[command(subcommand)]
    Tokens(people::TokenVerb),
    /// What steps get and nobody sees.
    #[command(subcommand)]
    Secrets(secrets::SecretVerb),
    /// The audit trail; for admins.
    #[command(subcommand)]
    Audit(audit::AuditVerb),
}

#[derive(Args)]
pub(crate) struct PlaceArgs {
    /// Project.
    project: String,
    /// Environment.
    environment: String,
    /// Service.
    service: String,
    /// The release (`shop.r7`); not for hold and resume.
    release: Option<String>,
    /// Why, for the history.
    #[arg(long, default_value = "")]
    reason: String,
    /// Wait for the deployment's end; status 5 unless it is deployed.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Init(args) => init::init(args),
        Verb::Run(args) => run::run(args).await,
        Verb::Start(args) => start::start(args).await,
        Verb::Runs { what, server } => {
            let client = client(&server)?;
            if what.contains('.') {
                let run = client.get(&format!("/runs/{what}")).await?;
                return show(&server, &run, one_run);
            }
            let runs = client.get(&format!("/projects/{what}/runs")).await?;
            show(&server, &runs, |value| list(value, "runs", run_line))
        }
        Verb::Logs { run, step, server } => {
            print!(
                "{}",
                client(&server)?
                    .text(&format!("/runs/{run}/steps/{step}/log"))
                    .await?
            );
            Ok(())
        }
        Verb::Artifacts(args) => artifacts::artifacts(args).await,
        Verb::Cancel { id, server } => {
            let deployment = id
                .split_once('.')
                .is_some_and(|(_, rest)| rest.starts_with('d'));
            let kind = if deployment { "deployments" } else { "runs" };
            let done = client(&server)?
                .post(&format!("/{kind}/{id}/cancel"), &json!({}))
                .await?;
            show(&server, &done, |_| println!("{id}: cancelling"))
        }
        Verb::Rerun(args) => rerun::rerun(args).await,
        Verb::Retry { run, server } => {
            let done = client(&server)?
                .post(&format!("/runs/{run}/retry"), &json!({}))
                .await?;
            show(&server, &done, |value| println!("{}", text(&value["run"])))
        }
        Verb::Deployments { what, server } => {
            let client = client(&server)?;
            if what.contains('.') {
                let found = client.get(&format!("/deployments/{what}")).await?;
                return show(&server, &found, one_deployment);
            }
            let found = client.get(&format!("/projects/{what}/deployments")).await?;
            show(&server, &found, |value| {
                list(value, "deployments", deployment_line);
            })
        }
        Verb::Releases { project, server } => {
            let found = client(&server)?
                .get(&format!("/projects/{project}/releases"))
                .await?;
            show(&server, &found, |value| {
                list(value, "releases", |r| {
                    format!(
                        "{:<10} {}  {}",
                        text(&r["id"]),
                        &text(&r["commit"])[..7],
                        text(&r["message"])
                    )
                });
            })
        }
        Verb::Status { project, server } => {
            let found = client(&server)?
                .get(&format!("/projects/{project}"))
                .await?;
            show(&server, &found, status)
        }
        Verb::Promote(args) => on_place("promote", args).await,
        Verb::Rollback(args) => on_place("rollback", args).await,
        Verb::Approve(args) => on_place("approve", args).await,
        Verb::ApproveRun(args) => approve_run::approve_run(args).await,
        Verb::Hold(args) => on_place("hold", args).await,
        Verb::Resume(args) => on_place("resume", args).await,
        Verb::DrainRunner(args) => drain_runner::drain_runner(args).await,
        Verb::Users(verb) => people::users(verb).await,
        Verb::Tokens(verb) => people::tokens(verb).await,
        Verb::Secrets(verb) => secrets::secrets(verb).await,
        Verb::Audit(verb) => audit::audit(verb).await,
    }
}

fn client(server: &ServerArgs) -> anyhow::Result<Client> {
    Client::new(&server.url, server.token.clone())
}

fn show(server: &ServerArgs, value: &Value, people: impl FnOnce(&Value)) -> anyhow::Result<()> {
    if server.json {
        println!("{value:#}");
    } else {
        people(value);
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn list(value: &Value, key: &str, line: impl Fn(&Value) -> String) {
    let items = value[key].as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        println!("no {key} yet");
    }
    for item in items {
        println!("{}", line(item));
    }
}

fn run_line(run: &Value) -> String {
    let of = run["pull_request"].as_str();
    format!(
        "{:<10} {:<11} {}  {}{}",
        text(&run["id"]),
        text(&run["state"]["state"]),
        text(&run["commit"]).get(..7).unwrap_or("-"),
        text(&run["message"]),
        of.map(|title| format!("  [{title}]")).unwrap_or_default()
    )
}

fn one_run(value: &Value) {
    println!("{}", run_line(&value["run"]));
    failure(&value["run"]["state"]["failure"]);
    let jobs: Vec<_> = value["jobs"].as_array().into_iter().flatten().collect();
    for job in jobs.iter().filter(|_| jobs.len() > 1) {
        println!(
            "  job {:<12} {:<11} {}",
            text(&job["name"]),
            text(&job["state"]["state"]),
            job["state"]["failure"]["message"]
                .as_str()
                .unwrap_or_default()
        );
    }
    for step in value["steps"].as_array().into_iter().flatten() {
        let reason = step["state"]["reason"].as_str().unwrap_or_default();
        println!(
            "  {:<16} {:<11} {reason}",
            text(&step["name"]),
            text(&step["state"]["state"])
        );
    }
    troubles(value);
}

fn deployment_line(d: &Value) -> String {
    format!(
        "{:<10} {:<15} {:<12} {:<10} {}",
        text(&d["id"]),
        text(&d["state"]["state"]),
        text(&d["release"]),
        text(&d["place"]["environment"]),
        text(&d["place"]["service"])
    )
}

fn one_deployment(value: &Value) {
    println!("{}", deployment_line(&value["deployment"]));
    failure(&value["deployment"]["state"]["failure"]);
    for gate in value["gates"].as_array().into_iter().flatten() {
        let word = if gate["open"] == json!(true) {
            "open"
        } else {
            "closed"
        };
        println!("  gate {word:<7} {}", text(&gate["reason"]));
    }
    waiting(value);
    troubles(value);
}

fn failure(failure: &Value) {
    if let Some(message) = failure["message"].as_str() {
        println!("  why: {message}");
        for line in failure["details"].as_array().into_iter().flatten() {
            println!("    {}", text(line));
        }
    }
}

fn waiting(value: &Value) {
    for wait in value["waiting_on"].as_array().into_iter().flatten() {
        let subject = &wait["subject"];
        let who = ["deployment", "run", "release"]
            .iter()
            .find_map(|key| subject[key].as_str());
        println!(
            "  {} waits for {}",
            who.unwrap_or("-"),
            text(&wait["reason"])
        );
    }
}

fn troubles(value: &Value) {
    for trouble in value["troubles"].as_array().into_iter().flatten() {
        println!(
            "  trouble: {}: {}",
            text(&trouble["effect"]["effect"]),
            text(&trouble["error"])
        );
    }
}

fn status(value: &Value) {
    for place in value["places"].as_array().into_iter().flatten() {
        let status = &place["status"];
        let verified = place["verified"][0]["release"]
            .as_str()
            .unwrap_or("nothing verified");
        println!(
            "{:<24} {:<12} {}",
            format!(
                "{}/{}",
                text(&place["environment"]),
                text(&place["service"])
            ),
            verified,
            status["health"]["verdict"]
                .as_str()
                .unwrap_or("not observed")
        );
        if let Some(reason) = place["hold"]["reason"].as_str() {
            println!("  held by {}: {reason}", text(&place["hold"]["by"]));
        }
    }
    waiting(value);
}

async fn on_place(verb: &str, args: PlaceArgs) -> anyhow::Result<()> {
    let client = client(&args.server)?;
    let path = format!(
        "/projects/{}/environments/{}/services/{}/{verb}",
        args.project, args.environment, args.service
    );
    let body = json!({"release": args.release, "reason": args.reason});
    let done = client.post(&path, &body).await?;
    let Some(deployment) = done["deployment"].as_str().filter(|_| args.wait) else {
        return show(&args.server, &done, |value| {
            match value["deployment"].as_str() {
                Some(id) => println!("{id}: queued"),
                None => println!("{verb}: done"),
            }
        });
    };
    let mut last = String::new();
    loop {
        let found = client.get(&format!("/deployments/{deployment}")).await?;
        let state = text(&found["deployment"]["state"]["state"]).to_owned();
        if state != last && !args.server.json {
            println!("{deployment}: {state}");
        }
        match state.as_str() {
            "queued" | "rolling_out" | "verifying" | "rolling_back" => {}
            "deployed" => return show(&args.server, &found, |_| {}),
            other => {
                show(&args.server, &found, one_deployment)?;
                let status = if matches!(other, "cancelled" | "timed_out") {
                    3
                } else {
                    5
                };
                return Err(Exit {
                    status,
                    message: format!("{deployment} ended {other}"),
                }
                .into());
            }
        }
        last = state;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
