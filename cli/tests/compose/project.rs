//! One compose project of a test: its folder as a user would have it, its names and ports that are
//! nobody else's, and the end of everything that it made, however the test ends.

use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::stand_ins;

/// The files that a user has, too.
const FILES: [&str; 3] = ["docker-compose.yml", "Dockerfile", ".dockerignore"];

/// Programs of the distribution first: its `docker` builds with BuildKit, where another one may lack
/// the plugin for that.
pub(crate) fn search_path() -> OsString {
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let mut all = vec![PathBuf::from("/usr/bin")];
    all.extend(std::env::split_paths(&inherited));
    std::env::join_paths(all).unwrap()
}

pub(crate) fn repository_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Ports on 127.0.0.1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) postgres: u16,
    pub(crate) registry: u16,
    pub(crate) sandbox: u16,
    pub(crate) sandbox_registry: u16,
    pub(crate) server: u16,
    pub(crate) balancer: u16,
}

impl Ports {
    /// Free ones in a row. They are used only much later, so none is of those that the system gives
    /// to whoever asks for any port.
    fn find() -> Self {
        for _ in 0..200 {
            let first = rand::random_range(10_000..30_000);
            let all: Result<Vec<_>, _> = (first..first + 6)
                .map(|port| TcpListener::bind(("127.0.0.1", port)))
                .collect();
            if all.is_ok() {
                return Self {
                    postgres: first,
                    registry: first + 1,
                    sandbox: first + 2,
                    sandbox_registry: first + 3,
                    server: first + 4,
                    balancer: first + 5,
                };
            }
        }
        panic!("no six free ports in a row");
    }
}

/// The three secrets of `.env`.
#[derive(Debug, Clone)]
pub(crate) struct Secrets {
    pub(crate) postgres: String,
    pub(crate) admin: String,
    pub(crate) registration: String,
}

/// A compose project.
pub(crate) struct Project {
    pub(crate) name: String,
    pub(crate) ports: Ports,
    pub(crate) secrets: Secrets,
    folder: TempDir,
}

impl Project {
    /// Makes its folder and the stand-ins for the images that it pulls; nothing runs yet.
    pub(crate) fn new() -> Self {
        let secret = || format!("{:032x}", rand::random::<u128>());
        let project = Self {
            name: format!("roadstead-test-{:012x}", rand::random::<u64>() >> 16),
            ports: Ports::find(),
            secrets: Secrets {
                postgres: secret(),
                admin: secret(),
                registration: secret(),
            },
            folder: tempfile::tempdir().unwrap(),
        };
        let home = project.home();
        fs::create_dir_all(home.join("dist")).unwrap();
        for file in FILES {
            fs::copy(repository_root().join(file), home.join(file)).unwrap();
        }
        // Without symbols it is half the size on its way through the build.
        let binary = env!("CARGO_BIN_EXE_roadstead");
        let dist = home.join("dist/roadstead").display().to_string();
        project.run("strip", &["-o", &dist, binary]);

        stand_ins::runtime(&project.image("runtime"), Path::new(binary));
        stand_ins::shop_base(&project.image("shop-base"));
        stand_ins::registry(&project.image("registry"));
        stand_ins::postgres(&project.image("postgres"));
        project.write_environment();
        project
    }

    /// The folder with `docker-compose.yml`.
    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Room for what is no part of the product.
    pub(crate) fn outside(&self) -> &Path {
        self.folder.path()
    }

    fn runner_data(&self) -> PathBuf {
        self.folder.path().join("runner")
    }

    /// The name of an image of this test.
    pub(crate) fn image(&self, what: &str) -> String {
        format!("{}/{what}:1", self.name)
    }

    /// The example with its secrets filled in, and what is different here.
    fn write_environment(&self) {
        let example = fs::read_to_string(repository_root().join(".env.example")).unwrap();
        let Secrets {
            postgres,
            admin,
            registration,
        } = &self.secrets;
        let mut text = example;
        for (key, value) in [
            ("POSTGRES_PASSWORD", postgres),
            ("ROADSTEAD_ADMIN_PASSWORD", admin),
            ("ROADSTEAD_REGISTRATION_TOKEN", registration),
        ] {
            let empty = format!("\n{key}=\n");
            assert!(text.contains(&empty), ".env.example does not ask for {key}");
            text = text.replace(&empty, &format!("\n{key}={value}\n"));
        }
        let local = |port: u16| format!("127.0.0.1:{port}");
        let ports = self.ports;
        for (key, value) in [
            ("POSTGRES_IMAGE", self.image("postgres")),
            ("REGISTRY_IMAGE", self.image("registry")),
            ("ROADSTEAD_IMAGE", self.image("roadstead")),
            ("BASE_RUNTIME", self.image("runtime")),
            ("BINARY", "prebuilt".to_owned()),
            ("POSTGRES_PORT", ports.postgres.to_string()),
            ("REGISTRY_PORT", ports.registry.to_string()),
            ("SANDBOX_LISTEN", local(ports.sandbox)),
            ("SANDBOX_REGISTRY", local(ports.sandbox_registry)),
            ("SANDBOX_TIME_SCALE", "10".to_owned()),
            ("ROADSTEAD_LISTEN", local(ports.server)),
            (
                "ROADSTEAD_PUBLIC_URL",
                format!("http://{}", local(ports.server)),
            ),
            ("ROADSTEAD_CONFIG", "./roadstead.toml".to_owned()),
            ("RUNNER_DATA", self.runner_data().display().to_string()),
        ] {
            text.push_str(&format!("{key}={value}\n"));
        }
        fs::write(self.home().join(".env"), text).unwrap();
    }

