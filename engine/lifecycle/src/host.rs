//! The life of a physical server.

pub mod agent;
mod error;
mod inspect;
mod installer;
mod provision;
mod register;
mod release;
mod turn;

use vmetal_model::{
    BmcFacts, ClaimState, EraseRecord, Failure, Host, HostPhase, HostStatus, OperationKind, OperationState, PowerState,
    Timestamp,
};

use crate::limits::{Limits, after};
use crate::note::Note;
pub(crate) use turn::Turn;

/// What to do about a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// To be committed. Differs from what was stored only where something is to be said.
    pub status: HostStatus,
    /// To be committed with it.
    pub notes: Vec<Note>,
    /// To be performed once the status, which holds the intent, is committed.
    pub effect: Option<OperationKind>,
    /// When to look again if nothing happens before.
    pub next: Option<Timestamp>,
    /// What becomes of the object.
    pub fate: Fate,
}

/// What becomes of the object itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Keep,
    /// Deletion was asked for and nothing holds it any more: remove it.
    Remove,
}

/// A change that was brought about from outside a step: by an effect's outcome, by the installer, by a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// To be committed.
    pub status: HostStatus,
    /// To be committed with it.
    pub notes: Vec<Note>,
}

/// What a successful effect brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effected {
    /// `ProbeBmc`.
    Bmc(BmcFacts),
    /// `ReadPower`, `PowerOn`, `PowerOff`: the state read back.
    Power(PowerState),
    /// `AllocateAddress`.
    Address(std::net::Ipv4Addr),
    /// `OpenBoot`.
    Boot(vmetal_model::host::BootAttempt),
    /// `SetNetworkBoot`: written and read back.
    BootDevice,
    /// `ResetBmc`: accepted.
    BmcReset,
}

/// Why an effect failed, and how long the other side is to be left alone at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setback {
    /// What failed.
    pub failure: Failure,
    /// What a BMC asked for with `Retry-After`, or a breaker decided; the engine's own pause may be longer.
    pub not_before: Option<Timestamp>,
}

impl From<Failure> for Setback {
    fn from(failure: Failure) -> Self {
        Setback { failure, not_before: None }
    }
}

/// Decides what happens next.
pub fn step(host: &Host, limits: &Limits, now: Timestamp) -> Decision {
    let mut turn = Turn::new(host, limits, now);
    let fate = turn.run();
    turn.finish(fate)
}

/// Takes in the outcome of an operation. `None` when it is not the operation under way: a late or doubled outcome.
pub fn outcome(
    host: &Host,
    limits: &Limits,
    operation: u64,
    result: Result<Effected, Setback>,
    now: Timestamp,
) -> Option<Change> {
    let mut turn = Turn::new(host, limits, now);
    let current =
        turn.status.operation.as_mut().filter(|op| op.id == operation && op.state == OperationState::Intended)?;
    current.finished = Some(now);
    let kind = current.kind;
    match result.and_then(|effected| installer::usable(host, effected, now)) {
        Ok(effected) => {
            current.state = OperationState::Succeeded;
            turn.effected(effected);
            turn.succeeded(kind);
        }
        Err(Setback { failure, not_before }) => {
            current.state = OperationState::Failed { failure: failure.clone() };
            if matches!(kind, OperationKind::PowerOn | OperationKind::PowerOff | OperationKind::ReadPower) {
                turn.status.power = PowerState::Unknown;
            }
            turn.fail(failure);
            let pause = &mut turn.status.retry.not_before;
            *pause = pause.map(|own| not_before.map_or(own, |asked| asked.max(own)));
        }
    }
    Some(turn.change())
}

