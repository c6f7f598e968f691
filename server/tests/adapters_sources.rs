//! The mirror against real repositories: made with git2, checked with git itself.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has to stop")]

use futures_util::TryStreamExt;
use git2::{FileMode, Oid, Repository, Signature};
use roadstead_pipelines::id::{CommitSha, ProjectName, ReleaseId};
use roadstead_server::adapters::sources::{Remote, Sources, SourcesError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

const MAIN: &str = "refs/heads/main";

/// A repository that is pushed to, and a server's data folder beside it.
struct World {
    folder: TempDir,
    origin: Repository,
    sources: Sources,
    project: ProjectName,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let origin = Repository::init_bare(folder.path().join("origin.git")).unwrap();
        let sources = Sources::new(&folder.path().join("data"));
        let project = ProjectName::parse("shop").unwrap();
        Self {
            folder,
            origin,
            sources,
            project,
        }
    }

    fn remote(&self) -> Remote {
        let address = self
            .folder
            .path()
            .join("origin.git")
            .to_str()
            .unwrap()
            .to_owned();
        Remote {
            address,
            username: None,
            password: None,
        }
    }

    /// Commits these files, and nothing else, on `git_ref`. Paths have at most one folder.
    fn commit(&self, git_ref: &str, files: &[(&str, FileMode, Vec<u8>)]) -> CommitSha {
        let mut root = self.origin.treebuilder(None).unwrap();
        let mut folders = std::collections::BTreeMap::<&str, Vec<(&str, Oid, i32)>>::new();
        for (path, mode, content) in files {
            let blob = self.origin.blob(content).unwrap();
            match path.split_once('/') {
                Some((folder, name)) => {
                    folders
                        .entry(folder)
                        .or_default()
                        .push((name, blob, (*mode).into()));
                }
                None => drop(root.insert(path, blob, (*mode).into()).unwrap()),
            }
        }
        for (folder, entries) in folders {
            let mut tree = self.origin.treebuilder(None).unwrap();
            for (name, blob, mode) in entries {
                tree.insert(name, blob, mode).unwrap();
            }
            root.insert(folder, tree.write().unwrap(), FileMode::Tree.into())
                .unwrap();
        }
        let tree = self.origin.find_tree(root.write().unwrap()).unwrap();
        let author = Signature::now("Ada Lovelace", "ada@example.org").unwrap();
        let parent = self
            .origin
            .find_reference(git_ref)
            .ok()
            .and_then(|r| r.peel_to_commit().ok());
        let parents: Vec<_> = parent.iter().collect();
        let message = "Add the engine\n\nIt computes.\n";
        let id = self
            .origin
            .commit(Some(git_ref), &author, &author, message, &tree, &parents);
        CommitSha::parse(&id.unwrap().to_string()).unwrap()
    }

    async fn fetched(&self, files: &[(&str, FileMode, Vec<u8>)]) -> CommitSha {
        let commit = self.commit(MAIN, files);
        self.sources
            .fetch(&self.project, &self.remote(), &commit, MAIN)
            .await
            .unwrap();
        commit
    }

    async fn pack(&self, commit: &CommitSha, have: Option<&CommitSha>) -> Vec<u8> {
        let pack = self
            .sources
            .pack(&self.project, commit, have)
            .await
            .unwrap();
        let pieces: Vec<_> = pack.try_collect().await.unwrap();
        pieces.concat()
    }
}

fn file(path: &str, content: impl Into<Vec<u8>>) -> (&str, FileMode, Vec<u8>) {
    (path, FileMode::Blob, content.into())
}

/// Bytes that no compression makes smaller, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

fn git(folder: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut child = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        let done = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "git {arguments:?}: {said}");
        done.stdout
    })
}

