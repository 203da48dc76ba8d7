//! The store, the transactions under way to it, and what may happen next.

mod objects;

use std::collections::HashMap;

use vmetal_lifecycle::Limits;
use vmetal_lifecycle::claim::{self, Seat, Unit};
use vmetal_lifecycle::host::{Fate, operator};
use vmetal_lifecycle::node::{self, Effect, Effected, View};
use vmetal_lifecycle::standby;
use vmetal_model::{
    Claim, ClaimState, Host, HostAction, HostPhase, Recourse, StandbyWish, TenantNode, TenantNodePhase as Phase, Uid,
};

use objects::{Interned, choice, now, succeeded};

/// What is explored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// Claims of their own.
    pub(crate) singles: usize,
    /// Members of the one group.
    pub(crate) group: usize,
    pub(crate) hosts: usize,
    /// How many hosts may fail while they are installed.
    pub(crate) failures: u8,
    pub(crate) host_deletions: u8,
    /// How often a host may be put on standby, or be ordered back.
    pub(crate) standby_orders: u8,
    /// Whether an operator puts hosts in order that have failed for good.
    pub(crate) mends: bool,
    /// How many transactions may be under way at the same time.
    pub(crate) under_way: usize,
    /// Whether hosts do what their claims want. Where they do not, only the claims' side is explored, and hosts do not come
    /// back.
    pub(crate) hosts_move: bool,
    /// How many hosts the claims' cluster may hold.
    pub(crate) quota: Option<usize>,
    pub(crate) mutation: Mutation,
}

/// What is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutation {
    None,
    /// Reservations do not guard the host.
    HostUnguarded,
    /// Reservations do not guard the claim.
    ClaimUnguarded,
    /// A host is deleted whatever became of it.
    DeletionUnguarded,
    /// Members of a group are reserved one by one.
    GroupPiecemeal,
    /// A host is put on standby whatever became of it.
    StandbyUnguarded,
    /// What a claim was given up on is offered to it again.
    TriedForgotten,
    /// Reservations under a quota do not pass the turnstile.
    TurnstileLeftOut,
}

/// What the turnstile holds: it says nothing, only its revision counts.
const TURNSTILE: u32 = u32::MAX;

/// An object at a revision. Value 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Slot {
    value: u32,
    revision: u8,
}

/// One write, if the object is still at the revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Write {
    key: u8,
    guard: Option<u8>,
    value: u32,
}

type Txn = Vec<Write>;

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    store: Vec<Slot>,
    /// Transactions that are decided and not committed yet, in no order.
    under_way: Vec<Txn>,
    failures: u8,
    host_deletions: u8,
    standby_orders: u8,
}

/// What an engine does next about a claim.
#[derive(Debug, Clone, Copy)]
enum NodeTurn {
    /// Nothing, or it is to be decided on.
    Rest {
        decide: bool,
    },
    Remove,
    /// New values of claim and host.
    Write {
        node: u32,
        host: Option<u32>,
    },
}

/// What a round looks at: the values of the objects, and which claims ask.
type Asked = (Vec<u32>, Vec<bool>);

pub(crate) struct World {
    setting: Setting,
    limits: Limits,
    values: Interned,
    node_turns: HashMap<(u32, u32), NodeTurn>,
    host_turns: HashMap<(u32, bool), Option<u32>>,
    /// What a round may come to, by the values that it looks at and the claims that ask.
    rounds: HashMap<Asked, Vec<Vec<Planned>>>,
    /// Whether moves are described: millions of them are not.
    telling: bool,
}

/// A write without the revision: what is written where, and whether it is guarded.
#[derive(Debug, Clone, Copy)]
struct Planned {
    key: usize,
    value: u32,
    guarded: bool,
}

impl World {
    pub(crate) fn new(setting: Setting) -> Self {
        World {
            setting,
            limits: Limits::default(),
            values: Interned::default(),
            node_turns: HashMap::new(),
            host_turns: HashMap::new(),
            rounds: HashMap::new(),
            telling: false,
        }
    }

    /// In words, how one state comes from another.
    pub(crate) fn tell(&mut self, from: &State, to: &State) -> String {
        self.telling = true;
        let found = self.moves(from).into_iter().find(|(_, state)| state == to);
        self.telling = false;
        found.map(|(how, _)| how).unwrap_or_default()
    }

    fn how(&self, how: impl FnOnce() -> String) -> String {
        if self.telling { how() } else { String::new() }
    }

    fn claims(&self) -> usize {
        self.setting.singles + self.setting.group
    }

