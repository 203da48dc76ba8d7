//! Keys and signatures by the program `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs it in a directory.
pub(crate) fn openssl(directory: &Path, arguments: &[&str]) {
    let done = Command::new("openssl").args(arguments).current_dir(directory).output();
    let done = done.unwrap_or_else(|error| panic!("openssl is missing (Debian package openssl): {error}"));
    assert!(done.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// The kinds of keys that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    P256,
    Ed25519,
}

/// A pair of keys in files.
pub(crate) struct Pair {
    algorithm: Algorithm,
    directory: PathBuf,
    name: &'static str,
}

impl Pair {
    pub(crate) fn new(directory: &Path, name: &'static str, algorithm: Algorithm) -> Self {
        let pair = Pair { algorithm, directory: directory.to_owned(), name };
        let (private, public) = (format!("{name}.key"), format!("{name}.pub"));
        match algorithm {
            Algorithm::P256 => openssl(
                directory,
                &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &private],
            ),
            Algorithm::Ed25519 => openssl(directory, &["genpkey", "-algorithm", "ED25519", "-out", &private]),
        }
        openssl(directory, &["pkey", "-in", &private, "-pubout", "-out", &public]);
        pair
    }

    pub(crate) fn private(&self) -> PathBuf {
        self.directory.join(format!("{}.key", self.name))
    }

    pub(crate) fn public(&self) -> PathBuf {
        self.directory.join(format!("{}.pub", self.name))
    }

    /// The public key as a setting names it.
    pub(crate) fn setting(&self) -> String {
        self.public().to_str().unwrap().to_owned()
    }

    /// Signs a file into another one.
    pub(crate) fn sign(&self, file: &Path, signature: &Path) {
        let key = self.private();
        let [key, file, signature] = [&key, file, signature].map(|path| path.to_str().unwrap());
        match self.algorithm {
            Algorithm::P256 => {
                openssl(&self.directory, &["dgst", "-sha256", "-sign", key, "-out", signature, file]);
            }
            Algorithm::Ed25519 => {
                openssl(&self.directory, &["pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", file, "-out", signature])
            }
        }
    }

    /// Whether `openssl` takes a signature for one of a file by this key; fails the test if not.
    pub(crate) fn verify(&self, file: &Path, signature: &Path) {
        let key = self.public();
        let [key, file, signature] = [&key, file, signature].map(|path| path.to_str().unwrap());
        match self.algorithm {
            Algorithm::P256 => {
                openssl(&self.directory, &["dgst", "-sha256", "-verify", key, "-signature", signature, file]);
            }
            Algorithm::Ed25519 => openssl(
                &self.directory,
                &["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", key, "-in", file, "-sigfile", signature],
            ),
        }
    }
}
