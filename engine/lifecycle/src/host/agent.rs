//! What the installer says, and what it is told.

use vmetal_model::agent::{BootPurpose, EraseLevel, ErasedDisk, Hello, Report, ReportBody};
use vmetal_model::inventory::Disk;
use vmetal_model::{Cause, EraseRecord, Failure, Host, HostPhase, Stage, Timestamp};

use super::{Change, Turn, identity};
use crate::grant::settle;
use crate::limits::Limits;
use crate::note::Note;

/// The annotation with which an operator says that disks have left a host: their serial numbers (names, for disks without
/// one), separated by commas. They need no erasure before the host goes back to the pool.
pub const DISKS_GONE: &str = "vmetal.dev/disks-gone";

/// Why a request of an installer is turned away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The boot attempt is over, or another one is open.
    #[error("boot attempt {0} is not the one that is open for this host")]
    StaleAttempt(String),
    /// The machine is not the one that was declared.
    #[error("{0}")]
    WrongMachine(String),
    /// The report is about an order that was not given.
    #[error("order {0} is not the order of this boot attempt")]
    UnknownOrder(String),
}

/// What a call-in leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hearing {
    /// It is the machine that is waited for.
    Welcome(Box<Change>),
    /// It is not, or not now.
    Refused {
        /// Why.
        why: Refusal,
        /// What is to be recorded about it.
        change: Option<Box<Change>>,
    },
}

/// The order for an installer, without its contents: the engine fills in image and seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderKind {
    /// Nothing yet.
    Wait,
    /// Report what the server is made of.
    Inspect,
    /// Install.
    Install,
    /// Erase.
    Erase,
    /// Restart from disk.
    Reboot,
}

/// The order of the present moment and its id.
pub fn order(host: &Host) -> (String, OrderKind) {
    let status = &host.status;
    let Some(boot) = &status.boot else { return ("none".to_owned(), OrderKind::Wait) };
    // What has begun is finished; while the host is paused nothing begins.
    let begins = status.stage == Stage::Agent && status.pause.is_none();
    let at_work = (begins || status.stage == Stage::Work) && boot.work_done.is_none();
    let kind = match (status.phase, boot.purpose) {
        (HostPhase::Inspecting, BootPurpose::Inspect) if at_work => OrderKind::Inspect,
        (HostPhase::Provisioning, BootPurpose::Install) if at_work => OrderKind::Install,
        (HostPhase::Deprovisioning, BootPurpose::Erase) if at_work => OrderKind::Erase,
        (HostPhase::Provisioning, BootPurpose::Install) if boot.work_done.is_some() => OrderKind::Reboot,
        _ => OrderKind::Wait,
    };
    let word = match kind {
        OrderKind::Wait => "wait",
        OrderKind::Inspect => "inspect",
        OrderKind::Install => "install",
        // Another level is another order: what was done for one never stands for the other.
        OrderKind::Erase => match host.spec.erase {
            EraseLevel::Metadata => "erase-metadata",
            EraseLevel::Discard => "erase-discard",
            EraseLevel::Overwrite => "erase-overwrite",
        },
        OrderKind::Reboot => "reboot",
    };
    (format!("{}/{word}", boot.id), kind)
}

/// The installer calls in.
pub fn hello(host: &Host, limits: &Limits, hello: &Hello, now: Timestamp) -> Hearing {
    let mut turn = Turn::new(host, limits, now);
    // Who has the token of a host that is given to a tenant, or in error, has no say in what becomes of it.
    let open = matches!(host.status.phase, HostPhase::Inspecting | HostPhase::Provisioning | HostPhase::Deprovisioning);
    let boot = match &mut turn.status.boot {
        Some(boot) if open && boot.id == hello.attempt => boot,
        _ => return Hearing::Refused { why: Refusal::StaleAttempt(hello.attempt.clone()), change: None },
    };
    boot.last_seen = Some(now);
    if let Err(message) = same_machine(host, hello) {
        let failure =
            Failure { cause: Cause::WrongMachine, message: message.clone(), advice: identity::advice(host), at: now };
        turn.fail(failure);
        return Hearing::Refused { why: Refusal::WrongMachine(message), change: Some(Box::new(turn.change())) };
    }
    if boot.called_in.is_none() {
        boot.called_in = Some(now);
        let serial = hello.identity.serial.as_deref().unwrap_or("unknown");
        let message = format!("installer {} called in from {} (serial number {serial})", hello.version, hello.boot_mac);
        turn.notes.push(Note::info("boot", message));
    }
    Hearing::Welcome(Box::new(turn.change()))
}

