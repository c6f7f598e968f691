//! What is offered by whom nobody trusts, into folders that somebody changes.

use super::*;
use std::{fs, os::unix::fs::symlink};

fn place() -> (tempfile::TempDir, Arc<Dir>) {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("work")).unwrap();
    fs::write(place.path().join("outside"), "untouched").unwrap();
    let folder = Dir::open_ambient_dir(place.path().join("work"), ambient_authority()).unwrap();
    (place, Arc::new(folder))
}

fn artifact(step: &str, name: &str, bytes: &[u8]) -> ArtifactOffered {
    ArtifactOffered {
        step: step.into(),
        name: name.into(),
        length: bytes.len() as u64,
        sha256: hex::encode(Sha256::digest(bytes)),
    }
}

async fn arrive(
    folder: &Arc<Dir>,
    artifact: &ArtifactOffered,
    bytes: &[u8],
) -> Result<(), Trouble> {
    let arriving = begin(folder, artifact).await?;
    arriving.write(bytes.to_vec()).await?.put().await
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_file_takes_its_place_whole_or_not_at_all() {
    let (place, folder) = place();
    let work = place.path().join("work");
    fs::write(work.join("old"), "as it was").unwrap();
    let fine = artifact("build", "dist/deep/app.js", b"hello");
    arrive(&folder, &fine, b"hello").await.unwrap();
    let read = fs::read_to_string(work.join("dist/deep/app.js"));
    assert_eq!(read.unwrap(), "hello");
    let old = artifact("build", "old", b"new");
    for wrong in ["nEw", "ne"] {
        let trouble = arrive(&folder, &old, wrong.as_bytes()).await.unwrap_err();
        assert!(matches!(trouble, Trouble::Runner(why) if why.contains("other bytes")));
    }
    let trouble = arrive(&folder, &old, b"newer").await.unwrap_err();
    assert!(matches!(trouble, Trouble::Runner(why) if why.contains("more bytes")));
    assert_eq!(fs::read_to_string(work.join("old")).unwrap(), "as it was");
    arrive(&folder, &old, b"new").await.unwrap();
    assert_eq!(fs::read_to_string(work.join("old")).unwrap(), "new");
    assert_eq!(names(&work), ["dist", "old"], "nothing is left beside them");
}

#[tokio::test]
async fn no_link_leads_out_or_astray() {
    let (place, folder) = place();
    let work = place.path().join("work");
    fs::create_dir(work.join("inside")).unwrap();
    for (target, link) in [("..", "up"), ("/etc", "etc"), ("inside", "near")] {
        symlink(target, work.join(link)).unwrap();
        let through = artifact("build", &format!("{link}/outside"), b"x");
        let trouble = arrive(&folder, &through, b"x").await.unwrap_err();
        assert!(
            matches!(&trouble, Trouble::Step(why) if why.contains("is no folder")),
            "{link}: {trouble:?}"
        );
    }
    symlink("../outside", work.join("link")).unwrap();
    let over = artifact("build", "link", b"mine");
    arrive(&folder, &over, b"mine").await.unwrap();
    assert!(!work.join("link").is_symlink(), "it was replaced");
    let outside = fs::read_to_string(place.path().join("outside"));
    assert_eq!(outside.unwrap(), "untouched");
    assert!(names(&work.join("inside")).is_empty());
    let folder_there = artifact("build", "inside", b"x");
    let trouble = arrive(&folder, &folder_there, b"x").await.unwrap_err();
    assert!(matches!(trouble, Trouble::Step(_)), "{trouble:?}");
}

#[test]
fn what_cannot_be_taken_is_told_before_a_byte_comes() {
    let from = ["build".to_owned(), "docs".to_owned()];
    let told = |offered: &[ArtifactOffered]| match check(offered, &from) {
        Ok(()) => "fine".to_owned(),
        Err(Trouble::Step(why) | Trouble::Runner(why)) => why,
    };
    let one = artifact("build", "a", b"x");
    assert_eq!(told(std::slice::from_ref(&one)), "fine");
    for name in ["../a", "/a", "a/../../b", "a//b", "a\nb", ""] {
        let why = told(&[artifact("build", name, b"x")]);
        assert!(why.contains("artifact `"), "{name}: {why}");
    }
    let why = told(&[one.clone(), artifact("docs", "a", b"y")]);
    assert!(
        why.contains("steps build and docs have both left `a`"),
        "{why}"
    );
    let why = told(&[artifact("other", "b", b"x")]);
    assert!(why.contains("was not asked for"), "{why}");
    let mut large = one.clone();
    large.length = LARGEST_ARTIFACT + 1;
    assert!(told(&[large.clone()]).contains("at most 1073741824"));
    large.length = LARGEST_ARTIFACT;
    let many: Vec<_> = (0..5)
        .map(|n| ArtifactOffered {
            name: format!("f{n}"),
            ..large.clone()
        })
        .collect();
    assert!(told(&many).contains("a step gets at most 4294967296"));
    let many = vec![one; MOST_FETCHED_ARTIFACTS + 1];
    assert!(told(&many).contains("are too many"));
}
