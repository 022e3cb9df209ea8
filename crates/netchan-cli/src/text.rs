//! Numbers and columns for people.

/// Writes a line to standard output, like `println!`. Whoever does not read it any more, as `head` does, is no reason to fail:
/// what was asked for has been done.
macro_rules! out {
    ($($arguments:tt)*) => {{
        use std::io::Write as _;
        _ = writeln!(std::io::stdout(), $($arguments)*);
    }};
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A figure with as many digits as say something: none behind the point from a thousand on, one from ten on.
pub(crate) fn figure(value: f64) -> String {
    match value {
        v if v >= 1000.0 => grouped(v.round() as u64),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// `1 worker`, `2 workers`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", grouped(number))
}

/// Lays rows out in columns: the first to the left, the others to the right, two spaces between, no trailing space.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|at| {
            rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in rows {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(
                |(at, (cell, &width))| {
                    if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let cases =
            [(0, "0"), (999, "999"), (1000, "1,000"), (100_000, "100,000"), (12_345_678, "12,345,678")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn figures_keep_the_digits_that_say_something() {
        assert_eq!(figure(20_123_456.7), "20,123,457");
        assert_eq!(figure(56.25), "56.2");
        assert_eq!(figure(1.0), "1.00");
    }

    #[test]
    fn nouns_follow_their_number() {
        assert_eq!(counted(1, "worker"), "1 worker");
        assert_eq!(counted(4000, "worker"), "4,000 workers");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".into(), "1".into()], vec!["long".into(), "100".into()], vec!["b".into()]];
        assert_eq!(table(&rows), "a       1\nlong  100\nb\n");
    }
}
