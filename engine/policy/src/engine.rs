//! Decisions: rules, then policy, then rules again.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use vmetal_policy_sdk as sdk;

use crate::check::Expected;
use crate::component::sandbox::{Limits, Sandbox};
use crate::cost::Cost;
use crate::decision::{Candidate, PlaceDecision, Record, TypeDecision};
use crate::error::{Fault, LoadError, OutputError, PolicyError};
use crate::feasibility::{self, Rejection};
use crate::input::{HostRow, Offer, Wanted};
use crate::seat::{CostSeat, PlacementSeat, Seat};
use crate::slot::{Answered, Binding, Holder, Identity, OnFailure, Slot};
use crate::snapshot::{self, Snapshot};

/// How the policy engine is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Who chooses node types.
    pub cost: Binding,
    /// Who chooses hosts.
    pub placement: Binding,
    /// What a policy may use up.
    pub limits: Limits,
    /// Labels that say where a host is, from the widest to the narrowest failure domain.
    pub levels: Vec<String>,
}

impl Config {
    /// The shipped policies as compiled into this program.
    pub fn native() -> Self {
        let limits = Limits::default();
        Config { cost: Binding::native(), placement: Binding::native(), limits, levels: Vec::new() }
    }

    /// The shipped policies as components in a directory (`cost-vcluster.wasm`, `place-first-fit.wasm`), with their
    /// native twins behind them.
    pub fn shipped(directory: &Path) -> Self {
        Config {
            cost: Binding::file(directory.join("cost-vcluster.wasm")),
            placement: Binding::file(directory.join("place-first-fit.wasm")),
            ..Config::native()
        }
    }
}

/// Takes decisions. Cheap to share; every call is independent of every other.
///
/// Calls compute and do no I/O. They take milliseconds, at worst [`Limits::deadline`] twice: async callers put them on
/// a thread for blocking work.
pub struct PolicyEngine {
    cost: Slot<CostSeat>,
    placement: Slot<PlacementSeat>,
    limits: Limits,
    levels: Vec<String>,
    /// Made when the first component is loaded.
    sandbox: Mutex<Option<Arc<Sandbox>>>,
}

impl PolicyEngine {
    /// Loads the policies.
    ///
    /// # Errors
    /// The first policy that cannot be loaded.
    pub fn new(config: Config) -> Result<Self, LoadError> {
        let sandbox = Mutex::new(None);
        let made = || shared_sandbox(&sandbox, &config.limits);
        let cost = Slot::new(&config.cost, &config.limits, made)?;
        let placement = Slot::new(&config.placement, &config.limits, made)?;
        Ok(PolicyEngine { cost, placement, limits: config.limits, levels: config.levels, sandbox })
    }

    /// Exchanges the cost policy. Decisions under way end with the old one.
    ///
    /// # Errors
    /// When the new policy cannot be loaded; the old one then stays.
    pub fn install_cost(&self, binding: &Binding) -> Result<Identity, LoadError> {
        self.cost.install(binding, &self.limits, || shared_sandbox(&self.sandbox, &self.limits))
    }

    /// Exchanges the placement policy. Decisions under way end with the old one.
    ///
    /// # Errors
    /// When the new policy cannot be loaded; the old one then stays.
    pub fn install_placement(&self, binding: &Binding) -> Result<Identity, LoadError> {
        self.placement.install(binding, &self.limits, || shared_sandbox(&self.sandbox, &self.limits))
    }

    /// Who chooses node types now, and who hosts.
    pub fn identities(&self) -> [Identity; 2] {
        [self.cost.holder().identity.clone(), self.placement.holder().identity.clone()]
    }

    /// Chooses the node type for a claim. `now` is in seconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// When the policy fails and its binding says so. That no offer fits is not an error but a decision.
    pub fn choose_type(&self, wanted: &Wanted, offers: &[Offer], now: u64) -> Result<TypeDecision, PolicyError> {
        let rejections: Vec<_> = offers.iter().map(|offer| feasibility::node_type(wanted, offer)).collect();
        let input = snapshot::offers(wanted, offers, &rejections, now)?;
        let names: Vec<&str> = offers.iter().map(|offer| offer.name.as_str()).collect();
        let decided = self.ask(&self.cost, &input, |choice, info| {
            expected(&input.table.gate, 1, info, &names, &rejections).choice(choice)
        })?;
        let Answered { answer, .. } = &decided.answered;
        let costs: Vec<Cost> = answer.prices.iter().copied().map(Cost::from_micro).collect();
        let chosen = answer.pick.map(|row| row as usize);
        let rows = Rows { names: &names, rejections: &rejections, verdicts: &answer.verdicts, costs: Some(&costs) };
        let candidates = rows.candidates(&decided.holder.info, &input, chosen.as_slice());
        let summary = summarise_types(&candidates, chosen);
        let record = decided.record(&input, chosen.as_slice(), candidates, summary);
        Ok(TypeDecision { chosen, costs, record })
    }

