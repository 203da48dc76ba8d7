//! Where the peer is installed: a virtual environment in the cache, made once from the pinned packages of PyPI.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::fleet::{say, text};
use crate::process::Process;

/// Every package with its version and the digest of its one archive, which is the one for Python 3.11 on amd64 (Debian 12)
/// where there are several.
const REQUIREMENTS: &str = include_str!("requirements.txt");
/// How long an installation may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// Ironic's version.
pub(super) fn version() -> &'static str {
    let rest = REQUIREMENTS.split_once("\nironic==").map_or("", |(_, rest)| rest);
    rest.split_whitespace().next().unwrap_or("of unknown version")
}

/// An environment with the peer in it.
pub(super) struct Venv {
    directory: PathBuf,
}

impl Venv {
    /// Opens the environment of exactly these packages, and makes it first where there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) async fn open(cache: &Path, scratch: &Path) -> Result<Self> {
        let digest = hex::encode(Sha256::digest(REQUIREMENTS));
        let directory = cache.join(format!("ironic-{}", digest.get(..12).unwrap_or_default()));
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        // Two benches must not install into it at the same time. The lock ends with the file, or the process.
        let lock = File::create(directory.join("lock"))?;
        lock.lock().with_context(|| format!("cannot lock {}", directory.display()))?;
        let venv = Venv { directory };
        let complete = venv.directory.join("complete");
        if !complete.is_file() {
            venv.install(scratch).await?;
            std::fs::write(&complete, "")?;
        }
        Ok(venv)
    }

    async fn install(&self, scratch: &Path) -> Result<()> {
        let home = self.home();
        say(&format!("installing ironic {} from PyPI into {}", version(), home.display()));
        if home.exists() {
            // What an interrupted installation left.
            std::fs::remove_dir_all(&home).with_context(|| format!("cannot remove {}", home.display()))?;
        }
        let requirements = scratch.join("requirements.txt");
        std::fs::write(&requirements, REQUIREMENTS)?;
        let python = Path::new("python3");
        Process::start("venv", scratch, python, &["-m", "venv", text(&home)])?
            .succeed(PATIENCE)
            .await
            .context("cannot make a virtual environment (Debian's package python3-venv is needed)")?;
        let pip =
            ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"];
        let arguments = [&pip[..], &["--require-hashes", "--requirement", text(&requirements)]].concat();
        Process::start("pip", scratch, &self.python(), &arguments)?.succeed(PATIENCE).await.with_context(|| {
            "cannot install ironic from PyPI (network access is needed, and Python 3.11 on amd64, for which its packages are pinned)"
        })?;
        ensure!(self.program("ironic").is_file(), "the packages were installed, but {} has no ironic", home.display());
        Ok(())
    }

    fn home(&self) -> PathBuf {
        self.directory.join("venv")
    }

    /// The interpreter.
    pub(super) fn python(&self) -> PathBuf {
        self.home().join("bin/python")
    }

    /// A program of the peer, for the interpreter.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.home().join("bin").join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_is_pinned_to_one_archive_and_ironic_is_one_of_them() {
        for line in REQUIREMENTS.lines() {
            let (package, digest) = line.split_once(" --hash=sha256:").unwrap_or_else(|| panic!("no digest: {line}"));
            assert!(package.contains("=="), "no version: {line}");
            assert!(digest.len() == 64 && digest.chars().all(|c| c.is_ascii_hexdigit()), "no SHA-256: {line}");
        }
        assert!(version().starts_with("39."), "{}", version());
    }
}
