//! The files of a release.
//!
//! ```text
//! terraform-provider-vmetal_0.1.0_linux_amd64.zip     the program terraform-provider-vmetal_v0.1.0, and the licence
//! terraform-provider-vmetal_0.1.0_manifest.json       the protocol's version
//! terraform-provider-vmetal_0.1.0_SHA256SUMS          of all of these
//! ```

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{
    Platform, ReleaseError, Version,
    elf::{self, Linkage, Machine},
    io,
    zip::{self, Entry},
};

/// The provider's name within its namespace.
pub const NAME: &str = "vmetal";

/// Which programs are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Libraries {
    /// Only those that need none: what is released.
    None,
    /// Any: what a developer tries.
    Allowed,
}

/// One release in one directory.
#[derive(Debug, Clone)]
pub struct Bundle {
    version: Version,
    directory: PathBuf,
}

impl Bundle {
    /// The release of this version in this directory, which may be empty still.
    pub fn new(version: Version, directory: impl Into<PathBuf>) -> Self {
        Self { version, directory: directory.into() }
    }

    /// The file of this release with this ending.
    fn file(&self, ending: &str) -> PathBuf {
        self.directory.join(format!("terraform-provider-{NAME}_{}_{ending}", self.version))
    }

    /// The zip for a platform.
    pub fn zip(&self, platform: Platform) -> PathBuf {
        self.file(&format!("{platform}.zip"))
    }

    /// The check sums: what is signed.
    pub fn sums(&self) -> PathBuf {
        self.file("SHA256SUMS")
    }

    /// The manifest.
    pub fn manifest(&self) -> PathBuf {
        self.file("manifest.json")
    }

    /// Packs a program for a platform, with the licence beside it.
    ///
    /// # Errors
    /// [`ReleaseError::Program`] for a program of another processor, or one that needs libraries where none are allowed.
    pub fn pack(
        &self,
        program: &Path,
        platform: Platform,
        libraries: Libraries,
        licence: &Path,
    ) -> Result<PathBuf, ReleaseError> {
        let content = fs::read(program).map_err(io("read", program))?;
        fits(&content, platform, libraries).map_err(|reason| ReleaseError::Program {
            path: program.to_owned(),
            platform,
            reason,
        })?;
        let text = fs::read(licence).map_err(io("read", licence))?;
        let name = format!("terraform-provider-{NAME}_v{}", self.version);
        let archive = zip::archive(&[
            Entry { name: "LICENSE", mode: 0o644, content: &text },
            Entry { name: &name, mode: 0o755, content: &content },
        ])?;
        fs::create_dir_all(&self.directory).map_err(io("make", &self.directory))?;
        let path = self.zip(platform);
        fs::write(&path, archive).map_err(io("write", &path))?;
        Ok(path)
    }

    /// Writes the manifest, and the check sums of it and of every zip of this release.
    ///
    /// # Errors
    /// [`ReleaseError::Io`].
    pub fn seal(&self) -> Result<PathBuf, ReleaseError> {
        let manifest = json!({ "version": 1, "metadata": { "protocol_versions": ["6.0"] } });
        let path = self.manifest();
        fs::write(&path, format!("{manifest:#}\n")).map_err(io("write", &path))?;
        let mut text = String::new();
        for (name, path) in self.summed()? {
            text.push_str(&format!("{}  {name}\n", digest(&path)?));
        }
        let sums = self.sums();
        fs::write(&sums, text).map_err(io("write", &sums))?;
        Ok(sums)
    }

    /// Checks every file that the check sums name, and that none is missing from them. The zips among them.
    ///
    /// # Errors
    /// [`ReleaseError::Sum`] names the first file that is not the released one.
    pub fn check(&self) -> Result<Vec<PathBuf>, ReleaseError> {
        let sums = self.sums();
        let text = fs::read_to_string(&sums).map_err(io("read", &sums))?;
        let wrong = |path: &Path, reason: String| ReleaseError::Sum { path: path.to_owned(), reason };
        let mut known: BTreeMap<&str, &str> = BTreeMap::new();
        for line in text.lines() {
            let (sum, name) = line
                .split_once("  ")
                .ok_or_else(|| wrong(&sums, format!("{line:?} is not a check sum, two spaces and a file")))?;
            known.insert(name, sum);
        }
        let mut zips = Vec::new();
        for (name, path) in self.summed()? {
            let expected = known
                .remove(name.as_str())
                .ok_or_else(|| wrong(&path, format!("{} does not name it", sums.display())))?;
            let seen = digest(&path)?;
            if seen != expected {
                return Err(wrong(&path, format!("its SHA-256 is {seen}, expected {expected}")));
            }
            zips.extend(name.ends_with(".zip").then_some(path));
        }
        match known.keys().next() {
            Some(missing) => Err(wrong(&self.directory.join(missing), "it is not there".to_owned())),
            None => Ok(zips),
        }
    }

    /// The files that check sums are of, by name.
    fn summed(&self) -> Result<BTreeMap<String, PathBuf>, ReleaseError> {
        let of = format!("terraform-provider-{NAME}_{}_", self.version);
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&self.directory).map_err(io("read", &self.directory))? {
            let path = entry.map_err(io("read", &self.directory))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.strip_prefix(&of).is_some_and(|rest| rest == "manifest.json" || rest.ends_with(".zip")) {
                files.insert(name.to_owned(), path);
            }
        }
        Ok(files)
    }
}

fn fits(content: &[u8], platform: Platform, libraries: Libraries) -> Result<(), String> {
    let program = elf::program(content).ok_or("it is not a 64-bit Linux program")?;
    let wanted = match platform {
        Platform::LinuxAmd64 => Machine::Amd64,
        Platform::LinuxArm64 => Machine::Arm64,
    };
    if program.machine != wanted {
        return Err(format!("it is for {:?}, expected {wanted:?}", program.machine));
    }
    match (program.linkage, libraries) {
        (Linkage::Dynamic(loader), Libraries::None) => Err(format!(
            "it needs {loader} and libraries, and nobody can install those where Terraform runs it; build it for a musl target"
        )),
        _ => Ok(()),
    }
}

fn digest(path: &Path) -> Result<String, ReleaseError> {
    let content = fs::read(path).map_err(io("read", path))?;
    Ok(hex::encode(Sha256::digest(content)))
}
