//! Results: rows in JSON, and the same as a table.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured; part of what is promised, see the design.
    pub name: String,
    /// In what.
    pub unit: String,
    /// Ours: the median where there were several runs.
    pub ours: f64,
    /// The peer's.
    pub peer: Option<f64>,
    /// Who the peer is.
    pub peer_name: Option<String>,
    /// How many times as good ours is.
    pub ratio: Option<f64>,
    /// Runs, or samples.
    pub n: usize,
    /// Where.
    pub machine: String,
    /// What it includes, what it does not, and what was seen beside it.
    pub notes: String,
}

/// Which of two figures is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// The smaller, as of a time.
    Less,
    /// The larger, as of a rate.
    More,
}

impl Row {
    /// A figure without a peer.
    pub fn new(name: &str, unit: &str, ours: f64, n: usize, notes: impl Into<String>) -> Self {
        Row {
            name: name.to_owned(),
            unit: unit.to_owned(),
            ours,
            peer: None,
            peer_name: None,
            ratio: None,
            n,
            machine: machine(),
            notes: notes.into(),
        }
    }

    /// The same beside a peer's figure.
    #[must_use]
    pub fn beside(self, peer_name: &str, peer: f64, better: Better) -> Self {
        let ratio = match better {
            Better::Less => peer / self.ours,
            Better::More => self.ours / peer,
        };
        Row { peer: Some(peer), peer_name: Some(peer_name.to_owned()), ratio: Some(ratio), ..self }
    }

    /// The same with more notes.
    #[must_use]
    pub fn noting(self, more: &str) -> Self {
        Row { notes: self.notes + more, ..self }
    }
}

/// Processors, memory and kernel of this machine, and how busy it is with other things.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let memory: u64 = read("/proc/meminfo").split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0);
    format!(
        "{cores} x{}, {} GiB, Linux {}, load {}",
        model.trim_start_matches([' ', '\t', ':']).split(" @").next().map(|m| format!(" {m}")).unwrap_or_default(),
        memory >> 20,
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').next().unwrap_or_default(),
    )
}

/// Says what was measured so far: a run that is broken off later has not measured nothing.
pub fn tell(rows: &[Row]) {
    for row in rows {
        eprintln!("   {}: {:.3} {}", row.name, row.ours, row.unit);
    }
}

/// Writes the rows and prints them.
///
/// # Errors
/// When the file cannot be written.
pub fn publish(bench: &str, directory: &Path, rows: &[Row]) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let path = directory.join(format!("{bench}.json"));
    std::fs::write(&path, serde_json::to_vec_pretty(rows)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("\n{:<34} {:>12} {:>12} {:>8} {:>7}  unit", bench, "ours", "peer", "ratio", "n");
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    for row in rows {
        let (peer, ratio) = (number(row.peer), number(row.ratio));
        println!("{:<34} {:>12.3} {peer:>12} {ratio:>8} {:>7}  {}", row.name, row.ours, row.n, row.unit);
    }
    for row in rows.iter().filter(|row| !row.notes.is_empty()) {
        println!("  {}: {}", row.name, row.notes);
    }
    println!("written to {}", path.display());
    Ok(())
}

/// The value below which this part of the samples lies; 0 for none.
pub fn percentile(samples: &mut [f64], part: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let last = samples.len().saturating_sub(1);
    // In range by construction.
    samples.get((last as f64 * part).round() as usize).copied().unwrap_or(0.0)
}

/// The median; 0 for none.
pub fn median(samples: &[f64]) -> f64 {
    let mut samples = samples.to_vec();
    samples.sort_by(f64::total_cmp);
    let at = |index: usize| samples.get(index).copied().unwrap_or(0.0);
    match samples.len() {
        even if even % 2 == 0 => f64::midpoint(at((even / 2).saturating_sub(1)), at(even / 2)),
        odd => at(odd / 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_says_how_many_times_as_good_ours_is() {
        let row = |better| Row::new("a", "s", 2.0, 1, "").beside("peer 1.0", 8.0, better);
        assert_eq!((row(Better::Less).ratio, row(Better::More).ratio), (Some(4.0), Some(0.25)));
    }

    #[test]
    fn percentiles_are_samples() {
        let mut samples: Vec<f64> = (1..=101).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut samples, 0.5), 51.0);
        assert_eq!(percentile(&mut samples, 0.99), 100.0);
        assert_eq!(percentile(&mut samples, 1.0), 101.0);
        assert_eq!(percentile(&mut [], 0.5), 0.0);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 2.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 2.0, 4.0]), 3.0);
        assert_eq!(median(&[]), 0.0);
    }
}
