//! What the installer says, and what it is told.

use vmetal_model::agent::{BootPurpose, EraseLevel, ErasedDisk, Hello, Report, ReportBody};
use vmetal_model::inventory::Disk;
use vmetal_model::{Cause, ClaimState, EraseRecord, Failure, Host, HostPhase, Stage, Timestamp};

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
        OrderKind::Erase => match erase_level(host) {
            EraseLevel::Metadata => "erase-metadata",
            EraseLevel::Discard => "erase-discard",
            EraseLevel::Overwrite => "erase-overwrite",
        },
        OrderKind::Reboot => "reboot",
    };
    (format!("{}/{word}", boot.id), kind)
}

/// How thoroughly the disks are erased now: as declared after a tenancy. What was installed ahead of a claim holds no tenant's
/// data; it is made unbootable and unreadable as a file system, which takes no time.
pub fn erase_level(host: &Host) -> EraseLevel {
    match (&host.status.claim, &host.status.unerased, &host.status.standby) {
        (None, None, Some(_)) => EraseLevel::Metadata,
        _ => host.spec.erase,
    }
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
    let status = &turn.status;
    let (after, claim_uid) = match (&status.claim, &status.unerased, &status.standby) {
        (Some(claim), ..) => (format!("tenant node {}", claim.node), claim.uid.clone()),
        (None, Some(ended), _) => (format!("tenant node {}", ended.node), ended.uid.clone()),
        (None, None, Some(standby)) => (format!("standby for node type {}", standby.node_type), standby.uid.clone()),
        (None, None, None) => return,
    };
    let level = erase_level(turn.host);
    let record = EraseRecord { claim_uid, level, disks, at: turn.now };
    let list: Vec<String> = record
        .disks
        .iter()
        .map(|disk| {
            format!("{} ({}): {}", disk.name, disk.serial.as_deref().unwrap_or("no serial number"), disk.method)
        })
        .collect();
    let message = format!("erased after {after}: {}", list.join("; "));
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

/// The installed system phones home. Anything but the first word of the installation that is waited for changes nothing; for
/// a claim that takes over a system on standby that is a word with the claim's instance id, since the system has said before
/// that it runs, and may say so again.
pub fn phone_home(host: &Host, limits: &Limits, instance: Option<&str>, now: Timestamp) -> Option<Change> {
    let mut turn = Turn::new(host, limits, now);
    let claim = turn.status.claim.as_ref().map(|claim| claim.uid.0.clone());
    let boot = turn.status.boot.as_mut()?;
    let expected = boot.purpose == BootPurpose::Install && boot.work_done.is_some() && boot.phoned_home.is_none();
    let meant = host.status.stage != Stage::HandOver || instance.is_some() && instance == claim.as_deref();
    if !expected || !meant {
        return None;
    }
    boot.phoned_home = Some(now);
    boot.last_seen = Some(now);
    turn.notes.push(Note::info("boot", "the installed system phoned home"));
    Some(turn.change())
}

/// What a system on standby hears when it asks for a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// Nothing yet: ask again.
    NotYet,
    /// The first-boot data of the claim that has the host.
    Yes,
}

/// Whether there is a claim for the system on standby.
pub fn claimed(host: &Host) -> Claimed {
    let status = &host.status;
    let handed_over = status.phase == HostPhase::Provisioning
        && status.stage == Stage::HandOver
        && status.pause.is_none()
        && status.claim.as_ref().is_some_and(|claim| claim.state == ClaimState::Install)
        && status.boot.as_ref().is_some_and(|boot| boot.phoned_home.is_none());
    if handed_over { Claimed::Yes } else { Claimed::NotYet }
}

/// A system on standby asks for a claim: it lives. `None` where that is not worth a record.
pub fn waits(host: &Host, limits: &Limits, now: Timestamp) -> Option<Change> {
    let mut turn = Turn::new(host, limits, now);
    if host.status.phase != HostPhase::Standby {
        return None;
    }
    let boot = turn.status.boot.as_mut()?;
    let told = boot.last_seen.unwrap_or(Timestamp::MIN).max(limits.listening_since);
    // Often enough for the deadline, and no oftener: it asks twice a minute, and so do thousands of others.
    if boot.last_seen.is_some() && now < crate::limits::after(told, limits.standby_silence / 3) {
        return None;
    }
    boot.last_seen = Some(now);
    Some(turn.change())
}
