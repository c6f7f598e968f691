//! `roadstead run --local` for real: steps in containers, an image build, an interrupt, and what is left
//! of it all in Docker Engine and on disk.

#![expect(
    clippy::unwrap_used,
    reason = "a repository that cannot be made is a failed test"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The image that steps run in: a static busybox, nothing pulled. It stays for the next test.
fn base() -> &'static str {
    const NAME: &str = "roadstead-run-local-tests:1";
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        fs::copy("/bin/busybox", folder.path().join("busybox")).expect("a static busybox");
        let dockerfile = "FROM scratch\nCOPY busybox /bin/busybox\n\
                          RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";
        fs::write(folder.path().join("Dockerfile"), dockerfile).unwrap();
        let folder = folder.path().display().to_string();
        docker(&["build", "--quiet", "--tag", NAME, &folder]);
    });
    NAME
}

/// A repository with a pipeline, and a folder for the runs.
struct Place {
    repository: TempDir,
    data: TempDir,
    /// Of the images that it builds; of no other test's.
    image: String,
}

impl Place {
    fn new(steps: &str) -> Self {
        let place = Self {
            repository: tempfile::tempdir().unwrap(),
            data: tempfile::tempdir().unwrap(),
            image: format!("run-local-{:016x}", rand::random::<u64>()),
        };
        let git = Command::new("git")
            .args(["init", "--quiet", "--initial-branch=main"])
            .arg(place.root())
            .status()
            .unwrap();
        assert!(git.success());
        let steps = steps.replace("BASE", base()).replace("IMAGE", &place.image);
        place.write(
            ".roadstead/pipeline.yml",
            &format!("version: 1\nname: shop\n{steps}"),
        );
        place
    }

