//! Which disk to install on.
//!
//! Every given hint must hold and exactly one disk must be left. Without hints it is the smallest disk that the image
//! fits on; when two are equally small nobody can say which is meant and kernel names change between boots, so that is
//! an error, never a guess: writing to the wrong disk destroys data.

use std::fmt::Write;

use vmetal_model::host::RootDeviceHints;
use vmetal_model::inventory::Disk;

const GIB: u64 = 1 << 30;

/// No disk, or more than one. The text lists every disk that was seen and why it was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootDeviceError {
    /// Nothing is left.
    #[error("no disk of {} matches the root device hints {hints}: {listing}", count(*.seen))]
    NoMatch {
        /// The hints that were given.
        hints: String,
        /// Disks seen.
        seen: usize,
        /// Every disk with the reason.
        listing: String,
    },
    /// More than one is left.
    #[error("{matches} disks match the root device hints {hints}, exactly one must: {listing}")]
    Ambiguous {
        /// The hints that were given.
        hints: String,
        /// How many match.
        matches: usize,
        /// Every disk with the reason.
        listing: String,
    },
}

fn count(seen: usize) -> String {
    if seen == 1 { "the 1 seen".to_owned() } else { format!("the {seen} seen") }
}

/// Chooses the disk for an image that needs `needed_bytes`.
///
/// # Errors
/// [`RootDeviceError`].
pub fn select<'a>(disks: &'a [Disk], hints: &RootDeviceHints, needed_bytes: u64) -> Result<&'a Disk, RootDeviceError> {
    let verdicts: Vec<(&Disk, Option<String>)> =
        disks.iter().map(|disk| (disk, rejection(disk, hints, needed_bytes))).collect();
    let mut left: Vec<&Disk> = verdicts.iter().filter(|(_, reason)| reason.is_none()).map(|(disk, _)| *disk).collect();
    if hints.is_empty() {
        let smallest = left.iter().map(|disk| disk.size_bytes).min();
        left.retain(|disk| Some(disk.size_bytes) == smallest);
    }
    match left[..] {
        [disk] => Ok(disk),
        [] => Err(RootDeviceError::NoMatch { hints: describe(hints), seen: disks.len(), listing: listing(&verdicts) }),
        _ => {
            Err(RootDeviceError::Ambiguous { hints: describe(hints), matches: left.len(), listing: listing(&verdicts) })
        }
    }
}

/// The first reason not to take a disk.
fn rejection(disk: &Disk, hints: &RootDeviceHints, needed_bytes: u64) -> Option<String> {
    fn seen(value: Option<&String>) -> &str {
        value.map_or("none", String::as_str)
    }
    let exact = |name: &str, hint: &Option<String>, value: Option<&String>| {
        let hint = hint.as_ref()?;
        (value.map(|v| v.trim()) != Some(hint.trim())).then(|| format!("{name} is {}, not {hint}", seen(value)))
    };
    let part = |name: &str, hint: &Option<String>, value: Option<&String>| {
        let hint = hint.as_ref()?;
        let found = value.is_some_and(|v| v.to_lowercase().contains(&hint.trim().to_lowercase()));
        (!found).then(|| format!("{name} is {}, without {hint}", seen(value)))
    };
    if let Some(hint) = &hints.device_name {
        let name = hint.strip_prefix("/dev/").unwrap_or(hint);
        if name != disk.name {
            return Some(format!("name is not {name}"));
        }
    }
    exact("serial", &hints.serial, disk.serial.as_ref())
        .or_else(|| exact("wwn", &hints.wwn, disk.wwn.as_ref()))
        .or_else(|| part("model", &hints.model, disk.model.as_ref()))
        .or_else(|| part("vendor", &hints.vendor, disk.vendor.as_ref()))
        .or_else(|| exact("hctl", &hints.hctl, disk.hctl.as_ref()))
        .or_else(|| {
            let minimum = hints.min_size_gib?;
            (disk.size_bytes < minimum.saturating_mul(GIB)).then(|| format!("smaller than {minimum} GiB"))
        })
        .or_else(|| {
            let wanted = hints.rotational?;
            let kind = |rotational| if rotational { "rotational" } else { "solid state" };
            (disk.rotational != wanted).then(|| format!("is {}, not {}", kind(disk.rotational), kind(wanted)))
        })
        .or_else(|| {
            (disk.size_bytes < needed_bytes).then(|| format!("too small: image and seed need {needed_bytes} bytes"))
        })
}

