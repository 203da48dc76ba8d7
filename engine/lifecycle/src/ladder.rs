//! Escalation as data: how long each stage may take, and what is tried when it fails, before the engine gives up.
//!
//! Two tables, and nothing about it anywhere else. A stage says by when it must be done and which rungs make sense there; a
//! cause says whether repeating helps, which rungs may help, and whether the server is to blame. What is tried is what both
//! name, in the order of [`Rung`]; how often, and how long, is in [`Limits`] and can be configured. Each rung is used once per
//! phase: a BMC is not restarted again and again.

use jiff::SignedDuration;
use vmetal_model::{Cause, Stage};

use crate::limits::Limits;

/// What is tried when repeating did not help, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// Restart the BMC; the server stays as it is. The stage is then tried again.
    ResetBmc,
    /// Off, off for [`Limits::drain`], and the phase's sequence from its beginning.
    PowerDrain,
}

impl Rung {
    /// In an operator's words.
    pub fn describe(self) -> &'static str {
        match self {
            Rung::ResetBmc => "restarting the BMC",
            Rung::PowerDrain => "switching the server off and leaving it off for a while",
        }
    }

    /// How many rungs are used up once this one is.
    pub(crate) fn used(self) -> u32 {
        self as u32 + 1
    }
}

/// By when a stage must be done.
#[derive(Debug, Clone, Copy)]
pub enum Deadline {
    /// So long after it began.
    Within(fn(&Limits) -> SignedDuration),
    /// By the installer's order: inspection, installation and erasure have their own.
    Order,
    /// The tenant node that it waits for has the deadline.
    TenantNode,
    /// None: waiting costs nothing, or only a person can end it.
    Operator,
}

/// One stage's line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// By when it must be done.
    pub deadline: Deadline,
    /// What makes sense there when repeating does not help.
    pub rungs: &'static [Rung],
}

/// The stages' table.
pub fn line(stage: Stage) -> Line {
    use Deadline::{Operator, Order, TenantNode, Within};
    use Rung::{PowerDrain, ResetBmc};
    let of = |deadline, rungs| Line { deadline, rungs };
    match stage {
        Stage::Idle => of(Operator, &[]),
        Stage::Address => of(Within(|l| l.local), &[]),
        Stage::Probe => of(Within(|l| l.bmc), &[ResetBmc]),
        Stage::Seed => of(TenantNode, &[]),
        Stage::Off | Stage::OffAgain => of(Within(|l| l.bmc), &[ResetBmc]),
        Stage::Open => of(Within(|l| l.local), &[]),
        Stage::BootDevice => of(Within(|l| l.bmc), &[ResetBmc]),
        Stage::On => of(Within(|l| l.bmc), &[ResetBmc, PowerDrain]),
        Stage::Agent => of(Within(|l| l.call_in), &[PowerDrain]),
        Stage::Work => of(Order, &[PowerDrain]),
        Stage::FirstBoot => of(Within(|l| l.first_boot), &[PowerDrain]),
        Stage::HandOver => of(Within(|l| l.hand_over), &[PowerDrain]),
        Stage::NodeRemoval => of(TenantNode, &[]),
        Stage::ResetBmc => of(Within(|l| l.bmc), &[PowerDrain]),
        Stage::Drain => of(Within(|l| l.bmc), &[]),
    }
}

/// Whether doing it again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The same again after a pause, [`Limits::failures`] times; what is in `error` for it is tried again by itself.
    Retry,
    /// The phase's sequence from its beginning, with a new network boot, [`Limits::attempts`] times.
    Restart,
    /// Only a changed declaration, or a person, helps.
    Operator,
}

/// Whose fault it is, as far as the engine can tell: whether another server would do better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The server's, or its BMC's: a claim moves on to another host, and this one is quarantined.
    Server,
    /// A declaration's, an image's, a network's: the next server would fail as well.
    Elsewhere,
}

/// One cause's line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Treatment {
    /// Whether doing it again may help.
    pub remedy: Remedy,
    /// What else may help.
    pub rungs: &'static [Rung],
    /// Whose fault it is.
    pub blame: Blame,
}