fn same_machine(host: &Host, hello: &Hello) -> Result<(), String> {
    if hello.boot_mac != host.spec.boot_mac {
        return Err(format!(
            "the installer was booted over {}, but the host is declared with {}",
            hello.boot_mac, host.spec.boot_mac
        ));
    }
    let inspected = host.status.inventory.as_ref().map(|inventory| inventory.identity.clone());
    let by_bmc = host.status.bmc.as_ref().map(identity::by_bmc);
    let (known, source) = match (inspected, by_bmc) {
        (Some(identity), _) => (identity, "inspection"),
        (None, Some(identity)) => (identity, "the BMC"),
        (None, None) => return Ok(()),
    };
    if known.may_be(&hello.identity) {
        return Ok(());
    }
    let (known, seen) = (known.describe(), hello.identity.describe());
    Err(format!("expected the machine known from {source} ({known}), but {seen} called in"))
}

/// The installer reports. `Ok(None)` when there is nothing to record beyond that it lives.
pub fn report(host: &Host, limits: &Limits, report: &Report, now: Timestamp) -> Result<Change, Refusal> {
    let mut turn = Turn::new(host, limits, now);
    let (current, kind) = order(host);
    let boot = match &mut turn.status.boot {
        Some(boot) if report.order.split('/').next() == Some(boot.id.as_str()) => boot,
        _ => return Err(Refusal::StaleAttempt(report.order.clone())),
    };
    boot.last_seen = Some(now);
    boot.called_in.get_or_insert(now);
    let mine = report.order == current;
    match (&report.body, kind) {
        (ReportBody::Heartbeat, _) => {}
        (ReportBody::Progress(progress), _) if mine => turn.status.progress = Some(progress.clone()),
        (ReportBody::Progress(_), _) => {}
        (ReportBody::Inspected { inventory }, OrderKind::Inspect) if mine && inventory.disks.is_empty() => {
            turn.fail(no_disk(host, now));
        }
        (ReportBody::Inspected { inventory }, OrderKind::Inspect) if mine => {
            boot.work_done = Some(now);
            turn.status.inventory = Some((**inventory).clone());
        }
        (ReportBody::Installed(installed), OrderKind::Install) if mine => {
            boot.work_done = Some(now);
            let mib = |bytes: u64| bytes >> 20;
            let seconds = installed.elapsed_ms as f64 / 1000.0;
            let message = format!(
                "installed on {} (serial number {}): {} MiB fetched, {} MiB written in {seconds:.1} s",
                installed.disk,
                installed.disk_serial.as_deref().unwrap_or("unknown"),
                mib(installed.bytes_fetched),
                mib(installed.bytes_written),
            );
            turn.notes.push(Note::info("installed", message));
        }
        (ReportBody::Erased { disks }, OrderKind::Erase) if mine => match untouched(host, disks, now) {
            Ok(gone) => {
                boot.work_done = Some(now);
                erased(&mut turn, disks.clone(), &gone);
            }
            Err(failure) => turn.fail(failure),
        },
        (ReportBody::Failed(failure), OrderKind::Inspect | OrderKind::Install | OrderKind::Erase) if mine => {
            let failure = Failure {
                cause: failure.cause,
                message: failure.message.clone(),
                advice: failure.advice.clone(),
                at: now,
            };
            turn.fail(failure);
        }
        // The same final report once more: the answer to the first was lost.
        _ if boot.work_done.is_some() => {}
        _ => return Err(Refusal::UnknownOrder(report.order.clone())),
    }
    Ok(turn.change())
}

