//! Policies: what a decision over 10,000 hosts costs as WebAssembly, as native code and behind other boundaries; what it costs
//! to keep the columns; and how many claims a whole engine decides on.
//!
//! Contenders take turns, and what is compared is processor time of this thread, so that a busy machine harms all alike.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

mod claims;
mod hosts;
mod peers;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use vmetal_policy::{Columns, Config, OnFailure, PolicyEngine, Question};

use crate::fleet::say;
use crate::row::{self, Row, median};
use hosts::{Mixture, NOW, Scene};
use peers::Peers;

/// What to run.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The engine's program.
    pub vmetald: PathBuf,
    /// Policy components. Needed: without them there is nothing to compare.
    pub policies: Option<PathBuf>,
    /// Where state may be kept while it runs.
    pub scratch: PathBuf,
    /// Whether the peers are built and run.
    pub peers: bool,
    /// Turns of each contender.
    pub runs: usize,
    /// Decisions in one turn.
    pub decisions: u32,
    /// Hosts that decisions are measured over.
    pub fleet: u32,
    /// Hosts of the engine that is asked by its API.
    pub hosts: u32,
    /// Claims that it is asked for.
    pub claims: u32,
}

/// Time of one call, in microseconds.
#[derive(Debug, Clone, Copy)]
struct Spent {
    cpu: f64,
    wall: f64,
}

/// What each contender's turns took.
#[derive(Debug, Default)]
struct Turns {
    cpu: Vec<f64>,
    wall: Vec<f64>,
}

impl Turns {
    fn add(&mut self, spent: Spent) {
        self.cpu.push(spent.cpu);
        self.wall.push(spent.wall);
    }

    fn cpu(&self) -> f64 {
        median(&self.cpu)
    }

    fn words(&self) -> String {
        format!("{:.0} us CPU, {:.0} us wall", self.cpu(), median(&self.wall))
    }
}

/// Processor time of this thread, in microseconds. (What `getrusage` says of a thread is as old as the last timer tick.)
#[allow(unsafe_code, reason = "one call of the C library, which fills in a struct of ours")]
fn thread_cpu() -> Result<f64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a struct of the right type that outlives the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    ensure!(failed == 0, "the clock of this thread cannot be read");
    Ok(time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3)
}

/// Calls so often; the time of one call.
fn spent(times: u32, mut call: impl FnMut() -> Result<()>) -> Result<Spent> {
    let (cpu, begin) = (thread_cpu()?, Instant::now());
    for _ in 0..times {
        call()?;
    }
    let (cpu, wall) = (thread_cpu()? - cpu, begin.elapsed().as_secs_f64() * 1e6);
    Ok(Spent { cpu: cpu / f64::from(times), wall: wall / f64::from(times) })
}

/// The default placement policy, as component and as twin.
struct Contenders {
    wasm: PolicyEngine,
    native: PolicyEngine,
}

impl Policy {
    /// Runs everything.
    ///
    /// # Errors
    /// When something cannot be built or run, or contenders do not decide alike.
    pub async fn run(&self) -> Result<Vec<Row>> {
        let directory = self.policies.as_deref().context("the policy bench needs components: give --policies")?;
        let mut shipped = Config::shipped(directory);
        shipped.placement.on_failure = OnFailure::Closed;
        let contenders = Contenders { wasm: PolicyEngine::new(shipped)?, native: PolicyEngine::new(Config::native())? };
        let mut rows = Vec::new();
        for (mixture, name) in
            [(Mixture::Mixed, "place_10k_mixed_over_native"), (Mixture::Uniform, "place_10k_uniform_over_native")]
        {
            say(&format!("{name}: place-balanced over {} hosts", self.fleet));
            rows.extend(self.against_native(&contenders, mixture, name)?);
        }
        if self.peers {
            say("the same policy behind JSON and behind a call for each host");
            rows.extend(self.against_peers(&contenders)?);
        }
        rows.push(self.instantiate(&contenders)?);
        rows.extend(self.columns()?);
        row::tell(&rows);
        let claimed = claims::run(self).await?;
        row::tell(&claimed);
        rows.extend(claimed);
        Ok(rows)
    }

    /// Component against twin; of the uniform fleet also the rate, because there every host is scored and may be chosen.
    fn against_native(&self, contenders: &Contenders, mixture: Mixture, name: &str) -> Result<Vec<Row>> {
        let scene = Scene::new(&hosts::fleet(mixture, self.fleet)?)?;
        let question = Question::new(&scene.wanted, &scene.offer, &scene.fleet, NOW);
        let (wasm, native) = (&contenders.wasm, &contenders.native);
        ensure!(wasm.ask(&question)? == native.ask(&question)?, "component and twin decide differently");
        let mut answers = [Turns::default(), Turns::default()];
        let mut decisions = [Turns::default(), Turns::default()];
        for _ in 0..self.runs {
            for (at, engine) in [wasm, native].into_iter().enumerate() {
                answers[at].add(spent(self.decisions, || {
                    drop(engine.ask(&question)?);
                    Ok(())
                })?);
                let place = || engine.place(&scene.wanted, &scene.offer, &scene.fleet, NOW);
                decisions[at].add(spent(self.decisions, || {
                    drop(place()?);
                    Ok(())
                })?);
            }
        }
        let ratio = |turns: &[Turns; 2]| turns[0].cpu() / turns[1].cpu();
        let open = question.hosts().rows().filter(|host| host.is_open()).count();
        let notes = format!(
            "a whole decision with rules, checks and record, in a fresh instance: component {}, native twin {}; the policy's answer \
             alone: component {}, twin {}, ratio {:.2}; {open} of {} hosts may be chosen, all are scored",
            decisions[0].words(),
            decisions[1].words(),
            answers[0].words(),
            answers[1].words(),
            ratio(&answers),
            self.fleet,
        );
        let mut rows = vec![Row::new(name, "ratio", ratio(&decisions), self.runs, notes)];
        if mixture == Mixture::Uniform {
            let rate = 1e6 / decisions[0].cpu();
            let notes = format!(
                "whole decisions of the component, rules, digest, checks and record included; the policy's answer alone {:.0}/s; \
                 published beside it, with other work and on other machines: kube-scheduler's floor 680-810 pods/s at 5,000 nodes \
                 with a tenth of them scored",
                1e6 / answers[0].cpu()
            );
            rows.push(Row::new("decisions_per_s_core", "1/s", rate, self.runs, notes));
        }
        Ok(rows)
    }

