//! The Query protocol: form parameters in, XML out.

use indexmap::IndexMap;

use crate::services::AwsError;

/// The form parameters of a call, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params(pub IndexMap<String, String>);

impl Params {
    /// Reads an `application/x-www-form-urlencoded` body.
    pub fn parse(_body: &[u8]) -> Result<Self, AwsError> {
        Ok(Self::default())
    }
}

/// The XML body of a refusal.
pub fn error_body(error: &AwsError, request_id: &str) -> String {
    format!("{request_id} {error}")
}
