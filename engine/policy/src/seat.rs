//! The two places that a policy can take, and what differs between them.

use vmetal_policy_sdk::{self as sdk, CostPolicy, PlacementPolicy};
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

use crate::component::bindings::common::exports::vmetal::policy::explain::Subject;
use crate::component::bindings::common::vmetal::policy::types as wit;
use crate::component::bindings::{self, cost, placement};
use crate::component::sandbox::Guest;

/// A place for a policy: its tables, its answers, the shipped policies and its calls.
pub(crate) trait Seat: Sized + Send + Sync + 'static {
    /// What is decided over.
    type Table<'a>: Send + Sync;
    /// What comes back.
    type Answer: PartialEq + std::fmt::Debug;
    /// Where the component's functions are.
    type Indices: Send + Sync;
    /// The table as it is lent to a component.
    type Lent<'a>;

    const KIND: sdk::Kind;
    /// The interface that a component of this seat exports.
    const INTERFACE: &'static str;
    /// The shipped policies as compiled into this program. The first is the default.
    const SHIPPED: &'static [Native<Self>];

    fn rows(table: &Self::Table<'_>) -> u32;
    fn extra<'a>(table: &'a Self::Table<'_>) -> &'a [sdk::Column<'a>];
    fn lend<'a>(table: &'a Self::Table<'_>, extra: &'a [wit::Column<'a>]) -> Self::Lent<'a>;
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

    /// The shipped policy of this name.
    fn shipped(name: &str) -> Option<&'static Native<Self>> {
        Self::SHIPPED.iter().find(|native| native.name == name)
    }
}

type Answer<S> =
    for<'a> fn(&sdk::Context, &sdk::Claim, &<S as Seat>::Table<'a>, &mut dyn sdk::Log) -> <S as Seat>::Answer;
type Explain<S> = for<'a> fn(&sdk::Context, &sdk::Claim, &<S as Seat>::Table<'a>, u32) -> Vec<sdk::Factor>;

/// A shipped policy as compiled into this program: the native twin of its component.
pub(crate) struct Native<S: Seat> {
    pub(crate) name: &'static str,
    pub(crate) describe: fn() -> sdk::Info,
    pub(crate) settings: fn(&str) -> Result<Vec<String>, Vec<String>>,
    pub(crate) schema: fn() -> String,
    pub(crate) answer: Answer<S>,
    pub(crate) explain: Explain<S>,
}

const fn cost_policy<P: CostPolicy>(name: &'static str) -> Native<CostSeat> {
    Native {
        name,
        describe: P::describe,
        settings: P::validate_settings,
        schema: P::settings_schema,
        answer: |ctx, claim, table, log| P::choose(ctx, claim, table, log),
        explain: |ctx, claim, table, row| P::explain(ctx, claim, table, row),
    }
}

const fn placement_policy<P: PlacementPolicy>(name: &'static str) -> Native<PlacementSeat> {
    Native {
        name,
        describe: P::describe,
        settings: P::validate_settings,
        schema: P::settings_schema,
        answer: |ctx, claim, table, log| P::place(ctx, claim, table, log),
        explain: |ctx, claim, table, row| P::explain(ctx, claim, table, row),
    }
}

/// Chooses the node type.
pub(crate) struct CostSeat;
/// Chooses the host.
pub(crate) struct PlacementSeat;

impl Seat for CostSeat {
    type Table<'a> = sdk::Offers;
    type Answer = sdk::Choice;
    type Indices = cost::OnlyCostIndices;
    type Lent<'a> = wit::Offers<'a>;

    const KIND: sdk::Kind = sdk::Kind::Cost;
    const INTERFACE: &'static str = "cost";
    const SHIPPED: &'static [Native<Self>] = &[
        cost_policy::<cost_vcluster::CostVcluster>("cost-vcluster"),
        cost_policy::<cost_effective::CostEffective>("cost-effective"),
    ];

    fn rows(table: &sdk::Offers) -> u32 {
        table.n
    }

    fn extra(table: &sdk::Offers) -> &[sdk::Column<'_>] {
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
}

impl Seat for PlacementSeat {
    type Table<'a> = sdk::Hosts<'a>;
    type Answer = sdk::Decision;
    type Indices = placement::OnlyPlacementIndices;
    type Lent<'a> = wit::Hosts<'a>;

    const KIND: sdk::Kind = sdk::Kind::Placement;
    const INTERFACE: &'static str = "placement";
    const SHIPPED: &'static [Native<Self>] = &[
        placement_policy::<place_balanced::PlaceBalanced>("place-balanced"),
        placement_policy::<place_first_fit::PlaceFirstFit>("place-first-fit"),
        placement_policy::<place_gang_topology::PlaceGangTopology>("place-gang-topology"),
        placement_policy::<place_spread::PlaceSpread>("place-spread"),
        placement_policy::<place_quarantine::PlaceQuarantine>("place-quarantine"),
    ];

    fn rows(table: &sdk::Hosts<'_>) -> u32 {
        table.n
    }

    fn extra<'a>(table: &'a sdk::Hosts<'_>) -> &'a [sdk::Column<'a>] {
        &table.extra
    }

    fn lend<'a>(table: &'a sdk::Hosts<'_>, extra: &'a [wit::Column<'a>]) -> wit::Hosts<'a> {
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
}

/// The shipped policies of a kind, by name; the first is the default.
pub fn shipped(kind: sdk::Kind) -> Vec<&'static str> {
    match kind {
        sdk::Kind::Cost => CostSeat::SHIPPED.iter().map(|native| native.name).collect(),
        sdk::Kind::Placement => PlacementSeat::SHIPPED.iter().map(|native| native.name).collect(),
    }
}
