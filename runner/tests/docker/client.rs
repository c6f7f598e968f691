//! Docker's own client, to compare with.

use std::process::Command;

/// Docker's own client, where it can build with BuildKit.
pub(crate) fn docker_client() -> &'static str {
    let can_build = |client: &&str| {
        let version = Command::new(client)
            .args(["version", "--format", "{{.Client.Version}}"])
            .output();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let major = version.ok().and_then(|version| {
            let (major, _) = version.split_once('.')?;
            major.parse::<u32>().ok()
        });
        // Later ones need a plugin.
        let plugin = Command::new(client).args(["buildx", "version"]).output();
        major.is_some_and(|major| major < 23) || plugin.is_ok_and(|output| output.status.success())
    };
    let mut clients = ["docker", "/usr/bin/docker"].into_iter();
    clients
        .find(can_build)
        .expect("docker's client can build with BuildKit")
}
