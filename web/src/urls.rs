//! Every address of the dashboard, in one place: the server's routes are built from the
//! constants in [`route`], the templates from the functions, and a test holds the two together.
//!
//! Each function percent-encodes its arguments as single path segments, so a project called
//! `team/shop` or a service with a space in its name stays one segment. No address of the
//! API, the webhooks' receivers or the runner protocol is made here, apart from the two
//! webhook addresses that the set-up help shows.

use std::fmt::Write as _;

/// Route patterns in the router's `{name}` notation.
pub mod route {
    /// `GET`: the service × environment matrix of all projects.
    pub const HOME: &str = "/";
    /// `GET`: the form; `POST` ([`super::field::USER`], [`super::field::PASSWORD`],
    /// [`super::field::NEXT`]): signs in.
    pub const LOGIN: &str = "/login";
    /// `POST`: ends the session.
    pub const LOGOUT: &str = "/logout";
    /// `GET`, server-sent events: `event: change` whenever the topic named by `?topic=`
    /// changes. The data is not read; the page fetches itself again. See [`super::topic`].
    pub const EVENTS: &str = "/events";
    /// `GET`: an embedded file, see [`crate::assets::asset`]. The tail is
    /// `<fingerprint>/<file>` or `<file>`.
    pub const ASSET: &str = "/assets/{path:.*}";
    /// `GET`: one project: its matrix, runs (`?page=2`) and webhook set-up; `?ref=<branch>` opens the form that
    /// starts a run, with that branch's inputs.
    pub const PROJECT: &str = "/projects/{project}";
    /// `POST` ([`super::field::GIT_REF`], [`super::field::COMMIT`], [`super::field::KEY`],
    /// [`super::field::INPUT`]): starts a run.
    pub const RUN_START: &str = "/projects/{project}/runs";
    /// `GET`: a project's secrets, for admins; `POST` ([`super::field::NAME`],
    /// [`super::field::ENVIRONMENT`], [`super::field::BRANCHES`], [`super::field::ALL_BRANCHES`],
    /// [`super::field::VALUE`]): sets one.
    pub const SECRETS: &str = "/projects/{project}/secrets";
    /// `POST` ([`super::field::NAME`]): forgets a secret.
    pub const SECRET_REMOVE: &str = "/projects/{project}/secrets/remove";
    /// `GET`: one run; `?attempt=<n>` chooses the attempt that is shown of its job, `?step=<name>&attempt=<n>&from=<line>`
    /// the log as well.
    pub const RUN: &str = "/runs/{run}";
    /// `POST`: asks for cancellation.
    pub const RUN_CANCEL: &str = "/runs/{run}/cancel";
    /// `POST`, `COMMIT`: lets untrusted code run.
    pub const RUN_APPROVE: &str = "/runs/{run}/approve";
    /// `POST`: starts a new run of the same commit.
    pub const RUN_RETRY: &str = "/runs/{run}/retry";
    /// `POST` ([`super::field::JOB`], [`super::field::AFTER`]): sends one job that ended badly, or all of them,
    /// back to work in new attempts.
    pub const RUN_RERUN: &str = "/runs/{run}/rerun";
    /// `GET`: the raw log of a step as plain text; `?attempt=<n>`, the newest when absent.
    pub const STEP_LOG: &str = "/runs/{run}/steps/{step}/log";
    /// `GET`, server-sent events: `event: lines` with the HTML of
    /// [`crate::log_lines`] as data and the number of the next line as id,
    /// then `event: end`. `?attempt=<n>&from=<line>`; `Last-Event-ID` wins over `from`.
    pub const STEP_LOG_EVENTS: &str = "/runs/{run}/steps/{step}/log/events";
    /// `GET`: a file that a step left to be kept, to be saved; `?attempt=<n>`, the newest when absent. The tail is
    /// its path in the step's workspace.
    pub const ARTIFACT: &str = "/runs/{run}/steps/{step}/artifacts/{name:.+}";
    /// `GET`: one deployment.
    pub const DEPLOYMENT: &str = "/deployments/{deployment}";
    /// `POST`: stops a deployment that has not ended.
    pub const DEPLOYMENT_CANCEL: &str = "/deployments/{deployment}/cancel";
    /// `GET`: one service in one environment: history, promote, rollback, approve, hold.
    pub const SERVICE: &str = "/projects/{project}/environments/{environment}/services/{service}";
    /// `POST` ([`super::field::RELEASE`], [`super::field::REASON`], [`super::field::CONFIRM`]).
    pub const PROMOTE: &str =
        "/projects/{project}/environments/{environment}/services/{service}/promote";
    /// `POST` ([`super::field::RELEASE`], [`super::field::REASON`], [`super::field::CONFIRM`]).
    pub const ROLLBACK: &str =
        "/projects/{project}/environments/{environment}/services/{service}/rollback";
    /// `POST` ([`super::field::RELEASE`], [`super::field::REASON`]).
    pub const APPROVE: &str =
        "/projects/{project}/environments/{environment}/services/{service}/approve";
    /// `POST` ([`super::field::REASON`]).
    pub const HOLD: &str = "/projects/{project}/environments/{environment}/services/{service}/hold";
    /// `POST`: lifts the hold.
    pub const RESUME: &str =
        "/projects/{project}/environments/{environment}/services/{service}/resume";
    /// `GET`: every webhook delivery with its decision; `?page=2`.
    pub const DELIVERIES: &str = "/deliveries";
    /// `POST`: processes a stored delivery again.
    pub const REDELIVER: &str = "/deliveries/{delivery}/redeliver";
    /// `GET`: the runners.
    pub const RUNNERS: &str = "/runners";
    /// `POST`: the runner finishes what it has and takes no more work.
    pub const RUNNER_DRAIN: &str = "/runners/{runner}/drain";
    /// `POST`: it takes work again.
    pub const RUNNER_RESUME: &str = "/runners/{runner}/resume";
    /// `GET`: the viewer's own password, sessions and API tokens.
    pub const ACCOUNT: &str = "/settings/account";
    /// `POST` ([`super::field::PASSWORD`], [`super::field::NEW_PASSWORD`]): changes the viewer's
    /// password, ends their other sessions.
    pub const ACCOUNT_PASSWORD: &str = "/settings/account/password";
    /// `POST`: ends all of the viewer's sessions.
    pub const ACCOUNT_SIGN_OUT: &str = "/settings/account/sign-out";
    /// `POST` ([`super::field::NAME`], [`super::field::ROLE`], [`super::field::DAYS`]): creates
    /// an API token of the viewer's.
    pub const TOKENS: &str = "/settings/tokens";
    /// `POST`: revokes a token.
    pub const TOKEN_REVOKE: &str = "/settings/tokens/{token}/revoke";
    /// `GET`: the users and everybody's API tokens; `POST` ([`super::field::NAME`],
    /// [`super::field::ROLE`], [`super::field::PASSWORD`]): adds one.
    pub const USERS: &str = "/settings/users";
    /// `POST` ([`super::field::ROLE`]).
    pub const USER_ROLE: &str = "/settings/users/{user}/role";
    /// `POST` ([`super::field::EMAILS`]): sets the addresses that the user commits with.
    pub const USER_EMAILS: &str = "/settings/users/{user}/emails";
    /// `POST` ([`super::field::PASSWORD`]): sets the password, or makes one when none is given.
    pub const USER_PASSWORD: &str = "/settings/users/{user}/password";
    /// `POST`: ends the user's sessions, revokes their tokens, lets them in no more.
    pub const USER_DISABLE: &str = "/settings/users/{user}/disable";
    /// `POST`: lets the user in again.
    pub const USER_ENABLE: &str = "/settings/users/{user}/enable";
    /// `GET`: who did what; `?page=2`.
    pub const AUDIT: &str = "/audit";
    /// `GET`: the whole audit trail as JSON Lines, for admins.
    pub const AUDIT_EXPORT: &str = "/api/v1/audit/export";

