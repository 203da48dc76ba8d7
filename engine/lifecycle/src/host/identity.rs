//! The wrong-machine guard: the machine behind a BMC, and the one that calls in, must be the one that is known.

use vmetal_model::inventory::Identity;
use vmetal_model::{BmcFacts, Cause, Failure, Host, HostStatus, Timestamp};

use super::{Effected, Setback};

/// Who the BMC says the machine is.
pub(crate) fn by_bmc(facts: &BmcFacts) -> Identity {
    Identity { serial: facts.serial.clone(), uuid: facts.uuid.clone(), ..Identity::default() }
}

/// Fails when a probe finds another machine than the BMC showed before.
pub(super) fn same(host: &Host, effected: Effected, now: Timestamp) -> Result<Effected, Setback> {
    let (Effected::Bmc(seen), Some(known)) = (&effected, &host.status.bmc) else { return Ok(effected) };
    let (known, seen) = (by_bmc(known), by_bmc(seen));
    if known.may_be(&seen) {
        return Ok(effected);
    }
    Err(Setback::from(Failure {
        cause: Cause::WrongMachine,
        message: format!(
            "the BMC {} answers for another machine than before: expected {}, saw {}",
            host.spec.bmc.address,
            known.describe(),
            seen.describe()
        ),
        advice: advice(host),
        at: now,
    }))
}

/// What to do about another machine.
pub(crate) fn advice(host: &Host) -> String {
    format!(
        "nothing was written to it; correct the host's BMC address or boot MAC, or, if its board was replaced, accept the new \
         one with `vmetal host unquarantine {}`",
        host.name()
    )
}

/// Forgets who the machine was, so that it may be another one from now on. What its disks hold is not forgotten.
pub(crate) fn forget(status: &mut HostStatus) {
    if let Some(facts) = &mut status.bmc {
        (facts.serial, facts.uuid) = (None, None);
    }
    if let Some(inventory) = &mut status.inventory {
        inventory.identity = Identity::default();
    }
    status.registered_as = None;
}
