//! Writes a `newc` cpio archive, the format of an initramfs (Linux: Documentation/driver-api/early-userspace/buffer-format).
//!
//! Deterministic: no times, owners or inode numbers of the machine it is made on.

use std::collections::BTreeSet;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER: u32 = 0o020_000;

/// An archive under construction.
#[derive(Debug, Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    entries: u32,
}

/// A device's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// The driver.
    pub major: u32,
    /// The unit.
    pub minor: u32,
}

impl Cpio {
    /// Adds a directory and those above it, once.
    pub fn directory(&mut self, path: &str) {
        if path.is_empty() || self.directories.contains(path) {
            return;
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent);
        }
        self.directories.insert(path.to_owned());
        self.entry(path, DIRECTORY | 0o755, 2, Device { major: 0, minor: 0 }, &[]);
    }

    /// Adds a file, and its directories. `mode` is the permission bits.
    pub fn file(&mut self, path: &str, mode: u32, contents: &[u8]) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent);
        }
        self.entry(path, REGULAR | mode, 1, Device { major: 0, minor: 0 }, contents);
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, mode: u32, device: Device) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent);
        }
        self.entry(path, CHARACTER | mode, 1, device, &[]);
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, 1, Device { major: 0, minor: 0 }, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, links: u32, device: Device, contents: &[u8]) {
        self.entries += 1;
        // A kernel or installer of 4 GiB does not exist; `newc` has 32 bits for the size.
        let size = u32::try_from(contents.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, device.major, device.minor, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn makes_parents_once_and_aligns_everything() {
        let mut cpio = Cpio::default();
        cpio.file("etc/vmetal/modules", 0o644, b"abc");
        cpio.file("etc/vmetal/other", 0o644, b"");
        cpio.device("dev/console", 0o600, Device { major: 5, minor: 1 });
        let bytes = cpio.finish();
        assert_eq!(bytes.len() % 4, 0);
        let mut names = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |n: usize| {
                let text = std::str::from_utf8(&bytes[at + 6 + 8 * n..at + 14 + 8 * n]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (size, name_size) = (field(6), field(11));
            names.push(String::from_utf8(bytes[at + 110..at + 110 + name_size - 1].to_vec()).unwrap());
            at = ((at + 110 + name_size).next_multiple_of(4) + size).next_multiple_of(4);
        }
        assert_eq!(
            names,
            ["etc", "etc/vmetal", "etc/vmetal/modules", "etc/vmetal/other", "dev", "dev/console", "TRAILER!!!"]
        );
    }

    #[test]
    fn cpio_itself_reads_it() {
        let mut cpio = Cpio::default();
        cpio.file("init", 0o755, b"#!/bin/sh\n");
        cpio.file("lib/modules/x.ko", 0o644, &[7; 1000]);
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("a.cpio");
        std::fs::write(&archive, cpio.finish()).unwrap();
        let Ok(output) = std::process::Command::new("cpio").arg("-tv").arg("-F").arg(&archive).output() else {
            eprintln!("SKIPPED: the cpio tool is not installed");
            return;
        };
        assert!(output.status.success(), "{output:?}");
        let listing = String::from_utf8(output.stdout).unwrap();
        assert!(listing.contains("-rwxr-xr-x") && listing.contains("1000 Jan  1  1970 lib/modules/x.ko"), "{listing}");
    }
}
