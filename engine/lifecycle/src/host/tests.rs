#![allow(clippy::unwrap_used, reason = "tests")]
//! A host driven by a small fake world: a BMC, a machine and an installer that obey or, by the seed's choice, do not.

use jiff::{SignedDuration, Timestamp};
use vmetal_model::agent::*;
use vmetal_model::host::BootAttempt;
use vmetal_model::*;

use super::*;
use crate::host::agent;
use crate::transitions::host_may;

mod ladder;
mod operator;
mod random;
mod rotation;
mod standby;
mod waits;

pub(crate) fn host() -> Host {
    let now = Timestamp::UNIX_EPOCH;
    Object {
        metadata: Metadata {
            name: "h1".into(),
            uid: Uid("uid-h1".into()),
            generation: 1,
            revision: 0,
            labels: Default::default(),
            annotations: Default::default(),
            created: now,
            deleted: None,
        },
        spec: HostSpec {
            bmc: BmcSpec {
                address: "redfish://10.0.0.1".parse().unwrap(),
                username: "admin".into(),
                password_version: "1".into(),
                tls: TlsTrust::Verify,
            },
            boot_mac: "52:54:00:00:00:01".parse().unwrap(),
            boot_mode: BootMode::Uefi,
            root_device: RootDeviceHints::default(),
            address: None,
            erase: EraseLevel::Discard,
            maintenance: None,
            on_delete: OnDelete::Clean,
        },
        status: HostStatus::new(now),
    }
}

pub(super) fn claim(host: &mut Host, state: ClaimState) {
    let since = host.status.phase_since;
    host.status.claim =
        Some(Claim { node: "n1".into(), uid: Uid("uid-n1".into()), state, since, image: None, lease: None });
}

pub(crate) fn failure(cause: Cause) -> Failure {
    Failure { cause, message: "it broke".into(), advice: "mend it".into(), at: Timestamp::UNIX_EPOCH }
}

pub(super) fn kind_of(decision: &super::Decision) -> Option<OperationKind> {
    decision.effect.map(crate::grant::Effect::kind)
}

/// The one disk of the world's machine.
fn disk() -> inventory::Disk {
    inventory::Disk { name: "vda".into(), serial: Some("D1".into()), size_bytes: 1 << 34, ..Default::default() }
}

pub(crate) fn failure_at(cause: Cause, at: Timestamp) -> Failure {
    Failure { at, ..failure(cause) }
}

/// What the world does with one effect.
pub(super) struct World {
    pub(super) host: Host,
    pub(super) now: Timestamp,
    pub(super) limits: Limits,
    pub(super) power: PowerState,
    pub(super) network_boot: bool,
    pub(super) booted: bool,
    pub(super) effects: Vec<OperationKind>,
    pub(super) phases: Vec<HostPhase>,
    pub(super) mutations: Vec<&'static str>,
    pub(super) serial: &'static str,
}

impl World {
    pub(super) fn new() -> Self {
        World {
            host: host(),
            now: Timestamp::from_second(1).unwrap(),
            limits: Limits::default(),
            power: PowerState::On,
            network_boot: false,
            booted: false,
            effects: vec![],
            phases: vec![HostPhase::Registering],
            mutations: vec![],
            serial: "S1",
        }
    }

    /// What a step may ask for, seen from outside.
    fn may(&self, kind: Option<OperationKind>) {
        use OperationKind::*;
        let status = &self.host.status;
        if let (Some(PowerOn | PowerOff | SetNetworkBoot | ResetBmc), Some(claim)) = (kind, &status.claim) {
            let theirs = matches!(claim.state, ClaimState::Install | ClaimState::Release | ClaimState::Erase);
            assert!(theirs && status.phase != HostPhase::Provisioned || claim.state == ClaimState::Release, "{kind:?}");
        }
        assert!(kind.is_none() || status.pause.is_none(), "{kind:?} on a paused host");
        let ordered = status.power_order.is_some() && matches!(kind, Some(ReadPower | PowerOn | PowerOff));
        let untouched = [HostPhase::Discovered, HostPhase::Maintenance];
        let ordered = ordered || status.rotation.is_some() && kind == Some(ChangePassword);
        assert!(kind.is_none() || ordered || !untouched.contains(&status.phase), "{kind:?} while {:?}", status.phase);
    }

