//! Policies as objects, from the API's socket to the seat: taken, kept, refused, given back, and exchanged while claims are
//! decided on.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use vmetal_api::{ApiError, Apply, Client, ClientConfig, Secret, ServerConfig, TokenSource, TokenStore, token};
use vmetal_model::{Duty, Kind, Policy, PolicyCheck, PolicyPhase, PolicySpec, TenantNode};
use vmetal_store::{AnyStore, StoreClock};

use crate::world::{self, PATIENCE, World};
use crate::{spec, stores};

/// A placement policy whose bytes, and nothing else, depend on `mark`: a custom section does not change what it decides.
fn component(mark: u8) -> (String, Arc<[u8]>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("policy/tests/frozen/0.1.0/place-first-fit.wasm");
    let mut bytes = std::fs::read(path).unwrap();
    bytes.extend([0, 3, 1, b'm', mark]);
    (hex::encode(Sha256::digest(&bytes)), bytes.into())
}

/// A client on a socket of its own, in front of an engine of the world.
pub(crate) async fn client(world: &World, engine: usize, tasks: &mut JoinSet<()>) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let tokens = TokenStore::new([("test", token::hash("t"))]);
    let serving =
        vmetal_api::serve(listener, world.backend(engine), tokens, ServerConfig::default(), std::future::pending());
    tasks.spawn(async move { serving.await.unwrap() });
    Client::connect_lazy(ClientConfig::new(endpoint, TokenSource::Literal(Secret::new("t")))).unwrap()
}

fn placement(sha256: &str) -> PolicySpec {
    serde_json::from_value(serde_json::json!({ "kind": "placement", "sha256": sha256, "on_failure": "closed" }))
        .unwrap()
}

pub(crate) async fn declare(client: &Client, name: &str, spec: &PolicySpec) -> Result<Policy, ApiError> {
    client.apply_as(Apply::new::<Policy>(name, spec).unwrap()).await
}

/// The policy when its status speaks of what is declared now.
pub(crate) async fn settled(client: &Client, name: &str) -> Policy {
    let done = |object: Option<&vmetal_api::AnyObject>| {
        let policy: Policy = object?.typed().unwrap();
        (policy.status.observed_generation == policy.metadata.generation).then_some(policy)
    };
    client.wait_for(Kind::Policy, name, PATIENCE, done).await.unwrap()
}

