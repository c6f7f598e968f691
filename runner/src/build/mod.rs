//! Builds an image and brings it to its registry: the seam behind which BuildKit stands.
//!
//! Owns contexts, the conversation with the engine's BuildKit and the push. Knows the
//! server only as the place that logins come from. The layer cache is the engine's own and outlives
//! attempts; an image is only tagged while it is built and pushed, so that images do not pile up.
//! Where nobody has logins, images are for this machine and keep their tag.

mod context;
mod dockerignore;
mod progress;
mod push;

use crate::{
    engine::{self, Engine},
    limits::{Limits, StepEnd},
    logins::Logins,
    logs::StepLog,
    registry,
};
use anyhow::Context;
use bollard::{
    auth::DockerCredentials,
    body_try_stream,
    models::BuildInfoAux,
    query_parameters::{BuildImageOptionsBuilder, BuilderVersion, TagImageOptionsBuilder},
};
use context::BuildContext;
use futures_util::{StreamExt, stream};
use progress::Progress;
use roadstead_protocol::{BuiltImage, ImageBuild, RegistryCredentials};
use std::{collections::HashMap, path::Path};

/// How the build of one image ended.
#[derive(Debug)]
pub(crate) enum BuildEnd {
    /// It is where it was to go: in the registry, or here.
    Built(BuiltImage),
    /// It is not, and the step ends.
    Ended(StepEnd),
}

/// Builds images by BuildKit inside Docker Engine.
#[derive(Clone)]
pub(crate) struct ImageBuilder {
    engine: Engine,
}

impl ImageBuilder {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// Builds `image` from the files in `workspace` and pushes it; without `logins` it stays here under
    /// its repository and tag. `name` tells this build apart from every other one on this runner.
    ///
    /// # Errors
    /// When the engine fails; whatever the Dockerfile, the context or the registry refuse is a
    /// [`BuildEnd::Ended`].
    pub(crate) async fn build_image(
        &self,
        image: &ImageBuild,
        workspace: &Path,
        name: &str,
        logins: Option<&Logins<'_>>,
        limits: &Limits,
        log: &StepLog,
    ) -> anyhow::Result<BuildEnd> {
        let tag = format!("{}:{}", self.engine.build_repository(), name.to_lowercase());
        let work = async {
            let login = match logins {
                Some(logins) => Some((logins.fetch(log).await?, logins)),
                None => None,
            };
            let known = login.as_ref().map(|(login, _)| login);
            if let Some(end) = self.build(image, workspace, &tag, known, log).await? {
                return Ok(BuildEnd::Ended(end));
            }
            match login {
                Some((login, logins)) => self.push(image, &tag, login, logins, log).await,
                None => self.keep(image, &tag, log).await,
            }
        };
        let end = match limits.guard(work).await {
            Ok(end) => end,
            Err(interruption) => {
                // Dropping the call hangs up, upon which the engine stops building; a push that was
                // cut off may have left its tag.
                if logins.is_some() {
                    let pushed = format!("{}:{}", image.repository_uri, image.tag);
                    self.engine.remove_tag(&pushed).await?;
                }
                Ok(BuildEnd::Ended(interruption.into()))
            }
        };
        self.engine.remove_tag(&tag).await?;
        end
    }

    /// Builds and tags; a [`StepEnd`] when there is no image.
    async fn build(
        &self,
        image: &ImageBuild,
        workspace: &Path,
        tag: &str,
        login: Option<&RegistryCredentials>,
        log: &StepLog,
    ) -> anyhow::Result<Option<StepEnd>> {
        let named = |reason: &str| StepEnd::failed(format!("image `{}`: {reason}", image.name));
        log.line(&format!(
            "building image {} from {}",
            image.name, image.context
        ))
        .await?;
        let opened = tokio::task::spawn_blocking({
            let (workspace, image) = (workspace.to_owned(), image.clone());
            move || BuildContext::open(&workspace, &image.context, &image.dockerfile)
        })
        .await?;
        let context = match opened {
            Ok(context) => context,
            Err(error) => return Ok(Some(named(&format!("{error:#}")))),
        };
        let arguments: HashMap<_, _> = image.args.clone().into_iter().collect();
        let mut options = BuildImageOptionsBuilder::new()
            .version(BuilderVersion::BuilderBuildKit)
            .session(&format!("{:032x}", rand::random::<u128>()))
            .dockerfile(context.dockerfile())
            .buildargs(&arguments)
            .t(tag);
        if let Some(target) = &image.target {
            options = options.target(target);
        }
        let logins: HashMap<_, _> = login
            .map(|login| (login.registry.clone(), docker_credentials(login)))
            .into_iter()
            .collect();
        let chunks = stream::unfold(context.stream(), async |mut chunks| {
            chunks.recv().await.map(|chunk| (chunk, chunks))
        });
        let body = body_try_stream(chunks);
        let mut trace = self
            .engine
            .docker()
            .build_image(options.build(), Some(logins), Some(body));
        let mut progress = Progress::default();
        while let Some(message) = trace.next().await {
            match message {
                Ok(info) => {
                    if let Some(BuildInfoAux::BuildKit(status)) = info.aux {
                        log.write(progress.take(&status).as_bytes()).await?;
                    }
                }
                Err(error) => {
                    let message = engine::words(&error).with_context(|| {
                        format!("the build of image `{}` broke off", image.name)
                    })?;
                    log.line(&format!("ERROR: {message}")).await?;
                    let reason = progress.failure().unwrap_or(&message);
                    return Ok(Some(if registry::is_transient(&message) {
                        StepEnd::Errored {
                            reason: format!("image `{}`: {reason}", image.name),
                        }
                    } else {
                        named(reason)
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Tags what `built` names as `image` wants it, in the place of an earlier one.
    async fn keep(
        &self,
        image: &ImageBuild,
        built: &str,
        log: &StepLog,
    ) -> anyhow::Result<BuildEnd> {
        let docker = self.engine.docker();
        let name = format!("{}:{}", image.repository_uri, image.tag);
        let options = TagImageOptionsBuilder::new()
            .repo(&image.repository_uri)
            .tag(&image.tag)
            .build();
        docker
            .tag_image(built, Some(options))
            .await
            .with_context(|| format!("cannot tag image {name}"))?;
        let id = docker
            .inspect_image(&name)
            .await
            .with_context(|| format!("cannot look at image {name}"))?
            .id
            .with_context(|| format!("Docker Engine tells no id of image {name}"))?;
        log.line(&format!("keeps {name} ({id})")).await?;
        Ok(BuildEnd::Built(BuiltImage {
            name: image.name.clone(),
            repository_uri: image.repository_uri.clone(),
            digest: id,
        }))
    }
}

fn docker_credentials(login: &RegistryCredentials) -> DockerCredentials {
    DockerCredentials {
        username: Some(login.username.clone()),
        password: Some(login.password.clone()),
        serveraddress: Some(login.registry.clone()),
        ..Default::default()
    }
}
