//! Hosts: the effects on hardware, and what they brought.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::SignedDuration;
use sha2::{Digest, Sha256};
use vmetal_bmc::{BmcError, BmcTarget, Fence, Gateway};
use vmetal_lifecycle::host::{self, Effected, Setback, operator};
use vmetal_model::agent::BootPurpose;
use vmetal_model::host::BootAttempt;
use vmetal_model::{Cause, Failure, Host, HostPhase, HostStatus, OperationKind, Timestamp};
use vmetal_network::Pool;
use vmetal_store::CommitError;

use crate::boundary::{Boundary, reached};
use crate::engine::Engine;
use crate::fleet::AddressPromise;
use crate::ledger::{Batch, INDEX_ADDRESS};
use crate::ownership::{Author, Grip, Hold};
use crate::secrets;

/// What an effect brought.
struct Brought {
    effected: Effected,
    kept: Kept,
}

/// What must be kept beside the host.
#[derive(Default)]
struct Kept {
    boot_token: Option<String>,
    /// The BMC's password from now on.
    password: Option<String>,
    /// Held until the outcome is committed.
    _promise: Option<Chosen>,
}

/// An address for a host.
enum Chosen {
    /// The declaration says so.
    Declared(Ipv4Addr),
    /// From the range; nobody else is given it meanwhile.
    Promised(AddressPromise),
}

impl Chosen {
    fn address(&self) -> Ipv4Addr {
        match self {
            Chosen::Declared(address) => *address,
            Chosen::Promised(promise) => promise.address,
        }
    }
}

impl From<Effected> for Brought {
    fn from(effected: Effected) -> Self {
        Brought { effected, kept: Kept::default() }
    }
}

impl Engine {
    /// Performs an effect, and then whatever follows from its outcome, until the host waits for something.
    pub(super) async fn perform(&self, grip: Arc<Grip>, host: Arc<Host>, kind: OperationKind) {
        let mut next = Some((grip, host, kind));
        while let Some((grip, host, kind)) = next {
            let _turn = self.lanes.operation(kind).await;
            // What waited for its turn until the engine was stopped is looked at again at the next start.
            if self.is_stopping() {
                return;
            }
            next = self.perform_one(&grip, host, kind).await;
        }
    }

    /// Performs one effect and records its outcome, however long the store takes to accept it. Returns what follows.
    async fn perform_one(
        &self,
        grip: &Arc<Grip>,
        host: Arc<Host>,
        kind: OperationKind,
    ) -> Option<(Arc<Grip>, Arc<Host>, OperationKind)> {
        let id = host.status.operation.as_ref().map(|op| op.id)?;
        let mut taken: Vec<Ipv4Addr> = Vec::new();
        loop {
            reached(Boundary::BeforeEffect, &kind.describe());
            let acted = self.act(grip, &host, kind, &taken).await;
            reached(Boundary::AfterEffect, &kind.describe());
            let (result, kept) = match acted {
                Ok(Brought { effected, kept }) => (Ok(effected), kept),
                Err(setback) => (Err(setback), Kept::default()),
            };
            if let (Err(setback), Err(fenced)) = (&result, grip.check()) {
                // Whoever owns the host now looks before it acts; so does this engine, should it be itself.
                tracing::warn!(
                    host = host.name(),
                    operation = kind.describe(),
                    "{fenced}; {}",
                    setback.failure.message
                );
                return None;
            }
            match (self.record_outcome(grip.hold(), host.name(), id, &result, &kept).await, &result) {
                (Ok(next), _) => {
                    let (kind, grip) = next?;
                    return Some((Arc::new(grip), self.fleet.host(host.name())?, kind));
                }
                // Another host got the address first.
                (Err(CommitError::Unique { index, .. }), Ok(Effected::Address(address))) if index == INDEX_ADDRESS => {
                    taken.push(*address);
                }
                (Err(error), _) => {
                    self.ownership.heed(&error);
                    tracing::error!(host = host.name(), %error, "an outcome could not be recorded; the engine will look again");
                    return None;
                }
            }
        }
    }

