//! Images that stand in for those that people pull, made of this machine's own files: nothing is
//! downloaded. Each keeps the promises of the one it stands for: ports, volumes, variables, and
//! commands that health checks call.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::project::search_path;

/// Files of the C library that programs ask for by name at run time, where it still has them.
const ASKED_FOR_LATER: [&str; 2] = ["libnss_files.so.2", "libnss_dns.so.2"];

/// The official image starts like this, too: once it makes a database of these names, then it serves.
const POSTGRES_START: &str = r#"#!/bin/sh
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  printf '%s' "$POSTGRES_PASSWORD" >/tmp/password
  initdb --pgdata="$PGDATA" --username="$POSTGRES_USER" --pwfile=/tmp/password \
    --auth=scram-sha-256 --encoding=UTF8 --locale=C --no-sync
  rm /tmp/password
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
  echo "CREATE DATABASE \"$POSTGRES_DB\"" | postgres --single -D "$PGDATA" postgres >/dev/null
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp
"#;

const REGISTRY_CONFIGURATION: &str = "\
version: 0.1
storage:
  filesystem: { rootdirectory: /var/lib/registry }
http: { addr: ':5000' }
";

/// An image's files on their way into Docker Engine.
struct Image {
    name: String,
    import: Child,
    files: tar::Builder<ChildStdin>,
    there: BTreeSet<PathBuf>,
}

impl Image {
    /// Begins one with a shell and its tools; `settings` are lines of a Dockerfile.
    fn begin(name: &str, settings: &[&str]) -> Self {
        let mut command = Command::new("docker");
        command.arg("import");
        for setting in settings {
            command.args(["--change", setting]);
        }
        let mut import = command
            .args(["-", name])
            .env("PATH", search_path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let files = tar::Builder::new(import.stdin.take().unwrap());
        let mut image = Self {
            name: name.to_owned(),
            import,
            files,
            there: BTreeSet::new(),
        };
        image.folder("/tmp", 0, 0o1777);
        image.text(
            "/etc/passwd",
            0o644,
            "root:x:0:0::/:/bin/sh\npostgres:x:999:999::/:/bin/sh\n",
        );
        image.text("/etc/group", 0o644, "root:x:0:\npostgres:x:999:\n");
        image.text("/etc/nsswitch.conf", 0o644, "hosts: files dns\n");
        image.file(Path::new("/bin/busybox"), "/bin/busybox");
        for applet in said("busybox", &["--list"]).lines() {
            image.link(&format!("/bin/{applet}"), "busybox");
        }
        image
    }

    fn append(&mut self, path: &str, mut header: tar::Header, content: impl std::io::Read) {
        if self.there.insert(path.into()) {
            header.set_mtime(0);
            self.files
                .append_data(&mut header, path.trim_start_matches('/'), content)
                .unwrap();
        }
    }

    fn folder(&mut self, path: &str, owner: u64, mode: u32) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        self.append(path, header, std::io::empty());
    }

    fn text(&mut self, path: &str, mode: u32, content: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        self.append(path, header, content.as_bytes());
    }

    /// A file of this machine, links followed.
    fn file(&mut self, from: &Path, to: &str) {
        let file = fs::File::open(from).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        let metadata = file.metadata().unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_metadata(&metadata);
        header.set_uid(0);
        header.set_gid(0);
        self.append(to, header, file);
    }

    fn link(&mut self, path: &str, target: &str) {
        if !self.there.insert(path.into()) {
            return;
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mtime(0);
        self.files
            .append_link(&mut header, path.trim_start_matches('/'), target)
            .unwrap();
    }

    /// Everything below a folder of this machine, at the same place.
    fn tree(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.tree(&path);
            } else {
                self.file(&path, &path.display().to_string());
            }
        }
    }

    /// The libraries that a program of this machine is loaded with, each at its place.
    fn libraries(&mut self, program: &Path) {
        let program = program.display().to_string();
        for line in said("ldd", &[&program]).lines() {
            // `name => /path (address)`, or the loader's `/path (address)`.
            let named = line.split("=>").last().unwrap_or(line).trim();
            let path = named.split(" (").next().unwrap_or(named);
            assert!(!named.starts_with("not found"), "{program} lacks {line}");
            if !path.starts_with('/') {
                continue;
            }
            self.file(Path::new(path), path);
            for later in ASKED_FOR_LATER {
                let beside = Path::new(path).with_file_name(later);
                if beside.is_file() {
                    self.file(&beside, &beside.display().to_string());
                }
            }
        }
    }

    /// A program with its libraries.
    fn program(&mut self, from: &Path, to: &str) {
        self.file(from, to);
        self.libraries(from);
    }

    fn finish(mut self) {
        let stdin = self.files.into_inner().unwrap();
        drop(stdin);
        let status = self.import.wait().unwrap();
        assert!(status.success(), "docker import of {}: {status}", self.name);
    }
}

