//! The bytes of a growing log, once more, in a file without a name: pages and seals read them without asking the
//! bucket for each piece. It is gone with the process, and made anew from the bucket.

use bytes::Bytes;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Clones are of the same file.
#[derive(Debug, Clone)]
pub(super) struct Cache(Arc<File>);

impl Cache {
    /// An empty one on the file system of `folder`.
    pub(super) async fn new(folder: &Path) -> io::Result<Self> {
        let folder = folder.to_owned();
        on_thread(move || {
            let file = tempfile::tempfile_in(folder)?;
            Ok(Self(Arc::new(file)))
        })
        .await
    }

    /// Those bytes, which are there.
    pub(super) async fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let file = Arc::clone(&self.0);
        on_thread(move || {
            let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, range.start)?;
            Ok(bytes)
        })
        .await
    }

    /// Puts bytes there.
    pub(super) async fn write(&self, offset: u64, bytes: Bytes) -> io::Result<()> {
        let file = Arc::clone(&self.0);
        on_thread(move || file.write_all_at(&bytes, offset)).await
    }

    /// Reads the first `length` bytes, one after the other.
    pub(super) fn reader(&self, length: u64) -> impl io::Read + Send + use<> {
        Reader {
            file: Arc::clone(&self.0),
            rest: 0..length,
        }
    }
}

struct Reader {
    file: Arc<File>,
    rest: Range<u64>,
}

impl io::Read for Reader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.rest.end - self.rest.start).unwrap_or(usize::MAX);
        let most = most.min(to.len());
        let read = self.file.read_at(&mut to[..most], self.rest.start)?;
        self.rest.start += read as u64;
        Ok(read)
    }
}

/// Runs what blocks where it may.
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work);
    done.await.map_err(io::Error::other).flatten()
}
