//! Finds in the status what deserves an event record: once a second it compares with what it saw before, so that the
//! number of records is bounded however fast things change.

use opentelemetry::Key;
use opentelemetry::logs::{AnyValue, Severity};

use crate::health::{Health, roll_up};
use crate::status::{Drift, Loss, Status};

/// What is to be said.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) name: &'static str,
    pub(super) severity: Severity,
    pub(super) body: String,
    pub(super) attributes: Vec<(Key, AnyValue)>,
}

/// What was said before.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// None until a status with probes was published: before, there is nothing to judge.
    health: Option<Health>,
    losses: Vec<Loss>,
    corrections: [u64; CORRECTIONS.len()],
    clock_jumps: u64,
}

/// What the ledger is put right in, as `synfin.ledger.corrections` counts it.
const CORRECTIONS: [&str; 3] = ["adopted", "stale_state", "missed_close"];

impl Changes {
    /// What is new in `status`.
    pub(super) fn observe(&mut self, status: &Status) -> Vec<Event> {
        let mut events = Vec::new();
        if !status.probes.is_empty() {
            self.observe_health(status, &mut events);
        }
        for loss in &status.losses {
            let before = self.losses.iter().find(|old| (old.reason, old.kind) == (loss.reason, loss.kind));
            let count = loss.count.saturating_sub(before.map_or(0, |old| old.count));
            if count != 0 {
                events.push(lost(loss, count));
            }
        }
        self.losses.clone_from(&status.losses);
        self.observe_corrections(status, &mut events);
        let jumps = status.clock_jumps.saturating_sub(self.clock_jumps);
        if jumps != 0 {
            self.clock_jumps = status.clock_jumps;
            events.push(Event {
                name: "synfin.clock.jumped",
                severity: Severity::Warn,
                body: "the wall clock was set: times before and after do not compare".to_owned(),
                attributes: vec![("synfin.clock.jumps".into(), integer(jumps))],
            });
        }
        events
    }

    /// The kernel's tables have put the ledger right.
    fn observe_corrections(&mut self, status: &Status, events: &mut Vec<Event>) {
        let Drift { adopted, stale, missed_closes, .. } = status.drift;
        let now = [adopted, stale, missed_closes];
        let new = std::mem::replace(&mut self.corrections, now).into_iter().zip(now);
        let new = new.map(|(before, now)| now.saturating_sub(before));
        for (kind, count) in CORRECTIONS.into_iter().zip(new).filter(|(_, count)| *count != 0) {
            events.push(Event {
                name: "synfin.ledger.corrected",
                severity: Severity::Warn,
                body: format!("the kernel's tables have put {count} connections right: {kind}"),
                attributes: vec![
                    ("synfin.correction.kind".into(), kind.into()),
                    ("synfin.correction.count".into(), integer(count)),
                ],
            });
        }
    }

    fn observe_health(&mut self, status: &Status, events: &mut Vec<Event>) {
        let health = roll_up(&status.probes);
        let Some(before) = self.health.replace(health) else {
            events.push(started(status, health));
            return;
        };
        if before != health {
            let mut attributes = vec![
                ("synfin.health".into(), health.name().into()),
                ("synfin.health.previous".into(), before.name().into()),
            ];
            attributes.push(("synfin.probes".into(), verdicts(status)));
            events.push(Event {
                name: "synfin.health.changed",
                severity: severity(health),
                body: format!("health: {} (was {})", health.name(), before.name()),
                attributes,
            });
        }
    }
}

fn started(status: &Status, health: Health) -> Event {
    Event {
        name: "synfin.started",
        severity: severity(health),
        body: format!("synfin {} watches TCP connections, health: {}", env!("CARGO_PKG_VERSION"), health.name()),
        attributes: vec![("synfin.health".into(), health.name().into()), ("synfin.probes".into(), verdicts(status))],
    }
}

