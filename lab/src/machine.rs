//! The machine behind a BMC: power, boot override, and the rule that binds them.
//!
//! # One way to boot
//! Every boot, whatever caused it (power on, restart through the BMC, a reset by the guest itself), goes through [`Machine::boot`]: take
//! the override, decide the device order, start the back end from nothing. A restart therefore ends the QEMU process and starts a new
//! one, rather than asking for `system_reset`: `bootindex` is evaluated afresh, the one-shot override is consumed at exactly one place,
//! and no device state can leak from one boot into the next. The price, about 0.2 s of process start, is small beside firmware time.
//!
//! # One-shot means one shot
//! `Once` is consumed when a boot begins, not when it succeeds: firmware that fails to reach its boot server has used up its override,
//! as on real hardware. A guest that resets after an installer run therefore boots from disk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::config::{Acpi, BootDevice, HostConfig};
use crate::fault::FaultSet;
use crate::journal::{Journal, Record};
use crate::qemu::{Process, QemuHost};
use crate::{LabError, clock};

/// Power state as a BMC reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PowerState {
    /// Off.
    Off,
    /// On.
    On,
}

impl PowerState {
    /// The Redfish word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "Off",
            Self::On => "On",
        }
    }
}

/// How long a boot override lasts (`BootSourceOverrideEnabled`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OverrideEnabled {
    /// Not in force.
    Disabled,
    /// For the next boot.
    Once,
    /// Until it is disabled.
    Continuous,
}

/// What a boot override asks for (`BootSourceOverrideTarget`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OverrideTarget {
    /// Nothing.
    None,
    /// The boot network card.
    Pxe,
    /// The disks.
    Hdd,
}

/// The boot override of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootOverride {
    /// How long it lasts.
    pub enabled: OverrideEnabled,
    /// What it asks for.
    pub target: OverrideTarget,
}

impl BootOverride {
    const NONE: Self = Self { enabled: OverrideEnabled::Disabled, target: OverrideTarget::None };

    /// The override after a boot has begun.
    fn after_boot(self) -> Self {
        match self.enabled {
            OverrideEnabled::Continuous => self,
            OverrideEnabled::Once | OverrideEnabled::Disabled => Self::NONE,
        }
    }

    /// The devices to try, given the order that the firmware would follow by itself.
    fn order(self, configured: &[BootDevice]) -> Vec<BootDevice> {
        let first = match (self.enabled, self.target) {
            (OverrideEnabled::Disabled, _) | (_, OverrideTarget::None) => None,
            (_, OverrideTarget::Pxe) => Some(BootDevice::Pxe),
            (_, OverrideTarget::Hdd) => Some(BootDevice::Disk),
        };
        let rest = configured.iter().copied().filter(|d| Some(*d) != first);
        first.into_iter().chain(rest).collect()
    }
}

/// The values of `ComputerSystem.Reset` that the lab takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResetType {
    /// Power on.
    On,
    /// Power off without asking the operating system.
    ForceOff,
    /// Press the power button; the operating system decides.
    GracefulShutdown,
    /// Restart without asking the operating system.
    ForceRestart,
    /// Power off and on again.
    PowerCycle,
}

impl ResetType {
    /// All values, in the order in which they are advertised.
    pub const ALL: [Self; 5] = [Self::On, Self::ForceOff, Self::GracefulShutdown, Self::ForceRestart, Self::PowerCycle];

    /// The Redfish word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "On",
            Self::ForceOff => "ForceOff",
            Self::GracefulShutdown => "GracefulShutdown",
            Self::ForceRestart => "ForceRestart",
            Self::PowerCycle => "PowerCycle",
        }
    }
}

/// Why a reset was refused.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// The power state does not allow it.
    #[error("{} is not possible while the power state is {}", .asked.as_str(), .state.as_str())]
    Conflict {
        /// What was asked.
        asked: ResetType,
        /// The state at that moment.
        state: PowerState,
    },
    /// The back end failed.
    #[error(transparent)]
    Backend(#[from] LabError),
}

