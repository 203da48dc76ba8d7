//! What a registry, a mirror and a machine without a network want of a release of the provider.
//!
//! | module | what it does |
//! |---|---|
//! | [`zip`] | archives whose bytes depend on their content and on nothing else |
//! | [`elf`] | what kind of program a file is: which processor, and whether it needs libraries |
//! | [`bundle`] | the files of a release: zips, manifest, check sums, in the registry's names |
//! | [`mirror`] | a directory that Terraform and OpenTofu install from |
//!
//! Names and contents are those that the registries' publishing documentation asks for: a zip per platform with one
//! program in it, a manifest that tells the protocol, and `SHA256SUMS` over zips and manifest. The signature over that file
//! is made by `scripts/release`, with the user's own key.

pub mod bundle;
pub mod elf;
pub mod mirror;
pub mod zip;

use std::{fmt, io, path::Path, path::PathBuf};

/// Why a release could not be packed or installed.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A file could not be read or written.
    #[error("cannot {verb} {}: {source}", path.display())]
    Io {
        /// `read`, `write`, ...
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program is not one that may be released for that platform.
    #[error("{} cannot be released for {platform}: {reason}", path.display())]
    Program {
        /// The file.
        path: PathBuf,
        /// The platform.
        platform: Platform,
        /// What was expected and what was seen.
        reason: String,
    },
    /// A platform that nothing is known of.
    #[error("{0:?} is not a platform of a release; expected one of linux_amd64, linux_arm64")]
    Platform(String),
    /// A version that registries do not take.
    #[error("{0:?} is not a version of a release; expected MAJOR.MINOR.PATCH, with or without -PRERELEASE")]
    Version(String),
    /// A file of the release is not the one that the check sums are of.
    #[error("{} is not the file that was released: {reason}", path.display())]
    Sum {
        /// The file.
        path: PathBuf,
        /// What was expected and what was seen.
        reason: String,
    },
    /// An archive cannot hold so much.
    #[error("{name} has {bytes} bytes; an archive of a provider holds less than 4 GiB")]
    TooLarge {
        /// The entry.
        name: String,
        /// Its size.
        bytes: u64,
    },
}

pub(crate) fn io<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ReleaseError + 'a {
    move |source| ReleaseError::Io { verb, path: path.to_owned(), source }
}

/// What a released program runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Platform {
    /// `linux_amd64`; the one that HCP Terraform runs.
    LinuxAmd64,
    /// `linux_arm64`.
    LinuxArm64,
}

impl Platform {
    /// As registries name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "linux_amd64",
            Self::LinuxArm64 => "linux_arm64",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Platform {
    type Err = ReleaseError;

    fn from_str(name: &str) -> Result<Self, ReleaseError> {
        [Self::LinuxAmd64, Self::LinuxArm64]
            .into_iter()
            .find(|platform| platform.as_str() == name)
            .ok_or_else(|| ReleaseError::Platform(name.to_owned()))
    }
}

/// A version in the form that registries order by: three numbers, and perhaps what comes before a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(String);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Version {
    type Err = ReleaseError;

    fn from_str(text: &str) -> Result<Self, ReleaseError> {
        let (numbers, before) = match text.split_once('-') {
            Some((numbers, before)) => (numbers, Some(before)),
            None => (text, None),
        };
        let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
        let sound = numbers.split('.').count() == 3
            && numbers.split('.').all(number)
            && before.is_none_or(|before| before.split('.').all(word));
        sound.then(|| Self(text.to_owned())).ok_or_else(|| ReleaseError::Version(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn versions_and_platforms_are_those_that_registries_take() {
        for good in ["0.1.0", "1.20.3", "1.0.0-rc.1"] {
            assert_eq!(good.parse::<Version>().unwrap().to_string(), good);
        }
        for bad in ["", "1.0", "v1.0.0", "1.0.0.0", "1..0", "1.0.0-", "1.0.0/../x", "1.0.x"] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?}");
        }
        assert_eq!("linux_arm64".parse::<Platform>().unwrap(), Platform::LinuxArm64);
        assert!("linux_x86_64".parse::<Platform>().unwrap_err().to_string().contains("linux_amd64"));
    }
}
