//! Events as lines.

use jiff::Timestamp;
use vmetal_api::EventEntry;
use vmetal_model::Severity;

use crate::text::{NONE, Table, age, clean, span};

fn mark(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "",
        Severity::Warning => "warning: ",
        Severity::Error => "error: ",
    }
}

/// One event as a line, for streams: nothing is known about the width of what follows.
pub(crate) fn line(entry: &EventEntry) -> String {
    let event = &entry.event;
    let when = event.at.strftime("%Y-%m-%d %H:%M:%S");
    format!("{when}  {}/{}  {}{}\n", event.kind, clean(&event.name), mark(event.severity), clean(&event.message))
}

/// The last events of one object.
pub(crate) fn recent(entries: &[EventEntry], now: Timestamp) -> String {
    if entries.is_empty() {
        return "  none\n".into();
    }
    let mut table = Table::new(&["AGE", "REASON", "WHAT"]);
    for EventEntry { event, .. } in entries {
        let what = format!("{}{}", mark(event.severity), event.message);
        table.row(vec![age(event.at, now), event.reason.clone(), what]);
    }
    table.render_indented()
}

/// The timeline of a host's network boots: boots, what was done to the BMC, changes of phase. The second column is the
/// time since the line before, where long waits show.
pub(crate) fn timeline(entries: &[EventEntry]) -> String {
    let told = ["boot", "operation", "phase_changed", "failed", "erased"];
    let mut table = Table::new(&["TIME", "AFTER", "WHAT"]);
    let mut before: Option<Timestamp> = None;
    for EventEntry { event, .. } in entries.iter().filter(|entry| told.contains(&entry.event.reason.as_str())) {
        let after = before.map_or_else(|| NONE.into(), |b| format!("+{}", span(event.at.duration_since(b).as_secs())));
        before = Some(event.at);
        let what = format!("{}{}", mark(event.severity), event.message);
        table.row(vec![event.at.strftime("%Y-%m-%d %H:%M:%S").to_string(), after, what]);
    }
    match before {
        Some(_) => table.render_indented(),
        None => "  nothing was seen yet\n".into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use vmetal_model::{Event, Kind, Uid};

    use super::*;

    fn entry(at: &str, severity: Severity, reason: &str, message: &str) -> EventEntry {
        let event = Event {
            at: at.parse().unwrap(),
            kind: Kind::Host,
            name: "a".into(),
            uid: Uid("u".into()),
            severity,
            reason: reason.into(),
            message: message.into(),
        };
        EventEntry { revision: 1, event }
    }

    fn entries() -> Vec<EventEntry> {
        vec![
            entry("2026-11-20T11:00:00Z", Severity::Info, "operation", "power on"),
            entry("2026-11-20T11:00:09Z", Severity::Info, "boot", "DHCP offer 172.22.0.10"),
            entry("2026-11-20T11:00:10Z", Severity::Info, "claimed", "claimed by web-1"),
            entry("2026-11-20T11:05:10Z", Severity::Warning, "boot", "the installer is silent"),
        ]
    }

    #[test]
    fn a_line_has_all_and_no_escape_sequences() {
        let entry = entry("2026-11-20T11:00:00Z", Severity::Error, "failed", "no\u{1b}disk");
        assert_eq!(line(&entry), "2026-11-20 11:00:00  host/a  error: no disk\n");
    }

    #[test]
    fn recent_events_have_ages() {
        let now = "2026-11-20T12:00:00Z".parse().unwrap();
        assert_eq!(
            recent(&entries()[1..3], now),
            "  AGE     REASON   WHAT\n  59m51s  boot     DHCP offer 172.22.0.10\n  59m50s  claimed  claimed by web-1\n"
        );
        assert_eq!(recent(&[], now), "  none\n");
    }

    #[test]
    fn the_timeline_shows_where_time_went() {
        assert_eq!(
            timeline(&entries()),
            "  TIME                 AFTER  WHAT
  2026-11-20 11:00:00  -      power on
  2026-11-20 11:00:09  +9s    DHCP offer 172.22.0.10
  2026-11-20 11:05:10  +5m1s  warning: the installer is silent
"
        );
        assert!(timeline(&entries()[2..3]).contains("nothing"));
    }
}
