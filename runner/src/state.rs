//! What a runner must still know after it was killed: who it is, and what it was running.
//!
//! Owns `credential.json`, `instance.json`, `lock` and `attempts/` in the data folder. A file is written whole
//! under another name, synced and renamed, so that a crash leaves the old or the new one.

use crate::secret::Secret;
use anyhow::{Context, bail};
use roadstead_protocol::{AttemptRef, Registered};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// The file of the data folder's own word.
const INSTANCE: &str = "instance.json";

/// Who this runner is to its server, which may know it by its name.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) runner_id: String,
    pub(crate) credential: Secret,
}

/// An attempt that was running; its token lets the next process report its end.
#[derive(Debug, Clone)]
pub(crate) struct KnownAttempt {
    pub(crate) attempt: AttemptRef,
    pub(crate) token: Secret,
}

#[derive(Serialize, Deserialize)]
struct AttemptFile {
    attempt: AttemptRef,
    token: String,
}

/// The runner's data folder, held by one process at a time.
#[derive(Debug)]
pub(crate) struct State {
    folder: PathBuf,
    /// Locked while this process lives; the system unlocks it when the process dies.
    _lock: File,
}

impl State {
    /// Opens or makes the folder.
    ///
    /// # Errors
    /// When another runner works in it, or it cannot be written.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        make_private(&folder.join("attempts"))?;
        let path = folder.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                folder: folder.to_owned(),
                _lock: lock,
            }),
            Err(fs::TryLockError::WouldBlock) => bail!(
                "another runner works in {}; stop it or give this one a data folder of its own",
                folder.display()
            ),
            Err(fs::TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// A word that no other data folder has, made when it is first asked for. What this runner
    /// makes in Docker Engine carries it: runners of two servers may have the same id.
    pub(crate) fn instance(&self) -> anyhow::Result<String> {
        if let Some(instance) = instance(&self.folder)? {
            return Ok(instance);
        }
        let path = self.folder.join(INSTANCE);
        let instance = format!("{:012x}", rand::random::<u64>() >> 16);
        write(&path, &instance)?;
        Ok(instance)
    }

    /// A folder below the data folder.
    pub(crate) fn subfolder(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where the credential lies.
    pub(crate) fn identity_path(&self) -> PathBuf {
        self.folder.join("credential.json")
    }

    /// The identity, when this runner has registered before.
    pub(crate) fn identity(&self) -> anyhow::Result<Option<Identity>> {
        Ok(
            read::<Registered>(&self.identity_path())?.map(|registered| Identity {
                runner_id: registered.runner_id,
                credential: Secret::new(registered.credential),
            }),
        )
    }

    /// Keeps the identity.
    pub(crate) fn set_identity(&self, registered: &Registered) -> anyhow::Result<()> {
        write(&self.identity_path(), registered)
    }

    /// Forgets the identity, which the server knows no more.
    pub(crate) fn forget_identity(&self) -> anyhow::Result<()> {
        remove(&self.identity_path())
    }

    fn attempt_path(&self, attempt: &str) -> PathBuf {
        self.folder.join("attempts").join(format!("{attempt}.json"))
    }

    /// Keeps that `attempt` runs here.
    pub(crate) fn remember(&self, attempt: &AttemptRef, token: &Secret) -> anyhow::Result<()> {
        let file = AttemptFile {
            attempt: attempt.clone(),
            token: token.expose().to_owned(),
        };
        write(&self.attempt_path(&attempt.attempt), &file)
    }

    /// Forgets an attempt whose end the server knows.
    pub(crate) fn forget(&self, attempt: &str) -> anyhow::Result<()> {
        remove(&self.attempt_path(attempt))
    }

    /// What ran when the process before this one ended. Files that cannot be read are removed:
    /// the server finds such an attempt by its lease.
    pub(crate) fn attempts(&self) -> anyhow::Result<Vec<KnownAttempt>> {
        let mut attempts = Vec::new();
        for file in fs::read_dir(self.folder.join("attempts"))? {
            let path = file?.path();
            match read::<AttemptFile>(&path) {
                Ok(Some(file)) => attempts.push(KnownAttempt {
                    attempt: file.attempt,
                    token: Secret::new(file.token),
                }),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "removes an unreadable note");
                    fs::remove_file(&path)?;
                }
            }
        }
        Ok(attempts)
    }
}

/// The word of a data folder; none when no runner worked in it yet.
pub(crate) fn instance(folder: &Path) -> anyhow::Result<Option<String>> {
    read(&folder.join(INSTANCE))
}

/// Makes a folder that nobody else may look into.
pub(crate) fn make_private(folder: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))
}

/// Removes a file that may be gone already.
fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .with_context(|| format!("{} is damaged; remove it and start again", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn write(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let fresh = path.with_extension("new");
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}

/// Whether a name that the server sent may become a file's or a container's name.
pub(crate) fn is_plain_name(name: &str) -> bool {
    name.len() <= 128
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_ran_is_known_to_the_next_process() {
        let data = tempfile::tempdir().unwrap();
        let attempt = AttemptRef {
            attempt: "shop.1.a1".into(),
            fence: 3,
        };
        let state = State::open(data.path()).unwrap();
        state.remember(&attempt, &Secret::new("token-1")).unwrap();
        state
            .set_identity(&Registered {
                runner_id: "r1".into(),
                credential: "c1".into(),
            })
            .unwrap();
        let instance = state.instance().unwrap();
        drop(state);

        let state = State::open(data.path()).unwrap();
        assert_eq!(state.instance().unwrap(), instance);
        let known = state.attempts().unwrap();
        assert_eq!(known.len(), 1);
        assert_eq!(known[0].attempt, attempt);
        assert_eq!(known[0].token.expose(), "token-1");
        assert_eq!(state.identity().unwrap().unwrap().runner_id, "r1");
        let mode = fs::metadata(state.identity_path())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        state.forget("shop.1.a1").unwrap();
        state.forget("shop.1.a1").unwrap();
        assert!(state.attempts().unwrap().is_empty());
    }

    #[test]
    fn two_runners_do_not_share_a_folder() {
        let data = tempfile::tempdir().unwrap();
        let _first = State::open(data.path()).unwrap();
        let error = State::open(data.path()).unwrap_err();
        assert!(error.to_string().contains("another runner"), "{error}");
    }

    #[test]
    fn a_damaged_note_is_removed_and_a_damaged_credential_is_an_error() {
        let data = tempfile::tempdir().unwrap();
        let state = State::open(data.path()).unwrap();
        fs::write(state.attempt_path("x"), "{").unwrap();
        assert!(state.attempts().unwrap().is_empty());
        assert!(!state.attempt_path("x").exists());
        fs::write(state.identity_path(), "{").unwrap();
        assert!(state.identity().is_err());
    }

    #[test]
    fn names_that_could_leave_a_folder_are_refused() {
        for name in ["", ".", "..", "a/b", "-x", ".hidden", "a b", "ü"] {
            assert!(!is_plain_name(name), "{name}");
        }
        assert!(is_plain_name("shop.12.a1"));
        assert!(!is_plain_name(&"x".repeat(129)));
    }
}
