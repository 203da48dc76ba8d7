//! A machine made of directories and files, and an engine to command it.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod server;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use vmetal_agent::inventory::Sysfs;
use vmetal_agent::work::Machine;
use vmetal_image::{ImportOptions, Imported, import};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const SERIAL: &str = "SRV-0001";

pub(crate) struct Lab {
    pub(crate) dir: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let lab = Lab { dir: TempDir::new().unwrap() };
        lab.file("sys/class/dmi/id/product_serial", SERIAL);
        fs::create_dir_all(lab.path("dev")).unwrap();
        lab
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    pub(crate) fn file(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn uefi(&self) {
        fs::create_dir_all(self.path("sys/firmware/efi/efivars")).unwrap();
    }

    /// A disk full of somebody's data.
    pub(crate) fn disk(&self, name: &str, size: u64) -> PathBuf {
        let block = format!("sys/devices/pci0000:00/0000:00:03.0/virtio{name}/block/{name}");
        self.file(&format!("{block}/size"), &(size / 512).to_string());
        self.file(&format!("{block}/serial"), &format!("S-{name}"));
        fs::create_dir_all(self.path("sys/block")).unwrap();
        symlink(self.path(&block), self.path("sys/block").join(name)).unwrap();
        let path = self.path("dev").join(name);
        fs::write(&path, vec![0xa5; size as usize]).unwrap();
        path
    }

    pub(crate) fn machine(&self) -> Machine {
        Machine {
            sysfs: Sysfs::at(self.dir.path()),
            dev: self.path("dev"),
            boot_mac: "52:54:00:12:34:56".parse().unwrap(),
            attempt: "attempt-1".to_owned(),
            settling: Default::default(),
        }
    }

    /// An image of 48 MiB: GPT, ESP, root with data here and there.
    pub(crate) fn image(&self, esp: bool) -> (Imported, Vec<u8>) {
        let path = self.path("image.raw");
        let file = File::create(&path).unwrap();
        file.set_len(48 * MIB).unwrap();
        let kind = if esp { "-t1:ef00" } else { "-t1:ef02" };
        run("sgdisk", &["-n1:1M:+4M", kind, "-n2:8M:0", "-t2:8300"], &path);
        let mut noise = vec![0; 5 << 20];
        blake3_like_noise(&mut noise);
        file.write_all_at(&noise, 8 * MIB + 12345).unwrap();
        file.write_all_at(&noise[..100_000], 30 * MIB).unwrap();
        let imported = import(&path, &ImportOptions::new(self.path("images")), |_| {}).unwrap();
        (imported, fs::read(&path).unwrap())
    }
}

/// Bytes that do not compress and never are a run of zeros.
fn blake3_like_noise(out: &mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for byte in out {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = (state >> 24) as u8 | 1;
    }
}

pub(crate) fn run(program: &str, args: &[&str], path: &Path) -> String {
    let output = Command::new(program).args(args).arg(path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}
