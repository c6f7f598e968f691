//! `demo`: the product's main job on real parts, told with four versions of a shop.
//!
//! Real git pushes, a real webhook, real builds, a real registry that checks tokens, real containers
//! behind a load balancer. The table at the end is made from what was seen from outside: the API, the
//! registry, the load balancers. Status 0 only when every line held.

mod aws;
mod base_image;
mod crew;
mod evidence;
mod holds;
mod repository;
mod scene;
mod sights;
mod story;
mod table;

use crate::Exit;
use crate::own_files;
use crate::serve::asked_to_stop;
use crate::up::{self, UpArgs};
use clap::{Args, ValueEnum};
use crew::{Crew, Victim};
use holds::Latch;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Args, Clone)]
pub(crate) struct DemoArgs {
    /// Leave everything running at the end, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Print the table as JSON, with evidence for each line.
    #[arg(long)]
    json: bool,
    /// Leave one part out; the story then has to fail, naming the line.
    #[arg(long = "break", value_enum)]
    broken: Option<Break>,
    /// Kill -9 these parts, all of them when none is named, at each of the moments that could
    /// hurt; the story has to end the same.
    #[arg(long, value_enum, num_args = 0.., value_delimiter = ',', value_name = "PART")]
    kill: Option<Vec<Victim>>,
    /// Everything is kept here; a new temporary folder when not given.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where the dashboard answers.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// First of five ports for sandbox, registry and load balancers.
    #[arg(long, default_value_t = 4566)]
    port: u16,
    /// How many times faster than AWS the sandbox's own waits pass.
    #[arg(long, default_value_t = 20.0)]
    time_scale: f64,
}

/// What can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Break {
    /// The push tells nobody.
    Push,
    /// Production has no gate.
    Gate,
    /// Nothing is verified.
    Verify,
    /// Nothing is rolled back.
    Rollback,
}

pub(crate) async fn demo(args: DemoArgs) -> anyhow::Result<()> {
    let (data, temporary) = match &args.data {
        Some(folder) => (folder.clone(), false),
        None => (
            std::env::temp_dir().join(format!("roadstead-demo-{}", std::process::id())),
            true,
        ),
    };
    own_files::folder(&data)?;
    let data = data.canonicalize()?;
    let told = tell(&args, &data).await;
    if temporary {
        match &told {
            Ok(()) => drop(fs::remove_dir_all(&data)),
            Err(_) => eprintln!("logs are in {}", data.display()),
        }
    }
    told
}

async fn tell(args: &DemoArgs, data: &std::path::Path) -> anyhow::Result<()> {
    let mut table = table::Table::new(args.json);
    let base = base_image::build(data).await?;
    table.say(&format!("base image {base} built from scratch"));

    let local = |offset: u16| SocketAddr::from(([127, 0, 0, 1], args.port + offset));
    let ports = (args.port + 5, args.port + 6);
    let mortal = match &args.kill {
        None => vec![],
        Some(parts) if parts.is_empty() => Victim::value_variants().to_vec(),
        Some(parts) => parts.clone(),
    };
    let latch = match mortal.as_slice() {
        [] => None,
        _ => Some(Latch::start().await?),
    };
    let setting = repository::Setting {
        base: base.clone(),
        staging: ports.0,
        production: ports.1,
        broken: args.broken,
        wanted_file: latch.as_ref().map(Latch::address),
    };
    let secret = own_files::secret(data, "webhook-secret")?;
    let webhook = format!("http://{}/webhooks/git/shop", args.listen);
    let repository = repository::Repository::create(data, setting, &webhook, &secret).await?;
    let config = data.join("roadstead.toml");
    let text = format!(
        "[[projects]]\nname = \"shop\"\nrepository = \"{}\"\nwebhook_secret = \"{secret}\"\n",
        repository.address().display()
    );
    own_files::write(&config, &text, own_files::READ)?;
    let up = UpArgs {
        data: data.to_owned(),
        listen: args.listen,
        config: Some(config),
        sandbox: local(0),
        registry: local(4),
        time_scale: args.time_scale,
    };
    let parts = up::start(&up).await?;
    let password = parts.admin_password.clone();
    table.say("sandbox, server and runner are up");
    let scene = scene::Scene {
        url: format!("http://{}", args.listen),
        registry: format!("http://{}", up.registry),
        sandbox: format!("http://{}", up.sandbox),
        staging: format!("http://127.0.0.1:{}", ports.0),
        production: format!("http://127.0.0.1:{}", ports.1),
        aws: aws::Aws::new(format!("http://{}", up.sandbox)),
        repository,
        base: base.clone(),
        password: password.clone(),
    };
    let mut crew = Crew::new(parts, up, data.to_owned(), mortal, latch);
    let told = story::tell(&scene, &mut crew, &mut table)
        .await
        .and_then(|()| crew.alive());
    let made = [
        roadstead_sandbox::label(&data.join("sandbox"))?,
        roadstead_runner::label(&data.join("runner"))?,
    ];
    table.labels = made.into_iter().flatten().collect();
    table.print(args.json);
    if args.keep {
        eprintln!(
            "\ndashboard  http://{}   user admin, password {}\nCtrl-C stops everything.",
            args.listen, password
        );
        asked_to_stop().await;
    }
    scene.put_away().await;
    crew.dismiss().await;
    if told.is_err() {
        // Nobody will start this sandbox again, so nothing of it may stay.
        if let Err(error) = roadstead_sandbox::purge(&data.join("sandbox")).await {
            eprintln!("{error:#}");
        }
    }
    base_image::remove(&base).await;
    told?;
    match table.lines().iter().find(|line| !line.held) {
        None => Ok(()),
        Some(line) => Err(Exit {
            status: 1,
            message: format!("`{}` did not hold: {}", line.step, line.observed),
        }
        .into()),
    }
}
