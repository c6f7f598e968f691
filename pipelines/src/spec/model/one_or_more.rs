//! Texts as they stand in the file: none, one without a list, several in one. What was stored when there
//! could be one only reads back, and a server of that time reads it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    One(String),
    Several(Vec<String>),
}

pub(super) fn serialize<S: Serializer>(texts: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    match texts {
        [] => serializer.serialize_none(),
        [only] => serializer.serialize_str(only),
        several => several.serialize(serializer),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    Ok(match Option::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Stored::One(only)) => vec![only],
        Some(Stored::Several(several)) => several,
    })
}
