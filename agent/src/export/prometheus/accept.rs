//! Which format an `Accept` header asks for.

use super::text::Format;

/// The format for this header. Whoever does not ask for OpenMetrics gets the older format, which every reader takes: also
/// who asks for something else altogether, as a browser does.
pub fn negotiate(accept: &str) -> Format {
    let ranges: Vec<Range<'_>> = accept.split(',').map(Range::parse).collect();
    let best = |wanted: &dyn Fn(&Range<'_>) -> bool| {
        ranges.iter().filter(|range| wanted(range)).map(|range| range.quality).fold(0.0, f64::max)
    };
    let open = best(&|range| range.is_open_metrics());
    let text = best(&|range| range.media == "text/plain");
    if open > 0.0 && open >= text { Format::OpenMetrics } else { Format::Text }
}

/// One of the things that are accepted.
struct Range<'a> {
    media: String,
    version: Option<&'a str>,
    quality: f64,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut version, mut quality) = (None, 1.0);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "version" => version = Some(value),
                // What is no number is no wish.
                "q" => quality = value.parse().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0),
                _ => {}
            }
        }
        Self { media, version, quality }
    }

    /// Version 0.0.1 is Prometheus' draft of it; one who takes no other gets the text format.
    fn is_open_metrics(&self) -> bool {
        self.media == "application/openmetrics-text" && self.version.is_none_or(|version| version == "1.0.0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_answered() {
        for (accept, format) in [
            // Prometheus 2 and 3.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text ; Version=\"1.0.0\" ; Q=0.2", Format::OpenMetrics),
            ("text/plain;q=0.9, application/openmetrics-text;version=1.0.0;q=0.5", Format::Text),
            ("application/openmetrics-text;version=0.0.1", Format::Text),
            ("application/openmetrics-text;version=2.0.0", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=much", Format::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text),
            ("*/*", Format::Text),
            ("", Format::Text),
            (",;=;,q=", Format::Text),
        ] {
            assert_eq!(negotiate(accept), format, "{accept}");
        }
    }
}
