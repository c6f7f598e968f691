//! What BuildKit may ask of us while it builds one image: files, the login of a registry, secrets.
//!
//! Owns the session that Docker Engine opens for it (`/session`): its names, and the gRPC services on our
//! side. Everything ends with the future that serves it.

use super::{
    context::BuildContext,
    files::{Moments, Packets, Wanted},
};
use crate::secret::Secret;
use anyhow::Context;
use bollard::grpc::build::{
    fsutil::types::Packet,
    health::{
        HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
        health_check_response::ServingStatus,
        health_server::{Health, HealthServer},
    },
    moby::{
        buildkit::secrets::v1::{
            GetSecretRequest, GetSecretResponse,
            secrets_server::{Secrets, SecretsServer},
        },
        filesync::v1::{
            CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse,
            GetTokenAuthorityRequest, GetTokenAuthorityResponse, VerifyTokenAuthorityRequest,
            VerifyTokenAuthorityResponse,
            auth_server::{Auth, AuthServer},
            file_sync_server::{FileSync, FileSyncServer},
        },
    },
};
use futures_util::stream::{Empty, Pending};
use hyper::{server::conn::http2, upgrade::Upgraded};
use hyper_util::{rt::TokioExecutor, service::TowerToHyperService};
use roadstead_protocol::RegistryCredentials;
use std::collections::BTreeMap;
use tonic::{Request, Response, Status, Streaming, async_trait, service::Routes};

/// The calls that we answer; BuildKit makes no other ones. Without `FetchToken` the engine fetches tokens
/// of registries itself.
const CALLS: [&str; 4] = [
    "/grpc.health.v1.Health/Check",
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
];

/// What one build may have.
pub(super) struct Offer {
    pub(super) context: BuildContext,
    pub(super) moments: Moments,
    pub(super) login: Option<RegistryCredentials>,
    /// By the id that a Dockerfile mounts them by.
    pub(super) secrets: BTreeMap<String, Secret>,
}

/// The headers of the call that opens a session. Builds with the same `shared_key` find the files of the one
/// before them, of which only what changed is asked for.
pub(super) fn headers(session: &str, shared_key: &str) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("X-Docker-Expose-Session-Uuid", session.to_owned()),
        ("X-Docker-Expose-Session-Name", "roadstead".to_owned()),
        ("X-Docker-Expose-Session-Sharedkey", shared_key.to_owned()),
    ];
    let calls = CALLS.map(|call| ("X-Docker-Expose-Session-Grpc-Method", call.to_owned()));
    headers.extend(calls);
    headers
}

/// Answers on `connection` until the engine closes it or this future is dropped.
pub(super) async fn serve(connection: Upgraded, offer: Offer) -> anyhow::Result<()> {
    let Offer {
        context,
        moments,
        login,
        secrets,
    } = offer;
    let routes = Routes::new(HealthServer::new(Alive))
        .add_service(FileSyncServer::new(Files { context, moments }))
        .add_service(AuthServer::new(Login(login)))
        .add_service(SecretsServer::new(SecretValues(secrets)));
    http2::Builder::new(TokioExecutor::new())
        .serve_connection(connection, TowerToHyperService::new(routes.prepare()))
        .await
        .context("the session with Docker Engine broke off")
}

/// The engine gives sessions up that do not answer.
struct Alive;

#[async_trait]
impl Health for Alive {
    type WatchStream = Pending<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse {
            status: ServingStatus::Serving.into(),
        }))
    }

    async fn list(
        &self,
        _: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        Err(unknown_call())
    }

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(unknown_call())
    }
}

struct Files {
    context: BuildContext,
    moments: Moments,
}

#[async_trait]
impl FileSync for Files {
    type DiffCopyStream = Packets;
    type TarStreamStream = Empty<Result<Packet, Status>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Packets>, Status> {
        let wanted = Wanted::read(request.metadata())?;
        let packets = self
            .context
            .send(wanted, &self.moments, request.into_inner())?;
        Ok(Response::new(packets))
    }

    async fn tar_stream(
        &self,
        _: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(unknown_call())
    }
}

struct Login(Option<RegistryCredentials>);

#[async_trait]
impl Auth for Login {
    /// An empty answer means that there is no login.
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        let login = self.0.iter().find(|login| login.registry == host);
        Ok(Response::new(login.map_or_else(
            CredentialsResponse::default,
            |login| CredentialsResponse {
                username: login.username.clone(),
                secret: login.password.clone(),
            },
        )))
    }

    async fn fetch_token(
        &self,
        _: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        Err(unknown_call())
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(unknown_call())
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(unknown_call())
    }
}

struct SecretValues(BTreeMap<String, Secret>);

#[async_trait]
impl Secrets for SecretValues {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        let secret = self.0.get(&id).ok_or_else(|| {
            Status::not_found(format!(
                "secret `{id}` is not among the `secrets` of this image in the pipeline file"
            ))
        })?;
        Ok(Response::new(GetSecretResponse {
            data: secret.expose().as_bytes().to_vec(),
        }))
    }
}

fn unknown_call() -> Status {
    Status::unimplemented("this session does not answer that call")
}
