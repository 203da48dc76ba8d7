//! `vmetal_node_pool`: N tenant nodes as one resource.
//!
//! The engine knows tenant nodes, not pools: a pool is the tenant nodes that carry its label, named `<pool>-0`, `<pool>-1`
//! and so on. As one resource they are waited for on one stream (`watch`), whatever Terraform's parallelism, and can be
//! placed together, all or none. Growing and shrinking changes only the difference.
//!
//! One member that fails must not cost the others their servers, and a wait that ends early must not cost the pool its place
//! among those that wait. So an apply that does not bring every member to its end taints nothing as long as any member has a
//! host or is on its way: a create succeeds with a warning and leaves a note, and the next apply goes on; an update fails and
//! leaves the pool as it is.

mod watch;

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt as _, stream};
use tfplugin::{
    Apply as ApplyRequest, Attribute, Ctx, Diagnostic, Diagnostics, IdentitySchema, Imported, Named, Outcome, Path,
    Pending, Private, Read, Resource, Schema, Severity, Type, Value,
    plan::{Change, Plan, empty_object},
    schema::{Nesting, Usage, Validator},
};
use vmetal_api::{Apply, Client, Precondition, Secrets};
use vmetal_model::{GroupSpec, Kind as ModelKind, TenantNode, TenantNodePhase, TenantNodeSpec, Validate};

use self::watch::{Ended, Members};
use crate::{
    convert::{last_error_attribute, name_attribute, text},
    explain::{invalid, refused, span},
    foresee,
    managed::{CLAIM, Managed, WAITING, claim},
    provider::Engine,
    tenant_node::TenantNodes,
    timeouts::Timeouts,
    wish,
};

/// The label by which a tenant node is known to belong to a pool.
const POOL: &str = "vmetal.io/node-pool";
const TIMEOUTS: Timeouts = Timeouts::minutes(90);
/// Calls to the engine under way at the same time.
const CALLS: usize = 16;
/// The longest name of a pool: its members' names have a number after it, and must be DNS labels.
const LONGEST_NAME: usize = 58;
/// How many failed members are told about at length.
const TOLD: usize = 3;

/// The resource type.
pub(crate) struct NodePools;

/// What a pool is to be.
struct Wanted {
    name: String,
    size: u32,
    spec: TenantNodeSpec,
    secrets: Secrets,
    wait_for: String,
}

impl Wanted {
    fn of(planned: &Value, config: &Value) -> Result<Self, Diagnostic> {
        let name = text(planned.attr("name")).unwrap_or_default();
        let size = planned.attr("size").as_i64().and_then(|size| u32::try_from(size).ok()).unwrap_or_default();
        let together = planned.attr("together");
        let group =
            (!together.is_null()).then(|| GroupSpec { name: name.clone(), size, same: text(together.attr("same")) });
        Ok(Self {
            spec: TenantNodeSpec { group, ..wish::spec(planned)? },
            secrets: wish::secrets(config),
            wait_for: text(planned.attr("wait_for")).unwrap_or_else(|| "ready".to_owned()),
            name,
            size,
        })
    }

    /// The declaration of one member. Members of one group must say the same of it, also those that come later.
    fn member(&self, number: u32, group: Option<&GroupSpec>) -> Result<Apply, Diagnostic> {
        let group = group.or(self.spec.group.as_ref()).cloned();
        let spec = TenantNodeSpec { group, ..self.spec.clone() };
        let apply = Apply::new::<TenantNode>(format!("{}-{number}", self.name), &spec);
        let mut apply = apply.map_err(|e| Diagnostic::error("The declaration cannot be sent", e.to_string()))?;
        apply.labels = BTreeMap::from([(POOL.to_owned(), self.name.clone())]);
        apply.secrets = self.secrets.clone();
        Ok(apply)
    }
}

/// The number of a member in its pool.
fn number(pool: &str, node: &TenantNode) -> Option<u32> {
    node.name().strip_prefix(pool)?.strip_prefix('-')?.parse().ok()
}

/// Members that a smaller pool gives up first: those without a server, then the youngest.
fn dispensable(pool: &str, nodes: &[TenantNode]) -> Vec<TenantNode> {
    let mut order = nodes.to_vec();
    order.sort_by_key(|node| {
        let works = node.status.phase == TenantNodePhase::Ready;
        (works, node.status.host.is_some(), std::cmp::Reverse(number(pool, node)))
    });
    order
}