#[tokio::test]
async fn a_fetched_commit_can_be_read() {
    let world = World::new();
    let files = [
        file("README.md", "hello"),
        file(".roadstead/pipeline.yml", "version: 1\n"),
    ];
    let commit = world.fetched(&files).await;

    let seen = world
        .sources
        .read_commit(&world.project, &commit)
        .await
        .unwrap();
    assert_eq!(seen.message, "Add the engine");
    assert_eq!(
        (seen.author.as_str(), seen.email.as_str()),
        ("Ada Lovelace", "ada@example.org")
    );
    assert_eq!(seen.parents, []);

    let path = ".roadstead/pipeline.yml";
    let text = world
        .sources
        .read_blob(&world.project, &commit, path, 100)
        .await
        .unwrap();
    assert_eq!(text, b"version: 1\n");
    let branches = world
        .sources
        .branches(&world.project, &world.remote())
        .await
        .unwrap();
    assert_eq!(branches.heads, BTreeMap::from([(MAIN.to_owned(), commit)]));
}

#[tokio::test]
async fn everybody_behind_the_commits_between_is_told() {
    let world = World::new();
    let release = |number| ReleaseId::new(&world.project, number);
    let first = world.commit(MAIN, &[file("a", "1")]);
    // The mirror of another server, which reads this commit and none of those after it.
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = Sources::new(folder.path());
    let remote = world.remote();
    let read = elsewhere.fetch(&world.project, &remote, &first, MAIN);
    read.await.unwrap();
    let on_top = |of: &CommitSha, (author, committer): (&str, &str), message: &str| {
        let sign = |email: &str| Signature::now("Somebody", email).unwrap();
        let parent = world.origin.find_commit(of.as_str().parse().unwrap());
        let parent = parent.unwrap();
        let (tree, author, committer) = (parent.tree().unwrap(), sign(author), sign(committer));
        let id = world
            .origin
            .commit(None, &author, &committer, message, &tree, &[&parent]);
        CommitSha::parse(&id.unwrap().to_string()).unwrap()
    };
    let (bob, cat) = (" Bob@Example.org ", "cat@example.org");
    let second = on_top(&first, (bob, cat), "Second");
    let branch = on_top(&first, ("zoe@example.org", "zoe@example.org"), "Aside");
    let message =
        "Third\n\nco-authored-by: not a trailer\n\nCo-Authored-By: Dan <dan@example.org>\n";
    let third = on_top(&second, ("eve@example.org", "eve@example.org"), message);
    let id = third.as_str().parse().unwrap();
    world.origin.reference(MAIN, id, true, "").unwrap();
    let id = branch.as_str().parse().unwrap();
    world
        .origin
        .reference("refs/heads/aside", id, true, "")
        .unwrap();
    for (commit, git_ref) in [(&third, MAIN), (&branch, "refs/heads/aside")] {
        world
            .sources
            .fetch(&world.project, &world.remote(), commit, git_ref)
            .await
            .unwrap();
    }

    let tag = {
        let named = world.origin.revparse_single(third.as_str()).unwrap();
        let tagger = Signature::now("Somebody", "ada@example.org").unwrap();
        let tag = world.origin.tag("v1", &named, &tagger, "Words", false);
        CommitSha::parse(&tag.unwrap().to_string()).unwrap()
    };
    let gone = CommitSha::parse(&"0123456789".repeat(4)).unwrap();
    let known = [&first, &second, &branch, &third, &tag, &gone];
    let known: BTreeMap<CommitSha, String> = known
        .into_iter()
        .map(|commit| {
            let git_ref = if *commit == tag { "refs/tags/v1" } else { MAIN };
            (commit.clone(), git_ref.to_owned())
        })
        .collect();
    for (commit, after) in [
        (&first, vec![&second, &branch, &third, &tag]),
        (&second, vec![&third, &tag]),
        (&third, vec![]),
    ] {
        let after: BTreeSet<CommitSha> = after.into_iter().cloned().collect();
        for sources in [&world.sources, &elsewhere] {
            let found = sources.descendants(&world.project, &remote, (commit, MAIN), known.clone());
            assert_eq!(found.await.unwrap(), after, "after {commit}");
        }
    }

    let others = vec![
        (release(1), first),
        (release(2), second),
        (release(3), branch),
        (release(4), third.clone()),
        (release(5), gone),
    ];
    let told = world
        .sources
        .read_authorship(&world.project, &third, others)
        .await
        .unwrap();
    let own = ["dan@example.org", "eve@example.org"];
    assert_eq!(told.commit.iter().collect::<Vec<_>>(), own);
    let since: Vec<_> = told
        .since
        .iter()
        .map(|s| {
            let people: Vec<_> = s.people.iter().map(|p| &p[..3]).collect();
            (s.release.number(), s.contained, people.join(" "))
        })
        .collect();
    // What is not in the mirror is left out: nothing is said of it.
    let expected = [
        (1, true, "bob cat dan eve"),
        (2, true, "dan eve"),
        (3, false, "bob cat dan eve"),
        (4, true, ""),
    ];
    assert_eq!(since, expected.map(|(n, c, p)| (n, c, p.to_owned())));
}

