//! Where logs go: a folder, or a bucket of an S3-compatible store.

use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;
use url::Url;

/// Where logs go.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logs {
    /// The folder of all logs, which several servers on one database share; none takes `logs` in the
    /// data folder.
    pub folder: Option<PathBuf>,
    /// The bucket of all logs, in the place of a folder.
    pub s3: Option<S3>,
}

impl Logs {
    /// # Errors
    /// What is wrong.
    pub(super) fn examine(&self) -> Result<(), String> {
        let Some(s3) = &self.s3 else {
            return Ok(());
        };
        if self.folder.is_some() {
            return Err("logs go to `logs.folder` or to `logs.s3`, not to both: remove one".into());
        }
        s3.examine().map_err(|error| format!("logs.s3: {error}"))
    }
}

/// A bucket of an S3-compatible store.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3 {
    /// Its name.
    pub bucket: String,
    /// Where in it, without a slash at its ends; empty for all of it. Nobody else may write there.
    pub prefix: String,
    /// Its Region; none takes `aws.region`.
    pub region: Option<String>,
    /// Address of a store that is not AWS's, `https://…`; buckets are the first part of its paths.
    pub endpoint_url: Option<String>,
    /// Who asks; without it credentials come as the AWS SDK finds them.
    pub access_key_id: Option<String>,
    /// What goes with it.
    pub secret_access_key: Option<String>,
}

impl S3 {
    /// Key and secret, if they are given.
    #[must_use]
    pub fn keys(&self) -> Option<(&str, &str)> {
        self.access_key_id
            .as_deref()
            .zip(self.secret_access_key.as_deref())
    }

    fn examine(&self) -> Result<(), String> {
        let plain =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
        if !(3..=63).contains(&self.bucket.len()) || !self.bucket.bytes().all(plain) {
            return Err(format!(
                "`{}` cannot be a bucket: 3 to 63 of a-z, 0-9, `-` and `.`",
                self.bucket
            ));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let sound =
            |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain);
        if !self.prefix.is_empty() && !self.prefix.split('/').all(sound) {
            return Err(format!(
                "the prefix `{}` needs names of a-z, A-Z, 0-9, `-`, `_` and `.` between single slashes, \
                 and none at its ends",
                self.prefix
            ));
        }
        if let Some(endpoint) = &self.endpoint_url {
            let url = Url::parse(endpoint).map_err(|error| format!("endpoint_url: {error}"))?;
            if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
                return Err("endpoint_url begins with https:// or http://".into());
            }
            if !url.path().trim_matches('/').is_empty() || url.query().is_some() {
                return Err(
                    "endpoint_url ends with the host: the bucket is named by `bucket`".into(),
                );
            }
        }
        if self.access_key_id.is_some() != self.secret_access_key.is_some() {
            return Err(
                "access_key_id and secret_access_key are given together, or neither of them".into(),
            );
        }
        Ok(())
    }
}

/// As people name it.
impl fmt::Display for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        match &self.endpoint_url {
            Some(endpoint) => write!(f, " at {endpoint}"),
            None => Ok(()),
        }
    }
}

/// Without what nobody may see.
impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examine(text: &str) -> Result<(), String> {
        let logs: Logs = toml::from_str(text).map_err(|error| error.to_string())?;
        logs.examine()
    }

    #[test]
    fn a_bucket_is_examined() {
        let good = "[s3]\nbucket = \"acme-logs\"\nprefix = \"roadstead/logs\"\n";
        examine(good).unwrap();
        examine(&format!(
            "{good}endpoint_url = \"http://127.0.0.1:9000/\"\n"
        ))
        .unwrap();
        examine(&format!(
            "{good}access_key_id = \"a\"\nsecret_access_key = \"b\"\n"
        ))
        .unwrap();
        for (wrong, said) in [
            (format!("folder = \"/mnt/logs\"\n{good}"), "not to both"),
            ("[s3]\n".to_owned(), "cannot be a bucket"),
            ("[s3]\nbucket = \"Acme/Logs\"\n".to_owned(), "`Acme/Logs`"),
            (good.replace("roadstead/", "/"), "single slashes"),
            (good.replace("roadstead/", "../"), "single slashes"),
            (format!("{good}endpoint_url = \"minio:9000\"\n"), "https://"),
            (
                format!("{good}endpoint_url = \"http://minio:9000/logs\"\n"),
                "ends with the host",
            ),
            (format!("{good}access_key_id = \"a\"\n"), "given together"),
            (format!("{good}path = \"a\"\n"), "unknown field `path`"),
        ] {
            let error = examine(&wrong).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_bucket_keeps_its_secret_to_itself() {
        let s3 = S3 {
            bucket: "acme-logs".into(),
            secret_access_key: Some("dont-show-this".into()),
            ..S3::default()
        };
        assert_eq!(format!("{s3:?} {s3}"), "S3(s3://acme-logs) s3://acme-logs");
    }
}
