//! What the engine may do to a host, as types: the forbidden does not compile.
//!
//! An [`Effect`] that disrupts a server (power, boot device, BMC) can only be made with a [`DisruptionGrant`], and a grant
//! only comes from one of the grounds below: nobody holds the host, its claim is being installed, its tenant gave it back,
//! or its tenancy has ended (a forced release leaves an audited record of that). A running tenant is no ground. Entering the
//! pool takes a [`Vacancy`], which a host with a tenancy that is not proven erased does not have.
//!
//! ```compile_fail,E0451
//! // A grant cannot be made up ...
//! let grant = vmetal_lifecycle::grant::DisruptionGrant { ground: vmetal_lifecycle::grant::Ground::Unclaimed };
//! ```
//! ```compile_fail,E0451
//! // ... nor an effect without one,
//! let effect = vmetal_lifecycle::grant::Effect { kind: vmetal_model::OperationKind::PowerOff };
//! ```
//! ```compile_fail,E0382
//! // and a grant is good for one effect.
//! use vmetal_lifecycle::grant::{Disruption, DisruptionGrant, Effect};
//! fn twice(grant: DisruptionGrant) -> [Effect; 2] {
//!     [Effect::disrupting(Disruption::PowerOff, grant), Effect::disrupting(Disruption::PowerOn, grant)]
//! }
//! ```
//! ```compile_fail,E0423
//! // That a host is free of tenants' data cannot be claimed either.
//! let vacancy = vmetal_lifecycle::grant::Vacancy(());
//! ```
//! What does compile:
//! ```
//! use vmetal_lifecycle::grant::{Disruption, DisruptionGrant, Effect, Gentle};
//! fn off(status: &vmetal_model::HostStatus) -> Option<Effect> {
//!     let grant = DisruptionGrant::on(status)?;
//!     Some(Effect::disrupting(Disruption::PowerOff, grant))
//! }
//! let look = Effect::gentle(Gentle::ReadPower);
//! ```

use vmetal_model::{
    Claim, ClaimState, EndedTenancy, EraseRecord, HostPhase, HostStatus, OperationKind, TenancyEnd, Timestamp,
};

/// Why a server may be disrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// Nobody holds the host.
    Unclaimed,
    /// The claim that holds it is being installed: the tenant has nothing there yet.
    Install,
    /// The tenant gave it back.
    Release,
    /// The tenancy ended without the tenant's doing, on the record.
    Ended,
}

/// The right to disrupt a server once.
#[derive(Debug, PartialEq, Eq)]
pub struct DisruptionGrant {
    ground: Ground,
}

impl DisruptionGrant {
    /// The grant that the host's own record gives; `None` when a tenant is on it.
    pub fn on(status: &HostStatus) -> Option<Self> {
        let ground = match (&status.claim, &status.unerased) {
            (None, Some(_)) => Ground::Ended,
            (None, None) => Ground::Unclaimed,
            (Some(claim), _) => match (claim.state, status.phase) {
                (ClaimState::Install, HostPhase::Provisioning) => Ground::Install,
                (ClaimState::Release | ClaimState::Erase, HostPhase::Deprovisioning) => Ground::Release,
                _ => return None,
            },
        };
        Some(DisruptionGrant { ground })
    }

    /// What it rests on.
    pub fn ground(&self) -> Ground {
        self.ground
    }
}

/// Effects that leave a running server alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gentle {
    /// See [`OperationKind::ProbeBmc`].
    ProbeBmc,
    /// See [`OperationKind::ReadPower`].
    ReadPower,
    /// See [`OperationKind::AllocateAddress`].
    AllocateAddress,
    /// See [`OperationKind::OpenBoot`].
    OpenBoot,
    /// See [`OperationKind::ChangePassword`].
    ChangePassword,
}

/// Effects that a tenant would notice, or that decide what a server does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disruption {
    /// See [`OperationKind::SetNetworkBoot`].
    SetNetworkBoot,
    /// See [`OperationKind::PowerOn`].
    PowerOn,
    /// See [`OperationKind::PowerOff`].
    PowerOff,
    /// See [`OperationKind::ResetBmc`].
    ResetBmc,
}

/// One thing to be done to a host, with the right to do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effect {
    kind: OperationKind,
}

impl Effect {
    /// An effect that needs no grant.
    pub fn gentle(what: Gentle) -> Self {
        let kind = match what {
            Gentle::ProbeBmc => OperationKind::ProbeBmc,
            Gentle::ReadPower => OperationKind::ReadPower,
            Gentle::AllocateAddress => OperationKind::AllocateAddress,
            Gentle::OpenBoot => OperationKind::OpenBoot,
            Gentle::ChangePassword => OperationKind::ChangePassword,
        };
        Effect { kind }
    }

    /// An effect that needs one, and uses it up.
    pub fn disrupting(what: Disruption, grant: DisruptionGrant) -> Self {
        let DisruptionGrant { ground: _ } = grant;
        let kind = match what {
            Disruption::SetNetworkBoot => OperationKind::SetNetworkBoot,
            Disruption::PowerOn => OperationKind::PowerOn,
            Disruption::PowerOff => OperationKind::PowerOff,
            Disruption::ResetBmc => OperationKind::ResetBmc,
        };
        Effect { kind }
    }

    /// What is to be done.
    pub fn kind(self) -> OperationKind {
        self.kind
    }
}

/// Proof that nothing is left on a host that was not erased: the ticket into the pool.
#[derive(Debug, PartialEq, Eq)]
pub struct Vacancy(());

impl Vacancy {
    /// The proof, if the host has it: no claim, no tenancy that ended without an erasure, and no installation ahead of a claim.
    /// All of them only go with an [`EraseRecord`], see [`settle`].
    pub fn of(status: &HostStatus) -> Option<Self> {
        let free = status.claim.is_none() && status.unerased.is_none() && status.standby.is_none();
        free.then_some(Vacancy(()))
    }
}

/// Ends the tenancy that the record is about: the proof that its data is gone. A record about another tenancy changes
/// nothing. With a tenancy, the installation that it took over goes as well; one that no tenancy had leaves no record behind:
/// what the last tenancy's record says of the disks stays what is known.
pub fn settle(status: &mut HostStatus, record: EraseRecord) {
    let ended = status.claim.take_if(|claim| claim.uid == record.claim_uid).is_some();
    let erased = status.unerased.take_if(|tenancy| tenancy.uid == record.claim_uid).is_some();
    if ended || erased {
        status.standby = None;
        status.erase = Some(record);
    } else if status.claim.is_none() && status.unerased.is_none() {
        status.standby.take_if(|standby| standby.uid == record.claim_uid);
    }
}

/// Ends a claim without an erasure, on the record: what the tenant left there keeps the host out of the pool.
pub(crate) fn end_tenancy(status: &mut HostStatus, end: TenancyEnd, failure: &vmetal_model::Failure, now: Timestamp) {
    let Some(claim) = status.claim.take() else { return };
    let failure = failure.clone();
    let Claim { node, uid, since, lease, .. } = claim;
    status.unerased = Some(EndedTenancy { node, uid, since, ended: now, lease, end, failure });
}
