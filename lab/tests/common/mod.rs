//! What the tests of whole labs share.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Says why a test cannot run here, if so. Such a test prints SKIPPED with the reason.
pub(crate) fn missing_peers() -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_vmetal-lab")).arg("doctor").output().unwrap();
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A lab in a process of its own. Dropping it ends that process.
pub(crate) struct LabProcess {
    pub(crate) dir: tempfile::TempDir,
    child: Child,
}

impl LabProcess {
    /// Starts a lab from the text of its configuration and waits until it is ready.
    pub(crate) fn start(config: &str, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::Builder::new().prefix("vmlab").tempdir().unwrap();
        let path = dir.path().join("lab.toml");
        std::fs::write(&path, config).unwrap();
        prepare(dir.path());
        let child = Command::new(env!("CARGO_BIN_EXE_vmetal-lab"))
            .args(["up", "--config"])
            .arg(&path)
            .arg("--state-dir")
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lab = Self { dir, child };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !lab.dir.path().join("lab.json").exists() {
            assert!(lab.child.try_wait().unwrap().is_none(), "the lab ended instead of starting");
            assert!(Instant::now() < deadline, "the lab was not ready in time");
            std::thread::sleep(Duration::from_millis(50));
        }
        lab
    }

    /// Runs a subcommand on this lab.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let (first, rest) = args.split_first().unwrap();
        Command::new(env!("CARGO_BIN_EXE_vmetal-lab"))
            .arg(first)
            .arg("--state-dir")
            .arg(self.dir.path())
            .args(rest)
            .output()
            .unwrap()
    }

    /// Runs a subcommand that must succeed and print JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) fn report(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.dir.path().join("lab.json")).unwrap()).unwrap()
    }

    pub(crate) fn console(&self, host: &str) -> String {
        let path: PathBuf = self.dir.path().join(format!("console-{host}.log"));
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Waits until `condition` holds, and says what was seen when it does not.
    pub(crate) fn wait_for(&self, host: &str, what: &str, seconds: u64, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while !condition(self) {
            assert!(
                Instant::now() < deadline,
                "{what}: not within {seconds} s; status {}; console:\n{}",
                self.json(&["status"]),
                self.console(host)
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// SIGKILL to the lab's process, nothing else, and its reaping.
    pub(crate) fn kill_hard(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for LabProcess {
    fn drop(&mut self) {
        // Already gone in the tests that end it themselves.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
