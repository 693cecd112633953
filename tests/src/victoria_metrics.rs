//! VictoriaMetrics, a real backend of metrics: takes OTLP over HTTP and answers PromQL.

use std::{
    collections::BTreeMap,
    env,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{deadline, http, lines::Lines};

const PROGRAM: &str = "victoria-metrics";

/// Where `cargo xtask setup --tests` leads to the program that it fetched.
const FETCHED: &str = "../target/tools/victoria-metrics";

/// A running server with data of its own; both are gone when it is dropped.
#[derive(Debug)]
pub struct VictoriaMetrics {
    child: Child,
    address: SocketAddr,
    said: Lines,
    _data: TempDir,
}

/// A series of an answer: its labels and its value.
pub type Sample = (BTreeMap<String, String>, f64);

impl VictoriaMetrics {
    /// Starts one on a free loopback port and waits until it answers.
    pub fn start() -> Result<Self> {
        let data = TempDir::new()?;
        // It cannot be told to take any port: this one was free a moment ago.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = Command::new(program()?);
        command
            .arg(format!("-httpListenAddr={address}"))
            .arg(format!("-storageDataPath={}", data.path().display()))
            // Points are told as soon as they can be found, and not half a minute later.
            .arg("-search.latencyOffset=0s")
            .arg("-memory.allowedBytes=128MiB")
            .args(["-retentionPeriod=1d", "-search.disableCache"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let said = Lines::read(child.stderr.take().context("stderr was piped")?);
        let mut server = Self { child, address, said, _data: data };
        deadline::until("VictoriaMetrics to answer", || {
            if let Some(status) = server.child.try_wait()? {
                bail!("VictoriaMetrics ended with {status}");
            }
            Ok(http::get(address, "/health").is_ok().then_some(()))
        })
        .with_context(|| format!("it says:\n{}", server.said.all().join("\n")))?;
        Ok(server)
    }

    /// Where metrics go: an endpoint of that signal alone.
    pub fn metrics_endpoint(&self) -> String {
        format!("http://{}/opentelemetry/v1/metrics", self.address)
    }

    /// The answer to a PromQL query about this moment.
    pub fn query(&self, promql: &str) -> Result<Vec<Sample>> {
        let answer = http::get(self.address, &format!("/api/v1/query?query={}", percent(promql)))?;
        let answer: Value = serde_json::from_str(&answer)?;
        ensure!(answer["status"] == "success", "{promql}: {answer}");
        let series = answer["data"]["result"].as_array().with_context(|| format!("{promql}: {answer}"))?;
        series.iter().map(|series| sample(series).with_context(|| format!("{promql}: {series}"))).collect()
    }

    /// The one value of a query's answer; None while there is no point yet.
    pub fn value(&self, promql: &str) -> Result<Option<f64>> {
        let answer = self.query(promql)?;
        ensure!(answer.len() <= 1, "{promql} gives {} series", answer.len());
        Ok(answer.first().map(|(_, value)| *value))
    }
}

impl Drop for VictoriaMetrics {
    fn drop(&mut self) {
        // Not after wait(): the pid may be another's by then.
        if let Ok(None) = self.child.try_wait() {
            // It would take its time to save what nobody wants.
            kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL).ok();
            self.child.wait().ok();
        }
    }
}

/// The program: on the PATH, else where it was fetched to.
fn program() -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join(FETCHED);
    let all = env::split_paths(&path).map(|folder| folder.join(PROGRAM)).chain([fetched]);
    all.into_iter().find(|program| program.is_file()).with_context(|| {
        format!(
            "needs the program `{PROGRAM}` (Debian package {PROGRAM}), which is neither on the PATH nor at target/tools: \
             `cargo xtask setup --tests` fetches it"
        )
    })
}

/// `{"metric":{"label":"value",…},"value":[time,"number"]}`.
fn sample(series: &Value) -> Result<Sample> {
    let labels = series["metric"].as_object().context("labels")?;
    let labels = labels.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
    let value = series["value"][1].as_str().context("a value")?.parse()?;
    Ok((labels.collect(), value))
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |encoded, byte| encoded + &format!("%{byte:02X}"))
}