    pub(crate) fn start(&mut self) -> State {
        let Setting { singles, group, hosts, failures, host_deletions, standby_orders, .. } = self.setting;
        let size = u32::try_from(group).unwrap();
        let mut store = Vec::new();
        for n in 0..singles {
            store.push(self.values.node(objects::node(&format!("n{n}"), None)));
        }
        for n in 0..group {
            store.push(self.values.node(objects::node(&format!("g{n}"), Some(size))));
        }
        store.extend((0..hosts).map(|n| self.values.host(objects::host(&format!("h{n}")))));
        store.extend(self.setting.quota.map(|_| TURNSTILE));
        let store: Vec<Slot> = store.into_iter().map(|value| Slot { value, revision: 0 }).collect();
        State { store, under_way: Vec::new(), failures, host_deletions, standby_orders }
    }

    /// Everything that may happen next.
    pub(crate) fn moves(&mut self, state: &State) -> Vec<(String, State)> {
        let mut next = Vec::new();
        for txn in &state.under_way {
            let what = self.how(|| self.say(txn));
            let mut lost = state.clone();
            lost.under_way.retain(|other| other != txn);
            next.push((self.how(|| format!("lost: {what}")), lost.clone()));
            if apply(&mut lost, txn) {
                next.push((self.how(|| format!("committed: {what}")), lost));
            }
        }
        if state.under_way.len() < self.setting.under_way {
            self.decisions(state, &mut next);
        }
        for key in 0..self.claims() {
            let Some(node) = self.values.get_node(state.store[key].value).filter(|node| !node.is_deleted()) else {
                continue;
            };
            let mut node = node.clone();
            node.metadata.deleted = Some(now());
            let how = self.how(|| format!("the user deletes {}", node.name()));
            let mut after = state.clone();
            let value = self.values.node(node);
            put(&mut after.store, key, value);
            next.push((how, after));
        }
        for key in self.claims()..state.store.len() {
            let Some(host) = self.values.get_host(state.store[key].value) else { continue };
            let mut host = host.clone();
            match host.status.phase {
                // Once until it has been looked at.
                HostPhase::Error if host.status.observed_generation >= host.metadata.generation => {
                    host.metadata.generation += 1;
                }
                // A person looks at the claim first. Whoever does not, loses the claim nothing but what it could have told.
                HostPhase::Quarantined if self.setting.mends && !self.is_missed(state, &host.metadata.uid) => {
                    let order = HostAction::Unquarantine { reason: "it is mended".to_owned() };
                    host.status = operator::act(&host, &self.limits, &order, "o", now()).unwrap().status;
                }
                _ => continue,
            }
            let how = self.how(|| format!("the operator mends {}", host.name()));
            let mut after = state.clone();
            let value = self.values.host(host);
            put(&mut after.store, key, value);
            next.push((how, after));
        }
        for (_, state) in &mut next {
            canonical(state);
        }
        next
    }

    /// Whether a claim still names a host that has ended its tenancy: it has not heard of it, or is not done with it.
    fn is_missed(&self, state: &State, host: &Uid) -> bool {
        let nodes = state.store.iter().filter_map(|slot| self.values.get_node(slot.value));
        nodes.into_iter().any(|node| node.status.host_uid.as_ref() == Some(host))
    }

