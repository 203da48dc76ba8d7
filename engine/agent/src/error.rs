//! What can go wrong with an order, told so that an operator can act on it.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use vmetal_model::Cause;
use vmetal_model::agent::AgentFailure;

use crate::efi::EfiError;
use crate::erase::EraseError;
use crate::gpt::GptError;
use crate::install::ImageError;
use crate::root_device::RootDeviceError;

/// A disk that does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// As a whole.
    #[error("cannot {doing} {}", path.display())]
    Whole {
        /// The device.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// At one place.
    #[error("cannot {doing} {length} bytes at byte {offset} of {}", path.display())]
    Range {
        /// The device.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// Where.
        offset: u64,
        /// How much.
        length: u64,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl DiskError {
    pub(crate) fn at(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> DiskError {
        let path = path.to_owned();
        move |source| DiskError::Whole { path, doing, source }
    }
}

/// Why an order failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// This is not the machine that the order is for. Nothing was touched.
    #[error(
        "this machine's serial number is {}, expected {expected}; nothing was touched",
        seen.as_deref().unwrap_or("not set")
    )]
    WrongMachine {
        /// Declared.
        expected: String,
        /// Found in the DMI tables.
        seen: Option<String>,
    },
    /// The root device hints do not leave exactly one disk.
    #[error(transparent)]
    RootDevice(#[from] RootDeviceError),
    /// The image cannot be fetched or does not fit.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Writing to the disk failed.
    #[error("the disk failed")]
    Disk(#[from] DiskError),
    /// The disk could not be cleared before the image is written.
    #[error("cannot clear the disk")]
    Clear(#[from] EraseError),
    /// The image's partition table cannot be extended.
    #[error("the image's partition table cannot take the seed partition")]
    Partition(#[from] GptError),
    /// The seed file system could not be made.
    #[error("cannot make the seed file system")]
    Seed(#[source] io::Error),
    /// The firmware does not take the boot entry.
    #[error("the firmware's boot entry could not be set")]
    Firmware(#[from] EfiError),
    /// No disk to erase.
    #[error(
        "found no disk to erase: either the installer lacks the driver or the disks are gone; nothing is proven erased"
    )]
    NothingToErase,
    /// Some disks could not be erased.
    #[error("could not erase every disk: {0}")]
    Erase(String),
    /// A fault of this program.
    #[error("the installer failed: {0}")]
    Internal(String),
}

impl AgentError {
    /// The kind of failure, for the engine.
    pub fn cause(&self) -> Cause {
        match self {
            AgentError::WrongMachine { .. } => Cause::WrongMachine,
            AgentError::RootDevice(_) => Cause::RootDevice,
            AgentError::Image(ImageError::Corrupt { .. }) => Cause::ImageDigest,
            AgentError::Image(_) | AgentError::Partition(_) => Cause::Image,
            AgentError::Disk(_) | AgentError::Clear(_) | AgentError::Seed(_) | AgentError::Firmware(_) => Cause::Disk,
            AgentError::NothingToErase | AgentError::Erase(_) => Cause::Erase,
            AgentError::Internal(_) => Cause::Internal,
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            AgentError::WrongMachine { .. } => {
                "check cabling and the BMC address: BMC and boot interface belong to different machines, or the \
                 mainboard was replaced; then declare the right serial number or inspect the host anew"
            }
            AgentError::RootDevice(_) => {
                "correct the host's root_device so that it matches exactly one of the disks listed"
            }
            AgentError::Image(ImageError::Corrupt { .. }) => {
                "the image on the engine's disk or the network path is damaged: remove the image and import it again"
            }
            AgentError::Image(_) => {
                "check that the image is imported and that it was made for this kind of disk and firmware"
            }
            AgentError::Partition(_) => {
                "use an image with a GUID partition table (or an MBR with a free primary entry) that fits the disk"
            }
            AgentError::Disk(_) | AgentError::Clear(_) | AgentError::Seed(_) => {
                "replace the disk or choose another one with root_device"
            }
            AgentError::Firmware(_) => {
                "delete stale boot entries in the firmware's setup (its variable store may be full), then try again"
            }
            AgentError::NothingToErase => "check that the disks are present and that the installer has their driver",
            AgentError::Erase(_) => "replace the disk named, or destroy it; the host stays out of the pool until then",
            AgentError::Internal(_) => "report this as a fault of vmetal, with the console's text",
        }
    }

    /// For the engine.
    pub fn to_failure(&self) -> AgentFailure {
        AgentFailure { cause: self.cause(), message: chain(self), advice: self.advice().to_owned() }
    }
}

/// An error with its causes, each once.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = cause.source();
    }
    text
}
