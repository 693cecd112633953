//! What `synfin run` sends over TLS and compressed, before the strict receiver.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use synfin_tests::{
    load,
    otlp::{
        Receiver, Via,
        judge::Judge,
        tls::{Authority, Pair, server},
    },
    stage::{Family, Link, Stage},
    synfin::{Synfin, command},
};

/// Connections of one burst; each has two ends, so two spans.
const COUNT: u64 = 5;
const SENDING: Duration = Duration::from_secs(30);

const PROTOCOLS: [(&str, Via); 2] = [("grpc", Via::Grpc), ("http/protobuf", Via::Http)];

/// Name of the authority of the endpoint.
const OURS: &str = "ours";

/// The authorities of the endpoint and of its clients, and what both issued.
struct Trust {
    ours: Authority,
    clients: Authority,
    endpoint: Pair,
    client: Pair,
}

impl Trust {
    fn new() -> Result<Self> {
        let (ours, clients) = (Authority::new(OURS)?, Authority::new("clients")?);
        let (endpoint, client) = (ours.server()?, clients.client()?);
        Ok(Self { ours, clients, endpoint, client })
    }

    /// The variables of an agent that knows all of it.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let path = |path: &std::path::Path| path.display().to_string();
        vec![
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", path(&self.ours.certificate())),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", path(&self.client.certificate)),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", path(&self.client.key)),
        ]
    }
}

fn serve(receiver: &Receiver, stage: &Stage, protocol: &str, variables: &[(&str, String)]) -> Result<Synfin> {
    let endpoint = receiver.endpoint();
    let flags = ["--otlp-endpoint", &endpoint, "--otlp-protocol", protocol];
    Synfin::serve_with(stage.namespaces(), &flags, variables)
}

fn all_spans(judge: &Judge) -> Result<()> {
    judge.verdict()?;
    ensure!(judge.spans.len() as u64 == 2 * COUNT, "{}", judge.summary());
    Ok(())
}

/// Both ends show certificates that the other trusts; bodies are compressed, and said to be.
#[test]
fn trusted_both_ways_and_compressed() -> Result<()> {
    let trust = Trust::new()?;
    let receiver = || Receiver::start_tls(server(&trust.endpoint, Some(&trust.clients))?);
    for (protocol, via) in [PROTOCOLS[0], PROTOCOLS[1], ("http/json", Via::Json)] {
        for compression in ["gzip", "zstd"] {
            let (receiver, stage) = (receiver()?, Stage::new(Family::V4, Link::Loopback)?);
            let mut variables = trust.variables();
            variables.push(("OTEL_EXPORTER_OTLP_COMPRESSION", compression.to_owned()));
            let synfin = serve(&receiver, &stage, protocol, &variables)?;
            load::connections(&stage, COUNT)?;
            synfin.terminate()?;
            receiver.look(|judge| {
                all_spans(judge)?;
                let requests: u64 = judge.requests.values().sum();
                let packed = judge.encodings.get(&(via, compression.to_owned())).copied().unwrap_or_default();
                ensure!(packed == requests && judge.encodings.len() == 1, "{:?}, {requests}", judge.encodings);
                ensure!(judge.requests.keys().all(|(_, used)| *used == via), "{}", judge.summary());
                ensure!(judge.series.names().count() > 0, "no metrics; {}", judge.summary());
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// JSON as it is, judged by the rules of OTLP/JSON.
#[test]
fn json() -> Result<()> {
    let (receiver, stage) = (Receiver::start()?, Stage::new(Family::V6, Link::Loopback)?);
    let synfin = serve(&receiver, &stage, "http/json", &[])?;
    load::connections(&stage, COUNT)?;
    synfin.terminate()?;
    receiver.look(|judge| {
        all_spans(judge)?;
        ensure!(judge.requests.keys().all(|(_, used)| *used == Via::Json), "{}", judge.summary());
        ensure!(judge.series.names().count() > 0, "{}", judge.summary());
        Ok(())
    })
}

/// The endpoint shows a certificate of an authority that is not ours, of another name or of the same: it is told,
/// nothing is sent, and everything waits until the endpoint shows the right one.
#[test]
fn wrong_authority() -> Result<()> {
    for ((protocol, _), name) in PROTOCOLS.into_iter().zip(["stranger", OURS]) {
        let (trust, stranger) = (Trust::new()?, Authority::new(name)?);
        let receiver = Receiver::start_tls(server(&stranger.server()?, None)?)?;
        refused_until(
            receiver,
            protocol,
            &trust.variables(),
            "signed by no authority that is trusted here: name its authority by otlp.certificate",
            || server(&trust.endpoint, Some(&trust.clients)),
        )?;
    }
    Ok(())
}

/// The endpoint wants a certificate that the agent does not have, and later does without.
#[test]
fn client_certificate_is_missing() -> Result<()> {
    for (protocol, _) in PROTOCOLS {
        let trust = Trust::new()?;
        let receiver = Receiver::start_tls(server(&trust.endpoint, Some(&trust.clients))?)?;
        refused_until(
            receiver,
            protocol,
            &trust.variables()[..1],
            // By the server's alert, or in a doubt where its closing the connection has overtaken that.
            "to see a certificate of the agent",
            || server(&trust.endpoint, None),
        )?;
    }
    Ok(())
}

fn refused_until(
    mut receiver: Receiver,
    protocol: &str,
    variables: &[(&str, String)],
    why: &str,
    right: impl FnOnce() -> Result<Arc<tokio_rustls::rustls::ServerConfig>>,
) -> Result<()> {
    let stage = Stage::new(Family::V4, Link::Loopback)?;
    let mut synfin = serve(&receiver, &stage, protocol, variables)?;
    load::connections(&stage, COUNT)?;
    synfin.await_stderr(why, |line| line.contains("OTLP export fails") && line.contains(why))?;
    receiver.look(|judge| {
        ensure!(judge.requests.is_empty() && judge.refused == 0, "{protocol}: {}", judge.summary());
        Ok(())
    })?;
    ensure!(synfin.alive()?, "the agent ended");
    receiver.change_tls(right()?)?;
    receiver.await_received(SENDING, "what waited", |judge| all_spans(judge).is_ok())?;
    synfin.terminate()?;
    receiver.look(all_spans)
}

/// Nothing is started with files that cannot work.
#[test]
fn files_are_checked_at_the_start() -> Result<()> {
    let trust = Trust::new()?;
    let key = std::fs::read_to_string(&trust.client.key)?;
    for (name, path, part) in [
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem".into(), "there is no such file"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", trust.client.certificate.clone(), "holds no private key in PEM"),
        (
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
            trust.endpoint.certificate.clone(),
            "is not the certificate of the key",
        ),
    ] {
        let mut run = command(["run", "--otlp-endpoint", "https://127.0.0.1:1"])?;
        run.envs(trust.variables()).env(name, &path);
        let ended = Synfin::spawn(run)?.wait()?;
        ended.expect(2)?;
        let said = ended.stderr.join("\n");
        for part in [&format!("= {} (env {name})", path.display()), part] {
            ensure!(said.contains(part), "{part} is missing in {said}");
        }
        let leaked = key.lines().filter(|line| !line.starts_with('-')).find(|line| said.contains(*line));
        ensure!(leaked.is_none(), "a piece of the key is in {said}");
    }
    Ok(())
}