    pub(super) fn take(&mut self, status: HostStatus) {
        let before = self.host.status.phase;
        assert!(host_may(before, status.phase), "{before:?} -> {:?}", status.phase);
        // A tenancy leaves a host by its erase record, or stays on the record as not erased.
        let tenancies = |s: &HostStatus| {
            let ended = s.unerased.as_ref().map(|ended| ended.uid.clone());
            s.claim.as_ref().map(|claim| claim.uid.clone()).into_iter().chain(ended).collect::<Vec<_>>()
        };
        for uid in tenancies(&self.host.status) {
            let erased = status.erase.as_ref().is_some_and(|record| record.claim_uid == uid);
            assert!(erased || tenancies(&status).contains(&uid), "{uid} left without a record");
        }
        if status.phase == HostPhase::Available && before != HostPhase::Available {
            assert_eq!((&status.claim, &status.unerased), (&None, &None), "into the pool with a tenancy");
            assert_eq!(status.standby, None, "into the pool with an installation");
        }
        if status.phase != before {
            self.phases.push(status.phase);
        }
        self.host.status = status;
    }

    pub(super) fn perform(&mut self, kind: OperationKind) -> Effected {
        self.effects.push(kind);
        match kind {
            OperationKind::ProbeBmc => Effected::Bmc(BmcFacts {
                serial: Some(self.serial.into()),
                uuid: Some(format!("uuid of {}", self.serial)),
                power: self.power,
                ..BmcFacts::default()
            }),
            OperationKind::ReadPower => Effected::Power(self.power),
            OperationKind::AllocateAddress => Effected::Address("172.22.0.10".parse().unwrap()),
            OperationKind::OpenBoot => {
                let purpose = match self.host.status.phase {
                    HostPhase::Provisioning => BootPurpose::Install,
                    HostPhase::Deprovisioning => BootPurpose::Erase,
                    _ => BootPurpose::Inspect,
                };
                Effected::Boot(BootAttempt {
                    id: format!("a{}", self.effects.len()),
                    purpose,
                    token_sha256: String::new(),
                    opened: self.now,
                    called_in: None,
                    last_seen: None,
                    work_done: None,
                    phoned_home: None,
                })
            }
            OperationKind::ChangePassword => Effected::PasswordChanged,
            OperationKind::ResetBmc => {
                self.mutations.push("reset");
                Effected::BmcReset
            }
            OperationKind::SetNetworkBoot => {
                self.network_boot = true;
                Effected::BootDevice
            }
            OperationKind::PowerOn => {
                assert_eq!(self.power, PowerState::Off, "power-on of a host that is on");
                self.mutations.push("on");
                self.power = PowerState::On;
                self.booted = std::mem::take(&mut self.network_boot);
                Effected::Power(PowerState::On)
            }
            OperationKind::PowerOff => {
                self.mutations.push("off");
                self.power = PowerState::Off;
                self.booted = false;
                Effected::Power(PowerState::Off)
            }
        }
    }

    /// Decisions taken together tell what they would have told one by one.
    fn together_as_one_by_one(&self) {
        let (mut host, mut notes) = (self.host.clone(), Vec::new());
        for _ in 0..STEPS {
            let one = step(&host, &self.limits, self.now);
            notes.extend(one.notes);
            let settled = one.effect.is_some() || one.status == host.status || one.next.is_none_or(|at| at > self.now);
            host.status = one.status;
            if settled {
                break;
            }
        }
        let together = decide(&self.host, &self.limits, self.now);
        assert_eq!((&together.status, &together.notes), (&host.status, &notes), "at {}", self.now);
        let busy = together.next.is_some_and(|at| at <= self.now) && together.status != self.host.status;
        assert!(!busy || together.effect.is_some(), "a way without end: {:?}", together.status);
    }

