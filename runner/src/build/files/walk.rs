//! Goes through a folder and tells what BuildKit wants to know of each file.
//!
//! Owns the order (a folder before what is in it, names by their bytes), modes, links and which files are
//! left out. Reads every file that it tells of: its content picks its time.

use super::{
    Wanted, below,
    follow::follow,
    moment::{ContentDigest, Moments},
    patterns::{Covering, Patterns},
};
use anyhow::{Context, bail};
use bollard::grpc::build::fsutil::types::Stat;
use cap_std::fs::{Dir, File, MetadataExt, OpenOptions, OpenOptionsExt};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use std::{
    ffi::OsString,
    io::{self, Read},
};

/// Bytes that are read at once.
pub(super) const READ_BYTES: usize = 128 << 10;

// Bits of Go's `fs.FileMode`, in which modes travel.
const GO_FOLDER: u32 = 1 << 31;
const GO_LINK: u32 = 1 << 27;
const GO_SETUID: u32 = 1 << 23;
const GO_SETGID: u32 = 1 << 22;
const GO_STICKY: u32 = 1 << 20;

/// Something in the folder.
pub(super) struct Told {
    pub(super) stat: Stat,
    /// The digest of what it holds, when that can be asked for.
    pub(super) content: Option<ContentDigest>,
}

/// Which files of a folder there are for BuildKit.
struct Filter {
    include: Option<Patterns>,
    exclude: Option<Patterns>,
}

/// What patterns say of a folder.
#[derive(Default)]
struct Above {
    include: Covering,
    exclude: Covering,
}

/// Whether a file is there for BuildKit, and what may be below it when it is a folder.
struct Verdict {
    is_there: bool,
    is_entered: bool,
    above: Above,
}

/// A folder that is being gone through.
struct Parent {
    path: String,
    mode: u32,
    is_told: bool,
}

struct Walk<'a, T> {
    filter: Filter,
    moments: &'a Moments,
    tell: T,
    parents: Vec<Parent>,
    buffer: Vec<u8>,
}

/// Tells everything in `folder` that is `wanted`, in order.
///
/// # Errors
/// A pattern that is none, a file that cannot be read, or what `tell` fails with. What vanishes meanwhile
/// is not there.
pub(super) fn walk(
    folder: &Dir,
    wanted: &Wanted,
    moments: &Moments,
    tell: impl FnMut(Told) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut walk = Walk {
        filter: Filter::of(folder, wanted)?,
        moments,
        tell,
        parents: Vec::new(),
        buffer: vec![0; READ_BYTES],
    };
    walk.folder(folder, "", &Above::default())
}

impl Filter {
    fn of(folder: &Dir, wanted: &Wanted) -> anyhow::Result<Self> {
        let mut include = wanted.include.clone();
        // When links lead to the folder itself, they leave nothing out.
        include.extend(follow(folder, &wanted.follow)?.unwrap_or_default());
        Ok(Self {
            include: Patterns::parse(&include).map_err(anyhow::Error::msg)?,
            exclude: Patterns::parse(&wanted.exclude)
                .map_err(|problem| anyhow::anyhow!(".dockerignore: {problem}"))?,
        })
    }

    fn judge(&self, path: &str, above: &Above) -> Verdict {
        let mut verdict = Verdict {
            is_there: true,
            is_entered: true,
            above: Above::default(),
        };
        if let Some(include) = &self.include {
            let (matched, covering) = include.matches(path, &above.include);
            verdict.is_there = matched;
            verdict.is_entered = matched || include.may_match_below(path);
            verdict.above.include = covering;
        }
        if let Some(exclude) = &self.exclude {
            let (matched, covering) = exclude.matches(path, &above.exclude);
            verdict.is_there &= !matched;
            verdict.is_entered &= !matched || exclude.may_except_below(path);
            verdict.above.exclude = covering;
        }
        verdict
    }
}