    /// The patterns that take a `POST` from a form, for the test of the templates and for
    /// the server's test of route × role.
    pub const POSTS: [&str; 28] = [
        LOGIN,
        LOGOUT,
        RUN_START,
        SECRETS,
        SECRET_REMOVE,
        RUN_CANCEL,
        RUN_APPROVE,
        RUN_RETRY,
        RUN_RERUN,
        DEPLOYMENT_CANCEL,
        PROMOTE,
        ROLLBACK,
        APPROVE,
        HOLD,
        RESUME,
        REDELIVER,
        RUNNER_DRAIN,
        RUNNER_RESUME,
        ACCOUNT_PASSWORD,
        ACCOUNT_SIGN_OUT,
        TOKENS,
        TOKEN_REVOKE,
        USERS,
        USER_ROLE,
        USER_EMAILS,
        USER_PASSWORD,
        USER_DISABLE,
        USER_ENABLE,
    ];
}

/// Names of the form fields, as they arrive `application/x-www-form-urlencoded`.
pub mod field {
    /// Sign-in: the user's name.
    pub const USER: &str = "user";
    /// Sign-in, and one's own account: the password that holds now. Of another user: the one that
    /// is to hold; empty makes one.
    pub const PASSWORD: &str = "password";
    /// One's own account: the password that is to hold.
    pub const NEW_PASSWORD: &str = "new_password";
    /// Sign-in: where to go afterwards. A path of this site; the server must refuse anything
    /// that does not start with exactly one `/`.
    pub const NEXT: &str = "next";
    /// E-mail addresses with blanks or commas between: all that a user has.
    pub const EMAILS: &str = "emails";
    /// The id of a release.
    pub const RELEASE: &str = "release";
    /// Why, in the person's words. May be empty, except for a hold.
    pub const REASON: &str = "reason";
    /// The environment's name, typed to confirm. Only sent when the view asked for it.
    pub const CONFIRM: &str = "confirm";
    /// A branch or tag; empty: the repository's own branch.
    pub const GIT_REF: &str = "ref";
    /// A commit's full id; empty: where the branch or tag stands.
    pub const COMMIT: &str = "commit";
    /// A job of a run; empty: all that did not end well.
    pub const JOB: &str = "job";
    /// How many attempts a run had when the form was shown, so that sending it twice does no more than once.
    pub const AFTER: &str = "after";
    /// What a form is known by, so that sending it twice does no more than once.
    pub const KEY: &str = "key";
    /// How the names of fields begin that hold a run's inputs.
    pub const INPUT: &str = "input.";
    /// A secret's value.
    pub const VALUE: &str = "value";
    /// The environment that a secret belongs to; empty: none.
    pub const ENVIRONMENT: &str = "environment";
    /// Patterns of branches with blanks between; empty: the secret's stay, if [`ALL_BRANCHES`] is not sent.
    pub const BRANCHES: &str = "branches";
    /// Sent when a secret is for every branch.
    pub const ALL_BRANCHES: &str = "all_branches";
    /// A token's, user's or secret's name; of a secret that is there, with its environment before it.
    pub const NAME: &str = "name";
    /// A token's or user's role: `viewer`, `deployer` or `admin`.
    pub const ROLE: &str = "role";
    /// A token's life in days; `0` means that it does not expire.
    pub const DAYS: &str = "days";
}

