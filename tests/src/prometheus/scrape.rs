//! One answer of `/metrics`, read strictly.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};

/// Characters that names and values of an exemplar's labels may have together, by OpenMetrics.
const MOST_OF_EXEMPLAR: usize = 128;

/// An example of a bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
    /// Its time, seconds since the Unix epoch.
    pub time: f64,
}

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name as written.
    pub name: String,
    /// Labels but for those of the scope.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
    /// With its example.
    pub exemplar: Option<Exemplar>,
}

/// A family as it is announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Family {
    kind: String,
    unit: Option<String>,
    help: Option<String>,
}

/// Everything of one answer.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// The answer itself.
    pub text: String,
    /// Series in their order.
    pub samples: Vec<Sample>,
    families: BTreeMap<String, Family>,
}

impl Scrape {
    /// Reads an answer in OpenMetrics or in the older format; anything odd is an error.
    pub fn parse(text: &str, open: bool) -> Result<Self> {
        ensure!(text.ends_with('\n') && !text.contains('\r'), "lines do not end in a line feed");
        ensure!(text.ends_with("\n# EOF\n") == open, "`# EOF` is not where it belongs");
        let body = if open { text.trim_end_matches("# EOF\n") } else { text };
        let mut scrape = Self { text: text.to_owned(), samples: Vec::new(), families: BTreeMap::new() };
        let mut met = BTreeSet::new();
        let mut current = String::new();
        for line in body.lines() {
            if let Some(about) = line.strip_prefix("# ") {
                scrape.announce(about, &mut current).with_context(|| format!("in {line:?}"))?;
                continue;
            }
            let sample = sample(line).with_context(|| format!("in {line:?}"))?;
            let family = scrape.families.get(&current).with_context(|| format!("no family before {line:?}"))?;
            check(&current, family, &sample, open).with_context(|| format!("in {line:?}"))?;
            let identity = (sample.name.clone(), sample.labels.clone());
            ensure!(met.insert(identity), "{line:?} comes twice");
            scrape.samples.push(sample);
        }
        for (name, family) in &scrape.families {
            ensure!(family.help.as_ref().is_some_and(|help| !help.is_empty()), "{name} has no help");
        }
        scrape.histograms()?;
        Ok(scrape)
    }

    fn announce(&mut self, about: &str, current: &mut String) -> Result<()> {
        let (keyword, rest) = about.split_once(' ').context("a comment")?;
        let (name, value) = rest.split_once(' ').context("a comment without a value")?;
        if keyword == "TYPE" {
            name.clone_into(current);
            let family = Family { kind: value.to_owned(), ..Family::default() };
            ensure!(self.families.insert(name.to_owned(), family).is_none(), "a family comes twice");
            return Ok(());
        }
        ensure!(name == current, "about another family than {current}");
        let family = self.families.get_mut(name).context("no family")?;
        let place = match keyword {
            "UNIT" => &mut family.unit,
            "HELP" => &mut family.help,
            _ => bail!("a comment"),
        };
        ensure!(place.replace(value.to_owned()).is_none(), "said twice");
        Ok(())
    }

    /// Buckets rise, and the last one is the count.
    fn histograms(&self) -> Result<()> {
        for (name, _) in self.families.iter().filter(|(_, family)| family.kind == "histogram") {
            let counts: Vec<&Sample> = self.of(&format!("{name}_count")).collect();
            ensure!(!counts.is_empty(), "{name} has no series");
            for count in counts {
                let buckets = self.buckets(name, &count.labels)?;
                let (bounds, values): (Vec<f64>, Vec<f64>) =
                    buckets.iter().map(|(bound, sample)| (*bound, sample.value)).unzip();
                ensure!(bounds.is_sorted_by(|one, next| one < next), "bounds of {name}: {bounds:?}");
                ensure!(bounds.last() == Some(&f64::INFINITY), "bounds of {name}: {bounds:?}");
                ensure!(values.is_sorted() && values.last() == Some(&count.value), "{name}: {values:?} {count:?}");
                let mut below = 0.0;
                for (bound, sample) in &buckets {
                    let out = |exemplar: &&Exemplar| exemplar.value <= below || exemplar.value > *bound;
                    let out = sample.exemplar.as_ref().filter(out);
                    ensure!(out.is_none(), "{name}: {out:?} is not between {below} and {bound}");
                    below = *bound;
                }
                let sum = self.of(&format!("{name}_sum")).find(|sum| sum.labels == count.labels);
                ensure!(sum.is_some_and(|sum| sum.value >= 0.0), "{name}: no sum");
            }
        }
        Ok(())
    }

