//! What is refused before it runs, and what the refusal is called.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use vmetal_model::PolicyKind;
use vmetal_policy::{Binding, Compiler, Config, Kept, LoadError, OnFailure, PolicyEngine, RunError, Source};

use vmetal_policy_sdk::Kind;

use crate::fixtures::{Fixture, GOOD, bind, component};
use crate::support::{self, offer, wanted};

/// Tries to seat the bytes; the seat's holder must still decide afterwards.
fn refusal(bytes: Vec<u8>) -> LoadError {
    refuse(&bind(bytes, OnFailure::NativeTwin), Config::native())
}

fn refuse(binding: &Binding, config: Config) -> LoadError {
    let engine = PolicyEngine::new(config).unwrap();
    let error = engine.install(PolicyKind::Cost, binding).unwrap_err();
    let decision = engine.choose_type(&wanted(&[]), &[offer("small", &[("cpu", "2")])], 0).unwrap();
    assert_eq!((decision.chosen, decision.record.policy.generation), (Some(0), 1));
    error
}

#[test]
fn only_the_boundary_may_be_imported() {
    let wasi = r#"(component (import "wasi:clocks/monotonic-clock@0.2.6" (instance
        (export "now" (func (result u64))))))"#;
    match refusal(component(wasi)) {
        LoadError::ForbiddenImport { import, .. } => assert_eq!(import, "wasi:clocks/monotonic-clock@0.2.6"),
        other => panic!("{other:?}"),
    }
    let plain = r#"(component (import "random" (func (result u64))))"#;
    assert!(matches!(refusal(component(plain)), LoadError::ForbiddenImport { .. }));
}

#[test]
fn an_import_of_ours_that_does_not_exist_does_not_link() {
    let mut text =
        r#"(component (import "vmetal:policy/clock@0.1.0" (instance (export "now" (func (result u64)))))"#.to_owned();
    for interface in ["cost", "meta", "explain"] {
        text += &format!(
            r#"(component ${interface}) (instance ${interface}-i (instantiate ${interface}))
            (export "vmetal:policy/{interface}@0.1.0" (instance ${interface}-i))"#
        );
    }
    text += ")";
    assert!(matches!(refusal(component(&text)), LoadError::Compile { .. }));
}

