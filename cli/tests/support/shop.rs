//! What tests of the whole product have around it: a base image for its shop, git, Docker Engine, ports.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What the base image is marked with, and so all images and containers that come of it.
pub(crate) const LABEL: &str = "roadstead.shop-test";

/// One static busybox that serves a folder. Gives the image's name.
pub(crate) fn base_image(folder: &Path, project: &str) -> String {
    let context = folder.join("base");
    fs::create_dir_all(context.join("www")).unwrap();
    fs::copy("/bin/busybox", context.join("busybox"))
        .expect("a static busybox is missing: run `make setup`");
    fs::write(context.join("www/index.html"), "nothing yet\n").unwrap();
    let dockerfile = format!(
        "FROM scratch\nLABEL {LABEL}={project}\nCOPY busybox /bin/busybox\n\
         RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nCOPY www /www\n\
         ENTRYPOINT [\"/bin/httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]\n"
    );
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let name = format!("roadstead-shop:{project}");
    docker(&[
        "build",
        "--quiet",
        "--tag",
        &name,
        &context.display().to_string(),
    ]);
    name
}

/// Removes what a story left that broke off, and its images in any case.
pub(crate) fn remove_all(project: &str) {
    let ours = format!("label={LABEL}={project}");
    let remove = |list: [&str; 3], remove: [&str; 3]| {
        let listed = Command::new("docker")
            .args(list)
            .args(["--filter", &ours])
            .output();
        let listed = listed.map_or(String::new(), |output| {
            String::from_utf8_lossy(&output.stdout).into_owned()
        });
        let found: Vec<_> = listed.split_whitespace().collect();
        if !found.is_empty() {
            drop(Command::new("docker").args(remove).args(found).output());
        }
    };
    remove(["ps", "--all", "--quiet"], ["rm", "--force", "--volumes"]);
    remove(["image", "ls", "--quiet"], ["image", "rm", "--force"]);
}

/// Ports that are free now, below those that the system hands out to whoever asks for any.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let mut held = vec![];
    let mut port = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    while held.len() < N {
        assert!(port < 32_000, "no {N} free ports");
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            held.push((port, listener));
        }
        port += 1;
    }
    std::array::from_fn(|index| held[index].0)
}

/// What it prints.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = run(Command::new("docker").args(arguments));
    String::from_utf8(output.stdout).unwrap()
}

/// What it complains of; with `--quiet`, nothing when all is well.
pub(crate) fn git(folder: &Path, arguments: &[&str]) -> String {
    let person = ["-c", "user.name=Maya", "-c", "user.email=maya@shop.example"];
    let output = run(Command::new("git")
        .args(person)
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null"));
    String::from_utf8(output.stderr).unwrap()
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output
}