async fn members(client: &Client, pool: &str) -> Result<Vec<TenantNode>, Diagnostics> {
    let labels = BTreeMap::from([(POOL.to_owned(), pool.to_owned())]);
    let listed = client.list_as::<TenantNode>(&labels).await;
    let mut nodes = listed.map_err(|error| refused::<TenantNodes>(&format!("reading node pool {pool:?}"), error))?;
    nodes.sort_by_key(|node| number(pool, node));
    Ok(nodes)
}

/// What the engine has of a pool, as attributes.
fn observe(state: &mut Value, nodes: &[TenantNode]) {
    let node = |node: &TenantNode| {
        let status = &node.status;
        let decision = status.decision.as_ref();
        Value::object([
            ("name", Value::from(node.name())),
            ("phase", status.phase.as_str().into()),
            ("host", status.host.clone().into()),
            ("address", status.lease.as_ref().map(|lease| lease.address.to_string()).into()),
            ("node_name", status.node_name.clone().into()),
            ("chosen_node_type", decision.and_then(|decision| decision.node_type.clone()).into()),
            ("cost", decision.and_then(|decision| decision.cost).into()),
            ("last_error", status.failure.as_ref().map(ToString::to_string).into()),
        ])
    };
    let ready = nodes.iter().filter(|node| node.status.phase == TenantNodePhase::Ready).count();
    let cost: u64 = nodes.iter().filter_map(|node| node.status.decision.as_ref()?.cost).sum();
    state.set("nodes", Value::List(nodes.iter().map(node).collect()));
    state.set("ready", ready as u64);
    state.set("cost", cost);
}

/// The state of a pool from its members alone.
fn describe(state: &mut Value, pool: &str, nodes: &[TenantNode]) {
    state.set("id", pool);
    state.set("name", pool);
    state.set("size", nodes.len() as u64);
    if let Some(first) = nodes.first() {
        let together =
            first.spec.group.as_ref().map(|group| Value::object([("same", Value::from(group.same.clone()))]));
        state.set("together", together);
    }
    // They are all to be the same: the first that differs from what is known is what a plan has to put right.
    let known = state.clone();
    for node in nodes {
        wish::recall(state, &node.spec);
        if *state != known {
            break;
        }
    }
    observe(state, nodes);
}

/// What is done, and how an end that is not the wanted one is told.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    Create,
    Update,
}

impl NodePools {
    pub(crate) fn register() -> Named<dyn Resource<Engine>> {
        ("vmetal_node_pool", Arc::new(Self))
    }

    /// Brings the members to what is wanted, and waits for them.
    async fn settle(ctx: &Ctx<Engine>, request: &ApplyRequest, step: Step) -> Result<Outcome, Diagnostics> {
        let run = ctx.client()?.run()?;
        let client = &run.client;
        let wanted = Wanted::of(&request.planned, &request.config)?;
        let timeouts = TIMEOUTS.with(request.planned.attr("timeouts"));
        let within = if step == Step::Create { timeouts.create } else { timeouts.update };
        let before = match step {
            Step::Create => {
                Self::is_free(client, &wanted).await?;
                Vec::new()
            }
            Step::Update => {
                members(client, &wanted.name).await?.into_iter().filter(|node| !node.is_deleted()).collect()
            }
        };
        let mut private = request.private.clone();
        private.set(WAITING, wanted.wait_for.clone());
        let state_of = |nodes: &[TenantNode]| {
            let mut state = request.planned.without_unknowns();
            state.set("id", wanted.name.clone());
            observe(&mut state, nodes);
            state
        };
        let (kept, leaving) = Self::shrink(client, &wanted, &before).await?;
        let mut told = Diagnostics::new();
        let (mut nodes, failed) = Self::drained(client, &wanted, kept).await;
        told.extend(failed);
        let (made, failed) = Self::grow(ctx, client, &wanted, &nodes, within).await;
        told.extend(failed);
        nodes.extend(made);
        if nodes.is_empty() && step == Step::Create {
            // Whoever was quicker has made the pool, and that says more than that its first member is there.
            Self::is_free(client, &wanted).await?;
            return Err(told);
        }
        ctx.checkpoint(state_of(&nodes), private.clone());
        let mut members = Members::new(nodes, leaving, &wanted.wait_for);
        let ended = members.wait(ctx, client, within).await;
        // Whatever cut the wait off, the engine goes on, and so does the next apply.
        let cut_off = !matches!(ended, Ended::Settled);
        told.extend(Self::ended(ctx, &wanted, &members, ended, within).await);
        let mut nodes = members.nodes();
        nodes.sort_by_key(|node| number(&wanted.name, node));
        if told.is_empty() {
            private.remove(WAITING);
            nodes.iter().for_each(|node| Managed::<TenantNodes>::release_claim(ctx, run, node));
        }
        let hosted = nodes.iter().any(|node| node.status.host.is_some());
        let diagnostics = if step == Step::Create && (hosted || cut_off) { lenient(told) } else { told };
        Ok(Outcome { state: state_of(&nodes), private, diagnostics })
    }