/// The causes' table. A BMC that does not answer cannot be told to restart itself, and one that is busy may be writing its
/// firmware: neither is restarted.
pub fn treatment(cause: Cause) -> Treatment {
    use Blame::{Elsewhere, Server};
    use Remedy::{Operator, Restart, Retry};
    use Rung::{PowerDrain, ResetBmc};
    let of = |remedy, rungs, blame| Treatment { remedy, rungs, blame };
    match cause {
        Cause::BmcUnreachable | Cause::BmcBusy => of(Retry, &[], Server),
        Cause::BmcProtocol | Cause::BmcNotApplied => of(Retry, &[ResetBmc, PowerDrain], Server),
        Cause::BmcCredentials | Cause::BmcCertificate | Cause::BmcForbidden | Cause::BmcSystem => {
            of(Operator, &[], Elsewhere)
        }
        Cause::AgentSilent | Cause::BootSilent | Cause::Inspection | Cause::Disk | Cause::Erase => {
            of(Restart, &[PowerDrain], Server)
        }
        Cause::ImageDigest => of(Restart, &[], Elsewhere),
        Cause::WrongMachine => of(Operator, &[], Server),
        Cause::AddressExhausted
        | Cause::TenantUnreachable
        | Cause::TenantSetup
        | Cause::MissingReference
        | Cause::ImagePending
        | Cause::NoCandidate
        | Cause::Policy
        | Cause::Drain
        | Cause::Internal => of(Retry, &[], Elsewhere),
        Cause::RootDevice | Cause::Image | Cause::Join | Cause::ForeignNode | Cause::Forced => {
            of(Operator, &[], Elsewhere)
        }
    }
}

/// The next rung for a cause at a stage, after so many have been used up.
pub(crate) fn next_rung(stage: Stage, cause: Cause, used: u32) -> Option<Rung> {
    let helps = treatment(cause).rungs;
    line(stage).rungs.iter().copied().find(|rung| rung.used() > used && helps.contains(rung))
}

/// The stages' table for the documentation.
pub(crate) fn table(limits: &Limits) -> String {
    let mut text = "| stage | done within | then |\n|---|---|---|\n".to_owned();
    for stage in Stage::ALL {
        let Line { deadline, rungs } = line(stage);
        let name = stage.as_str();
        let within = match deadline {
            Deadline::Within(limit) => format!("{:#}", limit(limits)),
            Deadline::Order => format!(
                "{:#} to inspect, {:#} to install, {:#} to erase; {:#} of silence",
                limits.inspect, limits.install, limits.erase, limits.silence
            ),
            Deadline::TenantNode => "the tenant node's deadline".to_owned(),
            Deadline::Operator => "-".to_owned(),
        };
        let then: Vec<&str> = rungs.iter().map(|rung| rung.describe()).collect();
        let then = if then.is_empty() { "-".to_owned() } else { then.join("; ") };
        text.push_str(&format!("| `{name}` | {within} | {then} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_come_in_order_and_each_once() {
        assert_eq!(next_rung(Stage::On, Cause::BmcNotApplied, 0), Some(Rung::ResetBmc));
        assert_eq!(next_rung(Stage::On, Cause::BmcNotApplied, 1), Some(Rung::PowerDrain));
        assert_eq!(next_rung(Stage::On, Cause::BmcNotApplied, 2), None);
        for stage in Stage::ALL {
            assert!(line(stage).rungs.is_sorted(), "{stage:?}");
        }
    }

    #[test]
    fn a_bmc_that_is_away_or_busy_is_not_restarted() {
        for cause in [Cause::BmcUnreachable, Cause::BmcBusy] {
            assert!(Stage::ALL.into_iter().all(|stage| next_rung(stage, cause, 0).is_none()), "{cause}");
        }
    }

    #[test]
    fn a_declaration_or_an_image_condemns_no_server() {
        for cause in [Cause::Image, Cause::ImageDigest, Cause::RootDevice, Cause::BmcCredentials, Cause::Internal] {
            assert_eq!(treatment(cause).blame, Blame::Elsewhere, "{cause}");
        }
    }
}
