//! Reads a commit's sources: the pipeline file, the environments' files, and whether the trigger wants
//! the push at all.

use super::{Executor, Outcome, Tried};
use crate::adapters::sources::{Remote, SourcesError};
use crate::store::RunsBefore;
use roadstead_pipelines::authorship::Authorship;
use roadstead_pipelines::fact::{RunFact, SourcesRead};
use roadstead_pipelines::git_ref::{GitRef, skip_marker};
use roadstead_pipelines::id::{CommitSha, ReleaseId, RunId};
use roadstead_pipelines::release::{TaskDefinitions, Variables};
use roadstead_pipelines::report::Failure;
use roadstead_pipelines::run::{Run, RunState};
use roadstead_pipelines::spec::{
    self, Diagnostics, FILE_NAME, Included, InputValues, LARGEST_FILE, LeftOut, Pipeline,
    told_inputs, untold_inputs, wanted_steps,
};
use roadstead_pipelines::started_by::StartedBy;
use std::collections::BTreeSet;

/// Tries before a project counts as removed: another server may have a newer configuration, and each
/// try is whoever's comes first.
const TRIES_UNCONFIGURED: u32 = 6;

/// A text of the repository, or why it cannot be used.
type Read<T> = Result<Result<T, Failure>, SourcesError>;

impl Executor {
    /// The repository of a run's project, or what comes of its not being configured.
    pub(super) fn remote_of(&self, run: &Run, attempts: u32) -> Result<&Remote, Outcome> {
        self.remotes.get(&run.project).ok_or_else(|| {
            let message = format!("project `{}` is not configured", run.project);
            if attempts < TRIES_UNCONFIGURED {
                Outcome::Later { error: message }
            } else {
                Outcome::run_refused(&run.id, Failure::errored(message))
            }
        })
    }

    pub(super) async fn read_sources(&self, run: &RunId, attempts: u32) -> Tried {
        let mut run = self.store.get_run(run).await?.run;
        if run.state != RunState::Fetching {
            return Ok(Outcome::moved_on());
        }
        let remote = match self.remote_of(&run, attempts) {
            Ok(remote) => remote,
            Err(outcome) => return Ok(outcome),
        };
        self.sources
            .fetch(&run.project, remote, &run.commit, &run.git_ref)
            .await?;
        let commit = self.sources.read_commit(&run.project, &run.commit).await?;
        // Another one than was pushed, if that is an annotated tag: from here on the commit counts.
        let pushed = std::mem::replace(&mut run.commit, commit.id);
        if let Some(failure) = self.strayed(&run, remote).await? {
            return Ok(Outcome::run_refused(&run.id, failure));
        }
        let base = match run.pull_request() {
            Some(pull_request) => Some(self.base_of(&run, remote, pull_request).await?),
            None => None,
        };
        let (base_file, base) = match base.transpose() {
            Ok(Some(base)) if !run.trust().is_trusted() => {
                (Some(self.base_file(&run, &base).await?), Some(base))
            }
            Ok(base) => (None, base),
            Err(failure) => return Ok(Outcome::run_refused(&run.id, failure)),
        };
        let file_at = base_file.as_ref().map_or(&run.commit, |file| &file.commit);
        let pipeline = match self.pipeline(&run, file_at).await? {
            Ok(pipeline) => pipeline,
            Err(failure) => return Ok(Outcome::run_refused(&run.id, failure)),
        };
        let inputs = match inputs(&run, &pipeline) {
            Ok(inputs) => inputs,
            Err(failure) => return Ok(Outcome::run_refused(&run.id, failure)),
        };
        let commits = [&pushed, &run.commit];
        let before = self.store.runs_before(&run, commits).await?;
        // Of a commit that was read before it is known already, and whoever names one may name an old one.
        let newest_of_branch = !before.file_read && !names_commit(&run);
        let (skip, left_out) = match self.wanted(&run, &pipeline, &before, base.as_ref()).await? {
            Ok(left_out) => (None, left_out),
            Err(reason) => (Some(reason), LeftOut::new()),
        };
        let supersedes = match skip {
            None => self.superseded(&run, remote, &pipeline, before).await?,
            Some(_) => BTreeSet::new(),
        };
        let (mut variables, mut task_definitions) = <(Variables, TaskDefinitions)>::default();
        // What is for deployments alone is not read of code that is never deployed, and that anybody may have written.
        if skip.is_none() && run.trust().is_trusted() {
            match self.variables(&run, &pipeline).await? {
                Ok(read) => variables = read,
                Err(failure) => return Ok(Outcome::run_refused(&run.id, failure)),
            }
            match self.task_definitions(&run, &pipeline).await? {
                Ok(read) => task_definitions = read,
                Err(failure) => return Ok(Outcome::run_refused(&run.id, failure)),
            }
        }
        let read = SourcesRead {
            commit: Some(run.commit.clone()),
            pipeline,
            message: commit.message,
            author: commit.author,
            authorship: self.authorship(&run).await?,
            variables,
            task_definitions,
            supersedes,
            base_file,
            skip,
            left_out,
            inputs,
            newest_of_branch,
        };
        Ok(Outcome::run(&run.id, RunFact::SourcesRead(Box::new(read))))
    }

