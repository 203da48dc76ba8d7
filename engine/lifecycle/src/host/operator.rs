//! What an operator's order does to a host. Pure like the steps: the order is taken into the status, and the steps that
//! follow do the rest.

use vmetal_model::{
    BmcFacts, Cause, Failure, Hold, Host, HostAction, HostPhase, HostStatus, PowerOrder, PowerState, PowerWish,
    Severity, Stage, TenancyEnd, Timestamp,
};

use super::failing::said;
use super::{Change, Turn, identity};
use crate::grant::{Vacancy, end_tenancy};
use crate::limits::Limits;
use crate::note::Note;

/// Why an order is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ActionRefused {
    /// What stands in the way.
    pub message: String,
    /// What to do instead.
    pub advice: String,
}

/// Takes in an order. `by` is who gave it; the event names them and the reason.
///
/// # Errors
/// [`ActionRefused`] when the host is not in a state in which the order makes sense, or no reason is given.
pub fn act(
    host: &Host,
    limits: &Limits,
    action: &HostAction,
    by: &str,
    now: Timestamp,
) -> Result<Change, ActionRefused> {
    if action.reason().is_some_and(|reason| reason.trim().is_empty()) {
        return Err(ActionRefused {
            message: format!("`{}` needs a reason: the next person who looks at the host reads it", action.verb()),
            advice: "give one with --reason".to_owned(),
        });
    }
    let mut turn = Turn::new(host, limits, now);
    let for_what = action.reason().map_or_else(String::new, |reason| format!(": {reason}"));
    let severity = if matches!(action, HostAction::ForceRelease { .. }) { Severity::Warning } else { Severity::Info };
    let message = format!("{} ordered by {by}{for_what}", action.verb());
    turn.notes.push(Note { severity, reason: "ordered", message });
    turn.order(action, by)?;
    Ok(turn.change())
}

/// The status of a host whose BMC password is not known: it is never acted on.
pub fn discovered(host: &str, now: Timestamp) -> HostStatus {
    let failure = Failure {
        cause: Cause::BmcCredentials,
        message: format!("no BMC password is known for host {host}; nothing can be done with it"),
        advice: "apply the host with its password (API and manifests: secret bmc.password; Terraform: bmc.password_wo)"
            .to_owned(),
        at: now,
    };
    HostStatus { phase: HostPhase::Discovered, stage: Stage::Idle, failure: Some(failure), ..HostStatus::new(now) }
}

/// The password of a discovered host was applied: it is registered. `None` for any other host.
pub fn introduced(host: &Host, limits: &Limits, now: Timestamp) -> Option<Change> {
    let mut turn = Turn::new(host, limits, now);
    if host.status.phase != HostPhase::Discovered {
        return None;
    }
    turn.enter(HostPhase::Registering, Stage::Address, "its BMC password was applied");
    Some(turn.change())
}

