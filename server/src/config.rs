//! The server's settings: `roadstead.toml` with `ROADSTEAD__SECTION__KEY` laid over it.
//!
//! One struct per concern; unknown keys are errors. Nothing else in the server reads the
//! environment.

mod logs;
mod statuses;

use jiff::{SignedDuration, Timestamp};
use roadstead_pipelines::retention::Policy;
use serde::Deserialize;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

pub use logs::{Logs, S3};
pub use statuses::{Statuses, Token, ToldForge};

/// Everything that the server may be told.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where and how it answers.
    pub http: Http,
    /// Where rows go.
    pub store: Store,
    /// Where mirrors go, and logs unless told otherwise. No two servers may have the same.
    pub data: PathBuf,
    /// Where logs go.
    pub logs: Logs,
    /// Where the key of secrets is.
    pub secrets: Secrets,
    /// How AWS is reached.
    pub aws: Aws,
    /// What runners need to introduce themselves.
    pub runners: Runners,
    /// The first administrator.
    pub admin: Admin,
    /// For how long things are kept.
    pub retention: Retention,
    /// The projects that it serves.
    pub projects: Vec<Project>,
}

/// For how long things are kept; everything, without a word about it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Runs, with their attempts, steps and logs.
    pub runs: Kept,
    /// Logs of steps.
    pub logs: Kept,
    /// Webhook calls with their bodies.
    pub deliveries: Kept,
    /// Caches of steps.
    pub caches: KeptCaches,
    /// Runners that are not heard of any more.
    pub runners: KeptRunners,
}

/// For how long runners are known that are not heard of. One that left for good is for an hour.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeptRunners {
    /// One that was heard of within so many days stays, and within an hour in any case.
    #[serde(deserialize_with = "number")]
    pub days: u32,
}

impl Default for KeptRunners {
    fn default() -> Self {
        Self { days: 30 }
    }
}

impl KeptRunners {
    /// Since when one has to have been heard of to stay.
    #[must_use]
    pub fn heard_since(&self, now: Timestamp) -> Option<Timestamp> {
        let kept = SignedDuration::from_hours((24 * i64::from(self.days)).max(1));
        now.checked_sub(kept).ok()
    }
}

/// For `roadstead check`.
impl fmt::Display for KeptRunners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} days after they were last heard of", self.days)
    }
}

/// For how long caches are kept, and how many bytes of them, in each project. Unlike the rest they have an end without a
/// word: they can be made again.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeptCaches {
    /// One that no run used within so many days goes.
    #[serde(deserialize_with = "number")]
    pub days: u32,
    /// Above so many gigabytes (10⁹ bytes) those that were used least lately go; 0: nothing is stored.
    #[serde(deserialize_with = "number")]
    pub gigabytes: u32,
}

impl Default for KeptCaches {
    fn default() -> Self {
        Self {
            days: 14,
            gigabytes: 10,
        }
    }
}

impl KeptCaches {
    /// The most bytes of a project's.
    #[must_use]
    pub fn most_bytes(&self) -> u64 {
        u64::from(self.gigabytes) * 1_000_000_000
    }

    /// Since when one has to have been used to stay.
    #[must_use]
    pub fn used_since(&self, now: Timestamp) -> Option<Timestamp> {
        let kept = SignedDuration::from_hours(24 * i64::from(self.days));
        now.checked_sub(kept).ok()
    }
}

/// For `roadstead check`.
impl fmt::Display for KeptCaches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { days, gigabytes } = self;
        write!(
            f,
            "{days} days after their last use, {gigabytes} GB of each project"
        )
    }
}

/// For how long one kind of thing is kept, in each project.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kept {
    /// What was over within so many days stays.
    #[serde(deserialize_with = "count")]
    pub days: Option<u32>,
    /// The newest so many stay, however old.
    #[serde(deserialize_with = "count")]
    pub newest: Option<u32>,
}

impl Kept {
    /// As decisions take it.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy {
            days: self.days,
            newest: self.newest,
        }
    }
}

/// A number of the file, or its digits in a variable.
fn count<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Count {
        Given(u32),
        Digits(String),
    }
    let given = match Count::deserialize(deserializer) {
        Ok(Count::Given(given)) => Some(given),
        Ok(Count::Digits(digits)) => digits.parse().ok(),
        Err(_) => None,
    };
    given
        .map(Some)
        .ok_or_else(|| serde::de::Error::custom("expected a number that is not below zero"))
}

/// The same, where there has to be one.
fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    Ok(count(deserializer)?.unwrap_or_default())
}