    /// Refuses a name under which somebody has a pool already: of one pool in two states, each would manage the other's members.
    /// Members that an apply of this declaration made before it was cut off carry its claim.
    async fn is_free(client: &Client, wanted: &Wanted) -> Result<(), Diagnostics> {
        let name = &wanted.name;
        for node in members(client, name).await?.iter().filter(|node| !node.is_deleted()) {
            let ours = number(name, node).map(|number| wanted.member(number, None)).transpose()?;
            let ours = ours.map(|apply| claim(&apply));
            if ours.is_none() || node.metadata.annotations.get(CLAIM) != ours.as_ref() {
                let detail = format!(
                    "The engine has tenant node {:?}, which belongs to a node pool {name:?} that this configuration did not \
                     make, so it is left alone.\n\nTo manage that pool here, import it: terraform import \
                     vmetal_node_pool.<name> {name}\nOtherwise choose another name, or delete it first.",
                    node.name()
                );
                let told = Diagnostic::error(format!("The node pool {name:?} exists already"), detail);
                return Err(told.at(Path::attr("name")).into());
            }
        }
        Ok(())
    }

    /// Asks for the deletion of what is too many. Answers what stays and what goes.
    async fn shrink(
        client: &Client,
        wanted: &Wanted,
        before: &[TenantNode],
    ) -> Result<(Vec<TenantNode>, Vec<TenantNode>), Diagnostics> {
        let surplus = before.len().saturating_sub(wanted.size as usize);
        let order = dispensable(&wanted.name, before);
        let (leaving, kept) = order.split_at(surplus);
        for node in leaving {
            let deleted = client.delete(ModelKind::TenantNode, node.name(), Some(&node.metadata.uid)).await;
            deleted
                .map_err(|error| refused::<TenantNodes>(&format!("removing tenant node {:?}", node.name()), error))?;
        }
        Ok((kept.to_vec(), leaving.to_vec()))
    }

    /// Tells members how they are to be emptied: all that can change of one that exists.
    async fn drained(client: &Client, wanted: &Wanted, nodes: Vec<TenantNode>) -> (Vec<TenantNode>, Diagnostics) {
        let mut told = Diagnostics::new();
        let mut changed = Vec::new();
        for node in nodes {
            if node.spec.drain == wanted.spec.drain {
                changed.push(node);
                continue;
            }
            let spec = TenantNodeSpec { drain: wanted.spec.drain.clone(), ..node.spec.clone() };
            let applied = match Apply::new::<TenantNode>(node.name(), &spec) {
                Ok(mut apply) => {
                    apply.labels = node.metadata.labels.clone();
                    apply.annotations = node.metadata.annotations.clone();
                    apply.precondition = Precondition::Uid(node.metadata.uid.clone());
                    client.apply_as::<TenantNode>(apply).await
                }
                Err(error) => Err(error.into()),
            };
            match applied {
                Ok(node) => changed.push(node),
                Err(error) => {
                    told.extend(refused::<TenantNodes>(&format!("changing tenant node {:?}", node.name()), error));
                    changed.push(node);
                }
            }
        }
        (changed, told)
    }

