//! What authors get for files that are no policies, and for cases that fail.

use std::path::Path;
use std::process::Command;

/// Runs the program in a directory: how it ended, and all that it said.
pub(crate) fn vmetal(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmetal"));
    let done = command.current_dir(directory).arg("policy").args(arguments).output().unwrap();
    let text = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (done.status.code(), text)
}

#[test]
fn what_is_no_policy_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(directory.path().join(name), bytes).unwrap();
    let component = |text: &str| wat::parse_str(text).unwrap();
    write("text.wasm", b"#!/bin/sh\n");
    write("empty.wasm", b"");
    write("module.wasm", &component("(module)"));
    write("other.wasm", &component("(component)"));
    write(
        "wasi.wasm",
        &component(r#"(component (import "wasi:cli/environment@0.2.6" (instance (export "get" (func)))))"#),
    );
    write(
        "version.wasm",
        &component(
            r#"(component (component $c) (instance $i (instantiate $c))
                (export "vmetal:policy/placement@9.0.0" (instance $i)))"#,
        ),
    );
    // Holes: it takes no room on disk, and must not take any in memory.
    std::fs::File::create(directory.path().join("huge.wasm")).unwrap().set_len(100 << 20).unwrap();
    std::fs::create_dir(directory.path().join("empty")).unwrap();
    for (file, named) in [
        ("text.wasm", "is not a whole WebAssembly file"),
        ("empty.wasm", "is not a whole WebAssembly file"),
        ("module.wasm", "is a core WebAssembly module, a component is wanted; `vmetal policy build` makes one"),
        ("other.wasm", "does not export \"vmetal:policy/placement@0.1.0\""),
        ("wasi.wasm", "imports \"wasi:cli/environment@0.2.6\""),
        ("version.wasm", "exports \"vmetal:policy/placement@9.0.0\"; this engine knows version 0.1.0"),
        ("huge.wasm", "is 104857600 bytes large, at most 33554432 are allowed"),
        ("nowhere.wasm", "there is no file \"nowhere.wasm\""),
        ("empty", "is a directory, a component's file is wanted"),
    ] {
        for command in ["inspect", "fuzz", "bench", "simulate", "explain"] {
            let (code, text) = vmetal(directory.path(), &[command, file]);
            assert!(text.starts_with("error: ") && text.contains(named), "{command} {file}: {text}");
            assert!(matches!(code, Some(1 | 2)), "{command} {file}: {code:?}");
        }
    }
    let (_, text) = vmetal(directory.path(), &["test", "empty"]);
    assert!(text.contains("holds neither a crate (Cargo.toml) nor a component"), "{text}");
    let (code, text) = vmetal(directory.path(), &["build", "empty"]);
    assert!(code == Some(1) && text.contains("there is no Cargo.toml in"), "{text}");
}

#[test]
fn a_failing_case_is_told_and_fails_the_command() {
    let directory = tempfile::tempdir().unwrap();
    let cases = directory.path().join("mine.yaml");
    let file = cases.to_str().unwrap();
    std::fs::write(&cases, "- { case: two, candidates: [{ name: b }, { name: a }], expect: { chosen: [a] } }\n")
        .unwrap();
    let (code, text) = vmetal(directory.path(), &["test", "place-first-fit", "--cases", file]);
    assert_eq!((code, text.contains("1 runs, 0 failed")), (Some(0), true), "{text}");
    std::fs::write(&cases, "- { case: two, candidates: [{ name: b }, { name: a }], expect: { chosen: [b] } }\n")
        .unwrap();
    let (code, text) = vmetal(directory.path(), &["test", "place-first-fit", "--cases", file]);
    assert!(
        code == Some(1) && text.contains("FAILED  two") && text.contains("expected [\"b\"], got [\"a\"]"),
        "{text}"
    );
    std::fs::write(&cases, "- { case: two, candidate: [] }\n").unwrap();
    let (code, text) = vmetal(directory.path(), &["test", "place-first-fit", "--cases", file]);
    assert!(
        code == Some(1) && text.contains("mine.yaml is no list of cases: ") && text.contains("candidate"),
        "{text}"
    );
    let (_, text) = vmetal(directory.path(), &["test", "place-first-fit"]);
    assert!(text.contains("brings no cases"), "{text}");
}