    /// What an engine may decide.
    fn decisions(&mut self, state: &State, next: &mut Vec<(String, State)>) {
        let view = state.store.clone();
        let mut sent: Vec<(Txn, State)> = Vec::new();
        let mut send = |txn: Txn, after: State| sent.push((txn, after));
        let mut asks = vec![false; self.claims()];
        for key in 0..self.claims() {
            let Some(node) = self.values.get_node(view[key].value) else { continue };
            let host = self.named(&view, node);
            let host_value = host.map_or(0, |host| view[host].value);
            match self.node_turn(view[key].value, host_value) {
                NodeTurn::Rest { decide } => asks[key] = decide,
                NodeTurn::Remove => {
                    send(vec![write(&view, key, 0, true)], state.clone());
                }
                NodeTurn::Write { node, host: changed } => {
                    let mut txn = vec![write(&view, key, node, true)];
                    if let (Some(host), Some(value)) = (host, changed) {
                        txn.push(write(&view, host, value, true));
                    }
                    txn.retain(|write| write.value != view[usize::from(write.key)].value);
                    send(txn, state.clone());
                }
            }
        }
        for txn in self.round(&view, &asks) {
            send(txn, state.clone());
        }
        for key in self.claims()..view.len() {
            let Some(host) = self.values.get_host(view[key].value) else { continue };
            let (installing, free) = (host.status.phase == HostPhase::Provisioning, host.status.claim.is_none());
            let deleted = host.is_deleted();
            let moves = self.setting.hosts_move;
            if moves && let Some(value) = self.host_turn(view[key].value, false) {
                send(vec![write(&view, key, value, true)], state.clone());
            }
            if installing
                && state.failures > 0
                && let Some(value) = self.host_turn(view[key].value, true)
            {
                let after = State { failures: state.failures - 1, ..state.clone() };
                send(vec![write(&view, key, value, true)], after);
            }
            if free && !deleted && state.host_deletions > 0 {
                let mut host = self.values.get_host(view[key].value).unwrap().clone();
                host.metadata.deleted = Some(now());
                let value = self.values.host(host);
                let guarded = self.setting.mutation != Mutation::DeletionUnguarded;
                let after = State { host_deletions: state.host_deletions - 1, ..state.clone() };
                send(vec![write(&view, key, value, guarded)], after);
            }
        }
        for key in self.claims()..view.len() {
            if let (Some(value), true) = (self.standby_order(view[key].value), state.standby_orders > 0) {
                let guarded = self.setting.mutation != Mutation::StandbyUnguarded;
                let after = State { standby_orders: state.standby_orders - 1, ..state.clone() };
                sent.push((vec![write(&view, key, value, guarded)], after));
            }
        }
        for (txn, mut after) in sent {
            if txn.is_empty() {
                continue;
            }
            if after.under_way.contains(&txn) {
                continue;
            }
            let how = self.how(|| format!("decided: {}", self.say(&txn)));
            after.under_way.push(txn);
            next.push((how, after));
        }
    }

    /// What a class may order of a host: to be put on standby, or to leave it.
    fn standby_order(&mut self, value: u32) -> Option<u32> {
        let mut host = self.values.get_host(value)?.clone();
        let ordered = standby::give_back(&host).map(|(status, _)| status);
        let ordered = ordered.or_else(|| standby::install(&host, objects::standby()).ok().map(|(status, _)| status))?;
        host.status = ordered;
        Some(self.values.host(host))
    }

    /// The host that a claim names, by its place.
    fn named(&self, view: &[Slot], node: &TenantNode) -> Option<usize> {
        let uid = node.status.host_uid.as_ref()?;
        (self.claims()..view.len())
            .find(|key| self.values.get_host(view[*key].value).is_some_and(|host| host.metadata.uid == *uid))
    }

    fn node_turn(&mut self, node_value: u32, host_value: u32) -> NodeTurn {
        if let Some(known) = self.node_turns.get(&(node_value, host_value)) {
            return *known;
        }
        let node = self.values.get_node(node_value).unwrap().clone();
        let host = self.values.get_host(host_value).cloned();
        let view = View { node: &node, host: host.as_ref() };
        let decision = node::step(view, &self.limits, now());
        let same = decision.status == node.status && decision.claim.is_none();
        let turn = match (decision.fate, decision.effect) {
            (Fate::Remove, _) => NodeTurn::Remove,
            (Fate::Keep, Some(Effect::Decide)) if same => NodeTurn::Rest { decide: true },
            (Fate::Keep, Some(effect)) if same => {
                let outcome = node::outcome(view, &self.limits, effect, Ok(succeeded(effect, &node)), now());
                self.written(&node, host.as_ref(), outcome)
            }
            (Fate::Keep, None) if same => NodeTurn::Rest { decide: false },
            (Fate::Keep, _) => self.written(&node, host.as_ref(), decision),
        };
        self.node_turns.insert((node_value, host_value), turn);
        turn
    }

    /// As the engine records it: the hold on the host is changed in the same commit, and only if it is the claim's.
    fn written(&mut self, node: &TenantNode, host: Option<&Host>, decision: node::Decision) -> NodeTurn {
        let mut changed = node.clone();
        changed.status = decision.status;
        let host = decision.claim.and_then(|state| {
            let mut host = host?.clone();
            let claim = host.status.claim.as_mut().filter(|claim| claim.uid == node.metadata.uid)?;
            claim.state = state;
            claim.image = decision.image.or_else(|| claim.image.take());
            Some(self.values.host(host))
        });
        NodeTurn::Write { node: self.values.node(changed), host }
    }

