//! The firmware's boot entry for the installed system, written through efivarfs.
//!
//! An entry is a variable `Boot####` with a label and a device path (UEFI 2.10 sections 3.1.3, 10.3.5.1, 10.3.5.4); the
//! variable `BootOrder` says which is tried first. Ours names the partition by its GUID, so that it holds when disks are
//! renumbered, and the default loader's path, so that the image needs no boot manager of its own. Entries with our label
//! from earlier installations are pruned: firmware has little space for variables and never cleans up.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::gpt::Esp;

/// The loader that every UEFI image has at the removable-media path (UEFI 2.10 section 3.5.1.1).
#[cfg(target_arch = "x86_64")]
pub const LOADER: &str = r"\EFI\BOOT\BOOTX64.EFI";
/// The loader that every UEFI image has at the removable-media path (UEFI 2.10 section 3.5.1.1).
#[cfg(target_arch = "aarch64")]
pub const LOADER: &str = r"\EFI\BOOT\BOOTAA64.EFI";

/// Vendor GUID of the variables that UEFI itself defines.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Non-volatile, for boot services and at run time.
const ATTRIBUTES: u32 = 7;
const LOAD_OPTION_ACTIVE: u32 = 1;

/// Why the boot entry could not be set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EfiError {
    /// A variable cannot be read, written or removed.
    #[error("cannot {doing} the firmware variable {name}")]
    Variable {
        /// What was being done.
        doing: &'static str,
        /// Which.
        name: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The firmware took the order and did not keep it.
    #[error("the firmware did not keep the boot order: expected {expected:04x?}, read back {seen:04x?}")]
    NotKept {
        /// Written.
        expected: Vec<u16>,
        /// Read.
        seen: Vec<u16>,
    },
    /// All numbers are in use.
    #[error("all 65536 boot entries are in use")]
    Full,
}

/// The variables under one directory (`/sys/firmware/efi/efivars`).
pub struct Variables {
    root: PathBuf,
}