    /// Commits an outcome, and with it the intent that follows from it, if one does.
    async fn record_outcome(
        &self,
        hold: Hold,
        name: &str,
        id: u64,
        result: &Result<Effected, Setback>,
        kept: &Kept,
    ) -> Result<Option<(OperationKind, Grip)>, CommitError> {
        // Decided anew whenever the commit is lost to another.
        let next = Mutex::new(None);
        let set_next = |to| *next.lock().unwrap_or_else(PoisonError::into_inner) = to;
        let decide = |host: &Host| {
            set_next(None);
            let outcome = host::outcome(host, &self.limits, id, result.clone(), self.now())?;
            if result.is_err() {
                return Some(outcome);
            }
            let (change, follows) = self.conclude(hold, host, outcome);
            set_next(follows);
            Some(change)
        };
        let extra = |host: &Host, batch: &mut Batch| {
            let uid = &host.metadata.uid;
            if let Some(token) = &kept.boot_token {
                batch.secret(secrets::boot_token(uid), token.as_bytes());
                self.fleet.set_token(uid, Some(token.clone()));
            }
            if let Some(password) = &kept.password {
                batch.secret(secrets::bmc_password(uid), password.as_bytes());
                batch.forget(secrets::next_bmc_password(uid));
            }
        };
        let committed = self.change_host(Author::Owner(hold), name, decide, extra).await?;
        Ok(committed.and(next.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }

    async fn act(
        &self,
        grip: &Arc<Grip>,
        host: &Host,
        kind: OperationKind,
        taken: &[Ipv4Addr],
    ) -> Result<Brought, Setback> {
        match kind {
            OperationKind::AllocateAddress => {
                let chosen = self.allocate(host, taken)?;
                let effected = Effected::Address(chosen.address());
                Ok(Brought { effected, kept: Kept { _promise: Some(chosen), ..Kept::default() } })
            }
            OperationKind::OpenBoot => Ok(self.open_boot(&host.status)),
            OperationKind::ProbeBmc => {
                let mut facts = self.gateway(grip, host).await?.probe().await.map_err(|e| self.setback(&e))?;
                facts.read = Some(self.now());
                Ok(Effected::Bmc(facts).into())
            }
            OperationKind::ReadPower => {
                let power = self.gateway(grip, host).await?.power().await.map_err(|e| self.setback(&e))?;
                Ok(Effected::Power(power).into())
            }
            OperationKind::SetNetworkBoot => {
                let gateway = self.gateway(grip, host).await?;
                let set = gateway.set_network_boot_once(host.spec.boot_mode).await;
                set.map(|_| Effected::BootDevice.into()).map_err(|e| self.setback(&e))
            }
            OperationKind::PowerOn => {
                let on = self.gateway(grip, host).await?.power_on().await;
                on.map(|_| Effected::Power(vmetal_model::PowerState::On).into()).map_err(|e| self.setback(&e))
            }
            OperationKind::ResetBmc => {
                let reset = self.gateway(grip, host).await?.reset_bmc().await;
                reset.map(|()| Effected::BmcReset.into()).map_err(|e| self.setback(&e))
            }
            OperationKind::ChangePassword => self.change_password(grip, host).await,
            OperationKind::PowerOff => {
                let off = self.gateway(grip, host).await?.power_off().await;
                off.map(|_| Effected::Power(vmetal_model::PowerState::Off).into()).map_err(|e| self.setback(&e))
            }
        }
    }

    /// A BMC's failure, with the pause that it or its breaker asks for.
    fn setback(&self, error: &BmcError) -> Setback {
        let now = self.now();
        let pause = error.retry_in().and_then(|pause| SignedDuration::try_from(pause).ok());
        let not_before = pause.map(|pause| now.saturating_add(pause).unwrap_or(Timestamp::MAX));
        Setback { failure: error.to_failure(now), not_before }
    }

    /// The way to the BMC with the password that holds.
    async fn gateway(&self, grip: &Arc<Grip>, host: &Host) -> Result<Gateway, Failure> {
        let Some(password) = self.password(&secrets::bmc_password(&host.metadata.uid)).await? else {
            return Err(Failure {
                cause: Cause::BmcCredentials,
                message: format!("no BMC password is known for host {}", host.name()),
                advice: "apply the host again with its password (bmc.password_wo and a new password_wo_version)"
                    .to_owned(),
                at: self.now(),
            });
        };
        self.gateway_with(grip, host, password, host.spec.bmc.password_version.clone())
    }

    async fn password(&self, name: &str) -> Result<Option<String>, Failure> {
        let secret = self.ledger.secret(name).await;
        let bytes = secret.map_err(|error| self.internal("the BMC password cannot be read from the store", error))?;
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()))
    }

