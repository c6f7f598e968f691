//! How one log lies on the disk, and how its files change so that a power cut leaves one of the
//! states that are named here.
//!
//! | files | the log |
//! |---|---|
//! | `step.log` | grows |
//! | `step.log`, `step.seal` | is sealed |
//! | `step.log.zst`, `step.seal` | is sealed and compressed |
//! | `step.log.zst`, `step.log`, `step.seal` | as well: the compressor was stopped before it took the raw file away |
//!
//! Beside the logs of an attempt lies `.lock`: whoever makes, lengthens or seals one of them holds it.
//!
//! Knows nothing of runs, watchers or HTTP.

use super::index::LineIndex;
use super::lock::Lock;
use super::packed;
use super::seal::Seal;
use crate::private;
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeekstd::Decoder;

/// A log of at most this many bytes stays as it is: it takes one block of the disk either way.
pub(super) const SMALL: u64 = 4 << 10;
/// Extension of what is being written.
pub(crate) const UNFINISHED: &str = "part";
const CHUNK: usize = 256 << 10;

/// The files of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files {
    raw: PathBuf,
}

/// What is there of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// No file.
    Nothing,
    /// It grows.
    Growing {
        /// The file's number on its file system.
        inode: u64,
        /// Its bytes.
        length: u64,
    },
    /// It is sealed.
    Sealed,
}

impl Found {
    /// Both are of one growing file, whatever its length.
    pub(super) fn is_same_file(self, other: Self) -> bool {
        match (self, other) {
            (Self::Growing { inode, .. }, Self::Growing { inode: other, .. }) => inode == other,
            _ => false,
        }
    }
}

impl Files {
    /// The log whose growing file is `raw`, `….log`.
    pub(super) fn new(raw: PathBuf) -> Self {
        Self { raw }
    }

    fn beside(&self, extension: &str) -> PathBuf {
        self.raw.with_extension(extension)
    }

    fn compressed(&self) -> PathBuf {
        self.beside("log.zst")
    }

    fn seal(&self) -> PathBuf {
        self.beside("seal")
    }

    /// Whether there are any.
    pub(super) fn exist(&self) -> bool {
        self.raw.exists() || self.compressed().exists()
    }

    /// The lock of the attempt's logs, for whoever changes one of them; `None` while somebody else,
    /// here or at another server, has it. The folder is made for it.
    pub(super) fn try_lock(&self) -> io::Result<Option<Lock>> {
        self.make_folder()?;
        Lock::of_attempt(self.folder()?)
    }

