//! Files that change under the hands of whoever reads them.

use super::*;
use cap_std::ambient_authority;
use std::{fs, io::Write, os::unix::fs::symlink};

fn place() -> (tempfile::TempDir, Arc<Dir>) {
    let place = tempfile::tempdir().unwrap();
    let work = place.path().join("work");
    fs::create_dir(&work).unwrap();
    let folder = Dir::open_ambient_dir(&work, ambient_authority()).unwrap();
    (place, Arc::new(folder))
}

fn said(left: Left) -> String {
    match left {
        Left::Out(why) | Left::All(why) => why,
    }
}

#[tokio::test]
async fn a_link_or_a_pipe_in_the_place_of_a_file_is_not_opened() {
    let (place, folder) = place();
    let work = place.path().join("work");
    fs::write(place.path().join("outside"), "a secret").unwrap();
    fs::write(work.join("inside"), "x").unwrap();
    fs::create_dir(work.join("folder")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(work.join("pipe"))
        .status();
    assert!(made.unwrap().success());
    // As a step may put them there after the search.
    for (target, link) in [
        ("/etc/passwd", "absolute"),
        ("../outside", "up"),
        ("inside", "near"),
        ("nowhere", "dangling"),
    ] {
        symlink(target, work.join(link)).unwrap();
        let opened = read(&folder, link).await.map_err(said);
        assert!(opened.unwrap().is_none(), "{link}");
    }
    // It would wait for a writer for ever.
    assert!(read(&folder, "pipe").await.map_err(said).unwrap().is_none());
    assert!(
        read(&folder, "folder")
            .await
            .map_err(said)
            .unwrap()
            .is_none()
    );
    symlink("..", work.join("above")).unwrap();
    symlink("/etc", work.join("etc")).unwrap();
    for escape in ["above/outside", "../outside", "/etc/passwd", "etc/passwd"] {
        let error = read(&folder, escape).await.map_err(said).err().unwrap();
        assert!(error.contains("cannot be read"), "{escape}: {error}");
    }
}

#[tokio::test]
async fn a_file_that_grows_is_kept_as_far_as_it_went() {
    let (place, folder) = place();
    let path = place.path().join("work/log");
    fs::write(&path, "as it was").unwrap();
    let was = read(&folder, "log").await.map_err(said).unwrap().unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b", and more").unwrap();
    assert_eq!(
        (was.length, was.sha256),
        (9, hex::encode(Sha256::digest("as it was")))
    );
    let mut sent = String::new();
    let mut body = tokio::fs::File::from_std(was.file).take(was.length);
    body.read_to_string(&mut sent).await.unwrap();
    assert_eq!(sent, "as it was");
    assert!(!is_shorter(&folder, "log", 9).await);
    fs::write(&path, "short").unwrap();
    assert!(is_shorter(&folder, "log", 9).await);
    fs::remove_file(&path).unwrap();
    assert!(is_shorter(&folder, "log", 9).await);
}

#[test]
fn what_does_not_fit_is_told_with_its_limit() {
    let told = |length, files, bytes| fits(length, Kept { files, bytes }).map_err(said).err();
    assert_eq!(told(LARGEST_ARTIFACT, MOST_ARTIFACTS - 1, 0), None);
    assert_eq!(told(1, 0, MOST_ARTIFACT_BYTES - 1), None);
    assert!(
        told(LARGEST_ARTIFACT + 1, 0, 0)
            .unwrap()
            .contains("1073741824")
    );
    assert!(
        told(0, MOST_ARTIFACTS, 0)
            .unwrap()
            .contains("at most 1000 files")
    );
    assert!(
        told(2, 0, MOST_ARTIFACT_BYTES - 1)
            .unwrap()
            .contains("does not fit")
    );
}
