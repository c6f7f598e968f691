//! One bucket of an S3-compatible store: the few calls that logs need, bounded in time, and what their
//! failures mean.
//!
//! Names of objects are given below the bucket's prefix. A call that ends in an error may have had its effect
//! all the same; only [`Bucket::create`] cannot be repeated without being noticed, and it says so.

mod error;

use super::aws::SdkCredentials;
use crate::config;
use bytes::Bytes;
pub use error::BucketError;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3Builder, AwsCredential, AwsCredentialProvider};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, BackoffConfig, ClientOptions, Error, GetOptions, GetRange, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, RetryConfig,
    StaticCredentialProvider,
};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of one part of a large object, and of the largest that is sent in one call.
const PART_BYTES: u64 = 8 << 20;
/// The name of what an object says of itself beside its bytes.
const NOTE: &str = "roadstead";
/// Where it is tried whether objects are created once only. No log's name begins with a dot.
const PROBE: &str = ".probe";

/// How long the store is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For one answer, with its bytes.
    pub call: Duration,
    /// Between two tries, at most; a tenth of that before the second one.
    pub pause: Duration,
    /// Tries after the first one.
    pub retries: usize,
    /// No try begins later than this after the first one.
    pub tries: Duration,
}

impl Default for Patience {
    /// Less in all than a runner waits for an answer, which is 30 s.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            call: Duration::from_secs(10),
            pause: Duration::from_secs(1),
            retries: 3,
            tries: Duration::from_secs(8),
        }
    }
}

/// What came of creating an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It is there now.
    Made,
    /// One of that name was there, or is just being made: perhaps by this very call, whose first answer was
    /// lost.
    Taken,
}

/// An object as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its bytes.
    pub bytes: Bytes,
    /// What was noted beside them.
    pub note: Option<String>,
}

/// One bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    place: Arc<str>,
}

