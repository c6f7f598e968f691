//! Amazon ECR: repositories and images, over the registry room.
//!
//! Digests, tags and manifests are what the real registry answers at the moment of the call; only
//! push times come from the records.

mod lifecycle;
mod registries;
pub(crate) mod scans;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::{AwsError, JsonResult, Reply, paging};
use crate::app::App;
use crate::clock::Time;
use crate::registry::{Manifest, Registry, Repository, TOKEN_USER, TagMutability};
use registries::unknown_repository;
use scans::Scan;

/// Answers one call of `AmazonEC2ContainerRegistry_V20150921`.
pub(crate) async fn handle(app: &App, operation: &str, input: &Value) -> JsonResult {
    let registry = app.registry.as_ref().map(Arc::clone);
    let registry = registry.ok_or_else(no_registry)?;
    let ecr = Ecr {
        app,
        registry: &registry,
        input,
    };
    ecr.check_registry(operation)?;
    match operation {
        "GetAuthorizationToken" => ecr.get_authorization_token().await.map(Reply::read),
        "CreateRepository" => ecr.create_repository().await.map(Reply::changed),
        "DescribeRepositories" => ecr.describe_repositories().map(Reply::read),
        "DeleteRepository" => ecr.delete_repository().await.map(Reply::changed),
        "PutImageTagMutability" => ecr.put_image_tag_mutability().await.map(Reply::changed),
        "DescribeImages" => ecr.describe_images().await.map(Reply::read),
        "ListImages" => ecr.list_images().await.map(Reply::read),
        "BatchGetImage" => ecr.batch_get_image().await.map(Reply::read),
        "StartImageScan" => ecr.start_image_scan().await.map(Reply::changed),
        "DescribeImageScanFindings" => ecr.describe_image_scan_findings().await.map(Reply::read),
        "PutLifecyclePolicy" => ecr.put_lifecycle_policy().await.map(Reply::changed),
        "GetLifecyclePolicy" => ecr.get_lifecycle_policy().map(Reply::read),
        "DeleteLifecyclePolicy" => ecr.delete_lifecycle_policy().await.map(Reply::changed),
        "BatchDeleteImage" => ecr.batch_delete_image().await.map(Reply::changed),
        _ => Err(AwsError::unsupported_operation(operation)),
    }
}

fn no_registry() -> AwsError {
    AwsError::client(
        "UnsupportedFeatureException",
        "The simulated backend runs no images, so the sandbox has no registry; start it with --backend docker.",
    )
}

struct Ecr<'a> {
    app: &'a App,
    registry: &'a Registry,
    input: &'a Value,
}

/// Which image a caller means.
struct ImageId<'a> {
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

impl ImageId<'_> {
    fn value(&self) -> Value {
        without_nulls(json!({ "imageDigest": self.digest, "imageTag": self.tag }))
    }
}

/// An image as the registry has it now.
struct Image {
    tags: Vec<String>,
    pushed_at: Time,
}

