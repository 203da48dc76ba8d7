//! Decisions: rules, then policy, then rules again.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use vmetal_model::PolicyKind;
use vmetal_policy_sdk as sdk;

use crate::candidates::{self, Rows};
use crate::cases;
use crate::check::Expected;
use crate::columns::View;
use crate::component::cache::Kept;
use crate::component::sandbox::{Limits, Sandbox};
use crate::cost::Cost;
use crate::decision::{Candidate, PlaceDecision, Record, TypeDecision};
use crate::error::{Fault, LoadError, OutputError, PolicyError};
use crate::feasibility::gates::{self, Gates};
use crate::feasibility::{self, Rejection};
use crate::input::{Offer, Wanted};
use crate::journal::{Decider, JournalError};
use crate::portrait::Portrait;
use crate::round::Except;
use crate::seat::{CostSeat, PlacementSeat, Seat};
use crate::slot::{Answered, Binding, Holder, Identity, Loader, Slot};
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
    /// Where compiled components are kept; none: they are compiled at every start, in this process.
    pub cache: Option<Kept>,
    /// Hosts of which a decision's record keeps the verdict: the chosen ones, then those that fit, the best first.
    pub hosts_kept: usize,
}

/// The policy that prices node types unless another is configured.
pub const DEFAULT_COST: &str = "cost-vcluster";
/// The policy that chooses hosts unless another is configured.
pub const DEFAULT_PLACEMENT: &str = "place-balanced";

impl Config {
    /// The default policies as compiled into this program.
    pub fn native() -> Self {
        Config {
            cost: Binding::native(DEFAULT_COST),
            placement: Binding::native(DEFAULT_PLACEMENT),
            limits: Limits::default(),
            cache: None,
            hosts_kept: 32,
        }
    }

    /// The default policies as components in a directory (`cost-vcluster.wasm` and so on), with their native twins
    /// behind them.
    pub fn shipped(directory: &Path) -> Self {
        let file = |name: &str| Binding::file(directory.join(format!("{name}.wasm")));
        Config { cost: file(DEFAULT_COST), placement: file(DEFAULT_PLACEMENT), ..Config::native() }
    }
}

/// Takes decisions. Cheap to share; every call is independent of every other.
///
/// Calls compute and do no I/O. They take milliseconds, at worst [`Allowance::deadline`](crate::Allowance::deadline) twice: async callers put them on
/// a thread for blocking work.
pub struct PolicyEngine {
    pub(crate) cost: Slot<CostSeat>,
    pub(crate) placement: Slot<PlacementSeat>,
    workshop: Workshop,
    pub(crate) hosts_kept: usize,
}

/// What it takes to load a component.
struct Workshop {
    limits: Limits,
    cache: Option<Kept>,
    /// Made when the first component is loaded.
    sandbox: Mutex<Option<Arc<Sandbox>>>,
}

impl Workshop {
    fn loader(&self) -> Loader<'_, impl FnOnce() -> Result<Arc<Sandbox>, LoadError> + '_> {
        Loader { limits: &self.limits, sandbox: || self.sandbox() }
    }

    fn sandbox(&self) -> Result<Arc<Sandbox>, LoadError> {
        // The lock protects a pointer that is set in one step, so it is valid even if a holder of the lock panicked.
        let mut place = self.sandbox.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sandbox) = place.as_ref() {
            return Ok(Arc::clone(sandbox));
        }
        let made = Sandbox::new(self.limits.clone(), self.cache.clone()).map_err(LoadError::Sandbox)?;
        let sandbox = Arc::new(made);
        *place = Some(Arc::clone(&sandbox));
        Ok(sandbox)
    }
}

impl PolicyEngine {
    /// Loads the policies.
    ///
    /// # Errors
    /// The first policy that cannot be loaded.
    pub fn new(config: Config) -> Result<Self, LoadError> {
        let workshop = Workshop { limits: config.limits, cache: config.cache, sandbox: Mutex::new(None) };
        let cost = Slot::new(&config.cost, workshop.loader(), cases::smoke_cost)?;
        let placement = Slot::new(&config.placement, workshop.loader(), cases::smoke_placement)?;
        Ok(PolicyEngine { cost, placement, workshop, hosts_kept: config.hosts_kept })
    }

