//! A TCP proxy of the harness: connections through it go to its upstreams by turns, and can be cut.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// One proxy; its connections end with it.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    generation: watch::Sender<u64>,
    refuses: Arc<AtomicBool>,
    upstreams: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Proxy {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (generation, _) = watch::channel(0);
        let refuses = Arc::new(AtomicBool::new(false));
        let upstreams = Arc::<Mutex<Vec<SocketAddr>>>::default();
        let next = AtomicUsize::new(0);
        let (cuts, deaf, targets) = (
            generation.clone(),
            Arc::clone(&refuses),
            Arc::clone(&upstreams),
        );
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                let target = {
                    let targets = targets.lock().unwrap_or_else(PoisonError::into_inner);
                    targets.get(turn % targets.len().max(1)).copied()
                };
                let Some(target) = target.filter(|_| !deaf.load(Ordering::Relaxed)) else {
                    continue;
                };
                let mut cut = cuts.subscribe();
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(target).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Ok(Self {
            address,
            generation,
            refuses,
            upstreams,
        })
    }

    /// Where connections go from now on.
    pub(crate) fn lead_to(&self, upstreams: Vec<SocketAddr>) {
        *self
            .upstreams
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = upstreams;
    }

    /// Closes every connection, wherever its bytes are.
    pub(crate) fn cut(&self) {
        self.generation.send_modify(|n| *n += 1);
    }

    /// Closes new connections at once, or takes them again.
    pub(crate) fn refuse(&self, refuse: bool) {
        self.refuses.store(refuse, Ordering::Relaxed);
        if refuse {
            self.cut();
        }
    }
}
