//! The scenarios and how each must end, whoever drives it and whatever runs the tasks.
//!
//! The outcomes are AWS's, as far as they are documented; docs/sandbox.md shows the same table.

use std::fmt::Write as _;

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Runs, and answers its check and its load balancer.
    Good,
    /// Its image cannot be pulled.
    MissingImage,
    /// Exits with 1 at once.
    ExitAtStart,
    /// Exits with 1 a while after it ran, before its health check said anything.
    CrashChecked,
    /// The same, and nothing checks it.
    CrashUnchecked,
    /// Answers its load balancer with 500.
    Answers500,
    /// Needs 40 s at AWS's pace until it answers its load balancer.
    SlowBoot,
    /// Needs longer than anybody waits.
    NeverBoots,
    /// Its check never says anything.
    Undecided,
    /// Takes more memory than it may.
    OutOfMemory,
}

/// What is done to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Rolled out over a good revision.
    RollOut(Behaviour),
    /// Rolled out, and another one before that is over.
    Supersede(Behaviour, Behaviour),
    /// Rolled out, and stopped with ROLLBACK.
    RollOutAndStop(Behaviour),
    /// The first deployment of the service.
    Create(Behaviour),
    /// One of two container instances is lost.
    LoseInstance,
    /// Scaled to zero and back.
    ScaleToZeroAndBack,
}

/// The revision that the service names in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Revision {
    First,
    Second,
    Third,
}

/// A service and what is done to it.
pub(crate) struct Scenario {
    pub name: &'static str,
    pub act: Act,
    pub desired: u32,
    pub percents: (u32, u32),
    /// Whether the breaker takes back what fails.
    pub rollback: bool,
    pub threshold: Option<(&'static str, u32)>,
    /// Seconds.
    pub grace: u32,
    pub balanced: bool,
    pub outcome: Outcome,
}

/// What must be seen of the service in the end.
pub(crate) struct Outcome {
    /// The newest service deployment's.
    pub status: &'static str,
    pub revision: Revision,
    /// While a rollout is in progress, at least.
    pub running: u32,
    /// Parts of what one stopped task says.
    pub stopped: &'static [&'static str],
    /// At least so many tasks have stopped.
    pub least_stopped: usize,
    /// A part of an event.
    pub event: &'static str,
    /// The failures that trip the breaker.
    pub breaks_at: Option<u32>,
}

const SCENARIO: Scenario = Scenario {
    name: "",
    act: Act::RollOut(Behaviour::Good),
    desired: 2,
    percents: (100, 200),
    rollback: true,
    threshold: None,
    grace: 0,
    balanced: false,
    outcome: COMPLETED,
};

const COMPLETED: Outcome = Outcome {
    status: "SUCCESSFUL",
    revision: Revision::Second,
    running: 2,
    stopped: &["ServiceSchedulerInitiated"],
    least_stopped: 2,
    event: "deployment completed.",
    breaks_at: None,
};

const TAKEN_BACK: Outcome = Outcome {
    status: "ROLLBACK_SUCCESSFUL",
    revision: Revision::First,
    stopped: &[],
    least_stopped: 3,
    event: "rolling back to deployment",
    breaks_at: Some(3),
    ..COMPLETED
};