    /// Chooses hosts of a node type for a claim. `now` is in seconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// When the policy fails and its binding says so. That there are too few hosts is not an error but a decision.
    pub fn place(
        &self,
        wanted: &Wanted,
        offer: &Offer,
        hosts: &[HostRow],
        now: u64,
    ) -> Result<PlaceDecision, PolicyError> {
        self.place_within(wanted, offer, hosts, |_| Vec::new(), now)
    }

    /// As [`PolicyEngine::place`], without the hosts that are barred for this claim.
    pub(crate) fn place_within(
        &self,
        wanted: &Wanted,
        offer: &Offer,
        hosts: &[HostRow],
        bars: impl Fn(&HostRow) -> Vec<Rejection>,
        now: u64,
    ) -> Result<PlaceDecision, PolicyError> {
        let rules = |host| [feasibility::host(offer, host), bars(host)].concat();
        let rejections: Vec<_> = hosts.iter().map(rules).collect();
        let input = snapshot::hosts(wanted, hosts, &rejections, &self.levels, now)?;
        let names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
        let decided = self.ask(&self.placement, &input, |decision, info| {
            expected(&input.table.gate, wanted.count, info, &names, &rejections).decision(decision)
        })?;
        let answer = &decided.answered.answer;
        let chosen: Vec<usize> = answer.picks.iter().map(|row| *row as usize).collect();
        let rows = Rows { names: &names, rejections: &rejections, verdicts: &answer.verdicts, costs: None };
        let candidates = rows.candidates(&decided.holder.info, &input, &chosen);
        let summary = summarise_hosts(&candidates, wanted.count, &chosen);
        let record = decided.record(&input, &chosen, candidates, summary);
        Ok(PlaceDecision { chosen, record })
    }

    /// What a claim for nothing in particular would pay for each offer: the cost that a node type's status shows.
    ///
    /// # Errors
    /// As [`PolicyEngine::choose_type`].
    pub fn prices(&self, offers: &[Offer], now: u64) -> Result<Vec<Cost>, PolicyError> {
        let nobody = Wanted {
            name: String::new(),
            cluster: String::new(),
            count: 1,
            node_type: None,
            resources: vmetal_model::Resources::new(),
            requirements: Vec::new(),
        };
        Ok(self.choose_type(&nobody, offers, now)?.costs)
    }

    /// The named parts that an offer's price is the sum of.
    ///
    /// # Errors
    /// When the policy fails.
    pub fn explain_price(
        &self,
        wanted: &Wanted,
        offers: &[Offer],
        index: usize,
        now: u64,
    ) -> Result<Vec<(String, Cost)>, PolicyError> {
        let rejections: Vec<_> = offers.iter().map(|offer| feasibility::node_type(wanted, offer)).collect();
        let input = snapshot::offers(wanted, offers, &rejections, now)?;
        let parts = explain(&self.cost, &input, index)?;
        Ok(parts.into_iter().map(|part| (part.label, Cost::from_micro(part.amount))).collect())
    }

    /// The named parts that a host's score is the sum of.
    ///
    /// # Errors
    /// When the policy fails.
    pub fn explain_score(
        &self,
        wanted: &Wanted,
        offer: &Offer,
        hosts: &[HostRow],
        index: usize,
        now: u64,
    ) -> Result<Vec<(String, i64)>, PolicyError> {
        let rejections: Vec<_> = hosts.iter().map(|host| feasibility::host(offer, host)).collect();
        let input = snapshot::hosts(wanted, hosts, &rejections, &self.levels, now)?;
        let parts = explain(&self.placement, &input, index)?;
        Ok(parts.into_iter().map(|part| (part.label, part.amount)).collect())
    }

