//! Where Docker Engine listens, for what its client library cannot do: connections that become another
//! protocol's.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

/// Where Docker Engine listens unless somebody says otherwise.
const USUAL_SOCKET: &str = "/var/run/docker.sock";
/// The port of an engine whose address names none.
const USUAL_PORT: u16 = 2375;

/// Where Docker Engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EngineAddress {
    Socket(PathBuf),
    /// Host and port, without TLS.
    Tcp(String),
    /// Reached in a way that only the client library knows, in its own words.
    Other(String),
}

/// A connection's bytes.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl EngineAddress {
    /// The engine at `socket`, or where `DOCKER_HOST` says, or at the usual place.
    pub(crate) fn of(socket: Option<&Path>) -> Self {
        let host = std::env::var("DOCKER_HOST").ok();
        let encrypted = std::env::var_os("DOCKER_TLS_VERIFY").is_some();
        match socket {
            Some(path) => Self::Socket(path.to_owned()),
            None => Self::read(host.as_deref().unwrap_or_default(), encrypted),
        }
    }

    fn read(host: &str, encrypted: bool) -> Self {
        let address = match host.split_once("://") {
            _ if host.is_empty() => return Self::Socket(USUAL_SOCKET.into()),
            Some(("unix", path)) => return Self::Socket(path.into()),
            Some(("tcp" | "http", address)) if !encrypted => address.trim_end_matches('/'),
            _ => return Self::Other(host.to_owned()),
        };
        let has_port = address
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        Self::Tcp(if has_port {
            address.to_owned()
        } else {
            format!("{address}:{USUAL_PORT}")
        })
    }

    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there, or it is reached through TLS.
    pub(crate) async fn connect(&self) -> anyhow::Result<Box<dyn Stream>> {
        match self {
            Self::Socket(path) => Ok(Box::new(UnixStream::connect(path).await.with_context(
                || format!("Docker Engine does not answer at {}", path.display()),
            )?)),
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address)
                    .await
                    .with_context(|| format!("Docker Engine does not answer at {address}"))?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Other(host) => bail!(
                "DOCKER_HOST is {host}: images are built by an engine at a socket (`unix://…`) or at a plain \
                 port of this machine (`tcp://…`, without DOCKER_TLS_VERIFY)"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_docker_reads_them() {
        let socket = |path: &str| EngineAddress::Socket(path.into());
        let tcp = |address: &str| EngineAddress::Tcp(address.into());
        let other = |host: &str| EngineAddress::Other(host.into());
        for (host, encrypted, expected) in [
            ("", false, socket("/var/run/docker.sock")),
            (
                "unix:///run/user/1000/docker.sock",
                true,
                socket("/run/user/1000/docker.sock"),
            ),
            ("tcp://127.0.0.1:2375", false, tcp("127.0.0.1:2375")),
            ("tcp://engine", false, tcp("engine:2375")),
            ("tcp://[::1]:1", false, tcp("[::1]:1")),
            ("tcp://127.0.0.1:2376", true, other("tcp://127.0.0.1:2376")),
            ("ssh://engine", false, other("ssh://engine")),
        ] {
            assert_eq!(EngineAddress::read(host, encrypted), expected, "{host}");
        }
    }

    #[tokio::test]
    async fn an_engine_behind_tls_is_refused_in_words() {
        let error = EngineAddress::read("tcp://engine:2376", true)
            .connect()
            .await
            .err()
            .unwrap();
        assert!(error.to_string().contains("DOCKER_TLS_VERIFY"), "{error}");
    }
}
