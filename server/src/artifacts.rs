//! Bytes of artifacts: what steps leave to be kept, beside the logs and in the same form.
//!
//! In a folder an artifact is the file `artifacts/<run>/<attempt>/<step>/<a sum over its name and bytes>`, in a bucket
//! the object of that name. Its own name, which comes from a runner, names nothing here, and other bytes of the same
//! name are another file. Bytes are taken into a file that nobody sees, become visible whole, and are safe before
//! [`Incoming::keep`] ends. Which artifacts there are is told by rows alone: what a row does not name is never served,
//! and goes with its run's folder.
//!
//! No run's id is `artifacts`, so nothing here is taken for a log; a backup takes it along with the logs. Knows nothing
//! of runs, rows or HTTP.

use crate::adapters::bucket::{Bucket, BucketError};
use crate::logs::UNFINISHED;
use crate::private;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::{NamedTempFile, tempfile_in};

/// Their folder beside the logs.
const FOLDER: &str = "artifacts";
/// Bytes that are read at once for whoever wants an artifact: 256 KiB from a disk.
const PIECE: u64 = 256 << 10;
/// The same from a bucket, where each piece is a call: 4 MiB.
const PIECE_OF_BUCKET: u64 = 4 << 20;

/// Which artifact.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ArtifactKey {
    /// The run's id.
    pub run: String,
    /// The attempt's number.
    pub attempt: u32,
    /// The step's name.
    pub step: String,
    /// Its path in the workspace; anything at all.
    pub name: String,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
}

