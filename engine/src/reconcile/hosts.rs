//! Hosts: the step, and the effects on hardware.

use std::net::Ipv4Addr;
use std::sync::Arc;

use jiff::SignedDuration;
use sha2::{Digest, Sha256};
use vmetal_bmc::{BmcError, BmcTarget, Fence, Gateway};
use vmetal_lifecycle::Note;
use vmetal_lifecycle::grant::Effect;
use vmetal_lifecycle::host::{self, Effected, Fate, Setback, operator};
use vmetal_lifecycle::storm::{self, Storm};
use vmetal_model::agent::BootPurpose;
use vmetal_model::host::BootAttempt;
use vmetal_model::{Cause, Failure, Host, HostPhase, HostStatus, Kind, OperationKind, OperationState, Timestamp, Wait};
use vmetal_store::CommitError;

use crate::boundary::{Boundary, reached};
use crate::engine::{Engine, ObjectKey};
use crate::fleet::AddressPromise;
use crate::lanes::{Place, PlacedLane, Urgency};
use crate::ledger::{Batch, INDEX_ADDRESS};
use crate::ownership::{Author, Grip, Hold};
use crate::secrets;

/// How often a host that is held back by a storm is looked at.
const STORM_PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// How the wait of such a host begins.
const STORM_WAIT: &str = "the end of a storm of failures";

/// A wait for a turn that ends within this time is not told of: in a fleet that is declared all at once it would be a commit
/// for each host and turn.
const SHORT_WAIT: SignedDuration = SignedDuration::from_secs(30);

/// What a host waits for its turn to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Register,
    Boot,
}

/// What an effect brought, with what must be kept beside the host.
struct Brought {
    effected: Effected,
    boot_token: Option<String>,
    /// The BMC's password from now on.
    password: Option<String>,
    /// Held until the outcome is committed.
    promise: Option<Chosen>,
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
        Brought { effected, boot_token: None, password: None, promise: None }
    }
}

impl Engine {
    pub(super) async fn reconcile_host(self: &Arc<Self>, name: &str) -> Result<(), CommitError> {
        let key = ObjectKey::new(Kind::Host, name);
        if self.is_under_way(&key) {
            return Ok(());
        }
        let Some(hold) = self.ownership.hold(&key) else {
            self.leave_lanes(name);
            return Ok(());
        };
        let limits = self.limits_since(hold);
        let open = |host: &Host| host.status.operation.as_ref().is_some_and(|op| op.state == OperationState::Intended);
        if self.fleet.host(name).is_some_and(|host| open(&host)) {
            // An intent that nobody in this process works on: the engine was stopped in between.
            let recover = |host: &Host| host::recover(host, &limits, self.now());
            self.change_host(Author::Owner(hold), name, recover, |_, _| {}).await?;
        }
        let Some(host) = self.fleet.host(name) else {
            self.leave_lanes(name);
            return Ok(());
        };
        let now = self.now();
        let decision = host::decide(&host, &limits, now);
        if decision.fate == Fate::Remove {
            self.leave_lanes(name);
            let uid = &host.metadata.uid;
            self.fleet.set_token(uid, None);
            let kept = [secrets::bmc_password(uid), secrets::next_bmc_password(uid), secrets::boot_token(uid)];
            self.remove(hold, &*host, &kept, now).await?;
            self.gateways.forget(&host.spec.bmc.address);
            return Ok(());
        }
        if let Some(next) = decision.next {
            self.wake_at(key.clone(), next);
        }
        if let Some(kind) = decision.effect.map(Effect::kind).filter(|kind| storm::is_destructive(&host, *kind))
            && let Some(storm) = self.storm()
        {
            self.wake_in(key, STORM_PAUSE);
            return self.hold_back(hold, &host, kind, &storm).await;
        }
        if let Some((turn, since)) = self.queued(&host, &decision, now) {
            return self.say_queued(hold, &host, turn, since).await;
        }
        // Before the intent is committed: an intent that nobody may act on would have to be looked after.
        let grip =
            match decision.effect.map(Effect::kind).map(|kind| self.ownership.grip(hold).map(|grip| (kind, grip))) {
                None => None,
                Some(Ok(grip)) => Some(grip),
                Some(Err(refusal)) => {
                    self.refused(key, &refusal);
                    return Ok(());
                }
            };
        let mut batch = Batch::by(Author::Owner(hold));
        batch.notes(&*host, now, decision.notes);
        if decision.status != host.status {
            let mut changed = (*host).clone();
            changed.status = decision.status;
            batch.replace(changed);
        }
        if !batch.is_empty() {
            self.ledger.commit(batch).await?;
        }
        if let (Some((kind, grip)), Some(host)) = (grip, self.fleet.host(name)) {
            let engine = Arc::clone(self);
            self.run(key, grip, |grip| async move {
                let _turn = engine.lanes.operation(kind).await;
                // What waited for its turn until the engine was stopped is looked at again at the next start.
                if !engine.is_stopping() {
                    engine.perform(&grip, host, kind).await;
                }
            });
        }
        Ok(())
    }

