//! Projects and runs.

use roadstead_web::view::{
    Artifact, Artifacts, Diagnostic, Earlier, FailedCase, Job, LogLine, LogPanel, Paging,
    Permission, ProjectPage, Release, ReleaseImage, RunInput, RunPage, RunState, RunSummary,
    StartForm, StartInput, Step, StepState, Tests, Time, Tone, Untold, Waiting, WebhookHelp,
};

use super::releases::{deployments, matrix_shop};
use super::{ago, commit, digest, frame, noticed};

pub(crate) fn run(
    number: u32,
    state: RunState,
    message: &str,
    author: &str,
    age: i64,
    took: Option<i64>,
) -> RunSummary {
    let created = ago(age);
    let started = (state != RunState::Queued).then(|| created.plus_seconds(3));
    RunSummary {
        id: number.to_string(),
        name: format!("#{number}"),
        project: "shop".into(),
        commit: commit(
            &format!("{:07x}", number * 2_654_435 % 0x0fff_ffff),
            message,
            author,
        ),
        state,
        reason: if state == RunState::Failed {
            "test: exit status 101".into()
        } else {
            String::new()
        },
        trigger: format!("push by {}", author.to_lowercase()),
        created,
        started,
        ended: took.and_then(|took| started.map(|start| start.plus_seconds(took))),
    }
}

pub(crate) fn recent(count: u32) -> Vec<RunSummary> {
    const LENGTHS: [i64; 7] = [182, 171, 240, 166, 95, 174, 201];
    (0..count)
        .map(|position| {
            let state = match position % 11 {
                4 => RunState::Failed,
                9 => RunState::Cancelled,
                _ => RunState::Succeeded,
            };
            let took = LENGTHS[position as usize % LENGTHS.len()];
            run(
                12 + position,
                state,
                "Tidy the cart",
                "Ole",
                i64::from(count - position) * 5_400,
                Some(took),
            )
        })
        .collect()
}

/// A form with an input of each kind.
fn start() -> StartForm {
    let input = |name: &str, description: &str, value: &str, options: &[&str]| StartInput {
        name: name.into(),
        description: description.into(),
        required: value.is_empty(),
        value: value.into(),
        options: options.iter().map(|option| (*option).into()).collect(),
    };
    StartForm {
        permission: Permission::Allowed,
        open: true,
        git_ref: "main".into(),
        file_of: Some("#41".into()),
        inputs: vec![
            input(
                "target",
                "Where the load comes from.",
                "near",
                &["near", "far"],
            ),
            input("minutes", "How long it lasts.", "", &[]),
            input("verbose", "", "false", &["false", "true"]),
        ],
        key: "5d41402abc4b2a76b9719d911017c592".into(),
    }
}

pub(crate) fn project() -> ProjectPage {
    let mut waiting = run(
        42,
        RunState::Queued,
        "Show delivery dates in the cart",
        "Ines",
        25,
        None,
    );
    waiting.reason = "waits for a runner with the label linux/arm64; none is registered".into();
    ProjectPage {
        frame: frame(),
        project: "shop".into(),
        repository: "https://forge.example.com/team/shop.git".into(),
        matrix: Some(matrix_shop()),
        start: start(),
        runs: vec![
            waiting,
            run(
                41,
                RunState::Running,
                "Retry the payment gateway twice",
                "Maya",
                130,
                None,
            ),
            run(
                40,
                RunState::Failed,
                "Round prices half to even, as the tax office wants it, and say so in the invoice's footer where the auditors look first",
                "Ole",
                3_900,
                Some(74),
            ),
            run(
                39,
                RunState::Succeeded,
                "Charge the card once",
                "Maya",
                9_000,
                Some(188),
            ),
            run(
                38,
                RunState::TimedOut,
                "Load test the search",
                "Ines",
                30_000,
                Some(1200),
            ),
            run(37, RunState::Cancelled, "WIP", "Ole", 31_000, Some(12)),
        ],
        paging: Paging {
            page: 2,
            more: true,
        },
        webhook: WebhookHelp {
            public_url: "https://ci.example.com/".into(),
            secret_hint: "the file that projects.shop.webhook_secret_file names in roadstead.toml"
                .into(),
            last_delivery: Some(ago(130)),
            branches_compared: Some(ago(125)),
        },
    }
}

pub(crate) fn project_new() -> ProjectPage {
    let page = project();
    ProjectPage {
        project: "team/new site".into(),
        matrix: None,
        start: StartForm {
            permission: Permission::Denied("a deployer can; you are viewer".into()),
            git_ref: String::new(),
            file_of: None,
            inputs: Vec::new(),
            ..start()
        },
        runs: Vec::new(),
        paging: Paging {
            page: 1,
            more: false,
        },
        webhook: WebhookHelp {
            last_delivery: None,
            branches_compared: None,
            ..page.webhook
        },
        ..page
    }
}

