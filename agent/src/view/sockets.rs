//! `synfin census --sockets` for people: a line for each socket.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;

use super::census::{Holders, held_by, hidden, moment};
use super::table::{Widths, duration, printable};
use crate::census::{Listing, Socket};
use crate::clock::Offset;
use crate::event::State;
use crate::source::Chosen;

/// Characters that are written at once.
const CHUNK: usize = 64 << 10;

/// Columns that are aligned to the left.
const LEFT: [usize; 7] = [0, 3, 4, 5, 7, 8, 9];

/// Writes the whole text.
///
/// # Errors
/// What `out` says.
pub fn write(
    out: &mut dyn Write,
    listing: &Listing,
    holders: &Holders,
    source: &Chosen,
    offset: Offset,
) -> io::Result<()> {
    let mut text = String::new();
    let count = listing.sockets.len();
    let (began_ns, ended_ns) = (listing.began_ns, listing.ended_ns);
    text.push_str(&format!("{count} TCP sockets of {}\n\n", moment(listing.places.len(), began_ns, ended_ns, offset)));
    let names: BTreeMap<u32, String> = listing
        .places
        .iter()
        .map(|place| (place.inode, place.name.as_deref().map_or_else(|| place.inode.to_string(), printable)))
        .collect();
    let row = |socket: &Socket| {
        let mut row = cells(socket, holders);
        if names.len() > 1 {
            row.push(names.get(&socket.ends.netns).cloned().unwrap_or_default());
        }
        row
    };
    let mut head =
        ["STATE", "RECV-Q", "SEND-Q", "LOCAL", "PEER", "TIMER", "QUIET", "HOLDER"].map(str::to_owned).to_vec();
    if names.len() > 1 {
        head.push("NETNS".to_owned());
    }
    // Twice, because there may be a million of them: nothing is kept.
    let mut widths = Widths::default();
    widths.fit(&head);
    for socket in &listing.sockets {
        widths.fit(&row(socket));
    }
    widths.line(&mut text, &head, &LEFT);
    for socket in &listing.sockets {
        widths.line(&mut text, &row(socket), &LEFT);
        if text.len() >= CHUNK {
            out.write_all(text.as_bytes())?;
            text.clear();
        }
    }
    for (inode, why) in &listing.failures {
        text.push_str(&format!("\nnot shown: namespace {inode}: {why}\n"));
    }
    if let Some(note) = hidden(listing.hidden) {
        text.push_str(&format!("\n{note}\n"));
    }
    if let Chosen::InetDiag(why) = source {
        text.push_str(&format!("\nby inet_diag ({why})\n"));
    }
    out.write_all(text.as_bytes())
}

fn cells(socket: &Socket, holders: &Holders) -> Vec<String> {
    let ends = &socket.ends;
    let unknown = || "-".to_owned();
    let peer = match socket.state {
        State::Listen => unknown(),
        _ => SocketAddr::new(ends.peer_address(), ends.peer_port).to_string(),
    };
    // The kernel's own clock may be a little late.
    let timer = |(timer, left): (crate::census::Timer, f64)| {
        format!("{} {:.3}s {}", timer.name(), left.max(0.0), socket.unanswered)
    };
    vec![
        socket.state.name().to_owned(),
        socket.receive_queue.to_string(),
        socket.send_queue.to_string(),
        SocketAddr::new(ends.local_address(), ends.local_port).to_string(),
        peer,
        socket.timer.map_or_else(unknown, timer),
        socket.quiet_ns().map_or_else(unknown, duration),
        held_by([socket.inode].into_iter(), holders),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::census::holders::Holder;
    use crate::census::{Form, Timer, sample};

    #[test]
    fn lines_are_aligned() {
        let mut retransmitting = sample(State::Established, Form::Full, 4, 0);
        (retransmitting.timer, retransmitting.unanswered) = (Some((Timer::Retransmit, 0.2)), 2);
        let sockets = vec![
            sample(State::Listen, Form::Full, 1, 0),
            retransmitting,
            sample(State::FinWait2, Form::Timewait, 0, 0),
        ];
        let listing = Listing { ended_ns: 12_500_000, sockets, ..Listing::default() };
        let holder = |pid| Holder { pid, name: "a\tb".to_owned() };
        let holders = BTreeMap::from([(4, vec![holder(5), holder(6)])]);
        let mut out = Vec::new();
        write(&mut out, &listing, &holders, &Chosen::Iterator, Offset::from_nanos(0)).unwrap();
        let text = String::from_utf8(out).unwrap();
        let expected = "\
3 TCP sockets of 0 network namespaces at 1970-01-01 00:00:00 UTC, walked in 12.5 ms

STATE        RECV-Q  SEND-Q  LOCAL         PEER           TIMER               QUIET  HOLDER
listen            3       4  127.0.0.1:80  -              -                       -  -
established       3       4  127.0.0.1:80  10.0.0.1:4000  on 0.200s 2          0.0s  5/a?b 6/a?b
fin_wait_2        3       4  127.0.0.1:80  10.0.0.1:4000  timewait 59.000s 0      -  -
";
        assert_eq!(text, expected, "{text}");
    }
}
