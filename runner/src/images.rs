//! Images of steps' containers, and the tags of those that are built.
//!
//! Owns pulling what is not here, as often as a registry that is away is worth it. What a build makes stays in
//! Docker Engine's cache; only its tag goes.

use crate::{
    engine::{Engine, NOT_FOUND, StepContainer, absent_is_fine, status, words},
    limits::StepEnd,
    logs::StepLog,
    registry::{self, RegistryTries},
};
use anyhow::{Context, bail};
use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptionsBuilder};
use futures_util::TryStreamExt;

impl Engine {
    /// Pulls what the step's containers need.
    pub(crate) async fn ensure_images(
        &self,
        step: &StepContainer<'_>,
        log: &StepLog,
    ) -> anyhow::Result<Option<StepEnd>> {
        let sidecar_images = step.sidecars.values().map(|sidecar| sidecar.image.as_str());
        for image in std::iter::once(step.image).chain(sidecar_images) {
            if let Some(end) = self.ensure_image(image, log).await? {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    /// Pulls `image` when it is not here.
    async fn ensure_image(&self, image: &str, log: &StepLog) -> anyhow::Result<Option<StepEnd>> {
        let reference = registry::with_tag(image);
        match self.docker().inspect_image(&reference).await {
            Ok(_) => return Ok(None),
            Err(error) if status(&error) == Some(NOT_FOUND) => {}
            Err(error) => return Err(error).context("cannot ask Docker Engine for an image"),
        }
        log.line(&format!("pulling image {reference}")).await?;
        let what = format!("image {reference} could not be pulled");
        let mut tries = RegistryTries::new();
        loop {
            let options = CreateImageOptionsBuilder::new()
                .from_image(&reference)
                .build();
            let pulled: Result<Vec<_>, _> = self
                .docker()
                .create_image(Some(options), None, None)
                .try_collect()
                .await;
            let message = match pulled {
                Ok(_) => return Ok(None),
                Err(error) => words(&error).with_context(|| what.clone())?,
            };
            if !registry::is_transient(&message) {
                return Ok(Some(StepEnd::failed(format!("{what}: {message}"))));
            }
            if !tries.again(log, &what, &message).await? {
                bail!("{what}: {message}");
            }
        }
    }

    /// The repository whose tags hold images while they are built and pushed.
    pub(crate) fn build_repository(&self) -> String {
        format!("roadstead-build-{}", self.instance())
    }

    /// Removes a tag; layers stay in the build cache.
    pub(crate) async fn remove_tag(&self, tag: &str) -> anyhow::Result<()> {
        let options = RemoveImageOptionsBuilder::new().build();
        absent_is_fine(
            self.docker()
                .remove_image(tag, Some(options), None)
                .await
                .map(drop),
        )
        .with_context(|| format!("cannot remove image tag {tag}"))
    }
}
