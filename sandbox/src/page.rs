//! The page for people: clusters, services, deployments, tasks, events and calls as plain HTML; and
//! the events alone for programs.

use std::fmt::Write;

use serde_json::json;

use crate::app::App;
use crate::calls::Call;
use crate::clock::Time;
use crate::scheduler::{Deployment, Event, Service, Task};
use crate::state::State;

const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
<meta name=\"viewport\" content=\"width=device-width\">\n<meta http-equiv=\"refresh\" content=\"5\">\n\
<title>Sandbox</title>\n<style>\n:root{color-scheme:light dark}\n\
body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem}\n\
table{border-collapse:collapse;width:100%;margin:.5rem 0 1rem}\n\
th,td{text-align:left;padding:.2rem .8rem .2rem 0;border-bottom:1px solid #8884;vertical-align:top}\n\
code{font-size:.95em}\nol{padding-left:0;list-style:none}\ntime{color:#888}\n</style>\n</head>\n<body>\n\
<h1>Sandbox</h1>\n";

/// So many calls are shown.
const MOST_CALLS: usize = 50;

/// The page as of now.
pub(crate) fn render(app: &App) -> String {
    let now = app.clock.now();
    let mut out = HEAD.to_owned();
    app.store.read(|state| {
        // Writing to a String cannot fail.
        let _ = write_state(&mut out, state, now);
    });
    match app.calls.newest(MOST_CALLS) {
        Ok(calls) => {
            let _ = write_calls(&mut out, &calls, now);
        }
        Err(error) => tracing::error!(%error, "cannot read the call log"),
    }
    out.push_str("</body>\n</html>\n");
    out
}

/// The newest calls first.
fn write_calls(out: &mut String, calls: &[Call], now: Time) -> std::fmt::Result {
    writeln!(
        out,
        "<h2>Calls</h2>\n<p>The last {MOST_CALLS} at most; all of them, with their requests, are at \
         <a href=\"/_sandbox/calls\">/_sandbox/calls</a>.</p>\n<table><tr><th>Operation<th>Status\
         <th>Changed something<th>Fault<th>When</tr>"
    )?;
    for call in calls {
        writeln!(
            out,
            "<tr><td>{} {}<td>{} {}<td>{}<td>{}<td>{}</tr>",
            escape(&call.service),
            escape(&call.operation),
            call.status,
            escape(call.error.as_deref().unwrap_or_default()),
            if call.effective { "yes" } else { "" },
            escape(call.fault.as_deref().unwrap_or_default()),
            ago(now, Time::from_epoch_seconds(call.at)),
        )?;
    }
    out.push_str("</table>\n");
    Ok(())
}

/// The events of all services as lines of JSON, oldest first; at one moment, by cluster and
/// service.
pub(crate) fn event_log(state: &State) -> String {
    let mut events: Vec<(&Service, &Event)> = state
        .services
        .values()
        .flat_map(|service| {
            service
                .events
                .iter()
                .rev()
                .map(move |event| (service, event))
        })
        .collect();
    events.sort_by_key(|(service, event)| (event.created_at, &service.cluster, &service.name));
    events
        .into_iter()
        .map(|(service, event)| {
            let line = json!({
                "at": event.created_at.epoch_seconds(),
                "cluster": service.cluster,
                "service": service.name,
                "id": event.id,
                "message": event.message,
            });
            format!("{line}\n")
        })
        .collect()
}

fn write_state(out: &mut String, state: &State, now: Time) -> std::fmt::Result {
    if state.clusters.is_empty() {
        out.push_str("<p>No cluster yet: create one with <code>CreateCluster</code>.</p>\n");
    }
    for cluster in state.clusters.values().filter(|cluster| cluster.active) {
        writeln!(out, "<h2>Cluster {}</h2>", escape(&cluster.name))?;
        let mut services = state
            .services
            .values()
            .filter(|service| service.cluster == cluster.name)
            .peekable();
        if services.peek().is_none() {
            out.push_str("<p>No service.</p>\n");
        }
        for service in services {
            write_service(out, service, now)?;
        }
        let tasks: Vec<&Task> = state
            .tasks
            .values()
            .filter(|one| one.cluster == cluster.name)
            .map(|one| &one.task)
            .collect();
        if !tasks.is_empty() {
            out.push_str("<h3>Tasks outside services</h3>\n");
            write_tasks(out, &tasks, now)?;
        }
    }
    Ok(())
}

fn write_service(out: &mut String, service: &Service, now: Time) -> std::fmt::Result {
    writeln!(
        out,
        "<h3>Service {}</h3>\n<p>{}, {} tasks wanted.</p>",
        escape(&service.name),
        service.status.word(),
        service.desired,
    )?;
    out.push_str(
        "<table><tr><th>Deployment<th>Status<th>Rollout<th>Task definition<th>Failed tasks\
         <th>Changed</tr>\n",
    );
    for deployment in &service.deployments {
        write_deployment(out, deployment, now)?;
    }
    out.push_str("</table>\n");
    let tasks: Vec<&Task> = service.tasks.iter().rev().collect();
    write_tasks(out, &tasks, now)?;
    out.push_str("<details open><summary>Events</summary>\n<ol>\n");
    for event in service.events.iter().take(20) {
        writeln!(
            out,
            "<li><time>{}</time> {}</li>",
            ago(now, event.created_at),
            escape(&event.message)
        )?;
    }
    out.push_str("</ol></details>\n");
    Ok(())
}

fn write_deployment(out: &mut String, deployment: &Deployment, now: Time) -> std::fmt::Result {
    writeln!(
        out,
        "<tr><td><code>{}</code><td>{}<td title=\"{}\">{}<td>{}<td>{}<td>{}</tr>",
        escape(&deployment.id),
        deployment.status.word(),
        escape(&deployment.rollout_reason),
        deployment.rollout.word(),
        escape(last_part(&deployment.revision.definition_arn)),
        deployment.failed_tasks,
        ago(now, deployment.updated_at),
    )
}

fn write_tasks(out: &mut String, tasks: &[&Task], now: Time) -> std::fmt::Result {
    out.push_str(
        "<table><tr><th>Task<th>Status<th>Task definition<th>Containers<th>Stopped because\
         <th>Created</tr>\n",
    );
    for task in tasks.iter().take(50) {
        let containers: Vec<String> = task
            .containers
            .iter()
            .map(|container| match container.exit_code {
                Some(code) => format!("{} (exit {code})", container.name),
                None => container.name.clone(),
            })
            .collect();
        writeln!(
            out,
            "<tr><td><code>{}</code><td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
            escape(&task.id),
            task.status.word(),
            escape(last_part(&task.definition_arn)),
            escape(&containers.join(", ")),
            escape(task.stopped_reason.as_deref().unwrap_or_default()),
            ago(now, task.created_at),
        )?;
    }
    out.push_str("</table>\n");
    Ok(())
}

fn last_part(arn: &str) -> &str {
    arn.rsplit_once('/').map_or(arn, |(_, last)| last)
}

fn ago(now: Time, then: Time) -> String {
    let seconds = now.since(then).as_secs();
    match seconds {
        0..=119 => format!("{seconds} s ago"),
        120..=7199 => format!("{} min ago", seconds / 60),
        _ => format!("{} h ago", seconds / 3600),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn what_callers_wrote_cannot_become_markup() {
        assert_eq!(
            escape("<b a=\"1\">&</b>"),
            "&lt;b a=&quot;1&quot;&gt;&amp;&lt;/b&gt;"
        );
    }
}
