//! Whole fleets through the real engine: its own process, SQLite, the real Redfish client over TLS; BMCs, servers and tenants'
//! clusters are simulated in this process.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

pub(crate) mod claims;
pub(crate) mod rig;
mod sick;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::machine::Sickness;
use crate::row::{self, Row, median};
use rig::{Options, Registration, Rig};

/// What to run.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// The engine's program.
    pub vmetald: PathBuf,
    /// Policy components; the native twins when `None`.
    pub policies: Option<PathBuf>,
    /// Where state may be kept while it runs.
    pub scratch: PathBuf,
    /// The large fleet.
    pub large: u32,
    /// The small fleet.
    pub small: u32,
    /// Runs of the small fleet.
    pub runs: usize,
    /// Hosts that are claimed and released.
    pub claims: u32,
    /// From power-on to the first request, in the run with delays.
    pub delay: Duration,
    /// How long a fleet lies idle before its memory is counted.
    pub settle: Duration,
    /// Hosts and arrivals per second of the runs with and without sick BMCs.
    pub sick: (u32, f64),
}

impl Fleet {
    /// Runs everything.
    ///
    /// # Errors
    /// When the engine cannot be run or a fleet does not reach its end in time.
    pub async fn run(&self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let idle = self.idle().await?;
        rows.push(idle_row(idle));

        let mut small = Vec::new();
        for run in 1..=self.runs {
            say(&format!("register {} hosts, run {run} of {}", self.small, self.runs));
            let mut rig = self.rig(self.small, Duration::ZERO).await?;
            small.push(rig.register(self.patience(self.small)).await?);
        }
        let small_rate = median(&small.iter().map(Registration::per_minute).collect::<Vec<_>>());
        rows.push(rate_row(&small, small_rate, self.small));

        say(&format!("register {} hosts", self.large));
        let mut rig = self.rig(self.large, Duration::ZERO).await?;
        let large = rig.register(self.patience(self.large)).await?;
        rows.push(Row::new("fleet_13500_minutes", "min", large.minutes(), 1, large.notes()));
        let ratio = large.per_minute() / small_rate;
        let notes = format!("{:.0} against {small_rate:.0} hosts per minute", large.per_minute());
        rows.push(Row::new("fleet_rate_13500_over_1000", "ratio", ratio, 1, notes));
        rows.push(Row::new("fleet_end_state_fraction", "fraction", large.fraction(), 1, "hosts in phase available"));
        rows.push(self.memory(&mut rig, idle).await?);
        row::tell(&rows);
        let claimed = claims::run(&mut rig, self.claims).await?;
        row::tell(&claimed);
        rows.extend(claimed);
        drop(rig);

        say(&format!("register {} hosts with reboots of {:?}", self.large, self.delay));
        let mut rig = self.rig(self.large, self.delay).await?;
        let slow = rig.register(self.patience(self.large) + self.delay).await?;
        rows.push(Row::new("fleet_13500_with_delays_minutes", "min", slow.minutes(), 1, slow.notes()));
        ensure!(slow.available == self.large, "only {} of {} hosts became available", slow.available, self.large);
        drop(rig);

        rows.push(sick::run(self).await?);
        Ok(rows)
    }

    /// Registers the large fleet once, and nothing else.
    ///
    /// # Errors
    /// As [`Fleet::run`].
    pub async fn register_only(&self) -> Result<Vec<Row>> {
        say(&format!("register {} hosts", self.large));
        let mut rig = self.rig(self.large, Duration::ZERO).await?;
        let large = rig.register(self.patience(self.large)).await?;
        Ok(vec![Row::new("fleet_13500_minutes", "min", large.minutes(), 1, large.notes())])
    }

    async fn idle(&self) -> Result<u64> {
        say("idle engine");
        let rig = self.rig(0, Duration::ZERO).await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok(rig.engine.cost().resident_kib)
    }

    async fn rig(&self, hosts: u32, firmware: Duration) -> Result<Rig> {
        self.rig_with(hosts, firmware, |_| Sickness::Healthy).await
    }

    async fn rig_with(&self, hosts: u32, firmware: Duration, sickness: impl Fn(u32) -> Sickness) -> Result<Rig> {
        let options = Options { vmetald: &self.vmetald, policies: self.policies.as_deref(), scratch: &self.scratch };
        Rig::start(options, hosts, firmware, sickness).await
    }

    /// How long a fleet may take before the bench gives up: far more than any bar.
    fn patience(&self, hosts: u32) -> Duration {
        Duration::from_secs(120) + Duration::from_millis(100) * hosts
    }

    /// Memory per host that lies in the pool, once connections have been dropped.
    async fn memory(&self, rig: &mut Rig, idle: u64) -> Result<Row> {
        say("idle fleet");
        tokio::time::sleep(self.settle).await;
        rig.engine.check()?;
        let resident = rig.engine.cost().resident_kib;
        let each = resident.saturating_sub(idle) as f64 / f64::from(self.large);
        let notes =
            format!("{} MiB resident with {} hosts in the pool for {:?}", resident >> 10, self.large, self.settle);
        Ok(Row::new("engine_kib_per_host", "KiB", each, 1, notes))
    }
}

fn idle_row(kib: u64) -> Row {
    Row::new("engine_idle_mib", "MiB", kib as f64 / 1024.0, 1, "resident memory without hosts, 5 s after the start")
}

fn rate_row(runs: &[Registration], rate: f64, hosts: u32) -> Row {
    let notes = runs.last().map(Registration::notes).unwrap_or_default();
    Row::new("fleet_1000_hosts_per_min", "hosts/min", rate, runs.len(), format!("{hosts} hosts; last run: {notes}"))
}

/// Tells what is being done.
pub(crate) fn say(what: &str) {
    eprintln!("== {what}");
}

/// Says how far it is, every few seconds.
pub(crate) struct Pulse {
    begin: Instant,
    last: Instant,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Pulse { begin: Instant::now(), last: Instant::now() }
    }

    pub(crate) fn beat(&mut self, what: impl FnOnce() -> String) {
        if self.last.elapsed() >= Duration::from_secs(5) {
            self.last = Instant::now();
            eprintln!("   {:>5.0} s: {}", self.begin.elapsed().as_secs_f64(), what());
        }
    }
}

/// A path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}
