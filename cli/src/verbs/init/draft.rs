//! A first pipeline file from what was found in a repository.
//!
//! Owns its text and comments. Whatever stands in it is accepted by the reader; what is a guess or a
//! placeholder says so in a comment with `TODO`.

use super::survey::{Image, Survey, TestStep};

/// The environments of the draft.
const ENVIRONMENTS: [&str; 2] = ["staging", "production"];

/// The whole file; pushes to `branch` start it.
pub(super) fn write(found: &Survey, branch: &str) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line("# What a push builds, which steps it has to pass, and where the result goes.");
    line("# `roadstead validate` checks this file, `roadstead run --local` runs its steps here.");
    line("version: 1");
    line(&format!("name: {}", found.project));
    line("");
    line("trigger:");
    line(&format!("  push: {{ branches: [{}] }}", quoted(branch)));
    if !found.images.is_empty() {
        line("");
        line("# Built once per commit, pushed to the registry, deployed by digest.");
        line("images:");
        for image in &found.images {
            line(&one_image(found, image));
        }
        for path in &found.unused_dockerfiles {
            line(&format!(
                "  # TODO: {path} is not built; an image of its own would be."
            ));
        }
    } else {
        line("");
        line(
            "# TODO: there is no Dockerfile. With one, `images` builds it and `services` and `environments`",
        );
        line("# bring it to ECS.");
    }
    line("");
    steps(found, &mut line);
    if !found.images.is_empty() {
        line("");
        line(
            "# What runs in ECS. TODO: remove what is not a service of its own; say `container: NAME` where a",
        );
        line("# task definition has more than one.");
        line("services:");
        for image in &found.images {
            let name = &image.name;
            match &image.health_path {
                Some(path) => line(&format!(
                    "  {name}: {{ image: {name}, health_path: {path} }}"
                )),
                None => line(&format!("  {name}: {{ image: {name} }}")),
            }
        }
        line("");
        environments(found, &mut line);
    }
    out
}

fn one_image(found: &Survey, image: &Image) -> String {
    let mut out = String::new();
    let mut put = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    put(format!("  # {}", image.origin));
    put(format!("  {}:", image.name));
    let repository = if image.name == found.project {
        found.project.clone()
    } else {
        format!("{}/{}", found.project, image.name)
    };
    // ECR takes no name of one letter.
    let repository = if repository.len() < 2 {
        format!("{repository}-image")
    } else {
        repository
    };
    put(format!("    repository: {repository}"));
    if image.context != "." {
        put(format!("    context: {}", quoted(&image.context)));
    }
    if image.dockerfile != "Dockerfile" {
        put(format!("    dockerfile: {}", quoted(&image.dockerfile)));
    }
    if let Some(target) = &image.target {
        put(format!("    target: {}", quoted(target)));
    }
    if !image.args.is_empty() {
        put("    args:".into());
        for (key, value) in &image.args {
            put(format!("      {}: {}", quoted(key), quoted(value)));
        }
    }
    out.trim_end().to_owned()
}

fn steps(found: &Survey, line: &mut dyn FnMut(&str)) {
    line("# `needs` gives the order; what needs nothing of the others runs beside them.");
    line("steps:");
    for step in &found.tests {
        test(found, step, line);
    }
    if found.tests.is_empty() {
        let doubt = "  # TODO: how the code is tested: an image with its tools, and a script.";
        if found.images.is_empty() {
            line(doubt);
            line("  test:");
            line("    image: busybox:1");
            line("    run: echo \"nothing is tested yet\"");
        } else {
            line(doubt);
            line("  # test: { image: \"busybox:1\", run: \"./test.sh\" }");
        }
    }
    if !found.images.is_empty() {
        let names: Vec<&str> = found
            .images
            .iter()
            .map(|image| image.name.as_str())
            .collect();
        let tests: Vec<&str> = found.tests.iter().map(|step| step.name.as_str()).collect();
        line("  images:");
        line(&format!("    build: [{}]", names.join(", ")));
        if !tests.is_empty() {
            line(&format!("    needs: [{}]", tests.join(", ")));
        }
    }
}

fn test(found: &Survey, step: &TestStep, line: &mut dyn FnMut(&str)) {
    if let Some(doubt) = step.tests.doubt {
        line(&format!("  # {doubt}"));
    }
    line(&format!("  {}:", step.name));
    line(&format!("    image: {}", quoted(&step.tests.image)));
    line("    run: |");
    if step.folder != "." {
        line(&format!("      cd {}", shell(&step.folder)));
    }
    for command in &step.tests.lines {
        line(&format!("      {command}"));
    }
    line("    timeout: 20m");
    if !found.helpers.is_empty() {
        line(
            "    # TODO: keep those that the tests need, and tell the tests by `env` where they are: each is",
        );
        line("    # reached by its name.");
        line("    sidecars:");
        for helper in &found.helpers {
            line(&format!("      {}:", helper.name));
            line(&format!("        image: {}", quoted(&helper.image)));
            if !helper.env.is_empty() {
                line("        env:");
                for (key, value) in &helper.env {
                    line(&format!("          {}: {}", quoted(key), quoted(value)));
                }
            }
        }
    }
}

fn environments(found: &Survey, line: &mut dyn FnMut(&str)) {
    let service = match &found.images[..] {
        [only] => only.name.clone(),
        _ => format!("\"{}-{{service}}\"", found.project),
    };
    line(
        "# In promotion order. TODO: the names of your clusters and of the ECS services in them; they have to",
    );
    line("# be there already.");
    line("environments:");
    for environment in ENVIRONMENTS {
        line(&format!("  {environment}:"));
        if environment != ENVIRONMENTS[0] {
            line(&format!("    after: {}", ENVIRONMENTS[0]));
            line("    # When somebody presses Promote; `auto` once the gates pass.");
            line("    deploy: manual");
        }
        line(&format!(
            "    ecs: {{ cluster: {environment}, service: {service} }}"
        ));
        let file = format!("env/{environment}.env");
        if found.files.contains(&file) {
            line(&format!("    env_file: {file}"));
        } else {
            line(&format!(
                "    # variables: {{ LOG_LEVEL: info }}     # or `env_file: {file}`"
            ));
        }
        if environment != ENVIRONMENTS[0] {
            line("    gates:");
            line("      - healthy: { for: 10m }");
        }
        line("    # TODO: an address that has to answer before a release counts as deployed.");
        line("    # verify:");
        line("    #   http:");
        line(&format!(
            "    #     - url: https://{environment}.{}.example/",
            found.project
        ));
    }
}

/// A text as YAML takes it: plain where that is safe, else in quotes.
fn quoted(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte))
        && !["true", "false", "null", "yes", "no", "on", "off"]
            .contains(&text.to_lowercase().as_str());
    if plain {
        text.to_owned()
    } else {
        // JSON's texts are YAML's.
        serde_json::Value::from(text).to_string()
    }
}

/// A path as a shell takes it.
fn shell(path: &str) -> String {
    let plain = path
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte));
    if plain {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', "'\\''"))
    }
}
