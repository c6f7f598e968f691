//! The JSON protocol: the operation in `X-Amz-Target`, JSON in and out.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::{Value, json};

use super::{Answer, Asked, Encoding, with_type};
use crate::services::AwsError;

const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// The service of a target prefix.
pub(super) fn service(prefix: &str) -> Option<&'static str> {
    match prefix {
        "AmazonEC2ContainerServiceV20141113" => Some("ecs"),
        "AmazonEC2ContainerRegistry_V20150921" => Some("ecr"),
        "Logs_20140328" => Some("logs"),
        "GraniteServiceVersion20100801" => Some("cloudwatch"),
        "Route53AutoNaming_v20170314" => Some("servicediscovery"),
        _ => None,
    }
}

/// Reads a call from its `X-Amz-Target` and body.
pub(super) fn understand(target: &str, body: &[u8]) -> Result<Asked, AwsError> {
    let unknown = || {
        AwsError::client(
            "UnknownOperationException",
            format!(
                "The sandbox has no service for the target {target}: it knows ECS, ECR, \
                 CloudWatch, CloudWatch Logs and Cloud Map in this protocol."
            ),
        )
    };
    let (prefix, operation) = target.split_once('.').ok_or_else(unknown)?;
    let service = service(prefix).ok_or_else(unknown)?;
    let input = if body.is_empty() {
        json!({})
    } else {
        serde_json::from_slice::<Value>(body).map_err(|error| {
            AwsError::client(
                "SerializationException",
                format!("The request body is not JSON: {error}"),
            )
        })?
    };
    Ok(Asked::Json {
        encoding: Encoding::Json,
        service,
        operation: operation.to_owned(),
        input,
    })
}

/// A successful answer.
pub(super) fn answer(body: Bytes, request_id: &str) -> Answer {
    with_request_id(with_type(StatusCode::OK, CONTENT_TYPE, body), request_id)
}

/// A refusal.
pub(super) fn refusal(error: &AwsError, request_id: &str) -> Answer {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut body = json!({"__type": error.code, "message": error.message});
    if !error.resource_ids.is_empty() {
        body["resourceIds"] = json!(error.resource_ids);
    }
    let mut response = with_type(status, CONTENT_TYPE, body.to_string());
    if let Ok(code) = HeaderValue::from_str(&error.code) {
        response.headers_mut().insert("x-amzn-errortype", code);
    }
    with_request_id(response, request_id)
}

fn with_request_id(mut response: Answer, request_id: &str) -> Answer {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert("x-amzn-requestid", id);
    }
    response
}
