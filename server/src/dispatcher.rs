//! Calls runners from their polls: as many as there are jobs that wait, and those that have something to hear.
//!
//! Owns who waits at this server, and in which order. Were every poll to look at the store for itself
//! whenever something happens, a thousand runners without work would keep the server from everything
//! else; here one look serves all of them. A call is a hint, as a ring of the bell is: whoever is called
//! looks at the store, and whoever is not looks after [`LOOK_AGAIN`]. Who gets a job is the
//! store's claim, and nothing is decided here.

use crate::http::runner_api::version_of;
use crate::store::{JobThatWaits, Result, Store};
use crate::wake::Bell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// A poll that nobody calls looks at the store this often, which is how often its runner's row is written.
pub const LOOK_AGAIN: Duration = Duration::from_secs(roadstead_protocol::HEARTBEAT_SECONDS);
/// Without a ring the dispatcher looks this often: a ring may be lost, and one of another server too.
const INTERVAL: Duration = Duration::from_secs(1);
/// Jobs are read in portions, as long as somebody waits for one, and of so many at most: whoever could do only
/// what waits behind these finds it for itself.
const MOST_JOBS: usize = 512;

/// What a poll does at the moment, and how often the dispatcher had looked when that began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// It looks at the store.
    Looks { since: u64 },
    /// It waits to be called.
    Waits,
    /// It was called, and has not come back with nothing.
    Called { since: u64 },
}

/// What a runner takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Takes {
    /// Steps of this version of the protocol and of those before.
    pub version: u32,
    /// Jobs that ask for some of these labels.
    pub labels: BTreeSet<String>,
}

/// What a job needs of its runner.
struct Needs<'a> {
    version: u32,
    labels: &'a BTreeSet<String>,
}

impl<'a> Needs<'a> {
    fn of(job: &'a JobThatWaits) -> Self {
        Self {
            version: version_of(&job.run, &job.job),
            labels: &job.labels,
        }
    }

    fn are_met_by(&self, takes: &Takes) -> bool {
        self.version <= takes.version && self.labels.is_subset(&takes.labels)
    }
}

struct Waiter {
    runner: String,
    /// None where it would take no job.
    takes: Option<Takes>,
    doing: Doing,
    call: Arc<Notify>,
}

#[derive(Default)]
struct Room {
    /// The polls, in the order in which they came.
    waiters: BTreeMap<u64, Waiter>,
    next: u64,
    /// How often the dispatcher has looked.
    looks: u64,
}

impl Room {
    /// Whether somebody waits to be called.
    fn is_waiting(&self) -> bool {
        let mut waiters = self.waiters.values();
        waiters.any(|it| it.doing == Doing::Waits)
    }

    /// Whether somebody waits for a job.
    fn is_idle(&self) -> bool {
        let mut waiters = self.waiters.values();
        waiters.any(|it| it.doing == Doing::Waits && it.takes.is_some())
    }

    /// What those can do who were called and are on their way.
    fn called(&self) -> Vec<Takes> {
        let called = self.waiters.values();
        called
            .filter(|it| matches!(it.doing, Doing::Called { .. }))
            .filter_map(|it| it.takes.clone())
            .collect()
    }

    /// Calls the first who waits and `fits`.
    fn call_first(&mut self, fits: impl Fn(&Waiter) -> bool) {
        let since = self.looks;
        let mut waiting = self.waiters.values_mut();
        if let Some(waiter) = waiting.find(|it| it.doing == Doing::Waits && fits(it)) {
            waiter.doing = Doing::Called { since };
            waiter.call.notify_one();
        }
    }
}

/// The polls that wait at this server. Cheap to clone.
#[derive(Clone, Default)]
pub struct Waiters(Arc<Shared>);

#[derive(Default)]
struct Shared {
    room: Mutex<Room>,
    /// The dispatcher is to look again.
    again: Notify,
}