    /// A command with nothing of this process's surroundings but where programs and Docker Engine are.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.home())
            .env_clear()
            .env("PATH", search_path())
            .env("HOME", self.folder.path())
            .env("DOCKER_BUILDKIT", "1")
            .stdin(Stdio::null());
        for kept in ["DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        command
    }

    fn try_run(&self, program: &str, arguments: &[&str]) -> Output {
        let output = self.command(program, arguments).output();
        output.unwrap_or_else(|e| panic!("{program} is missing ({e}): run `make setup`"))
    }

    /// Runs a command in the project's folder; what it wrote.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.try_run(program, arguments);
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// `docker-compose` with this project's name.
    pub(crate) fn compose(&self, arguments: &[&str]) -> String {
        let named = [&["--project-name", &self.name], arguments].concat();
        self.run("docker-compose", &named)
    }

    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        self.run("docker", arguments)
    }

    /// The status with which a service's stopped container ended.
    pub(crate) fn exit_status(&self, service: &str) -> String {
        let project = format!("label=com.docker.compose.project={}", self.name);
        let service = format!("label=com.docker.compose.service={service}");
        let id = self.docker(&["ps", "-aq", "--filter", &project, "--filter", &service]);
        self.docker(&[
            "inspect",
            "--format",
            "{{.State.Status}} {{.State.ExitCode}}",
            &id,
        ])
    }

    /// Labels of containers that sandbox and runner start: `roadstead.sandbox=…`. None as long as
    /// the part did not come up.
    pub(crate) fn labels_of_others(&self) -> Vec<String> {
        let sandbox = format!("{}_sandbox:/data:ro", self.name);
        let runner = format!("{}:/data:ro", self.runner_data().display());
        [("sandbox", sandbox), ("runner", runner)]
            .into_iter()
            .filter_map(|(part, volume)| {
                let image = self.image("shop-base");
                let read = ["run", "--rm", "--network=none", "--volume", &volume, &image];
                let read = [&read[..], &["cat", "/data/instance.json"]].concat();
                let output = self.try_run("docker", &read);
                let instance: String = serde_json::from_slice(&output.stdout).ok()?;
                Some(format!("roadstead.{part}={instance}"))
            })
            .collect()
    }

    /// Ends and removes everything. Says what could not be removed, and goes on.
    fn remove(&self) {
        let tell = |what: &[&str], output: &Output| {
            if !output.status.success() {
                eprintln!("{what:?}: {}", String::from_utf8_lossy(&output.stderr));
            }
        };
        let docker = |arguments: &[&str]| {
            let output = self.try_run("docker", arguments);
            tell(arguments, &output);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            said.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let remove = |kind: &[&str], which: Vec<String>| {
            let which: Vec<&str> = which.iter().map(String::as_str).collect();
            if !which.is_empty() {
                docker(&[kind, &which].concat());
            }
        };
        let labels = self.labels_of_others();
        let down = [
            "--project-name",
            &self.name,
            "down",
            "--volumes",
            "--remove-orphans",
        ];
        tell(&down, &self.try_run("docker-compose", &down));
        for label in labels {
            let filter = format!("label={label}");
            let containers = docker(&["ps", "--all", "--quiet", "--filter", &filter]);
            remove(&["rm", "--force", "--volumes"], containers);
            let networks = docker(&["network", "ls", "--quiet", "--filter", &filter]);
            remove(&["network", "rm"], networks);
        }
        // They belong to root, and the test may not be that.
        let volume = format!("{}:/data", self.folder.path().display());
        let shop_base = self.image("shop-base");
        docker(&[
            "run",
            "--rm",
            "--network=none",
            "--volume",
            &volume,
            &shop_base,
            "rm",
            "-rf",
            "/data/runner",
        ]);
        let pushed = format!("127.0.0.1:{}/*", self.ports.sandbox_registry);
        for reference in [pushed, format!("{}/*", self.name)] {
            let filter = format!("reference={reference}");
            let format = "{{.Repository}}:{{.Tag}}";
            let mut images = docker(&["images", "--filter", &filter, "--format", format]);
            images.retain(|image| !image.ends_with("<none>"));
            remove(&["rmi", "--force"], images);
            let rest = docker(&["images", "--quiet", "--filter", &filter]);
            remove(&["rmi", "--force"], rest);
        }
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for what in [&["ps"][..], &["logs", "--no-color", "--tail=200"]] {
                let output = [&["--project-name", &self.name], what].concat();
                let output = self.try_run("docker-compose", &output);
                eprintln!("{}", String::from_utf8_lossy(&output.stdout));
            }
        }
        self.remove();
    }
}
