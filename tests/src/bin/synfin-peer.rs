//! A process that owns connections, so that a test can fork it, kill it, and know its pid and name.
//!
//! It obeys one word a line on stdin and answers each with a line on stdout (see `synfin_tests::peer`). One thread only:
//! the task that acts and the process that owns are the same.

use std::{
    env, fs,
    io::{self, BufRead as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use socket2::{Domain, Protocol, Socket, Type};

#[derive(Default)]
struct Peer {
    listener: Option<TcpListener>,
    connections: Vec<TcpStream>,
    held: Vec<Socket>,
    child: Option<Child>,
}

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let name = arguments.next().context("usage: synfin-peer NAME [hold]")?;
    fs::write("/proc/self/comm", &name)?;
    if arguments.next().is_some() {
        // The child of a fork: holds what it inherited until its stdin closes; its exit is the last close.
        return io::copy(&mut io::stdin(), &mut io::sink()).map(drop).context("waiting");
    }
    let mut peer = Peer::default();
    for line in io::stdin().lock().lines() {
        let answer = peer.obey(&line?)?;
        writeln!(io::stdout(), "{answer}")?;
    }
    Ok(())
}

impl Peer {
    fn obey(&mut self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let order = words.next().unwrap_or_default();
        let mut argument = || words.next().with_context(|| format!("{order} needs an argument"));
        match order {
            "connect" => self.connections.push(TcpStream::connect(argument()?.parse::<SocketAddr>()?)?),
            "listen" => {
                let listener = TcpListener::bind(argument()?.parse::<SocketAddr>()?)?;
                let address = listener.local_addr()?;
                self.listener = Some(listener);
                return Ok(address.to_string());
            }
            "listen-often" => {
                let (times, on) = (argument()?.parse::<usize>()?, argument()?.parse::<SocketAddr>()?);
                for _ in 0..times {
                    let socket = socket(on)?;
                    socket.bind(&on.into())?;
                    socket.listen(128)?;
                    self.held.push(socket);
                }
            }
            "dial-often" => {
                let (times, to) = (argument()?.parse::<usize>()?, argument()?.parse::<SocketAddr>()?);
                for _ in 0..times {
                    let socket = socket(to)?;
                    socket.set_nonblocking(true)?;
                    drop(socket.connect(&to.into())); // in progress, for as long as nobody answers
                    self.held.push(socket);
                }
            }
            "accept" => self.connections.push(self.listener.as_ref().context("not listening")?.accept()?.0),
            "fork" => {
                let name = argument()?;
                self.connections.iter().try_for_each(inherit)?;
                let child = Command::new(env::current_exe()?)
                    .args([name, "hold"])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null())
                    .spawn()?;
                let pid = child.id();
                self.child = Some(child);
                return Ok(pid.to_string());
            }
            "close" => self.connections.clear(),
            "end-child" => {
                // wait() closes the child's stdin first, which is what the child waits for.
                self.child.take().context("no child")?.wait()?;
            }
            _ => bail!("no such order: {line}"),
        }
        Ok("done".to_owned())
    }
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
}

/// Lets a child keep the connection across exec, as a plain fork would.
fn inherit(connection: &impl AsFd) -> Result<()> {
    fcntl(connection, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(())
}
