//! Clients for AWS, one set per Region, and what their errors mean to us.

use crate::config;
use async_trait::async_trait;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_ecs::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_ecs::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use jiff::Timestamp;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What a failed call to AWS means.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AwsError {
    /// There is no such cluster.
    #[error("ECS has no cluster `{cluster}` in {region}; create it or correct `ecs.cluster`")]
    UnknownCluster {
        /// Its name.
        cluster: String,
        /// Where it was looked for.
        region: String,
    },
    /// There is no such service, or it is being deleted.
    #[error(
        "cluster `{cluster}` in {region} has no active service `{service}`; create it or correct `ecs.service`"
    )]
    UnknownService {
        /// Its cluster.
        cluster: String,
        /// Its name.
        service: String,
        /// Where it was looked for.
        region: String,
    },
    /// AWS does not let us.
    #[error("AWS denies {action}: {message}; allow it in the policy of Roadstead's role")]
    Denied {
        /// The API call.
        action: &'static str,
        /// AWS's words.
        message: String,
    },
    /// AWS wants fewer calls.
    #[error("AWS throttles {action}: {message}")]
    Throttled {
        /// The API call.
        action: &'static str,
        /// AWS's words.
        message: String,
    },
    /// AWS cannot be reached, or is not well, or there are no credentials.
    #[error("AWS does not answer {action}: {message}")]
    Unavailable {
        /// The API call.
        action: &'static str,
        /// What happened.
        message: String,
    },
    /// AWS refuses the call.
    #[error("AWS refuses {action}: {message} ({code})")]
    Other {
        /// The API call.
        action: &'static str,
        /// AWS's name of the error.
        code: String,
        /// AWS's words.
        message: String,
    },
}

impl AwsError {
    /// Whether the same call can succeed later without anybody's doing.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Throttled { .. } | Self::Unavailable { .. } => true,
            Self::UnknownCluster { .. }
            | Self::UnknownService { .. }
            | Self::Denied { .. }
            | Self::Other { .. } => false,
        }
    }

    /// Whether AWS says that something is not there, which it may say of what it does not show yet.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::UnknownService { .. })
    }

    /// What the error of `action` means.
    pub(super) fn of<E>(action: &'static str, error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let SdkError::ServiceError(service) = error else {
            tracing::debug!(action, "{}", DisplayErrorContext(error));
            return Self::Unavailable {
                action,
                message: unanswered(error),
            };
        };
        let unwell = service.raw().status().is_server_error();
        let code = service.err().code().unwrap_or("no error code").to_owned();
        let message = service.err().message().unwrap_or("no message").to_owned();
        if code.contains("Throttl")
            || code == "RequestLimitExceeded"
            || code == "TooManyRequestsException"
        {
            Self::Throttled { action, message }
        } else if code.contains("AccessDenied") || code == "UnauthorizedOperation" {
            Self::Denied { action, message }
        } else if unwell
            || matches!(
                code.as_str(),
                "ServerException" | "InternalFailure" | "ExpiredTokenException" | "RequestTimeout"
            )
        {
            Self::Unavailable { action, message }
        } else {
            Self::Other {
                action,
                code,
                message,
            }
        }
    }

    /// Whether AWS gave this error code.
    pub(super) fn has_code(&self, wanted: &str) -> bool {
        matches!(self, Self::Other { code, .. } if code == wanted)
    }

    /// Whether the call will never be answered here: not allowed, or unknown to this AWS.
    pub(super) fn is_out_of_reach(&self) -> bool {
        matches!(self, Self::Denied { .. })
            || [
                "UnsupportedFeatureException",
                "UnknownOperationException",
                "InvalidAction",
            ]
            .iter()
            .any(|code| self.has_code(code))
    }
}

/// Why a call brought no answer: what happened, and behind it what the system said. The SDK's own words
/// for it go on for lines; they are in the log at `debug`.
fn unanswered<E: std::error::Error + 'static>(error: &SdkError<E>) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let cause = cause.to_string();
    let what = match error {
        SdkError::TimeoutError(_) => "no answer in time",
        SdkError::DispatchFailure(failure) if failure.is_timeout() => "no answer in time",
        SdkError::DispatchFailure(failure) if failure.is_io() => "no connection",
        SdkError::DispatchFailure(_) if cause.contains("redential") => {
            "no credentials to call with"
        }
        SdkError::ResponseError(_) => "an answer that cannot be read",
        _ => "the call could not be made",
    };
    format!("{what} ({cause})")
}

/// The clients of one Region.
pub(super) struct Clients {
    pub(super) region: String,
    pub(super) ecs: aws_sdk_ecs::Client,
    pub(super) ecr: aws_sdk_ecr::Client,
    pub(super) load_balancers: aws_sdk_elasticloadbalancingv2::Client,
    pub(super) logs: aws_sdk_cloudwatchlogs::Client,
}

/// AWS as the server is configured to reach it.
#[derive(Clone)]
pub struct Aws {
    settings: config::Aws,
    /// One for all: by itself each client has its own, with its own copy of the trusted certificates.
    http: SharedHttpClient,
    by_region: Arc<tokio::sync::Mutex<BTreeMap<String, Arc<Clients>>>>,
}

