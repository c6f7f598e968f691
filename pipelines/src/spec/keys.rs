//! The vocabulary of the pipeline file: which keys each mapping may have, which of the full format
//! are refused by name until they are built, and what people coming from other products write.

use super::fields::Keys;

/// The keys at the top.
pub(super) const FILE: Keys = Keys {
    what: "the file",
    known: &[
        "version",
        "name",
        "include",
        "trigger",
        "concurrency",
        "images",
        "steps",
        "services",
        "environments",
    ],
    later: &["notify"],
    elsewhere: &[
        ("on", "trigger"),
        ("jobs", "steps"),
        ("pipeline", "steps"),
        ("includes", "include"),
        ("extends", "include"),
        ("import", "include"),
    ],
};

pub(super) const TRIGGER: Keys = Keys {
    what: "trigger",
    known: &["push", "pull_request", "paths", "inputs", "schedule"],
    later: &[],
    elsewhere: &[
        ("pull_requests", "pull_request"),
        ("merge_request", "pull_request"),
        ("branches", "push"),
        ("tags", "push"),
        ("manual", "inputs"),
        ("cron", "schedule"),
    ],
};

pub(super) const PUSH: Keys = Keys {
    what: "trigger.push",
    known: &["branches", "tags"],
    later: &[],
    elsewhere: &[],
};

pub(super) const PULL_REQUEST: Keys = Keys {
    what: "trigger.pull_request",
    known: &["branches", "paths"],
    later: &[],
    elsewhere: &[("base", "branches"), ("targets", "branches")],
};

/// Of one input, below `trigger.inputs`.
pub(super) const INPUT: Keys = Keys {
    what: "input",
    known: &["description", "type", "options", "default", "required"],
    later: &[],
    elsewhere: &[("choices", "options"), ("values", "options")],
};

/// Of one schedule in `trigger.schedule`.
pub(super) const SCHEDULE: Keys = Keys {
    what: "trigger.schedule",
    known: &["cron", "timezone", "branch"],
    later: &[],
    elsewhere: &[
        ("time_zone", "timezone"),
        ("tz", "timezone"),
        ("branches", "branch"),
        ("ref", "branch"),
    ],
};

pub(super) const CONCURRENCY: Keys = Keys {
    what: "concurrency",
    known: &["cancel_superseded"],
    later: &["group"],
    elsewhere: &[
        ("cancel", "cancel_superseded"),
        ("cancel_in_progress", "cancel_superseded"),
        ("cancel-in-progress", "cancel_superseded"),
    ],
};

pub(super) const IMAGE: Keys = Keys {
    what: "image",
    known: &[
        "repository",
        "context",
        "dockerfile",
        "target",
        "args",
        "args_by_environment",
        "dockerfile_by_environment",
        "secrets",
    ],
    later: &["platforms"],
    elsewhere: &[
        ("build_args", "args"),
        ("build_args_by_environment", "args_by_environment"),
        ("dockerfiles", "dockerfile_by_environment"),
        ("file", "dockerfile"),
        ("path", "context"),
    ],
};

pub(super) const STEP: Keys = Keys {
    what: "step",
    known: &[
        "image",
        "run",
        "env",
        "secrets",
        "sidecars",
        "build",
        "needs",
        "when",
        "timeout",
        "retry",
        "limits",
        "runs_on",
        "matrix",
        "artifacts",
        "artifacts_from",
        "reports",
        "caches",
        "concurrency",
    ],
    later: &["include"],
    elsewhere: &[
        ("commands", "run"),
        ("script", "run"),
        ("command", "run"),
        ("depends_on", "needs"),
        ("environment", "env"),
        ("variables", "env"),
        ("services", "sidecars"),
        ("if", "when"),
        ("only", "when"),
        ("rules", "when"),
        ("retries", "retry"),
        ("attempts", "retry"),
        ("resources", "limits"),
        ("memory", "limits"),
        ("cpu", "limits"),
        ("tags", "runs_on"),
        ("labels", "runs_on"),
        ("agents", "runs_on"),
        ("runs-on", "runs_on"),
        ("cache", "caches"),
        ("dependencies", "artifacts_from"),
        ("download", "artifacts_from"),
        ("strategy", "matrix"),
        ("parallel", "matrix"),
        ("concurrency_group", "concurrency"),
        ("resource_group", "concurrency"),
        ("lock", "concurrency"),
    ],
};

/// The group of a step.
pub(super) const STEP_CONCURRENCY: Keys = Keys {
    what: "step.concurrency",
    known: &["group", "limit"],
    later: &[],
    elsewhere: &[
        ("name", "group"),
        ("key", "group"),
        ("max", "limit"),
        ("size", "limit"),
        ("concurrency", "limit"),
    ],
};