#[tokio::test]
async fn what_is_no_plain_file_is_refused_by_name() {
    let world = World::new();
    let link = |path, target: &str| (path, FileMode::Link, target.as_bytes().to_vec());
    let files = [
        link(".roadstead/pipeline.yml", "/etc/passwd"),
        link("linked", ".roadstead"),
        file("folder/file", "content"),
    ];
    let commit = world.fetched(&files).await;
    let read = |path| world.sources.read_blob(&world.project, &commit, path, 4);

    for (path, reason) in [
        (
            ".roadstead/pipeline.yml",
            "`pipeline.yml` is a symbolic link",
        ),
        ("linked/pipeline.yml", "`linked` is a symbolic link"),
        ("folder", "it is not a file"),
        ("folder/file/below", "`file` is not a folder"),
        ("folder/file", "it has 7 bytes, at most 4 are read"),
        (
            "folder/../folder/file",
            "folder/../folder/file does not exist",
        ),
        ("/folder/file", "/folder/file does not exist"),
        ("missing", "missing does not exist"),
        ("", "does not exist"),
    ] {
        let error = read(path).await.unwrap_err();
        assert!(!error.is_transient());
        assert!(error.to_string().contains(reason), "{path}: {error}");
    }
}

#[tokio::test]
async fn refs_and_addresses_are_checked_before_git_sees_them() {
    let world = World::new();
    let commit = world.commit(MAIN, &[file("a", "1")]);
    for bad in [
        "-uevil",
        "--upload-pack=x",
        "refs/heads/a:refs/heads/b",
        "refs/heads/*",
        "main",
        "",
    ] {
        let remote = world.remote();
        let fetch = world.sources.fetch(&world.project, &remote, &commit, bad);
        let error = fetch.await.unwrap_err();
        assert_eq!(
            error,
            SourcesError::Ref {
                git_ref: bad.to_owned()
            }
        );
    }
    for bad in [
        "ext::sh -c true",
        "-c",
        "relative/path",
        "http://h/r",
        "https://me:pw@h/r",
        "file:///r",
    ] {
        let remote = Remote {
            address: bad.to_owned(),
            username: None,
            password: None,
        };
        let error = world
            .sources
            .fetch(&world.project, &remote, &commit, MAIN)
            .await
            .unwrap_err();
        assert!(
            matches!(error, SourcesError::Address { .. }),
            "{bad}: {error}"
        );
    }
}

