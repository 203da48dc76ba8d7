//! The two places that a policy can take, and what differs between them.

use vmetal_policy_sdk::{self as sdk, CostPolicy as _, PlacementPolicy as _, Policy as _};
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

use crate::component::bindings::common::exports::vmetal::policy::explain::Subject;
use crate::component::bindings::common::vmetal::policy::types as wit;
use crate::component::bindings::{self, cost, placement};
use crate::component::sandbox::{Guest, Notes};

/// A place for a policy: its tables, its answers, its native twin and its calls.
///
/// The twin of a seat is the shipped policy compiled into this program: the answer of last resort, whatever component
/// holds the seat.
pub(crate) trait Seat: Sized + Send + Sync + 'static {
    /// What is decided over.
    type Table: Send + Sync;
    /// What comes back.
    type Answer: PartialEq + std::fmt::Debug;
    /// Where the component's functions are.
    type Indices: Send + Sync;
    /// The table as it is lent to a component.
    type Lent<'a>;

    const KIND: sdk::Kind;
    /// The interface that a component of this seat exports.
    const INTERFACE: &'static str;

    fn rows(table: &Self::Table) -> u32;
    fn extra(table: &Self::Table) -> &[sdk::Column];
    fn lend<'a>(table: &'a Self::Table, extra: &'a [wit::Column<'a>]) -> Self::Lent<'a>;
    fn subject<'a>(table: Self::Lent<'a>) -> Subject<'a>;

    fn indices(pre: &InstancePre<Guest>) -> wasmtime::Result<Self::Indices>;
    fn call(
        indices: &Self::Indices,
        store: &mut Store<Guest>,
        instance: &Instance,
        ctx: wit::Context<'_>,
        claim: wit::Claim<'_>,
        table: Self::Lent<'_>,
    ) -> wasmtime::Result<Self::Answer>;

    fn twin_info() -> sdk::Info;
    fn twin_settings(settings: &str) -> Result<Vec<String>, Vec<String>>;
    fn twin_answer(ctx: &sdk::Context, claim: &sdk::Claim, table: &Self::Table, notes: &mut Notes) -> Self::Answer;
    fn twin_explain(ctx: &sdk::Context, claim: &sdk::Claim, table: &Self::Table, row: u32) -> Vec<sdk::Factor>;
}

/// Chooses the node type.
pub(crate) struct CostSeat;
/// Chooses the host.
pub(crate) struct PlacementSeat;

type CostTwin = cost_vcluster::CostVcluster;
type PlacementTwin = place_first_fit::PlaceFirstFit;

impl Seat for CostSeat {
    type Table = sdk::Offers;
    type Answer = sdk::Choice;
    type Indices = cost::OnlyCostIndices;
    type Lent<'a> = wit::Offers<'a>;

    const KIND: sdk::Kind = sdk::Kind::Cost;
    const INTERFACE: &'static str = "cost";

    fn rows(table: &sdk::Offers) -> u32 {
        table.n
    }

    fn extra(table: &sdk::Offers) -> &[sdk::Column] {
        &table.extra
    }

    fn lend<'a>(table: &'a sdk::Offers, extra: &'a [wit::Column<'a>]) -> wit::Offers<'a> {
        bindings::offers(table, extra)
    }

    fn subject<'a>(table: Self::Lent<'a>) -> Subject<'a> {
        Subject::Offers(table)
    }

    fn indices(pre: &InstancePre<Guest>) -> wasmtime::Result<cost::OnlyCostIndices> {
        cost::OnlyCostIndices::new(pre)
    }

    fn call(
        indices: &cost::OnlyCostIndices,
        store: &mut Store<Guest>,
        instance: &Instance,
        ctx: wit::Context<'_>,
        claim: wit::Claim<'_>,
        table: wit::Offers<'_>,
    ) -> wasmtime::Result<sdk::Choice> {
        let exports = indices.load(&mut *store, instance)?;
        let from = exports.vmetal_policy_cost().call_choose(store, ctx, claim, table)?;
        Ok(sdk::Choice { pick: from.pick, prices: from.prices, verdicts: bindings::verdicts(from.verdicts) })
    }

    fn twin_info() -> sdk::Info {
        CostTwin::describe()
    }

    fn twin_settings(settings: &str) -> Result<Vec<String>, Vec<String>> {
        CostTwin::validate_settings(settings)
    }

    fn twin_answer(ctx: &sdk::Context, claim: &sdk::Claim, table: &sdk::Offers, notes: &mut Notes) -> sdk::Choice {
        CostTwin::choose(ctx, claim, table, notes)
    }

    fn twin_explain(ctx: &sdk::Context, claim: &sdk::Claim, table: &sdk::Offers, row: u32) -> Vec<sdk::Factor> {
        CostTwin::explain(ctx, claim, table, row)
    }
}

impl Seat for PlacementSeat {
    type Table = sdk::Hosts;
    type Answer = sdk::Decision;
    type Indices = placement::OnlyPlacementIndices;
    type Lent<'a> = wit::Hosts<'a>;

    const KIND: sdk::Kind = sdk::Kind::Placement;
    const INTERFACE: &'static str = "placement";

    fn rows(table: &sdk::Hosts) -> u32 {
        table.n
    }

    fn extra(table: &sdk::Hosts) -> &[sdk::Column] {
        &table.extra
    }

    fn lend<'a>(table: &'a sdk::Hosts, extra: &'a [wit::Column<'a>]) -> wit::Hosts<'a> {
        bindings::hosts(table, extra)
    }

    fn subject<'a>(table: Self::Lent<'a>) -> Subject<'a> {
        Subject::Hosts(table)
    }

    fn indices(pre: &InstancePre<Guest>) -> wasmtime::Result<placement::OnlyPlacementIndices> {
        placement::OnlyPlacementIndices::new(pre)
    }

    fn call(
        indices: &placement::OnlyPlacementIndices,
        store: &mut Store<Guest>,
        instance: &Instance,
        ctx: wit::Context<'_>,
        claim: wit::Claim<'_>,
        table: wit::Hosts<'_>,
    ) -> wasmtime::Result<sdk::Decision> {
        let exports = indices.load(&mut *store, instance)?;
        let from = exports.vmetal_policy_placement().call_place(store, ctx, claim, table)?;
        Ok(sdk::Decision { picks: from.picks, verdicts: bindings::verdicts(from.verdicts) })
    }

    fn twin_info() -> sdk::Info {
        PlacementTwin::describe()
    }

    fn twin_settings(settings: &str) -> Result<Vec<String>, Vec<String>> {
        PlacementTwin::validate_settings(settings)
    }

    fn twin_answer(ctx: &sdk::Context, claim: &sdk::Claim, table: &sdk::Hosts, notes: &mut Notes) -> sdk::Decision {
        PlacementTwin::place(ctx, claim, table, notes)
    }

    fn twin_explain(ctx: &sdk::Context, claim: &sdk::Claim, table: &sdk::Hosts, row: u32) -> Vec<sdk::Factor> {
        PlacementTwin::explain(ctx, claim, table, row)
    }
}
