//! The pipeline file of a working tree, with the files that it includes.

use roadstead_pipelines::spec::{self, Diagnostics, Included, LARGEST_FILE, Pipeline};
use std::fs;
use std::path::Path;

/// Reads the text of a pipeline file with what it includes out of `root`, as a server does out of a commit.
pub(super) fn parse(name: &str, text: &str, root: Option<&Path>) -> Result<Pipeline, Diagnostics> {
    let mut included = Included::new();
    for path in spec::includes(text) {
        let read = root.map_or_else(
            || Err(format!("{path} is read with `--root FOLDER` alone")),
            |root| read(root, &path),
        );
        included.insert(path, read);
    }
    spec::parse_with(name, text, &included)
}

/// A file of the repository; no link on the way to it is followed.
fn read(root: &Path, path: &str) -> Result<String, String> {
    let mut whole = root.to_owned();
    let mut size = 0;
    for part in path.split('/') {
        whole.push(part);
        let found = fs::symlink_metadata(&whole).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => format!("{path} does not exist"),
            _ => format!("cannot read {path}: {error}"),
        })?;
        if found.is_symlink() {
            return Err(format!(
                "{path} cannot be used: `{part}` is a symbolic link, which is not followed; commit the file itself"
            ));
        }
        size = found.len();
    }
    if size > LARGEST_FILE as u64 {
        return Err(format!(
            "{path} has {size} bytes, at most {LARGEST_FILE} are read"
        ));
    }
    let bytes = fs::read(&whole).map_err(|error| format!("cannot read {path}: {error}"))?;
    String::from_utf8(bytes).map_err(|_| format!("{path} is not UTF-8 text"))
}
