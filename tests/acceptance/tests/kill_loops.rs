//! The real engine, killed with SIGKILL at every boundary between two of its steps: before and after each commit, before and
//! after each effect. One server's whole life is led once for each of them, with one kill in it: declared, registered,
//! inspected, given another BMC password, claimed, installed, joined, released, erased, free again. Each life must come to the same end, and the BMC must
//! have seen nothing that makes no sense: each action once.
//!
//! The kill is exact because the engine does it to itself, at a boundary that the test names (`engine/src/boundary.rs`).

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests; they measure real processes in real time")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::StreamExt as _;
use vmetal_acceptance::journal::Journal;
use vmetal_acceptance::site::{get, until};
use vmetal_acceptance::{Behaviour, Deed, EngineProcess, Installers, Site, cluster, knock};
use vmetal_api::{ApiError, Apply, Client, EventEntry, EventsQuery, Secret};
use vmetal_model::agent::BootPurpose;
use vmetal_model::{Host, HostPhase, Image, ImagePhase, Kind, OperationState, TenantNode, TenantNodePhase};

/// Lives that are led at the same time. They mostly wait: for firmware, installers, and BMCs that are not to be hurried.
const AT_ONCE: usize = 16;
/// The longest that one stage of a life may take, with a kill in it and others beside it.
const STAGE: Duration = Duration::from_secs(600);
/// The fewest boundaries that a life must have.
const FEWEST: usize = 30;
/// The most lives of one run.
const MOST: usize = 48;
/// Of those, at effects; where there are more, they are sampled evenly, as are the commits for the rest.
const AT_EFFECTS: usize = 32;

/// How the engines are set up.
#[derive(Clone, Copy)]
struct Setup {
    /// Where each keeps its objects, as its configuration says.
    store: fn() -> String,
    /// Longer than a BMC that shares its processors with all lives can take to answer.
    bmc_timeout: Duration,
}

struct Life {
    host: String,
    /// Where it is killed; nowhere in the first.
    kill_at: Option<usize>,
}

/// A life that was led.
struct Led {
    end: End,
    /// How often its engine was killed.
    kills: usize,
    /// The last boundary that the first engine reached.
    died_at: String,
}

/// How a life ended, in what must be the same for all.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    phase: HostPhase,
    claimed: bool,
    erased: bool,
    open_intent: bool,
    resets: Vec<String>,
    deeds: Vec<Deed>,
    /// Whether the BMC opens with the password of the beginning, and with the other one.
    opens: [bool; 2],
}

fn main_path() -> End {
    let times = |asked: &[&str]| asked.iter().map(|asked| (*asked).to_owned()).collect();
    End {
        phase: HostPhase::Available,
        claimed: false,
        erased: true,
        open_intent: false,
        resets: times(&["On", "ForceOff", "On", "ForceOff", "On", "ForceOff"]),
        deeds: [BootPurpose::Inspect, BootPurpose::Install, BootPurpose::Erase].map(Deed::Began).into(),
        opens: [false, true],
    }
}

/// An engine that is started again whenever it has ended.
struct Phoenix {
    engine: EngineProcess,
    ended: usize,
}

impl Phoenix {
    fn revive(&mut self) -> Result<()> {
        if !self.engine.runs() {
            self.ended += 1;
            self.engine.start(&[])?;
        }
        Ok(())
    }

    async fn apply(&mut self, client: &Client, apply: Apply) -> Result<()> {
        let what = format!("{} {} declared", apply.kind, apply.name);
        until(&what, STAGE, || self.revive(), async || Ok(Some(client.apply(apply.clone()).await?))).await.map(|_| ())
    }
}

