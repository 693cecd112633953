//! What a child process prints, read by a thread: the child never waits for the test, nor the test for ever.

use std::{
    io::{BufRead as _, BufReader, Read},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use anyhow::Result;

use crate::deadline;

/// Lines so far, and those to come.
#[derive(Debug)]
pub struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Lines {
    /// Begins to read.
    pub fn read(from: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let reader = thread::spawn({
            let lines = Arc::clone(&lines);
            move || {
                for line in BufReader::new(from).lines().map_while(std::io::Result::ok) {
                    lock(&lines).push(line);
                }
            }
        });
        Self { lines, reader: Some(reader) }
    }

    /// The first line so far that is wanted.
    pub fn find(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        lock(&self.lines).iter().find(|line| wanted(line)).cloned()
    }

    /// All lines so far.
    pub fn all(&self) -> Vec<String> {
        lock(&self.lines).clone()
    }

    /// Waits for the end of the stream, which is there once its writers are gone.
    pub fn finish(&mut self) -> Result<()> {
        let Some(reader) = &self.reader else { return Ok(()) };
        deadline::until("the end of a child's output", || Ok(reader.is_finished().then_some(())))?;
        self.reader = None;
        Ok(())
    }
}

fn lock(lines: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}
