//! What is abnormal about a connection: why its span is kept whatever its trace id.
//!
//! That the ledger lost sight of a connection is no property of the connection, and comes in masses when it happens.
//!
//! When detectors come, "part of a finding" will be one more [`Why`], the first in [`Norms::why`]: a mark that the detector left
//! with the connection.

use crate::config::Otlp as Settings;
use crate::ledger::{Connection, End};

/// Something that somebody will want to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was refused, or the network or the host failed it.
    Failed,
    /// One of its ends reset it.
    Reset,
    /// The peer did not answer until the kernel gave up.
    TimedOut,
    /// This end gave it up.
    Aborted,
    /// A SYN had to be sent again: at least a second was lost.
    SynRetransmit,
    /// Too much had to be sent again.
    Retransmits,
    /// Its handshake took too long.
    SlowHandshake,
}

impl Why {
    /// Every reason, in the order of [`Why::index`].
    pub const ALL: [Self; 7] = [
        Self::Failed,
        Self::Reset,
        Self::TimedOut,
        Self::Aborted,
        Self::SynRetransmit,
        Self::Retransmits,
        Self::SlowHandshake,
    ];

    /// Position in an array of as many as [`Why::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The value of `synfin.sampling.reason`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Reset => "reset",
            Self::TimedOut => "timed_out",
            Self::Aborted => "aborted",
            Self::SynRetransmit => "syn_retransmit",
            Self::Retransmits => "retransmits",
            Self::SlowHandshake => "slow_handshake",
        }
    }
}

/// Up to where a connection is normal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Norms {
    /// Segments sent again, of those sent.
    ratio: f64,
    /// And at least so many.
    retransmits: u32,
    /// Seconds from SYN to ESTABLISHED.
    handshake: f64,
}

impl Norms {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            ratio: settings.abnormal_retransmit_ratio,
            retransmits: settings.abnormal_retransmits,
            handshake: settings.abnormal_handshake.as_secs_f64(),
        }
    }

    /// What is abnormal, if anything is; of several things the one that says most. `end` is none of a connection that lives.
    pub(super) fn why(&self, connection: &Connection, end: Option<End>) -> Option<Why> {
        end.and_then(ended).or_else(|| {
            if connection.retransmits_syn > 0 {
                Some(Why::SynRetransmit)
            } else if self.is_retransmitting(connection) {
                Some(Why::Retransmits)
            } else {
                connection.handshake_seconds().filter(|took| *took >= self.handshake).map(|_| Why::SlowHandshake)
            }
        })
    }

    fn is_retransmitting(&self, connection: &Connection) -> bool {
        let again = connection.retransmits_data;
        if again == 0 || again < self.retransmits {
            return false;
        }
        // Where the kernel does not tell how many it sent, all that is known is that some were sent again.
        let sent = connection.measures.map_or(0, |measures| measures.segs_out);
        f64::from(again) >= self.ratio * f64::from(sent)
    }
}

/// What is abnormal about an end.
const fn ended(end: End) -> Option<Why> {
    match end {
        End::Refused | End::Failed => Some(Why::Failed),
        End::ResetReceived | End::ResetSent => Some(Why::Reset),
        End::TimedOut => Some(Why::TimedOut),
        End::Aborted => Some(Why::Aborted),
        End::TimeWait | End::FinWait2 | End::Closed | End::Lost | End::Folded => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::fixtures::client;
    use super::*;
    use crate::event::State;

    fn why(connection: &Connection, end: End) -> Option<Why> {
        Norms::of(&Settings::default()).why(connection, Some(end))
    }

    #[test]
    fn every_end_that_is_seen_and_not_normal_is_a_reason() {
        for end in End::ALL {
            let abnormal = end.is_seen() && !end.is_normal();
            assert_eq!(why(&client(), end).is_some(), abnormal, "{end:?}");
        }
        assert_eq!(why(&client(), End::Folded), None, "that is the ledger's trouble");
    }

    #[test]
    fn retransmits_count_by_their_share() {
        let mut connection = client();
        let sent = |connection: &mut Connection, segs_out| {
            connection.measures = connection.measures.map(|measures| crate::event::Measures { segs_out, ..measures });
        };
        connection.retransmits_data = 1;
        sent(&mut connection, 20);
        assert_eq!(why(&connection, End::Closed), Some(Why::Retransmits));
        sent(&mut connection, 21);
        assert_eq!(why(&connection, End::Closed), None);
        connection.retransmits_data = 2;
        assert_eq!(why(&connection, End::Lost), Some(Why::Retransmits));
        let patient = Norms::of(&Settings { abnormal_retransmits: 3, ..Settings::default() });
        assert_eq!(patient.why(&connection, None), None);
        connection.measures = None;
        assert_eq!(why(&connection, End::Closed), Some(Why::Retransmits), "of an unknown number");
    }

    #[test]
    fn a_syn_that_was_sent_again_is_a_reason_whatever_came_after() {
        let mut connection = client();
        connection.retransmits_syn = 1;
        connection.measures =
            connection.measures.map(|measures| crate::event::Measures { segs_out: 9_999, ..measures });
        assert_eq!(why(&connection, End::Closed), Some(Why::SynRetransmit));
        assert_eq!(why(&connection, End::ResetSent), Some(Why::Reset), "the end says more");
    }

    #[test]
    fn a_handshake_is_slow_from_the_limit_on() {
        let mut connection = client();
        connection.entered_ns[State::Established.index()] = 1_999_999_999;
        assert_eq!(why(&connection, End::Closed), None);
        connection.entered_ns[State::Established.index()] += 1;
        assert_eq!(why(&connection, End::Closed), Some(Why::SlowHandshake));
        let quick = Settings { abnormal_handshake: Duration::from_millis(2), ..Settings::default() };
        assert_eq!(Norms::of(&quick).why(&client(), None), Some(Why::SlowHandshake));
    }

    #[test]
    fn each_has_its_index_and_its_name() {
        for (at, why) in Why::ALL.into_iter().enumerate() {
            assert_eq!(why.index(), at);
            assert!(Why::ALL.iter().filter(|other| other.name() == why.name()).count() == 1);
        }
    }
}
