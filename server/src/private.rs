//! Files and folders that only the server's own user may look into: the database holds the keys of
//! webhooks, and logs may hold what a script should not have said.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Makes a folder, and those above it, for its owner alone. One that is there stays as it is: whoever
/// set it up may have wanted so.
pub(crate) fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes an empty file for its owner alone, unless there is one. It is not opened then: closing it
/// again would take away the locks that SQLite has on it.
pub(crate) fn file(path: &Path) -> io::Result<()> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_the_owners_and_what_was_there_stays() {
        let place = tempfile::tempdir().unwrap();
        let (outer, inner) = (place.path().join("a"), place.path().join("a/b"));
        folder(&inner).unwrap();
        assert_eq!((mode(&outer), mode(&inner)), (0o700, 0o700));
        let key = inner.join("key");
        file(&key).unwrap();
        assert_eq!(mode(&key), 0o600);
        std::fs::write(&key, "secret").unwrap();
        file(&key).unwrap();
        folder(&inner).unwrap();
        assert_eq!(std::fs::read_to_string(&key).unwrap(), "secret");
        file(&inner.join("missing/key")).unwrap_err();
    }
}
