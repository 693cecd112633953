//! Collects the settings of all sources, lowest precedence first.

use std::path::{Path, PathBuf};

use super::fields::FIELDS;
use super::problem::{ConfigErrors, Problem};
use super::setting::{Origin, Setting};
use super::{Config, build, file, variables};

/// Where settings come from.
pub struct Sources<'a> {
    /// The file to read, see [`super::choose_file`].
    pub file: Option<PathBuf>,
    /// Looks up an environment variable: a parameter, so that tests need not change the environment of the process.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The names of all environment variables, so that none of ours is misspelt unnoticed.
    pub names: Vec<String>,
    /// From the command line.
    pub flags: Vec<Setting>,
}

impl std::fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("file", &self.file).field("flags", &self.flags).finish_non_exhaustive()
    }
}

/// What loading gives.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration in effect.
    pub config: Config,
    /// What is odd but no error, for the log.
    pub warnings: Vec<String>,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

pub(super) fn load(sources: &Sources<'_>) -> Result<Loaded, ConfigErrors> {
    let mut settings = Vec::new();
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    if let Some(path) = &sources.file {
        file::read(Path::new(path), &mut settings, &mut problems);
    }
    // OpenTelemetry: an empty variable is as good as none.
    let env = |name: &str| (sources.env)(name).filter(|value| !value.trim().is_empty());
    problems.extend(sources.names.iter().filter_map(|name| variables::unknown(name, &env)));
    sampler(&env, &mut settings, &mut problems);
    settings.extend(env(QUEUE).map(|items| Setting::env("otlp.queue", QUEUE, &items)));
    settings.extend(
        FIELDS.iter().filter_map(|field| env(field.env).map(|value| Setting::env(field.path, field.env, &value))),
    );
    settings.extend(sources.flags.iter().cloned());
    for &(name, advice) in UNSUPPORTED {
        if env(name).is_some_and(|value| !["cumulative", "explicit_bucket_histogram"].contains(&value.as_str())) {
            warnings.push(format!("{name} has no effect: {advice}"));
        }
    }

    let config = build::build(&settings, &mut problems, &mut warnings);
    ConfigErrors::unless_empty(problems)?;
    Ok(Loaded { config, warnings, file: sources.file.clone() })
}

/// OpenTelemetry's name for what has one of ours too, which wins.
const QUEUE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";

/// Why nobody has to limit what a span or a log record holds.
const BOUNDED: &str =
    "spans and log records hold a few dozen short attributes, a handful of events and one link at most";
/// Why an export has no end beside that of each attempt.
const TRIED_AGAIN: &str = "each attempt has otlp.timeout, and what waits is tried again until otlp.max_age";

/// Standard variables whose being ignored would surprise somebody.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("OTEL_METRIC_EXPORT_TIMEOUT", "each attempt has otlp.timeout, and the next export tells the same again"),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "exemplars are always those connections whose spans are sent"),
    ("OTEL_BSP_EXPORT_TIMEOUT", TRIED_AGAIN),
    ("OTEL_BLRP_EXPORT_TIMEOUT", TRIED_AGAIN),
    ("OTEL_ATTRIBUTE_COUNT_LIMIT", BOUNDED),
    ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", BOUNDED),
    ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", BOUNDED),
    ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", BOUNDED),
    ("OTEL_SPAN_EVENT_COUNT_LIMIT", BOUNDED),
    ("OTEL_SPAN_LINK_COUNT_LIMIT", BOUNDED),
    ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", BOUNDED),
    ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", BOUNDED),
    ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", BOUNDED),
    ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", BOUNDED),
    ("OTEL_CONFIG_FILE", "synfin reads its own file, see --config"),
];

/// OpenTelemetry's pair of variables for what is one ratio here.
fn sampler(env: &impl Fn(&str) -> Option<String>, settings: &mut Vec<Setting>, problems: &mut Vec<Problem>) {
    const FIELD: &str = "otlp.trace_sample_ratio";
    const NAME: &str = "OTEL_TRACES_SAMPLER";
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    let Some(value) = env(NAME) else { return };
    match value.trim().trim_start_matches("parentbased_") {
        "always_on" => settings.push(Setting::env(FIELD, NAME, "1")),
        "always_off" => settings.push(Setting::env(FIELD, NAME, "0")),
        "traceidratio" => settings.extend(env(ARGUMENT).map(|ratio| Setting::env(FIELD, ARGUMENT, &ratio))),
        _ => problems.push(Problem {
            field: FIELD.to_owned(),
            value: Some(value),
            origin: Some(Origin::Env(NAME)),
            message: "not a sampler of synfin; use always_on, always_off or traceidratio with OTEL_TRACES_SAMPLER_ARG"
                .to_owned(),
        }),
    }
}
