//! The example provider under the real `terraform`.
//!
//! terraform is a requirement of these tests, not an option: without it they fail and say so.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests watch the real clock")]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tfplugin::testing::{Planned, Provider, Terraform};

const ADDRESS: &str = "example.com/tfplugin/notes";

fn binary() -> PathBuf {
    example("notes")
}

/// An example's binary, which `cargo test` builds next to the tests.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing; run the whole package's tests", path.display());
    path
}

fn config(dir: &Path, body: &str) -> String {
    format!(
        r#"
terraform {{
  required_providers {{
    notes = {{ source = "{ADDRESS}" }}
  }}
}}
provider "notes" {{
  dir = {:?}
}}
{body}
"#,
        dir.display().to_string()
    )
}

struct Bench {
    dir: tempfile::TempDir,
    terraform: Terraform,
}

impl Bench {
    fn new() -> Self {
        Self::with(&Provider::mirror(ADDRESS, binary()))
    }

    fn with(provider: &Provider) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("notes")).unwrap();
        let terraform = Terraform::new(dir.path(), provider).unwrap();
        Self { dir, terraform }
    }

    fn notes(&self) -> PathBuf {
        self.dir.path().join("notes")
    }

    fn config(&self, body: &str) {
        self.terraform.config(&config(&self.notes(), body)).unwrap();
    }
}

/// Handshake, mutual TLS, and the life of one resource.
#[test]
fn the_life_of_a_resource() {
    let bench = Bench::new();
    let tf = &bench.terraform;
    bench.config(
        r#"resource "notes_note" "a" {
  title  = "a"
  text   = "hello"
  secret = "hunter2"
}"#,
    );
    tf.init().unwrap();
    tf.check().unwrap();
    tf.verify_import("notes_note.a", "a", &[]).unwrap();
    let state = tf.state("notes_note.a").unwrap().unwrap();
    assert_eq!((&state["id"], &state["mood"], &state["secret_length"]), (&"a".into(), &"calm".into(), &7.into()));
    assert!(state["secret"].is_null());

    // Another spelling is no change; another text is an update; another title is another note.
    let change = |text: &str, title: &str| {
        bench.config(&format!(
            "resource \"notes_note\" \"a\" {{\n title = \"{title}\"\n text = \"{text}\"\n secret = \"x\"\n}}"
        ));
        tf.plan().unwrap()
    };
    let planned = |actions: &[&str]| {
        Planned::Changes(vec![("notes_note.a".into(), actions.iter().map(|a| (*a).to_owned()).collect())])
    };
    assert_eq!(change("HELLO", "a"), Planned::Nothing);
    assert_eq!(change("bye", "b"), planned(&["delete", "create"]));
    assert_eq!(change("bye", "a"), planned(&["update"]));
    tf.apply().unwrap();
    assert_eq!(tf.plan().unwrap(), Planned::Nothing);

    // Import of what exists, then nothing to do.
    tf.expect(&["state", "rm", "notes_note.a"]).unwrap();
    let clash = tf.try_apply().unwrap();
    assert!(!clash.ok() && clash.flat().contains("terraform import <address> a"), "{}", clash.text);
    tf.import("notes_note.a", "a").unwrap();
    assert_eq!(tf.plan().unwrap(), Planned::Nothing);

    // Gone behind terraform's back: made again.
    std::fs::remove_file(bench.notes().join("a.json")).unwrap();
    assert_eq!(tf.plan().unwrap(), planned(&["create"]));
    tf.apply().unwrap();
    tf.destroy().unwrap();
    assert!(!bench.notes().join("a.json").exists());
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let bench = Bench::new();
    bench.config("resource \"notes_note\" \"a\" {\n  title = \"a\"\n  mood = \"merry\"\n}");
    bench.terraform.init().unwrap();
    let output = bench.terraform.run(&["validate", "-no-color"]).unwrap();
    assert!(!output.ok());
    assert!(output.flat().contains("\"merry\" is not one of calm, cross."), "{}", output.text);
    assert!(output.flat().contains("mood = \"merry\""), "the line is shown: {}", output.text);
}

