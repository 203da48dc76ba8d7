#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::symlink;

use tempfile::TempDir;
use vmetal_model::inventory::Cpu;

use super::*;

/// A machine's `/sys` and `/proc` as a directory.
pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Fixture { dir: TempDir::new().unwrap() }
    }

    pub(crate) fn sysfs(&self) -> Sysfs {
        Sysfs::at(self.dir.path())
    }

    pub(crate) fn file(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn link(&self, path: &str, to: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::create_dir_all(self.dir.path().join(to)).unwrap();
        symlink(self.dir.path().join(to), path).unwrap();
    }

    /// A block device on `device` (a path below `sys/devices`).
    pub(crate) fn disk(&self, name: &str, device: &str, size_bytes: u64) -> String {
        let device = format!("sys/devices/{device}");
        let block = format!("{device}/block/{name}");
        self.file(&format!("{block}/size"), format!("{}\n", size_bytes / 512));
        self.file(&format!("{block}/removable"), "0\n");
        self.file(&format!("{block}/queue/rotational"), "0\n");
        self.file(&format!("{block}/queue/logical_block_size"), "512\n");
        self.link(&format!("sys/block/{name}"), &block);
        self.link(&format!("{block}/device"), &device);
        block
    }
}

#[test]
fn a_server_is_described_as_the_kernel_tells_it() {
    let f = Fixture::new();
    f.file("sys/class/dmi/id/product_serial", "ABC123\n");
    f.file("sys/class/dmi/id/product_uuid", "4C4C4544-0042\n");
    f.file("sys/class/dmi/id/sys_vendor", "Example Inc.\n");
    f.file("sys/class/dmi/id/product_name", "To be filled by O.E.M.\n");
    for cpu in 0..8 {
        let topology = format!("sys/devices/system/cpu/cpu{cpu}/topology");
        f.file(&format!("{topology}/physical_package_id"), format!("{}\n", cpu / 4));
        f.file(&format!("{topology}/core_id"), format!("{}\n", cpu / 2 % 2));
    }
    f.file("sys/devices/system/cpu/cpu8/online", "0\n");
    f.file("sys/devices/system/cpu/cpufreq/boost", "1\n");
    f.file("proc/cpuinfo", "processor\t: 0\nmodel name\t: Example  CPU @ 2.0GHz\nflags : x\n");
    f.file("sys/devices/system/memory/block_size_bytes", "8000000\n");
    for block in 0..4 {
        f.file(
            &format!("sys/devices/system/memory/memory{block}/state"),
            if block < 3 { "online\n" } else { "offline\n" },
        );
    }
    f.file("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10DE\n");
    f.file("sys/bus/pci/devices/0000:01:00.0/device", "0x2330\n");
    f.file("sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n");
    f.file("sys/firmware/efi/fw_platform_size", "64\n");

    let inventory = read(&f.sysfs(), None);
    let id = &inventory.identity;
    assert_eq!((id.serial.as_deref(), id.uuid.as_deref()), (Some("ABC123"), Some("4c4c4544-0042")));
    assert_eq!((id.manufacturer.as_deref(), id.product.as_deref()), (Some("Example Inc."), None));
    let expected = Cpu {
        architecture: std::env::consts::ARCH.to_owned(),
        model: "Example CPU @ 2.0GHz".to_owned(),
        sockets: 2,
        cores: 4,
        threads: 8,
    };
    assert_eq!(inventory.cpu, expected);
    assert_eq!(inventory.memory_bytes, 3 * 0x800_0000);
    assert_eq!(inventory.pci[0].vendor.to_string(), "10de");
    assert_eq!(inventory.pci[0].class.to_string(), "030200");
    assert_eq!(inventory.firmware, Firmware::Uefi);
}

#[test]
fn without_memory_blocks_meminfo_counts_and_without_efi_it_is_bios() {
    let f = Fixture::new();
    f.file("proc/meminfo", "MemTotal:        1000 kB\nMemFree: 1 kB\n");
    let inventory = read(&f.sysfs(), None);
    assert_eq!(inventory.memory_bytes, 1_024_000);
    assert_eq!(inventory.firmware, Firmware::Bios);
    assert_eq!(
        read(&Sysfs::at("/nonexistent"), None),
        Inventory {
            cpu: Cpu { architecture: std::env::consts::ARCH.to_owned(), ..Cpu::default() },
            ..Inventory::default()
        }
    );
}

