//! A disk that a power cut takes everything from which was not synced.
//!
//! A file system in this process (FUSE): a file has the bytes that were written and those that an
//! `fsync` or `fdatasync` of it covered; a folder has the entries that are there and those that an
//! `fsync` of the folder covered. A power cut leaves the second of each.
//!
//! It is stricter than disks are: nothing unsynced ever survives, and a new file whose folder was not
//! synced is gone with all its bytes, which ext4 and others would keep. It does not simulate writes
//! that survive in part or in another order, a disk that lies about what it wrote, bits that turn, or
//! a file system that replays its own journal. Times and owners are not kept.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

/// Nobody else changes anything, so the kernel may remember what it was told.
const TTL: Duration = Duration::from_secs(60);
const ROOT: u64 = 1;

#[derive(Clone)]
enum Body {
    File(Vec<u8>),
    Folder(BTreeMap<OsString, u64>),
    Link(PathBuf),
}

struct Node {
    perm: u16,
    now: Body,
    synced: Body,
}

/// Numbered from [`ROOT`] on; none is ever removed, so what is open stays.
struct Tree(Vec<Node>);

type Answer<T> = Result<T, Errno>;

impl Tree {
    fn new() -> Self {
        let mut tree = Self(vec![]);
        tree.add(0o755, Body::Folder(BTreeMap::new()));
        tree
    }

    fn add(&mut self, perm: u16, body: Body) -> u64 {
        self.0.push(Node {
            perm,
            synced: body.clone(),
            now: body,
        });
        self.0.len() as u64
    }

    fn node(&mut self, number: u64) -> Answer<&mut Node> {
        let place = usize::try_from(number)
            .ok()
            .and_then(|it| it.checked_sub(1));
        place
            .and_then(|place| self.0.get_mut(place))
            .ok_or(Errno::ENOENT)
    }

