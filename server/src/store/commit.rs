//! Applies changes to rows, as a whole or not at all.

use super::conn::AnyConnection;
use super::events::{self, Line};
use super::world::{self, OpenRuns, PlaceChange};
use super::{
    Committed, Recorded, Result, Store, StoreError, attempts, audit, deployments, effects, lane,
    pending, releases, runs, starts, statuses,
};
use jiff::Timestamp;
use roadstead_pipelines::action::Refusal;
use roadstead_pipelines::deployment::{Deployment, DeploymentState, Kind};
use roadstead_pipelines::effect::Effect;
use roadstead_pipelines::fact::{Change, RunFact};
use roadstead_pipelines::id::ProjectName;
use roadstead_pipelines::world::World;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A button's decision is made again this often when others keep changing the project. Each time
/// somebody else got through, so only a very busy project comes near.
const MOST_DECISIONS: u32 = 100;

/// Who makes a change, and when.
#[derive(Clone, Copy)]
pub(super) struct By<'a> {
    pub(super) actor: &'a str,
    pub(super) now: Timestamp,
}

/// Applies one change and writes its event. The lane has to be moved on already. A change that does
/// not fit is [`StoreError::Illegal`] before anything is written.
pub(super) fn apply(
    connection: &mut AnyConnection,
    project: &ProjectName,
    change: &Change,
    by: By<'_>,
) -> Result<()> {
    let (before, after) = match change {
        Change::Run { run, fact } => {
            let found = runs::find(connection, run)?;
            let before = found.state.word();
            let next = found.apply(fact, by.now)?;
            runs::save(connection, &found, &next, fact)?;
            pending::follow(connection, &found.state, &next)?;
            statuses::note(connection, &next, by.now)?;
            if let RunFact::SourcesRead(read) = fact {
                starts::note(connection, &next, read, by.now)?;
            }
            attempts::close_other_than_current(connection, &next, by.now)?;
            (json!(before), json!(next.state.word()))
        }
        Change::Deployment { deployment, fact } => {
            let found = deployments::find(connection, deployment)?;
            let before = found.state.word();
            let next = found.apply(fact, by.now)?;
            deployments::save(connection, &next)?;
            (json!(before), json!(next.state.word()))
        }
        Change::MakeRelease { release } => {
            releases::insert(connection, release)?;
            lane::release_taken(connection, project, release.id.number())?;
            (Value::Null, json!("made"))
        }
        Change::OpenDeployment {
            deployment,
            place,
            release,
            kind,
            trigger,
        } => {
            let opened = Deployment {
                id: deployment.clone(),
                place: place.clone(),
                release: release.clone(),
                kind: kind.clone(),
                trigger: trigger.clone(),
                created_at: by.now,
                state: DeploymentState::Queued,
            };
            deployments::insert(connection, &opened)?;
            lane::deployment_taken(connection, project, deployment.number())?;
            let place_change = match kind {
                Kind::Forward => PlaceChange::Tried(release),
                Kind::Rollback { .. } => PlaceChange::Touched,
            };
            world::change_place(connection, project, place, &place_change)?;
            (Value::Null, json!(opened.state.word()))
        }
        Change::SetHold { place, hold } => {
            let before = world::hold_of(connection, project, place)?;
            let change = PlaceChange::Hold(Some(hold));
            world::change_place(connection, project, place, &change)?;
            (before, json!(hold))
        }
        Change::ReleaseHold { place, .. } => {
            let before = world::hold_of(connection, project, place)?;
            world::change_place(connection, project, place, &PlaceChange::Hold(None))?;
            (before, Value::Null)
        }
        Change::Approve { place, approval } => {
            let before = world::approve(connection, project, place, approval)?;
            (json!(before), json!(approval.role))
        }
        Change::AdoptPipeline { pipeline } => {
            let after = super::codec::json(pipeline)?;
            let before = lane::get(connection, project)?.pipeline;
            let digests = (json!(before.as_deref().map(digest)), json!(digest(&after)));
            lane::adopt(connection, project, after)?;
            digests
        }
    };
    let (subject, what, detail) = events::describe(change);
    let line = Line {
        at: by.now,
        project: Some(project),
        subject: &subject,
        actor: by.actor,
        what,
        before,
        after,
        detail: &detail,
    };
    audit::append(connection, &line)
}

