//! Text in columns.

/// Columns as wide as they need; those in `left` are aligned to the left. No blanks at the end of a line.
pub(super) fn table(out: &mut String, rows: &[Vec<String>], left: &[usize]) {
    out.push('\n');
    let mut widths = Widths::default();
    for row in rows {
        widths.fit(row);
    }
    for row in rows {
        widths.line(out, row, left);
    }
}

/// How wide columns are.
#[derive(Debug, Default)]
pub(super) struct Widths(Vec<usize>);

impl Widths {
    /// Makes room for a row.
    pub(super) fn fit(&mut self, row: &[String]) {
        self.0.resize(self.0.len().max(row.len()), 0);
        for (width, cell) in self.0.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }

    /// Writes a row.
    pub(super) fn line(&self, out: &mut String, row: &[String], left: &[usize]) {
        let cells = row.iter().zip(&self.0).enumerate().map(|(column, (cell, width))| {
            if left.contains(&column) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
}

/// What a user or another program has named, without what a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A length of time in the two units that matter: `0.2s`, `4m05s`, `3h20m`, `12d07h`.
pub(super) fn duration(ns: u64) -> String {
    let whole = ns / 1_000_000_000;
    match whole {
        0..60 => format!("{:.1}s", ns as f64 / 1e9),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        for (ms, text) in [
            (0, "0.0s"),
            (260, "0.3s"),
            (59_900, "59.9s"),
            (60_000, "1m00s"),
            (3_599_900, "59m59s"),
            (12_000_000, "3h20m"),
            (1_062_000_000, "12d07h"),
        ] {
            assert_eq!(duration(ms * 1_000_000), text);
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut out = String::new();
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        table(&mut out, &[row(["A", "B", "C"]), row(["long", "1", ""]), row(["ä", "200", "x"])], &[0, 2]);
        assert_eq!(out, "\nA       B  C\nlong    1\nä     200  x\n");
    }
}
