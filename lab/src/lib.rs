//! Virtual bare metal with real firmware, behind BMCs that speak the real protocol.
//!
//! A lab is a set of hosts. Each host has a Redfish BMC on a loopback address of its own and one of two back ends:
//!
//! * `sim`: a power state machine without a machine. Boots are instant; thousands fit in one process. For API tests.
//! * `qemu`: a QEMU process with OVMF or SeaBIOS, disks and a network card, driven over QMP. It boots for real: firmware, PXE,
//!   kernel, installer, disk.
//!
//! Both sit behind the same [`machine`] and the same [`redfish`] front end, so a test that passes on `sim` asks the same
//! questions of `qemu`.
//!
//! # What lives where
//! BMC listeners stay in the caller's network namespace, on loopback only. The provisioning network (a bridge, one tap per
//! network card, the QEMU processes) lives in an anonymous network namespace that belongs to one thread of this process
//! ([`netns`]). Nothing is ever added to an interface of the host, and nothing has a name that could be left behind: when the
//! process dies, by whatever signal, the kernel kills the QEMU processes (parent-death signal) and with them goes the
//! namespace with all its interfaces.
//!
//! # As a library
//! [`sim::start`] gives one BMC for a test, with its request journal and faults:
//!
//! ```no_run
//! # async fn example() -> Result<(), vmetal_lab::LabError> {
//! let bmc = vmetal_lab::sim::start(vmetal_lab::config::HostConfig::sim("node-a")).await?;
//! println!("{} {}", bmc.base_url(), bmc.fingerprint().unwrap_or("plain http"));
//! # Ok(()) }
//! ```

pub mod cli;
mod clock;
pub mod config;
pub mod control;
pub mod doctor;
mod error;
pub mod fault;
mod forward;
pub mod journal;
pub mod lab;
pub mod machine;
pub mod netns;
pub mod qemu;
pub mod redfish;
pub mod report;
pub mod sim;
mod tls;

pub use error::LabError;
