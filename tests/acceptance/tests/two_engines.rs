//! Two real engines on one real PostgreSQL: they share the hosts, one is killed and the other goes on, one is stopped past its
//! lease and comes back to find itself fenced. What counts is what the BMCs saw.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests; they measure real processes in real time")]

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;
use vmetal_acceptance::journal::Journal;
use vmetal_acceptance::site::{get, until};
use vmetal_acceptance::{Behaviour, EngineProcess, Installers, Site};
use vmetal_api::Client;
use vmetal_model::{Host, HostPhase};

/// Long enough for a process that has to wait for a processor to renew it in time: only who is stopped on purpose loses it.
const LEASE: Duration = Duration::from_secs(10);
const CALL: Duration = Duration::from_secs(5);
/// The longest call, and the part of the lease that clocks may be wrong by.
const QUARANTINE: Duration = Duration::from_secs(5 + 2);
/// The longest that anything may take. How long it does take is exact only where time is virtual.
const STAGE: Duration = Duration::from_secs(600);
/// What an engine says that takes a shard whose owner did not hand it over.
const TOOK_OVER: &str = "took over from an engine that did not release";
const HOSTS: usize = 16;

fn runs() -> Result<()> {
    Ok(())
}

async fn phase(client: &Client, hosts: &[String], wanted: HostPhase) -> Result<()> {
    let what = format!("{} hosts {wanted:?}", hosts.len());
    until(&what, STAGE, runs, async || {
        for host in hosts {
            let Some(host) = get::<Host>(client, host).await? else { return Ok(None) };
            if host.status.phase != wanted {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await
}

/// How many shards an engine says that it owns, last.
fn owned(engine: &EngineProcess) -> Option<usize> {
    owned_in(&plain(&engine.log()))
}

fn owned_in(log: &str) -> Option<usize> {
    let (_, last) = log.rsplit_once("owned=")?;
    last.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A log without its colours.
fn plain(log: &str) -> String {
    let mut text = String::new();
    let mut rest = log;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        text += before;
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    text + rest
}

fn wait_for(what: &str, limit: Duration, mut look: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !look() {
        assert!(start.elapsed() < limit, "{what} did not happen within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    start.elapsed()
}

#[test]
fn they_share_the_fleet_survive_each_other_and_fence_who_slept() {
    let directory = tempfile::Builder::new().prefix("v2-").tempdir_in("/tmp").unwrap();
    let hosts: Vec<String> = (0..HOSTS).map(|number| format!("h{number}")).collect();
    let site = Site::start(directory.path(), &hosts).unwrap();
    let store = format!(
        "[store]\nurl = {:?}\n\n[engines]\nlease = \"{}s\"\n",
        vmetal_test_postgres::shared().database(),
        LEASE.as_secs()
    );
    let mut one = EngineProcess::new(&site, "e1", CALL, &store).unwrap();
    let mut two = EngineProcess::new(&site, "e2", CALL, &store).unwrap();
    one.start(&[]).unwrap();
    wait_for("the first engine owning everything", STAGE, || owned(&one) == Some(64));
    two.start(&[]).unwrap();
    wait_for("an even share", STAGE, || owned(&two) == Some(32));

    // Half of the servers call one engine first, half the other.
    let sockets = [one.socket(), two.socket()];
    let behaviours = hosts.iter().map(|host| (host.clone(), Behaviour::default())).collect();
    let _installers = Installers::start_on(&site.lab_state(), &site.place().kubeconfig(), behaviours, |host| {
        let mut sockets = sockets.to_vec();
        sockets.rotate_left(usize::from(host.ends_with(['1', '3', '5', '7', '9'])));
        sockets
    })
    .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    let (first, second) = (one.client().unwrap(), two.client().unwrap());
    let (some, rest) = hosts.split_at(HOSTS / 4);
    let (rest, last) = rest.split_at(HOSTS / 4);
    let declare = |client: &Client, hosts: &[String]| {
        for host in hosts {
            runtime.block_on(client.apply(site.host(host))).unwrap();
        }
    };

    // Declared at one, done by both, seen at either.
    declare(&first, some);
    runtime.block_on(phase(&second, some, HostPhase::Available)).unwrap();

    // kill -9 in the middle of the work.
    declare(&second, rest);
    std::thread::sleep(Duration::from_millis(700));
    one.kill();
    let killed = Instant::now();
    wait_for("the takeover", STAGE, || owned(&two) == Some(64));
    let failover = killed.elapsed();
    println!(
        "failover after kill -9: {failover:.1?} from the death to all shards (lease {LEASE:?}, quarantine {QUARANTINE:?})"
    );
    runtime.block_on(phase(&second, rest, HostPhase::Available)).unwrap();

    // A new engine joins, and gets its share from one that lives: without any wait.
    let logs = [plain(&one.log()).len(), plain(&two.log()).len()];
    one.start(&[]).unwrap();
    let joined = wait_for("an even share again", STAGE, || owned_in(&plain(&one.log())[logs[0]..]) == Some(32));
    println!("an engine that joins has its share after {joined:.1?}");
    assert!(!plain(&one.log())[logs[0]..].contains(TOOK_OVER), "what is handed over is taken without a wait");
    assert!(plain(&two.log())[logs[1]..].contains("handing shards over to other engines"));

    // Stopped in the middle of the work, for longer than its lease.
    declare(&second, last);
    std::thread::sleep(Duration::from_millis(700));
    let before = plain(&one.log()).len();
    two.signal(Signal::SIGSTOP).unwrap();
    wait_for("the takeover from who sleeps", STAGE, || owned(&one) == Some(64));
    let first = one.client().unwrap();
    runtime.block_on(phase(&first, last, HostPhase::Available)).unwrap();
    assert!(plain(&one.log())[before..].contains(TOOK_OVER));
    let seen: Vec<String> = hosts.iter().map(|host| site.place().bmc_journal(host)).collect();
    let slept = plain(&two.log()).len();
    two.signal(Signal::SIGCONT).unwrap();
    wait_for("that it is told", STAGE, || plain(&two.log())[slept..].contains("fenced"));
    wait_for("its return", STAGE, || owned(&two) == Some(32) && plain(&two.log())[slept..].contains("owned=32"));
    // Everything is at rest: whatever the sleeper had been about to send would be seen here.
    std::thread::sleep(Duration::from_secs(3));
    for (host, seen) in hosts.iter().zip(seen) {
        let now = site.place().bmc_journal(host);
        assert_eq!(now, seen, "{host}: the BMC was asked something after the sleeper woke up");
        let journal = Journal::replay(&now).unwrap();
        assert_eq!(journal.resets, ["On", "ForceOff"], "{host}: one inspection, each action once");
    }

    // A clean stop waits for nobody, and nobody waits for it.
    let stopped = Instant::now();
    let took = two.stop(STAGE).expect("a clean stop");
    wait_for("the hand-over", STAGE, || owned(&one) == Some(64));
    println!(
        "a clean stop took {took:.1?}; the other had everything {:.1?} after it was asked to stop",
        stopped.elapsed()
    );
    assert!(one.runs());
}