/// Names of what a page watches on [`route::EVENTS`].
pub mod topic {
    /// Anything at all that the matrix, the lists or a project page shows.
    pub const ALL: &str = "all";

    /// One run.
    #[must_use]
    pub fn run(run: &str) -> String {
        format!("run/{run}")
    }

    /// One deployment.
    #[must_use]
    pub fn deployment(deployment: &str) -> String {
        format!("deployment/{deployment}")
    }

    /// One project, whatever changes in it.
    #[must_use]
    pub fn project(project: &str) -> String {
        format!("project/{project}")
    }
}

/// Percent-encodes `text` as one path segment or query value: unreserved characters stay.
#[must_use]
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => out.push(byte as char),
            // A dot is safe inside a segment, but a segment `.` or `..` is resolved by clients.
            b'.' if text != "." && text != ".." => out.push('.'),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// See [`route::PROJECT`].
#[must_use]
pub fn project(project: &str) -> String {
    format!("/projects/{}", encode(project))
}

/// See [`route::RUN_START`].
#[must_use]
pub fn run_start(name: &str) -> String {
    format!("{}/runs", project(name))
}

/// See [`route::SECRETS`].
#[must_use]
pub fn secrets(name: &str) -> String {
    format!("{}/secrets", project(name))
}

/// See [`route::SECRET_REMOVE`].
#[must_use]
pub fn secret_remove(project: &str) -> String {
    format!("{}/remove", secrets(project))
}

