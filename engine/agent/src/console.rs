//! What a person sees on the machine's console.

use std::io::Write;

/// Says one line on the console, with the seconds since the kernel started. Never fails: a console that cannot be
/// written to is no reason not to work.
pub fn say(line: &str) {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = uptime.split_whitespace().next().unwrap_or("?");
    let mut out = std::io::stdout().lock();
    // One write per line, so that kernel messages do not land in the middle.
    let _ = out.write_all(format!("vmetal-agent [{seconds:>8}] {line}\n").as_bytes());
    let _ = out.flush();
}