#[test]
fn another_version_of_the_boundary_is_refused() {
    let text = r#"(component (component $c) (instance $i (instantiate $c))
        (export "vmetal:policy/cost@9.0.0" (instance $i)))"#;
    match refusal(component(text)) {
        LoadError::UnknownVersion { export, known, .. } => {
            assert_eq!((export.as_str(), known.as_str()), ("vmetal:policy/cost@9.0.0", "0.1.0"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_component_of_another_world_is_refused() {
    assert!(matches!(refusal(component("(component)")), LoadError::MissingExport { .. }));
    let placement = std::fs::read(support::components().join("place-first-fit.wasm")).unwrap();
    match refusal(placement) {
        LoadError::WrongKind { wanted, seen, .. } => assert_eq!((wanted, seen), (Kind::Cost, Kind::Placement)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_truncation_is_refused_and_named() {
    let whole = std::fs::read(support::components().join("cost-vcluster.wasm")).unwrap();
    // A component cut at a section's end is whole but lacks exports; cut elsewhere it is malformed.
    for length in (0..whole.len()).step_by(whole.len() / 40) {
        let error = refusal(whole[..length].to_vec());
        let named = matches!(error, LoadError::Malformed { .. } | LoadError::MissingExport { .. });
        assert!(named, "{length} of {} bytes: {error:?}", whole.len());
    }
    assert!(matches!(refusal(b"#!/bin/sh\n".to_vec()), LoadError::Malformed { .. }));
}

#[test]
fn a_core_module_and_forbidden_features_are_refused() {
    assert!(matches!(refusal(component("(module)")), LoadError::NotAComponent { .. }));
    for text in [
        "(component (core module (memory i64 1)))",
        "(component (core module (memory 1 1 shared)))",
        "(component (core module (func (param v128 v128 v128) (result v128)
            (f32x4.relaxed_madd (local.get 0) (local.get 1) (local.get 2)))))",
    ] {
        assert!(matches!(refusal(component(text)), LoadError::ForbiddenFeature { .. }), "{text}");
    }
}

#[test]
fn size_and_digest_are_checked_before_anything_else() {
    let mut config = Config::native();
    config.limits.component_bytes = 100;
    let path = support::components().join("cost-vcluster.wasm");
    assert!(matches!(refuse(&Binding::file(&path), config), LoadError::TooLarge { limit: 100, .. }));

    let pinned = |sha256: &str| Binding {
        source: Source::File { path: path.clone(), sha256: Some(sha256.to_owned()) },
        ..Binding::native("cost-vcluster")
    };
    let seen = match refuse(&pinned(&"0".repeat(64)), Config::native()) {
        LoadError::DigestMismatch { seen, .. } => seen,
        other => panic!("{other:?}"),
    };
    let engine = PolicyEngine::new(Config::native()).unwrap();
    let identity = engine.install(PolicyKind::Cost, &pinned(&seen.to_uppercase())).unwrap().identity;
    assert_eq!((identity.sha256, identity.generation), (Some(seen), 2));
}

#[test]
fn a_missing_file_says_how_to_get_it() {
    let directory = tempfile::tempdir().unwrap();
    let error = PolicyEngine::new(Config::shipped(directory.path())).err().unwrap();
    let text = error.to_string();
    assert!(text.contains("cost-vcluster.wasm") && text.contains("make policies"), "{text}");
}

#[test]
fn what_a_policy_says_of_itself_is_checked() {
    let placement = Fixture { kind: r"\01", ..GOOD };
    assert!(matches!(refusal(placement.bytes()), LoadError::WrongKind { .. }));
    // A memory larger than the limit cannot even be made.
    let huge = Fixture { pages: 4096, ..GOOD };
    match refusal(huge.bytes()) {
        LoadError::Probe { call: "describe", source: RunError::OutOfMemory { wanted, .. }, .. } => {
            assert_eq!(wanted, 4096 * 65536);
        }
        LoadError::Compile { .. } => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn settings_are_validated_at_load_by_component_and_twin_alike() {
    let bytes: Arc<[u8]> = std::fs::read(support::components().join("cost-vcluster.wasm")).unwrap().into();
    let component = Source::Bytes { name: "cost-vcluster".to_owned(), bytes, sha256: None };
    for source in [component, Source::Native { name: "cost-vcluster".to_owned() }] {
        let binding = |settings: &str| Binding {
            source: source.clone(),
            settings: settings.to_owned(),
            ..Binding::native("cost-vcluster")
        };
        match refuse(&binding(r#"{"colour":"red"}"#), Config::native()) {
            LoadError::Settings { messages, .. } => assert!(messages[0].contains("no settings"), "{messages:?}"),
            other => panic!("{other:?}"),
        }
        PolicyEngine::new(Config { cost: binding("{}"), ..Config::native() }).unwrap();
    }
}

#[test]
fn what_is_wrong_with_settings_is_placed_by_the_policys_own_schema() {
    let path = support::components().join("place-spread.wasm");
    let engine = PolicyEngine::new(Config::native()).unwrap();
    let examine = |settings: &str| {
        engine.examine(PolicyKind::Placement, &Binding { settings: settings.to_owned(), ..Binding::file(&path) })
    };
    let places = |settings: &str| match examine(settings).unwrap_err() {
        LoadError::Settings { places, .. } => places.into_iter().map(|one| (one.at, one.message)).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let wrong = places(r#"{"max_skew":"two","maxskew":1}"#);
    assert_eq!(wrong.iter().map(|(at, _)| at.as_str()).collect::<Vec<_>>(), ["max_skew", "maxskew"], "{wrong:?}");
    assert!(wrong[0].1.contains("\"two\"") && wrong[0].1.contains("integer"), "{wrong:?}");
    assert!(wrong[1].1.contains("max_skew"), "what there is, is named: {wrong:?}");

    let portrait = examine(r#"{"max_skew":2}"#).unwrap();
    assert_eq!((portrait.facts.name.as_str(), portrait.identity.sha256.is_some()), ("place-spread", true));
    assert_eq!(portrait.facts.world, "vmetal:policy/placement-policy@0.1.0");
    assert!(portrait.settings_schema.contains("max_skew"));
    assert_eq!(engine.identities()[1].name, vmetal_policy::DEFAULT_PLACEMENT, "nothing was seated");
}

#[test]
fn what_was_configured_comes_back_without_being_loaded_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("configured.wasm");
    std::fs::copy(support::components().join("place-first-fit.wasm"), &file).unwrap();
    let engine = PolicyEngine::new(Config { placement: Binding::file(&file), ..Config::native() }).unwrap();
    let before = engine.identities()[1].clone();
    for name in ["place-spread", "place-balanced"] {
        let seated = engine.install(PolicyKind::Placement, &Binding::native(name)).unwrap();
        assert_eq!((seated.facts.name.as_str(), engine.identities()[1].name.as_str()), (name, name));
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(engine.restore(PolicyKind::Placement), before);
    assert_eq!(engine.identities()[1], before);
}

#[test]
fn a_hundred_megabytes_are_refused_before_they_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("huge.wasm");
    // A file of holes: it takes no room, and reading it would show.
    std::fs::File::create(&path).unwrap().set_len(100 << 20).unwrap();
    match refuse(&Binding::file(&path), Config::native()) {
        LoadError::TooLarge { size, limit, .. } => assert_eq!((size, limit), (100 << 20, 32 << 20)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn compiled_components_are_kept_and_anything_odd_about_them_means_compiling_again() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let kept = |compiler| Some(Kept { directory: cache.clone(), compiler });
    let load_with = |compiler| {
        let mut config = Config { cache: kept(compiler), ..Config::native() };
        config.placement = Binding::file(support::components().join("place-first-fit.wasm"));
        PolicyEngine::new(config)
    };
    let load = || drop(load_with(Compiler::Here).unwrap());
    let file = || std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).next().unwrap();
    load();
    let path = file();
    let (first, mode) = (std::fs::read(&path).unwrap(), |path| std::fs::metadata(path).unwrap().mode() & 0o777);
    assert_eq!((mode(&path), mode(&cache)), (0o600, 0o700));
    // A file that is fine is used and not written again; whatever is odd about one, it is replaced.
    let age = || std::fs::metadata(&path).unwrap().ino();
    let before = age();
    load();
    assert_eq!(age(), before);
    let mut damaged = first.clone();
    damaged[first.len() / 2] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    load();
    assert_eq!(std::fs::read(&path).unwrap(), first);
    std::fs::write(&path, b"short").unwrap();
    load();
    assert_eq!(std::fs::read(&path).unwrap(), first);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    load();
    assert_eq!((mode(&path), std::fs::read(&path).unwrap()), (0o600, first.clone()));

    // A program that compiles: one that does nothing, one that is not there, one that refuses change nothing; one that
    // dies of a component is told of.
    let shell = |script: &str| Compiler::Program { command: ["sh", "-c", script].map(Into::into).to_vec() };
    for compiler in [shell("cat >/dev/null"), shell("exit 3"), Compiler::Program { command: vec!["/none".into()] }] {
        std::fs::remove_file(&path).unwrap();
        load_with(compiler).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first);
    }
    let copy = directory.path().join("copy");
    std::fs::rename(&path, &copy).unwrap();
    match load_with(shell("kill -9 $$")).err().unwrap() {
        LoadError::Compile { source, .. } => assert!(source.to_string().contains("died of it"), "{source}"),
        other => panic!("{other:?}"),
    }
    assert!(!path.exists());
    // What the program made is used as it is.
    let made = std::fs::metadata(&copy).unwrap().ino();
    load_with(shell(&format!("cat >/dev/null; mv {} {}", copy.display(), path.display()))).unwrap();
    assert_eq!((age(), std::fs::read(&path).unwrap()), (made, first));
}

/// What it says of itself is asked before it has the seat: afterwards, a refusal would come too late.
#[test]
fn who_cannot_tell_its_schema_is_not_seated() {
    let silent = Fixture { schema: "unreachable", ..GOOD }.bytes();
    match refusal(silent) {
        LoadError::Probe { call: "settings-schema", .. } => {}
        other => panic!("{other:?}"),
    }
}

/// The memory that the modules in a component begin with, in bytes.
fn initial_memory(component: &[u8]) -> u64 {
    const PAGE: u64 = 64 << 10;
    let mut pages = 0;
    for payload in wasmparser::Parser::new(0).parse_all(component) {
        if let wasmparser::Payload::MemorySection(section) = payload.unwrap() {
            pages += section.into_iter().map(|memory| memory.unwrap().initial).sum::<u64>();
        }
    }
    pages * PAGE
}

/// Growing memory is most of what a call about little would cost.
#[test]
fn a_shipped_policy_that_is_asked_little_grows_no_memory() {
    let fleet = support::fleet(&[]);
    for kind in [PolicyKind::Cost, PolicyKind::Placement] {
        let seat = match kind {
            PolicyKind::Cost => Kind::Cost,
            PolicyKind::Placement => Kind::Placement,
        };
        for name in vmetal_policy::shipped(seat) {
            let path = support::components().join(format!("{name}.wasm"));
            let mut config = Config::native();
            config.limits.memory_bytes = initial_memory(&std::fs::read(&path).unwrap()).try_into().unwrap();
            assert!(config.limits.memory_bytes < 2 << 20, "{name} begins with {} bytes", config.limits.memory_bytes);
            let engine = PolicyEngine::new(config).unwrap();
            let binding = Binding { on_failure: OnFailure::Closed, ..Binding::file(path) };
            // It runs the policy's own cases too.
            engine.install(kind, &binding).unwrap_or_else(|error| panic!("{name}: {error:?}"));
            let (wanted, offer) = (wanted(&[]), offer("small", &[("cpu", "2")]));
            match kind {
                PolicyKind::Cost => drop(engine.choose_type(&wanted, &[offer], 0).unwrap()),
                PolicyKind::Placement => drop(engine.place(&wanted, &offer, &fleet, 0).unwrap()),
            }
        }
    }
}
