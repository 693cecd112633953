//! Ports that the kernel chooses from for connections of its own making, and how many of them are taken.
//!
//! A port is taken or it is not: connections to several peers may share one, and the families share them all.

use std::fs::File;
use std::io::Read as _;

use synfin_common::census::PortBits;

/// A set of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSet(Box<PortBits>);

impl Default for PortSet {
    fn default() -> Self {
        Self(Box::new([0; size_of::<PortBits>() / size_of::<u64>()]))
    }
}

impl From<PortBits> for PortSet {
    fn from(bits: PortBits) -> Self {
        Self(Box::new(bits))
    }
}

impl PortSet {
    /// Takes a port in.
    pub fn insert(&mut self, port: u16) {
        self.0[usize::from(port / 64)] |= 1 << (port % 64);
    }

    fn remove(&mut self, port: u16) {
        self.0[usize::from(port / 64)] &= !(1 << (port % 64));
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many are in the other set too.
    pub fn shared_with(&self, other: &Self) -> u64 {
        self.0.iter().zip(other.0.iter()).map(|(one, other)| u64::from((one & other).count_ones())).sum()
    }
}

/// What a namespace has set: which ports the kernel may choose. As the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Settings {
    range: String,
    reserved: String,
}

impl Settings {
    /// Of the namespace that the calling thread is in: the kernel answers each thread for its own. None where they cannot be read.
    pub(super) fn of_this_thread() -> Option<Self> {
        let read = |name| read(&format!("/proc/sys/net/ipv4/{name}"));
        Some(Self { range: read("ip_local_port_range")?, reserved: read("ip_local_reserved_ports")? })
    }

    /// The ports that it may choose; None if the settings make no sense.
    fn ports(&self) -> Option<PortSet> {
        let mut numbers = self.range.split_whitespace().map(str::parse::<u16>);
        let (Some(Ok(low @ 1..)), Some(Ok(high)), None) = (numbers.next(), numbers.next(), numbers.next()) else {
            return None;
        };
        if low > high {
            return None;
        }
        let mut ports = PortSet::default();
        (low..=high).for_each(|port| ports.insert(port));
        // 8080,9148-9150
        for part in self.reserved.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            (first.parse().ok()?..=last.parse().ok()?).for_each(|port| ports.remove(port));
        }
        Some(ports)
    }
}

/// Reads in one go: to whoever reads on, the kernel says that there is no more. What does not end in a line feed was cut.
fn read(path: &str) -> Option<String> {
    /// What fits a page, with the kernel's own byte behind it; then more than every second port takes.
    const SIZES: [usize; 2] = [(4 << 10) - 1, (256 << 10) - 1];
    SIZES.into_iter().find_map(|size| {
        let mut bytes = vec![0; size];
        let length = File::open(path).ok()?.read(&mut bytes).ok()?;
        bytes.truncate(length);
        String::from_utf8(bytes).ok().filter(|text| text.ends_with('\n'))
    })
}

/// Ports of a namespace that the kernel may choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ephemeral {
    /// How many of them TCP sockets have, in whatever state.
    pub taken: u64,
    /// How many there are: the range without those that are reserved.
    pub limit: u64,
}

impl Ephemeral {
    /// Of the namespace that the calling thread is in; None if it cannot be told what the kernel chooses from.
    pub fn of_this_thread(taken: &PortSet) -> Option<Self> {
        let ports = Settings::of_this_thread()?.ports()?;
        Some(Self { taken: taken.shared_with(&ports), limit: ports.len() })
    }

    /// What is taken of the whole, from 0 to 1; None of nothing.
    pub fn utilization(&self) -> Option<f64> {
        (self.limit > 0).then(|| self.taken as f64 / self.limit as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ports: &[u16]) -> PortSet {
        let mut set = PortSet::default();
        for port in ports {
            set.insert(*port);
        }
        set
    }

    fn ports(range: &str, reserved: &str) -> Option<PortSet> {
        Settings { range: range.to_owned(), reserved: reserved.to_owned() }.ports()
    }

    #[test]
    fn each_port_has_a_bit_of_its_own() {
        let mut all = PortSet::default();
        assert!(all.is_empty());
        for port in 0..=u16::MAX {
            all.insert(port);
            assert_eq!(all.len(), u64::from(port) + 1);
        }
        all.insert(80);
        assert_eq!(all.len(), 1 << 16);
        assert_eq!(all.shared_with(&set(&[0, 63, 64, 65_535])), 4);
        all.remove(64);
        assert_eq!(all.shared_with(&set(&[0, 63, 64, 65_535])), 3);
        let mut bits: PortBits = [0; 1 << 10];
        bits[1] = 1 << 5;
        assert_eq!(PortSet::from(bits), set(&[69]));
    }

    #[test]
    fn the_range_without_what_is_reserved() {
        assert_eq!(ports("32768\t60999\n", "\n").unwrap().len(), 28_232);
        assert_eq!(ports("1\t65535\n", "").unwrap().len(), 65_535);
        assert_eq!(ports("7\t7\n", "\n"), Some(set(&[7])));
        // Below, at both ends, within, beyond.
        let some = ports("100\t109\n", "1-99,100,103-105,109-65535\n");
        assert_eq!(some, Some(set(&[101, 102, 106, 107, 108])));
        assert_eq!(ports("100\t109\n", "100-109\n"), Some(set(&[])));
    }

    #[test]
    fn what_makes_no_sense_is_unknown() {
        for range in ["", "\n", "100", "0\t10", "1\t65536", "1 2 3", "a\tb", "-1\t5", "9\t8"] {
            assert_eq!(ports(range, "\n"), None, "{range:?}");
        }
        for reserved in ["x", "1-", "-1", "70000", "1-2-3", "1;2"] {
            assert_eq!(ports("100\t109\n", reserved), None, "{reserved:?}");
        }
    }

    #[test]
    fn this_namespace_has_settings() {
        let settings = Settings::of_this_thread().unwrap();
        assert!(settings.range.ends_with('\n') && settings.reserved.ends_with('\n'), "{settings:?}");
        let ephemeral = Ephemeral::of_this_thread(&set(&[0])).unwrap();
        assert_eq!((ephemeral.taken, ephemeral.utilization()), (0, Some(0.0)));
        assert_eq!(Ephemeral::default().utilization(), None);
        assert!(read("/proc/sys/net/ipv4/no_such_setting").is_none());
    }
}
