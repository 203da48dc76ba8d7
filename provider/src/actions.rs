//! Actions: operators' orders about hosts, from a configuration (Terraform 1.14 and later).

use std::{sync::Arc, time::Duration};

use tfplugin::{
    Action, Attribute, Ctx, Diagnostic, Diagnostics, Named, Path, Pending, Progress, Schema, Type, Value,
    schema::Validator,
};
use vmetal_model::{Host, HostAction, Timestamp};

use crate::{
    convert::{duration, parsed, text},
    explain::{circumstances, refused, span},
    host::Hosts,
    kind::Kind as _,
    provider::Engine,
    wait::{Ended, Wait},
};

/// How long an action that waits does so unless the user says otherwise.
const PATIENCE: Duration = Duration::from_secs(90 * 60);

/// One kind of order.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Inspect,
    ReleaseFromQuarantine,
    SetMaintenance,
    EndMaintenance,
}

/// All of them.
pub(crate) fn all() -> Vec<Named<dyn Action<Engine>>> {
    vec![
        ("vmetal_inspect", Arc::new(Order::Inspect)),
        ("vmetal_release_from_quarantine", Arc::new(Order::ReleaseFromQuarantine)),
        ("vmetal_set_maintenance", Arc::new(Order::SetMaintenance)),
        ("vmetal_end_maintenance", Arc::new(Order::EndMaintenance)),
    ]
}

impl Order {
    fn describe(self) -> &'static str {
        match self {
            Self::Inspect => "Registers and inspects a host anew that no tenant node holds.",
            Self::ReleaseFromQuarantine => {
                "Ends a quarantine: what a tenant left is erased, then the host is registered and inspected anew."
            }
            Self::SetMaintenance => "Takes a host out of the pool for work on it, if no tenant node holds it.",
            Self::EndMaintenance => {
                "Ends a maintenance (or a pause) that was ordered: the host is registered and inspected anew."
            }
        }
    }

    fn needs_reason(self) -> bool {
        self != Self::EndMaintenance
    }

    /// Whether the host is in the pool again when the order has come to its end.
    fn leads_to_pool(self) -> bool {
        self != Self::SetMaintenance
    }

    fn action(self, config: &Value) -> Result<HostAction, Diagnostic> {
        let reason = text(config.attr("reason")).unwrap_or_default();
        Ok(match self {
            Self::Inspect => HostAction::Inspect { reason },
            Self::ReleaseFromQuarantine => HostAction::Unquarantine { reason },
            Self::SetMaintenance => {
                let until = config.attr("until");
                let until = if until.is_null() { None } else { Some(parsed::<Timestamp>(until, Path::attr("until"))?) };
                HostAction::Maintenance { reason, until }
            }
            Self::EndMaintenance => HostAction::Resume,
        })
    }

    async fn carry_out(self, ctx: &Ctx<Engine>, config: &Value, progress: &Progress) -> Result<(), Diagnostics> {
        let client = ctx.client()?.client()?;
        let name = text(config.attr("host")).unwrap_or_default();
        let action = self.action(config)?;
        let doing = format!("giving host {name:?} the order {}", action.verb());
        let ordered = client.act_on_host(&name, None, &action).await;
        let host: Host = ordered.and_then(|object| Ok(object.typed()?)).map_err(|e| refused::<Hosts>(&doing, e))?;
        progress.say(format!("host {name}: {}", Hosts::doing(&host)));
        if !self.leads_to_pool() || config.attr("wait").as_bool() != Some(true) {
            return Ok(());
        }
        let within = config.attr("timeout").as_str().and_then(|text| duration(text).ok()).unwrap_or(PATIENCE);
        let uid = &host.metadata.uid;
        let wait = Wait { client, name: &name, uid, within, cancelled: ctx.cancelled() };
        let told = |what: &str| progress.say(format!("host {name}: {what}"));
        let unfinished =
            |why: String| Diagnostics::from(Diagnostic::error(format!("Host {name:?} is not done yet"), why));
        match wait.until::<Host>(|host| Hosts::judge(host, "available"), told).await {
            Ended::Done(_) => Ok(()),
            Ended::Gone => Err(unfinished("It was deleted in the meantime.".to_owned())),
            Ended::Stuck(host, failure) => {
                let detail = circumstances::<Hosts>(client, &host, Some(&failure)).await;
                Err(Diagnostic::error(format!("Host {name:?} failed"), detail).into())
            }
            Ended::Cancelled(_) => {
                Err(unfinished("You asked Terraform to stop. The engine goes on by itself.".to_owned()))
            }
            Ended::Deadline(_) => {
                Err(unfinished(format!("It was not available within {}. The engine goes on by itself.", span(within))))
            }
            Ended::Refused(_, error) => Err(refused::<Hosts>(&format!("waiting for host {name:?}"), error)),
        }
    }
}

impl Action<Engine> for Order {
    fn schema(&self) -> Schema {
        let mut attributes = vec![("host", Attribute::required(Type::String).describe("Name of the host."))];
        if self.needs_reason() {
            let reason = "Why; it stands in the host's record with the name of the token.";
            attributes.push(("reason", Attribute::required(Type::String).describe(reason)));
        }
        if *self == Self::SetMaintenance {
            let time = |text: &str| {
                let read = text.parse::<Timestamp>();
                read.map(drop)
                    .map_err(|_| format!("{text:?} is not a time; expected for example 2026-11-22T06:00:00Z."))
            };
            let until = Attribute::optional(Type::String).validate(Validator::string("Invalid time", time));
            attributes.push(("until", until.describe("When it ends by itself (RFC 3339).")));
        }
        if self.leads_to_pool() {
            let wait = "Whether the action waits until the host is in the pool again.";
            attributes.push(("wait", Attribute::optional(Type::Bool).describe(wait)));
            let timeout = Attribute::optional(Type::String)
                .validate(Validator::string("Invalid duration", |text| duration(text).map(drop)));
            attributes.push(("timeout", timeout.describe("How long it waits; `90m` when not set.")));
        }
        Schema::new(self.describe(), attributes)
    }

    fn invoke<'a>(&'a self, ctx: &'a Ctx<Engine>, config: Value, progress: Progress) -> Pending<'a, Diagnostics> {
        Box::pin(async move { self.carry_out(ctx, &config, &progress).await.err().unwrap_or_default() })
    }
}
