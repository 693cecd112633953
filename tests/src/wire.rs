//! A wire between two namespaces that a test can cut, or hold packets on.
//!
//! Two TUN devices, and a thread that carries packets from one to the other. Each TCP segment is put before the test's
//! rule, so that "both FINs crossed" or "the third ACK was lost" is made, not hoped for. It can also be a middlebox that
//! gives each side other sequence numbers than the other one uses.

use std::{
    fmt,
    fs::File,
    io::{Read as _, Write as _},
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::Result;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{deadline, netns::Netns, rewrite, tun};

/// The two ends of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The end with address 1, where the tests let the opening side live.
    Client,
    /// The end with address 2.
    Server,
}

/// Addresses of the ends; private to the two namespaces, so every wire can have the same.
pub const ADDRESSES: [[&str; 2]; 2] = [["10.7.0.1", "10.7.0.2"], ["fd07::1", "fd07::2"]];

/// What a rule may look at.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Who sent it.
    pub from: End,
    /// SYN flag.
    pub syn: bool,
    /// ACK flag.
    pub ack: bool,
    /// FIN flag.
    pub fin: bool,
    /// RST flag.
    pub rst: bool,
    /// Bytes of data.
    pub payload: usize,
}

/// What is to become of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Carry it over.
    Pass,
    /// Lose it.
    Drop,
    /// Keep it until [`Wire::release`].
    Hold,
}

type Rule = Box<dyn FnMut(&Segment) -> Fate + Send>;

struct Control {
    rule: Rule,
    held: Vec<(End, Vec<u8>)>,
    dropped: u64,
    ends: [File; 2],
    /// Added to the sequence numbers of each end on their way.
    shifts: [u32; 2],
}

/// A running wire; dropping it cuts it.
pub struct Wire {
    control: Arc<Mutex<Control>>,
    stop: Arc<AtomicBool>,
    carrier: Option<JoinHandle<()>>,
}