/// Why an artifact is not stored, or not there.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// A run or step that cannot be a folder's name.
    #[error("`{0}` cannot name a folder of artifacts")]
    Name(String),
    /// The file system.
    #[error("storage of artifacts: {0}")]
    Io(#[from] io::Error),
    /// The bucket.
    #[error("storage of artifacts: {0}")]
    Bucket(#[from] BucketError),
}

/// All artifacts.
#[derive(Debug, Clone)]
pub struct ArtifactStore(Form);

/// Where they are.
#[derive(Debug, Clone)]
enum Form {
    /// Below the logs' folder.
    Folder(PathBuf),
    /// In the logs' bucket; what is on its way is in this folder.
    Bucket(Bucket, PathBuf),
}

impl ArtifactStore {
    /// Below `folder`, which is the logs'.
    #[must_use]
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self(Form::Folder(folder.to_owned()))
    }

    /// In a bucket; what is on its way is in files without a name in `data`.
    #[must_use]
    pub(crate) fn in_bucket(bucket: &Bucket, data: &Path) -> Self {
        Self(Form::Bucket(bucket.clone(), data.to_owned()))
    }

    /// Begins to take an artifact's bytes. Dropped, it leaves nothing.
    ///
    /// # Errors
    /// When no file can be made, or run or step cannot be names of folders.
    pub async fn take(&self, key: ArtifactKey) -> Result<Incoming, ArtifactError> {
        self.take_at(path_of(&key)?).await
    }

    /// The same, of what has this name in the folder or bucket.
    pub(crate) async fn take_at(&self, path: String) -> Result<Incoming, ArtifactError> {
        let form = self.0.clone();
        let file = blocking(move || {
            Ok(match form {
                Form::Folder(root) => {
                    let path = root.join(path);
                    let folder = path.parent().unwrap_or(&root);
                    let new = !folder.exists();
                    private::folder(folder)?;
                    let file = tempfile::Builder::new()
                        .suffix(&format!(".{UNFINISHED}"))
                        .tempfile_in(folder)?;
                    Taken::Folder {
                        file,
                        path,
                        root,
                        new,
                    }
                }
                Form::Bucket(bucket, data) => Taken::Bucket {
                    file: tempfile_in(data)?,
                    name: path,
                    bucket,
                },
            })
        });
        Ok(Incoming {
            taken: file.await?,
            sum: Sha256::new(),
            length: 0,
        })
    }

    /// An artifact's bytes, of which there are `length`. They are read as they are sent, and break off where that
    /// cannot be.
    ///
    /// # Errors
    /// When the file is not there or cannot be read. An object is looked for when the first byte is wanted.
    pub async fn read(
        &self,
        key: &ArtifactKey,
        length: u64,
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, ArtifactError> {
        self.read_at(path_of(key)?, length).await
    }

    /// Whether there is something of this name.
    pub(crate) async fn has_at(&self, path: &str) -> Result<bool, ArtifactError> {
        Ok(match &self.0 {
            Form::Folder(root) => {
                let path = root.join(path);
                blocking(move || path.try_exists()).await?
            }
            Form::Bucket(bucket, _) => bucket.has(path).await?,
        })
    }

    /// Removes what has these names. Of some that are not there nothing is said.
    pub(crate) async fn remove_at(&self, paths: Vec<String>) -> Result<(), ArtifactError> {
        match &self.0 {
            Form::Folder(root) => {
                let root = root.clone();
                let removed = blocking(move || {
                    for path in paths {
                        match std::fs::remove_file(root.join(path)) {
                            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                                return Err(error);
                            }
                            _ => {}
                        }
                    }
                    Ok(())
                });
                Ok(removed.await?)
            }
            Form::Bucket(bucket, _) => {
                if !paths.is_empty() {
                    bucket.remove(paths).await?;
                }
                Ok(())
            }
        }
    }

    /// The bytes of what has this name.
    pub(crate) async fn read_at(
        &self,
        path: String,
        length: u64,
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, ArtifactError> {
        Ok(match &self.0 {
            Form::Folder(root) => {
                let path = root.join(path);
                let file = Arc::new(blocking(move || File::open(path)).await?);
                pieces(length, PIECE, move |range| {
                    let file = Arc::clone(&file);
                    blocking(move || {
                        let mut bytes =
                            vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
                        file.read_exact_at(&mut bytes, range.start)?;
                        Ok(Bytes::from(bytes))
                    })
                })
                .boxed()
            }
            Form::Bucket(bucket, _) => {
                let (bucket, path) = (bucket.clone(), Arc::<str>::from(path));
                pieces(length, PIECE_OF_BUCKET, move |range| {
                    let (bucket, path) = (bucket.clone(), Arc::clone(&path));
                    async move {
                        let read = bucket.range(&path, range).await.map_err(io::Error::other)?;
                        read.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
                    }
                })
                .boxed()
            }
        })
    }

    /// Removes every artifact of a run that is over. Again, or of a run without any, does nothing.
    ///
    /// # Errors
    /// When they cannot be removed; some may be gone then.
    pub async fn remove(&self, run: &str) -> Result<(), ArtifactError> {
        names_a_folder(run)?;
        let folder = format!("{FOLDER}/{run}");
        match &self.0 {
            Form::Folder(root) => {
                let folder = root.join(folder);
                let removed = blocking(move || std::fs::remove_dir_all(folder)).await;
                match removed {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    removed => Ok(removed?),
                }
            }
            Form::Bucket(bucket, _) => {
                let objects = bucket.list(&folder, None, usize::MAX).await?;
                let names: Vec<_> = objects.into_iter().map(|(name, _)| name).collect();
                if !names.is_empty() {
                    bucket.remove(names).await?;
                }
                Ok(())
            }
        }
    }
}

/// Where the bytes go first.
enum Taken {
    Folder {
        file: NamedTempFile,
        path: PathBuf,
        root: PathBuf,
        /// The artifact's folder was made for it.
        new: bool,
    },
    Bucket {
        file: File,
        name: String,
        bucket: Bucket,
    },
}

/// An artifact whose bytes are coming.
pub struct Incoming {
    taken: Taken,
    sum: Sha256,
    length: u64,
}

impl Incoming {
    /// Takes more of its bytes.
    ///
    /// # Errors
    /// When they cannot be written; it has to be begun anew then.
    pub async fn write(mut self, bytes: Bytes) -> Result<Self, ArtifactError> {
        let written = blocking(move || {
            match &mut self.taken {
                Taken::Folder { file, .. } => file.write_all(&bytes)?,
                Taken::Bucket { file, .. } => file.write_all(&bytes)?,
            }
            self.sum.update(&bytes);
            self.length += bytes.len() as u64;
            Ok(self)
        });
        Ok(written.await?)
    }

    /// How many bytes came.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// SHA-256 of what came, hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        hex::encode(self.sum.clone().finalize())
    }

    /// Puts it in its place, whatever was there, and returns once it is safe.
    ///
    /// # Errors
    /// It may be there all the same.
    pub async fn keep(self) -> Result<(), ArtifactError> {
        let length = self.length;
        match self.taken {
            Taken::Folder {
                file,
                path,
                root,
                new,
            } => {
                let kept = blocking(move || {
                    file.as_file().sync_all()?;
                    file.persist(&path).map_err(|error| error.error)?;
                    // The names of new folders are as much as the file's.
                    let folders = path
                        .ancestors()
                        .skip(1)
                        .take(if new { usize::MAX } else { 1 });
                    for folder in folders.take_while(|folder| folder.starts_with(&root)) {
                        File::open(folder)?.sync_all()?;
                    }
                    Ok(())
                });
                Ok(kept.await?)
            }
            Taken::Bucket { file, name, bucket } => {
                bucket.upload(&name, &Arc::new(file), length).await?;
                Ok(())
            }
        }
    }
}

fn path_of(key: &ArtifactKey) -> Result<String, ArtifactError> {
    let ArtifactKey {
        run,
        attempt,
        step,
        name,
        sha256,
    } = key;
    names_a_folder(run)?;
    names_a_folder(step)?;
    let sum = Sha256::new()
        .chain_update(sha256)
        .chain_update([0])
        .chain_update(name);
    let name = hex::encode(sum.finalize());
    Ok(format!("{FOLDER}/{run}/{attempt}/{step}/{name}"))
}

/// Nothing that leads out of the artifacts' folder.
pub(crate) fn names_a_folder(part: &str) -> Result<(), ArtifactError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if part.is_empty() || part.starts_with('.') || !part.bytes().all(plain) {
        return Err(ArtifactError::Name(part.to_owned()));
    }
    Ok(())
}

/// All bytes up to `length`, as `read` gives them, one piece after the other; a reader that waits holds one of them.
fn pieces<F>(
    length: u64,
    most: u64,
    read: impl Fn(Range<u64>) -> F + Send + 'static,
) -> impl stream::Stream<Item = io::Result<Bytes>> + Send
where
    F: Future<Output = io::Result<Bytes>> + Send,
{
    stream::try_unfold((0, read), move |(at, read)| async move {
        if at >= length {
            return Ok(None);
        }
        let end = length.min(at + most);
        let bytes = read(at..end).await?;
        Ok(Some((bytes, (end, read))))
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests;