    /// Who made the commit, and what is new beside what was released last and what runs somewhere:
    /// a gate with `not_author` will ask for one of these.
    async fn authorship(&self, run: &Run) -> Result<Authorship, super::Interrupted> {
        let world = self.store.load_world_of_places(&run.project).await?;
        let deployed = world
            .places
            .values()
            .filter_map(|place| place.last_verified())
            .map(|verified| &verified.release);
        let newest = world.newest_release().map(|release| &release.id);
        let others: BTreeSet<&ReleaseId> = deployed.chain(newest).collect();
        let others = others
            .into_iter()
            .filter_map(|id| Some((id.clone(), world.releases.get(id)?.commit.clone())))
            .collect();
        Ok(self
            .sources
            .read_authorship(&run.project, &run.commit, others)
            .await?)
    }

    async fn text(&self, run: &Run, path: &str) -> Read<String> {
        self.text_at(run, &run.commit, path).await
    }

    async fn text_at(&self, run: &Run, commit: &CommitSha, path: &str) -> Read<String> {
        let bytes = self
            .sources
            .read_blob(&run.project, commit, path, LARGEST_FILE)
            .await?;
        let text = String::from_utf8(bytes);
        Ok(text.map_err(|_| Failure::failed(format!("{path} is not UTF-8 text"))))
    }

    /// The file of a run, as it is at `commit`.
    async fn pipeline(&self, run: &Run, commit: &CommitSha) -> Read<Pipeline> {
        let text = match self.text_at(run, commit, FILE_NAME).await {
            Ok(Ok(text)) => text,
            Ok(Err(failure)) => return Ok(Err(failure)),
            Err(SourcesError::NoFile { path, commit }) => {
                let message = format!(
                    "{path} does not exist at commit {commit}: add it, so that Roadstead knows what to build"
                );
                return Ok(Err(Failure::failed(message)));
            }
            Err(error) => return Err(error),
        };
        // From the same commit: what an untrusted run includes is the base branch's, too.
        let mut included = Included::new();
        for path in spec::includes(&text) {
            let read = match self.text_at(run, commit, &path).await {
                Ok(read) => read.map_err(|failure| failure.message),
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => Err(error.to_string()),
            };
            included.insert(path, read);
        }
        Ok(match spec::parse_with(FILE_NAME, &text, &included) {
            Ok(pipeline) if pipeline.name == run.project => Ok(pipeline),
            Ok(pipeline) => Err(Failure::failed(format!(
                "{FILE_NAME} says `name: {}`, but this repository is project `{}`; make them the same",
                pipeline.name, run.project
            ))),
            Err(diagnostics) => Err(wrong(FILE_NAME, &diagnostics)),
        })
    }

