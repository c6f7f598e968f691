//! What becomes of a pull request's runs when it is closed.

use super::commit::{self, By};
use super::conn::AnyConnection;
use super::schema::runs;
use super::{NewDelivery, Result, lane, runs as run_rows};
use diesel::prelude::*;
use roadstead_pipelines::fact::{Change, RunFact};
use roadstead_pipelines::pull_request::ends_when_closed;

/// Cancels those of its runs that wait, and says so in words.
pub(super) fn close(
    connection: &mut AnyConnection,
    new: &NewDelivery,
    git_ref: &str,
    number: u64,
) -> Result<String> {
    let project = &new.project;
    lane::bump(connection, project)?;
    let open: Vec<run_rows::Record> = runs::table
        .filter(runs::project.eq(project.as_str()))
        .filter(runs::git_ref.eq(git_ref))
        .filter(runs::ended_at.is_null())
        .order(runs::number)
        .load(connection)?;
    let closed = format!("pull request #{number} was closed");
    let by = By {
        actor: &format!("{} webhook", new.forge),
        now: new.received_at,
    };
    let mut cancelled = vec![];
    for record in open {
        let run = record.read()?;
        if ends_when_closed(&run) {
            let fact = RunFact::CancelRequested {
                by: format!("the webhook that told that {closed}"),
            };
            cancelled.push(run.id.to_string());
            commit::apply(connection, project, &Change::Run { run: run.id, fact }, by)?;
        }
    }
    Ok(match cancelled.as_slice() {
        [] => closed,
        runs => format!("{closed}: cancelled {}", runs.join(", ")),
    })
}
