//! The lock of a data directory: one sandbox per directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;

use anyhow::Context;

/// Claims the directory for this process for as long as the file lives; the kernel lets go of it
/// when the process ends in whatever way.
pub(crate) fn lock_directory(directory: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create the data directory {}", directory.display()))?;
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => anyhow::bail!(
            "another sandbox uses the data directory {}: stop it or choose another directory",
            directory.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::lock_directory;

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let first = lock_directory(directory.path()).unwrap();
        let refusal = lock_directory(directory.path()).unwrap_err().to_string();
        assert!(refusal.contains("another sandbox"), "{refusal}");
        drop(first);
        lock_directory(directory.path()).unwrap();
    }
}