    /// Variables per environment: those of the pipeline file win over those of its `env_file`, of which the
    /// later win.
    async fn variables(&self, run: &Run, pipeline: &Pipeline) -> Read<Variables> {
        let mut all = Variables::new();
        for (name, environment) in &pipeline.environments {
            let own = all.entry(name.clone()).or_default();
            for file in &environment.env_files {
                let text = match self.text(run, file).await {
                    Ok(Ok(text)) => text,
                    Ok(Err(failure)) => return Ok(Err(failure)),
                    Err(error) if error.is_transient() => return Err(error),
                    Err(error) => {
                        let message = format!("`env_file` of environment `{name}`: {error}");
                        return Ok(Err(Failure::failed(message)));
                    }
                };
                match spec::parse_env_file(file, &text) {
                    Ok(variables) => own.extend(variables),
                    Err(diagnostics) => return Ok(Err(wrong(file, &diagnostics))),
                }
            }
            own.extend(
                environment
                    .variables
                    .iter()
                    .map(|(k, v)| (k.clone(), v.clone())),
            );
        }
        Ok(Ok(all))
    }

    /// Task definitions that come out of files, as each place takes them. What is wrong with one fails the run,
    /// and no deployment days later.
    async fn task_definitions(&self, run: &Run, pipeline: &Pipeline) -> Read<TaskDefinitions> {
        let mut all = TaskDefinitions::default();
        for (place, from) in pipeline.definitions_from_files(self.cluster.default_region()) {
            let what = format!("`task_definition` of {place}");
            if !all.files.contains_key(&from.file) {
                let text = match self.text(run, &from.file).await {
                    Ok(Ok(text)) => text,
                    Ok(Err(failure)) => return Ok(Err(failure)),
                    Err(error) if error.is_transient() => return Err(error),
                    Err(error) => return Ok(Err(Failure::failed(format!("{what}: {error}")))),
                };
                all.files.insert(from.file.clone(), text);
            }
            let text = &all.files[&from.file];
            let service = pipeline.services.get(&place.service);
            let container = service.and_then(|service| service.container.as_deref());
            let read = spec::parse_task_definition(&from.file, text, &from.variables, container);
            if let Err(diagnostics) = read {
                let mut failure = wrong(&from.file, &diagnostics);
                // Another place may give the same file what is missing here.
                failure.message = format!("{what}: {}", failure.message);
                return Ok(Err(failure));
            }
            let services = all.places.entry(place.environment).or_default();
            services.insert(place.service, from);
        }
        Ok(Ok(all))
    }

    /// The runs before that a run takes the place of, if its file says so or it is of a pull request: those that still build, but for
    /// what comes after its own commit, as when a webhook comes late, and for what the branch stands at, as
    /// when it tells of a commit that was overwritten since. One that its forge did not tell of takes no place,
    /// nor does one that a person asked for again.
    async fn superseded(
        &self,
        run: &Run,
        remote: &Remote,
        pipeline: &Pipeline,
        before: RunsBefore,
    ) -> Result<BTreeSet<RunId>, super::Interrupted> {
        let by_hand = before.same_commit || !run.started_by.is_told_by_forge();
        let cancels = pipeline.concurrency.cancel_superseded || run.pull_request().is_some();
        if !cancels || by_hand {
            return Ok(BTreeSet::new());
        }
        let mut building = before.building;
        if building.is_empty() {
            return Ok(BTreeSet::new());
        }
        let others = building.values();
        let others = others.map(|commit| (commit.clone(), run.git_ref.clone()));
        let commit = (&run.commit, run.git_ref.as_str());
        let after = self
            .sources
            .descendants(&run.project, remote, commit, others.collect())
            .await?;
        // Asked of the repository: the mirror's ref does not move when the commit came by another branch.
        let head = self
            .sources
            .stands_for(&run.project, remote, &run.git_ref)
            .await?;
        building.retain(|_, commit| !after.contains(commit) && !head.contains(commit));
        Ok(building.into_keys().collect())
    }

