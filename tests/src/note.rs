//! What a test found out beside its verdict, for whoever runs it on many kernels.

use std::{env, fs::OpenOptions, io::Write as _};

use anyhow::{Context as _, Result};

/// Names the file that notes are appended to; without it they are not kept.
pub const NOTES_VARIABLE: &str = "SYNFIN_TEST_NOTES";

/// Keeps a note: one line, what it is about and what was found, parted by a tab.
pub fn write(about: &str, found: &str) -> Result<()> {
    let Some(path) = env::var_os(NOTES_VARIABLE) else { return Ok(()) };
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    Ok(writeln!(file, "{about}\t{found}")?)
}
