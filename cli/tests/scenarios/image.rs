//! The image of all tasks: one static busybox, and two answers about one's health.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::{Command, Stdio};

/// Its name in Docker Engine; the same for all tests of this process, which share it.
pub(crate) const NAME: &str = "roadstead-scenarios:1";

const WELL: &str = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\nwell\\n'\n";
const ILL: &str = "#!/bin/sh\nprintf 'HTTP/1.0 500 Internal Server Error\\r\\n\\r\\nill\\n'\n";

/// The label that says what the image was made of.
const CONTENT: &str = "roadstead.content";

/// Imports the image, unless it is there: each import would leave the one before without a name. Many
/// processes may do so at once: what they import is the same.
pub(crate) fn make() {
    let mut archive = tar::Builder::new(Vec::new());
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut file = |path: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content).unwrap();
    };
    file("bin/busybox", &busybox);
    file("www/cgi-bin/health", WELL.as_bytes());
    file("ill/cgi-bin/health", ILL.as_bytes());
    for program in ["sh", "httpd", "sleep", "true", "false", "tail", "printf"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        let path = format!("bin/{program}");
        archive.append_link(&mut header, path, "busybox").unwrap();
    }
    // What reads it may name it.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Char);
    header.set_mode(0o666);
    header.set_size(0);
    header.set_device_major(1).unwrap();
    header.set_device_minor(5).unwrap();
    header.set_cksum();
    archive
        .append_data(&mut header, "dev/zero", std::io::empty())
        .unwrap();
    let archive = archive.into_inner().unwrap();
    let mut content = DefaultHasher::new();
    archive.hash(&mut content);
    let content = format!("{:016x}", content.finish());
    let format = format!("{{{{index .Config.Labels \"{CONTENT}\"}}}}");
    let known = Command::new("docker")
        .args(["image", "inspect", "--format", &format, NAME])
        .output()
        .expect("docker is installed");
    if known.status.success() && known.stdout.trim_ascii() == content.as_bytes() {
        return;
    }
    let mut import = Command::new("docker")
        .args(["import", "--change", "ENV PATH=/bin"])
        .args(["--change", &format!("LABEL {CONTENT}={content}")])
        .args(["-", NAME])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("docker is installed");
    std::io::Write::write_all(&mut import.stdin.take().unwrap(), &archive).unwrap();
    assert!(import.wait().unwrap().success(), "docker import failed");
}
