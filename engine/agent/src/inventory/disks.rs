//! Whole disks that an operating system could be installed on.

use std::fs;
use std::path::Path;

use vmetal_model::inventory::Disk;

use super::Sysfs;

/// Block devices that are no disks: made of memory or of other devices, remote, or for removable media.
const NOT_DISKS: [&str; 10] = ["loop", "ram", "zram", "sr", "fd", "dm-", "md", "nbd", "mtdblock", "rbd"];

/// sysfs counts sizes in 512-byte units whatever the sector size (block/genhd.c).
const SIZE_UNIT: u64 = 512;

pub(super) fn read(sysfs: &Sysfs) -> Vec<Disk> {
    sysfs.entries(&sysfs.path("sys/block")).into_iter().filter_map(|(name, path)| disk(sysfs, name, &path)).collect()
}

fn disk(sysfs: &Sysfs, name: String, path: &Path) -> Option<Disk> {
    let is = |file: &str| sysfs.number(&path.join(file)) == Some(1);
    if NOT_DISKS.iter().any(|prefix| name.starts_with(prefix)) || is("removable") || is("hidden") {
        return None;
    }
    let size_bytes = sysfs.number(&path.join("size"))? * SIZE_UNIT;
    if size_bytes == 0 || is("ro") {
        return None;
    }
    let device = path.join("device");
    let attribute = |file: &str| sysfs.text(&device.join(file));
    // virtio's vendor is a number, not a name.
    let vendor = attribute("vendor").filter(|vendor| !vendor.starts_with("0x"));
    let location = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let device_name = fs::canonicalize(&device).ok().and_then(|p| Some(p.file_name()?.to_str()?.to_owned()));
    Some(Disk {
        bus: bus(&name, &location.to_string_lossy(), vendor.as_deref()).to_owned(),
        rotational: is("queue/rotational"),
        model: attribute("model"),
        serial: sysfs
            .text(&path.join("serial"))
            .or_else(|| attribute("serial"))
            .or_else(|| vital_product_data(&device.join("vpd_pg80"))),
        wwn: sysfs.text(&path.join("wwid")).or_else(|| attribute("wwid")).filter(|wwid| is_world_wide(wwid)),
        hctl: device_name.filter(|name| is_hctl(name)),
        sector_bytes: sysfs
            .number(&path.join("queue/logical_block_size"))
            .and_then(|n| n.try_into().ok())
            .unwrap_or(512),
        vendor,
        size_bytes,
        name,
    })
}

/// From the path of devices that the disk hangs on.
fn bus(name: &str, location: &str, vendor: Option<&str>) -> &'static str {
    let through = |part: &str| location.contains(part);
    if name.starts_with("nvme") {
        "nvme"
    } else if through("/usb") {
        "usb"
    } else if through("/ata") || vendor == Some("ATA") {
        // Also SATA disks behind a SAS adapter: those call themselves ATA.
        "sata"
    } else if through("/end_device-") {
        "sas"
    } else if through("/virtio") {
        "virtio"
    } else {
        "other"
    }
}

/// The unit serial number page (SPC-4 section 7.8.15): four bytes of header, then text.
fn vital_product_data(path: &Path) -> Option<String> {
    let page = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(page.get(4..)?).trim_matches(['\0', ' ']).to_owned();
    (!text.is_empty()).then_some(text)
}

/// Identifiers that a registry makes unique. The kernel also makes some up from vendor, model and serial number
/// (`t10.`, `nvme.`); those say nothing that the other fields do not.
fn is_world_wide(wwid: &str) -> bool {
    ["naa.", "eui.", "uuid."].iter().any(|kind| wwid.starts_with(kind))
}

fn is_hctl(name: &str) -> bool {
    let parts: Vec<&str> = name.split(':').collect();
    parts.len() == 4 && parts.iter().all(|part| part.parse::<u64>().is_ok())
}
