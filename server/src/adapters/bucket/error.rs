//! What a failed call to a bucket means.

use object_store::Error;
use std::error::Error as _;
use std::sync::Arc;

/// What a failed call means.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BucketError {
    /// The store does not let us.
    #[error(
        "{place} denies {action}: {message}; allow s3:GetObject, s3:PutObject, s3:DeleteObject and \
         s3:ListBucket there to Roadstead's role, or correct the keys of `logs.s3`"
    )]
    Denied {
        /// Which bucket.
        place: Arc<str>,
        /// The API call.
        action: &'static str,
        /// The store's words.
        message: String,
    },
    /// There is no such bucket.
    #[error("there is no bucket for {place}: create it or correct `logs.s3.bucket`")]
    NoBucket {
        /// Which one was looked for.
        place: Arc<str>,
    },
    /// There is no such object. Never told to others: calls say so by their own means.
    #[error("there is no such object")]
    NoObject,
    /// The store cannot be reached, is not well, wants fewer calls, or there are no credentials.
    #[error("{place} does not answer {action}: {message}")]
    Away {
        /// Which bucket.
        place: Arc<str>,
        /// The API call.
        action: &'static str,
        /// What happened.
        message: String,
    },
    /// The store refuses the call.
    #[error("{place} refuses {action}: {message}")]
    Refused {
        /// Which bucket.
        place: Arc<str>,
        /// The API call.
        action: &'static str,
        /// The store's words.
        message: String,
    },
    /// The store does not keep what logs rely on.
    #[error(
        "{place} let an object be made twice, or gave back other bytes: logs need a store that honours \
         `If-None-Match: *` when objects are put"
    )]
    Unfit {
        /// Which bucket.
        place: Arc<str>,
    },
    /// The settings cannot be used, or this machine cannot do its part.
    #[error("{place}: {message}")]
    Settings {
        /// Which bucket.
        place: Arc<str>,
        /// What is wrong.
        message: String,
    },
}

impl BucketError {
    /// Whether the same call can succeed later without anybody's doing.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Away { .. })
    }

    /// Whether the store does not let us.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }

    /// What the error of `action` means.
    pub(super) fn of(place: &Arc<str>, action: &'static str, error: &Error) -> Self {
        let place = Arc::clone(place);
        // The words of all that lies behind it: the library tells a status and the store's answer in words alone.
        let mut words = error.to_string();
        let mut cause = error.source();
        while let Some(deeper) = cause {
            words = format!("{words}: {deeper}");
            cause = deeper.source();
        }
        tracing::debug!(action, "{words}");
        let message = told(&words);
        let status = status(&words);
        // What a list or a removal of many was answered the library tells in words alone.
        let denied = matches!(status, Some(401 | 403))
            || matches!(
                error,
                Error::PermissionDenied { .. } | Error::Unauthenticated { .. }
            )
            || words.contains("AccessDenied");
        let missing = status == Some(404) || matches!(error, Error::NotFound { .. });
        if denied {
            Self::Denied {
                place,
                action,
                message,
            }
        } else if missing {
            let is_bucket = matches!(action, "s3:PutObject" | "s3:ListBucket");
            if is_bucket || words.contains("NoSuchBucket") {
                Self::NoBucket { place }
            } else {
                Self::NoObject
            }
        } else if words.contains("redirect") || status.is_some_and(is_final) {
            Self::Refused {
                place,
                action,
                message,
            }
        } else {
            Self::Away {
                place,
                action,
                message,
            }
        }
    }
}

/// Whether a store that answers so will do so again. Whoever is sent elsewhere has the wrong Region.
fn is_final(status: u16) -> bool {
    const TOO_LATE: u16 = 408;
    const TOO_OFTEN: u16 = 429;
    (300..500).contains(&status) && status != TOO_LATE && status != TOO_OFTEN
}

/// The HTTP status in the library's words.
fn status(words: &str) -> Option<u16> {
    let (_, rest) = words.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// The store's own words, if it had any; else the innermost of the library's.
fn told(words: &str) -> String {
    let within = |tag: &str| {
        let (_, rest) = words.split_once(&format!("<{tag}>"))?;
        let (text, _) = rest.split_once(&format!("</{tag}>"))?;
        Some(text.to_owned())
    };
    if let Some(code) = within("Code") {
        return match within("Message") {
            Some(message) => format!("{message} ({code})"),
            None => code,
        };
    }
    if words.contains("redirect") {
        return "it is in another Region: correct `logs.s3.region`".to_owned();
    }
    if let Some((_, rest)) = words.split_once("status code: ") {
        let status = rest.split([':', '\n']).next().unwrap_or_default();
        return status.to_owned();
    }
    let last = words.rsplit(": ").next().unwrap_or(words);
    last.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(words: &str) -> Error {
        Error::Generic {
            store: "S3",
            source: words.to_owned().into(),
        }
    }

    fn of(words: &str) -> BucketError {
        BucketError::of(&"s3://logs".into(), "s3:PutObject", &error(words))
    }

    #[test]
    fn the_stores_own_words_are_told() {
        let throttled = of(
            "Error performing PUT … - Server returned non-2xx status code: 503 Service Unavailable: \
             <Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
        );
        assert!(throttled.is_transient());
        assert_eq!(
            throttled.to_string(),
            "s3://logs does not answer s3:PutObject: Please reduce your request rate. (SlowDown)"
        );
        let refused = of("Server returned non-2xx status code: 400 Bad Request: ");
        assert_eq!(
            refused.to_string(),
            "s3://logs refuses s3:PutObject: 400 Bad Request"
        );
        assert!(!refused.is_transient() && !refused.is_denied());
        let elsewhere = of("Received redirect without LOCATION, this normally indicates …");
        assert!(elsewhere.to_string().contains("`logs.s3.region`"));
        assert!(of("error sending request: connection closed").is_transient());
        let denied = of("Server returned non-2xx status code: 403 Forbidden: ");
        assert!(denied.is_denied(), "{denied}");
        let missing = of("Server returned non-2xx status code: 404 Not Found: ");
        assert_eq!(
            missing,
            BucketError::NoBucket {
                place: "s3://logs".into()
            }
        );
    }
}