/// Those of a step that runs a script, and not of one that builds images.
pub(super) const OF_RUN: [&str; 10] = [
    "image",
    "run",
    "env",
    "sidecars",
    "secrets",
    "limits",
    "matrix",
    "artifacts",
    "reports",
    "caches",
];

pub(super) const REPORTS: Keys = Keys {
    what: "reports",
    known: &["junit"],
    later: &["coverage"],
    elsewhere: &[("xunit", "junit"), ("tests", "junit")],
};

/// Of one cache, below `caches` of a step.
pub(super) const CACHE: Keys = Keys {
    what: "cache",
    known: &["paths", "key"],
    later: &[],
    elsewhere: &[
        ("path", "paths"),
        ("folders", "paths"),
        ("keys", "key"),
        ("key_files", "key"),
        ("files", "key"),
    ],
};

pub(super) const LIMITS: Keys = Keys {
    what: "limits",
    known: &["cpu", "memory"],
    later: &[],
    elsewhere: &[("cpus", "cpu"), ("mem", "memory"), ("mem_limit", "memory")],
};

pub(super) const WHEN: Keys = Keys {
    what: "when",
    known: &["branches", "tags", "paths", "events"],
    later: &[],
    elsewhere: &[
        ("event", "events"),
        ("branch", "branches"),
        ("tag", "tags"),
        ("path", "paths"),
        ("ref", "branches"),
        ("changes", "paths"),
    ],
};

pub(super) const SIDECAR: Keys = Keys {
    what: "sidecar",
    known: &["image", "env", "command"],
    later: &[],
    elsewhere: &[("environment", "env"), ("variables", "env")],
};

pub(super) const SERVICE: Keys = Keys {
    what: "service",
    known: &[
        "image",
        "container",
        "health_path",
        "before_deploy",
        "task_definition",
        "variants",
    ],
    later: &["secrets"],
    elsewhere: &[
        ("healthcheck", "health_path"),
        ("pre_deploy", "before_deploy"),
        ("migrate", "before_deploy"),
    ],
};

pub(super) const BEFORE_DEPLOY: Keys = Keys {
    what: "before_deploy",
    known: &["command", "timeout"],
    later: &[],
    elsewhere: &[("run", "command"), ("script", "command")],
};

/// At a service, in `ecs` of an environment, and in that of an override.
pub(super) const TASK_DEFINITION: Keys = Keys {
    what: "task_definition",
    known: &["base", "file", "variables"],
    later: &[],
    elsewhere: &[
        ("path", "file"),
        ("template", "file"),
        ("from", "base"),
        ("vars", "variables"),
    ],
};

pub(super) const ENVIRONMENT: Keys = Keys {
    what: "environment",
    known: &[
        "after",
        "deploy",
        "ecs",
        "overrides",
        "env_file",
        "variables",
        "gates",
        "verify",
        "done_when",
        "rollout_timeout",
        "rollback",
    ],
    later: &["secrets", "before_deploy", "concurrency"],
    elsewhere: &[
        ("task_definition", "ecs"),
        ("env", "variables"),
        ("environment", "variables"),
        ("needs", "after"),
        ("services", "overrides"),
        ("timeout", "rollout_timeout"),
    ],
};

/// In an environment, and in an override, where every one may be missing.
pub(super) const ECS: Keys = Keys {
    what: "ecs",
    known: &[
        "region",
        "cluster",
        "service",
        "task",
        "min_healthy_percent",
        "max_percent",
        "task_definition",
        "create",
    ],
    later: &["account", "role"],
    elsewhere: &[("cpu", "task"), ("memory", "task")],
};

pub(super) const CREATE: Keys = Keys {
    what: "ecs.create",
    known: &[
        "desired_count",
        "launch_type",
        "subnets",
        "security_groups",
        "assign_public_ip",
        "target_group",
        "health_check_grace_period",
        "service_registry",
        "service_connect",
    ],
    later: &["capacity_provider", "scaling_policy"],
    elsewhere: &[
        ("count", "desired_count"),
        ("replicas", "desired_count"),
        ("launchType", "launch_type"),
        ("load_balancer", "target_group"),
        ("discovery", "service_registry"),
        ("discovery_name", "service_connect"),
    ],
};

pub(super) const TARGET_GROUP: Keys = Keys {
    what: "target_group",
    known: &["arn", "container", "port"],
    later: &[],
    elsewhere: &[("container_port", "port")],
};

pub(super) const SERVICE_REGISTRY: Keys = Keys {
    what: "service_registry",
    known: &["arn", "container", "port"],
    later: &[],
    elsewhere: &[("container_port", "port")],
};

