//! The pipeline file of the stories, as it is stored.

use roadstead_pipelines::spec::Pipeline;

/// The pipeline of the stories; `production` is deployed by itself unless `manual`.
pub fn pipeline(production: &str) -> Pipeline {
    let text = r#"{
      "name": "shop", "trigger": {"branches": [], "paths": []},
      "images": {"app": {"repository": "shop", "context": ".", "dockerfile": "Dockerfile", "target": null, "args": {}}},
      "steps": {"build": {"needs": [], "timeout": null, "action": {"build": {"images": ["app"]}}}},
      "services": {"web": {"image": "app", "container": null, "health_path": null}},
      "environments": {
        "staging": {"after": null, "deploy": "auto",
          "ecs": {"region": null, "cluster": "staging", "service": "web", "cpu": null, "memory": null, "min_healthy_percent": null, "max_percent": null},
          "overrides": {}, "env_file": null, "variables": {}, "gates": [],
          "verify": {"http": [], "watch": 5}, "done_when": "all_healthy", "rollout_timeout": 600,
          "rollback": {"auto": true, "then": "hold"}},
        "production": PRODUCTION
      }}"#;
    serde_json::from_str(&text.replace("PRODUCTION", production)).expect("the story's pipeline")
}

/// Production as most stories have it: by itself, after 60 s of healthy staging.
pub const AUTO: &str = r#"{"after": "staging", "deploy": "auto",
  "ecs": {"region": null, "cluster": "prod", "service": "web", "cpu": null, "memory": null, "min_healthy_percent": null, "max_percent": null},
  "overrides": {}, "env_file": null, "variables": {},
  "gates": [{"healthy": {"environment": "staging", "soak": 60, "min_running": 2}}],
  "verify": {"http": [], "watch": 5}, "done_when": "all_healthy", "rollout_timeout": 600,
  "rollback": {"auto": true, "then": "hold"}}"#;
