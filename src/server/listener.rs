//! Sockets, handed round-robin to one single-threaded runtime per core: each decodes, checks and
//! encodes without touching another core. (Measured: a multi-threaded runtime writes once per answer
//! instead of once per batch.)

use std::{convert::Infallible, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo};
use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, Either, Ready, ready},
};
use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tokio_rustls::TlsAcceptor;
use tower::Service;

use super::fast::{Answer, Fast, Outcome};
use crate::app::App;

/// Calls in flight on one connection.
const STREAMS: u32 = 256;
/// Connections waiting for a core.
const BACKLOG: usize = 256;
/// Connections of one core; more are closed at once.
const CONNECTIONS: usize = 4096;
const MAX_HEADERS: u32 = 16 * 1024;
const HANDSHAKE: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(30);
/// A client that resets more streams than this faster than they are served is cut off.
const RESETS: usize = 100;

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

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
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
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
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(socket: TcpListener, router: Router, tls: Option<Tls>) -> std::io::Result<Self> {
        Self::start_fronts(socket, tls, || Front { router: router.clone(), fast: None })
    }

    /// Answers checks the short way, and everything else by the router.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start_fast(
        socket: TcpListener,
        router: &Router,
        tls: Option<Tls>,
        app: &App,
    ) -> std::io::Result<Self> {
        Self::start_fronts(socket, tls, || Front {
            router: router.clone(),
            fast: Some(Arc::new(Fast::new(app.clone()))),
        })
    }

    fn start_fronts(
        socket: TcpListener,
        tls: Option<Tls>,
        front: impl Fn() -> Front,
    ) -> std::io::Result<Self> {
        let (stop, stopping) = watch::channel(false);
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let mut queues = Vec::new();
        let mut cores = Vec::new();
        for n in 0..count {
            let (queue, sockets) = mpsc::channel(BACKLOG);
            let (alive, ended) = mpsc::channel(1);
            let core =
                Core { front: Arc::new(front()), tls: tls.clone(), stopping: stopping.clone() };
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
    pub async fn stop(mut self, grace: Duration) {
        self.stop.send_replace(true);
        let _ = self.accepting.await;
        let all = async {
            for core in &mut self.cores {
                let _ = core.recv().await;
            }
        };
        if tokio::time::timeout(grace, all).await.is_err() {
            tracing::warn!("some calls did not end in time");
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

/// What answers on one core, which shares it with no other.
struct Front {
    router: Router,
    fast: Option<Arc<Fast>>,
}

/// Most answers are there at once; only the others need a place to wait.
type Reply = Either<
    Ready<Result<Response<Answer>, Infallible>>,
    BoxFuture<'static, Result<Response<Answer>, Infallible>>,
>;

impl Front {
    fn answer(self: &Arc<Self>, peer: Peer, request: Request<Incoming>) -> Reply {
        let Some(fast) = &self.fast else { return self.route(peer, request) };
        match fast.answer(request) {
            Ok(Outcome::Answered(answer)) => Either::Left(ready(Ok(answer))),
            Ok(Outcome::Left(request)) => self.route(peer, request),
            Err(unfinished) => {
                let (front, fast) = (self.clone(), fast.clone());
                Either::Right(Box::pin(async move {
                    match fast.finish(*unfinished).await {
                        Outcome::Answered(answer) => Ok(answer),
                        Outcome::Left(request) => front.route(peer, request).await,
                    }
                }))
            }
        }
    }

    fn route<B>(&self, peer: Peer, mut request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
    {
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = self.router.clone().call(request);
        Either::Right(Box::pin(answer.map(|answer| answer.map(|a| a.map(Answer::Router)))))
    }
}

struct Core {
    front: Arc<Front>,
    tls: Option<Tls>,
    stopping: watch::Receiver<bool>,
}

impl Core {
    async fn run(self, mut sockets: mpsc::Receiver<Socket>) {
        let builder = Arc::new(http());
        let graceful = GracefulShutdown::new();
        let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
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
            let (front, builder) = (self.front.clone(), builder.clone());
            let (watcher, tls) = (graceful.watcher(), self.tls.clone());
            tokio::spawn(async move {
                let _place = place;
                match tls {
                    None => serve(stream, peer, front, &builder, watcher).await,
                    Some(Tls(acceptor)) => {
                        let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
                        if let Ok(Ok(stream)) = handshake.await {
                            serve(stream, peer, front, &builder, watcher).await;
                        }
                    }
                }
            });
        }
        graceful.shutdown().await;
    }
}

fn http() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(RESETS)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(HANDSHAKE);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
    builder
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: SocketAddr,
    front: Arc<Front>,
    builder: &Builder<TokioExecutor>,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let service = service_fn(move |request| front.answer(Peer(peer), request));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        tracing::debug!(%error, "a connection ended badly");
    }
}
