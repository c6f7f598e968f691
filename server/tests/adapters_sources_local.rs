//! Mirrors of repositories on the same machine, whose files are taken as they are.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has to stop")]

use futures_util::TryStreamExt;
use roadstead_pipelines::id::{CommitSha, ProjectName};
use roadstead_server::adapters::sources::{Pack, Remote, Sources, SourcesError};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

const MAIN: &str = "refs/heads/main";

fn git(folder: &Path, arguments: &[&str]) -> String {
    git_reading(folder, arguments, Stdio::null())
}

fn git_reading(folder: &Path, arguments: &[&str], input: impl Into<Stdio>) -> String {
    let output = Command::new("git")
        .stdin(input)
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org"])
        .args(["-c", "init.defaultBranch=main", "-c", "gc.auto=0"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "git {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A work tree, and a server's data folder beside it.
struct World {
    folder: TempDir,
    sources: Sources,
    project: ProjectName,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("work")).unwrap();
        git(&folder.path().join("work"), &["init", "--quiet"]);
        Self {
            sources: Sources::new(&folder.path().join("data")),
            project: ProjectName::parse("shop").unwrap(),
            folder,
        }
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn only_pack(&self) -> PathBuf {
        let folder = self.work().join(".git/objects/pack");
        let files = fs::read_dir(folder).unwrap();
        let mut packs = files
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "pack"));
        let pack = packs.next().unwrap();
        assert_eq!(packs.next(), None);
        pack
    }

    fn mirror(&self) -> PathBuf {
        self.folder.path().join("data/mirrors/shop")
    }

    fn commit(&self, content: &str) -> CommitSha {
        fs::create_dir_all(self.work().join("src")).unwrap();
        fs::write(self.work().join("src/a"), content).unwrap();
        git(&self.work(), &["add", "--all"]);
        git(&self.work(), &["commit", "--quiet", "-m", "Go on"]);
        CommitSha::parse(&git(&self.work(), &["rev-parse", "HEAD"])).unwrap()
    }

    async fn fetch_from(&self, folder: &Path, commit: &CommitSha) {
        let remote = Remote {
            address: folder.to_str().unwrap().to_owned(),
            username: None,
            password: None,
        };
        self.sources
            .fetch(&self.project, &remote, commit, MAIN)
            .await
            .unwrap();
    }

    async fn content(&self, commit: &CommitSha) -> String {
        let read = self
            .sources
            .read_blob(&self.project, commit, "src/a", 1000)
            .await;
        String::from_utf8(read.unwrap()).unwrap()
    }
}

async fn all(pack: Pack) -> Vec<u8> {
    let pieces: Vec<_> = pack.try_collect().await.unwrap();
    pieces.concat()
}

/// Bytes that no compression makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

#[tokio::test]
async fn a_pack_reaches_the_mirror_and_a_runner_byte_by_byte() {
    let world = World::new();
    fs::write(world.work().join("large"), noise(2 << 20)).unwrap();
    let first = world.commit("packed");
    git(&world.work(), &["repack", "-a", "-d", "--quiet"]);
    let pack = world.only_pack();
    world.fetch_from(&world.work(), &first).await;
    assert_eq!(world.content(&first).await, "packed");

    // What comes loose afterwards is taken too, and the mirror's own branch follows.
    let second = world.commit("loose");
    world.fetch_from(&world.work(), &second).await;
    assert_eq!(world.content(&second).await, "loose");
    let tip = git(&world.mirror(), &["rev-parse", MAIN]);
    assert_eq!(tip, second.as_str());
    git(&world.mirror(), &["fsck", "--strict"]);

    let stored = world.sources.stored_pack(&world.project).await.unwrap();
    let stored = stored.expect("it is large enough to be sent as it is");
    let name = pack.file_stem().unwrap().to_str().unwrap();
    assert_eq!(name, format!("pack-{}", stored.name.as_str()));
    let sent = all(stored.pack).await;
    let (index, body) = sent.split_at(usize::try_from(stored.index_bytes).unwrap());
    assert!(body == fs::read(&pack).unwrap());
    assert!(index == fs::read(pack.with_extension("idx")).unwrap());

    // With that alone the second commit is not whole; with what is sent beside it, it is.
    let beside = world
        .sources
        .pack_beside(&world.project, &second, &stored.name)
        .await
        .unwrap();
    let beside = all(beside).await;
    assert!(beside.len() < 2000, "{} bytes", beside.len());
    let runner = world.folder.path().join("runner.git");
    git(
        world.folder.path(),
        &["init", "--quiet", "--bare", "runner.git"],
    );
    let packs = runner.join("objects/pack");
    fs::write(packs.join(format!("{name}.pack")), body).unwrap();
    fs::write(packs.join(format!("{name}.idx")), index).unwrap();
    let file = world.folder.path().join("beside.pack");
    fs::write(&file, beside).unwrap();
    let beside = fs::File::open(&file).unwrap();
    git_reading(&runner, &["unpack-objects", "-q", "--strict"], beside);
    let changed = git(&runner, &["cat-file", "blob", &format!("{second}:src/a")]);
    let large = git(&runner, &["cat-file", "-s", &format!("{second}:large")]);
    assert_eq!((changed.as_str(), large.as_str()), ("loose", "2097152"));
}

