//! Pushes a built image and learns the digest that its registry knows it by.
//!
//! Every try tags, pushes and untags: another attempt at the same commit may do the same beside
//! this one. A registry that is down is tried for minutes and the log says so; a login that the
//! registry does not accept any more is fetched anew once.

use super::{BuildEnd, ImageBuilder, docker_credentials};
use crate::{
    engine,
    limits::StepEnd,
    logins::Logins,
    logs::StepLog,
    registry::{self, RegistryTries},
};
use anyhow::Context;
use bollard::{
    errors::Error as DockerError,
    query_parameters::{PushImageOptionsBuilder, TagImageOptionsBuilder},
};
use futures_util::StreamExt;
use roadstead_protocol::{BuiltImage, ImageBuild, RegistryCredentials};

impl ImageBuilder {
    /// Pushes what `built` names to where `image` wants it.
    pub(super) async fn push(
        &self,
        image: &ImageBuild,
        built: &str,
        mut login: RegistryCredentials,
        logins: &Logins<'_>,
        log: &StepLog,
    ) -> anyhow::Result<BuildEnd> {
        let target = format!("{}:{}", image.repository_uri, image.tag);
        let what = format!("image `{}` could not be pushed to {target}", image.name);
        log.line(&format!("pushing {target}")).await?;
        let mut tries = RegistryTries::new();
        let mut login_is_fresh = false;
        loop {
            let message = match self.push_once(image, built, &login).await {
                Ok(Some(digest)) => {
                    log.line(&format!("pushed {target} as {digest}")).await?;
                    return Ok(BuildEnd::Built(BuiltImage {
                        name: image.name.clone(),
                        repository_uri: image.repository_uri.clone(),
                        digest,
                    }));
                }
                Ok(None) => "the registry told no digest".to_owned(),
                Err(error) => engine::words(&error).with_context(|| what.clone())?,
            };
            if is_taken(&message) {
                // A try before this one got through without hearing so.
                let digest = self.digest_in_registry(&target, &login).await?;
                log.line(&format!("{target} is in the registry already as {digest}"))
                    .await?;
                return Ok(BuildEnd::Built(BuiltImage {
                    name: image.name.clone(),
                    repository_uri: image.repository_uri.clone(),
                    digest,
                }));
            }
            let reason = format!("{what}: {message}");
            if registry::is_refused_login(&message) && !login_is_fresh {
                log.line(&format!("{reason}; fetching a fresh login"))
                    .await?;
                login = logins.fetch(log).await?;
                login_is_fresh = true;
            } else if !registry::is_transient(&message) && !was_untagged(&message) {
                return Ok(BuildEnd::Ended(StepEnd::failed(reason)));
            } else if !tries.again(log, &what, &message).await? {
                return Ok(BuildEnd::Ended(StepEnd::Errored { reason }));
            }
        }
    }

    async fn push_once(
        &self,
        image: &ImageBuild,
        built: &str,
        login: &RegistryCredentials,
    ) -> Result<Option<String>, DockerError> {
        let docker = self.engine.docker();
        let options = TagImageOptionsBuilder::new()
            .repo(&image.repository_uri)
            .tag(&image.tag)
            .build();
        docker.tag_image(built, Some(options)).await?;
        let options = PushImageOptionsBuilder::new().tag(&image.tag).build();
        let mut told = None;
        let mut failed = None;
        let mut messages = docker.push_image(
            &image.repository_uri,
            Some(options),
            Some(docker_credentials(login)),
        );
        while let Some(message) = messages.next().await {
            match message {
                // bollard drops the message that carries the digest as a field of its own.
                Ok(message) => told = message.status.as_deref().and_then(digest_in).or(told),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let tag = format!("{}:{}", image.repository_uri, image.tag);
        if let Err(error) = self.engine.remove_tag(&tag).await {
            tracing::warn!(tag, error = format!("{error:#}"), "leaves a tag behind");
        }
        failed.map_or(Ok(told), Err)
    }

    async fn digest_in_registry(
        &self,
        target: &str,
        login: &RegistryCredentials,
    ) -> anyhow::Result<String> {
        self.engine
            .docker()
            .inspect_registry_image(target, Some(docker_credentials(login)))
            .await
            .with_context(|| format!("cannot ask the registry for {target}"))?
            .descriptor
            .digest
            .with_context(|| format!("the registry tells no digest of {target}"))
    }
}

/// The digest in a push's last words, `git-0f3a: digest: sha256:… size: 528`.
fn digest_in(status: &str) -> Option<String> {
    let (_, rest) = status.split_once("digest: ")?;
    let digest = rest.split_whitespace().next()?;
    let hex = digest.strip_prefix("sha256:")?;
    (hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| digest.to_owned())
}

/// Whether the registry keeps tags as they were first pushed, and has this one.
fn is_taken(message: &str) -> bool {
    message.contains("cannot be overwritten because the tag is immutable")
}

/// Whether another attempt took the tag away between tagging and pushing.
fn was_untagged(message: &str) -> bool {
    message.contains("tag does not exist") || message.contains("does not exist locally")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_read_from_the_last_words() {
        let hex = "a".repeat(64);
        assert_eq!(
            digest_in(&format!("git-0f3a: digest: sha256:{hex} size: 528")),
            Some(format!("sha256:{hex}"))
        );
        for other in ["Pushed", "digest: sha256:abc size: 1", "x: digest: md5:00"] {
            assert_eq!(digest_in(other), None, "{other}");
        }
    }
}
