//! Two hundred servers from nothing to the pool: ours beside OpenStack Ironic, in turns, on the same machine.
//!
//! **Ours** is all of what a server costs the engine: an engine of its own process with its store on disk (one commit at a
//! time is made durable before it is answered), which reaches each BMC over TLS at an address of its own, identifies it,
//! sets a network boot, switches the server on, has its installer take the inventory, and switches it off. BMCs and servers
//! are simulated in this process, on the same processors, and answer in no time.
//!
//! **The peer** is Ironic as its documentation has it for one machine: API and conductor in one process with SQLite, the only
//! form in which it supports SQLite. Its hardware is its own `fake-hardware`, which is always willing and does no I/O at all:
//! no BMC, no TLS, no inventory, no boot. Automated cleaning is off, so that a node goes from `enroll` by `manage` and
//! `provide` to `available` without anything in between. What is left is its API, its state machine and its database, which
//! does not wait for the disk, with every periodic task out of the way (`ironic/ironic.conf`). It does less for each server
//! than ours does, and promises less.
//!
//! Both are driven by an eager client: as many requests at once as serve it best, each step asked for as soon as the one
//! before is known to be done, states asked for every 50 ms (Ironic has no other way to hear of them; ours has a watch). Time
//! runs from the first request to the moment when every one of them is seen to be available. Starting either of them is not
//! counted, nor is the making of its database. `drive` says what was tried for the peer and was slower.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

mod drive;
mod ours;
mod peer;
mod venv;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::fleet::say;
use crate::row::{Better, Row, median};
use peer::Peer;
use venv::Venv;

/// What to run.
#[derive(Debug, Clone)]
pub struct Ironic {
    /// The engine's program.
    pub vmetald: PathBuf,
    /// Policy components; the native twins when `None`.
    pub policies: Option<PathBuf>,
    /// Where state may be kept while it runs.
    pub scratch: PathBuf,
    /// Where the peer is, or is to be, installed; ours runs alone when `None`.
    pub cache: Option<PathBuf>,
    /// Servers.
    pub nodes: u32,
    /// Runs of each.
    pub runs: usize,
}

/// One run of one side.
struct Run {
    wall: Duration,
    /// Seconds of processor time of engine or peer.
    cpu: f64,
    /// Of this process: the client, and with ours BMCs and servers.
    bench: f64,
    /// Resident at the end, KiB.
    resident_kib: u64,
}

impl Ironic {
    /// Runs both, in turns.
    ///
    /// # Errors
    /// When one of them cannot be installed or run, or does not reach the end in time.
    pub async fn run(&self) -> Result<Vec<Row>> {
        let venv = match &self.cache {
            Some(cache) => Some(Venv::open(cache, &self.scratch).await?),
            None => None,
        };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for run in 1..=self.runs {
            say(&format!("ours: {} hosts, run {run} of {}", self.nodes, self.runs));
            ours.push(seen(ours::run(self).await?));
            if let Some(venv) = &venv {
                say(&format!("ironic: {} nodes, run {run} of {}", self.nodes, self.runs));
                let mut peer = Peer::start(venv, &self.scratch).await?;
                theirs.push(seen(drive::run(&mut peer, self.nodes).await?));
            }
        }
        let seconds = |runs: &[Run]| runs.iter().map(|run| run.wall.as_secs_f64()).collect::<Vec<_>>();
        let notes = format!(
            "{} from the first request to the last available; ours: each BMC over TLS identified, network boot, power on, inventory by \
             its installer, power off, commits that wait for the disk; {}",
            self.nodes,
            told(&ours)
        );
        let row = Row::new("enroll_200_seconds", "s", median(&seconds(&ours)), self.runs, notes);
        Ok(vec![match venv {
            None => row,
            Some(_) => {
                let notes = format!(
                    "; ironic: fake-hardware without I/O, no cleaning, commits that do not wait for the disk, {} requests at once; {}",
                    drive::PARALLEL,
                    told(&theirs)
                );
                row.beside(&format!("ironic {}", venv::version()), median(&seconds(&theirs)), Better::Less)
                    .noting(&notes)
            }
        }])
    }
}

/// Tells of a run at once: the others take a while.
fn seen(run: Run) -> Run {
    eprintln!("   {:.2} s; {}", run.wall.as_secs_f64(), told(std::slice::from_ref(&run)));
    run
}

/// What the runs cost, in words: medians.
fn told(runs: &[Run]) -> String {
    let of = |value: fn(&Run) -> f64| median(&runs.iter().map(value).collect::<Vec<_>>());
    let walls: Vec<String> = runs.iter().map(|run| format!("{:.2}", run.wall.as_secs_f64())).collect();
    format!(
        "runs {} s, CPU {:.2} s, client and servers {:.2} s, {:.0} MiB",
        walls.join(" "),
        of(|run| run.cpu),
        of(|run| run.bench),
        of(|run| run.resident_kib as f64 / 1024.0)
    )
}
