//! The states that pages show. Each has a word, a tone and an icon, so that no state is told
//! by colour alone.

/// How a state is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Finished well, healthy.
    Good,
    /// Moving.
    Busy,
    /// Wants attention or waits for a person.
    Warn,
    /// Failed, unhealthy.
    Bad,
    /// Neither good nor bad: waiting its turn, ended by choice, unknown.
    Quiet,
}

impl Tone {
    /// The class in the style sheet.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Busy => "busy",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Quiet => "quiet",
        }
    }
}

/// Anything that a badge can show.
pub(crate) trait State: Copy {
    /// How it is coloured.
    fn tone(self) -> Tone;
    /// The name of its icon in the sprite.
    fn icon(self) -> &'static str;
    /// What it is called on the page.
    fn word(self) -> &'static str;
}

/// Declares an enum of states; each line is `Variant => tone, icon, "word"`.
macro_rules! states {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident => $tone:ident, $icon:literal, $word:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// How it is coloured.
            #[must_use]
            pub fn tone(self) -> Tone {
                match self { $(Self::$variant => Tone::$tone,)+ }
            }

            /// The name of its icon in the sprite.
            #[must_use]
            pub fn icon(self) -> &'static str {
                match self { $(Self::$variant => $icon,)+ }
            }

            /// What it is called on the page.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl State for $name {
            fn tone(self) -> Tone {
                Self::tone(self)
            }

            fn icon(self) -> &'static str {
                Self::icon(self)
            }

            fn word(self) -> &'static str {
                Self::word(self)
            }
        }
    };
}

states! {
    /// A run as a whole.
    RunState {
        /// No runner has taken any of its jobs yet.
        Queued => Quiet, "clock", "queued";
        /// Untrusted code that nobody has let run yet.
        Unapproved => Warn, "person", "waiting for approval";
        /// At least one job runs.
        Running => Busy, "spin", "running";
        /// Asked to stop; the runner has not confirmed yet.
        Cancelling => Warn, "spin", "cancelling";
        /// Every step ended well.
        Succeeded => Good, "check", "succeeded";
        /// A step or the pipeline file failed.
        Failed => Bad, "cross", "failed";
        /// Stopped by a person or a newer run.
        Cancelled => Quiet, "ban", "cancelled";
        /// A time limit was reached.
        TimedOut => Bad, "alarm", "timed out";
    }
}

states! {
    /// One step of a run, or one attempt of it.
    StepState {
        /// Waits for steps that it needs, or for a runner.
        Pending => Quiet, "clock", "pending";
        /// Its container runs.
        Running => Busy, "spin", "running";
        /// Exit status 0.
        Succeeded => Good, "check", "succeeded";
        /// Any other end.
        Failed => Bad, "cross", "failed";
        /// A step that it needs did not succeed.
        Skipped => Quiet, "skip", "skipped";
        /// Stopped by a person or a newer run.
        Cancelled => Quiet, "ban", "cancelled";
        /// Its time limit was reached.
        TimedOut => Bad, "alarm", "timed out";
        /// The runner went away; a new attempt follows.
        Lost => Warn, "alert", "lost";
    }
}

states! {
    /// A deployment, from its place in the queue to its end.
    DeploymentState {
        /// Waits for gates or for its turn.
        Queued => Quiet, "clock", "queued";
        /// ECS replaces tasks.
        RollingOut => Busy, "spin", "rolling out";
        /// The rollout is done; verification watches.
        Verifying => Busy, "eye", "verifying";
        /// It failed and is being taken back.
        RollingBack => Warn, "spin", "rolling back";
        /// The rollout finished and verification held.
        Deployed => Good, "check", "deployed";
        /// Ended without success; nothing to go back to, or nothing was changed.
        Failed => Bad, "cross", "failed";
        /// Failed, and the environment is back on its last verified release.
        RolledBack => Bad, "back", "rolled back";
        /// Failed, and going back failed too.
        RollbackFailed => Bad, "alert", "rollback failed";
        /// A newer release took its place before it started.
        Superseded => Quiet, "skip", "superseded";
        /// Stopped by a person.
        Cancelled => Quiet, "ban", "cancelled";
        /// Its own deadline was reached.
        TimedOut => Bad, "alarm", "timed out";
    }
}

