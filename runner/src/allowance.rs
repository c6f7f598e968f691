//! How much of the machine a step may use.
//!
//! Owns what a runner allows each step at most, and what a step gets of what it asks for. Docker Engine
//! enforces it; a step that has more processes than it may is found by looking, as the kernel only refuses
//! the next one.

use crate::engine::Engine;
use anyhow::{Context, bail};
use bollard::{
    models::{HostConfig, SystemInfo},
    query_parameters::StatsOptionsBuilder,
};
use futures_util::StreamExt;
use roadstead_protocol::StepLimits;
use std::time::Duration;

/// Processes and threads that a step may have, unless the runner's [`crate::Config`] says otherwise.
pub const STEP_PROCESSES: u32 = 4096;
/// With fewer not even the shell, its first command and what watches over them can be.
const LEAST_PROCESSES: u32 = 16;
/// CPU units of one processor.
const UNITS: u64 = 1024;
/// Of the machine's memory a step gets so many tenths, unless the runner is told otherwise: the rest is for the
/// engine, the runner and the system, which are not to be killed in its place.
const TENTHS: u64 = 9;
/// Between two looks at a step's processes.
const LOOK: Duration = Duration::from_secs(5);

/// What a runner is told to let a step's container, and each of its sidecars, use at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepMost {
    /// CPU units, 1024 are one processor; none: every processor.
    pub cpu: Option<u32>,
    /// MiB of memory; none: nine tenths of the machine's.
    pub memory: Option<u32>,
    /// Processes and threads.
    pub processes: u32,
}

impl Default for StepMost {
    fn default() -> Self {
        Self {
            cpu: None,
            memory: None,
            processes: STEP_PROCESSES,
        }
    }
}

/// What one container may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Every processor of the machine, in CPU units.
    all_cpu: u64,
    cpu: u64,
    mebibytes: u64,
    processes: u32,
}

impl Allowance {
    /// What a runner allows at most on a machine as Docker Engine tells of it.
    ///
    /// # Errors
    /// When the machine has not what `most` says.
    pub(crate) fn of(machine: &SystemInfo, most: StepMost) -> anyhow::Result<Self> {
        let figure = |figure: Option<i64>| {
            u64::try_from(figure.context("Docker Engine does not tell the machine's size")?)
                .context("Docker Engine tells no size of the machine")
        };
        let (processors, bytes) = (figure(machine.ncpu)?, figure(machine.mem_total)?);
        let (all_units, all_mebibytes) = (processors * UNITS, bytes >> 20);
        let cpu = most.cpu.map_or(all_units, u64::from);
        if cpu > all_units {
            bail!(
                "a step cannot get {cpu} CPU units: this machine has {processors} processors, which are {all_units}"
            );
        }
        let mebibytes = most.memory.map_or(all_mebibytes * TENTHS / 10, u64::from);
        if mebibytes > all_mebibytes {
            bail!("a step cannot get {mebibytes} MiB of memory: this machine has {all_mebibytes}");
        }
        if most.processes < LEAST_PROCESSES || cpu == 0 || mebibytes == 0 {
            bail!(
                "a step needs a part of a processor, memory, and {LEAST_PROCESSES} processes at least"
            );
        }
        for (can, what) in [
            (machine.memory_limit, "memory"),
            (machine.swap_limit, "swap"),
            (machine.cpu_cfs_quota, "processors"),
            (machine.pids_limit, "processes"),
        ] {
            if can == Some(false) {
                tracing::warn!(
                    "Docker Engine cannot limit {what} on this machine: steps are not bounded by it"
                );
            }
        }
        Ok(Self {
            all_cpu: all_units,
            cpu,
            mebibytes,
            processes: most.processes,
        })
    }

    /// What a step gets that asks for `limits`.
    ///
    /// # Errors
    /// Why it cannot, and what to do.
    pub(crate) fn granted(self, limits: StepLimits) -> Result<Self, String> {
        let cpu = limits.cpu.map_or(self.cpu, u64::from);
        if cpu > self.cpu {
            return Err(format!(
                "it asks for {cpu} CPU units, and a step of this runner gets at most {}; lower \
                 `limits.cpu`, or give the runner more by `--step-cpu` or a larger machine",
                self.cpu
            ));
        }
        let mebibytes = limits.memory.map_or(self.mebibytes, u64::from);
        if mebibytes > self.mebibytes {
            return Err(format!(
                "it asks for {mebibytes} MiB of memory, and a step of this runner gets at most {}; lower \
                 `limits.memory`, or give the runner more by `--step-memory` or a larger machine",
                self.mebibytes
            ));
        }
        Ok(Self {
            cpu,
            mebibytes,
            ..self
        })
    }

