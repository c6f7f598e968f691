//! The matrix, deployments and services.

use roadstead_web::urls;
use roadstead_web::view::{
    Actor, Cell, ClusterEvent, DeployMode, DeploymentKind, DeploymentPage, DeploymentState,
    DeploymentSummary, EnvironmentHead, Fact, Gate, GateVerdict, Health, Hold, HomePage, InFlight,
    LiveRelease, LogLine, Matrix, MatrixRow, Need, NeedKind, Permission, ProjectRuns, Rollout,
    RunState, StoppedTask, Target, TargetHealth, Tone, Waiting,
};

use super::runs::{recent, run};
use super::{NOW, ago, commit, digest, frame, noticed};

fn live(release: &str, sha: &str, message: &str, author: &str, age: i64) -> LiveRelease {
    LiveRelease {
        release: release.into(),
        commit: commit(sha, message, author),
        digest: digest(sha),
        deployment: format!("d-{release}"),
        since: ago(age),
    }
}

fn cell(environment: &str, health: Health, detail: &str, live: Option<LiveRelease>) -> Cell {
    Cell {
        environment: environment.into(),
        live,
        health,
        health_detail: detail.into(),
        last_seen: None,
        behind: None,
        in_flight: None,
        waiting: Vec::new(),
        hold: None,
    }
}

fn soak() -> Waiting {
    Waiting {
        what: "production".into(),
        reason: "staging/web to stay healthy for 10 min: 7 min so far; it broke 10 min ago: target health".into(),
        since: ago(430),
        until: Some(NOW.plus_seconds(175)),
        who: "nobody needs to act".into(),
    }
}

pub(crate) fn hold(resume: Permission) -> Hold {
    Hold {
        by: "automatic rollback".into(),
        since: ago(5_400),
        reason: "r13 failed verification: GET /healthz answered 500 four times.".into(),
        who: "A deployer can resume, or promote a newer release.".into(),
        resume,
    }
}

pub(crate) fn matrix_shop() -> Matrix {
    let api_staging = Cell {
        in_flight: None,
        ..cell(
            "staging",
            Health::Healthy,
            "2 of 2 tasks",
            Some(live("r14", "9c1d2e3", "Charge the card once", "Maya", 430)),
        )
    };
    let api_production = Cell {
        behind: Some(2),
        waiting: vec![soak()],
        ..cell(
            "production",
            Health::Healthy,
            "4 of 4 tasks",
            Some(live(
                "r12",
                "3f2a91c",
                "Show taxes per line",
                "Ole",
                172_900,
            )),
        )
    };
    let web_staging = Cell {
        in_flight: Some(InFlight {
            deployment: "d-31".into(),
            kind: DeploymentKind::Auto,
            state: DeploymentState::RollingOut,
            release: "r14".into(),
            commit: commit("9c1d2e3", "Charge the card once", "Maya"),
            progress: "1 of 2 tasks healthy".into(),
            since: ago(48),
        }),
        ..cell(
            "staging",
            Health::Degraded,
            "1 of 2 tasks",
            Some(live("r13", "b7704f0", "Bigger buttons", "Ines", 7_300)),
        )
    };
    let web_production = Cell {
        behind: Some(1),
        hold: Some(hold(Permission::Allowed)),
        ..cell(
            "production",
            Health::Healthy,
            "3 of 3 tasks",
            Some(live("r12", "3f2a91c", "Show taxes per line", "Ole", 5_390)),
        )
    };
    let worker_staging = Cell {
        last_seen: Some(ago(260)),
        ..cell(
            "staging",
            Health::Unknown,
            "the cluster does not answer",
            Some(live(
                "r12",
                "3f2a91c",
                "Show taxes per line",
                "Ole",
                172_900,
            )),
        )
    };
    Matrix {
        project: "shop".into(),
        environments: vec![
            EnvironmentHead {
                name: "staging".into(),
                mode: DeployMode::Auto,
                gates: String::new(),
            },
            EnvironmentHead {
                name: "production".into(),
                mode: DeployMode::Auto,
                gates: "10 m healthy in staging".into(),
            },
        ],
        rows: vec![
            MatrixRow {
                service: "api".into(),
                cells: vec![api_staging, api_production],
            },
            MatrixRow {
                service: "web".into(),
                cells: vec![web_staging, web_production],
            },
            MatrixRow {
                service: "worker".into(),
                cells: vec![worker_staging, cell("production", Health::Empty, "", None)],
            },
        ],
    }
}

