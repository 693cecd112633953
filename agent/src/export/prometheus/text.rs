//! Text as Prometheus reads it, line by line: OpenMetrics 1.0, and the older text format 0.0.4.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::names::{Kind, label};
use crate::distribution::{Example, Histogram};
use crate::export::attribute::{Attribute, Value};

/// The two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0, with examples.
    OpenMetrics,
    /// The text format 0.0.4, which every reader knows.
    Text,
}

impl Format {
    /// Its `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Labels, written: `a="b",c="d"` without braces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(String);

impl Labels {
    /// Of these attributes. Keys that become one label share it: their values in the order of the keys, with `;` between.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, Cow<'a, str>)>) -> Self {
        let pairs: BTreeMap<&str, Cow<'_, str>> = pairs.into_iter().collect();
        let mut labels: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in pairs {
            labels
                .entry(label(key))
                .and_modify(|values| {
                    values.push(';');
                    values.push_str(&value);
                })
                .or_insert_with(|| value.clone().into_owned());
        }
        let mut text = String::new();
        for (name, value) in labels {
            if !text.is_empty() {
                text.push(',');
            }
            // Writing to a String cannot fail.
            _ = write!(text, "{name}=\"");
            escape(&mut text, &value, true);
            text.push('"');
        }
        Self(text)
    }

