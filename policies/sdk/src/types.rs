//! The words of the boundary as plain Rust, field for field as in `policies/wit/policy.wit`, which documents them.

use std::borrow::Cow;

/// A string of this snapshot, as a number. Zero is the empty string; equality is all that it means.
pub type Sym = u32;

/// What every call receives besides its subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    /// The operator's settings as JSON text, already validated; empty when there are none.
    pub settings: String,
    /// The strings that the policy asked for, in that order; zero where this snapshot does not have it.
    pub symbols: Vec<Sym>,
    /// The time of the decision, in seconds since 1970-01-01 UTC.
    pub now: u64,
    /// The only allowed source of arbitrary choice.
    pub seed: u64,
}

/// An amount of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity {
    /// The resource's name.
    pub resource: Sym,
    /// Thousandths of its unit.
    pub milli: u64,
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// The value is one of the given ones.
    In,
    /// The label is absent or its value is none of the given ones.
    NotIn,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The value is an integer greater than the bound.
    Greater,
    /// The value is an integer less than the bound.
    Less,
}

/// A condition on a label, which the engine has applied already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: Sym,
    /// The comparison.
    pub operator: Operator,
    /// The values of `In` and `NotIn`.
    pub values: Vec<Sym>,
    /// The bound of `Greater` and `Less`.
    pub number: i64,
}

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// The claim's name.
    pub id: Sym,
    /// The tenant cluster that the node is for.
    pub tenant_cluster: Sym,
    /// How many candidates are wanted, all or none.
    pub count: u32,
    /// Processors asked for, in thousandths.
    pub cpu_milli: u64,
    /// Memory asked for, in bytes.
    pub memory_bytes: u64,
    /// Every other resource that is asked for.
    pub resources: Vec<Quantity>,
    /// Conditions on labels.
    pub requirements: Vec<Requirement>,
}

/// A fact added after this version was frozen. [`crate::column`] lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column<'a> {
    /// What the column holds; unknown numbers are ignored.
    pub number: u16,
    /// One entry per row.
    pub cells: Cow<'a, [u64]>,
}

/// Node types on offer, one list per fact.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offers {
    /// The number of rows.
    pub n: u32,
    /// Name of the node type.
    pub name: Vec<Sym>,
    /// Position of the name among all names, in byte order.
    pub rank: Vec<u32>,
    /// Zero, or why the row must not be chosen; see [`crate::gate`].
    pub gate: Vec<u32>,
    /// Processors, in thousandths.
    pub cpu_milli: Vec<u64>,
    /// Memory, in bytes.
    pub memory_bytes: Vec<u64>,
    /// The operator's price in millionths of a cost unit, or zero.
    pub explicit_cost: Vec<i64>,
    /// Hosts of the type.
    pub total: Vec<u32>,
    /// Those of them that are free.
    pub free: Vec<u32>,
    /// Where each row's other resources begin; n + 1 entries.
    pub resource_at: Vec<u32>,
    /// Names of the other resources.
    pub resource_name: Vec<Sym>,
    /// Amounts of the other resources, in thousandths.
    pub resource_milli: Vec<u64>,
    /// Later facts.
    pub extra: Vec<Column<'static>>,
}

/// Hosts, one list per fact. Lists are borrowed from the engine in a native twin and owned in a component.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts<'a> {
    /// The number of rows.
    pub n: u32,
    /// Name of the host.
    pub name: Cow<'a, [Sym]>,
    /// Position of the name among all names, in byte order.
    pub rank: Cow<'a, [u32]>,
    /// Zero, or why the row must not be chosen; see [`crate::gate`].
    pub gate: Cow<'a, [u32]>,
    /// Processors, in thousandths.
    pub cpu_milli: Cow<'a, [u64]>,
    /// Memory, in bytes.
    pub memory_bytes: Cow<'a, [u64]>,
    /// Number of accelerators.
    pub gpus: Cow<'a, [u32]>,
    /// Their model.
    pub gpu_model: Cow<'a, [Sym]>,
    /// The tenant cluster that used the host last.
    pub last_tenant: Cow<'a, [Sym]>,
    /// When it was released, in seconds since 1970-01-01 UTC, or zero.
    pub last_release: Cow<'a, [u64]>,
    /// How often the host was provisioned.
    pub provisions: Cow<'a, [u32]>,
    /// Names of the failure-domain levels, from the widest to the narrowest.
    pub levels: Cow<'a, [Sym]>,
    /// n rows of one entry per level.
    pub domains: Cow<'a, [Sym]>,
    /// Where each row's labels begin; n + 1 entries.
    pub label_at: Cow<'a, [u32]>,
    /// Label keys, within a row in the order of their names.
    pub label_key: Cow<'a, [Sym]>,
    /// Label values.
    pub label_value: Cow<'a, [Sym]>,
    /// Later facts.
    pub extra: Vec<Column<'a>>,
}

