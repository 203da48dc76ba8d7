//! Physical Ethernet interfaces.

use std::fs;
use std::path::Path;

use vmetal_model::MacAddr;
use vmetal_model::inventory::Nic;

use super::Sysfs;

/// `ARPHRD_ETHER` of `linux/if_arp.h`.
const ETHERNET: u64 = 1;

pub(super) fn read(sysfs: &Sysfs, boot_mac: Option<MacAddr>) -> Vec<Nic> {
    sysfs
        .entries(&sysfs.path("sys/class/net"))
        .into_iter()
        .filter_map(|(name, path)| nic(sysfs, name, &path, boot_mac))
        .collect()
}

fn nic(sysfs: &Sysfs, name: String, path: &Path, boot_mac: Option<MacAddr>) -> Option<Nic> {
    let device = path.join("device");
    // Bridges, tunnels and the like hang on no device.
    if !device.exists() || sysfs.number(&path.join("type")) != Some(ETHERNET) {
        return None;
    }
    let mac: MacAddr = sysfs.text(&path.join("address"))?.parse().ok()?;
    let driver = fs::canonicalize(device.join("driver")).ok().and_then(|p| Some(p.file_name()?.to_str()?.to_owned()));
    let location = fs::canonicalize(&device).unwrap_or_default();
    let pci_address = location
        .components()
        .rev()
        .filter_map(|part| part.as_os_str().to_str())
        .find(|part| is_pci(part))
        .map(str::to_owned);
    Some(Nic {
        mac,
        driver,
        // Reading fails while the interface is down; a link without known speed says -1.
        speed_mbps: sysfs
            .number(&path.join("speed"))
            .and_then(|n| n.try_into().ok())
            .filter(|n| *n != u32::MAX && *n > 0),
        link_up: sysfs.number(&path.join("carrier")) == Some(1),
        pci_address,
        boot: boot_mac == Some(mac),
        name,
    })
}

/// `domain:bus:device.function`.
fn is_pci(part: &str) -> bool {
    let hex = |text: &str, digits: usize| text.len() == digits && u32::from_str_radix(text, 16).is_ok();
    let mut fields = part.split([':', '.']);
    let mut next = |digits: usize| fields.next().is_some_and(|field| hex(field, digits));
    part.len() == 12 && next(4) && next(2) && next(2) && next(1)
}
