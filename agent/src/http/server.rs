//! The listening socket and the thread that answers on it.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use super::{Site, routes};
use crate::priority;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 16;
/// Time for the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Time for a request with its answer, however slowly it is read.
const CONNECTION_TIME: Duration = Duration::from_secs(20);
/// Bytes of the head of a request.
const HEAD_BYTES: usize = 16 << 10;
/// Pause when the kernel gives no connection, as when descriptors are used up.
const PAUSE: Duration = Duration::from_millis(100);

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The kernel does not let it listen there.
    #[error("http.listen = {address}: cannot listen there: {error}; {}", remedy(.error))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel says. No source of this error: its words are here.
        error: io::Error,
    },
    /// The system gives no thread or no poll.
    #[error("no thread for HTTP")]
    Thread(#[from] io::Error),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process has it, maybe another synfin: `ss -ltnp` names it; or choose another port by --http"
        }
        io::ErrorKind::AddrNotAvailable => "this host does not have the address; use one of its own, e.g. 127.0.0.1",
        io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one by --http",
        _ => "choose another address by --http, e.g. 127.0.0.1:9464",
    }
}

/// A socket that listens and is not answered on yet: who connects waits.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

/// Listens at this address; port 0 lets the kernel choose one.
pub fn bind(address: SocketAddr) -> Result<Bound, HttpError> {
    let bound = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Bound { address: listener.local_addr()?, listener })
    };
    bound().map_err(|error| HttpError::Listen { address, error })
}

impl Bound {
    /// The address with the port that was chosen.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers from now on, on a thread of its own.
    pub fn serve(self, site: Site) -> Result<Server, HttpError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(self.listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("synfin-http".to_owned()).spawn(move || {
            priority::lower();
            runtime.spawn(accept(listener, Arc::new(site)));
            // Ends when it is told to, or when nobody is left who could.
            _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Server { stop: Some(stop), thread: Some(thread) })
    }
}

/// Answers until it is dropped.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has told of its panic itself.
            _ = thread.join();
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, site: Arc<Site>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _peer)) => {
                let site = Arc::clone(&site);
                tokio::spawn(async move {
                    talk(stream, site).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "HTTP: no connection");
                sleep(PAUSE).await;
            }
        }
    }
}

/// One request, one answer: a connection that is kept would keep its place from others.
async fn talk(stream: TcpStream, site: Arc<Site>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = routes::answer(&site, request.method(), request.uri().path(), request.headers());
        async move { Ok::<_, Infallible>(answer.into_response()) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "HTTP: a request that is none"),
        Err(_elapsed) => tracing::debug!("HTTP: a reader that is too slow"),
    }
}