/// Has the BMC given another password, whatever happens to the engine meanwhile.
async fn rotate(phoenix: &mut Phoenix, client: &Client, host: &str, new: &str) -> Result<()> {
    let new = Secret::new(new);
    let mut ordered = false;
    until(
        "another BMC password",
        STAGE,
        || phoenix.revive(),
        async || {
            let query = EventsQuery { kind: Some(Kind::Host), name: Some(host.to_owned()), ..EventsQuery::default() };
            let events: Vec<_> = client.events(query).await?.collect().await;
            let changed = |event: &EventEntry| event.event.reason == "password_changed";
            if events.into_iter().collect::<Result<Vec<_>, _>>()?.iter().any(changed) {
                return Ok(Some(()));
            }
            if !ordered {
                // What was taken before the engine died is refused here, or done already.
                match client.rotate_bmc_password(host, &new, "a leaver").await {
                    Ok(_) | Err(ApiError::Precondition { .. }) => ordered = true,
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(None)
        },
    )
    .await
}

async fn live(site: &Site, installers: &Installers, life: &Life, engine: EngineProcess) -> Result<Led> {
    let Life { host, kill_at } = life;
    let mut phoenix = Phoenix { engine, ended: 0 };
    let list = phoenix.engine.socket().with_file_name("boundaries");
    let mut environment = vec![("VMETALD_TEST_BOUNDARIES", list.display().to_string())];
    environment.extend(kill_at.map(|at| ("VMETALD_TEST_KILL_AT", at.to_string())));
    phoenix.engine.start(&environment)?;
    let client = phoenix.engine.client()?;
    let node_name = format!("node-of-{host}");

    for apply in [site.image()?, site.cluster()?, site.node_type(host), site.host(host)] {
        phoenix.apply(&client, apply).await?;
    }
    until(
        "the image",
        STAGE,
        || phoenix.revive(),
        async || Ok(get::<Image>(&client, "tiny").await?.filter(|image| image.status.phase == ImagePhase::Ready)),
    )
    .await?;
    until(
        "an available host",
        STAGE,
        || phoenix.revive(),
        async || Ok(get::<Host>(&client, host).await?.filter(|host| host.status.phase == HostPhase::Available)),
    )
    .await?;

    let (old, new) = (site.password(host), format!("another-bmc-password-of-{host}"));
    let bmc = site.bmc_address(host);
    rotate(&mut phoenix, &client, host, &new).await?;

    phoenix.apply(&client, site.tenant_node(&node_name, host)).await?;
    let node = until(
        "a ready node",
        STAGE,
        || phoenix.revive(),
        async || {
            Ok(get::<TenantNode>(&client, &node_name).await?.filter(|node| node.status.phase == TenantNodePhase::Ready))
        },
    )
    .await?;

    until(
        "the release of the node",
        STAGE,
        || phoenix.revive(),
        async || Ok(Some(client.delete(Kind::TenantNode, &node_name, None).await?)),
    )
    .await?;
    let done = |host: &Host| host.status.phase == HostPhase::Available && host.status.claim.is_none();
    let end = until(
        "the host back in the pool",
        STAGE,
        || phoenix.revive(),
        async || {
            let gone = get::<TenantNode>(&client, &node_name).await?.is_none();
            Ok(get::<Host>(&client, host).await?.filter(|host| gone && done(host)))
        },
    )
    .await?;
    // One that is still to die may just have done so.
    let due = kill_at.is_some() && phoenix.ended == 0;
    ensure!(phoenix.engine.runs() || due, "the engine does not run at the end");
    phoenix.revive()?;
    phoenix.engine.kill();

    // In words that say what was wrong, before the comparison that says that something was.
    let journal = Journal::of_rotation(&site.place().bmc_journal(host))?;
    // Who died before it knew whether the new password holds asks once. Nobody else has to.
    let wrong = journal.wrong_passwords;
    ensure!(wrong <= usize::from(kill_at.is_some()), "the BMC was asked with a wrong password {wrong} times");
    let began = installers.deeds(host).into_iter().filter(|deed| matches!(deed, Deed::Began(_)));
    let status = &end.status;
    let seen = End {
        phase: status.phase,
        claimed: status.claim.is_some(),
        erased: status.erase.as_ref().is_some_and(|record| record.claim_uid == node.metadata.uid),
        open_intent: status.operation.as_ref().is_some_and(|op| op.state == OperationState::Intended),
        resets: journal.resets,
        deeds: began.collect(),
        opens: [knock::opens(&bmc, "admin", &old).await?, knock::opens(&bmc, "admin", &new).await?],
    };
    // Where it really was when it died: two runs are not the same to the last step.
    let died_at = std::fs::read_to_string(&list)?.lines().last().unwrap_or_default().to_owned();
    Ok(Led { end: seen, kills: phoenix.ended, died_at })
}

/// Leads lives, some at a time; what each came to, in order.
fn lead(
    site: &Site,
    installers: &Installers,
    setup: Setup,
    lives: &[Life],
    engine: impl Fn(&str) -> String + Sync,
) -> Vec<(Duration, Result<Led>)> {
    let (next, ends) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(lives.len()) {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    let Some(life) = lives.get(number) else { return };
                    let start = Instant::now();
                    let process = EngineProcess::new(site, &engine(&life.host), setup.bmc_timeout, &(setup.store)());
                    let end = process.and_then(|process| runtime.block_on(live(site, installers, life, process)));
                    ends.lock().unwrap().insert(number, (start.elapsed(), end));
                }
            });
        }
    });
    ends.into_inner().unwrap().into_values().collect()
}