/// What the guest did by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuestAction {
    /// It reset the machine.
    Reset,
    /// It switched the machine off.
    Shutdown,
    /// The QEMU process ended without being told to.
    Died,
}

/// A [`GuestAction`] with the boot in which it happened, so that news from a machine that is already gone is not believed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GuestEvent {
    pub(crate) boot: u64,
    pub(crate) action: GuestAction,
}

/// What stands behind the BMC.
#[derive(Debug)]
pub(crate) enum Backend {
    Sim,
    Qemu(Box<QemuHost>),
}

/// A boot in progress.
#[derive(Debug)]
enum Running {
    Sim,
    Qemu(Box<Process>),
}

/// What can be read without waiting for a power transition.
#[derive(Debug, Clone)]
pub struct View {
    /// Power state.
    pub power: PowerState,
    /// Boot override.
    pub boot_override: BootOverride,
    /// Boots since the lab started.
    pub boots: u64,
    /// Grows with every change a client can see; the source of ETags.
    pub revision: u64,
    /// `AssetTag`, which clients may write.
    pub asset_tag: String,
    /// When the machine last began to boot or lost power.
    pub last_reset: Option<Timestamp>,
    /// Process id of QEMU, when it runs.
    pub qemu_pid: Option<u32>,
}

/// A machine.
#[derive(Debug)]
pub struct Machine {
    config: HostConfig,
    backend: Backend,
    journal: Arc<Journal>,
    faults: Arc<FaultSet>,
    view: Mutex<View>,
    /// Held during power transitions, so that there is one at a time. The number is that of the boot.
    running: tokio::sync::Mutex<Option<(u64, Running)>>,
    events: mpsc::UnboundedSender<GuestEvent>,
}

impl Machine {
    /// Makes a machine that is off, and the task that follows what its guest does.
    pub(crate) fn new(config: HostConfig, backend: Backend, journal: Arc<Journal>, faults: Arc<FaultSet>) -> Arc<Self> {
        let (events, mut inbox) = mpsc::unbounded_channel::<GuestEvent>();
        let view = View {
            power: PowerState::Off,
            boot_override: BootOverride::NONE,
            boots: 0,
            revision: 1,
            asset_tag: String::new(),
            last_reset: None,
            qemu_pid: None,
        };
        let machine = Arc::new(Self {
            config,
            backend,
            journal,
            faults,
            view: Mutex::new(view),
            running: tokio::sync::Mutex::new(None),
            events,
        });
        let weak: Weak<Self> = Arc::downgrade(&machine);
        tokio::spawn(async move {
            // The sender lives in the machine and in its QEMU reader: the loop ends when the machine is dropped.
            while let Some(event) = inbox.recv().await {
                let Some(machine) = weak.upgrade() else { break };
                machine.follow_guest(event).await;
            }
        });
        machine
    }

    /// The host's configuration.
    #[must_use]
    pub fn config(&self) -> &HostConfig {
        &self.config
    }

    fn lock(&self) -> MutexGuard<'_, View> {
        // Each change of the view is complete before the guard is released.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of the machine now.
    #[must_use]
    pub fn view(&self) -> View {
        self.lock().clone()
    }

    fn change(&self, change: impl FnOnce(&mut View)) {
        let mut view = self.lock();
        change(&mut view);
        view.revision += 1;
    }

    /// Sets the boot override for boots to come.
    pub fn set_override(&self, boot_override: BootOverride) {
        self.change(|v| v.boot_override = boot_override);
    }

    /// Sets the asset tag.
    pub fn set_asset_tag(&self, tag: String) {
        self.change(|v| v.asset_tag = tag);
    }