    /// Exchanges the policy of a kind and says what the new one is. Decisions under way end with the old one, which is kept for
    /// [`Self::roll_back_cost`] and [`Self::roll_back_placement`].
    ///
    /// # Errors
    /// When the new policy cannot be loaded, fails one of its own cases or cannot tell of itself; the old one then stays.
    pub fn install(&self, kind: PolicyKind, binding: &Binding) -> Result<Portrait, LoadError> {
        let loader = self.workshop.loader();
        match kind {
            PolicyKind::Cost => self.cost.install(binding, loader, |holder| {
                cases::smoke_cost(holder)?;
                Portrait::of(holder)
            }),
            PolicyKind::Placement => self.placement.install(binding, loader, |holder| {
                cases::smoke_placement(holder)?;
                Portrait::of(holder)
            }),
        }
    }

    /// Loads a policy and tries it as [`Self::install`] does, and seats nothing.
    ///
    /// # Errors
    /// When it could not be seated.
    pub fn examine(&self, kind: PolicyKind, binding: &Binding) -> Result<Portrait, LoadError> {
        match kind {
            PolicyKind::Cost => {
                let slot = Slot::new(binding, self.workshop.loader(), cases::smoke_cost)?;
                Portrait::of(&slot.holder())
            }
            PolicyKind::Placement => {
                let slot = Slot::new(binding, self.workshop.loader(), cases::smoke_placement)?;
                Portrait::of(&slot.holder())
            }
        }
    }

    /// Seats the policy again that this engine began with. The one that it takes the place of is kept, as by an exchange.
    pub fn restore(&self, kind: PolicyKind) -> Identity {
        match kind {
            PolicyKind::Cost => self.cost.restore(),
            PolicyKind::Placement => self.placement.restore(),
        }
    }

    /// Seats a policy that was not tried with its own cases: for its author, who wants to know which of them fail.
    pub(crate) fn install_untried(&self, kind: sdk::Kind, binding: &Binding) -> Result<(), LoadError> {
        let loader = self.workshop.loader();
        match kind {
            sdk::Kind::Cost => self.cost.install(binding, loader, |_| Ok(())),
            sdk::Kind::Placement => self.placement.install(binding, loader, |_| Ok(())),
        }
    }

    /// Goes back to the cost policy before the present one, at once; a second call goes forward again. None when there
    /// was only one.
    pub fn roll_back_cost(&self) -> Option<Identity> {
        self.cost.roll_back()
    }

    /// Goes back to the placement policy before the present one, at once; a second call goes forward again. None when
    /// there was only one.
    pub fn roll_back_placement(&self) -> Option<Identity> {
        self.placement.roll_back()
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
        choose_type(&self.cost.holder(), wanted, offers, now)
    }

    /// Chooses hosts of a node type for a claim. `now` is in seconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// When the policy fails and its binding says so. That there are too few hosts is not an error but a decision.
    pub fn place(&self, wanted: &Wanted, offer: &Offer, fleet: &View, now: u64) -> Result<PlaceDecision, PolicyError> {
        self.place_gated(wanted, offer, fleet, &Gates::of(offer, fleet), Except::nothing(), now)
    }

    pub(crate) fn place_gated(
        &self,
        wanted: &Wanted,
        offer: &Offer,
        fleet: &View,
        gates: &Gates,
        except: Except<'_>,
        now: u64,
    ) -> Result<PlaceDecision, PolicyError> {
        place(&self.placement.holder(), wanted, offer, fleet, gates, except, now, self.hosts_kept)
    }

    pub(crate) fn hosts_kept(&self) -> usize {
        self.hosts_kept
    }

    /// Who decides now: on node types, then on hosts.
    pub(crate) fn deciders(&self) -> [Decider; 2] {
        [self.cost.holder().decider(), self.placement.holder().decider()]
    }

    /// The policies of another time, from those that are here: seated now or before, standing by, or shipped. A seat that is
    /// not named keeps its policy.
    pub(crate) fn as_of(&self, deciders: &[&Decider], hosts_kept: usize) -> Result<Self, JournalError> {
        let of = |kind: &str| deciders.iter().find(|decider| decider.kind == kind).copied();
        let workshop = Workshop {
            limits: self.workshop.limits.clone(),
            cache: self.workshop.cache.clone(),
            sandbox: Mutex::new(None),
        };
        Ok(PolicyEngine {
            cost: self.cost.as_of(of(CostSeat::INTERFACE), &self.workshop.limits)?,
            placement: self.placement.as_of(of(PlacementSeat::INTERFACE), &self.workshop.limits)?,
            workshop,
            hosts_kept,
        })
    }

