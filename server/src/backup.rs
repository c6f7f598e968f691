//! Copies of what is not to be lost, while the server runs, and their way back.
//!
//! A backup is a folder: `roadstead.db` (with the embedded database), `logs/`, `backup.json` that says of
//! what and when, and `SHA256SUMS` over all of these, as `sha256sum --check` reads it. It is made under
//! another name and gets its own when it is whole, so a backup that is there is whole. One whose name ends
//! in `.tar` is that folder as one file.
//!
//! The order matters. The database is copied first, as of one moment; logs only grow, so whatever that
//! moment knew of them is in the copy that follows. A seal is copied before its log: a log that was sealed
//! by then does not grow any more. The one thing that takes logs away, retention, waits for [`Lock`].
//!
//! Mirrors are not copied: they are fetched again. Nor are logs in a bucket, which has copies of its own, as a
//! PostgreSQL database has; a backup names the bucket. Knows nothing of HTTP, runs or the planner.

use crate::caches;
use crate::config::Config;
use crate::logs::{self, Lock};
use crate::private;
use crate::store::backup as database;
use crate::store::backup::Place;
use anyhow::{Context, bail, ensure};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

const DATABASE: &str = "roadstead.db";
/// Where logs are in a backup, wherever they were.
const FOLDER: &str = "logs";
const ABOUT: &str = "backup.json";
const SUMS: &str = "SHA256SUMS";
/// The form of backups that this version writes and reads.
const FORM: u32 = 1;

/// Which database a backup is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Database {
    /// The embedded one; its copy is in the backup.
    Sqlite,
    /// One with backups of its own: it is not in this one.
    Postgres,
}

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    form: u32,
    /// The version that made it.
    pub version: String,
    /// When it was begun: whatever was acknowledged before is in it.
    pub begun_at: Timestamp,
    /// Which database.
    pub database: Database,
    /// The bucket of the logs; none when they are in this backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs_in: Option<String>,
    /// Files of logs.
    pub log_files: u64,
    /// Bytes in all.
    pub bytes: u64,
}

/// SHA-256 by path below the backup.
type Sums = BTreeMap<String, String>;

/// Makes a backup. Blocks.
///
/// # Errors
/// When something is at `to` already, a file cannot be read or written, or the disk is full. Nothing is
/// left at `to` then.
pub fn take(config: &Config, to: &Path) -> anyhow::Result<About> {
    ensure!(!to.exists(), "{} is there already", to.display());
    let begun_at = crate::clock::now();
    let logs = config.logs_folder();
    let _lock = match config.logs.s3 {
        Some(_) => None,
        None => {
            let lock = private::folder(&logs).and_then(|()| Lock::shared(&logs));
            let lock =
                lock.with_context(|| format!("cannot use the logs' folder {}", logs.display()));
            Some(lock?)
        }
    };
    let folder = partial(to)?;
    let made = fill(config, &folder, begun_at).and_then(|about| {
        if is_one_file(to) {
            pack(&folder, to).with_context(|| format!("cannot make {}", to.display()))?;
        } else {
            fs::rename(&folder, to).with_context(|| format!("cannot name {}", to.display()))?;
        }
        sync_folder(parent(to))?;
        Ok(about)
    });
    // Otherwise what is left says by its name that it is no backup.
    let _ = fs::remove_dir_all(&folder);
    made
}

fn is_one_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tar")
}

/// The folder as one file, which is there whole or not at all.
fn pack(folder: &Path, to: &Path) -> io::Result<()> {
    let file = tempfile::Builder::new()
        .prefix(".backup-")
        .suffix(".partial")
        .tempfile_in(parent(to))?;
    let mut archive = tar::Builder::new(file);
    archive.append_dir_all(".", folder)?;
    let file = archive.into_inner()?;
    file.as_file().sync_all()?;
    file.persist_noclobber(to).map_err(|error| error.error)?;
    Ok(())
}

/// A backup as a folder: itself, or unpacked beside it for as long as this lives.
enum Opened {
    Folder(PathBuf),
    Unpacked(tempfile::TempDir),
}

