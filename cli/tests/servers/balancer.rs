//! A load balancer that gives each request to the other server, and to the one that is there when one
//! is not. Each request has a connection of its own, so nothing sticks to a server.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request's head is shorter.
const LONGEST_HEAD: usize = 64 * 1024;

/// Listens until it is dropped.
pub(crate) struct Balancer {
    pub(crate) url: String,
    servers: Arc<Mutex<Vec<SocketAddr>>>,
    given: Arc<Mutex<Vec<usize>>>,
    listening: JoinHandle<()>,
}

impl Balancer {
    pub(crate) async fn start(count: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let servers = Arc::new(Mutex::new(vec![
            SocketAddr::from(([127, 0, 0, 1], 9));
            count
        ]));
        let given = Arc::new(Mutex::new(vec![0; count]));
        let (all, counts) = (Arc::clone(&servers), Arc::clone(&given));
        let listening = tokio::spawn(async move {
            let next = Arc::new(AtomicUsize::new(0));
            while let Ok((client, _)) = listener.accept().await {
                let (all, counts, next) =
                    (Arc::clone(&all), Arc::clone(&counts), Arc::clone(&next));
                // Whoever hangs up, and whoever is killed, ends its connection.
                tokio::spawn(async move { pass_on(client, &all, &counts, &next).await });
            }
        });
        Self {
            url,
            servers,
            given,
            listening,
        }
    }

    /// Where a server is from now on.
    pub(crate) fn set(&self, server: usize, url: &str) {
        let address = url.strip_prefix("http://").unwrap().parse().unwrap();
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers[server] = address;
    }

    /// How many requests each server was given.
    pub(crate) fn given(&self) -> Vec<usize> {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.clone()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn pass_on(
    mut client: TcpStream,
    servers: &Mutex<Vec<SocketAddr>>,
    given: &Mutex<Vec<usize>>,
    next: &AtomicUsize,
) -> io::Result<()> {
    let mut head = Vec::new();
    let end = loop {
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if head.len() > LONGEST_HEAD || client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    };
    let servers = servers
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let first = next.fetch_add(1, Ordering::Relaxed);
    for turn in first..first + servers.len() {
        let server = turn % servers.len();
        let Ok(mut upstream) = TcpStream::connect(servers[server]).await else {
            continue;
        };
        given.lock().unwrap_or_else(PoisonError::into_inner)[server] += 1;
        // The next request comes on another connection, and goes to the other server.
        upstream.write_all(&head[..end]).await?;
        upstream.write_all(b"\r\nconnection: close").await?;
        upstream.write_all(&head[end..]).await?;
        copy_bidirectional(&mut client, &mut upstream).await?;
        return Ok(());
    }
    client
        .write_all(
            b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        )
        .await
}