    /// What a round of decisions may come to: each choice that a policy could make.
    fn round(&mut self, view: &[Slot], asks: &[bool]) -> Vec<Txn> {
        let key = (view.iter().map(|slot| slot.value).collect::<Vec<_>>(), asks.to_vec());
        let planned = match self.rounds.get(&key) {
            Some(planned) => planned.clone(),
            None => {
                let planned = self.plan(view, asks);
                self.rounds.insert(key, planned.clone());
                planned
            }
        };
        let guarded = |one: Planned| write(view, one.key, one.value, one.guarded);
        planned.into_iter().map(|txn| txn.into_iter().map(guarded).collect()).collect()
    }

    fn plan(&mut self, view: &[Slot], asks: &[bool]) -> Vec<Vec<Planned>> {
        let nodes: Vec<TenantNode> =
            (0..self.claims()).filter_map(|key| self.values.get_node(view[key].value).cloned()).collect();
        let key_of = |name: &str, world: &World| {
            (0..world.claims()).find(|key| world.values.get_node(view[*key].value).is_some_and(|n| n.name() == name))
        };
        let asking = |node: &TenantNode| key_of(node.name(), self).is_some_and(|key| asks[key]);
        let units = claim::units(&nodes, asking);
        let mut txns = Vec::new();
        for unit in units {
            let (members, effected) = match unit {
                Unit::One(node) => (vec![node], None),
                Unit::Group { waiting, .. } => (waiting, None),
                Unit::Elsewhere(node) => {
                    let free = self.free(view, node).into_iter().next();
                    let name = free.and_then(|key| self.values.get_host(view[key].value)).map(|h| h.name().to_owned());
                    (vec![node], Some(Effected::Decided(choice(name), None)))
                }
                Unit::Broken { waiting, why } => (waiting, Some(Effected::Gathering(why))),
            };
            let keys: Vec<usize> = members.iter().map(|node| key_of(node.name(), self).unwrap()).collect();
            let allowed = self.setting.quota.is_none_or(|quota| self.held(view) + members.len() <= quota);
            let seated = effected.is_none() && allowed;
            let seatings = if seated { self.seatings(view, &members) } else { Vec::new() };
            for seating in &seatings {
                txns.push(self.reservation(view, &keys, seating));
            }
            if seatings.is_empty() {
                let effected = effected.unwrap_or_else(|| Effected::Decided(choice(None), None));
                txns.extend(keys.iter().filter_map(|key| self.told(view, *key, effected.clone())));
            }
        }
        txns
    }

    fn told(&mut self, view: &[Slot], key: usize, effected: Effected) -> Option<Vec<Planned>> {
        let node = self.values.get_node(view[key].value)?.clone();
        let host = self.named(view, &node).and_then(|host| self.values.get_host(view[host].value).cloned());
        let view_of = View { node: &node, host: host.as_ref() };
        let decision = node::outcome(view_of, &self.limits, Effect::Decide, Ok(effected), now());
        let mut changed = node.clone();
        changed.status = decision.status;
        let value = self.values.node(changed);
        (value != view[key].value).then(|| vec![Planned { key, value, guarded: true }])
    }

    /// Hosts that the rules leave for a claim.
    fn free(&self, view: &[Slot], node: &TenantNode) -> Vec<usize> {
        let free = |host: &Host| {
            let leaves = host.status.standby.as_ref().is_some_and(|standby| standby.wish == StandbyWish::GiveBack);
            host.status.phase.is_claimable()
                && !leaves
                && host.status.claim.is_none()
                && !host.is_deleted()
                && (!node.status.has_tried(&host.metadata.uid) || self.setting.mutation == Mutation::TriedForgotten)
        };
        (self.claims()..view.len()).filter(|key| self.values.get_host(view[*key].value).is_some_and(free)).collect()
    }

    /// How many hosts the claims hold.
    fn held(&self, view: &[Slot]) -> usize {
        let nodes = view.iter().filter_map(|slot| self.values.get_node(slot.value));
        nodes.filter(|node| node.status.host.is_some()).count()
    }

    fn seatings(&self, view: &[Slot], members: &[&TenantNode]) -> Vec<Vec<usize>> {
        let mut seatings: Vec<Vec<usize>> = vec![Vec::new()];
        for node in members {
            let free = self.free(view, node);
            seatings = seatings
                .into_iter()
                .flat_map(|taken| {
                    let rest: Vec<usize> = free.iter().copied().filter(|key| !taken.contains(key)).collect();
                    rest.into_iter().map(move |key| [taken.clone(), vec![key]].concat())
                })
                .collect();
        }
        seatings
    }