    /// Says on the host that something destructive is not begun, and why.
    async fn hold_back(&self, hold: Hold, host: &Host, kind: OperationKind, storm: &Storm) -> Result<(), CommitError> {
        let told = host.status.wait.as_ref().is_some_and(|wait| wait.reason.starts_with(STORM_WAIT));
        if told {
            return Ok(());
        }
        let now = self.now();
        let reason = format!("{STORM_WAIT}: {}", storm.reason());
        let mut batch = Batch::by(Author::Owner(hold));
        batch.notes(
            host,
            now,
            [Note::warning("held_back", format!("{} is not begun: {}", kind.describe(), storm.reason()))],
        );
        let mut changed = host.clone();
        let deadline = None;
        changed.status.wait =
            Some(Wait { reason, unblocks: storm.remedy(), since: storm.since, next_check: None, deadline });
        batch.replace(changed);
        self.ledger.commit(batch).await.map(|_| ())
    }

    /// Keeps the lanes in step with what a host does, and asks for a place where it is to begin something. What it waits for
    /// and since when, when there is none.
    fn queued(&self, host: &Host, decision: &host::Decision, now: Timestamp) -> Option<(Turn, Timestamp)> {
        let (name, effect) = (host.name(), decision.effect.map(Effect::kind));
        let registers = decision.status.phase == HostPhase::Registering && effect.is_some();
        if !registers {
            self.leave(self.lanes.register(), name);
        }
        let boots = effect == Some(OperationKind::OpenBoot);
        match host::runs_installer(&decision.status) {
            // Its place is asked for, not taken.
            _ if boots => {}
            true => self.lanes.boot().resume(name),
            false => self.leave(self.lanes.boot(), name),
        }
        let urgency = if host.status.claim.is_some() { Urgency::Claimed } else { Urgency::Pool };
        if registers && let Place::Queued { since } = self.lanes.register().enter(name, urgency, now) {
            return Some((Turn::Register, since));
        }
        if boots && let Place::Queued { since } = self.lanes.boot().enter(name, urgency, now) {
            return Some((Turn::Boot, since));
        }
        None
    }

    fn leave_lanes(&self, name: &str) {
        for lane in [self.lanes.register(), self.lanes.boot()] {
            self.leave(lane, name);
        }
    }

    fn leave(&self, lane: &PlacedLane, name: &str) {
        if let Some(next) = lane.leave(name) {
            self.scheduler.wake(ObjectKey::new(Kind::Host, next));
        }
    }

    /// Says on the host that it waits for its turn, once it has waited for a while. Whoever leaves the lane wakes it.
    async fn say_queued(&self, hold: Hold, host: &Host, turn: Turn, since: Timestamp) -> Result<(), CommitError> {
        let lanes = &self.config.lanes;
        let (reason, unblocks) = match turn {
            Turn::Register => (
                "its turn to be registered",
                format!("fewer than {} others are being registered (lanes.register)", lanes.register),
            ),
            Turn::Boot => (
                "its turn to boot from the network",
                format!("fewer than {} others boot or run the installer (lanes.boot)", lanes.boot),
            ),
        };
        match &host.status.wait {
            Some(wait) if wait.reason == reason => return Ok(()),
            // What it says of another wait is over.
            Some(_) => {}
            None if self.now().duration_since(since) < SHORT_WAIT => {
                let due = since.saturating_add(SHORT_WAIT).unwrap_or(Timestamp::MAX);
                self.wake_at(ObjectKey::new(Kind::Host, host.name()), due);
                return Ok(());
            }
            None => {}
        }
        let mut changed = host.clone();
        let reason = reason.to_owned();
        changed.status.wait = Some(Wait { reason, unblocks, since, next_check: None, deadline: None });
        let mut batch = Batch::by(Author::Owner(hold));
        batch.replace(changed);
        self.ledger.commit(batch).await.map(|_| ())
    }

