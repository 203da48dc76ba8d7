//! When a server runs, and what its firmware tries first.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// How often the journal is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What happened to the power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Power {
    /// It is on, and this is what is tried first.
    On(First),
    /// It is off.
    Off,
}

/// What the firmware tries first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    Disk,
    Network,
}

/// The end of a BMC's journal.
pub(super) struct Journal {
    path: PathBuf,
    read: usize,
}

impl Journal {
    pub(super) fn new(path: &Path) -> Self {
        Journal { path: path.to_owned(), read: 0 }
    }

    /// The next change of power. Loses nothing when it is dropped before it has ended.
    pub(super) async fn next(&mut self) -> Power {
        loop {
            let text = std::fs::read(&self.path).unwrap_or_default();
            while let Some(length) = text[self.read.min(text.len())..].iter().position(|byte| *byte == b'\n') {
                let line = &text[self.read..self.read + length];
                self.read += length + 1;
                if let Some(power) = power(line) {
                    return power;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn power(line: &[u8]) -> Option<Power> {
    let entry: Value = serde_json::from_slice(line).ok()?;
    match entry["kind"].as_str()? {
        "power-off" => Some(Power::Off),
        "boot" if entry["order"][0] == "pxe" => Some(Power::On(First::Network)),
        "boot" => Some(Power::On(First::Disk)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_is_read_from_the_journal() {
        let on = br#"{"seq":2,"kind":"boot","boot":1,"order":["pxe","disk"],"cause":"Reset On"}"#;
        assert_eq!(power(on), Some(Power::On(First::Network)));
        let disk = br#"{"seq":9,"kind":"boot","boot":3,"order":["disk","pxe"],"cause":"guest reset"}"#;
        assert_eq!(power(disk), Some(Power::On(First::Disk)));
        assert_eq!(power(br#"{"seq":4,"kind":"power-off","cause":"Reset ForceOff"}"#), Some(Power::Off));
        assert_eq!(power(br#"{"seq":1,"kind":"request","method":"PATCH"}"#), None);
    }
}
