//! Real firmware: network boot once, then disk; and nothing left behind by a lab that is killed.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests, which measure real time")]

mod common;
mod netboot;

use std::time::{Duration, Instant};

use common::{LabProcess, missing_peers};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use vmetal_lab::report::process_start;

/// Skips, loudly, where a lab cannot run.
macro_rules! need_peers {
    () => {
        if let Some(why) = missing_peers() {
            eprintln!("SKIPPED: this machine cannot run qemu hosts:\n{why}");
            return;
        }
    };
}

const MAC: &str = "52:54:00:77:ee:01";

fn config(firmware: &str, port: u16) -> String {
    format!(
        r#"
        [network]
        bridge = "172.22.9.1/24"
        [[hosts]]
        name = "a"
        firmware = "{firmware}"
        memory_mib = 256
        mac = "{MAC}"
        disks = [{{ size_gib = 1, serial = "D0" }}]
        bmc = {{ listen = "127.77.9.1:{port}", password = "p" }}
        [[forwards]]
        listen = "172.22.9.1:{port}"
        to = "127.77.9.1:{port}"
        "#
    )
}

/// A 16-bit program that prints `text` on the first serial port and then runs `tail`. Runs at any address.
fn real_mode(text: &str, tail: &[u8]) -> Vec<u8> {
    // cld; call +0; pop si; add si, <text - here>; mov dx, 0x3f8; 1: cs lodsb; test al, al; jz 2f; out dx, al; jmp 1b; 2: tail
    let mut code = vec![0xfc, 0xe8, 0, 0, 0x5e, 0x83, 0xc6, 0, 0xba, 0xf8, 0x03];
    code.extend([0x2e, 0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf7]);
    code.extend(tail);
    // The address that `pop si` yields is that of the `pop` itself, at offset 4.
    code[7] = u8::try_from(code.len() - 4).unwrap();
    code.extend(text.as_bytes());
    code.push(0);
    code
}

/// Resets the machine through port 0xcf9, then halts.
const RESET: [u8; 9] = [0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xf4, 0xeb, 0xfd];
/// ACPI power-off of a Q35 machine (S5 in PM1a_CNT at 0x604), then halts.
const POWER_OFF: [u8; 10] = [0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4, 0xeb, 0xfd];

