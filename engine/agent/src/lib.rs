//! The in-memory installer: one static binary that is `/init` of a small initramfs.
//!
//! # What it is
//! The engine boots it over the network when it wants something done to a server that has no system of its own yet, or
//! no longer: look at the hardware, install an image, erase the disks. It brings up the interface that it was booted
//! over, dials out to the engine ([`engine`]), and does what it is told ([`work`]) until it is told to restart. It
//! listens on no port, has no shell, starts no process, and believes nothing that it has not verified: the image's
//! chunks are checked before they are written, and a machine with another serial number than the declared one is left
//! alone.
//!
//! # How it is built
//! ```text
//! cargo build --release -p vmetal-agent --target x86_64-unknown-linux-musl
//! ```
//! needs the Rust target of that name and `musl-gcc` (Debian: `musl-tools`, for libzstd). The result is a static-pie
//! that needs nothing but the kernel. `--target x86_64-unknown-linux-gnu` with `RUSTFLAGS=-Ctarget-feature=+crt-static`
//! works too.
//!
//! # What it expects
//! * kernel command line: `vmetal.url=http://ADDRESS:PORT vmetal.token=… vmetal.mac=52:54:00:… vmetal.attempt=…`;
//! * `/etc/vmetal/modules` (optional): one path of an uncompressed kernel module per line, loaded in that order.
//!
//! # How it fails
//! It never gives up: an engine that is away is tried again for ever, a failed order is reported and the next one is
//! awaited, and a fault of the program itself is reported like any other. As process 1 it never ends, because the kernel
//! would stop with it; every stage is told on the console.
//!
//! # How it is tested
//! Everything that decides is an ordinary library: hardware is read through [`inventory::Sysfs`], which can stand on a
//! directory of fixtures, disks are [`target::Target`]s, which can be files, and firmware variables are files anyway.

mod clock;
pub mod cmdline;
pub mod console;
pub mod efi;
pub mod engine;
pub mod erase;
pub mod error;
pub mod gpt;
pub mod init;
pub mod install;
pub mod inventory;
pub mod net;
pub mod root_device;
pub mod seed;
mod sys;
pub mod target;
pub mod work;