fn matrix_billing() -> Matrix {
    Matrix {
        project: "billing".into(),
        environments: vec![
            EnvironmentHead {
                name: "staging".into(),
                mode: DeployMode::Auto,
                gates: String::new(),
            },
            EnvironmentHead {
                name: "production".into(),
                mode: DeployMode::Manual,
                gates: "approval".into(),
            },
        ],
        rows: vec![MatrixRow {
            service: "ledger".into(),
            cells: vec![
                cell(
                    "staging",
                    Health::Healthy,
                    "1 of 1 task",
                    Some(live(
                        "r88",
                        "e01b55d",
                        "Close the books at midnight UTC",
                        "Noor",
                        86_000,
                    )),
                ),
                Cell {
                    behind: Some(1),
                    waiting: vec![Waiting {
                        what: "r88".into(),
                        reason: "an approval by a deployer other than Noor".into(),
                        since: ago(85_400),
                        until: None,
                        who: "maya, ole or ines can approve".into(),
                    }],
                    ..cell(
                        "production",
                        Health::Unhealthy,
                        "0 of 2 tasks",
                        Some(live(
                            "r87",
                            "77aa210",
                            "Send reminders on weekdays",
                            "Noor",
                            900_000,
                        )),
                    )
                },
            ],
        }],
    }
}

pub(crate) fn deployments() -> Vec<DeploymentSummary> {
    let summary =
        |name: &str, environment: &str, kind, state, reason: &str, age: i64, ended: Option<i64>| {
            DeploymentSummary {
                id: format!("d-{}", &name[1..]),
                name: name.into(),
                project: "shop".into(),
                environment: environment.into(),
                service: "web".into(),
                kind,
                state,
                reason: reason.into(),
                release: "r14".into(),
                commit: commit("9c1d2e3", "Charge the card once", "Maya"),
                actor: Actor {
                    name: "auto-deploy".into(),
                    via: "push by maya".into(),
                },
                created: ago(age),
                ended: ended.map(ago),
            }
        };
    vec![
        summary(
            "d31",
            "staging",
            DeploymentKind::Auto,
            DeploymentState::RollingOut,
            "1 of 2 tasks healthy",
            52,
            None,
        ),
        summary(
            "d30",
            "production",
            DeploymentKind::Promote,
            DeploymentState::Queued,
            "waits for 3 m more of healthy staging",
            40,
            None,
        ),
    ]
}

pub(crate) fn home() -> HomePage {
    let mut billing = recent(9);
    for run in &mut billing {
        run.project = "billing".into();
    }
    HomePage {
        frame: frame(),
        matrices: vec![matrix_billing(), matrix_shop()],
        needs: vec![
            Need {
                kind: NeedKind::Approval,
                title: "billing: ledger r88 into production".into(),
                reason: "Waits for an approval by a deployer other than Noor.".into(),
                since: ago(85_400),
                url: urls::service("billing", "production", "ledger"),
            },
            Need {
                kind: NeedKind::Failed,
                title: "shop: run #40".into(),
                reason: "test: exit status 101. Nothing newer has repaired it.".into(),
                since: ago(3_820),
                url: urls::run("40"),
            },
            Need {
                kind: NeedKind::Held,
                title: "shop: web in production".into(),
                reason:
                    "Automatic rollback of r13. A deployer can resume, or promote a newer release."
                        .into(),
                since: ago(5_400),
                url: urls::service("shop", "production", "web"),
            },
            Need {
                kind: NeedKind::Promotion,
                title: "shop: worker r12 into production".into(),
                reason: "Verified in staging; production deploys by hand.".into(),
                since: ago(172_000),
                url: urls::service("shop", "production", "worker"),
            },
        ],
        runs: vec![run(
            41,
            RunState::Running,
            "Retry the payment gateway twice",
            "Maya",
            130,
            None,
        )],
        deployments: deployments(),
        recent: vec![
            ProjectRuns {
                project: "billing".into(),
                runs: billing,
            },
            ProjectRuns {
                project: "shop".into(),
                runs: recent(30),
            },
        ],
    }
}

pub(crate) fn home_empty() -> HomePage {
    HomePage {
        matrices: Vec::new(),
        needs: Vec::new(),
        runs: Vec::new(),
        deployments: Vec::new(),
        recent: Vec::new(),
        ..home()
    }
}

