//! Actions: operators' orders about hosts, from a configuration (Terraform 1.14 and later).

use std::{sync::Arc, time::Duration};

use tfplugin::{
    Action, Attribute, Ctx, Diagnostic, Diagnostics, Named, Path, Pending, Progress, Schema, Type, Value,
    schema::Validator,
};
use vmetal_api::{Client, Secret};
use vmetal_model::{Host, HostAction, PowerWish, Rotation, Timestamp};

use crate::{
    convert::{duration, parsed, text},
    explain::{circumstances, refused, span},
    host::Hosts,
    kind::{Kind as _, Verdict},
    provider::Engine,
    wait::{Ended, Wait},
};

/// One kind of order.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Inspect,
    ReleaseFromQuarantine,
    SetMaintenance,
    EndMaintenance,
    Power,
    RotateCredentials,
}

/// What an action may wait for.
#[derive(Clone, Copy)]
enum Goal {
    /// The host is in the pool again.
    Pool,
    /// The power is what was ordered.
    Power,
    /// The BMC has its new password.
    Password,
}

impl Goal {
    /// How long is waited unless the user says otherwise.
    fn patience(self) -> Duration {
        Duration::from_secs(match self {
            Self::Pool => 90 * 60,
            Self::Power | Self::Password => 15 * 60,
        })
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Pool => "Whether the action waits until the host is in the pool again.",
            Self::Power => "Whether the action waits until the BMC says that it is so.",
            Self::Password => "Whether the action waits until the BMC lets in with the new password.",
        }
    }

    /// What was not reached in time.
    fn missed(self) -> &'static str {
        match self {
            Self::Pool => "available",
            Self::Power => "switched as ordered",
            Self::Password => "done with the new password",
        }
    }

    fn judge(self, host: &Host, ordered: Timestamp) -> Verdict {
        match (self, &host.status.power_order, &host.status.failure) {
            (Self::Pool, ..) => Hosts::judge(host, "available"),
            (Self::Power, Some(_), _) => Verdict::Going(Hosts::doing(host)),
            (Self::Power, None, Some(failure)) if failure.at >= ordered => Verdict::Stuck(failure.clone()),
            (Self::Power, None, _) => Verdict::Done,
            (Self::Password, ..) => match host.status.rotation.as_deref() {
                Some(Rotation { ended: true, failure: Some(failure), .. }) => Verdict::Stuck(failure.clone()),
                Some(Rotation { ended: false, failure: Some(failure), .. }) => Verdict::Going(failure.message.clone()),
                Some(_) => Verdict::Going("the BMC is given its new password".to_owned()),
                None => Verdict::Done,
            },
        }
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Named<dyn Action<Engine>>> {
    vec![
        ("vmetal_inspect", Arc::new(Order::Inspect)),
        ("vmetal_release_from_quarantine", Arc::new(Order::ReleaseFromQuarantine)),
        ("vmetal_set_maintenance", Arc::new(Order::SetMaintenance)),
        ("vmetal_end_maintenance", Arc::new(Order::EndMaintenance)),
        ("vmetal_power", Arc::new(Order::Power)),
        ("vmetal_rotate_credentials", Arc::new(Order::RotateCredentials)),
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
            Self::RotateCredentials => {
                "Gives a host's BMC another password for the declared account and keeps that once the BMC takes it. A tenant on \
                 the server notices nothing. Set the host's `password_wo` to the new password as well and leave \
                 `password_wo_version` as it is."
            }
            Self::Power => {
                "Switches a host that is in maintenance or quarantined on, off, or off and on. Everywhere else the engine \
                 switches the server as its work wants, and refuses. What was not erased is not made to run."
            }
        }
    }

    /// Gives the order; the host as it is then.
    async fn give(self, client: &Client, name: &str, config: &Value) -> Result<Host, Diagnostics> {
        let reason = text(config.attr("reason")).unwrap_or_default();
        let (doing, ordered) = match self.action(config, &reason)? {
            Some(action) => {
                let doing = format!("giving host {name:?} the order {}", action.verb());
                (doing, client.act_on_host(name, None, &action).await)
            }
            None => {
                let password = Secret::new(config.attr("password").as_str().unwrap_or_default());
                let doing = format!("giving the BMC of host {name:?} a new password");
                (doing, client.rotate_bmc_password(name, &password, &reason).await)
            }
        };
        ordered.and_then(|object| Ok(object.typed()?)).map_err(|error| refused::<Hosts>(&doing, error))
    }

    fn needs_reason(self) -> bool {
        self != Self::EndMaintenance
    }

    /// What the order leads to, where that takes time.
    fn goal(self) -> Option<Goal> {
        match self {
            Self::Inspect | Self::ReleaseFromQuarantine | Self::EndMaintenance => Some(Goal::Pool),
            Self::Power => Some(Goal::Power),
            Self::RotateCredentials => Some(Goal::Password),
            Self::SetMaintenance => None,
        }
    }

    /// The order, where it is one of those that the engine takes as such.
    fn action(self, config: &Value, reason: &str) -> Result<Option<HostAction>, Diagnostic> {
        let reason = reason.to_owned();
        Ok(Some(match self {
            Self::RotateCredentials => return Ok(None),
            Self::Inspect => HostAction::Inspect { reason },
            Self::ReleaseFromQuarantine => HostAction::Unquarantine { reason },
            Self::SetMaintenance => {
                let until = config.attr("until");
                let until = if until.is_null() { None } else { Some(parsed::<Timestamp>(until, Path::attr("until"))?) };
                HostAction::Maintenance { reason, until }
            }
            Self::EndMaintenance => HostAction::Resume,
            Self::Power => {
                let wanted = config.attr("power").as_str().unwrap_or_default();
                let power = PowerWish::ALL.into_iter().find(|wish| wish.as_str() == wanted);
                let unknown =
                    || Diagnostic::error("Invalid value", "Expected on, off or cycle.").at(Path::attr("power"));
                HostAction::Power { power: power.ok_or_else(unknown)?, reason }
            }
        }))
    }

    async fn carry_out(self, ctx: &Ctx<Engine>, config: &Value, progress: &Progress) -> Result<(), Diagnostics> {
        let client = ctx.client()?.client()?;
        let name = text(config.attr("host")).unwrap_or_default();
        let host = self.give(client, &name, config).await?;
        progress.say(format!("host {name}: {}", Hosts::doing(&host)));
        let Some(goal) = self.goal().filter(|_| config.attr("wait").as_bool() == Some(true)) else { return Ok(()) };
        let ordered = host.status.power_order.as_ref().map_or(Timestamp::MAX, |order| order.hold.since);
        let asked = config.attr("timeout").as_str().and_then(|text| duration(text).ok());
        let within = asked.unwrap_or_else(|| goal.patience());
        let uid = &host.metadata.uid;
        let wait = Wait { client, name: &name, uid, within, cancelled: ctx.cancelled() };
        let told = |what: &str| progress.say(format!("host {name}: {what}"));
        let unfinished =
            |why: String| Diagnostics::from(Diagnostic::error(format!("Host {name:?} is not done yet"), why));
        match wait.until::<Host>(|host| goal.judge(host, ordered), told).await {
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
                let (missed, within) = (goal.missed(), span(within));
                Err(unfinished(format!("It was not {missed} within {within}. The engine goes on by itself.")))
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
        if *self == Self::Power {
            let power = Attribute::required(Type::String).validate(Validator::one_of(&["on", "off", "cycle"]));
            attributes.push((
                "power",
                power.describe("`on`, `off` (at once, the operating system is not asked) or `cycle`."),
            ));
        }
        if *self == Self::RotateCredentials {
            let password = Attribute::required(Type::String).write_only();
            attributes.push((
                "password",
                password.describe(
                    "The new password. Write-only. It may come from an ephemeral value where a change triggers the action; to one \
                     that is invoked by hand, Terraform hands no ephemeral values.",
                ),
            ));
        }
        if let Some(goal) = self.goal() {
            attributes.push(("wait", Attribute::optional(Type::Bool).describe(goal.describe())));
            let timeout = Attribute::optional(Type::String)
                .validate(Validator::string("Invalid duration", |text| duration(text).map(drop)));
            attributes.push((
                "timeout",
                timeout.describe(format!("How long it waits; `{}m` when not set.", goal.patience().as_secs() / 60)),
            ));
        }
        Schema::new(self.describe(), attributes)
    }

    fn invoke<'a>(&'a self, ctx: &'a Ctx<Engine>, config: Value, progress: Progress) -> Pending<'a, Diagnostics> {
        Box::pin(async move { self.carry_out(ctx, &config, &progress).await.err().unwrap_or_default() })
    }
}
