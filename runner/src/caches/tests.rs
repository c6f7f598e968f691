use super::*;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    time::SystemTime,
};
use tar::{Builder, EntryType, Header};
use tempfile::{TempDir, tempdir, tempfile};

fn paths(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

fn go_on() -> Arc<AtomicBool> {
    Arc::default()
}

fn packed(workspace: &Path, of: &[&str]) -> Packed {
    let packed = pack::pack(workspace, &paths(of), tempfile().unwrap(), &go_on());
    packed.unwrap().unwrap()
}

/// Unpacks an archive and moves it into a workspace; gives the paths that were there, or what was wrong.
fn restored(mut file: File, workspace: &Path, of: &[&str]) -> Result<Vec<String>, String> {
    file.rewind().unwrap();
    let staging = tempdir().unwrap();
    let unpacked = unpack::unpack(file, staging.path(), &paths(of), &go_on());
    let unpacked = unpacked.map_err(|error| error.to_string())?;
    unpack::place(&unpacked, workspace, &paths(of)).map_err(|error| error.to_string())
}

/// A workspace with what caches hold.
fn built() -> TempDir {
    let place = tempdir().unwrap();
    let work = place.path();
    fs::create_dir_all(work.join("target/debug/deps")).unwrap();
    fs::write(work.join("target/debug/deps/app-1"), "an app").unwrap();
    fs::hard_link(
        work.join("target/debug/deps/app-1"),
        work.join("target/debug/app"),
    )
    .unwrap();
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(work.join("target/debug/app"), mode).unwrap();
    fs::create_dir_all(work.join("web/node_modules/.bin")).unwrap();
    fs::create_dir_all(work.join("web/node_modules/eslint")).unwrap();
    fs::write(work.join("web/node_modules/eslint/cli.js"), "lint").unwrap();
    symlink(
        "../eslint/cli.js",
        work.join("web/node_modules/.bin/eslint"),
    )
    .unwrap();
    let long = "n".repeat(120);
    let deep = work.join("web/node_modules").join(&long).join(&long);
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "deep").unwrap();
    fs::write(work.join("secret"), "beside").unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for path in ["target/debug/app", "web/node_modules/eslint"] {
        let file = File::open(work.join(path)).unwrap();
        file.set_modified(old).unwrap();
    }
    place
}

const OF: [&str; 2] = ["target", "web/node_modules"];

#[test]
fn what_is_restored_is_as_it_was() {
    let from = built();
    let work = from.path();
    // As the module cache of Go is: nobody may write there.
    let mode = fs::Permissions::from_mode(0o555);
    fs::set_permissions(work.join("target"), mode).unwrap();
    let packed = packed(work, &OF);
    assert_eq!((packed.left_out, packed.bytes), (0, 14));
    let length = packed.file.metadata().unwrap().len();
    assert_eq!(packed.length, length);

    let to = tempdir().unwrap();
    let there = to.path();
    fs::create_dir_all(there.join("target")).unwrap();
    fs::create_dir_all(there.join("web")).unwrap();
    assert!(!unpack::all_there(there, &paths(&OF)));
    assert!(restored(packed.file, there, &OF).unwrap().is_empty());
    assert!(unpack::all_there(there, &paths(&OF)));
    let long = "n".repeat(120);
    for (path, text) in [
        ("target/debug/app", "an app"),
        ("target/debug/deps/app-1", "an app"),
        ("web/node_modules/.bin/eslint", "lint"),
        (&format!("web/node_modules/{long}/{long}/file"), "deep"),
    ] {
        assert_eq!(
            fs::read_to_string(there.join(path)).unwrap(),
            text,
            "{path}"
        );
    }
    assert!(!there.join("secret").exists());
    let of = |path: &str| fs::symlink_metadata(there.join(path)).unwrap();
    let app = of("target/debug/app");
    assert_eq!(app.mode() & 0o7777, 0o755);
    assert_eq!(app.ino(), of("target/debug/deps/app-1").ino(), "one file");
    assert_eq!(of("target").mode() & 0o7777, 0o555);
    for path in ["target/debug/app", "web/node_modules/eslint"] {
        assert_eq!(of(path).mtime(), 1_000_000_000, "{path}");
    }
    assert!(of("web/node_modules/.bin/eslint").is_symlink());
}