    /// Does what `ComputerSystem.Reset` asks.
    ///
    /// # Errors
    /// [`ResetError::Conflict`] when the power state does not allow it, [`ResetError::Backend`] when QEMU fails.
    pub async fn reset(&self, asked: ResetType) -> Result<(), ResetError> {
        let mut running = self.running.lock().await;
        let state = if running.is_some() { PowerState::On } else { PowerState::Off };
        match (asked, state) {
            (ResetType::On, PowerState::Off) => self.boot(&mut running, "Reset On").await?,
            (ResetType::ForceOff, PowerState::On) => self.cut_power(&mut running, "Reset ForceOff").await,
            (ResetType::GracefulShutdown, PowerState::On) => self.press_power_button(&mut running).await?,
            (ResetType::ForceRestart | ResetType::PowerCycle, PowerState::On) => {
                self.end(&mut running).await;
                self.boot(&mut running, &format!("Reset {}", asked.as_str())).await?;
            }
            (ResetType::On, PowerState::On) | (_, PowerState::Off) => {
                return Err(ResetError::Conflict { asked, state });
            }
        }
        Ok(())
    }

    /// Plays a guest that resets its machine (`sim` hosts; a QEMU guest does it by itself).
    pub async fn guest_reset(&self) {
        self.play(GuestAction::Reset).await;
    }

    /// Plays a guest that switches its machine off.
    pub async fn guest_shutdown(&self) {
        self.play(GuestAction::Shutdown).await;
    }

    async fn play(&self, action: GuestAction) {
        let boot = self.lock().boots;
        self.follow_guest(GuestEvent { boot, action }).await;
    }

    /// Ends the machine because the lab ends.
    pub(crate) async fn stop(&self) {
        let mut running = self.running.lock().await;
        if running.is_some() {
            self.cut_power(&mut running, "lab stopped").await;
        }
    }

    async fn follow_guest(&self, event: GuestEvent) {
        let mut running = self.running.lock().await;
        if running.as_ref().is_none_or(|(boot, _)| *boot != event.boot) {
            return;
        }
        match event.action {
            GuestAction::Reset => {
                self.end(&mut running).await;
                if let Err(error) = self.boot(&mut running, "guest reset").await {
                    tracing::error!(host = self.config.name, %error, "cannot boot again after a guest reset");
                }
            }
            GuestAction::Shutdown => self.cut_power(&mut running, "guest shutdown").await,
            GuestAction::Died => {
                tracing::warn!(host = self.config.name, "the machine's process ended by itself");
                self.cut_power(&mut running, "process ended").await;
            }
        }
    }

    /// Begins a boot. The one place where an override is consumed.
    async fn boot(&self, running: &mut Option<(u64, Running)>, cause: &str) -> Result<(), LabError> {
        let lost = self.faults.override_is_lost(&self.config.name);
        let (boot, order) = {
            let mut view = self.lock();
            let effective = if lost { BootOverride::NONE } else { view.boot_override };
            view.boot_override = view.boot_override.after_boot();
            view.boots += 1;
            view.revision += 1;
            (view.boots, effective.order(&self.config.boot_order))
        };
        let started = match &self.backend {
            Backend::Sim => Ok((Running::Sim, None)),
            Backend::Qemu(host) => host
                .start(boot, &order, self.events.clone())
                .await
                .map(|process| (process.pid(), process))
                .map(|(pid, process)| (Running::Qemu(Box::new(process)), pid)),
        };
        match started {
            Ok((machine, pid)) => {
                *running = Some((boot, machine));
                self.change(|v| {
                    v.power = PowerState::On;
                    v.qemu_pid = pid;
                    v.last_reset = Some(clock::now());
                });
                self.journal.record(Record::Boot { boot, order, cause: cause.to_owned() });
                Ok(())
            }
            Err(error) => {
                self.went_off(&format!("boot failed: {error}"));
                Err(error)
            }
        }
    }

