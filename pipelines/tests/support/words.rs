//! A change as transcripts tell it.

use roadstead_pipelines::fact::{Change, DeploymentFact};

pub(super) fn describe(change: &Change) -> String {
    match change {
        Change::Run { run, fact } => format!("{run}: {}", fact.word()),
        Change::Deployment { deployment, fact } => {
            let why = match fact {
                DeploymentFact::EcsTakesBack { failure }
                | DeploymentFact::RollbackOpened { failure, .. }
                | DeploymentFact::RollbackFailed { failure }
                | DeploymentFact::Failed { failure } => {
                    let details: String = failure
                        .details
                        .iter()
                        .map(|d| format!("\n      {d}"))
                        .collect();
                    format!(" ({}){details}", failure.message)
                }
                DeploymentFact::Superseded { by } | DeploymentFact::Cancelled { by } => {
                    format!(" by {by}")
                }
                _ => String::new(),
            };
            format!("{deployment}: {}{why}", fact.word())
        }
        Change::MakeRelease { release } => format!("release {} made", release.id),
        Change::OpenDeployment {
            deployment,
            place,
            release,
            kind,
            ..
        } => {
            let verb = match kind {
                roadstead_pipelines::deployment::Kind::Forward => "brings",
                roadstead_pipelines::deployment::Kind::Rollback { .. } => "rolls back to",
            };
            format!("{deployment} {verb} {release} in {place}")
        }
        Change::SetHold { place, hold } => {
            format!("{place} is held by {}: {}", hold.by, hold.reason)
        }
        Change::ReleaseHold { place, by } => format!("{place} is resumed by {by}"),
        Change::Approve { place, approval } => {
            format!(
                "{} approved for {place} by {}",
                approval.release, approval.by
            )
        }
        Change::AdoptPipeline { .. } => "pipeline file adopted".into(),
    }
}
