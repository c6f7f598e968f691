//! The OCI registry behind ECR: a real registry behind, a token check in front.
//!
//! Owns: the registry behind (a child process on a private port, or one that runs elsewhere), the repositories and tokens of ECR, and the port on which clients push
//! and pull. Invariant: a manifest whose push was acknowledged is in the records or in the
//! registry's own list of tags. Must not know: AWS's wire.

mod manifests;
mod process;
mod repositories;
#[cfg(test)]
mod tests;
mod upstream;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::calls::CallLog;
use crate::clock::{Clock, Time};
use crate::config::Config;
use crate::disk::{DiskError, Records};
use crate::faults::Faults;
use crate::proxy::http::{Client, serve};
use crate::proxy::registry_front;
use crate::services::AwsError;
use manifests::Manifests;
use upstream::Upstream;

pub(crate) use manifests::{Manifest, RegistryError};
pub(crate) use repositories::{EcrRecords, PushedImage, Repository, TagMutability};

/// The user name that goes with every token.
pub(crate) const TOKEN_USER: &str = "AWS";

/// How long a registry elsewhere may take to answer first; machines that run tests are slow.
const UPSTREAM_LIMIT: Duration = Duration::from_secs(60);

/// How long a token lasts; AWS's length, and real time, because clients plan with `expiresAt`.
const TOKEN_LIFE: Duration = Duration::from_secs(12 * 60 * 60);

/// The running registry.
pub(crate) struct Registry {
    /// Where clients reach it, behind the token check.
    address: SocketAddr,
    clock: Clock,
    client: Client,
    upstream: Upstream,
    records: Records<EcrRecords>,
    directory: PathBuf,
    /// The password with which the sandbox itself pulls, as long as it runs.
    own_password: String,
    /// Between looking whether a tag exists and storing it.
    tagging: tokio::sync::Mutex<()>,
    /// Pushes are calls, too: they meet faults and are logged.
    faults: Faults,
    calls: Arc<CallLog>,
    stop: CancellationToken,
    server: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

/// Credentials for the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub password: String,
    pub expires_at: Time,
}

impl Registry {
    /// Starts the registry, or waits for the one elsewhere, and the check on `config.registry_listen`.
    pub(crate) async fn start(
        config: &Config,
        clock: Clock,
        faults: Faults,
        calls: Arc<CallLog>,
    ) -> anyhow::Result<Arc<Self>> {
        let directory = config.data.join("registry");
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let directory = directory.canonicalize()?;
        let records = Records::open(directory.join("ecr.json"))?;
        let listener = TcpListener::bind(config.registry_listen)
            .await
            .with_context(|| {
                format!(
                    "cannot listen on {} for the registry; free the port or choose another with --registry",
                    config.registry_listen
                )
            })?;
        let mut address = listener.local_addr()?;
        if address.ip().is_unspecified() {
            // Docker Engine speaks plain HTTP only to registries on its own machine.
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        let client = Client::new();
        let elsewhere = config.registry_upstream.as_ref();
        let upstream = Upstream::start(elsewhere, &directory, &client, UPSTREAM_LIMIT).await?;
        let registry = Arc::new(Self {
            address,
            clock,
            client,
            upstream,
            records,
            directory,
            own_password: new_password(),
            tagging: tokio::sync::Mutex::default(),
            faults,
            calls,
            stop: CancellationToken::new(),
            server: tokio::sync::Mutex::default(),
        });
        let handler = {
            let registry = Arc::clone(&registry);
            move |request, _| registry_front::answer(Arc::clone(&registry), request)
        };
        let server = tokio::spawn(serve(listener, registry.stop.clone(), handler));
        *registry.server.lock().await = Some(server);
        Ok(registry)
    }

    /// Stops the check, and the registry if it is a child; images stay.
    pub(crate) async fn shut_down(&self) {
        self.stop.cancel();
        if let Some(server) = self.server.lock().await.take()
            && let Err(error) = server.await
        {
            tracing::error!(%error, "the registry's front ended badly");
        }
        self.upstream.shut_down().await;
    }

    /// Where clients push and pull; also the host in every `repositoryUri`.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Repositories and pushes as last stored.
    pub(crate) fn records(&self) -> Arc<EcrRecords> {
        self.records.read()
    }

    /// Stores a change of the repositories.
    pub(crate) async fn change<R, E: From<DiskError>>(
        &self,
        change: impl FnOnce(&mut EcrRecords) -> Result<R, E>,
    ) -> Result<R, E> {
        self.records.change(change).await
    }

    /// Makes a token; it survives a restart.
    pub(crate) async fn issue_token(&self) -> Result<Token, DiskError> {
        let now = self.clock.now();
        let token = Token {
            password: new_password(),
            expires_at: now + TOKEN_LIFE,
        };
        let key = password_key(&token.password);
        self.records
            .change(|records| {
                records.tokens.retain(|_, expires_at| *expires_at > now);
                records.tokens.insert(key, token.expires_at);
                Ok::<_, DiskError>(())
            })
            .await?;
        Ok(token)
    }

    /// The password of the sandbox itself, for its own pulls.
    pub(crate) fn own_password(&self) -> &str {
        &self.own_password
    }

    /// Whether an `Authorization` header carries a token that was issued and has not ended.
    pub(crate) fn authorizes(&self, header: &str) -> bool {
        let Some((scheme, encoded)) = header.split_once(' ') else {
            return false;
        };
        let Some((user, password)) = scheme
            .eq_ignore_ascii_case("basic")
            .then(|| BASE64_STANDARD.decode(encoded.trim()).ok())
            .flatten()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|text| {
                text.split_once(':')
                    .map(|(u, p)| (u.to_owned(), p.to_owned()))
            })
        else {
            return false;
        };
        // Hashes are compared, so the time of a comparison tells nothing about a password.
        let key = password_key(&password);
        let records = self.records.read();
        let issued = records.tokens.get(&key);
        user == TOKEN_USER
            && (issued.is_some_and(|expires_at| *expires_at > self.clock.now())
                || key == password_key(&self.own_password))
    }