    /// Those of a point, of whom it tells among them, with these behind them.
    pub fn of_point<'a>(
        attributes: &'a [Attribute<'a>],
        owner: impl Iterator<Item = (&'static str, &'a str)>,
        more: &Self,
    ) -> Self {
        let own = attributes.iter().map(|(key, value)| (*key, shown(*value)));
        let Self(mut text) = Self::of(owner.map(|(key, value)| (key, Cow::Borrowed(value))).chain(own));
        if !text.is_empty() && !more.0.is_empty() {
            text.push(',');
        }
        text.push_str(&more.0);
        Self(text)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A value as a label has it.
fn shown(value: Value<'_>) -> Cow<'_, str> {
    match value {
        Value::Text(text) => text.into(),
        Value::Flag(flag) => flag.to_string().into(),
        Value::Integer(integer) => integer.to_string().into(),
        Value::Real(real) => float(real).into(),
    }
}

/// A family: what is said about it once, before its series.
#[derive(Clone, Copy, Debug)]
pub struct Family<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is.
    pub kind: Kind,
    /// Its unit in words.
    pub unit: Option<&'a str>,
    /// What it tells, for people.
    pub help: &'a str,
}

/// Writes one answer.
#[derive(Debug)]
pub struct Writer {
    format: Format,
    text: String,
}

impl Writer {
    /// Begins one.
    pub const fn new(format: Format) -> Self {
        Self { format, text: String::new() }
    }

    /// Whether nothing is written.
    pub const fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Adds what another has written.
    pub fn append(&mut self, other: &Self) {
        self.text.push_str(&other.text);
    }

    /// Head of a family.
    pub fn head(&mut self, family: Family<'_>) {
        let Family { name, kind, unit, help } = family;
        // In the older format, series of a counter have the name of their family.
        let suffix = if self.format == Format::Text && kind == Kind::Counter { "_total" } else { "" };
        let unit = unit.filter(|_| self.format == Format::OpenMetrics);
        self.about(&format!("{name}{suffix}"), kind.name(), unit, help);
    }

    /// A family of one series that is always 1: its labels are what it tells.
    pub fn info(&mut self, name: &str, help: &str, labels: &Labels) {
        match self.format {
            Format::OpenMetrics => self.about(name, "info", None, help),
            Format::Text => self.about(&format!("{name}_info"), "gauge", None, help),
        }
        self.line(name, "_info", labels, None, "1");
        self.text.push('\n');
    }

    fn about(&mut self, name: &str, kind: &str, unit: Option<&str>, help: &str) {
        _ = writeln!(self.text, "# TYPE {name} {kind}");
        if let Some(unit) = unit {
            _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
        _ = write!(self.text, "# HELP {name} ");
        escape(&mut self.text, help, self.format == Format::OpenMetrics);
        self.text.push('\n');
    }

    /// A series of a counter or a gauge.
    pub fn number(&mut self, family: Family<'_>, labels: &Labels, value: &str) {
        let suffix = if family.kind == Kind::Counter { "_total" } else { "" };
        self.line(family.name, suffix, labels, None, value);
        self.text.push('\n');
    }

    /// The series of a histogram.
    pub fn histogram(&mut self, family: Family<'_>, labels: &Labels, bounds: &[f64], histogram: &Histogram) {
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        let mut count = 0;
        for (bound, bucket) in bounds.zip(&histogram.buckets) {
            count += bucket.count;
            let bound = self.bound(bound);
            self.line(family.name, "_bucket", labels, Some(&bound), &count.to_string());
            if let Some(example) = bucket.example.as_deref().filter(|_| self.format == Format::OpenMetrics) {
                self.example(*example);
            }
            self.text.push('\n');
        }
        self.line(family.name, "_count", labels, None, &count.to_string());
        self.text.push('\n');
        self.line(family.name, "_sum", labels, None, &float(histogram.sum()));
        self.text.push('\n');
    }

    /// OpenMetrics wants its numbers to look like those of a float.
    fn bound(&self, bound: f64) -> String {
        match self.format {
            _ if bound.is_infinite() => "+Inf".to_owned(),
            Format::OpenMetrics => format!("{bound:?}"),
            Format::Text => bound.to_string(),
        }
    }

    fn line(&mut self, family: &str, suffix: &str, labels: &Labels, bound: Option<&str>, value: &str) {
        _ = write!(self.text, "{family}{suffix}");
        if !labels.is_empty() || bound.is_some() {
            self.text.push('{');
            self.text.push_str(&labels.0);
            if let Some(bound) = bound {
                let comma = if labels.is_empty() { "" } else { "," };
                _ = write!(self.text, "{comma}le=\"{bound}\"");
            }
            self.text.push('}');
        }
        _ = write!(self.text, " {value}");
    }

    fn example(&mut self, Example { value, unix_ns, place }: Example) {
        let (trace, span) = (u128::from_be_bytes(place.trace), u64::from_be_bytes(place.span));
        let (seconds, millis) = (unix_ns / 1_000_000_000, unix_ns / 1_000_000 % 1_000);
        _ = write!(
            self.text,
            " # {{trace_id=\"{trace:032x}\",span_id=\"{span:016x}\"}} {} {seconds}.{millis:03}",
            float(value)
        );
    }

    /// The whole answer.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// A float as both formats write it.
pub fn float(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

fn escape(to: &mut String, text: &str, quotes: bool) {
    for letter in text.chars() {
        match letter {
            '\\' => to.push_str("\\\\"),
            '\n' => to.push_str("\\n"),
            '"' if quotes => to.push_str("\\\""),
            _ => to.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::{Bucket, Place};

    fn labels(pairs: &[(&'static str, &'static str)]) -> Labels {
        let pairs: Vec<Attribute<'_>> = pairs.iter().map(|(key, value)| (*key, Value::Text(value))).collect();
        Labels::of_point(&pairs, std::iter::empty(), &Labels::default())
    }

    const HOSTILE: &str = "a\"b\\c\nd é";

    #[test]
    fn values_of_labels_are_escaped() {
        assert_eq!(labels(&[("a.b", HOSTILE)]).0, "a_b=\"a\\\"b\\\\c\\nd é\"");
        assert_eq!(labels(&[]).0, "");
    }

    #[test]
    fn keys_that_become_one_label_share_it() {
        assert_eq!(labels(&[("a_b", "2"), ("a.b", "1"), ("c", "3")]).0, "a_b=\"1;2\",c=\"3\"");
    }

    #[test]
    fn help_is_escaped_by_the_rules_of_the_format() {
        let family = Family { name: "x", kind: Kind::Gauge, unit: None, help: HOSTILE };
        for (format, help) in [(Format::OpenMetrics, "a\\\"b\\\\c\\nd é"), (Format::Text, "a\"b\\\\c\\nd é")] {
            let mut writer = Writer::new(format);
            writer.head(family);
            let text = writer.finish();
            assert!(text.contains(&format!("# HELP x {help}\n")), "{text}");
        }
    }

    #[test]
    fn a_counter_has_its_suffix_where_the_format_wants_it() {
        let family = Family { name: "x_seconds", kind: Kind::Counter, unit: Some("seconds"), help: "X." };
        let write = |format| {
            let mut writer = Writer::new(format);
            writer.head(family);
            writer.number(family, &labels(&[("a", "b")]), &float(1.5));
            writer.number(family, &labels(&[]), "7");
            writer.info("target", "T.", &labels(&[("a", "b")]));
            writer.finish()
        };
        assert_eq!(
            write(Format::OpenMetrics),
            "# TYPE x_seconds counter\n# UNIT x_seconds seconds\n# HELP x_seconds X.\n\
             x_seconds_total{a=\"b\"} 1.5\nx_seconds_total 7\n\
             # TYPE target info\n# HELP target T.\ntarget_info{a=\"b\"} 1\n# EOF\n"
        );
        assert_eq!(
            write(Format::Text),
            "# TYPE x_seconds_total counter\n# HELP x_seconds_total X.\n\
             x_seconds_total{a=\"b\"} 1.5\nx_seconds_total 7\n\
             # TYPE target_info gauge\n# HELP target_info T.\ntarget_info{a=\"b\"} 1\n"
        );
    }

    #[test]
    fn buckets_add_up_and_have_examples() {
        let place = Place { trace: [0xab; 16], span: [0, 0, 0, 0, 0, 0, 0, 9] };
        let example = Example { value: 0.75, unix_ns: 1_700_000_000_042_000_000, place };
        let buckets = [
            Bucket { count: 2, example: None },
            Bucket { count: 3, example: Some(Box::new(example)) },
            Bucket::default(),
        ];
        let histogram = Histogram { buckets: buckets.into(), sum_ns: 2_500_000_000, exponential: None };
        let family = Family { name: "d", kind: Kind::Histogram, unit: None, help: "D." };
        let write = |format, labels: &Labels| {
            let mut writer = Writer::new(format);
            writer.histogram(family, labels, &[0.5, 1.0], &histogram);
            writer.finish()
        };
        assert_eq!(
            write(Format::OpenMetrics, &labels(&[("r", "c")])),
            "d_bucket{r=\"c\",le=\"0.5\"} 2\n\
             d_bucket{r=\"c\",le=\"1.0\"} 5 # {trace_id=\"abababababababababababababababab\",span_id=\"0000000000000009\"} 0.75 1700000000.042\n\
             d_bucket{r=\"c\",le=\"+Inf\"} 5\nd_count{r=\"c\"} 5\nd_sum{r=\"c\"} 2.5\n# EOF\n"
        );
        assert_eq!(
            write(Format::Text, &labels(&[])),
            "d_bucket{le=\"0.5\"} 2\nd_bucket{le=\"1\"} 5\nd_bucket{le=\"+Inf\"} 5\nd_count 5\nd_sum 2.5\n"
        );
    }

    #[test]
    fn numbers_that_are_none() {
        assert_eq!([f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.1].map(float), ["NaN", "+Inf", "-Inf", "0.1"]);
    }
}
