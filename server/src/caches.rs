//! Bytes of caches: beside the artifacts and in the same form, one file or object each.
//!
//! In a folder a cache is the file `caches/<project>/<id>`, in a bucket the object of that name. Ids are made here and
//! are used once, so bytes never change under a name; rows tell what they are. No run's id is `caches`, so nothing here
//! is taken for a log, and a backup leaves them out: what is missing is made again. Knows nothing of rows or HTTP.

use crate::artifacts::{ArtifactError, ArtifactStore, Incoming, names_a_folder};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use std::io;

/// Their folder beside the logs.
pub(crate) const FOLDER: &str = "caches";

/// All caches.
#[derive(Debug, Clone)]
pub struct CacheStore(ArtifactStore);

impl CacheStore {
    /// Where artifacts are.
    #[must_use]
    pub(crate) fn beside(artifacts: ArtifactStore) -> Self {
        Self(artifacts)
    }

    /// An id that nothing has.
    #[must_use]
    pub fn new_id() -> String {
        hex::encode(rand::random::<[u8; 16]>())
    }

    /// Begins to take a cache's bytes. Dropped, it leaves nothing.
    ///
    /// # Errors
    /// When no file can be made.
    pub async fn take(&self, project: &str, id: &str) -> Result<Incoming, ArtifactError> {
        self.0.take_at(path_of(project, id)?).await
    }

    /// A cache's bytes, of which there are `length`; `None` when they are gone. Whoever reads a file reads it to its
    /// end though it is removed meanwhile; an object that is removed breaks off.
    ///
    /// # Errors
    /// When that cannot be told.
    pub async fn read(
        &self,
        project: &str,
        id: &str,
        length: u64,
    ) -> Result<Option<BoxStream<'static, io::Result<Bytes>>>, ArtifactError> {
        let path = path_of(project, id)?;
        if !self.0.has_at(&path).await? {
            return Ok(None);
        }
        match self.0.read_at(path, length).await {
            Err(ArtifactError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// Removes caches. Of some that are not there nothing is said.
    ///
    /// # Errors
    /// Some may be gone then.
    pub async fn remove(&self, project: &str, ids: &[String]) -> Result<(), ArtifactError> {
        let paths: Result<Vec<_>, _> = ids.iter().map(|id| path_of(project, id)).collect();
        self.0.remove_at(paths?).await
    }
}

fn path_of(project: &str, id: &str) -> Result<String, ArtifactError> {
    names_a_folder(project)?;
    names_a_folder(id)?;
    Ok(format!("{FOLDER}/{project}/{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt;

    async fn all(store: &CacheStore, project: &str, id: &str) -> Option<Vec<u8>> {
        let read = store.read(project, id, 5).await.unwrap()?;
        let pieces: Vec<Bytes> = read.try_collect().await.unwrap();
        Some(pieces.concat())
    }

    #[tokio::test]
    async fn what_is_read_is_not_torn_when_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let store = CacheStore::beside(ArtifactStore::in_folder(folder.path()));
        let id = CacheStore::new_id();
        let incoming = store.take("shop", &id).await.unwrap();
        let incoming = incoming.write(Bytes::from_static(b"hello")).await.unwrap();
        assert_eq!(all(&store, "shop", &id).await, None, "it is not whole");
        incoming.keep().await.unwrap();
        assert_eq!(all(&store, "shop", &id).await.unwrap(), b"hello");
        assert_eq!(all(&store, "other", &id).await, None);
        let read = store.read("shop", &id, 5).await.unwrap().unwrap();
        for _ in 0..2 {
            let ids = [id.clone()];
            store.remove("shop", &ids).await.unwrap();
        }
        let pieces: Vec<Bytes> = read.try_collect().await.unwrap();
        assert_eq!(pieces.concat(), b"hello");
        assert_eq!(all(&store, "shop", &id).await, None);
        for (project, id) in [("..", "x"), ("shop", "../x"), ("shop", ""), ("a/b", "x")] {
            assert!(store.take(project, id).await.is_err(), "{project} {id}");
        }
    }
}
