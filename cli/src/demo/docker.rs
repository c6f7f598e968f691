//! Docker's command line: what the story builds and pushes by itself, and what is removed after it.

use anyhow::{Context, bail};
use std::path::Path;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Runs `docker` and gives what it printed.
///
/// # Errors
/// When it is missing or fails; the text is what it said.
pub(super) async fn docker(arguments: &[&str]) -> anyhow::Result<String> {
    run(&mut command(arguments), arguments, None).await
}

/// Pushes an image with a login of its own, which is kept in `folder` and not where the user's are.
///
/// # Errors
/// When the registry refuses user, password or image.
pub(super) async fn push(
    folder: &Path,
    name: &str,
    user: &str,
    password: &str,
) -> anyhow::Result<()> {
    let host = name.split('/').next().unwrap_or_default();
    let login = ["login", "--username", user, "--password-stdin", host];
    let push = ["push", "--quiet", name];
    for (arguments, input) in [(&login[..], Some(password)), (&push[..], None)] {
        let mut command = command(arguments);
        run(command.env("DOCKER_CONFIG", folder), arguments, input).await?;
    }
    Ok(())
}

/// Removes containers, networks and volumes with this label, `key=value`.
///
/// # Errors
/// When Docker Engine does not answer or does not remove one of them.
pub(super) async fn remove_labelled(label: &str) -> anyhow::Result<()> {
    let filter = format!("label={label}");
    let kinds: [(&[&str], &[&str]); 3] = [
        (
            &["container", "ls", "--all"],
            &["container", "rm", "--force", "--volumes"],
        ),
        (&["network", "ls"], &["network", "rm"]),
        (&["volume", "ls"], &["volume", "rm"]),
    ];
    for (list, remove) in kinds {
        let list = [list, &["--quiet", "--filter", &filter][..]].concat();
        let found = docker(&list).await?;
        let found: Vec<_> = found.lines().collect();
        if !found.is_empty() {
            docker(&[remove, &found[..]].concat()).await?;
        }
    }
    Ok(())
}

/// Removes the names of all images of a repository, and with its last name each image.
///
/// # Errors
/// When Docker Engine does not answer, or a container still runs on one of them.
pub(super) async fn remove_images(repository: &str) -> anyhow::Result<()> {
    let filter = format!("reference={repository}");
    let format = "{{.Tag}} {{.Digest}}";
    let list = ["image", "ls", "--digests", "--filter", &filter];
    let listed = docker(&[&list[..], &["--format", format]].concat()).await?;
    let mut names: Vec<_> = listed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .flat_map(|(tag, digest)| [(':', tag), ('@', digest)])
        .filter(|(_, name)| *name != "<none>")
        .map(|(mark, name)| format!("{repository}{mark}{name}"))
        .collect();
    names.sort();
    names.dedup();
    for name in names {
        match docker(&["image", "rm", &name]).await {
            Err(error) if !format!("{error:#}").contains("No such image") => return Err(error),
            // An image takes its digests with its last tag.
            _ => {}
        }
    }
    Ok(())
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    // A story that is asked to stop waits for none of these.
    command.args(arguments).kill_on_drop(true);
    command
}

async fn run(
    command: &mut Command,
    arguments: &[&str],
    input: Option<&str>,
) -> anyhow::Result<String> {
    let mut child = command
        .stdin(input.map_or_else(Stdio::null, |_| Stdio::piped()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("docker is missing: run `make setup`")?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // One that does not read it says why.
        drop(stdin.write_all(input.as_bytes()).await);
    }
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("docker {}: {said}", arguments.first().unwrap_or(&""));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
