//! The repository that is pushed: a shop of one page, its image and its pipeline; and the bare
//! repository with the hook of the README.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::project::Project;

const HOOK: &str = r#"#!/bin/sh
while read -r old new ref; do
  body="{\"ref\":\"$ref\",\"before\":\"$old\",\"after\":\"$new\"}"
  signature=$(printf '%s' "$body" | openssl dgst -sha256 -hmac 'SECRET' | sed 's/^.* //')
  printf '%s' "$body" | curl -fsS --max-time 60 --retry 5 --retry-connrefused -o /dev/null --data-binary @- \
    -H 'content-type: application/json' -H "x-hub-signature-256: sha256=$signature" 'URL'
done
"#;

const DOCKERFILE: &str = "\
FROM BASE
COPY index.html /www/index.html
";

const PIPELINE: &str = r#"version: 1
name: shop
images:
  app: { repository: shop }
steps:
  test:
    image: BASE
    run: grep -q . index.html
  image:
    build: [app]
    needs: [test]
services:
  web: { image: app, container: app }
environments:
  staging:
    ecs: { cluster: staging, service: shop }
    verify:
      http: [{ url: "http://127.0.0.1:BALANCER/" }]
      watch: 2s
"#;

/// A bare repository and a work tree that pushes to it.
pub(crate) struct Shop<'a> {
    project: &'a Project,
    work: PathBuf,
}

impl<'a> Shop<'a> {
    /// Makes both, and the files by which the project knows of the repository: its entry in
    /// `roadstead.toml`, and a mount in the file that compose reads by itself.
    pub(crate) fn new(project: &'a Project) -> Self {
        let bare = project.outside().join("shop.git");
        let shop = Self {
            project,
            work: project.outside().join("work"),
        };
        fs::create_dir(&shop.work).unwrap();
        let path = bare.display().to_string();
        // Shared: another user reads it in the container.
        shop.git(&[
            "init",
            "--quiet",
            "--bare",
            "--shared=all",
            "--initial-branch=main",
            &path,
        ]);
        shop.git(&["init", "--quiet", "--initial-branch=main"]);
        shop.git(&["remote", "add", "origin", &path]);
        let secret = format!("{:032x}", rand::random::<u128>());
        let webhook = format!(
            "http://127.0.0.1:{}/webhooks/git/shop",
            project.ports.server
        );
        let hook = bare.join("hooks/post-receive");
        fs::write(
            &hook,
            HOOK.replace("SECRET", &secret).replace("URL", &webhook),
        )
        .unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        let home = project.home();
        fs::write(
            home.join("roadstead.toml"),
            format!("[[projects]]\nname = \"shop\"\nrepository = \"{path}\"\nwebhook_secret = \"{secret}\"\n"),
        )
        .unwrap();
        fs::write(
            home.join("docker-compose.override.yml"),
            format!("services:\n  server:\n    volumes: [\"{path}:{path}:ro\"]\n"),
        )
        .unwrap();
        shop
    }

    /// Commits a page and pushes it. Returns the commit.
    pub(crate) fn push(&self, page: &str) -> String {
        let base = self.project.image("shop-base");
        let balancer = self.project.ports.balancer.to_string();
        fs::create_dir_all(self.work.join(".roadstead")).unwrap();
        for (file, content) in [
            ("index.html", format!("{page}\n")),
            ("Dockerfile", DOCKERFILE.replace("BASE", &base)),
            (
                ".roadstead/pipeline.yml",
                PIPELINE
                    .replace("BASE", &base)
                    .replace("BALANCER", &balancer),
            ),
        ] {
            fs::write(self.work.join(file), content).unwrap();
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", page]);
        self.git(&["push", "--quiet", "origin", "main"]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn git(&self, arguments: &[&str]) -> String {
        let work = self.work.display().to_string();
        let as_maya = [
            "-C",
            &work,
            "-c",
            "user.name=Maya",
            "-c",
            "user.email=maya@shop.example",
        ];
        self.project.run("git", &[&as_maya, arguments].concat())
    }
}
