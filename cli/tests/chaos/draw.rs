//! What a seed says: the stream of work and faults. Nothing here looks at the world; what an action
//! picks is a number that is taken modulo what there is when its time comes.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

/// What a pushed commit is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commit {
    Good,
    /// Answers 500 everywhere.
    Broken,
    /// Ends as soon as it is started.
    Exits,
    /// Answers 500 where it is probed in production.
    BrokenInProduction,
    /// A step fails.
    FailsTest,
    /// On a branch that nothing is built of.
    OtherBranch,
}

/// A button of the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Button {
    Promote,
    Rollback,
    Hold,
    Resume,
    CancelRun,
    CancelDeployment,
    Retry,
    Redeliver,
}

/// A part that can be killed or stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Server(usize),
    Runner(usize),
    Sandbox,
}

/// A line between parts, through a proxy of the harness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// Between runners, forge or people, and servers.
    Server,
    /// Between servers and AWS.
    Aws,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Push {
        commit: Commit,
        /// How many deliveries tell of it at the same time.
        deliveries: usize,
        /// Whether each of them has an id of its own.
        own_ids: bool,
        /// How long after the push they come: later ones may overtake them.
        after: Duration,
    },
    DeliverAgain {
        pick: usize,
        own_id: bool,
    },
    Press {
        button: Button,
        production: bool,
        pick: usize,
    },
    Kill {
        victim: Victim,
        down: Duration,
    },
    Stop {
        victim: Victim,
        lasts: Duration,
    },
    Cut(Line),
    Refuse {
        line: Line,
        lasts: Duration,
    },
    Fault {
        operation: &'static str,
        kind: &'static str,
        times: u32,
        delay_ms: u64,
    },
    DatabaseDown {
        down: Duration,
    },
    /// No room is left on the servers' disk.
    DiskFull {
        lasts: Duration,
    },
}

const OPERATIONS: [&str; 10] = [
    "RegisterTaskDefinition",
    "UpdateService",
    "DescribeServices",
    "DescribeTaskDefinition",
    "DescribeImages",
    "ListServiceDeployments",
    "PutImage",
    "GetAuthorizationToken",
    "StopServiceDeployment",
    "*",
];
const KINDS: [&str; 6] = [
    "throttle",
    "fail_before",
    "fail_after",
    "drop_reply",
    "delay",
    "delay_reply",
];

/// The stream.
pub(crate) struct Draw {
    random: StdRng,
    servers: usize,
    runners: usize,
    /// Whether stops may outlast a runner's lease of 30 s.
    long: bool,
    /// Whether there is a database to shut down.
    database: bool,
    /// Whether there is a disk to fill.
    disk: bool,
}

impl Draw {
    pub(crate) fn new(
        seed: u64,
        servers: usize,
        runners: usize,
        long: bool,
        (database, disk): (bool, bool),
    ) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            servers,
            runners,
            long,
            database,
            disk,
        }
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.random_range(range))
    }

    /// How long until the next action.
    pub(crate) fn pause(&mut self) -> Duration {
        self.millis(100..1_000)
    }

    fn victim(&mut self) -> Victim {
        match self.random.random_range(0..10) {
            0..4 => Victim::Server(self.random.random_range(0..self.servers)),
            4..8 => Victim::Runner(self.random.random_range(0..self.runners)),
            _ => Victim::Sandbox,
        }
    }

    fn push(&mut self) -> Action {
        let commit = match self.random.random_range(0..20) {
            0..11 => Commit::Good,
            11..13 => Commit::Broken,
            13..15 => Commit::Exits,
            15..17 => Commit::BrokenInProduction,
            17 => Commit::FailsTest,
            _ => Commit::OtherBranch,
        };
        Action::Push {
            commit,
            deliveries: self.random.random_range(1..5),
            own_ids: self.random.random(),
            after: if self.random.random_ratio(1, 4) {
                self.millis(500..4_000)
            } else {
                Duration::ZERO
            },
        }
    }

    fn press(&mut self) -> Action {
        let button = match self.random.random_range(0..16) {
            0..3 => Button::Promote,
            3..6 => Button::Rollback,
            6 => Button::Hold,
            7..11 => Button::Resume,
            11 => Button::CancelRun,
            12 => Button::CancelDeployment,
            13..15 => Button::Retry,
            _ => Button::Redeliver,
        };
        Action::Press {
            button,
            production: self.random.random(),
            pick: self.random.random_range(0..1_000),
        }
    }

    fn line(&mut self) -> Line {
        if self.random.random() {
            Line::Server
        } else {
            Line::Aws
        }
    }

    /// What comes next.
    pub(crate) fn next(&mut self) -> Action {
        match self.random.random_range(0..100) {
            0..20 => self.push(),
            20..32 => Action::DeliverAgain {
                pick: self.random.random_range(0..1_000),
                own_id: self.random.random(),
            },
            32..48 => self.press(),
            48..60 => Action::Kill {
                victim: self.victim(),
                down: self.millis(0..2_500),
            },
            60..68 => self.stop(),
            68..76 => Action::Cut(self.line()),
            76..80 => Action::Refuse {
                line: self.line(),
                lasts: self.millis(500..4_000),
            },
            80..85 if self.database => Action::DatabaseDown {
                // A server waits 5 s for the database before it says that it is gone.
                down: if self.random.random_ratio(1, 3) {
                    self.millis(11_000..15_000)
                } else {
                    self.millis(500..4_000)
                },
            },
            85..88 if self.disk => Action::DiskFull {
                lasts: self.millis(500..8_000),
            },
            _ => Action::Fault {
                operation: OPERATIONS[self.random.random_range(0..OPERATIONS.len())],
                kind: KINDS[self.random.random_range(0..KINDS.len())],
                times: self.random.random_range(1..4),
                delay_ms: self.random.random_range(100..3_000),
            },
        }
    }

    fn stop(&mut self) -> Action {
        // Whoever holds an attempt and wakes after its lease is the one that fencing is for.
        if self.long && self.random.random_ratio(1, 4) {
            return Action::Stop {
                victim: Victim::Runner(self.random.random_range(0..self.runners)),
                lasts: self.millis(34_000..45_000),
            };
        }
        Action::Stop {
            victim: self.victim(),
            lasts: self.millis(500..6_000),
        }
    }
}
