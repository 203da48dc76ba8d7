//! One network boot of the installer, the same for inspection, installation and erasure: off, token, boot device, on,
//! call-in, work.

use jiff::SignedDuration;
use vmetal_model::agent::BootPurpose;
use vmetal_model::{Cause, Failure, Host, OperationKind, PowerState, Stage, Timestamp};

use super::{Effected, Setback, Turn};
use crate::grant::{Disruption, Gentle};
use crate::limits::after;

/// How far the installer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// Under way.
    Busy,
    /// Its order is done.
    Done,
}

/// Before the installer is waited for, power must be known to be on or off. A BMC that keeps telling neither is pausing, or
/// broken, and is not asked again and again without a pause.
pub(super) fn usable(host: &Host, effected: Effected, now: Timestamp) -> Result<Effected, Setback> {
    let Effected::Power(power @ (PowerState::Unknown | PowerState::PoweringOff)) = effected else {
        return Ok(effected);
    };
    if host.status.stage != Stage::On {
        return Ok(effected);
    }
    Err(Setback::from(Failure {
        cause: Cause::BmcProtocol,
        message: format!("the BMC tells the host's power as {power:?} after power-on; expected on or off"),
        advice: "look at the host's power on the BMC; it is read again by itself".to_owned(),
        at: now,
    }))
}

impl Turn<'_> {
    /// Goes on with a network boot for the given purpose. `work` limits the order itself.
    pub(super) fn installer(&mut self, purpose: BootPurpose, work: SignedDuration) -> Run {
        match self.status.stage {
            Stage::Open => {
                let open = self.done(OperationKind::OpenBoot)
                    && self.status.boot.as_ref().is_some_and(|boot| boot.purpose == purpose);
                if open { self.stage(Stage::BootDevice) } else { self.gently(Gentle::OpenBoot) }
            }
            Stage::BootDevice => {
                let set = self.done(OperationKind::SetNetworkBoot);
                if set { self.stage(Stage::On) } else { self.disrupt(Disruption::SetNetworkBoot) }
            }
            Stage::On => match self.status.power {
                PowerState::On | PowerState::PoweringOn => self.stage(Stage::Agent),
                // Power is only read here when a power-on came to nobody knows what. If the host began to boot and went off
                // again, the override for one start is used up, and the next start would be from disk.
                PowerState::Off if self.last_is(OperationKind::ReadPower) => self.stage(Stage::BootDevice),
                PowerState::Off => self.disrupt(Disruption::PowerOn),
                PowerState::Unknown | PowerState::PoweringOff => self.gently(Gentle::ReadPower),
            },
            Stage::Agent => self.await_call(),
            Stage::Work => return self.await_work(work),
            _ => {
                if self.status.stage != Stage::Off {
                    self.stage(Stage::Off);
                }
                if self.off() {
                    self.stage(Stage::Open);
                }
            }
        }
        Run::Busy
    }

    fn await_call(&mut self) {
        if self.status.boot.as_ref().is_some_and(|boot| boot.called_in.is_some()) {
            return self.stage(Stage::Work);
        }
        let deadline = self.deadline(self.limits.call_in);
        let mac = self.host.spec.boot_mac;
        if self.now < deadline {
            let unblocks = format!("a request from {mac} on the provisioning network");
            return self.wait("the installer to call in", unblocks, Some(deadline));
        }
        let limit = self.limits.call_in;
        self.breached(deadline);
        self.fail(Failure {
            cause: Cause::AgentSilent,
            message: format!("the host was powered on for a network boot, but no installer called in from {mac} within {limit:#}"),
            advice: "check the boot MAC, the cabling and that the firmware may boot from the network; `vmetal describe host --boot` shows what was seen".to_owned(),
            at: self.now,
        });
    }

    fn await_work(&mut self, limit: SignedDuration) -> Run {
        let Some(boot) = &self.status.boot else {
            self.stage(Stage::Off);
            return Run::Busy;
        };
        if boot.work_done.is_some() {
            return Run::Done;
        }
        let heard = boot.last_seen.unwrap_or(boot.opened).max(self.limits.listening_since);
        let silent_at = after(heard, self.limits.silence);
        let deadline = self.deadline(limit);
        if self.now < silent_at.min(deadline) {
            let step = self.status.progress.as_ref().map_or("its order", |progress| progress.step.as_str()).to_owned();
            let silence = self.limits.silence;
            let unblocks = format!("the end of {step}; it is given up earlier when it is silent for {silence:#}");
            self.wait("the installer to finish", unblocks, Some(deadline));
            self.look_again_at(silent_at);
            return Run::Busy;
        }
        let (what, limit) = if self.now >= deadline {
            self.breached(deadline);
            ("has not finished its order within", limit)
        } else {
            ("has not been heard of for", self.limits.silence)
        };
        self.fail(Failure {
            cause: Cause::AgentSilent,
            message: format!("the installer {what} {limit:#}"),
            advice: "the host is booted again; if this repeats, look at its console".to_owned(),
            at: self.now,
        });
        Run::Busy
    }
}
