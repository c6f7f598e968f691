//! Secrets at rest. Each value is sealed under a data key of its own, each data key under the
//! installation's key, which lies in a file outside the database and its backups (`secrets.key_file`).
//!
//! Owns that file and the cipher: AES-256-GCM, with a random nonce before each text and the secret's
//! project, environment, name and version as additional data, so that no row can stand in for another.
//! The first key of the file seals, all of them open. Knows neither rows nor HTTP; no error and no
//! `Debug` holds a value or a key.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use roadstead_pipelines::id::ProjectName;
use roadstead_pipelines::secret::SecretRef;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

mod rotation;

pub use rotation::Rotation;

/// Bytes of every key.
const KEY_BYTES: usize = 32;
/// Hexadecimal digits that name a key; of a hash, so they tell nothing of it.
const KEY_ID_DIGITS: usize = 16;
/// First lines of a key file.
const ABOUT: &str = "# Roadstead's keys for secrets, in base64: the first one seals, all of them open.\n\
     # Keep a copy, and keep it apart from the database and its backups.\n";

type Key = Zeroizing<[u8; KEY_BYTES]>;

/// Which value a sealed text is of.
#[derive(Debug, Clone, Copy)]
pub struct Of<'a> {
    /// The project.
    pub project: &'a ProjectName,
    /// The secret.
    pub secret: &'a SecretRef,
    /// Which of its values, from 1.
    pub version: u64,
}

impl Of<'_> {
    fn data(&self) -> String {
        // A project's name has no slash, and a number ends the text: no two of them read the same.
        format!("{}/{}/{}", self.project, self.secret, self.version)
    }
}

/// A value as it is stored; base64 of nonce and cipher text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Which of the installation's keys opens the data key.
    pub key_id: String,
    /// The data key, sealed.
    pub data_key: String,
    /// The value, sealed under the data key.
    pub value: String,
}

/// Why nothing is sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file with the keys cannot be used as it is.
    #[error("the file with the keys for secrets, {}: {why}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// It has another key.
    #[error("{of} was sealed with key {key_id}, which is not in {}: bring that file back", file.display())]
    Unknown {
        /// Which value.
        of: String,
        /// The key's id.
        key_id: String,
        /// The file.
        file: PathBuf,
    },
    /// A stored secret is sealed under a key that this file lacks.
    #[error(
        "the file with the keys for secrets, {}, lacks key {key_id}, which stored secrets are sealed under: \
         copy it from the server that rotated, or bring it back",
        file.display()
    )]
    Lacking {
        /// The key's id.
        key_id: String,
        /// The file.
        file: PathBuf,
    },
    /// The row was changed by somebody else than this server.
    #[error("{of} cannot be opened: its row is not as it was sealed; set the secret again")]
    Changed {
        /// Which value.
        of: String,
    },
    /// The cipher or its source of chance failed.
    #[error("the cipher failed")]
    Cipher,
}

/// The installation's keys. Read anew for each use, so that a rotation needs no restart.
#[derive(Debug, Clone)]
pub struct Keys {
    file: PathBuf,
}

impl Keys {
    /// The keys in `file`, which need not be there yet.
    #[must_use]
    pub fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// Where they are.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What can be said of the file, for a person, when stored secrets are sealed under the keys `in_use`.
    ///
    /// # Errors
    /// When it is there and cannot be used, or lacks one of those keys.
    pub fn look(&self, in_use: &[String]) -> Result<String, KeyError> {
        let file = self.file.display();
        Ok(match self.read()? {
            None if in_use.is_empty() => {
                format!("{file} is not there; it is made with the first secret")
            }
            None => return Err(self.lost()),
            Some(keys) => {
                self.has(&keys, in_use)?;
                format!("{file} is its owner's alone; keep a copy of it")
            }
        })
    }

    /// Whoever lacks one of the keys `in_use` is not the installation: a server that was not told of a
    /// rotation must not seal what the others cannot open.
    fn has(&self, keys: &[Key], in_use: &[String]) -> Result<(), KeyError> {
        let known: Vec<_> = keys.iter().map(id_of).collect();
        match in_use.iter().find(|id| !known.contains(*id)) {
            None => Ok(()),
            Some(key_id) => Err(KeyError::Lacking {
                key_id: key_id.clone(),
                file: self.file.clone(),
            }),
        }
    }

