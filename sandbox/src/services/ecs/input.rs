//! Reads the members of a request.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::services::{AwsError, paging};

/// A request's members.
pub(in crate::services) struct Input<'a>(pub(in crate::services) &'a Map<String, Value>);

/// A refusal of a value.
pub(in crate::services) fn invalid(message: impl Into<String>) -> AwsError {
    AwsError::client("InvalidParameterException", message)
}

/// A refusal of a request as a whole.
pub(in crate::services) fn client(message: impl Into<String>) -> AwsError {
    AwsError::client("ClientException", message)
}

impl<'a> Input<'a> {
    /// The members of the body, which must be an object.
    pub(in crate::services) fn new(body: &'a Value) -> Result<Self, AwsError> {
        match body {
            Value::Object(members) => Ok(Self(members)),
            _ => Err(AwsError::client(
                "SerializationException",
                "The request body must be a JSON object.",
            )),
        }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(in crate::services) fn text(&self, name: &str) -> Result<Option<&'a str>, AwsError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong_type(name, "a string")),
        }
    }

    pub(in crate::services) fn required(&self, name: &str) -> Result<&'a str, AwsError> {
        self.text(name)?
            .filter(|text| !text.is_empty())
            .ok_or_else(|| invalid(format!("{name} must not be empty.")))
    }

    pub(in crate::services) fn texts(&self, name: &str) -> Result<Vec<&'a str>, AwsError> {
        self.list(name)?
            .iter()
            .map(|item| item.as_str().ok_or_else(|| wrong_type(name, "strings")))
            .collect()
    }

    pub(in crate::services) fn list(&self, name: &str) -> Result<&'a [Value], AwsError> {
        match self.get(name) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(wrong_type(name, "a list")),
        }
    }

    pub(in crate::services) fn object(&self, name: &str) -> Result<Option<Input<'a>>, AwsError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(Input(members))),
            Some(_) => Err(wrong_type(name, "a structure")),
        }
    }

    pub(in crate::services) fn flag(&self, name: &str) -> Result<Option<bool>, AwsError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(wrong_type(name, "a boolean")),
        }
    }

    /// A whole number that is not negative.
    pub(in crate::services) fn number(&self, name: &str) -> Result<Option<u32>, AwsError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => value
                .as_u64()
                .and_then(|number| u32::try_from(number).ok())
                .map(Some)
                .ok_or_else(|| wrong_type(name, "a number that is not negative")),
        }
    }

    /// Whether `include` names `what`.
    pub(in crate::services) fn includes(&self, what: &str) -> Result<bool, AwsError> {
        Ok(self.texts("include")?.contains(&what))
    }

    /// A list of `{key, value}`.
    pub(in crate::services) fn tags(
        &self,
        name: &str,
    ) -> Result<IndexMap<String, String>, AwsError> {
        self.list(name)?
            .iter()
            .map(|tag| {
                let tag = Input::new(tag)?;
                let key = tag.required("key")?;
                if key
                    .get(..4)
                    .is_some_and(|it| it.eq_ignore_ascii_case("aws:"))
                {
                    return Err(invalid(format!(
                        "The tag {key} is not valid: the prefix aws: is reserved."
                    )));
                }
                Ok((
                    key.to_owned(),
                    tag.text("value")?.unwrap_or_default().to_owned(),
                ))
            })
            .collect()
    }

    /// The members among `names` that are there, as they came.
    pub(in crate::services) fn copy(&self, names: &[&str]) -> Map<String, Value> {
        names
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), self.get(name)?.clone())))
            .collect()
    }

    /// One page of `items`: up to `maxResults`, or `usual` of them, from `nextToken` on, and the token
    /// of the next.
    pub(in crate::services) fn page(
        &self,
        items: Vec<String>,
        usual: usize,
    ) -> Result<(Vec<String>, Option<String>), AwsError> {
        let size = match self.number("maxResults")? {
            None => usual,
            Some(wanted @ 1..=100) => wanted as usize,
            Some(_) => return Err(invalid("maxResults must be between 1 and 100.")),
        };
        paging::page(items, self.text("nextToken")?, size).ok_or_else(|| invalid("Invalid token."))
    }
}

fn wrong_type(name: &str, expected: &str) -> AwsError {
    AwsError::client(
        "SerializationException",
        format!("{name} must be {expected}."),
    )
}

/// Tags in AWS's list form, by key.
pub(in crate::services) fn show_tags(tags: &IndexMap<String, String>) -> Value {
    let sorted: BTreeMap<_, _> = tags.iter().collect();
    sorted
        .into_iter()
        .map(|(key, value)| serde_json::json!({"key": key, "value": value}))
        .collect()
}