    fn folder(&mut self, number: u64) -> Answer<&mut BTreeMap<OsString, u64>> {
        match &mut self.node(number)?.now {
            Body::Folder(entries) => Ok(entries),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn file(&mut self, number: u64) -> Answer<&mut Vec<u8>> {
        match &mut self.node(number)?.now {
            Body::File(bytes) => Ok(bytes),
            _ => Err(Errno::EISDIR),
        }
    }

    fn find(&mut self, parent: u64, name: &OsStr) -> Answer<u64> {
        self.folder(parent)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn enter(&mut self, parent: u64, name: &OsStr, number: u64) -> Answer<FileAttr> {
        let entries = self.folder(parent)?;
        if entries.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        entries.insert(name.to_owned(), number);
        self.attr(number)
    }

    fn is_full_folder(&mut self, number: u64) -> Answer<bool> {
        Ok(matches!(&self.node(number)?.now, Body::Folder(entries) if !entries.is_empty()))
    }

    fn sync(&mut self, number: u64) -> Answer<()> {
        let node = self.node(number)?;
        node.synced.clone_from(&node.now);
        Ok(())
    }

    fn attr(&mut self, number: u64) -> Answer<FileAttr> {
        let node = self.node(number)?;
        let (kind, size) = match &node.now {
            Body::File(bytes) => (FileType::RegularFile, bytes.len() as u64),
            Body::Folder(_) => (FileType::Directory, 0),
            Body::Link(to) => (FileType::Symlink, to.as_os_str().len() as u64),
        };
        let time = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        Ok(FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm: node.perm,
            nlink: 1,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    /// Writes what is synced below a folder to a real one.
    fn rescue(&mut self, number: u64, to: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(to)?;
        let Ok(node) = self.node(number) else {
            return Ok(());
        };
        let Body::Folder(entries) = node.synced.clone() else {
            return Ok(());
        };
        for (name, number) in entries {
            let to = to.join(name);
            let Ok(node) = self.node(number) else {
                continue;
            };
            match &node.synced {
                Body::File(bytes) => {
                    std::fs::write(&to, bytes)?;
                    let mode = std::os::unix::fs::PermissionsExt::from_mode(node.perm.into());
                    std::fs::set_permissions(&to, mode)?;
                }
                Body::Link(target) => std::os::unix::fs::symlink(target, &to)?,
                Body::Folder(_) => self.rescue(number, &to)?,
            }
        }
        Ok(())
    }
}

/// The disk, mounted until it is dropped.
pub(crate) struct Disk {
    tree: Arc<Mutex<Tree>>,
    _mounted: BackgroundSession,
}

impl Disk {
    /// An empty one.
    pub(crate) fn mount(at: &Path) -> Self {
        let tree = Arc::new(Mutex::new(Tree::new()));
        let mounted = fuser::spawn_mount(Mounted(Arc::clone(&tree)), at, &Config::default())
            .expect("this test mounts a file system: it needs /dev/fuse, and Debian's fuse3 unless it is root");
        Self {
            tree,
            _mounted: mounted,
        }
    }

    /// Cuts the power at this very moment: writes to `to` what would be left. The disk goes on as if
    /// nothing had happened.
    pub(crate) fn cut(&self, to: &Path) {
        let mut tree = self.tree.lock().unwrap();
        tree.rescue(ROOT, to).unwrap();
    }
}

struct Mounted(Arc<Mutex<Tree>>);

impl Mounted {
    fn with<T>(&self, work: impl FnOnce(&mut Tree) -> Answer<T>) -> Answer<T> {
        work(&mut self.0.lock().unwrap())
    }

    fn make(&self, parent: INodeNo, name: &OsStr, mode: u32, body: Body) -> Answer<FileAttr> {
        self.with(|tree| {
            let number = tree.add((mode & 0o7777) as u16, body);
            tree.enter(parent.0, name, number)
        })
    }
}

fn told(answer: Answer<()>, reply: ReplyEmpty) {
    match answer {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn entered(answer: Answer<FileAttr>, reply: ReplyEntry) {
    match answer {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.with(|tree| {
            let number = tree.find(parent.0, name)?;
            tree.attr(number)
        });
        entered(found, reply);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.with(|tree| tree.attr(ino.0)) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changed = self.with(|tree| {
            if let Some(mode) = mode {
                tree.node(ino.0)?.perm = (mode & 0o7777) as u16;
            }
            if let Some(size) = size {
                tree.file(ino.0)?.resize(size as usize, 0);
            }
            tree.attr(ino.0)
        });
        match changed {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let found = self.with(|tree| match &tree.node(ino.0)?.now {
            Body::Link(to) => Ok(to.clone()),
            _ => Err(Errno::EINVAL),
        });
        match found {
            Ok(to) => reply.data(to.as_os_str().as_encoded_bytes()),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let body = Body::Folder(BTreeMap::new());
        entered(self.make(parent, name, mode & !umask, body), reply);
    }

    fn symlink(
        &self,
        _req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let body = Body::Link(target.to_owned());
        entered(self.make(parent, link_name, 0o777, body), reply);
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.make(parent, name, mode & !umask, Body::File(vec![])) {
            Ok(attr) => reply.created(
                &TTL,
                &attr,
                Generation(0),
                FileHandle(0),
                FopenFlags::empty(),
            ),
            Err(error) => reply.error(error),
        }
    }

    fn link(
        &self,
        _req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        entered(
            self.with(|tree| tree.enter(newparent.0, newname, ino.0)),
            reply,
        );
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let gone = self.with(|tree| tree.folder(parent.0)?.remove(name).ok_or(Errno::ENOENT));
        told(gone.map(drop), reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let gone = self.with(|tree| {
            let number = tree.find(parent.0, name)?;
            if tree.is_full_folder(number)? {
                return Err(Errno::ENOTEMPTY);
            }
            tree.folder(parent.0)?.remove(name);
            Ok(())
        });
        told(gone, reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let moved = self.with(|tree| {
            let number = tree.find(parent.0, name)?;
            if let Ok(there) = tree.find(newparent.0, newname) {
                if flags.contains(RenameFlags::RENAME_NOREPLACE) {
                    return Err(Errno::EEXIST);
                }
                if tree.is_full_folder(there)? {
                    return Err(Errno::ENOTEMPTY);
                }
            }
            if flags.contains(RenameFlags::RENAME_EXCHANGE) {
                return Err(Errno::EINVAL);
            }
            tree.folder(parent.0)?.remove(name);
            tree.folder(newparent.0)?.insert(newname.to_owned(), number);
            Ok(())
        });
        told(moved, reply);
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut tree = self.0.lock().unwrap();
        match tree.file(ino.0) {
            Ok(bytes) => {
                let start = (offset as usize).min(bytes.len());
                let end = start.saturating_add(size as usize).min(bytes.len());
                reply.data(&bytes[start..end]);
            }
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.with(|tree| {
            let bytes = tree.file(ino.0)?;
            let start = offset as usize;
            let end = start + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[start..end].copy_from_slice(data);
            Ok(data.len() as u32)
        });
        match written {
            Ok(size) => reply.written(size),
            Err(error) => reply.error(error),
        }
    }

    /// A `close`, which syncs nothing.
    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        told(self.with(|tree| tree.sync(ino.0)), reply);
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        told(self.with(|tree| tree.sync(ino.0)), reply);
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.with(|tree| {
            let mut all = vec![
                (ino.0, FileType::Directory, OsString::from(".")),
                (ino.0, FileType::Directory, OsString::from("..")),
            ];
            for (name, number) in tree.folder(ino.0)?.clone() {
                all.push((number, tree.attr(number)?.kind, name));
            }
            Ok(all)
        });
        match listed {
            Ok(all) => {
                let from = (0_u64..).zip(all).skip(offset as usize);
                for (place, (number, kind, name)) in from {
                    if reply.add(INodeNo(number), place + 1, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    /// Plenty is free.
    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let blocks = 1 << 24;
        reply.statfs(blocks, blocks, blocks, blocks, blocks, 4096, 255, 4096);
    }
}
