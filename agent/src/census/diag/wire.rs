//! The messages of `NETLINK_SOCK_DIAG` (`linux/inet_diag.h`, `linux/netlink.h`): fixed structs, in the machine's byte order but for
//! ports and addresses.
//!
//! Not by netlink-packet-sock-diag (0.5.0): it drops the expiry of TIME_WAIT and the count of zero-window probes, knows no
//! `INET_DIAG_CGROUP_ID`, takes `tcp_info` whole in one length or not at all, and allocates for each attribute of each socket.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `nlmsg_type` of requests and answers.
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `nlmsg_type` of a refusal: an errno, negative.
pub(super) const ERROR: u16 = 2;
/// `nlmsg_type` of the end of a dump: 0 or an errno, negative.
pub(super) const DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
pub(super) const REQUEST_DUMP: u16 = 0x301;

/// Attributes of an answer.
pub(super) mod attribute {
    /// `struct tcp_info`, if asked for.
    pub(in super::super) const INFO: u16 = 2;
    /// `sk_shutdown`: every full socket has it, no minisock and no request.
    pub(in super::super) const SHUTDOWN: u16 = 8;
    /// cgroup v2 id, Linux 5.9 and later.
    pub(in super::super) const CGROUP_ID: u16 = 21;
}

/// `idiag_ext`: asks for [`attribute::INFO`].
pub(super) const WITH_INFO: u8 = 1 << (attribute::INFO - 1);
/// `idiag_timer` of minisocks alone.
pub(super) const TIMER_TIMEWAIT: u8 = 3;

/// `struct nlmsghdr`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    pub(super) len: u32,
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) port: u32,
}

/// `struct inet_diag_sockid`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Id {
    pub(super) local_port: [u8; 2],
    pub(super) peer_port: [u8; 2],
    pub(super) local: [u8; 16],
    pub(super) peer: [u8; 16],
    pub(super) interface: u32,
    pub(super) cookie: [u32; 2],
}

/// A header and its `struct inet_diag_req_v2`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Request {
    pub(super) header: Header,
    pub(super) family: u8,
    pub(super) protocol: u8,
    pub(super) extensions: u8,
    pub(super) pad: u8,
    pub(super) states: u32,
    pub(super) id: Id,
}

/// `struct inet_diag_msg`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Message {
    pub(super) family: u8,
    pub(super) state: u8,
    pub(super) timer: u8,
    pub(super) retransmits: u8,
    pub(super) id: Id,
    pub(super) expires_ms: i32,
    pub(super) receive_queue: u32,
    pub(super) send_queue: u32,
    pub(super) uid: u32,
    pub(super) inode: u32,
}

/// The part of `struct tcp_info` that Linux 5.4 and later have.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct TcpInfo {
    pub(super) state: u8,
    pub(super) ca_state: u8,
    pub(super) retransmits: u8,
    pub(super) probes: u8,
    pub(super) backoff_options_scales: [u8; 4],
    pub(super) rto_to_fackets: [u32; 9],
    pub(super) last_data_sent_ms: u32,
    pub(super) last_ack_sent_ms: u32,
    pub(super) last_data_received_ms: u32,
    pub(super) last_ack_to_ssthresh: [u32; 3],
    pub(super) rtt_us: u32,
    pub(super) rttvar_us: u32,
    pub(super) send_ssthresh: u32,
    pub(super) snd_cwnd: u32,
    pub(super) advmss_to_space: [u32; 4],
    pub(super) total_retrans: u32,
    pub(super) pacing: [u64; 2],
    pub(super) bytes_acked: u64,
    pub(super) bytes_received: u64,
    pub(super) segs_out: u32,
    pub(super) segs_in: u32,
    pub(super) notsent_to_data_segs: [u32; 4],
    pub(super) rates_and_limits: [u64; 4],
    pub(super) delivered: [u32; 2],
    pub(super) bytes_sent: u64,
    pub(super) bytes_retrans: u64,
    pub(super) dsack_and_reordering: [u32; 2],
    pub(super) out_of_order: u32,
    pub(super) send_window: u32,
}

