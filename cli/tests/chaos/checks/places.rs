//! I9 to I13: what was deployed where, by the rows, by ECS, and by the sandbox's log of calls.

use super::{Checks, json, text};
use crate::world::World;
use serde_json::Value;
use serde_json::json as object;
use std::collections::{BTreeMap, BTreeSet};

const I4: &str = "I4 automation never goes back to an ancestor";
const I9: &str = "I9 one active deployment per place";
const I10: &str = "I10 ECS runs what the rows say";
const I11: &str = "I11 one revision and one update per deployment";
const I12: &str = "I12 production gets what staging proved";
const I13: &str = "I13 what failed is taken back";

const PLACES: [&str; 2] = ["staging", "production"];

/// What the history says of deployments.
struct History {
    rows: Vec<Value>,
    events: Vec<Value>,
}

impl History {
    /// The deployment's row.
    fn row(&self, id: &str) -> Option<&Value> {
        self.rows.iter().find(|row| text(row, "id") == id)
    }

    fn events_of<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events
            .iter()
            .filter(move |event| text(event, "subject") == id)
    }

    /// The task definition that a deployment brought, once it had one.
    fn definition(&self, id: &str) -> Option<String> {
        self.events_of(id)
            .filter_map(|event| {
                Some(
                    json(event, "detail")["task_definition"]
                        .as_str()?
                        .to_owned(),
                )
            })
            .last()
    }
}

pub(super) async fn check(world: &World, checks: &mut Checks) -> anyhow::Result<()> {
    let rows = world
        .database
        .rows(
            "select d.id, d.number, d.environment, d.release, d.kind, d.asked_by, d.word, d.state, r.images, r.commit_sha \
             from deployments d join releases r on r.id = d.release order by d.number",
        )
        .await?;
    let events = world
        .database
        .rows(
            "select subject, what, before, after, detail from events \
             where subject like 'shop.d%' and what <> 'report_dropped' order by position",
        )
        .await?;
    let history = History { rows, events };
    let commits = world.forge.history().await?;
    goes_forward(checks, &history, &commits);
    one_at_a_time(checks, &history);
    proved(checks, &history);
    taken_back(checks, &history);
    at_ecs(world, checks, &history).await?;
    calls(world, checks, &history)
}

fn one_at_a_time(checks: &mut Checks, history: &History) {
    let mut active: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for event in &history.events {
        let id = text(event, "subject");
        let Some(row) = history.row(id) else { continue };
        let place = active.entry(text(row, "environment")).or_default();
        match json(event, "after").as_str() {
            Some("rolling_out" | "verifying") => {
                if place.insert(id) {
                    checks.case(I9, place.len() == 1, || format!("{place:?} at once"));
                }
            }
            _ => {
                place.remove(id);
            }
        }
    }
}

/// Automation brings no commit that the verified one has already, whenever its release was made.
fn goes_forward(checks: &mut Checks, history: &History, commits: &[String]) {
    let age = |row: &Value| commits.iter().position(|c| c == text(row, "commit_sha"));
    let mut verified: BTreeMap<&str, Option<usize>> = BTreeMap::new();
    for event in &history.events {
        let Some(row) = history.row(text(event, "subject")) else {
            continue;
        };
        let place = text(row, "environment");
        match text(event, "what") {
            "verified" => {
                verified.insert(place, age(row));
            }
            "started"
                if json(row, "asked_by")["trigger"] == "auto"
                    && json(row, "kind")["kind"] == "forward" =>
            {
                let before = verified.get(place).copied().flatten();
                checks.case(I4, age(row) >= before, || {
                    format!("{} goes back to an ancestor", text(row, "id"))
                });
            }
            _ => {}
        }
    }
}

/// The digest that a release brings to an environment: that of its variant, or of the plain image.
fn digest<'i>(images: &'i Value, environment: &str) -> &'i str {
    let own = &images[format!("{environment}/app")];
    let found = if own.is_null() { &images["app"] } else { own };
    found["digest"].as_str().unwrap_or_default()
}

/// All digests of a release: siblings of one run.
fn digests(images: &Value) -> impl Iterator<Item = String> {
    let images = images.as_object().into_iter().flatten();
    images.filter_map(|(_, image)| Some(image["digest"].as_str()?.to_owned()))
}

fn proved(checks: &mut Checks, history: &History) {
    let mut proved: BTreeSet<String> = BTreeSet::new();
    for event in &history.events {
        let Some(row) = history.row(text(event, "subject")) else {
            continue;
        };
        let images = json(row, "images");
        match (text(row, "environment"), text(event, "what")) {
            ("staging", "verified") => proved.extend(digests(&images)),
            ("production", "started") => {
                let brought = digest(&images, "production");
                checks.case(I12, proved.contains(brought), || {
                    format!(
                        "{} brings a digest of which staging had proved no sibling",
                        text(row, "id")
                    )
                });
            }
            _ => {}
        }
    }
}

