//! Waiting until the kernel has found its disks.
//!
//! Drivers look for disks after their module is loaded, at their own pace, and nothing says when all are found. An
//! inventory taken too early lacks disks, and an erasure would be told as complete with a disk missing. So: no NVMe
//! controller may be on its way up, and the list of disks and of what they hang on must not have changed for a while.
//! (libata shows no such state: a port that was not probed yet looks like an empty one.)

use std::thread;
use std::time::Duration;

use super::Sysfs;
use crate::clock;
use crate::console::say;

/// How long nothing may change. A SATA port gives up on its first reset after less, and SAS expanders report their disks
/// within a second of each other.
const QUIET: Duration = Duration::from_secs(5);
/// Hardware that is not done by now is broken.
const LIMIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Controllers, what was found on them, and the disks that were made of it.
const WATCHED: [&str; 4] = ["sys/class/scsi_host", "sys/class/scsi_device", "sys/class/nvme", "sys/block"];

/// Waits, and says so on the console when something never gets ready.
pub fn settle(sysfs: &Sysfs) {
    let mut last = clock::now();
    let pass = |span| {
        thread::sleep(span);
        let before = std::mem::replace(&mut last, clock::now());
        last - before
    };
    if let Some(pending) = wait(sysfs, QUIET, LIMIT, pass) {
        say(&format!("going on without waiting any longer for {pending}"));
    }
}

/// Waits until disks have been quiet for `quiet`, at most `limit`. Returns what is still pending then. `pass` lets about
/// so much time pass and says how much it was since it was last asked.
fn wait(sysfs: &Sysfs, quiet: Duration, limit: Duration, mut pass: impl FnMut(Duration) -> Duration) -> Option<String> {
    let (mut waited, mut unchanged) = (Duration::ZERO, Duration::ZERO);
    let mut seen = Vec::new();
    loop {
        let pending = pending(sysfs);
        let now: Vec<_> = WATCHED.iter().flat_map(|dir| sysfs.entries(&sysfs.path(dir))).collect();
        if now != seen || pending.is_some() {
            seen = now;
            unchanged = Duration::ZERO;
        }
        if unchanged >= quiet {
            return None;
        }
        if waited >= limit {
            return Some(pending.unwrap_or_else(|| "a list of disks that keeps changing".to_owned()));
        }
        let passed = pass(LOOK_AGAIN);
        waited += passed;
        unchanged += passed;
    }
}

/// A device that the kernel is still looking at.
fn pending(sysfs: &Sysfs) -> Option<String> {
    sysfs.entries(&sysfs.path("sys/class/nvme")).into_iter().find_map(|(name, path)| {
        let state = sysfs.text(&path.join("state"))?;
        ["new", "resetting", "connecting"].contains(&state.as_str()).then(|| format!("{name} ({state})"))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fixture;
    use super::*;

    /// Waits in a time of its own, in which `happens` after so long. Returns what is pending and how long it took.
    fn waited(f: &Fixture, quiet: Duration, happens: (Duration, impl FnOnce())) -> (Option<String>, Duration) {
        let (after, event) = happens;
        let (mut now, mut event) = (Duration::ZERO, Some(event));
        let pending = wait(&f.sysfs(), quiet, LIMIT, |span| {
            now += span;
            if now >= after
                && let Some(event) = event.take()
            {
                event();
            }
            span
        });
        (pending, now)
    }

    fn nothing() -> (Duration, impl FnOnce()) {
        (Duration::MAX, || {})
    }

    #[test]
    fn quiet_hardware_is_not_waited_for_and_busy_hardware_is_named() {
        let f = Fixture::new();
        f.file("sys/class/nvme/nvme0/state", "live\n");
        assert_eq!(waited(&f, Duration::ZERO, nothing()), (None, Duration::ZERO));
        assert_eq!(waited(&f, QUIET, nothing()), (None, QUIET));
        f.file("sys/class/nvme/nvme0/state", "connecting\n");
        assert_eq!(waited(&f, QUIET, nothing()), (Some("nvme0 (connecting)".to_owned()), LIMIT));
    }

    #[test]
    fn a_disk_that_appears_starts_the_wait_again() {
        let f = Fixture::new();
        let after = QUIET - LOOK_AGAIN;
        let appears = || {
            f.disk("sda", "pci0000:00/0000:00:01.1/ata1/host0/target0:0:0/0:0:0:0", 1 << 20);
        };
        assert_eq!(waited(&f, QUIET, (after, appears)), (None, after + QUIET));
    }
}