#[tokio::test]
async fn a_mirror_outlives_the_repository_that_it_was_taken_from() {
    let world = World::new();
    let commit = world.commit("kept");
    world.fetch_from(&world.work(), &commit).await;
    fs::remove_dir_all(world.work()).unwrap();
    assert_eq!(world.content(&commit).await, "kept");
}

/// The commit, and not what belongs to it: what a taking may find of a push that lands meanwhile.
fn bare_commit(world: &World, commit: &CommitSha) {
    let (fan, rest) = commit.as_str().split_at(2);
    let from = world.work().join(".git/objects").join(fan).join(rest);
    let to = world.mirror().join("objects").join(fan);
    fs::create_dir_all(&to).unwrap();
    fs::copy(from, to.join(rest)).unwrap();
}

/// What a kill in the middle of a taking leaves.
fn cut_off(world: &World, commit: &CommitSha) {
    bare_commit(world, commit);
    fs::write(world.mirror().join("taking"), "").unwrap();
}

#[tokio::test]
async fn a_taking_that_was_cut_off_is_begun_again() {
    let world = World::new();
    let first = world.commit("first");
    world.fetch_from(&world.work(), &first).await;
    let second = world.commit("second");
    cut_off(&world, &second);
    world.fetch_from(&world.work(), &second).await;
    assert_eq!(world.content(&second).await, "second");
    assert!(!world.mirror().join("taking").exists());
}

#[tokio::test]
async fn a_repository_that_borrows_objects_is_fetched_in_the_ordinary_way() {
    let world = World::new();
    let first = world.commit("lent");
    git(
        world.folder.path(),
        &["clone", "--quiet", "--shared", "work", "borrower"],
    );
    let borrower = world.folder.path().join("borrower");
    world.fetch_from(&borrower, &first).await;
    assert_eq!(world.content(&first).await, "lent");
    git(&world.mirror(), &["fsck", "--strict"]);

    // Nothing can be taken from it that would mend a mirror, so this one is made anew.
    let second = world.commit("lent again");
    git(&borrower, &["pull", "--quiet"]);
    cut_off(&world, &second);
    world.fetch_from(&borrower, &second).await;
    assert_eq!(world.content(&second).await, "lent again");
    git(&world.mirror(), &["fsck", "--strict"]);
    assert!(!world.mirror().join("taking").exists());
}

#[tokio::test]
async fn a_commit_without_its_files_is_taken_again() {
    let world = World::new();
    let first = world.commit("first");
    world.fetch_from(&world.work(), &first).await;
    let second = world.commit("second");
    bare_commit(&world, &second);
    world.fetch_from(&world.work(), &second).await;
    assert_eq!(world.content(&second).await, "second");
    git(&world.mirror(), &["fsck", "--strict"]);

    // The same where nothing can be taken.
    git(
        world.folder.path(),
        &["clone", "--quiet", "--shared", "work", "borrower"],
    );
    let borrower = world.folder.path().join("borrower");
    let third = world.commit("third");
    git(&borrower, &["pull", "--quiet"]);
    bare_commit(&world, &third);
    world.fetch_from(&borrower, &third).await;
    assert_eq!(world.content(&third).await, "third");
    git(&world.mirror(), &["fsck", "--strict"]);
}