/// What to believe after the engine was stopped between an intent and its outcome: nothing. `None` when nothing was under
/// way.
pub fn recover(host: &Host, limits: &Limits, now: Timestamp) -> Option<Change> {
    let mut turn = Turn::new(host, limits, now);
    let current = turn.status.operation.as_mut().filter(|op| op.state == OperationState::Intended)?;
    current.state = OperationState::Observed;
    current.finished = Some(now);
    let (id, kind) = (current.id, current.kind);
    turn.status.power = PowerState::Unknown;
    if matches!(kind, OperationKind::PowerOn | OperationKind::PowerOff) {
        let pause = &mut turn.status.retry.not_before;
        // Counted from now: between intent and command it may have waited for its turn.
        *pause = (*pause).max(Some(after(now, limits.settle)));
    }
    turn.notes.push(Note::warning(
        "operation",
        format!("the engine stopped during operation {id} ({}); looking before acting again", kind.describe()),
    ));
    Some(turn.change())
}

/// Gives a host back to the pool. The erase record is the proof that the last tenancy's data is gone; without one a claim
/// never leaves its host.
pub fn return_to_pool(status: &mut HostStatus, record: EraseRecord) {
    if status.claim.as_ref().is_some_and(|claim| claim.uid == record.claim_uid) {
        status.claim = None;
        status.erase = Some(record);
    }
}

/// What of the declaration a registration depends on.
fn declaration(host: &Host) -> String {
    let spec = &host.spec;
    let address = spec.address.map(|a| a.to_string()).unwrap_or_default();
    let tls = match &spec.bmc.tls {
        vmetal_model::TlsTrust::Verify => "verify".to_owned(),
        vmetal_model::TlsTrust::Insecure => "insecure".to_owned(),
        vmetal_model::TlsTrust::Fingerprint(text) => text.to_ascii_lowercase(),
    };
    [
        spec.bmc.address.identity(),
        spec.bmc.username.clone(),
        spec.bmc.password_version.clone(),
        tls,
        spec.boot_mac.to_string(),
        address,
    ]
    .join("|")
}

impl Turn<'_> {
    fn run(&mut self) -> Fate {
        if self.operation_under_way() {
            return Fate::Keep;
        }
        if self.host.is_deleted() && self.status.claim.is_none() {
            return self.remove();
        }
        self.heed_release();
        if self.paused_by_backoff() {
            return Fate::Keep;
        }
        match self.status.phase {
            HostPhase::Registering => self.register(),
            HostPhase::Inspecting => self.inspect(),
            HostPhase::Available => self.available(),
            HostPhase::Provisioning => self.provision(),
            HostPhase::Provisioned => self.provisioned(),
            HostPhase::Deprovisioning => self.deprovision(),
            HostPhase::Error => self.error(),
            HostPhase::Discovered | HostPhase::Maintenance | HostPhase::Quarantined => {
                self.wait("an operator", "an operator's order".to_owned(), None);
            }
        }
        Fate::Keep
    }

    /// A claim that is given back ends whatever the host is doing for it.
    fn heed_release(&mut self) {
        let Some(claim) = &self.status.claim else { return };
        let released = matches!(claim.state, ClaimState::Release | ClaimState::Erase);
        let elsewhere = match self.status.phase {
            HostPhase::Provisioning | HostPhase::Provisioned => true,
            HostPhase::Error => self.status.failed_phase != Some(HostPhase::Deprovisioning),
            _ => false,
        };
        if released && elsewhere {
            let why = format!("tenant node {} gives the host back", claim.node);
            self.enter(HostPhase::Deprovisioning, vmetal_model::Stage::Off, &why);
        }
    }

    /// Deletes an unclaimed host; one that runs the installer is switched off first, if its BMC still answers.
    fn remove(&mut self) -> Fate {
        let running = self.status.boot.is_some() && self.status.power != PowerState::Off;
        let tried = self.status.retry.failures > 0 || self.last_is(OperationKind::PowerOff);
        if running && !tried {
            self.effect(OperationKind::PowerOff);
            return Fate::Keep;
        }
        Fate::Remove
    }
}

#[cfg(test)]
pub(crate) mod tests;
