//! Reads one project as a plan needs it, on one snapshot.

use super::codec::{Row, json, micros};
use super::conn::AnyConnection;
use super::lane::{self, Lane};
use super::schema::{approvals, places, runs, users};
use super::{
    Overview, Result, Store, accounts, deployments, groups, projects, releases, runs as run_rows,
};
use diesel::prelude::*;
use roadstead_pipelines::deployment::{DeploymentState, Kind, TakenBackBy};
use roadstead_pipelines::group::{self, Lines};
use roadstead_pipelines::id::{DeploymentId, Place, ProjectName, ReleaseId, RunId};
use roadstead_pipelines::observation::PlaceStatus;
use roadstead_pipelines::planner::MOST_FETCHING;
use roadstead_pipelines::run::{BUILDING, FETCHING, QUEUED, Run, RunState, WAITING_FOR_APPROVAL};
use roadstead_pipelines::spec::{Pipeline, Role};
use roadstead_pipelines::world::{Approval, Hold, PlaceState, World};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// So many of the newest releases are candidates or may be promoted by a button.
pub(super) const NEWEST_RELEASES: u32 = 50;
/// Of so many releases before the oldest one that runs somewhere it is read who made them: one that
/// was built beside others may have been compared with an older one.
const RELEASES_BEFORE: u64 = 100;
/// Of so many releases at most. What lies further back is unknown then, and a gate that asks says so.
const MOST_AUTHORSHIP: i64 = 2_000;

/// Which of a project's runs that are not over are read.
#[derive(Clone, Copy)]
pub(super) enum OpenRuns {
    /// All: pages tell what each of them waits for, and a button may be meant for any.
    All,
    /// Those that a plan can move: neither those that wait for a runner or are with one, or for somebody to let them run,
    /// unless one that was just read takes their place, nor those that wait until older ones have had their sources read. Neither a flood of
    /// pushes nor thousands of jobs under way cost a plan rows then.
    Movable,
    /// None: whoever looks at places has nothing to do with runs.
    Unread,
}

fn open_runs(
    connection: &mut AnyConnection,
    project: &ProjectName,
    which: OpenRuns,
) -> Result<BTreeMap<RunId, Run>> {
    let open = runs::table
        .filter(runs::project.eq(project.as_str()))
        .filter(runs::ended_at.is_null());
    let records: Vec<run_rows::Record> = match which {
        OpenRuns::Unread => return Ok(BTreeMap::new()),
        OpenRuns::All => open.load(connection)?,
        OpenRuns::Movable => {
            let waiting = [FETCHING, QUEUED, BUILDING, WAITING_FOR_APPROVAL];
            let mut movable: Vec<run_rows::Record> =
                open.filter(runs::word.ne_all(waiting)).load(connection)?;
            let first: Vec<run_rows::Record> = open
                .filter(runs::word.eq(FETCHING))
                .order(runs::number)
                .limit(MOST_FETCHING as i64)
                .load(connection)?;
            movable.extend(first);
            // Each is planned for once after its file was read, as it may take the place of others.
            let newest: Vec<run_rows::Record> = open
                .filter(runs::word.eq(WAITING_FOR_APPROVAL))
                .order(runs::number.desc())
                .limit(MOST_FETCHING as i64)
                .load(connection)?;
            movable.extend(newest);
            movable
        }
    };
    let read = |records: Vec<run_rows::Record>| -> Result<BTreeMap<RunId, Run>> {
        let runs = records.into_iter().map(run_rows::Record::read);
        runs.map(|run| run.map(|run| (run.id.clone(), run)))
            .collect()
    };
    let mut found = read(records)?;
    // Every run that is built is planned for once between its file and the queue.
    let just_read = found.values().filter(|run| {
        matches!(
            run.state,
            RunState::Preparing | RunState::WaitingForApproval { .. }
        )
    });
    let superseded: Vec<String> = just_read
        .flat_map(|run| run.supersedes.iter().map(ToString::to_string))
        .collect();
    if !superseded.is_empty() {
        let older = open.filter(runs::word.eq_any([QUEUED, BUILDING, WAITING_FOR_APPROVAL]));
        found.extend(read(
            older.filter(runs::id.eq_any(superseded)).load(connection)?,
        )?);
    }
    Ok(found)
}

