//! `/events`: tells a page that what it shows has changed. The bell wakes the stream, or a timer, since
//! a ring may be lost; then it looks whether the topic really changed.

use super::super::App;
use super::super::actions;
use super::super::auth::{Allowed, Viewer};
use super::super::error::HttpError;
use super::sse;
use crate::wake::Listener;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream;
use roadstead_pipelines::id::{ProjectName, RunId};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;

/// No page hears more often than this.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// Looks at least this often, whether the bell rang or not.
const LOOKS_EVERY: Duration = Duration::from_secs(5);
/// Reports of steps ring no bell.
const LOOKS_AT_A_RUN_EVERY: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
pub(super) struct TopicQuery {
    #[serde(default)]
    topic: String,
}

enum Topic {
    All,
    Project(ProjectName),
    Run(RunId),
}

impl Topic {
    fn parse(text: &str) -> Result<Self, HttpError> {
        let unknown = || HttpError::bad_request(format!("`{text}` is no topic"));
        match text.split_once('/') {
            None if text.is_empty() || text == "all" => Ok(Self::All),
            Some(("run", id)) => Ok(Self::Run(actions::run_of(id)?)),
            Some(("deployment", id)) => Ok(Self::Project(actions::deployment_of(id)?.project())),
            Some(("project", name)) => Ok(Self::Project(
                ProjectName::parse(name).map_err(|_| unknown())?,
            )),
            _ => Err(unknown()),
        }
    }

    /// Differs when what the topic's page shows may differ.
    async fn mark(&self, app: &App) -> Result<String, HttpError> {
        let marks = app.store.lane_marks().await?;
        let of = |wanted: &dyn Fn(&ProjectName) -> bool| {
            let lanes = marks.iter().filter(|lane| wanted(&lane.project));
            let parts: Vec<_> = lanes.map(|lane| lane.generation.to_string()).collect();
            parts.join(" ")
        };
        Ok(match self {
            Self::All => of(&|_| true),
            Self::Project(name) => of(&|project| project == name),
            Self::Run(run) => {
                let detail = app.store.get_run(run).await?;
                let own = run.project();
                let lane = of(&|project| *project == own);
                // Reports of steps decide nothing, so they do not move the lane.
                format!("{lane} {:?}", detail.steps)
            }
        })
    }
}

struct Watch {
    app: web::Data<App>,
    topic: Topic,
    bell: Listener,
    seen: String,
    end: Instant,
}

/// The stream.
///
/// # Errors
/// 400 for a topic that is none, 404 for one of something that does not exist.
pub(super) async fn stream(
    app: web::Data<App>,
    who: Allowed<Viewer, web::Query<TopicQuery>>,
    request: HttpRequest,
) -> Result<HttpResponse, HttpError> {
    let topic = Topic::parse(&who.sent.topic)?;
    let (bell, listener) = (app.bell.clone(), app.bell.listen());
    let seen = topic.mark(&app).await?;
    let watch = Watch {
        app,
        topic,
        bell: listener,
        seen,
        end: Instant::now() + sse::LONGEST_STREAM,
    };
    // A first comment, so that the client knows at once that it is heard.
    let hello = stream::once(async { sse::heartbeat() });
    let changes = stream::unfold(watch, async |mut watch| {
        let quiet_until = Instant::now() + sse::HEARTBEAT;
        while Instant::now() < watch.end {
            tokio::time::sleep(AT_MOST_EVERY).await;
            let at_most = match watch.topic {
                Topic::Run(_) => LOOKS_AT_A_RUN_EVERY,
                Topic::All | Topic::Project(_) => LOOKS_EVERY,
            };
            watch.bell.wait(at_most).await;
            // While the database is away, the page stays as it is.
            if let Ok(mark) = watch.topic.mark(&watch.app).await
                && mark != watch.seen
            {
                watch.seen = mark;
                return Some((sse::event("change", None, "1"), watch));
            }
            if Instant::now() >= quiet_until {
                return Some((sse::heartbeat(), watch));
            }
        }
        None
    });
    Ok(sse::answer(
        &request,
        &bell,
        futures_util::StreamExt::chain(hello, changes),
    ))
}
