//! Finds what has to come along so that the links on a path lead somewhere.
//!
//! Knows a folder as its own root: a link that leads out of it leads to the same path inside, as in a
//! container.

use super::{below, patterns::Pattern, rooted};
use anyhow::Context;
use cap_std::fs::Dir;
use std::{collections::BTreeSet, io};

/// The paths of `wanted`, whose names may be patterns, with everything that links on them lead to; without
/// what lies below another one. `None` when that is all of `folder`.
pub(super) fn follow(folder: &Dir, wanted: &[String]) -> anyhow::Result<Option<Vec<String>>> {
    let mut found = BTreeSet::new();
    for path in wanted {
        add(folder, &rooted(path), &mut found)
            .with_context(|| format!("cannot follow the links of `{path}`"))?;
    }
    let mut without_doubles: Vec<String> = Vec::new();
    for path in found {
        if path.is_empty() {
            return Ok(None);
        }
        // A path's children need not stand right behind it: `a`, `a.b`, `a/c`.
        let is_below = |above: &String| {
            path.strip_prefix(above.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
        };
        if !without_doubles.iter().any(is_below) {
            without_doubles.push(path);
        }
    }
    Ok(Some(without_doubles))
}

fn add(folder: &Dir, path: &str, found: &mut BTreeSet<String>) -> anyhow::Result<()> {
    let mut current = String::new();
    let mut rest = path;
    while !rest.is_empty() {
        let (name, after) = rest.split_once('/').unwrap_or((rest, ""));
        let next = below(&current, name);
        rest = after;
        let targets = targets(folder, &current, name)?;
        if !targets.is_empty() {
            // What is there already was followed, or is just being followed: links may go in circles.
            if found.insert(next) {
                for target in targets {
                    add(folder, &rooted(&below(&target, rest)), found)?;
                }
            }
            return Ok(());
        }
        current = next;
    }
    found.insert(current);
    Ok(())
}

/// Where the links in `parent` lead whose name is or matches `name`, as paths inside `folder`.
fn targets(folder: &Dir, parent: &str, name: &str) -> anyhow::Result<Vec<String>> {
    let names = if name.contains(['*', '?', '[']) {
        let pattern = Pattern::parse(name).map_err(anyhow::Error::msg)?;
        let at = if parent.is_empty() { "." } else { parent };
        let mut names = Vec::new();
        match absent_is_none(folder.read_dir(at))? {
            Some(entries) => {
                for entry in entries {
                    let name = entry?.file_name().to_string_lossy().into_owned();
                    if pattern.matches(&name) {
                        names.push(name);
                    }
                }
            }
            None => return Ok(vec![]),
        }
        names.sort();
        names
    } else {
        vec![name.to_owned()]
    };
    let mut targets = Vec::new();
    for name in names {
        let path = below(parent, &name);
        let Some(metadata) = absent_is_none(folder.symlink_metadata(&path))? else {
            continue;
        };
        if metadata.is_symlink() {
            let target = folder.read_link_contents(&path)?;
            let target = target.to_string_lossy();
            targets.push(if target.starts_with('/') {
                rooted(&target)
            } else {
                rooted(&below(parent, &target))
            });
        }
    }
    Ok(targets)
}

fn absent_is_none<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cap_std::ambient_authority;
    use std::{fs, os::unix::fs::symlink};

    fn followed(place: &std::path::Path, wanted: &[&str]) -> Option<Vec<String>> {
        let folder = Dir::open_ambient_dir(place, ambient_authority()).unwrap();
        let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
        follow(&folder, &wanted).unwrap()
    }

    #[test]
    fn links_bring_what_they_lead_to() {
        let place = tempfile::tempdir().unwrap();
        let at = |path: &str| place.path().join(path);
        fs::create_dir_all(at("real/deep")).unwrap();
        fs::write(at("real/deep/file"), "x").unwrap();
        symlink("real", at("folder")).unwrap();
        symlink("deep/file", at("real/short")).unwrap();
        symlink("/real/deep", at("absolute")).unwrap();
        symlink("../../../etc", at("out")).unwrap();
        symlink("b", at("a")).unwrap();
        symlink("a", at("b")).unwrap();
        symlink("/", at("root")).unwrap();
        for (wanted, expected) in [
            (vec!["plain", "missing/x"], vec!["missing/x", "plain"]),
            (
                vec!["folder/short"],
                vec!["folder", "real/deep/file", "real/short"],
            ),
            (vec!["absolute/file"], vec!["absolute", "real/deep/file"]),
            (vec!["out/passwd"], vec!["etc/passwd", "out"]),
            (vec!["a"], vec!["a", "b"]),
            (vec!["real/sh*"], vec!["real/deep/file", "real/sh*"]),
            (vec!["real", "real/deep", "real.x"], vec!["real", "real.x"]),
        ] {
            assert_eq!(
                followed(place.path(), &wanted).unwrap(),
                expected,
                "{wanted:?}"
            );
        }
        assert_eq!(followed(place.path(), &["real", "root"]), None);
        assert_eq!(followed(place.path(), &["."]), None);
    }
}