/// Where and how the server answers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// How people and forges reach it, without a slash at the end; none takes `http://` and `listen`.
    pub public_url: Option<String>,
    /// A proxy stands before the server and appends to `X-Forwarded-For` who asked it.
    #[serde(deserialize_with = "flag")]
    pub behind_proxy: bool,
}

impl Http {
    /// How people and forges reach it, without a slash at the end.
    #[must_use]
    pub fn public_url(&self) -> String {
        let given = self.public_url.as_ref();
        given.map_or_else(
            || format!("http://{}", self.listen),
            |url| url.trim_end_matches('/').to_owned(),
        )
    }
}

/// A boolean of the file, or its word in a variable.
fn flag<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Flag {
        Given(bool),
        Word(String),
    }
    match Flag::deserialize(deserializer) {
        Ok(Flag::Given(given)) => Ok(given),
        Ok(Flag::Word(word)) if word == "true" || word == "false" => Ok(word == "true"),
        Ok(Flag::Word(_)) | Err(_) => Err(serde::de::Error::custom("expected `true` or `false`")),
    }
}

/// Where rows go.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `sqlite:PATH` or `postgres://…`; empty takes `roadstead.db` in the data folder.
    pub url: String,
}

/// Where the key of secrets is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Secrets {
    /// The file of the installation's keys, which only its owner may read; none takes `secrets.key` in
    /// the data folder. It is made when the first secret is set.
    pub key_file: Option<PathBuf>,
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
    /// Password, set at each start; empty makes one at the first and prints it once.
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
    /// What its forge is told of runs; nothing without it.
    #[serde(default)]
    pub statuses: Option<Statuses>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            http: Http::default(),
            store: Store::default(),
            data: PathBuf::from("data"),
            logs: Logs::default(),
            secrets: Secrets::default(),
            aws: Aws::default(),
            runners: Runners::default(),
            admin: Admin::default(),
            retention: Retention::default(),
            projects: vec![],
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_url: None,
            behind_proxy: false,
        }
    }
}

#[expect(
    clippy::derivable_impls,
    reason = "each section shows its defaults the same way"
)]
impl Default for Store {
    fn default() -> Self {
        Self { url: String::new() }
    }
}

impl Default for Aws {
    fn default() -> Self {
        Self {
            region: "eu-west-1".into(),
            endpoint_url: None,
        }
    }
}

#[expect(
    clippy::derivable_impls,
    reason = "each section shows its defaults the same way"
)]
impl Default for Runners {
    fn default() -> Self {
        Self {
            registration_token: String::new(),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            name: "admin".into(),
            password: String::new(),
        }
    }
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {file}: {error}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        error: std::io::Error,
    },
    /// The file or a variable is not what is expected.
    #[error("{file}: {message}")]
    Invalid {
        /// The file.
        file: String,
        /// What is wrong, and where.
        message: String,
    },
}