    /// What is there now. Opened and not only looked for: a network file system asks its server then.
    pub(super) fn find(&self) -> io::Result<Found> {
        for _ in 0..2 {
            if self.seal().try_exists()? {
                return Ok(Found::Sealed);
            }
            match File::open(&self.raw) {
                Ok(file) => {
                    let found = file.metadata()?;
                    return Ok(Found::Growing {
                        inode: found.ino(),
                        length: found.len(),
                    });
                }
                // Sealed and compressed between the two looks, or not there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Found::Nothing)
    }

    /// Appends bytes where the log ends, at `length`, and returns once they are on the disk. Only under
    /// the lock.
    pub(super) fn append(&self, length: u64, bytes: &[u8]) -> io::Result<Found> {
        let is_new = !self.raw.exists();
        if is_new {
            self.make_folder()?;
            self.sync_folders_above()?;
        }
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.raw)?;
        if let Err(error) = file.write_all(bytes).and_then(|()| file.sync_data()) {
            // What was not acknowledged is not to be shown; if it stays, it is still what was sent.
            let _ = file.set_len(length);
            return Err(error);
        }
        if is_new {
            sync_folder(self.folder()?)?;
        }
        let found = file.metadata()?;
        Ok(Found::Growing {
            inode: found.ino(),
            length: found.len(),
        })
    }

    /// Writes other bytes in the place of those at `offset`, and returns once they are on the disk. Only
    /// under the lock.
    pub(super) fn overwrite(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(&self.raw)?;
        file.write_all_at(bytes, offset)?;
        file.sync_data()
    }

    /// Forgets all bytes of a log that grows: it is another file then, so that no index of the old one
    /// is taken for one of the new. Only under the lock.
    pub(super) fn begin_anew(&self) -> io::Result<()> {
        if self.raw.exists() {
            self.replace(&self.raw, |_| Ok(()))?;
        }
        Ok(())
    }

    /// SHA-256 of the bytes of a log that grows, hexadecimal, and their index: what a seal says is read
    /// from the file, whatever was known of it before.
    pub(super) fn examine(&self) -> io::Result<(String, LineIndex)> {
        let (mut hasher, mut index) = (Sha256::new(), LineIndex::default());
        match File::open(&self.raw) {
            Ok(file) => each_chunk(file, |chunk| {
                hasher.update(chunk);
                index.extend(chunk);
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok((hex::encode(hasher.finalize()), index))
    }

    /// Writes the seal, with the index of lines, so that nobody has to read the log to find a line.
    pub(super) fn write_seal(&self, seal: &Seal, index: &LineIndex) -> io::Result<()> {
        if !self.raw.exists() {
            self.make_folder()?;
            self.sync_folders_above()?;
        }
        let text = seal.text(index);
        self.replace(&self.seal(), |file| file.write_all(text.as_bytes()))
    }

    /// The seal with its index; none for a log that grows.
    pub(super) fn read_seal(&self) -> io::Result<Option<(Seal, LineIndex)>> {
        let text = match fs::read_to_string(self.seal()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let (seal, index) = Seal::read(&text).ok_or_else(|| {
            let message = format!("{} is no seal of a log", self.seal().display());
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
        let index = match index {
            Some(index) => index,
            // Sealed by a version that kept no index: those logs are not compressed.
            None => self.index()?,
        };
        Ok(Some((seal, index)))
    }

    /// Takes the bytes of a log that grows into its index, from those that it has up to `length`.
    pub(super) fn index_on(&self, index: &mut LineIndex, length: u64) -> io::Result<()> {
        let mut file = File::open(&self.raw)?;
        file.seek(SeekFrom::Start(index.bytes()))?;
        let more = file.take(length - index.bytes());
        each_chunk(more, |chunk| index.extend(chunk))
    }

    /// The index of a log that has none stored, from its bytes.
    pub(super) fn index(&self) -> io::Result<LineIndex> {
        let mut index = LineIndex::default();
        match File::open(&self.raw) {
            Ok(file) => each_chunk(file, |chunk| index.extend(chunk))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(index)
    }

    /// The bytes from `offset` on, whatever form they have.
    pub(super) fn read(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        match File::open(&self.raw) {
            Ok(mut file) => {
                file.seek(SeekFrom::Start(offset))?;
                Ok(Box::new(file))
            }
            // The raw file goes after the compressed one has come.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut decoder = decoder(&self.compressed())?;
                decoder
                    .set_offset(offset)
                    .map_err(|error| packed::zstd(&error))?;
                Ok(Box::new(decoder))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a sealed log has the length and the checksum that its seal says; a log that grows has none.
    pub(super) fn hold_their_seal(&self) -> io::Result<bool> {
        let Some((seal, _)) = self.read_seal()? else {
            return Ok(false);
        };
        // A log without a byte has no file.
        let bytes: Box<dyn Read> = match seal.length {
            0 => Box::new(io::empty()),
            _ => self.read(0)?,
        };
        let mut counted = Counted { bytes, count: 0 };
        let sha256 = checksum(&mut counted)?;
        Ok((counted.count, sha256) == (seal.length, seal.sha256))
    }

    /// Writes the compressed form of a sealed log beside the raw one, and reads it back whole; then the raw
    /// one may go, which `true` says. A log that grows, is small or is compressed stays as it is.
    pub(super) fn compress(&self) -> io::Result<bool> {
        let Some((seal, _)) = self.read_seal()? else {
            return Ok(false);
        };
        if seal.length <= SMALL || !self.raw.exists() {
            return Ok(false);
        }
        let target = self.compressed();
        self.replace(&target, |file| packed::pack(File::open(&self.raw)?, file))?;
        if checksum(decoder(&target)?)? != seal.sha256 {
            fs::remove_file(&target)?;
            let message = format!("{} does not hold what was sealed", self.raw.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(true)
    }

    /// Takes the raw file away, once [`Files::compress`] allows it.
    pub(super) fn take_raw_away(&self) -> io::Result<()> {
        fs::remove_file(&self.raw)
    }

    fn folder(&self) -> io::Result<&Path> {
        self.raw
            .parent()
            .ok_or_else(|| io::Error::other("a log has a folder"))
    }

    /// Makes the attempt's folder unless it is there.
    fn make_folder(&self) -> io::Result<()> {
        let folder = self.folder()?;
        if folder.exists() {
            return Ok(());
        }
        private::folder(folder)
    }

    /// Sees to it that the folders above the attempt's know of it: the run's, the one of all logs, and
    /// the one that holds that. Before a log begins, whoever made the folder: who did may not have come
    /// so far.
    fn sync_folders_above(&self) -> io::Result<()> {
        let mut above = self.folder()?.ancestors().skip(1).take(3);
        above.try_for_each(sync_folder)
    }

    /// Makes a file that is there whole or not at all.
    fn replace(
        &self,
        target: &Path,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut name = target.as_os_str().to_owned();
        name.push(".");
        name.push(UNFINISHED);
        let part = PathBuf::from(name);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&part)?;
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&part, target)?;
        sync_folder(self.folder()?)
    }
}

/// Counts what is read.
struct Counted<R> {
    bytes: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(to)?;
        self.count += read as u64;
        Ok(read)
    }
}

fn decoder(path: &Path) -> io::Result<Decoder<'static, File>> {
    packed::unpack(File::open(path)?)
}

/// A new or renamed entry survives a power cut once its folder is synced.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn each_chunk(mut from: impl Read, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(read) => take(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn checksum(from: impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    each_chunk(from, |chunk| hasher.update(chunk))?;
    Ok(hex::encode(hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: u32) -> Vec<u8> {
        let text: String = (0..lines).map(|n| format!("line {n} of a log\n")).collect();
        text.into_bytes()
    }

    /// A log of its own with these bytes.
    fn log(folder: &tempfile::TempDir, bytes: &[u8]) -> (Files, LineIndex) {
        let files = Files::new(folder.path().join("shop.1/1/test.log"));
        files.append(0, bytes).unwrap();
        let mut index = LineIndex::default();
        index.extend(bytes);
        (files, index)
    }

    fn seal(bytes: &[u8]) -> Seal {
        Seal {
            length: bytes.len() as u64,
            sha256: hex::encode(Sha256::digest(bytes)),
            blotted: None,
        }
    }

    fn read(files: &Files, offset: u64) -> Vec<u8> {
        let mut bytes = vec![];
        files.read(offset).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_compressed_log_is_smaller_and_reads_as_before_from_any_byte() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = text(100_000);
        let (files, index) = log(&folder, &bytes);
        assert!(!files.compress().unwrap(), "a log that grows stays");
        files.write_seal(&seal(&bytes), &index).unwrap();
        assert!(files.compress().unwrap());
        files.take_raw_away().unwrap();
        assert!(!files.raw.exists());
        let size = fs::metadata(files.compressed()).unwrap().len();
        assert!(size * 4 < bytes.len() as u64, "{size} of {}", bytes.len());
        for offset in [
            0,
            1,
            262_143,
            262_144,
            262_145,
            bytes.len() - 1,
            bytes.len(),
        ] {
            assert!(
                read(&files, offset as u64) == bytes[offset..],
                "from {offset}"
            );
        }
        let (found, again) = files.read_seal().unwrap().unwrap();
        assert_eq!(found, seal(&bytes));
        assert_eq!(again.lines(), 100_000);
        assert_eq!(again.before(54_321), index.before(54_321));
        assert!(!files.compress().unwrap(), "it is done");
        assert!(files.hold_their_seal().unwrap());
        let mut bytes = fs::read(files.compressed()).unwrap();
        let last = bytes.len() - 30;
        bytes.truncate(last);
        fs::write(files.compressed(), bytes).unwrap();
        assert!(!files.hold_their_seal().is_ok_and(|holds| holds));
    }

    #[test]
    fn what_a_stopped_compressor_left_is_done_again() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = text(10_000);
        let (files, index) = log(&folder, &bytes);
        files.write_seal(&seal(&bytes), &index).unwrap();
        // Stopped while it wrote, and stopped before it took the raw file away.
        fs::write(files.beside("log.zst.part"), b"half").unwrap();
        fs::write(files.compressed(), b"another half").unwrap();
        assert_eq!(read(&files, 0), bytes, "the raw file has the word");
        assert!(files.compress().unwrap());
        files.take_raw_away().unwrap();
        assert_eq!(read(&files, 0), bytes);
        assert!(!files.raw.exists() && !files.beside("log.zst.part").exists());
    }

    #[test]
    fn a_raw_file_that_is_not_what_was_sealed_stays() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = text(10_000);
        let (files, index) = log(&folder, &bytes);
        files.write_seal(&seal(&bytes), &index).unwrap();
        fs::write(&files.raw, text(9_999)).unwrap();
        files.compress().unwrap_err();
        assert!(files.raw.exists() && !files.compressed().exists());
    }

    #[test]
    fn small_logs_stay_and_seals_without_an_index_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = text(3);
        let (files, _) = log(&folder, &bytes);
        let Seal { length, sha256, .. } = seal(&bytes);
        fs::write(files.seal(), format!("{length} {sha256}\n")).unwrap();
        assert!(!files.compress().unwrap());
        let (found, index) = files.read_seal().unwrap().unwrap();
        assert_eq!((found, index.lines()), (seal(&bytes), 3));
        for broken in ["", "12", "x y\n", "4 ab\n1 x\n"] {
            fs::write(files.seal(), broken).unwrap();
            files.read_seal().unwrap_err();
        }
    }
}
