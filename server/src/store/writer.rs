//! The one writer of SQLite: a thread that takes every closure waiting for it into one transaction,
//! so that many callers share one sync to disk.
//!
//! Each closure has a savepoint of its own: its error or panic undoes its own rows and leaves the
//! others. When the commit fails, every closure of the batch fails.

use super::checkpoint::Checkpoints;
use super::conn::{Access, Address, AnyConnection};
use super::{Result, StoreError};
use std::sync::mpsc::{self, RecvTimeoutError};
use tokio::sync::oneshot;

/// Closures in one transaction at most: bounds how long the first one waits for the last.
const LARGEST_BATCH: usize = 256;

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
pub(super) struct Writer(mpsc::Sender<Box<dyn Job>>);

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
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T>
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
        self.0.send(Box::new(job)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn serve(address: &Address, first: AnyConnection, jobs: &mpsc::Receiver<Box<dyn Job>>) {
    let mut connection = Some(first);
    let mut checkpoints = Checkpoints::of(address);
    loop {
        let next = match checkpoints.rest() {
            None => jobs.recv().map_err(RecvTimeoutError::from),
            Some(rest) => jobs.recv_timeout(rest),
        };
        let mut batch = match next {
            Ok(job) => vec![job],
            Err(RecvTimeoutError::Timeout) => {
                if let Some(connection) = &mut connection {
                    checkpoints.take_back(connection, true);
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        batch.extend(jobs.try_iter().take(LARGEST_BATCH - 1));
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
