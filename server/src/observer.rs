//! Looks at services and stores what was seen.
//!
//! One poller for all projects: services of one cluster are described together. A place where
//! something moves is looked at every second; one that soaks for a gate, often enough for the gate;
//! every other place with a verified release, every thirty seconds. The observer judges nothing and
//! changes nothing but a place's status; a look that fails is stored too, so that pages can say since
//! when a place is out of sight.
//!
//! Of several servers on one database one looks at a time, so AWS is not asked more often for more of
//! them: the turn is a lease, which another server takes when its holder dies.

use crate::adapters::cluster::{Cluster, ServiceAddress};
use crate::adapters::probes::Probes;
use crate::clock::Clock;
use crate::store::{Store, StoreError};
use crate::wake::Bell;
use jiff::SignedDuration;
use roadstead_pipelines::deployment::{Deployment, DeploymentState, Rollout, TakenBackBy};
use roadstead_pipelines::id::{Place, ProjectName, ReleaseId};
use roadstead_pipelines::observation::{PlaceStatus, ServiceSeen};
use roadstead_pipelines::spec::{Gate, HttpProbe};
use roadstead_pipelines::world::{PlaceState, World};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Between two looks at a place where something moves.
const FAST: Duration = Duration::from_secs(1);
/// Between two looks at a place where nothing does.
const SLOW: Duration = Duration::from_secs(30);
/// Between two readings of what there is to look at, however often something happens.
const PACE: Duration = Duration::from_millis(200);
/// A soaking place is looked at so many times within its gate's time.
const LOOKS_PER_SOAK: u32 = 10;

/// The lease of whoever looks, for how long it is taken, and how often it is prolonged. A server that
/// dies is followed by another within these six seconds and one more.
const TURN: &str = "observer";
const TURN_LASTS: Duration = Duration::from_secs(6);
const TURN_PROLONGED: Duration = Duration::from_secs(2);
/// How often a server without the turn asks for it.
const TURN_ASKED: Duration = Duration::from_secs(1);

type Key = (ProjectName, Place);

/// One place that is to be looked at.
#[derive(Debug, Clone)]
struct Look {
    key: Key,
    address: ServiceAddress,
    probes: Vec<HttpProbe>,
    before: Option<PlaceStatus>,
    /// Which release a definition belongs to, as far as the rows know.
    releases: BTreeMap<String, ReleaseId>,
    /// Something moves or soaks here: time alone can change a plan.
    is_watched: bool,
}

/// Looks at services until it is told to stop. Cheap to clone.
#[derive(Clone)]
pub struct Observer {
    store: Store,
    cluster: Cluster,
    probes: Probes,
    bell: Bell,
    clock: Clock,
}

impl Observer {
    /// An observer over these parts.
    #[must_use]
    pub fn new(store: Store, cluster: Cluster, probes: Probes, bell: Bell) -> Self {
        Self {
            store,
            cluster,
            probes,
            bell,
            clock: Clock::default(),
        }
    }