    /// Buckets of one series with their bounds, as written.
    pub fn buckets(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<Vec<(f64, &Sample)>> {
        let mut buckets = Vec::new();
        for sample in self.of(&format!("{name}_bucket")) {
            let mut own = sample.labels.clone();
            let bound = own.remove("le").context("a bucket without a bound")?;
            if own == *labels {
                buckets.push((number(&bound)?, sample));
            }
        }
        Ok(buckets)
    }

    /// Series of a name.
    pub fn of(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.name == name)
    }

    /// Sum of the series that have all these labels.
    pub fn sum(&self, name: &str, wanted: &[(&str, &str)]) -> f64 {
        let has = |sample: &&Sample| {
            wanted.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|found| found == value))
        };
        self.of(name).filter(has).map(|sample| sample.value).sum()
    }

    /// Every example.
    pub fn exemplars(&self) -> impl Iterator<Item = &Exemplar> {
        self.samples.iter().filter_map(|sample| sample.exemplar.as_ref())
    }
}

/// A series against its family.
fn check(name: &str, family: &Family, sample: &Sample, open: bool) -> Result<()> {
    let suffixes: &[&str] = match (family.kind.as_str(), open) {
        ("counter", true) => &["_total"],
        ("counter", false) => {
            ensure!(name.ends_with("_total"), "a counter without `_total`");
            &[""]
        }
        ("gauge", _) => &[""],
        ("histogram", _) => &["_bucket", "_count", "_sum"],
        ("info", true) => &["_info"],
        (other, _) => bail!("type {other}"),
    };
    let suffix = sample.name.strip_prefix(name).context("a series of another family")?;
    ensure!(suffixes.contains(&suffix), "a {} ends in {suffix:?}", family.kind);
    if let Some(unit) = &family.unit {
        ensure!(open && name.ends_with(&format!("_{unit}")), "unit {unit} of {name}");
    }
    if let Some(exemplar) = &sample.exemplar {
        ensure!(open && suffix == "_bucket", "an example that is out of place");
        let length: usize =
            exemplar.labels.iter().map(|(key, value)| key.chars().count() + value.chars().count()).sum();
        ensure!(length <= MOST_OF_EXEMPLAR, "an example of {length} characters");
    }
    ensure!(family.kind == "gauge" || sample.value >= 0.0, "{} below zero", sample.value);
    Ok(())
}

fn sample(line: &str) -> Result<Sample> {
    let (bare, exemplar) = match line.split_once(" # ") {
        Some((bare, exemplar)) => (bare, Some(self::exemplar(exemplar)?)),
        None => (line, None),
    };
    let (name, rest) = bare.split_at(bare.find(['{', ' ']).context("no value")?);
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    ensure!(name.bytes().all(good) && name.starts_with(|first: char| first.is_ascii_lowercase()), "name {name}");
    ensure!(!name.contains("__"), "name {name}");
    let (mut labels, rest) = labels(rest)?;
    if name != "target_info" {
        let scope = ["otel_scope_name", "otel_scope_version", "otel_scope_schema_url"].map(|key| labels.remove(key));
        ensure!(scope[0].as_deref() == Some("synfin") && scope.iter().all(Option::is_some), "scope {scope:?}");
    }
    let value = number(rest.strip_prefix(' ').context("no value")?)?;
    Ok(Sample { name: name.to_owned(), labels, value, exemplar })
}

fn exemplar(text: &str) -> Result<Exemplar> {
    let (labels, rest) = labels(text)?;
    let mut words = rest.split_whitespace();
    let (value, time) = (words.next().context("a value")?, words.next().context("a time")?);
    ensure!(words.next().is_none(), "more than an example");
    Ok(Exemplar { labels, value: number(value)?, time: number(time)? })
}

/// `{a="b",c="d"}`, and what follows.
fn labels(text: &str) -> Result<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    let Some(mut rest) = text.strip_prefix('{') else { return Ok((labels, text)) };
    loop {
        let (name, after) = rest.split_once("=\"").context("a label")?;
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        ensure!(!name.is_empty() && name.bytes().all(good), "label {name:?}");
        let mut value = String::new();
        let mut letters = after.char_indices();
        let end = loop {
            match letters.next().context("a label without an end")? {
                (at, '"') => break at,
                (_, '\\') => value.push(match letters.next().context("an escape")?.1 {
                    'n' => '\n',
                    letter @ ('\\' | '"') => letter,
                    other => bail!("escape \\{other}"),
                }),
                (_, letter) => value.push(letter),
            }
        };
        ensure!(labels.insert(name.to_owned(), value).is_none(), "label {name} twice");
        rest = &after[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return Ok((labels, rest.strip_prefix('}').context("labels without an end")?)),
        }
    }
}

fn number(text: &str) -> Result<f64> {
    match text {
        "+Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        "NaN" => bail!("not a number"),
        _ => text.parse().with_context(|| format!("number {text:?}")),
    }
}
