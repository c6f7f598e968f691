//! The promises of docs/reliability.md, by the history, the rows, ECS, and the sandbox's log of calls.

use crate::stage::Stage;
use roadstead_pipelines::deployment::{Deployment, DeploymentState, Trigger};
use roadstead_pipelines::id::{Place, ReleaseId};
use roadstead_pipelines::planner;
use roadstead_pipelines::report::Subject;
use roadstead_server::audit::{Entry, Verifier};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The history of a stage, and the hashes that it ends with.
pub(crate) struct Trail {
    /// Of the project, in their order.
    pub(crate) entries: Vec<Entry>,
    /// The heads of all chains.
    pub(crate) heads: Vec<String>,
}

/// What does not hold, each with the name of its promise.
pub(crate) type Violations = Vec<String>;

/// I14: the hashes hold, each entry begins where the one before ended, and the last one is the row's state.
pub(crate) async fn check_trail(stage: &Stage) -> Result<Trail, String> {
    let store = &stage.store;
    let (mut verifier, mut entries) = (Verifier::new(vec![]), vec![]);
    for chain in store.audit_chains().await.unwrap() {
        let page = store.audit_page(&chain, 0, 100_000).await.unwrap();
        for entry in page.entries {
            verifier.entry(&entry).map_err(|e| format!("I14: {e}"))?;
            entries.push(entry);
        }
        verifier.head(&page.head).map_err(|e| format!("I14: {e}"))?;
    }
    let heads = verifier.finish().map_err(|e| format!("I14: {e}"))?;
    let mut stands: BTreeMap<&str, &Value> = BTreeMap::new();
    for entry in &entries {
        let is_life = entry.subject.starts_with("shop.") && entry.what != "report_dropped";
        if is_life && !entry.after.is_null() {
            let before = stands.insert(&entry.subject, &entry.after);
            if *before.unwrap_or(&Value::Null) != entry.before {
                return Err(format!("I14: {entry:?} does not go on from {before:?}"));
            }
        }
    }
    for deployment in stage.deployments().await {
        let told = stands.get(deployment.id.as_str());
        if told.is_none_or(|told| **told != json!(deployment.state.word())) {
            return Err(format!("I14: {deployment:?} is told as {told:?}"));
        }
    }
    let heads = heads.into_iter().map(|head| head.head).collect();
    Ok(Trail { entries, heads })
}

/// Everything that is to hold once a story is over. `last` has to have arrived everywhere.
pub(crate) async fn check(stage: &Stage, last: &ReleaseId) -> (Option<Trail>, Violations) {
    let trail = match check_trail(stage).await {
        Ok(trail) => trail,
        Err(violation) => return (None, vec![violation]),
    };
    let deployments = stage.deployments().await;
    let history = History {
        entries: &trail.entries,
        deployments: &deployments,
    };
    let mut found = vec![];
    history.one_at_a_time(&mut found);
    history.goes_forward(&mut found);
    history.is_proved(&mut found);
    history.is_taken_back(&mut found);
    history.calls_once(&stage.calls(), &mut found);
    stands(stage, &mut found).await;
    arrived(stage, last, &mut found).await;
    (Some(trail), found)
}

struct History<'a> {
    entries: &'a [Entry],
    deployments: &'a [Deployment],
}