/// See [`route::PROJECT`]; `page` starts at 1.
#[must_use]
pub fn project_page(name: &str, page: u64) -> String {
    format!("{}?page={page}", project(name))
}

/// See [`route::RUN`].
#[must_use]
pub fn run(run: &str) -> String {
    format!("/runs/{}", encode(run))
}

/// See [`route::RUN`], with the log of one step's attempt; 0 means the newest.
#[must_use]
pub fn run_step(run_id: &str, step: &str, attempt: u32) -> String {
    let address = format!("{}?step={}", run(run_id), encode(step));
    if attempt == 0 {
        address
    } else {
        format!("{address}&attempt={attempt}")
    }
}

/// See [`route::RUN`], with the log of one step's attempt from a line on.
#[must_use]
pub fn run_step_from(run_id: &str, step: &str, attempt: u32, line: u64) -> String {
    format!("{}&from={line}", run_step(run_id, step, attempt))
}

/// See [`route::RUN_CANCEL`].
#[must_use]
pub fn run_cancel(run_id: &str) -> String {
    format!("{}/cancel", run(run_id))
}

/// See [`route::RUN_APPROVE`].
#[must_use]
pub fn run_approve(run_id: &str) -> String {
    format!("{}/approve", run(run_id))
}

/// See [`route::RUN_RETRY`].
#[must_use]
pub fn run_retry(run_id: &str) -> String {
    format!("{}/retry", run(run_id))
}

/// See [`route::RUN_RERUN`].
#[must_use]
pub fn run_rerun(run_id: &str) -> String {
    format!("{}/rerun", run(run_id))
}

/// See [`route::RUN`], with what one attempt at its job did.
#[must_use]
pub fn run_attempt(run_id: &str, attempt: u32) -> String {
    format!("{}?attempt={attempt}", run(run_id))
}

/// See [`route::STEP_LOG`].
#[must_use]
pub fn step_log(run_id: &str, step: &str, attempt: u32) -> String {
    format!(
        "{}/steps/{}/log?attempt={attempt}",
        run(run_id),
        encode(step)
    )
}

/// See [`route::STEP_LOG_EVENTS`].
#[must_use]
pub fn step_log_events(run_id: &str, step: &str, attempt: u32, from: u64) -> String {
    format!(
        "{}/steps/{}/log/events?attempt={attempt}&from={from}",
        run(run_id),
        encode(step)
    )
}

/// See [`route::ARTIFACT`].
#[must_use]
pub fn artifact(run_id: &str, step: &str, attempt: u32, name: &str) -> String {
    let parts: Vec<_> = name.split('/').map(encode).collect();
    format!(
        "{}/steps/{}/artifacts/{}?attempt={attempt}",
        run(run_id),
        encode(step),
        parts.join("/")
    )
}

/// See [`route::DEPLOYMENT`].
#[must_use]
pub fn deployment(deployment: &str) -> String {
    format!("/deployments/{}", encode(deployment))
}

