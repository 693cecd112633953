//! A full TCP socket.

use synfin_common::census::timer;
use synfin_common::event::{Measures, UNKNOWN_CA_STATE};

use super::Sock;
use crate::field::{Field, Scalar, field};
use crate::read::{Probed, Read as _};
use crate::rung::Rung;

/// A full TCP socket: the fields of `struct tcp_sock` may be read too.
#[derive(Clone, Copy)]
pub(crate) struct TcpSock<R> {
    sock: Sock<R>,
    tcp: *const u8,
}

impl<R: Rung> TcpSock<R> {
    /// `tcp` is the socket as `struct tcp_sock *`.
    #[inline(always)]
    pub(super) fn new(sock: Sock<R>, tcp: *const u8) -> Self {
        Self { sock, tcp }
    }

    #[inline(always)]
    fn load<T: Scalar, const INDEX: usize>(self, field: Field<INDEX>) -> T {
        R::Kernel::load(self.tcp, field)
    }

    /// Local port in host order, also when the socket has given it back.
    #[inline(always)]
    pub(crate) fn local_port(self) -> u16 {
        let port = self.sock.num();
        if port != 0 || !field!(inet_sport).is_present() {
            return port;
        }
        u16::from_be(self.load(field!(inet_sport)))
    }

    /// Writes what the kernel measured so far.
    #[inline(always)]
    pub(crate) fn store_measures(self, to: *mut Measures) {
        // SAFETY: `to` is a slot for the whole struct; every field of it is written.
        unsafe {
            (&raw mut (*to).bytes_acked).write(self.load(field!(bytes_acked)));
            (&raw mut (*to).bytes_received).write(self.load(field!(bytes_received)));
            (&raw mut (*to).bytes_sent).write(self.load(field!(bytes_sent)));
            (&raw mut (*to).bytes_retrans).write(self.load(field!(bytes_retrans)));
            (&raw mut (*to).segs_out).write(self.load(field!(segs_out)));
            (&raw mut (*to).segs_in).write(self.load(field!(segs_in)));
            (&raw mut (*to).retrans).write(self.total_retrans());
            (&raw mut (*to).srtt_us).write(self.load::<u32, _>(field!(srtt_us)) >> 3);
            (&raw mut (*to).mdev_us).write(self.load::<u32, _>(field!(mdev_us)) >> 2);
            (&raw mut (*to).snd_cwnd).write(self.load(field!(snd_cwnd)));
            (&raw mut (*to).snd_una).write(self.load(field!(snd_una)));
            (&raw mut (*to).rcv_nxt).write(self.load(field!(rcv_nxt)));
            (&raw mut (*to).snd_nxt).write(self.load(field!(snd_nxt)));
            (&raw mut (*to).ooo).write(self.load(field!(rcv_ooopack)));
        }
    }

    #[inline(always)]
    pub(crate) fn total_retrans(self) -> u32 {
        self.load(field!(total_retrans))
    }

    /// The same as a socket whose every field may be read, where the walk that found it handed over `struct sock_common`.
    #[inline(always)]
    pub(crate) fn sock(self) -> Sock<R> {
        Sock { at: self.tcp, rung: self.sock.rung }
    }

    /// Bytes received in order that nobody has read.
    #[inline(always)]
    pub(crate) fn receive_queue(self) -> u32 {
        // Below zero for a moment while a FIN is taken in (`get_tcp4_sock`).
        let len = self.load::<u32, _>(field!(rcv_nxt)).wrapping_sub(self.load(field!(copied_seq))) as i32;
        if len < 0 { 0 } else { len.cast_unsigned() }
    }

    /// Bytes written and not acknowledged.
    #[inline(always)]
    pub(crate) fn send_queue(self) -> u32 {
        self.load::<u32, _>(field!(write_seq)).wrapping_sub(self.load(field!(snd_una)))
    }

    /// Connections that wait for accept.
    #[inline(always)]
    pub(crate) fn accept_queue(self) -> u32 {
        self.load(field!(sk_ack_backlog))
    }

    /// Most connections that may wait.
    #[inline(always)]
    pub(crate) fn accept_limit(self) -> u32 {
        self.load(field!(sk_max_ack_backlog))
    }

    /// Half-open sockets of a listener.
    #[inline(always)]
    pub(crate) fn half_open(self) -> u32 {
        self.load(field!(icsk_qlen))
    }

    /// Retransmissions without an answer.
    #[inline(always)]
    pub(crate) fn retransmits(self) -> u8 {
        self.load(field!(icsk_retransmits))
    }

    /// Zero-window probes without an answer.
    #[inline(always)]
    pub(crate) fn probes(self) -> u8 {
        self.load(field!(icsk_probes_out))
    }

    /// When data was sent last, in jiffies.
    #[inline(always)]
    pub(crate) fn sent_at(self) -> u32 {
        self.load(field!(lsndtime))
    }

    /// When data was received last, in jiffies.
    #[inline(always)]
    pub(crate) fn received_at(self) -> u32 {
        self.load(field!(lrcvtime))
    }

    /// Inode number of the socket's file, 0 where no process holds it.
    #[inline(always)]
    pub(crate) fn inode(self) -> u64 {
        let socket: u64 = self.load(field!(sk_socket));
        // The inode lies behind the socket in one allocation (`struct socket_alloc`), out of reach of a typed load.
        if socket == 0 { 0 } else { Probed::load(socket as *const u8, field!(inode_ino)) }
    }

    /// Which timer runs, as `ss -o` tells it, and when it expires, in jiffies (`get_tcp4_sock`).
    #[inline(always)]
    pub(crate) fn timer(self) -> (u8, u64) {
        const RETRANS: u8 = 1;
        const PROBE0: u8 = 3;
        const LOSS_PROBE: u8 = 5;
        const REO_TIMEOUT: u8 = 6;
        let kind = match self.load(field!(icsk_pending)) {
            RETRANS | LOSS_PROBE | REO_TIMEOUT => timer::RETRANSMIT,
            PROBE0 => timer::PROBE,
            _ => return self.keepalive(),
        };
        // Where it lies has moved twice.
        let expires = if field!(icsk_timeout).is_present() {
            self.load(field!(icsk_timeout))
        } else if field!(icsk_expires).is_present() {
            self.load(field!(icsk_expires))
        } else {
            self.load(field!(rexmit_expires))
        };
        (kind, expires)
    }

    #[inline(always)]
    fn keepalive(self) -> (u8, u64) {
        let (pprev, expires): (u64, u64) = if field!(sk_expires).is_present() {
            (self.load(field!(sk_timer_pprev)), self.load(field!(sk_expires)))
        } else {
            (self.load(field!(keepalive_pprev)), self.load(field!(keepalive_expires)))
        };
        if pprev == 0 { (timer::NONE, 0) } else { (timer::KEEPALIVE, expires) }
    }

    /// `icsk_ca_state`, the low five bits of its byte in every kernel.
    #[inline(always)]
    pub(crate) fn ca_state(self) -> u8 {
        let field = field!(ca_state);
        if field.is_present() { self.load::<u8, _>(field) & 0x1f } else { UNKNOWN_CA_STATE }
    }
}
