//! Asks `/metrics` as Prometheus does, and reads the answer more strictly than it.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::synfin::{self, Synfin};

pub mod promtool;
mod scrape;

pub use scrape::{Exemplar, Sample, Scrape};

/// What Prometheus 3 sends.
pub const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
     application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
     text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
/// What one sends that knows the older format alone.
pub const TEXT: &str = "text/plain;version=0.0.4";

/// An answer of HTTP.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its code.
    pub code: u16,
    /// Its head, in lower case.
    pub head: String,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// Its `Content-Type`.
    pub fn content_type(&self) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix("content-type: "))
    }
}

/// The address that a `synfin run --http` says it listens at.
pub fn address(synfin: &mut Synfin) -> Result<SocketAddr> {
    let said = |line: &str| synfin::message(line).is_some_and(|text| text == "HTTP listens");
    let line = synfin.await_stderr("the address of HTTP", said)?;
    let value: serde_json::Value = serde_json::from_str(&line)?;
    let address = value["address"].as_str().or_else(|| value["fields"]["address"].as_str());
    address.with_context(|| format!("no address in {line}"))?.parse().context("the address")
}

/// Sends bytes as they are and reads the answer to its end; None if there is none. The other end may stop reading early.
pub fn send(address: SocketAddr, request: &[u8]) -> Result<Option<Answer>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    match stream.write_all(request) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            return Err(error.into());
        }
        _ => {}
    }
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => return Err(error.into()),
        _ => {}
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    let text = String::from_utf8(bytes).context("an answer that is not UTF-8")?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no head ends in {text:?}"))?;
    let code = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).context("no status line")?.parse()?;
    Ok(Some(Answer { code, head: head.to_ascii_lowercase(), body: body.to_owned() }))
}

/// GET of a path.
pub fn get(address: SocketAddr, path: &str, accept: &str) -> Result<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n");
    send(address, request.as_bytes())?.with_context(|| format!("no answer to GET {path}"))
}

/// A scrape with this `Accept`, which must be answered in the format that it wants.
pub fn scrape(address: SocketAddr, accept: &str) -> Result<Scrape> {
    let answer = get(address, "/metrics", accept)?;
    ensure!(answer.code == 200, "{answer:?}");
    let wanted = match accept {
        OPEN_METRICS => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        _ => "text/plain; version=0.0.4; charset=utf-8",
    };
    ensure!(answer.content_type() == Some(wanted), "{:?}, not {wanted}", answer.content_type());
    let parsed = Scrape::parse(&answer.body, accept == OPEN_METRICS);
    parsed.with_context(|| format!("an answer that is wrong:\n{}", answer.body))
}