#[test]
fn what_lies_in_the_workspace_stays_as_it_is() {
    let from = built();
    let packed = packed(from.path(), &OF);
    let to = tempdir().unwrap();
    fs::create_dir_all(to.path().join("target")).unwrap();
    fs::write(to.path().join("target/own"), "own").unwrap();
    assert_eq!(restored(packed.file, to.path(), &OF).unwrap(), ["target"]);
    assert!(to.path().join("web/node_modules/eslint/cli.js").exists());
    let names: Vec<_> = fs::read_dir(to.path().join("target")).unwrap().collect();
    assert_eq!(names.len(), 1);
}

#[test]
fn nothing_is_packed_that_leads_out() {
    let from = built();
    let work = from.path();
    symlink("/etc/passwd", work.join("target/passwd")).unwrap();
    symlink("../../../etc", work.join("target/debug/etc")).unwrap();
    symlink("debug/../../..", work.join("target/up")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(work.join("target/pipe"))
        .status();
    assert!(made.unwrap().success());
    let whole = packed(work, &["target"]);
    assert_eq!(whole.left_out, 4);
    let to = tempdir().unwrap();
    restored(whole.file, to.path(), &["target"]).unwrap();
    assert!(fs::symlink_metadata(to.path().join("target/passwd")).is_err());

    // A path that is a link, or goes through one.
    symlink("/etc", work.join("out")).unwrap();
    symlink("target", work.join("in")).unwrap();
    for path in ["out/ssl", "in/debug", "absent", "absent/x"] {
        let none = pack::pack(work, &paths(&[path]), tempfile().unwrap(), &go_on());
        assert!(none.unwrap().is_none(), "{path}");
    }
}

#[test]
fn a_link_in_the_workspace_is_not_gone_through() {
    let from = built();
    let outside = tempdir().unwrap();
    let to = tempdir().unwrap();
    symlink(outside.path(), to.path().join("web")).unwrap();
    let whole = packed(from.path(), &["web/node_modules"]);
    let why = restored(whole.file, to.path(), &["web/node_modules"]).unwrap_err();
    assert!(why.contains("`web` on its way is no folder"), "{why}");
    assert!(fs::read_dir(outside.path()).unwrap().next().is_none());

    symlink(outside.path(), to.path().join("target")).unwrap();
    let whole = packed(from.path(), &["target"]);
    let there = restored(whole.file, to.path(), &["target"]).unwrap();
    assert_eq!(there, ["target"]);
    assert!(fs::read_dir(outside.path()).unwrap().next().is_none());
}

/// An entry of a hostile archive: kind, name, what it links to.
type Entry<'a> = (EntryType, &'a str, &'a str);

fn archive(entries: &[Entry<'_>]) -> File {
    let zstd = zstd::Encoder::new(tempfile().unwrap(), 0).unwrap();
    let mut archive = Builder::new(zstd);
    for (kind, name, link) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(0);
        // The library's own setters would refuse what is hostile.
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        archive.append(&header, io::empty()).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

#[test]
fn a_hostile_archive_is_refused_as_a_whole() {
    use EntryType as E;
    let good: Entry<'_> = (E::Regular, "target/good", "");
    for (entries, why) in [
        (vec![(E::Regular, "../x", "")], "leads out"),
        (vec![(E::Regular, "target/../../x", "")], "leads out"),
        (vec![(E::Regular, "/tmp/x", "")], "leads out"),
        (vec![(E::Regular, "", "")], "leads out"),
        (
            vec![(E::Regular, "src/main.rs", "")],
            "none of the cache's paths",
        ),
        (
            vec![(E::Regular, "targets/x", "")],
            "none of the cache's paths",
        ),
        (vec![(E::Symlink, "target/l", "/etc/passwd")], "links out"),
        (vec![(E::Symlink, "target/l", "../../etc")], "links out"),
        (
            vec![(E::Symlink, "target/l", "a/../../../etc")],
            "links out",
        ),
        (vec![(E::Symlink, "target/l", "")], "links"),
        (
            vec![
                (E::Symlink, "target/l", ".."),
                (E::Regular, "target/l/x", ""),
            ],
            "on its way is no folder",
        ),
        (
            vec![(E::Link, "target/l", "/etc/passwd")],
            "not in the archive",
        ),
        (
            vec![(E::Link, "target/l", "../../etc/passwd")],
            "not in the archive",
        ),
        (
            vec![(E::Link, "target/l", "target/absent")],
            "not in the archive",
        ),
        (
            vec![
                (E::Symlink, "target/s", "good"),
                (E::Link, "target/l", "target/s"),
            ],
            "not in the archive",
        ),
        (vec![(E::Regular, "target/good", "")], "exists"),
        (vec![(E::Char, "target/tty", "")], "neither file"),
        (vec![(E::Block, "target/disk", "")], "neither file"),
        (vec![(E::Fifo, "target/pipe", "")], "neither file"),
        (vec![(E::GNUSparse, "target/holes", "")], "neither file"),
    ] {
        let told = format!("{entries:?}");
        let to = tempdir().unwrap();
        let all: Vec<_> = std::iter::once(good).chain(entries).collect();
        let refused = restored(archive(&all), to.path(), &["target"]).unwrap_err();
        assert!(refused.contains(why), "{told}: {refused}");
        let left = fs::read_dir(to.path()).unwrap().next();
        assert!(left.is_none(), "{told} left something");
    }
    let to = tempdir().unwrap();
    assert!(restored(archive(&[good]), to.path(), &["target"]).is_ok());
    let mut noise = tempfile().unwrap();
    io::Write::write_all(&mut noise, b"no archive at all").unwrap();
    assert!(restored(noise, to.path(), &["target"]).is_err());
}

#[test]
fn more_than_a_cache_may_hold_is_refused_before_it_is_written() {
    let zstd = zstd::Encoder::new(tempfile().unwrap(), 0).unwrap();
    let mut archive = Builder::new(zstd);
    let mut header = Header::new_gnu();
    header.set_path("target/bomb").unwrap();
    header.set_size(roadstead_protocol::LARGEST_UNPACKED_CACHE + 1);
    header.set_mode(0o644);
    header.set_cksum();
    archive.append(&header, io::empty()).unwrap();
    let file = archive.into_inner().unwrap().finish().unwrap();
    let to = tempdir().unwrap();
    let why = restored(file, to.path(), &["target"]).unwrap_err();
    assert!(why.contains("more than 17179869184 bytes"), "{why}");
}

#[test]
fn work_that_nobody_waits_for_ends() {
    let from = built();
    let halt = Halt::new();
    let flag = halt.flag();
    drop(halt);
    let packed = pack::pack(from.path(), &paths(&OF), tempfile().unwrap(), &flag);
    let why = packed.err().unwrap().to_string();
    assert!(why.contains("broken off"), "{why}");
}

#[tokio::test]
async fn a_key_is_that_of_names_and_bytes() {
    let place = tempdir().unwrap();
    let key = async || key_of(place.path(), &paths(&["**/*.lock"])).await.unwrap();
    let (none, files) = key().await;
    assert_eq!(files, 0);
    fs::write(place.path().join("a.lock"), "1").unwrap();
    let (one, files) = key().await;
    assert_eq!(files, 1);
    fs::rename(place.path().join("a.lock"), place.path().join("b.lock")).unwrap();
    let (moved, _) = key().await;
    fs::write(place.path().join("b.lock"), "2").unwrap();
    let (changed, _) = key().await;
    fs::write(place.path().join("other"), "2").unwrap();
    assert_eq!(key().await.0, changed);
    let mut all = vec![none, one, moved, changed];
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 4);
}