    fn root(&self) -> &Path {
        self.repository.path()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roadstead"));
        command
            .args(["run", "--local", "--data"])
            .arg(self.data.path())
            .args(arguments)
            .current_dir(self.root());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    fn start(&self) -> Child {
        let mut command = self.command(&[]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    fn label(&self) -> String {
        roadstead_runner::label(self.data.path())
            .unwrap()
            .expect("it ran")
    }

    /// Names of its containers.
    fn containers(&self) -> String {
        let filter = format!("label={}", self.label());
        docker(&["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"])
    }

    /// Waits for a container of its steps.
    fn runs(&self) {
        let until = Instant::now() + PATIENCE;
        while !self.data.path().join("instance.json").exists() || self.containers().is_empty() {
            assert!(Instant::now() < until, "no step began");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn assert_nothing_stays(&self) {
        assert_eq!(self.containers(), "");
        let label = self.label();
        let filter = format!("label={label}");
        assert_eq!(
            docker(&["network", "ls", "--quiet", "--filter", &filter]),
            ""
        );
        let (_, instance) = label.split_once('=').unwrap();
        let tags = docker(&["images", "--quiet", &format!("roadstead-build-{instance}")]);
        assert_eq!(tags, "");
        for folder in ["workspaces/local", "spool/local"] {
            assert!(!self.data.path().join(folder).exists(), "{folder} stays");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for tag in ["local", "local-staging", "local-production"] {
            let _ = Command::new("docker")
                .args(["image", "rm", "--force", &format!("{}:{tag}", self.image)])
                .output();
        }
    }
}

struct Ran {
    output: Output,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        Self {
            output,
            stdout,
            stderr,
        }
    }

    fn said(&self) -> String {
        format!("{:?}\n{}\n{}", self.output.status, self.stdout, self.stderr)
    }

    #[track_caller]
    fn ended(&self, status: i32) {
        assert_eq!(self.output.status.code(), Some(status), "{}", self.said());
    }

    #[track_caller]
    fn shows(&self, line: &str) {
        assert!(
            self.stdout.lines().any(|it| it == line),
            "no `{line}`: {}",
            self.said()
        );
    }
}

#[test]
fn jobs_run_one_after_the_other_each_with_fresh_files() {
    let place = Place::new(
        "steps:\n  lint: { image: BASE, run: 'echo made > out' }\n  \
         test:\n    image: BASE\n    needs: [lint]\n    matrix: { db: [sqlite, postgres] }\n    run: |\n      \
         echo \"on $MATRIX_DB\"\n      test ! -e out\n      test \"$MATRIX_DB\" = sqlite\n  \
         bench: { image: BASE, run: 'echo benched', runs_on: [gpu], needs: [lint] }\n  \
         told: { image: BASE, run: 'echo told', needs: [test] }\n",
    );
    place.write("file", "x");
    let ran = place.run(&[]);
    ran.ended(1);
    ran.shows("test-sqlite | on sqlite");
    ran.shows("test-postgres | on postgres");
    ran.shows("bench | benched");
    ran.shows("job default-2 is not run: job test-postgres, which it needs, did not succeed");
    assert!(!ran.stdout.contains("| told"), "{}", ran.said());
    let mut lines = ran.stdout.lines();
    let well = lines.any(|line| line.starts_with("test-sqlite | succeeded after "));
    assert!(well, "{}", ran.said());
    assert!(
        ran.stderr.contains("step `test-postgres` failed"),
        "{}",
        ran.said()
    );
    place.assert_nothing_stays();
    // The name of a step with a matrix stands for its combinations, with what they need and nothing else.
    let ran = place.run(&["test"]);
    ran.ended(1);
    ran.shows("job test-sqlite");
    ran.shows("job default");
    assert!(!ran.stdout.contains("bench"), "{}", ran.said());
}

#[test]
fn a_job_gets_the_artifacts_that_an_earlier_one_left() {
    let place = Place::new(
        "steps:\n  build:\n    image: BASE\n    runs_on: [big]\n    artifacts: [\"dist/**\"]\n    \
         run: mkdir -p dist/deep && echo hello > dist/deep/app && ln -s /etc/passwd dist/link\n  \
         none: { image: BASE, runs_on: [big], artifacts: [x], run: echo }\n  \
         told:\n    image: BASE\n    needs: [build, none]\n    artifacts_from: [build, none]\n    \
         run: cat dist/deep/app && ls dist\n  \
         kept: { image: BASE, artifacts: [\"*.txt\"], run: echo x > a.txt }\n",
    );
    let ran = place.run(&[]);
    ran.ended(0);
    let said = |line: &str| assert!(ran.stdout.contains(line), "{line}: {}", ran.said());
    said("artifacts: 1 files kept, 6 bytes");
    said("artifacts: 1 files of step build, 6 bytes");
    said("artifacts: step none has left none");
    said("hello");
    said("artifacts: 1 files, which a run on this machine leaves out");
    assert!(!ran.stdout.contains("link"), "{}", ran.said());
    place.assert_nothing_stays();
    assert!(!place.data.path().join("artifacts").exists());
}

#[test]
fn an_image_is_built_with_the_artifacts_of_an_earlier_job() {
    let place = Place::new(
        "images:\n  app: { repository: IMAGE }\n\
         steps:\n  make: { image: BASE, runs_on: [big], artifacts: [out], run: echo made > out }\n  \
         image: { build: [app], needs: [make], artifacts_from: [make] }\n",
    );
    place.write("out", "as the commit has it");
    place.write("Dockerfile", &format!("FROM {}\nCOPY out /out\n", base()));
    place.run(&[]).ended(0);
    let image = format!("{}:local", place.image);
    let said = docker(&["run", "--rm", &image, "/bin/cat", "/out"]);
    assert_eq!(said, "made");
    place.assert_nothing_stays();
}

#[test]
fn every_variant_of_an_image_is_built_with_what_is_its_own() {
    let place = Place::new(
        "images:\n  web:\n    repository: IMAGE\n    args: { API: none, MODE: fast }\n    args_by_environment: { \
         staging: { API: a }, production: { API: b } }\n    dockerfile_by_environment: { production: \
         Dockerfile.production }\nservices:\n  web: { image: web, variants: trusted }\nenvironments:\n  \
         staging: { ecs: { cluster: staging, service: web } }\n  production: { after: staging, ecs: { \
         cluster: production, service: web } }\n",
    );
    let dockerfile = |word: &str| {
        format!(
            "FROM {}\nARG API\nARG MODE\nRUN echo {word} $API $MODE > /out\n",
            base()
        )
    };
    place.write("Dockerfile", &dockerfile("common"));
    place.write("Dockerfile.production", &dockerfile("own"));
    let ran = place.run(&[]);
    ran.ended(0);
    for (environment, said) in [("staging", "common a fast"), ("production", "own b fast")] {
        let image = format!("{}:local-{environment}", place.image);
        let id = docker(&["image", "inspect", "--format", "{{.Id}}", &image]);
        ran.shows(&format!("image {environment}/web: {image} ({id})"));
        assert_eq!(docker(&["run", "--rm", &image, "/bin/cat", "/out"]), said);
    }
    let plain = format!("{}:local", place.image);
    let found = docker(&["images", "--quiet", &plain]);
    assert_eq!(found, "", "no environment gets the plain image");
    let ran = place.run(&["--environment", "staging"]);
    ran.ended(0);
    assert!(!ran.stdout.contains("production/web"), "{}", ran.said());
    place.assert_nothing_stays();
}

#[test]
fn steps_get_the_working_tree_and_its_variables_and_images_stay() {
    let place = Place::new(
        "images:\n  app: { repository: IMAGE, args: { WORD: hello } }\n\
         steps:\n  make:\n    image: BASE\n    env: { OWN: step }\n    run: |\n      \
         echo \"file $(cat file)\"\n      ls\n      echo \"$OWN $SHARED $ROADSTEAD_RUN $ROADSTEAD_PROJECT\"\n      \
         echo made > out\n      echo harm > file\n  \
         image:\n    build: [app]\n    needs: [make]\n",
    );
    place.write("file", "from the working tree");
    place.write(".gitignore", "ignored\nenv/local.env\n");
    place.write("ignored", "x");
    place.write("env/local.env", "OWN=file\nSHARED=local\n");
    place.write(
        "Dockerfile",
        &format!(
            "FROM {}\nARG WORD\nCOPY out /out\nRUN echo $WORD >> /out\n",
            base()
        ),
    );
    let ran = place.run(&[]);
    ran.ended(0);
    ran.shows("make  | file from the working tree");
    ran.shows("make  | step local local shop");
    assert!(!ran.stdout.contains("| ignored"), "{}", ran.said());
    assert!(
        ran.stdout.contains("make  | succeeded after "),
        "{}",
        ran.said()
    );
    assert!(
        !ran.stdout.contains('\u{1b}'),
        "colours without a terminal: {}",
        ran.said()
    );

    let image = format!("{}:local", place.image);
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", &image]);
    ran.shows(&format!("image app: {image} ({id})"));
    assert_eq!(
        docker(&["run", "--rm", &image, "/bin/cat", "/out"]),
        "made\nhello"
    );
    let file = fs::read_to_string(place.root().join("file")).unwrap();
    assert_eq!(
        file, "from the working tree",
        "a step changed what somebody works on"
    );
    assert!(!place.root().join("out").exists());
    place.assert_nothing_stays();
}

#[test]
fn a_failed_step_ends_it_and_what_needs_it_does_not_run() {
    let place = Place::new(
        "steps:\n  bad: { image: BASE, run: \"echo before; exit 7\" }\n  \
         after: { image: BASE, run: \"echo after\", needs: [bad] }\n  \
         beside: { image: BASE, run: \"echo beside\" }\n",
    );
    let ran = place.run(&[]);
    ran.ended(1);
    ran.shows("bad    | before");
    ran.shows("beside | beside");
    ran.shows("after  | did not run: a step that it needs did not succeed");
    assert!(!ran.stdout.contains("after  | after"), "{}", ran.said());
    let why = "step `bad` failed: the step's commands ended with exit status 7";
    assert!(ran.stderr.contains(why), "{}", ran.said());
    place.assert_nothing_stays();

    let one = place.run(&["beside"]);
    one.ended(0);
    assert!(!one.stdout.contains("before"), "{}", one.said());
    let unknown = place.run(&["besides"]);
    unknown.ended(1);
    assert!(
        unknown.stderr.contains("did you mean `beside`?"),
        "{}",
        unknown.said()
    );
}

#[test]
fn a_step_is_tried_again_and_one_that_is_for_tags_is_left_out_unless_it_is_named() {
    let place = Place::new(
        "steps:\n  flaky: { image: BASE, retry: 2, run: \"echo try >> tries; [ $(wc -l < tries) = 2 ]\" }\n  \
         publish: { image: BASE, run: \"echo publishes\", when: { tags: [v1] } }\n  \
         after: { image: BASE, run: \"cat tries\", needs: [publish, flaky] }\n",
    );
    let ran = place.run(&[]);
    ran.ended(0);
    ran.shows("flaky | the step's commands ended with exit status 1; 2nd try of 3");
    ran.shows("after | try");
    assert!(
        ran.stdout
            .contains("step publish is left out: it is for tags"),
        "{}",
        ran.said()
    );
    assert!(!ran.stdout.contains("publishes"), "{}", ran.said());
    let named = place.run(&["publish"]);
    named.ended(0);
    named.shows("publish | publishes");
    place.assert_nothing_stays();
}

#[test]
fn steps_run_side_by_side_with_their_own_sidecars_and_no_more_rights_than_on_a_runner() {
    let place = Place::new(
        "steps:\n  one: { image: BASE, run: \"nc -l -p 1 & sleep 3; grep NoNewPrivs /proc/self/status\" }\n  \
         two:\n    image: BASE\n    run: |\n      for _ in 1 2 3 4 5 6 7 8 9 10; do\n        \
         wget -q -O - http://web:8000/word && exit 0\n        sleep 0.5\n      done\n      exit 1\n    \
         sidecars:\n      web: { image: BASE, command: [/bin/sh, -c, \"echo hi > /word; httpd -f -p 8000 -h /\"] }\n",
    );
    let ran = place.run(&[]);
    ran.ended(0);
    ran.shows("one | NoNewPrivs:\t1");
    ran.shows("two | hi");
    let place_of = |word| ran.stdout.find(word).unwrap();
    assert!(
        place_of("two | hi") < place_of("one | NoNewPrivs"),
        "{}",
        ran.said()
    );
    place.assert_nothing_stays();
}

#[test]
fn an_interrupt_stops_the_steps_and_clears_everything_away() {
    let place = Place::new(
        "steps:\n  long:\n    image: BASE\n    run: \"trap 'echo stopping; exit 0' TERM; echo begun; \
         sleep 600 & wait\"\n  next: { image: BASE, run: \"true\", needs: [long] }\n",
    );
    let mut child = place.start();
    // Once the step's shell has set its trap.
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut shown = String::new();
    while !shown.contains("long | begun") {
        assert_ne!(lines.read_line(&mut shown).unwrap(), 0, "{shown}");
    }
    let pid = child.id().to_string();
    let interrupted = Command::new("kill").args(["-INT", &pid]).status();
    assert!(interrupted.unwrap().success());
    lines.read_to_string(&mut shown).unwrap();
    let ran = Ran::of(Output {
        stdout: shown.into_bytes(),
        ..child.wait_with_output().unwrap()
    });
    ran.ended(3);
    ran.shows("long | stopping");
    assert!(!ran.stdout.contains("next | succeeded"), "{}", ran.said());
    place.assert_nothing_stays();
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next_and_two_at_once_are_refused() {
    let place = Place::new(
        "steps:\n  long: { image: BASE, run: \"echo x > file; test -e quick || sleep 600\" }\n",
    );
    let mut child = place.start();
    place.runs();
    let second = place.run(&[]);
    second.ended(1);
    assert!(
        second.stderr.contains("is run by another process already"),
        "{}",
        second.said()
    );
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert_ne!(place.containers(), "", "nothing was left to remove");
    place.write("quick", "");
    place.run(&[]).ended(0);
    place.assert_nothing_stays();
}

/// Steps run as root in their containers, and the person who runs them most often is not.
#[test]
fn files_of_root_are_removed_for_somebody_who_is_not() {
    let place = Place::new(
        "steps:\n  make: { image: BASE, run: \"mkdir -p a/b; echo x > a/b/c; chmod 700 a\" }\n",
    );
    let mut command = place.command(&[]);
    let tools = tempfile::tempdir().unwrap();
    // Whoever is somebody else already has this test in all the others.
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        const NOBODY: u32 = 65534;
        let may_use_docker = fs::metadata("/var/run/docker.sock").unwrap().gid();
        let folders = [place.root(), place.data.path(), tools.path()];
        for folder in folders {
            let owner = Command::new("chown")
                .arg("-R")
                .arg(NOBODY.to_string())
                .arg(folder)
                .status();
            assert!(owner.unwrap().success());
        }
        // Where it was built may be root's alone.
        let binary = tools.path().join("roadstead");
        fs::copy(env!("CARGO_BIN_EXE_roadstead"), &binary).unwrap();
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        command = Command::new(binary);
        command
            .args(arguments)
            .current_dir(place.root())
            .env("HOME", place.data.path())
            .uid(NOBODY)
            .gid(may_use_docker);
    }
    Ran::of(command.output().unwrap()).ended(0);
    place.assert_nothing_stays();
}

#[test]
fn what_cannot_run_says_why_and_what_to_do() {
    let nowhere = tempfile::tempdir().unwrap();
    let run = |folder: &Path, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roadstead"));
        Ran::of(
            command
                .args(arguments)
                .current_dir(folder)
                .output()
                .unwrap(),
        )
    };
    let ran = run(nowhere.path(), &["run", "--local"]);
    ran.ended(1);
    assert!(
        ran.stderr.contains("begin with `git init`"),
        "{}",
        ran.said()
    );
    let ran = run(nowhere.path(), &["run"]);
    ran.ended(2);
    assert!(ran.stderr.contains("--local"), "{}", ran.said());

    let place = Place::new("steps:\n  a: { image: BASE, run: \"true\", need: [b] }\n");
    let ran = place.run(&[]);
    ran.ended(1);
    assert!(
        ran.stderr.contains("did you mean `needs`?"),
        "{}",
        ran.said()
    );
    fs::remove_file(place.root().join(".roadstead/pipeline.yml")).unwrap();
    let ran = place.run(&[]);
    ran.ended(1);
    assert!(
        ran.stderr.contains("`roadstead init` writes a first one"),
        "{}",
        ran.said()
    );
    place.write(
        ".roadstead/pipeline.yml",
        "version: 1\nname: a\nsteps: { a: { image: b, run: c } }\n",
    );
    place.write("env/local.env", "nothing\n");
    let ran = place.run(&[]);
    ran.ended(1);
    assert!(
        ran.stderr.contains("local.env:1:1: this line sets nothing"),
        "{}",
        ran.said()
    );
}
