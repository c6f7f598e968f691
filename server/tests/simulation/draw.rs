//! What a seed says: one thing after the other that people, forges, AWS and processes do. What an action
//! picks is a number that is taken modulo what there is when its time comes.

use crate::wire::Moment;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What a release is like, as the tag of a simulated image says it.
const IMAGES: [&str; 8] = [
    "healthy-5s",
    "healthy-5s",
    "healthy-2s..20s",
    "start-20s..60s_healthy-10s",
    "exit-1-3s",
    "unhealthy-5s",
    "50p-exit-1-10s_healthy-5s",
    "healthy-5s_flapping-40s",
];

/// The same of releases with a task before them: what becomes of that task.
const MIGRATIONS: [&str; 6] = [
    "exit-0-5s",
    "exit-0-5s",
    "exit-0-1s..30s",
    "exit-1-3s",
    "30p-exit-1-2s_70p-exit-0-8s",
    "exit-0-10m",
];

/// What effects call.
const OPERATIONS: [&str; 11] = [
    "DescribeServices",
    "DescribeTaskDefinition",
    "DescribeTasks",
    "ListServiceDeployments",
    "ListTasks",
    "RegisterTaskDefinition",
    "RunTask",
    "StopServiceDeployment",
    "StopTask",
    "UpdateService",
    "UpdateService",
];

const FAULTS: [&str; 6] = [
    "throttle",
    "fail_before",
    "fail_after",
    "drop_reply",
    "stale",
    "partial_failure",
];

/// What cuts a call; what an answer lacks is a fault of its own.
const CUTS: [Moment; 3] = [Moment::Before, Moment::After, Moment::ReplyLost];

/// What people press.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Button {
    Promote,
    Rollback,
    Approve,
    Hold,
    Resume,
    Cancel,
}

const BUTTONS: [Button; 8] = [
    Button::Promote,
    Button::Promote,
    Button::Rollback,
    Button::Approve,
    Button::Approve,
    Button::Hold,
    Button::Resume,
    Button::Cancel,
];

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// A release is made, of the newest commit or, built late, of an earlier one.
    Release { image: &'static str, is_late: bool },
    /// Somebody presses a button at a place.
    Press {
        button: Button,
        in_production: bool,
        pick: usize,
        /// Between a plan's reading and its writing.
        amid_plan: bool,
    },
    /// Calls of effects go wrong.
    Fault {
        operation: &'static str,
        kind: &'static str,
        times: u32,
    },
    /// The next look at services meets a fault.
    Blind { kind: &'static str },
    /// The executor dies, or a reply is lost, at that call of the next effect.
    Cut { call: usize, moment: Moment },
    /// Time passes.
    Wait { rounds: u32 },
}

/// What a seed draws.
pub(crate) struct Drawn {
    /// What production does with what staging proved.
    pub(crate) production: &'static str,
    /// Each release has a task before it; else its image tells how the service fares.
    pub(crate) before_deploy: bool,
    /// An image that fares well.
    pub(crate) good: &'static str,
    pub(crate) actions: Vec<Action>,
}

fn one_of<T: Copy, const N: usize>(random: &mut StdRng, all: [T; N]) -> T {
    all[random.random_range(0..N)]
}

fn action(random: &mut StdRng, before_deploy: bool) -> Action {
    match random.random_range(0..100) {
        0..22 => Action::Release {
            image: if before_deploy {
                one_of(random, MIGRATIONS)
            } else {
                one_of(random, IMAGES)
            },
            is_late: random.random_range(0..4) == 0,
        },
        22..42 => Action::Press {
            button: one_of(random, BUTTONS),
            in_production: random.random(),
            pick: random.random_range(0..8),
            amid_plan: random.random_range(0..3) == 0,
        },
        42..54 => Action::Fault {
            operation: one_of(random, OPERATIONS),
            kind: one_of(random, FAULTS),
            times: random.random_range(1..3),
        },
        54..58 => Action::Blind {
            kind: one_of(random, ["deny", "stale"]),
        },
        58..70 => Action::Cut {
            call: random.random_range(0..7),
            moment: one_of(random, CUTS),
        },
        _ => Action::Wait {
            rounds: random.random_range(1..6),
        },
    }
}

/// The story of a seed.
pub(crate) fn draw(seed: u64) -> Drawn {
    let mut random = StdRng::seed_from_u64(seed);
    let before_deploy = random.random_range(0..3) == 0;
    // Without a gate people may promote what staging has not proved.
    let gates = [
        "deploy: auto\n    gates: [healthy: { for: 1s }]",
        "deploy: auto\n    gates: [healthy: { for: 20s }]",
        "deploy: auto\n    gates: [healthy: { for: 10s }, approval: { count: 1 }]",
        "deploy: manual\n    gates: [healthy: { for: 10s }]",
    ];
    let production = one_of(&mut random, gates);
    let good = if before_deploy {
        MIGRATIONS[0]
    } else {
        IMAGES[0]
    };
    // Something is there to begin with.
    let first = Action::Release {
        image: good,
        is_late: false,
    };
    let count = random.random_range(8..22);
    let others = (0..count).map(|_| action(&mut random, before_deploy));
    let actions = [first].into_iter().chain(others).collect();
    Drawn {
        production,
        before_deploy,
        good,
        actions,
    }
}
