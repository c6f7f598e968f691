//! Pythons that have AWS clients which nobody here wrote.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The version of boto3 that the stories were written for.
const BOTO3: &str = "boto3==1.44.8";

pub(crate) fn check(what: &str, output: &Output) {
    assert!(
        output.status.success(),
        "{what} failed with {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

/// A Python that has boto3.
pub(crate) fn python() -> PathBuf {
    environment(BOTO3)
}

/// A Python that has that package, made once per target directory; several test processes may ask
/// at the same time.
pub(crate) fn environment(package: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(root).expect("the target directory can be written");
    let lock = File::create(root.join(format!("{package}.lock"))).expect("a lock file");
    lock.lock().expect("the lock");
    let environment = root.join(package);
    let python = environment.join("bin/python");
    let complete = environment.join("complete");
    if !complete.exists() {
        let made = Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&environment)
            .output()
            .expect("python3 with venv is installed");
        check("python3 -m venv", &made);
        let installed = Command::new(&python)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                package,
            ])
            .output()
            .expect("pip starts");
        check("pip install", &installed);
        std::fs::write(&complete, "").expect("the mark can be written");
    }
    python
}
