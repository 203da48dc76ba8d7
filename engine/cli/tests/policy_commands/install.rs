//! Policies installed by the command, into a running engine: with and without keys.

use std::path::{Path, PathBuf};

use vmetal_store::{AnyStore, StoreClock};

use super::openssl::{Algorithm, Pair};
use super::world::World;
use super::{start, vmetal};

/// A component that is known, in a file of its own.
fn component(directory: &Path, name: &str) -> PathBuf {
    let frozen =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/tests/frozen/0.1.0").join(format!("{name}.wasm"));
    let file = directory.join(format!("{name}.wasm"));
    std::fs::copy(frozen, &file).unwrap();
    file
}

/// What the command says when it is refused.
async fn refused(endpoint: &str, args: &[&str]) -> String {
    vmetal(endpoint, args).await.unwrap_err().lines().join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_is_installed_shown_kept_from_another_and_given_up() {
    let world = World::start(AnyStore::memory(StoreClock::system()), 1).await;
    world.hosts_of(2, |_| "r1".into()).await;
    let endpoint = start(&world).await;
    let directory = tempfile::tempdir().unwrap();
    let file = component(directory.path(), "place-first-fit");
    let file = file.to_str().unwrap();
    let configured = world.deciders();

    let said = vmetal(&endpoint, &["policy", "install", file]).await.unwrap();
    assert!(
        said.starts_with("policy placement  place-first-fit@") && said.contains(" decides on placement\n"),
        "{said}"
    );
    assert!(said.contains("`vmetal delete policy placement`"), "{said}");
    let digest = said.split("sha256:").nth(1).unwrap()[..64].to_owned();
    assert!(world.deciders()[0].ends_with(&digest), "{:?}", world.deciders());
    let shown = vmetal(&endpoint, &["get", "policies"]).await.unwrap();
    assert!(shown.contains("placement") && shown.contains("active"), "{shown}");
    let described = vmetal(&endpoint, &["describe", "policy", "placement"]).await.unwrap();
    assert!(described.contains("origin      place-first-fit.wasm") && described.contains(&digest), "{described}");
    // Once more changes nothing.
    assert_eq!(vmetal(&endpoint, &["policy", "install", file]).await.unwrap(), said);

    // Only one decides; another may wait.
    let second = refused(&endpoint, &["policy", "install", file, "--name", "spare"]).await;
    assert!(
        second.contains("policy placement decides on placement already") && second.contains("--name placement"),
        "{second}"
    );
    let rests = vmetal(&endpoint, &["policy", "install", file, "--name", "spare", "--rest"]).await.unwrap();
    assert!(rests.starts_with("policy spare  place-first-fit@") && rests.contains("decides nothing"), "{rests}");

    // What is wrong is told before anything is declared, and where it is.
    let coloured = refused(&endpoint, &["policy", "install", file, "--settings", r#"{"colour":"red"}"#]).await;
    assert!(coloured.contains("spec.settings.colour: "), "{coloured}");
    let list = refused(&endpoint, &["policy", "install", file, "--settings", "[1]"]).await;
    assert!(list.contains("the settings are not a JSON object: [1]") && list.contains("--settings '{"), "{list}");
    let text = directory.path().join("text.wasm");
    std::fs::write(&text, "#!/bin/sh\n").unwrap();
    let script = refused(&endpoint, &["policy", "install", text.to_str().unwrap()]).await;
    assert!(script.contains("is not a whole WebAssembly file"), "{script}");
    assert!(world.deciders()[0].ends_with(&digest), "it decides on");

    vmetal(&endpoint, &["delete", "policy", "placement", "--wait", "60"]).await.unwrap();
    assert_eq!(world.deciders(), configured);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_keys_are_configured_only_what_they_signed_is_installed() {
    let directory = tempfile::tempdir().unwrap();
    let [ours, theirs] = ["ours", "theirs"].map(|name| Pair::new(directory.path(), name, Algorithm::P256));
    let keys = format!("[policies]\nkeys = [{:?}]\n", ours.setting());
    let world = World::configured(AnyStore::memory(StoreClock::system()), &keys).await;
    let endpoint = start(&world).await;
    let file = component(directory.path(), "place-first-fit");
    let signature = directory.path().join("place-first-fit.wasm.sig");
    let configured = world.deciders();
    let install = ["policy", "install", file.to_str().unwrap()];

    let unsigned = refused(&endpoint, &install).await;
    assert!(unsigned.contains("spec.signature: ") && unsigned.contains("is not signed"), "{unsigned}");
    theirs.sign(&file, &signature);
    let foreign = refused(&endpoint, &install).await;
    assert!(foreign.contains("spec.signature: ") && foreign.contains("ours.pub"), "{foreign}");
    // Ours, of something else.
    ours.sign(Path::new(&ours.setting()), &signature);
    assert_eq!(refused(&endpoint, &install).await, foreign);
    std::fs::write(&signature, "no signature").unwrap();
    let garbage = refused(&endpoint, &install).await;
    assert!(garbage.contains("spec.signature: ") && garbage.contains("is none"), "{garbage}");
    assert_eq!((world.deciders(), world.has(vmetal_model::Kind::Policy, "placement")), (configured, false));

    // As openssl writes it, and as cosign does, in base64.
    ours.sign(&file, &signature);
    let said = vmetal(&endpoint, &install).await.unwrap();
    assert!(said.contains(" decides on placement"), "{said}");
    let described = vmetal(&endpoint, &["get", "policy", "placement", "-o", "json"]).await.unwrap();
    let object: serde_json::Value = serde_json::from_str(&described).unwrap();
    let text = directory.path().join("in-base64.sig");
    std::fs::write(&text, format!("{}\n", object["spec"]["signature"].as_str().unwrap())).unwrap();
    let again = vmetal(&endpoint, &[&install[..], &["--signature", text.to_str().unwrap()]].concat()).await.unwrap();
    assert_eq!(again, said, "the same declaration, whichever way the signature is written");
}
