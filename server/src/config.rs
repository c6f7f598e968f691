//! The server's settings: `roadstead.toml` with `ROADSTEAD__SECTION__KEY` laid over it.
//!
//! One struct per concern; unknown keys are errors. Nothing else in the server reads the
//! environment.

use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Everything that the server may be told.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where and how it answers.
    pub http: Http,
    /// Where rows go.
    pub store: Store,
    /// Where mirrors and logs go.
    pub data: PathBuf,
    /// How AWS is reached.
    pub aws: Aws,
    /// What runners need to introduce themselves.
    pub runners: Runners,
    /// The first administrator.
    pub admin: Admin,
    /// The projects that it serves.
    pub projects: Vec<Project>,
}

/// Where and how the server answers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// How people and forges reach it, without a slash at the end; none takes `http://` and `listen`.
    pub public_url: Option<String>,
}

/// Where rows go.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `sqlite:PATH` or `postgres://…`; empty takes `roadstead.db` in the data folder.
    pub url: String,
}

/// How AWS is reached.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Aws {
    /// Region of environments that name none.
    pub region: String,
    /// One address for every service: a sandbox; none takes AWS's own.
    pub endpoint_url: Option<String>,
}

/// What runners need to introduce themselves.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Runners {
    /// At least 16 characters; empty lets no runner register.
    pub registration_token: String,
}

/// The first administrator.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Name.
    pub name: String,
    /// Password; empty makes one and prints it once.
    pub password: String,
}

/// One repository under care.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// Its name, as in its pipeline file.
    pub name: String,
    /// Address that git can fetch from: `https://…` or an absolute path.
    pub repository: String,
    /// Key of its webhooks' HMAC, at least 16 characters.
    pub webhook_secret: String,
    /// User name for fetching over https.
    #[serde(default)]
    pub username: Option<String>,
    /// Password or token for fetching over https.
    #[serde(default)]
    pub password: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            http: Http::default(),
            store: Store::default(),
            data: PathBuf::from("data"),
            aws: Aws::default(),
            runners: Runners::default(),
            admin: Admin::default(),
            projects: vec![],
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8080)), public_url: None }
    }
}

#[expect(clippy::derivable_impls, reason = "each section shows its defaults the same way")]
impl Default for Store {
    fn default() -> Self {
        Self { url: String::new() }
    }
}

impl Default for Aws {
    fn default() -> Self {
        Self { region: "eu-west-1".into(), endpoint_url: None }
    }
}

#[expect(clippy::derivable_impls, reason = "each section shows its defaults the same way")]
impl Default for Runners {
    fn default() -> Self {
        Self { registration_token: String::new() }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { name: "admin".into(), password: String::new() }
    }
}
