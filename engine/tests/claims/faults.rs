//! Bad components on the whole way: handed over by the API, declared, seated or refused, and asked. Each fault has its own name,
//! on the claim and in the log, or on the policy and its record; the engine stays up, and the next decision is as it would
//! have been.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;
use vmetal_api::{ApiError, Client};
use vmetal_model::{Cause, Kind, Policy, PolicyKind, PolicyPhase, PolicySpec};
use vmetal_store::{AnyStore, StoreClock};

use crate::fixtures::{Fixture, GOOD, Placing, component};
use crate::policies::{client, declare, settled};
use crate::spec;
use crate::world::{self, PATIENCE, World};

/// A world with so many hosts, of which the second cannot be had, and a client of its engine.
async fn world_of(hosts: usize) -> (World, Client, JoinSet<()>) {
    let world = World::start(AnyStore::memory(StoreClock::system()), 1).await;
    world.hosts_of(hosts, |_| "r1".into()).await;
    world
        .alter(|host| host.metadata.labels.extend((host.name() == "h001").then(|| ("class".into(), "u".into()))))
        .await;
    let apart = |world: &World| world.host("h001").is_some_and(|host| host.metadata.labels["class"] == "u");
    world.until("one host to be of another class", apart).await;
    let mut tasks = JoinSet::new();
    let client = client(&world, 0, &mut tasks).await;
    (world, client, tasks)
}

fn closed(kind: PolicyKind, bytes: &[u8]) -> PolicySpec {
    let sha256 = hex::encode(Sha256::digest(bytes));
    serde_json::from_value(serde_json::json!({ "kind": kind, "sha256": sha256, "on_failure": "closed" })).unwrap()
}

async fn give_up(client: &Client, policy: &Policy) {
    client.delete(Kind::Policy, policy.name(), None).await.unwrap();
    client.wait_gone(Kind::Policy, policy.name(), &policy.metadata.uid, PATIENCE).await.unwrap();
}

/// Seats a policy, has it asked, and gives it up; its fault must be told by this name.
async fn is_told(kind: PolicyKind, bytes: Vec<u8>, name: &str) {
    let (world, client, _tasks) = world_of(3).await;
    let policy = closed(kind, &bytes);
    client.put_component(&policy.sha256, bytes.into()).await.unwrap();
    declare(&client, "bad", &policy).await.unwrap();
    let seated = settled(&client, "bad").await;
    assert_eq!((seated.status.phase, &seated.status.failure), (PolicyPhase::Active, &None), "{name}");

    world::apply(&world.backend(0), "n", &spec()).await.unwrap();
    let failure = |world: &World| world.node("n").and_then(|node| node.status.failure);
    world.until(name, |world| failure(world).is_some()).await;
    let told = failure(&world).unwrap();
    let whole = told.message.contains(name) && told.message.contains(&format!("sha256:{}", policy.sha256));
    assert!(whole && told.cause == Cause::Policy, "{name} is not in {told:?}");
    assert_eq!(world.node("n").unwrap().status.host, None);

    // Who was configured decides again, on the very claim.
    give_up(&client, &seated).await;
    world.until("the next decision", |world| world.placed() == 1).await;
    let node = world.node("n").unwrap();
    // It goes on, as far as a world without images lets it.
    assert!(node.status.failure.is_none_or(|failure| failure.cause != Cause::Policy), "{name}");
    let decision = node.status.decision.unwrap();
    assert!(decision.policies.iter().all(|policy| !policy.contains("fixture")), "{decision:?}");
    world::until_logged(&world.backend(0), &decision.log.unwrap()).await;
    let logged = world.logged("n").await;
    assert!(logged.iter().any(|reason| told.message.ends_with(reason)), "{name} is not in the log: {logged:?}");
}

