//! The pipeline file, `version: 1`: from a text to a [`Pipeline`], or to everything that is wrong with
//! it.
//!
//! Reading goes through three rooms, each of which finds all its mistakes before the next begins:
//! `tree` (is it YAML, and small enough), `decode` (do keys and values have the right shape), `check`
//! (do names lead somewhere). Then `matrix` puts the combinations of steps into their places. Texts come from strangers: no input may panic or cost more than a few
//! megabytes. The module knows nothing of repositories or servers, so the same text always gives the
//! same answer.

mod caches;
mod check;
mod create;
mod cron;
mod decode;
mod diagnostic;
mod env_file;
mod environments;
mod fields;
mod groups;
mod include;
mod input;
mod keys;
mod matrix;
mod model;
mod schedule;
#[cfg(test)]
mod schema;
mod secrets;
mod step_files;
mod task_definition;
mod task_definition_file;
mod tree;
mod trigger;
mod values;
mod variants;
mod when;

pub use caches::Cache;
pub use create::{Create, LaunchType, PortOf, ServiceConnect};
pub use diagnostic::{Diagnostic, Diagnostics};
pub use env_file::{EnvFiles, missing_keys, parse_env_file};
pub use fields::nearest;
pub use groups::Group;
pub use include::{Included, MOST_INCLUDES, includes};
pub use input::{
    Input, InputKind, InputValues, LONGEST_INPUT, input_line, input_variable, told_inputs,
    untold_inputs,
};
pub use matrix::{Combination, MOST_COMBINATIONS, MOST_OWN_JOBS, matrix_variable};
pub use model::{
    AfterRollback, BeforeDeploy, Concurrency, DeployMode, DoneWhen, EcsTarget, EcsTargetOverride,
    Environment, Gate, HttpProbe, Image, Pipeline, ResolvedTarget, Role, Rollback,
    SERVICE_PLACEHOLDER, Service, Sidecar, Step, StepAction, StepLimits, StepSecret, Trigger,
    Verify, When,
};
pub use schedule::Schedule;
pub use step_files::StepFiles;
pub use task_definition::{BUILT_IN_VARIABLES, DefinitionBase, TaskDefinition};
pub use task_definition_file::{LARGEST_TASK_DEFINITION, parse_task_definition};
pub(crate) use trigger::matches_patterns;
pub use trigger::{
    PullRequestTrigger, Triggered, check_pattern, pull_request_is_unwanted, tag_is_unwanted,
    triggered_by,
};
pub use variants::Variants;
pub use when::{Event, LeftOut, left_out, wanted_steps};

use diagnostic::{At, Reporter};

/// Where a repository keeps its pipeline file.
pub const FILE_NAME: &str = ".roadstead/pipeline.yml";

/// The largest pipeline or environment file that is read, in bytes.
pub const LARGEST_FILE: usize = 256 * 1024;

/// The JSON Schema (draft 7) of a pipeline file, for editors: its keys with what they mean, its words and
/// limits. It takes every file that [`parse`] takes, but for numbers in quotes, and texts without quotes
/// that YAML takes for a number, `true` or `false`. Where names lead, only [`parse`] can tell.
pub const SCHEMA: &str = include_str!("../../pipeline.schema.json");

/// Reads a pipeline file that includes no others.
///
/// # Errors
/// As [`parse_with`]; a file that it includes cannot be read.
pub fn parse(file_name: &str, text: &str) -> Result<Pipeline, Diagnostics> {
    parse_with(file_name, text, &Included::new())
}

/// Reads a pipeline file with the texts of those that it [`includes`].
///
/// `file_name` is the name for messages, most often [`FILE_NAME`]. A file with images but without
/// `steps` gets one step `build` that builds them all.
///
/// # Errors
/// Everything that is wrong with it, each with its place. A file above [`LARGEST_FILE`] is not looked
/// at.
pub fn parse_with(
    file_name: &str,
    text: &str,
    included: &Included,
) -> Result<Pipeline, Diagnostics> {
    refuse_large(file_name, text)?;
    let mut reporter = Reporter::new(file_name, text);
    let Some(mut root) = tree::read(text, &mut reporter) else {
        return reporter.finish(None);
    };
    include::put_in(&mut root, file_name, included, &mut reporter)?;
    let read = decode::pipeline(&root, &mut reporter);
    let pipeline = read.map(|(mut pipeline, matrices)| {
        if reporter.is_clean() {
            check::pipeline(&pipeline, &root, &mut reporter);
            matrix::expand(&mut pipeline, &matrices, &root, &mut reporter);
        }
        pipeline
    });
    reporter.finish(pipeline)
}

fn refuse_large(file_name: &str, text: &str) -> Result<(), Diagnostics> {
    refuse_larger(file_name, text, LARGEST_FILE)
}

fn refuse_larger(file_name: &str, text: &str, most: usize) -> Result<(), Diagnostics> {
    let size = text.len();
    if size <= most {
        return Ok(());
    }
    let mut reporter = Reporter::new(file_name, "");
    reporter.error(
        At::START,
        format!("the file has {size} bytes, at most {most} are read"),
    );
    reporter.finish(None)
}
