//! `demo`: the product's main job on real parts, told with four versions of a shop.
//!
//! Real git pushes, a real webhook, real builds, a real registry that checks tokens, real containers
//! behind a load balancer. The table at the end is made from what was seen from outside: the API, the
//! registry, the load balancers. Status 0 only when every line held.

mod aws;
mod base_image;
mod crew;
mod docker;
mod evidence;
mod holds;
mod repository;
mod scene;
mod sights;
mod signals;
mod story;
mod table;
mod take_down;

use crate::Exit;
use crate::own_files;
use crate::ports::{self, Wanted};
use crate::up::{self, UpArgs};
use clap::{Args, ValueEnum};
use crew::{Crew, Victim};
use holds::Latch;
use signals::{Asked, Signals};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use table::Table;
use take_down::{Folder, Made};

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
    /// First of seven ports in a row: the sandbox, and from the fifth on its registry and two load
    /// balancers.
    #[arg(long, default_value_t = 4566, value_parser = clap::value_parser!(u16).range(1..=65529))]
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

/// How the story ended.
enum End {
    /// It was told, to a line that did not hold or to the last one, or broke off.
    Told(anyhow::Result<()>),
    /// Somebody asked it to stop.
    Asked(Asked),
}

impl DemoArgs {
    fn local(&self, offset: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port + offset))
    }

    /// Of the load balancers of staging and production.
    fn balancers(&self) -> [SocketAddr; 2] {
        [self.local(5), self.local(6)]
    }

    fn up(&self, data: &Path) -> UpArgs {
        UpArgs {
            data: data.to_owned(),
            listen: self.listen,
            config: Some(data.join("roadstead.toml")),
            sandbox: self.local(0),
            registry: self.local(4),
            time_scale: self.time_scale,
        }
    }

    /// Where something is to listen.
    fn wanted(&self) -> Vec<Wanted> {
        let [server, sandbox, registry] = up::wanted(&self.up(Path::new("")));
        let [staging, production] = self.balancers();
        let by_port = |part, address| Wanted {
            part,
            address,
            option: "--port",
        };
        vec![
            server,
            by_port(sandbox.part, sandbox.address),
            by_port(registry.part, registry.address),
            by_port("staging's load balancer", staging),
            by_port("production's load balancer", production),
        ]
    }
}

pub(crate) async fn demo(args: DemoArgs) -> anyhow::Result<()> {
    // First of all: whatever is begun from here on is also taken down.
    let mut signals = Signals::listen()?;
    ports::free(&args.wanted())?;
    let folder = Folder::make(args.data.as_deref())?;
    let mut table = Table::new(args.json);
    let mut made = Made::default();
    let end = tokio::select! {
        biased;
        asked = signals.next() => End::Asked(asked),
        told = tell(&args, folder.path(), &mut table, &mut made) => End::Told(told),
    };
    table.labels = labels(folder.path());
    table.print(args.json, matches!(end, End::Told(Ok(()))));
    match (&end, &made.scene) {
        (End::Asked(_), _) => eprintln!(
            "taking everything down, which may take a minute; once more leaves it as it is"
        ),
        (End::Told(_), Some(scene)) if args.keep => {
            eprintln!(
                "\ndashboard  {}   user admin, password {}\nCtrl-C stops everything.",
                scene.url, scene.password
            );
            signals.next().await;
        }
        (End::Told(_), _) => {}
    }
    let gone = tokio::select! {
        biased;
        asked = signals.next() => {
            let sandbox = folder.path().join("sandbox");
            eprintln!("`roadstead sandbox --purge --data {}` ends its tasks", sandbox.display());
            folder.keep();
            return Err(Exit::from(asked).into());
        }
        gone = made.take_down(&folder) => gone,
    };
    // Nobody reads the logs of a story that somebody ended.
    let is_asked = matches!(end, End::Asked(_));
    let judged = judge(end, &table);
    if gone && (is_asked || judged.is_ok()) {
        folder.remove();
    } else {
        folder.keep();
    }
    judged
}

/// Whether the story ended as it should.
fn judge(end: End, table: &Table) -> anyhow::Result<()> {
    match end {
        End::Asked(asked) => return Err(Exit::from(asked).into()),
        End::Told(told) => told?,
    }
    match table.lines().iter().find(|line| !line.held) {
        None => Ok(()),
        Some(line) => Err(Exit {
            status: 1,
            message: format!("`{}` did not hold: {}", line.step, line.observed),
        }
        .into()),
    }
}

/// Labels of whatever the parts made on Docker Engine.
fn labels(data: &Path) -> Vec<String> {
    let labels = [
        roadstead_sandbox::label(&data.join("sandbox")),
        roadstead_runner::label(&data.join("runner")),
    ];
    let read = labels.into_iter().filter_map(|label| {
        label.unwrap_or_else(|error| {
            eprintln!("{error:#}");
            None
        })
    });
    read.collect()
}

/// Tells the story; what it makes meanwhile is noted in `made` before it is there.
async fn tell(
    args: &DemoArgs,
    data: &Path,
    table: &mut Table,
    made: &mut Made,
) -> anyhow::Result<()> {
    let base = made.base.insert(base_image::name()).clone();
    base_image::build(data, &base).await?;
    table.say(&format!("base image {base} built from scratch"));

    let [staging, production] = args.balancers();
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
        staging: staging.port(),
        production: production.port(),
        broken: args.broken,
        wanted_file: latch.as_ref().map(Latch::address),
    };
    let secret = own_files::secret(data, "webhook-secret")?;
    let webhook = format!("http://{}/webhooks/git/shop", args.listen);
    let repository = repository::Repository::create(data, setting, &webhook, &secret).await?;
    let up = args.up(data);
    if let Some(config) = &up.config {
        let text = format!(
            "[[projects]]\nname = \"shop\"\nrepository = \"{}\"\nwebhook_secret = \"{secret}\"\n",
            repository.address().display()
        );
        own_files::write(config, &text, own_files::READ)?;
    }
    made.registry = Some(up.registry);
    let parts = up::start(&up).await?;
    table.say("sandbox, server and runner are up");
    let scene = made.scene.insert(scene::Scene {
        url: format!("http://{}", args.listen),
        registry: format!("http://{}", up.registry),
        sandbox: format!("http://{}", up.sandbox),
        staging: format!("http://{staging}"),
        production: format!("http://{production}"),
        aws: aws::Aws::new(format!("http://{}", up.sandbox)),
        repository,
        base,
        password: parts.admin_password.clone(),
        clusters: RefCell::default(),
    });
    let crew = made
        .crew
        .insert(Crew::new(parts, up, data.to_owned(), mortal, latch));
    story::tell(scene, crew, table).await?;
    crew.alive()
}
