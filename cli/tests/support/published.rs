//! A repository with a pipeline file, and a server that knows it as project `shop`.

use crate::runner::REGISTRATION_TOKEN;
use crate::server::Server;
use crate::shop::git;
use std::fs;
use std::path::Path;

/// Publishes `pipeline` and what `more` writes into the working tree, as branch `main` of a repository below `place`, and
/// starts a server on it.
pub(crate) fn serve(place: &Path, pipeline: &str, more: impl FnOnce(&Path)) -> Server {
    let (origin, work) = (place.join("shop.git"), place.join("work"));
    let at = |path: &Path| path.display().to_string();
    git(place, &["init", "--quiet", "--bare", &at(&origin)]);
    git(place, &["init", "--quiet", &at(&work)]);
    fs::create_dir(work.join(".roadstead")).unwrap();
    fs::write(work.join(".roadstead/pipeline.yml"), pipeline).unwrap();
    more(&work);
    git(&work, &["add", "."]);
    git(&work, &["commit", "--quiet", "--message", "Begin"]);
    let to_main = ["push", "--quiet", &at(&origin), "HEAD:refs/heads/main"];
    git(&work, &to_main);
    let configuration = format!(
        "[runners]\nregistration_token = \"{REGISTRATION_TOKEN}\"\n[[projects]]\nname = \"shop\"\n\
         repository = \"{}\"\nwebhook_secret = \"a webhook's key of this test\"\n",
        at(&origin)
    );
    Server::start_with(&configuration, tempfile::tempdir().unwrap())
}