fn digest(node: &TenantNode) -> String {
    let policies = &node.status.decision.as_ref().unwrap().policies;
    policies[1].rsplit_once("sha256:").map_or_else(|| policies[1].clone(), |(_, digest)| digest.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_policy_takes_its_seat_keeps_it_when_the_next_is_refused_and_gives_it_back() {
    let directory = tempfile::tempdir().unwrap();
    let (first, bytes) = component(1);
    for (store_name, store) in stores(directory.path()) {
        let world = World::start(store, 1).await;
        world.hosts_of(4, |_| "r1".into()).await;
        let mut tasks = JoinSet::new();
        let client = client(&world, 0, &mut tasks).await;
        let configured = world.deciders()[0].clone();

        // Nothing is known of it before it is there, and nothing is kept of what is not what was promised.
        assert_eq!(client.check_policy(&placement(&first)).await.unwrap(), PolicyCheck::ComponentMissing);
        let missing = declare(&client, "p", &placement(&first)).await.unwrap_err();
        assert!(matches!(&missing, ApiError::Precondition { .. }), "{missing}");
        let wrong = client.put_component(&"0".repeat(64), Arc::clone(&bytes)).await.unwrap_err();
        assert!(matches!(&wrong, ApiError::Invalid(errors) if errors[0].path == "component"), "{wrong}");
        client.put_component(&first, Arc::clone(&bytes)).await.unwrap();
        match client.check_policy(&placement(&first)).await.unwrap() {
            PolicyCheck::Accepted { facts, decided_by: None, .. } => assert_eq!(facts.name, "place-first-fit"),
            other => panic!("{other:?}"),
        }
        let mut coloured = placement(&first);
        coloured.settings.insert("colour".into(), "red".into());
        let refused = client.check_policy(&coloured).await.unwrap_err();
        assert!(matches!(&refused, ApiError::Invalid(errors) if errors[0].path == "spec.settings.colour"), "{refused}");
        let cost: PolicySpec = PolicySpec { kind: vmetal_model::PolicyKind::Cost, ..placement(&first) };
        let refused = client.check_policy(&cost).await.unwrap_err();
        assert!(matches!(&refused, ApiError::Invalid(errors) if errors[0].path == "spec.kind"), "{refused}");

        declare(&client, "p", &placement(&first)).await.unwrap();
        let policy = settled(&client, "p").await;
        assert_eq!((policy.status.phase, policy.status.failure), (PolicyPhase::Active, None), "on {store_name}");
        assert_eq!(policy.status.in_force.unwrap().spec.sha256, first);
        world::apply(&world.backend(0), "n1", &spec()).await.unwrap();
        world.until("the claim to be placed", |world| world.placed() == 1).await;
        assert_eq!(digest(&world.node("n1").unwrap()), first);

        // A second one may rest, and not decide; whoever decides is named.
        let second = declare(&client, "q", &placement(&first)).await.unwrap_err();
        assert!(matches!(&second, ApiError::Unique { holder, .. } if holder.name == "p"), "{second}");
        declare(&client, "q", &PolicySpec { duty: Duty::Rests, ..placement(&first) }).await.unwrap();
        let resting = settled(&client, "q").await.status;
        assert_eq!((resting.phase, resting.in_force), (PolicyPhase::Resting, None));

        // What is refused leaves the seat to what was there, also after a restart.
        declare(&client, "p", &coloured).await.unwrap();
        let refused = settled(&client, "p").await.status;
        let message = refused.failure.unwrap().message;
        assert!(message.contains("refuses its settings") && message.contains("generation 1"), "{message}");
        assert_eq!((refused.phase, refused.in_force.unwrap().generation), (PolicyPhase::Failed, 1));
        assert!(world.deciders()[0].ends_with(&first));
        let again = world.again().await;
        assert!(again.policies.identities()[1].to_string().ends_with(&first), "{:?}", again.policies.identities());

        client.delete(Kind::Policy, "p", None).await.unwrap();
        client.wait_gone(Kind::Policy, "p", &policy.metadata.uid, PATIENCE).await.unwrap();
        assert_eq!(world.deciders(), [configured], "on {store_name}");
        let events = world.reasons(Kind::Policy, "p").await;
        for reason in ["created", "seated", "changed", "refused", "deleting", "deleted"] {
            assert!(events.iter().any(|event| event == reason), "{reason} is not among {events:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn engines_that_share_a_store_seat_the_same_policy_and_all_give_it_back() {
    let world = World::start(AnyStore::memory(StoreClock::system()), 2).await;
    let mut tasks = JoinSet::new();
    let client = client(&world, 1, &mut tasks).await;
    let (sha256, bytes) = component(1);
    let configured = world.deciders();
    client.put_component(&sha256, bytes).await.unwrap();
    declare(&client, "p", &placement(&sha256)).await.unwrap();
    let policy = settled(&client, "p").await;
    assert_eq!(policy.status.phase, PolicyPhase::Active);
    world.until("both seats to be taken", |world| world.deciders().iter().all(|one| one.ends_with(&sha256))).await;
    client.delete(Kind::Policy, "p", None).await.unwrap();
    client.wait_gone(Kind::Policy, "p", &policy.metadata.uid, PATIENCE).await.unwrap();
    world.until("both seats to be given back", |world| world.deciders() == configured).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_swap_under_load_loses_no_decision_and_each_names_one_of_the_two() {
    let world = World::start(AnyStore::memory(StoreClock::system()), 1).await;
    world.hosts_of(90, |_| "r1".into()).await;
    let mut tasks = JoinSet::new();
    let client = client(&world, 0, &mut tasks).await;
    let (one, two) = (component(1), component(2));
    for (sha256, bytes) in [&one, &two] {
        client.put_component(sha256, Arc::clone(bytes)).await.unwrap();
    }
    let seat = async |sha256: &str| {
        declare(&client, "p", &placement(sha256)).await.unwrap();
        assert_eq!(settled(&client, "p").await.status.phase, PolicyPhase::Active);
    };
    let claim = |from: usize, to: usize| {
        let applies = (from..to).map(|n| {
            let backend = world.backend(0);
            async move { world::apply(&backend, &format!("n{n:02}"), &spec()).await.unwrap() }
        });
        futures::future::join_all(applies)
    };
    seat(&one.0).await;
    claim(0, 20).await;
    world.until("the first claims", |world| world.placed() == 20).await;
    let swaps = async {
        for sha256 in [&two.0, &one.0, &two.0] {
            seat(sha256).await;
        }
    };
    tokio::join!(claim(20, 70), swaps);
    claim(70, 90).await;
    world.until("every claim", |world| world.placed() == 90).await;
    let digests: BTreeSet<String> = world.nodes().iter().map(digest).collect();
    assert_eq!(digests, BTreeSet::from([one.0.clone(), two.0.clone()]));
    let of = |n: usize| digest(&world.node(&format!("n{n:02}")).unwrap());
    for (claims, sha256) in [(0..20, &one.0), (70..90, &two.0)] {
        for n in claims {
            assert_eq!(&of(n), sha256, "claim {n}: {:#?}", world.node(&format!("n{n:02}")).unwrap().status);
        }
    }
}
