//! A peer that is no TCP: it answers each segment by a rule of the port that it came to, and forgets it.
//!
//! So the kernel's sockets on the other end come into any state, by the ten thousand, and stay there: whatever they say again is
//! answered in the same way, or not at all.

use std::{
    fmt,
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{netns::Netns, tun};

/// The kernel's addresses.
pub const LOCAL: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(10, 9, 0, 1), Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1));

/// Ports of the puppet, each with its rule. Any other is a client's, see [`Puppet::knock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Answers nothing: sockets stay in SYN_SENT.
    Silent = 1001,
    /// Answers a SYN and nothing later: ESTABLISHED, and FIN_WAIT_1 after a close.
    Deaf = 1002,
    /// Acknowledges data and FIN, sends none of its own: FIN_WAIT_2 after a close.
    HalfClosed = 1003,
    /// Acknowledges a FIN with its own: TIME_WAIT after a close.
    Polite = 1004,
    /// Answers a FIN with its own without acknowledging: CLOSING after a close.
    Crossing = 1005,
    /// Sends a FIN once the connection stands and answers nothing later: CLOSE_WAIT, and LAST_ACK after a close.
    Leaving = 1006,
    /// Sends [`CHATTER`] bytes once the connection stands, and acknowledges nothing: ESTABLISHED with a receive queue.
    Chatty = 1007,
}

/// Bytes that [`Port::Chatty`] sends.
pub const CHATTER: usize = 100;

/// First of the ports from which [`Puppet::knock`] completes the handshake: from those below, the request stays half open.
pub const COMPLETING: u16 = 30_000;

/// First of the ports from which a FIN follows at once: the connection stays in CLOSE_WAIT.
pub const COMPLETING_AND_LEAVING: u16 = 50_000;

/// The puppet's first sequence number. Constant, so that what the kernel acknowledges tells how far the connection is.
const FIRST: u32 = 1000;

mod flag {
    pub(super) const FIN: u8 = 1;
    pub(super) const SYN: u8 = 2;
    pub(super) const RST: u8 = 4;
    pub(super) const ACK: u8 = 16;
}

/// A segment: where it goes and what it says.
#[derive(Clone, Copy, Debug)]
struct Segment {
    from: SocketAddr,
    to: SocketAddr,
    flags: u8,
    sequence: u32,
    acknowledged: u32,
    payload: usize,
}

/// A running puppet behind the device `puppet` of a namespace. Every address of 10.9.0.0/16 and fd09::/64 but [`LOCAL`] is its own.
pub struct Puppet {
    device: File,
    stop: Arc<AtomicBool>,
    player: Option<JoinHandle<()>>,
}

impl Puppet {
    /// Begins to answer.
    pub fn new(netns: &Netns) -> Result<Self> {
        let device = tun::open(netns, "puppet")?;
        netns.ip(&["addr", "add", &format!("{}/16", LOCAL.0), "dev", "puppet"])?;
        netns.ip(&["addr", "add", &format!("{}/64", LOCAL.1), "dev", "puppet", "nodad"])?;
        // What finds no room there is sent again a second later: tests would only be slow.
        netns.ip(&["link", "set", "puppet", "up", "txqueuelen", "16384"])?;
        fcntl(&device, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let stop = Arc::new(AtomicBool::new(false));
        let player = thread::Builder::new().name("puppet".to_owned()).spawn({
            let (device, stop) = (device.try_clone()?, Arc::clone(&stop));
            move || play(device, &stop)
        })?;
        Ok(Self { device, stop, player: Some(player) })
    }

    /// Sends a SYN to a listener; the address and port that it comes from are the puppet's, and the port
    /// decides what becomes of it.
    pub fn knock(&self, from: SocketAddr, to: SocketAddr) -> Result<()> {
        let segment = Segment { from, to, flags: flag::SYN, sequence: FIRST, acknowledged: 0, payload: 0 };
        (&self.device).write_all(&packet(segment)).context("sending a SYN")
    }
}

impl fmt::Debug for Puppet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Puppet")
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(player) = self.player.take() {
            drop(player.join());
        }
    }
}