fn lost(loss: &Loss, count: u64) -> Event {
    let reason = loss.reason.name();
    let mut attributes =
        vec![("synfin.loss.reason".into(), reason.into()), ("synfin.loss.count".into(), integer(count))];
    if let Some(kind) = loss.kind {
        attributes.push(("synfin.event.kind".into(), kind.name().into()));
    }
    let what = loss.kind.map_or_else(String::new, |kind| format!(" of kind {}", kind.name()));
    Event {
        name: "synfin.events.lost",
        severity: Severity::Warn,
        body: format!("{count} events{what} lost: {reason}"),
        attributes,
    }
}

/// Probe name to verdict.
fn verdicts(status: &Status) -> AnyValue {
    status.probes.iter().map(|probe| (Key::from_static_str(probe.name), AnyValue::from(probe.verdict.name()))).collect()
}

const fn severity(health: Health) -> Severity {
    match health {
        Health::Healthy => Severity::Info,
        Health::Degraded => Severity::Warn,
        Health::Failed => Severity::Error,
    }
}

/// OTLP has no unsigned integers; no count gets that far.
fn integer(count: u64) -> AnyValue {
    AnyValue::Int(count as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;
    use crate::health::{Probe, Verdict};
    use crate::rung::Rung;
    use crate::status::LossReason;

    fn status(active: bool) -> Status {
        let verdict = if active {
            Verdict::Active { rung: Rung::TpBtf, partial: false }
        } else {
            Verdict::Broken { error: "EPERM".to_owned() }
        };
        let probe = Probe {
            name: "state",
            tracepoint: "inet_sock_set_state",
            required: false,
            verdict,
            refused: Vec::new(),
            cost: None,
        };
        Status { probes: vec![probe], ..Status::default() }
    }

    fn names(events: &[Event]) -> Vec<&str> {
        events.iter().map(|event| event.name).collect()
    }

    #[test]
    fn the_start_and_each_change_of_health_are_told_once() {
        let mut changes = Changes::default();
        assert!(changes.observe(&Status::default()).is_empty(), "nothing is attached yet");
        assert_eq!(names(&changes.observe(&status(true))), ["synfin.started"]);
        assert!(changes.observe(&status(true)).is_empty());
        let events = changes.observe(&status(false));
        assert_eq!(names(&events), ["synfin.health.changed"]);
        assert_eq!(events[0].severity, Severity::Warn);
        assert_eq!(events[0].body, "health: degraded (was healthy)");
    }

    #[test]
    fn corrections_are_told_by_kind_and_how_many_are_new() {
        let drift = |adopted, missed_closes| Drift { adopted, missed_closes, found_at_start: 9, ..Drift::default() };
        let mut changes = Changes::default();
        let mut told = |drift| {
            let events = changes.observe(&Status { drift, ..Status::default() });
            events.into_iter().map(|event| (event.name, event.attributes)).collect::<Vec<_>>()
        };
        let event = |kind: &'static str, count| {
            let attributes = vec![
                ("synfin.correction.kind".into(), kind.into()),
                ("synfin.correction.count".into(), AnyValue::Int(count)),
            ];
            ("synfin.ledger.corrected", attributes)
        };
        assert!(told(drift(0, 0)).is_empty(), "what was there before the agent is no correction");
        assert_eq!(told(drift(3, 0)), [event("adopted", 3)]);
        assert_eq!(told(drift(4, 2)), [event("adopted", 1), event("missed_close", 2)]);
        assert!(told(drift(4, 2)).is_empty());
    }

    #[test]
    fn losses_are_told_by_how_much_they_grew() {
        let loss = |count| Loss { reason: LossReason::RingFull, kind: Some(EventKind::Transition), count };
        let mut changes = Changes::default();
        let mut now = Status { losses: vec![loss(5)], ..Status::default() };
        assert_eq!(changes.observe(&now)[0].body, "5 events of kind transition lost: ring_full");
        assert!(changes.observe(&now).is_empty());
        now.losses[0].count = 12;
        let events = changes.observe(&now);
        assert!(events[0].attributes.contains(&("synfin.loss.count".into(), AnyValue::Int(7))));
    }

    #[test]
    fn a_jump_of_the_clock_is_told() {
        let mut changes = Changes::default();
        let now = Status { clock_jumps: 2, ..Status::default() };
        assert_eq!(names(&changes.observe(&now)), ["synfin.clock.jumped"]);
        assert!(changes.observe(&now).is_empty());
    }
}