    /// One step; performs the effect unless `broken` says how it fails. Returns the decision's next check.
    pub(super) fn tick(&mut self, broken: Option<Cause>) -> Option<Timestamp> {
        let decision = step(&self.host, &self.limits, self.now);
        self.together_as_one_by_one();
        let (next, kind) = (decision.next, kind_of(&decision));
        self.may(kind);
        self.take(decision.status);
        if let Some(kind) = kind {
            let id = self.host.status.operation.as_ref().unwrap().id;
            let result = match broken {
                Some(cause) => Err(failure_at(cause, self.now).into()),
                None => Ok(self.perform(kind)),
            };
            let change = outcome(&self.host, &self.limits, id, result, self.now).unwrap();
            assert!(outcome(&self.host.clone(), &self.limits, id + 1, Ok(Effected::BootDevice), self.now).is_none());
            self.take(change.status);
        }
        next
    }

    /// The installer, if it runs, says hello and does its order.
    pub(super) fn installer(&mut self) {
        let Some(boot) = self.host.status.boot.clone().filter(|_| self.booted) else { return };
        let words = Hello {
            version: "t".into(),
            attempt: boot.id.clone(),
            boot_mac: self.host.spec.boot_mac,
            identity: inventory::Identity { serial: Some(self.serial.into()), ..Default::default() },
            firmware: inventory::Firmware::Uefi,
        };
        if let agent::Hearing::Welcome(change) = agent::hello(&self.host, &self.limits, &words, self.now) {
            self.take(change.status);
        }
        let (order, kind) = agent::order(&self.host);
        let body = match kind {
            agent::OrderKind::Inspect => ReportBody::Inspected {
                inventory: Box::new(Inventory {
                    identity: inventory::Identity { serial: Some(self.serial.into()), ..Default::default() },
                    disks: vec![disk()],
                    ..Default::default()
                }),
            },
            agent::OrderKind::Install => ReportBody::Installed(Installed {
                disk: "vda".into(),
                disk_serial: None,
                bytes_written: 1,
                bytes_fetched: 1,
                elapsed_ms: 1,
            }),
            agent::OrderKind::Erase => {
                let inventory::Disk { name, serial, size_bytes, .. } = disk();
                ReportBody::Erased { disks: vec![ErasedDisk { name, serial, size_bytes, method: "m".into() }] }
            }
            agent::OrderKind::Reboot => {
                let instance = self.host.status.claim.as_ref().map(|claim| claim.uid.0.as_str());
                if let Some(change) = agent::phone_home(&self.host, &self.limits, instance, self.now) {
                    self.take(change.status);
                }
                return;
            }
            agent::OrderKind::Wait => return,
        };
        let words = Report { order, sequence: 1, body };
        let change = agent::report(&self.host, &self.limits, &words, self.now).unwrap();
        self.take(change.status);
    }

    pub(super) fn run_until(&mut self, phase: HostPhase) {
        for _ in 0..200 {
            if self.host.status.phase == phase {
                return;
            }
            self.now += SignedDuration::from_secs(1);
            self.tick(None);
            self.installer();
        }
        panic!("never reached {phase:?}: {:#?}", self.host.status);
    }
}

#[test]
fn a_whole_life_in_order() {
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    assert_eq!(world.power, PowerState::Off, "a pooled host is off");
    claim(&mut world.host, ClaimState::Install);
    world.run_until(HostPhase::Provisioned);
    assert_eq!(world.power, PowerState::On);
    world.host.status.claim.as_mut().unwrap().state = ClaimState::Release;
    for _ in 0..10 {
        world.tick(None);
    }
    assert_eq!(
        (world.power, world.host.status.stage),
        (PowerState::Off, Stage::NodeRemoval),
        "off before the Node goes"
    );
    world.host.status.claim.as_mut().unwrap().state = ClaimState::Erase;
    world.run_until(HostPhase::Available);
    assert_eq!(world.host.status.erase.as_ref().unwrap().claim_uid, Uid("uid-n1".into()));
    use HostPhase::*;
    assert_eq!(
        world.phases,
        [Registering, Inspecting, Available, Provisioning, Provisioned, Deprovisioning, Available]
    );
    assert_eq!(world.mutations, ["off", "on", "off", "on", "off", "on", "off"]);
}