fn step(
    name: &str,
    summary: &str,
    state: StepState,
    reason: &str,
    times: Option<(i64, Option<i64>)>,
) -> Step {
    let started = times.map(|(age, _)| ago(age));
    Step {
        name: name.into(),
        summary: summary.into(),
        state,
        reason: reason.into(),
        attempts: started.map(|_| 1).into_iter().collect(),
        chosen: 0,
        runner: started.map(|_| "build-1".into()),
        started,
        ended: times.and_then(|(age, took)| took.map(|took| ago(age - took))),
    }
}

fn lines(first: u64, start: Time, texts: &[&str]) -> Vec<LogLine> {
    texts
        .iter()
        .zip(0..)
        .map(|(text, position)| LogLine {
            number: first + position,
            at: Some(start.plus_seconds(i64::try_from(position).expect("few lines"))),
            text: (*text).to_owned(),
        })
        .collect()
}

fn job(name: &str, state: StepState, reason: &str, needs: &[&str]) -> Job {
    let begun = !matches!(state, StepState::Skipped | StepState::Pending);
    Job {
        name: name.into(),
        state,
        reason: reason.into(),
        steps: vec![name.into()],
        matrix: String::new(),
        needs: needs.iter().map(|need| (*need).to_owned()).collect(),
        labels: Vec::new(),
        runner: begun.then(|| "build-1".into()),
        started: begun.then(|| ago(3_890)),
        ended: begun.then(|| ago(3_810)),
        attempts: if begun { vec![1] } else { vec![] },
        shown: begun.then_some(1),
        wrong: state == StepState::Failed,
    }
}

fn jobs() -> Vec<Job> {
    let test = Job {
        matrix: "rust 1.95, db <sqlite>".into(),
        labels: vec!["gpu".into(), "linux".into()],
        attempts: vec![2, 3],
        shown: Some(2),
        ..job(
            "test",
            StepState::Failed,
            "step test: exit status 101",
            &["default"],
        )
    };
    vec![
        Job {
            steps: vec!["lint".into(), "docs".into()],
            ..job("default", StepState::Succeeded, "", &[])
        },
        test,
        Job {
            steps: vec!["images".into()],
            ..job("default-2", StepState::Skipped, "needs test", &["test"])
        },
    ]
}

pub(crate) fn run_failed() -> RunPage {
    let mut test = step(
        "test",
        "cargo test --workspace",
        StepState::Failed,
        "exit status 101",
        Some((3_880, Some(61))),
    );
    test.attempts = vec![1, 2];
    let texts = [
        "\x1b[1m\x1b[32m   Compiling\x1b[0m shop-cart v0.4.2 (/workspace/services/cart)",
        "\x1b[1m\x1b[32m    Finished\x1b[0m `test` profile [unoptimized + debuginfo] target(s) in 31.20s",
        "\x1b[1m\x1b[32m     Running\x1b[0m unittests src/lib.rs (target/debug/deps/shop_cart-5a1c)",
        "",
        "running 4 tests",
        "test price::adds_tax ... \x1b[32mok\x1b[0m",
        "test price::rounds_half_to_even ... \x1b[31mFAILED\x1b[0m",
        "test cart::is_empty_at_first ... \x1b[32mok\x1b[0m",
        "test cart::<script>alert(1)</script> ... \x1b[32mok\x1b[0m",
        "",
        "failures:",
        "",
        "---- price::rounds_half_to_even stdout ----",
        "thread 'price::rounds_half_to_even' panicked at services/cart/src/price.rs:88:9:",
        "assertion `\x1b[1mleft == right\x1b[0m` failed",
        "  left: \x1b[31m1235\x1b[0m",
        " right: \x1b[32m1234\x1b[0m",
        "\x1b[38;5;244mnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\x1b[0m",
        "",
        "test result: \x1b[1;31mFAILED\x1b[0m. 3 passed; 1 failed; 0 ignored; finished in 0.04s",
        "  0%\r 50%\r100% uploaded",
    ];
    let mut run = run(
        40,
        RunState::Failed,
        "Round prices half to even",
        "Ole",
        3_900,
        Some(74),
    );
    run.reason = "test failed: exit status 101 (attempt 2 of 2)".into();
    RunPage {
        frame: frame(),
        run,
        inputs: Vec::new(),
        notes: Vec::new(),
        waiting: None,
        untold: Some(Untold {
            reason: "the forge answered 401: the token is wrong, or has expired (it said: Bad credentials)".into(),
            next: Some(ago(-240)),
        }),
        diagnostics: Vec::new(),
        jobs: jobs(),
        steps: vec![
            step(
                "lint",
                "cargo clippy --all-targets -- -D warnings",
                StepState::Succeeded,
                "",
                Some((3_890, Some(44))),
            ),
            test,
            step(
                "docs",
                "mdbook build",
                StepState::Succeeded,
                "",
                Some((3_880, Some(8))),
            ),
            step(
                "images",
                "build api, web",
                StepState::Skipped,
                "needs test, which failed",
                None,
            ),
        ],
        log: Some(LogPanel {
            step: "test".into(),
            attempt: 2,
            lines: lines(2_213, ago(3_860), &texts),
            total_lines: 2_233,
            total_bytes: 184_220,
            live: false,
            removed: None,
            unread: false,
        }),
        tests: vec![Tests {
            step: "test".into(),
            tests: 412,
            failed: 3,
            skipped: 2,
            unread: 1,
            cases: vec![FailedCase {
                name: "shop::cart › a cart <b>adds</b> up".into(),
                message: "assertion failed: left == right\n  left: <script>alert(1)</script>\n right: 12".into(),
            }],
        }],
        artifacts: Artifacts {
            files: vec![
                artifact("test", "reports/<script>alert(1)</script>.html", 4_120),
                artifact("test", "target/core.1234", 81_234_567),
            ],
            more: 0,
        },
        release: None,
        deployments: Vec::new(),
        approve: Permission::Absent,
        cancel: Permission::Absent,
        retry: Permission::Allowed,
        rerun: Permission::Allowed,
        attempts: 3,
        earlier: Some(Earlier {
            attempt: 2,
            job: "test".into(),
            newest: 3,
        }),
    }
}