    /// Performs one effect and records its outcome, however long the store takes to accept it.
    async fn perform(&self, grip: &Arc<Grip>, host: Arc<Host>, kind: OperationKind) {
        let Some(id) = host.status.operation.as_ref().map(|op| op.id) else { return };
        let mut taken: Vec<Ipv4Addr> = Vec::new();
        loop {
            reached(Boundary::BeforeEffect, &kind.describe());
            let acted = self.act(grip, &host, kind, &taken).await;
            reached(Boundary::AfterEffect, &kind.describe());
            let (result, token, password, _promise) = match acted {
                Ok(Brought { effected, boot_token, password, promise }) => {
                    (Ok(effected), boot_token, password, promise)
                }
                Err(setback) => (Err(setback), None, None, None),
            };
            if let (Err(setback), Err(fenced)) = (&result, grip.check()) {
                // Whoever owns the host now looks before it acts; so does this engine, should it be itself.
                tracing::warn!(
                    host = host.name(),
                    operation = kind.describe(),
                    "{fenced}; {}",
                    setback.failure.message
                );
                return;
            }
            let committed = self
                .change_host(
                    Author::Owner(grip.hold()),
                    host.name(),
                    |host| host::outcome(host, &self.limits, id, result.clone(), self.now()),
                    |host, batch| {
                        if let Some(token) = &token {
                            batch.secret(secrets::boot_token(&host.metadata.uid), token.as_bytes());
                            self.fleet.set_token(&host.metadata.uid, Some(token.clone()));
                        }
                        if let Some(password) = &password {
                            let uid = &host.metadata.uid;
                            batch.secret(secrets::bmc_password(uid), password.as_bytes());
                            batch.forget(secrets::next_bmc_password(uid));
                        }
                    },
                )
                .await;
            match (committed, &result) {
                (Ok(_), _) => return,
                // Another host got the address first.
                (Err(CommitError::Unique { index, .. }), Ok(Effected::Address(address))) if index == INDEX_ADDRESS => {
                    taken.push(*address);
                }
                (Err(error), _) => {
                    self.ownership.heed(&error);
                    tracing::error!(host = host.name(), %error, "an outcome could not be recorded; the engine will look again");
                    return;
                }
            }
        }
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
                Ok(Brought { promise: Some(chosen), ..effected.into() })
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

    /// Gives the BMC the ordered password, unless an earlier try has, and sees that it holds.
    async fn change_password(&self, grip: &Arc<Grip>, host: &Host) -> Result<Brought, Setback> {
        let wanted = self.password(&secrets::next_bmc_password(&host.metadata.uid)).await?;
        let wanted =
            wanted.ok_or_else(|| self.internal("no new BMC password is kept", "it was ordered without one"))?;
        let tries = host.status.rotation.as_ref().map_or(1, |rotation| rotation.tries);
        // Told apart from every other password and try: what was refused before says nothing about now.
        let version = format!("{} changed, try {tries}", host.spec.bmc.password_version);
        let new = || self.gateway_with(grip, host, wanted.clone(), version.clone());
        let done = || Brought { password: Some(wanted.clone()), ..Effected::PasswordChanged.into() };
        if tries > 1 {
            match new()?.sign_in().await {
                Ok(()) => return Ok(done()),
                Err(BmcError::Credentials { .. }) => {}
                // Not a no: it stays open which password holds.
                Err(error) => {
                    let mut setback = self.setback(&error);
                    setback.failure.cause = Cause::BmcUnreachable;
                    return Err(setback);
                }
            }
        }
        let old = self.gateway(grip, host).await?;
        old.change_password(&wanted).await.map_err(|error| self.setback(&error))?;
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
            Err(error) => {
                let mut setback = self.setback(&error);
                setback.failure.cause = Cause::BmcUnreachable;
                Err(setback)
            }
        }
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
        let (first, last) = (u32::from(network.range_start), u32::from(network.range_end));
        let promise = self.fleet.promise_address(network.range_start, network.range_end, taken);
        promise.map(Chosen::Promised).ok_or_else(|| Failure {
            cause: Cause::AddressExhausted,
            message: format!(
                "all {} addresses from {} to {} are reserved",
                u64::from(last - first) + 1,
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
        Brought { effected: Effected::Boot(attempt), boot_token: Some(token), password: None, promise: None }
    }
}