pub(crate) fn gates() -> Vec<Gate> {
    vec![
        Gate {
            name: "healthy in staging for 10 m".into(),
            verdict: GateVerdict::Wait,
            reason: "staging/web to stay healthy for 10 min: 7 min so far; it broke 10 min ago: target health".into(),
            since: Some(ago(430)),
            until: Some(NOW.plus_seconds(175)),
            who: "nobody needs to act".into(),
        },
        Gate {
            name: "2 running tasks in staging".into(),
            verdict: GateVerdict::Pass,
            reason: "2 run".into(),
            since: Some(ago(430)),
            until: None,
            who: String::new(),
        },
        Gate {
            name: "approval by a deployer".into(),
            verdict: GateVerdict::Wait,
            reason: "approval by a deployer who wrote none of it".into(),
            since: Some(ago(400)),
            until: None,
            who: "ole or ines can approve".into(),
        },
        Gate {
            name: "alarm shop-prod-5xx".into(),
            verdict: GateVerdict::Inconclusive,
            reason: "the account does not answer; last seen 13:58".into(),
            since: Some(ago(250)),
            until: None,
            who: String::new(),
        },
        Gate {
            name: "window mon–thu 09:00–16:00 Europe/Berlin".into(),
            verdict: GateVerdict::Fail,
            reason: "opens Thursday 09:00".into(),
            since: Some(ago(60)),
            until: Some(NOW.plus_seconds(64_000)),
            who: "an admin can override".into(),
        },
    ]
}

fn fact(age: i64, tone: Tone, title: &str, detail: &str) -> Fact {
    Fact {
        at: ago(age),
        tone,
        title: title.into(),
        detail: detail.into(),
    }
}

