//! Which files of a workspace are kept.
//!
//! Patterns mean what they mean in the pipeline file; `protocol/patterns.json` holds both sides to it.

use cap_std::{ambient_authority, fs::Dir};
use globset::{GlobBuilder, GlobMatcher};
use roadstead_protocol::check_artifact_name;
use std::{io, path::Path};

/// Folders below each other that are looked into: no real project has more, and each level costs stack.
const DEEPEST: usize = 256;
/// Most lines of trouble; what follows is only counted.
const MOST_TROUBLE: usize = 50;

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// The workspace.
    pub(crate) folder: Dir,
    /// Paths of regular files, in order.
    pub(crate) files: Vec<String>,
    /// What matches and cannot be kept, for a person.
    pub(crate) trouble: Vec<String>,
    /// Links and the like that match.
    others: usize,
    /// Folders that a pattern names as if it were a file.
    folders: Vec<String>,
}

impl Found {
    /// Says that nothing is kept, and what may be meant.
    pub(crate) fn nothing(&self, patterns: &[String]) -> String {
        let patterns: Vec<_> = patterns.iter().map(|p| format!("`{p}`")).collect();
        let mut line = format!("no file matches {}", patterns.join(", "));
        if let Some(folder) = self.folders.first() {
            line += &format!("; `{folder}` is a folder, what is in it is `{folder}/**`");
        } else if self.others > 0 {
            line += &format!(
                "; {} links and the like do, and only files are kept",
                self.others
            );
        }
        line
    }
}

/// Looks for the files of `workspace` that `patterns` name.
///
/// # Errors
/// When a folder cannot be read that may hold one.
pub(crate) fn find(workspace: &Path, patterns: &[String]) -> io::Result<Found> {
    let mut search = Search {
        patterns: Patterns::new(patterns),
        found: Found {
            folder: Dir::open_ambient_dir(workspace, ambient_authority())?,
            files: vec![],
            trouble: vec![],
            others: 0,
            folders: vec![],
        },
    };
    let root = search.found.folder.try_clone()?;
    search.folder(&root, "", 0)?;
    Ok(search.found)
}

struct Search {
    patterns: Patterns,
    found: Found,
}

impl Search {
    fn folder(&mut self, folder: &Dir, prefix: &str, depth: usize) -> io::Result<()> {
        let mut names: Vec<_> = folder
            .entries()?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<io::Result<_>>()?;
        names.sort();
        for name in names {
            let shown = name.to_string_lossy();
            let path = if prefix.is_empty() {
                shown.to_string()
            } else {
                format!("{prefix}/{shown}")
            };
            let kind = match folder.symlink_metadata(&name) {
                Ok(metadata) => metadata.file_type(),
                // Gone since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(named(&path, &error)),
            };
            if kind.is_dir() {
                if self.patterns.names(&path) && self.found.folders.is_empty() {
                    self.found.folders.push(path.clone());
                }
                if self.patterns.may_name_below(&path) {
                    if depth >= DEEPEST {
                        self.trouble(format!("`{path}` lies more than {DEEPEST} folders deep"));
                        continue;
                    }
                    let below = folder
                        .open_dir(&name)
                        .map_err(|error| named(&path, &error))?;
                    self.folder(&below, &path, depth + 1)?;
                }
            } else if !self.patterns.names(&path) {
            } else if !kind.is_file() {
                self.found.others += 1;
            } else if name.to_str().is_none() {
                let path = path.escape_debug();
                self.trouble(format!("`{path}` cannot be kept: its name is not UTF-8"));
            } else if let Err(why) = check_artifact_name(&path) {
                self.trouble(format!(
                    "`{}` cannot be kept: its name {why}",
                    path.escape_debug()
                ));
            } else {
                self.found.files.push(path);
            }
        }
        Ok(())
    }

    fn trouble(&mut self, line: String) {
        if self.found.trouble.len() < MOST_TROUBLE {
            self.found.trouble.push(line);
        }
    }
}

fn named(path: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`{path}`: {error}"))
}

/// A list of patterns: the last one that matches decides, `!` taking away.
struct Patterns {
    from_everything: bool,
    /// Each with whether it takes or takes away.
    globs: Vec<(bool, GlobMatcher)>,
    /// The folders that each pattern that takes begins with.
    beginnings: Vec<String>,
}

impl Patterns {
    /// A pattern that cannot be used, which the server keeps out of a job, matches nothing.
    fn new(patterns: &[String]) -> Self {
        let mut globs = vec![];
        let mut beginnings = vec![];
        for pattern in patterns {
            let positive = pattern.strip_prefix('!');
            let text = positive.unwrap_or(pattern);
            let Ok(glob) = GlobBuilder::new(text).literal_separator(true).build() else {
                continue;
            };
            globs.push((positive.is_none(), glob.compile_matcher()));
            if positive.is_none() {
                let plain = |part: &&str| !part.contains(['*', '?', '[', ']', '{', '}', '\\']);
                let parts: Vec<_> = text.split('/').take_while(plain).collect();
                beginnings.push(parts.join("/"));
            }
        }
        Self {
            from_everything: patterns.first().is_some_and(|first| first.starts_with('!')),
            globs,
            beginnings,
        }
    }

