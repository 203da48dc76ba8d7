//! Claims and hosts, each distinct value kept once under a number.

use std::collections::HashMap;

use vmetal_lifecycle::host::{self, Effected as HostEffected, Fate, Setback};
use vmetal_lifecycle::node::{DrainPass, Effect, Effected, Sight};
use vmetal_lifecycle::{Limits, grant};
use vmetal_model::agent::{BootPurpose, EraseLevel};
use vmetal_model::host::BootAttempt;
use vmetal_model::inventory::Disk;
use vmetal_model::{
    BmcFacts, Cause, Decision as Choice, EraseRecord, Failure, GroupSpec, Host, HostPhase, HostStatus, Inventory,
    Metadata, OperationKind, PowerState, Stage, Standby, StandbyWish, TenantNode, TenantNodeSpec, TenantNodeStatus,
    Timestamp, Uid,
};

/// A claim or a host.
#[derive(Debug, Clone)]
pub(crate) enum Object {
    Node(Box<TenantNode>),
    Host(Box<Host>),
}

/// Every value that came up.
#[derive(Default)]
pub(crate) struct Interned {
    numbers: HashMap<String, u32>,
    values: Vec<Object>,
}

impl Interned {
    fn number(&mut self, text: String, object: Object) -> u32 {
        let fresh = u32::try_from(self.values.len() + 1).unwrap();
        *self.numbers.entry(text).or_insert_with(|| {
            self.values.push(object);
            fresh
        })
    }

    pub(crate) fn node(&mut self, node: TenantNode) -> u32 {
        self.number(serde_json::to_string(&node).unwrap(), Object::Node(Box::new(node)))
    }

    pub(crate) fn host(&mut self, host: Host) -> u32 {
        self.number(serde_json::to_string(&host).unwrap(), Object::Host(Box::new(host)))
    }

    pub(crate) fn get(&self, value: u32) -> Option<&Object> {
        self.values.get(usize::try_from(value).unwrap().checked_sub(1)?)
    }

    pub(crate) fn get_node(&self, value: u32) -> Option<&TenantNode> {
        match self.get(value)? {
            Object::Node(node) => Some(node),
            Object::Host(_) => None,
        }
    }

    pub(crate) fn get_host(&self, value: u32) -> Option<&Host> {
        match self.get(value)? {
            Object::Host(host) => Some(host),
            Object::Node(_) => None,
        }
    }

    /// In a few words.
    pub(crate) fn say(&self, value: u32) -> String {
        match self.get(value) {
            None => "gone".to_owned(),
            Some(Object::Node(node)) => {
                let host = node.status.host.as_ref().map_or_else(String::new, |host| format!(" on {host}"));
                let deleted = if node.is_deleted() { " deleted" } else { "" };
                format!("{} {}{host}{deleted}", node.name(), node.status.phase.as_str())
            }
            Some(Object::Host(host)) => {
                let claim = host.status.claim.as_ref();
                let claim = claim.map_or_else(String::new, |claim| format!(" for {} ({:?})", claim.node, claim.state));
                let deleted = if host.is_deleted() { " deleted" } else { "" };
                format!("{} {}{claim}{deleted}", host.name(), host.status.phase.as_str())
            }
        }
    }
}

/// Time stands still.
pub(crate) fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn metadata(name: &str) -> Metadata {
    Metadata {
        name: name.into(),
        uid: Uid(format!("uid-{name}")),
        generation: 1,
        revision: 0,
        labels: Default::default(),
        annotations: Default::default(),
        created: now(),
        deleted: None,
    }
}

pub(crate) fn node(name: &str, group: Option<u32>) -> TenantNode {
    let group = group.map(|size| GroupSpec { name: "g".into(), size, same: None });
    let spec = TenantNodeSpec { cluster: "c".into(), group, ..Default::default() };
    vmetal_model::Object { metadata: metadata(name), spec, status: TenantNodeStatus::new(now()) }
}

pub(crate) fn host(name: &str) -> Host {
    let spec = serde_json::json!({
        "bmc": { "address": "redfish://10.0.0.1", "username": "u" }, "boot_mac": "52:54:00:00:00:01"
    });
    let mut status = HostStatus::new(now());
    status.phase = HostPhase::Available;
    status.stage = Stage::Idle;
    status.power = PowerState::Off;
    status.inventory = Some(inventory());
    let host = vmetal_model::Object { metadata: metadata(name), spec: serde_json::from_value(spec).unwrap(), status };
    one_phase_further(&host, &Limits::default(), false).unwrap()
}

/// The image of every claim and of every host on standby.
const IMAGE: &str = "i";

/// What the class orders of a free host.
pub(crate) fn standby() -> Standby {
    Standby { uid: Uid("s".into()), node_type: "t".into(), image: IMAGE.into(), wish: StandbyWish::Keep, since: now() }
}

pub(crate) fn choice(host: Option<String>) -> Choice {
    Choice {
        node_type: Some("t".into()),
        host,
        cost: None,
        reason: "r".into(),
        node_types: vec![],
        hosts: vec![],
        policies: vec![],
        input_digest: String::new(),
        at: now(),
        log: None,
    }
}