fn artifact(step: &str, name: &str, bytes: u64) -> Artifact {
    Artifact {
        step: step.into(),
        attempt: 2,
        name: name.into(),
        bytes,
        sha256: format!("{bytes:064x}"),
    }
}

pub(crate) fn run_running() -> RunPage {
    let texts = [
        "#8 [runtime 2/3] COPY --from=build /src/target/release/api /usr/local/bin/",
        "#8 \x1b[36mCACHED\x1b[0m",
        "#9 exporting to image",
        "#9 exporting layers 2.1s done",
        "pushing shop/api: 12.4 MB of 31.0 MB",
    ];
    let mut run = run(
        41,
        RunState::Running,
        "Retry the payment gateway twice",
        "Maya",
        130,
        None,
    );
    run.reason = String::new();
    RunPage {
        frame: noticed(
            Tone::Good,
            "Retry asked for: the failed jobs run again as new attempts.",
        ),
        run,
        inputs: vec![
            RunInput {
                name: "note".into(),
                value: String::new(),
            },
            RunInput {
                name: "target".into(),
                value: "far".into(),
            },
        ],
        notes: Vec::new(),
        waiting: None,
        untold: None,
        diagnostics: Vec::new(),
        jobs: Vec::new(),
        steps: vec![
            step(
                "lint",
                "cargo clippy --all-targets -- -D warnings",
                StepState::Succeeded,
                "",
                Some((125, Some(41))),
            ),
            step(
                "test",
                "cargo test --workspace",
                StepState::Succeeded,
                "",
                Some((125, Some(66))),
            ),
            step(
                "images",
                "build api, web",
                StepState::Running,
                "",
                Some((58, None)),
            ),
            step(
                "smoke",
                "curl -fsS http://api/healthz",
                StepState::Pending,
                "needs images",
                None,
            ),
        ],
        log: Some(LogPanel {
            step: "images".into(),
            attempt: 1,
            lines: lines(1, ago(58), &texts),
            total_lines: 5,
            total_bytes: 3_410,
            live: true,
            removed: None,
            unread: false,
        }),
        tests: vec![],
        artifacts: Artifacts::default(),
        release: Some(Release {
            id: "r41".into(),
            name: "r41".into(),
            images: vec![ReleaseImage {
                name: "api".into(),
                reference: "registry.example.com/shop/api:9c1d2e3".into(),
                digest: digest("5be1"),
            }],
        }),
        deployments: deployments(),
        approve: Permission::Absent,
        cancel: Permission::Allowed,
        retry: Permission::Absent,
        rerun: Permission::Absent,
        attempts: 1,
        earlier: None,
    }
}

pub(crate) fn run_broken_file() -> RunPage {
    let mut run = run(43, RunState::Failed, "Deploy by hand", "Ines", 40, Some(0));
    run.reason = "the pipeline file has 2 errors".into();
    RunPage {
        frame: frame(),
        run,
        inputs: Vec::new(),
        notes: Vec::new(),
        waiting: Some(Waiting {
            what: "run #43".into(),
            reason: "a corrected .roadstead/pipeline.yml".into(),
            since: ago(40),
            until: None,
            who: "whoever pushes to main".into(),
        }),
        untold: None,
        diagnostics: vec![
            Diagnostic {
                file: ".roadstead/pipeline.yml".into(),
                line: Some(65),
                column: Some(5),
                message: "unknown field `deply`, expected one of after, deploy, ecs, env_file, gates, verify".into(),
                excerpt: "64 |   production:\n65 |     deply: manual\n   |     ^^^^^ unknown field `deply`\n66 |     ecs: { cluster: prod }".into(),
            },
            Diagnostic {
                file: ".roadstead/pipeline.yml".into(),
                line: None,
                column: None,
                message: "the steps lint → test → lint need each other; remove one `needs`".into(),
                excerpt: String::new(),
            },
        ],
        jobs: Vec::new(),
        steps: Vec::new(),
        log: None,
        tests: vec![],
        artifacts: Artifacts::default(),
        release: None,
        deployments: Vec::new(),
        approve: Permission::Absent,
        cancel: Permission::Absent,
        rerun: Permission::Absent,
        attempts: 0,
        earlier: None,
        retry: Permission::Denied("A retry would read the same file. Push a corrected one.".into()),
    }
}
