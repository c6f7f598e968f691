//! `up`: server, one runner and a sandbox as children of this process, on an embedded database.

use crate::children::{Part, until};
use crate::own_files::{self, secret};
use crate::ports::{self, Wanted};
use crate::serve::asked_to_stop;
use anyhow::Context;
use clap::Args;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A runner stops its steps and reports them first, which takes at most about 45 s.
const RUNNER_PATIENCE: Duration = Duration::from_secs(50);
/// How long server and sandbox may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(crate) struct UpArgs {
    /// Everything is kept here.
    #[arg(long, default_value = "roadstead-data")]
    pub(crate) data: PathBuf,
    /// Where the dashboard answers.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// The server's configuration; what it leaves out is set here.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Where the sandbox answers.
    #[arg(long, default_value = "127.0.0.1:4566")]
    pub(crate) sandbox: SocketAddr,
    /// Where the sandbox's registry answers.
    #[arg(long, default_value = "127.0.0.1:4570")]
    pub(crate) registry: SocketAddr,
    /// How many times faster than AWS the sandbox's own waits pass.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) time_scale: f64,
}

/// The three parts, running.
pub(crate) struct Parts {
    pub(crate) sandbox: Part,
    pub(crate) server: Part,
    pub(crate) runner: Part,
    pub(crate) admin_password: String,
}

pub(crate) async fn up(args: UpArgs) -> anyhow::Result<()> {
    let asked = asked_to_stop();
    tokio::pin!(asked);
    // The signals' handlers come first: there is no moment at which children are left behind. Those
    // of a start that is broken off are killed when they are dropped.
    let mut parts = tokio::select! {
        biased;
        () = &mut asked => return Ok(()),
        parts = start(&args) => parts?,
    };
    println!(
        "dashboard  http://{}   user admin, password {}",
        args.listen, parts.admin_password
    );
    println!("sandbox    http://{}   (AWS_ENDPOINT_URL)", args.sandbox);
    println!("logs       {}", args.data.display());
    println!("Ctrl-C or SIGTERM stops everything; the data and the sandbox's tasks stay.");
    loop {
        tokio::select! {
            () = &mut asked => break,
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                parts.sandbox.alive()?;
                parts.server.alive()?;
                parts.runner.alive()?;
            }
        }
    }
    stop(&mut parts).await;
    Ok(())
}

/// Where the parts are to listen.
pub(crate) fn wanted(args: &UpArgs) -> [Wanted; 3] {
    let wanted = |part, address, option| Wanted {
        part,
        address,
        option,
    };
    [
        wanted("the server", args.listen, "--listen"),
        wanted("the sandbox", args.sandbox, "--sandbox"),
        wanted("the sandbox's registry", args.registry, "--registry"),
    ]
}

/// Starts the three parts and waits until server and sandbox answer.
///
/// # Errors
/// When a port is taken, which is noticed before anything is started, or a part ends or does not
/// answer within a minute. What was started is killed then.
pub(crate) async fn start(args: &UpArgs) -> anyhow::Result<Parts> {
    ports::free(&wanted(args))?;
    own_files::folder(&args.data)
        .with_context(|| format!("cannot make {}", args.data.display()))?;
    let data = args.data.canonicalize()?;
    let admin_password = secret(&data, "admin-password")?;
    let registration_token = secret(&data, "registration-token")?;

    let mut sandbox = sandbox(args, &data)?;
    sandbox_answers(args, &mut sandbox).await?;
    let mut server = server(args, &data, &admin_password, &registration_token)?;
    server_answers(args, &mut server).await?;
    let runner = runner(args, &data, &registration_token)?;
    Ok(Parts {
        sandbox,
        server,
        runner,
        admin_password,
    })
}

/// Waits until the sandbox answers.
pub(crate) async fn sandbox_answers(args: &UpArgs, part: &mut Part) -> anyhow::Result<()> {
    answers(
        "the sandbox",
        &format!("http://{}/_sandbox/calls", args.sandbox),
        part,
    )
    .await
}

/// Waits until the server answers.
pub(crate) async fn server_answers(args: &UpArgs, part: &mut Part) -> anyhow::Result<()> {
    answers(
        "the server",
        &format!("http://{}/readyz", args.listen),
        part,
    )
    .await
}

async fn answers(what: &str, address: &str, part: &mut Part) -> anyhow::Result<()> {
    let http = reqwest::Client::new();
    until(what, Duration::from_secs(60), async || {
        part.alive()?;
        // Until then it may be somebody else who answers at this address.
        if !part.is_ready()? {
            return Ok(None);
        }
        let answer = http.get(address).send().await;
        part.alive()?;
        Ok(answer.ok().filter(|a| a.status().is_success()).map(drop))
    })
    .await
}

/// Starts the sandbox's process.
pub(crate) fn sandbox(args: &UpArgs, data: &Path) -> anyhow::Result<Part> {
    let text = |path: &Path| path.display().to_string();
    let arguments = [
        "sandbox".to_owned(),
        format!("--listen={}", args.sandbox),
        format!("--registry={}", args.registry),
        format!("--data={}", text(&data.join("sandbox"))),
        format!("--time-scale={}", args.time_scale),
    ];
    Part::start("sandbox", "sandbox ready", data, &arguments, &[])
}

/// Starts the server's process.
pub(crate) fn server(
    args: &UpArgs,
    data: &Path,
    password: &str,
    token: &str,
) -> anyhow::Result<Part> {
    let text = |path: &Path| path.display().to_string();
    let config = match &args.config {
        Some(file) => file.clone(),
        None => {
            let file = data.join("roadstead.toml");
            if !file.exists() {
                // Keys of webhooks will stand in it.
                own_files::write(
                    &file,
                    "# projects go here, see the README\n",
                    own_files::READ,
                )?;
            }
            file
        }
    };
    let pair = |key: &str, value: String| (key.to_owned(), value);
    let environment = [
        pair("ROADSTEAD__HTTP__LISTEN", args.listen.to_string()),
        pair("ROADSTEAD__DATA", text(&data.join("server"))),
        pair(
            "ROADSTEAD__AWS__ENDPOINT_URL",
            format!("http://{}", args.sandbox),
        ),
        pair("ROADSTEAD__ADMIN__PASSWORD", password.to_owned()),
        pair("ROADSTEAD__RUNNERS__REGISTRATION_TOKEN", token.to_owned()),
        pair("AWS_ACCESS_KEY_ID", "sandbox".into()),
        pair("AWS_SECRET_ACCESS_KEY", "sandbox".into()),
    ];
    let arguments = ["server".to_owned(), format!("--config={}", text(&config))];
    Part::start("server", "server ready on ", data, &arguments, &environment)
}

/// Starts the runner's process.
pub(crate) fn runner(args: &UpArgs, data: &Path, token: &str) -> anyhow::Result<Part> {
    let arguments = [
        "runner".to_owned(),
        format!("--server=http://{}", args.listen),
        format!("--data={}", data.join("runner").display()),
        "--name=local".to_owned(),
    ];
    let environment = [("ROADSTEAD_REGISTRATION_TOKEN".to_owned(), token.to_owned())];
    Part::start("runner", "runner ready", data, &arguments, &environment)
}

/// Ends the parts, the runner first.
pub(crate) async fn stop(parts: &mut Parts) {
    parts.runner.stop(RUNNER_PATIENCE).await;
    parts.server.stop(PATIENCE).await;
    parts.sandbox.stop(PATIENCE).await;
}
