//! Where the files of one image's build lie.

use super::files::{self, Moments, Packets, Wanted};
use anyhow::{Context, bail};
use bollard::grpc::build::fsutil::types::Packet;
use cap_std::{ambient_authority, fs::Dir};
use std::path::Path;
use tonic::{Status, Streaming};

/// What BuildKit calls the folders that it asks for.
const CONTEXT: &str = "context";
const DOCKERFILE: &str = "dockerfile";

/// A context that was looked at and can be asked for.
#[derive(Debug)]
pub(crate) struct BuildContext {
    folder: Dir,
    dockerfile_folder: Dir,
    dockerfile: String,
}

impl BuildContext {
    /// Opens `context` below `workspace`; `dockerfile` is relative to the context and may lie outside of it.
    ///
    /// # Errors
    /// A folder or Dockerfile that is not there or not in the workspace: messages are for the person who
    /// wrote the pipeline file.
    pub(crate) fn open(workspace: &Path, context: &str, dockerfile: &str) -> anyhow::Result<Self> {
        let root = Dir::open_ambient_dir(workspace, ambient_authority())
            .with_context(|| format!("cannot open the workspace {}", workspace.display()))?;
        let folder = root
            .open_dir(relative(context))
            .with_context(|| format!("the context folder `{context}` is not in the repository"))?;
        let absent = || {
            if dockerfile.starts_with("..") {
                format!(
                    "the Dockerfile `{dockerfile}`, seen from the context folder `{context}`, is not in the repository"
                )
            } else {
                format!("the Dockerfile `{dockerfile}` is not in the context folder `{context}`")
            }
        };
        let mut path = Path::new(&relative(context)).join(relative(dockerfile));
        let mut dockerfile_folder = root.open_dir(parent(&path)).with_context(absent)?;
        let mut name =
            name(&path).with_context(|| format!("`{dockerfile}` names no Dockerfile"))?;
        if dockerfile_folder.metadata(&name).is_err() {
            // A link out of its folder, where BuildKit could not follow it.
            path = root.canonicalize(&path).with_context(absent)?;
            dockerfile_folder = root.open_dir(parent(&path)).with_context(absent)?;
            name = self::name(&path).with_context(absent)?;
        }
        if !dockerfile_folder
            .metadata(&name)
            .with_context(absent)?
            .is_file()
        {
            bail!("the Dockerfile `{dockerfile}` in the context folder `{context}` is no file");
        }
        Ok(Self {
            folder,
            dockerfile_folder,
            dockerfile: name,
        })
    }

    /// The Dockerfile's name in its folder.
    pub(crate) fn dockerfile(&self) -> &str {
        &self.dockerfile
    }

    /// Sends what is `wanted`.
    ///
    /// # Errors
    /// When it is of a folder that there is not.
    pub(super) fn send(
        &self,
        wanted: Wanted,
        moments: &Moments,
        asked: Streaming<Packet>,
    ) -> Result<Packets, Status> {
        let folder = match wanted.folder.as_str() {
            CONTEXT => &self.folder,
            DOCKERFILE => &self.dockerfile_folder,
            other => return Err(Status::not_found(format!("there is no folder `{other}`"))),
        };
        let folder = folder.try_clone()?;
        files::send(folder, wanted, moments.clone(), asked)
            .map_err(|error| Status::internal(format!("{error:#}")))
    }
}

/// A path inside a folder, without `.` and doubled slashes; `.` for the folder itself. What leaves the
/// folder is refused when it is opened.
fn relative(path: &str) -> String {
    let parts: Vec<_> = path
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    if parts.is_empty() {
        ".".to_owned()
    } else {
        parts.join("/")
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    fn workspace(files: &[(&str, &str)]) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = place.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        place
    }

    #[test]
    fn links_out_of_the_workspace_are_not_followed() {
        let outside = workspace(&[("secret/Dockerfile", "FROM scratch\n")]);
        let place = workspace(&[("Dockerfile", "FROM scratch\n")]);
        symlink(outside.path().join("secret"), place.path().join("context")).unwrap();
        for context in ["context", "..", "../x", "/etc"] {
            let error = BuildContext::open(place.path(), context, "Dockerfile").unwrap_err();
            assert!(
                error.to_string().contains("not in the repository"),
                "{context}: {error:#}"
            );
        }
        let linked = outside.path().join("secret/Dockerfile");
        symlink(linked, place.path().join("Other")).unwrap();
        for dockerfile in ["Other", "../../etc/passwd", "..", "."] {
            assert!(
                BuildContext::open(place.path(), ".", dockerfile).is_err(),
                "{dockerfile}"
            );
        }
        let error = BuildContext::open(place.path(), ".", "Missing").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`Missing` is not in the context"),
            "{error:#}"
        );
    }

    #[test]
    fn a_dockerfile_may_lie_anywhere_in_the_repository() {
        let place = workspace(&[
            ("app/Dockerfile", "FROM scratch\n"),
            ("docker/web.Dockerfile", "FROM scratch\n"),
        ]);
        symlink("../app/Dockerfile", place.path().join("docker/Linked")).unwrap();
        symlink("web.Dockerfile", place.path().join("docker/Beside")).unwrap();
        for (context, dockerfile, expected) in [
            ("app", "Dockerfile", "Dockerfile"),
            ("./app/", "./Dockerfile", "Dockerfile"),
            ("app", "../docker/web.Dockerfile", "web.Dockerfile"),
            (".", "docker/Beside", "Beside"),
            (".", "docker/Linked", "Dockerfile"),
        ] {
            let opened = BuildContext::open(place.path(), context, dockerfile).unwrap();
            assert_eq!(opened.dockerfile(), expected, "{dockerfile}");
        }
    }
}