    /// The same by another clock than the system's; when to look is told by real time all the same.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Looks at every place that is due, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut heard = self.bell.listen();
        let mut looked: BTreeMap<Key, Instant> = BTreeMap::new();
        let mut under_way: BTreeSet<Key> = BTreeSet::new();
        let mut looking: JoinSet<Vec<Key>> = JoinSet::new();
        let mut turn = Turn::default();
        let mut due = Instant::now();
        let mut rested = due;
        loop {
            let rest = if turn.is_ours(&self.store).await {
                due = due.max(rested);
                if Instant::now() >= due {
                    let next = self.begin(&mut looked, &mut under_way, &mut looking).await;
                    let now = Instant::now();
                    (due, rested) = (now + next, now + PACE);
                }
                due.saturating_duration_since(Instant::now())
                    .min(TURN_PROLONGED)
            } else {
                // Whoever has the turn knows when it looked.
                looked.clear();
                due = Instant::now();
                TURN_ASKED
            };
            tokio::select! {
                () = stop.cancelled() => {
                    turn.end(&self.store).await;
                    return;
                }
                Some(done) = looking.join_next() => {
                    due = Instant::now();
                    match done {
                        Ok(keys) => keys.iter().for_each(|key| {
                            under_way.remove(key);
                        }),
                        Err(error) => {
                            tracing::error!(%error, "a look broke off");
                            under_way.clear();
                        }
                    }
                }
                rang = heard.wait(rest) => if rang {
                    due = Instant::now();
                }
            }
        }
    }

    /// Begins the looks that are due, a task for each cluster so that a silent one holds up no other.
    /// How long until the next look is due.
    async fn begin(
        &self,
        looked: &mut BTreeMap<Key, Instant>,
        under_way: &mut BTreeSet<Key>,
        looking: &mut JoinSet<Vec<Key>>,
    ) -> Duration {
        let places = match self.places().await {
            Ok(places) => places,
            Err(error) => {
                tracing::warn!(%error, "the places to look at could not be read");
                return FAST;
            }
        };
        let now = Instant::now();
        let mut next = SLOW;
        let mut clusters: BTreeMap<(Option<String>, String), Vec<Look>> = BTreeMap::new();
        for (look, every) in places {
            let since = looked.get(&look.key).map(|at| now.duration_since(*at));
            let wait = since.map_or(Duration::ZERO, |since| every.saturating_sub(since));
            if wait.is_zero() && !under_way.contains(&look.key) {
                looked.insert(look.key.clone(), now);
                under_way.insert(look.key.clone());
                next = next.min(every);
                let cluster = (look.address.region.clone(), look.address.cluster.clone());
                clusters.entry(cluster).or_default().push(look);
            } else {
                next = next.min(wait.max(Duration::from_millis(50)));
            }
        }
        for ((region, cluster), looks) in clusters {
            let observer = self.clone();
            looking.spawn(async move {
                let keys = looks.iter().map(|look| look.key.clone()).collect();
                observer.look(region.as_deref(), &cluster, looks).await;
                keys
            });
        }
        next
    }

    /// Every place that is looked at, and how often.
    async fn places(&self) -> Result<Vec<(Look, Duration)>, StoreError> {
        let mut all = vec![];
        for project in self.store.list_projects().await? {
            let world = self.store.load_world_of_places(&project.name).await?;
            for (place, environment) in world.places_in_order() {
                let state = world.place(&place);
                let Some(every) = interval(&world, &place, &state) else {
                    continue;
                };
                let look = Look {
                    key: (project.name.clone(), place.clone()),
                    address: ServiceAddress::from(&environment.target(&place.service)),
                    probes: environment
                        .verify
                        .iter()
                        .flat_map(|v| v.http.clone())
                        .collect(),
                    releases: releases(&world, &state),
                    before: state.status,
                    is_watched: every < SLOW,
                };
                all.push((look, every));
            }
        }
        Ok(all)
    }

    /// Looks once at every place that is looked at at all, whether it is due or not, one after the other.
    ///
    /// # Errors
    /// When the places cannot be read; what cannot be seen is noted as that.
    pub async fn look_everywhere(&self) -> Result<(), StoreError> {
        for (look, _) in self.places().await? {
            let ServiceAddress {
                region, cluster, ..
            } = look.address.clone();
            self.look(region.as_deref(), &cluster, vec![look]).await;
        }
        Ok(())
    }

    async fn look(&self, region: Option<&str>, cluster: &str, looks: Vec<Look>) {
        let names: BTreeSet<String> = looks.iter().map(|l| l.address.service.clone()).collect();
        let names: Vec<String> = names.into_iter().collect();
        let seen = self.cluster.observe(region, cluster, &names).await;
        let looks = looks.into_iter().filter_map(|look| {
            let seen = seen.get(&look.address.service)?.clone();
            Some(async move {
                let probes = self.probes.ask(&look.probes).await;
                let now = self.clock.now();
                let before = look.before.clone();
                let status = match seen {
                    Ok(seen) => {
                        let release = running(&look, &seen);
                        Some(PlaceStatus::observe(
                            before.as_ref(),
                            seen,
                            probes,
                            release,
                            now,
                        ))
                    }
                    Err(error) => {
                        tracing::warn!(place = %look.key.1, %error, "a place could not be seen");
                        before.map(|before| before.not_seen(error.to_string(), now))
                    }
                };
                if let Some(status) = status {
                    self.save(&look, status).await;
                }
            })
        });
        futures_util::future::join_all(looks).await;
    }

    async fn save(&self, look: &Look, status: PlaceStatus) {
        let says_the_same = look
            .before
            .as_ref()
            .is_some_and(|b| b.says_the_same_as(&status));
        let (project, place) = &look.key;
        let saving =
            self.store
                .save_place_status(project, place.clone(), look.before.clone(), status);
        match saving.await {
            Ok(true) if look.is_watched || !says_the_same => self.bell.ring(),
            Ok(true) => {}
            Ok(false) => tracing::info!(%place, "somebody else has looked meanwhile"),
            Err(error) => tracing::warn!(%place, %error, "what was seen could not be stored"),
        }
    }
}

/// Whether it is this server that looks.
#[derive(Default)]
struct Turn {
    /// When it was taken or prolonged last.
    prolonged: Option<Instant>,
    /// When another server had it.
    refused: Option<Instant>,
}

impl Turn {
    /// Asks the store when it is time to; in between, what it said last holds.
    async fn is_ours(&mut self, store: &Store) -> bool {
        let since = |at: Option<Instant>| at.map(|at| at.elapsed());
        if since(self.prolonged).is_some_and(|since| since < TURN_PROLONGED) {
            return true;
        }
        if since(self.refused).is_some_and(|since| since < TURN_ASKED) {
            return false;
        }
        // Before the store is asked: from then on at the latest the lease lasts.
        let now = Instant::now();
        match store
            .hold(
                TURN,
                SignedDuration::from_secs(TURN_LASTS.as_secs().cast_signed()),
            )
            .await
        {
            Ok(true) => {
                if self.prolonged.is_none() {
                    tracing::debug!("this server looks at services from now on");
                }
                self.prolonged = Some(now);
                self.refused = None;
                true
            }
            Ok(false) => {
                self.prolonged = None;
                self.refused = Some(now);
                false
            }
            Err(error) => {
                tracing::warn!(%error, "whose turn it is to look could not be read");
                since(self.prolonged).is_some_and(|since| since < TURN_LASTS)
            }
        }
    }