impl Opened {
    fn open(backup: &Path) -> anyhow::Result<Self> {
        if !backup.is_file() {
            return Ok(Self::Folder(backup.to_owned()));
        }
        let unpacked = || -> io::Result<tempfile::TempDir> {
            // A database is too large for where temporary files usually are.
            let folder = tempfile::Builder::new()
                .prefix(".restore-")
                .tempdir_in(parent(backup))?;
            tar::Archive::new(File::open(backup)?).unpack(folder.path())?;
            Ok(folder)
        };
        unpacked()
            .map(Self::Unpacked)
            .with_context(|| format!("cannot unpack {}", backup.display()))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Folder(path) => path,
            Self::Unpacked(folder) => folder.path(),
        }
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// An empty folder beside `to`.
fn partial(to: &Path) -> anyhow::Result<PathBuf> {
    let name = to.file_name().context("the backup needs a name")?;
    let mut name = name.to_os_string();
    name.push(".partial");
    let folder = to.with_file_name(name);
    if folder.exists() {
        // Of a backup that was killed.
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    private::folder(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn fill(config: &Config, folder: &Path, begun_at: Timestamp) -> anyhow::Result<About> {
    let mut sums = Sums::new();
    let mut bytes = 0;
    let database = match database::place_of(&config.store_url())? {
        Place::File(file) => {
            let copy = folder.join(DATABASE);
            database::copy(&file, &copy)?;
            let (length, sum) = sum_of(&copy)?;
            sums.insert(DATABASE.to_owned(), sum);
            bytes += length;
            Database::Sqlite
        }
        Place::Elsewhere => Database::Postgres,
    };
    let all_logs = config.logs_folder();
    private::folder(&folder.join(FOLDER))?;
    let logs_in = config.logs.s3.as_ref().map(ToString::to_string);
    let mut log_files = 0;
    // Seals first.
    for seals in [true, false] {
        let files = match logs_in {
            Some(_) => vec![],
            None => files_below(&all_logs)?,
        };
        for file in files {
            let is_left_out = is_unfinished(&file) || logs::is_lock(&file) || is_cache(&file);
            if is_seal(&file) != seals || is_left_out {
                continue;
            }
            let (length, sum) = copy_file(&all_logs.join(&file), &folder.join(FOLDER).join(&file))?;
            sums.insert(format!("{FOLDER}/{}", text(&file)?), sum);
            bytes += length;
            log_files += 1;
        }
    }
    let about = About {
        form: FORM,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        begun_at,
        database,
        logs_in,
        log_files,
        bytes,
    };
    let told = serde_json::to_string_pretty(&about)? + "\n";
    sums.insert(ABOUT.to_owned(), hex::encode(Sha256::digest(&told)));
    write_synced(&folder.join(ABOUT), &told)?;
    let lines: String = sums
        .iter()
        .map(|(path, sum)| format!("{sum}  {path}\n"))
        .collect();
    write_synced(&folder.join(SUMS), &lines)?;
    sync_folder(folder)?;
    Ok(about)
}

fn is_seal(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "seal")
}

/// What is missing of them is made again.
fn is_cache(path: &Path) -> bool {
    path.starts_with(caches::FOLDER)
}

/// Whoever writes it will give it another name.
fn is_unfinished(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == logs::UNFINISHED)
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))
}

/// Every file below a folder, as paths below it; none when there is no folder.
fn files_below(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = vec![];
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let path = root.join(&folder);
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.with_context(|| format!("cannot read {}", path.display()))?,
        };
        for entry in entries {
            let entry = entry?;
            let below = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                open.push(below);
            } else {
                found.push(below);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Copies a file that may be growing, as far as it is now; gives length and SHA-256.
fn copy_file(from: &Path, to: &Path) -> anyhow::Result<(u64, String)> {
    let copied = || -> io::Result<(u64, String)> {
        private::folder(parent(to))?;
        private::file(to)?;
        let source = File::open(from)?;
        let length = source.metadata()?.len();
        let mut target = File::options().write(true).open(to)?;
        let found = pour(source.take(length), Some(&mut target))?;
        target.sync_data()?;
        Ok(found)
    };
    copied().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn sum_of(path: &Path) -> anyhow::Result<(u64, String)> {
    let read = File::open(path).and_then(|file| pour(file, None));
    read.with_context(|| format!("cannot read {}", path.display()))
}

fn pour(mut source: impl Read, mut target: Option<&mut File>) -> io::Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let mut length = 0;
    let mut piece = vec![0; 1 << 17];
    loop {
        let read = source.read(&mut piece)?;
        if read == 0 {
            return Ok((length, hex::encode(hasher.finalize())));
        }
        let bytes = piece.get(..read).unwrap_or_default();
        hasher.update(bytes);
        if let Some(target) = &mut target {
            target.write_all(bytes)?;
        }
        length += read as u64;
    }
}

fn write_synced(path: &Path, text: &str) -> anyhow::Result<()> {
    let written = || -> io::Result<()> {
        private::file(path)?;
        let mut file = File::options().write(true).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}

fn sync_folder(path: &Path) -> anyhow::Result<()> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("cannot write {}", path.display()))
}

/// Looks whether a backup is whole and sound: every file is there with the bytes of then, sealed logs
/// have their length and checksum, and the database's pages and references fit. Blocks.
///
/// # Errors
/// The first thing that is not so.
pub fn verify(backup: &Path) -> anyhow::Result<About> {
    verify_folder(Opened::open(backup)?.path())
}