/// A deployment that failed after ECS was asked is back on something verified, or says that it is not.
fn taken_back(checks: &mut Checks, history: &History) {
    let mut verified: BTreeSet<&str> = BTreeSet::new();
    for event in &history.events {
        let id = text(event, "subject");
        let Some(row) = history.row(id) else { continue };
        let place = text(row, "environment");
        let asked = history
            .events_of(id)
            .any(|e| text(e, "what") == "service_updated");
        match text(event, "what") {
            "verified" => {
                verified.insert(place);
            }
            "failed" if asked && verified.contains(place) => {
                // A rollback that fails ends so, and what it was to take back as `rollback_failed`.
                let forward = json(row, "kind")["kind"] == "forward";
                checks.case(I13, !forward, || {
                    format!("{id} failed and was not taken back: {}", row["state"])
                });
            }
            "rolled_back" => {
                let opened = history
                    .events_of(id)
                    .find(|e| text(e, "what") == "rollback_opened");
                let rollback = opened.map(|event| json(event, "detail")["rollback"].clone());
                let back = rollback
                    .as_ref()
                    .and_then(Value::as_str)
                    .and_then(|id| history.row(id));
                let word = back.map(|row| text(row, "word"));
                let fits = rollback.is_none() || word == Some("deployed");
                checks.case(I13, fits, || {
                    format!("{id} is rolled back by {rollback:?}, {word:?}")
                });
            }
            _ => {}
        }
    }
}

/// The service, its tasks and its image are those of the place's last verified deployment.
async fn at_ecs(world: &World, checks: &mut Checks, history: &History) -> anyhow::Result<()> {
    for place in PLACES {
        let described = world
            .aws
            .ecs(
                "DescribeServices",
                object!({"cluster": place, "services": ["shop"]}),
            )
            .await?;
        let service = &described["services"][0];
        let of_place = history
            .rows
            .iter()
            .filter(|row| text(row, "environment") == place && text(row, "word") == "deployed");
        let last = of_place.max_by_key(|row| {
            let ended = history
                .events
                .iter()
                .rposition(|event| event["subject"] == row["id"]);
            ended.unwrap_or_default()
        });
        let Some(last) = last else { continue };
        let state = json(last, "state");
        let runs = service["taskDefinition"].clone();
        checks.case(I10, runs == state["task_definition"], || {
            format!("{place} runs {runs}, the rows say {state}")
        });
        let found = world
            .aws
            .ecs("DescribeTaskDefinition", object!({"taskDefinition": runs}))
            .await?;
        let image = &found["taskDefinition"]["containerDefinitions"][0]["image"];
        let images = json(last, "images");
        let pinned = image
            .as_str()
            .is_some_and(|image| image.ends_with(digest(&images, place)));
        checks.case(I10, pinned, || {
            format!("{place} runs {image}, the release is {images}")
        });
        let whole = service["runningCount"] == service["desiredCount"];
        checks.case(I10, whole, || {
            format!("{place} runs {} tasks", service["runningCount"])
        });
    }
    Ok(())
}

/// The sandbox's log of calls that changed something.
fn calls(world: &World, checks: &mut Checks, history: &History) -> anyhow::Result<()> {
    let file = std::fs::read_to_string(world.path.join("sandbox/calls.jsonl"))?;
    let (mut revisions, mut updates) = (BTreeMap::new(), BTreeMap::new());
    let mut proved: BTreeMap<String, String> = BTreeMap::new();
    for line in file.lines() {
        // The last line before a kill may be cut off.
        let Ok(call) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let request = &call["request"];
        if call["effective"] != true {
            continue;
        }
        match text(&call, "operation") {
            "RegisterTaskDefinition" => {
                let tags = request["tags"].as_array().into_iter().flatten();
                let ours = tags
                    .into_iter()
                    .find(|tag| tag["key"] == "roadstead:deployment");
                if let Some(id) = ours.and_then(|tag| tag["value"].as_str()) {
                    *revisions.entry(id.to_owned()).or_insert(0_usize) += 1;
                    let image = text(&request["containerDefinitions"][0], "image");
                    proved.insert(id.to_owned(), image.to_owned());
                }
            }
            "UpdateService" => {
                let to = (
                    text(request, "cluster").to_owned(),
                    text(request, "taskDefinition").to_owned(),
                );
                *updates.entry(to).or_insert(0_usize) += 1;
            }
            _ => {}
        }
    }
    for (id, times) in &revisions {
        checks.case(I11, *times == 1, || format!("{times} revisions for {id}"));
        let images = history
            .row(id)
            .map(|row| json(row, "images"))
            .unwrap_or_default();
        let image = &proved[id];
        let place = history.row(id).map(|row| text(row, "environment"));
        let own = digest(&images, place.unwrap_or_default());
        let right = !own.is_empty() && image.ends_with(own);
        checks.case(I12, right, || {
            format!("{id} registered {image}, its release is {images}")
        });
    }
    for ((place, definition), times) in &updates {
        let wanted = history.rows.iter().filter(|row| {
            text(row, "environment") == place
                && history.definition(text(row, "id")).as_ref() == Some(definition)
        });
        let wanted: Vec<&str> = wanted.map(|row| text(row, "id")).collect();
        checks.case(I11, *times <= wanted.len(), || {
            format!("{times} updates of {place} to {definition} for {wanted:?}")
        });
    }
    Ok(())
}
