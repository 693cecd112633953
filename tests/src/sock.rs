//! Sockets with the options that the scenarios turn, every call bounded in time (from its last interruption on).

use std::{
    io::{self, Read as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{
    deadline::{PATIENCE, scaled},
    stage::Side,
};

/// A TCP socket of the side's namespace and family; connect, accept, read and write on it give up after [`PATIENCE`].
pub fn socket(side: &Side) -> Result<Socket> {
    let socket = side.netns.run(|| Socket::new(Domain::for_address(side.at(0)), Type::STREAM, Some(Protocol::TCP)))?;
    socket.set_read_timeout(Some(scaled(PATIENCE)))?; // of accept too
    socket.set_write_timeout(Some(scaled(PATIENCE)))?; // of connect too
    Ok(socket)
}

/// A listener on a port of the kernel's choice.
pub fn listen(side: &Side, backlog: i32) -> Result<(TcpListener, SocketAddr)> {
    listen_with(side, backlog, |_| Ok(()))
}

/// A listener whose socket `prepare` may change before it listens.
pub fn listen_with(
    side: &Side,
    backlog: i32,
    prepare: impl FnOnce(&Socket) -> Result<()>,
) -> Result<(TcpListener, SocketAddr)> {
    let socket = socket(side)?;
    socket.set_reuse_address(true)?;
    prepare(&socket)?;
    socket.bind(&side.at(0).into()).context("binding a listener")?;
    socket.listen(backlog)?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Opens a connection.
pub fn connect(side: &Side, to: SocketAddr) -> Result<TcpStream> {
    let socket = socket(side)?;
    dial(&socket, &to.into()).with_context(|| format!("connecting to {to}"))?;
    Ok(socket.into())
}

/// Opens a connection from a given address, whose port may be one that a connection has just left.
pub fn connect_from(side: &Side, from: SocketAddr, to: SocketAddr) -> Result<TcpStream> {
    let socket = socket(side)?;
    socket.set_reuse_address(true)?;
    socket.bind(&from.into()).with_context(|| format!("binding to {from}"))?;
    dial(&socket, &to.into()).with_context(|| format!("connecting to {to}"))?;
    Ok(socket.into())
}

/// connect() on a socket of [`socket`], to the end of the attempt.
pub fn dial(socket: &Socket, to: &SockAddr) -> io::Result<()> {
    again(|| socket.connect(to)) // a second call waits for the attempt that the first one began
}

/// Repeats a call that was interrupted. On a socket with a timeout, calls end so for each stop and go of the thread, be it that
/// of a control group which is frozen for a moment, though no signal has a handler (signal(7)).
pub fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Waits for the FIN of the other end, before which no data may come.
pub fn await_end(mut stream: &TcpStream) -> Result<()> {
    let read = again(|| stream.read(&mut [0]));
    ensure!(matches!(read, Ok(0)), "the end was due, read() gave {read:?}");
    Ok(())
}

/// Waits for a RST of the other end, before which no data may come.
pub fn await_reset(mut stream: &TcpStream) -> Result<()> {
    let read = again(|| stream.read(&mut [0]));
    let reset = read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
    ensure!(reset, "a reset was due, read() gave {read:?}");
    Ok(())
}

/// Accepts a connection; it reads and writes with the same bounds.
pub fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let (stream, _) = listener.accept().context("accepting")?;
    stream.set_read_timeout(Some(scaled(PATIENCE)))?;
    stream.set_write_timeout(Some(scaled(PATIENCE)))?;
    Ok(stream)
}

/// Makes close() send a RST instead of a FIN.
pub fn linger_zero(stream: &TcpStream) -> Result<()> {
    Ok(socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))?)
}

/// Calls that no crate wraps safely.
pub mod raw {
    #![expect(unsafe_code, reason = "connect to AF_UNSPEC and the fast-open options have no safe wrapper")]

    use std::{
        io,
        mem::size_of,
        os::fd::{AsFd, AsRawFd as _},
    };

    /// connect(AF_UNSPEC): ends the connection of a socket, which can then connect again.
    pub fn disconnect(socket: &impl AsFd) -> io::Result<()> {
        let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
        let length = size_of::<libc::sockaddr>() as libc::socklen_t;
        // SAFETY: the address is a whole sockaddr of the given length, and the call only reads it.
        check(unsafe { libc::connect(socket.as_fd().as_raw_fd(), &raw const nowhere, length) })
    }

    /// Sets a TCP option whose value is an int.
    pub fn set_tcp_option(socket: &impl AsFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        let value = (&raw const value).cast();
        // SAFETY: `value` points to an int that lives until the call returns, and the length is its length.
        check(unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), libc::IPPROTO_TCP, option, value, length) })
    }

    fn check(answer: libc::c_int) -> io::Result<()> {
        if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