/// A server without a disk cannot take any claim.
fn no_disk(host: &Host, now: Timestamp) -> Failure {
    Failure {
        cause: Cause::Inspection,
        message: format!("inspection of host {} found no disk to install on; expected at least one", host.name()),
        advice:
            "check that disks are inserted, that their controller is enabled in the firmware (not in a mode that hides \
                 them), and that the installer's kernel has its driver; the host is booted again by itself a few times"
                .to_owned(),
        at: now,
    }
}

/// Disks that inspection found and the erasure did not: the installer cannot miss a disk that does not show itself. Fails for
/// those that nobody has said to be gone; returns the others.
fn untouched(host: &Host, erased: &[ErasedDisk], now: Timestamp) -> Result<Vec<Disk>, Failure> {
    let mut erased: Vec<&ErasedDisk> = erased.iter().collect();
    let mut missing: Vec<Disk> = Vec::new();
    for disk in host.status.inventory.iter().flat_map(|inventory| &inventory.disks) {
        // Names change between boots. Without a serial number, the size is all that is left.
        let same = |other: &&ErasedDisk| {
            other.serial == disk.serial && (disk.serial.is_some() || other.size_bytes == disk.size_bytes)
        };
        match erased.iter().position(same) {
            Some(found) => {
                erased.swap_remove(found);
            }
            None => missing.push(disk.clone()),
        }
    }
    let said = host.metadata.annotations.get(DISKS_GONE).map_or("", String::as_str);
    let known = |disk: &Disk| disk.serial.as_deref().unwrap_or(&disk.name).to_owned();
    let unknown: Vec<&Disk> = missing.iter().filter(|d| !said.split(',').any(|one| one.trim() == known(d))).collect();
    if unknown.is_empty() {
        return Ok(missing);
    }
    let list: Vec<String> = unknown
        .iter()
        .map(|d| {
            format!("{} ({}, {} GiB)", d.name, d.serial.as_deref().unwrap_or("no serial number"), d.size_bytes >> 30)
        })
        .collect();
    let names: Vec<String> = unknown.iter().map(|disk| known(disk)).collect();
    Err(Failure {
        cause: Cause::Erase,
        message: format!("inspection found disks that were not there to be erased: {}", list.join("; ")),
        advice: format!(
            "bring them back and change any label of the host; if they have left it for good, say so with the annotation {DISKS_GONE}={}",
            names.join(",")
        ),
        at: now,
    })
}

fn erased(turn: &mut Turn<'_>, disks: Vec<ErasedDisk>, gone: &[Disk]) {
    let (node, claim_uid) = match (&turn.status.claim, &turn.status.unerased) {
        (Some(claim), _) => (claim.node.clone(), claim.uid.clone()),
        (None, Some(ended)) => (ended.node.clone(), ended.uid.clone()),
        (None, None) => return,
    };
    let level = turn.host.spec.erase;
    let record = EraseRecord { claim_uid, level, disks, at: turn.now };
    let list: Vec<String> = record
        .disks
        .iter()
        .map(|disk| {
            format!("{} ({}): {}", disk.name, disk.serial.as_deref().unwrap_or("no serial number"), disk.method)
        })
        .collect();
    let message = format!("erased after tenant node {node}: {}", list.join("; "));
    turn.notes.push(Note::info("erased", message));
    if let Some(inventory) = turn.status.inventory.as_mut().filter(|_| !gone.is_empty()) {
        inventory.disks.retain(|disk| !gone.contains(disk));
        let names: Vec<&str> = gone.iter().map(|d| d.serial.as_deref().unwrap_or(&d.name)).collect();
        let message =
            format!("not erased, because the annotation {DISKS_GONE} says that they are gone: {}", names.join(", "));
        turn.notes.push(Note::warning("erased", message));
    }
    settle(&mut turn.status, record);
}

/// The installed system phones home. Anything but the first word of the installation that is waited for changes nothing.
pub fn phone_home(host: &Host, limits: &Limits, now: Timestamp) -> Option<Change> {
    let mut turn = Turn::new(host, limits, now);
    let boot = turn.status.boot.as_mut()?;
    let expected = boot.purpose == BootPurpose::Install && boot.work_done.is_some() && boot.phoned_home.is_none();
    if !expected {
        return None;
    }
    boot.phoned_home = Some(now);
    turn.notes.push(Note::info("boot", "the installed system phoned home"));
    Some(turn.change())
}
