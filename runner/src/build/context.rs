//! Streams a build context as a tar archive, as Docker's client makes it.
//!
//! Owns which files go in, their order, modes and times. Files are opened beneath the workspace
//! only: a step can put links there that point anywhere on this machine, even while the context
//! is read, and none of them is followed out. Links travel as links.

use super::dockerignore::DockerIgnore;
use anyhow::{Context, bail};
use bytes::Bytes;
use cap_std::{
    ambient_authority,
    fs::{Dir, MetadataExt},
};
use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
};
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;

/// Every entry's time: 1980-01-01, the earliest that zip files can hold. A fresh checkout has
/// fresh times, and the same files should make the same layers.
const ENTRY_TIME: u64 = 315_532_800;
const CHUNK_BYTES: usize = 128 << 10;
/// Chunks under way between the disk and the engine.
const CHUNKS_UNDER_WAY: usize = 8;

/// A context that was looked at and can be sent.
#[derive(Debug)]
pub(crate) struct BuildContext {
    folder: Dir,
    ignore: DockerIgnore,
    dockerfile: String,
}

impl BuildContext {
    /// Opens `context` below `workspace`; `dockerfile` is relative to the context.
    ///
    /// # Errors
    /// A folder or Dockerfile that is not there or not inside, or a bad `.dockerignore`: messages
    /// are for the person who wrote the pipeline file.
    pub(crate) fn open(workspace: &Path, context: &str, dockerfile: &str) -> anyhow::Result<Self> {
        let root = Dir::open_ambient_dir(workspace, ambient_authority())
            .with_context(|| format!("cannot open the workspace {}", workspace.display()))?;
        let folder = root
            .open_dir(relative(context).as_deref().unwrap_or("."))
            .with_context(|| format!("the context folder `{context}` is not in the repository"))?;
        let Some(dockerfile) = relative(dockerfile) else {
            bail!("`{dockerfile}` names no Dockerfile");
        };
        let file = folder.metadata(&dockerfile).with_context(|| {
            format!("the Dockerfile `{dockerfile}` is not in the context folder `{context}`")
        })?;
        if !file.is_file() {
            bail!("the Dockerfile `{dockerfile}` in the context folder `{context}` is no file");
        }
        // The Dockerfile's own ignore file wins, as with BuildKit in Docker's client.
        let mut ignore = DockerIgnore::default();
        for name in [
            format!("{dockerfile}.dockerignore"),
            ".dockerignore".to_owned(),
        ] {
            match folder.read_to_string(&name) {
                Ok(text) => {
                    ignore = DockerIgnore::parse(&text)?;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("cannot read `{name}`")),
            }
        }
        Ok(Self {
            folder,
            ignore,
            dockerfile,
        })
    }

    /// The Dockerfile's path in the archive.
    pub(crate) fn dockerfile(&self) -> &str {
        &self.dockerfile
    }

    /// Writes the archive.
    pub(crate) fn write(&self, out: impl Write) -> anyhow::Result<()> {
        let mut archive = Archive {
            context: self,
            builder: Builder::new(out),
            unwritten_folders: Vec::new(),
        };
        archive.folder(&self.folder, Path::new(""))?;
        archive.builder.finish()?;
        Ok(())
    }

    /// Writes the archive in a thread of its own; the receiver gets its chunks, or one error.
    pub(crate) fn stream(self) -> mpsc::Receiver<io::Result<Bytes>> {
        let (sender, receiver) = mpsc::channel(CHUNKS_UNDER_WAY);
        tokio::task::spawn_blocking(move || {
            let mut out = io::BufWriter::with_capacity(CHUNK_BYTES, ChannelWriter(sender.clone()));
            let written = self.write(&mut out).and_then(|()| Ok(out.flush()?));
            if let Err(error) = written {
                // Nobody listens any more when the build was stopped.
                let _ = sender.blocking_send(Err(io::Error::other(format!("{error:#}"))));
            }
        });
        receiver
    }
}

