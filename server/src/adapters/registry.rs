//! The registry that images are pushed to: Amazon ECR, in the server's default Region.
//!
//! Host names are never put together here: the registry says what its repositories and its login are
//! called.

use super::aws::{Aws, AwsError};
use aws_sdk_ecr::types::{ImageFailureCode, ImageIdentifier};
use base64::Engine as _;
use roadstead_pipelines::id::ImageDigest;
use roadstead_protocol::RegistryCredentials;

/// Whether the registry holds an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// It does.
    Found,
    /// It does not.
    Missing,
}

/// Amazon ECR.
#[derive(Clone)]
pub struct Registry {
    aws: Aws,
}

impl Registry {
    /// The registry of this AWS.
    #[must_use]
    pub fn new(aws: Aws) -> Self {
        Self { aws }
    }

    /// Makes sure that a repository exists, and says its `registry/repository`.
    ///
    /// # Errors
    /// [`AwsError`], among others when the repository's name is not allowed.
    pub async fn ensure_repository(&self, name: &str) -> Result<String, AwsError> {
        match self.describe(name).await? {
            Some(uri) => Ok(uri),
            None => self.create(name).await,
        }
    }

    async fn describe(&self, name: &str) -> Result<Option<String>, AwsError> {
        let clients = self.aws.clients(None).await;
        let answer = clients
            .ecr
            .describe_repositories()
            .repository_names(name)
            .send()
            .await;
        match answer.map_err(|error| AwsError::of("ecr:DescribeRepositories", &error)) {
            Ok(answer) => {
                let first = answer.repositories().first();
                Ok(first
                    .and_then(|found| found.repository_uri())
                    .map(str::to_owned))
            }
            Err(error) if error.has_code("RepositoryNotFoundException") => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn create(&self, name: &str) -> Result<String, AwsError> {
        const ACTION: &str = "ecr:CreateRepository";
        let clients = self.aws.clients(None).await;
        let answer = clients
            .ecr
            .create_repository()
            .repository_name(name)
            .send()
            .await;
        let uri = match answer.map_err(|error| AwsError::of(ACTION, &error)) {
            Ok(answer) => answer
                .repository()
                .and_then(|made| made.repository_uri())
                .map(str::to_owned),
            // Somebody made it in between, which is as good.
            Err(error) if error.has_code("RepositoryAlreadyExistsException") => {
                self.describe(name).await?
            }
            Err(error) => return Err(error),
        };
        uri.ok_or_else(|| AwsError::Unavailable {
            action: ACTION,
            message: format!("the answer does not say where repository `{name}` is"),
        })
    }

    /// A login for pushing. It lives as long as the registry says, twelve hours on AWS, so it is asked
    /// for anew for every attempt.
    ///
    /// # Errors
    /// [`AwsError`].
    pub async fn push_credentials(&self) -> Result<RegistryCredentials, AwsError> {
        const ACTION: &str = "ecr:GetAuthorizationToken";
        let clients = self.aws.clients(None).await;
        let answer = clients.ecr.get_authorization_token().send().await;
        let answer = answer.map_err(|error| AwsError::of(ACTION, &error))?;
        let data = answer.authorization_data().first();
        let login = data.and_then(|data| {
            let token = data.authorization_token()?;
            let token = base64::engine::general_purpose::STANDARD
                .decode(token)
                .ok()?;
            let token = String::from_utf8(token).ok()?;
            let (username, password) = token.split_once(':')?;
            let endpoint = data.proxy_endpoint()?;
            let registry = endpoint
                .split_once("://")
                .map_or(endpoint, |(_, registry)| registry);
            Some(RegistryCredentials {
                registry: registry.trim_end_matches('/').to_owned(),
                username: username.to_owned(),
                password: password.to_owned(),
            })
        });
        login.ok_or_else(|| AwsError::Unavailable {
            action: ACTION,
            message: "the answer holds no login that can be read".into(),
        })
    }

    /// Looks an image up by its digest. `repository_uri` is as [`Self::ensure_repository`] said it.
    ///
    /// # Errors
    /// [`AwsError`].
    pub async fn confirm(
        &self,
        repository_uri: &str,
        digest: &ImageDigest,
    ) -> Result<Confirmed, AwsError> {
        const ACTION: &str = "ecr:BatchGetImage";
        let name = repository_uri
            .split_once('/')
            .map_or(repository_uri, |(_, name)| name);
        let clients = self.aws.clients(None).await;
        let id = ImageIdentifier::builder()
            .image_digest(digest.as_str())
            .build();
        let answer = clients
            .ecr
            .batch_get_image()
            .repository_name(name)
            .image_ids(id)
            .send()
            .await;
        let answer = match answer.map_err(|error| AwsError::of(ACTION, &error)) {
            Ok(answer) => answer,
            Err(error) if error.has_code("RepositoryNotFoundException") => {
                return Ok(Confirmed::Missing);
            }
            Err(error) => return Err(error),
        };
        let is_it = |image: &aws_sdk_ecr::types::Image| {
            image.image_id().and_then(|id| id.image_digest()) == Some(digest.as_str())
        };
        if answer.images().iter().any(is_it) {
            return Ok(Confirmed::Found);
        }
        match answer.failures().first() {
            Some(failure) if failure.failure_code() != Some(&ImageFailureCode::ImageNotFound) => {
                Err(AwsError::Other {
                    action: ACTION,
                    code: failure
                        .failure_code()
                        .map_or("no code", |code| code.as_str())
                        .to_owned(),
                    message: failure.failure_reason().unwrap_or("no reason").to_owned(),
                })
            }
            _ => Ok(Confirmed::Missing),
        }
    }
}
