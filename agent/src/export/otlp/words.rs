//! Errors of the network in plain words: what a user can do something about, said before what a library says.

/// What the endpoint is when gRPC gets an answer that is none.
pub(super) const NOT_GRPC: &str = "the endpoint answers, but not in gRPC: \
     try --otlp-protocol http/protobuf, or the port for gRPC (by custom 4317)";

/// What the endpoint is when HTTP/1 gets an answer that is none.
const NOT_HTTP: &str = "the endpoint answers, but not in HTTP/1; it may speak gRPC: \
     try --otlp-protocol grpc, or the port for HTTP (by custom 4318)";

/// A server of another protocol may do so before its answer can be read, and so may one that misses a client's
/// certificate: its alert is lost if the client is still writing. One that is about to end does it too.
const CLOSES: &str = "the endpoint closes the connection without an answer; \
     if it goes on doing so, try the other --otlp-protocol (grpc or http/protobuf), \
     and see whether it wants, over https, to see a certificate of the agent (otlp.client_certificate)";

const UNKNOWN_ISSUER: &str = "the endpoint's certificate is signed by no authority that is trusted here: \
     name its authority by otlp.certificate (OTEL_EXPORTER_OTLP_CERTIFICATE)";

const WRONG_NAME: &str = "the endpoint's certificate is for another name: \
     write the endpoint with a name that is in the certificate, or give the server one with this name";

const NO_CLIENT_CERTIFICATE: &str = "the endpoint wants to see a certificate of the agent: \
     see otlp.client_certificate and otlp.client_key";

const REFUSED_CLIENT_CERTIFICATE: &str =
    "the endpoint does not trust the agent's certificate (otlp.client_certificate)";

/// What libraries say, and what it means. They give such errors no types that are public; the tests hold the words
/// against real servers.
const MEANINGS: &[(&str, &str)] = &[
    // Any answer in text, read as a frame of HTTP/2, claims a length that no frame may have.
    ("frame with invalid size", NOT_GRPC),
    // HTTP/2 begins with a frame, which may come before our request or after it.
    ("invalid HTTP version parsed", NOT_HTTP),
    ("received unexpected message from connection", NOT_HTTP),
    ("peer certificate: UnknownIssuer", UNKNOWN_ISSUER),
    // An authority of the same name with another key, as one that was made anew.
    ("peer certificate: BadSignature", UNKNOWN_ISSUER),
    ("peer certificate: certificate not valid for name", WRONG_NAME),
    ("peer certificate: NotValidForName", WRONG_NAME),
    ("peer certificate: certificate expired", "the endpoint's certificate has expired, or the clock here is wrong"),
    (
        "peer certificate: certificate not valid yet",
        "the endpoint's certificate is not valid yet, or the clock here is wrong",
    ),
    ("CaUsedAsEndEntity", "the endpoint shows the certificate of an authority as its own; it needs one of a server"),
    ("alert: CertificateRequired", NO_CLIENT_CERTIFICATE),
    ("alert: UnknownCA", REFUSED_CLIENT_CERTIFICATE),
    ("alert: BadCertificate", REFUSED_CLIENT_CERTIFICATE),
    ("alert: CertificateUnknown", REFUSED_CLIENT_CERTIFICATE),
    ("alert: DecryptError", REFUSED_CLIENT_CERTIFICATE),
    (
        "alert: CertificateExpired",
        "the endpoint says that the agent's certificate (otlp.client_certificate) has expired",
    ),
    ("alert: HandshakeFailure", NO_CLIENT_CERTIFICATE),
    ("InvalidContentType", "the endpoint answers, but not in TLS: try http:// in place of https://"),
    ("operation was canceled: connection closed", CLOSES),
    ("connection closed before message completed", CLOSES),
    ("Connection reset by peer", CLOSES),
    ("because of a broken pipe", CLOSES),
    ("Broken pipe", CLOSES),
    ("Connection refused", "nobody listens there"),
    ("failed to lookup address", "the host's name is unknown"),
    ("deadline has elapsed", "no answer within the timeout"),
    ("operation timed out", "no answer within the timeout"),
];

/// An error with what it means in front, where that is known.
pub(super) fn plain(error: &str) -> String {
    match MEANINGS.iter().find(|(said, _)| error.contains(said)) {
        Some((_, meaning)) => format!("{meaning} ({error})"),
        None => error.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meaning_stands_first_and_nothing_is_kept_back() {
        let refused = "tcp connect error: Connection refused (os error 111)";
        assert_eq!(plain(refused), format!("nobody listens there ({refused})"));
        assert_eq!(plain("something new"), "something new");
    }
}
