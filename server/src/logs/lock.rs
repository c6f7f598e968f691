//! Locks of files of logs, across threads, processes and, on a shared file system, machines: the kernel
//! takes them back when their holder dies.
//!
//! One is for all logs: a backup that reads them keeps everybody from taking files away. The others
//! are for one attempt each: whoever changes one of its logs has it.

use crate::private;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// In the folder of all logs.
const OF_ALL: &str = ".retention.lock";
/// In an attempt's folder. No step's name begins with a dot.
const OF_ATTEMPT: &str = ".lock";

/// Whether a file of the logs' folder is a lock, which holds nothing.
pub(crate) fn is_lock(path: &Path) -> bool {
    let name = path.file_name();
    name.is_some_and(|name| name == OF_ALL || name == OF_ATTEMPT)
}

/// A lock, held as long as this lives.
pub struct Lock(File);

impl Lock {
    fn file(path: &Path) -> io::Result<File> {
        private::file(path)?;
        // Both ways: network file systems want a file that is read for a shared lock, and one that is
        // written for the other.
        File::options().read(true).write(true).open(path)
    }

    fn now(file: File) -> io::Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// For whoever reads the logs of this folder, which is there; waits for a batch of retention. Many
    /// may hold it at once.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn shared(logs: &Path) -> io::Result<Self> {
        let file = Self::file(&logs.join(OF_ALL))?;
        file.lock_shared()?;
        Ok(Self(file))
    }

    /// For whoever takes logs away; `None` while somebody reads them.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn exclusive(logs: &Path) -> io::Result<Option<Self>> {
        Self::now(Self::file(&logs.join(OF_ALL))?)
    }

    /// For whoever changes a log in this attempt's folder; `None` while somebody else does.
    pub(super) fn of_attempt(folder: &Path) -> io::Result<Option<Self>> {
        Self::now(Self::file(&folder.join(OF_ATTEMPT))?)
    }

    /// Of any file: what it stands for is done by one at a time. `None` while somebody else does it,
    /// and when the file is gone because it was done.
    pub(super) fn of(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::options().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let lock = Self::now(file)?;
        // It may have gone before it was locked.
        Ok(lock.filter(|_| path.exists()))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file lets go of it too; said for those who read this.
        let _ = self.0.unlock();
    }
}