    /// Gives the BMC the ordered password, unless an earlier try or somebody else has, and sees that it holds.
    async fn change_password(&self, grip: &Arc<Grip>, host: &Host) -> Result<Brought, Setback> {
        let wanted = self.password(&secrets::next_bmc_password(&host.metadata.uid)).await?;
        let wanted =
            wanted.ok_or_else(|| self.internal("no new BMC password is kept", "it was ordered without one"))?;
        let tries = host.status.rotation.as_ref().map_or(1, |rotation| rotation.tries);
        // Told apart from every other password and try: what was refused before says nothing about now.
        let version = format!("{} changed, try {tries}", host.spec.bmc.password_version);
        let new = || self.gateway_with(grip, host, wanted.clone(), version.clone());
        let done = || Brought {
            effected: Effected::PasswordChanged,
            kept: Kept { password: Some(wanted.clone()), ..Kept::default() },
        };
        if tries > 1 && self.lets_in(&new()?).await? {
            return Ok(done());
        }
        let old = self.gateway(grip, host).await?;
        if let Err(error) = old.change_password(&wanted).await {
            // Whoever changed it at the BMC has only to tell.
            let told = matches!(error, BmcError::Credentials { .. }) && self.lets_in(&new()?).await?;
            return if told { Ok(done()) } else { Err(self.setback(&error)) };
        }
        match self.gateway_with(grip, host, wanted.clone(), format!("{version}, given"))?.sign_in().await {
            Ok(()) => Ok(done()),
            Err(error @ BmcError::Credentials { .. }) => {
                let mut failure = error.to_failure(self.now());
                failure.cause = Cause::BmcNotApplied;
                failure.message =
                    format!("the BMC took the new password and does not let in with it: {}", failure.message);
                failure.advice =
                    "look whether it cuts passwords short or forbids some characters; should the old one not let in \
                                  either, set one at the BMC and apply the host with it"
                        .to_owned();
                Err(failure.into())
            }
            Err(error) => Err(self.open(&error)),
        }
    }

    /// Whether a BMC lets in. What is no answer is an error.
    async fn lets_in(&self, gateway: &Gateway) -> Result<bool, Setback> {
        match gateway.sign_in().await {
            Ok(()) => Ok(true),
            Err(BmcError::Credentials { .. }) => Ok(false),
            Err(error) => Err(self.open(&error)),
        }
    }

    /// Not a no: it stays open which password holds.
    fn open(&self, error: &BmcError) -> Setback {
        let mut setback = self.setback(error);
        setback.failure.cause = Cause::BmcUnreachable;
        setback
    }

    fn gateway_with(
        &self,
        grip: &Arc<Grip>,
        host: &Host,
        password: String,
        password_version: String,
    ) -> Result<Gateway, Failure> {
        let spec = &host.spec.bmc;
        let found = host.status.bmc.as_ref().map(|facts| facts.system_path.clone());
        let target = BmcTarget {
            address: spec.address.clone(),
            username: spec.username.clone(),
            password,
            password_version,
            tls: spec.tls.clone(),
            system_path: spec.address.system_path().or(found),
        };
        let fence: Arc<dyn Fence> = Arc::clone(grip) as _;
        let gateway = self.gateways.for_host(&target, fence).map_err(|error| error.to_failure(self.now()))?;
        Ok(gateway.expecting(operator::known_machine(host.status.bmc.as_ref())))
    }

    /// The declared address, or the lowest free one of the range.
    fn allocate(&self, host: &Host, taken: &[Ipv4Addr]) -> Result<Chosen, Failure> {
        if let Some(address) = host.spec.address {
            return match taken.contains(&address) {
                false => Ok(Chosen::Declared(address)),
                true => Err(Failure {
                    cause: Cause::AddressExhausted,
                    message: format!("the declared address {address} belongs to another host"),
                    advice: "declare another address, or none".to_owned(),
                    at: self.now(),
                }),
            };
        }
        let network = &self.config.network;
        let pool = Pool::between(network.range_start, network.range_end);
        let promise = self.fleet.promise_address(&pool, taken);
        promise.map(Chosen::Promised).ok_or_else(|| Failure {
            cause: Cause::AddressExhausted,
            message: format!(
                "all {} addresses from {} to {} are reserved",
                pool.size(),
                network.range_start,
                network.range_end
            ),
            advice: "widen network.range_start and range_end in the engine's configuration, or remove hosts".to_owned(),
            at: self.now(),
        })
    }

    fn open_boot(&self, status: &HostStatus) -> Brought {
        let purpose = match status.phase {
            HostPhase::Provisioning => BootPurpose::Install,
            HostPhase::Deprovisioning => BootPurpose::Erase,
            _ => BootPurpose::Inspect,
        };
        let token = hex::encode(self.random::<32>());
        let attempt = BootAttempt {
            id: hex::encode(self.random::<6>()),
            purpose,
            token_sha256: hex::encode(Sha256::digest(token.as_bytes())),
            opened: self.now(),
            called_in: None,
            last_seen: None,
            work_done: None,
            phoned_home: None,
        };
        Brought { effected: Effected::Boot(attempt), kept: Kept { boot_token: Some(token), ..Kept::default() } }
    }
}
