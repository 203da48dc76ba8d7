//! Which kernel modules the installer needs, and in which order.
//!
//! The order file is `/etc/vmetal/modules` in the initramfs: one absolute path per line, dependencies before what depends on
//! them. The installer loads each line in turn (`finit_module`); drivers that are built into the kernel are not listed.
//!
//! Dependencies are read from the modules themselves (section `.modinfo` of the ELF file), because a kernel package has no
//! `modules.dep`: that is made when it is installed.

use std::collections::{BTreeMap, BTreeSet};

/// Drivers the installer wants: network, storage, file systems it reads, firmware variables. Those that a kernel does not
/// have are left out, and [`absent`] tells which. Left out are also those of Hyper-V: where there is no Hyper-V their bus refuses to load, and they complain about each
/// of its symbols. The order matters only where something is needed that modules do not declare.
pub const WANTED: &[&str] = &[
    // Looked up by name at run time by others that use CRC32C.
    "crc32c_generic",
    "crc32c_intel",
    // Virtual machines.
    "virtio_pci",
    "virtio_mmio",
    "virtio_rng",
    "virtio_net",
    "virtio_blk",
    "virtio_scsi",
    "vmxnet3",
    "vmw_pvscsi",
    "ena",
    "gve",
    // Network cards.
    "e1000",
    "e1000e",
    "igb",
    "igc",
    "ixgbe",
    "i40e",
    "ice",
    "mlx4_en",
    "mlx5_core",
    "bnxt_en",
    "bnx2x",
    "tg3",
    "qede",
    "r8169",
    "atlantic",
    // Storage.
    "nvme",
    "vmd",
    "ahci",
    "ata_piix",
    "sd_mod",
    "megaraid_sas",
    "mpt3sas",
    "smartpqi",
    "hpsa",
    "aacraid",
    // File systems and firmware.
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_iso8859_1",
    "nls_utf8",
    "efivarfs",
    "af_packet",
];

/// What a module says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModuleInfo {
    /// Its name, with underscores.
    pub name: String,
    /// Modules that must be there first.
    pub depends: Vec<String>,
    /// Modules or aliases that should be there first, if they exist (`softdep=pre:`).
    pub pre: Vec<String>,
    /// Names by which others look it up.
    pub aliases: Vec<String>,
}

/// A file that is not a kernel module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    /// Not an ELF file, or cut short.
    #[error("not a 64-bit ELF object")]
    NotElf,
    /// No `.modinfo`.
    #[error("no .modinfo section: not a kernel module")]
    NoModinfo,
}

/// Reads a module's own description.
///
/// # Errors
/// [`ModuleError`] when the bytes are not a module.
pub fn read(elf: &[u8]) -> Result<ModuleInfo, ModuleError> {
    let section = section(elf, b".modinfo").ok_or(ModuleError::NotElf)?.ok_or(ModuleError::NoModinfo)?;
    let mut info = ModuleInfo::default();
    for field in section.split(|&byte| byte == 0) {
        let Some((key, value)) = std::str::from_utf8(field).ok().and_then(|text| text.split_once('=')) else {
            continue;
        };
        match key {
            "name" => info.name = normal(value),
            "depends" => info.depends.extend(value.split(',').filter(|name| !name.is_empty()).map(normal)),
            "alias" => info.aliases.push(normal(value)),
            "softdep" => {
                let words = value.split_whitespace().skip_while(|word| *word != "pre:").skip(1);
                info.pre.extend(words.take_while(|word| !word.ends_with(':')).map(normal));
            }
            _ => {}
        }
    }
    Ok(info)
}

/// Module names treat `-` and `_` alike.
pub fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// The bytes of a section of a little-endian 64-bit ELF file; the outer `None` when it is not one.
fn section<'a>(elf: &'a [u8], wanted: &[u8]) -> Option<Option<&'a [u8]>> {
    let number = |at: usize, size: usize| -> Option<usize> {
        let mut value = [0; 8];
        value[..size].copy_from_slice(elf.get(at..at.checked_add(size)?)?);
        usize::try_from(u64::from_le_bytes(value)).ok()
    };
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, entry_size, count, names) = (number(0x28, 8)?, number(0x3a, 2)?, number(0x3c, 2)?, number(0x3e, 2)?);
    let header = |index: usize| table.checked_add(index.checked_mul(entry_size)?);
    let contents = |index: usize| {
        let header = header(index)?;
        let (offset, size) = (number(header.checked_add(0x18)?, 8)?, number(header.checked_add(0x20)?, 8)?);
        elf.get(offset..offset.checked_add(size)?)
    };
    let names = contents(names)?;
    for index in 0..count {
        let name = names.get(number(header(index)?, 4)?..)?;
        if name.split(|&byte| byte == 0).next() == Some(wanted) {
            return Some(Some(contents(index)?));
        }
    }
    Some(None)
}

/// Puts the wanted modules that exist, and everything they need, into load order.
///
/// The input is what exists, by name. The result is stable: it depends on the input and [`WANTED`] alone.
pub fn load_order(available: &BTreeMap<String, ModuleInfo>, wanted: &[&str]) -> Vec<String> {
    let mut by_alias: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, info) in available {
        for alias in &info.aliases {
            by_alias.entry(alias).or_insert(name);
        }
    }
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for name in wanted {
        visit(&normal(name), available, &by_alias, &mut seen, &mut order);
    }
    order
}

