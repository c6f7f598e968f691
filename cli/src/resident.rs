//! Gives pages of the program back that an idle process does not need.
//!
//! Owns: when a process counts as idle, and which of its memory is dropped then.
//! Invariant: nothing but pages that the kernel can read from their file again; the process cannot tell.
//!
//! The kernel maps the 64 kB around each page of a file that is touched (`fault_around_bytes`), keeps what is
//! mapped and executable longer than other files' pages when memory is short, and counts all of it as the process's.
//! After a start, or some work, that is most of a binary that is server, runner and sandbox in one
//! (docs/adr/0010). Dropped, these pages are page cache like any other, the first that goes; what is
//! needed again is mapped again, without a read while it is there.

use anyhow::Context;
use procfs::process::{MMPermissions, MMapPath, MemoryMap, Process};
use rustix::mm::{Advice, madvise};
use std::time::Duration;

/// How long the processor time of a process is watched before it is called idle.
const LOOK: Duration = Duration::from_secs(10);

/// An idle process takes at most so much processor time in a [`LOOK`], a hundredth of one.
const IDLE: Duration = LOOK.checked_div(100).unwrap();

/// Looks at this process for ever. An error is told once: it would be the same the next time.
pub(crate) async fn give_back_when_idle() {
    let mut watch = Watch::default();
    loop {
        tokio::time::sleep(LOOK).await;
        let looked = look(&mut watch);
        if let Err(error) = looked {
            tracing::debug!("memory of the program stays resident: {error:#}");
            return;
        }
    }
}

fn look(watch: &mut Watch) -> anyhow::Result<()> {
    let process = Process::myself()?;
    let stat = process.stat()?;
    let ticks = procfs::ticks_per_second();
    let used = Duration::from_millis((stat.utime + stat.stime).saturating_mul(1_000) / ticks);
    if watch.idle_after_work(used) {
        give_back(&process)?;
    }
    Ok(())
}

/// What was seen of a process's work. One that was idle all the time since has nothing new to give back.
#[derive(Default)]
struct Watch {
    used: Duration,
    given_back: bool,
}

impl Watch {
    /// Whether a process that has used so much processor time by now has become idle. The first look
    /// counts what was used since the start.
    fn idle_after_work(&mut self, used: Duration) -> bool {
        let idle = used.saturating_sub(self.used) <= IDLE;
        self.used = used;
        let now = idle && !self.given_back;
        self.given_back = idle;
        now
    }
}

/// Drops what [`is_as_on_disk`].
fn give_back(process: &Process) -> anyhow::Result<()> {
    for map in process.smaps()? {
        if is_as_on_disk(&map) {
            drop_pages(map.address)?;
        }
    }
    Ok(())
}

/// Whether a mapping is of a file, cannot be written, and has no page that differs from the file: those of
/// relocated constants are the process's own, as are a debugger's breakpoints.
fn is_as_on_disk(map: &MemoryMap) -> bool {
    let kilobytes = |field: &str| map.extension.map.get(field).copied();
    matches!(map.pathname, MMapPath::Path(_))
        && map.perms.contains(MMPermissions::PRIVATE)
        && !map.perms.contains(MMPermissions::WRITE)
        && kilobytes("Anonymous") == Some(0)
        && kilobytes("Swap") == Some(0)
}

#[expect(unsafe_code, reason = "madvise is the only way to say it")]
fn drop_pages((from, to): (u64, u64)) -> anyhow::Result<()> {
    let bytes = usize::try_from(to - from)?;
    let start = std::ptr::with_exposed_provenance_mut(usize::try_from(from)?);
    // SAFETY: callers hand over mappings of which the kernel just said that each page is as the file has it, and
    // that nobody can write to them; reading one again gives the same bytes.
    unsafe { madvise(start, bytes, Advice::LinuxDontNeed) }
        .with_context(|| format!("madvise of {from:x}-{to:x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_process_is_idle_once_after_each_piece_of_work() {
        let mut watch = Watch::default();
        assert!(!watch.idle_after_work(seconds(0.8)), "has just started");
        assert!(watch.idle_after_work(seconds(0.81)));
        assert!(!watch.idle_after_work(seconds(0.82)), "nothing new");
        assert!(!watch.idle_after_work(seconds(2.0)), "at work");
        assert!(watch.idle_after_work(seconds(2.1)));
    }

    fn resident_of_files() -> u64 {
        let status = Process::myself().unwrap().status().unwrap();
        status.rssfile.unwrap()
    }

    #[test]
    fn what_is_given_back_is_not_resident_and_the_process_goes_on() {
        let before = resident_of_files();
        give_back(&Process::myself().unwrap()).unwrap();
        let after = resident_of_files();
        assert!(after < before, "{before} kB of files, {after} kB after");
        // Code and constants that were dropped are there again, relocated tables are as they were.
        assert_eq!(
            format!("{:?} {:.2}", Some("text"), 0.5),
            "Some(\"text\") 0.50"
        );
    }
}
