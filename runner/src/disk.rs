//! Asks how much room is left where attempts work, before they begin and while they do.

use bollard::models::SystemInfo;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Between two looks at what is left.
const LOOK: Duration = Duration::from_secs(2);

/// The file systems that steps write to, and how much has to stay free of them. The default has none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    folders: Arc<[PathBuf]>,
    least_bytes: u64,
}

impl Disk {
    /// Where steps write on `machine`: their workspaces in `data`, the rest where Docker Engine keeps containers,
    /// if this process can see that.
    pub(crate) fn of(machine: &SystemInfo, data: &Path, least_bytes: u64) -> Self {
        let engine = machine.docker_root_dir.iter().map(PathBuf::from);
        Self::new(engine.chain([data.to_owned()]), least_bytes)
    }

    /// `folders` that are not there do not count.
    fn new(folders: impl IntoIterator<Item = PathBuf>, least_bytes: u64) -> Self {
        Self {
            folders: folders.into_iter().collect(),
            least_bytes,
        }
    }

    /// What is left where least is left; none where nothing is looked at.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        self.folders
            .iter()
            .filter_map(|it| free_bytes(it).ok())
            .min()
    }

    /// Waits until less than the least is left somewhere; how much that is, in bytes.
    pub(crate) async fn runs_out(&self) -> u64 {
        loop {
            if let Some(free) = self.free_bytes().filter(|free| *free < self.least_bytes) {
                return free;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Free bytes for this user on the file system that holds `path`.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let status = rustix::fs::statvfs(path)?;
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_disk_is_found_and_one_that_is_not_there_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let there = || [folder.path().join("absent"), folder.path().to_owned()];
        let free = Disk::new(there(), u64::MAX).runs_out().await;
        assert!(free > 0);
        let [absent, _] = there();
        for fine in [Disk::new(there(), 0), Disk::new([absent], u64::MAX)] {
            let looked = tokio::time::timeout(Duration::ZERO, fine.runs_out()).await;
            assert!(looked.is_err());
        }
    }

    #[test]
    fn a_folder_that_exists_has_a_figure_and_another_has_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free_bytes(folder.path()).is_ok());
        assert_eq!(
            free_bytes(&folder.path().join("absent"))
                .unwrap_err()
                .kind(),
            io::ErrorKind::NotFound
        );
    }
}