pub(crate) const SCENARIOS: [Scenario; 19] = [
    Scenario {
        name: "good image",
        ..SCENARIO
    },
    Scenario {
        name: "missing image",
        act: Act::RollOut(Behaviour::MissingImage),
        outcome: Outcome {
            stopped: &["TaskFailedToStart", "CannotPullContainerError"],
            ..TAKEN_BACK
        },
        ..SCENARIO
    },
    Scenario {
        name: "exit 1 at start",
        act: Act::RollOut(Behaviour::ExitAtStart),
        outcome: Outcome {
            stopped: &[
                "EssentialContainerExited",
                "Essential container in task exited",
                "exit 1",
            ],
            ..TAKEN_BACK
        },
        ..SCENARIO
    },
    Scenario {
        name: "crash with a health check",
        act: Act::RollOut(Behaviour::CrashChecked),
        outcome: Outcome {
            stopped: &["EssentialContainerExited", "exit 1"],
            ..TAKEN_BACK
        },
        ..SCENARIO
    },
    Scenario {
        name: "crash without a health check",
        act: Act::RollOut(Behaviour::CrashUnchecked),
        desired: 1,
        outcome: Outcome {
            // The breaker does not count these: the rollout goes on for ever, beside the old tasks.
            status: "IN_PROGRESS",
            revision: Revision::Second,
            stopped: &["EssentialContainerExited", "exit 1"],
            running: 1,
            least_stopped: 4,
            event: "has started",
            breaks_at: Some(3),
        },
        ..SCENARIO
    },
    Scenario {
        name: "answers 500",
        act: Act::RollOut(Behaviour::Answers500),
        balanced: true,
        outcome: Outcome {
            stopped: &["Task failed ELB health checks in (target-group "],
            ..TAKEN_BACK
        },
        ..SCENARIO
    },
    Scenario {
        name: "slow boot within the grace period",
        act: Act::RollOut(Behaviour::SlowBoot),
        balanced: true,
        grace: 600,
        ..SCENARIO
    },
    Scenario {
        name: "slow boot without a grace period",
        act: Act::RollOut(Behaviour::NeverBoots),
        balanced: true,
        outcome: Outcome {
            stopped: &["Task failed ELB health checks in (target-group "],
            ..TAKEN_BACK
        },
        ..SCENARIO
    },
    Scenario {
        name: "superseded in mid-rollout",
        act: Act::Supersede(Behaviour::Undecided, Behaviour::Good),
        outcome: Outcome {
            revision: Revision::Third,
            least_stopped: 3,
            ..COMPLETED
        },
        ..SCENARIO
    },
    Scenario {
        name: "stopped with rollback",
        act: Act::RollOutAndStop(Behaviour::Undecided),
        outcome: Outcome {
            stopped: &["ServiceSchedulerInitiated"],
            least_stopped: 1,
            ..TAKEN_BACK
        },
        ..SCENARIO
    },
    Scenario {
        name: "first deployment fails",
        act: Act::Create(Behaviour::ExitAtStart),
        outcome: Outcome {
            status: "STOPPED",
            running: 0,
            stopped: &["EssentialContainerExited", "exit 1"],
            event: "deployment failed: tasks failed to start.",
            ..TAKEN_BACK
        },
        ..SCENARIO
    },
    Scenario {
        name: "no rollback wanted",
        act: Act::RollOut(Behaviour::ExitAtStart),
        rollback: false,
        outcome: Outcome {
            status: "STOPPED",
            revision: Revision::Second,
            stopped: &["EssentialContainerExited", "exit 1"],
            event: "deployment failed: tasks failed to start.",
            ..TAKEN_BACK
        },
        ..SCENARIO
    },
    Scenario {
        name: "minimum and maximum leave no room",
        desired: 1,
        percents: (100, 150),
        outcome: Outcome {
            status: "IN_PROGRESS",
            running: 1,
            stopped: &[],
            least_stopped: 0,
            event: "unable",
            breaks_at: Some(3),
            ..COMPLETED
        },
        ..SCENARIO
    },
    Scenario {
        name: "breaker at a bounded percentage",
        act: Act::RollOut(Behaviour::ExitAtStart),
        threshold: Some(("BOUNDED_PERCENT", 50)),
        outcome: Outcome {
            stopped: &["exit 1"],
            ..TAKEN_BACK
        },
        ..SCENARIO
    },
    Scenario {
        name: "breaker at an unbounded percentage",
        act: Act::RollOut(Behaviour::ExitAtStart),
        threshold: Some(("UNBOUNDED_PERCENT", 100)),
        outcome: Outcome {
            stopped: &["exit 1"],
            least_stopped: 2,
            breaks_at: Some(2),
            ..TAKEN_BACK
        },
        ..SCENARIO
    },
    Scenario {
        name: "breaker at a count",
        act: Act::RollOut(Behaviour::ExitAtStart),
        threshold: Some(("COUNT", 5)),
        outcome: Outcome {
            stopped: &["exit 1"],
            least_stopped: 5,
            breaks_at: Some(5),
            ..TAKEN_BACK
        },
        ..SCENARIO
    },
    Scenario {
        name: "out of memory",
        act: Act::RollOut(Behaviour::OutOfMemory),
        outcome: Outcome {
            stopped: &["EssentialContainerExited", "exit 137", "OutOfMemoryError"],
            ..TAKEN_BACK
        },
        ..SCENARIO
    },
    Scenario {
        name: "instance lost",
        act: Act::LoseInstance,
        outcome: Outcome {
            revision: Revision::First,
            stopped: &["Host EC2 (instance ", "terminated."],
            least_stopped: 1,
            ..COMPLETED
        },
        ..SCENARIO
    },
    Scenario {
        name: "scaled to zero and back",
        act: Act::ScaleToZeroAndBack,
        outcome: Outcome {
            revision: Revision::First,
            event: "has reached a steady state.",
            ..COMPLETED
        },
        ..SCENARIO
    },
];