impl<'a> History<'a> {
    fn deployment(&self, id: &str) -> Option<&'a Deployment> {
        self.deployments.iter().find(|it| it.id.as_str() == id)
    }

    /// What happened to deployments, in its order.
    fn happened(&self) -> impl Iterator<Item = (&'a Entry, &'a Deployment)> {
        let told = self.entries.iter().filter(|it| it.what != "report_dropped");
        told.filter_map(|entry| Some((entry, self.deployment(&entry.subject)?)))
    }

    fn one_at_a_time(&self, found: &mut Violations) {
        let mut at_work: BTreeMap<&Place, BTreeSet<&str>> = BTreeMap::new();
        for (entry, deployment) in self.happened() {
            let place = at_work.entry(&deployment.place).or_default();
            match entry.after.as_str() {
                Some("rolling_out" | "verifying") => {
                    if place.insert(&entry.subject) && place.len() > 1 {
                        found.push(format!("I9: {place:?} at once in {}", deployment.place));
                    }
                }
                _ => {
                    place.remove(entry.subject.as_str());
                }
            }
        }
    }

    /// Commits are numbered in the order of the branch, and releases carry that number in their message.
    fn goes_forward(&self, found: &mut Violations) {
        let mut verified: BTreeMap<&Place, u64> = BTreeMap::new();
        let commits = self.commits();
        for (entry, deployment) in self.happened() {
            let commit = commits.get(&deployment.release).copied().unwrap_or(0);
            match entry.what.as_str() {
                "verified" => {
                    verified.insert(&deployment.place, commit);
                }
                "started" if !deployment.is_rollback() && deployment.trigger == Trigger::Auto => {
                    let before = verified.get(&deployment.place).copied().unwrap_or(0);
                    if commit < before {
                        found.push(format!(
                            "I4: {} brings commit {commit} to {}, where {before} was verified",
                            deployment.id, deployment.place
                        ));
                    }
                }
                _ => {}
            }
        }
    }

    fn commits(&self) -> BTreeMap<ReleaseId, u64> {
        let made = self.entries.iter().filter(|it| it.after == "made");
        let numbered = made.filter_map(|it| {
            let release = ReleaseId::parse(&it.subject)?;
            let commit = it.detail["commit"].as_str()?;
            Some((release, u64::from_str_radix(commit, 16).ok()?))
        });
        numbered.collect()
    }

    fn is_proved(&self, found: &mut Violations) {
        let mut proved = BTreeSet::new();
        for (entry, deployment) in self.happened() {
            let place = deployment.place.environment.as_str();
            match (place, entry.what.as_str()) {
                ("staging", "verified") => {
                    proved.insert(&deployment.release);
                }
                ("production", "started") if !proved.contains(&deployment.release) => {
                    found.push(format!(
                        "I12: {} brings {}, which staging had not proved",
                        deployment.id, deployment.release
                    ));
                }
                _ => {}
            }
        }
    }

    fn is_taken_back(&self, found: &mut Violations) {
        let (mut verified, mut updated) = (BTreeMap::new(), BTreeSet::new());
        let mut rollbacks: BTreeMap<&str, &str> = BTreeMap::new();
        for (entry, deployment) in self.happened() {
            match entry.what.as_str() {
                "service_updated" => {
                    updated.insert(&deployment.id);
                }
                "verified" => {
                    let releases: &mut BTreeSet<_> = verified.entry(&deployment.place).or_default();
                    releases.insert(&deployment.release);
                }
                "rollback_opened" => {
                    let rollback = entry.detail["rollback"].as_str().unwrap_or_default();
                    rollbacks.insert(&entry.subject, rollback);
                }
                // A rollback that fails ends so, and what it was to take back as `rollback_failed`.
                "failed" if updated.contains(&deployment.id) && !deployment.is_rollback() => {
                    let before = verified.get(&deployment.place);
                    let mut others = before.into_iter().flatten();
                    if others.any(|release| **release != deployment.release) {
                        found.push(format!(
                            "I13: {} failed in {} and was not taken back: {:?}",
                            deployment.id, deployment.place, deployment.state
                        ));
                    }
                }
                "rolled_back" => {
                    let rollback = rollbacks.get(entry.subject.as_str());
                    let rollback = rollback.and_then(|id| self.deployment(id));
                    if rollback.is_some_and(|it| it.state.word() != "deployed") {
                        found.push(format!(
                            "I13: {} is rolled back by {rollback:?}",
                            deployment.id
                        ));
                    }
                }
                _ => {}
            }
        }
    }

    /// I11, by the sandbox's log of calls that changed something.
    fn calls_once(&self, calls: &[Value], found: &mut Violations) {
        let (mut revisions, mut updates) = (BTreeMap::new(), BTreeMap::new());
        let mut tasks = BTreeMap::new();
        for call in calls.iter().filter(|call| call["effective"] == true) {
            let request = &call["request"];
            let word = |member: &str| request[member].as_str().unwrap_or_default().to_owned();
            match call["operation"].as_str() {
                Some("RegisterTaskDefinition") => {
                    let mut tags = request["tags"].as_array().into_iter().flatten();
                    let ours = tags.find(|tag| tag["key"] == "roadstead:deployment");
                    if let Some(id) = ours.and_then(|tag| tag["value"].as_str()) {
                        *revisions.entry((id, word("family"))).or_insert(0) += 1;
                    }
                }
                Some("UpdateService") => {
                    let to = (word("cluster"), word("taskDefinition"));
                    *updates.entry(to).or_insert(0_usize) += 1;
                }
                Some("RunTask") => *tasks.entry(word("startedBy")).or_insert(0) += 1,
                _ => {}
            }
        }
        let twice = |times: &i32| *times > 1;
        for (of, times) in revisions.iter().filter(|(_, times)| twice(times)) {
            found.push(format!("I11: {times} revisions for {of:?}"));
        }
        for (of, times) in tasks.iter().filter(|(_, times)| twice(times)) {
            found.push(format!("I11: {times} tasks before deployment {of}"));
        }
        let mut wanted: BTreeMap<(String, String), BTreeSet<&str>> = BTreeMap::new();
        for (entry, deployment) in self.happened() {
            if let Some(definition) = entry.detail["task_definition"].as_str() {
                let to = (
                    deployment.place.environment.as_str().to_owned(),
                    definition.to_owned(),
                );
                wanted.entry(to).or_default().insert(&entry.subject);
            }
        }
        for (to, times) in updates {
            let by = wanted.get(&to);
            if times > by.map_or(0, BTreeSet::len) {
                found.push(format!("I11: {times} updates to {to:?} for {by:?}"));
            }
        }
    }
}