impl Ecr<'_> {
    async fn get_authorization_token(&self) -> Result<Value, AwsError> {
        let token = self.registry.issue_token().await?;
        let encoded = BASE64_STANDARD.encode(format!("{TOKEN_USER}:{}", token.password));
        Ok(json!({ "authorizationData": [{
            "authorizationToken": encoded,
            "expiresAt": token.expires_at.epoch_seconds(),
            "proxyEndpoint": format!("http://{}", self.registry.address()),
        }] }))
    }

    // Repositories

    async fn create_repository(&self) -> Result<Value, AwsError> {
        let name = self.repository_name()?;
        if !is_repository_name(name) {
            return Err(invalid_parameter(format!(
                "Invalid parameter at 'repositoryName' failed to satisfy constraint: '{name}' must have 2 to 256 \
                 characters, of lower case letters, digits and single separators"
            )));
        }
        let repository = Repository {
            created_at: self.app.clock.now(),
            mutability: self.mutability()?,
            images: BTreeMap::new(),
            scans: BTreeMap::new(),
            lifecycle_policy: None,
        };
        let answer = json!({ "repository": self.repository_value(name, &repository) });
        self.registry
            .change(|records| {
                if records.repositories.contains_key(name) {
                    return Err(AwsError::client(
                        "RepositoryAlreadyExistsException",
                        format!(
                            "The repository with name '{name}' already exists in the registry with id '{}'",
                            self.app.config.account
                        ),
                    ));
                }
                records.repositories.insert(name.to_owned(), repository);
                Ok(())
            })
            .await?;
        Ok(answer)
    }

    fn describe_repositories(&self) -> Result<Value, AwsError> {
        let records = self.registry.records();
        let names = self.strings("repositoryNames");
        let described: Vec<Value> = if names.is_empty() {
            records
                .repositories
                .iter()
                .map(|(name, repository)| self.repository_value(name, repository))
                .collect()
        } else {
            names
                .into_iter()
                .map(|name| {
                    let found = records.repositories.get(name);
                    let found = found.ok_or_else(|| self.no_repository(name))?;
                    Ok(self.repository_value(name, found))
                })
                .collect::<Result<_, AwsError>>()?
        };
        self.page("repositories", described)
    }

    async fn delete_repository(&self) -> Result<Value, AwsError> {
        let name = self.repository_name()?;
        let repository = self.repository(name)?;
        let forced = self.input["force"].as_bool() == Some(true);
        if !forced && !self.images(name, &repository).await?.is_empty() {
            return Err(AwsError::client(
                "RepositoryNotEmptyException",
                format!(
                    "The repository with name '{name}' in registry with id '{}' cannot be deleted because it \
                     still contains images",
                    self.app.config.account
                ),
            ));
        }
        // First the record: nothing can be pushed any more when its images go.
        self.registry
            .change(|records| {
                records.repositories.remove(name);
                Ok::<_, AwsError>(())
            })
            .await?;
        self.registry.clear(name, &repository).await?;
        Ok(json!({ "repository": self.repository_value(name, &repository) }))
    }

    async fn put_image_tag_mutability(&self) -> Result<Value, AwsError> {
        let name = self.repository_name()?;
        let mutability = self.mutability()?;
        let (kind, exclusions) = (mutability.name(), filters_value(&mutability));
        self.registry
            .change(|records| {
                let repository = records.repositories.get_mut(name);
                let repository = repository.ok_or_else(|| self.no_repository(name))?;
                repository.mutability = mutability;
                Ok::<_, AwsError>(())
            })
            .await?;
        Ok(without_nulls(json!({
            "registryId": self.app.config.account,
            "repositoryName": name,
            "imageTagMutability": kind,
            "imageTagMutabilityExclusionFilters": exclusions,
        })))
    }

    fn mutability(&self) -> Result<TagMutability, AwsError> {
        let kind = self.input["imageTagMutability"]
            .as_str()
            .unwrap_or("MUTABLE");
        let exclusions: Vec<String> = self
            .list("imageTagMutabilityExclusionFilters")
            .iter()
            .filter_map(|filter| filter["filter"].as_str())
            .map(str::to_owned)
            .collect();
        let mutability = TagMutability {
            immutable: kind.starts_with("IMMUTABLE"),
            exclusions,
        };
        if mutability.name() == kind {
            Ok(mutability)
        } else {
            Err(invalid_parameter(format!(
                "imageTagMutability '{kind}' does not go with {} exclusion filters",
                mutability.exclusions.len()
            )))
        }
    }

    fn repository_value(&self, name: &str, repository: &Repository) -> Value {
        without_nulls(json!({
            "repositoryArn": self.app.config.arn("ecr", &format!("repository/{name}")),
            "registryId": self.app.config.account,
            "repositoryName": name,
            "repositoryUri": format!("{}/{name}", self.registry.address()),
            "createdAt": repository.created_at.epoch_seconds(),
            "imageTagMutability": repository.mutability.name(),
            "imageTagMutabilityExclusionFilters": filters_value(&repository.mutability),
            "imageScanningConfiguration": { "scanOnPush": false },
            "encryptionConfiguration": { "encryptionType": "AES256" },
        }))
    }

    // Images

    async fn describe_images(&self) -> Result<Value, AwsError> {
        let name = self.repository_name()?;
        let repository = self.repository(name)?;
        let images = self.images(name, &repository).await?;
        let ids = self.image_ids()?;
        let mut wanted = Vec::new();
        for id in &ids {
            let found = self.resolve(name, id).await?;
            let found = found.filter(|digest| images.contains_key(digest));
            wanted.push(found.ok_or_else(|| self.no_image(name, id))?);
        }
        if ids.is_empty() {
            wanted.extend(images.keys().cloned());
        }
        let mut seen = Vec::new();
        let mut details = Vec::new();
        for digest in wanted {
            let Some(image) = images.get(&digest).filter(|_| !seen.contains(&digest)) else {
                continue;
            };
            if !self.passes_filter(&image.tags) {
                continue;
            }
            if let Some(manifest) = self.registry.manifest(name, &digest).await? {
                let scan = repository.scans.get(&digest);
                details.push(self.image_detail(name, image, &manifest, scan));
            }
            seen.push(digest);
        }
        self.page("imageDetails", details)
    }

    fn image_detail(
        &self,
        repository: &str,
        image: &Image,
        manifest: &Manifest,
        scan: Option<&Scan>,
    ) -> Value {
        let (status, findings) = scan.map(Scan::summary).unzip();
        without_nulls(json!({
            "registryId": self.app.config.account,
            "repositoryName": repository,
            "imageDigest": manifest.digest,
            "imageTags": (!image.tags.is_empty()).then_some(&image.tags),
            "imageSizeInBytes": manifest.size(),
            "imagePushedAt": image.pushed_at.epoch_seconds(),
            "imageManifestMediaType": manifest.media_type,
            "artifactMediaType": manifest.artifact_type(),
            "imageStatus": "ACTIVE",
            "imageScanStatus": status,
            "imageScanFindingsSummary": findings.flatten(),
        }))
    }

    async fn list_images(&self) -> Result<Value, AwsError> {
        let name = self.repository_name()?;
        let repository = self.repository(name)?;
        let images = self.images(name, &repository).await?;
        let mut ids = Vec::new();
        for (digest, image) in &images {
            if !self.passes_filter(&image.tags) {
                continue;
            }
            if image.tags.is_empty() {
                ids.push(json!({ "imageDigest": digest }));
            }
            for tag in &image.tags {
                ids.push(json!({ "imageDigest": digest, "imageTag": tag }));
            }
        }
        self.page("imageIds", ids)
    }

    async fn batch_get_image(&self) -> Result<Value, AwsError> {
        let name = self.repository_name()?;
        self.repository(name)?;
        let (mut images, mut failures) = (Vec::new(), Vec::new());
        for id in self.required_image_ids()? {
            let manifest = match self.resolve(name, &id).await? {
                Some(digest) => self.registry.manifest(name, &digest).await?,
                None => None,
            };
            match manifest {
                Some(manifest) => images.push(json!({
                    "registryId": self.app.config.account,
                    "repositoryName": name,
                    "imageId": without_nulls(json!({ "imageDigest": manifest.digest, "imageTag": id.tag })),
                    "imageManifest": String::from_utf8_lossy(&manifest.content),
                    "imageManifestMediaType": manifest.media_type,
                })),
                None => failures.push(image_failure(&id)),
            }
        }
        Ok(json!({ "images": images, "failures": failures }))
    }

    async fn batch_delete_image(&self) -> Result<Value, AwsError> {
        let name = self.repository_name()?;
        self.repository(name)?;
        let _turn = self.registry.lock_tags().await;
        let (mut deleted, mut failures) = (Vec::new(), Vec::new());
        for id in self.required_image_ids()? {
            let Some(digest) = self.resolve(name, &id).await? else {
                failures.push(image_failure(&id));
                continue;
            };
            let repository = self.repository(name)?;
            let images = self.images(name, &repository).await?;
            let tags = images.get(&digest).map_or(&[][..], |image| &image.tags);
            // By tag only that tag goes, and the image with its last tag.
            match id.tag.filter(|_| id.digest.is_none() && tags.len() > 1) {
                Some(tag) => self.registry.untag(name, tag).await?,
                None => self.registry.delete_image(name, &digest).await?,
            }
            deleted.push(without_nulls(
                json!({ "imageDigest": digest, "imageTag": id.tag }),
            ));
        }
        Ok(json!({ "imageIds": deleted, "failures": failures }))
    }

    /// Every image of a repository by digest: the recorded pushes, and what tags point to.
    async fn images(
        &self,
        name: &str,
        repository: &Repository,
    ) -> Result<BTreeMap<String, Image>, AwsError> {
        let mut images: BTreeMap<String, Image> = repository
            .images
            .iter()
            .map(|(digest, pushed)| {
                let image = Image {
                    tags: Vec::new(),
                    pushed_at: pushed.pushed_at,
                };
                (digest.clone(), image)
            })
            .collect();
        for tag in self.registry.tags(name).await? {
            // None when it was deleted in between.
            if let Some(digest) = self.registry.digest(name, &tag).await? {
                let image = images.entry(digest).or_insert_with(|| Image {
                    tags: Vec::new(),
                    pushed_at: repository.created_at,
                });
                image.tags.push(tag);
            }
        }
        Ok(images)
    }

    /// The digest of the image that an id names, when there is one and its parts agree.
    async fn resolve(&self, name: &str, id: &ImageId<'_>) -> Result<Option<String>, AwsError> {
        let mut found = None;
        for reference in [id.tag, id.digest].into_iter().flatten() {
            let digest = self.registry.digest(name, reference).await?;
            if digest.is_none() || found.is_some() && found != digest {
                return Ok(None);
            }
            found = digest;
        }
        Ok(found)
    }

    fn passes_filter(&self, tags: &[String]) -> bool {
        match self.input["filter"]["tagStatus"].as_str() {
            Some("TAGGED") => !tags.is_empty(),
            Some("UNTAGGED") => tags.is_empty(),
            _ => true,
        }
    }

    // Input

    fn repository_name(&self) -> Result<&str, AwsError> {
        self.input["repositoryName"].as_str().ok_or_else(|| {
            invalid_parameter("Invalid parameter at 'repositoryName': it must be given")
        })
    }

    fn repository(&self, name: &str) -> Result<Repository, AwsError> {
        let records = self.registry.records();
        let repository = records.repositories.get(name).cloned();
        repository.ok_or_else(|| self.no_repository(name))
    }

    fn image_ids(&self) -> Result<Vec<ImageId<'_>>, AwsError> {
        let ids = self.list("imageIds").iter().map(|id| {
            let id = ImageId {
                tag: id["imageTag"].as_str(),
                digest: id["imageDigest"].as_str(),
            };
            let valid = (id.tag.is_some() || id.digest.is_some())
                && id.tag.is_none_or(is_tag)
                && id.digest.is_none_or(is_digest);
            valid.then_some(id).ok_or_else(|| {
                invalid_parameter(
                    "Invalid parameter at 'imageIds': an id needs a valid imageTag or an imageDigest 'sha256:…'",
                )
            })
        });
        ids.collect()
    }

    fn required_image_ids(&self) -> Result<Vec<ImageId<'_>>, AwsError> {
        let ids = self.image_ids()?;
        if ids.is_empty() || ids.len() > 100 {
            return Err(invalid_parameter(
                "Invalid parameter at 'imageIds': 1 to 100 ids must be given",
            ));
        }
        Ok(ids)
    }

    fn list(&self, member: &str) -> &[Value] {
        self.input[member].as_array().map_or(&[], Vec::as_slice)
    }

    fn strings(&self, member: &str) -> Vec<&str> {
        self.list(member).iter().filter_map(Value::as_str).collect()
    }

    /// One page of a list: 100 items unless `maxResults` says, at most 1,000.
    fn page(&self, member: &str, items: Vec<Value>) -> Result<Value, AwsError> {
        let most = match &self.input["maxResults"] {
            Value::Null => 100,
            wanted => wanted
                .as_u64()
                .and_then(|wanted| usize::try_from(wanted).ok())
                .filter(|wanted| (1..=1000).contains(wanted))
                .ok_or_else(|| invalid_parameter("Invalid parameter at 'maxResults'"))?,
        };
        let (page, next) = paging::page(items, self.input["nextToken"].as_str(), most)
            .ok_or_else(|| invalid_parameter("Invalid parameter at 'nextToken'"))?;
        Ok(without_nulls(json!({ member: page, "nextToken": next })))
    }

    // Refusals

    fn no_repository(&self, name: &str) -> AwsError {
        unknown_repository(self.app, name)
    }

    fn no_image(&self, name: &str, id: &ImageId<'_>) -> AwsError {
        AwsError::client(
            "ImageNotFoundException",
            format!(
                "The image with imageId {{imageDigest:'{}', imageTag:'{}'}} does not exist within the repository \
                 with name '{name}' in the registry with id '{}'",
                id.digest.unwrap_or("null"),
                id.tag.unwrap_or("null"),
                self.app.config.account
            ),
        )
    }
}

