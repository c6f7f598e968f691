//! Between columns and the core's types. What cannot be read is an error that names row and value.

use super::{Result, StoreError};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A time as it is stored: whole microseconds since 1970.
pub(super) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// An unsigned number as it is stored; none of ours is near the limit.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A value as JSON.
pub(super) fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Data {
        row: std::any::type_name_of_val(value).to_owned(),
        value: error.to_string(),
    })
}

/// Reads the columns of one row, `run shop.12`.
pub(super) struct Row<'a>(pub(super) &'static str, pub(super) &'a str);

impl Row<'_> {
    pub(super) fn broken(&self, value: impl Into<String>) -> StoreError {
        StoreError::Data {
            row: format!("{} {}", self.0, self.1),
            value: value.into(),
        }
    }

    pub(super) fn time(&self, micros: i64) -> Result<Timestamp> {
        Timestamp::from_microsecond(micros)
            .map_err(|error| self.broken(format!("time {micros}: {error}")))
    }

    pub(super) fn maybe_time(&self, micros: Option<i64>) -> Result<Option<Timestamp>> {
        micros.map(|micros| self.time(micros)).transpose()
    }

    pub(super) fn json<T: DeserializeOwned>(&self, column: &str, text: &str) -> Result<T> {
        serde_json::from_str(text).map_err(|error| self.broken(format!("{column}: {error}")))
    }

    /// A name or id, through the check that its type makes.
    pub(super) fn word<T: DeserializeOwned>(&self, column: &str, text: &str) -> Result<T> {
        use serde::de::IntoDeserializer;
        use serde::de::value::{Error, StrDeserializer};
        let deserializer: StrDeserializer<'_, Error> = text.into_deserializer();
        T::deserialize(deserializer).map_err(|error| self.broken(format!("{column}: {error}")))
    }

    pub(super) fn number<T: TryFrom<i64>>(&self, column: &str, number: i64) -> Result<T> {
        T::try_from(number).map_err(|_| self.broken(format!("{column}: {number}")))
    }
}