    fn names(&self, path: &str) -> bool {
        let last = self
            .globs
            .iter()
            .rev()
            .find(|(_, glob)| glob.is_match(path));
        last.map_or(self.from_everything, |(wanted, _)| *wanted)
    }

    /// Whether a file in or below this folder may be named: large folders that no pattern names are not looked into.
    fn may_name_below(&self, folder: &str) -> bool {
        let is_in = |path: &str, of: &str| {
            of.is_empty()
                || path
                    .strip_prefix(of)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.from_everything
            || self
                .beginnings
                .iter()
                .any(|begin| is_in(folder, begin) || is_in(begin, folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, fs, os::unix::fs::symlink};

    /// Cases that both sides are held to.
    const PATTERNS: &str = include_str!("../../../protocol/patterns.json");

    #[derive(serde::Deserialize)]
    struct Case {
        patterns: Vec<String>,
        paths: BTreeMap<String, bool>,
    }

    #[test]
    fn patterns_mean_what_they_mean_in_the_pipeline_file() {
        let cases: Vec<Case> = serde_json::from_str(PATTERNS).unwrap();
        assert!(cases.len() > 5);
        for Case { patterns, paths } in cases {
            let ready = Patterns::new(&patterns);
            for (path, named) in paths {
                assert_eq!(ready.names(&path), named, "{patterns:?} {path}");
                let mut folder = path.as_str();
                while let Some((above, _)) = folder.rsplit_once('/') {
                    assert!(!named || ready.may_name_below(above), "{patterns:?} {path}");
                    folder = above;
                }
            }
        }
    }

    fn workspace() -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("work/dist/deep")).unwrap();
        place
    }

    fn search(place: &tempfile::TempDir, patterns: &[&str]) -> Found {
        let patterns: Vec<_> = patterns.iter().map(|p| (*p).to_owned()).collect();
        find(&place.path().join("work"), &patterns).unwrap()
    }

    #[test]
    fn files_are_found_and_links_are_not() {
        let place = workspace();
        let work = place.path().join("work");
        fs::write(place.path().join("outside"), "a secret").unwrap();
        for file in [
            "dist/app.js",
            "dist/deep/app.map",
            "test.log",
            "dist/new\nline",
        ] {
            fs::write(work.join(file), "x").unwrap();
        }
        for (target, link) in [
            ("/etc/passwd", "dist/passwd"),
            ("/etc", "dist/etc"),
            ("../../outside", "dist/outside"),
            ("../test.log", "dist/log"),
            ("..", "dist/up"),
        ] {
            symlink(target, work.join(link)).unwrap();
        }
        let made = std::process::Command::new("mkfifo")
            .arg(work.join("dist/pipe"))
            .status();
        assert!(made.unwrap().success());

        let found = search(&place, &["dist/**", "*.log"]);
        assert_eq!(
            found.files,
            ["dist/app.js", "dist/deep/app.map", "test.log"]
        );
        assert_eq!((found.others, found.trouble.len()), (6, 1));
        assert!(
            found.trouble[0].contains("control character"),
            "{:?}",
            found.trouble
        );
        let found = search(&place, &["dist/**", "!dist/deep/**"]);
        assert_eq!(found.files, ["dist/app.js"]);
    }

    #[test]
    fn what_matches_nothing_is_told_with_what_may_be_meant() {
        let place = workspace();
        let nothing = |patterns: &[&str]| {
            let found = search(&place, patterns);
            assert!(found.files.is_empty());
            found.nothing(&patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(nothing(&["*.xml"]), "no file matches `*.xml`");
        assert_eq!(
            nothing(&["dist"]),
            "no file matches `dist`; `dist` is a folder, what is in it is `dist/**`"
        );
        symlink("/etc/passwd", place.path().join("work/all.log")).unwrap();
        assert!(nothing(&["*.log"]).contains("1 links and the like"));
    }

    #[test]
    fn a_very_deep_tree_is_not_looked_into_to_its_end() {
        let place = workspace();
        let mut folder = place.path().join("work/dist");
        for _ in 0..DEEPEST + 10 {
            folder.push("d");
        }
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("file"), "x").unwrap();
        let found = search(&place, &["dist/**"]);
        assert!(found.files.is_empty());
        assert!(
            found.trouble[0].contains("folders deep"),
            "{:?}",
            found.trouble
        );
    }
}