    /// What a claim for nothing in particular would pay for each offer: the cost that a node type's status shows.
    ///
    /// # Errors
    /// As [`PolicyEngine::choose_type`].
    pub fn prices(&self, offers: &[Offer], now: u64) -> Result<Vec<Cost>, PolicyError> {
        Ok(self.choose_type(&Wanted::nothing(), offers, now)?.costs)
    }

    /// The named parts that an offer's price is the sum of, in millionths of a cost unit; a discount is negative.
    ///
    /// # Errors
    /// When the policy fails.
    pub fn explain_price(
        &self,
        wanted: &Wanted,
        offers: &[Offer],
        index: usize,
        now: u64,
    ) -> Result<Vec<(String, i64)>, PolicyError> {
        let rejections: Vec<_> = offers.iter().map(|offer| feasibility::node_type(wanted, offer)).collect();
        let input = snapshot::offers(wanted, offers, &rejections, now)?;
        let parts = explain(&self.cost, &input, index)?;
        Ok(parts.into_iter().map(|part| (part.label, part.amount)).collect())
    }

    /// The named parts that a host's score is the sum of; none when there is no such host.
    ///
    /// # Errors
    /// When the policy fails.
    pub fn explain_score(
        &self,
        wanted: &Wanted,
        offer: &Offer,
        fleet: &View,
        host: &str,
        now: u64,
    ) -> Result<Vec<(String, i64)>, PolicyError> {
        self.explain_gated(wanted, offer, fleet, &Gates::of(offer, fleet), Except::nothing(), host, now)
    }

    #[expect(clippy::too_many_arguments, reason = "a decision's inputs, which nothing else has in common")]
    pub(crate) fn explain_gated(
        &self,
        wanted: &Wanted,
        offer: &Offer,
        fleet: &View,
        gates: &Gates,
        except: Except<'_>,
        host: &str,
        now: u64,
    ) -> Result<Vec<(String, i64)>, PolicyError> {
        let Some(slot) = fleet.table.slot(host) else { return Ok(Vec::new()) };
        let input = snapshot::hosts(wanted, offer, fleet, gates.codes.clone(), except, now);
        let parts = explain(&self.placement, &input, slot)?;
        Ok(parts.into_iter().map(|part| (part.label, part.amount)).collect())
    }
}

/// A decision of one cost policy.
pub(crate) fn choose_type(
    holder: &Arc<Holder<CostSeat>>,
    wanted: &Wanted,
    offers: &[Offer],
    now: u64,
) -> Result<TypeDecision, PolicyError> {
    let rejections: Vec<_> = offers.iter().map(|offer| feasibility::node_type(wanted, offer)).collect();
    let input = snapshot::offers(wanted, offers, &rejections, now)?;
    let names: Vec<&str> = offers.iter().map(|offer| offer.name.as_str()).collect();
    let name = |row: u32| names.get(row as usize).map_or_else(|| format!("row {row}"), |name| (*name).to_owned());
    let why = |row: u32| rejections.get(row as usize).and_then(|found| found.first()).map(Rejection::to_string);
    let decided = ask(holder, &input, |choice, info| {
        let why = |row| why(row).unwrap_or_default();
        Expected { gate: &input.table.gate, wanted: 1, info, name, why }.choice(choice)
    })?;
    let answer = &decided.answered.answer;
    let costs: Vec<Cost> = answer.prices.iter().copied().map(Cost::from_micro).collect();
    let chosen = answer.pick.map(|row| row as usize);
    let rows = Rows { symbols: &input.symbols, info: &decided.holder.info, verdicts: &answer.verdicts };
    let candidate = |row: usize| {
        let found = &rejections[row];
        let cost = costs.get(row).copied();
        let candidate = rows.candidate(row, names[row], found, chosen == Some(row));
        let lacks = (!candidate.feasible).then(|| feasibility::lack(found));
        Candidate { cost, lacks, ..candidate }
    };
    let candidates: Vec<Candidate> = (0..offers.len()).map(candidate).collect();
    let summary = candidates::summarise_types(&candidates, chosen);
    let names = chosen.map(|row| names[row].to_owned()).into_iter().collect();
    let record = decided.record(&input, names, candidates, summary);
    Ok(TypeDecision { chosen, costs, record })
}

