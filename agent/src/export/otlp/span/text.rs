//! Addresses as text, without a String for each.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

/// `ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255` is the longest.
const LONGEST: usize = 45;

/// An address in the form that RFC 5952 wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address {
    text: [u8; LONGEST],
    len: usize,
}

impl Address {
    /// The text of `address`.
    pub(super) fn of(address: IpAddr) -> Self {
        let mut text = Self { text: [0; LONGEST], len: 0 };
        match address {
            // Most addresses are of this kind, and std's formatting takes longer than all attributes of a span.
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                text.number(a);
                for octet in [b, c, d] {
                    text.push(b'.');
                    text.number(octet);
                }
            }
            // It always fits: see `LONGEST`.
            IpAddr::V6(v6) => drop(write!(text, "{v6}")),
        }
        text
    }

    pub(super) fn as_str(&self) -> &str {
        // What is written is ASCII, so there is no error to hide.
        std::str::from_utf8(&self.text[..self.len]).unwrap_or_default()
    }

    fn number(&mut self, octet: u8) {
        if octet >= 100 {
            self.push(b'0' + octet / 100);
        }
        if octet >= 10 {
            self.push(b'0' + octet / 10 % 10);
        }
        self.push(b'0' + octet % 10);
    }

    fn push(&mut self, byte: u8) {
        self.text[self.len] = byte;
        self.len += 1;
    }
}

impl fmt::Write for Address {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        let room = self.text.get_mut(self.len..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_fits() {
        for address in ["255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::ffff:255.255.255.255"] {
            assert_eq!(Address::of(address.parse().unwrap()).as_str(), address);
        }
    }

    proptest! {
        #[test]
        fn it_is_the_text_that_std_gives(v4: u32, v6: u128) {
            for address in [IpAddr::V4(Ipv4Addr::from(v4)), IpAddr::V6(Ipv6Addr::from(v6))] {
                let text = Address::of(address);
                prop_assert_eq!(text.as_str(), address.to_string());
            }
        }
    }
}
