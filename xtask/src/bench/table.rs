//! Tables in Markdown.

/// A table with its columns aligned; the first column is text, the others are numbers.
pub(super) fn render(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let rule = widths.iter().enumerate().map(|(column, width)| {
        let dashes = "-".repeat(width + 1);
        if column == 0 { format!("-{dashes}") } else { format!("{dashes}:") }
    });
    let rule = format!("|{}|\n", rule.collect::<Vec<_>>().join("|"));
    let rows = rows.iter().map(|row| line(&row.iter().map(String::as_str).collect::<Vec<_>>(), &widths));
    [line(head, &widths), rule].into_iter().chain(rows).collect()
}

fn line(cells: &[&str], widths: &[usize]) -> String {
    let padded = widths.iter().enumerate().map(|(column, &width)| {
        let cell = cells.get(column).copied().unwrap_or_default();
        if column == 0 { format!(" {cell:<width$} ") } else { format!(" {cell:>width$} ") }
    });
    format!("|{}|\n", padded.collect::<Vec<_>>().join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["empty".to_owned(), "77".to_owned()], vec!["a".to_owned()]];
        let expected = "| program | ns |\n|---------|---:|\n| empty   | 77 |\n| a       |    |\n";
        assert_eq!(render(&["program", "ns"], &rows), expected);
    }
}
