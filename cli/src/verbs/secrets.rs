//! Secrets of a project: set, listed, removed; and the key that they are sealed with.

use super::{client, list, show, text};
use crate::client::ServerArgs;
use anyhow::Context;
use clap::Subcommand;
use roadstead_server::config::Config;
use roadstead_server::secrets::Keys;
use roadstead_server::store::Store;
use roadstead_web::urls::encode;
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub(crate) enum SecretVerb {
    /// Names, scopes and versions of a project's secrets; nobody is told a value.
    List {
        /// Project.
        project: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Gives a secret a value, from standard input (without the line feed at its end) or a file (as it is);
    /// for admins.
    Set {
        /// Project.
        project: String,
        /// The name: letters, digits and `_`; `staging/NAME` for one of an environment.
        name: String,
        /// The file with the value.
        #[arg(long)]
        file: Option<PathBuf>,
        /// Only runs of branches that match get it (`release/*`); may be given several times. Without it
        /// those that it has stay, which of a new one is every branch.
        #[arg(long = "branch")]
        branches: Vec<String>,
        /// Runs of every branch get it, whatever it had.
        #[arg(long, conflicts_with = "branches")]
        all_branches: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Forgets a secret; for admins.
    Remove {
        /// Project.
        project: String,
        /// The name; `staging/NAME` for one of an environment.
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Makes a new key, puts all secrets under it and forgets the old one; on the server's machine, while the
    /// server runs or not, as the user that the key's file belongs to.
    RotateKey {
        /// The server's configuration.
        #[arg(long, default_value = "roadstead.toml")]
        config: PathBuf,
    },
}

pub(super) async fn secrets(verb: SecretVerb) -> anyhow::Result<()> {
    match verb {
        SecretVerb::List { project, server } => {
            let path = format!("/projects/{}/secrets", encode(&project));
            let found = client(&server)?.get(&path).await?;
            show(&server, &found, |value| list(value, "secrets", line))
        }
        SecretVerb::Set {
            project,
            name,
            file,
            branches,
            all_branches,
            server,
        } => {
            let mut body = json!({"value": value(file.as_deref())?});
            if all_branches || !branches.is_empty() {
                body["branches"] = json!(branches);
            }
            let done = client(&server)?
                .put(&address(&project, &name), &body)
                .await?;
            show(&server, &done, |value| {
                println!("{name}: version {}, {}", value["version"], scope(value));
            })
        }
        SecretVerb::Remove {
            project,
            name,
            server,
        } => {
            let done = client(&server)?.delete(&address(&project, &name)).await?;
            show(&server, &done, |_| println!("{name}: removed"))
        }
        SecretVerb::RotateKey { config } => rotate(&config).await,
    }
}

fn address(project: &str, name: &str) -> String {
    let (scope, name) = match name.split_once('/') {
        Some((environment, name)) => (format!("?environment={}", encode(environment)), name),
        None => (String::new(), name),
    };
    format!(
        "/projects/{}/secrets/{}{scope}",
        encode(project),
        encode(name)
    )
}

/// The value: never an argument, which everybody on the machine sees.
fn value(file: Option<&Path>) -> anyhow::Result<String> {
    if let Some(file) = file {
        return std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {} as text", file.display()));
    }
    let mut given = String::new();
    std::io::stdin()
        .read_to_string(&mut given)
        .context("cannot read the value from standard input as text")?;
    if given.ends_with('\n') {
        given.pop();
    }
    Ok(given)
}

fn line(secret: &Value) -> String {
    let name = match secret["environment"].as_str() {
        Some(environment) => format!("{environment}/{}", text(&secret["name"])),
        None => text(&secret["name"]).to_owned(),
    };
    format!(
        "{name:<32} version {:<4} {}, set by {} at {}",
        secret["version"].to_string(),
        scope(secret),
        text(&secret["set_by"]),
        text(&secret["set_at"])
    )
}

fn scope(secret: &Value) -> String {
    let branches = secret["branches"].as_array().into_iter().flatten();
    let branches: Vec<_> = branches.map(text).collect();
    match branches.as_slice() {
        [] => "all branches".to_owned(),
        branches => format!("branches {}", branches.join(" ")),
    }
}

/// The new key is in the file before the first secret is under it, and the old one until the last one is:
/// whenever this is killed, every secret can be opened, and doing it again ends it.
async fn rotate(config: &Path) -> anyhow::Result<()> {
    let config = Config::load(config)?;
    let keys = Keys::new(config.key_file());
    let rotation = keys.rotate(rustix::process::geteuid().as_raw())?;
    rotation.add()?;
    let store = Store::open(&config.store_url()).await?;
    let rewrapping = {
        let keys = keys.clone();
        store.rewrap_secrets(roadstead_server::clock::now(), move |of, sealed| {
            keys.rewrap(of, sealed)
        })
    };
    let changed = rewrapping.await?;
    rotation.keep_newest()?;
    println!(
        "secrets that are under a new key: {changed}. Keep a copy of {} apart from the database, and give it \
         to other servers on the same database",
        keys.file().display()
    );
    Ok(())
}
