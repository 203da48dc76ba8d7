//! A real control plane for one test, and a kubeconfig for it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, thread};

use serde_json::Value;

/// Where nodes would be told to connect. An address for documentation (RFC 5737): nothing is there.
pub(crate) const NODE_ENDPOINT: &str = "192.0.2.1:6443";

/// The cluster, and what keeps it alive.
pub(crate) struct TestCluster {
    pub(crate) kubeconfig: String,
    process: Option<(Child, tempfile::TempDir)>,
}

impl TestCluster {
    /// Uses the cluster of `VMETAL_TEST_KUBECONFIG`, or starts one from the cache that `tests/acceptance/kubernetes/build`
    /// fills. `None`, with the reason on standard output, when there is neither; on CI that is a failure.
    pub(crate) fn start() -> Option<TestCluster> {
        if let Some(path) = env::var_os("VMETAL_TEST_KUBECONFIG") {
            let kubeconfig = fs::read_to_string(&path).unwrap();
            return Some(TestCluster { kubeconfig, process: None });
        }
        let Some(program) = newest_program() else {
            let reason =
                "no test cluster program; run tests/acceptance/kubernetes/build, or set VMETAL_TEST_KUBECONFIG";
            assert!(env::var("CI").as_deref() != Ok("true"), "{reason}");
            println!("SKIPPED: {reason}");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let mut child = Command::new(program)
            .args(["--node-endpoint", &format!("https://{NODE_ENDPOINT}"), "--dir"])
            .arg(directory.path())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("ready "), "the test cluster did not start: {}", tail(&log));
        let kubeconfig = fs::read_to_string(directory.path().join("admin.kubeconfig")).unwrap();
        Some(TestCluster { kubeconfig, process: Some((child, directory)) })
    }

    /// The kubeconfig with something changed.
    pub(crate) fn kubeconfig_with(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut document: Value = serde_yaml_ng::from_str(&self.kubeconfig).unwrap();
        change(&mut document);
        serde_yaml_ng::to_string(&document).unwrap()
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        let Some((child, _directory)) = &mut self.process else { return };
        // It is asked first, so that it can close its store; a kill leaves nothing behind either, it is only ruder.
        let asked = Command::new("kill").arg(child.id().to_string()).status();
        let deadline = Instant::now() + Duration::from_secs(10);
        while asked.is_ok() && Instant::now() < deadline {
            if let Ok(Some(_)) = child.try_wait() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn newest_program() -> Option<PathBuf> {
    let cache = env::var_os("VMETAL_CACHE").map(PathBuf::from).or_else(|| {
        let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        base.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache"))).map(|base| base.join("vmetal"))
    })?;
    let built = |path: &Path| -> Option<SystemTime> { path.join("complete").metadata().ok()?.modified().ok() };
    let (_, newest) = fs::read_dir(cache)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kubernetes-")))
        .filter_map(|path| Some((built(&path)?, path)))
        .max()?;
    Some(newest.join("testcluster"))
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().rev().take(20).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
}