    /// Declares what is missing. Where there is nothing yet, the first member goes ahead alone: of two applies that make the same
    /// pool at once one has it then, and the other has made nothing that would have to be taken back.
    async fn grow(
        ctx: &Ctx<Engine>,
        client: &Client,
        wanted: &Wanted,
        nodes: &[TenantNode],
        within: std::time::Duration,
    ) -> (Vec<TenantNode>, Diagnostics) {
        let taken: Vec<u32> = nodes.iter().filter_map(|node| number(&wanted.name, node)).collect();
        let missing = (wanted.size as usize).saturating_sub(nodes.len());
        let group = nodes.first().and_then(|node| node.spec.group.as_ref());
        let mut free = (0u32..).filter(|number| !taken.contains(number)).take(missing);
        let declare = |number: u32| async move {
            let apply = wanted.member(number, group)?;
            Managed::<TenantNodes>::declare(ctx, client, apply, within).await
        };
        let mut told = Diagnostics::new();
        let mut made = Vec::new();
        if nodes.is_empty()
            && let Some(first) = free.next()
        {
            match declare(first).await {
                Ok(node) => made.push(node),
                Err(failed) => return (made, failed),
            }
        }
        let answers: Vec<_> = stream::iter(free.map(declare)).buffer_unordered(CALLS).collect().await;
        for answer in answers {
            match answer {
                Ok(node) => made.push(node),
                Err(failed) => told.extend(failed),
            }
        }
        (made, told)
    }

    /// How the wait ended, in words; nothing where everything is as wanted.
    async fn ended(
        ctx: &Ctx<Engine>,
        wanted: &Wanted,
        members: &Members,
        ended: Ended,
        within: std::time::Duration,
    ) -> Diagnostics {
        let summary = format!("Node pool {:?} is not finished yet", wanted.name);
        let rest = "The engine goes on by itself, and nothing is lost. Run terraform apply again to go on waiting.";
        let open = members.open(TOLD);
        let mut told: Diagnostics = match ended {
            Ended::Settled => Diagnostics::new(),
            Ended::Cancelled => {
                Diagnostic::error(summary, format!("You asked Terraform to stop. {rest}\n\n{open}")).into()
            }
            Ended::Deadline => {
                let detail =
                    format!("Not every member was {} within {}. {rest}\n\n{open}", wanted.wait_for, span(within));
                Diagnostic::error(summary, detail).into()
            }
            Ended::Refused(error) => refused::<TenantNodes>(&format!("waiting for node pool {:?}", wanted.name), error),
        };
        if let Ok(client) = ctx.client().and_then(|engine| engine.client()) {
            told.extend(members.failures(client, &wanted.name, TOLD).await);
        }
        told
    }

    async fn look(ctx: &Ctx<Engine>, request: &Read) -> Result<Outcome, Diagnostics> {
        let client = ctx.client()?.client()?;
        let pool = text(request.state.attr("name")).unwrap_or_default();
        let nodes = members(client, &pool).await?;
        let staying: Vec<TenantNode> = nodes.into_iter().filter(|node| !node.is_deleted()).collect();
        if staying.is_empty() {
            return Ok(Outcome::gone());
        }
        let mut state = request.state.clone();
        describe(&mut state, &pool, &staying);
        Ok(Outcome::new(state, request.private.clone()))
    }

    async fn remove(ctx: &Ctx<Engine>, request: &Read) -> Result<(), Diagnostics> {
        let client = ctx.client()?.client()?;
        let pool = text(request.state.attr("name")).unwrap_or_default();
        let nodes = members(client, &pool).await?;
        let none = Wanted {
            name: pool.clone(),
            size: 0,
            spec: TenantNodeSpec::default(),
            secrets: Secrets::new(),
            wait_for: "none".to_owned(),
        };
        let (_, leaving) = Self::shrink(client, &none, &nodes).await?;
        let within = TIMEOUTS.with(request.state.attr("timeouts")).delete;
        let mut members = Members::new(Vec::new(), leaving, "none");
        let unfinished = |why: String, members: &Members| {
            let rest = "The engine goes on removing it by itself; run the same command again to wait for it.";
            let detail = format!("{why} {rest}\n\n{}", members.open(TOLD));
            Diagnostics::from(Diagnostic::error(format!("Node pool {pool:?} is not removed yet"), detail))
        };
        match members.wait(ctx, client, within).await {
            Ended::Settled => Ok(()),
            Ended::Cancelled => Err(unfinished("You asked Terraform to stop.".to_owned(), &members)),
            Ended::Deadline => Err(unfinished(format!("Not every member was gone within {}.", span(within)), &members)),
            Ended::Refused(error) => Err(refused::<TenantNodes>(&format!("removing node pool {pool:?}"), error)),
        }
    }

