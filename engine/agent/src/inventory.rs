//! What the machine is made of, read from sysfs and procfs.
//!
//! Reading never fails as a whole: what the kernel does not tell is left out, and what is told wrongly would be worse.
//! Everything goes through [`Sysfs`], so that tests can stand on a directory.

mod cpu;
mod disks;
mod nics;
mod settle;

use std::fs;
use std::path::{Path, PathBuf};

use vmetal_model::MacAddr;
use vmetal_model::inventory::{Firmware, Identity, Inventory, PciDevice};
use vmetal_model::pci::Hex;

pub use settle::settle;

/// A machine's `/sys` and `/proc`.
#[derive(Debug, Clone)]
pub struct Sysfs {
    root: PathBuf,
}

impl Sysfs {
    /// This machine.
    pub fn system() -> Self {
        Sysfs::at("/")
    }

    /// The machine whose `sys` and `proc` are below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Sysfs { root: root.into() }
    }

    /// A path below the root, given without leading slash.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// The trimmed text of a file, `None` when there is none or it is empty. NUL bytes, which some firmware pads with,
    /// end it.
    fn text(&self, path: &Path) -> Option<String> {
        let bytes = fs::read(path).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.split('\0').next().unwrap_or_default().trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn number(&self, path: &Path) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// Entries of a directory by name, in a stable order.
    fn entries(&self, path: &Path) -> Vec<(String, PathBuf)> {
        let Ok(read) = fs::read_dir(path) else { return Vec::new() };
        let mut entries: Vec<(String, PathBuf)> =
            read.flatten().filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect();
        entries.sort_by_cached_key(|(name, _)| natural(name));
        entries
    }
}

/// Orders `nvme2n1` before `nvme10n1`, and `sdz` before `sdaa`.
fn natural(name: &str) -> Vec<(u64, String)> {
    let mut parts = vec![];
    let mut rest = name;
    while !rest.is_empty() {
        let word = rest.len() - rest.trim_start_matches(|c: char| !c.is_ascii_digit()).len();
        let (text, tail) = rest.split_at(word);
        let digits = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = tail.split_at(digits);
        parts.push((text.len() as u64, text.to_owned()));
        parts.push((number.parse().unwrap_or(0), String::new()));
        rest = tail;
    }
    parts
}

/// Everything. `boot_mac` marks the interface that the machine was booted over.
pub fn read(sysfs: &Sysfs, boot_mac: Option<MacAddr>) -> Inventory {
    Inventory {
        identity: identity(sysfs),
        cpu: cpu::read(sysfs),
        memory_bytes: memory(sysfs),
        disks: disks::read(sysfs),
        nics: nics::read(sysfs, boot_mac),
        pci: pci(sysfs),
        firmware: firmware(sysfs),
    }
}

/// The disks that an operating system could be installed on.
pub fn disks(sysfs: &Sysfs) -> Vec<vmetal_model::inventory::Disk> {
    disks::read(sysfs)
}

/// The name of the interface with this address.
pub fn interface_of(sysfs: &Sysfs, mac: MacAddr) -> Option<String> {
    nics::read(sysfs, None).into_iter().find(|nic| nic.mac == mac).map(|nic| nic.name)
}

/// Who the machine says it is. Placeholders that mainboard vendors leave in are no identity.
pub fn identity(sysfs: &Sysfs) -> Identity {
    const PLACEHOLDERS: [&str; 9] = [
        "not specified",
        "none",
        "unknown",
        "default string",
        "to be filled by o.e.m.",
        "system serial number",
        "system product name",
        "system manufacturer",
        "0",
    ];
    let field = |name: &str| {
        let text = sysfs.text(&sysfs.path("sys/class/dmi/id").join(name))?;
        (!PLACEHOLDERS.contains(&text.to_lowercase().as_str())).then_some(text)
    };
    Identity {
        serial: field("product_serial"),
        uuid: field("product_uuid").map(|uuid| uuid.to_lowercase()),
        manufacturer: field("sys_vendor"),
        product: field("product_name"),
    }
}

/// How the machine was booted: the kernel has EFI runtime data only after an EFI boot.
pub fn firmware(sysfs: &Sysfs) -> Firmware {
    if sysfs.path("sys/firmware/efi").is_dir() { Firmware::Uefi } else { Firmware::Bios }
}

/// Installed memory: the memory blocks that the kernel manages, which are what is plugged in up to a block's size
/// (128 MiB). Without them `MemTotal`, which lacks what the kernel took for itself at boot.
fn memory(sysfs: &Sysfs) -> u64 {
    let dir = sysfs.path("sys/devices/system/memory");
    let block = sysfs.text(&dir.join("block_size_bytes")).and_then(|hex| u64::from_str_radix(&hex, 16).ok());
    let blocks = sysfs
        .entries(&dir)
        .iter()
        .filter(|(name, _)| name.strip_prefix("memory").is_some_and(|n| n.parse::<u64>().is_ok()))
        .filter(|(_, path)| sysfs.text(&path.join("state")).as_deref() == Some("online"))
        .count() as u64;
    match block {
        Some(block) if blocks > 0 => block * blocks,
        _ => sysfs
            .text(&sysfs.path("proc/meminfo"))
            .and_then(|text| {
                let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
                line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
            })
            .map_or(0, |kib| kib * 1024),
    }
}

fn pci(sysfs: &Sysfs) -> Vec<PciDevice> {
    sysfs
        .entries(&sysfs.path("sys/bus/pci/devices"))
        .into_iter()
        .filter_map(|(address, path)| {
            Some(PciDevice {
                vendor: number(sysfs, &path.join("vendor"))?,
                device: number(sysfs, &path.join("device"))?,
                class: number(sysfs, &path.join("class"))?,
                address,
            })
        })
        .collect()
}

/// A number as the kernel writes it: `0x10de`.
fn number<const DIGITS: usize>(sysfs: &Sysfs, path: &Path) -> Option<Hex<DIGITS>> {
    let text = sysfs.text(path)?;
    text.strip_prefix("0x").unwrap_or(&text).parse().ok()
}

#[cfg(test)]
pub(crate) mod tests;