impl<T: FnMut(Told) -> anyhow::Result<()>> Walk<'_, T> {
    fn folder(&mut self, folder: &Dir, prefix: &str, above: &Above) -> anyhow::Result<()> {
        let names = names(folder).with_context(|| format!("cannot list folder `{prefix}`"))?;
        for name in names {
            let path = below(prefix, &name.to_string_lossy());
            let verdict = self.filter.judge(&path, above);
            if !verdict.is_there && !verdict.is_entered {
                continue;
            }
            self.entry(folder, &name, &path, &verdict)
                .with_context(|| format!("`{path}`"))?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        folder: &Dir,
        name: &OsString,
        path: &str,
        verdict: &Verdict,
    ) -> anyhow::Result<()> {
        let Some(metadata) = unless_vanished(folder.symlink_metadata(name))? else {
            return Ok(());
        };
        if !metadata.is_dir() && !verdict.is_there {
            return Ok(());
        }
        if name.to_str().is_none() {
            bail!("its name is not UTF-8, so it cannot travel; leave it out by `.dockerignore`");
        }
        if metadata.is_dir() {
            let Some(inside) = unless_vanished(folder.open_dir(name))? else {
                return Ok(());
            };
            self.parents.push(Parent {
                path: path.to_owned(),
                mode: GO_FOLDER | go_mode(metadata.mode()),
                is_told: false,
            });
            if verdict.is_there {
                self.tell_parents()?;
            }
            self.folder(&inside, path, &verdict.above)?;
            self.parents.pop();
        } else if metadata.is_symlink() {
            if let Some(target) = unless_vanished(folder.read_link_contents(name))? {
                let target = target.into_os_string().into_string();
                let target = target.map_err(|_| {
                    anyhow::anyhow!("it leads to a name that is not UTF-8, so it cannot travel")
                })?;
                self.tell_parents()?;
                (self.tell)(link(path, target))?;
            }
        } else if metadata.is_file() {
            self.file(folder, name, path)?;
        }
        // Sockets, pipes and devices have no place in an image.
        Ok(())
    }

    fn file(&mut self, folder: &Dir, name: &OsString, path: &str) -> anyhow::Result<()> {
        let Some(mut file) = unless_vanished(open(folder, name))? else {
            return Ok(());
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(());
        }
        let (content, size) = self.read(&mut file)?;
        // Another name of a file that was told already is a file of its own: older engines leave a third one
        // behind when they are told of such a link again.
        let stat = Stat {
            path: path.to_owned(),
            mode: go_mode(metadata.mode()),
            size: size as i64,
            mod_time: self.moments.of(&content),
            ..Default::default()
        };
        self.tell_parents()?;
        (self.tell)(Told {
            stat,
            content: Some(content),
        })
    }

    fn read(&mut self, file: &mut File) -> io::Result<(ContentDigest, u64)> {
        let mut digest = Sha256::new();
        let mut size = 0;
        loop {
            let read = file.read(&mut self.buffer)?;
            if read == 0 {
                return Ok((digest.finalize().into(), size));
            }
            digest.update(&self.buffer[..read]);
            size += read as u64;
        }
    }

    /// A folder that is left out itself is there when something in it is.
    fn tell_parents(&mut self) -> anyhow::Result<()> {
        let untold = self.parents.iter_mut().filter(|parent| !parent.is_told);
        for parent in untold {
            parent.is_told = true;
            (self.tell)(Told {
                stat: Stat {
                    path: parent.path.clone(),
                    mode: parent.mode,
                    mod_time: Moments::of_nothing(),
                    ..Default::default()
                },
                content: None,
            })?;
        }
        Ok(())
    }
}

/// Opens a file to read it; whatever it has become meanwhile, this does not wait.
pub(in super::super) fn open(folder: &Dir, path: impl AsRef<std::path::Path>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    folder.open_with(path, &options)
}