    async fn find(ctx: &Ctx<Engine>, pool: &str) -> Result<Imported, Diagnostics> {
        let client = ctx.client()?.client()?;
        let nodes = members(client, pool).await?;
        if nodes.is_empty() {
            let detail =
                format!("The engine at {} has no tenant node with the label {POOL}={pool}.", client.endpoint());
            return Err(Diagnostic::error(format!("There is no node pool {pool:?}"), detail).into());
        }
        let mut state = empty_object(&Self.schema());
        state.set("wait_for", "ready");
        describe(&mut state, pool, &nodes);
        Ok(Imported { state, private: Private::default() })
    }
}

/// Errors as warnings: what was made is kept and gone on with.
fn lenient(diagnostics: Diagnostics) -> Diagnostics {
    diagnostics.into_iter().map(|told| Diagnostic { severity: Severity::Warning, ..told }).collect()
}

fn nodes_attribute() -> Attribute {
    let computed = |ty: Type, what: &str| Attribute::computed(ty).describe(what);
    let node = [
        ("name", computed(Type::String, "Name of the tenant node.")),
        ("phase", computed(Type::String, "How far it is.")),
        ("host", computed(Type::String, "Its host.")),
        ("address", computed(Type::String, "Its host's address of the node's network; null without a network.")),
        ("node_name", computed(Type::String, "Name of the Node in the tenant's cluster.")),
        ("chosen_node_type", computed(Type::String, "Its node type.")),
        ("cost", computed(Type::Number, "The node type's cost.")),
        ("last_error", last_error_attribute()),
    ];
    Attribute::nested(Nesting::List, Usage::Computed, node).describe("The members, by number.")
}

impl Resource<Engine> for NodePools {
    fn schema(&self) -> Schema {
        let same = Attribute::optional(Type::String)
            .describe("A label whose value must be the same on all hosts of the pool, such as `rack`.");
        let own = [
            ("id", Attribute::computed(Type::String).use_state_for_unknown().describe("The pool's name.")),
            ("name", name_attribute("pool")),
            (
                "size",
                Attribute::required(Type::Number)
                    .validate(Validator::integer(1, i64::from(GroupSpec::LARGEST)))
                    .describe("How many tenant nodes there are. A smaller pool gives up members without a server first, then the youngest."),
            ),
            (
                "together",
                Attribute::nested(Nesting::Single, Usage::Optional, [("same", same)]).requires_replace().describe(
                    "Place the pool as one: all members get their hosts in one step, or none does. Members that are added \
                     later follow the first ones.",
                ),
            ),
            (
                "wait_for",
                Attribute::optional(Type::String)
                    .default("ready")
                    .validate(Validator::one_of(&["ready", "scheduled", "none"]))
                    .describe("What an apply waits for, of every member: `ready` (default), `scheduled` or `none`."),
            ),
            ("plan_check", foresee::attribute()),
            ("timeouts", TIMEOUTS.attribute()),
            ("nodes", nodes_attribute()),
            ("ready", Attribute::computed(Type::Number).describe("How many members are ready.")),
            ("cost", Attribute::computed(Type::Number).describe("What the members cost together.")),
        ];
        Schema::new(
            "Tenant nodes of one kind as one resource: they are waited for together, however many there are, and can be \
             placed all or none. Members are named `<name>-0`, `<name>-1` and so on.",
            own.into_iter().chain(wish::attributes()),
        )
    }

    fn identity(&self) -> Option<IdentitySchema> {
        Some(IdentitySchema::new().required("name", Type::String, "The pool's name."))
    }

    fn validate(&self, config: &Value) -> Diagnostics {
        let mut found = Diagnostics::new();
        if let Some(name) = config.attr("name").as_str().filter(|name| name.len() > LONGEST_NAME) {
            let detail = format!(
                "{name:?} has {} characters; expected at most {LONGEST_NAME}, because its members' names have a number after it.",
                name.len()
            );
            found.push(Diagnostic::error("Name too long", detail).at(Path::attr("name")));
        }
        let open = self.schema().without_write_only(config);
        if open.is_wholly_known()
            && let Ok(wanted) = Wanted::of(&open, &open)
        {
            let errors = wanted.spec.validate();
            let own = errors.iter().filter(|error| !error.path.starts_with("spec.group.name"));
            found.extend(own.map(invalid::<TenantNodes>));
        }
        found
    }

