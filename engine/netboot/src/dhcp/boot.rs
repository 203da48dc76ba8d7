//! Which boot file a client gets: exact tables, and the session where the packet alone does not tell.

use std::net::Ipv4Addr;
use std::time::Instant;

use vmetal_model::boot::{BootEntry, BootTarget};

use super::request::{Arch, Client, IpxeBuild, Request};
use crate::session::{LOADER_WINDOW, Sessions, Stage, Who};
use crate::table::attempt;

/// The boot loader for PXE firmware that says it is this, exactly; a wrong binary is worse than none.
///
/// UEFI gets `snponly.efi`: it keeps the firmware's driver and so the link, where a driver of its own would reset it and
/// wait out a spanning tree port's listening time again.
pub fn pxe_loader(arch: Arch) -> Option<&'static str> {
    match arch.0 {
        0 => Some("undionly.kpxe"),
        7 | 9 => Some("snponly.efi"),
        _ => None,
    }
}

/// The same for UEFI HTTP boot, where the firmware has no PXE network protocol for `snponly.efi` to sit on.
pub fn http_loader(arch: Arch) -> Option<&'static str> {
    (arch.0 == 16).then_some("ipxe.efi")
}

/// The file that firmware is told to fetch when its host is to boot from its own disk. It does not exist, and that is the
/// point: firmware that is given an address without a boot file repeats its question for a minute before it gives up, while
/// a file that is refused sends it to the next boot device at once. Measured with OVMF 2022.11, from power on to the end of
/// its first network entry: 72.6 s with an address alone, 13.5 s with this file.
pub const LOCAL_DISK: &str = "local-disk";

/// What to tell a client about booting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootFile {
    /// Nothing.
    None,
    /// Fetch this loader by TFTP.
    Tftp(&'static str),
    /// Fetch this loader from this URL (UEFI HTTP boot).
    Http(String),
    /// iPXE: run the script at this URL.
    Script(String),
    /// [`LOCAL_DISK`], by TFTP.
    Absent,
}

/// Why a client that wanted a boot file gets none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No loader for any architecture it named.
    NoLoader(Vec<Arch>),
    /// Its boot attempt goes round in circles.
    Looping,
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What to send.
    pub file: BootFile,
    /// Why nothing is sent to a client that wanted something.
    pub refusal: Option<Refusal>,
}

impl From<BootFile> for Decision {
    fn from(file: BootFile) -> Self {
        Decision { file, refusal: None }
    }
}

/// Decides from the entry, the packet and the session.
pub fn decide(request: &Request, entry: &BootEntry, sessions: &Sessions, http: &HttpBase, now: Instant) -> Decision {
    let script = || BootFile::Script(http.script(request));
    let arch = match &request.client {
        Client::Plain => return BootFile::None.into(),
        Client::Pxe(arch) | Client::HttpBoot(arch) | Client::Ipxe { arch, .. } => arch,
    };
    let BootTarget::Agent { .. } = entry.target else {
        return match request.client {
            Client::Ipxe { .. } => script().into(),
            Client::Pxe(_) => BootFile::Absent.into(),
            Client::HttpBoot(_) => BootFile::Http(http.loader(request, LOCAL_DISK)).into(),
            Client::Plain => BootFile::None.into(),
        };
    };
    let who = Who { mac: request.mac, attempt: attempt(entry).unwrap_or_default() };
    let looping = sessions.is_looping(who, now);
    let (stage, age) = sessions.stage(who, now);
    let loader_runs = stage == Stage::LoaderServed && age < LOADER_WINDOW;
    let find = |loader: fn(Arch) -> Option<&'static str>| arch.iter().find_map(|&arch| loader(arch));
    let no_loader = || Decision { file: BootFile::None, refusal: Some(Refusal::NoLoader(arch.clone())) };
    match &request.client {
        // A looping loader still gets its script: the script says so and stops.
        Client::Ipxe { build: IpxeBuild::Full, .. } => script().into(),
        Client::Ipxe { build: IpxeBuild::Crippled, .. } if loader_runs || looping => script().into(),
        Client::Ipxe { build: IpxeBuild::Crippled, .. } => {
            find(pxe_loader).map_or_else(no_loader, |name| BootFile::Tftp(name).into())
        }
        _ if looping => Decision { file: BootFile::None, refusal: Some(Refusal::Looping) },
        Client::Pxe(_) if loader_runs => script().into(),
        Client::Pxe(_) => find(pxe_loader).map_or_else(no_loader, |name| BootFile::Tftp(name).into()),
        Client::HttpBoot(_) => {
            find(http_loader).map_or_else(no_loader, |name| BootFile::Http(http.loader(request, name)).into())
        }
        Client::Plain => BootFile::None.into(),
    }
}

/// Where boot files are served by HTTP. Always an address literal: firmware may have no DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpBase {
    /// Our address on the provisioning network.
    pub address: Ipv4Addr,
    /// The port.
    pub port: u16,
}

impl std::fmt::Display for HttpBase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            80 => write!(f, "http://{}", self.address),
            port => write!(f, "http://{}:{port}", self.address),
        }
    }
}

impl HttpBase {
    fn script(self, request: &Request) -> String {
        format!("{self}/boot/{}/script.ipxe", path_form(request))
    }

    fn loader(self, request: &Request, name: &str) -> String {
        format!("{self}/boot/{}/{name}", path_form(request))
    }
}

/// A MAC without colons, which some loaders' URL parsers take for a port.
fn path_form(request: &Request) -> String {
    request.mac.to_string().replace(':', "-")
}