/// I6: whatever is not over is worked on, or says what it waits for.
async fn stands(stage: &Stage, found: &mut Violations) {
    let world = stage.store.load_world(&stage.project).await.unwrap();
    let plan = planner::plan(&world, stage.now());
    let mut told: BTreeSet<String> = BTreeSet::new();
    told.extend(plan.effects.iter().map(|it| it.subject().to_owned()));
    told.extend(plan.waiting_on.iter().map(|it| match &it.subject {
        Subject::Run { run } => run.to_string(),
        Subject::Deployment { deployment } => deployment.to_string(),
        Subject::Candidate { release, .. } => release.to_string(),
    }));
    for deployment in stage.deployments().await {
        if deployment.state == DeploymentState::Queued && told.contains(deployment.id.as_str()) {
            continue;
        }
        if !deployment.state.is_over() {
            let waits = &plan.waiting_on;
            found.push(format!("I6: {deployment:?} stays: {waits:?}"));
        }
    }
}

/// I10: both services run the last release, as the rows say, with all their tasks.
async fn arrived(stage: &Stage, last: &ReleaseId, found: &mut Violations) {
    let world = stage.store.load_world(&stage.project).await.unwrap();
    for (place, _) in world.places_in_order() {
        let cluster = place.environment.as_str();
        let asked = json!({"cluster": cluster, "services": ["web"]});
        let described = stage.ecs("DescribeServices", asked).await;
        let service = &described["services"][0];
        let state = world.place(&place);
        let Some(verified) = state.last_verified() else {
            found.push(format!("I6: nothing is verified in {place}"));
            continue;
        };
        if verified.release != *last {
            let there = &verified.release;
            found.push(format!("I6: {last} did not arrive in {place}, {there} did"));
        }
        if service["taskDefinition"] != json!(verified.task_definition)
            || service["runningCount"] != service["desiredCount"]
        {
            found.push(format!("I10: the rows say {verified:?}: {service}"));
        }
    }
}
