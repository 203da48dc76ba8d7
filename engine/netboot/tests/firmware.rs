//! Real firmware boots over this service: SeaBIOS and OVMF in QEMU (TCG), in a network namespace of the test's own, as far as
//! the first line of /init. The engine is a double on a real socket; everything else is what runs in production.
//!
//! Needs root, iproute2, QEMU, OVMF, Debian's ipxe package and its kernel package (kept in cargo's directory for temporary
//! files). What is missing is said, and the test is skipped.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests, which measure real time")]

mod support;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::{FakeEngine, agent, host};
use vmetal_model::boot::BootTarget;

/// Four times what a loaded machine of two cores needs.
const LIMIT: Duration = Duration::from_secs(300);
/// Longer than the record is behind the console.
const PATIENT: Duration = Duration::from_mins(1);
const INIT_LINE: &str = "VMETAL-TEST-INIT-REACHED";
const DISK_LINE: &str = "VMETAL-TEST-DISK-BOOTED";

/// One machine at a time: two slow each other down and the machine below.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Firmware {
    Bios,
    Uefi,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Advertise {
    Yes,
    No,
}

fn missing() -> Option<&'static str> {
    let root = std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t")));
    let tool =
        |name: &str| ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().any(|dir| Path::new(dir).join(name).exists());
    match () {
        () if !root => Some("root (for a network namespace)"),
        () if !tool("ip") => Some("iproute2"),
        () if !tool("qemu-system-x86_64") => Some("qemu-system-x86"),
        () if !Path::new("/usr/share/OVMF/OVMF_CODE_4M.fd").exists() => Some("ovmf"),
        () if !Path::new("/usr/lib/ipxe/snponly.efi").exists() => Some("ipxe"),
        () if !tool("dpkg-deb") => Some("dpkg"),
        () => None,
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Built once per target directory: the real assets with an /init that prints a line and waits.
fn assets() -> PathBuf {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("netboot-firmware");
    std::fs::create_dir_all(&base).unwrap();
    let (source, init) = (base.join("init.rs"), base.join("init"));
    if !init.exists() {
        let text = format!(
            "fn main() {{ loop {{ println!(\"{INIT_LINE}\"); std::thread::sleep(std::time::Duration::from_secs(1)); }} }}"
        );
        std::fs::write(&source, text).unwrap();
        let options = ["-O", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"];
        let output = Command::new("rustc").args(options).arg(&init).arg(&source).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let out = base.join("assets");
    let output = Command::new(env!("CARGO_BIN_EXE_vmetal-netboot"))
        .args(["assets", "build", "--kernel-package", "linux-image-cloud-amd64", "--agent"])
        .arg(&init)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    out
}

/// A namespace with a bridge and one port; gone when dropped, with every process in it that we started.
struct Lab {
    namespace: String,
    children: Vec<Child>,
    dir: tempfile::TempDir,
}

impl Lab {
    fn new(engine: &Arc<FakeEngine>, advertise: Advertise) -> Lab {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let namespace = format!("vmnb-{}-{number}", std::process::id());
        let assets = assets();
        run("ip", &["netns", "add", &namespace]);
        let mut lab = Lab { namespace, children: Vec::new(), dir: tempfile::tempdir().unwrap() };
        for line in [
            "link set lo up",
            "link add br0 type bridge",
            "link set br0 type bridge stp_state 0 forward_delay 0",
            "address add 172.22.0.1/24 dev br0",
            "link set br0 up",
            "tuntap add tap0 mode tap",
            "link set tap0 master br0",
            "link set tap0 up",
        ] {
            let mut arguments = vec!["-n", &lab.namespace];
            arguments.extend(line.split(' '));
            run("ip", &arguments);
        }
        let socket = lab.dir.path().join("engine.sock");
        engine.serve(&socket);
        let log = File::create(lab.dir.path().join("netboot.log")).unwrap();
        let mut command = lab.command(env!("CARGO_BIN_EXE_vmetal-netboot"));
        command.args(["serve", "--interface", "br0", "--address", "172.22.0.1/24", "--kernel-args", "console=ttyS0"]);
        command.arg("--engine-socket").arg(&socket).arg("--assets").arg(assets).arg("--images").arg(lab.dir.path());
        if advertise == Advertise::No {
            command.arg("--no-router-advertisements");
        }
        lab.children.push(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        while !lab.log().contains("serving network boot") {
            assert!(Instant::now() < deadline, "the service did not start: {}", lab.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        lab
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        command
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("netboot.log")).unwrap_or_default()
    }

    fn serial(&self) -> String {
        let bytes = std::fs::read(self.dir.path().join("serial.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Powers the machine on and waits for a line on its serial port. Returns the time it took.
    fn boot(&mut self, firmware: Firmware, line: &str, more: &[&str]) -> Duration {
        let started = Instant::now();
        let serial = self.dir.path().join("serial.log");
        let mut command = self.command("qemu-system-x86_64");
        command.args([
            "-accel",
            "tcg",
            "-machine",
            "q35,graphics=off",
            "-m",
            "1024",
            "-nodefaults",
            "-display",
            "none",
        ]);
        command.arg("-serial").arg(format!("file:{}", serial.display()));
        command.args(["-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no", "-device", "virtio-rng-pci"]);
        let mut card = "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01,bootindex=1".to_owned();
        if firmware == Firmware::Uefi {
            // Without the card's ROM, which is iPXE already, OVMF boots with its own driver like real firmware.
            card.push_str(",romfile=");
            let vars = self.dir.path().join("vars.fd");
            std::fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &vars).unwrap();
            command.args(["-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"]);
            command.arg("-drive").arg(format!("if=pflash,format=raw,file={}", vars.display()));
        }
        command.args(["-device", &card]).args(more);
        self.children.push(command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap());
        while !self.serial().contains(line) {
            assert!(started.elapsed() < LIMIT, "no {line:?} on the console:\n{}\n{}", self.serial(), self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        started.elapsed()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("service:\n{}\nconsole:\n{}", self.log(), self.serial());
        }
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.namespace]).status();
    }
}

/// Boots as far as the installer, with these lines on record. Returns the time it took; `None`: skipped.
fn installer_boot(firmware: Firmware, advertise: Advertise, wanted: &[&str]) -> Option<Duration> {
    if let Some(what) = missing() {
        eprintln!("SKIPPED: {what} is missing");
        return None;
    }
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let engine = FakeEngine::new(vec![host("node-1", 1, agent("attempt-1", "token-1"))]);
    let mut lab = Lab::new(&engine, advertise);
    let elapsed = lab.boot(firmware, INIT_LINE, &[]);
    let serial = lab.serial();
    for argument in [
        "vmetal.url=http://172.22.0.1:8080",
        "vmetal.token=token-1",
        "vmetal.mac=52:54:00:00:00:01",
        "vmetal.attempt=attempt-1",
    ] {
        assert!(serial.contains(argument), "{argument} is not on the kernel's command line");
    }
    eprintln!("{firmware:?}, router advertisements {advertise:?}: power on to /init in {:.1} s", elapsed.as_secs_f64());
    assert_order(&engine, wanted);
    Some(elapsed)
}

/// The lines must appear in this order, others between them. The console may be ahead of the record.
fn assert_order(engine: &FakeEngine, wanted: &[&str]) {
    let deadline = Instant::now() + PATIENT;
    let heard_last = || engine.heard().iter().any(|event| wanted.last().is_none_or(|last| event.starts_with(last)));
    while !heard_last() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    let heard = engine.heard();
    let mut rest = heard.iter();
    for line in wanted {
        assert!(rest.any(|event| event.starts_with(line)), "{line:?} is missing or out of order in {heard:#?}");
    }
}

#[test]
fn uefi_pxe_boots_the_installer() {
    installer_boot(
        Firmware::Uefi,
        Advertise::Yes,
        &[
            "DHCP offer 172.22.0.11 (PXE, UEFI x86-64), snponly.efi",
            "DHCP ack 172.22.0.11 (PXE, UEFI x86-64), snponly.efi",
            "TFTP snponly.efi",
            "DHCP ack 172.22.0.11 (iPXE, UEFI x86-64), script",
            "HTTP script: installer",
            "HTTP kernel",
            "HTTP initrd",
        ],
    );
}

#[test]
fn bios_boots_the_installer() {
    installer_boot(
        Firmware::Bios,
        Advertise::Yes,
        &["DHCP ack 172.22.0.11 (iPXE, BIOS), script", "HTTP script: installer", "HTTP kernel", "HTTP initrd"],
    );
}

/// A disk whose first sector prints a line on the BIOS console and stops.
fn bios_disk(dir: &Path) -> PathBuf {
    // xor ax,ax; mov ds,ax; mov si,message; lodsb; or al,al; jz end; mov ah,0x0e; int 0x10; jmp; end: hlt; jmp end
    let mut sector = b"\x31\xc0\x8e\xd8\xbe\x15\x7c\xac\x08\xc0\x74\x06\xb4\x0e\xcd\x10\xeb\xf5\xf4\xeb\xfd".to_vec();
    sector.extend_from_slice(DISK_LINE.as_bytes());
    sector.resize(510, 0);
    sector.extend_from_slice(&[0x55, 0xaa]);
    sector.resize(1024 * 1024, 0);
    let path = dir.join("disk.img");
    std::fs::write(&path, sector).unwrap();
    path
}

fn disk_boot(firmware: Firmware, wanted: &[&str]) {
    if let Some(what) = missing() {
        eprintln!("SKIPPED: {what} is missing");
        return;
    }
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let engine = FakeEngine::new(vec![host("node-1", 1, BootTarget::LocalDisk)]);
    let mut lab = Lab::new(&engine, Advertise::Yes);
    let drive = format!("if=none,id=d0,format=raw,file={}", bios_disk(lab.dir.path()).display());
    let line = match firmware {
        Firmware::Bios => DISK_LINE,
        // OVMF has four network entries for one card and goes through all before the disk. The two of IPv6 wait a minute and
        // a half each for DHCPv6, which nobody serves; that it leaves the first entry is what concerns us.
        Firmware::Uefi => ">>Start PXE over IPv6",
    };
    let elapsed = lab.boot(firmware, line, &["-drive", &drive, "-device", "virtio-blk-pci,drive=d0,bootindex=2"]);
    eprintln!("{firmware:?}, network first, own disk: power on to {line:?} in {:.1} s", elapsed.as_secs_f64());
    assert_order(&engine, wanted);
}

#[test]
fn a_bios_host_that_tries_the_network_first_goes_on_to_its_disk() {
    disk_boot(Firmware::Bios, &["DHCP ack 172.22.0.11 (iPXE, BIOS), script", "HTTP script: own disk"]);
}

#[test]
fn a_uefi_host_that_tries_the_network_first_is_sent_on_at_once() {
    disk_boot(Firmware::Uefi, &["DHCP ack 172.22.0.11 (PXE, UEFI x86-64), own disk", "TFTP: told the firmware"]);
}

/// `cargo test -p vmetal-netboot --test firmware -- --ignored --nocapture`
#[test]
#[ignore = "a measurement: what router advertisements save"]
fn measure_router_advertisements() {
    for _ in 0..3 {
        for firmware in [Firmware::Bios, Firmware::Uefi] {
            for advertise in [Advertise::Yes, Advertise::No] {
                if installer_boot(firmware, advertise, &[]).is_none() {
                    return;
                }
            }
        }
    }
}
