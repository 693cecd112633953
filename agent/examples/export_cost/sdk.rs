//! The same through OpenTelemetry's SDK and its exporter: what export would cost without a way of the agent's own.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::trace::{Event, Span as _, SpanBuilder, SpanId, SpanKind, TraceId, TracerProvider as _};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::metrics::{Instrument, PeriodicReader, SdkMeterProvider, Stream};
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider};
use rustix::time::ClockId;
use serde_json::{Value, json};
use synfin::clock::{Clock, Offset};
use synfin::config::Otlp as Settings;
use synfin::event::State;
use synfin::export::attribute;
use synfin::export::otlp::span::{Head, Visit};
use synfin::export::resource::resource;
use synfin::ledger::{Connection, Side};
use tokio::runtime::Runtime;

use crate::connections::{Kind, OWNER, visit};
use crate::{SPANS, cpu_ns, paced};

/// Collections that count.
const EXPORTS: u64 = 20;

/// What gRPC's connections live on.
fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

/// [`SPANS`] lean spans over gRPC, in batches and at a pace as the agent's.
pub(crate) fn spans(endpoint: &str) -> Result<Value> {
    let runtime = runtime()?;
    let settings = Settings::default();
    let exporter = runtime.block_on(async { SpanExporter::builder().with_tonic().with_endpoint(endpoint).build() })?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(SPANS)
        .with_max_export_batch_size(settings.span_batch)
        .with_scheduled_delay(settings.span_delay)
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
        .with_resource(resource(&settings))
        .build();
    let tracer = provider.tracer("synfin");
    let connections = Kind::Lean.connections(SPANS)?;
    check(&connections[0])?;
    let offset = Clock::default().offset();
    let before = cpu_ns(ClockId::ProcessCPUTime);
    let mut handing_over = 0;
    paced(&connections, |pass| {
        let before = cpu_ns(ClockId::ThreadCPUTime);
        for connection in pass {
            make(connection, &tracer, offset);
        }
        handing_over += cpu_ns(ClockId::ThreadCPUTime) - before;
    });
    provider.shutdown_with_timeout(Duration::from_mins(1))?;
    let cpu = cpu_ns(ClockId::ProcessCPUTime) - before;
    Ok(json!({ "spans": SPANS, "cpu_ns": cpu, "handing_over_ns": handing_over }))
}

/// A span as an author would make it: what is known beforehand is not copied.
fn make(connection: &Connection, tracer: &SdkTracer, offset: Offset) {
    let time = |ns| offset.system_time(ns);
    let span = SpanBuilder::from_name("tcp connection")
        .with_kind(SpanKind::Internal)
        .with_start_time(time(connection.first_ns))
        .with_attributes(attributes(connection))
        .with_events(events(connection, time));
    span.start(tracer).end_with_timestamp(time(connection.last_ns));
}

fn attributes(connection: &Connection) -> Vec<KeyValue> {
    let ends = &connection.ends;
    let owner = connection.owner.unwrap_or(OWNER);
    vec![
        KeyValue::new("network.transport", "tcp"),
        KeyValue::new("network.connection.end", Kind::Lean.end().name()),
        KeyValue::new("network.type", ends.network_type()),
        KeyValue::new("network.local.address", ends.local_address().to_string()),
        KeyValue::new("network.local.port", i64::from(ends.local_port)),
        KeyValue::new("network.peer.address", ends.peer_address().to_string()),
        KeyValue::new("network.peer.port", i64::from(ends.peer_port)),
        KeyValue::new("linux.netns.inode", i64::from(ends.netns)),
        KeyValue::new("linux.socket.cookie", ends.cookie as i64),
        KeyValue::new("linux.cgroup.id", connection.cgroup as i64),
        KeyValue::new("process.pid", i64::from(owner.pid)),
        KeyValue::new("process.executable.name", owner.name().into_owned()),
        KeyValue::new("network.tcp.close.first", connection.closed_first.map_or("", Side::name)),
        KeyValue::new("network.tcp.retransmits", i64::from(connection.retransmits())),
        KeyValue::new("network.tcp.resets", i64::from(connection.resets_sent + connection.resets_received)),
    ]
}

