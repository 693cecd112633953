//! Judges one span.

use anyhow::{Context as _, Result, ensure};
use opentelemetry_proto::tonic::trace::v1::{Span, SpanFlags, span::SpanKind, status::StatusCode};

use super::{
    allow,
    judge::{attributes, integer, moment, text},
};

/// Name of the span of a checkpoint.
pub const CHECKPOINT: &str = "tcp checkpoint";
/// Which one it is.
pub const NUMBER: &str = "synfin.checkpoint.number";

/// Fails at the first thing wrong with it.
pub fn check(span: &Span) -> Result<()> {
    id(&span.trace_id, 16).context("trace id")?;
    id(&span.span_id, 8).context("span id")?;
    if !span.parent_span_id.is_empty() {
        id(&span.parent_span_id, 8).context("parent span id")?;
        ensure!(span.parent_span_id != span.span_id, "it is its own parent");
    }
    let remote = span.flags & SpanFlags::ContextIsRemoteMask as u32 != 0;
    ensure!(!remote || !span.parent_span_id.is_empty(), "its parent is remote, and it has none");
    ensure!(!span.name.is_empty(), "no name");
    let kind = SpanKind::try_from(span.kind).context("kind")?;
    ensure!(
        matches!(kind, SpanKind::Client | SpanKind::Server | SpanKind::Internal),
        "kind {kind:?}: a connection is opened (client), accepted (server), or of unknown origin (internal)"
    );
    if span.name == CHECKPOINT {
        ensure!(
            kind == SpanKind::Internal && !span.parent_span_id.is_empty() && !remote,
            "a checkpoint without its connection"
        );
        ensure!(integer(&span.attributes, NUMBER).is_some_and(|number| number > 0), "a checkpoint without a number");
    }
    moment(span.start_time_unix_nano).context("start")?;
    moment(span.end_time_unix_nano).context("end")?;
    ensure!(span.end_time_unix_nano >= span.start_time_unix_nano, "it ends before it starts");
    attributes(&span.attributes, allow::TELEMETRY)?;
    let dropped = [span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count];
    ensure!(dropped == [0; 3], "attributes, events, links dropped: {dropped:?}");

    let mut last = span.start_time_unix_nano;
    for event in &span.events {
        ensure!(!event.name.is_empty(), "an event without a name");
        ensure!(event.time_unix_nano >= last, "event {} is earlier than the one before, or than the span", event.name);
        ensure!(event.time_unix_nano <= span.end_time_unix_nano, "event {} is later than the span", event.name);
        attributes(&event.attributes, allow::TELEMETRY).with_context(|| format!("event {}", event.name))?;
        last = event.time_unix_nano;
    }
    for link in &span.links {
        id(&link.trace_id, 16).context("trace id of a link")?;
        id(&link.span_id, 8).context("span id of a link")?;
        ensure!(
            link.trace_id == span.trace_id,
            "a link out of its trace: no two connections have to do with each other"
        );
        ensure!(link.span_id != span.span_id, "a link to itself");
        attributes(&link.attributes, allow::TELEMETRY).context("a link")?;
    }
    stated(span).with_context(|| format!("trace state {:?}", span.trace_state))?;
    let failed = span.status.as_ref().is_some_and(|status| status.code == StatusCode::Error as i32);
    let error = text(&span.attributes, "error.type");
    ensure!(failed == error.is_some(), "status {:?} with error.type {error:?}", span.status);
    let message = span.status.as_ref().map(|status| status.message.as_str()).unwrap_or_default();
    ensure!(failed || message.is_empty(), "a status message without an error: {message:?}");
    Ok(())
}

/// What a span says of how probable it was to keep it: a threshold in its shortest form, which its own trace id reaches
/// (OpenTelemetry's "TraceState: Probability Sampling"). What was kept for a reason stands for itself.
fn stated(span: &Span) -> Result<()> {
    let reason = text(&span.attributes, "synfin.sampling.reason");
    let probability = probability(span)?;
    ensure!(reason.is_none() || probability >= 1.0, "kept because of {reason:?}, and yet by chance");
    Ok(())
}

/// How probable it was to keep a span, as its `tracestate` says. Fails for one that should not have been kept.
pub fn probability(span: &Span) -> Result<f64> {
    let digits = span.trace_state.strip_prefix("ot=th:").context("no entry `ot` with a threshold alone")?;
    let hexadecimal = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    ensure!(hexadecimal && (1..=14).contains(&digits.len()), "{digits:?} are not up to 14 hexadecimal digits");
    ensure!(digits == "0" || !digits.ends_with('0'), "zeroes at the end");
    let threshold = u64::from_str_radix(&format!("{digits:0<14}"), 16)?;
    let random = span.trace_id[9..].iter().fold(0, |random, byte| random << 8 | u64::from(*byte));
    ensure!(random >= threshold, "the random bits of its trace id are {random:014x}");
    Ok(1.0 - threshold as f64 / (1_u64 << 56) as f64)
}

fn id(id: &[u8], length: usize) -> Result<()> {
    ensure!(id.len() == length, "{} bytes, not {length}", id.len());
    ensure!(id.iter().any(|byte| *byte != 0), "all zeroes");
    Ok(())
}
