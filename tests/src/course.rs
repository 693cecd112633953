//! One connection and what `synfin watch --json --connections` told of it, where a [`crate::recording::Recording`] would ask too
//! much: some kernels, and some builds of them, let synfin tell no more than this.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    scenario::{Ends, close},
    sock,
    stage::Stage,
    synfin::Synfin,
};

/// What was told beside the course itself.
#[derive(Debug)]
pub struct Course {
    /// The client's last transition.
    pub last: Value,
    /// How the connection ended, for both ends in alphabetical order.
    pub ends: Vec<String>,
    /// How the client's end must have ended, where everything can be told.
    pub client: Ends,
    /// What was said on stderr.
    pub stderr: String,
}

impl Course {
    /// Lets a client connect to `listener` and close first under a watch that has begun, ends the watch, and holds the client's states,
    /// addresses and ports against what happened.
    pub fn run(stage: &Stage, (listener, address): (TcpListener, SocketAddr), synfin: Synfin) -> Result<Self> {
        let client = sock::connect(&stage.client, address)?;
        let server = sock::accept(&listener)?;
        let port = client.local_addr()?.port();
        let end = close::one_after_the_other(&stage.client, client, server)?;
        drop(listener);
        stage.await_quiet()?;
        synfin.signal(Signal::SIGINT)?;
        let ended = synfin.wait()?;
        ended.expect(0)?;

        let lines = ended.stdout.iter().map(|line| Ok(serde_json::from_str(line)?)).collect::<Result<Vec<Value>>>()?;
        let of_client = |line: &&Value| line["type"] == "transition" && line["network.tcp.handshake.role"] == "client";
        let steps: Vec<&Value> = lines.iter().filter(of_client).collect();
        let states: Vec<&Value> = steps.iter().map(|line| &line["network.connection.state"]).collect();
        ensure!(states == ["syn_sent", "established", "fin_wait_1", "fin_wait_2", "closed"], "{lines:#?}");
        let last = *steps.last().context("a transition")?;
        let ip = stage.client.ip.to_canonical().to_string();
        for side in ["local", "peer"] {
            ensure!(last[format!("network.{side}.address")] == ip, "not {ip}: {last}");
        }
        let ports = [&last["network.local.port"], &last["network.peer.port"]];
        ensure!(ports == [port, address.port()], "not {port} and {}: {last}", address.port());
        let mut ends: Vec<String> =
            lines.iter().filter_map(|line| Some(line["network.connection.end"].as_str()?.to_owned())).collect();
        ends.sort_unstable();
        Ok(Self { last: last.clone(), ends, client: end, stderr: ended.stderr.join("\n") })
    }
}