impl Turn<'_> {
    fn order(&mut self, action: &HostAction, by: &str) -> Result<(), ActionRefused> {
        match action {
            HostAction::Pause { reason } => self.status.pause = Some(self.hold(reason, by, None)),
            HostAction::Resume => self.resume()?,
            HostAction::Maintenance { reason, until } => self.order_maintenance(self.hold(reason, by, *until))?,
            HostAction::Quarantine { reason } => self.order_quarantine(reason, by)?,
            HostAction::Unquarantine { .. } => self.unquarantine()?,
            HostAction::Inspect { .. } => self.inspect_anew()?,
            HostAction::Retry => self.try_again()?,
            HostAction::ForceRelease { reason } => self.force_release(reason, by)?,
            HostAction::Power { power, reason } => self.order_power(action.verb(), *power, reason, by)?,
            HostAction::Detach { reason } => {
                self.unclaimed("detach")?;
                self.status.detach = Some(self.hold(reason, by, None));
                self.status.pause = None;
            }
            HostAction::Retire { .. } => self.retire()?,
        }
        Ok(())
    }

    /// The mark of deletion does the rest: a claim keeps its host, nobody else gets it, and it goes once it is free and erased.
    fn retire(&self) -> Result<(), ActionRefused> {
        match &self.status.unerased {
            Some(ended) if self.status.claim.is_none() && !self.orphaned() => {
                let name = self.host.name();
                let message = format!("what tenant node {} left on host {name} is not erased", ended.node);
                let advice =
                    format!("`vmetal host unquarantine {name}` erases it; `vmetal host detach {name}` leaves it");
                Err(self.refuse(message, &advice))
            }
            _ => Ok(()),
        }
    }

    fn hold(&self, reason: &str, by: &str, until: Option<Timestamp>) -> Hold {
        Hold { reason: reason.to_owned(), by: by.to_owned(), since: self.now, until }
    }

    fn refuse(&self, message: String, advice: &str) -> ActionRefused {
        ActionRefused { message, advice: advice.to_owned() }
    }

    fn unclaimed(&self, verb: &str) -> Result<(), ActionRefused> {
        let Some(claim) = &self.status.claim else { return Ok(()) };
        let message = format!(
            "host {} is held by tenant node {}: `{verb}` is for hosts that nobody holds",
            self.host.name(),
            claim.node
        );
        Err(self.refuse(
            message,
            "cordoning and draining are the tenant's affair: delete the tenant node, and order again when its host is back; \
             where server or BMC is dead, `vmetal host release --force`",
        ))
    }

    fn in_phase(&self, verb: &str, phases: &[HostPhase], advice: &str) -> Result<(), ActionRefused> {
        if phases.contains(&self.status.phase) {
            return Ok(());
        }
        let names: Vec<&str> = phases.iter().map(|phase| phase.as_str()).collect();
        let (name, phase) = (self.host.name(), self.status.phase.as_str());
        Err(self
            .refuse(format!("host {name} is {phase}; `{verb}` is for hosts in phase {}", names.join(" or ")), advice))
    }

    fn resume(&mut self) -> Result<(), ActionRefused> {
        let (pause, maintenance) = (self.status.pause.take(), self.status.maintenance.take());
        if pause.is_none() && maintenance.is_none() {
            let message = format!("host {} is neither paused nor ordered into maintenance", self.host.name());
            let declared = self.host.spec.maintenance.is_some();
            return Err(self.refuse(
                message,
                if declared {
                    "its maintenance is declared: change the declaration"
                } else {
                    "there is nothing to end"
                },
            ));
        }
        if pause.is_some() {
            // The stage's time stood still.
            self.status.stage_since = self.now;
            self.status.wait = None;
        }
        Ok(())
    }

    fn order_maintenance(&mut self, hold: Hold) -> Result<(), ActionRefused> {
        self.unclaimed("maintenance")?;
        self.in_phase(
            "maintenance",
            &[
                HostPhase::Registering,
                HostPhase::Inspecting,
                HostPhase::Available,
                HostPhase::Maintenance,
                HostPhase::Provisioning,
                HostPhase::Standby,
                HostPhase::Error,
            ],
            "pause it, or end the quarantine first",
        )?;
        if let Some(ended) = &self.status.unerased {
            let message = format!("what tenant node {} left on host {} is not erased", ended.node, self.host.name());
            return Err(self.refuse(message, "quarantine it instead; maintenance leads back to the pool"));
        }
        if let Some(until) = hold.until.filter(|until| *until <= self.now) {
            return Err(
                self.refuse(format!("the maintenance would end at {until}, which has passed"), "give a later time")
            );
        }
        self.status.maintenance = Some(hold);
        self.heed_maintenance();
        Ok(())
    }

    fn order_quarantine(&mut self, reason: &str, by: &str) -> Result<(), ActionRefused> {
        self.unclaimed("quarantine")?;
        self.in_phase(
            "quarantine",
            &[
                HostPhase::Registering,
                HostPhase::Inspecting,
                HostPhase::Available,
                HostPhase::Maintenance,
                HostPhase::Standby,
                HostPhase::Deprovisioning,
                HostPhase::Error,
            ],
            "give its BMC password, or wait",
        )?;
        self.status.maintenance = None;
        // What waits there is nobody's, and shall not run on a server that is not trusted.
        let stage = if self.status.phase == HostPhase::Standby { Stage::Off } else { Stage::Idle };
        self.quarantine(reason, by, stage);
        self.status.failure = Some(Failure {
            cause: Cause::Forced,
            message: format!("host {} was quarantined by {by}: {reason}", self.host.name()),
            advice: format!("once it is mended, `vmetal host unquarantine {}`", self.host.name()),
            at: self.now,
        });
        Ok(())
    }

    fn order_power(&mut self, verb: &str, power: PowerWish, reason: &str, by: &str) -> Result<(), ActionRefused> {
        let name = self.host.name();
        self.unclaimed(verb)?;
        self.in_phase(
            verb,
            &[HostPhase::Maintenance, HostPhase::Quarantined],
            "take it out of the pool first: `vmetal host maintenance`; everywhere else the engine switches it as its work wants",
        )?;
        if let Some(pause) = &self.status.pause {
            let message = format!("host {name} is paused: {}", said(pause));
            return Err(self.refuse(message, "end the pause first: `vmetal host resume`"));
        }
        let open = self.status.operation.as_ref().filter(|_| self.operation_under_way());
        if let Some(operation) = open {
            let message = format!("host {name} has an effect under way: {}", operation.kind.describe());
            return Err(self.refuse(message, "order again when it has ended: `vmetal describe host` shows it"));
        }
        if let Some(order) = &self.status.power_order {
            let message =
                format!("power {} is already ordered of host {name}: {}", order.power.as_str(), said(&order.hold));
            return Err(self.refuse(message, "wait until it is carried out or has failed"));
        }
        if self.status.stage != Stage::Idle {
            let message = format!("host {name} is being switched off, because a tenancy has ended on it");
            return Err(self.refuse(message, "order again when it is off"));
        }
        if power != PowerWish::Off && Vacancy::of(&self.status).is_none() {
            let left = match &self.status.unerased {
                Some(ended) => format!("what tenant node {} left", ended.node),
                None => "the system that was installed for standby".to_owned(),
            };
            let message = format!("{left} on host {name} is not erased, and would run");
            return Err(
                self.refuse(message, "end maintenance or quarantine, which leads to its erasure; or order `off`")
            );
        }
        let hold = self.hold(reason, by, None);
        self.stage(Stage::Idle);
        // What was read before is not what it is now.
        self.status.power = PowerState::Unknown;
        self.status.power_order = Some(Box::new(PowerOrder { power, hold }));
        Ok(())
    }

    fn unquarantine(&mut self) -> Result<(), ActionRefused> {
        self.in_phase("unquarantine", &[HostPhase::Quarantined], "look at its phase with `vmetal describe host`")?;
        let why = self.status.quarantine.as_ref().map_or_else(String::new, said);
        // A person vouches for it: what it is now is what it is from now on.
        identity::forget(&mut self.status);
        match &self.status.unerased {
            Some(ended) => {
                let why = format!("the quarantine is over ({why}); what tenant node {} left is erased", ended.node);
                self.enter(HostPhase::Deprovisioning, Stage::Off, &why);
            }
            None => self.enter(HostPhase::Registering, Stage::Address, &format!("the quarantine is over ({why})")),
        }
        Ok(())
    }

    fn inspect_anew(&mut self) -> Result<(), ActionRefused> {
        self.unclaimed("inspect")?;
        self.in_phase(
            "inspect",
            &[HostPhase::Inspecting, HostPhase::Available, HostPhase::Standby, HostPhase::Error],
            "end maintenance or quarantine first: both lead to an inspection",
        )?;
        if let Some(ended) = &self.status.unerased {
            let message = format!("what tenant node {} left on host {} is not erased", ended.node, self.host.name());
            return Err(self.refuse(message, "`vmetal host retry` goes on with the erasure"));
        }
        self.enter(HostPhase::Registering, Stage::Address, "an inspection was ordered");
        Ok(())
    }

    fn try_again(&mut self) -> Result<(), ActionRefused> {
        if self.status.phase == HostPhase::Error {
            self.go_on("an operator says to try again");
        } else if self.status.retry.not_before.is_none() {
            let message = format!("host {} is {}, and does not pause", self.host.name(), self.status.phase.as_str());
            return Err(self
                .refuse(message, "there is nothing to try again; see what it waits for with `vmetal describe host`"));
        }
        self.status.retry =
            vmetal_model::host::Retry { attempts: self.status.retry.attempts, ..vmetal_model::host::Retry::default() };
        Ok(())
    }

    fn force_release(&mut self, reason: &str, by: &str) -> Result<(), ActionRefused> {
        let Some(claim) = self.status.claim.clone() else {
            let message = format!("no tenant node holds host {}", self.host.name());
            return Err(self.refuse(message, "there is nothing to release"));
        };
        let failure = Failure {
            cause: Cause::Forced,
            message: format!(
                "host {} was taken from tenant node {} by {by}: {reason}; it is not known to be off, and not erased",
                self.host.name(),
                claim.node
            ),
            advice: "see that the server is off, or its Node may still run; `vmetal host unquarantine` erases it later"
                .to_owned(),
            at: self.now,
        };
        self.notes.push(Note::error("claim_ended", failure.message.clone()));
        end_tenancy(&mut self.status, TenancyEnd::Forced, &failure, self.now);
        let reason = format!("taken from tenant node {} by force: {reason}", claim.node);
        // Whatever still answers is switched off: nothing of the tenancy shall go on there.
        self.quarantine(&reason, by, Stage::Off);
        self.status.pause = None;
        self.status.failure = Some(failure);
        Ok(())
    }
}

/// Who the machine behind a BMC is known to be, for calls that must not reach another one.
pub fn known_machine(facts: Option<&BmcFacts>) -> vmetal_model::inventory::Identity {
    facts.map(identity::by_bmc).unwrap_or_default()
}