fn events(connection: &Connection, time: impl Fn(u64) -> SystemTime) -> Vec<Event> {
    let event = |name: &'static str, state: State| {
        let attributes = vec![KeyValue::new("network.connection.state", state.name())];
        Event::new(name, time(connection.entered_ns[state.index()]), attributes, 0)
    };
    vec![event("tcp.fin_wait_1", State::FinWait1), event("tcp.fin_wait_2", State::FinWait2)]
}

/// What the agent tells of a connection.
#[derive(Default)]
struct Told {
    attributes: Vec<KeyValue>,
    events: Vec<&'static str>,
}

impl Visit for Told {
    fn head(&mut self, _head: &Head<'_>) {}

    fn attribute(&mut self, key: &'static str, value: attribute::Value<'_>) {
        self.attributes.push(match value {
            attribute::Value::Text(text) => KeyValue::new(key, text.to_owned()),
            attribute::Value::Flag(flag) => KeyValue::new(key, flag),
            attribute::Value::Integer(integer) => KeyValue::new(key, integer),
            attribute::Value::Real(real) => KeyValue::new(key, real),
        });
    }

    fn event(&mut self, name: &'static str, _unix_ns: u64, _attributes: &[(&'static str, attribute::Value<'_>)]) {
        self.events.push(name);
    }

    fn link(&mut self, _trace: TraceId, _span: SpanId) {}
}

/// That both ways tell the same.
fn check(connection: &Connection) -> Result<()> {
    let mut told = Told::default();
    visit(connection, Kind::Lean.end(), &mut told);
    let here = attributes(connection);
    ensure!(here == told.attributes, "the agent tells {:?}, this {here:?}", told.attributes);
    let here: Vec<_> = events(connection, |_| SystemTime::UNIX_EPOCH).into_iter().map(|event| event.name).collect();
    ensure!(here == told.events, "the agent tells {:?}, this {here:?}", told.events);
    Ok(())
}

/// So many series of one counter with two attributes, over gRPC: as many points in each collection.
pub(crate) fn points(endpoint: &str, series: u64) -> Result<Value> {
    let runtime = runtime()?;
    let exporter =
        runtime.block_on(async { MetricExporter::builder().with_tonic().with_endpoint(endpoint).build() })?;
    // Collections are asked for below.
    let reader = PeriodicReader::builder(exporter).with_interval(Duration::from_hours(1)).build();
    let limit = usize::try_from(series).context("too many")? + 1;
    let provider = SdkMeterProvider::builder()
        .with_reader(reader)
        .with_view(move |_: &Instrument| Stream::builder().with_cardinality_limit(limit).build().ok())
        .with_resource(resource(&Settings::default()))
        .build();
    let attributes: Vec<_> = (0..series)
        .map(|number| {
            [
                KeyValue::new("container.id", format!("{:064x}", number / 10)),
                KeyValue::new("network.connection.state", State::ALL[(number % 10) as usize].name()),
            ]
        })
        .collect();
    let _counter = provider
        .meter("synfin")
        .u64_observable_counter("synfin.bench")
        .with_callback(move |observer| {
            for (number, attributes) in attributes.iter().enumerate() {
                observer.observe(number as u64, attributes);
            }
        })
        .build();
    provider.force_flush()?;
    let before = cpu_ns(ClockId::ProcessCPUTime);
    for _ in 0..EXPORTS {
        provider.force_flush()?;
    }
    let cpu = cpu_ns(ClockId::ProcessCPUTime) - before;
    provider.shutdown()?;
    Ok(json!({ "points": EXPORTS * series, "cpu_ns": cpu, "series": series }))
}