/// See [`route::DEPLOYMENT_CANCEL`].
#[must_use]
pub fn deployment_cancel(id: &str) -> String {
    format!("{}/cancel", deployment(id))
}

/// See [`route::SERVICE`].
#[must_use]
pub fn service(project_name: &str, environment: &str, service: &str) -> String {
    format!(
        "{}/environments/{}/services/{}",
        project(project_name),
        encode(environment),
        encode(service)
    )
}

/// See [`route::PROMOTE`].
#[must_use]
pub fn promote(project: &str, environment: &str, name: &str) -> String {
    format!("{}/promote", service(project, environment, name))
}

/// See [`route::ROLLBACK`].
#[must_use]
pub fn rollback(project: &str, environment: &str, name: &str) -> String {
    format!("{}/rollback", service(project, environment, name))
}

/// See [`route::APPROVE`].
#[must_use]
pub fn approve(project: &str, environment: &str, name: &str) -> String {
    format!("{}/approve", service(project, environment, name))
}

/// See [`route::HOLD`].
#[must_use]
pub fn hold(project: &str, environment: &str, name: &str) -> String {
    format!("{}/hold", service(project, environment, name))
}

/// See [`route::RESUME`].
#[must_use]
pub fn resume(project: &str, environment: &str, name: &str) -> String {
    format!("{}/resume", service(project, environment, name))
}

/// See [`route::DELIVERIES`]; `page` starts at 1.
#[must_use]
pub fn deliveries_page(page: u64) -> String {
    format!("{}?page={page}", route::DELIVERIES)
}

/// See [`route::REDELIVER`].
#[must_use]
pub fn redeliver(delivery: &str) -> String {
    format!("{}/{}/redeliver", route::DELIVERIES, encode(delivery))
}

/// See [`route::RUNNER_DRAIN`].
#[must_use]
pub fn runner_drain(runner: &str) -> String {
    format!("{}/{}/drain", route::RUNNERS, encode(runner))
}

/// See [`route::RUNNER_RESUME`].
#[must_use]
pub fn runner_resume(runner: &str) -> String {
    format!("{}/{}/resume", route::RUNNERS, encode(runner))
}

/// See [`route::TOKEN_REVOKE`].
#[must_use]
pub fn token_revoke(token: &str) -> String {
    format!("{}/{}/revoke", route::TOKENS, encode(token))
}

fn user(user: &str, verb: &str) -> String {
    format!("{}/{}/{verb}", route::USERS, encode(user))
}

/// See [`route::USER_ROLE`].
#[must_use]
pub fn user_role(name: &str) -> String {
    user(name, "role")
}

/// See [`route::USER_EMAILS`].
#[must_use]
pub fn user_emails(name: &str) -> String {
    user(name, "emails")
}

/// See [`route::USER_PASSWORD`].
#[must_use]
pub fn user_password(name: &str) -> String {
    user(name, "password")
}

/// See [`route::USER_DISABLE`].
#[must_use]
pub fn user_disable(name: &str) -> String {
    user(name, "disable")
}

/// See [`route::USER_ENABLE`].
#[must_use]
pub fn user_enable(name: &str) -> String {
    user(name, "enable")
}

/// See [`route::AUDIT`]; `page` starts at 1.
#[must_use]
pub fn audit_page(page: u64) -> String {
    format!("{}?page={page}", route::AUDIT)
}

/// See [`route::EVENTS`].
#[must_use]
pub fn events(topic: &str) -> String {
    format!("{}?topic={}", route::EVENTS, encode(topic))
}

/// The sign-in page that leads back to `next`, a path of this site.
#[must_use]
pub fn login(next: &str) -> String {
    format!("{}?next={}", route::LOGIN, encode(next))
}

/// The receiver of a forge's webhooks, shown in the set-up help. `kind` is `github` or `git`.
#[must_use]
pub fn webhook(public_url: &str, kind: &str, project: &str) -> String {
    format!(
        "{}/webhooks/{kind}/{}",
        public_url.trim_end_matches('/'),
        encode(project)
    )
}
