//! What operators' orders forbid, seen in every commit about a host.

use vmetal_model::{Host, HostPhase, OnDelete, OperationKind};

use super::claims_on_disks;
use crate::world::World;

/// A new operation was intended: `host` has it, `before` is what the host was when that was decided.
pub(super) fn intended(world: &World, before: &Host, host: &Host) {
    let Some(operation) = &host.status.operation else { return };
    let (id, kind) = (operation.id, operation.kind);
    let wrong = |why: &str| world.violated(host.name(), format!("operation {id} ({kind:?}) was intended {why}"));
    if before.status.pause.is_some() {
        wrong("while it is paused");
    }
    match host.status.phase {
        // What a person orders of the power, and nothing else.
        HostPhase::Maintenance | HostPhase::Quarantined
            if before.status.power_order.is_some()
                && matches!(kind, OperationKind::ReadPower | OperationKind::PowerOff | OperationKind::PowerOn) => {}
        HostPhase::Maintenance => wrong("in maintenance"),
        HostPhase::Discovered => wrong("without a password"),
        // Whatever a claim left running there is switched off, and nothing else.
        HostPhase::Quarantined if !matches!(kind, OperationKind::ReadPower | OperationKind::PowerOff) => {
            wrong("in quarantine");
        }
        _ => {}
    }
    if before.is_deleted() && before.status.claim.is_none() && stays(before) {
        wrong("though it goes and is to be left as it is");
    }
}

/// A host was removed: a clean one leaves nothing behind, and the server of any other is nobody's from now on.
pub(super) fn removed(world: &World, host: &Host) {
    let left = claims_on_disks(world, host.name());
    if stays(host) {
        let mut inner = world.inner();
        if let Some(machine) = inner.machines.iter_mut().find(|machine| machine.name == host.name()) {
            machine.left = true;
        }
    } else if !left.is_empty() {
        world.violated(host.name(), format!("removed with the data of {left:?} on its disks"));
    }
}

/// Whether the server stays as it is when the host goes.
fn stays(host: &Host) -> bool {
    host.status.detach.is_some() || host.spec.on_delete == OnDelete::Orphan
}
