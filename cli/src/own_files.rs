//! Files and folders that only their owner reads: secrets, keys of webhooks and logs are in them.

use anyhow::Context;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// For a file that is read.
pub(crate) const READ: u32 = 0o600;
/// For a file that is also run.
pub(crate) const RUN: u32 = 0o700;

/// Makes a folder that only its owner may look into. One that is there already stays as it is.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Writes a file of this mode, in place of one of the same name: it is there whole or not at all,
/// also after a power cut.
///
/// # Errors
/// When the disk is full or the folder cannot be written to. What was there before stays.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let folder = path.parent().context("a file is in a folder")?;
    replace(folder, path, text, mode).with_context(|| format!("cannot write {}", path.display()))
}

fn replace(folder: &Path, path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

/// A secret that is made once and kept in a file of this name.
///
/// # Errors
/// When the file is there and cannot be read, or is not there and cannot be written.
pub(crate) fn secret(folder: &Path, name: &str) -> anyhow::Result<String> {
    let path = folder.join(name);
    let kept = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    // An empty file is what a full disk left once: nobody was ever told that secret.
    match kept.trim() {
        "" => {
            let bytes: [u8; 16] = rand::random();
            let made = hex::encode(bytes);
            write(&path, &format!("{made}\n"), READ)?;
            Ok(made)
        }
        kept => Ok(kept.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_secret_is_made_once_and_its_owner_alone_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let made = secret(folder.path(), "password").unwrap();
        assert_eq!(made.len(), 32);
        assert_eq!(secret(folder.path(), "password").unwrap(), made);
        assert_eq!(mode(&folder.path().join("password")), READ);
        let names = fs::read_dir(folder.path()).unwrap();
        assert_eq!(names.count(), 1, "nothing else stays beside it");
    }

    #[test]
    fn an_empty_file_is_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("password"), "\n").unwrap();
        let made = secret(folder.path(), "password").unwrap();
        assert_eq!(made.len(), 32);
        assert_eq!(secret(folder.path(), "password").unwrap(), made);
    }

    #[test]
    fn a_file_that_all_could_read_becomes_its_owners() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hook");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        write(&path, "new", RUN).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(mode(&path), RUN);
    }
}