/// A path inside a folder, without `.` and doubled slashes; `None` for the folder itself. What
/// leaves the folder is refused when it is opened.
fn relative(path: &str) -> Option<String> {
    let parts: Vec<_> = path
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    (!parts.is_empty()).then(|| parts.join("/"))
}

struct Archive<'a, W: Write> {
    context: &'a BuildContext,
    builder: Builder<W>,
    /// Excluded folders above the present one that get an entry only if something below does.
    unwritten_folders: Vec<(PathBuf, u32)>,
}

impl<W: Write> Archive<'_, W> {
    fn folder(&mut self, folder: &Dir, prefix: &Path) -> anyhow::Result<()> {
        let mut names: Vec<_> = folder
            .entries()?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<io::Result<_>>()
            .with_context(|| format!("cannot list folder `{}`", prefix.display()))?;
        names.sort();
        for name in names {
            let path = prefix.join(&name);
            let read = || format!("cannot read `{}`", path.display());
            let metadata = folder.symlink_metadata(&name).with_context(read)?;
            let text = path.to_string_lossy();
            let excluded = self.context.ignore.excludes(&text);
            if metadata.is_dir() {
                let holds_dockerfile = Path::new(&self.context.dockerfile).starts_with(&path);
                if excluded && !holds_dockerfile && !self.context.ignore.may_except_below(&text) {
                    continue;
                }
                self.unwritten_folders.push((path.clone(), metadata.mode()));
                let depth = self.unwritten_folders.len();
                if !excluded {
                    self.write_folders()?;
                }
                let below = folder.open_dir(&name).with_context(read)?;
                self.folder(&below, &path)?;
                // Still there when nothing below was taken in.
                if self.unwritten_folders.len() == depth {
                    self.unwritten_folders.pop();
                }
            } else if excluded && *text != self.context.dockerfile {
                // The engine needs the Dockerfile even when the image shall not have it.
            } else if metadata.is_symlink() {
                self.write_folders()?;
                let target = folder.read_link_contents(&name).with_context(read)?;
                let mut header = header(EntryType::Symlink, 0o777, 0);
                self.builder
                    .append_link(&mut header, &path, target)
                    .with_context(read)?;
            } else if metadata.is_file() {
                self.write_folders()?;
                let file = folder.open(&name).with_context(read)?;
                let metadata = file.metadata().with_context(read)?;
                let size = metadata.len();
                let mut header = header(EntryType::Regular, metadata.mode(), size);
                let mut content = Counted {
                    inner: file.into_std().take(size),
                    count: 0,
                };
                self.builder
                    .append_data(&mut header, &path, &mut content)
                    .with_context(read)?;
                if content.count != size {
                    bail!("`{}` was written to while it was read", path.display());
                }
            }
            // Sockets, pipes and devices have no place in an image; Docker's client drops them too.
        }
        Ok(())
    }

    fn write_folders(&mut self) -> anyhow::Result<()> {
        for (path, mode) in self.unwritten_folders.drain(..) {
            let mut header = header(EntryType::Directory, mode, 0);
            self.builder.append_data(&mut header, &path, io::empty())?;
        }
        Ok(())
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode & 0o7777);
    header.set_size(size);
    header.set_mtime(ENTRY_TIME);
    // Docker's client gives everything to root as well.
    header.set_uid(0);
    header.set_gid(0);
    header
}

struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count += read as u64;
        Ok(read)
    }
}