fn verify_folder(backup: &Path) -> anyhow::Result<About> {
    let about = fs::read_to_string(backup.join(ABOUT))
        .with_context(|| format!("{} is no backup: it has no {ABOUT}", backup.display()))?;
    let about: About =
        serde_json::from_str(&about).with_context(|| format!("{ABOUT} cannot be read"))?;
    ensure!(
        about.form == FORM,
        "the backup is of another form ({}) than this version reads ({FORM}): use roadstead {}",
        about.form,
        about.version
    );
    let sums = fs::read_to_string(backup.join(SUMS))
        .with_context(|| format!("{} has no {SUMS}", backup.display()))?;
    let mut named = Sums::new();
    for line in sums.lines() {
        let (sum, path) = line
            .split_once("  ")
            .with_context(|| format!("{SUMS} has the line `{line}`"))?;
        named.insert(path.to_owned(), sum.to_owned());
    }
    for file in files_below(backup)? {
        let path = text(&file)?;
        ensure!(
            path == SUMS || named.contains_key(path),
            "{path} is not named in {SUMS}: it was put there later"
        );
    }
    for (path, sum) in &named {
        let (_, found) = sum_of(&backup.join(path))?;
        ensure!(
            *sum == found,
            "{path} was changed: its SHA-256 is not that of {SUMS}"
        );
        if is_seal(Path::new(path)) {
            let holds = logs::holds_its_seal(&backup.join(path));
            let holds = holds.with_context(|| format!("cannot read the log of {path}"))?;
            ensure!(holds, "the log of {path} is not as it was sealed");
        }
    }
    match about.database {
        Database::Sqlite => {
            ensure!(named.contains_key(DATABASE), "{DATABASE} is missing");
            database::check(&backup.join(DATABASE)).context("the database is damaged")?;
        }
        Database::Postgres => {}
    }
    Ok(about)
}

/// Puts a verified backup where a configuration wants it. Blocks.
///
/// # Errors
/// When the backup is not sound, or something is at its place already: nothing is overwritten.
pub fn restore(config: &Config, backup: &Path) -> anyhow::Result<About> {
    let opened = Opened::open(backup)?;
    let backup = opened.path();
    let about = verify_folder(backup)?;
    let target = match (database::place_of(&config.store_url())?, about.database) {
        (Place::File(file), Database::Sqlite) => Some(file),
        (Place::Elsewhere, Database::Postgres) => None,
        (Place::File(_), Database::Postgres) => {
            bail!("the backup is of a server on PostgreSQL, and store.url is an embedded database")
        }
        (Place::Elsewhere, Database::Sqlite) => bail!(
            "the backup is of an embedded database, and store.url is PostgreSQL: restore it beside \
             an embedded one"
        ),
    };
    match (&config.logs.s3, &about.logs_in) {
        (None, None) | (Some(_), Some(_)) => {}
        (Some(s3), None) => bail!(
            "the backup has the logs as files, and `logs.s3` names {s3}: restore it with `logs.folder`"
        ),
        (None, Some(place)) => bail!(
            "the logs of the backup are in {place}, and `logs.s3` is not set: set it as it was"
        ),
    }
    let logs = config.logs_folder();
    let logs = config.logs.s3.is_none().then_some(logs);
    // A write-ahead log that is left of another database would be taken for this one's.
    let beside = |target: &PathBuf| {
        ["", "-wal", "-shm"].map(|end| {
            let mut name = target.as_os_str().to_owned();
            name.push(end);
            PathBuf::from(name)
        })
    };
    let files = target.iter().flat_map(beside);
    for occupied in files.chain(logs.clone()) {
        let empty = fs::read_dir(&occupied).is_ok_and(|mut entries| entries.next().is_none());
        ensure!(
            empty || !occupied.exists(),
            "{} is there already: stop the server and move it away first",
            occupied.display()
        );
    }
    private::folder(&config.data)
        .with_context(|| format!("cannot make the data folder {}", config.data.display()))?;
    // Aside first, so that a restore that is killed leaves nothing that looks like one.
    let aside = partial(&config.data.join("restore"))?;
    for file in files_below(&backup.join(FOLDER))? {
        copy_file(
            &backup.join(FOLDER).join(&file),
            &aside.join(FOLDER).join(&file),
        )?;
    }
    private::folder(&aside.join(FOLDER))?;
    if let Some(logs) = logs {
        if logs.exists() {
            fs::remove_dir(&logs)?;
        }
        fs::rename(aside.join(FOLDER), &logs)
            .with_context(|| format!("cannot make {}", logs.display()))?;
    }
    sync_folder(&config.data)?;
    // The database last: with it the server has something to start from.
    if let Some(target) = target {
        let mut name = target.as_os_str().to_owned();
        name.push(".partial");
        let copy = PathBuf::from(name);
        if copy.exists() {
            fs::remove_file(&copy)?;
        }
        copy_file(&backup.join(DATABASE), &copy)?;
        fs::rename(&copy, &target).with_context(|| format!("cannot make {}", target.display()))?;
        sync_folder(parent(&target))?;
    }
    fs::remove_dir_all(&aside)?;
    Ok(about)
}
