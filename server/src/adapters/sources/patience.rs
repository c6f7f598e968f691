//! How long libgit2 waits for a repository's server. By itself it waits for ever, with a thread and the
//! mirror's lock.

use std::time::Duration;

/// For a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// For the next bytes. Servers that pack a large repository say every five seconds that they live.
const NEXT_BYTES: Duration = Duration::from_secs(60);

/// Sets, for the whole process, how long a repository's server is waited for. Call it before anything is
/// fetched.
///
/// # Errors
/// [`git2::Error`] when this libgit2 knows no such limits.
pub fn limit_waits() -> Result<(), git2::Error> {
    set(CONNECT, NEXT_BYTES)
}

#[expect(
    unsafe_code,
    reason = "libgit2 keeps these two numbers for the process, and there is no other way to set them"
)]
fn set(connect: Duration, next_bytes: Duration) -> Result<(), git2::Error> {
    let millis = |limit: Duration| i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: both write a plain number that libgit2 reads when it connects; nothing connects yet.
    unsafe {
        git2::opts::set_server_connect_timeout_in_milliseconds(millis(connect))?;
        git2::opts::set_server_timeout_in_milliseconds(millis(next_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Remote, Sources, SourcesError};
    use super::*;
    use roadstead_pipelines::id::{CommitSha, ProjectName};
    use std::net::TcpListener;

    /// One that takes connections and says nothing; the kernel takes them without anybody's help.
    #[tokio::test]
    async fn a_server_that_says_nothing_is_given_up() {
        set(CONNECT, Duration::from_millis(300)).unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = Remote {
            address: format!("https://{}/shop.git", silent.local_addr().unwrap()),
            username: None,
            password: None,
        };
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources::new(folder.path());
        let project = ProjectName::parse("shop").unwrap();
        let commit = CommitSha::parse(&"0".repeat(40)).unwrap();
        let fetched = sources.fetch(&project, &remote, &commit, "refs/heads/main");
        let error = fetched.await.unwrap_err();
        assert!(matches!(error, SourcesError::Unreachable { .. }), "{error}");
        // The mirror is free again, too.
        let fetched = sources.fetch(&project, &remote, &commit, "refs/heads/main");
        assert!(fetched.await.unwrap_err().is_transient());
    }
}