fn invalid_parameter(message: impl Into<String>) -> AwsError {
    AwsError::client("InvalidParameterException", message)
}

fn image_failure(id: &ImageId<'_>) -> Value {
    json!({
        "imageId": id.value(),
        "failureCode": "ImageNotFound",
        "failureReason": "Requested image not found",
    })
}

fn filters_value(mutability: &TagMutability) -> Option<Vec<Value>> {
    let filters = mutability.exclusions.iter();
    let filters = filters.map(|filter| json!({ "filterType": "WILDCARD", "filter": filter }));
    (!mutability.exclusions.is_empty()).then(|| filters.collect())
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept: Map<String, Value> = members
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .collect();
            Value::Object(kept)
        }
        other => other,
    }
}

/// `[a-z0-9]+` parts, joined by `.`, `_`, `-` or `/`.
fn is_repository_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (2..=256).contains(&name.len())
        && name
            .split(['.', '_', '-', '/'])
            .all(|part| !part.is_empty() && part.chars().all(letter))
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=128).contains(&tag.len())
        && tag.starts_with(word)
        && tag.chars().all(|c| word(c) || c == '.' || c == '-')
}

fn is_digest(digest: &str) -> bool {
    digest
        .strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories_and_tags_are_checked() {
        for (name, valid) in [
            ("web", true),
            ("team/web-api.v2", true),
            ("w", false),
            ("Web", false),
            ("team//web", false),
            ("../web", false),
            ("web/_manifests", false),
        ] {
            assert_eq!(is_repository_name(name), valid, "{name}");
        }
        for (tag, valid) in [
            ("v1.0-rc_1", true),
            (".", false),
            ("a/b", false),
            ("", false),
        ] {
            assert_eq!(is_tag(tag), valid, "{tag}");
        }
    }
}
