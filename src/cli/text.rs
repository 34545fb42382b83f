//! Text for people: tables, durations, sizes. What clients and ESPs said is escaped for the terminal.

use std::io::{self, Write};
use std::time::Duration;

use crate::clock::Timestamp;
pub(super) use crate::journal::shown;

/// Rows under a head, columns as wide as their widest cell.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this head.
    pub(super) fn new(head: &[&str]) -> Self {
        Table { rows: vec![head.iter().map(|h| (*h).to_owned()).collect()] }
    }

    /// Adds a row; every cell is escaped.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|c| shown(&c)).collect());
    }

    /// Writes it, without blanks at line ends.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |n: usize| self.rows.iter().filter_map(|r| r.get(n)).map(|c| c.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|n| width(n).unwrap_or(0)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:width$}  "));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// One line for programs; a person who reads it is safe as well.
pub(super) fn json_line(out: &mut impl Write, value: &serde_json::Value) -> io::Result<()> {
    writeln!(out, "{}", crate::journal::shown_json(&value.to_string()))
}

/// At most so many characters, with an ellipsis for the rest.
pub(super) fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}

/// `4 s`, `3 min`, `2 h 5 min`, `3 d 4 h`.
pub(super) fn duration(d: Duration) -> String {
    let seconds = d.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |n: u64, unit: &str, rest: u64, of: &str| match rest {
        0 => format!("{n} {unit}"),
        _ => format!("{n} {unit} {rest} {of}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => two(hours, "h", minutes % 60, "min"),
        _ => two(days, "d", hours % 24, "h"),
    }
}

/// `0.012 s`.
pub(super) fn seconds(d: Duration) -> String {
    format!("{}.{:03} s", d.as_secs(), d.subsec_millis())
}

/// `in 4 min`, `3 s ago`, `now`.
pub(super) fn relative(at: Timestamp, now: Timestamp) -> String {
    match (at.since(now), now.since(at)) {
        (ahead, _) if ahead.as_secs() > 0 => format!("in {}", duration(ahead)),
        (_, behind) if behind.as_secs() > 0 => format!("{} ago", duration(behind)),
        _ => "now".into(),
    }
}

/// Octets in decimal units, as configuration has them.
pub(super) fn size(octets: u64) -> String {
    let tenths = |unit: u64| format!("{}.{}", octets / unit, octets % unit * 10 / unit);
    match octets {
        0..1_000 => format!("{octets} B"),
        1_000..1_000_000 => format!("{} kB", tenths(1_000)),
        1_000_000..1_000_000_000 => format!("{} MB", tenths(1_000_000)),
        _ => format!("{} GB", tenths(1_000_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_cannot_be_broken_by_a_cell() {
        let mut table = Table::new(&["ID", "TO"]);
        table.row(["1".into(), "grüße@example.org".into()]);
        table.row(["long".into(), "a\n\u{1b}[2J".into()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "ID    TO\n1     grüße@example.org\nlong  a\\n\\u{1b}[2J\n");
    }

    #[test]
    fn durations_and_sizes_read_well() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (7500, "2 h 5 min"),
            (86_400, "1 d"),
            (273_600, "3 d 4 h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
        for (octets, text) in
            [(999, "999 B"), (4_096, "4.0 kB"), (25_000_000, "25.0 MB"), (1_999_999_999, "1.9 GB")]
        {
            assert_eq!(size(octets), text);
        }
        let at = Timestamp::from_millis;
        assert_eq!(relative(at(61_000), at(0)), "in 1 min");
        assert_eq!(relative(at(0), at(2_000)), "2 s ago");
        assert_eq!(relative(at(900), at(0)), "now");
        assert_eq!(cut("grüße", 3), "grü…");
    }
}