    async fn end(&self, store: &Store) {
        if self.prolonged.is_some()
            && let Err(error) = store.let_go(TURN).await
        {
            tracing::debug!(%error, "the turn to look runs out by itself");
        }
    }
}

/// How often to look at a place; `None` when nothing of ours is there.
fn interval(world: &World, place: &Place, state: &PlaceState) -> Option<Duration> {
    if world.live_in(place).any(moves) {
        return Some(FAST);
    }
    if state.verified.is_empty() {
        return None;
    }
    Some(soak(world, place, state).map_or(SLOW, |soak| (soak / LOOKS_PER_SOAK).clamp(FAST, SLOW)))
}

/// ECS works on it, or its health is being proved.
fn moves(deployment: &Deployment) -> bool {
    match &deployment.state {
        DeploymentState::RollingOut { rollout, .. } => match rollout {
            Rollout::Watching { .. } => true,
            Rollout::Registering { .. }
            | Rollout::BeforeDeploy { .. }
            | Rollout::Creating { .. }
            | Rollout::Updating { .. } => false,
        },
        DeploymentState::Verifying { .. } => true,
        DeploymentState::RollingBack { by, .. } => match by {
            TakenBackBy::Ecs { .. } => true,
            TakenBackBy::Deployment { .. } => false,
        },
        DeploymentState::Queued
        | DeploymentState::Deployed { .. }
        | DeploymentState::Failed { .. }
        | DeploymentState::RolledBack { .. }
        | DeploymentState::RollbackFailed { .. }
        | DeploymentState::Superseded { .. }
        | DeploymentState::Cancelled { .. }
        | DeploymentState::TimedOut { .. } => false,
    }
}

/// The shortest time of a gate that the release running here has not soaked for yet.
fn soak(world: &World, place: &Place, state: &PlaceState) -> Option<Duration> {
    let status = state.status.as_ref();
    let soaked = status
        .and_then(|s| s.soaked.get(s.release.as_ref()?))
        .copied()
        .unwrap_or(0);
    let environments = world
        .pipeline
        .iter()
        .flat_map(|pipeline| pipeline.environments.values());
    let gates = environments.flat_map(|environment| &environment.gates);
    let waiting = gates.filter_map(|gate| match gate {
        Gate::Healthy {
            environment, soak, ..
        } => (*environment == place.environment && soak.0 > soaked).then_some(soak.0),
        Gate::Approval { .. } => None,
    });
    waiting.min().map(Duration::from_secs)
}

/// Which release each known definition of a place belongs to.
fn releases(world: &World, state: &PlaceState) -> BTreeMap<String, ReleaseId> {
    let verified = state
        .verified
        .iter()
        .map(|v| (v.task_definition.clone(), v.release.clone()));
    let live = world.deployments.values().filter_map(|deployment| {
        let definition = match &deployment.state {
            DeploymentState::RollingOut {
                rollout:
                    Rollout::Updating { task_definition }
                    | Rollout::Creating { task_definition }
                    | Rollout::Watching {
                        task_definition, ..
                    },
                ..
            }
            | DeploymentState::Verifying {
                task_definition, ..
            }
            | DeploymentState::Deployed {
                task_definition, ..
            } => task_definition,
            DeploymentState::RollingOut {
                rollout: Rollout::Registering { .. } | Rollout::BeforeDeploy { .. },
                ..
            }
            | DeploymentState::Queued
            | DeploymentState::RollingBack { .. }
            | DeploymentState::Failed { .. }
            | DeploymentState::RolledBack { .. }
            | DeploymentState::RollbackFailed { .. }
            | DeploymentState::Superseded { .. }
            | DeploymentState::Cancelled { .. }
            | DeploymentState::TimedOut { .. } => return None,
        };
        Some((definition.clone(), deployment.release.clone()))
    });
    live.chain(verified).collect()
}

/// The release that the service's PRIMARY deployment runs. A definition whose deployment failed is in
/// no row any more, but the look before may have known it.
fn running(look: &Look, seen: &ServiceSeen) -> Option<ReleaseId> {
    let of = |seen: &ServiceSeen| {
        let primary = seen.primary();
        primary
            .map_or(&seen.task_definition, |p| &p.task_definition)
            .clone()
    };
    let definition = of(seen);
    let known = look.releases.get(&definition).cloned();
    known.or_else(|| {
        let before = look.before.as_ref()?;
        before
            .release
            .clone()
            .filter(|_| of(&before.service) == definition)
    })
}
