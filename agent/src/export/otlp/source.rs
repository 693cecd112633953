//! Where snapshots come from: what the agent knows, with the queues that export it.

use std::sync::Arc;

use super::logs::Logs;
use super::traces::Traces;
use crate::export::readings::{Line, Snapshot};
use crate::status::Board;

/// Takes snapshots. Cheap to copy, and never in the way of the threads that it reads from.
#[derive(Clone, Debug)]
pub struct Source {
    board: Arc<Board>,
    /// With the name of the exporter in self-metrics.
    spans: Option<(Arc<Traces>, &'static str)>,
    logs: Option<(Logs, &'static str)>,
}

impl Source {
    /// Of an agent that exports nothing by OTLP.
    pub const fn new(board: Arc<Board>) -> Self {
        Self { board, spans: None, logs: None }
    }

    /// With these queues, and the names of their exporters.
    pub(super) fn with_queues(
        self,
        spans: Option<(Arc<Traces>, &'static str)>,
        logs: Option<(Logs, &'static str)>,
    ) -> Self {
        Self { spans, logs, ..self }
    }

    /// Everything at one moment.
    pub fn take(&self) -> Snapshot {
        Snapshot {
            status: self.board.latest(),
            spans: self.spans.as_ref().map(|(traces, exporter)| Line {
                counts: traces.counts(),
                processor: "batching_span_processor",
                exporter,
            }),
            sampled_out: self.spans.as_ref().map_or_else(Default::default, |(traces, _)| traces.sampled_out()),
            logs: self.logs.as_ref().map(|(logs, exporter)| Line {
                counts: logs.counts(),
                processor: "batching_log_processor",
                exporter,
            }),
        }
    }
}