impl DeploymentState {
    /// Whether it can still change.
    #[must_use]
    pub fn live(self) -> bool {
        matches!(
            self,
            Self::Queued | Self::RollingOut | Self::Verifying | Self::RollingBack
        )
    }
}

states! {
    /// How a service does in an environment.
    Health {
        /// All wanted tasks run and their targets are healthy.
        Healthy => Good, "check", "healthy";
        /// Fewer healthy tasks than wanted.
        Degraded => Warn, "alert", "degraded";
        /// No healthy task.
        Unhealthy => Bad, "cross", "unhealthy";
        /// Tasks start.
        Starting => Busy, "spin", "starting";
        /// The cluster did not answer; see "last seen".
        Unknown => Quiet, "question", "unknown";
        /// Nothing was ever deployed here.
        Empty => Quiet, "dash", "nothing deployed";
    }
}

states! {
    /// What a gate says.
    GateVerdict {
        /// Open.
        Pass => Good, "check", "open";
        /// Not yet.
        Wait => Warn, "clock", "waiting";
        /// Closed; only a change outside can open it.
        Fail => Bad, "cross", "closed";
        /// Cannot tell, so it waits: never promotes, never rolls back.
        Inconclusive => Quiet, "question", "cannot tell";
    }
}

states! {
    /// One target behind the load balancer.
    TargetHealth {
        /// Answers its health check.
        Healthy => Good, "check", "healthy";
        /// Fails its health check.
        Unhealthy => Bad, "cross", "unhealthy";
        /// Registered, first checks under way.
        Initial => Busy, "spin", "initial";
        /// Finishing its last requests.
        Draining => Quiet, "clock", "draining";
        /// Not in use.
        Unused => Quiet, "dash", "unused";
        /// The load balancer cannot tell.
        Unavailable => Warn, "question", "unavailable";
    }
}

states! {
    /// A runner as the server sees it.
    RunnerState {
        /// Polls, and has room.
        Idle => Good, "check", "idle";
        /// Runs at least one attempt.
        Busy => Busy, "spin", "busy";
        /// Finishes what it has and takes nothing new.
        Draining => Warn, "pause", "draining";
        /// Has nothing to do and takes nothing until somebody lets it.
        Drained => Quiet, "pause", "drained";
        /// Takes nothing because its disk is nearly full.
        LowDisk => Warn, "alert", "low disk";
        /// Was stopped, and said so.
        Gone => Quiet, "dash", "gone";
        /// Has not been heard of within its lease.
        Lost => Bad, "cross", "lost";
    }
}

states! {
    /// What became of a webhook delivery.
    DeliveryDecision {
        /// Stored, not processed yet.
        Pending => Busy, "clock", "pending";
        /// Started a run.
        Run => Good, "check", "started a run";
        /// Told of the end of a pull request.
        Closed => Quiet, "ban", "closed";
        /// Understood, and nothing was to be done; the reason says why.
        Ignored => Quiet, "dash", "ignored";
        /// The same push was seen before.
        Duplicate => Quiet, "skip", "duplicate";
        /// Refused before it was stored as work: signature, size, syntax.
        Rejected => Bad, "cross", "rejected";
        /// Processing failed; redeliver after the cause is gone.
        Failed => Bad, "alert", "failed";
    }
}

/// What a person may do, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Looks.
    Viewer,
    /// Runs, cancels, promotes, rolls back, approves, holds.
    Deployer,
    /// Everything, tokens and runners included.
    Admin,
}

impl Role {
    /// Every role, weakest first.
    pub const ALL: &[Self] = &[Self::Viewer, Self::Deployer, Self::Admin];

    /// Its name on pages and in the `role` field of forms.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Deployer => "deployer",
            Self::Admin => "admin",
        }
    }
}

/// How releases get into an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeployMode {
    /// As soon as the gates are open.
    Auto,
    /// When someone presses Promote.
    Manual,
}

impl DeployMode {
    /// Its name in the pipeline file.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Manual => "manual",
        }
    }
}

/// Which verb made a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeploymentKind {
    /// The pipeline, on its own.
    Auto,
    /// A person pressed Promote.
    Promote,
    /// A person pressed Roll back.
    Rollback,
    /// The pipeline took back a failed deployment.
    AutoRollback,
}

impl DeploymentKind {
    /// What it is called on the page.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "deploy",
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::AutoRollback => "automatic rollback",
        }
    }
}