impl Aws {
    /// Nothing is called yet.
    #[must_use]
    pub fn new(settings: &config::Aws) -> Self {
        Self {
            settings: settings.clone(),
            http: aws_smithy_http_client::Builder::new()
                .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
                .build_https(),
            by_region: Arc::default(),
        }
    }

    /// The Region of environments that name none.
    #[must_use]
    pub fn default_region(&self) -> &str {
        &self.settings.region
    }

    /// The clients of a Region; `None` is the default Region.
    pub(super) async fn clients(&self, region: Option<&str>) -> Arc<Clients> {
        let region = region.unwrap_or(&self.settings.region).to_owned();
        let mut by_region = self.by_region.lock().await;
        if let Some(known) = by_region.get(&region) {
            return known.clone();
        }
        let clients = Arc::new(self.connect(&region).await);
        by_region.insert(region, clients.clone());
        clients
    }

    async fn connect(&self, region: &str) -> Clients {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(5))
            .operation_attempt_timeout(Duration::from_secs(20))
            .operation_timeout(Duration::from_secs(45))
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .http_client(self.http.clone())
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .timeout_config(timeouts);
        if let Some(endpoint) = &self.settings.endpoint_url {
            // An address of one's own is a stand-in for AWS that takes any signature: with no
            // credentials in the environment, any will do, and nobody asks the instance for some.
            let any = Credentials::new("roadstead", "roadstead", None, None, "endpoint_url");
            let chain = CredentialsProviderChain::first_try(
                "environment",
                EnvironmentVariableCredentialsProvider::new(),
            )
            .or_else("endpoint_url", any);
            loader = loader.endpoint_url(endpoint).credentials_provider(chain);
        }
        let config = loader.load().await;
        Clients {
            region: region.to_owned(),
            ecs: aws_sdk_ecs::Client::new(&config),
            ecr: aws_sdk_ecr::Client::new(&config),
            load_balancers: aws_sdk_elasticloadbalancingv2::Client::new(&config),
            logs: aws_sdk_cloudwatchlogs::Client::new(&config),
        }
    }
}

/// Renewed so long before they end.
const BEFORE_THEY_END: Duration = Duration::from_secs(300);

/// Credentials as the AWS SDK finds them, for the one client of AWS's that is not the SDK's.
#[derive(Debug)]
pub(super) struct SdkCredentials {
    region: String,
    chain: tokio::sync::OnceCell<Option<SharedCredentialsProvider>>,
    known: tokio::sync::Mutex<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    credential: Arc<AwsCredential>,
    /// None that never end.
    until: Option<SystemTime>,
}

impl SdkCredentials {
    /// Nothing is looked for yet.
    pub(super) fn new(region: &str) -> Self {
        Self {
            region: region.to_owned(),
            chain: tokio::sync::OnceCell::new(),
            known: tokio::sync::Mutex::default(),
        }
    }

    async fn find(&self) -> Result<Known, String> {
        let chain = self.chain.get_or_init(async || {
            let loader = aws_config::defaults(BehaviorVersion::latest());
            let region = Region::new(self.region.clone());
            loader.region(region).load().await.credentials_provider()
        });
        let chain = chain.await.as_ref().ok_or("no credentials to call with")?;
        let found = chain.provide_credentials().await;
        let found = found.map_err(|error| {
            let error = DisplayErrorContext(error).to_string();
            format!("no credentials to call with ({error})")
        })?;
        Ok(Known {
            until: found.expiry(),
            credential: Arc::new(AwsCredential {
                key_id: found.access_key_id().to_owned(),
                secret_key: found.secret_access_key().to_owned(),
                token: found.session_token().map(str::to_owned),
            }),
        })
    }
}

#[async_trait]
impl CredentialProvider for SdkCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut known = self.known.lock().await;
        let soon = crate::clock::now() + BEFORE_THEY_END;
        let ends = |until: SystemTime| Timestamp::try_from(until).is_ok_and(|until| until < soon);
        if known
            .as_ref()
            .is_none_or(|known| known.until.is_some_and(ends))
        {
            let found = self.find().await;
            let found = found.map_err(|error| object_store::Error::Generic {
                store: "S3",
                source: error.into(),
            })?;
            *known = Some(found);
        }
        known
            .as_ref()
            .map(|known| Arc::clone(&known.credential))
            .ok_or_else(|| object_store::Error::Generic {
                store: "S3",
                source: "no credentials to call with".into(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::registry::Registry;

    #[tokio::test]
    async fn what_does_not_answer_is_told_in_a_sentence() {
        // A port that was free a moment ago, and that nobody listens on now.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let settings = config::Aws {
            endpoint_url: Some(format!("http://{address}")),
            ..config::Aws::default()
        };
        let error = Registry::new(Aws::new(&settings))
            .push_credentials()
            .await
            .unwrap_err();
        assert!(error.is_transient());
        assert_eq!(
            error.to_string(),
            "AWS does not answer ecr:GetAuthorizationToken: no connection (Connection refused (os \
             error 111))"
        );
    }
}