    fn reservation(&mut self, view: &[Slot], nodes: &[usize], hosts: &[usize]) -> Vec<Planned> {
        let mutation = self.setting.mutation;
        let mut pairs: Vec<(usize, usize)> = nodes.iter().copied().zip(hosts.iter().copied()).collect();
        if mutation == Mutation::GroupPiecemeal {
            pairs.truncate(1);
        }
        let mut objects: Vec<(TenantNode, Host)> = pairs
            .iter()
            .map(|(node, host)| {
                let node = self.values.get_node(view[*node].value).unwrap().clone();
                (node, self.values.get_host(view[*host].value).unwrap().clone())
            })
            .collect();
        let tried: Vec<_> = objects.iter().map(|(node, _)| node.status.tried.clone()).collect();
        if mutation == Mutation::TriedForgotten {
            objects.iter_mut().for_each(|(node, _)| node.status.tried.clear());
        }
        let seats = objects.iter().map(|(node, host)| {
            let choice = choice(Some(host.name().to_owned()));
            Seat { node, host, choice, lease: None }
        });
        let reserved = claim::reserve(seats.collect(), &self.limits, now()).unwrap();
        let mut txn = Vec::new();
        for (((node_key, host_key), mut reserved), tried) in pairs.into_iter().zip(reserved).zip(tried) {
            reserved.node.status.tried = tried;
            let (node, host) = (self.values.node(reserved.node), self.values.host(reserved.host));
            let guarded = mutation != Mutation::ClaimUnguarded;
            txn.push(Planned { key: node_key, value: node, guarded });
            let guarded = mutation != Mutation::HostUnguarded;
            txn.push(Planned { key: host_key, value: host, guarded });
        }
        if self.setting.quota.is_some() && mutation != Mutation::TurnstileLeftOut {
            txn.push(Planned { key: view.len() - 1, value: TURNSTILE, guarded: true });
        }
        txn
    }

    /// The host one phase further; `None` when it stays as it is.
    fn host_turn(&mut self, value: u32, fails: bool) -> Option<u32> {
        if let Some(known) = self.host_turns.get(&(value, fails)) {
            return *known;
        }
        let host = self.values.get_host(value).unwrap().clone();
        let turn = match objects::one_phase_further(&host, &self.limits, fails) {
            None => Some(0),
            Some(after) => Some(self.values.host(after)),
        };
        let turn = turn.filter(|after| *after != value);
        self.host_turns.insert((value, fails), turn);
        turn
    }

    /// What must never be, if it is.
    pub(crate) fn wrong(&self, state: &State) -> Option<String> {
        let nodes: Vec<&TenantNode> = state.store.iter().filter_map(|slot| self.values.get_node(slot.value)).collect();
        let hosts: Vec<&Host> = state.store.iter().filter_map(|slot| self.values.get_host(slot.value)).collect();
        let host_wrong = hosts.iter().find_map(|host| host_wrong(host, &nodes));
        let most = self.limits.hosts_per_claim;
        let node_wrong = nodes.iter().find_map(|node| node_wrong(node, &hosts).or_else(|| budget_wrong(node, most)));
        let held = self.held(&state.store);
        let over = self.setting.quota.filter(|quota| held > *quota);
        let over = over.map(|quota| format!("{held} hosts are held, and the quota is {quota}"));
        host_wrong.or(node_wrong).or_else(|| group_wrong(&nodes)).or(over)
    }

    /// Nothing is claimed, and every host is in the pool, gone, or in an operator's hands.
    pub(crate) fn good(&self, state: &State) -> bool {
        let unclaimed = state.store.iter().all(|slot| self.values.get_node(slot.value).is_none());
        let back = |host: &Host| {
            host.status.claim.is_none()
                && (host.status.phase.is_claimable()
                    || matches!(host.status.phase, HostPhase::Error | HostPhase::Quarantined))
        };
        unclaimed && state.store.iter().filter_map(|slot| self.values.get_host(slot.value)).all(back)
    }

    pub(crate) fn show(&self, state: &State) -> String {
        state.store.iter().map(|slot| self.values.say(slot.value)).collect::<Vec<_>>().join(", ")
    }

