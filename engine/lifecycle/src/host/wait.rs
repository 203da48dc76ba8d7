//! The words of waiting: for every stage what is done, and what ends it.

use vmetal_model::{Host, HostPhase, OperationKind, Stage};

/// What a stage is about, in an operator's words.
pub(crate) fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Idle => "waiting",
        Stage::Address => "reserving an address",
        Stage::Probe => "asking the BMC who it is",
        Stage::Seed => "waiting for join token and user data",
        Stage::Off => "powering off before a network boot",
        Stage::Open => "opening a network boot attempt",
        Stage::BootDevice => "setting network boot",
        Stage::On => "powering on",
        Stage::Agent => "waiting for the installer to call in",
        Stage::Work => "the installer's work",
        Stage::FirstBoot => "the first boot of the installed system",
        Stage::HandOver => "the hand-over of the system on standby",
        Stage::NodeRemoval => "waiting for the Node to be removed",
        Stage::OffAgain => "powering off after the installer's work",
        Stage::ResetBmc => "restarting the BMC",
        Stage::Drain => "draining the power",
    }
}

/// What an effect under way waits for, and what ends that.
pub(crate) fn doing(host: &Host, kind: OperationKind) -> (String, String) {
    let bmc = &host.spec.bmc.address;
    match kind {
        OperationKind::AllocateAddress | OperationKind::OpenBoot => {
            (format!("the engine: {}", kind.describe()), "the engine has done it, which takes no time".to_owned())
        }
        _ => (format!("the BMC: {}", kind.describe()), format!("the answer of {bmc}, or its time limit")),
    }
}

/// What ends a pause after a failure.
pub(crate) fn operator_ends_pause(phase: HostPhase) -> &'static str {
    match phase {
        HostPhase::Error => "the pause ends, the declaration changes, or `vmetal host retry`",
        _ => "the pause ends, or `vmetal host retry`",
    }
}
