//! Who may take files of logs away, across processes: a backup that reads them keeps everybody from it.

use crate::private;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Keeps files of logs from being taken away for as long as it lives; many backups may hold it at once.
pub struct Lock(File);

impl Lock {
    fn file(data: &Path) -> io::Result<File> {
        let path = data.join("retention.lock");
        private::file(&path)?;
        File::options().write(true).open(path)
    }

    /// For whoever reads logs; waits for a batch of retention.
    ///
    /// # Errors
    /// When the data folder cannot be written to.
    pub fn shared(data: &Path) -> io::Result<Self> {
        let file = Self::file(data)?;
        file.lock_shared()?;
        Ok(Self(file))
    }

    /// For whoever takes logs away; `None` while somebody reads them.
    ///
    /// # Errors
    /// When the data folder cannot be written to.
    pub fn exclusive(data: &Path) -> io::Result<Option<Self>> {
        let file = Self::file(data)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file lets go of it too; said for those who read this.
        let _ = self.0.unlock();
    }
}
