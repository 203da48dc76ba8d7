//! `data "vmetal_events"`: the newest events of an object, a kind, or everything.

use std::sync::Arc;

use futures::StreamExt as _;
use tfplugin::{
    Attribute, Ctx, DataSource, Diagnostics, Found, Named, Pending, Schema, Type, Value,
    schema::{Nesting, Usage, Validator},
};
use vmetal_api::EventsQuery;
use vmetal_model::{Event, Kind as ModelKind, Severity};

use crate::{convert::text, explain::refused, host::Hosts, provider::Engine};

/// How many events are shown unless the user says otherwise.
const LIMIT: u32 = 50;
const KINDS: [&str; 5] = ["host", "node_type", "tenant_node", "tenant_cluster", "image"];

/// The data source.
pub(crate) struct Events;

impl Events {
    pub(crate) fn register() -> Named<dyn DataSource<Engine>> {
        ("vmetal_events", Arc::new(Self))
    }

    async fn ask(ctx: &Ctx<Engine>, config: &Value) -> Result<Value, Diagnostics> {
        let client = ctx.client()?.client()?;
        let query = EventsQuery {
            kind: config.attr("kind").as_str().and_then(|kind| kind.parse::<ModelKind>().ok()),
            name: text(config.attr("name")),
            limit: config.attr("limit").as_i64().and_then(|limit| u32::try_from(limit).ok()).or(Some(LIMIT)),
            ..EventsQuery::default()
        };
        let failed = |error| refused::<Hosts>("reading events", error);
        let mut stream = client.events(query).await.map_err(failed)?;
        let mut events = Vec::new();
        while let Some(entry) = stream.next().await {
            events.push(event(&entry.map_err(failed)?.event));
        }
        let mut state = config.clone();
        state.set("events", Value::List(events));
        Ok(state)
    }
}

fn event(event: &Event) -> Value {
    let severity = match event.severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    Value::object([
        ("at", Value::from(event.at.to_string())),
        ("kind", event.kind.as_str().into()),
        ("name", event.name.clone().into()),
        ("severity", severity.into()),
        ("reason", event.reason.clone().into()),
        ("message", event.message.clone().into()),
    ])
}

impl DataSource<Engine> for Events {
    fn schema(&self) -> Schema {
        let computed = |what: &str| Attribute::computed(Type::String).describe(what);
        let event = [
            ("at", computed("When (RFC 3339).")),
            ("kind", computed("The kind of the object.")),
            ("name", computed("The object's name.")),
            ("severity", computed("`info`, `warning` or `error`.")),
            ("reason", computed("A stable word for programs, such as `phase_changed`.")),
            ("message", computed("A sentence for people.")),
        ];
        Schema::new(
            "What happened: the newest events of the engine's record, oldest first.",
            [
                (
                    "kind",
                    Attribute::optional(Type::String)
                        .validate(Validator::one_of(&KINDS))
                        .describe("Only events of this kind of object: `host`, `node_type`, `tenant_node`, `tenant_cluster` or `image`."),
                ),
                ("name", Attribute::optional(Type::String).describe("Only events of the object of this name; needs `kind`.")),
                (
                    "limit",
                    Attribute::optional(Type::Number)
                        .validate(Validator::integer(1, 1000))
                        .describe(format!("At most so many; {LIMIT} when not set.")),
                ),
                ("events", Attribute::nested(Nesting::List, Usage::Computed, event).describe("The events, oldest first.")),
            ],
        )
    }

    fn validate(&self, config: &Value) -> Diagnostics {
        if config.attr("name").is_known() && config.attr("kind").is_null() {
            let detail = "Names are unique within a kind only: set kind as well.";
            return tfplugin::Diagnostic::error("Name without kind", detail).at(tfplugin::Path::attr("name")).into();
        }
        Diagnostics::new()
    }

    fn read<'a>(&'a self, ctx: &'a Ctx<Engine>, config: Value) -> Pending<'a, Found> {
        Box::pin(async move { Self::ask(ctx, &config).await.into() })
    }
}
