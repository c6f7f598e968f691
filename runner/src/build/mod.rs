//! Builds an image and brings it to its registry: the seam behind which BuildKit stands.
//!
//! Owns contexts, the conversation with the engine's BuildKit and the push. Knows the
//! server only as the place that logins come from. The layer cache is the engine's own and outlives
//! attempts; an image is only tagged while it is built and pushed, so that images do not pile up.
//! Where nobody has logins, images are for this machine and keep their tag.

mod context;
mod door;
mod files;
mod progress;
mod push;
mod session;
mod solve;

use crate::{
    engine::Engine,
    engine_address::EngineAddress,
    limits::{Limits, StepEnd},
    logins::Logins,
    logs::StepLog,
    registry,
    secret::Secret,
};
use anyhow::Context;
use bollard::{auth::DockerCredentials, query_parameters::TagImageOptionsBuilder};
use context::BuildContext;
use door::{Calls, Door};
use files::Moments;
use progress::Progress;
use roadstead_protocol::{BuiltImage, ImageBuild, RegistryCredentials, RegistryUse};
use session::Offer;
use sha2::{Digest, Sha256};
use solve::{Order, Unbuilt};
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::Instant,
};

/// How the build of one image ended.
#[derive(Debug)]
pub(crate) enum BuildEnd {
    /// It is where it was to go: in the registry, or here.
    Built(BuiltImage),
    /// It was built and is for nobody.
    Forgotten,
    /// It is not, and the step ends.
    Ended(StepEnd),
}

/// Builds images by BuildKit inside Docker Engine.
#[derive(Clone)]
pub(crate) struct ImageBuilder {
    engine: Engine,
    door: Door,
    moments: Moments,
}

/// What an image is built from.
#[derive(Clone, Copy)]
pub(crate) struct BuildInput<'a> {
    pub(crate) project: &'a str,
    pub(crate) workspace: &'a Path,
    /// When its commit was made, in seconds since 1970; none of files that are of no commit.
    pub(crate) commit_time: Option<i64>,
    /// What instructions may mount, by id.
    pub(crate) secrets: &'a BTreeMap<String, Secret>,
}

/// By this argument builds are told when what they make was made (reproducible-builds.org).
const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The build arguments of an image, with the time of its commit unless the file says another one. An instruction depends
/// on it only where the Dockerfile declares it.
fn arguments(image: &ImageBuild, commit_time: Option<i64>) -> HashMap<String, String> {
    let of_commit = commit_time.map(|time| (SOURCE_DATE_EPOCH.to_owned(), time.to_string()));
    let mut arguments: HashMap<_, _> = of_commit.into_iter().collect();
    arguments.extend(image.args.clone());
    arguments
}

impl ImageBuilder {
    /// Of `engine`, which listens at `address`.
    pub(crate) fn new(engine: Engine, address: EngineAddress) -> Self {
        Self {
            door: Door::new(address, engine.docker().client_version()),
            moments: Moments::new(engine.instance()),
            engine,
        }
    }

