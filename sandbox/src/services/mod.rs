//! The AWS services, one file or folder each: a call comes in as values, a reply leaves as values.
//!
//! A handler changes state and answers; HTTP, protocols, faults and the call log are the business
//! of `wire`. Must not know: hyper.

pub(crate) mod access;
pub(crate) mod catalog;
pub(crate) mod cloudwatch;
pub(crate) mod discovery;
pub(crate) mod ecr;
pub(crate) mod ecs;
pub(crate) mod elbv2;
pub(crate) mod logs;
mod paging;
pub(crate) mod sts;

use serde_json::Value;

/// A successful answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply<Body = Value> {
    pub body: Body,
    /// Whether the call changed anything; the call log says so.
    pub changed: bool,
}

impl<Body> Reply<Body> {
    /// An answer to a call that changed nothing.
    pub(crate) fn read(body: Body) -> Self {
        Self {
            body,
            changed: false,
        }
    }

    /// An answer to a call that changed something.
    pub(crate) fn changed(body: Body) -> Self {
        Self {
            body,
            changed: true,
        }
    }
}

/// A refusal in AWS's terms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub(crate) struct AwsError {
    /// The HTTP status; 400 unless it is the server's fault.
    pub status: u16,
    /// AWS's name for it, such as `ServiceNotFoundException`.
    pub code: String,
    pub message: String,
    /// What a ConflictException names as `resourceIds`; empty in all others.
    pub resource_ids: Vec<String>,
}

impl AwsError {
    /// A refusal of the caller's request.
    pub(crate) fn client(code: &str, message: impl Into<String>) -> Self {
        Self {
            status: 400,
            code: code.to_owned(),
            message: message.into(),
            resource_ids: Vec::new(),
        }
    }

    /// A failure of the sandbox itself; clients retry it.
    pub(crate) fn server(message: impl Into<String>) -> Self {
        Self {
            status: 500,
            code: "ServerException".to_owned(),
            message: message.into(),
            resource_ids: Vec::new(),
        }
    }

    /// An operation that AWS has and the sandbox does not.
    pub(crate) fn unsupported_operation(operation: &str) -> Self {
        Self::client(
            "UnsupportedFeatureException",
            format!("The sandbox does not support the operation {operation}."),
        )
    }

    /// A member whose effect the sandbox cannot reproduce; ignoring it would be a lie.
    pub(crate) fn unsupported_member(member: &str) -> Self {
        Self::client(
            "UnsupportedFeatureException",
            format!("The sandbox does not support `{member}`; remove it from the request."),
        )
    }
}

/// What a handler of a JSON protocol returns.
pub(crate) type JsonResult = Result<Reply<Value>, AwsError>;

/// What a handler of the Query protocol returns: the whole XML document.
pub(crate) type QueryResult = Result<Reply<String>, AwsError>;