/// Which of the wanted a kernel has neither as a module nor built in, in the order of [`WANTED`].
///
/// `builtin` is the kernel package's list of the same name: one path per line, as `kernel/drivers/nvme/host/nvme.ko`.
pub fn absent(available: &BTreeMap<String, ModuleInfo>, builtin: &str, wanted: &[&str]) -> Vec<String> {
    let file = |line: &str| normal(line.rsplit('/').next().unwrap_or_default().split(".ko").next().unwrap_or_default());
    let mut names: BTreeSet<String> = builtin.lines().map(file).collect();
    for (name, info) in available {
        names.insert(name.clone());
        names.extend(info.aliases.iter().cloned());
    }
    wanted.iter().filter(|name| !names.contains(&normal(name))).map(|name| (*name).to_owned()).collect()
}

fn visit<'a>(
    name: &str,
    available: &'a BTreeMap<String, ModuleInfo>,
    by_alias: &BTreeMap<&str, &'a str>,
    seen: &mut BTreeSet<&'a str>,
    order: &mut Vec<String>,
) {
    let found = available.get_key_value(name).or_else(|| available.get_key_value(*by_alias.get(name)?));
    let Some((name, info)) = found else { return };
    if !seen.insert(name) {
        return;
    }
    for needed in info.pre.iter().chain(&info.depends) {
        visit(needed, available, by_alias, seen, order);
    }
    order.push(name.clone());
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn module(name: &str, depends: &[&str], pre: &[&str], aliases: &[&str]) -> (String, ModuleInfo) {
        let own = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        let info = ModuleInfo { name: name.into(), depends: own(depends), pre: own(pre), aliases: own(aliases) };
        (name.to_owned(), info)
    }

    #[test]
    fn dependencies_come_first_and_what_is_built_in_is_absent() {
        let available = BTreeMap::from([
            module("virtio_net", &["net_failover", "virtio"], &[], &[]),
            module("net_failover", &["failover"], &[], &[]),
            module("failover", &[], &[], &[]),
            module("libcrc32c", &[], &["crc32c"], &[]),
            module("crc32c_generic", &[], &[], &["crc32c", "crypto_crc32c"]),
            module("bnx2x", &["libcrc32c"], &[], &[]),
            module("unwanted", &[], &[], &[]),
        ]);
        let order = load_order(&available, &["virtio_net", "bnx2x", "nvme"]);
        assert_eq!(order, ["failover", "net_failover", "virtio_net", "crc32c_generic", "libcrc32c", "bnx2x"]);
    }

    #[test]
    fn what_is_neither_a_module_nor_built_in_is_told() {
        let available =
            BTreeMap::from([module("crc32c_generic", &[], &[], &["crc32c"]), module("virtio_net", &[], &[], &[])]);
        let builtin = "kernel/drivers/nvme/host/nvme.ko\nkernel/drivers/virtio/virtio-pci.ko\n";
        let wanted = ["tg3", "nvme", "virtio_pci", "virtio_net", "crc32c", "e1000e"];
        assert_eq!(absent(&available, builtin, &wanted), ["tg3", "e1000e"]);
    }

    #[test]
    fn a_circle_ends() {
        let available = BTreeMap::from([module("a", &["b"], &[], &[]), module("b", &["a"], &[], &[])]);
        assert_eq!(load_order(&available, &["a"]), ["b", "a"]);
    }

    /// A minimal relocatable object with two sections besides the null one.
    pub(crate) fn elf(modinfo: &[u8]) -> Vec<u8> {
        let names = b"\0.shstrtab\0.modinfo\0";
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let names_at = file.len();
        file.extend_from_slice(names);
        let info_at = file.len();
        file.extend_from_slice(modinfo);
        let table = file.len();
        file[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        file[0x3a..0x3c].copy_from_slice(&64u16.to_le_bytes());
        file[0x3c..0x3e].copy_from_slice(&3u16.to_le_bytes());
        file[0x3e..0x40].copy_from_slice(&1u16.to_le_bytes());
        for (name, at, size) in [(0u32, 0, 0), (1, names_at, names.len()), (11, info_at, modinfo.len())] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(at as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(size as u64).to_le_bytes());
            file.extend_from_slice(&header);
        }
        file
    }

    #[test]
    fn reads_a_modules_own_description() {
        let info = read(&elf(b"license=GPL\0name=libcrc32c\0depends=a-b,c\0softdep=pre: crc32c x post: y\0alias=z\0"))
            .unwrap();
        assert_eq!(info, module("libcrc32c", &["a_b", "c"], &["crc32c", "x"], &["z"]).1);
    }

    #[test]
    fn what_is_not_a_module_is_said_to_be_none() {
        assert_eq!(read(b"").unwrap_err(), ModuleError::NotElf);
        assert_eq!(read(b"#!/bin/sh").unwrap_err(), ModuleError::NotElf);
        let mut other = elf(b"");
        let at = other.windows(8).position(|w| w == b".modinfo").unwrap();
        other[at + 1] = b'x';
        assert_eq!(read(&other).unwrap_err(), ModuleError::NoModinfo);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic_the_reader(
            noise in proptest::collection::vec(proptest::num::u8::ANY, 0..400),
            at in 0usize..300,
        ) {
            let _ = read(&noise);
            let mut file = elf(b"name=x\0");
            for (target, byte) in file[6..].iter_mut().skip(at).zip(&noise) {
                *target = *byte;
            }
            let _ = read(&file);
        }
    }
}