/// What a program of this machine writes.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|e| panic!("{program} is missing ({e}): run `make setup`"));
    assert!(output.status.success(), "{program} {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Where a program of this machine is.
fn found(programs: &[&str]) -> PathBuf {
    let path = search_path();
    let mut all = programs
        .iter()
        .flat_map(|program| std::env::split_paths(&path).map(move |folder| folder.join(program)));
    all.find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("none of {programs:?} is there: run `make setup`"))
}

/// What `roadstead` runs on: its libraries, a shell, and the certificates of authorities.
pub(crate) fn runtime(name: &str, roadstead: &Path) {
    let mut image = Image::begin(name, &["CMD [\"/bin/sh\"]"]);
    image.libraries(roadstead);
    let certificates = "/etc/ssl/certs/ca-certificates.crt";
    image.file(Path::new(certificates), certificates);
    image.finish();
}

/// What the shop's image and its steps stand on; by itself it is an empty shop on port 8080.
pub(crate) fn shop_base(name: &str) {
    let command = r#"CMD ["/bin/httpd", "-f", "-p", "8080", "-h", "/www"]"#;
    let mut image = Image::begin(name, &[command]);
    image.text("/www/index.html", 0o644, "nothing is deployed here yet\n");
    image.finish();
}

/// For `registry`: port 5000, `REGISTRY_…` variables, images in /var/lib/registry.
pub(crate) fn registry(name: &str) {
    let mut image = Image::begin(
        name,
        &[
            r#"ENTRYPOINT ["/bin/registry", "serve"]"#,
            r#"CMD ["/etc/docker/registry/config.yml"]"#,
            "EXPOSE 5000",
            "VOLUME /var/lib/registry",
        ],
    );
    image.program(&found(&["docker-registry", "registry"]), "/bin/registry");
    image.text(
        "/etc/docker/registry/config.yml",
        0o644,
        REGISTRY_CONFIGURATION,
    );
    image.folder("/var/lib/registry", 0, 0o755);
    image.finish();
}

/// For `postgres`: port 5432, `POSTGRES_…` variables, rows in /var/lib/postgresql/data, no root.
pub(crate) fn postgres(name: &str) {
    let mut versions: Vec<u32> = fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is missing: run `make setup`")
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable();
    let version = versions.last().expect("there is a version");
    let home = PathBuf::from(format!("/usr/lib/postgresql/{version}"));
    let bin = home.join("bin");
    let path = format!("ENV PATH={}:/bin", bin.display());
    let mut image = Image::begin(
        name,
        &[
            r#"ENTRYPOINT ["/bin/start-postgres"]"#,
            &path,
            "ENV PGDATA=/var/lib/postgresql/data",
            "USER 999:999",
            "EXPOSE 5432",
            "VOLUME /var/lib/postgresql/data",
        ],
    );
    image.text("/bin/start-postgres", 0o755, POSTGRES_START);
    for program in ["postgres", "initdb", "pg_isready"] {
        let program = bin.join(program);
        image.program(&program, &program.display().to_string());
    }
    // What every new database has in it.
    for module in ["plpgsql.so", "dict_snowball.so"] {
        let module = home.join("lib").join(module);
        image.program(&module, &module.display().to_string());
    }
    image.tree(Path::new(&format!("/usr/share/postgresql/{version}")));
    for zone in ["/usr/share/zoneinfo/UTC", "/usr/share/zoneinfo/Etc/UTC"] {
        image.file(Path::new(zone), zone);
    }
    image.folder("/var/lib/postgresql/data", 999, 0o700);
    image.finish();
}