impl Variables {
    /// The variables in `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Variables { root: root.into() }
    }

    /// Sets the boot entry `label` to the loader on `esp`, first in the boot order, and removes older entries of the
    /// same label. Returns its number.
    ///
    /// # Errors
    /// [`EfiError`].
    pub fn set_boot_entry(&self, label: &str, esp: &Esp) -> Result<u16, EfiError> {
        let entries = self.boot_entries()?;
        let mut ours = entries.iter().filter(|(_, entry)| label_of(entry).as_deref() == Some(label)).map(|(n, _)| *n);
        let number = match ours.next() {
            Some(number) => number,
            None => (0..=u16::MAX).find(|number| !entries.contains_key(number)).ok_or(EfiError::Full)?,
        };
        let stale: Vec<u16> = ours.collect();

        let wanted = load_option(label, esp);
        if entries.get(&number) != Some(&wanted) {
            self.write(&boot_name(number), &wanted)?;
        }
        let mut order = vec![number];
        order.extend(self.order()?.into_iter().filter(|n| *n != number && !stale.contains(n)));
        self.write("BootOrder", &order.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>())?;
        for number in stale {
            let name = boot_name(number);
            fs::remove_file(self.path(&name)).map_err(|source| EfiError::Variable { doing: "remove", name, source })?;
        }
        let seen = self.order()?;
        if seen != order {
            return Err(EfiError::NotKept { expected: order, seen });
        }
        Ok(number)
    }

    fn boot_entries(&self) -> Result<BTreeMap<u16, Vec<u8>>, EfiError> {
        let list = |source| EfiError::Variable { doing: "list", name: "Boot####".to_owned(), source };
        let mut entries = BTreeMap::new();
        for file in fs::read_dir(&self.root).map_err(list)? {
            let name = file.map_err(list)?.file_name();
            let Some(number) = name.to_str().and_then(boot_number) else { continue };
            if let Some(value) = self.read(&boot_name(number))? {
                entries.insert(number, value);
            }
        }
        Ok(entries)
    }

    fn order(&self) -> Result<Vec<u16>, EfiError> {
        let value = self.read("BootOrder")?.unwrap_or_default();
        Ok(value.as_chunks::<2>().0.iter().map(|n| u16::from_le_bytes(*n)).collect())
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, EfiError> {
        match fs::read(self.path(name)) {
            // The first four bytes are the attributes.
            Ok(bytes) => Ok(Some(bytes.get(4..).unwrap_or_default().to_vec())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(EfiError::Variable { doing: "read", name: name.to_owned(), source }),
        }
    }

    fn write(&self, name: &str, value: &[u8]) -> Result<(), EfiError> {
        // One write call: efivarfs takes each as a whole variable.
        let bytes = [&ATTRIBUTES.to_le_bytes(), value].concat();
        fs::write(self.path(name), bytes).map_err(|source| EfiError::Variable {
            doing: "write",
            name: name.to_owned(),
            source,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}-{GLOBAL}"))
    }

    /// Where the variables are.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

fn boot_name(number: u16) -> String {
    format!("Boot{number:04X}")
}

fn boot_number(file: &str) -> Option<u16> {
    let digits = file.strip_suffix(GLOBAL)?.strip_suffix('-')?.strip_prefix("Boot")?;
    (digits.len() == 4).then(|| u16::from_str_radix(digits, 16).ok())?
}

fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// An `EFI_LOAD_OPTION`: attributes, length of the path list, label, path list.
fn load_option(label: &str, esp: &Esp) -> Vec<u8> {
    let mut path = Vec::new();
    let mut node = |kind: u8, subtype: u8, body: &[u8]| {
        // Nodes are short: the longest holds LOADER.
        let length = (4 + body.len()) as u16;
        path.extend([kind, subtype]);
        path.extend(length.to_le_bytes());
        path.extend(body);
    };
    let mut partition = Vec::new();
    partition.extend(esp.number.to_le_bytes());
    partition.extend(esp.first_lba.to_le_bytes());
    partition.extend(esp.sectors.to_le_bytes());
    partition.extend(esp.guid);
    // A GUID partition table; the signature is the partition's GUID.
    partition.extend([2, 2]);
    node(4, 1, &partition);
    node(4, 4, &ucs2(LOADER));
    node(0x7f, 0xff, &[]);

    let mut option = LOAD_OPTION_ACTIVE.to_le_bytes().to_vec();
    option.extend((path.len() as u16).to_le_bytes());
    option.extend(ucs2(label));
    option.extend(path);
    option
}

/// The label of an `EFI_LOAD_OPTION`.
fn label_of(option: &[u8]) -> Option<String> {
    let units: Vec<u16> =
        option.get(6..)?.as_chunks::<2>().0.iter().map(|u| u16::from_le_bytes(*u)).take_while(|u| *u != 0).collect();
    String::from_utf16(&units).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use tempfile::TempDir;

    use super::*;

    fn esp(seed: u8) -> Esp {
        Esp { number: 1, first_lba: 2048, sectors: 131_072, guid: [seed; 16] }
    }

    #[test]
    fn the_entry_is_what_efibootmgr_would_write() {
        let bytes = load_option("vmetal", &esp(0xab));
        let mut expected = vec![1, 0, 0, 0];
        // HD node 42, file node 4 + 2 * 22, end node 4.
        let path_len = 42 + 4 + 2 * (LOADER.len() as u16 + 1) + 4;
        expected.extend(path_len.to_le_bytes());
        expected.extend(b"v\0m\0e\0t\0a\0l\0\0\0");
        expected.extend([4, 1, 42, 0, 1, 0, 0, 0]);
        expected.extend([0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0]);
        expected.extend([0xab; 16]);
        expected.extend([2, 2, 4, 4]);
        assert_eq!(bytes[..expected.len()], expected);
        assert_eq!(bytes[bytes.len() - 4..], [0x7f, 0xff, 4, 0]);
        assert_eq!(label_of(&bytes).as_deref(), Some("vmetal"));
        assert_eq!(label_of(&[1, 2, 3]), None);
    }

    #[test]
    fn ours_comes_first_others_stay_and_stale_ones_go() {
        let dir = TempDir::new().unwrap();
        let variables = Variables::at(dir.path());
        let put = |name: &str, value: &[u8]| variables.write(name, value).unwrap();
        put("Boot0000", &load_option("UiApp", &esp(1)));
        put("Boot0001", &load_option("vmetal", &esp(2)));
        put("Boot0002", &load_option("PXE", &esp(3)));
        put("Boot000A", &load_option("vmetal", &esp(4)));
        put("BootOrder", &[2, 0, 0, 0, 0x0a, 0, 1, 0]);
        put("BootCurrent", &[2, 0]);

        assert_eq!(variables.set_boot_entry("vmetal", &esp(9)).unwrap(), 1);
        assert_eq!(variables.order().unwrap(), [1, 2, 0]);
        let entries = variables.boot_entries().unwrap();
        assert_eq!(entries.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(entries[&1], load_option("vmetal", &esp(9)));
        assert_eq!(variables.set_boot_entry("vmetal", &esp(9)).unwrap(), 1, "again changes nothing");
        assert_eq!(variables.order().unwrap(), [1, 2, 0]);
        assert_eq!(variables.set_boot_entry("other", &esp(9)).unwrap(), 3);
        assert_eq!(variables.order().unwrap(), [3, 1, 2, 0]);
    }

    #[test]
    fn an_empty_or_absent_store_works_or_says_so() {
        let dir = TempDir::new().unwrap();
        let variables = Variables::at(dir.path());
        assert_eq!(variables.set_boot_entry("vmetal", &esp(1)).unwrap(), 0);
        assert_eq!(variables.order().unwrap(), [0]);
        let absent = Variables::at(dir.path().join("absent"));
        assert!(matches!(absent.set_boot_entry("vmetal", &esp(1)), Err(EfiError::Variable { .. })));
    }
}