impl Shared {
    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A poll's place among those that wait, until it is dropped.
pub struct Place {
    shared: Arc<Shared>,
    number: u64,
    call: Arc<Notify>,
}

impl Waiters {
    /// A poll comes, and looks at the store for itself. It `takes` nothing where its runner has no room.
    #[must_use]
    pub fn join(&self, runner: &str, takes: Option<Takes>) -> Place {
        let call = Arc::new(Notify::new());
        let mut room = self.0.room();
        let number = room.next;
        room.next += 1;
        let waiter = Waiter {
            runner: runner.to_owned(),
            takes,
            doing: Doing::Looks { since: room.looks },
            call: Arc::clone(&call),
        };
        room.waiters.insert(number, waiter);
        drop(room);
        Place {
            shared: Arc::clone(&self.0),
            number,
            call,
        }
    }
}

impl Place {
    /// The poll has looked at the store and found nothing: returns when it is called, or after `at_most`. It is to
    /// look again then, either way.
    pub async fn called(&self, at_most: Duration) {
        {
            let mut room = self.shared.room();
            let looks = room.looks;
            if let Some(waiter) = room.waiters.get_mut(&self.number) {
                // What was committed while it looked may have been passed by.
                let missed = match waiter.doing {
                    Doing::Looks { since } | Doing::Called { since } => since != looks,
                    Doing::Waits => false,
                };
                waiter.doing = Doing::Waits;
                if missed {
                    self.shared.again.notify_one();
                }
            }
        }
        let called = tokio::time::timeout(at_most, self.call.notified()).await;
        if called.is_err() {
            let mut room = self.shared.room();
            let since = room.looks;
            if let Some(waiter) = room.waiters.get_mut(&self.number)
                && waiter.doing == Doing::Waits
            {
                waiter.doing = Doing::Looks { since };
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let gone = self.shared.room().waiters.remove(&self.number);
        // Its client may have left, or it was called for one job and found another.
        if gone.is_some_and(|it| matches!(it.doing, Doing::Called { .. })) {
            self.shared.again.notify_one();
        }
    }
}

/// The loop from jobs to runners.
pub struct Dispatcher {
    /// Rows.
    pub store: Store,
    /// Rung when there may be a job, or something to hear.
    pub bell: Bell,
    /// Who may be called.
    pub waiters: Waiters,
}

impl Dispatcher {
    /// Calls until it is dropped.
    pub async fn run(self) {
        let mut listener = self.bell.listen();
        loop {
            if let Err(error) = self.look().await {
                // Polls that are not called look for themselves.
                tracing::warn!("jobs that wait could not be read, trying again: {error}");
            }
            tokio::select! {
                _ = listener.wait(INTERVAL) => {}
                () = self.waiters.0.again.notified() => {}
            }
        }
    }

    /// Looks once, and calls: for each job somebody who can do it, unless somebody who was called is on their way,
    /// and every runner that has something to hear.
    async fn look(&self) -> Result<()> {
        let shared = &self.waiters.0;
        let mut on_their_way = {
            let mut room = shared.room();
            room.looks = room.looks.wrapping_add(1);
            if !room.is_waiting() {
                return Ok(());
            }
            room.called()
        };
        for runner in self.store.runners_to_call().await? {
            shared.room().call_first(|it| it.runner == runner);
        }
        let mut after = None;
        let mut read = 0;
        while read < MOST_JOBS {
            if !shared.room().is_idle() {
                return Ok(());
            }
            let jobs = self.store.jobs_that_wait(after.take()).await?;
            read += jobs.len();
            let mut room = shared.room();
            for needs in jobs.iter().map(Needs::of) {
                match on_their_way.iter().position(|it| needs.are_met_by(it)) {
                    Some(at) => drop(on_their_way.swap_remove(at)),
                    None => room.call_first(|it| {
                        let takes = it.takes.as_ref();
                        takes.is_some_and(|takes| needs.are_met_by(takes))
                    }),
                }
            }
            match jobs.into_iter().next_back() {
                Some(last) => after = Some((last.run.created_at, last.run.id, last.job)),
                None => return Ok(()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    const FOR_EVER: Duration = Duration::from_secs(3600);

    /// Whether the dispatcher is asked to look again, which it then does.
    fn is_asked(waiters: &Waiters) -> bool {
        waiters.0.again.notified().now_or_never().is_some()
    }

    #[tokio::test]
    async fn a_look_that_passed_a_poll_by_is_asked_for_again() {
        let waiters = Waiters::default();
        let place = waiters.join("runner", Some(Takes::default()));
        let mut waits = Box::pin(place.called(FOR_EVER));
        assert!((&mut waits).now_or_never().is_none());
        assert!(!is_asked(&waiters), "nobody looked meanwhile");
        waiters.0.room().call_first(|_| true);
        assert!((&mut waits).now_or_never().is_some());
        // It looks at the store now, and so does the dispatcher, who sees nobody waiting.
        waiters.0.room().looks += 1;
        assert!(place.called(FOR_EVER).now_or_never().is_none());
        assert!(is_asked(&waiters));
    }

    #[tokio::test]
    async fn whoever_leaves_called_leaves_the_call_to_others() {
        let waiters = Waiters::default();
        let waits = |runner| {
            let place = waiters.join(runner, Some(Takes::default()));
            assert!(place.called(FOR_EVER).now_or_never().is_none());
            place
        };
        let (first, second) = (waits("first"), waits("second"));
        drop(second);
        assert!(!is_asked(&waiters), "it was not called");
        waiters.0.room().call_first(|_| true);
        drop(first);
        assert!(is_asked(&waiters));
    }
}