/// A bug during create: the object is kept, tainted, and the next apply heals it.
#[test]
fn a_panic_does_not_lose_the_object() {
    let bench = Bench::new();
    let tf = &bench.terraform;
    bench.config("resource \"notes_note\" \"a\" {\n  title = \"a\"\n  fault = \"panic\"\n}");
    tf.init().unwrap();
    let output = tf.try_apply().unwrap();
    assert!(!output.ok() && output.flat().contains("the note asked for it"), "{}", output.text);
    assert!(tf.tainted("notes_note.a").unwrap());
    bench.config("resource \"notes_note\" \"a\" {\n  title = \"a\"\n}");
    tf.apply().unwrap();
    assert!(!tf.tainted("notes_note.a").unwrap());
    tf.destroy().unwrap();
}

/// Ctrl-C in the middle of a long create: the state is there afterwards, and nothing is left to do.
#[test]
fn an_interrupt_keeps_the_state() {
    let bench = Bench::new();
    let tf = &bench.terraform;
    bench.config("resource \"notes_note\" \"a\" {\n  title = \"a\"\n  delay = 600\n}");
    tf.init().unwrap();
    let mut apply = tf.spawn(&["apply", "-auto-approve", "-no-color"]).unwrap();
    let file = bench.notes().join("a.json");
    let started = Instant::now();
    while !file.exists() {
        assert!(started.elapsed() < Duration::from_secs(120), "the create never began");
        std::thread::sleep(Duration::from_millis(20));
    }
    let interrupted = Command::new("kill").args(["-INT", &apply.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    apply.wait().unwrap();
    let state = tf.state("notes_note.a").unwrap().unwrap();
    assert_eq!(state["id"], "a");
    assert!(!tf.tainted("notes_note.a").unwrap());
    tf.destroy().unwrap();
}

/// Starts an apply that takes ten minutes and leaves it: by a panic, or waiting to be killed itself.
#[test]
#[ignore = "a part of what_a_test_started_ends_with_it, which runs it in a process of its own"]
fn leaves_an_apply_running() {
    let dir = PathBuf::from(std::env::var_os("LEAVE_IN").unwrap());
    std::fs::create_dir(dir.join("notes")).unwrap();
    let tf = Terraform::new(&dir, &Provider::mirror(ADDRESS, binary())).unwrap();
    tf.config(&config(&dir.join("notes"), "resource \"notes_note\" \"a\" {\n  title = \"a\"\n  delay = 600\n}"))
        .unwrap();
    tf.init().unwrap();
    let _apply = tf.spawn(&["apply", "-auto-approve", "-no-color"]).unwrap();
    let started = Instant::now();
    while !dir.join("notes/a.json").exists() {
        assert!(started.elapsed() < Duration::from_secs(120), "the create never began");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::fs::write(dir.join("left"), "").unwrap();
    assert!(std::env::var("LEAVE_BY").unwrap() != "panic", "as if the test had failed");
    std::thread::sleep(Duration::from_secs(600));
}

/// Processes whose environment names this directory: terraform and its providers get it as TMPDIR.
fn in_directory(dir: &Path) -> Vec<u32> {
    let pids =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let needle = format!("TMPDIR={}", dir.display());
    let ours = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.windows(needle.len()).any(|part| part == needle.as_bytes())
    };
    pids.filter(ours).collect()
}

/// Neither a test that fails nor one that is killed leaves terraform or a provider behind.
#[test]
fn what_a_test_started_ends_with_it() {
    let start = |how: &'static str| {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "leaves_an_apply_running", "--ignored"]);
        command.env("LEAVE_IN", dir.path()).env("LEAVE_BY", how).stdout(Stdio::null()).stderr(Stdio::null());
        (command.spawn().unwrap(), dir, how)
    };
    // Both at once: most of the time is terraform's.
    let mut started = ["panic", "kill"].map(start);
    for (test, dir, how) in &mut started {
        let begin = Instant::now();
        while !dir.path().join("left").exists() {
            let (waited, ended) = (begin.elapsed(), test.try_wait().unwrap());
            assert!(
                ended.is_none() && waited < Duration::from_secs(120),
                "{how}: the test never came so far: {ended:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        if *how == "kill" {
            assert!(in_directory(dir.path()).len() >= 2, "terraform and a provider were to be seen");
            test.kill().unwrap();
        }
        test.wait().unwrap();
        let begin = Instant::now();
        while !in_directory(dir.path()).is_empty() {
            let left = in_directory(dir.path());
            assert!(begin.elapsed() < Duration::from_secs(60), "{how}: {left:?} are left behind");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

struct Attached {
    child: Child,
    line: String,
}

impl Attached {
    fn start() -> Self {
        Self::to(binary())
    }

    fn to(binary: PathBuf) -> Self {
        let mut child = Command::new(binary).arg("--debug").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let line = line.trim().trim_start_matches("TF_REATTACH_PROVIDERS='").trim_end_matches('\'').to_owned();
        Self { child, line }
    }

    fn socket(&self) -> PathBuf {
        let json: serde_json::Value = serde_json::from_str(&self.line).unwrap();
        json[ADDRESS]["Addr"]["String"].as_str().unwrap().into()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One running provider serves several commands, and removes its socket when it is told to end.
#[test]
fn a_running_provider_can_be_attached_to() {
    let mut attached = Attached::start();
    let bench = Bench::with(&Provider::reattach(attached.line.clone()));
    bench.config("resource \"notes_note\" \"a\" {\n  title = \"a\"\n}");
    bench.terraform.apply().unwrap();
    assert_eq!(bench.terraform.plan().unwrap(), Planned::Nothing);
    bench.terraform.destroy().unwrap();
    let socket = attached.socket();
    assert!(socket.exists());
    Command::new("kill").args(["-INT", &attached.child.id().to_string()]).status().unwrap();
    assert!(attached.child.wait().unwrap().success());
    assert!(!socket.exists());
}

/// The smallest provider goes through the steps that the README tells of.
#[test]
fn the_smallest_provider_is_a_whole_one() {
    let attached = Attached::to(example("hello"));
    let dir = tempfile::tempdir().unwrap();
    let tf = Terraform::new(dir.path(), &Provider::reattach(attached.line.clone())).unwrap();
    let greeting = |name: &str| {
        format!(
            "terraform {{\n required_providers {{\n hello = {{ source = \"example.com/acme/hello\" }}\n}}\n}}\n\
             resource \"hello_greeting\" \"you\" {{\n name = {name:?}\n}}\n"
        )
    };
    tf.config(&greeting("you")).unwrap();
    tf.check().unwrap();
    tf.verify_import("hello_greeting.you", "you", &[]).unwrap();
    let missing = tf.verify_import("hello_greeting.you", "nobody", &[]).unwrap_err().to_string();
    assert!(missing.contains("No such greeting"), "{missing}");
    tf.config(&greeting("somebody with a long name")).unwrap();
    assert!(tf.try_apply().unwrap().flat().contains("Expected at most 20 characters, found 25."));
    tf.config(&greeting("you")).unwrap();
    tf.destroy().unwrap();
}

#[test]
fn terminated_it_leaves_no_socket_behind() {
    let mut attached = Attached::start();
    let socket = attached.socket();
    assert!(socket.exists());
    Command::new("kill").args(["-TERM", &attached.child.id().to_string()]).status().unwrap();
    assert!(attached.child.wait().unwrap().success());
    assert!(!socket.exists());
}

#[test]
fn started_by_hand_it_says_what_it_is() {
    let output = Command::new(binary()).env_remove("TF_PLUGIN_MAGIC_COOKIE").output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("started by terraform"));
}

/// Data source, function and ephemeral resource in one configuration, through plan, apply and refresh.
#[test]
fn what_is_looked_up_computed_and_only_lent() {
    let bench = Bench::new();
    let tf = &bench.terraform;
    bench.config(
        r#"resource "notes_note" "a" {
  title = "a"
  text  = provider::notes::join("-", "x", "y")
}
ephemeral "notes_lock" "me" {
  owner = "me"
}
data "notes_count" "all" {
  depends_on = [notes_note.a]
}
output "number" {
  value = data.notes_count.all.number
}"#,
    );
    tf.init().unwrap();
    tf.apply().unwrap();
    assert_eq!(tf.state("notes_note.a").unwrap().unwrap()["text"], "x-y");
    assert_eq!(tf.state("data.notes_count.all").unwrap().unwrap()["number"], 1);
    assert_eq!(tf.plan().unwrap(), Planned::Nothing);
    assert!(!bench.notes().join("me.lock").exists(), "what was lent is given back");
    let state = std::fs::read_to_string(bench.dir.path().join("terraform.tfstate")).unwrap();
    assert!(!state.contains("key of me"), "and never stored");
    bench.config(r#"output "nothing" { value = provider::notes::join("-") }"#);
    let refused = tf.try_apply().unwrap();
    assert!(!refused.ok() && refused.flat().contains("There is nothing to join"), "{}", refused.flat());
}