/// Reads a project.
pub(super) fn load(
    connection: &mut AnyConnection,
    project: &ProjectName,
    which: OpenRuns,
) -> Result<World> {
    let lane = lane::get(connection, project)?;
    let found_runs = open_runs(connection, project, which)?;
    // Only pages tell what a job waits for.
    let lines = match which {
        OpenRuns::All if found_runs.values().any(group::are_named_by) => {
            groups::lines(connection, project, None)?
        }
        _ => Lines::new(),
    };

    let live = deployments::live(connection, project)?;
    let mentioned: BTreeSet<DeploymentId> = live
        .iter()
        .filter_map(|deployment| match (&deployment.state, &deployment.kind) {
            (
                DeploymentState::RollingBack {
                    by: TakenBackBy::Deployment { rollback },
                    ..
                },
                _,
            ) => Some(rollback.clone()),
            (_, Kind::Rollback { of }) => of.clone(),
            _ => None,
        })
        .collect();
    let mut found_deployments = BTreeMap::new();
    for deployment in deployments::some(connection, &mentioned)?
        .into_iter()
        .chain(live)
    {
        found_deployments.insert(deployment.id.clone(), deployment);
    }

    let found_places = load_places(connection, project)?;
    let wanted: BTreeSet<ReleaseId> = found_deployments
        .values()
        .map(|deployment| &deployment.release)
        .chain(found_places.values().flat_map(|place| {
            place
                .verified
                .iter()
                .map(|verified| &verified.release)
                .chain(
                    place
                        .status
                        .iter()
                        .filter_map(|status| status.release.as_ref()),
                )
        }))
        .cloned()
        .collect();
    let mut found_releases = BTreeMap::new();
    let newest = releases::newest(connection, project, None, NEWEST_RELEASES)?;
    for release in releases::some(connection, &wanted)?
        .into_iter()
        .chain(newest)
    {
        found_releases.insert(release.id.clone(), release);
    }

    let Lane {
        project: name,
        generation,
        next_release,
        next_deployment,
        pipeline,
        ..
    } = lane;
    let row = Row("lane", &name);
    let pipeline: Option<Pipeline> = pipeline
        .map(|text| row.json("pipeline", &text))
        .transpose()?;
    let (authorship, addresses) = if pipeline.as_ref().is_some_and(Pipeline::asks_for_authors) {
        let deployed = found_places
            .values()
            .filter_map(|place| place.last_verified());
        let oldest = deployed.map(|verified| verified.release.number()).min();
        let from = oldest.unwrap_or(0).saturating_sub(RELEASES_BEFORE);
        (
            releases::authorship(connection, project, from, MOST_AUTHORSHIP)?,
            accounts::addresses(connection)?,
        )
    } else {
        <_>::default()
    };
    Ok(World {
        project: project.clone(),
        generations: BTreeMap::from([(project.clone(), generation)]),
        next_release: row.number("next_release", next_release)?,
        next_deployment: row.number("next_deployment", next_deployment)?,
        pipeline,
        runs: found_runs,
        lines,
        releases: found_releases,
        authorship,
        addresses,
        deployments: found_deployments,
        places: found_places,
    })
}

type PlaceRecord = (
    String,
    String,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
);

fn load_places(
    connection: &mut AnyConnection,
    project: &ProjectName,
) -> Result<BTreeMap<Place, PlaceState>> {
    let mut found = BTreeMap::new();
    let records: Vec<PlaceRecord> = places::table
        .filter(places::project.eq(project.as_str()))
        .load(connection)?;
    for (_, environment, service, hold, newest_tried, status) in records {
        let key = format!("{project} {environment}/{service}");
        let row = Row("place", &key);
        let place = Place {
            environment: row.word("environment", &environment)?,
            service: row.word("service", &service)?,
        };
        let state = PlaceState {
            hold: hold.map(|text| row.json("hold", &text)).transpose()?,
            approvals: vec![],
            verified: deployments::verified(connection, project, &place)?,
            newest_tried: newest_tried
                .map(|id| row.word("newest_tried", &id))
                .transpose()?,
            status: status.map(|text| row.json("status", &text)).transpose()?,
        };
        found.insert(place, state);
    }
    let said: Vec<(String, String, String, String, String, String, i64)> = approvals::table
        .filter(approvals::project.eq(project.as_str()))
        .order(approvals::approved_at)
        .load(connection)?;
    let people = approvers(connection, project)?;
    for (_, environment, service, release, by, role, at) in said {
        let key = format!("{project} {environment}/{service} {release} {by}");
        let row = Row("approval", &key);
        let place = Place {
            environment: row.word("environment", &environment)?,
            service: row.word("service", &service)?,
        };
        let mut role: Role = row.word("role", &role)?;
        match people.get(&by) {
            Some((_, true)) => continue,
            Some((now, false)) => role = role.min(*now),
            // Users are never deleted, so only tests approve as nobody.
            None => {}
        }
        let approval = Approval {
            release: row.word("release", &release)?,
            role,
            at: row.time(at)?,
            by,
        };
        found.entry(place).or_default().approvals.push(approval);
    }
    Ok(found)
}