    fn plan<'a>(&'a self, ctx: &'a Ctx<Engine>, plan: &'a mut Plan) -> Pending<'a, Diagnostics> {
        Box::pin(async move {
            let title = format!("Node pool {}", plan.planned.attr("name").as_str().unwrap_or_default());
            if plan.change() == Change::Create {
                let (Ok(engine), Ok(wanted)) = (ctx.client(), Wanted::of(&plan.planned, &Value::Null)) else {
                    return Diagnostics::new();
                };
                let title = format!("node pool {:?}", wanted.name);
                return foresee::foresee(engine, &plan.planned, wanted.spec, wanted.size, &title).await;
            }
            if !plan.replace.is_empty() {
                let why: Vec<_> = plan.replace.iter().map(Path::to_string).collect();
                return erased(&plan.prior, &format!("A change of {} installs every member anew.", why.join(", ")));
            }
            let size = |value: &Value| value.attr("size").as_i64().unwrap_or_default();
            let fewer = size(&plan.prior) - size(&plan.planned);
            if fewer > 0 && plan.planned.attr("size").is_known() {
                return Diagnostic::warning(
                    format!("{title} gives up {fewer} of its members"),
                    "Their pods are drained, their Node objects are deleted, and the disks of their hosts are erased.",
                )
                .at(Path::attr("size"))
                .into();
            }
            if plan.private.get(WAITING).is_some() {
                plan.reopen(&self.schema());
                let detail =
                    "An earlier apply did not bring every member to its end. This one goes on where that one stopped.";
                return Diagnostic::warning(format!("{title} is not finished yet"), detail).into();
            }
            Diagnostics::new()
        })
    }

    fn plan_destroy<'a>(
        &'a self,
        _: &'a Ctx<Engine>,
        state: &'a Value,
        _: &'a mut Private,
    ) -> Pending<'a, Diagnostics> {
        Box::pin(async move { erased(state, "The pool is destroyed.") })
    }

    fn create<'a>(&'a self, ctx: &'a Ctx<Engine>, request: ApplyRequest) -> Pending<'a, Outcome> {
        Box::pin(async move {
            let made = Self::settle(ctx, &request, Step::Create).await;
            made.unwrap_or_else(|diagnostics| Outcome { diagnostics, ..Outcome::gone() })
        })
    }

    fn read<'a>(&'a self, ctx: &'a Ctx<Engine>, request: Read) -> Pending<'a, Outcome> {
        Box::pin(async move {
            let seen = Self::look(ctx, &request).await;
            seen.unwrap_or_else(|diagnostics| Outcome { state: request.state, private: request.private, diagnostics })
        })
    }

    fn update<'a>(&'a self, ctx: &'a Ctx<Engine>, request: ApplyRequest) -> Pending<'a, Outcome> {
        Box::pin(async move {
            let changed = Self::settle(ctx, &request, Step::Update).await;
            changed.unwrap_or_else(|diagnostics| Outcome {
                state: request.prior,
                private: request.private,
                diagnostics,
            })
        })
    }

    fn delete<'a>(&'a self, ctx: &'a Ctx<Engine>, request: Read) -> Pending<'a, Outcome> {
        Box::pin(async move {
            match Self::remove(ctx, &request).await {
                Ok(()) => Outcome::gone(),
                Err(diagnostics) => Outcome { state: request.state, private: request.private, diagnostics },
            }
        })
    }

    fn import<'a>(&'a self, ctx: &'a Ctx<Engine>, id: &'a str) -> Pending<'a, Result<Imported, Diagnostics>> {
        Box::pin(Self::find(ctx, id))
    }
}

/// Data on servers is about to go.
fn erased(prior: &Value, why: &str) -> Diagnostics {
    let nodes = prior.attr("nodes").as_list().unwrap_or_default();
    let hosts: Vec<_> = nodes.iter().filter_map(|node| node.attr("host").as_str()).collect();
    if hosts.is_empty() {
        return Diagnostics::new();
    }
    let detail = format!(
        "{why} Pods are drained, Node objects are deleted, and the disks of these hosts are erased: {}.",
        hosts.join(", ")
    );
    Diagnostic::warning(format!("{} hosts will be erased", hosts.len()), detail).into()
}