    /// Seals a value. Stored secrets are sealed under the keys `in_use`; when there are none, the file is
    /// made, for its owner alone.
    ///
    /// # Errors
    /// When the keys cannot be had, or one `in_use` is lacking; a file that others may read is refused.
    pub fn seal(&self, of: Of<'_>, value: &str, in_use: &[String]) -> Result<Sealed, KeyError> {
        let keys = match self.read()? {
            Some(keys) => keys,
            None if in_use.is_empty() => {
                self.write_new(&[new_key()?])?;
                self.read()?.ok_or_else(|| self.lost())?
            }
            None => return Err(self.lost()),
        };
        self.has(&keys, in_use)?;
        let newest = keys.first().ok_or_else(|| self.lost())?;
        let data_key = new_key()?;
        Ok(Sealed {
            key_id: id_of(newest),
            data_key: encrypt(newest, of, &data_key[..])?,
            value: encrypt(&data_key, of, value.as_bytes())?,
        })
    }

    /// The value that `sealed` holds.
    ///
    /// # Errors
    /// When its key is not there, or it is not that value.
    pub fn open(&self, of: Of<'_>, sealed: &Sealed) -> Result<Zeroizing<String>, KeyError> {
        let data_key = self.data_key(&self.known()?, of, sealed)?;
        let mut bytes = decrypt(&data_key, of, &sealed.value)?;
        let text = String::from_utf8(std::mem::take(&mut *bytes));
        text.map(Zeroizing::new).map_err(|error| {
            drop(Zeroizing::new(error.into_bytes()));
            KeyError::Changed { of: of.data() }
        })
    }

    /// The same value with its data key under the newest key; `None` when it is already.
    ///
    /// # Errors
    /// As [`Keys::open`].
    pub fn rewrap(&self, of: Of<'_>, sealed: &Sealed) -> Result<Option<Sealed>, KeyError> {
        let keys = self.known()?;
        let newest = keys.first().ok_or_else(|| self.lost())?;
        if sealed.key_id == id_of(newest) {
            return Ok(None);
        }
        let data_key = self.data_key(&keys, of, sealed)?;
        Ok(Some(Sealed {
            key_id: id_of(newest),
            data_key: encrypt(newest, of, &data_key[..])?,
            value: sealed.value.clone(),
        }))
    }

    fn data_key(&self, keys: &[Key], of: Of<'_>, sealed: &Sealed) -> Result<Key, KeyError> {
        let key = keys.iter().find(|key| id_of(key) == sealed.key_id);
        let key = key.ok_or_else(|| KeyError::Unknown {
            of: of.data(),
            key_id: sealed.key_id.clone(),
            file: self.file.clone(),
        })?;
        let bytes = decrypt(key, of, &sealed.data_key)?;
        let key: [u8; KEY_BYTES] = bytes[..]
            .try_into()
            .map_err(|_| KeyError::Changed { of: of.data() })?;
        Ok(Zeroizing::new(key))
    }

    fn known(&self) -> Result<Vec<Key>, KeyError> {
        self.read()?.ok_or_else(|| self.lost())
    }

    fn lost(&self) -> KeyError {
        self.wrong(
            "it is not there, and there are secrets that only its keys open: bring it back from \
             where you keep its copy",
        )
    }

    fn wrong(&self, why: impl Into<String>) -> KeyError {
        KeyError::File {
            file: self.file.clone(),
            why: why.into(),
        }
    }

