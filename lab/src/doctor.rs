//! `vmetal-lab doctor`: can this machine run a lab, and what is missing.

use std::fmt;
use std::path::Path;
use std::process::Command;

use crate::config::QemuConfig;
use crate::qemu::Accel;

/// The ROM that QEMU gives a virtio network card by itself, where Debian installs it.
const DEFAULT_PXE_ROM: &str = "/usr/lib/ipxe/qemu/efi-virtio.rom";

/// How one check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Works, but worth knowing.
    Note,
    /// A lab with `qemu` hosts cannot run.
    Missing,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub subject: &'static str,
    /// The outcome.
    pub verdict: Verdict,
    /// What was seen, and what to do about it.
    pub detail: String,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.verdict {
            Verdict::Good => "ok",
            Verdict::Note => "note",
            Verdict::Missing => "MISSING",
        };
        write!(f, "{mark:<8}{:<16}{}", self.subject, self.detail)
    }
}

/// Looks at this machine.
#[must_use]
pub fn examine(config: &QemuConfig) -> Vec<Check> {
    let mut checks = vec![accelerator(), qemu(config)];
    checks.extend([
        file("UEFI firmware", &config.ovmf_code, "ovmf"),
        file("UEFI variables", &config.ovmf_vars, "ovmf"),
        file("BIOS PXE ROM", config.bios_pxe_rom.as_deref().unwrap_or(Path::new(DEFAULT_PXE_ROM)), "ipxe-qemu"),
        seabios(),
        tun(),
        namespaces(),
    ]);
    checks
}

fn accelerator() -> Check {
    let (accel, why) = Accel::detect();
    let device = if Path::new("/dev/kvm").exists() { "/dev/kvm exists" } else { "there is no /dev/kvm" };
    let (verdict, detail) = match accel {
        Accel::Kvm if Path::new("/dev/kvm").exists() => (Verdict::Good, format!("kvm, because {why}")),
        Accel::Kvm => (
            Verdict::Missing,
            format!("kvm, because {why}, but {device}; load kvm_intel or kvm_amd, or set LAB_ACCEL=tcg"),
        ),
        Accel::Tcg => (
            Verdict::Note,
            format!(
                "tcg, because {why} ({device}, which proves nothing: software KVM crawls); a UEFI network boot takes \
                 about 15 s; LAB_ACCEL=kvm overrides"
            ),
        ),
    };
    Check { subject: "accelerator", verdict, detail }
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn qemu(config: &QemuConfig) -> Check {
    let subject = "qemu";
    let binary = config.binary.display().to_string();
    if let Some(version) = output(&binary, &["--version"]) {
        let version = version.lines().next().unwrap_or_default().to_owned();
        return Check { subject, verdict: Verdict::Good, detail: version };
    }
    let utils = output("dpkg-query", &["-W", "-f", "${Version}", "qemu-utils"]);
    let detail = format!("{binary} does not run; {}", install_advice(utils.as_deref(), has_backports_source()));
    Check { subject, verdict: Verdict::Missing, detail }
}

/// How to install QEMU, given the version of qemu-utils that is there.
///
/// On Debian 12 with qemu-utils from backports but no backports source left, a plain installation fails: the stable
/// qemu-system-x86 breaks the newer qemu-utils.
fn install_advice(qemu_utils: Option<&str>, backports_source: bool) -> String {
    const PLAIN: &str = "apt-get install --no-install-recommends qemu-system-x86 ovmf ipxe-qemu seabios";
    match qemu_utils {
        Some(version) if version.contains("~bpo") && !backports_source => format!(
            "qemu-utils {version} comes from backports, but no backports source is configured, so the stable package \
             conflicts with it: add a source with `Suites: bookworm-backports`, then \
             `{PLAIN} -t bookworm-backports`; or go back with `apt-get install --allow-downgrades qemu-utils/stable` first"
        ),
        Some(version) if version.contains("~bpo") => format!("install: {PLAIN} -t bookworm-backports"),
        _ => format!("install: {PLAIN}"),
    }
}

fn has_backports_source() -> bool {
    let directory = std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|e| e.path());
    std::iter::once("/etc/apt/sources.list".into())
        .chain(directory)
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .any(|text| text.lines().any(|line| !line.trim_start().starts_with('#') && line.contains("-backports")))
}

fn file(subject: &'static str, path: &Path, package: &str) -> Check {
    if path.is_file() {
        Check { subject, verdict: Verdict::Good, detail: path.display().to_string() }
    } else {
        let detail = format!("{} is not there; install: apt-get install {package}", path.display());
        Check { subject, verdict: Verdict::Missing, detail }
    }
}

fn seabios() -> Check {
    let subject = "SeaBIOS";
    match ["/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin"].iter().find(|p| Path::new(p).is_file())
    {
        Some(path) => Check { subject, verdict: Verdict::Good, detail: (*path).to_owned() },
        None => Check {
            subject,
            verdict: Verdict::Note,
            detail: "not where Debian puts it; BIOS hosts need it: apt-get install seabios".to_owned(),
        },
    }
}

fn tun() -> Check {
    let subject = "tun";
    match std::fs::File::options().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => Check { subject, verdict: Verdict::Good, detail: "/dev/net/tun opens".to_owned() },
        Err(error) => Check {
            subject,
            verdict: Verdict::Missing,
            detail: format!("/dev/net/tun does not open: {error}; load the tun module, or allow this user to open it"),
        },
    }
}

/// Makes a namespace with a bridge and a tap, exactly as a lab would, in a process that then ends.
fn namespaces() -> Check {
    const SCRIPT: &str = "ip link add br0 type bridge && ip link add a0 type veth peer name a1 && \
                          ip tuntap add t0 mode tap && ip link set t0 master br0 && ip -6 addr add fe80::1/64 dev br0 nodad";
    let subject = "namespaces";
    let root = nix::unistd::geteuid().is_root();
    let args: &[&str] = if root { &["-n"] } else { &["-r", "-n"] };
    let result = Command::new("unshare").args(args).args(["sh", "-c", SCRIPT]).output();
    let how = if root { "as root" } else { "without root, by a user namespace" };
    match result {
        Ok(output) if output.status.success() => {
            let detail = format!("network namespace, bridge, veth, tap and IPv6 work {how}");
            Check { subject, verdict: Verdict::Good, detail }
        }
        Ok(output) => Check {
            subject,
            verdict: Verdict::Missing,
            detail: format!(
                "network namespace, bridge, veth, tap or IPv6 do not work {how}: {}{}",
                String::from_utf8_lossy(&output.stderr).trim(),
                if root { "" } else { "; run as root, or set kernel.unprivileged_userns_clone=1" }
            ),
        },
        Err(error) => Check {
            subject,
            verdict: Verdict::Missing,
            detail: format!("cannot run unshare and ip: {error}; install: apt-get install util-linux iproute2"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backports_trap_is_named() {
        let trap = install_advice(Some("1:10.0.2+ds-2~bpo12+1"), false);
        assert!(trap.contains("conflicts") && trap.contains("bookworm-backports"), "{trap}");
        assert!(install_advice(Some("1:10.0.2+ds-2~bpo12+1"), true).ends_with("-t bookworm-backports"));
        assert!(!install_advice(Some("1:7.2+dfsg-7"), false).contains("backports"));
        assert!(!install_advice(None, true).contains("backports"));
    }

    #[test]
    fn a_missing_file_names_its_package() {
        let check = file("UEFI firmware", Path::new("/nonexistent/code.fd"), "ovmf");
        assert_eq!(check.verdict, Verdict::Missing);
        assert!(check.to_string().contains("apt-get install ovmf"));
    }
}
