//! What sick BMCs do to the healthy ones.
//!
//! Hosts are declared at a steady rate that the engine can follow, once with every BMC healthy and once with one in twenty
//! sick: taking requests and never answering, answering 503, breaking off. Each host's time runs from its declaration to the
//! pool. Had all been declared at once, the time of the last would say how fast the fleet is, and sick hosts, which are less
//! work, would make it better.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::StreamExt;
use vmetal_api::WatchQuery;
use vmetal_model::Kind;

use super::rig::Rig;
use super::{Fleet, Pulse, say};
use crate::machine::{Sickness, name};
use crate::row::{Row, median, percentile};

pub(super) async fn run(fleet: &Fleet) -> Result<Row> {
    let (hosts, rate) = fleet.sick;
    let pairs = fleet.runs.min(2);
    let (mut well, mut beside_sick) = (Vec::new(), Vec::new());
    for pair in 1..=pairs {
        for (sick, results) in [(false, &mut well), (true, &mut beside_sick)] {
            say(&format!(
                "{hosts} hosts, {rate} per second, {}, pair {pair} of {pairs}",
                if sick { "5 % sick" } else { "all well" }
            ));
            let sickness = |index: u32| if sick { ailment(index) } else { Sickness::Healthy };
            let mut rig = fleet.rig_with(hosts, Duration::ZERO, sickness).await?;
            let mut times = arrive(&mut rig, rate, sickness).await?;
            results.push(percentile(&mut times, 0.99));
            eprintln!("   p50 {:.0} ms, p99 {:.0} ms", percentile(&mut times, 0.5), percentile(&mut times, 0.99));
        }
    }
    let (well, beside_sick) = (median(&well), median(&beside_sick));
    let rise = (beside_sick / well - 1.0) * 100.0;
    let notes = format!(
        "p99 from declaration to pool of healthy hosts: {well:.0} ms without, {beside_sick:.0} ms with 5 % sick BMCs (no answer, 503, \
         broken JSON); {hosts} hosts, {rate} per second; medians of {pairs} interleaved runs"
    );
    Ok(Row::new("healthy_p99_rise_pct", "%", rise, pairs, notes))
}

/// One BMC in twenty is sick, each in one of three ways.
fn ailment(index: u32) -> Sickness {
    match index % 60 {
        7 => Sickness::Hangs,
        27 => Sickness::Busy,
        47 => Sickness::Truncates,
        _ => Sickness::Healthy,
    }
}

/// Declares hosts at a steady rate; the milliseconds that each healthy one took.
async fn arrive(rig: &mut Rig, rate: f64, sickness: impl Fn(u32) -> Sickness) -> Result<Vec<f64>> {
    let available: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
    let seen = Arc::clone(&available);
    let client = rig.client.clone();
    let watcher = tokio::spawn(async move {
        let mut items = client.watch(WatchQuery { kind: Some(Kind::Host), name: None }).await?;
        while let Some(item) = items.next().await {
            let item = item?;
            if let Some(object) = item.object()
                && object.status["phase"] == "available"
            {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.entry(object.name().to_owned()).or_insert_with(Instant::now);
            }
        }
        anyhow::Ok(())
    });
    let count = || available.lock().unwrap_or_else(PoisonError::into_inner).len();
    rig.declare_class(None).await?;
    let healthy: Vec<u32> = (0..rig.hosts).filter(|index| sickness(*index) == Sickness::Healthy).collect();
    let (mut declared, mut pulse, begin) = (HashMap::new(), Pulse::new(), Instant::now());
    for index in 0..rig.hosts {
        tokio::time::sleep_until((begin + Duration::from_secs_f64(f64::from(index) / rate)).into()).await;
        declared.insert(name(index), Instant::now());
        let (client, apply) = (rig.client.clone(), rig.declaration(index));
        tokio::spawn(async move {
            if let Err(error) = client.apply(apply).await {
                eprintln!("bench: cannot declare a host: {error}");
            }
        });
        pulse.beat(|| format!("{} declared, {} available", index + 1, count()));
    }
    let last = Instant::now();
    while count() < healthy.len() {
        rig.engine.check()?;
        ensure!(
            last.elapsed() < Duration::from_secs(120),
            "{} of {} healthy hosts became available",
            count(),
            healthy.len()
        );
        pulse.beat(|| format!("{} of {} available", count(), healthy.len()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    watcher.abort();
    let available = available.lock().unwrap_or_else(PoisonError::into_inner);
    let took = |index: &u32| {
        let name = name(*index);
        Some(available.get(&name)?.saturating_duration_since(*declared.get(&name)?).as_secs_f64() * 1000.0)
    };
    Ok(healthy.iter().filter_map(took).collect())
}