    fn against_peers(&self, contenders: &Contenders) -> Result<Vec<Row>> {
        let peers = Peers::new()?;
        let scene = Scene::new(&hosts::fleet(Mixture::Mixed, self.fleet)?)?;
        let question = Question::new(&scene.wanted, &scene.offer, &scene.fleet, NOW);
        let (json, each) = (peers::as_json(&question, NOW), peers::one_by_one(&question));
        let expected = contenders.wasm.ask(&question)?;
        ensure!(peers.json(&json)? == expected, "the JSON peer decides differently");
        ensure!(peers.each(NOW, &each)? == expected, "the peer with a call for each host decides differently");
        let [mut ours, mut by_json, mut by_each] = [(); 3].map(|()| Turns::default());
        let few = (self.decisions / 20).max(1);
        for _ in 0..self.runs {
            ours.add(spent(self.decisions, || {
                drop(contenders.wasm.ask(&question)?);
                Ok(())
            })?);
            by_json.add(spent(few, || {
                drop(peers.json(&json)?);
                Ok(())
            })?);
            by_each.add(spent(few, || {
                drop(peers.each(NOW, &each)?);
                Ok(())
            })?);
        }
        let row = |name: &str, peer: &str, turns: &Turns| {
            let notes =
                format!("ours {}; peer {}; fresh instances, same choice and scores", ours.words(), turns.words());
            let times = turns.cpu() / ours.cpu();
            let row = Row::new(name, "times the CPU of ours", times, self.runs, notes);
            Row { peer: Some(turns.cpu()), peer_name: Some(format!("{peer}, us CPU")), ratio: Some(times), ..row }
        };
        Ok(vec![
            row("json_abi_over_ours", "core module that takes JSON", &by_json),
            row("per_host_calls_over_ours", "component called for each host", &by_each),
        ])
    }

    /// A store, an instance, a call about nothing, and the end of it all.
    fn instantiate(&self, contenders: &Contenders) -> Result<Row> {
        say("instantiate");
        let scene = Scene::new(&[])?;
        let question = Question::new(&scene.wanted, &scene.offer, &scene.fleet, NOW);
        let mut turns = Turns::default();
        for _ in 0..self.runs {
            turns.add(spent(self.decisions * 50, || {
                drop(contenders.wasm.ask(&question)?);
                Ok(())
            })?);
        }
        let notes = format!("store, fresh instance, place() without hosts, drop: {}", turns.words());
        Ok(Row::new("instantiate_us", "us", turns.cpu(), self.runs, notes))
    }

    /// What it costs to keep the columns: one host changed, and all made anew.
    fn columns(&self) -> Result<Vec<Row>> {
        say("columns");
        let fleet = hosts::fleet(Mixture::Mixed, self.fleet)?;
        let mut changed = fleet.clone();
        changed.iter_mut().for_each(|host| host.status.tenancies.count += 1);
        let mut columns = Columns::default();
        fleet.iter().for_each(|host| columns.update(host));
        drop(columns.view());
        let (mut one, mut settled, mut all) = (Turns::default(), Turns::default(), Turns::default());
        for run in 0..self.runs {
            // There and back, so that every update is a change.
            let hosts = if run % 2 == 0 { &changed } else { &fleet };
            let mut next = hosts.iter().cycle();
            let mut step = |columns: &mut Columns| next.next().map(|host| columns.update(host)).context("no hosts");
            one.add(spent(1000, || step(&mut columns))?);
            drop(columns.view());
            settled.add(spent(1000, || {
                step(&mut columns)?;
                drop(columns.view());
                Ok(())
            })?);
            all.add(spent(1, || {
                let mut columns = Columns::default();
                hosts.iter().for_each(|host| columns.update(host));
                drop(columns.view());
                Ok(())
            })?);
        }
        let notes = format!(
            "a host's row written from its object; with a look at the fleet after every change, digest included: {:.1} us CPU",
            settled.cpu()
        );
        let rebuild = format!("{} objects to a settled view with digest: {}", self.fleet, all.words());
        Ok(vec![
            Row::new("columns_update_us", "us", one.cpu(), self.runs, notes),
            Row::new("columns_rebuild_10k_ms", "ms", all.cpu() / 1000.0, self.runs, rebuild),
        ])
    }
}
