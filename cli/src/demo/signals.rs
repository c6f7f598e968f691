//! The signals that ask the story to stop. Once they are listened for, they no longer end this process
//! by themselves: whoever listens has to.

use crate::Exit;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both, listened for.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// One that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the system gives no handlers.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
        }
    }
}

impl From<Asked> for Exit {
    /// The status is the one that shells give to what a signal ended.
    fn from(asked: Asked) -> Self {
        let (status, signal) = match asked {
            Asked::Interrupt => (130, "Ctrl-C"),
            Asked::Terminate => (143, "SIGTERM"),
        };
        let message = format!("{signal} ended the story");
        Self { status, message }
    }
}
