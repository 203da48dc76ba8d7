//! What was declared already and is declared again.

use vmetal_api::{Apply, Backend, BackendError, Secret};
use vmetal_model::Kind;
use vmetal_store::{AnyStore, StoreClock};

use crate::spec;
use crate::world::{self, World};

/// An apply that was cut off declares again what it declared, user data and all. That is no change; other user data would be.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_claim_that_is_declared_again_with_the_same_user_data_goes_on() {
    let world = World::start(AnyStore::memory(StoreClock::system()), 1).await;
    world.hosts_of(1, |_| "r1".into()).await;
    let backend = world.backend(0);
    let declare = async |data: &str, drain: u32| {
        let mut spec = spec();
        spec.drain.timeout_seconds = drain;
        let apply = Apply::from_json(Kind::TenantNode, "n", serde_json::to_value(spec).unwrap());
        backend.apply(&world::caller(), apply.secret("user_data", Secret::new(data))).await
    };
    let first = declare("#cloud-config", 300).await.unwrap().metadata;
    world.until("a host", |world| world.placed() == 1).await;
    let again = declare("#cloud-config", 300).await.unwrap().metadata;
    assert_eq!((again.uid, again.generation), (first.uid.clone(), first.generation), "nothing was changed");
    let changed = declare("#cloud-config", 60).await.unwrap().metadata;
    assert_eq!((changed.uid, changed.generation), (first.uid, first.generation + 1));
    let refused = declare("#cloud-config\nother", 60).await.unwrap_err();
    assert!(
        matches!(&refused, BackendError::Precondition { message, .. } if message.contains("only drain")),
        "{refused}"
    );
    world.clear().await;
}
