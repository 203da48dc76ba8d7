//! The QEMU command line of one boot.

use std::ffi::OsString;
use std::path::Path;

use super::{QemuHost, console_path};
use crate::config::{BootDevice, DiskBus, Firmware};

/// A path as an option value: QEMU wants commas doubled.
fn value(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// `bootindex` values: for each disk, and for the boot network card. Lower is earlier; none is never tried.
fn boot_indexes(order: &[BootDevice], disks: usize) -> (Vec<Option<usize>>, Option<usize>) {
    let mut next = 1;
    let mut take = || {
        let index = next;
        next += 1;
        Some(index)
    };
    let mut disk_indexes = vec![None; disks];
    let mut nic_index = None;
    for device in order {
        match device {
            BootDevice::Disk => disk_indexes.iter_mut().for_each(|slot| *slot = take()),
            BootDevice::Pxe => nic_index = take(),
        }
    }
    (disk_indexes, nic_index)
}

fn with_bootindex(device: String, index: Option<usize>) -> String {
    match index {
        Some(index) => format!("{device},bootindex={index}"),
        None => device,
    }
}

/// Builds the arguments.
pub(super) fn build(host: &QemuHost, order: &[BootDevice]) -> Vec<OsString> {
    let config = &host.config;
    let mut args: Vec<String> = Vec::new();
    let mut option = |name: &str, value: String| {
        args.push(name.to_owned());
        args.push(value);
    };
    option("-name", config.name.clone());
    // No default devices, and the serial port as the firmware's console: SeaBIOS needs graphics=off for that.
    option("-machine", "q35,graphics=off".to_owned());
    option("-accel", host.accel.as_str().to_owned());
    option("-cpu", "max".to_owned());
    option("-smp", config.cpus.to_string());
    option("-m", format!("{}M", config.memory_mib));
    option("-display", "none".to_owned());
    option("-uuid", config.system_uuid());
    option(
        "-smbios",
        format!("type=1,manufacturer={},product={},serial={}", config.manufacturer, config.model, config.serial()),
    );
    // The guest's own reset or power-off pauses the machine and tells us which it was; see the module above.
    option("-action", "reboot=shutdown,shutdown=pause".to_owned());
    option("-boot", "strict=on,menu=off".to_owned());
    // QMP on stdin and stdout: no socket file, and the channel closes with either end.
    option("-chardev", "stdio,id=qmp,signal=off".to_owned());
    option("-mon", "chardev=qmp,mode=control".to_owned());
    let console = value(&console_path(&host.state_dir, &config.name));
    option("-chardev", format!("file,id=console,path={console},append=on"));
    option("-serial", "chardev:console".to_owned());
    option("-device", "virtio-rng-pci".to_owned());
    if config.firmware == Firmware::Uefi {
        option("-drive", format!("if=pflash,unit=0,format=raw,readonly=on,file={}", value(&host.qemu.ovmf_code)));
        option("-drive", format!("if=pflash,unit=1,format=raw,file={}", value(&host.vars_path())));
    }
    let (disk_indexes, nic_index) = boot_indexes(order, config.disks.len());
    let mut sata_port = 0;
    for (index, ((path, disk, serial), boot_index)) in host.disks().zip(disk_indexes).enumerate() {
        // no-flush: the host's page cache outlives a killed guest, and a lab need not survive a host crash.
        option(
            "-blockdev",
            format!(
                "driver=raw,node-name=disk{index},discard=unmap,cache.no-flush=on,file.driver=file,file.filename={}",
                value(&path)
            ),
        );
        let device = match disk.bus {
            DiskBus::Virtio => format!("virtio-blk-pci,drive=disk{index},serial={serial}"),
            DiskBus::Nvme => format!("nvme,drive=disk{index},serial={serial}"),
            DiskBus::Sata => {
                let port = sata_port;
                sata_port += 1;
                format!("ide-hd,bus=ide.{port},drive=disk{index},serial={serial}")
            }
        };
        option("-device", with_bootindex(device, boot_index));
    }
    for (index, (mac, tap)) in config.macs().zip(&host.taps).enumerate() {
        option("-netdev", format!("tap,id=net{index},ifname={tap},script=no,downscript=no"));
        // UEFI boots over the network with OVMF's own driver, not with an option ROM. Only the first card of a BIOS host has one.
        let rom = match (config.firmware, index, &host.qemu.bios_pxe_rom) {
            (Firmware::Bios, 0, None) => String::new(),
            (Firmware::Bios, 0, Some(path)) => format!(",romfile={}", value(path)),
            _ => ",romfile=".to_owned(),
        };
        // A fixed slot gives the guest a fixed interface name.
        let slot = 0x10 + index;
        let device = format!("virtio-net-pci,netdev=net{index},mac={mac},addr={slot:#x}{rom}");
        option("-device", with_bootindex(device, if index == 0 { nic_index } else { None }));
    }
    // Paused until QMP is ready, so that no event is missed.
    args.extend(["-nodefaults", "-no-user-config", "-S"].map(str::to_owned));
    args.into_iter().map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_order_becomes_indexes() {
        let both = [BootDevice::Disk, BootDevice::Pxe];
        assert_eq!(boot_indexes(&both, 2), (vec![Some(1), Some(2)], Some(3)));
        let pxe_first = [BootDevice::Pxe, BootDevice::Disk];
        assert_eq!(boot_indexes(&pxe_first, 1), (vec![Some(2)], Some(1)));
        assert_eq!(boot_indexes(&[BootDevice::Disk], 1), (vec![Some(1)], None));
        assert_eq!(boot_indexes(&both, 0), (vec![], Some(1)));
    }
}
