//! The life of a physical server.

pub mod agent;
mod error;
mod failing;
mod held;
mod identity;
mod inspect;
mod installer;
pub mod operator;
mod provision;
mod register;
mod release;
pub mod rotation;
mod standby;
mod turn;
mod wait;

use vmetal_model::{
    BmcFacts, ClaimState, Failure, Host, HostPhase, HostStatus, OnDelete, OperationKind, OperationState, PowerState,
    Stage, Timestamp,
};

use crate::grant::{Disruption, Effect};
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
    pub effect: Option<Effect>,
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

/// Whether the installer boots or runs on a host, from the moment when a network boot was opened for it until it is off again.
pub fn runs_installer(status: &HostStatus) -> bool {
    match status.stage {
        // Only by an operation of this very stage: the last boot's may still stand there.
        Stage::Open => status.operation.as_ref().is_some_and(|op| {
            let open = matches!(op.state, OperationState::Intended | OperationState::Succeeded);
            op.kind == OperationKind::OpenBoot && open && op.started >= status.stage_since
        }),
        Stage::BootDevice | Stage::On | Stage::Agent | Stage::Work => true,
        Stage::OffAgain => status.boot.is_some(),
        _ => false,
    }
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
    /// `ChangePassword`: the new one opens the BMC.
    PasswordChanged,
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

/// The most steps that are taken together: more than any way through the stages has without an effect or a wait.
const STEPS: usize = 8;

/// Decides what happens next, and goes on deciding as long as nothing is to be done or waited for in between: one commit then
/// tells of all of it. The last decision's effect and next look count.
pub fn decide(host: &Host, limits: &Limits, now: Timestamp) -> Decision {
    let mut decision = step(host, limits, now);
    let mut stepped: Option<Host> = None;
    for _ in 1..STEPS {
        let goes_on = decision.fate == Fate::Keep
            && decision.effect.is_none()
            && decision.next.is_some_and(|next| next <= now)
            && decision.status != stepped.as_ref().unwrap_or(host).status;
        if !goes_on {
            break;
        }
        let from = stepped.insert(host.with_status(decision.status));
        let more = step(from, limits, now);
        decision.notes.extend(more.notes);
        decision = Decision { notes: decision.notes, ..more };
    }
    decision
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
    if kind == OperationKind::ChangePassword {
        turn.rotated(result);
        return Some(turn.change());
    }
    let usable =
        |effected| identity::same(host, effected, now).and_then(|effected| installer::usable(host, effected, now));
    match result.and_then(usable) {
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
        if self.operation_under_way() || self.paused_by_operator() {
            return Fate::Keep;
        }
        if self.goes() {
            return self.remove();
        }
        self.heed_release();
        self.heed_give_back();
        if self.rotates() {
            return Fate::Keep;
        }
        if self.heed_maintenance() || self.overdue() || self.paused_by_backoff() {
            return Fate::Keep;
        }
        match (self.status.stage, self.status.phase) {
            (Stage::ResetBmc, _) => self.reset_bmc(),
            (Stage::Drain, _) => self.drain(),
            (_, HostPhase::Discovered) => self.discovered(),
            (_, HostPhase::Registering) => self.register(),
            (_, HostPhase::Inspecting) => self.inspect(),
            (_, HostPhase::Available) => self.available(),
            (_, HostPhase::Maintenance) => self.maintenance(),
            (_, HostPhase::Provisioning) => self.provision(),
            (_, HostPhase::Standby) => self.standby(),
            (_, HostPhase::Provisioned) => self.provisioned(),
            (_, HostPhase::Deprovisioning) => self.deprovision(),
            (_, HostPhase::Quarantined) => self.quarantined(),
            (_, HostPhase::Error) => self.error(),
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
            self.enter(HostPhase::Deprovisioning, Stage::Off, &why);
        }
    }

    /// True when the server stays as it is once the host is deleted.
    fn orphaned(&self) -> bool {
        self.status.detach.is_some() || self.host.spec.on_delete == OnDelete::Orphan
    }

    /// Deleted, and nothing keeps it: no claim, and no tenant's data that is to be erased first.
    fn goes(&self) -> bool {
        let erased = self.status.unerased.is_none() || self.orphaned();
        self.host.is_deleted() && self.status.claim.is_none() && erased
    }

    /// Deletes an unclaimed host; one that runs the installer is switched off first, if its BMC still answers and it is not
    /// to be left as it is.
    fn remove(&mut self) -> Fate {
        let running = self.status.boot.is_some() && self.status.power != PowerState::Off && !self.orphaned();
        let tried = self.status.retry.failures > 0 || self.last_is(OperationKind::PowerOff);
        if running && !tried {
            self.disrupt(Disruption::PowerOff);
            return Fate::Keep;
        }
        Fate::Remove
    }
}

#[cfg(test)]
pub(crate) mod tests;