const _: () = {
    assert!(size_of::<Header>() == 16);
    assert!(size_of::<Request>() == 16 + 56);
    assert!(size_of::<Message>() == 72);
    assert!(size_of::<TcpInfo>() == 232);
    assert!(std::mem::offset_of!(TcpInfo, last_data_sent_ms) == 44);
    assert!(std::mem::offset_of!(TcpInfo, rtt_us) == 68);
    assert!(std::mem::offset_of!(TcpInfo, snd_cwnd) == 80);
    assert!(std::mem::offset_of!(TcpInfo, total_retrans) == 100);
    assert!(std::mem::offset_of!(TcpInfo, bytes_acked) == 120);
    assert!(std::mem::offset_of!(TcpInfo, segs_out) == 136);
    assert!(std::mem::offset_of!(TcpInfo, bytes_sent) == 200);
    assert!(std::mem::offset_of!(TcpInfo, out_of_order) == 224);
};

/// An answer about one socket.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    pub(super) message: Message,
    pub(super) info: Option<TcpInfo>,
    pub(super) cgroup: u64,
    /// Whether it has an attribute that full sockets alone have.
    pub(super) is_full: bool,
}

impl Answer {
    /// Reads what follows a message's header; None if it is too short.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let (message, mut rest) = Message::read_from_prefix(body).ok()?;
        let mut answer = Self { message, info: None, cgroup: 0, is_full: false };
        // `struct nlattr`: length with these four bytes, type; the next one begins at a multiple of four.
        while let Some((head, _)) = rest.split_at_checked(4) {
            let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
            let kind = u16::from_ne_bytes([head[2], head[3]]);
            let Some(value) = rest.get(4..len) else { break };
            match kind {
                attribute::SHUTDOWN => answer.is_full = true,
                attribute::INFO => answer.info = TcpInfo::read_from_prefix(value).ok().map(|(info, _)| info),
                attribute::CGROUP_ID => {
                    answer.cgroup = value.try_into().map_or(0, u64::from_ne_bytes);
                }
                _ => {}
            }
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        Some(answer)
    }
}

/// Splits what one read brought into messages: type and body of each.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (header, _) = Header::read_from_prefix(bytes).ok()?;
        let len = header.len as usize;
        let body = bytes.get(size_of::<Header>()..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((header.kind, body))
    })
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn attributes_are_found_behind_others() {
        let mut body = Message::new_zeroed().as_bytes().to_vec();
        body.extend(attribute(99, &[1, 2, 3, 4, 5]));
        body.extend(attribute(attribute::SHUTDOWN, &[3]));
        body.extend(attribute(attribute::CGROUP_ID, &77_u64.to_ne_bytes()));
        let answer = Answer::read(&body).unwrap();
        assert!(answer.is_full && answer.cgroup == 77 && answer.info.is_none());
    }

    #[test]
    fn cut_and_wrong_lengths_end_the_reading() {
        assert!(Answer::read(&[0; 71]).is_none());
        let mut body = Message::new_zeroed().as_bytes().to_vec();
        for wrong in [[0, 0, 8, 0], [3, 0, 8, 0], [255, 255, 8, 0]] {
            body.truncate(72);
            body.extend(wrong);
            assert!(!Answer::read(&body).unwrap().is_full, "{wrong:?}");
        }
        let mut header = Header { len: 20, kind: DONE, flags: 0, sequence: 0, port: 0 };
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(&bytes.clone());
        assert_eq!(messages(&bytes).map(|(kind, body)| (kind, body.len())).collect::<Vec<_>>(), [(DONE, 4), (DONE, 4)]);
        for len in [0, 15, 41] {
            header.len = len;
            bytes[..16].copy_from_slice(header.as_bytes());
            assert_eq!(messages(&bytes).count(), 0, "{len}");
        }
    }
}
