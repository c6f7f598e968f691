//! Where the files of one image's build lie.

use super::files::{self, Moments, Packets, Wanted};
use anyhow::{Context, bail};
use bollard::grpc::build::fsutil::types::Packet;
use cap_std::{ambient_authority, fs::Dir};
use std::io::Read as _;
use std::path::Path;
use tempfile::TempDir;
use tonic::{Status, Streaming};

/// What BuildKit calls the folders that it asks for.
const CONTEXT: &str = "context";
const DOCKERFILE: &str = "dockerfile";
/// Bytes of a Dockerfile of a fork, and of the file of patterns beside it: more is nothing that a person wrote.
const LARGEST_OF_FORK: u64 = 1 << 20;

/// A context that was looked at and can be asked for.
#[derive(Debug)]
pub(crate) struct BuildContext {
    folder: Dir,
    dockerfile_folder: Dir,
    dockerfile: String,
    /// Where `dockerfile_folder` is when it was taken out of the workspace.
    taken: Option<TempDir>,
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
            taken: None,
        })
    }

    /// The same with its Dockerfile as it is now, whatever a step beside it still makes of it, and for BuildKit's own
    /// frontend alone: another one decides what is mounted, what others keep among it.
    ///
    /// # Errors
    /// A Dockerfile that cannot be read, is larger than 1 MiB or names a frontend: messages are for the person who
    /// wrote it.
    pub(crate) fn without_frontend(mut self) -> anyhow::Result<Self> {
        let taken = tempfile::tempdir().context("cannot keep the Dockerfile")?;
        let dockerfile = small(&self.dockerfile_folder, &self.dockerfile)?;
        if brings_frontend(&String::from_utf8_lossy(&dockerfile)) {
            bail!("its Dockerfile names a frontend (`# syntax=`), which none of a fork may");
        }
        std::fs::write(taken.path().join(&self.dockerfile), dockerfile)?;
        let ignored = format!("{}.dockerignore", self.dockerfile);
        if self.dockerfile_folder.metadata(&ignored).is_ok() {
            let patterns = small(&self.dockerfile_folder, &ignored)?;
            std::fs::write(taken.path().join(ignored), patterns)?;
        }
        self.dockerfile_folder = Dir::open_ambient_dir(taken.path(), ambient_authority())?;
        self.taken = Some(taken);
        Ok(self)
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

/// The content of a file of a fork.
fn small(folder: &Dir, name: &str) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    files::open(folder, name)
        .and_then(|file| file.take(LARGEST_OF_FORK + 1).read_to_end(&mut text))
        .with_context(|| format!("cannot read `{name}`"))?;
    if text.len() as u64 > LARGEST_OF_FORK {
        bail!("`{name}` is larger than 1 MiB, which none of a fork may be");
    }
    Ok(text)
}

/// Whether a `syntax` directive stands before the first instruction, in one of the forms that any BuildKit takes it in:
/// `# syntax=…`, `// syntax=…`, `{"syntax": …}`.
fn brings_frontend(dockerfile: &str) -> bool {
    let text = dockerfile.trim_start_matches('\u{feff}').trim_start();
    let directive = |line: &str| {
        let said = line.trim_start_matches(['#', '/']).trim_start();
        let key = said.split('=').next().unwrap_or_default().trim_end();
        said.contains('=') && key.eq_ignore_ascii_case("syntax")
    };
    let head = text.lines().map(str::trim);
    let mut head =
        head.take_while(|line| line.is_empty() || line.starts_with('#') || line.starts_with("//"));
    text.starts_with('{') || head.any(directive)
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
    fn a_frontend_of_its_own_is_seen_in_each_of_its_forms() {
        for text in [
            "# syntax=docker/dockerfile:1\nFROM scratch\n",
            "#syntax = evil/frontend\nFROM scratch\n",
            "\u{feff}# escape=`\n\n#\tSYNTAX=x\nFROM scratch\n",
            "#!/usr/bin/env x\n// syntax=x\nFROM scratch\n",
            "{\"syntax\": \"x\"}",
        ] {
            assert!(brings_frontend(text), "{text}");
        }
        for text in [
            "FROM scratch\n# syntax=docker/dockerfile:1\n",
            "# escape=`\n# The syntax of it.\n# syntaxes=x\nFROM scratch\n",
            "",
        ] {
            assert!(!brings_frontend(text), "{text}");
        }
    }

    #[test]
    fn what_is_looked_at_is_what_is_built() {
        let place = workspace(&[
            ("app/Dockerfile", "FROM scratch\n"),
            ("app/Dockerfile.dockerignore", "*.tmp\n"),
            ("app/Own", "# syntax=x\nFROM scratch\n"),
            ("app/Huge", &format!("#{}\n", "x".repeat(1 << 20))),
        ]);
        let open = |name| BuildContext::open(place.path(), "app", name).unwrap();
        let taken = open("Dockerfile").without_frontend().unwrap();
        let path = place.path().join("app/Dockerfile");
        std::fs::write(path, "# syntax=x\nFROM scratch\n").unwrap();
        let now = |name| taken.dockerfile_folder.read_to_string(name).unwrap();
        assert_eq!(now(taken.dockerfile()), "FROM scratch\n");
        assert_eq!(now("Dockerfile.dockerignore"), "*.tmp\n");
        for (name, reason) in [
            ("Dockerfile", "names a frontend"),
            ("Own", "names a frontend"),
            ("Huge", "larger than 1 MiB"),
        ] {
            let error = open(name).without_frontend().unwrap_err();
            assert!(error.to_string().contains(reason), "{name}: {error:#}");
        }
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