/// What a policy found about one row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// 0: may be chosen; the engine's codes up to [`crate::gate::LAST`]; the policy's own above.
    pub code: u32,
    /// A detail; its meaning is in the reason table.
    pub arg: u32,
    /// The larger the better.
    pub score: i64,
}

impl Verdict {
    /// The engine's gate passed on, with the policy's score.
    pub fn ranked(gate: u32, score: i64) -> Self {
        Verdict { code: gate, arg: 0, score }
    }
}

/// What kind of decision a policy takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Node types.
    Cost,
    /// Hosts.
    Placement,
}

/// What a verdict's argument means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arg {
    /// Nothing.
    None,
    /// A number.
    Number,
    /// A symbol.
    Sym,
}

/// One reason that a policy may give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// From [`crate::gate::FIRST_OWN`] on.
    pub code: u32,
    /// For people; `{}` is replaced by the argument.
    pub text: String,
    /// What the argument means.
    pub arg: Arg,
}

/// What a policy says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Its name.
    pub name: String,
    /// Its own version, for people.
    pub version: String,
    /// The decision that it takes.
    pub kind: Kind,
    /// The reasons that it may give.
    pub reasons: Vec<Reason>,
}

/// The answer of a cost policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// The chosen row.
    pub pick: Option<u32>,
    /// One price per row, in millionths of a cost unit.
    pub prices: Vec<i64>,
    /// One per row.
    pub verdicts: Vec<Verdict>,
}

/// The answer of a placement policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// The chosen rows, best first: as many as the claim wants, or none.
    pub picks: Vec<u32>,
    /// One per row.
    pub verdicts: Vec<Verdict>,
}

impl Decision {
    /// Chooses the rows with the best scores among those whose verdict is 0, all that the claim wants or none. Equal
    /// scores go by name, so that the order of rows never matters.
    pub fn best(claim: &Claim, hosts: &Hosts<'_>, verdicts: Vec<Verdict>) -> Self {
        let feasible = (0u32..)
            .zip(verdicts.iter().zip(hosts.rank.iter()))
            .filter(|(_, (verdict, _))| verdict.code == crate::gate::OPEN)
            .map(|(row, (verdict, rank))| (verdict.score, *rank, row));
        let order = |a: &(i64, u32, u32), b: &(i64, u32, u32)| b.0.cmp(&a.0).then(a.1.cmp(&b.1));
        // Nearly every claim wants one: nothing has to be put in order for it.
        if claim.count == 1 {
            let best = feasible.min_by(order);
            return Decision { picks: best.map(|(_, _, row)| row).into_iter().collect(), verdicts };
        }
        let mut feasible: Vec<(i64, u32, u32)> = feasible.collect();
        let wanted = claim.count as usize;
        if feasible.len() < wanted {
            return Decision { picks: Vec::new(), verdicts };
        }
        // A claim wants few of many: only those are put in order.
        if let Some(last) = wanted.checked_sub(1) {
            feasible.select_nth_unstable_by(last, order);
        }
        feasible.truncate(wanted);
        feasible.sort_unstable_by(order);
        Decision { picks: feasible.into_iter().map(|(_, _, row)| row).collect(), verdicts }
    }
}

/// A named part of a price or score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Factor {
    /// What the part is for.
    pub label: String,
    /// How much of the whole it is.
    pub amount: i64,
}

impl Factor {
    /// A part with its name.
    pub fn new(label: impl Into<String>, amount: i64) -> Self {
        Factor { label: label.into(), amount }
    }
}

/// How much a note of a policy matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For the policy's author.
    Debug,
    /// For the operator.
    Info,
    /// For the operator, soon.
    Warn,
}
