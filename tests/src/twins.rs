//! Both ends of connections as spans: which span is whose, told by the sockets' own addresses, and which of them share a trace.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result, ensure};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};

use crate::{
    netns::Netns,
    otlp::{
        Receiver,
        judge::{Judge, integer, text},
    },
    synfin::Synfin,
};

/// A local and a peer's address.
pub type Ends = (SocketAddr, SocketAddr);

/// A connection that was made: what each of its two sockets says of its ends.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// Of the socket that connected.
    pub client: Ends,
    /// Of the socket that was accepted.
    pub server: Ends,
}

impl Made {
    /// Asks both sockets.
    pub fn of(client: &TcpStream, server: &TcpStream) -> Result<Self> {
        let ends = |stream: &TcpStream| -> Result<Ends> { Ok((stream.local_addr()?, stream.peer_addr()?)) };
        Ok(Self { client: ends(client)?, server: ends(server)? })
    }
}

/// An agent on some namespaces, with a receiver that nobody else sends to.
#[derive(Debug)]
pub struct Agent {
    receiver: Receiver,
    synfin: Synfin,
}

/// What an agent told until its end.
#[derive(Debug, Default)]
pub struct Told {
    /// Its spans.
    pub spans: Vec<Span>,
    /// Events that it missed, as it says itself.
    pub lost: u64,
}

impl Agent {
    /// Starts one; what happens from now on is seen.
    pub fn start<'a>(namespaces: impl IntoIterator<Item = &'a Netns>) -> Result<Self> {
        Self::start_with(namespaces, &[])
    }

    /// Starts one with these variables.
    pub fn start_with<'a>(
        namespaces: impl IntoIterator<Item = &'a Netns>,
        variables: &[(&str, String)],
    ) -> Result<Self> {
        let receiver = Receiver::start()?;
        let synfin = Synfin::serve_with(namespaces, &["--otlp-endpoint", &receiver.endpoint()], variables)?;
        Ok(Self { receiver, synfin })
    }

    /// What it sends to.
    pub const fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// Ends it, and gives the receiver.
    pub fn finish(self) -> Result<Receiver> {
        self.synfin.terminate()?;
        Ok(self.receiver)
    }

    /// Ends it, and gives all that the receiver got.
    pub fn end(self) -> Result<Told> {
        self.synfin.terminate()?;
        self.receiver.look(|judge: &Judge| {
            judge.verdict()?;
            #[expect(clippy::cast_sign_loss, reason = "a count")]
            let lost = judge.series.sum("synfin.events.lost", &[]) as u64;
            Ok(Told { spans: judge.spans.clone(), lost })
        })
    }
}

/// The spans of both ends of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Twins<'a> {
    /// Of the end that opened.
    pub client: &'a Span,
    /// Of the end that accepted.
    pub server: &'a Span,
}

impl Twins<'_> {
    /// One trace, in which the server's span is the child of the client's.
    pub fn are_joined(&self) -> bool {
        let Self { client, server } = self;
        client.trace_id == server.trace_id
            && client.parent_span_id.is_empty()
            && server.parent_span_id == client.span_id
            && server.span_id != client.span_id
    }
}

/// The spans of each connection, in the order in which `made` tells of them: it is the order of time, so that connections with the
/// same addresses are told apart. Fails unless each end of each connection has a span, and there are no others.
pub fn pair<'a>(made: &[Made], spans: impl IntoIterator<Item = &'a Span>) -> Result<Vec<Twins<'a>>> {
    let mut spans: Vec<&Span> = spans.into_iter().collect();
    spans.sort_by_key(|span| span.start_time_unix_nano);
    let mut found: BTreeMap<(SpanKind, Ends), VecDeque<&Span>> = BTreeMap::new();
    for span in spans {
        found.entry((span.kind(), ends(span)?)).or_default().push_back(span);
    }
    let mut take = |kind: SpanKind, (local, peer): Ends| {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let key = (kind, (canonical(local), canonical(peer)));
        let span = found.get_mut(&key).and_then(VecDeque::pop_front);
        span.with_context(|| format!("no {kind:?} span for a connection from {local} to {peer}"))
    };
    let twins = made.iter().map(|made| {
        Ok(Twins { client: take(SpanKind::Client, made.client)?, server: take(SpanKind::Server, made.server)? })
    });
    let twins: Vec<_> = twins.collect::<Result<_>>()?;
    let left: Vec<_> = found.iter().filter(|(_, spans)| !spans.is_empty()).map(|(key, _)| key).collect();
    ensure!(left.is_empty(), "spans of connections that nobody made: {left:?}");
    Ok(twins)
}