    /// Builds `image` from `input` and pushes it, if it is for somebody; without `logins` it stays here under
    /// its repository and tag. `name` tells this build apart from every other one on this runner.
    ///
    /// # Errors
    /// When the engine fails; whatever the Dockerfile, the context or the registry refuse is a
    /// [`BuildEnd::Ended`].
    pub(crate) async fn build_image(
        &self,
        image: &ImageBuild,
        input: BuildInput<'_>,
        name: &str,
        logins: Option<&Logins<'_>>,
        limits: &Limits,
        log: &StepLog,
    ) -> anyhow::Result<BuildEnd> {
        let tag = format!("{}:{}", self.engine.build_repository(), name.to_lowercase());
        let work = async {
            let login = match (image.registry, logins) {
                (RegistryUse::Push | RegistryUse::Pull, Some(logins)) => {
                    Some((logins.fetch(log).await?, logins))
                }
                (RegistryUse::None, _) | (_, None) => None,
            };
            let known = login.as_ref().map(|(login, _)| login);
            if let Some(end) = self.build(image, input, &tag, known, log).await? {
                return Ok(BuildEnd::Ended(end));
            }
            if !image.registry.is_push() {
                let said = "a pull request's images are pushed nowhere: this one is forgotten";
                log.line(said).await?;
                return Ok(BuildEnd::Forgotten);
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
        input: BuildInput<'_>,
        tag: &str,
        login: Option<&RegistryCredentials>,
        log: &StepLog,
    ) -> anyhow::Result<Option<StepEnd>> {
        log.line(&format!(
            "building image {} from {}",
            image.name, image.context
        ))
        .await?;
        let opened = tokio::task::spawn_blocking({
            let (workspace, image) = (input.workspace.to_owned(), image.clone());
            move || {
                let context = BuildContext::open(&workspace, &image.context, &image.dockerfile)?;
                match image.registry {
                    RegistryUse::Push | RegistryUse::Pull => Ok(context),
                    // Nobody's code that is trusted.
                    RegistryUse::None => context.without_frontend(),
                }
            }
        })
        .await?;
        let named = |reason: &str| format!("image `{}`: {reason}", image.name);
        let context = match opened {
            Ok(context) => context,
            Err(error) => return Ok(Some(StepEnd::failed(named(&format!("{error:#}"))))),
        };
        let offer = Offer {
            context,
            moments: self.moments.clone(),
            login: login.cloned(),
            secrets: input.secrets.clone(),
        };
        let mut progress = Progress::default();
        let began = Instant::now();
        let solved = self
            .solve(image, input, tag, offer, &mut progress, log)
            .await;
        match solved {
            Ok(()) => {
                let (cached, all) = progress.cache_hits();
                log.line(&format!(
                    "built in {:.2} s: {cached} of {all} instructions were in the cache",
                    began.elapsed().as_secs_f64()
                ))
                .await?;
                Ok(None)
            }
            Err(Unbuilt::Refused(message)) => {
                log.line(&format!("ERROR: {message}")).await?;
                let reason = named(progress.failure().unwrap_or(&message));
                Ok(Some(if registry::is_transient(&message) {
                    StepEnd::Errored { reason }
                } else {
                    StepEnd::failed(reason)
                }))
            }
            Err(Unbuilt::BrokeOff(error)) => {
                Err(error.context(format!("the build of image `{}` broke off", image.name)))
            }
        }
    }

    /// Opens a session that gives what is on `offer` and has BuildKit build.
    async fn solve(
        &self,
        image: &ImageBuild,
        input: BuildInput<'_>,
        tag: &str,
        offer: Offer,
        progress: &mut Progress,
        log: &StepLog,
    ) -> Result<(), Unbuilt> {
        let session = unique();
        let build = unique();
        let dockerfile = offer.context.dockerfile().to_owned();
        let arguments = arguments(image, input.commit_time);
        let order = Order {
            session: &session,
            build: &build,
            dockerfile: &dockerfile,
            target: image.target.as_deref(),
            arguments: &arguments,
            tag,
        };
        let headers = session::headers(&session, &self.shared_key(input.project, &image.context));
        let answers = self.door.upgrade("/session", &headers).await;
        let serving = session::serve(answers.map_err(Unbuilt::BrokeOff)?, offer);
        let questions = self.door.upgrade("/grpc", &[]).await;
        let begun = Calls::begin(questions.map_err(Unbuilt::BrokeOff)?).await;
        let (calls, moving) = begun.map_err(Unbuilt::BrokeOff)?;
        let broke_off = |what: &str| Unbuilt::BrokeOff(anyhow::anyhow!("Docker Engine {what}"));
        tokio::select! {
            biased;
            solved = order.carry_out(calls, progress, log) => solved,
            moved = moving => Err(match moved {
                Ok(()) => broke_off("hung up"),
                Err(error) => Unbuilt::BrokeOff(error.into()),
            }),
            served = serving => Err(match served {
                Ok(()) => broke_off("closed the session"),
                Err(error) => Unbuilt::BrokeOff(error),
            }),
        }
    }

    /// Names the files that one build leaves for the next one. Projects do not share any: what one of them
    /// sends is never taken for another one's.
    fn shared_key(&self, project: &str, context: &str) -> String {
        let of = [self.engine.instance(), project, context].join("\0");
        hex::encode(Sha256::digest(of))
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

/// An id that nobody else has.
fn unique() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn docker_credentials(login: &RegistryCredentials) -> DockerCredentials {
    DockerCredentials {
        username: Some(login.username.clone()),
        password: Some(login.password.clone()),
        serveraddress: Some(login.registry.clone()),
        ..Default::default()
    }
}