impl Config {
    /// Reads a file and lays `ROADSTEAD__…` variables over it.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the line and the key.
    pub fn load(file: &std::path::Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError::Read {
            file: file.display().to_string(),
            error,
        })?;
        Self::parse(&file.display().to_string(), &text, std::env::vars())
    }

    fn parse(
        file: &str,
        text: &str,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let invalid = |message: String| ConfigError::Invalid {
            file: file.to_owned(),
            message,
        };
        // Once for the line numbers of its errors, once to lay variables over it.
        toml::from_str::<Self>(text).map_err(|error| invalid(error.to_string()))?;
        let mut table: toml::Table = toml::from_str(text).map_err(|e| invalid(e.to_string()))?;
        for (name, value) in variables {
            let Some(path) = name.strip_prefix("ROADSTEAD__") else {
                continue;
            };
            let mut keys: Vec<_> = path.split("__").map(str::to_lowercase).collect();
            let Some(last) = keys.pop() else { continue };
            let mut section = &mut table;
            for key in keys {
                let entry = section
                    .entry(key)
                    .or_insert_with(|| toml::Table::new().into());
                section = entry
                    .as_table_mut()
                    .ok_or_else(|| invalid(format!("the variable {name} leads into a value")))?;
            }
            section.insert(last, toml::Value::String(value));
        }
        let config: Self = table
            .try_into()
            .map_err(|e: toml::de::Error| invalid(e.message().to_owned()))?;
        config.examine().map_err(invalid)?;
        Ok(config)
    }

    fn examine(&self) -> Result<(), String> {
        for project in &self.projects {
            roadstead_pipelines::id::ProjectName::parse(&project.name)
                .map_err(|e| e.to_string())?;
            if project.webhook_secret.len() < 16 {
                return Err(format!(
                    "project `{}`: webhook_secret needs at least 16 characters",
                    project.name
                ));
            }
            let twice = self
                .projects
                .iter()
                .filter(|other| other.name == project.name)
                .count()
                > 1;
            if twice {
                return Err(format!("project `{}` stands twice", project.name));
            }
            project
                .told_forge()
                .map_err(|error| format!("project `{}`, statuses: {error}", project.name))?;
        }
        let token = &self.runners.registration_token;
        if !token.is_empty() && token.len() < 16 {
            return Err("runners.registration_token needs at least 16 characters".into());
        }
        self.logs.examine()
    }

    /// The folder of all logs, unless they are in a bucket.
    #[must_use]
    pub fn logs_folder(&self) -> PathBuf {
        let own = self.logs.folder.clone();
        own.unwrap_or_else(|| self.data.join("logs"))
    }

    /// The file of the installation's keys for secrets.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        let own = self.secrets.key_file.clone();
        own.unwrap_or_else(|| self.data.join("secrets.key"))
    }

    /// Address of the database.
    #[must_use]
    pub fn store_url(&self) -> String {
        if self.store.url.is_empty() {
            format!("sqlite:{}", self.data.join("roadstead.db").display())
        } else {
            self.store.url.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let variables = variables
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Config::parse("roadstead.toml", text, variables).map_err(|error| error.to_string())
    }

    #[test]
    fn variables_win_over_the_file() {
        let text = "[http]\nlisten = \"127.0.0.1:1\"\n[aws]\nregion = \"eu-north-1\"\n";
        let variables = [
            ("ROADSTEAD__HTTP__LISTEN", "127.0.0.1:2"),
            ("ROADSTEAD__HTTP__BEHIND_PROXY", "true"),
            ("OTHER", "x"),
        ];
        let config = parse(text, &variables).unwrap();
        assert_eq!(config.http.listen.port(), 2);
        assert!(config.http.behind_proxy);
        assert_eq!(config.aws.region, "eu-north-1");
        assert_eq!(config.logs_folder(), PathBuf::from("data/logs"));
        let shared = [("ROADSTEAD__LOGS__FOLDER", "/mnt/logs")];
        let shared = parse(text, &shared).unwrap();
        assert_eq!(shared.logs_folder(), PathBuf::from("/mnt/logs"));
        let bucket = [("ROADSTEAD__LOGS__S3__BUCKET", "acme-logs")];
        let bucket = parse(text, &bucket).unwrap().logs.s3.unwrap();
        assert_eq!(bucket.to_string(), "s3://acme-logs");
        let bucket = parse("[logs.s3]\nbucket = \"x\"\n", &[]).unwrap_err();
        assert!(bucket.contains("logs.s3: `x`"), "{bucket}");
    }

    #[test]
    fn what_is_kept_is_everything_unless_told() {
        let silent = parse("", &[]).unwrap().retention;
        for kept in [silent.runs, silent.logs, silent.deliveries] {
            assert!(kept.policy().keeps_all());
        }
        assert_eq!((silent.caches.days, silent.caches.gigabytes), (14, 10));
        assert_eq!(silent.runners.days, 30);
        let text = "[retention.runs]\ndays = 90\nnewest = 100\n[retention.logs]\ndays = 30\n\
                    [retention.caches]\ngigabytes = 2\n";
        let variable = [("ROADSTEAD__RETENTION__LOGS__DAYS", "7")];
        let told = parse(text, &variable).unwrap().retention;
        assert_eq!((told.runs.days, told.runs.newest), (Some(90), Some(100)));
        assert_eq!((told.logs.days, told.logs.newest), (Some(7), None));
        assert_eq!(
            (told.caches.days, told.caches.most_bytes()),
            (14, 2_000_000_000)
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let unknown = parse("[http]\nlissten = \"x\"\n", &[]).unwrap_err();
        assert!(
            unknown.contains("line 2") && unknown.contains("lissten"),
            "{unknown}"
        );
        let short = "[[projects]]\nname = \"shop\"\nrepository = \"/r\"\nwebhook_secret = \"x\"\n";
        assert!(parse(short, &[]).unwrap_err().contains("at least 16"));
        let flag = parse("[http]\nbehind_proxy = \"yes\"\n", &[]).unwrap_err();
        assert!(
            flag.contains("line 2") && flag.contains("`true` or `false`"),
            "{flag}"
        );
        let negative = parse("[retention.runs]\ndays = -1\n", &[]).unwrap_err();
        assert!(
            negative.contains("line 2") && negative.contains("not below zero"),
            "{negative}"
        );
        let variable = parse("", &[("ROADSTEAD__HTTP__PORT", "1")]).unwrap_err();
        assert!(variable.contains("port"), "{variable}");
    }
}
