//! What a tag of the sandbox's registry stands for in all tasks of a deployment.
//!
//! Invariant: once a task may run a digest, the disk holds that its deployment does, and no other
//! digest is decided for that tag and deployment. Must not know: Docker.

use std::sync::Arc;

use crate::registry::Registry;
use crate::services::AwsError;
use crate::state::Store;

/// Decides it for a deployment's first task.
pub(crate) struct Pins {
    store: Arc<Store>,
    registry: Arc<Registry>,
}

impl Pins {
    pub(crate) fn new(store: Arc<Store>, registry: Arc<Registry>) -> Self {
        Self { store, registry }
    }

    /// The digest that a task runs for `image`. None when the image is not of the sandbox's registry
    /// or not there, or when the task belongs to no deployment: its tag is then all there is.
    pub(crate) async fn digest(
        &self,
        task_id: &str,
        image: &str,
    ) -> Result<Option<String>, AwsError> {
        let Some((repository, tag)) = self.registry.tagged(image) else {
            return Ok(None);
        };
        let Some(digest) = self.registry.digest(repository, tag).await? else {
            return Ok(None);
        };
        // Another task may have decided in the meantime; the state knows who was first.
        let (decided, version) = self.store.steer(|state| state.pin(task_id, image, &digest));
        self.store.saved(version).await?;
        Ok(decided)
    }
}
