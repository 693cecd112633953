//! OTLP over HTTP, with bodies in protobuf or in JSON.

use std::io::{self, Read as _};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::Url;
use reqwest::blocking::{Client, Response};
use reqwest::redirect::Policy;

use super::super::request::Request;
use super::super::worker::Failure;
use super::json::{self, Encode};
use super::packer::Packer;
use super::{USER_AGENT, answer, tls};
use crate::config::{Credentials, Protocol, Signal};

/// A way to one endpoint.
#[derive(Debug)]
pub(crate) struct Http {
    client: Client,
    url: Url,
    headers: HeaderMap,
    /// How bodies become JSON, where they do.
    json: Option<Encode>,
    packer: Packer,
    timeout: Duration,
}

impl Http {
    pub(super) fn new(
        signal: &Signal,
        credentials: &Credentials,
        method: &'static str,
        url: Url,
        mut headers: HeaderMap,
    ) -> Result<Self, reqwest::Error> {
        let (packer, timeout) = (Packer::new(signal.compression), signal.timeout);
        let client = client(&url, credentials, timeout, !headers.is_empty())?;
        let json = (signal.protocol == Protocol::HttpJson).then(|| json::encoder(method));
        let kind = if json.is_some() { "application/json" } else { "application/x-protobuf" };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.extend(packer.encoding().map(|encoding| (CONTENT_ENCODING, encoding)));
        Ok(Self { client, url, headers, json, packer, timeout })
    }

    /// Sends a request and gives the body of the answer.
    pub(super) fn send(&self, request: &Request) -> Result<Bytes, Failure> {
        let deadline = Instant::now() + self.timeout;
        let body = self.body(request).map_err(|error| Failure::later(&error))?;
        let request = self.client.post(self.url.clone()).headers(self.headers.clone()).body(body);
        // An URL may carry a secret, and the log shows the endpoint anyway.
        let response = request.send().map_err(|error| Failure::later(&error.without_url()))?;
        if !response.status().is_success() {
            return Err(answer::refused(response.status(), response.headers()));
        }
        // Without the whole answer nobody knows how many were taken; the ids are the same in each attempt.
        read(response, deadline).map_err(|error| Failure::later(&error))
    }
}

impl Http {
    fn body(&self, request: &Request) -> io::Result<Bytes> {
        let message = match self.json {
            Some(encode) => encode(&request.message())?.into(),
            None => request.message(),
        };
        if self.packer.encoding().is_some() { self.packer.pack(&message, |_| []) } else { Ok(message) }
    }
}

/// A client that reaches `url`. Must be called on a thread that no runtime drives.
fn client(
    url: &Url,
    credentials: &Credentials,
    timeout: Duration,
    with_secrets: bool,
) -> Result<Client, reqwest::Error> {
    let mut client = Client::builder().timeout(timeout).user_agent(USER_AGENT).redirect(redirects(with_secrets));
    if url.scheme() == "http" {
        // Otherwise the client looks for the system's certificates, and fails in a container that has none.
        client = client.tls_certs_only([]);
    }
    tls::client(client, credentials)?.build()
}

/// Only those that keep the method. After the others a client asks for a page, and whatever page comes would count as
/// spans that arrived. And none to elsewhere `with_secrets`: headers hold keys, which are nobody else's.
fn redirects(with_secrets: bool) -> Policy {
    const MOST: usize = 5;
    Policy::custom(move |attempt| {
        let stays = attempt.previous().iter().all(|url| url.origin() == attempt.url().origin());
        match attempt.status() {
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
                if attempt.previous().len() <= MOST && (stays || !with_secrets) =>
            {
                attempt.follow()
            }
            _ => attempt.stop(),
        }
    })
}

/// What there is of the body, up to a bound in bytes and in time: the client's own limit is for each piece.
fn read(mut response: Response, deadline: Instant) -> io::Result<Bytes> {
    let mut body = Vec::new();
    let mut piece = [0; 4_096];
    loop {
        let length = response.read(&mut piece)?;
        if length == 0 || body.len() + length > answer::LONGEST {
            return Ok(body.into());
        }
        body.extend_from_slice(&piece[..length]);
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}
