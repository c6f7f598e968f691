//! Tasks as containers on the local Docker Engine, published on 127.0.0.1.

use std::sync::Arc;

use super::{Backend, Reports};
use crate::clock::Clock;
use crate::config::Config;
use crate::registry::Registry;

/// Connects to the Docker Engine, and fails when none answers. Images of `registry` are pulled with
/// a token of the sandbox's own.
pub async fn connect(
    _config: &Config,
    _clock: Clock,
    _reports: Reports,
    _registry: Arc<Registry>,
) -> anyhow::Result<Arc<dyn Backend>> {
    anyhow::bail!("the Docker backend is being built")
}