/// Fails unless the ends of each connection share a trace that no other connection has. `lost` events may have taken the means away
/// from as many connections, which then stand alone.
pub fn joined(twins: &[Twins<'_>], lost: u64) -> Result<()> {
    never_wrongly_joined(twins)?;
    let torn: Vec<_> = twins.iter().filter(|twins| !twins.are_joined()).collect();
    ensure!(
        torn.len() as u64 <= lost,
        "{} of {} connections are not joined, and {lost} events were lost; the first: {:?}",
        torn.len(),
        twins.len(),
        torn[0]
    );
    Ok(())
}

/// Fails unless every span is the only one of its trace, and names none that exists as its parent.
pub fn apart(twins: &[Twins<'_>]) -> Result<()> {
    never_wrongly_joined(twins)?;
    let joined = |twins: &&Twins<'_>| {
        let Twins { client, server } = twins;
        client.trace_id == server.trace_id || server.parent_span_id == client.span_id
    };
    let joined = twins.iter().filter(joined).count();
    ensure!(joined == 0, "{joined} of {} connections are joined, as a whole or by half", twins.len());
    Ok(())
}

/// Fails unless every span is the only one of its trace and has no parent.
pub fn alone(twins: &[Twins<'_>]) -> Result<()> {
    apart(twins)?;
    let spans = twins.iter().flat_map(|twins| [twins.client, twins.server]);
    let children = spans.filter(|span| !span.parent_span_id.is_empty()).count();
    ensure!(children == 0, "{children} spans of {} connections have a parent", twins.len());
    Ok(())
}

/// Fails if spans of two connections share a trace, or one names a span of another connection as its parent.
pub fn never_wrongly_joined(twins: &[Twins<'_>]) -> Result<()> {
    let mut traces = BTreeSet::new();
    let mut owners = BTreeMap::new();
    for (number, Twins { client, server }) in twins.iter().enumerate() {
        for trace in BTreeSet::from([&client.trace_id, &server.trace_id]) {
            ensure!(traces.insert(trace), "two connections share the trace {trace:02x?}");
        }
        for span in [client, server] {
            ensure!(owners.insert(&span.span_id, number).is_none(), "two spans have the id {:02x?}", span.span_id);
        }
    }
    for (number, twins) in twins.iter().enumerate() {
        for span in [twins.client, twins.server] {
            let parent = owners.get(&span.parent_span_id);
            ensure!(parent.is_none_or(|owner| *owner == number), "the parent is of another connection: {span:?}");
        }
    }
    Ok(())
}

fn ends(span: &Span) -> Result<Ends> {
    let end = |address: &str, port: &str| -> Result<SocketAddr> {
        let known = text(&span.attributes, address).zip(integer(&span.attributes, port));
        let (address, port) = known.with_context(|| format!("no {address} and {port}: {span:?}"))?;
        Ok(SocketAddr::new(address.parse()?, port.try_into()?))
    };
    Ok((end("network.local.address", "network.local.port")?, end("network.peer.address", "network.peer.port")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(trace: u8, id: u8, parent: Option<u8>) -> Span {
        let parent_span_id = parent.map(|parent| vec![parent; 8]).unwrap_or_default();
        Span { trace_id: vec![trace; 16], span_id: vec![id; 8], parent_span_id, ..Span::default() }
    }

    /// What the four verdicts say of these connections, each given as (trace, id, parent) of the client's span and of the server's.
    fn verdicts(connections: &[[(u8, u8, Option<u8>); 2]]) -> [bool; 4] {
        let spans: Vec<[Span; 2]> =
            connections.iter().map(|ends| ends.map(|(trace, id, parent)| span(trace, id, parent))).collect();
        let twins: Vec<_> = spans.iter().map(|[client, server]| Twins { client, server }).collect();
        [never_wrongly_joined(&twins), joined(&twins, 0), apart(&twins), alone(&twins)].map(|verdict| verdict.is_ok())
    }

    #[test]
    fn joined_is_one_trace_and_the_right_parent() {
        let pair = [[(1, 1, None), (1, 2, Some(1))], [(2, 3, None), (2, 4, Some(3))]];
        assert_eq!(verdicts(&pair), [true, true, false, false]);
        for by_half in [(1, 2, None), (1, 2, Some(9)), (2, 2, Some(1))] {
            assert_eq!(verdicts(&[[(1, 1, None), by_half]]), [true, false, false, false], "{by_half:?}");
        }
    }

    #[test]
    fn apart_may_name_a_parent_that_nobody_sent() {
        assert_eq!(verdicts(&[[(1, 1, None), (2, 2, Some(9))]]), [true, false, true, false]);
        assert_eq!(verdicts(&[[(1, 1, None), (2, 2, None)]]), [true, false, true, true]);
    }

    #[test]
    fn what_two_connections_share_is_a_wrong_join() {
        let first = [(1, 1, None), (2, 2, None)];
        for second in [
            [(1, 3, None), (4, 4, None)],    // the trace of the other client
            [(3, 3, None), (2, 4, None)],    // of the other server
            [(3, 3, None), (4, 2, None)],    // a span id
            [(3, 3, None), (4, 4, Some(1))], // its parent
        ] {
            assert_eq!(verdicts(&[first, second]), [false; 4], "{second:?}");
        }
    }

    #[test]
    fn events_that_were_lost_excuse_as_many_connections() {
        let (client, server) = (span(1, 1, None), span(2, 2, None));
        let twins = [Twins { client: &client, server: &server }];
        assert!(joined(&twins, 0).is_err() && joined(&twins, 1).is_ok());
    }
}