#[test]
fn nothing_is_installed_before_the_seed_is_ready() {
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    claim(&mut world.host, ClaimState::Reserved);
    let before = world.mutations.len();
    for _ in 0..20 {
        world.tick(None);
    }
    assert_eq!(world.host.status.stage, Stage::Seed);
    assert_eq!(world.mutations.len(), before, "power was touched before the seed was ready");
}

#[test]
fn a_wrong_password_stops_at_once_and_a_new_one_goes_on() {
    let mut world = World::new();
    world.tick(None);
    world.tick(None);
    world.tick(Some(Cause::BmcCredentials));
    assert_eq!(world.host.status.phase, HostPhase::Error);
    assert_eq!(world.host.status.failure.as_ref().unwrap().cause, Cause::BmcCredentials);
    for _ in 0..50 {
        world.now += SignedDuration::from_mins(10);
        assert!(step(&world.host, &world.limits, world.now).effect.is_none(), "the refused password is tried again");
        world.tick(None);
    }
    world.host.metadata.generation += 1;
    world.run_until(HostPhase::Available);
}

#[test]
fn an_unreachable_bmc_is_tried_with_pauses_then_shown_then_tried_again() {
    let mut world = World::new();
    let mut tries = 0;
    while world.host.status.phase != HostPhase::Error {
        let before = world.host.status.operation.as_ref().map_or(0, |op| op.id);
        let next = world.tick(if world.host.status.stage == Stage::Probe { Some(Cause::BmcUnreachable) } else { None });
        if world.host.status.stage == Stage::Probe && world.host.status.operation.as_ref().unwrap().id > before {
            tries += 1;
        }
        if world.host.status.phase == HostPhase::Error {
            break;
        }
        world.now =
            world.now.max(next.unwrap_or(world.now)).max(world.host.status.retry.not_before.unwrap_or(world.now));
    }
    assert!(tries >= 4, "{tries}");
    let again = world.host.status.retry.not_before.unwrap();
    assert!(again > world.now);
    world.now = again;
    world.run_until(HostPhase::Available);
}

#[test]
fn a_silent_installer_meets_its_deadline_and_the_attempts_run_out() {
    let mut world = World::new();
    for _ in 0..1000 {
        let next = world.tick(None);
        if world.host.status.phase == HostPhase::Error {
            break;
        }
        world.now = world.now.max(next.unwrap_or(world.now));
        assert!(world.host.status.phase != HostPhase::Available);
    }
    let failure = world.host.status.failure.clone().unwrap();
    assert_eq!((world.host.status.phase, failure.cause), (HostPhase::Error, Cause::AgentSilent));
    assert_eq!(world.mutations.iter().filter(|m| **m == "on").count(), 3, "one power-on per attempt");
    assert!(failure.message.contains("52:54:00:00:00:01") && !failure.advice.is_empty());
}

fn refused(hearing: agent::Hearing) -> (agent::Refusal, Option<Box<Change>>) {
    match hearing {
        agent::Hearing::Refused { why, change } => (why, change),
        agent::Hearing::Welcome(_) => panic!("welcomed"),
    }
}