/// Names a pipeline file in the history.
fn digest(pipeline: &str) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(pipeline.as_bytes());
    format!("sha256:{}", hex::encode(digest))
}

/// Applies what fits; a late or repeated report that no longer fits is told in an event.
pub(super) fn apply_what_fits(
    connection: &mut AnyConnection,
    project: &ProjectName,
    changes: &[Change],
    by: By<'_>,
) -> Result<()> {
    for change in changes {
        match apply(connection, project, change, by) {
            Err(StoreError::Illegal(illegal)) => {
                let (subject, what, _) = events::describe(change);
                let line = Line {
                    at: by.now,
                    project: Some(project),
                    subject: &subject,
                    actor: by.actor,
                    what: "report_dropped",
                    before: Value::Null,
                    after: Value::Null,
                    detail: &json!({ "fact": what, "reason": illegal.to_string() }),
                };
                audit::append(connection, &line)?;
            }
            other => other?,
        }
    }
    Ok(())
}

impl Store {
    /// Stores a plan's changes, effects that are not stored yet, and one event per change: all of
    /// it when every lane is still at the generation it was read at, otherwise nothing.
    ///
    /// # Errors
    /// [`StoreError::Illegal`] when a change does not fit its row; nothing is stored then.
    pub async fn commit(
        &self,
        project: &ProjectName,
        generations: BTreeMap<ProjectName, i64>,
        changes: Vec<Change>,
        effects: Vec<Effect>,
        actor: &str,
        now: Timestamp,
    ) -> Result<Committed> {
        let (project, actor) = (project.clone(), actor.to_owned());
        self.write(move |c| {
            // In the map's order, so that two commits never wait for each other in a circle. That a
            // lane before a stale one has moved on only makes others plan again.
            for (lane, generation) in &generations {
                if !lane::swap(c, lane, *generation)? {
                    return Ok(Committed::Stale);
                }
            }
            let by = By { actor: &actor, now };
            for change in &changes {
                apply(c, &project, change, by)?;
            }
            effects::store_new(c, &project, &effects, now)?;
            Ok(Committed::Done)
        })
        .await
    }

    /// Loads the project as [`Self::load_movable_world`] does, decides and commits while nobody else can change
    /// it: for a project that keeps changing, so that decisions on it are always stale. On SQLite all other writers wait meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Illegal`] when a change does not fit its row; nothing is stored then.
    pub async fn commit_undisturbed(
        &self,
        project: &ProjectName,
        actor: &str,
        now: Timestamp,
        mut decide: impl FnMut(&World) -> (Vec<Change>, Vec<Effect>) + Send + 'static,
    ) -> Result<()> {
        let (project, actor) = (project.clone(), actor.to_owned());
        self.write(move |c| {
            lane::bump(c, &project)?;
            let (changes, effects) = decide(&world::load(c, &project, OpenRuns::Movable)?);
            let by = By { actor: &actor, now };
            for change in &changes {
                apply(c, &project, change, by)?;
            }
            effects::store_new(c, &project, &effects, now)
        })
        .await
    }

    /// Loads the project, decides, and commits; again when the project changed meanwhile. Buttons
    /// go through here.
    ///
    /// # Errors
    /// [`StoreError::Refused`] with the decision's reason; [`StoreError::Conflict`] when the project
    /// changes faster than decisions are made.
    pub async fn record(
        &self,
        project: &ProjectName,
        actor: &str,
        now: Timestamp,
        mut decide: impl FnMut(&World) -> std::result::Result<Vec<Change>, Refusal>,
    ) -> Result<Recorded> {
        for _ in 0..MOST_DECISIONS {
            let world = self.load_world(project).await?;
            let changes = decide(&world)?;
            let committed = self
                .commit(
                    project,
                    world.generations,
                    changes.clone(),
                    vec![],
                    actor,
                    now,
                )
                .await?;
            if committed == Committed::Done {
                return Ok(Recorded { changes });
            }
        }
        Err(StoreError::conflict(format!(
            "{project} keeps changing; nothing was done, try again"
        )))
    }
}