fn names(folder: &Dir) -> io::Result<Vec<OsString>> {
    let entries = folder.entries()?;
    let mut names = entries
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn link(path: &str, target: String) -> Told {
    Told {
        stat: Stat {
            path: path.to_owned(),
            mode: GO_LINK | 0o777,
            size: target.len() as i64,
            mod_time: Moments::of_nothing(),
            linkname: target,
            ..Default::default()
        },
        content: None,
    }
}

fn go_mode(mode: u32) -> u32 {
    let special = [
        (0o4000, GO_SETUID),
        (0o2000, GO_SETGID),
        (0o1000, GO_STICKY),
    ];
    let special = special.iter().filter(|(bit, _)| mode & bit != 0);
    special.fold(mode & 0o777, |go, (_, bit)| go | bit)
}

fn unless_vanished<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cap_std::ambient_authority;
    use std::{
        ffi::OsStr,
        fs,
        os::unix::{
            ffi::OsStrExt,
            fs::{PermissionsExt, symlink},
        },
        path::Path,
    };

    fn place(files: &[&str]) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        for path in files {
            let path = place.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "text").unwrap();
        }
        place
    }

    fn told(place: &Path, wanted: &Wanted) -> anyhow::Result<Vec<Stat>> {
        let folder = Dir::open_ambient_dir(place, ambient_authority()).unwrap();
        let mut all = Vec::new();
        walk(&folder, wanted, &Moments::new("test"), |told| {
            all.push(told.stat);
            Ok(())
        })?;
        Ok(all)
    }

    fn paths(place: &Path, wanted: &Wanted) -> Vec<String> {
        let told = told(place, wanted).unwrap().into_iter();
        told.map(|stat| stat.path).collect()
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_folder_comes_before_what_is_in_it_and_names_go_by_their_bytes() {
        let place = place(&["b/x", "b.txt", "B", "a-b/c", "a/z/y"]);
        fs::create_dir(place.path().join("empty")).unwrap();
        assert_eq!(
            paths(place.path(), &Wanted::default()),
            [
                "B", "a", "a/z", "a/z/y", "a-b", "a-b/c", "b", "b/x", "b.txt", "empty"
            ]
        );
    }

    #[test]
    fn what_is_left_out_stays_out_and_exceptions_bring_their_folders() {
        let place = place(&[
            "Dockerfile",
            "src/keep/a.txt",
            "src/keep/b.rs",
            "src/drop/c.txt",
        ]);
        let exclude = texts(&["**", "!src/keep/*.txt"]);
        let wanted = Wanted {
            exclude,
            ..Default::default()
        };
        assert_eq!(
            paths(place.path(), &wanted),
            ["src", "src/keep", "src/keep/a.txt"]
        );
        let wanted = Wanted {
            include: texts(&["src/k?ep"]),
            follow: texts(&["Docker*"]),
            exclude: texts(&["**/*.rs"]),
            ..Default::default()
        };
        assert_eq!(
            paths(place.path(), &wanted),
            ["Dockerfile", "src", "src/keep", "src/keep/a.txt"]
        );
    }

    #[test]
    fn modes_links_and_sizes_are_told() {
        let place = place(&["run.sh", "one"]);
        let at = |name: &str| place.path().join(name);
        fs::set_permissions(at("run.sh"), fs::Permissions::from_mode(0o4750)).unwrap();
        symlink("/etc/passwd", at("link")).unwrap();
        fs::hard_link(at("one"), at("two")).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let told = told(place.path(), &Wanted::default()).unwrap();
        let shown: Vec<_> = told
            .iter()
            .map(|stat| {
                (
                    stat.path.as_str(),
                    stat.mode,
                    stat.size,
                    stat.linkname.as_str(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("link", GO_LINK | 0o777, 11, "/etc/passwd"),
                ("one", 0o644, 4, ""),
                ("run.sh", GO_SETUID | 0o750, 4, ""),
                ("two", 0o644, 4, ""),
            ]
        );
        assert_eq!(told[1].mod_time, told[2].mod_time, "the same content");
        fs::write(at("run.sh"), "tixt").unwrap();
        let changed = self::told(place.path(), &Wanted::default()).unwrap();
        assert_ne!(told[2].mod_time, changed[2].mod_time);
    }

    #[test]
    fn a_name_that_cannot_travel_is_named_unless_it_is_left_out() {
        let place = place(&["plain"]);
        fs::write(place.path().join(OsStr::from_bytes(b"caf\xe9")), "x").unwrap();
        let error = told(place.path(), &Wanted::default()).unwrap_err();
        assert!(format!("{error:#}").contains("not UTF-8"), "{error:#}");
        let wanted = Wanted {
            exclude: texts(&["caf*"]),
            ..Default::default()
        };
        assert_eq!(paths(place.path(), &wanted), ["plain"]);
        let wanted = Wanted {
            exclude: texts(&["[x"]),
            ..Default::default()
        };
        let error = told(place.path(), &wanted).unwrap_err();
        assert!(error.to_string().contains("`[x`"), "{error:#}");
    }
}
