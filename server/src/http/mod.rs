//! Everything that is answered over HTTP. Handlers record facts and ring the bell; none decides
//! anything about runs or deployments, and none calls git, a registry or ECS for a plan's sake.

pub mod actions;
pub mod api;
mod artifacts;
pub mod auth;
pub mod error;
pub mod health;
mod jobs;
pub mod pages;
pub mod people;
mod reruns;
pub mod runner_api;
mod runners;
pub mod secrets;
mod sign_in_limit;
mod starts;
pub mod webhooks;

pub use sign_in_limit::{SignInLimit, Wait};

use crate::adapters::registry::Registry;
use crate::adapters::sources::{Remote, Sources};
use crate::config::Config;
use crate::dispatcher::Waiters;
use crate::logs::LogStore;
use crate::secrets::Keys;
use crate::store::Store;
use crate::wake::Bell;
use actix_web::dev::Service as _;
use actix_web::middleware::DefaultHeaders;
use actix_web::{HttpServer, web};
use roadstead_pipelines::id::ProjectName;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// What handlers share.
pub struct App {
    /// Rows.
    pub store: Store,
    /// Step logs.
    pub logs: LogStore,
    /// Mirrors, for runners' sources.
    pub sources: Sources,
    /// Where projects are fetched from, when another server read a commit.
    pub remotes: BTreeMap<ProjectName, Remote>,
    /// Credentials for runners' pushes.
    pub registry: Registry,
    /// Wakes the reconciler, and the pages that watch.
    pub bell: Bell,
    /// Runners' polls that wait.
    pub waiters: Waiters,
    /// Settings.
    pub config: Config,
    /// Webhook secrets by project.
    pub webhook_secrets: BTreeMap<ProjectName, String>,
    /// The installation's keys for the projects' secrets.
    pub keys: Keys,
    /// What attempts must not show.
    pub masks: secrets::Masks,
    /// What the pages remember.
    pub pages: pages::Shared,
    /// Failed sign-ins.
    pub sign_ins: SignInLimit,
}

impl App {
    /// The key of a project's webhooks.
    #[must_use]
    pub fn webhook_secret(&self, project: &ProjectName) -> Option<String> {
        self.webhook_secrets.get(project).cloned()
    }

    /// How people reach the server.
    #[must_use]
    pub fn public_url(&self) -> String {
        self.config.http.public_url()
    }
}

/// What a page may load: nothing from elsewhere, nothing inline.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Every route.
pub fn configure(config: &mut web::ServiceConfig) {
    webhooks::configure(config);
    runner_api::configure(config);
    health::configure(config);
    api::configure(config);
    pages::configure(config);
}

/// How long a connection may be idle. Whoever uses it again must not find it being closed that moment: runners come every 5 s
/// (`roadstead_protocol::HEARTBEAT_SECONDS`, and actix's own 5 s cost them heartbeats), proxies keep connections for 60 s (nginx,
/// and load balancers of AWS, which answer 502 then).
const IDLE: Duration = Duration::from_secs(75);

/// Binds `listen`; port 0 takes a free one.
///
/// # Errors
/// When the address is taken.
pub fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(listen).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {listen}: {error}"))
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The server, to be awaited; its handle stops it.
///
/// # Errors
/// When the listener cannot be used.
pub fn server(app: web::Data<App>, listener: TcpListener) -> io::Result<actix_web::dev::Server> {
    let server = HttpServer::new(move || {
        let headers = DefaultHeaders::new()
            .add(("content-security-policy", CONTENT_SECURITY_POLICY))
            .add(("x-content-type-options", "nosniff"))
            .add(("referrer-policy", "same-origin"))
            .add(("cross-origin-opener-policy", "same-origin"));
        actix_web::App::new()
            .app_data(app.clone())
            .app_data(
                web::JsonConfig::default()
                    .limit(256 * 1024)
                    .error_handler(|error, _| bad_json(&error)),
            )
            .app_data(web::FormConfig::default().limit(64 * 1024))
            .wrap_fn(|request, service| {
                // As an answer, not as an error: errors would pass the headers below by.
                let answer = match auth::refuse_cross_site(&request) {
                    Ok(()) => Ok(service.call(request)),
                    Err(error) => Err(request.error_response(error)),
                };
                async move {
                    match answer {
                        Ok(answer) => answer.await,
                        Err(refused) => Ok(refused),
                    }
                }
            })
            .wrap(headers)
            .configure(configure)
    })
    .workers(2)
    .keep_alive(IDLE)
    // Each worker has a pool of its own, and actix's size depends on the machine. Packs under way may
    // take eight of these threads (see `adapters::sources`); the store has to find some free.
    .worker_max_blocking_threads(64)
    // Whoever is gone is not served on: the long poll of a runner that was killed would take a job that
    // nobody then accepts, and cost its run one of its attempts.
    .h1_allow_half_closed(false)
    .shutdown_timeout(5)
    .disable_signals()
    .listen(listener)?
    .run();
    Ok(server)
}

fn bad_json(error: &actix_web::error::JsonPayloadError) -> actix_web::Error {
    error::HttpError::bad_request(format!(
        "the body is not the JSON that is expected: {error}"
    ))
    .into()
}