    /// Every key, the newest first; `None` when there is no file.
    fn read(&self) -> Result<Option<Vec<Key>>, KeyError> {
        let failed = |error: io::Error| self.wrong(error.to_string());
        let mut file = match File::open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(self.wrong("others than its owner may read it: `chmod 600` it"));
        }
        let mut text = Zeroizing::new(String::new());
        io::Read::read_to_string(&mut file, &mut text).map_err(failed)?;
        let mut keys = vec![];
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut key = Key::default();
            // Room for what a longer line would decode to.
            let mut bytes = Zeroizing::new([0; KEY_BYTES + 3]);
            match BASE64_STANDARD.decode_slice(line, &mut bytes[..]) {
                Ok(KEY_BYTES) => key.copy_from_slice(&bytes[..KEY_BYTES]),
                _ => return Err(self.wrong("a line is no key: 32 bytes in base64")),
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(self.wrong("it holds no key: 32 random bytes in base64 are one"));
        }
        Ok(Some(keys))
    }

    /// Writes a file that is not there; whoever was faster made it.
    fn write_new(&self, keys: &[Key]) -> Result<(), KeyError> {
        let written = self.beside(keys)?;
        match written.persist_noclobber(&self.file) {
            Ok(_) => self.sync_folder(),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(self.wrong(error.error.to_string())),
        }
    }

    fn replace(&self, keys: &[Key]) -> Result<(), KeyError> {
        let written = self.beside(keys)?;
        let done = written.persist(&self.file);
        done.map_err(|error| self.wrong(error.error.to_string()))?;
        self.sync_folder()
    }

    fn folder(&self) -> &Path {
        match self.file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }

    fn sync_folder(&self) -> Result<(), KeyError> {
        let synced = File::open(self.folder()).and_then(|folder| folder.sync_all());
        synced.map_err(|error| self.wrong(error.to_string()))
    }

    /// A file beside the keys', for its owner alone, with what is to stand there.
    fn beside(&self, keys: &[Key]) -> Result<tempfile::NamedTempFile, KeyError> {
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(self.folder())?;
            file.write_all(ABOUT.as_bytes())?;
            for key in keys {
                let line = Zeroizing::new(BASE64_STANDARD.encode(&key[..]));
                file.write_all(line.as_bytes())?;
                file.write_all(b"\n")?;
            }
            file.as_file().sync_all()?;
            fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600))?;
            io::Result::Ok(file)
        };
        write().map_err(|error| self.wrong(error.to_string()))
    }
}

fn id_of(key: &Key) -> String {
    let mut id = hex::encode(Sha256::digest(&key[..]));
    id.truncate(KEY_ID_DIGITS);
    id
}

fn new_key() -> Result<Key, KeyError> {
    let mut key = Key::default();
    aws_lc_rs::rand::fill(&mut key[..]).map_err(|_| KeyError::Cipher)?;
    Ok(key)
}

fn cipher(key: &Key) -> Result<LessSafeKey, KeyError> {
    let key = UnboundKey::new(&AES_256_GCM, &key[..]).map_err(|_| KeyError::Cipher)?;
    Ok(LessSafeKey::new(key))
}

fn encrypt(key: &Key, of: Of<'_>, plain: &[u8]) -> Result<String, KeyError> {
    let mut nonce = [0; NONCE_LEN];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| KeyError::Cipher)?;
    // Sealed in place: the room for the tag is there from the start, so no copy is left behind.
    let mut bytes = Vec::with_capacity(plain.len() + AES_256_GCM.tag_len());
    bytes.extend_from_slice(plain);
    cipher(key)?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(of.data()),
            &mut bytes,
        )
        .map_err(|_| KeyError::Cipher)?;
    Ok(BASE64_STANDARD.encode([&nonce[..], &bytes].concat()))
}

