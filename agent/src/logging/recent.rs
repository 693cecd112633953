//! The last warnings, for a screen that would paint over them.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Warnings that are kept.
const MOST: usize = 16;

/// Warnings and errors that the log has shown, oldest first. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Mutex<VecDeque<Warning>>>);

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// When.
    pub time: jiff::Timestamp,
    /// Message and fields.
    pub text: String,
}

impl Recent {
    /// The last of them, at most so many, oldest first.
    pub fn last(&self, most: usize) -> Vec<Warning> {
        let all = self.lock();
        all.iter().skip(all.len().saturating_sub(most)).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Warning>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if *event.metadata().level() > Level::WARN {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let mut all = self.lock();
        if all.len() >= MOST {
            all.pop_front();
        }
        all.push_back(Warning { time: jiff::Timestamp::now(), text: text.message + &text.fields });
    }
}

/// The message first, as people read it.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing into a text cannot fail.
        _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}
