//! Stderr, which keeps its lines back while something else has the terminal.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _};
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lines kept back at most; beyond it the oldest go, of which then only the number is told.
const MOST: usize = 1_000;

/// Lines that wait, and how many more there were; None while lines are written at once.
static HELD: Mutex<Option<Held>> = Mutex::new(None);

#[derive(Debug, Default)]
struct Held {
    lines: VecDeque<Vec<u8>>,
    gone: usize,
}

fn held() -> MutexGuard<'static, Option<Held>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the log goes.
#[derive(Debug)]
pub(super) struct Stderr;

impl io::Write for Stderr {
    /// One line: the log writes each in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut *held() {
            None => io::stderr().write(line),
            Some(held) => {
                held.push(line);
                Ok(line.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl Held {
    fn push(&mut self, line: &[u8]) {
        if self.lines.len() >= MOST {
            self.lines.pop_front();
            self.gone += 1;
        }
        self.lines.push_back(line.to_vec());
    }

    fn write(self, out: &mut impl io::Write) -> io::Result<()> {
        if self.gone > 0 {
            writeln!(out, "({} older lines of the log are gone)", self.gone)?;
        }
        self.lines.iter().try_for_each(|line| out.write_all(line))
    }
}

/// Keeps the log back until it is dropped, if stderr is a terminal; what goes into a file goes on.
#[derive(Debug)]
pub struct HoldBack(());

impl HoldBack {
    /// From now on.
    pub fn start() -> Self {
        if io::stderr().is_terminal() {
            held().get_or_insert_default();
        }
        Self(())
    }
}

impl Drop for HoldBack {
    fn drop(&mut self) {
        let mut slot = held();
        if let Some(lines) = mem::take(&mut *slot) {
            // Under the lock, so that no younger line comes first. A stderr that is gone is no reason to fail.
            _ = lines.write(&mut io::stderr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_back_is_bounded_and_in_order() {
        let mut held = Held::default();
        (0..MOST + 2).for_each(|number| held.push(format!("{number}\n").as_bytes()));
        let mut out = Vec::new();
        held.write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("(2 older lines of the log are gone)\n2\n3\n"), "{text}");
        assert!(text.ends_with("\n1001\n"), "{text}");
    }
}
