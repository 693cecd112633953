//! TLS as the two clients want it. With authorities of its own a connection trusts these and no others.

use reqwest::blocking::ClientBuilder;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::config::Credentials;

/// For gRPC's channel.
pub(super) fn channel(credentials: &Credentials) -> ClientTlsConfig {
    let Credentials { roots, identity } = credentials;
    let config = match roots {
        Some(roots) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(roots)),
        None => ClientTlsConfig::new().with_enabled_roots(),
    };
    match identity {
        Some((chain, key)) => config.identity(Identity::from_pem(chain, key)),
        None => config,
    }
}

/// For the client of HTTP.
pub(super) fn client(mut client: ClientBuilder, credentials: &Credentials) -> Result<ClientBuilder, reqwest::Error> {
    let Credentials { roots, identity } = credentials;
    if let Some(roots) = roots {
        client = client.tls_certs_only(reqwest::Certificate::from_pem_bundle(roots.as_bytes())?);
    }
    if let Some((chain, key)) = identity {
        client = client.identity(reqwest::Identity::from_pem(format!("{chain}{key}").as_bytes())?);
    }
    Ok(client)
}
