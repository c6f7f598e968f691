//! The change of the installation's keys: by one process at a time, and as the file's owner alone.
//!
//! Owns the lock beside the keys' file. Knows neither rows nor the order in which keys come and go.

use super::{KeyError, Keys, new_key};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

impl Keys {
    /// Begins to change the keys; nobody else does until what this gives is dropped.
    ///
    /// # Errors
    /// When the file is not there, belongs to another user than `user`, by its number, or somebody changes
    /// the keys already.
    pub fn rotate(&self, user: u32) -> Result<Rotation, KeyError> {
        let failed = |error: io::Error| self.wrong(error.to_string());
        let owner = match fs::metadata(&self.file) {
            Ok(found) => found.uid(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.lost()),
            Err(error) => return Err(failed(error)),
        };
        if owner != user {
            // Written anew it would belong to `user`, and the server could not read it any more.
            let name = user_name(owner);
            return Err(self.wrong(format!("it belongs to {name}: run this as {name}")));
        }
        // Beside the keys' file, which is replaced.
        let mut path = self.file.clone().into_os_string();
        path.push(".lock");
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Rotation {
                keys: self.clone(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => {
                Err(self.wrong("somebody rotates its keys now: wait for the end"))
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

/// The right to change the keys, which one process has at a time.
#[derive(Debug)]
pub struct Rotation {
    keys: Keys,
    /// Locked until it is closed.
    _lock: File,
}

impl Rotation {
    /// Puts a new key before the others, from when on it seals.
    ///
    /// # Errors
    /// When the file is not there or cannot be written.
    pub fn add(&self) -> Result<(), KeyError> {
        let mut keys = self.keys.known()?;
        keys.insert(0, new_key()?);
        self.keys.replace(&keys)
    }

    /// Forgets all keys but the newest.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep_newest(&self) -> Result<(), KeyError> {
        let mut keys = self.keys.known()?;
        keys.truncate(1);
        self.keys.replace(&keys)
    }
}

/// The name of a user, for a person; their number when this machine knows none.
fn user_name(user: u32) -> String {
    let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut lines = known.lines().map(|line| line.split(':'));
    let found = lines.find_map(|mut parts| {
        let name = parts.next()?;
        (parts.nth(1)? == user.to_string()).then(|| format!("`{name}`"))
    });
    found.unwrap_or_else(|| format!("user {user}"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::World;
    use super::*;

    #[test]
    fn one_rotates_at_a_time_and_it_is_the_owner() {
        let world = World::new();
        let error = world.keys.rotate(world.owner()).unwrap_err();
        assert!(error.to_string().contains("bring it back"), "{error}");
        world.sealed();
        let owner = world.owner();
        let error = world.keys.rotate(owner + 1).unwrap_err().to_string();
        assert!(
            error.contains(&format!("run this as {}", user_name(owner))),
            "{error}"
        );
        let first = world.rotation();
        let error = world.keys.rotate(owner).unwrap_err();
        assert!(error.to_string().contains("somebody rotates"), "{error}");
        drop(first);
        world.rotation().add().unwrap();
        assert_eq!(user_name(0), "`root`");
        assert_eq!(user_name(u32::MAX - 7), "user 4294967288");
    }
}
