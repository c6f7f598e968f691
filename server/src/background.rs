//! Threads for what nobody waits for: planning, effects, retention.
//!
//! They give way to those that answer somebody when there are not enough processors for both. What is late there
//! is late a little; a forge that is not answered in time forgets its push.

use rustix::process::{getpriority_process, setpriority_process};
use std::future::Future;
use std::io;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// Their niceness above that of the process: the kernel then gives a thread about a tenth of what it gives one
/// that answers (`sched(7)`), and all that is left.
const NICER: i32 = 10;
/// Threads that wait for the disk, git or a database at most.
const BLOCKING: usize = 64;

/// The threads. Ends them when it is dropped, without waiting for what they do.
pub(crate) struct Background {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Background {
    /// Starts as many threads as there are processors.
    ///
    /// # Errors
    /// When the system gives none.
    pub(crate) fn start() -> io::Result<Self> {
        let urgency = getpriority_process(None)?;
        let runtime = Builder::new_multi_thread()
            .thread_name("background")
            .max_blocking_threads(BLOCKING)
            .enable_all()
            .on_thread_start(move || {
                // On Linux of this thread alone, which begins with that of the thread that starts it. Where it is
                // not allowed all threads are equal.
                if let Err(error) = setpriority_process(None, urgency + NICER) {
                    tracing::warn!("a background thread is as urgent as any: {error}");
                }
            })
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Runs a task there.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.handle.spawn(task)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Waiting is not allowed among tasks, and what is under way may be left at any point.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_threads_give_way_and_those_that_answer_do_not() {
        let niceness = || getpriority_process(None).unwrap();
        let own = niceness();
        let background = Background::start().unwrap();
        let found = background.spawn(async move {
            let blocking = tokio::task::spawn_blocking(niceness).await.unwrap();
            (niceness(), blocking)
        });
        let nicer = (own + NICER).min(19);
        assert_eq!(found.await.unwrap(), (nicer, nicer));
        assert_eq!(niceness(), own);
    }
}