#[test]
fn another_machine_on_the_same_wire_is_refused_before_anything_is_written() {
    let mut world = World::new();
    while !world.booted {
        world.now += SignedDuration::from_secs(1);
        world.tick(None);
    }
    let attempt = world.host.status.boot.as_ref().unwrap().id.clone();
    let words = |serial: &str, attempt: &str| Hello {
        version: "t".into(),
        attempt: attempt.into(),
        boot_mac: world.host.spec.boot_mac,
        identity: inventory::Identity { serial: Some(serial.into()), ..Default::default() },
        firmware: inventory::Firmware::Uefi,
    };
    let (refusal, change) = refused(agent::hello(&world.host, &world.limits, &words("OTHER", &attempt), world.now));
    assert!(matches!(&refusal, agent::Refusal::WrongMachine(text) if text.contains("S1") && text.contains("OTHER")));
    let status = change.unwrap().status;
    assert_eq!((status.phase, status.stage), (HostPhase::Quarantined, Stage::Idle), "another machine is not touched");
    let hold = status.quarantine.unwrap();
    assert!(hold.reason.contains("S1") && hold.reason.contains("OTHER") && hold.by == "vmetald", "{hold:?}");
    let (refusal, change) = refused(agent::hello(&world.host, &world.limits, &words("S1", "old"), world.now));
    assert!(matches!(refusal, agent::Refusal::StaleAttempt(_)) && change.is_none());
}

#[test]
fn a_crash_between_intent_and_outcome_is_looked_at_not_repeated() {
    for happened in [false, true] {
        let mut world = World::new();
        while world.host.status.stage != Stage::On {
            world.now += SignedDuration::from_secs(1);
            world.tick(None);
        }
        let decision = step(&world.host, &world.limits, world.now);
        assert_eq!(kind_of(&decision), Some(OperationKind::PowerOn));
        world.take(decision.status);
        if happened {
            world.perform(OperationKind::PowerOn);
        }
        assert!(step(&world.host, &world.limits, world.now).effect.is_none(), "an open intent is never acted on");
        let change = recover(&world.host, &world.limits, world.now).unwrap();
        world.take(change.status);
        let waits = step(&world.host, &world.limits, world.now);
        let settled = world.now + world.limits.settle;
        assert_eq!((waits.effect, waits.next), (None, Some(settled)), "the command may still be on its way");
        world.now = settled;
        assert_eq!(kind_of(&step(&world.host, &world.limits, world.now)), Some(OperationKind::ReadPower));
        world.run_until(HostPhase::Available);
        assert_eq!(world.mutations.iter().filter(|m| **m == "on").count(), 1, "happened: {happened}");
    }
}

#[test]
fn a_power_on_that_used_up_the_boot_override_is_not_followed_by_a_boot_from_disk() {
    let mut world = World::new();
    while world.host.status.stage != Stage::On {
        world.now += SignedDuration::from_secs(1);
        world.tick(None);
    }
    let decision = step(&world.host, &world.limits, world.now);
    assert_eq!(kind_of(&decision), Some(OperationKind::PowerOn));
    world.take(decision.status);
    // The engine dies; the machine starts, forgets the override and goes off again.
    world.network_boot = false;
    let change = recover(&world.host, &world.limits, world.now).unwrap();
    world.take(change.status);
    world.run_until(HostPhase::Available);
    assert_eq!(
        world.mutations.iter().filter(|m| **m == "on").count(),
        1,
        "the first start after it is from the network"
    );
}

#[test]
fn an_unclaimed_host_can_always_be_deleted_and_a_claimed_one_never() {
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    world.host.metadata.deleted = Some(world.now);
    assert_eq!(step(&world.host, &world.limits, world.now).fate, Fate::Remove);
    claim(&mut world.host, ClaimState::Install);
    for _ in 0..50 {
        world.now += SignedDuration::from_secs(1);
        assert_eq!(step(&world.host, &world.limits, world.now).fate, Fate::Keep);
        world.tick(None);
        world.installer();
    }
}

#[test]
fn a_bmc_that_answers_and_never_switches_on_or_off_is_given_up() {
    for (stage, broken) in [(Stage::On, OperationKind::PowerOn), (Stage::Off, OperationKind::PowerOff)] {
        let mut world = World::new();
        while world.host.status.stage != stage {
            world.now += SignedDuration::from_secs(1);
            world.tick(None);
        }
        for _ in 0..200 {
            world.now += SignedDuration::from_mins(3);
            let fails = kind_of(&step(&world.host, &world.limits, world.now)) == Some(broken);
            world.tick(fails.then_some(Cause::BmcNotApplied));
            if world.host.status.phase == HostPhase::Error {
                break;
            }
        }
        assert_eq!(
            (world.host.status.phase, world.host.status.failure.unwrap().cause),
            (HostPhase::Error, Cause::BmcNotApplied)
        );
    }
}