fn play(mut device: File, stop: &AtomicBool) {
    let mut bytes = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        match device.read(&mut bytes) {
            Ok(length) => {
                for answer in parse(&bytes[..length]).into_iter().flat_map(answers) {
                    if device.write_all(&packet(answer)).is_err() {
                        return; // the device is gone
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut ready = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
                // The timeout only bounds how late `stop` is seen; an interrupted poll asks again.
                if !matches!(poll(&mut ready, PollTimeout::from(100_u8)), Ok(_) | Err(Errno::EINTR)) {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// What the rule of the port says to a segment.
fn answers(got: Segment) -> Vec<Segment> {
    let is = |port: Port| got.to.port() == port as u16;
    let syn = got.flags & flag::SYN != 0;
    let fin = got.flags & flag::FIN != 0;
    let next = got.sequence.wrapping_add(got.payload as u32).wrapping_add(u32::from(syn)).wrapping_add(u32::from(fin));
    let answer = |flags, sequence, acknowledged| Segment {
        from: got.to,
        to: got.from,
        flags,
        sequence,
        acknowledged,
        payload: 0,
    };
    if got.flags & flag::RST != 0 || is(Port::Silent) {
        return Vec::new();
    }
    if syn && got.flags & flag::ACK != 0 {
        return match got.to.port() {
            COMPLETING_AND_LEAVING.. => {
                [flag::ACK, flag::FIN | flag::ACK].map(|flags| answer(flags, FIRST + 1, next)).into()
            }
            COMPLETING.. => vec![answer(flag::ACK, FIRST + 1, next)],
            _ => Vec::new(),
        };
    }
    if syn {
        return vec![answer(flag::SYN | flag::ACK, FIRST, next)];
    }
    let stands = !fin && got.payload == 0 && got.acknowledged == FIRST + 1;
    let reply = if is(Port::HalfClosed) && (fin || got.payload > 0) {
        answer(flag::ACK, FIRST + 1, next)
    } else if is(Port::Polite) && fin {
        answer(flag::FIN | flag::ACK, FIRST + 1, next)
    } else if is(Port::Crossing) && fin {
        answer(flag::FIN | flag::ACK, FIRST + 1, got.sequence)
    } else if is(Port::Leaving) && stands {
        answer(flag::FIN | flag::ACK, FIRST + 1, next)
    } else if is(Port::Chatty) && stands {
        Segment { payload: CHATTER, ..answer(flag::ACK, FIRST + 1, next) }
    } else {
        return Vec::new();
    };
    vec![reply]
}

fn parse(packet: &[u8]) -> Option<Segment> {
    let (from, to, header, total): (IpAddr, IpAddr, usize, usize) = match packet.first()? >> 4 {
        4 if packet.get(9) == Some(&6) => {
            let total = u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]);
            let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
            (address(12)?, address(16)?, usize::from(packet[0] & 15) * 4, total.into())
        }
        6 if packet.get(6) == Some(&6) => {
            let total = 40 + usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
            let address = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
            (address(8)?, address(24)?, 40, total)
        }
        _ => return None,
    };
    let tcp = packet.get(header..total)?;
    let short = |at: usize| Some(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?));
    let long = |at: usize| Some(u32::from_be_bytes(tcp.get(at..at + 4)?.try_into().ok()?));
    Some(Segment {
        from: SocketAddr::new(from, short(0)?),
        to: SocketAddr::new(to, short(2)?),
        sequence: long(4)?,
        acknowledged: long(8)?,
        flags: *tcp.get(13)?,
        payload: tcp.len().checked_sub(usize::from(*tcp.get(12)? >> 4) * 4)?,
    })
}

fn packet(segment: Segment) -> Vec<u8> {
    let mut tcp = Vec::with_capacity(20 + segment.payload);
    tcp.extend(segment.from.port().to_be_bytes());
    tcp.extend(segment.to.port().to_be_bytes());
    tcp.extend(segment.sequence.to_be_bytes());
    tcp.extend(segment.acknowledged.to_be_bytes());
    tcp.extend([5 << 4, segment.flags, 0xff, 0xff, 0, 0, 0, 0]); // a whole window, no checksum yet
    tcp.resize(20 + segment.payload, b'x');
    let length = tcp.len() as u16;
    let (mut header, pseudo) = match (segment.from.ip(), segment.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0];
            header.extend((20 + length).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum);
            (header, [from.octets().as_slice(), &to.octets()].concat())
        }
        (from, to) => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([6, 64]);
            header.extend(octets(from));
            header.extend(octets(to));
            (header, [octets(from), octets(to)].concat())
        }
    };
    let [high, low] = length.to_be_bytes();
    let sum = checksum(&[&pseudo, &[0, 6, high, low], &tcp]);
    tcp[16..18].copy_from_slice(&sum);
    header.extend(tcp);
    header
}

/// RFC 1071, over pieces of even length; only the last may be odd.
fn checksum(pieces: &[&[u8]]) -> [u8; 2] {
    let words = pieces.iter().flat_map(|piece| piece.chunks(2));
    let mut sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