fn boot_sector(program: &[u8]) -> Vec<u8> {
    let mut sector = program.to_vec();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

fn boots(lab: &LabProcess) -> Vec<Value> {
    let text = std::fs::read_to_string(lab.dir.path().join("bmc-a.jsonl")).unwrap();
    let lines = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
    lines.filter(|e| e["kind"] == "boot").collect()
}

fn curl(port: u16, args: &[&str], path: &str) -> String {
    let output = std::process::Command::new("curl")
        .args(["-sk", "--max-time", "30", "-u", "admin:p"])
        .args(args)
        .arg(format!("https://127.77.9.1:{port}{path}"))
        .output()
        .unwrap();
    assert!(output.status.success(), "curl {args:?} {path}");
    String::from_utf8(output.stdout).unwrap()
}

fn power(lab: &LabProcess) -> Value {
    lab.json(&["status"])[0]["power"].clone()
}

/// The whole life of an installation, on a BIOS machine: PXE once, the network program resets the machine, the disk boots and switches
/// the machine off.
#[test]
fn pxe_once_then_a_guest_reset_boots_from_disk() {
    need_peers!();
    const PORT: u16 = 18443;
    let disk = boot_sector(&real_mode("BOOTED FROM DISK\r\n", &POWER_OFF));
    let lab = LabProcess::start(&config("bios", PORT), |dir| std::fs::write(dir.join("disk-a-0.raw"), &disk).unwrap());
    let holder = lab.report()["holder"].as_i64().unwrap();
    let server = std::thread::spawn(move || {
        let namespace = std::fs::File::open(format!("/proc/{holder}/ns/net")).unwrap();
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        netboot::serve_once(&real_mode("BOOTED FROM NETWORK\r\n", &RESET), Duration::from_secs(240))
    });
    let once = r#"{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Pxe"}}"#;
    curl(PORT, &["-X", "PATCH", "-d", once], "/redfish/v1/Systems/1");
    let reset = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";
    curl(PORT, &["-f", "-d", r#"{"ResetType":"On"}"#], reset);
    assert_eq!(power(&lab), "On");
    lab.wait_for("a", "the machine switches itself off after its disk boot", 240, |lab| power(lab) == "Off");
    let console = lab.console("a");
    server.join().unwrap().unwrap_or_else(|e| panic!("{e}:\n{console}"));
    let network = console.find("BOOTED FROM NETWORK").unwrap_or_else(|| panic!("no network boot:\n{console}"));
    let disk = console.find("BOOTED FROM DISK").unwrap_or_else(|| panic!("no disk boot:\n{console}"));
    assert!(network < disk, "{console}");
    let boots = boots(&lab);
    assert_eq!(boots.len(), 2, "{boots:?}");
    assert_eq!(boots[0]["order"][0], "pxe");
    assert_eq!((&boots[1]["order"][0], &boots[1]["cause"]), (&Value::from("disk"), &Value::from("guest reset")));
    let system: Value = serde_json::from_str(&curl(PORT, &[], "/redfish/v1/Systems/1")).unwrap();
    assert_eq!(system["PowerState"], "Off");
    assert_eq!(system["Boot"]["BootSourceOverrideEnabled"], "Disabled");

    // Without an override the disk is first, and a restart through the BMC is a new boot.
    curl(PORT, &["-f", "-d", r#"{"ResetType":"On"}"#], reset);
    lab.wait_for("a", "the disk boots again", 120, |lab| {
        lab.console("a").matches("BOOTED FROM DISK").count() == 2 && power(lab) == "Off"
    });
    assert_eq!(lab.console("a").matches("BOOTED FROM NETWORK").count(), 1);
    // An orderly end takes along what still runs inside the network.
    let mut inside = std::process::Command::new(env!("CARGO_BIN_EXE_vmetal-lab"));
    inside.args(["exec", "--state-dir"]).arg(lab.dir.path()).args(["--", "sleep", "600"]);
    let mut inside = inside.spawn().unwrap();
    lab.wait_for("a", "exec reaches the network", 60, |_| {
        let namespace = |id: i64| std::fs::read_link(format!("/proc/{id}/ns/net")).ok();
        namespace(inside.id().into()) == namespace(holder)
    });
    assert!(lab.run(&["down"]).status.success());
    assert!(!inside.wait().unwrap().success());
    assert!(!lab.dir.path().join("lab.json").exists());
}

#[test]
fn ovmf_tries_the_network_when_told_once() {
    need_peers!();
    const PORT: u16 = 18444;
    let lab = LabProcess::start(&config("uefi", PORT), |_| {});
    let once = r#"{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Pxe"}}"#;
    curl(PORT, &["-X", "PATCH", "-d", once], "/redfish/v1/Systems/1");
    lab.json(&["power", "a", "on"]);
    lab.wait_for("a", "OVMF starts PXE", 120, |lab| lab.console("a").contains("Start PXE over IPv4"));
    lab.json(&["power", "a", "restart"]);
    assert_eq!(boots(&lab).last().unwrap()["order"][0], "disk");
    lab.json(&["power", "a", "off"]);
    assert_eq!(power(&lab), "Off");
    let again = lab.run(&["power", "a", "off"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("not possible while the power state is Off"));
}

/// Waits for the end of a process.
fn gone(pid: i64, start: Option<u64>) -> bool {
    let pid = i32::try_from(pid).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while process_start(pid) == start {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Processes whose network namespace is `namespace`.
fn inhabitants(namespace: &std::path::Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let inside = processes.filter(|p| std::fs::read_link(p.path().join("ns/net")).is_ok_and(|link| link == namespace));
    inside.map(|p| p.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_killed_lab_leaves_nothing_behind() {
    need_peers!();
    const PORT: u16 = 18445;
    let text = config("bios", PORT).replace("memory_mib", "power = \"on\"\nmemory_mib");
    let mut lab = LabProcess::start(&text, |_| {});
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let report = lab.report();
    let (pid, holder) = (report["pid"].as_i64().unwrap(), report["holder"].as_i64().unwrap());
    let namespace = std::fs::read_link(format!("/proc/{holder}/ns/net")).unwrap();
    assert_ne!(namespace, own);
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap(), own, "only the holder is inside");
    let qemu = lab.json(&["status"])[0]["qemu_pid"].as_i64().unwrap();
    let start = process_start(i32::try_from(qemu).unwrap());
    assert!(start.is_some());
    assert_eq!(inhabitants(&namespace), [qemu.to_string()]);

    // The lab network is reached through exec, and its forwards lead to our loopback.
    let inside = lab.run(&["exec", "--", "ip", "-br", "addr"]);
    let inside = String::from_utf8_lossy(&inside.stdout).into_owned();
    assert!(inside.contains("172.22.9.1/24") && inside.contains("fe80::1/64") && inside.contains("t0n0"), "{inside}");
    let url = format!("https://172.22.9.1:{PORT}/redfish/v1/");
    let through = lab.run(&["exec", "--", "curl", "-sk", "--max-time", "20", &url]);
    assert!(String::from_utf8_lossy(&through.stdout).contains("RedfishVersion"));
    assert_eq!(lab.run(&["exec", "--", "sh", "-c", "exit 7"]).status.code(), Some(7));

    lab.kill_hard();
    assert!(gone(qemu, start), "QEMU {qemu} outlived its lab");
    assert!(inhabitants(&namespace).is_empty());
    assert!(!std::path::Path::new(&format!("/proc/{holder}")).exists());

    // What the killed lab left in its directory is no obstacle.
    assert!(String::from_utf8_lossy(&lab.run(&["status"]).stderr).contains("no lab is running"));
    assert!(lab.run(&["down", "--purge"]).status.success());
    assert!(!lab.dir.path().exists());
}

/// A lab of simulated hosts alone needs neither network nor root; the command line drives it.
#[test]
fn the_command_line_drives_a_lab_without_a_network() {
    let config = r#"
        [[hosts]]
        name = "a"
        backend = "sim"
        tags = { size = "small" }
        bmc = { listen = "127.77.9.2:18446", password = "p" }
        [[hosts]]
        name = "b"
        backend = "sim"
        firmware = "bios"
        bmc = { listen = "127.77.9.2:18447", password = "q", tls = "off" }
        [[faults]]
        host = "b"
        remaining = 0
        action = { kind = "drop" }
        "#;
    let lab = LabProcess::start(config, |_| {});
    assert_eq!(power(&lab), "Off");
    assert_eq!(lab.json(&["power", "a", "on"])["power"], "On");
    let id = lab.json(&["fault", "add"].into_iter().chain(["--host", "a", "status", "503"]).collect::<Vec<_>>()[..]);
    assert_eq!(id, 2);
    assert_eq!(lab.json(&["fault", "list"]).as_array().unwrap().len(), 2);
    assert_eq!(lab.json(&["fault", "clear", "2"]), 1);
    assert!(!lab.run(&["fault", "clear", "2"]).status.success());
    assert!(String::from_utf8_lossy(&lab.run(&["power", "c", "on"]).stderr).contains("no host is named c"));
    assert!(String::from_utf8_lossy(&lab.run(&["exec", "--", "true"]).stderr).contains("has no network"));
    let variables = lab.json(&["tfvars"]);
    let (a, b) = (&variables["servers"]["a"], &variables["servers"]["b"]);
    assert_eq!(a["bmc_address"], "redfish://127.77.9.2:18446/redfish/v1/Systems/1");
    assert_eq!(a["bmc_certificate_sha256"].as_str().unwrap().len(), 64);
    assert_eq!(b["bmc_address"], "redfish+http://127.77.9.2:18447/redfish/v1/Systems/1");
    assert_eq!((&b["firmware"], &variables["bmc_passwords"]["b"]), (&Value::from("bios"), &Value::from("q")));
    assert_eq!(a["size"], "small");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&lab.dir.path().join("lab.json").metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "lab.json holds passwords");

    let second = std::process::Command::new(env!("CARGO_BIN_EXE_vmetal-lab"))
        .args(["up", "--config"])
        .arg(lab.dir.path().join("lab.toml"))
        .arg("--state-dir")
        .arg(lab.dir.path())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&second.stderr).contains("another lab runs"), "{second:?}");
    assert!(lab.run(&["down"]).status.success());
    assert!(lab.run(&["down"]).status.success(), "asking twice is no mistake");
}
