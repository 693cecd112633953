//! Errors of the network in plain words: what a user can do something about, said before what a library says.

/// What the endpoint is when gRPC gets an answer that is none.
pub(super) const NOT_GRPC: &str = "the endpoint answers, but not in gRPC: \
     try --otlp-protocol http/protobuf, or the port for gRPC (by custom 4317)";

/// What the endpoint is when HTTP/1 gets an answer that is none.
const NOT_HTTP: &str = "the endpoint answers, but not in HTTP/1; it may speak gRPC: \
     try --otlp-protocol grpc, or the port for HTTP (by custom 4318)";

/// A server of another protocol may do so before its answer can be read, and one that is about to end does it too.
const CLOSES: &str = "the endpoint closes the connection without an answer; \
     if it goes on doing so, try the other --otlp-protocol (grpc or http/protobuf)";

/// What libraries say, and what it means. They give such errors no types that are public; the tests hold the words
/// against real servers.
const MEANINGS: &[(&str, &str)] = &[
    // Any answer in text, read as a frame of HTTP/2, claims a length that no frame may have.
    ("frame with invalid size", NOT_GRPC),
    // HTTP/2 begins with a frame, which may come before our request or after it.
    ("invalid HTTP version parsed", NOT_HTTP),
    ("received unexpected message from connection", NOT_HTTP),
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