#[test]
fn disks_of_every_bus_and_nothing_else() {
    const GIB: u64 = 1 << 30;
    let f = Fixture::new();
    let virtio = f.disk("vda", "pci0000:00/0000:00:03.0/virtio1", 10 * GIB);
    f.file(&format!("{virtio}/serial"), "VIRT-1");
    f.file("sys/devices/pci0000:00/0000:00:03.0/virtio1/vendor", "0x1af4\n");
    let nvme = f.disk("nvme0n1", "pci0000:00/0000:00:04.0/nvme/nvme0", 20 * GIB);
    f.file("sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/serial", "NV-1      \n");
    f.file("sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/model", "Example NVMe       \n");
    f.file(&format!("{nvme}/wwid"), "eui.0025385b71b00d4e\n");
    f.file(&format!("{nvme}/queue/logical_block_size"), "4096\n");
    let sata = "pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0";
    let block = f.disk("sda", sata, 30 * GIB);
    f.file(&format!("sys/devices/{sata}/vendor"), "ATA     \n");
    f.file(&format!("sys/devices/{sata}/vpd_pg80"), b"\0\x80\0\x14      S4EVNX0M\0\0");
    f.file(&format!("sys/devices/{sata}/wwid"), "naa.5002538e40a1b2c3\n");
    f.file(&format!("{block}/queue/rotational"), "1\n");
    let sas = "pci0000:00/0000:00:05.0/host1/port-1:0/end_device-1:0/target1:0:0/1:0:0:0";
    f.disk("sdb", sas, 40 * GIB);
    f.file(&format!("sys/devices/{sas}/wwid"), "t10.VENDOR  MODEL SERIAL\n");
    let stick = f.disk("sdc", "pci0000:00/0000:00:14.0/usb1/1-1/host2/target2:0:0/2:0:0:0", GIB);
    f.file(&format!("{stick}/removable"), "1\n");
    f.disk("sdd", "pci0000:00/0000:00:14.0/usb1/1-2/host3/target3:0:0/3:0:0:0", GIB);
    for name in ["loop0", "sr0", "ram0", "fd0", "dm-0", "md127", "nbd0"] {
        f.disk(name, &format!("virtual/{name}"), GIB);
    }
    f.disk("sde", "pci0000:00/0000:00:14.0/host9/target9:0:0/9:0:0:0", 0);
    let hidden = f.disk("nvme0c0n1", "pci0000:00/0000:00:04.0/nvme/nvme0c0", GIB);
    f.file(&format!("{hidden}/hidden"), "1\n");

    let disks = disks::read(&f.sysfs());
    let seen: Vec<(&str, &str, u64)> =
        disks.iter().map(|d| (d.name.as_str(), d.bus.as_str(), d.size_bytes / GIB)).collect();
    let expected =
        [("sda", "sata", 30), ("sdb", "sas", 40), ("sdd", "usb", 1), ("vda", "virtio", 10), ("nvme0n1", "nvme", 20)];
    assert_eq!(seen, expected);
    let by = |name: &str| disks.iter().find(|d| d.name == name).unwrap();
    assert_eq!(by("vda").serial.as_deref(), Some("VIRT-1"));
    assert_eq!((by("vda").vendor.as_deref(), by("vda").hctl.as_deref()), (None, None));
    assert_eq!((by("nvme0n1").serial.as_deref(), by("nvme0n1").sector_bytes), (Some("NV-1"), 4096));
    assert_eq!(by("nvme0n1").wwn.as_deref(), Some("eui.0025385b71b00d4e"));
    let sda = by("sda");
    assert_eq!((sda.serial.as_deref(), sda.hctl.as_deref()), (Some("S4EVNX0M"), Some("0:0:0:0")));
    assert_eq!((sda.wwn.as_deref(), sda.rotational), (Some("naa.5002538e40a1b2c3"), true));
    assert_eq!(by("sdb").wwn, None, "made up by the kernel");
}

#[test]
fn interfaces_that_hang_on_a_device() {
    let f = Fixture::new();
    let add = |name: &str, mac: &str, device: Option<&str>| {
        let base = format!("sys/class/net/{name}");
        f.file(&format!("{base}/address"), format!("{mac}\n"));
        f.file(&format!("{base}/type"), "1\n");
        f.file(&format!("{base}/carrier"), "1\n");
        if let Some(device) = device {
            f.link(&format!("{base}/device"), &format!("sys/devices/{device}"));
        }
    };
    add("eth0", "52:54:00:00:00:01", Some("pci0000:00/0000:00:03.0/virtio0"));
    f.link("sys/devices/pci0000:00/0000:00:03.0/virtio0/driver", "sys/bus/virtio/drivers/virtio_net");
    f.file("sys/class/net/eth0/speed", "-1\n");
    add("eth1", "52:54:00:00:00:02", Some("pci0000:00/0000:01:00.1"));
    f.file("sys/class/net/eth1/speed", "25000\n");
    add("br0", "52:54:00:00:00:03", None);
    add("ib0", "52:54:00:00:00:04", Some("pci0000:00/0000:02:00.0"));
    f.file("sys/class/net/ib0/type", "32\n");

    let boot = "52:54:00:00:00:02".parse().unwrap();
    let nics = nics::read(&f.sysfs(), Some(boot));
    assert_eq!(nics.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["eth0", "eth1"]);
    assert_eq!((nics[0].driver.as_deref(), nics[0].speed_mbps, nics[0].boot), (Some("virtio_net"), None, false));
    assert_eq!(nics[0].pci_address.as_deref(), Some("0000:00:03.0"));
    assert_eq!((nics[1].speed_mbps, nics[1].boot, nics[1].link_up), (Some(25000), true, true));
    assert_eq!(interface_of(&f.sysfs(), boot).as_deref(), Some("eth1"));
}

#[test]
fn names_sort_as_people_count() {
    for sorted in [["sda", "sdb", "sdaa"], ["nvme2n1", "nvme2n2", "nvme10n1"], ["cpu2", "cpu9", "cpu10"]] {
        let mut names = sorted;
        names.reverse();
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, sorted);
    }
}
