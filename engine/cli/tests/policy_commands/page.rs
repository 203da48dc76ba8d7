//! The ten-minute path of docs/policies.md, walked: every command on it is run, in order, by a shell with nothing but the
//! programs that the page asks for, and a running engine behind it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vmetal_store::{AnyStore, StoreClock};

use super::no_policies::vmetal;
use super::world::World;
use super::{TOKEN, start};

const NETWORK: &str =
    "[network]\nrange_start = \"10.0.0.10\"\nrange_end = \"10.0.0.20\"\nurl = \"http://10.0.0.1:8080\"\n";

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Where cargo builds: what the workspace's components were built with is there already.
fn target() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_vmetal")).ancestors().nth(2).unwrap().to_owned()
}

/// The shell blocks of a section, one after another.
fn commands(page: &str, heading: &str) -> String {
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let blocks = section.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.collect()
}

fn shell(directory: &Path, engine: &str, script: &str) -> Output {
    let programs = Path::new(env!("CARGO_BIN_EXE_vmetal")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    Command::new("bash")
        .args(["-euxo", "pipefail", "-c", script])
        .current_dir(directory)
        .env("PATH", path)
        .env("CARGO_TARGET_DIR", target())
        // What the workspace was built with is enough; nothing is fetched.
        .env("CARGO_NET_OFFLINE", "true")
        .env("VMETAL_ENDPOINT", engine)
        .env("VMETAL_TOKEN", TOKEN)
        .output()
        .unwrap()
}

#[test]
fn every_command_of_the_ten_minute_path_does_what_the_page_says() {
    // Always the same place: its path is among the compiler's flags, and what the policy needs is then compiled once.
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ten-minutes");
    if directory.exists() {
        std::fs::remove_dir_all(&directory).unwrap();
    }
    std::fs::create_dir_all(&directory).unwrap();
    std::os::unix::fs::symlink(workspace(), directory.join("vmetal")).unwrap();
    let page = std::fs::read_to_string(workspace().join("docs/policies.md")).unwrap();
    let script = commands(&page, "Your own in ten minutes");
    for command in ["new", "test", "inspect", "fuzz", "explain", "simulate", "bench", "install"] {
        assert!(
            script.contains(&format!("vmetal policy {command}")),
            "the page does not show `vmetal policy {command}`"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (world, engine) = runtime.block_on(async {
        let world = World::start(AnyStore::memory(StoreClock::system()), 1).await;
        let engine = start(&world).await;
        (world, engine)
    });
    let done = shell(&directory, &engine, &script);
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}\n{err}");
    let made = directory.join("place-mine");
    for expected in [
        "0 failed",
        "all hold",
        "place-mine@0.1.0 sha256:",
        "DECISIONS/S",
        "most_failures",
        "claims unplaced",
        "decides on placement",
    ] {
        assert!(out.contains(expected), "{expected} is missing in:\n{out}");
    }
    assert!(std::fs::read_to_string(made.join("place-mine.svg")).unwrap().starts_with("<svg"));
    // The page's last word: what the engine is configured with is the component's own digest.
    let digest = out.lines().rev().find(|line| line.ends_with("place-mine.wasm")).unwrap();
    let digest = digest.split_whitespace().next().unwrap();
    let component = std::fs::read(made.join("place-mine.wasm")).unwrap();
    assert!(world.deciders()[0].ends_with(digest), "the running engine has it: {:?}", world.deciders());
    installs(&page, &made.join("place-mine.wasm"), digest);
    published(&page, &made, &engine);
    // No path of this machine is in it.
    let text = String::from_utf8_lossy(&component);
    for secret in [workspace(), directory.clone()] {
        assert!(!text.contains(secret.to_str().unwrap()), "{} is in the component", secret.display());
    }
}

/// The engine's configuration as the page shows it seats the component: with another digest it would not.
fn installs(page: &str, component: &Path, digest: &str) {
    let section = page.split("\n## ").find(|section| section.starts_with("Your own in ten minutes")).unwrap();
    let shown = section.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let seat = |digest: &str| {
        let text = shown
            .replace("/srv/vmetal/place-mine.wasm", component.to_str().unwrap())
            .replace("\"...\"", &format!("{digest:?}"));
        let file = component.with_file_name("vmetald.toml");
        std::fs::write(&file, format!("{NETWORK}\n{text}")).unwrap();
        let policies = vmetald::Config::read(&file).unwrap().policies;
        let sources = policies.sources(component.with_file_name("kept"), |_| None).unwrap();
        let [cost, placement] = policies.chosen().unwrap().map(|chosen| runtime.block_on(chosen.binding(&sources)));
        let config =
            vmetal_policy::Config { cost: cost.unwrap(), placement: placement?, ..vmetal_policy::Config::native() };
        Ok::<_, vmetal_policy_source::SourceError>(vmetal_policy::PolicyEngine::new(config).unwrap())
    };
    let [_, seated] = seat(digest).unwrap().identities();
    assert_eq!((seated.name.as_str(), seated.sha256.as_deref()), ("place-mine", Some(digest)));
    let refused = seat(&"0".repeat(64)).err().unwrap().to_string();
    assert!(refused.contains("is pinned"), "{refused}");
}

/// The page's section on publishing, walked with a real registry; then the engine takes what was published, and nothing else.
fn published(page: &str, made: &Path, engine: &str) {
    const HEADING: &str = "Publishing, signing, verifying";
    let registry = vmetal_test_registry::Registry::start(vmetal_test_registry::Guests::Everybody);
    let script = commands(page, HEADING).replace("registry.example", registry.host());
    assert!(script.contains("vmetal policy push") && script.matches("vmetal policy verify").count() == 2, "{script}");
    let done = shell(made, engine, &script);
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}\n{err}");
    for expected in [
        "policy     place-mine@0.1.0",
        "world      placement, vmetal:policy@0.1.0",
        "signature  by policies.pub (sha256:",
        ", 0 failed",
    ] {
        assert_eq!(out.matches(expected).count(), 2, "{expected} is not there twice in:\n{out}");
    }
    let prefix = format!("{}/policies/place-mine@sha256:", registry.host());
    let pinned = out.lines().find(|line| line.starts_with(&prefix)).unwrap();

    let section = page.split("\n## ").find(|section| section.starts_with(HEADING)).unwrap();
    let shown = section.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let key = made.join("policies.pub");
    let shown = shown.replace("/etc/vmetal/policies.pub", key.to_str().unwrap());
    let take = |reference: &str| {
        let text = shown.replace("registry.example/policies/place-mine@sha256:...", reference);
        let file = made.join("published.toml");
        std::fs::write(&file, format!("{NETWORK}\n{text}")).unwrap();
        let policies = vmetald::Config::read(&file).unwrap().policies;
        let sources = policies.sources(made.join("kept"), |_| None).unwrap();
        let [_, placement] = policies.chosen().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(placement.binding(&sources)).map_err(|error| error.to_string())
    };
    let vmetal_policy::Source::Bytes { name, bytes, .. } = take(pinned).unwrap().source else { panic!("not fetched") };
    assert_eq!((name.as_str(), &*bytes), (pinned, &*std::fs::read(made.join("place-mine.wasm")).unwrap()));
    let told = take(&pinned.replace(&pinned[pinned.find('@').unwrap()..], ":0.1.0")).unwrap_err();
    assert!(told.contains(&format!("at this moment it is {pinned}")), "{told}");

    // What does not hold fails the command, by name.
    std::fs::write(made.join("other.wasm"), &*bytes).unwrap();
    for (arguments, named) in [
        (&["verify", "other.wasm", "--key", "policies.pub"][..], "is not signed"),
        (&["verify", "other.wasm", "--key", "policies.pub", "--signature", "Cargo.toml"], "is none"),
        (&["verify", "other.wasm", "--key", "policies.key"], "it is a private key"),
        (&["verify", "no-such-thing"], "there is no such file, and as a reference there is no registry in it"),
        (&["push", "place-mine:1", "other.wasm"], "is no OCI reference"),
        (&["push", "127.0.0.1:1/a:1", "place-mine.svg"], "is not a whole WebAssembly file"),
        (&["push", "127.0.0.1:1/a:1", "other.wasm"], "the registry does not answer"),
    ] {
        let (code, text) = vmetal(made, arguments);
        assert!(text.contains(named) && matches!(code, Some(1 | 2)), "{arguments:?} {code:?}: {text}");
    }
}
