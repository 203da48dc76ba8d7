//! Words and columns: tables, fields, ages, sizes.

use jiff::Timestamp;

/// What stands where there is nothing.
pub(crate) const NONE: &str = "-";

/// A length of time in at most two units: `45s`, `3m12s`, `5h3m`, `3d4h`.
pub(crate) fn span(seconds: i64) -> String {
    let s = seconds.max(0);
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// How long ago something was; `0s` for the future (clocks differ).
pub(crate) fn age(then: Timestamp, now: Timestamp) -> String {
    span(now.duration_since(then).as_secs())
}

/// How long until something is; `now` once it is past.
pub(crate) fn until(then: Timestamp, now: Timestamp) -> String {
    match then.duration_since(now).as_secs() {
        seconds if seconds > 0 => format!("in {}", span(seconds)),
        _ => "now".into(),
    }
}

/// Bytes in the largest binary unit that leaves at least one: `512 MiB`, `1.5 TiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(5);
    let whole = 1u64 << (10 * unit);
    let tenths = u128::from(bytes) * 10 / u128::from(whole);
    let name = UNITS[unit as usize];
    if tenths % 10 == 0 { format!("{} {name}", tenths / 10) } else { format!("{}.{} {name}", tenths / 10, tenths % 10) }
}

/// Text from elsewhere, fit for a terminal: no control characters.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The text, or a dash.
pub(crate) fn or_none(text: Option<&str>) -> String {
    text.filter(|t| !t.is_empty()).map_or_else(|| NONE.to_owned(), clean)
}

/// A table under construction. Columns are as wide as their widest cell, the last one is not padded.
#[derive(Debug, Default)]
pub(crate) struct Table {
    widths: Vec<usize>,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        let header: Vec<String> = header.iter().map(|h| (*h).to_owned()).collect();
        Table { widths: header.iter().map(|h| h.chars().count()).collect(), header, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        let cells: Vec<String> = cells.iter().map(|cell| clean(cell)).collect();
        self.fit(&cells);
        self.rows.push(cells);
    }

    fn fit(&mut self, cells: &[String]) {
        for (width, cell) in self.widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }

    fn line(&self, cells: &[String]) -> String {
        let last = cells.len().saturating_sub(1);
        let padded = cells
            .iter()
            .zip(&self.widths)
            .enumerate()
            .map(|(i, (cell, width))| if i == last { cell.clone() } else { format!("{cell:<width$}") });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }

    /// One more line in the same columns, for a table that grows while it is read.
    pub(crate) fn further_line(&mut self, cells: Vec<String>) -> String {
        let cells: Vec<String> = cells.iter().map(|cell| clean(cell)).collect();
        self.fit(&cells);
        self.line(&cells)
    }

    /// Header and rows, each line ended.
    pub(crate) fn render(&self) -> String {
        let lines = std::iter::once(&self.header).chain(&self.rows);
        lines.map(|cells| self.line(cells) + "\n").collect()
    }

    /// The same with each line moved in.
    pub(crate) fn render_indented(&self) -> String {
        self.render().lines().map(|line| format!("  {line}\n")).collect()
    }
}

/// Named values under a heading, aligned. Values of several lines stay in their column; empty ones are left out.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    pairs: Vec<(&'static str, String)>,
}

impl Fields {
    pub(crate) fn add(&mut self, name: &'static str, value: impl Into<String>) -> &mut Self {
        let value = value.into();
        if !value.is_empty() {
            self.pairs.push((name, value));
        }
        self
    }

    pub(crate) fn maybe(&mut self, name: &'static str, value: Option<impl Into<String>>) -> &mut Self {
        if let Some(value) = value {
            self.add(name, value);
        }
        self
    }

    pub(crate) fn render(&self) -> String {
        let width = self.pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for (name, value) in &self.pairs {
            let mut name = *name;
            for line in value.lines() {
                let line = clean(line);
                text.push_str(format!("  {name:<width$}  {line}").trim_end());
                text.push('\n');
                name = "";
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        for (seconds, text) in [
            (-5, "0s"),
            (0, "0s"),
            (59, "59s"),
            (192, "3m12s"),
            (3600, "1h0m"),
            (18_180, "5h3m"),
            (86_399, "23h59m"),
            (273_600, "3d4h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn sizes_are_short_and_never_rounded_up() {
        for (size, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (64 << 30, "64 GiB"),
            (960_197_124_096, "894.2 GiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn tables_are_aligned_and_escape_sequences_are_taken_out() {
        let mut table = Table::new(&["NAME", "PHASE", "NOTE"]);
        table.row(vec!["a".into(), "available".into(), "\u{1b}[31mred".into()]);
        table.row(vec!["überlang".into(), "on".into(), String::new()]);
        assert_eq!(table.render(), "NAME      PHASE      NOTE\na         available   [31mred\nüberlang  on\n");
        assert_eq!(table.further_line(vec!["b".into(), "off".into(), "x".into()]), "b         off        x");
    }

    #[test]
    fn fields_are_aligned_and_empty_ones_left_out() {
        let mut fields = Fields::default();
        fields.add("phase", "error").add("nothing", "").add("what failed", "one\ntwo");
        assert_eq!(fields.render(), "  phase        error\n  what failed  one\n               two\n");
    }
}