    /// Why a commit that somebody named is none of the branch that they named: its secrets would be had by what was
    /// never merged to it.
    async fn strayed(
        &self,
        run: &Run,
        remote: &Remote,
    ) -> Result<Option<Failure>, super::Interrupted> {
        if !names_commit(run) {
            return Ok(None);
        }
        let heads = self
            .sources
            .stands_for(&run.project, remote, &run.git_ref)
            .await?;
        if heads.contains(&run.commit) {
            return Ok(None);
        }
        let others = heads.iter();
        let others = others.map(|head| (head.clone(), run.git_ref.clone()));
        let commit = (&run.commit, run.git_ref.as_str());
        let after = self
            .sources
            .descendants(&run.project, remote, commit, others.collect())
            .await?;
        let strayed = after.is_empty();
        Ok(strayed.then(|| {
            let (commit, git_ref) = (&run.commit, GitRef::of(&run.git_ref));
            let message =
                format!("commit {commit} is not one of branch `{git_ref}` as it stands now");
            Failure::failed(message)
        }))
    }

    /// What a run leaves out, or why it is not wanted: by its trigger, or by its commit's message, of which
    /// not every forge tells.
    async fn wanted(
        &self,
        run: &Run,
        pipeline: &Pipeline,
        before: &RunsBefore,
        base: Option<&CommitSha>,
    ) -> Result<Result<LeftOut, String>, super::Interrupted> {
        let is_wish = before.same_commit || !run.started_by.is_told_by_forge();
        let message = self.sources.read_message(&run.project, &run.commit).await?;
        if let Some(marker) = skip_marker(&run.git_ref, &message)
            && !is_wish
        {
            return Ok(Err(format!("the commit's message says {marker}")));
        }
        // What a run changed that failed or was cancelled is not checked yet, so it counts again. `None`,
        // which counts as everything, when nothing is known to be checked.
        let changed = match (base, &before.last_succeeded) {
            _ if is_wish => None,
            (Some(base), _) => self.changed_since(run, base).await?,
            (None, Some(base)) => {
                self.sources
                    .changed_paths(&run.project, base, &run.commit)
                    .await?
            }
            (None, None) => None,
        };
        let (git_ref, started_by) = (&run.git_ref, &run.started_by);
        Ok(wanted_steps(
            pipeline,
            git_ref,
            started_by,
            changed.as_deref(),
        ))
    }
}

/// Whether whoever started the run named a commit.
fn names_commit(run: &Run) -> bool {
    match run.started_by {
        StartedBy::Push | StartedBy::PullRequest(_) | StartedBy::Schedule { .. } => false,
        StartedBy::Manual { commit_named, .. } => commit_named,
    }
}

/// The file's inputs with what was given for them.
fn inputs(run: &Run, pipeline: &Pipeline) -> Result<InputValues, Failure> {
    let declared = &pipeline.trigger.inputs;
    match &run.started_by {
        StartedBy::Push | StartedBy::PullRequest(_) | StartedBy::Schedule { .. } => {
            Ok(untold_inputs(declared))
        }
        StartedBy::Manual { inputs, .. } => told_inputs(declared, inputs).map_err(|wrong| {
            let message = format!(
                "the run's inputs do not fit {FILE_NAME}: {}",
                wrong.join("; ")
            );
            Failure::failed(message)
        }),
    }
}

/// The failure of a file with mistakes: the first one in the message, all of them as evidence.
pub(super) fn wrong(file: &str, diagnostics: &Diagnostics) -> Failure {
    let list = diagnostics.list();
    let message = match list {
        [only] => format!(
            "{}:{}:{}: {}",
            only.file, only.line, only.column, only.message
        ),
        [first, rest @ ..] => format!(
            "{}:{}:{}: {}, and {} more mistakes",
            first.file,
            first.line,
            first.column,
            first.message,
            rest.len()
        ),
        [] => format!("{file} cannot be read"),
    };
    Failure::failed(message).with_details(list.iter().map(ToString::to_string).collect())
}