/// What an effect on the tenant's cluster brings when all goes well.
pub(crate) fn succeeded(effect: Effect, node: &TenantNode) -> Effected {
    match effect {
        Effect::Decide => unreachable!("decisions are taken in rounds"),
        Effect::PrepareJoin => Effected::Prepared {
            token_id: "t".into(),
            node_name: node.name().to_owned(),
            provider_id: format!("vmetal://{}", node.status.host_uid.as_ref().unwrap()),
            image: IMAGE.into(),
        },
        Effect::CheckNode => Effected::Seen(Sight::Ready { uid: "k".into() }),
        Effect::RevokeToken => Effected::Revoked,
        Effect::Drain => Effected::Drained(DrainPass::Empty),
        Effect::DeleteNode => Effected::Deleted,
    }
}

/// The host after everything that happens without waiting for its claim, up to the next phase; `None` when it is removed.
/// Effects succeed, or the first one fails for good.
pub(crate) fn one_phase_further(host: &Host, limits: &Limits, mut fails: bool) -> Option<Host> {
    let mut host = host.clone();
    let phase = host.status.phase;
    for _ in 0..200 {
        let decision = host::step(&host, limits, now());
        if decision.fate == Fate::Remove {
            return None;
        }
        let still = decision.status == host.status && decision.effect.is_none();
        host.status = decision.status;
        if let Some(kind) = decision.effect.map(|effect| effect.kind()) {
            let id = host.status.operation.as_ref().unwrap().id;
            let result = if fails { Err(Setback::from(broken())) } else { Ok(brought(kind, &host)) };
            fails = false;
            host.status = host::outcome(&host, limits, id, result, now()).unwrap().status;
        } else if still && !world_moves(&mut host) {
            break;
        }
        if host.status.phase != phase {
            break;
        }
    }
    forget(&mut host.status);
    // How often a host was declared anew makes no difference either.
    if host.status.observed_generation == host.metadata.generation {
        (host.metadata.generation, host.status.observed_generation) = (1, 1);
    }
    Some(host)
}

/// What makes no difference to claims, and would make every tenancy of a host another state.
fn forget(status: &mut HostStatus) {
    status.operation = None;
    if status.phase == HostPhase::Available {
        status.erase = None;
        status.boot = None;
    }
}

fn broken() -> Failure {
    Failure { cause: Cause::WrongMachine, message: "it is broken".into(), advice: "mend it".into(), at: now() }
}

fn brought(kind: OperationKind, host: &Host) -> HostEffected {
    match kind {
        OperationKind::AllocateAddress => HostEffected::Address(std::net::Ipv4Addr::LOCALHOST),
        OperationKind::ProbeBmc => HostEffected::Bmc(BmcFacts { power: PowerState::Off, ..BmcFacts::default() }),
        OperationKind::ReadPower
            if host.status.phase == HostPhase::Standby || matches!(host.status.stage, Stage::Agent | Stage::Work) =>
        {
            HostEffected::Power(PowerState::On)
        }
        OperationKind::ReadPower | OperationKind::PowerOff => HostEffected::Power(PowerState::Off),
        OperationKind::PowerOn => HostEffected::Power(PowerState::On),
        OperationKind::SetNetworkBoot => HostEffected::BootDevice,
        OperationKind::ResetBmc => HostEffected::BmcReset,
        OperationKind::ChangePassword => HostEffected::PasswordChanged,
        OperationKind::OpenBoot => HostEffected::Boot(BootAttempt {
            id: "b".into(),
            purpose: match host.status.phase {
                HostPhase::Provisioning => BootPurpose::Install,
                HostPhase::Deprovisioning => BootPurpose::Erase,
                _ => BootPurpose::Inspect,
            },
            token_sha256: "t".into(),
            opened: now(),
            called_in: None,
            last_seen: None,
            work_done: None,
            phoned_home: None,
        }),
    }
}

/// A server with a disk.
fn inventory() -> Inventory {
    Inventory {
        disks: vec![Disk { name: "sda".into(), serial: Some("s".into()), ..Disk::default() }],
        ..Inventory::default()
    }
}

/// The installer and the installed system do what they are there for.
fn world_moves(host: &mut Host) -> bool {
    let ended = host.status.unerased.as_ref().map(|ended| ended.uid.clone());
    let standby = host.status.standby.as_ref().map(|standby| standby.uid.clone());
    let claim_uid = host.status.claim.as_ref().map(|claim| claim.uid.clone()).or(ended).or(standby);
    let (stage, phase) = (host.status.stage, host.status.phase);
    let Some(boot) = &mut host.status.boot else { return false };
    let fact = match stage {
        Stage::Agent => &mut boot.called_in,
        Stage::Work => &mut boot.work_done,
        Stage::FirstBoot | Stage::HandOver => &mut boot.phoned_home,
        _ => return false,
    };
    if fact.replace(now()).is_some() {
        return false;
    }
    if let (Stage::Work, HostPhase::Inspecting) = (stage, phase) {
        host.status.inventory = Some(inventory());
    }
    if let (Stage::Work, HostPhase::Deprovisioning, Some(claim_uid)) = (stage, phase, claim_uid) {
        let record = EraseRecord { claim_uid, level: EraseLevel::Discard, disks: vec![], at: now() };
        grant::settle(&mut host.status, record);
    }
    true
}