impl Bucket {
    /// Nothing is called yet. Credentials are those of `settings`, or come as the AWS SDK finds them.
    ///
    /// # Errors
    /// When the settings name no bucket that can be.
    pub fn new(
        settings: &config::S3,
        default_region: &str,
        patience: Patience,
    ) -> Result<Self, BucketError> {
        let place: Arc<str> = settings.to_string().into();
        let invalid = |message: String| BucketError::Settings {
            place: Arc::clone(&place),
            message,
        };
        let prefix = Path::parse(settings.prefix.trim_matches('/'))
            .map_err(|error| invalid(error.to_string()))?;
        let region = settings.region.as_deref().unwrap_or(default_region);
        let credentials: AwsCredentialProvider = match settings.keys() {
            Some((key_id, secret_key)) => Arc::new(StaticCredentialProvider::new(AwsCredential {
                key_id: key_id.to_owned(),
                secret_key: secret_key.to_owned(),
                token: None,
            })),
            None => Arc::new(SdkCredentials::new(region)),
        };
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: patience.pause / 10,
                max_backoff: patience.pause,
                base: 3.0,
            },
            max_retries: patience.retries,
            retry_timeout: patience.tries,
        };
        let options = ClientOptions::new()
            .with_connect_timeout(patience.connect)
            .with_timeout(patience.call);
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&settings.bucket)
            .with_region(region)
            .with_credentials(credentials)
            .with_retry(retry)
            .with_client_options(options);
        builder = match &settings.endpoint_url {
            Some(endpoint) => builder
                .with_endpoint(endpoint.trim_end_matches('/'))
                .with_allow_http(endpoint.starts_with("http://")),
            None => builder.with_virtual_hosted_style_request(!settings.bucket.contains('.')),
        };
        let store = builder
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        Ok(Self {
            store: Arc::new(store),
            prefix,
            place,
        })
    }

    /// The bucket with its prefix, as people name it.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    fn path(&self, name: &str) -> Path {
        let parts = name.split('/').map(object_store::path::PathPart::from);
        self.prefix.parts().chain(parts).collect()
    }

    fn error(&self, action: &'static str, error: &Error) -> BucketError {
        BucketError::of(&self.place, action, error)
    }

    /// Makes an object that nobody has made.
    ///
    /// # Errors
    /// It may be there all the same, then or later.
    pub async fn create(
        &self,
        name: &str,
        bytes: Bytes,
        note: Option<&str>,
    ) -> Result<Created, BucketError> {
        match self.put_as(name, bytes, note, PutMode::Create).await {
            Ok(()) => Ok(Created::Made),
            Err(Error::AlreadyExists { .. }) => Ok(Created::Taken),
            Err(error) => Err(self.error("s3:PutObject", &error)),
        }
    }

    /// Makes an object, whatever was there.
    ///
    /// # Errors
    /// It may be there all the same, then or later.
    pub async fn put(
        &self,
        name: &str,
        bytes: Bytes,
        note: Option<&str>,
    ) -> Result<(), BucketError> {
        let put = self.put_as(name, bytes, note, PutMode::Overwrite).await;
        put.map_err(|error| self.error("s3:PutObject", &error))
    }

    async fn put_as(
        &self,
        name: &str,
        bytes: Bytes,
        note: Option<&str>,
        mode: PutMode,
    ) -> Result<(), Error> {
        let mut attributes = Attributes::new();
        if let Some(note) = note {
            attributes.insert(Attribute::Metadata(NOTE.into()), note.to_owned().into());
        }
        let options = PutOptions {
            mode,
            attributes,
            ..PutOptions::default()
        };
        let payload = PutPayload::from_bytes(bytes);
        let put = self
            .store
            .put_opts(&self.path(name), payload, options)
            .await;
        put.map(drop)
    }

    /// Makes an object of the first `length` bytes of a file, in parts if they are many. It is there whole or
    /// not at all.
    ///
    /// # Errors
    /// It may be there all the same, then or later. Parts that were sent may stay, unseen, until the
    /// bucket's own rules remove them.
    pub async fn upload(
        &self,
        name: &str,
        file: &Arc<File>,
        length: u64,
    ) -> Result<(), BucketError> {
        if length <= PART_BYTES {
            let bytes = self.part(file, 0..length).await?;
            return self.put(name, bytes, None).await;
        }
        let failed = |error: Error| self.error("s3:PutObject", &error);
        let path = self.path(name);
        let begun = self
            .store
            .put_multipart_opts(&path, PutMultipartOptions::default());
        let mut upload = begun.await.map_err(failed)?;
        let mut at = 0;
        while at < length {
            let end = length.min(at + PART_BYTES);
            let sent = match self.part(file, at..end).await {
                Ok(bytes) => upload
                    .put_part(PutPayload::from_bytes(bytes))
                    .await
                    .map_err(failed),
                Err(error) => Err(error),
            };
            if let Err(error) = sent {
                let _ = upload.abort().await;
                return Err(error);
            }
            at = end;
        }
        upload.complete().await.map(drop).map_err(failed)
    }

    async fn part(&self, file: &Arc<File>, range: Range<u64>) -> Result<Bytes, BucketError> {
        let file = Arc::clone(file);
        let read = tokio::task::spawn_blocking(move || {
            let length = usize::try_from(range.end - range.start).unwrap_or_default();
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, range.start)?;
            std::io::Result::Ok(bytes.into())
        });
        let read = read.await.map_err(std::io::Error::other).flatten();
        read.map_err(|error| BucketError::Settings {
            place: Arc::clone(&self.place),
            message: format!("what was to be sent cannot be read: {error}"),
        })
    }

    /// An object's bytes and note; `None` when there is none.
    ///
    /// # Errors
    /// When that cannot be told.
    pub async fn get(&self, name: &str) -> Result<Option<Object>, BucketError> {
        self.read(name, GetOptions::default()).await
    }

    /// Some bytes of an object; `None` when there is none.
    ///
    /// # Errors
    /// When that cannot be told, or it is shorter.
    pub async fn range(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>, BucketError> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let read = self.read(name, options).await?;
        Ok(read.map(|object| object.bytes))
    }

    async fn read(&self, name: &str, options: GetOptions) -> Result<Option<Object>, BucketError> {
        let read = async {
            let found = self.store.get_opts(&self.path(name), options).await?;
            let note = found
                .attributes
                .get(&Attribute::Metadata(NOTE.into()))
                .map(|note| note.as_ref().to_owned());
            let bytes = found.bytes().await?;
            Ok(Object { bytes, note })
        };
        match read.await {
            Ok(object) => Ok(Some(object)),
            Err(error) => match self.error("s3:GetObject", &error) {
                BucketError::NoObject => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Whether there is such an object.
    ///
    /// # Errors
    /// When that cannot be told.
    pub async fn has(&self, name: &str) -> Result<bool, BucketError> {
        match self.store.head(&self.path(name)).await {
            Ok(_) => Ok(true),
            Err(error) => match self.error("s3:GetObject", &error) {
                BucketError::NoObject => Ok(false),
                error => Err(error),
            },
        }
    }

    /// Names and sizes of the objects below `folder`, in order; with `after` only of those behind that name.
    /// `most` of them at most.
    ///
    /// # Errors
    /// When that cannot be told.
    pub async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<(String, u64)>, BucketError> {
        let below = self.path(folder);
        let listed = match after {
            Some(after) => self.store.list_with_offset(Some(&below), &self.path(after)),
            None => self.store.list(Some(&below)),
        };
        let listed: Result<Vec<_>, _> = listed.take(most).try_collect().await;
        let mut found = vec![];
        for object in listed.map_err(|error| self.error("s3:ListBucket", &error))? {
            let Some(parts) = object.location.prefix_match(&self.prefix) else {
                continue;
            };
            let parts: Vec<_> = parts.map(|part| part.as_ref().to_owned()).collect();
            found.push((parts.join("/"), object.size));
        }
        Ok(found)
    }

    /// Removes objects. Of some that are not there nothing is said.
    ///
    /// # Errors
    /// Some may be gone then.
    pub async fn remove(&self, names: Vec<String>) -> Result<(), BucketError> {
        let paths: Vec<_> = names.iter().map(|name| Ok(self.path(name))).collect();
        let removed = self.store.delete_stream(stream::iter(paths).boxed());
        let removed = removed.try_for_each(|_| std::future::ready(Ok(()))).await;
        match removed {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error("s3:DeleteObject", &error)),
        }
    }

    /// Tries all that logs need: an object is made, cannot be made twice, is read, listed and removed.
    ///
    /// # Errors
    /// The first thing that is not so.
    pub async fn probe(&self) -> Result<(), BucketError> {
        let name = format!("{PROBE}/{}", hex::encode(rand::random::<[u8; 8]>()));
        let word = || Bytes::from_static(b"roadstead looks whether it may write here\n");
        self.list(PROBE, None, 1).await?;
        self.create(&name, word(), None).await?;
        let again = self.create(&name, word(), None).await?;
        let read = self.get(&name).await?;
        self.remove(vec![name.clone()]).await?;
        if again == Created::Made || read.is_none_or(|object| object.bytes != word()) {
            return Err(BucketError::Unfit {
                place: Arc::clone(&self.place),
            });
        }
        Ok(())
    }
}