    fn say(&self, txn: &Txn) -> String {
        let one = |write: &Write| match self.values.get(write.value) {
            None => format!("object {} goes", write.key),
            Some(_) => self.values.say(write.value),
        };
        txn.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// Phases in which a claim counts on its host.
fn counts_on_host(node: &TenantNode) -> bool {
    match node.status.phase {
        Phase::Scheduled | Phase::Provisioning | Phase::Joining | Phase::Ready | Phase::Draining => true,
        Phase::Failed => node.status.recourse != Some(Recourse::Leaving),
        Phase::Pending | Phase::Released => false,
    }
}

fn host_wrong(host: &Host, nodes: &[&TenantNode]) -> Option<String> {
    let Claim { node, uid, state, .. } = host.status.claim.as_ref()?;
    let name = host.name();
    if host.is_deleted() {
        return Some(format!("{node} is on {name}, which is being deleted"));
    }
    if *state == ClaimState::Erase {
        return None;
    }
    match nodes.iter().find(|one| one.metadata.uid == *uid) {
        None => Some(format!("{name} is held by {node}, which is gone")),
        Some(one) if one.status.host_uid.as_ref() != Some(&host.metadata.uid) => {
            let other = one.status.host.as_deref().unwrap_or("none");
            Some(format!("{name} is held by {node}, which names {other}"))
        }
        Some(_) => None,
    }
}

fn node_wrong(node: &TenantNode, hosts: &[&Host]) -> Option<String> {
    if !counts_on_host(node) {
        return None;
    }
    let name = node.name();
    let Some(host) = hosts.iter().find(|host| Some(&host.metadata.uid) == node.status.host_uid.as_ref()) else {
        return Some(format!("{name} is on a host that was removed"));
    };
    let uid = &node.metadata.uid;
    let held = host.status.claim.as_ref().is_some_and(|claim| claim.uid == *uid);
    let lost = host.status.claim.is_none();
    // Somebody may take a host away; then nobody else has it before the claim knows.
    let known = held || lost && host.status.lost_by(uid).is_some();
    (!known).then(|| format!("{name} does not hold it: {}", host.name()))
}

/// A claim has no more hosts than it may try, and none that it was given up on.
fn budget_wrong(node: &TenantNode, most: usize) -> Option<String> {
    let (name, status) = (node.name(), &node.status);
    if status.tried.len() >= most {
        return Some(format!("{name} was given up on {} hosts, and {most} may be tried", status.tried.len()));
    }
    let there = matches!(status.phase, Phase::Scheduled | Phase::Provisioning | Phase::Joining | Phase::Ready);
    let again = status.host_uid.as_ref().is_some_and(|host| there && status.has_tried(host));
    let host = status.host.as_deref().unwrap_or_default();
    again.then(|| format!("{name} is on {host}, which it was given up on"))
}

/// Of a group that is whole, all have hosts or none has.
fn group_wrong(nodes: &[&TenantNode]) -> Option<String> {
    let members: Vec<_> = nodes.iter().filter(|n| n.spec.group.is_some() && !n.is_deleted()).collect();
    let size = members.first()?.spec.group.as_ref()?.size as usize;
    let placed = members.iter().filter(|node| node.status.host.is_some()).count();
    (members.len() == size && placed != 0 && placed != size)
        .then(|| format!("{placed} of the {size} members of the group have hosts"))
}

fn write(view: &[Slot], key: usize, value: u32, guarded: bool) -> Write {
    Write { key: u8::try_from(key).unwrap(), guard: guarded.then_some(view[key].revision), value }
}

fn put(store: &mut [Slot], key: usize, value: u32) {
    store[key] = Slot { value, revision: store[key].revision + 1 };
}

/// Applies all writes, or none.
fn apply(state: &mut State, txn: &Txn) -> bool {
    let holds = |write: &Write| {
        let slot = state.store[usize::from(write.key)];
        // Without a guard even an object that is gone is written again: what a guard is for.
        write.guard.is_none_or(|revision| slot.revision == revision && slot.value != 0)
    };
    if !txn.iter().all(holds) {
        return false;
    }
    for write in txn {
        put(&mut state.store, usize::from(write.key), write.value);
    }
    true
}

/// Only the order of revisions means anything, and none that no longer holds: they grow, so a transaction with a guard that
/// does not hold never will again, and is as good as lost.
fn canonical(state: &mut State) {
    let store = &state.store;
    let stale = |write: &Write| write.guard.is_some_and(|guard| guard != store[usize::from(write.key)].revision);
    state.under_way.retain(|txn| !txn.iter().any(stale));
    for write in state.under_way.iter_mut().flatten() {
        write.guard = write.guard.map(|_| 0);
    }
    for slot in &mut state.store {
        slot.revision = 0;
    }
    state.under_way.sort_unstable();
}
