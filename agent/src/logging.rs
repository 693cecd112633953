//! Logs: on stderr, as text or JSON. The `log` records of aya come in too.

use std::io::{self, IsTerminal as _};

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

mod recent;
mod stderr;

pub use recent::{Recent, Warning};
pub use stderr::HoldBack;

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What the log shows.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Form of a line.
    pub format: LogFormat,
    /// 0: info, 1: debug, 2 and more: trace.
    pub verbosity: u8,
    /// The value of `RUST_LOG`: directives that win over the verbosity.
    pub directives: Option<String>,
    /// Whether colours are welcome: stderr is a terminal and `NO_COLOR` is not set.
    pub color: bool,
}

impl LogOptions {
    /// Whether stderr wants colours, given the value of `NO_COLOR`.
    pub fn color_wanted(no_color: Option<&str>) -> bool {
        io::stderr().is_terminal() && no_color.is_none_or(str::is_empty)
    }
}

/// Starts logging for this process; its last warnings can be read back.
///
/// # Errors
/// When logging has been started before.
pub fn init(options: &LogOptions) -> anyhow::Result<Recent> {
    let (filter, warning) = filter(options);
    let recent = Recent::default();
    subscriber(options, filter, || stderr::Stderr, recent.clone())
        .try_init()
        .map_err(|error| anyhow::anyhow!("starting the log: {error}"))?;
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
    Ok(recent)
}

/// Libraries that speak of their own affairs. OpenTelemetry's repeats what the exporter counts and reports itself.
const BOUNDS: &str =
    "opentelemetry=off,h2=warn,hyper=warn,tonic=warn,tower=warn,reqwest=warn,rustls=warn,aya=warn,aya_log=info";
const VERY_VERBOSE_BOUNDS: &str = "h2=info,hyper=debug,tower=debug";

/// The filter, and what is wrong with the user's directives. A later directive wins over an equal earlier one.
fn filter(options: &LogOptions) -> (EnvFilter, Option<String>) {
    let (level, bounds) = match options.verbosity {
        0 => ("info", BOUNDS),
        1 => ("debug", BOUNDS),
        _ => ("trace", VERY_VERBOSE_BOUNDS),
    };
    let base = format!("{level},{bounds}");
    let directives = options.directives.as_deref().unwrap_or_default().trim();
    if !directives.is_empty() {
        match EnvFilter::builder().parse(format!("{base},{directives}")) {
            Ok(filter) => return (filter, None),
            Err(error) => return (EnvFilter::new(base), Some(format!("RUST_LOG has no effect: {error}"))),
        }
    }
    (EnvFilter::new(base), None)
}

fn subscriber<W>(
    options: &LogOptions,
    filter: EnvFilter,
    writer: W,
    recent: Recent,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // A log that cannot be written is no reason to panic, which is what reporting it on the same stderr would do.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(options.color)
        .log_internal_errors(false);
    match options.format {
        LogFormat::Text => Box::new(builder.finish().with(recent)),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).finish().with(recent)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(options: &LogOptions) -> String {
        logged(options).0
    }

    fn logged(options: &LogOptions) -> (String, Recent) {
        let sink = Sink::default();
        let writer = sink.clone();
        let recent = Recent::default();
        let subscriber = subscriber(options, filter(options).0, move || writer.clone(), recent.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(count = 3, "ours info");
            tracing::debug!("ours debug");
            tracing::trace!("ours trace");
            tracing::warn!(target: "opentelemetry-otlp", count = 3, why = "far\taway", "otel warn");
            tracing::error!(target: "opentelemetry_sdk", "otel error");
            tracing::info!(target: "h2::client", "h2 info");
            tracing::info!(target: "aya_log", "kernel info");
        });
        let bytes = sink.0.lock().unwrap().clone();
        (String::from_utf8(bytes).unwrap(), recent)
    }

    #[test]
    fn warnings_that_the_log_shows_can_be_read_back() {
        let options =
            |directives: &str| LogOptions { directives: Some(directives.to_owned()), ..LogOptions::default() };
        assert!(logged(&LogOptions::default()).1.last(3).is_empty());
        let shown = logged(&options("opentelemetry=warn")).1;
        let texts: Vec<_> = shown.last(3).into_iter().map(|warning| warning.text).collect();
        assert_eq!(texts, ["otel warn count=3 why=\"far\\taway\"", "otel error"]);
        assert_eq!(shown.last(1).len(), 1);
    }

    fn shows(options: &LogOptions) -> Vec<&'static str> {
        let text = log(options);
        ["ours info", "ours debug", "ours trace", "otel warn", "otel error", "h2 info", "kernel info"]
            .into_iter()
            .filter(|message| text.contains(message))
            .collect()
    }

    #[test]
    fn verbosity_is_ours_first_and_the_libraries_last() {
        let options = |verbosity| LogOptions { verbosity, ..LogOptions::default() };
        assert_eq!(shows(&options(0)), ["ours info", "kernel info"]);
        assert_eq!(shows(&options(1)), ["ours info", "ours debug", "kernel info"]);
        assert_eq!(shows(&options(2)).len(), 7);
    }

    #[test]
    fn rust_log_wins() {
        let options = |text: &str| LogOptions { directives: Some(text.to_owned()), ..LogOptions::default() };
        assert_eq!(shows(&options("warn,opentelemetry=warn")), ["otel warn", "otel error", "kernel info"]);
        let bad = options("synfin=loud=very");
        assert_eq!(shows(&bad), ["ours info", "kernel info"]);
        assert!(filter(&bad).1.unwrap().starts_with("RUST_LOG has no effect: "));
    }

    #[test]
    fn json_lines_are_flat_objects_with_rfc_3339_times() {
        let text = log(&LogOptions { format: LogFormat::Json, ..LogOptions::default() });
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!((line["level"].as_str(), line["count"].as_i64()), (Some("INFO"), Some(3)));
        assert!(line["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    }

    #[test]
    fn text_has_no_colour_unless_wanted() {
        let plain = LogOptions::default();
        assert!(!log(&plain).contains('\u{1b}'));
        assert!(log(&LogOptions { color: true, ..plain }).contains('\u{1b}'));
        let first = log(&LogOptions::default());
        assert!(first.split_whitespace().next().unwrap().parse::<jiff::Timestamp>().is_ok());
    }
}
