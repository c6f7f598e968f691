//! The one writer of SQLite: a thread that takes every closure waiting for it into one transaction,
//! so that many callers share one sync to disk.
//!
//! What somebody waits for comes first. What only follows from it gets a small share of each transaction meanwhile, so that
//! it goes on, and all of one when nothing else is there.
//!
//! Each closure has a savepoint of its own: its error or panic undoes its own rows and leaves the
//! others. When the commit fails, every closure of the batch fails.

use super::checkpoint::Checkpoints;
use super::conn::{Access, Address, AnyConnection};
use super::{Result, StoreError, Urgency};
use std::collections::VecDeque;
use std::sync::mpsc::{self, RecvTimeoutError};
use tokio::sync::oneshot;

/// Closures in one transaction at most: bounds how long the first one waits for the last.
const LARGEST_BATCH: usize = 256;
/// To so many that somebody waits for comes one that nobody does.
const ASKED_TO_ONE: usize = 8;

/// Work with its type erased: run in a savepoint, answered after the commit.
trait Job: Send {
    /// The outer `Err` says that the batch is lost.
    fn run(&mut self, connection: &mut AnyConnection) -> Result<()>;
    fn answer(self: Box<Self>, committed: Result<(), &str>);
}

struct Typed<T, F> {
    work: Option<F>,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Job for Typed<T, F>
where
    T: Send,
    F: FnOnce(&mut AnyConnection) -> Result<T> + Send,
{
    fn run(&mut self, connection: &mut AnyConnection) -> Result<()> {
        if let Some(work) = self.work.take() {
            self.result = Some(connection.in_savepoint(work)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), &str>) {
        let result = match (committed, self.result) {
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(StoreError::unavailable("the work was not begun")),
            (Err(reason), _) => Err(StoreError::unavailable(reason)),
        };
        // A caller that went away does not hear of it; the rows are there all the same.
        let _ = self.reply.send(result);
    }
}

/// The way to the writer thread. When the last one is dropped, the thread ends.
pub(super) struct Writer(mpsc::Sender<Sent>);

type Sent = (Urgency, Box<dyn Job>);

impl Writer {
    /// Starts the thread on a connection.
    pub(super) fn start(address: Address, connection: AnyConnection) -> Result<Self> {
        let (sender, jobs) = mpsc::channel();
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || serve(&address, connection, &jobs))
            .map_err(|error| StoreError::unavailable(format!("no writer thread: {error}")))?;
        Ok(Self(sender))
    }

    /// Runs `work` in the next transaction and answers once it is committed.
    pub(super) async fn run<T, F>(&self, urgency: Urgency, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut AnyConnection) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Typed {
            work: Some(work),
            result: None,
            reply,
        };
        let gone = || StoreError::unavailable("the writer has stopped");
        self.0.send((urgency, Box::new(job))).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// What was sent and is not in a transaction yet.
#[derive(Default)]
struct Waiting {
    asked: VecDeque<Box<dyn Job>>,
    follows: VecDeque<Box<dyn Job>>,
}

impl Waiting {
    fn take(&mut self, (urgency, job): Sent) {
        match urgency {
            Urgency::Asked => self.asked.push_back(job),
            Urgency::Follows => self.follows.push_back(job),
        }
    }

    fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.follows.is_empty()
    }

    /// What goes into the next transaction.
    fn batch(&mut self) -> Vec<Box<dyn Job>> {
        let share = if self.asked.is_empty() {
            LARGEST_BATCH
        } else {
            self.asked.len().min(LARGEST_BATCH) / ASKED_TO_ONE + 1
        };
        let follows = share.min(self.follows.len());
        let asked = (LARGEST_BATCH - follows).min(self.asked.len());
        let batch = self.asked.drain(..asked);
        batch.chain(self.follows.drain(..follows)).collect()
    }
}

fn serve(address: &Address, first: AnyConnection, jobs: &mpsc::Receiver<Sent>) {
    let mut connection = Some(first);
    let mut checkpoints = Checkpoints::of(address);
    let mut waiting = Waiting::default();
    loop {
        let next = match checkpoints.rest() {
            _ if !waiting.is_empty() => jobs.try_recv().map_err(|_| RecvTimeoutError::Timeout),
            None => jobs.recv().map_err(RecvTimeoutError::from),
            Some(rest) => jobs.recv_timeout(rest),
        };
        match next {
            Ok(sent) => waiting.take(sent),
            Err(_) if !waiting.is_empty() => {}
            Err(RecvTimeoutError::Timeout) => {
                if let Some(connection) = &mut connection {
                    checkpoints.take_back(connection, true);
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        jobs.try_iter().for_each(|sent| waiting.take(sent));
        let mut batch = waiting.batch();
        let outcome = match &mut connection {
            Some(connection) => run_batch(connection, &mut batch),
            None => Err(StoreError::unavailable("no connection")),
        };
        let reason = outcome.err().map(|error| error.to_string());
        if let Some(reason) = &reason {
            tracing::error!("{} writes failed together: {reason}", batch.len());
        }
        for job in batch {
            job.answer(reason.as_deref().map_or(Ok(()), Err));
        }
        if connection.as_mut().is_none_or(AnyConnection::is_broken) {
            connection = AnyConnection::connect(address, Access::Write)
                .inspect_err(|error| tracing::error!("the writer has no connection: {error}"))
                .ok();
        }
        // Those of this batch have their answer already.
        if let Some(connection) = &mut connection {
            checkpoints.take_back(connection, false);
        }
    }
}

fn run_batch(connection: &mut AnyConnection, batch: &mut [Box<dyn Job>]) -> Result<()> {
    connection.begin_batch()?;
    for job in batch {
        if let Err(error) = job.run(connection) {
            // The savepoint could not be closed: what else is in the transaction is not to be
            // trusted. Twice, because the savepoint may still be open.
            connection.roll_back();
            if connection.is_broken() {
                connection.roll_back();
            }
            return Err(error);
        }
    }
    connection.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Numbered;

    impl Job for Numbered {
        fn run(&mut self, _: &mut AnyConnection) -> Result<()> {
            Ok(())
        }

        fn answer(self: Box<Self>, _: Result<(), &str>) {}
    }

    fn waiting(asked: usize, follows: usize) -> Waiting {
        let mut waiting = Waiting::default();
        for (urgency, count) in [(Urgency::Asked, asked), (Urgency::Follows, follows)] {
            (0..count).for_each(|_| waiting.take((urgency, Box::new(Numbered))));
        }
        waiting
    }

    /// What is left of each after one transaction.
    fn left(asked: usize, follows: usize) -> (usize, usize) {
        let mut waiting = waiting(asked, follows);
        let batch = waiting.batch().len();
        let (asked_left, follows_left) = (waiting.asked.len(), waiting.follows.len());
        assert_eq!(batch, asked + follows - asked_left - follows_left);
        (asked_left, follows_left)
    }

    #[test]
    fn what_somebody_waits_for_comes_first_and_the_rest_goes_on() {
        assert_eq!(left(0, 400), (0, 144));
        assert_eq!(left(1, 400), (0, 399));
        assert_eq!(left(16, 400), (0, 397));
        assert_eq!(left(400, 400), (177, 367));
        assert_eq!(left(400, 10), (154, 0));
        assert_eq!(left(3, 1), (0, 0));
    }
}
