//! Scans of images. Nothing is scanned here: what a scan would have found is told beforehand, at
//! `/_sandbox/scans`, and an image that nobody told of cannot be scanned.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Ecr, ImageId, invalid_parameter, without_nulls};
use crate::app::App;
use crate::clock::Time;
use crate::registry::Registry;
use crate::services::{AwsError, JsonResult, Reply};

/// Where a scan can be, in AWS's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum ScanStatus {
    InProgress,
    Complete,
    Failed,
    UnsupportedImage,
    Active,
    Pending,
    ScanEligibilityExpired,
    FindingsUnavailable,
}

impl ScanStatus {
    /// Whether there are findings to show.
    fn has_findings(self) -> bool {
        matches!(self, Self::Complete | Self::Active)
    }
}

/// How bad a finding is, in AWS's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Severity {
    Critical,
    High,
    Medium,
    Low,
    Informational,
    Undefined,
}

/// One vulnerability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Finding {
    /// Such as `CVE-2026-1234`.
    pub name: String,
    pub severity: Severity,
    #[serde(default)]
    pub description: Option<String>,
}

/// What is told of an image's scan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scan {
    pub status: ScanStatus,
    pub description: Option<String>,
    pub findings: Vec<Finding>,
    /// When it was told.
    pub at: Time,
}

impl Scan {
    fn status_value(&self) -> Value {
        without_nulls(json!({"status": self.status, "description": self.description}))
    }

    /// The number of findings by severity.
    fn counts(&self) -> Value {
        let mut counts = json!({});
        for finding in &self.findings {
            let severity = json!(finding.severity);
            let member = &mut counts[severity.as_str().unwrap_or_default()];
            *member = json!(member.as_u64().unwrap_or(0) + 1);
        }
        counts
    }

    /// The members that DescribeImages shows.
    pub(super) fn summary(&self) -> (Value, Option<Value>) {
        let findings = self.status.has_findings().then(|| {
            json!({
                "imageScanCompletedAt": self.at.epoch_seconds(),
                "vulnerabilitySourceUpdatedAt": self.at.epoch_seconds(),
                "findingSeverityCounts": self.counts(),
            })
        });
        (self.status_value(), findings)
    }
}

/// The body of a request to `/_sandbox/scans`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Told {
    repository: String,
    digest: String,
    status: ScanStatus,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    findings: Vec<Finding>,
}

/// Notes what the scan of an image finds. The image need not be there yet.
pub(crate) async fn tell(app: &App, told: Told) -> JsonResult {
    let registry = app.registry.as_ref().ok_or_else(super::no_registry)?;
    let Told {
        repository,
        digest,
        status,
        description,
        findings,
    } = told;
    if !super::is_digest(&digest) {
        return Err(invalid_parameter(format!(
            "'{digest}' is no digest 'sha256:…'"
        )));
    }
    let scan = Scan {
        status,
        description,
        findings,
        at: app.clock.now(),
    };
    registry
        .change(|records| {
            let found = records.repositories.get_mut(&repository);
            let found = found.ok_or_else(|| super::unknown_repository(app, &repository))?;
            found.scans.insert(digest, scan);
            Ok::<_, AwsError>(())
        })
        .await?;
    Ok(Reply::changed(overview(registry)))
}

/// Every scan that was told.
pub(crate) fn overview(registry: &Registry) -> Value {
    let records = registry.records();
    let repositories = records.repositories.iter();
    repositories
        .flat_map(|(name, repository)| {
            repository.scans.iter().map(move |(digest, scan)| {
                json!({
                    "repository": name,
                    "digest": digest,
                    "status": scan.status,
                    "description": scan.description,
                    "findings": scan.findings,
                })
            })
        })
        .collect()
}

impl Ecr<'_> {
    /// The one image that the request names, and its digest.
    async fn scanned(&self) -> Result<(&str, ImageId<'_>, String), AwsError> {
        let name = self.repository_name()?;
        self.repository(name)?;
        let id = ImageId {
            tag: self.input["imageId"]["imageTag"].as_str(),
            digest: self.input["imageId"]["imageDigest"].as_str(),
        };
        let Some(digest) = self.resolve(name, &id).await? else {
            return Err(self.no_image(name, &id));
        };
        Ok((name, id, digest))
    }

    pub(super) async fn start_image_scan(&self) -> Result<Value, AwsError> {
        let (name, id, digest) = self.scanned().await?;
        let unsupported = Scan {
            status: ScanStatus::UnsupportedImage,
            description: Some(
                "The sandbox scans nothing: tell what this scan finds at /_sandbox/scans."
                    .to_owned(),
            ),
            findings: Vec::new(),
            at: self.app.clock.now(),
        };
        let status = self
            .registry
            .change(|records| {
                let repository = records.repositories.get_mut(name);
                let repository = repository.ok_or_else(|| self.no_repository(name))?;
                let scan = repository
                    .scans
                    .entry(digest.clone())
                    .or_insert(unsupported);
                Ok::<_, AwsError>(scan.status_value())
            })
            .await?;
        Ok(json!({
            "registryId": self.app.config.account,
            "repositoryName": name,
            "imageId": without_nulls(json!({"imageDigest": digest, "imageTag": id.tag})),
            "imageScanStatus": status,
        }))
    }

    pub(super) async fn describe_image_scan_findings(&self) -> Result<Value, AwsError> {
        let (name, id, digest) = self.scanned().await?;
        let repository = self.repository(name)?;
        let scan = repository.scans.get(&digest).ok_or_else(|| {
            AwsError::client(
                "ScanNotFoundException",
                format!(
                    "Image scan does not exist for the image with '{{imageDigest:'{digest}'}}' in \
                     the repository with name '{name}' in the registry with id '{}'",
                    self.app.config.account
                ),
            )
        })?;
        let (status, summary) = scan.summary();
        let mut next = None;
        let findings = match summary {
            None => None,
            Some(mut findings) => {
                let all = scan.findings.iter().map(|one| {
                    without_nulls(json!({
                        "name": one.name,
                        "severity": one.severity,
                        "description": one.description,
                    }))
                });
                let mut page = self.page("findings", all.collect())?;
                next = page.get("nextToken").cloned();
                findings["findings"] = page["findings"].take();
                Some(findings)
            }
        };
        Ok(without_nulls(json!({
            "registryId": self.app.config.account,
            "repositoryName": name,
            "imageId": without_nulls(json!({"imageDigest": digest, "imageTag": id.tag})),
            "imageScanStatus": status,
            "imageScanFindings": findings,
            "nextToken": next,
        })))
    }
}
