//! One error for every handler: a status and a message for the person. Pages show it as a page, the
//! API as JSON; what is our fault is logged here and told without its insides.

use crate::store::StoreError;
use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use roadstead_pipelines::action::Refusal;
use roadstead_protocol::Problem;
use std::fmt;

/// Why a request is not answered as asked.
#[derive(Debug)]
pub struct HttpError {
    status: StatusCode,
    message: String,
    /// Seconds after which trying again makes sense.
    retry_after: Option<u64>,
}

impl HttpError {
    /// With this status and this message.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            retry_after: (status == StatusCode::SERVICE_UNAVAILABLE).then_some(5),
        }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 409.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    /// 429, with the seconds to wait.
    pub fn too_many(message: impl Into<String>, seconds: u64) -> Self {
        Self {
            retry_after: Some(seconds),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, message)
        }
    }

    /// 500, with the cause in the log and not in the answer.
    pub fn internal(cause: impl fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed: {cause}");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "something failed here; the server's log says what",
        )
    }

    /// Seconds to wait before trying again, when that would help.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        self.retry_after
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl ResponseError for HttpError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut answer = HttpResponse::build(self.status);
        if let Some(seconds) = self.retry_after {
            answer.insert_header((header::RETRY_AFTER, seconds));
        }
        answer.json(Problem {
            message: self.message.clone(),
        })
    }
}

impl From<Refusal> for HttpError {
    fn from(refusal: Refusal) -> Self {
        Self::conflict(refusal.0)
    }
}

impl From<StoreError> for HttpError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { .. } => Self::not_found(error.to_string()),
            StoreError::Refused(refusal) => refusal.into(),
            StoreError::Conflict { what } => Self::conflict(what),
            StoreError::Illegal(illegal) => Self::conflict(illegal.to_string()),
            StoreError::Unavailable { reason } => {
                tracing::error!(%reason, "the database is out of reach: {reason}");
                let message = "the database is out of reach; nothing was stored, try again";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
            }
            StoreError::Data { .. } | StoreError::Db(_) | StoreError::Panicked { .. } => {
                Self::internal(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_acknowledged_while_the_database_is_out_of_reach() {
        let reason = "the connection was refused".to_owned();
        let error = HttpError::from(StoreError::Unavailable { reason });
        assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