    async fn press_power_button(&self, running: &mut Option<(u64, Running)>) -> Result<(), LabError> {
        match running {
            Some((_, Running::Qemu(process))) => process.press_power_button().await,
            Some((_, Running::Sim)) => {
                match self.config.acpi {
                    Acpi::Honoured => self.cut_power(running, "Reset GracefulShutdown").await,
                    Acpi::Ignored => {}
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn cut_power(&self, running: &mut Option<(u64, Running)>, cause: &str) {
        self.end(running).await;
        self.went_off(cause);
    }

    fn went_off(&self, cause: &str) {
        self.change(|v| {
            v.power = PowerState::Off;
            v.qemu_pid = None;
            v.last_reset = Some(clock::now());
        });
        self.journal.record(Record::PowerOff { cause: cause.to_owned() });
    }

    async fn end(&self, running: &mut Option<(u64, Running)>) {
        if let Some((_, Running::Qemu(process))) = running.take() {
            process.kill().await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::fault::{FaultAction, FaultSpec};

    const PXE_ONCE: BootOverride = BootOverride { enabled: OverrideEnabled::Once, target: OverrideTarget::Pxe };

    fn machine() -> (Arc<Machine>, Arc<Journal>, Arc<FaultSet>) {
        let journal = Arc::new(Journal::in_memory());
        let faults = Arc::new(FaultSet::default());
        let machine = Machine::new(HostConfig::sim("a"), Backend::Sim, journal.clone(), faults.clone());
        (machine, journal, faults)
    }

    fn first_devices(journal: &Journal) -> Vec<BootDevice> {
        let boots = journal.entries().into_iter().filter_map(|e| match e.what {
            Record::Boot { order, .. } => Some(order[0]),
            _ => None,
        });
        boots.collect()
    }

    #[tokio::test]
    async fn once_is_consumed_by_the_next_boot_whatever_causes_it() {
        let (machine, journal, _) = machine();
        machine.set_override(PXE_ONCE);
        machine.reset(ResetType::On).await.unwrap();
        assert_eq!(machine.view().boot_override, BootOverride::NONE);
        machine.guest_reset().await;
        machine.set_override(PXE_ONCE);
        machine.guest_reset().await;
        machine.reset(ResetType::ForceRestart).await.unwrap();
        assert_eq!(first_devices(&journal), [BootDevice::Pxe, BootDevice::Disk, BootDevice::Pxe, BootDevice::Disk]);
    }

    #[tokio::test]
    async fn continuous_stays() {
        let (machine, journal, _) = machine();
        machine.set_override(BootOverride { enabled: OverrideEnabled::Continuous, target: OverrideTarget::Pxe });
        machine.reset(ResetType::On).await.unwrap();
        machine.reset(ResetType::PowerCycle).await.unwrap();
        assert_eq!(first_devices(&journal), [BootDevice::Pxe, BootDevice::Pxe]);
        assert_eq!(machine.view().boot_override.enabled, OverrideEnabled::Continuous);
    }

    #[tokio::test]
    async fn a_lost_override_boots_from_disk_and_is_gone() {
        let (machine, journal, faults) = machine();
        faults.add(FaultSpec::always(FaultAction::LoseOverride).times(1)).unwrap();
        machine.set_override(PXE_ONCE);
        machine.reset(ResetType::On).await.unwrap();
        assert_eq!(first_devices(&journal), [BootDevice::Disk]);
        assert_eq!(machine.view().boot_override, BootOverride::NONE);
    }

    #[tokio::test]
    async fn impossible_resets_change_nothing() {
        let (machine, journal, _) = machine();
        for asked in [ResetType::ForceOff, ResetType::GracefulShutdown, ResetType::ForceRestart, ResetType::PowerCycle]
        {
            let error = machine.reset(asked).await.unwrap_err();
            assert!(matches!(error, ResetError::Conflict { .. }), "{asked:?}: {error}");
        }
        machine.reset(ResetType::On).await.unwrap();
        assert!(machine.reset(ResetType::On).await.is_err());
        assert_eq!(journal.entries().len(), 1);
    }

    #[tokio::test]
    async fn news_from_an_earlier_boot_is_not_believed() {
        let (machine, _, _) = machine();
        machine.reset(ResetType::On).await.unwrap();
        machine.reset(ResetType::ForceRestart).await.unwrap();
        machine.follow_guest(GuestEvent { boot: 1, action: GuestAction::Shutdown }).await;
        assert_eq!(machine.view().power, PowerState::On);
        machine.guest_shutdown().await;
        assert_eq!(machine.view().power, PowerState::Off);
    }
}