    /// Held while a tag is looked up and stored, so that two pushes of one immutable tag cannot
    /// both find it free.
    pub(crate) async fn lock_tags(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.tagging.lock().await
    }

    /// Where the real registry answers, as `host:port`.
    pub(crate) fn upstream(&self) -> String {
        self.upstream.authority()
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    pub(crate) fn calls(&self) -> &CallLog {
        &self.calls
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Notes when an image was pushed. A repeated push keeps the first time.
    pub(crate) async fn record_push(
        &self,
        repository: &str,
        digest: &str,
        media_type: &str,
    ) -> Result<(), DiskError> {
        let pushed_at = self.clock.now();
        self.records
            .change(|records| {
                if let Some(repository) = records.repositories.get_mut(repository) {
                    repository
                        .images
                        .entry(digest.to_owned())
                        .or_insert_with(|| PushedImage {
                            pushed_at,
                            media_type: media_type.to_owned(),
                        });
                }
                Ok(())
            })
            .await
    }

    /// Repository and tag of an image of this registry that is named by a tag; None for any other.
    pub(crate) fn tagged<'a>(&self, image: &'a str) -> Option<(&'a str, &'a str)> {
        let (host, name) = image.split_once('/')?;
        if host != self.address.to_string() || name.contains('@') {
            return None;
        }
        Some(name.split_once(':').unwrap_or((name, "latest")))
    }

    /// The digest that a tag or digest stands for; None when there is no such image.
    pub(crate) async fn digest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<Option<String>, RegistryError> {
        self.manifests().digest(repository, reference).await
    }

    /// The manifest that a tag or digest stands for; None when there is no such image.
    pub(crate) async fn manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<Option<Manifest>, RegistryError> {
        self.manifests().get(repository, reference).await
    }

    /// The tags of a repository, sorted.
    pub(crate) async fn tags(&self, repository: &str) -> Result<Vec<String>, RegistryError> {
        self.manifests().tags(repository).await
    }

    /// Deletes an image with all its tags.
    pub(crate) async fn delete_image(
        &self,
        repository: &str,
        digest: &str,
    ) -> Result<(), AwsError> {
        self.manifests().delete(repository, digest).await?;
        self.change(|records| {
            if let Some(repository) = records.repositories.get_mut(repository) {
                repository.images.remove(digest);
            }
            Ok(())
        })
        .await
    }

    /// Takes a tag from its image, which stays. `tag` must be one that `tags` gave.
    pub(crate) async fn untag(&self, repository: &str, tag: &str) -> Result<(), AwsError> {
        match self.storage(repository) {
            // The registry's API cannot do that; its storage is one directory per tag.
            Some(storage) => remove_directory(&storage.join("_manifests/tags").join(tag)).await,
            None => Ok(self.manifests().untag(repository, tag).await?),
        }
    }

    /// Forgets everything pushed into the repository `name`, whose record was `repository`.
    /// Repositories below it in the name stay.
    pub(crate) async fn clear(&self, name: &str, repository: &Repository) -> Result<(), AwsError> {
        if let Some(storage) = self.storage(name) {
            for part in ["_manifests", "_layers", "_uploads"] {
                remove_directory(&storage.join(part)).await?;
            }
            return Ok(());
        }
        for digest in repository.images.keys() {
            self.manifests().delete(name, digest).await?;
        }
        // And what was pushed just before a crash.
        for tag in self.tags(name).await? {
            if let Some(digest) = self.digest(name, &tag).await? {
                self.manifests().delete(name, &digest).await?;
            }
        }
        Ok(())
    }

    /// A repository's files, when they are ours.
    fn storage(&self, repository: &str) -> Option<PathBuf> {
        match self.upstream {
            Upstream::Child(_) => Some(
                self.directory
                    .join("images/docker/registry/v2/repositories")
                    .join(repository),
            ),
            Upstream::Elsewhere(_) => None,
        }
    }

    fn manifests(&self) -> Manifests<'_> {
        Manifests {
            client: &self.client,
            upstream: &self.upstream,
        }
    }
}

impl From<RegistryError> for AwsError {
    fn from(error: RegistryError) -> Self {
        Self::server(error.to_string())
    }
}

async fn remove_directory(path: &Path) -> Result<(), AwsError> {
    match tokio::fs::remove_dir_all(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(AwsError::server(
            format!("The sandbox cannot remove {}: {error}", path.display()),
        )),
        _ => Ok(()),
    }
}

fn new_password() -> String {
    BASE64_STANDARD.encode(rand::random::<[u8; 32]>())
}

fn password_key(password: &str) -> String {
    hex::encode(Sha256::digest(password))
}
