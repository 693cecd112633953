//! One request of an export, until it has arrived.

use std::time::{Duration, Instant};

use super::super::link::Link;
use super::super::pause::Pauses;
use super::super::request::Request;
use super::super::transport::Transport;
use super::super::worker::{Accepted, Failure};
use super::Shared;

/// Pause between two attempts at the end of the agent, after which there is no next export.
const LAST_PAUSE: Duration = Duration::from_millis(200);

/// Until when a request is tried.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// The next export has newer totals; and so has the last one, when the agent ends.
    NextExport(Instant),
    /// There is no other.
    End(Instant),
}

/// Sends a request until it has arrived, is refused for good, or there is no time for another attempt.
pub(super) fn deliver(
    request: &Request,
    transport: &Transport,
    link: &Link,
    shared: &Shared,
    until: Until,
) -> Result<Accepted, Failure> {
    let mut pauses = Pauses::new();
    loop {
        let answer = transport.send(request);
        let Err(Failure::Retry { why, after }) = &answer else { return answer };
        link.missed(why);
        let now = Instant::now();
        let is_over = match until {
            Until::NextExport(end) => {
                let due = now + pauses.next(*after);
                due >= end || shared.sleep(due).is_some()
            }
            Until::End(end) => {
                let is_over = now + LAST_PAUSE >= end;
                if !is_over {
                    std::thread::sleep(LAST_PAUSE);
                }
                is_over
            }
        };
        if is_over {
            return answer;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use opentelemetry::InstrumentationScope;
    use opentelemetry_sdk::Resource;
    use tonic::{Code, Status};

    use super::super::super::receiver::Receiver;
    use super::super::super::transport::{Builder, method};
    use super::super::{Desk, Exporter, Manner, Names, Points, Series, Source};
    use super::*;
    use crate::config::{Credentials, Protocol, Temporality};
    use crate::export::readings::Snapshot;
    use crate::export::tests::{full, snapshot};
    use crate::status::Board;

    const NOW: u64 = 7;

    /// An exporter with an endpoint, and a moment that it tells in one request.
    struct Stage {
        receiver: Receiver,
        exporter: Exporter,
        source: Source,
        snapshot: Snapshot,
        _runtime: tokio::runtime::Runtime,
    }

    impl Stage {
        /// The endpoint refuses the first requests with these.
        fn new(refusals: &[Code]) -> Self {
            let receiver = Receiver::start();
            let refusals = refusals.iter().rev().map(|code| Status::new(*code, "as told"));
            receiver.inbox.lock().unwrap().refusals.extend(refusals);
            let (signal, credentials) = (receiver.signal(), Credentials::default());
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let builder = Builder {
                name: "metrics",
                signal: &signal,
                credentials: &credentials,
                runtime: Some(runtime.handle()),
            };
            let (interval, temporality) = (Duration::from_secs(10), Temporality::Cumulative);
            let manner = Manner { interval, budget: 20_000, temporality, is_exponential: false };
            let scope = InstrumentationScope::builder("synfin").build();
            let exporter = Exporter {
                transport: builder.transport(method::METRICS).unwrap(),
                link: Arc::new(Link::new("metrics", &signal.endpoint, Protocol::Grpc)),
                shared: Arc::default(),
                desk: Desk::new(Names::new(&Resource::builder_empty().build(), None, &scope)),
                manner,
                series: Series::new(manner.budget, temporality),
            };
            let source = Source::new(Arc::new(Board::default()), Arc::default(), None).with_reader(true);
            let mut status = full();
            status.time_ns = NOW;
            Self { receiver, exporter, source, snapshot: snapshot(status), _runtime: runtime }
        }

        fn export(&mut self, until: Until) -> Result<(), Failure> {
            self.exporter.export(&self.source, &self.snapshot, until)
        }

        fn points(&self) -> Points {
            self.exporter.shared.books.read()
        }
    }

    #[test]
    fn an_endpoint_that_is_away_for_a_moment_costs_no_export() {
        let mut stage = Stage::new(&[Code::Unavailable, Code::Unavailable]);
        assert_eq!(stage.export(Until::NextExport(Instant::now() + Duration::from_mins(1))), Ok(()));
        let Points { exported, rejected, missed } = stage.points();
        assert!(exported > 100 && rejected + missed == 0, "{:?}", stage.points());
        assert!(stage.receiver.inbox.lock().unwrap().refusals.is_empty());
        assert_eq!(stage.source.told()(), NOW);
    }

    #[test]
    fn the_next_export_waits_for_nobody() {
        let mut stage = Stage::new(&[Code::Unavailable]);
        let begun = Instant::now();
        let outcome = stage.export(Until::NextExport(begun + Duration::from_millis(300)));
        assert!(matches!(outcome, Err(Failure::Retry { .. })), "{outcome:?}");
        assert!(begun.elapsed() < Duration::from_secs(5));
        let Points { exported, rejected, missed } = stage.points();
        assert!(missed > 100 && exported + rejected == 0, "{:?}", stage.points());
        assert_eq!(stage.source.told()(), 0, "it has not been told");
        assert_eq!(stage.export(Until::NextExport(Instant::now())), Ok(()));
        assert_eq!(stage.points(), Points { exported: missed, rejected, missed });
    }

    #[test]
    fn what_is_refused_for_good_is_not_tried_again() {
        let mut stage = Stage::new(&[Code::InvalidArgument]);
        let outcome = stage.export(Until::NextExport(Instant::now() + Duration::from_mins(1)));
        assert!(matches!(outcome, Err(Failure::Rejected(_))), "{outcome:?}");
        assert_eq!(stage.points().exported, 0);
        assert!(stage.points().rejected > 100);
    }

    #[test]
    fn at_the_end_there_are_short_pauses_and_a_last_moment() {
        let mut stage = Stage::new(&[Code::Unavailable; 3]);
        let begun = Instant::now();
        assert_eq!(stage.export(Until::End(begun + Duration::from_mins(1))), Ok(()));
        assert!((3 * LAST_PAUSE..Duration::from_secs(20)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        let mut stage = Stage::new(&[Code::Unavailable; 100]);
        let outcome = stage.export(Until::End(Instant::now() + 4 * LAST_PAUSE));
        assert!(matches!(outcome, Err(Failure::Retry { .. })), "{outcome:?}");
    }

    /// Of two requests of one export.
    #[test]
    fn a_failure_that_may_pass_outweighs_one_that_will_not() {
        let mut stage = Stage::new(&[Code::InvalidArgument, Code::Unavailable]);
        stage.snapshot = crate::export::otlp::metrics::tests::of_many_owners();
        let outcome = stage.export(Until::NextExport(Instant::now()));
        assert!(matches!(outcome, Err(Failure::Retry { .. })), "{outcome:?}");
        let Points { exported, rejected, missed } = stage.points();
        assert!(exported == 0 && rejected > 1_000 && missed > 1_000, "{:?}", stage.points());
    }
}
