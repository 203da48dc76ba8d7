//! The installer's loop as an ordinary process: a real HTTP server with faults on one side, files as disks on the other.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::process::Command;

use support::server::{Fault, Server, TOKEN, pace};
use support::{Lab, MIB, SERIAL, run};
use vmetal_agent::engine::Engine;
use vmetal_agent::work::{self, Farewell};
use vmetal_model::Cause;
use vmetal_model::agent::{
    Action, AgentFailure, EraseLevel, EraseOrder, InstallOrder, Order, Report, ReportBody, Seed,
};
use vmetal_model::host::RootDeviceHints;
use vmetal_model::inventory::Firmware;

fn order(id: &str, action: Action) -> Order {
    Order { id: id.to_owned(), action }
}

fn install(digest: &str) -> InstallOrder {
    InstallOrder {
        image_digest: digest.to_owned(),
        root_device: RootDeviceHints::default(),
        expected_serial: Some(SERIAL.to_owned()),
        seed: Seed {
            user_data: "#cloud-config\npassword: hunter2\n".to_owned(),
            meta_data: "instance-id: node-1\n".to_owned(),
            network_config: String::new(),
        },
        boot_label: "vmetal".to_owned(),
    }
}

/// Runs orders to their end and returns the reports.
fn carry_out(lab: &Lab, orders: Vec<Order>, faults: Vec<(&'static str, Fault)>) -> (Farewell, Vec<Report>, Server) {
    let server = Server::start(lab.path("images"), orders, faults);
    let engine = Engine::new(&server.url(), TOKEN, pace());
    let farewell = work::run(&engine, &lab.machine());
    let reports = server.state().reports.clone();
    assert!(server.state().faults.is_empty(), "faults that never happened: {:?}", server.state().faults);
    (farewell, reports, server)
}

/// The results among the reports: what is neither heartbeat nor progress.
fn results(reports: &[Report]) -> Vec<(&str, &ReportBody)> {
    reports
        .iter()
        .filter(|r| !matches!(r.body, ReportBody::Heartbeat | ReportBody::Progress(_)))
        .map(|r| (r.order.as_str(), &r.body))
        .collect()
}

fn failure(reports: &[Report]) -> &AgentFailure {
    match results(reports)[..] {
        [(_, ReportBody::Failed(failure))] => failure,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn a_whole_life_inspect_install_reboot_through_every_fault() {
    let lab = Lab::new();
    lab.uefi();
    let small = lab.disk("vda", 96 * MIB);
    let other = lab.disk("vdb", 128 * MIB);
    let (image, raw) = lab.image(true);
    let orders = vec![
        order("o-1", Action::Wait),
        order("o-2", Action::Inspect),
        order("o-3", Action::Install(Box::new(install(&image.digest.to_string())))),
        order("o-4", Action::Reboot),
    ];
    let faults = vec![
        ("/hello", Fault::Reset),
        ("/hello", Fault::Unavailable),
        ("/order", Fault::Unavailable),
        ("/order", Fault::Cut),
        ("/report", Fault::Unavailable),
        ("/manifest.json", Fault::Corrupt),
        ("/manifest.json", Fault::Unavailable),
        ("/chunks/", Fault::Held),
        ("/chunks/", Fault::Corrupt),
        ("/chunks/", Fault::Reset),
        ("/chunks/", Fault::Cut),
        ("/chunks/", Fault::Unavailable),
        ("/chunks/", Fault::Corrupt),
    ];
    let (farewell, reports, server) = carry_out(&lab, orders, faults);
    assert_eq!(farewell, Farewell::Reboot);

    let hello = server.state().hellos[0].clone();
    assert_eq!((hello.attempt.as_str(), hello.identity.serial.as_deref()), ("attempt-1", Some(SERIAL)));
    assert_eq!(hello.firmware, Firmware::Uefi);
    let [("o-2", ReportBody::Inspected { inventory }), ("o-3", ReportBody::Installed(installed))] =
        results(&reports)[..]
    else {
        panic!("{:?}", results(&reports));
    };
    assert_eq!(inventory.disks.len(), 2);
    assert_eq!((installed.disk.as_str(), installed.disk_serial.as_deref()), ("vda", Some("S-vda")));
    assert!(installed.bytes_fetched >= image.stored_bytes);
    assert!(reports.windows(2).all(|w| w[0].sequence < w[1].sequence), "reports are counted");
    assert!(reports.iter().any(|r| matches!(&r.body, ReportBody::Progress(p) if !p.step.is_empty())));
    assert!(!format!("{reports:?}").contains("hunter2"));

    // The image's partitions are there byte by byte, holes included, on a disk that was full of other data.
    let disk = fs::read(&small).unwrap();
    assert!(disk[MIB as usize..47 * MIB as usize] == raw[MIB as usize..47 * MIB as usize]);
    assert!(run("sgdisk", &["-v"], &small).contains("No problems found"));
    let seed_at = 96 * MIB - 17 * MIB;
    let seed = format!("{}@@{seed_at}", small.display());
    let read = Command::new("mtype").args(["-i", &seed, "::user-data"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&read.stdout), "#cloud-config\npassword: hunter2\n");
    assert!(fs::read(&other).unwrap().iter().all(|b| *b == 0xa5), "the other disk is untouched");
    let entry = lab.path("sys/firmware/efi/efivars/Boot0000-8be4df61-93ca-11d2-aa0d-00e098032b8c");
    let entry = fs::read(entry).unwrap();
    assert_eq!(entry[..8], [7, 0, 0, 0, 1, 0, 0, 0]);
    assert!(entry.windows(16).any(|w| w == &disk[1024 + 16..1024 + 32]), "names the ESP by its GUID");
}

#[test]
fn an_order_is_begun_once_even_when_it_is_given_again() {
    let lab = Lab::new();
    let orders = vec![
        order("a", Action::Inspect),
        order("b", Action::Wait),
        order("a", Action::Inspect),
        order("c", Action::PowerOff),
    ];
    let (farewell, reports, server) = carry_out(&lab, orders, vec![("/report", Fault::LostAnswer)]);
    assert_eq!(farewell, Farewell::PowerOff);
    let sent: Vec<u64> =
        reports.iter().filter(|r| matches!(r.body, ReportBody::Inspected { .. })).map(|r| r.sequence).collect();
    assert!(
        !sent.is_empty() && sent.iter().all(|s| *s == sent[0]),
        "a report sent again has the same number: {sent:?}"
    );
    assert_eq!(server.state().refused, 0);
}

#[test]
fn the_wrong_machine_is_left_alone() {
    let lab = Lab::new();
    let disk = lab.disk("vda", 8 * MIB);
    for action in [
        Action::Install(Box::new(InstallOrder {
            expected_serial: Some("OTHER".to_owned()),
            ..install(&"0".repeat(64))
        })),
        Action::Erase(EraseOrder { level: EraseLevel::Overwrite, expected_serial: Some("OTHER".to_owned()) }),
    ] {
        let (_, reports, _) = carry_out(&lab, vec![order("a", action), order("b", Action::Reboot)], vec![]);
        let failure = failure(&reports);
        assert_eq!(failure.cause, Cause::WrongMachine);
        assert!(failure.message.contains("OTHER") && failure.message.contains(SERIAL), "{}", failure.message);
        assert!(fs::read(&disk).unwrap().iter().all(|b| *b == 0xa5));
    }
}

#[test]
fn what_cannot_be_installed_is_refused_before_the_disk_is_touched() {
    let lab = Lab::new();
    let disk = lab.disk("vda", 60 * MIB);
    let (image, _) = lab.image(false);
    let digest = image.digest.to_string();
    let hints = RootDeviceHints { serial: Some("NOPE".to_owned()), ..RootDeviceHints::default() };
    for (order_, cause, part) in [
        (install(&digest), Cause::RootDevice, "too small"),
        (InstallOrder { root_device: hints, ..install(&digest) }, Cause::RootDevice, "S-vda"),
        (install(&"0".repeat(64)), Cause::Image, "no such image"),
        (install("../../etc"), Cause::Image, "not a digest"),
    ] {
        let orders = vec![order("a", Action::Install(Box::new(order_))), order("b", Action::Reboot)];
        let (_, reports, _) = carry_out(&lab, orders, vec![]);
        let failure = failure(&reports);
        assert_eq!(failure.cause, cause, "{}", failure.message);
        assert!(failure.message.contains(part), "{part}: {}", failure.message);
        assert!(!failure.advice.is_empty());
        assert!(fs::read(&disk).unwrap().iter().all(|b| *b == 0xa5));
    }
}

#[test]
fn a_damaged_image_is_named_and_its_content_never_written() {
    let lab = Lab::new();
    let disk = lab.disk("vda", 96 * MIB);
    let (image, _) = lab.image(false);
    // Damaged at the source: every try gets the same wrong bytes.
    let store = vmetal_image::ImageStore::new(lab.path("images"));
    let manifest = store.manifest(&image.digest).unwrap();
    let bad = &manifest.chunks()[2];
    let mut bytes = fs::read(store.chunk_path(&image.digest, &bad.digest)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(store.chunk_path(&image.digest, &bad.digest), bytes).unwrap();

    let orders =
        vec![order("a", Action::Install(Box::new(install(&image.digest.to_string())))), order("b", Action::PowerOff)];
    let (_, reports, _) = carry_out(&lab, orders, vec![]);
    let failure = failure(&reports);
    assert_eq!(failure.cause, Cause::ImageDigest);
    assert!(failure.message.contains(&format!("chunk {}", bad.index)), "{}", failure.message);
    let at = manifest.offset(bad) as usize;
    let written = &fs::read(&disk).unwrap()[at..at + manifest.raw_len(bad)];
    assert!(written.iter().all(|b| *b == 0) || written.iter().all(|b| *b == 0xa5), "nothing unverified on the disk");
}

#[test]
fn an_install_without_esp_fails_on_uefi_and_works_on_bios() {
    for uefi in [true, false] {
        let lab = Lab::new();
        if uefi {
            lab.uefi();
        }
        let disk = lab.disk("vda", 96 * MIB);
        let (image, _) = lab.image(false);
        let orders =
            vec![order("a", Action::Install(Box::new(install(&image.digest.to_string())))), order("b", Action::Reboot)];
        let (_, reports, _) = carry_out(&lab, orders, vec![]);
        if uefi {
            assert!(failure(&reports).message.contains("EFI system partition"));
            assert!(fs::read(&disk).unwrap().iter().all(|b| *b == 0xa5));
        } else {
            assert!(matches!(results(&reports)[..], [("a", ReportBody::Installed(_))]), "{reports:?}");
        }
    }
}

#[test]
fn erasing_reports_every_disk_and_fails_with_none() {
    let lab = Lab::new();
    let disks = [lab.disk("vda", 24 * MIB), lab.disk("vdb", 8 * MIB)];
    let erase = |level| Action::Erase(EraseOrder { level, expected_serial: Some(SERIAL.to_lowercase()) });
    let orders = vec![order("a", erase(EraseLevel::Discard)), order("b", Action::PowerOff)];
    let (_, reports, _) = carry_out(&lab, orders, vec![("/report", Fault::Reset)]);
    let [("a", ReportBody::Erased { disks: erased })] = results(&reports)[..] else { panic!("{reports:?}") };
    let seen: Vec<(&str, u64)> = erased.iter().map(|d| (d.name.as_str(), d.size_bytes)).collect();
    assert_eq!(seen, [("vda", 24 * MIB), ("vdb", 8 * MIB)]);
    for disk in disks {
        assert!(fs::read(disk).unwrap().iter().all(|b| *b == 0));
    }

    let bare = Lab::new();
    let orders = vec![order("a", erase(EraseLevel::Metadata)), order("b", Action::PowerOff)];
    let (_, reports, _) = carry_out(&bare, orders, vec![]);
    assert_eq!(failure(&reports).cause, Cause::Erase);
}