#[tokio::test]
async fn a_repository_that_is_away_is_told_from_a_commit_that_is_gone() {
    let world = World::new();
    let commit = world.commit(MAIN, &[file("a", "1")]);
    let gone = CommitSha::parse(&"1".repeat(40)).unwrap();
    let remote = world.remote();
    let fetch = |commit| world.sources.fetch(&world.project, &remote, commit, MAIN);
    fetch(&commit).await.unwrap();
    let error = fetch(&gone).await.unwrap_err();
    assert!(matches!(error, SourcesError::NoCommit { .. }), "{error}");

    let away = Remote {
        address: "/nowhere/at/all".into(),
        username: None,
        password: None,
    };
    let other = World::new();
    let error = other
        .sources
        .fetch(&other.project, &away, &commit, MAIN)
        .await
        .unwrap_err();
    assert!(matches!(error, SourcesError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_forced_push_moves_the_mirror_and_keeps_what_it_had() {
    let world = World::new();
    let first = world.fetched(&[file("a", "1")]).await;
    world.origin.find_reference(MAIN).unwrap().delete().unwrap();
    let second = world.fetched(&[file("b", "2")]).await;
    let seen = world
        .sources
        .read_commit(&world.project, &second)
        .await
        .unwrap();
    assert_eq!(seen.parents, []);
    world
        .sources
        .read_commit(&world.project, &first)
        .await
        .unwrap();
}

#[tokio::test]
async fn changed_paths_are_the_difference_of_the_trees() {
    let world = World::new();
    let first = world
        .fetched(&[file("a", "1"), file("b/c", "2"), file("same", "3")])
        .await;
    let second = world
        .fetched(&[file("a", "changed"), file("b/d", "2"), file("same", "3")])
        .await;
    let changed = world
        .sources
        .changed_paths(&world.project, &first, &second)
        .await
        .unwrap();
    assert_eq!(changed.unwrap(), ["a", "b/c", "b/d"]);
    let unknown = CommitSha::parse(&"2".repeat(40)).unwrap();
    let changed = world
        .sources
        .changed_paths(&world.project, &unknown, &second)
        .await
        .unwrap();
    assert_eq!(changed, None);
}

#[tokio::test]
async fn git_takes_the_first_pack_and_then_a_small_difference() {
    let world = World::new();
    let names: Vec<String> = (0..200).map(|n| format!("src/file-{n}")).collect();
    let mut files: Vec<_> = names
        .iter()
        .zip(0..)
        .map(|(n, i)| file(n, noise(i, 1000)))
        .collect();
    let first = world.fetched(&files).await;
    let whole = world.pack(&first, None).await;
    assert!(whole.len() > 200 * 1000);

    let runner = world.folder.path().join("runner.git");
    Repository::init_bare(&runner).unwrap();
    git(&runner, &["index-pack", "--stdin", "--strict"], &whole);
    let listed = git(
        &runner,
        &["ls-tree", "-r", "--name-only", first.as_str()],
        &[],
    );
    assert_eq!(String::from_utf8(listed).unwrap().lines().count(), 200);

    files[7] = file("src/file-7", "changed");
    let second = world.fetched(&files).await;
    let difference = world.pack(&second, Some(&first)).await;
    assert!(difference.len() < 20_000, "{} bytes", difference.len());
    git(&runner, &["index-pack", "--stdin"], &difference);
    let content = git(
        &runner,
        &["cat-file", "blob", &format!("{second}:src/file-7")],
        &[],
    );
    assert_eq!(content, b"changed");
    let untouched = git(
        &runner,
        &["cat-file", "blob", &format!("{second}:src/file-8")],
        &[],
    );
    assert_eq!(untouched, noise(8, 1000));

    // The mirror holds two packs now, so a newcomer gets one that is built for it.
    let newcomer = world.folder.path().join("newcomer.git");
    Repository::init_bare(&newcomer).unwrap();
    let built = world.pack(&second, None).await;
    git(&newcomer, &["index-pack", "--stdin"], &built);
    let listed = git(
        &newcomer,
        &["ls-tree", "-r", "--name-only", second.as_str()],
        &[],
    );
    assert_eq!(String::from_utf8(listed).unwrap().lines().count(), 200);

    let nothing = world.pack(&second, Some(&second)).await;
    assert!(nothing.len() < 1000, "{} bytes", nothing.len());
    git(&runner, &["index-pack", "--stdin"], &nothing);
}

#[tokio::test]
async fn a_pack_of_an_unknown_commit_is_an_error_and_not_an_empty_pack() {
    let world = World::new();
    world.fetched(&[file("a", "1")]).await;
    let unknown = CommitSha::parse(&"3".repeat(40)).unwrap();
    let error = world
        .sources
        .pack(&world.project, &unknown, None)
        .await
        .unwrap_err();
    assert!(matches!(error, SourcesError::NoCommit { .. }), "{error}");
}

#[tokio::test]
async fn two_fetches_at_once_both_find_their_commit() {
    let world = World::new();
    let first = world.commit(MAIN, &[file("a", "1")]);
    let second = world.commit("refs/heads/other", &[file("b", "2")]);
    let remote = world.remote();
    let (one, two) = tokio::join!(
        world.sources.fetch(&world.project, &remote, &first, MAIN),
        world
            .sources
            .fetch(&world.project, &remote, &second, "refs/heads/other"),
    );
    one.unwrap();
    two.unwrap();
}