impl Wire {
    /// Joins two namespaces; everything passes until a rule is set.
    pub fn new(client: &Netns, server: &Netns) -> Result<Self> {
        let ends = [connect(client, 0)?, connect(server, 1)?];
        let readers = [ends[0].try_clone()?, ends[1].try_clone()?];
        let control = Arc::new(Mutex::new(Control {
            rule: Box::new(|_| Fate::Pass),
            held: Vec::new(),
            dropped: 0,
            ends,
            shifts: [0; 2],
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let carrier = thread::Builder::new().name("wire".to_owned()).spawn({
            let (control, stop) = (Arc::clone(&control), Arc::clone(&stop));
            move || carry(readers, &control, &stop)
        })?;
        Ok(Self { control, stop, carrier: Some(carrier) })
    }

    /// From now on each segment is judged by `rule`.
    pub fn rule(&self, rule: impl FnMut(&Segment) -> Fate + Send + 'static) {
        let mut control = lock(&self.control);
        control.rule = Box::new(rule);
        control.dropped = 0;
    }

    /// From now on adds `client` and `server` to the sequence numbers of these ends, and takes it away from what the other end
    /// acknowledges, as firewalls do that do not trust a host's initial numbers. SACK blocks stay as they are: ends that lose
    /// nothing send none.
    pub fn rewrite(&self, client: u32, server: u32) {
        lock(&self.control).shifts = [client, server];
    }

    /// Delivers what was held, in the order sent and before anything newer, and lets everything pass from now on.
    pub fn release(&self) -> Result<()> {
        // Answers that the kernel gives to the first segment wait in the other TUN until this lock is free: so all held
        // segments arrive before any answer.
        let mut control = lock(&self.control);
        control.rule = Box::new(|_| Fate::Pass);
        for (from, packet) in std::mem::take(&mut control.held) {
            control.deliver(from, &packet)?;
        }
        Ok(())
    }

    /// Waits until `count` segments are held.
    pub fn await_held(&self, count: usize) -> Result<()> {
        deadline::until(&format!("{count} segments held on the wire"), || {
            Ok((lock(&self.control).held.len() >= count).then_some(()))
        })
    }

    /// Waits until `count` segments were lost to the rule set last.
    pub fn await_dropped(&self, count: u64) -> Result<()> {
        deadline::until(&format!("{count} segments lost on the wire"), || {
            Ok((lock(&self.control).dropped >= count).then_some(()))
        })
    }
}

impl Control {
    fn judge(&mut self, from: End, packet: &[u8]) -> Result<()> {
        let Some(segment) = parse(from, packet) else {
            return Ok(()); // neighbour and router chatter; no test is about it
        };
        match (self.rule)(&segment) {
            Fate::Pass => self.deliver(from, packet)?,
            Fate::Drop => self.dropped += 1,
            Fate::Hold => self.held.push((from, packet.to_vec())),
        }
        Ok(())
    }

    fn deliver(&mut self, from: End, packet: &[u8]) -> Result<()> {
        let (from, to) = match from {
            End::Client => (0, 1),
            End::Server => (1, 0),
        };
        if self.shifts == [0; 2] {
            return Ok(self.ends[to].write_all(packet)?);
        }
        let mut packet = packet.to_vec();
        if let Some((header, _)) = tcp(&packet) {
            rewrite::shift(&mut packet[header..], self.shifts[from], self.shifts[to]);
        }
        Ok(self.ends[to].write_all(&packet)?)
    }
}

fn connect(namespace: &Netns, end: usize) -> Result<File> {
    let device = tun::open(namespace, "wire")?;
    let [v4, v6] = ADDRESSES.map(|family| family[end]);
    namespace.ip(&["addr", "add", &format!("{v4}/24"), "dev", "wire"])?;
    // Without nodad the address is not usable for its first second.
    namespace.ip(&["addr", "add", &format!("{v6}/64"), "dev", "wire", "nodad"])?;
    namespace.ip(&["link", "set", "wire", "up"])?;
    Ok(device)
}

fn carry(mut readers: [File; 2], control: &Mutex<Control>, stop: &AtomicBool) {
    let mut packet = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let ready = {
            let mut ends = [0, 1].map(|end: usize| PollFd::new(readers[end].as_fd(), PollFlags::POLLIN));
            // The timeout only bounds how late `stop` is seen.
            if poll(&mut ends, PollTimeout::from(20_u8)).is_err() {
                continue;
            }
            ends.map(|end| end.any().unwrap_or_default())
        };
        for (end, from) in [End::Client, End::Server].into_iter().enumerate() {
            if !ready[end] {
                continue;
            }
            let Ok(length) = readers[end].read(&mut packet) else { return };
            if lock(control).judge(from, &packet[..length]).is_err() {
                return; // the namespace is gone, and with it the other end
            }
        }
    }
}

/// Where a packet's TCP header begins and its data end.
fn tcp(packet: &[u8]) -> Option<(usize, usize)> {
    Some(match packet.first()? >> 4 {
        4 if packet.get(9) == Some(&6) => {
            let total = u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]);
            (usize::from(packet[0] & 15) * 4, usize::from(total))
        }
        6 if packet.get(6) == Some(&6) => {
            (40, 40 + usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?])))
        }
        _ => return None,
    })
}

fn parse(from: End, packet: &[u8]) -> Option<Segment> {
    let (header, total) = tcp(packet)?;
    let tcp = packet.get(header..total)?;
    let payload = tcp.len().checked_sub(usize::from(*tcp.get(12)? >> 4) * 4)?;
    let flags = *tcp.get(13)?;
    let flag = |bit: u8| flags & (1 << bit) != 0;
    Some(Segment { from, fin: flag(0), syn: flag(1), rst: flag(2), ack: flag(4), payload })
}

fn lock(control: &Mutex<Control>) -> MutexGuard<'_, Control> {
    control.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(carrier) = self.carrier.take() {
            drop(carrier.join());
        }
    }
}