pub(crate) fn deployment_rolled_back() -> DeploymentPage {
    let texts = [
        "listening on 0.0.0.0:8080",
        "GET /healthz 200",
        "\x1b[31mERROR\x1b[0m payment gateway: certificate <gateway.example> has expired",
        "\x1b[31mfatal:\x1b[0m cannot continue without a payment gateway",
    ];
    let stopped = StoppedTask {
        task: "4f0c6a2d91e7".into(),
        task_definition: "shop-web:18".into(),
        code: "EssentialContainerExited".into(),
        reason: "Essential container in task exited".into(),
        container: "nginx".into(),
        exit_code: Some(137),
        replaced: false,
        at: ago(5_640),
        last_lines: texts
            .iter()
            .zip(181..)
            .map(|(text, number)| LogLine {
                number,
                at: None,
                text: (*text).to_owned(),
            })
            .collect(),
        log_note: String::new(),
    };
    let image_gone = StoppedTask {
        task: "b81200aa04cd".into(),
        code: "TaskFailedToStart".into(),
        reason:
            "CannotPullContainerError: pull access denied for shop/web, repository does not exist"
                .into(),
        exit_code: None,
        last_lines: Vec::new(),
        log_note: "the container never started".into(),
        ..stopped.clone()
    };
    let replaced = StoppedTask {
        task: "0d77e2a1c943".into(),
        code: "ServiceSchedulerInitiated".into(),
        reason: "Scaling activity initiated by (deployment ecs-svc/20)".into(),
        exit_code: Some(0),
        replaced: true,
        last_lines: Vec::new(),
        ..stopped.clone()
    };
    DeploymentPage {
        frame: frame(),
        deployment: DeploymentSummary {
            id: "d-29".into(),
            name: "d29".into(),
            project: "shop".into(),
            environment: "production".into(),
            service: "web".into(),
            kind: DeploymentKind::Auto,
            state: DeploymentState::RolledBack,
            reason: "Verification failed: GET /healthz answered 500 four times in 30 s. Production is back on r12.".into(),
            release: "r13".into(),
            commit: commit("b7704f0", "Bigger buttons", "Ines"),
            actor: Actor { name: "auto-deploy".into(), via: "push by ines".into() },
            created: ago(5_900),
            ended: Some(ago(5_390)),
        },
        release_id: "r13".into(),
        image: format!("registry.example.com/shop/web@{}", digest("b7704f0")),
        image_note: None,
        previous_release: Some("r12".into()),
        run: Some("38".into()),
        counterpart: Some(("d-30".into(), "d30, the automatic rollback to r12".into())),
        waiting: None,
        gates: Vec::new(),
        evidence: vec![
            "task 4f0c6a2d91e7: Essential container in task exited (nginx exited 137)".into(),
            format!("  | {}", texts[2]),
            "target 10.0.3.18:32771 is unhealthy: Health checks failed with these codes: [500]".into(),
        ],
        hold: Some(hold(Permission::Denied("Needs the role deployer.".into()))),
        facts: vec![
            fact(5_900, Tone::Quiet, "queued", "r13 was verified in staging."),
            fact(5_890, Tone::Good, "gates open", "healthy in staging for 10 m; approved by maya."),
            fact(5_880, Tone::Busy, "rolling out", "Task definition shop-web:18 registered; service updated."),
            fact(5_720, Tone::Good, "rollout completed", "3 of 3 tasks healthy, old tasks drained."),
            fact(5_715, Tone::Busy, "verifying", "Watching GET /healthz for 5 m."),
            fact(5_640, Tone::Warn, "a task stopped", "Essential container in task exited, exit code 137."),
            fact(5_600, Tone::Bad, "verification failed", "GET /healthz answered 500 four times in 30 s."),
            fact(5_390, Tone::Bad, "rolled back", "Production is back on r12. A hold was set; automation does not try r13 again."),
        ],
        rollouts: vec![
            Rollout { role: "PRIMARY".into(), task_definition: "shop-web:19".into(), state: "COMPLETED: ECS deployment ecs-svc/21 completed.".into(), desired: 3, running: 3, pending: 0, failed: 0, updated: ago(5_390) },
            Rollout { role: "ACTIVE".into(), task_definition: "shop-web:18".into(), state: "draining".into(), desired: 0, running: 1, pending: 0, failed: 2, updated: ago(5_395) },
        ],
        targets: vec![
            Target { id: "10.0.3.17:32768".into(), health: TargetHealth::Healthy, reason: String::new(), release: Some("r12".into()) },
            Target { id: "10.0.3.18:32771".into(), health: TargetHealth::Unhealthy, reason: "Target.ResponseCodeMismatch: Health checks failed with these codes: [500]".into(), release: Some("r13".into()) },
            Target { id: "10.0.4.9:32790".into(), health: TargetHealth::Draining, reason: "Target.DeregistrationInProgress".into(), release: None },
        ],
        stopped: vec![stopped, image_gone, replaced],
        events: vec![
            ClusterEvent { at: ago(5_390), message: "(service shop-web) has reached a steady state.".into() },
            ClusterEvent { at: ago(5_640), message: "(service shop-web) (port 80) is unhealthy in (target-group shop-web) due to (reason Health checks failed with these codes: [500]).".into() },
            ClusterEvent { at: ago(5_880), message: "(service shop-web) has started 1 tasks: (task 4f0c6a2d91e7).".into() },
        ],
        last_seen: None,
        confirm: Some("production".into()),
        approve: Permission::Absent,
        cancel: Permission::Absent,
        rollback: Permission::Denied("Needs the role deployer in production.".into()),
    }
}

pub(crate) fn deployment_waiting() -> DeploymentPage {
    let page = deployment_rolled_back();
    DeploymentPage {
        frame: noticed(Tone::Good, "Promotion of r14 to production was recorded."),
        deployment: DeploymentSummary {
            id: "d-30".into(),
            name: "d30".into(),
            kind: DeploymentKind::Promote,
            state: DeploymentState::Queued,
            reason: "waits for staging/web to stay healthy for 10 min: 7 min so far".into(),
            release: "r14".into(),
            commit: commit("9c1d2e3", "Charge the card once", "Maya"),
            actor: Actor {
                name: "ole".into(),
                via: "dashboard".into(),
            },
            created: ago(430),
            ended: None,
            ..page.deployment
        },
        release_id: "r14".into(),
        counterpart: None,
        waiting: Some(soak()),
        gates: gates(),
        evidence: Vec::new(),
        hold: None,
        facts: vec![fact(
            430,
            Tone::Quiet,
            "queued",
            "Promoted by ole: “the auditors wait for it”.",
        )],
        rollouts: Vec::new(),
        targets: Vec::new(),
        stopped: Vec::new(),
        events: Vec::new(),
        last_seen: Some(ago(250)),
        approve: Permission::Allowed,
        cancel: Permission::Allowed,
        rollback: Permission::Allowed,
        ..page
    }
}
