//! What is read otherwise for the run of a pull request: whose pipeline file it is, and what its commits change.

use super::Executor;
use crate::adapters::sources::{Remote, SourcesError};
use roadstead_pipelines::git_ref::GitRef;
use roadstead_pipelines::id::CommitSha;
use roadstead_pipelines::pull_request::{BaseFile, PullRequest};
use roadstead_pipelines::report::Failure;
use roadstead_pipelines::run::Run;
use roadstead_pipelines::spec::{self, FILE_NAME, LARGEST_FILE};

/// The base branch of a pull request as it stands now, in the mirror; or why there is none.
pub(super) type Base = Result<CommitSha, Failure>;

impl Executor {
    /// Fetches the branch that a pull request is to be merged to. It is looked up now: what it said when the pull request
    /// was opened may have been mended since.
    pub(super) async fn base_of(
        &self,
        run: &Run,
        remote: &Remote,
        pull_request: &PullRequest,
    ) -> Result<Base, SourcesError> {
        let base_ref = &pull_request.base_ref;
        let stands = self
            .sources
            .stands_for(&run.project, remote, base_ref)
            .await?;
        let Some(base) = stands.into_iter().next() else {
            let base = GitRef::of(base_ref);
            let message = format!("branch `{base}`, to which it is to be merged, does not exist");
            return Ok(Err(Failure::failed(message)));
        };
        self.sources
            .fetch(&run.project, remote, &base, base_ref)
            .await?;
        Ok(Ok(base))
    }

    /// Where an untrusted run's file is from, and whether its own commit has the same, with all that it includes.
    pub(super) async fn base_file(
        &self,
        run: &Run,
        base: &CommitSha,
    ) -> Result<BaseFile, SourcesError> {
        let read = async |commit: &CommitSha, path: &str| {
            let file = self
                .sources
                .read_blob(&run.project, commit, path, LARGEST_FILE)
                .await;
            match file {
                Err(error) if error.is_transient() => Err(error),
                // None, a link, too large: whatever it is, it is another one.
                file => Ok(file.ok()),
            }
        };
        let used = read(base, FILE_NAME).await?;
        let text = used.as_deref().map(String::from_utf8_lossy);
        let included = spec::includes(&text.unwrap_or_default());
        let mut head_differs = read(&run.commit, FILE_NAME).await? != used;
        for path in included {
            head_differs |= read(&run.commit, &path).await? != read(base, &path).await?;
        }
        Ok(BaseFile {
            commit: base.clone(),
            head_differs,
        })
    }

    /// What a pull request changes since it left its base; `None`, which counts as everything, when they have nothing in
    /// common.
    pub(super) async fn changed_since(
        &self,
        run: &Run,
        base: &CommitSha,
    ) -> Result<Option<Vec<String>>, SourcesError> {
        let (project, head) = (&run.project, &run.commit);
        match self.sources.merge_base(project, base, head).await? {
            Some(left) => self.sources.changed_paths(project, &left, head).await,
            None => Ok(None),
        }
    }
}