pub(super) const SERVICE_CONNECT: Keys = Keys {
    what: "service_connect",
    known: &[
        "namespace",
        "port_name",
        "discovery_name",
        "dns_name",
        "port",
    ],
    later: &[],
    elsewhere: &[("alias", "dns_name")],
};

pub(super) const TASK: Keys = Keys {
    what: "ecs.task",
    known: &["cpu", "memory"],
    later: &[],
    elsewhere: &[],
};

pub(super) const OVERRIDE: Keys = Keys {
    what: "override",
    known: &["ecs"],
    later: &["variables", "env_file", "secrets"],
    elsewhere: &[],
};

pub(super) const GATE: Keys = Keys {
    what: "gate",
    known: &["healthy", "approval"],
    later: &["window", "alarms", "scan", "smoke"],
    elsewhere: &[],
};

pub(super) const HEALTHY: Keys = Keys {
    what: "healthy",
    known: &["environment", "for", "min_running"],
    later: &[],
    elsewhere: &[("soak", "for"), ("after", "environment")],
};

pub(super) const APPROVAL: Keys = Keys {
    what: "approval",
    known: &["from", "count", "not_author"],
    later: &[],
    elsewhere: &[],
};

pub(super) const VERIFY: Keys = Keys {
    what: "verify",
    known: &["http", "watch"],
    later: &["smoke", "alarms"],
    elsewhere: &[("for", "watch")],
};

pub(super) const PROBE: Keys = Keys {
    what: "verify.http",
    known: &["url", "expect_status", "expect_body"],
    later: &[],
    elsewhere: &[("status", "expect_status"), ("body", "expect_body")],
};

pub(super) const DONE_WHEN: Keys = Keys {
    what: "done_when",
    known: &["serving"],
    later: &[],
    elsewhere: &[],
};

pub(super) const ROLLBACK: Keys = Keys {
    what: "rollback",
    known: &["auto", "then"],
    later: &["watch", "when"],
    elsewhere: &[],
};

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const DOCUMENTATION: &str = include_str!("../../../docs/pipeline-file.md");

    const ALL: [&Keys; 31] = [
        &FILE,
        &TRIGGER,
        &PUSH,
        &INPUT,
        &SCHEDULE,
        &CONCURRENCY,
        &IMAGE,
        &STEP,
        &STEP_CONCURRENCY,
        &LIMITS,
        &REPORTS,
        &CACHE,
        &WHEN,
        &SIDECAR,
        &SERVICE,
        &TASK_DEFINITION,
        &ENVIRONMENT,
        &ECS,
        &CREATE,
        &TARGET_GROUP,
        &SERVICE_REGISTRY,
        &SERVICE_CONNECT,
        &TASK,
        &OVERRIDE,
        &GATE,
        &HEALTHY,
        &APPROVAL,
        &VERIFY,
        &PROBE,
        &DONE_WHEN,
        &ROLLBACK,
    ];

    /// The documentation's section about one kind of mapping: its heading ends with the name.
    pub(in super::super) fn section(what: &str) -> &'static str {
        let heading = |line: &str| line.starts_with("## ") && line.ends_with(&format!("`{what}`"));
        let start = DOCUMENTATION
            .lines()
            .find(|line| heading(line) || (what == "the file" && *line == "## The file"))
            .unwrap_or_else(|| panic!("no section for `{what}`"));
        let (_, rest) = DOCUMENTATION.split_once(start).unwrap();
        rest.split("\n## ").next().unwrap()
    }

    #[test]
    fn every_key_is_documented_in_its_section_and_no_other_is() {
        for keys in ALL {
            let documented: Vec<&str> = section(keys.what)
                .lines()
                .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
                .collect();
            assert_eq!(documented, keys.known, "{}", keys.what);
        }
    }

    #[test]
    fn every_refused_key_is_listed_in_its_section() {
        for keys in ALL {
            let listed = section(keys.what)
                .lines()
                .find(|line| line.starts_with("Not supported yet"));
            let listed: Vec<&str> = listed
                .unwrap_or_default()
                .split('`')
                .skip(1)
                .step_by(2)
                .collect();
            assert_eq!(listed, keys.later, "{}", keys.what);
        }
    }

    #[test]
    fn hints_lead_to_keys_that_exist() {
        for keys in ALL {
            for (theirs, ours) in keys.elsewhere {
                assert!(keys.known.contains(ours), "{} {theirs}", keys.what);
                assert!(!keys.known.contains(theirs), "{} {theirs}", keys.what);
                assert!(!keys.later.contains(theirs), "{} {theirs}", keys.what);
            }
        }
    }
}