fn describe(hints: &RootDeviceHints) -> String {
    if hints.is_empty() {
        return "(none given: the smallest disk that the image fits on)".to_owned();
    }
    // Only the given hints, by their declared names; serialising plain fields cannot fail.
    serde_json::to_string(hints).unwrap_or_default()
}

fn listing(verdicts: &[(&Disk, Option<String>)]) -> String {
    if verdicts.is_empty() {
        return "no disk was seen at all; the installer may lack the controller's driver".to_owned();
    }
    let mut text = String::new();
    for (disk, reason) in verdicts {
        if !text.is_empty() {
            text.push_str("; ");
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "{} ({} bytes, {}", disk.name, disk.size_bytes, disk.bus);
        for (name, value) in [
            ("serial", &disk.serial),
            ("wwn", &disk.wwn),
            ("model", &disk.model),
            ("vendor", &disk.vendor),
            ("hctl", &disk.hctl),
        ] {
            if let Some(value) = value {
                let _ = write!(text, ", {name} {value}");
            }
        }
        let _ = write!(text, "): {}", reason.as_deref().unwrap_or("matches"));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn disk(name: &str, gib: u64) -> Disk {
        Disk {
            name: name.to_owned(),
            size_bytes: gib * GIB,
            bus: "sata".to_owned(),
            serial: Some(format!("S-{name}")),
            wwn: Some(format!("naa.{name}")),
            model: Some("Example SSD 860".to_owned()),
            vendor: Some("ATA".to_owned()),
            hctl: Some("0:0:0:0".to_owned()),
            ..Disk::default()
        }
    }

    #[test]
    fn without_hints_the_smallest_that_fits() {
        let disks = [disk("sda", 100), disk("sdb", 20), disk("sdc", 5)];
        let hints = RootDeviceHints::default();
        assert_eq!(select(&disks, &hints, 10 * GIB).unwrap().name, "sdb");
        assert_eq!(select(&disks, &hints, 5 * GIB).unwrap().name, "sdc", "exactly fits");
        let error = select(&disks, &hints, 200 * GIB).unwrap_err();
        assert!(matches!(error, RootDeviceError::NoMatch { seen: 3, .. }));
        let twins = [disk("sda", 20), disk("sdb", 20), disk("sdc", 100)];
        assert!(matches!(select(&twins, &hints, GIB), Err(RootDeviceError::Ambiguous { matches: 2, .. })));
    }

    #[test]
    fn every_hint_decides_alone() {
        let mut other = disk("nvme0n1", 400);
        (other.rotational, other.model, other.vendor, other.hctl) = (true, Some("Turbo".into()), None, None);
        let disks = [disk("sda", 100), other];
        let hint = |set: fn(&mut RootDeviceHints)| {
            let mut hints = RootDeviceHints::default();
            set(&mut hints);
            select(&disks, &hints, GIB).map(|d| d.name.as_str())
        };
        assert_eq!(hint(|h| h.device_name = Some("/dev/nvme0n1".into())), Ok("nvme0n1"));
        assert_eq!(hint(|h| h.device_name = Some("sda".into())), Ok("sda"));
        assert_eq!(hint(|h| h.serial = Some("S-nvme0n1".into())), Ok("nvme0n1"));
        assert_eq!(hint(|h| h.wwn = Some("naa.sda".into())), Ok("sda"));
        assert_eq!(hint(|h| h.model = Some("turbo".into())), Ok("nvme0n1"));
        assert_eq!(hint(|h| h.vendor = Some("ata".into())), Ok("sda"));
        assert_eq!(hint(|h| h.hctl = Some("0:0:0:0".into())), Ok("sda"));
        assert_eq!(hint(|h| h.min_size_gib = Some(101)), Ok("nvme0n1"));
        assert_eq!(hint(|h| h.rotational = Some(false)), Ok("sda"));
        assert!(hint(|h| h.serial = Some("S-sd".into())).is_err(), "serial numbers match as a whole");
    }

    #[test]
    fn the_error_lists_every_disk_and_its_reason() {
        let disks = [disk("sda", 100), disk("sdb", 2)];
        let hints = RootDeviceHints { serial: Some("X".into()), ..RootDeviceHints::default() };
        let text = select(&disks, &hints, GIB).unwrap_err().to_string();
        for part in ["sda", "sdb", "S-sda", "naa.sdb", "107374182400", "Example SSD 860", "not X", r#"{"serial":"X"}"#]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        let text = select(&[], &hints, GIB).unwrap_err().to_string();
        assert!(text.contains("driver"), "{text}");
    }
}