const BODIES: [(&str, &str); 6] = [
    ("(loop $l (br $l))", "used up its 50005000 units of fuel"),
    ("(drop (call $again (i32.const 0)))", "call stack exhausted"),
    ("(loop $l (drop (memory.grow (i32.const 64))) (br $l))", "bytes of memory, at most 134217728 are allowed"),
    ("unreachable", "wasm `unreachable` instruction executed"),
    ("(drop (i32.div_u (i32.const 1) (local.get $i)))", "divide by zero"),
    ("(i32.store (i32.const 136) (i32.const -8))", "could not be called"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn components_that_fail_while_they_price_are_named_and_the_next_decision_is_unharmed() {
    for (body, name) in BODIES {
        is_told(PolicyKind::Cost, Fixture { body, ..GOOD }.bytes(), name).await;
    }
    for (fixture, name) in [
        (Fixture { answer: r"\01\00\00\00\09\00\00\00", ..GOOD }, "chose row 9 of 1"),
        (
            Fixture { answer: r"\00\00\00\00\00\00\00\00", ..GOOD },
            "chose none although its verdicts leave 1 candidates",
        ),
        (Fixture { prices: r"\00", ..GOOD }, "answered with 0 prices for 1 candidates"),
    ] {
        is_told(PolicyKind::Cost, fixture.bytes(), name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn components_that_choose_what_cannot_be_are_named_and_the_next_decision_is_unharmed() {
    // 3: the selector of the node type does not match the host in the middle.
    for (picks, codes, name) in [
        (&[0, 0][..], &[0, 3, 0][..], "twice"),
        (&[7], &[0, 3, 0], "chose row 7 of 3"),
        (&[1], &[0, 3, 0], "chose h001, which is excluded"),
        (&[0], &[0, 0, 0], "calls h001 feasible, which is excluded"),
        (&[0], &[1000, 3, 0], "with code 1000, which is not in its reason table"),
        (&[0, 2], &[0, 3, 0], "chose 2 candidates where 1 are wanted"),
        (&[], &[0, 3, 0], "chose none although its verdicts leave 2 candidates"),
        (&[0], &[0, 3], "answered with 2 verdicts for 3 candidates"),
    ] {
        is_told(PolicyKind::Placement, Placing { picks, codes }.bytes(), name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_cannot_be_seated_is_refused_by_name_and_on_its_record_and_claims_go_on() {
    let (world, client, _tasks) = world_of(9).await;
    let good = Fixture { ..GOOD }.bytes();
    let wasi =
        r#"(component (import "wasi:clocks/monotonic-clock@0.2.6" (instance (export "now" (func (result u64))))))"#;
    let version = r#"(component (component $c) (instance $i (instantiate $c))
        (export "vmetal:policy/cost@9.0.0" (instance $i)))"#;
    let cases: [(Vec<u8>, &str); 6] = [
        (component(wasi), "imports \"wasi:clocks/monotonic-clock@0.2.6\""),
        (component(version), "this engine knows version 0.1.0"),
        (good[..good.len() / 2].to_vec(), "is not a whole WebAssembly file"),
        (component("(module)"), "is a core WebAssembly module"),
        (
            component("(component (core module (memory 1 1 shared)))"),
            "uses a WebAssembly feature that policies may not use",
        ),
        (Placing { picks: &[0], codes: &[0] }.bytes(), "is a Placement policy"),
    ];
    for (n, (bytes, name)) in cases.into_iter().enumerate() {
        let policy = closed(PolicyKind::Cost, &bytes);
        client.put_component(&policy.sha256, bytes.into()).await.unwrap();
        let refused = client.check_policy(&policy).await.unwrap_err();
        assert!(matches!(&refused, ApiError::Invalid(errors) if errors[0].message.contains(name)), "{name}: {refused}");
        // Declared all the same, it says why nothing comes of it, and so does its record.
        declare(&client, "bad", &policy).await.unwrap();
        let told = settled(&client, "bad").await;
        let message = told.status.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default();
        assert!(message.contains(name) && message.contains("decides, as configured"), "{name} is not in {message}");
        let reasons = world.reasons(Kind::Policy, "bad").await;
        assert!(reasons.iter().any(|reason| reason == "refused"), "{reasons:?}");
        let node = format!("n{n}");
        world::apply(&world.backend(0), &node, &spec()).await.unwrap();
        world.until("a claim to be placed", |world| world.placed() == n + 1).await;
        give_up(&client, &told).await;
    }
    // Of what is too large nothing is taken in.
    let huge: Arc<[u8]> = vec![0; 100 << 20].into();
    let refused = client.put_component(&"ab".repeat(32), huge).await.unwrap_err();
    let message = "is 104857600 bytes large; expected at most 33554432";
    assert!(matches!(&refused, ApiError::Invalid(errors) if errors[0].message == message), "{refused}");
    world::apply(&world.backend(0), "last", &spec()).await.unwrap();
    world.until("a claim to be placed", |world| world.placed() == 7).await;
}
