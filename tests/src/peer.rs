//! Drives `synfin-peer`, a process that owns connections.

use std::{
    env,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{deadline, lines::Lines, stage::Side};

/// A running peer; killed when dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    orders: ChildStdin,
    answers: Lines,
    answered: usize,
}

impl Peer {
    /// Starts one in the side's namespace; `name` becomes its command name (at most 15 bytes).
    pub fn start(side: &Side, name: &str) -> Result<Self> {
        // Test executables are in target/PROFILE/deps, binaries of the package one folder above.
        let folder =
            env::current_exe()?.parent().and_then(|deps| deps.parent()).map(|folder| folder.join("synfin-peer"));
        let program = folder.context("where the tests' own binaries are")?;
        let mut command = Command::new(&program);
        command.arg(name).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child =
            side.netns.run(|| command.spawn()).with_context(|| format!("starting {}", program.display()))?;
        let orders = child.stdin.take().context("stdin was piped")?;
        let answers = Lines::read(child.stdout.take().context("stdout was piped")?);
        Ok(Self { child, orders, answers, answered: 0 })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order and waits for the answer.
    fn order(&mut self, order: &str) -> Result<String> {
        writeln!(self.orders, "{order}").with_context(|| format!("the peer is gone before {order:?}"))?;
        let answer = deadline::until(&format!("the peer to {order}; its stderr is above"), || {
            Ok(self.answers.all().get(self.answered).cloned())
        })?;
        self.answered += 1;
        Ok(answer)
    }

    /// Lets it open a connection.
    pub fn connect(&mut self, to: SocketAddr) -> Result<()> {
        self.order(&format!("connect {to}")).map(drop)
    }

    /// Lets it listen; gives the address.
    pub fn listen(&mut self, on: SocketAddr) -> Result<SocketAddr> {
        Ok(self.order(&format!("listen {on}"))?.parse()?)
    }

    /// Lets it listen on so many ports of an address.
    pub fn listen_often(&mut self, times: usize, on: IpAddr) -> Result<()> {
        self.order(&format!("listen-often {times} {}", SocketAddr::new(on, 0))).map(drop)
    }

    /// Lets it begin so many connections, and wait for none.
    pub fn dial_often(&mut self, times: usize, to: SocketAddr) -> Result<()> {
        self.order(&format!("dial-often {times} {to}")).map(drop)
    }

    /// Lets it accept a connection.
    pub fn accept(&mut self) -> Result<()> {
        self.order("accept").map(drop)
    }

    /// Lets it make a child that shares its connections; gives the child's pid.
    pub fn fork(&mut self, name: &str) -> Result<u32> {
        Ok(self.order(&format!("fork {name}"))?.parse()?)
    }

    /// Lets it close its connections (a child keeps its own references).
    pub fn close(&mut self) -> Result<()> {
        self.order("close").map(drop)
    }

    /// Ends the child, which closes what it held.
    pub fn end_child(&mut self) -> Result<()> {
        self.order("end-child").map(drop)
    }

    /// kill -9.
    pub fn kill(&mut self) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