struct ChannelWriter(mpsc::Sender<io::Result<Bytes>>);

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the build has ended"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::BTreeMap,
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    fn workspace(files: &[(&str, &str)]) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = place.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        place
    }

    fn archive(place: &Path, context: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        BuildContext::open(place, context, "Dockerfile")
            .unwrap()
            .write(&mut bytes)
            .unwrap();
        bytes
    }

    fn paths(bytes: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap();
        entries
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect()
    }

    #[test]
    fn what_is_ignored_stays_out_and_exceptions_bring_their_folders() {
        let place = workspace(&[
            ("app/Dockerfile", "FROM scratch\n"),
            ("app/.dockerignore", "**\n!src/keep/*.txt\n"),
            ("app/src/keep/a.txt", "a"),
            ("app/src/keep/b.rs", "b"),
            ("app/src/drop/c.txt", "c"),
            ("outside.txt", "o"),
        ]);
        assert_eq!(
            paths(&archive(place.path(), "./app/")),
            ["Dockerfile", "src", "src/keep", "src/keep/a.txt"]
        );
    }

    #[test]
    fn modes_links_and_contents_travel_and_times_do_not() {
        let place = workspace(&[("Dockerfile", "FROM scratch\n"), ("run.sh", "echo\n")]);
        let run = place.path().join("run.sh");
        fs::set_permissions(&run, fs::Permissions::from_mode(0o750)).unwrap();
        symlink("/etc/passwd", place.path().join("link")).unwrap();
        let long = "x".repeat(150);
        fs::write(place.path().join(&long), "long").unwrap();
        let bytes = archive(place.path(), ".");
        let mut seen = BTreeMap::new();
        let mut archive_again = tar::Archive::new(bytes.as_slice());
        for entry in archive_again.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let link = entry
                .link_name()
                .unwrap()
                .map(|link| link.display().to_string());
            assert_eq!(entry.header().mtime().unwrap(), ENTRY_TIME);
            let mode = entry.header().mode().unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            seen.insert(path, (mode, link, text));
        }
        assert_eq!(seen["run.sh"], (0o750, None, "echo\n".to_owned()));
        assert_eq!(seen["link"].1.as_deref(), Some("/etc/passwd"));
        assert_eq!(seen[&long].2, "long");
        fs::File::open(&run)
            .unwrap()
            .set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        assert_eq!(
            bytes,
            archive(place.path(), "."),
            "the same files make the same archive"
        );
    }

    #[test]
    fn a_dockerfile_that_is_ignored_is_still_sent_and_its_own_ignore_file_wins() {
        let place = workspace(&[
            ("Dockerfile", "FROM scratch\n"),
            (".dockerignore", "a\n"),
            ("Dockerfile.dockerignore", "Dockerfile*\n.dockerignore\nb\n"),
            ("a", ""),
            ("b", ""),
        ]);
        assert_eq!(paths(&archive(place.path(), "")), ["Dockerfile", "a"]);
    }

    #[test]
    fn links_out_of_the_workspace_are_not_followed() {
        let outside = workspace(&[("secret/Dockerfile", "FROM scratch\n")]);
        let place = workspace(&[("Dockerfile", "FROM scratch\n")]);
        symlink(outside.path().join("secret"), place.path().join("context")).unwrap();
        for context in ["context", "..", "../x", "/etc"] {
            let error = BuildContext::open(place.path(), context, "Dockerfile").unwrap_err();
            assert!(
                error.to_string().contains("not in the repository"),
                "{context}: {error:#}"
            );
        }
        let linked = outside.path().join("secret/Dockerfile");
        symlink(linked, place.path().join("Other")).unwrap();
        assert!(BuildContext::open(place.path(), ".", "Other").is_err());
        let error = BuildContext::open(place.path(), ".", "Missing").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`Missing` is not in the context"),
            "{error:#}"
        );
    }

    #[tokio::test]
    async fn the_stream_is_the_archive() {
        let place = workspace(&[
            ("Dockerfile", "FROM scratch\n"),
            ("big", &"x".repeat(1 << 20)),
        ]);
        let mut chunks = BuildContext::open(place.path(), ".", "Dockerfile")
            .unwrap()
            .stream();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            bytes.extend(chunk.unwrap());
        }
        assert_eq!(bytes, archive(place.path(), "."));
    }
}