    /// What a step asks for, or as much of it as there is: for a machine that the file was not written for.
    pub(crate) fn at_most(self, limits: StepLimits) -> StepLimits {
        let most = |asked: Option<u32>, there: u64| {
            asked.map(|asked| u32::try_from(there).map_or(asked, |there| asked.min(there)))
        };
        StepLimits {
            cpu: most(limits.cpu, self.cpu),
            memory: most(limits.memory, self.mebibytes),
        }
    }

    /// Tells the engine.
    pub(crate) fn bound(self, host: &mut HostConfig) {
        // An engine that cannot limit processors refuses to be told to.
        host.nano_cpus =
            (self.cpu < self.all_cpu).then(|| (self.cpu * 1_000_000_000 / UNITS).cast_signed());
        let bytes = (self.mebibytes << 20).cast_signed();
        host.memory = Some(bytes);
        // The same: no swap beside it, which would make the machine slow for everybody.
        host.memory_swap = Some(bytes);
        host.pids_limit = Some(i64::from(self.processes));
    }

    pub(crate) fn mebibytes(self) -> u64 {
        self.mebibytes
    }
}

impl Engine {
    /// Waits until a container has nearly all the processes that it may have; how many it may have. What it starts
    /// beyond them fails, which programs often take for a reason to try again.
    pub(crate) async fn has_too_many_processes(
        &self,
        container: &str,
        allowance: Allowance,
    ) -> u32 {
        loop {
            tokio::time::sleep(LOOK).await;
            let options = StatsOptionsBuilder::new()
                .stream(false)
                .one_shot(true)
                .build();
            let mut stats = self.docker().stats(container, Some(options));
            // One that has just ended has none.
            let Some(Ok(stats)) = stats.next().await else {
                continue;
            };
            let now = stats.pids_stats.and_then(|pids| pids.current);
            // One that could not be started often takes its parent with it, so that not quite all are there.
            let nearly_all = u64::from(allowance.processes - allowance.processes / 16);
            if now.is_some_and(|now| now >= nearly_all) {
                return allowance.processes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(most: StepMost) -> anyhow::Result<Allowance> {
        let machine = SystemInfo {
            ncpu: Some(4),
            mem_total: Some(16 << 30),
            ..Default::default()
        };
        Allowance::of(&machine, most)
    }

    #[test]
    fn a_step_gets_what_it_asks_for_or_hears_what_there_is() {
        let all = machine(StepMost::default()).unwrap();
        assert_eq!(all.granted(StepLimits::default()), Ok(all));
        assert_eq!((all.cpu, all.mebibytes), (4096, 14_745));
        let asked = |cpu, memory| all.granted(StepLimits { cpu, memory });
        let large = StepLimits {
            cpu: Some(64),
            memory: Some(1 << 20),
        };
        let fitting = all.at_most(large);
        assert_eq!((fitting.cpu, fitting.memory), (Some(64), Some(14_745)));
        let granted = asked(Some(512), Some(64)).unwrap();
        assert_eq!((granted.cpu, granted.mebibytes), (512, 64));
        let refused = asked(Some(4097), None).unwrap_err();
        assert!(
            refused.contains("4097 CPU units") && refused.contains("4096"),
            "{refused}"
        );
        let refused = asked(None, Some(16_384)).unwrap_err();
        assert!(
            refused.contains("16384 MiB") && refused.contains("14745"),
            "{refused}"
        );
    }

    #[test]
    fn a_runner_allows_no_more_than_its_machine_has() {
        let most = |cpu, memory| StepMost {
            cpu,
            memory,
            processes: 64,
        };
        let allowed = machine(most(Some(1024), Some(16_384))).unwrap();
        let mut host = HostConfig::default();
        allowed.bound(&mut host);
        assert_eq!(host.nano_cpus, Some(1_000_000_000));
        assert_eq!(
            (host.memory, host.memory_swap),
            (Some(16 << 30), Some(16 << 30))
        );
        assert_eq!(host.pids_limit, Some(64));
        let mut host = HostConfig::default();
        machine(most(None, None)).unwrap().bound(&mut host);
        assert_eq!(host.nano_cpus, None);
        assert!(machine(most(Some(0), None)).is_err());
        assert!(machine(most(Some(4097), None)).is_err());
        assert!(machine(most(None, Some(16_385))).is_err());
    }
}
