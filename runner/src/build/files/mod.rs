//! Files of a build context on their way into BuildKit, which asks for those that changed alone.
//!
//! Owns the conversation (`moby.filesync.v1.FileSync`, the protocol of fsutil): which files there are, what
//! is told of each, and the contents that are asked for. Knows nothing of Dockerfiles: which patterns leave
//! files out is told by the engine, which reads `.dockerignore`.
//!
//! Files are opened beneath the context's folder only: a step can put links there that point anywhere on
//! this machine, even while the context is read, and none of them is followed out. Links travel as links.

mod follow;
mod moment;
mod patterns;
mod send;
mod walk;

pub(super) use moment::Moments;
pub(super) use send::{Packets, send};
pub(super) use walk::open;

use tonic::{Status, metadata::MetadataMap};

/// What the engine wants to have of a folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Which folder, by the name that it has for BuildKit.
    pub(super) folder: String,
    include: Vec<String>,
    exclude: Vec<String>,
    /// As `include`, and where links lead that are met on the way.
    follow: Vec<String>,
}

impl Wanted {
    /// Reads what stands in a call's metadata.
    ///
    /// # Errors
    /// When it is no text.
    pub(super) fn read(metadata: &MetadataMap) -> Result<Self, Status> {
        Ok(Self {
            folder: texts(metadata, "dir-name")?.pop().unwrap_or_default(),
            include: texts(metadata, "include-patterns")?,
            exclude: texts(metadata, "exclude-patterns")?,
            follow: texts(metadata, "followpaths")?,
        })
    }
}

/// The values of `key`, which are escaped as in a query when `key-encoded` says so.
fn texts(metadata: &MetadataMap, key: &str) -> Result<Vec<String>, Status> {
    let encoded = metadata.get(format!("{key}-encoded"));
    let encoded = encoded.is_some_and(|value| matches!(value.as_encoded_bytes(), b"1" | b"true"));
    let values = metadata.get_all(key).iter();
    values
        .map(|value| {
            let text = std::str::from_utf8(value.as_encoded_bytes())
                .map_err(|_| Status::invalid_argument(format!("{key} is no UTF-8")))?;
            Ok(if encoded {
                let mut pairs = url::form_urlencoded::parse(text.as_bytes());
                pairs
                    .next()
                    .map_or_else(String::new, |(text, _)| text.into_owned())
            } else {
                text.to_owned()
            })
        })
        .collect()
}

/// `path` without `.`, `..` and doubled slashes, as seen from a root that nothing lies above.
fn rooted(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// `name` inside `folder`, which is empty for the root.
fn below(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_stands_in_the_metadata() {
        let mut metadata = MetadataMap::new();
        metadata.insert("dir-name", "context".parse().unwrap());
        metadata.append("exclude-patterns", "a b+c".parse().unwrap());
        metadata.append("exclude-patterns", "!d%20e".parse().unwrap());
        metadata.append(
            "followpaths",
            "gr%C3%BC%C3%9Fe+an%26alle%3D".parse().unwrap(),
        );
        metadata.insert("followpaths-encoded", "1".parse().unwrap());
        let wanted = Wanted::read(&metadata).unwrap();
        assert_eq!(
            wanted,
            Wanted {
                folder: "context".into(),
                include: vec![],
                exclude: vec!["a b+c".into(), "!d%20e".into()],
                follow: vec!["grüße an&alle=".into()],
            }
        );
    }
}