#[test]
fn power_that_is_neither_on_nor_off_is_asked_for_with_pauses() {
    let mut world = World::new();
    while world.host.status.stage != Stage::On {
        world.now += SignedDuration::from_secs(1);
        world.tick(None);
    }
    world.tick(Some(Cause::BmcUnreachable));
    let mut asked = 0;
    for _ in 0..1800 {
        world.now += SignedDuration::from_secs(1);
        let kind = kind_of(&step(&world.host, &world.limits, world.now));
        asked += u32::from(kind.is_some());
        let truth = world.power;
        if kind == Some(OperationKind::ReadPower) {
            world.power = PowerState::Unknown;
        }
        world.tick(None);
        if kind == Some(OperationKind::ReadPower) {
            world.power = truth;
        }
        if world.host.status.stage == Stage::Agent {
            break;
        }
    }
    assert_eq!(world.host.status.stage, Stage::Agent, "switching off and on again told what reading did not");
    assert!(asked < 30, "{asked}");
    assert_eq!(world.mutations.iter().filter(|m| **m == "reset").count(), 1, "the BMC is restarted once");
}

#[test]
fn a_pause_that_the_bmc_asks_for_is_kept() {
    let mut world = World::new();
    world.tick(None);
    world.tick(None);
    let decision = step(&world.host, &world.limits, world.now);
    assert_eq!(kind_of(&decision), Some(OperationKind::ProbeBmc));
    world.take(decision.status);
    let id = world.host.status.operation.as_ref().unwrap().id;
    let asked = world.now + SignedDuration::from_mins(7);
    let busy = |not_before| Err(Setback { failure: failure(Cause::BmcBusy), not_before });
    let change = outcome(&world.host, &world.limits, id, busy(Some(asked)), world.now).unwrap();
    assert_eq!(change.status.retry.not_before, Some(asked));
    let change = outcome(&world.host, &world.limits, id, busy(Some(world.now)), world.now).unwrap();
    assert!(change.status.retry.not_before.unwrap() > world.now, "the engine's own pause is longer");
}

#[test]
fn a_declaration_that_is_corrected_while_the_old_one_fails_is_tried() {
    let mut world = World::new();
    world.tick(None);
    world.tick(None);
    let decision = step(&world.host, &world.limits, world.now);
    assert_eq!(kind_of(&decision), Some(OperationKind::ProbeBmc));
    world.take(decision.status);
    world.host.metadata.generation += 1;
    let id = world.host.status.operation.as_ref().unwrap().id;
    let refused = Err(failure(Cause::BmcCredentials).into());
    let change = outcome(&world.host, &world.limits, id, refused, world.now).unwrap();
    world.take(change.status);
    assert_eq!(world.host.status.phase, HostPhase::Error);
    world.run_until(HostPhase::Available);
}

#[test]
fn a_wall_clock_that_is_set_back_does_not_repeat_effects() {
    let mut world = World::new();
    world.now += SignedDuration::from_hours(1);
    world.tick(None);
    world.tick(None);
    assert_eq!(world.host.status.stage, Stage::Probe);
    world.now -= SignedDuration::from_mins(30);
    for _ in 0..3 {
        world.tick(None);
    }
    assert_eq!(world.effects.iter().filter(|kind| **kind == OperationKind::ProbeBmc).count(), 1);
}

fn working_on(world: &mut World, phase: HostPhase) {
    while !(world.host.status.phase == phase && world.host.status.stage == Stage::Agent) {
        world.now += SignedDuration::from_secs(1);
        world.tick(None);
        if world.host.status.phase != phase {
            world.installer();
        }
    }
}