#[tokio::test]
async fn what_a_forced_push_left_behind_stays_whole() {
    let world = World::new();
    let first = world.commit("first");
    let second = world.commit("second");
    world.fetch_from(&world.work(), &second).await;
    let unseen = world.commit("seen too late");
    git(
        &world.work(),
        &["reset", "--quiet", "--hard", first.as_str()],
    );
    let other = world.commit("other");
    world.fetch_from(&world.work(), &unseen).await;
    assert_eq!(world.content(&unseen).await, "seen too late");
    world.fetch_from(&world.work(), &other).await;

    // Nothing is asked of the repository for any of them.
    fs::rename(world.work(), world.folder.path().join("gone")).unwrap();
    for commit in [&first, &second, &unseen, &other] {
        world.fetch_from(&world.work(), commit).await;
    }
}

/// A tag's own id is asked for, as forges tell it; read is the commit that it names.
#[tokio::test]
async fn an_annotated_tag_brings_its_commit() {
    let world = World::new();
    let borrowed = world.folder.path().join("borrower");
    for (name, folder) in [("v1", world.work()), ("v2", borrowed)] {
        let commit = world.commit(name);
        git(
            &world.work(),
            &["tag", "--annotate", "-m", "On the way", name],
        );
        let tag = CommitSha::parse(&git(&world.work(), &["rev-parse", name])).unwrap();
        if name == "v2" {
            // Nothing can be taken from this one: it is fetched.
            let clone = ["clone", "--quiet", "--shared", "work", "borrower"];
            git(world.folder.path(), &clone);
        }
        let (address, git_ref) = (
            folder.to_str().unwrap().to_owned(),
            format!("refs/tags/{name}"),
        );
        let remote = Remote {
            address,
            username: None,
            password: None,
        };
        for _ in 0..2 {
            let fetched = world.sources.fetch(&world.project, &remote, &tag, &git_ref);
            fetched.await.unwrap();
        }
        let seen = world
            .sources
            .read_commit(&world.project, &tag)
            .await
            .unwrap();
        assert_eq!(seen.id, commit);
        assert_eq!(world.content(&commit).await, name);
        git(&world.mirror(), &["fsck", "--strict"]);
        // Once it is moved, what it named before stays whole.
        git(&world.work(), &["tag", "--delete", name]);
        fs::rename(&folder, world.folder.path().join("gone")).unwrap();
        let fetched = world.sources.fetch(&world.project, &remote, &tag, &git_ref);
        fetched.await.unwrap();
        fs::rename(world.folder.path().join("gone"), &folder).unwrap();
    }
}

#[tokio::test]
async fn slow_readers_take_turns() {
    let world = World::new();
    fs::write(world.work().join("large"), noise(4 << 20)).unwrap();
    let commit = world.commit("packed");
    git(&world.work(), &["repack", "-a", "-d", "--quiet"]);
    world.fetch_from(&world.work(), &commit).await;

    // One reader does not take everybody's turns.
    let mut packs = vec![];
    let reader = world.sources.read_by("shop.1.a1");
    for _ in 0..2 {
        packs.push(reader.stored_pack(&world.project).await.unwrap().unwrap());
    }
    let again = world.sources.read_by("shop.1.a1");
    let refused = again.pack(&world.project, &commit, None).await;
    assert_eq!(refused.unwrap_err(), SourcesError::Busy);

    for reader in ["shop.2.a1", "shop.3.a1", "shop.4.a1"] {
        let reader = world.sources.read_by(reader);
        for _ in 0..2 {
            packs.push(reader.stored_pack(&world.project).await.unwrap().unwrap());
        }
    }
    let refused = world.sources.pack(&world.project, &commit, None).await;
    assert_eq!(refused.unwrap_err(), SourcesError::Busy);
    // Whoever goes, or has read all, makes room for another.
    drop(packs.pop());
    let pack = world.sources.pack(&world.project, &commit, None).await;
    all(pack.unwrap()).await;
    all(packs.remove(0).pack).await;
    let pack = again.pack(&world.project, &commit, None).await;
    all(pack.unwrap()).await;
}
