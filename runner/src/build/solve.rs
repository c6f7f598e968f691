//! Has BuildKit build an image, and hears how it goes.
//!
//! Owns the calls of Docker Engine's `/grpc`: the order to build and the trace of it. A dropped future ends
//! the build.

use super::{door::Calls, progress::Progress};
use crate::logs::StepLog;
use bollard::grpc::build::moby::buildkit::v1::{
    SolveRequest, StatusRequest, control_client::ControlClient,
};
use std::{collections::HashMap, error::Error as _, io, time::Duration};
use tonic::Status;

/// How long the trace of a build that has ended is waited for.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// Longest message of a trace, in bytes; the engine's own limit.
const MESSAGE_BYTES: usize = 16 << 20;

/// What is to be built.
pub(super) struct Order<'a> {
    /// The session that answers BuildKit's questions.
    pub(super) session: &'a str,
    /// Tells this build apart from all others.
    pub(super) build: &'a str,
    /// The Dockerfile's name.
    pub(super) dockerfile: &'a str,
    pub(super) target: Option<&'a str>,
    pub(super) arguments: &'a HashMap<String, String>,
    /// The name that the image gets.
    pub(super) tag: &'a str,
}

/// Why there is no image.
#[derive(Debug)]
pub(super) enum Unbuilt {
    /// BuildKit says so; its words.
    Refused(String),
    /// The engine did not say.
    BrokeOff(anyhow::Error),
}

impl From<io::Error> for Unbuilt {
    fn from(error: io::Error) -> Self {
        Self::BrokeOff(error.into())
    }
}

impl From<Status> for Unbuilt {
    fn from(status: Status) -> Self {
        // What went wrong on the way is the status' source; what the engine answered has none.
        if status.source().is_some() {
            Self::BrokeOff(status.into())
        } else {
            Self::Refused(status.message().to_owned())
        }
    }
}

impl Order<'_> {
    /// Builds, and writes what happens to `log`.
    pub(super) async fn carry_out(
        &self,
        calls: Calls,
        progress: &mut Progress,
        log: &StepLog,
    ) -> Result<(), Unbuilt> {
        let origin = hyper::Uri::from_static("http://docker");
        let mut control =
            ControlClient::with_origin(calls, origin).max_decoding_message_size(MESSAGE_BYTES);
        let mut listener = control.clone();
        let tracing = trace(&mut listener, self.build, progress, log);
        tokio::pin!(tracing);
        let solving = control.solve(self.request());
        tokio::pin!(solving);
        let mut is_traced = false;
        let solved = loop {
            tokio::select! {
                solved = &mut solving => break solved,
                traced = &mut tracing, if !is_traced => {
                    traced?;
                    is_traced = true;
                }
            }
        };
        if !is_traced && let Ok(traced) = tokio::time::timeout(LAST_WORDS, tracing).await {
            traced?;
        }
        solved?;
        Ok(())
    }

    fn request(&self) -> SolveRequest {
        let mut attributes = HashMap::from([
            ("filename".to_owned(), self.dockerfile.to_owned()),
            // An image that is here already is not asked for at its registry, as with `docker build`.
            ("image-resolve-mode".to_owned(), "local".to_owned()),
        ]);
        if let Some(target) = self.target {
            attributes.insert("target".to_owned(), target.to_owned());
        }
        let arguments = self.arguments.iter();
        attributes
            .extend(arguments.map(|(name, value)| (format!("build-arg:{name}"), value.clone())));
        SolveRequest {
            r#ref: self.build.to_owned(),
            session: self.session.to_owned(),
            frontend: "dockerfile.v0".to_owned(),
            frontend_attrs: attributes,
            // Where the engine keeps its images.
            exporter_deprecated: "moby".to_owned(),
            exporter_attrs_deprecated: HashMap::from([("name".to_owned(), self.tag.to_owned())]),
            ..Default::default()
        }
    }
}

/// Writes the trace of a build to `log` until it ends. Where the engine does not tell it, the log says so.
async fn trace(
    control: &mut ControlClient<Calls>,
    build: &str,
    progress: &mut Progress,
    log: &StepLog,
) -> io::Result<()> {
    let request = StatusRequest {
        r#ref: build.to_owned(),
    };
    let traced = match control.status(request).await {
        Ok(response) => {
            let mut messages = response.into_inner();
            loop {
                match messages.message().await {
                    Ok(Some(status)) => log.write(progress.take(&status).as_bytes()).await?,
                    Ok(None) => break Ok(()),
                    Err(status) => break Err(status),
                }
            }
        }
        Err(status) => Err(status),
    };
    if let Err(status) = traced {
        tracing::warn!(build, %status, "hears no more of a build");
    }
    Ok(())
}
