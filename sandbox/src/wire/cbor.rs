//! Smithy's RPC v2 protocol: the service and operation in the path, CBOR in and out.
//!
//! Handlers see JSON values, as in the other protocols. Members whose names end in `Timestamp` or
//! `Date` are times: numbers within, tagged on the wire. Must not know: any operation.

use bytes::Bytes;
use ciborium::Value as Cbor;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::{Map, Number, Value};

use super::{Answer, Asked, Encoding, with_type};
use crate::services::AwsError;

const CONTENT_TYPE: &str = "application/cbor";

/// The tag of seconds since the epoch.
const EPOCH: u64 = 1;

/// The service's target prefix and the operation that a path names.
pub(super) fn path_parts(path: &str) -> Option<(&str, &str)> {
    let (service, rest) = path.strip_prefix("/service/")?.split_once('/')?;
    Some((service, rest.strip_prefix("operation/")?))
}

/// Reads a call from its path and body.
pub(super) fn understand(path: &str, body: &[u8]) -> Result<Asked, AwsError> {
    let unknown = || {
        AwsError::client(
            "UnknownOperationException",
            format!("The sandbox has no service for the path {path} in this protocol."),
        )
    };
    let (target, operation) = path_parts(path).ok_or_else(unknown)?;
    let service = super::json::service(target).ok_or_else(unknown)?;
    let input = if body.is_empty() {
        Value::Object(Map::new())
    } else {
        ciborium::from_reader::<Cbor, _>(body)
            .map_err(|error| error.to_string())
            .and_then(from_cbor)
            .map_err(|error| {
                AwsError::client(
                    "SerializationException",
                    format!("The request body is not CBOR: {error}"),
                )
            })?
    };
    Ok(Asked::Json {
        encoding: Encoding::Cbor,
        service,
        operation: operation.to_owned(),
        input,
    })
}

/// A successful body.
pub(super) fn encode(body: &Value) -> Bytes {
    let mut bytes = Vec::new();
    // Writing to memory fails only for values that cannot be encoded, which JSON has none of.
    if let Err(error) = ciborium::into_writer(&to_cbor(body, false), &mut bytes) {
        tracing::error!(%error, "an answer cannot be encoded");
    }
    Bytes::from(bytes)
}

/// A successful answer.
pub(super) fn answer(body: Bytes, request_id: &str) -> Answer {
    dressed(with_type(StatusCode::OK, CONTENT_TYPE, body), request_id)
}

/// A refusal. Clients of services that once spoke Query look for the code in a header.
pub(super) fn refusal(error: &AwsError, request_id: &str) -> Answer {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
    let body = encode(&serde_json::json!({"__type": error.code, "message": error.message}));
    let mut response = dressed(with_type(status, CONTENT_TYPE, body), request_id);
    let blame = if error.status < 500 {
        "Sender"
    } else {
        "Receiver"
    };
    if let Ok(value) = HeaderValue::from_str(&format!("{};{blame}", error.code)) {
        response.headers_mut().insert("x-amzn-query-error", value);
    }
    response
}

fn dressed(mut response: Answer, request_id: &str) -> Answer {
    let headers = response.headers_mut();
    headers.insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

fn to_cbor(value: &Value, time: bool) -> Cbor {
    match value {
        Value::Null => Cbor::Null,
        Value::Bool(flag) => Cbor::Bool(*flag),
        Value::Number(number) if time => {
            let seconds = number.as_f64().unwrap_or_default();
            Cbor::Tag(EPOCH, Box::new(Cbor::Float(seconds)))
        }
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Cbor::Integer(whole.into()),
            (None, Some(whole)) => Cbor::Integer(whole.into()),
            (None, None) => Cbor::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => Cbor::Text(text.clone()),
        Value::Array(items) => Cbor::Array(items.iter().map(|one| to_cbor(one, false)).collect()),
        Value::Object(members) => Cbor::Map(
            members
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| {
                    let value = to_cbor(value, super::is_time(name));
                    (Cbor::Text(name.clone()), value)
                })
                .collect(),
        ),
    }
}

fn from_cbor(value: Cbor) -> Result<Value, String> {
    Ok(match value {
        Cbor::Null => Value::Null,
        Cbor::Bool(flag) => Value::Bool(flag),
        Cbor::Integer(whole) => {
            let whole = i128::from(whole);
            let number = i64::try_from(whole)
                .map(Number::from)
                .or_else(|_| u64::try_from(whole).map(Number::from));
            Value::Number(number.map_err(|_| format!("the number {whole} is too large"))?)
        }
        Cbor::Float(number) => Number::from_f64(number)
            .map(Value::Number)
            .ok_or_else(|| format!("{number} is no number"))?,
        Cbor::Text(text) => Value::String(text),
        Cbor::Tag(EPOCH, inner) => from_cbor(*inner)?,
        Cbor::Array(items) => items.into_iter().map(from_cbor).collect::<Result<_, _>>()?,
        Cbor::Map(members) => Value::Object(
            members
                .into_iter()
                .map(|(name, value)| match name {
                    Cbor::Text(name) => Ok((name, from_cbor(value)?)),
                    _ => Err("a member's name must be a text".to_owned()),
                })
                .collect::<Result<_, _>>()?,
        ),
        _ => return Err("there is a value of a kind that no member has".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use ciborium::Value as Cbor;
    use serde_json::json;

    use super::{encode, from_cbor, path_parts};

    #[test]
    fn values_survive_and_times_are_tagged() {
        let value = json!({
            "Names": ["a", "b"], "Period": 60, "Threshold": 80.0, "On": true, "Low": -3,
            "StateUpdatedTimestamp": 1_700_000_000.5,
        });
        let encoded: Cbor = ciborium::from_reader(encode(&value).as_ref()).unwrap();
        let members = encoded.as_map().unwrap();
        let member = |name: &str| {
            &members
                .iter()
                .find(|(n, _)| n.as_text() == Some(name))
                .unwrap()
                .1
        };
        assert!(member("StateUpdatedTimestamp").is_tag());
        assert!(
            member("Threshold").is_float(),
            "a double stays one, also without a fraction"
        );
        assert!(member("Period").is_integer());
        assert_eq!(from_cbor(encoded).unwrap(), value);
    }

    #[test]
    fn the_path_names_service_and_operation() {
        assert_eq!(
            path_parts("/service/GraniteServiceVersion20100801/operation/DescribeAlarms"),
            Some(("GraniteServiceVersion20100801", "DescribeAlarms"))
        );
        assert_eq!(path_parts("/service/X"), None);
    }
}
