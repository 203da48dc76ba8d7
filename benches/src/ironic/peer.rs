//! Ironic as a process on loopback, with its state in a directory of its own.
//!
//! What its configuration does for speed: one process whose API and conductor call each other directly; fake hardware that
//! answers at once; no cleaning; a database that does not wait for the disk; no periodic task within a run; threads for more
//! nodes than there are; little logging, no node history, no inventory.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use super::venv::Venv;
use crate::fleet::text;
use crate::process::{Cost, Process};

const CONFIG: &str = include_str!("ironic.conf");
const SITE: &str = include_str!("sitecustomize.py");
/// The newest version of the API that this release speaks. From 1.11 on, nodes begin in `enroll`.
const API_VERSION: (&str, &str) = ("x-openstack-ironic-api-version", "1.115");
/// How long it may take to be ready.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running Ironic. Dropping it ends it and removes what it kept.
pub(super) struct Peer {
    process: Process,
    http: reqwest::Client,
    url: String,
    directory: TempDir,
}

impl Peer {
    /// Starts one that knows no node yet.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) async fn start(venv: &Venv, scratch: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("ironic-").tempdir_in(scratch)?;
        let at = directory.path();
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = at.join("ironic.conf");
        std::fs::write(&config, CONFIG.replace("{directory}", text(at)).replace("{port}", &port.to_string()))?;
        let site = at.join("site");
        std::fs::create_dir(&site)?;
        std::fs::write(site.join("sitecustomize.py"), SITE)?;
        let environment = [("PYTHONPATH", text(&site)), ("PYTHONNOUSERSITE", "1"), ("PYTHONDONTWRITEBYTECODE", "1")];
        let python = |name: &str, more: &[&str]| {
            let program = venv.program(name);
            let arguments = [&[text(&program), "--config-file", text(&config)], more].concat();
            Process::start_with(name, at, &venv.python(), &arguments, &environment)
        };
        python("ironic-dbsync", &["create_schema"])?
            .succeed(PATIENCE)
            .await
            .context("cannot make Ironic's database")?;
        let process = python("ironic", &[])?;
        // The server closes a connection that was idle for ten seconds.
        let http = reqwest::Client::builder().no_proxy().pool_idle_timeout(Duration::from_secs(5)).build()?;
        let mut peer = Peer { process, http, url: format!("http://127.0.0.1:{port}"), directory };
        peer.ready().await?;
        Ok(peer)
    }

    /// Waits until its conductor offers the driver.
    async fn ready(&mut self) -> Result<()> {
        let begin = Instant::now();
        loop {
            self.process.check().with_context(|| self.log())?;
            let drivers = self.call(Method::GET, "/v1/drivers", None).await;
            if drivers.is_ok_and(|(_, drivers)| drivers["drivers"].as_array().is_some_and(|some| !some.is_empty())) {
                return Ok(());
            }
            if begin.elapsed() > PATIENCE {
                bail!("ironic was not ready within {PATIENCE:?}; {}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Fails when it has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        self.process.check().with_context(|| self.log())
    }

    /// The end of what it logged.
    fn log(&self) -> String {
        let log = std::fs::read(self.directory.path().join("ironic.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        format!("the end of its log:\n{}", lines[lines.len().saturating_sub(10)..].join("\n"))
    }

    /// What it has cost so far, with its worker.
    pub(super) fn cost(&self) -> Cost {
        self.process.cost_of_all()
    }

    /// Makes one request; the answer's status with its body, `Null` when it has none.
    ///
    /// # Errors
    /// When there is no answer.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value)> {
        let what = || format!("{method} {path}");
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.url));
        request = request.header(API_VERSION.0, API_VERSION.1).header("accept", "application/json");
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.with_context(what)?;
        let status = answer.status();
        let bytes = answer.bytes().await.with_context(what)?;
        Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;

    /// Whether the process runs; one that has ended and is not yet waited for does not.
    fn runs(pid: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next()).is_some_and(|state| state != 'Z')
    }

    async fn until(what: &str, reached: impl Fn() -> bool) {
        let begin = Instant::now();
        while !reached() {
            assert!(begin.elapsed() < Duration::from_secs(30), "waited for {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn what_the_peer_forks_ends_with_it_even_when_it_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("sitecustomize.py"), SITE).unwrap();
        let script =
            "import os, time\nif os.fork() == 0:\n    open('pid', 'w').write(f'{os.getpid()} ')\ntime.sleep(60)";
        let mut python = tokio::process::Command::new("python3")
            .args(["-c", script])
            .current_dir(directory.path())
            .env("PYTHONPATH", directory.path())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let told = || std::fs::read_to_string(directory.path().join("pid")).unwrap_or_default();
        until("the fork to say who it is", || told().ends_with(' ')).await;
        let forked: i32 = told().trim().parse().unwrap();
        assert!(runs(forked));
        let parent = Pid::from_raw(i32::try_from(python.id().unwrap()).unwrap());
        kill(parent, Signal::SIGKILL).unwrap();
        python.wait().await.unwrap();
        until("the fork to end", || !runs(forked)).await;
    }
}
