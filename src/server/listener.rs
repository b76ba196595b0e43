//! Sockets, handed round-robin to one single-threaded runtime per core: each decodes, checks and
//! encodes without touching another core. (Measured: a multi-threaded runtime writes once per answer
//! instead of once per batch.)

use std::{convert::Infallible, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::Router;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::{
    GRACE,
    connection::{ConnectionError, Front, Visit},
    fast::Fast,
};
use crate::{app::App, caller::Peer};

/// Connections waiting for a core.
const BACKLOG: usize = 256;
/// Connections of one core; more are closed at once.
const CONNECTIONS: usize = 4096;
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What clients call HTTP/2 when they greet.
const HTTP2: &[u8] = b"h2";

#[derive(Clone)]
pub struct Tls(TlsAcceptor);

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate or key cannot be read: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("the certificate and key cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

impl Tls {
    /// # Errors
    /// When a file cannot be read, or key and certificate do not fit.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate)?.collect();
        let key = PrivateKeyDer::from_pem_file(key)?;
        let mut config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(chain?, key)?;
        config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

/// What accepts connections, and the cores that serve them.
pub struct Listener {
    stop: watch::Sender<bool>,
    accepting: tokio::task::JoinHandle<()>,
    cores: Vec<mpsc::Receiver<Infallible>>,
}

type Socket = (std::net::TcpStream, SocketAddr);

impl Listener {
    /// Answers checks the short way, and everything else by the router.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        socket: TcpListener,
        router: &Router,
        tls: Option<&Tls>,
        app: &App,
    ) -> std::io::Result<Self> {
        let (stop, stopping) = watch::channel(false);
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let mut queues = Vec::new();
        let mut cores = Vec::new();
        for n in 0..count {
            let (queue, sockets) = mpsc::channel(BACKLOG);
            let (alive, ended) = mpsc::channel(1);
            let front = Front { router: router.clone(), fast: Fast::new(app.clone()) };
            let (front, stopping) = (Arc::new(front), stopping.clone());
            let core = Core { front, tls: tls.cloned(), stopping };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            std::thread::Builder::new().name(format!("core-{n}")).spawn(move || {
                runtime.block_on(core.run(sockets));
                drop(alive);
            })?;
            queues.push(queue);
            cores.push(ended);
        }
        let accepting = tokio::spawn(accept(socket, queues, stopping));
        Ok(Self { stop, accepting, cores })
    }

    /// Accepts nothing more, and gives calls in flight some time.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let _ = self.accepting.await;
        for core in &mut self.cores {
            let _ = core.recv().await;
        }
    }
}

async fn accept(
    socket: TcpListener,
    queues: Vec<mpsc::Sender<Socket>>,
    mut stopping: watch::Receiver<bool>,
) {
    for queue in queues.iter().cycle() {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        let accepted = accepted.and_then(|(stream, peer)| {
            stream.set_nodelay(true)?;
            Ok((stream.into_std()?, peer))
        });
        match accepted {
            Ok(socket) => {
                if queue.try_send(socket).is_err() {
                    metrics::counter!("rolecall_connections_refused_total").increment(1);
                }
            }
            Err(error) => {
                // Out of descriptors, mostly: give those in use time to be closed.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

struct Core {
    front: Arc<Front>,
    tls: Option<Tls>,
    stopping: watch::Receiver<bool>,
}

impl Core {
    async fn run(self, mut sockets: mpsc::Receiver<Socket>) {
        let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
        let connections = TaskTracker::new();
        let mut stopping = self.stopping.clone();
        loop {
            let (stream, peer) = tokio::select! {
                socket = sockets.recv() => match socket { Some(socket) => socket, None => break },
                _ = stopping.wait_for(|stop| *stop) => break,
            };
            let (Ok(stream), Ok(place)) =
                (TcpStream::from_std(stream), places.clone().try_acquire_owned())
            else {
                metrics::counter!("rolecall_connections_refused_total").increment(1);
                continue;
            };
            let (front, stopping) = (self.front.clone(), self.stopping.clone());
            let visit = Visit { front, peer: Peer(peer), stopping };
            let tls = self.tls.clone();
            connections.spawn(async move {
                let _place = place;
                let ended = match tls {
                    None => visit.plain(stream).await,
                    Some(Tls(acceptor)) => encrypted(visit, &acceptor, stream).await,
                };
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended badly");
                }
            });
        }
        connections.close();
        // Then the runtime goes, and every connection that is left with it.
        if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "some calls did not end in time");
        }
    }
}

async fn encrypted(
    visit: Visit,
    acceptor: &TlsAcceptor,
    stream: TcpStream,
) -> Result<(), ConnectionError> {
    let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
    let stream = handshake.map_err(|_| ConnectionError::Silent)??;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
    visit.serve(stream, http2).await
}