    /// Asks the holder of a seat, or its native twin when it fails and the binding allows it.
    fn ask<S: Seat>(
        &self,
        slot: &Slot<S>,
        input: &Snapshot<S::Table>,
        check: impl Fn(&S::Answer, &sdk::Info) -> Result<(), OutputError>,
    ) -> Result<Decided<S>, PolicyError> {
        let holder = slot.holder();
        let fault = match holder.ask(input, &check) {
            Ok(answered) => return Ok(Decided { holder, answered, stood_in_for: None }),
            Err(fault) => fault,
        };
        let failed = |fault: Fault| PolicyError::Failed { kind: S::KIND, policy: holder.identity.to_string(), fault };
        tracing::warn!(policy = %holder.identity, %fault, on_failure = ?holder.on_failure, "policy failed");
        match holder.on_failure {
            OnFailure::Closed => Err(failed(fault)),
            OnFailure::NativeTwin => {
                let twin = Arc::new(Holder::<S>::twin(&self.limits, holder.identity.generation));
                let answered = twin.ask(input, &check).map_err(failed)?;
                let stood_in_for = Some(format!("{}: {fault}", holder.identity));
                Ok(Decided { holder: twin, answered, stood_in_for })
            }
        }
    }
}

fn shared_sandbox(place: &Mutex<Option<Arc<Sandbox>>>, limits: &Limits) -> Result<Arc<Sandbox>, LoadError> {
    // The lock protects a pointer that is set in one step, so it is valid even if a holder of the lock panicked.
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sandbox) = place.as_ref() {
        return Ok(Arc::clone(sandbox));
    }
    let sandbox = Arc::new(Sandbox::new(limits.clone()).map_err(LoadError::Sandbox)?);
    *place = Some(Arc::clone(&sandbox));
    Ok(sandbox)
}

fn explain<S: Seat>(slot: &Slot<S>, input: &Snapshot<S::Table>, index: usize) -> Result<Vec<sdk::Factor>, PolicyError> {
    let holder = slot.holder();
    let row = u32::try_from(index).map_err(|_| PolicyError::TooMany { candidates: index })?;
    holder.explain(input, row).map_err(|fault| PolicyError::Failed {
        kind: S::KIND,
        policy: holder.identity.to_string(),
        fault,
    })
}

fn expected<'a>(
    gate: &'a [u32],
    wanted: u32,
    info: &'a sdk::Info,
    names: &'a [&str],
    rejections: &'a [Vec<Rejection>],
) -> Expected<'a, impl Fn(u32) -> String, impl Fn(u32) -> String> {
    let name = |row: u32| names.get(row as usize).map_or_else(|| format!("row {row}"), |name| (*name).to_owned());
    let why = |row: u32| rejections.get(row as usize).and_then(|found| found.first()).map(Rejection::to_string);
    Expected { gate, wanted, info, name, why: move |row| why(row).unwrap_or_default() }
}

/// A checked answer and who gave it.
struct Decided<S: Seat> {
    holder: Arc<Holder<S>>,
    answered: Answered<S::Answer>,
    stood_in_for: Option<String>,
}

impl<S: Seat> Decided<S> {
    fn record(
        self,
        input: &Snapshot<S::Table>,
        chosen: &[usize],
        candidates: Vec<Candidate>,
        summary: String,
    ) -> Record {
        Record {
            kind: S::INTERFACE.to_owned(),
            policy: self.holder.identity.clone(),
            settings: self.holder.settings.clone(),
            input_digest: input.digest.clone(),
            now: input.now,
            chosen: chosen.iter().filter_map(|row| candidates.get(*row)).map(|row| row.name.clone()).collect(),
            candidates,
            summary,
            stood_in_for: self.stood_in_for,
            fuel: self.answered.fuel,
            notes: self.answered.notes,
        }
    }
}

/// Everything that is known of the candidates, row by row.
struct Rows<'a> {
    names: &'a [&'a str],
    rejections: &'a [Vec<Rejection>],
    verdicts: &'a [sdk::Verdict],
    costs: Option<&'a [Cost]>,
}

