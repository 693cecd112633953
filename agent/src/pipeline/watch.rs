//! `synfin watch`: the stream of events on stdout.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;

use super::engine::{Engine, Observer, Tick};
use super::stop::Stop;
use super::writer::Writer;
use crate::clock::Clock;
use crate::config::{Config, WatchOptions};
use crate::event::Event;
use crate::export::jsonl;
use crate::ledger::{Applied, Ended};
use crate::status::Status;
use crate::view::columns;

/// Shows what happens until it is time to stop. A closed stdout is an [`io::ErrorKind::BrokenPipe`].
pub(super) fn watch(config: &Config, options: &WatchOptions) -> anyhow::Result<()> {
    let stop = Stop::on_signals()?;
    let clock = Arc::new(Clock::default());
    let mut engine = Engine::start(config, Arc::clone(&clock))?;
    let writer = Writer::start(io::stdout())?;
    let mut printer = Printer::new(options, Arc::clone(&clock), engine.reset_reasons(), writer);
    printer.start(&engine);
    printer.flush()?;
    tracing::debug!("attached");
    // The time that the user wants counts from now: loading is not watching.
    let stop = stop.after(options.duration);
    while !stop.is_set() && !printer.is_done() {
        let more = engine.step(&mut printer);
        printer.flush()?;
        if !more {
            stop.pause(engine.pause(config.ring.poll));
        }
    }
    let status = engine.finish(&mut printer);
    printer.end(&status);
    printer.flush()?;
    printer.writer.finish()?;
    Ok(())
}

/// Makes lines and keeps count of them.
struct Printer<'a> {
    options: &'a WatchOptions,
    clock: Arc<Clock>,
    reset_reasons: Arc<[String]>,
    out: BytesMut,
    text: String,
    lines: u64,
    writer: Writer,
}

impl<'a> Printer<'a> {
    fn new(options: &'a WatchOptions, clock: Arc<Clock>, reset_reasons: Arc<[String]>, writer: Writer) -> Self {
        Self { options, clock, reset_reasons, out: BytesMut::new(), text: String::new(), lines: 0, writer }
    }

    fn is_done(&self) -> bool {
        self.options.count.is_some_and(|count| self.lines >= count)
    }

    /// Calls one of the two writers, if another line is wanted.
    fn write(
        &mut self,
        json: impl FnOnce(&jsonl::Writer<'_>, &mut BytesMut) -> io::Result<()>,
        text: impl FnOnce(&columns::Writer<'_>, &mut String),
    ) {
        let (offset, reset_reasons) = (self.clock.offset(), &*self.reset_reasons);
        if self.options.json {
            // Writing into memory cannot fail, and every key is a string.
            if let Err(error) = json(&jsonl::Writer { offset, reset_reasons }, &mut self.out) {
                tracing::error!(%error, "a line could not be made");
            }
        } else {
            text(&columns::Writer { offset, reset_reasons }, &mut self.text);
        }
    }

    fn counted(
        &mut self,
        json: impl FnOnce(&jsonl::Writer<'_>, &mut BytesMut) -> io::Result<()>,
        text: impl FnOnce(&columns::Writer<'_>, &mut String),
    ) {
        if !self.is_done() {
            self.lines += 1;
            self.write(json, text);
        }
    }

    fn start(&mut self, engine: &Engine) {
        let now = self.clock.monotonic_ns();
        let release = rustix::system::uname();
        let release = release.release().to_string_lossy();
        let probes = engine.probes();
        self.write(
            |json, out| json.start(out, now, &release, &probes),
            |_, text| {
                text.push_str(columns::HEAD);
                text.push('\n');
            },
        );
    }

    fn end(&mut self, status: &Status) {
        self.write(|json, out| json.end(out, status.time_ns, status), |columns, text| columns.end(text, status));
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.push(self.text.as_bytes())?;
        self.text.clear();
        self.writer.push(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Whether the user wants to see this event. `--state` speaks of transitions, so that it leaves out all else.
    fn wants(&self, event: &Event) -> bool {
        let states = &self.options.states;
        match event {
            Event::Destroy(_) => false,
            _ if states.is_empty() => true,
            Event::Transition(event) => states.contains(&event.old) || states.contains(&event.new),
            Event::Retransmit(_) | Event::Reset(_) => false,
        }
    }
}

impl Observer for Printer<'_> {
    fn event(&mut self, event: &Event, applied: &Applied<'_>) {
        if self.wants(event) {
            self.counted(
                |json, out| json.event(out, event, applied),
                |columns, text| columns.event(text, event, applied),
            );
        }
    }

    fn ended(&mut self, ended: &[Ended]) {
        if self.options.connections {
            for ended in ended {
                self.counted(|json, out| json.ended(out, ended), |columns, text| columns.ended(text, ended));
            }
        }
    }

    fn tick(&mut self, tick: &Tick<'_>) {
        let now = tick.status.time_ns;
        if self.options.states.is_empty() {
            for row in tick.tallied {
                self.counted(|json, out| json.tallied(out, now, row), |columns, text| columns.tallied(text, now, row));
            }
        }
        for loss in tick.losses {
            self.write(|json, out| json.loss(out, now, loss), |columns, text| columns.loss(text, now, loss));
        }
    }
}