/// Whoever approved something in a project: the role that they have now, and whether they are
/// disabled. An approval is worth no more than the person behind it.
fn approvers(
    connection: &mut AnyConnection,
    project: &ProjectName,
) -> Result<BTreeMap<String, (Role, bool)>> {
    let names = approvals::table
        .filter(approvals::project.eq(project.as_str()))
        .select(approvals::by_whom);
    let found: Vec<(String, String, Option<i64>)> = users::table
        .filter(users::name.eq_any(names))
        .select((users::name, users::role, users::disabled_at))
        .load(connection)?;
    found
        .into_iter()
        .map(|(name, role, disabled_at)| {
            let role = Row("user", &name).word("role", &role)?;
            Ok((name, (role, disabled_at.is_some())))
        })
        .collect()
}

/// One change to a place's row; the lane has to be moved on already.
pub(super) enum PlaceChange<'a> {
    Hold(Option<&'a Hold>),
    /// A forward deployment of this release was opened.
    Tried(&'a ReleaseId),
    /// A rollback was opened.
    Touched,
    Status(&'a PlaceStatus),
}

pub(super) fn change_place(
    connection: &mut AnyConnection,
    project: &ProjectName,
    place: &Place,
    change: &PlaceChange<'_>,
) -> Result<()> {
    let key = (
        project.as_str(),
        place.environment.as_str(),
        place.service.as_str(),
    );
    let known: Option<Option<String>> = places::table
        .find(key)
        .select(places::newest_tried)
        .first(connection)
        .optional()?;
    if known.is_none() {
        diesel::insert_into(places::table)
            .values((
                places::project.eq(project.as_str()),
                places::environment.eq(place.environment.as_str()),
                places::service.eq(place.service.as_str()),
            ))
            .execute(connection)?;
    }
    let row = diesel::update(places::table.find(key));
    match change {
        PlaceChange::Hold(hold) => {
            let hold = hold.map(json).transpose()?;
            row.set(places::hold.eq(hold)).execute(connection)?;
        }
        PlaceChange::Tried(release) => {
            let newest = known
                .flatten()
                .and_then(|id| ReleaseId::parse(&id))
                .map_or(0, |id| id.number());
            if release.number() > newest {
                row.set(places::newest_tried.eq(Some(release.as_str())))
                    .execute(connection)?;
            }
        }
        PlaceChange::Touched => {}
        PlaceChange::Status(status) => {
            row.set(places::status.eq(Some(json(status)?)))
                .execute(connection)?;
        }
    }
    Ok(())
}

/// Stores an approval. One person's counts once: saying it again changes nothing, unless their role
/// has grown since. Gives the role that it was said with before.
pub(super) fn approve(
    connection: &mut AnyConnection,
    project: &ProjectName,
    place: &Place,
    approval: &Approval,
) -> Result<Option<String>> {
    let key = (
        project.as_str(),
        place.environment.as_str(),
        place.service.as_str(),
        approval.release.as_str(),
        approval.by.as_str(),
    );
    let known: Option<String> = approvals::table
        .find(key)
        .select(approvals::role)
        .first(connection)
        .optional()?;
    match known.as_deref().map(Role::parse) {
        None => {
            diesel::insert_into(approvals::table)
                .values((
                    approvals::project.eq(project.as_str()),
                    approvals::environment.eq(place.environment.as_str()),
                    approvals::service.eq(place.service.as_str()),
                    approvals::release.eq(approval.release.as_str()),
                    approvals::by_whom.eq(&approval.by),
                    approvals::role.eq(approval.role.as_str()),
                    approvals::approved_at.eq(micros(approval.at)),
                ))
                .execute(connection)?;
        }
        Some(before) if before < Some(approval.role) => {
            diesel::update(approvals::table.find(key))
                .set((
                    approvals::role.eq(approval.role.as_str()),
                    approvals::approved_at.eq(micros(approval.at)),
                ))
                .execute(connection)?;
        }
        Some(_) => {}
    }
    Ok(known)
}

/// The hold of a place as it is stored; null when there is none.
pub(super) fn hold_of(
    connection: &mut AnyConnection,
    project: &ProjectName,
    place: &Place,
) -> Result<Value> {
    let (environment, service) = (place.environment.as_str(), place.service.as_str());
    let found: Option<Option<String>> = places::table
        .find((project.as_str(), environment, service))
        .select(places::hold)
        .first(connection)
        .optional()?;
    let key = format!("{project} {environment}/{service}");
    let hold = found.flatten();
    hold.map_or(Ok(Value::Null), |text| {
        Row("place", &key).json("hold", &text)
    })
}

/// What the row of a place shows, locked until the transaction ends. What cannot be read any more is
/// as if it were not there.
fn shown(
    connection: &mut AnyConnection,
    project: &ProjectName,
    place: &Place,
) -> Result<Option<PlaceStatus>> {
    let key = (
        project.as_str(),
        place.environment.as_str(),
        place.service.as_str(),
    );
    let row = places::table.find(key).select(places::status);
    let found: Option<Option<String>> = match connection {
        AnyConnection::Sqlite(c) => row.first(c).optional()?,
        AnyConnection::Postgres(c) => row.for_update().first(c).optional()?,
    };
    Ok(found
        .flatten()
        .and_then(|text| serde_json::from_str(&text).ok()))
}

impl Store {
    /// A whole project, with the generation it was read at.
    ///
    /// # Errors
    /// [`super::StoreError::NotFound`]; [`super::StoreError::Data`].
    pub async fn load_world(&self, project: &ProjectName) -> Result<World> {
        let project = project.clone();
        self.read(move |c| load(c, &project, OpenRuns::All)).await
    }

    /// As [`Self::load_world`], without the runs that no plan can move: those that wait for a runner or are with one, for
    /// somebody to let them run, or wait for older ones to have their sources read. A plan made from it has the same changes and effects, but
    /// does not tell what those runs wait for.
    ///
    /// # Errors
    /// [`super::StoreError::NotFound`]; [`super::StoreError::Data`].
    pub async fn load_movable_world(&self, project: &ProjectName) -> Result<World> {
        let project = project.clone();
        self.read(move |c| load(c, &project, OpenRuns::Movable))
            .await
    }

    /// As [`Self::load_world`], without any run: places, deployments and releases alone.
    ///
    /// # Errors
    /// [`super::StoreError::NotFound`]; [`super::StoreError::Data`].
    pub async fn load_world_of_places(&self, project: &ProjectName) -> Result<World> {
        let project = project.clone();
        self.read(move |c| load(c, &project, OpenRuns::Unread))
            .await
    }

    /// Stores what was seen of a place, unless it shows another look than `before`, which this one was
    /// made from: a server that was held up does not write over what another one saw since. The lane
    /// moves on when a plan could come out differently. Tells whether it was stored.
    ///
    /// # Errors
    /// [`super::StoreError::NotFound`] when there is no such project.
    pub async fn save_place_status(
        &self,
        project: &ProjectName,
        place: Place,
        before: Option<PlaceStatus>,
        status: PlaceStatus,
    ) -> Result<bool> {
        let project = project.clone();
        self.write(move |c| {
            // The lane comes before the place, as in every other transaction.
            let same = before
                .as_ref()
                .is_some_and(|it| it.says_the_same_as(&status));
            if !same {
                lane::bump(c, &project)?;
            }
            if shown(c, &project, &place)? != before {
                return Ok(false);
            }
            change_place(c, &project, &place, &PlaceChange::Status(&status))?;
            Ok(true)
        })
        .await
    }

    /// Every project with its world and newest run.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`]; [`super::StoreError::Data`].
    pub async fn overview(&self) -> Result<Vec<Overview>> {
        self.read(|c| {
            projects::all(c)?
                .into_iter()
                .map(|project| {
                    let world = load(c, &project.name, OpenRuns::All)?;
                    let newest_run = run_rows::lines(c, &project.name, None, 1)?.pop();
                    Ok(Overview {
                        world,
                        newest_run,
                        project,
                    })
                })
                .collect()
        })
        .await
    }
}