impl Rows<'_> {
    fn candidates<T>(&self, info: &sdk::Info, input: &Snapshot<T>, chosen: &[usize]) -> Vec<Candidate> {
        let rows = self.names.iter().zip(self.rejections).zip(self.verdicts).enumerate();
        rows.map(|(row, ((name, rejections), verdict))| {
            // The engine's own words where its rules speak; the policy's where it narrowed further.
            let (reason, topic) = match rejections.first() {
                Some(_) => {
                    let all: Vec<_> = rejections.iter().map(Rejection::to_string).collect();
                    (all.join("; "), rejections[0].topic())
                }
                None if verdict.code == sdk::gate::OPEN && chosen.contains(&row) => {
                    ("chosen".to_owned(), String::new())
                }
                None if verdict.code == sdk::gate::OPEN => ("fits".to_owned(), String::new()),
                None => {
                    let text = own_reason(info, input, verdict);
                    (text.clone(), text)
                }
            };
            Candidate {
                name: (*name).to_owned(),
                feasible: topic.is_empty(),
                code: verdict.code,
                score: verdict.score,
                cost: self.costs.and_then(|costs| costs.get(row)).copied(),
                reason,
                topic,
            }
        })
        .collect()
    }
}

/// The text of a policy's own reason, with its argument filled in.
fn own_reason<T>(info: &sdk::Info, input: &Snapshot<T>, verdict: &sdk::Verdict) -> String {
    let Some(reason) = info.reasons.iter().find(|reason| reason.code == verdict.code) else {
        return format!("code {} of {}", verdict.code, info.name);
    };
    match reason.arg {
        sdk::Arg::None => reason.text.clone(),
        sdk::Arg::Number => reason.text.replace("{}", &verdict.arg.to_string()),
        sdk::Arg::Sym => reason.text.replace("{}", input.symbols.text(verdict.arg)),
    }
}

fn summarise_types(candidates: &[Candidate], chosen: Option<usize>) -> String {
    let shown = |candidate: &Candidate| candidate.cost.unwrap_or_default().to_string();
    match chosen.and_then(|row| candidates.get(row)) {
        Some(winner) => {
            let feasible = candidates.iter().filter(|candidate| candidate.feasible).count();
            let of = if feasible == 1 { "the only".to_owned() } else { format!("the best of {feasible}") };
            format!("{} costs {} and is {of} that fits ({} considered)", winner.name, shown(winner), candidates.len())
        }
        None if candidates.is_empty() => "no node type fits: none is declared".to_owned(),
        None => format!("no node type fits; {}", unfit_types(candidates)),
    }
}

/// Types shown one by one where none fits; the others are counted by cause.
const TYPES_SHOWN: usize = 3;

/// Why none fits. A type that would fit if a host were free says most; types that the claim does not name say nothing.
fn unfit_types(candidates: &[Candidate]) -> String {
    let named: Vec<_> = candidates.iter().filter(|row| row.code != sdk::gate::NOT_NAMED).collect();
    let considered = if named.is_empty() { candidates.iter().collect() } else { named };
    let (mut full, rest): (Vec<_>, Vec<_>) = considered.into_iter().partition(|row| row.code == sdk::gate::NO_CAPACITY);
    if full.is_empty() && rest.len() == 1 {
        full.extend(&rest);
        return format!("{}: {}", full[0].name, full[0].reason);
    }
    let uncounted = full.split_off(full.len().min(TYPES_SHOWN));
    let others: Vec<_> = uncounted.into_iter().chain(rest).collect();
    let mut lines: Vec<_> = full.iter().map(|row| format!("{}: {}", row.name, row.reason)).collect();
    if !others.is_empty() {
        let counts = feasibility::count_topics(others.iter().map(|row| row.topic.clone()));
        let which = match (full.is_empty(), others.len()) {
            (true, _) => "types",
            (false, 1) => "other",
            (false, _) => "others",
        };
        lines.push(format!("{} {which}: {counts}", others.len()));
    }
    lines.join("; ")
}

fn summarise_hosts(candidates: &[Candidate], wanted: u32, chosen: &[usize]) -> String {
    let feasible = candidates.iter().filter(|candidate| candidate.feasible).count();
    if !chosen.is_empty() {
        let names: Vec<_> = chosen.iter().filter_map(|row| candidates.get(*row)).map(|row| row.name.as_str()).collect();
        return format!("{} chosen among {feasible} that fit ({} considered)", names.join(", "), candidates.len());
    }
    if candidates.is_empty() {
        return "0 of 0 hosts: none is declared".to_owned();
    }
    let topics = candidates.iter().filter(|candidate| !candidate.feasible).map(|candidate| candidate.topic.clone());
    let counts = feasibility::count_topics(topics);
    let needed = if wanted > 1 { format!(" ({wanted} wanted)") } else { String::new() };
    format!("{feasible} of {} hosts{needed}: {counts}", candidates.len())
}
