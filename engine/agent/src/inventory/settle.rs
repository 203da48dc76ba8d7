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
    if let Some(pending) = wait(sysfs, QUIET, LIMIT) {
        say(&format!("going on without waiting any longer for {pending}"));
    }
}

/// Waits until disks have been quiet for `quiet`, at most `limit`. Returns what is still pending then.
fn wait(sysfs: &Sysfs, quiet: Duration, limit: Duration) -> Option<String> {
    let begun = clock::now();
    let mut seen = Vec::new();
    let mut since = begun;
    loop {
        let pending = pending(sysfs);
        let now: Vec<_> = WATCHED.iter().flat_map(|dir| sysfs.entries(&sysfs.path(dir))).collect();
        if now != seen || pending.is_some() {
            seen = now;
            since = clock::now();
        }
        if since.elapsed() >= quiet {
            return None;
        }
        if begun.elapsed() >= limit {
            return Some(pending.unwrap_or_else(|| "a list of disks that keeps changing".to_owned()));
        }
        thread::sleep(LOOK_AGAIN.min(quiet));
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

    const SHORT: Duration = Duration::from_millis(300);

    #[test]
    fn quiet_hardware_is_not_waited_for_and_busy_hardware_is_named() {
        let f = Fixture::new();
        f.file("sys/class/nvme/nvme0/state", "live\n");
        assert_eq!(wait(&f.sysfs(), Duration::ZERO, SHORT), None);
        f.file("sys/class/nvme/nvme0/state", "connecting\n");
        assert_eq!(wait(&f.sysfs(), Duration::from_millis(50), SHORT).as_deref(), Some("nvme0 (connecting)"));
    }

    #[test]
    fn a_disk_that_appears_starts_the_wait_again() {
        let f = Fixture::new();
        let begun = clock::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(200));
                f.disk("sda", "pci0000:00/0000:00:01.1/ata1/host0/target0:0:0/0:0:0:0", 1 << 20);
            });
            assert_eq!(wait(&f.sysfs(), SHORT, Duration::from_secs(20)), None);
        });
        assert!(begun.elapsed() >= Duration::from_millis(450), "{:?}", begun.elapsed());
    }
}
