//! The files of a release, and a real client that installs from them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tfplugin::testing::{Provider, Terraform};
use vmetal_release::{
    Platform, ReleaseError, Version,
    bundle::{Bundle, Libraries},
    mirror,
};

const PLATFORM: Platform = if cfg!(target_arch = "aarch64") { Platform::LinuxArm64 } else { Platform::LinuxAmd64 };
const OTHER: Platform = if cfg!(target_arch = "aarch64") { Platform::LinuxAmd64 } else { Platform::LinuxArm64 };

/// A program of this machine that is quickly packed. As everything that is built for this machine only, it needs libraries.
fn program() -> PathBuf {
    "/bin/true".into()
}

/// The provider as it is built for tests, without what only debuggers need.
fn provider(dir: &Path) -> PathBuf {
    let stripped = dir.join("provider");
    let strip =
        Command::new("strip").arg("-o").arg(&stripped).arg(env!("CARGO_BIN_EXE_terraform-provider-vmetal")).status();
    assert!(strip.expect("strip (binutils) runs").success());
    stripped
}

fn licence() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../LICENSE")
}

fn version() -> Version {
    "1.2.3".parse().unwrap()
}

fn pack(bundle: &Bundle, program: &Path) -> PathBuf {
    bundle.pack(program, PLATFORM, Libraries::Allowed, &licence()).unwrap()
}

/// Packed, sealed, checked, installed: then `init` finds it, verifies it, starts it, and remembers its digest.
#[test]
fn a_release_is_installed_by_a_real_client() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = Bundle::new(version(), dir.path().join("release"));
    let zip = pack(&bundle, &provider(dir.path()));
    assert!(zip.ends_with(format!("terraform-provider-vmetal_1.2.3_{PLATFORM}.zip")), "{}", zip.display());
    bundle.seal().unwrap();
    assert_eq!(bundle.check().unwrap(), [zip]);
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(bundle.manifest()).unwrap()).unwrap();
    assert_eq!(manifest["metadata"]["protocol_versions"], serde_json::json!(["6.0"]));
    // The sums are those that everybody else computes, of exactly the files that a registry asks for.
    let sums = fs::read_to_string(bundle.sums()).unwrap();
    let names: Vec<&str> = sums.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[1].ends_with("_manifest.json"), "{names:?}");
    let mut check = Command::new("sha256sum");
    check.args(["--check", "--strict"]).arg(bundle.sums()).current_dir(dir.path().join("release"));
    assert!(check.output().unwrap().status.success());

    let place = dir.path().join("mirror");
    assert_eq!(mirror::install(&bundle, &place).unwrap().len(), mirror::HOSTS.len());
    let work = dir.path().join("work");
    fs::create_dir(&work).unwrap();
    let tf = Terraform::new(&work, &Provider::configured(mirror::configuration(&place))).unwrap();
    // The short address, as users write it, whichever client it is.
    let required = "vmetal = {\n source = \"vmetal/vmetal\"\n version = \"1.2.3\"\n}";
    tf.config(&format!("terraform {{\n required_providers {{\n {required}\n}}\n}}\nprovider \"vmetal\" {{}}\n"))
        .unwrap();
    tf.init().unwrap();
    tf.expect(&["validate", "-no-color"]).unwrap();
    let lock = fs::read_to_string(work.join(".terraform.lock.hcl")).unwrap();
    assert!(lock.contains("h1:") && lock.contains("\"1.2.3\""), "{lock}");
}

#[test]
fn the_same_program_makes_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| Bundle::new(version(), dir.path().join(name)));
    let (first, second) = (pack(&one, &program()), pack(&two, &program()));
    assert!(fs::read(first).unwrap() == fs::read(second).unwrap());
    let [one, two] = [one, two].map(|bundle| fs::read_to_string(bundle.seal().unwrap()).unwrap());
    assert_eq!(one, two);
}

#[test]
fn what_was_changed_or_is_missing_is_not_installed() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = Bundle::new(version(), dir.path().join("release"));
    let zip = pack(&bundle, &program());
    bundle.seal().unwrap();
    let whole = fs::read(&zip).unwrap();
    let place = dir.path().join("mirror");
    let refused = |what: &str| {
        let error = mirror::install(&bundle, &place).unwrap_err();
        assert!(matches!(error, ReleaseError::Sum { .. }) && error.to_string().contains(what), "{error}");
        assert!(!place.exists(), "something was installed");
    };
    let mut changed = whole.clone();
    changed[1000] ^= 1;
    fs::write(&zip, changed).unwrap();
    refused("its SHA-256 is");
    fs::remove_file(&zip).unwrap();
    refused("it is not there");
    fs::write(&zip, &whole).unwrap();
    fs::write(bundle.zip(OTHER), &whole).unwrap();
    refused("does not name it");
}

/// What is tried is built for this machine's libraries, and that is what a release must not be.
#[test]
fn a_program_that_would_not_run_there_is_not_packed() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = Bundle::new(version(), dir.path());
    let refused = |program: &Path, platform, says: &str| {
        let error = bundle.pack(program, platform, Libraries::None, &licence()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    refused(&program(), PLATFORM, "nobody can install those");
    refused(&program(), OTHER, "expected ");
    refused(&licence(), PLATFORM, "not a 64-bit Linux program");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
