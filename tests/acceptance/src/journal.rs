//! What a BMC was asked and what its machine did, read from the lab's journal: the proof that nothing was done twice.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A boot of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// What the firmware tried first: `disk` or `pxe`.
    pub first: String,
    /// Why it booted: `Reset On`, `guest reset`.
    pub cause: String,
}

/// One BMC's journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Journal {
    /// Every boot, in order.
    pub boots: Vec<Boot>,
    /// Every `ComputerSystem.Reset` that was asked for, in order.
    pub resets: Vec<String>,
    /// Whether the machine is on after all of it.
    pub on: bool,
    /// How often it was asked whether a password holds that did not.
    pub wrong_passwords: usize,
}

impl Journal {
    /// Replays a journal and holds it against what a careful engine does: power on only what is off, power off only what is
    /// on, never the same twice in a row, and no request that the BMC refuses.
    ///
    /// # Errors
    /// The first line that shows otherwise.
    pub fn replay(text: &str) -> Result<Self> {
        let journal = Journal::of_rotation(text)?;
        ensure!(
            journal.wrong_passwords == 0,
            "the BMC refused {} requests for their password",
            journal.wrong_passwords
        );
        Ok(journal)
    }

    /// The same for an engine that may have died while it gave the BMC another password: it has to ask whether the new one holds,
    /// by reading, and is refused where it does not. How often is for the caller to judge.
    ///
    /// # Errors
    /// The first line that shows otherwise.
    pub fn of_rotation(text: &str) -> Result<Self> {
        let mut journal = Journal::default();
        for (expected, line) in (1..).zip(text.lines()) {
            let entry: Value = serde_json::from_str(line).context("the journal has a line that is not JSON")?;
            ensure!(entry["seq"].as_u64() == Some(expected), "the journal has a gap before {line}");
            journal.take(&entry).with_context(|| format!("BMC journal, line {line}"))?;
        }
        Ok(journal)
    }

    fn take(&mut self, entry: &Value) -> Result<()> {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        match entry["kind"].as_str() {
            Some("boot") => {
                let cause = text("cause");
                ensure!(cause != "Reset On" || !self.on, "powered on while on");
                ensure!(cause == "Reset On" || self.on, "booted by itself while off");
                let first = entry["order"][0].as_str().unwrap_or_default().to_owned();
                self.boots.push(Boot { first, cause });
                self.on = true;
            }
            Some("power-off") => {
                ensure!(self.on, "lost power while off");
                self.on = false;
            }
            Some("request") => {
                let status = entry["status"].as_u64().context("a request without an answer")?;
                if status == 401 && text("method") == "GET" {
                    self.wrong_passwords += 1;
                    return Ok(());
                }
                ensure!((200..300).contains(&status), "the BMC refused a request");
                if text("path").ends_with("/ComputerSystem.Reset") {
                    let asked = entry["body"]["ResetType"].as_str().context("a reset without a type")?;
                    ensure!(self.resets.last().is_none_or(|last| last != asked), "{asked} was sent twice in a row");
                    self.resets.push(asked.to_owned());
                }
            }
            _ => anyhow::bail!("unknown kind of entry"),
        }
        Ok(())
    }

    /// How often the machine was switched on through the BMC.
    pub fn power_ons(&self) -> usize {
        self.resets.iter().filter(|reset| *reset == "On").count()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn lines(entries: &[&str]) -> String {
        let numbered = entries.iter().enumerate().map(|(i, entry)| format!("{{\"seq\":{},{entry}}}\n", i + 1));
        numbered.collect()
    }

    const BOOT: &str = r#""kind":"boot","order":["pxe","disk"],"cause":"Reset On""#;
    const OFF: &str = r#""kind":"power-off","cause":"Reset ForceOff""#;

    fn reset(asked: &str, status: u16) -> String {
        format!(
            r#""kind":"request","path":"/redfish/v1/Systems/1/Actions/ComputerSystem.Reset","body":{{"ResetType":"{asked}"}},"status":{status}"#
        )
    }

    #[test]
    fn a_careful_engine_passes() {
        let (on, off) = (reset("On", 204), reset("ForceOff", 204));
        let journal = Journal::replay(&lines(&[BOOT, &on, OFF, &off, BOOT, &on])).unwrap();
        assert_eq!((journal.power_ons(), journal.boots.len(), journal.on), (2, 2, true));
        assert_eq!(journal.boots[0].first, "pxe");
    }

    #[test]
    fn a_wrong_password_is_counted_where_one_may_be_asked_for_and_only_when_reading() {
        let asked = |method: &str| {
            format!(r#""kind":"request","method":"{method}","path":"/redfish/v1/Systems/1","status":401"#)
        };
        let read = lines(&[&asked("GET")]);
        assert_eq!(Journal::of_rotation(&read).unwrap().wrong_passwords, 1);
        assert!(Journal::replay(&read).unwrap_err().to_string().contains("refused 1 requests"));
        assert!(Journal::of_rotation(&lines(&[&asked("POST")])).is_err());
    }

    #[test]
    fn doubled_and_refused_requests_are_told() {
        let on = reset("On", 204);
        let told = |entries: &[&str]| format!("{:#}", Journal::replay(&lines(entries)).unwrap_err());
        assert!(told(&[BOOT, &on, &reset("On", 204)]).contains("twice in a row"));
        assert!(told(&[BOOT, &on, &reset("On", 409)]).contains("refused"));
        assert!(told(&[BOOT, &on, BOOT]).contains("powered on while on"));
        assert!(told(&[OFF]).contains("lost power while off"));
    }
}
