//! Small records kept in one JSON file each, replaced as a whole.
//!
//! Invariant: what a caller was told to be stored is on disk (file and directory synced, renamed
//! into place), so a kill or a power cut leaves either the old or the new file. Must not know what
//! the records mean.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::services::AwsError;

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub(crate) struct DiskError {
    path: PathBuf,
    source: io::Error,
}

impl From<DiskError> for AwsError {
    fn from(error: DiskError) -> Self {
        Self::server(format!("The sandbox could not store its state: {error}"))
    }
}

/// One value in one file, read without waiting and changed one change at a time.
pub(crate) struct Records<T> {
    path: PathBuf,
    current: RwLock<Arc<T>>,
    changing: tokio::sync::Mutex<()>,
}

impl<T> Records<T>
where
    T: Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Reads `path`; a file that does not exist is the default value.
    pub(crate) fn open(path: PathBuf) -> Result<Self, DiskError> {
        let value = read_json(&path)?.unwrap_or_default();
        Ok(Self {
            path,
            current: RwLock::new(Arc::new(value)),
            changing: tokio::sync::Mutex::new(()),
        })
    }

    /// The value as last stored.
    pub(crate) fn read(&self) -> Arc<T> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stores the value as `change` leaves it, and only then shows it to readers. When `change` or
    /// the disk refuses, nothing has changed.
    pub(crate) async fn change<R, E>(
        &self,
        change: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<R, E>
    where
        E: From<DiskError>,
    {
        let _turn = self.changing.lock().await;
        let mut value = T::clone(&self.read());
        let answer = change(&mut value)?;
        let value = Arc::new(value);
        let (path, stored) = (self.path.clone(), Arc::clone(&value));
        let written = tokio::task::spawn_blocking(move || write_json(&path, &*stored)).await;
        written.unwrap_or_else(|lost| {
            Err(DiskError {
                path: self.path.clone(),
                source: io::Error::other(lost),
            })
        })?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = value;
        Ok(answer)
    }
}

/// Reads a JSON file; None when there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DiskError> {
    let failed = |source| DiskError {
        path: path.to_owned(),
        source,
    };
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Writes a JSON file, making its directory when needed.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), DiskError> {
    let failed = |source| DiskError {
        path: path.to_owned(),
        source,
    };
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    write_atomically(path, &bytes).map_err(failed)
}

/// Replaces a file's content as a whole.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, |file| file.write_all(bytes))
}

/// Replaces a file's content by what `write` writes, as a whole.
pub(crate) fn replace(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let temporary = path.with_extension(format!("{:016x}.tmp", rand::random::<u64>()));
    let written = File::create_new(&temporary).and_then(|mut file| {
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    });
    if written.is_err() {
        // Best effort: the error that matters is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refused_change_leaves_file_and_readers_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/numbers.json");
        let records = Records::<Vec<u32>>::open(path.clone()).unwrap();
        records
            .change(|numbers| {
                numbers.push(1);
                Ok::<_, AwsError>(())
            })
            .await
            .unwrap();
        let refused = records
            .change(|numbers| {
                numbers.push(2);
                Err::<(), _>(AwsError::client("No", "no"))
            })
            .await;
        assert!(refused.is_err());
        assert_eq!(*records.read(), [1]);
        assert_eq!(*Records::<Vec<u32>>::open(path).unwrap().read(), [1]);
        assert_eq!(
            fs::read_dir(directory.path().join("deep")).unwrap().count(),
            1
        );
    }

    #[test]
    fn a_damaged_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("broken.json");
        fs::write(&path, "{").unwrap();
        let Err(error) = Records::<Vec<u32>>::open(path) else {
            panic!("a damaged file was taken");
        };
        assert!(error.to_string().contains("broken.json"), "{error}");
    }
}
