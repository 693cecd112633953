//! The project's own OTLP receiver, which forgives nothing.
//!
//! One port speaks gRPC, HTTP/protobuf and HTTP/JSON, in TLS if the test wants it; what comes by either goes, byte for byte, through [`schema`] (no unknown
//! fields) to [`judge`] (no wrong values). A test can make it refuse, hang, go away and come back.

pub mod allow;
pub mod grpc;
pub mod http;
pub mod json;
pub mod judge;
pub mod metrics;
pub mod schema;
pub mod spans;
pub mod tls;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use hyper::{Request, body::Incoming, header::CONTENT_TYPE, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    runtime::Runtime,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use self::judge::Judge;
use crate::deadline;

/// The three kinds of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Metrics.
    Metrics,
    /// Log records.
    Logs,
}

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP with binary protobuf.
    Http,
    /// OTLP/HTTP with JSON.
    Json,
}

/// How the receiver treats a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    /// Takes it.
    Accept,
    /// Answers UNAVAILABLE or 503, which a sender may try again.
    Refuse,
    /// Never answers.
    Hang,
}

/// What the connections share.
#[derive(Debug)]
pub struct Shared {
    judge: Mutex<Judge>,
    mood: AtomicU8,
}

impl Shared {
    /// Takes a request as the mood says; false means "come again later".
    async fn take(&self, signal: Signal, via: Via, message: &Bytes) -> bool {
        match self.mood.load(Ordering::SeqCst) {
            mood if mood == Mood::Accept as u8 => {
                self.judge().take(signal, via, message);
                true
            }
            mood if mood == Mood::Refuse as u8 => {
                self.judge().refused += 1;
                false
            }
            _ => {
                self.judge().refused += 1;
                std::future::pending().await
            }
        }
    }

    fn judge(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A receiver on a loopback port.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    tls: Option<Arc<ServerConfig>>,
    runtime: Option<Runtime>,
    /// While it is away: bound and not listening, so that nobody gets the port and whoever connects is refused.
    reserved: Option<Socket>,
}

impl Receiver {
    /// Starts one on a port of the kernel's choice.
    pub fn start() -> Result<Self> {
        Self::start_with(None)
    }

    /// Starts one that speaks TLS alone.
    pub fn start_tls(tls: Arc<ServerConfig>) -> Result<Self> {
        Self::start_with(Some(tls))
    }

    fn start_with(tls: Option<Arc<ServerConfig>>) -> Result<Self> {
        let shared = Arc::new(Shared { judge: Mutex::default(), mood: AtomicU8::new(Mood::Accept as u8) });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut receiver = Self { address, shared, tls, runtime: None, reserved: None };
        receiver.come_back()?;
        Ok(receiver)
    }

    /// The URL to send to, for both protocols.
    pub fn endpoint(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Closes the port and opens it again with another certificate or other demands on clients.
    pub fn change_tls(&mut self, tls: Arc<ServerConfig>) -> Result<()> {
        self.go_away()?;
        self.tls = Some(tls);
        self.come_back()
    }

    /// Changes how requests are treated from now on.
    pub fn mood(&self, mood: Mood) {
        self.shared.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// How metrics must be told from the start on.
    pub fn expect_metrics(&self, manner: metrics::Manner) {
        self.shared.judge().series.manner = manner;
    }

    /// Requests come through somebody who puts several into one.
    pub fn expect_batches(&self) {
        self.shared.judge().batched = true;
    }

    /// From now on judges and counts spans without keeping them.
    pub fn forget_spans(&self) {
        self.shared.judge().forget_spans = true;
    }

    /// Closes the port and every connection, as a backend that dies.
    pub fn go_away(&mut self) -> Result<()> {
        self.close();
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?; // as the listener has it
        socket.bind(&self.address.into()).with_context(|| format!("keeping {} for later", self.address))?;
        self.reserved = Some(socket);
        Ok(())
    }

    fn close(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }

    /// Opens the same port again.
    pub fn come_back(&mut self) -> Result<()> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("otlp").enable_all().build()?;
        let listener = runtime
            .block_on(TcpListener::bind(self.address))
            .with_context(|| format!("listening on {} for OTLP", self.address))?;
        self.address = listener.local_addr()?;
        runtime.spawn(accept(listener, self.tls.clone().map(TlsAcceptor::from), Arc::clone(&self.shared)));
        self.runtime = Some(runtime);
        self.reserved = None;
        Ok(())
    }

    /// Looks at what was received so far.
    pub fn look<T>(&self, look: impl FnOnce(&Judge) -> T) -> T {
        look(&self.shared.judge())
    }

    /// Waits until what was received is as wanted; complaints end the wait.
    pub fn await_received(&self, limit: Duration, what: &str, wanted: impl Fn(&Judge) -> bool) -> Result<()> {
        deadline::within(limit, what, || {
            self.look(|judge| {
                judge.verdict()?;
                Ok(wanted(judge).then_some(()))
            })
        })
        .with_context(|| self.look(Judge::summary))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.close();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new(); // aborted with the runtime
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            match tls {
                // A handshake that fails is the sender's to tell of.
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => serve(stream, shared).await,
                    Err(_refused) => {}
                },
                None => serve(stream, shared).await,
            }
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shared: Arc<Shared>) {
    let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
    // An error here is the sender going away.
    drop(auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await);
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<hyper::Response<tonic::body::Body>, std::convert::Infallible> {
    let grpc = request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    Ok(if grpc { grpc::answer(request, shared).await } else { http::answer(request, shared).await })
}
