//! OTLP/gRPC: tonic does the protocol; the message comes through as bytes, so that the judge sees what was sent.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::{Buf as _, Bytes};
use hyper::{Request, Response, body::Incoming};
use tonic::{
    Status,
    body::Body,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, UnaryService},
};

use super::{Shared, Signal, Via};

/// Serves one call.
pub async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Response<Body> {
    let signal = match request.uri().path() {
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Signal::Traces,
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Signal::Metrics,
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Signal::Logs,
        other => {
            shared.judge().complain(format!("gRPC call of {other}, which is no OTLP method"));
            return Status::unimplemented("not OTLP").into_http();
        }
    };
    if let Some(encoding) = request.headers().get("grpc-encoding").and_then(|encoding| encoding.to_str().ok()) {
        *shared.judge().encodings.entry((Via::Grpc, encoding.to_owned())).or_default() += 1;
    }
    let mut grpc = Grpc::new(RawCodec);
    // Answers in the encoding of the request, as the Collector does.
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        grpc = grpc.accept_compressed(encoding).send_compressed(encoding);
    }
    grpc.unary(Export { signal, shared }, request).await
}

struct Export {
    signal: Signal,
    shared: Arc<Shared>,
}

impl UnaryService<Bytes> for Export {
    type Response = Bytes;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Bytes>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let (signal, shared) = (self.signal, Arc::clone(&self.shared));
        Box::pin(async move {
            if shared.take(signal, Via::Grpc, request.get_ref()).await {
                Ok(tonic::Response::new(Bytes::new())) // an empty Export…ServiceResponse: all taken
            } else {
                Err(Status::unavailable("the test wants a refusal"))
            }
        })
    }
}

#[derive(Clone, Copy)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put(to, item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
