//! The form that starts a run: what it asks for, and what becomes of it.

use super::super::App;
use super::super::auth::{Allowed, Deployer};
use super::super::error::HttpError;
use super::super::starts::{self, Wish};
use super::frame::back_to;
use super::{project_of, view_of};
use crate::store::{Asked, Project};
use actix_web::{HttpResponse, web};
use rand::RngExt;
use roadstead_pipelines::action::Actor;
use roadstead_pipelines::git_ref::{BRANCHES, GitRef};
use roadstead_pipelines::spec::{Input, InputKind, Role};
use roadstead_web::urls::{self, field};
use roadstead_web::view::{StartForm, StartInput, Tone};
use std::collections::HashMap;

/// The form, with the inputs of the branch that is named, or else of the repository's own.
pub(super) async fn form(
    app: &App,
    project: &Project,
    actor: &Actor,
    named: Option<&str>,
) -> Result<StartForm, HttpError> {
    let named = named.map(str::trim);
    let full = match named.filter(|name| !name.is_empty()) {
        Some(name) => match GitRef::of(name) {
            GitRef::Other(name) => Some(format!("{BRANCHES}{name}")),
            GitRef::Branch(_) | GitRef::Tag(_) | GitRef::PullRequest(_) => Some(name.to_owned()),
        },
        None => project.default_branch.clone(),
    };
    let files = app
        .store
        .branch_files(&project.name, full.as_deref())
        .await?;
    // Of a repository that names no branch, or was not looked at yet, the one that was pushed to last.
    let file = files.first();
    let git_ref = match (named, &full, file) {
        (Some(named), ..) => named.to_owned(),
        (None, Some(full), _) => GitRef::of(full).to_string(),
        (None, None, Some(file)) => GitRef::of(&file.git_ref).to_string(),
        (None, None, None) => String::new(),
    };
    let inputs = file.iter().flat_map(|file| &file.trigger.inputs);
    Ok(StartForm {
        permission: view_of::needs_role(actor, Role::Deployer),
        open: named.is_some(),
        git_ref,
        file_of: file.map(|file| view_of::run_name(file.run.as_str())),
        inputs: inputs.map(|(name, input)| one(name, input)).collect(),
        key: hex::encode(rand::rng().random::<[u8; 16]>()),
    })
}

fn one(name: &str, input: &Input) -> StartInput {
    let options = match &input.kind {
        InputKind::Choice { options } => options.clone(),
        InputKind::Boolean => vec!["false".to_owned(), "true".to_owned()],
        InputKind::String => vec![],
    };
    let unchosen = match input.kind {
        InputKind::Boolean if !input.required => "false",
        _ => "",
    };
    StartInput {
        name: name.to_owned(),
        description: input.description.clone().unwrap_or_default(),
        required: input.required,
        value: input.default.clone().unwrap_or_else(|| unchosen.to_owned()),
        options,
    }
}

/// Starts the run.
///
/// # Errors
/// As [`starts::start`].
pub(super) async fn send(
    app: web::Data<App>,
    who: Allowed<Deployer, web::Form<HashMap<String, String>>>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let project = project_of(&app, &path).await?.name;
    let text = |name: &str| who.sent.get(name).map(String::as_str);
    let inputs = who.sent.iter().filter_map(|(name, value)| {
        let name = name.strip_prefix(field::INPUT)?;
        Some((name.to_owned(), value.clone()))
    });
    let wish = Wish {
        git_ref: text(field::GIT_REF),
        commit: text(field::COMMIT),
        inputs: inputs.collect(),
        key: text(field::KEY),
    };
    let asked = starts::start(&app, &who.actor, &project, wish).await?;
    let (run, tone, said) = match &asked {
        Asked::Made(run) => (run, Tone::Good, "started"),
        Asked::Before(run) | Asked::Other(run) => {
            (run, Tone::Quiet, "was started before by this form")
        }
    };
    let name = view_of::run_name(run.as_str());
    let text = format!("Run {name} {said}.");
    Ok(back_to(&urls::run(run.as_str()), tone, &text))
}