impl Scenario {
    /// The scenario of that name.
    pub(crate) fn named(name: &str) -> &'static Self {
        SCENARIOS
            .iter()
            .find(|one| one.name == name)
            .unwrap_or_else(|| panic!("no scenario {name}"))
    }

    /// What `ecs-deploy`, which can deploy, scale and run, has no command for in this.
    pub(crate) fn beyond_ecs_deploy(&self) -> Option<Beyond> {
        match self.act {
            Act::RollOut(_) | Act::Supersede(..) | Act::ScaleToZeroAndBack => None,
            Act::RollOutAndStop(_) => Some(Beyond {
                played: true,
                why: "it cannot stop a service deployment, so boto3 does",
            }),
            Act::Create(_) => Some(Beyond {
                played: false,
                why: "it cannot create a service",
            }),
            Act::LoseInstance => Some(Beyond {
                played: false,
                why: "nothing is deployed",
            }),
        }
    }
}

/// Something that a client has no command for.
pub(crate) struct Beyond {
    /// Whether the client plays the rest.
    pub played: bool,
    pub why: &'static str,
}

/// The table as docs/sandbox.md shows it.
pub(crate) fn render() -> String {
    let mut page = String::from(
        "| scenario | service deployment | the service names | running | a stopped task says | an event \
         says |\n|---|---|---|---|---|---|\n",
    );
    for one in &SCENARIOS {
        let outcome = &one.outcome;
        let words = |parts: &[&str]| match parts {
            [] => "–".to_owned(),
            parts => {
                let quoted = parts.iter().map(|part| format!("`{}`", part.trim()));
                quoted.collect::<Vec<_>>().join(", ")
            }
        };
        let revision = match outcome.revision {
            Revision::First => "the first",
            Revision::Second => "the second",
            Revision::Third => "the third",
        };
        writeln!(
            page,
            "| {} | `{}` | {} | {} | {} | {} |",
            one.name,
            outcome.status,
            revision,
            outcome.running,
            words(outcome.stopped),
            words(&[outcome.event]),
        )
        .expect("a string takes all");
    }
    page.push_str("\n`ecs-deploy` plays all of them as they are, except:\n\n");
    for one in &SCENARIOS {
        if let Some(Beyond { played, why }) = one.beyond_ecs_deploy() {
            let how = if played { "" } else { "not played: " };
            writeln!(page, "- {}: {how}{why}.", one.name).expect("a string takes all");
        }
    }
    page
}
