//! The engine is killed in the middle of everything, and nobody notices: the same end state, no action done twice.

use std::collections::BTreeMap;
use std::process::Child;
use std::time::Duration;

use vmetal_acceptance::{Behaviour, Deed, Stack, cluster};
use vmetal_model::agent::BootPurpose;

use crate::support::Ground::Here;
use crate::support::{HostBlock, ground, node_type, object, objects, power_ons, start, tenant_node, terraform};

const HOSTS: [&str; 2] = ["crash-a", "crash-b"];
/// How often the engine is killed after each milestone.
const KILLS: usize = 2;
/// How long a milestone may take to come.
const PATIENCE: Duration = Duration::from_secs(600);

/// SplitMix64 (Steele, Lea, Flood 2014): the same seed, the same moments.
struct Dice(u64);

impl Dice {
    fn up_to(&mut self, milliseconds: u64) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_millis((z ^ (z >> 31)) % milliseconds)
    }
}

#[allow(clippy::disallowed_methods, reason = "a new seed for each run; VMETAL_SEED repeats one")]
fn seed() -> u64 {
    match std::env::var("VMETAL_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64,
    }
}

/// Kills the engine a few times, at moments that the dice choose, after `host` has done `deed` so often.
fn kill_after(stack: &mut Stack, dice: &mut Dice, host: &str, deed: &Deed, times: usize) {
    stack.installers().unwrap().wait_for(host, deed, times, PATIENCE).unwrap();
    for _ in 0..KILLS {
        std::thread::sleep(dice.up_to(700));
        stack.kill_engine();
        std::thread::sleep(dice.up_to(300));
        stack.start_engine().unwrap();
    }
}

fn finish(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn an_engine_that_is_killed_over_and_over_loses_and_repeats_nothing() {
    let seed = seed();
    println!("VMETAL_SEED={seed} repeats the moments of this run");
    let mut dice = Dice(seed);
    let slow = Behaviour { work: Duration::from_secs(2), ..Behaviour::default() };
    let behaviours: BTreeMap<String, Behaviour> = HOSTS.map(|host| (host.to_owned(), slow.clone())).into();
    let mut lab = start(&HOSTS, behaviours, "");
    let place = lab.stack.place.clone();
    let stack = &mut lab.stack;
    let mut text = ground(&place);
    for host in HOSTS {
        text += &HostBlock::of(&place, host).text();
        text += &node_type(host, Here);
        text += &tenant_node(&format!("node-of-{host}"), host, Here);
    }
    let terraform = terraform(&place, "crashes", &text);

    let [first, second] = HOSTS;
    let child = terraform.start_apply().unwrap();
    // Registration and power-on.
    std::thread::sleep(dice.up_to(1500));
    stack.kill_engine();
    stack.start_engine().unwrap();
    kill_after(stack, &mut dice, first, &Deed::Began(BootPurpose::Inspect), 1);
    kill_after(stack, &mut dice, second, &Deed::Finished(BootPurpose::Inspect), 1);
    kill_after(stack, &mut dice, first, &Deed::Began(BootPurpose::Install), 1);
    kill_after(stack, &mut dice, second, &Deed::Finished(BootPurpose::Install), 1);
    kill_after(stack, &mut dice, first, &Deed::PhonedHome, 1);
    finish(child);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(cluster::client(&place.kubeconfig())).unwrap();
    let nodes = || runtime.block_on(cluster::nodes(&client)).unwrap();
    for host in HOSTS {
        let found = object(&place, "host", host);
        let node = object(&place, "tenant-node", &format!("node-of-{host}"));
        assert_eq!(
            (&found["status"]["phase"], &node["status"]["phase"]),
            (&"provisioned".into(), &"ready".into()),
            "seed {seed}"
        );
        assert_eq!(found["status"]["claim"]["uid"], node["metadata"]["uid"], "seed {seed}");
        assert_eq!(power_ons(&place, host), 2, "seed {seed}: inspection and installation, each once");
        let installers = stack.installers().unwrap();
        for purpose in [BootPurpose::Inspect, BootPurpose::Install] {
            assert_eq!(installers.count(host, &Deed::Began(purpose)), 1, "seed {seed}: {purpose:?} of {host}");
        }
    }
    assert_eq!(objects(&place, "tenant-node").len(), 2, "seed {seed}");
    assert_eq!(nodes().iter().filter(|node| node.status == "Ready").count(), 2, "seed {seed}: {:?}", nodes());
    assert!(terraform.plan_is_empty().unwrap(), "seed {seed}");

    let child = terraform.command(&["destroy", "-auto-approve", "-input=false", "-no-color"]);
    let child = { child }.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    kill_after(stack, &mut dice, first, &Deed::WentOff, 2);
    kill_after(stack, &mut dice, second, &Deed::Began(BootPurpose::Erase), 1);
    kill_after(stack, &mut dice, first, &Deed::Finished(BootPurpose::Erase), 1);
    finish(child);
    assert!(nodes().is_empty(), "seed {seed}: {:?}", nodes());
    assert!(objects(&place, "host").is_empty(), "seed {seed}");
    let tokens = runtime.block_on(cluster::join_tokens(&client)).unwrap();
    assert_eq!(tokens, Vec::<String>::new(), "seed {seed}");
    for host in HOSTS {
        assert_eq!(power_ons(&place, host), 3, "seed {seed}: and one for the erasure");
    }
}