#[test]
fn a_silence_of_the_engine_is_not_the_installers() {
    let mut world = World::new();
    working_on(&mut world, HostPhase::Inspecting);
    world.host.status.boot.as_mut().unwrap().called_in = Some(world.now);
    world.tick(None);
    assert_eq!(world.host.status.stage, Stage::Work);
    world.now += SignedDuration::from_mins(10);
    let silent = step(&world.host, &world.limits, world.now);
    assert_eq!(silent.status.stage, Stage::Off, "an engine that listened gives up");
    world.limits.listening_since = world.now;
    let next = world.tick(None).unwrap();
    assert_eq!((world.host.status.stage, next), (Stage::Work, world.now + world.limits.silence));
    world.now = next;
    world.tick(None);
    assert_eq!(world.host.status.stage, Stage::Off);
}

#[test]
fn the_token_of_a_tenancy_has_no_say_in_what_becomes_of_the_host() {
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    claim(&mut world.host, ClaimState::Install);
    world.run_until(HostPhase::Provisioned);
    let words = Hello {
        version: "t".into(),
        attempt: world.host.status.boot.as_ref().unwrap().id.clone(),
        boot_mac: "52:54:00:00:00:99".parse().unwrap(),
        identity: inventory::Identity::default(),
        firmware: inventory::Firmware::Uefi,
    };
    for phase in [HostPhase::Provisioned, HostPhase::Error] {
        world.host.status.phase = phase;
        let heard = agent::hello(&world.host, &world.limits, &words, world.now);
        assert!(matches!(heard, agent::Hearing::Refused { why: agent::Refusal::StaleAttempt(_), change: None }));
    }
}

#[test]
fn a_disk_that_was_inspected_and_not_erased_keeps_the_host_out_of_the_pool() {
    let disk = |name: &str, serial: Option<&str>| inventory::Disk {
        name: name.into(),
        serial: serial.map(Into::into),
        size_bytes: 1 << 40,
        ..Default::default()
    };
    let done = |name: &str, serial: Option<&str>| ErasedDisk {
        name: name.into(),
        serial: serial.map(Into::into),
        size_bytes: 1 << 40,
        method: "m".into(),
    };
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    claim(&mut world.host, ClaimState::Erase);
    world.host.status.inventory.as_mut().unwrap().disks =
        vec![disk("sda", Some("A")), disk("sdb", Some("B")), disk("vda", None), disk("vdb", None)];
    working_on(&mut world, HostPhase::Deprovisioning);
    let (order, kind) = agent::order(&world.host);
    assert_eq!(kind, agent::OrderKind::Erase);
    let report = |host: &Host, disks| {
        let words = Report { order: order.clone(), sequence: 1, body: ReportBody::Erased { disks } };
        agent::report(host, &Limits::default(), &words, Timestamp::UNIX_EPOCH)
    };
    let all = vec![done("sdc", Some("B")), done("sda", Some("A")), done("vdb", None), done("vdc", None)];
    let change = report(&world.host, all.clone()).unwrap();
    assert!(change.status.claim.is_none(), "names may change");
    for lost in 0..all.len() {
        let mut disks = all.clone();
        disks.remove(lost);
        let change = report(&world.host, disks).unwrap();
        let failure = change.status.failure.unwrap();
        assert_eq!((failure.cause, change.status.stage), (Cause::Erase, Stage::Off), "booted again: it may be slow");
        assert!(change.status.claim.is_some() && change.status.erase.is_none());
        assert!(failure.advice.contains(agent::DISKS_GONE));
    }
    world.host.metadata.annotations.insert(agent::DISKS_GONE.into(), "X, B".into());
    let change = report(&world.host, all[1..].to_vec()).unwrap();
    assert!(change.status.claim.is_none());
    assert_eq!(change.status.inventory.unwrap().disks.len(), 3, "a disk that is gone is not looked for again");

    world.host.spec.erase = EraseLevel::Overwrite;
    assert!(report(&world.host, all).is_err(), "what was done for another level does not count");
}