/// The numbers of the boundaries at which to kill, counted from one.
fn chosen(boundaries: &[&str]) -> Vec<usize> {
    fn evenly(all: &[usize], most: usize) -> Vec<usize> {
        let count = all.len().min(most);
        (0..count).map(|n| all[n * all.len() / count]).collect()
    }
    // Where the BMC and the engine may know different passwords, always.
    let (mut chosen, rest): (Vec<_>, Vec<_>) =
        (1..=boundaries.len()).partition(|at| boundaries[at - 1].contains("password"));
    let (effects, commits): (Vec<_>, Vec<_>) = rest.into_iter().partition(|at| boundaries[at - 1].contains("Effect"));
    chosen.extend(evenly(&effects, AT_EFFECTS.saturating_sub(chosen.len())));
    chosen.extend(evenly(&commits, MOST.saturating_sub(chosen.len())));
    chosen
}

fn killed_at_every_boundary(setup: Setup) {
    let directory = tempfile::Builder::new().prefix("vk-").tempdir_in("/tmp").unwrap();
    let hosts: Vec<String> = (0..=MOST).map(|number| format!("h{number}")).collect();
    let site = Site::start(directory.path(), &hosts).unwrap();
    let quick =
        Behaviour { firmware: Duration::from_millis(50), work: Duration::from_millis(100), ..Behaviour::default() };
    let behaviours = hosts.iter().map(|host| (host.clone(), quick.clone())).collect();
    let engine = |host: &str| format!("e{}", &host[1..]);
    let socket = |host: &str| vec![site.place().directory.join(engine(host)).join("s/netboot.sock")];
    let installers = Installers::start_on(&site.lab_state(), &site.place().kubeconfig(), behaviours, socket).unwrap();

    // Once without a kill, to learn the boundaries.
    let first = [Life { host: hosts[0].clone(), kill_at: None }];
    let (took, end) = lead(&site, &installers, setup, &first, engine).remove(0);
    let end = end.unwrap_or_else(|error| {
        let engine = std::fs::read_to_string(site.place().directory.join("e0/vmetald.log")).unwrap_or_default();
        panic!("{error:#}; the engine's log:\n{engine}")
    });
    assert_eq!((end.end, end.kills), (main_path(), 0), "a life without a kill");
    let list = std::fs::read_to_string(site.place().directory.join("e0/s/boundaries")).unwrap();
    let boundaries: Vec<&str> = list.lines().collect();
    assert!(boundaries.len() >= FEWEST, "only {} boundaries:\n{list}", boundaries.len());
    assert!(list.contains("Effect change the password"), "no password was changed:\n{list}");
    println!("a life without a kill took {took:.1?} and has {} boundaries", boundaries.len());

    let places = chosen(&boundaries);
    let lives: Vec<Life> =
        places.iter().zip(&hosts[1..]).map(|(at, host)| Life { host: host.clone(), kill_at: Some(*at) }).collect();
    let count = lives.len();
    let start = Instant::now();
    let ends = lead(&site, &installers, setup, &lives, engine);
    let (mut killed, mut wrong) = (0, Vec::new());
    for (life, (took, end)) in lives.iter().zip(ends) {
        let at = life.kill_at.unwrap();
        match end {
            Ok(Led { end, kills, died_at }) if end == main_path() => {
                killed += kills;
                match kills {
                    0 => println!("boundary {at} was not reached: same end after {took:.1?}"),
                    _ => println!("killed at boundary {died_at}: same end after {took:.1?}"),
                }
            }
            Ok(Led { end, died_at, .. }) => wrong.push(format!("at {died_at} ({}): {end:?}", life.host)),
            Err(error) => wrong.push(format!("at {at} ({}): {error:#}", life.host)),
        }
    }
    if !wrong.is_empty() && std::env::var_os("VMETAL_KEEP").is_some() {
        eprintln!("kept: {}", directory.keep().display());
    }
    assert!(wrong.is_empty(), "{} of {count} lives ended differently:\n{}", wrong.len(), wrong.join("\n"));
    assert!(killed >= FEWEST, "only {killed} of {count} lives had their kill");
    println!("{killed} kills at {count} boundaries, the same end each time, in {:.0?}", start.elapsed());

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(cluster::client(&site.place().kubeconfig())).unwrap();
    assert_eq!(runtime.block_on(cluster::nodes(&client)).unwrap(), Vec::new());
    assert_eq!(runtime.block_on(cluster::join_tokens(&client)).unwrap(), Vec::<String>::new());
}

#[test]
fn on_sqlite_it_is_killed_at_every_boundary_and_ends_the_same() {
    killed_at_every_boundary(Setup { store: String::new, bmc_timeout: Duration::from_secs(30) });
}

#[test]
fn on_postgresql_it_is_killed_at_every_boundary_and_ends_the_same() {
    // A killed engine's successor waits for the end of the lease and for the longest call after it. Neither may be so short that
    // an engine which waits for a processor loses it: it would look again where it was, which nobody but a killed one has to.
    let store =
        || format!("[store]\nurl = {:?}\n\n[engines]\nlease = \"10s\"\n", vmetal_test_postgres::shared().database());
    killed_at_every_boundary(Setup { store, bmc_timeout: Duration::from_secs(10) });
}
