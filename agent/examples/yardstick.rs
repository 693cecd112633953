//! Holds the empty program on the state tracepoint until its stdin closes: what `cargo xtask bench` measures ours against.

use std::io::{self, Read as _, Write as _};

fn main() -> anyhow::Result<()> {
    let _attached = synfin::loader::load_alone(&synfin::probes::YARDSTICK)?;
    writeln!(io::stdout(), "attached")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