/// A decision of one placement policy.
#[expect(clippy::too_many_arguments, reason = "a decision's inputs, which nothing else has in common")]
pub(crate) fn place(
    holder: &Arc<Holder<PlacementSeat>>,
    wanted: &Wanted,
    offer: &Offer,
    fleet: &View,
    gates: &Gates,
    except: Except<'_>,
    now: u64,
    keep: usize,
) -> Result<PlaceDecision, PolicyError> {
    snapshot::rows(fleet.len())?;
    let input = snapshot::hosts(wanted, offer, fleet, gates.codes.clone(), except, now);
    let name = |row: u32| match fleet.table.cells.name.get(row as usize) {
        Some(name) => fleet.table.symbols.text(*name).to_owned(),
        None => format!("row {row}"),
    };
    let why = |row: u32| {
        let found = gates::rejections(offer, fleet, row as usize, except);
        found.first().map(Rejection::to_string).unwrap_or_default()
    };
    let decided = ask(holder, &input, |decision, info| {
        Expected { gate: &gates.codes, wanted: wanted.count, info, name, why }.decision(decision)
    })?;
    let answer = &decided.answered.answer;
    let rows = Rows { symbols: &input.symbols, info: &decided.holder.info, verdicts: &answer.verdicts };
    let fleet = candidates::Fleet { offer, fleet, gates, except };
    let candidates = fleet.candidates(&rows, &answer.picks, keep);
    let chosen: Vec<String> = answer.picks.iter().map(|row| name(*row)).collect();
    let summary = fleet.summary(&rows, wanted.count, &chosen);
    let record = decided.record(&input, chosen.clone(), candidates, summary);
    Ok(PlaceDecision { chosen, record })
}

/// Asks the holder of a seat, or its native twin when it fails and the binding allows it.
fn ask<S: Seat>(
    holder: &Arc<Holder<S>>,
    input: &Snapshot<S::Table<'_>>,
    check: impl Fn(&S::Answer, &sdk::Info) -> Result<(), OutputError>,
) -> Result<Decided<S>, PolicyError> {
    let fault = match holder.ask(input, &check) {
        Ok(answered) => return Ok(Decided { holder: Arc::clone(holder), answered, stood_in_for: None }),
        Err(fault) => fault,
    };
    let failed = |fault: Fault| PolicyError::Failed { kind: S::KIND, policy: holder.identity.to_string(), fault };
    let Some(twin) = &holder.twin else {
        tracing::warn!(policy = %holder.identity, %fault, "policy failed; there is no decision");
        return Err(failed(fault));
    };
    tracing::warn!(policy = %holder.identity, %fault, instead = %twin.identity, "policy failed; its stand-in decides");
    let answered = twin.ask(input, &check).map_err(failed)?;
    let stood_in_for = Some(format!("{}: {fault}", holder.identity));
    Ok(Decided { holder: Arc::clone(twin), answered, stood_in_for })
}

fn explain<S: Seat>(
    slot: &Slot<S>,
    input: &Snapshot<S::Table<'_>>,
    index: usize,
) -> Result<Vec<sdk::Factor>, PolicyError> {
    let holder = slot.holder();
    let row = snapshot::rows(index)?;
    holder.explain(input, row).map_err(|fault| PolicyError::Failed {
        kind: S::KIND,
        policy: holder.identity.to_string(),
        fault,
    })
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
        input: &Snapshot<S::Table<'_>>,
        chosen: Vec<String>,
        candidates: Vec<Candidate>,
        summary: String,
    ) -> Record {
        Record {
            kind: S::INTERFACE.to_owned(),
            policy: self.holder.identity.clone(),
            settings: self.holder.settings.clone(),
            input_digest: input.digest.clone(),
            now: input.now,
            chosen,
            candidates,
            summary,
            stood_in_for: self.stood_in_for,
            fuel: self.answered.fuel,
            notes: self.answered.notes,
        }
    }
}