fn decrypt(key: &Key, of: Of<'_>, sealed: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let changed = || KeyError::Changed { of: of.data() };
    let bytes = BASE64_STANDARD.decode(sealed).map_err(|_| changed())?;
    let (nonce, rest) = bytes.split_first_chunk().ok_or_else(changed)?;
    let mut plain = Zeroizing::new(rest.to_vec());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let length = cipher(key)?
        .open_in_place(nonce, Aad::from(of.data()), &mut plain)
        .map_err(|_| changed())?
        .len();
    plain.truncate(length);
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = "correct horse battery staple";

    pub(super) struct World {
        folder: tempfile::TempDir,
        pub(super) keys: Keys,
        project: ProjectName,
        secret: SecretRef,
    }

    impl World {
        pub(super) fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self {
                keys: Keys::new(folder.path().join("secrets.key")),
                project: ProjectName::parse("shop").unwrap(),
                secret: SecretRef::parse("staging/TOKEN").unwrap(),
                folder,
            }
        }

        fn of(&self, version: u64) -> Of<'_> {
            Of {
                project: &self.project,
                secret: &self.secret,
                version,
            }
        }

        pub(super) fn owner(&self) -> u32 {
            std::os::unix::fs::MetadataExt::uid(&fs::metadata(self.folder.path()).unwrap())
        }

        pub(super) fn rotation(&self) -> Rotation {
            self.keys.rotate(self.owner()).unwrap()
        }

        pub(super) fn sealed(&self) -> Sealed {
            self.keys.seal(self.of(1), VALUE, &[]).unwrap()
        }
    }

    #[test]
    fn a_value_is_opened_only_as_what_it_was_sealed_as() {
        let world = World::new();
        let sealed = world.sealed();
        assert_eq!(
            world.keys.open(world.of(1), &sealed).unwrap().as_str(),
            VALUE
        );
        let another = ProjectName::parse("shop2").unwrap();
        let of_all = SecretRef::parse("TOKEN").unwrap();
        for of in [
            world.of(2),
            Of {
                project: &another,
                ..world.of(1)
            },
            Of {
                secret: &of_all,
                ..world.of(1)
            },
        ] {
            let error = world.keys.open(of, &sealed).unwrap_err();
            assert!(matches!(error, KeyError::Changed { .. }), "{error}");
        }
        let again = world.sealed();
        assert_ne!(
            (&again.value, &again.data_key),
            (&sealed.value, &sealed.data_key)
        );
        // The value of one under the data key of the other.
        let mixed = Sealed {
            value: again.value,
            ..sealed
        };
        world.keys.open(world.of(1), &mixed).unwrap_err();
    }

    #[test]
    fn the_file_is_the_owners_alone_or_not_used() {
        let world = World::new();
        let sealed = world.sealed();
        let mode = |file: &Path| fs::metadata(file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(world.keys.file()), 0o600);
        fs::set_permissions(world.keys.file(), fs::Permissions::from_mode(0o640)).unwrap();
        for error in [
            world.keys.open(world.of(1), &sealed).unwrap_err(),
            world.keys.seal(world.of(2), VALUE, &[]).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(
                text.contains("chmod 600") && !text.contains(VALUE),
                "{text}"
            );
        }
    }

    #[test]
    fn a_lost_key_is_not_replaced_by_another() {
        let world = World::new();
        let sealed = world.sealed();
        let kept = world.folder.path().join("kept");
        fs::rename(world.keys.file(), &kept).unwrap();
        let in_use = [sealed.key_id.clone()];
        let error = world.keys.seal(world.of(2), VALUE, &in_use).unwrap_err();
        assert!(error.to_string().contains("bring it back"), "{error}");
        assert!(!world.keys.file().exists());
        // Another installation's.
        world.keys.seal(world.of(2), VALUE, &[]).unwrap();
        let error = world.keys.seal(world.of(2), VALUE, &in_use).unwrap_err();
        assert!(matches!(error, KeyError::Lacking { .. }), "{error}");
        let error = world.keys.look(&in_use).unwrap_err();
        assert!(
            error.to_string().contains("copy it from the server"),
            "{error}"
        );
        let error = world.keys.open(world.of(1), &sealed).unwrap_err();
        assert!(matches!(error, KeyError::Unknown { .. }), "{error}");
        fs::rename(&kept, world.keys.file()).unwrap();
        world.keys.open(world.of(1), &sealed).unwrap();
    }

    #[test]
    fn a_rotation_leaves_values_that_only_the_new_key_opens() {
        let world = World::new();
        let old = world.sealed();
        let before = fs::read(world.keys.file()).unwrap();
        let rotation = world.rotation();
        rotation.add().unwrap();
        world.keys.open(world.of(1), &old).unwrap();
        let new = world.keys.rewrap(world.of(1), &old).unwrap().unwrap();
        assert_eq!(world.keys.rewrap(world.of(1), &new).unwrap(), None);
        assert_ne!(new.key_id, old.key_id);
        rotation.keep_newest().unwrap();
        assert_eq!(world.keys.open(world.of(1), &new).unwrap().as_str(), VALUE);
        world.keys.open(world.of(1), &old).unwrap_err();
        fs::write(world.keys.file(), before).unwrap();
        world.keys.open(world.of(1), &new).unwrap_err();
    }

    #[test]
    fn a_file_that_holds_no_keys_says_so() {
        let world = World::new();
        for text in ["", "# nothing\n", "c2hvcnQ=\n", &"QUFB".repeat(30)] {
            fs::write(world.keys.file(), text).unwrap();
            fs::set_permissions(world.keys.file(), fs::Permissions::from_mode(0o600)).unwrap();
            let error = world.keys.seal(world.of(1), VALUE, &[]).unwrap_err();
            assert!(error.to_string().contains("32"), "{error}");
        }
    }
}
