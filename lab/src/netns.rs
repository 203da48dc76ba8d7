//! The lab's network namespace, and the thread that owns it.
//!
//! The namespace has no name. One thread of this process enters it and stays there for good; everything that must happen inside (making
//! interfaces, opening listeners, starting QEMU) is sent to that thread as a job. Two properties follow. First, the rest of the process
//! stays in the caller's namespace, so BMCs are on the caller's loopback. Second, the parent-death signal of a child process is bound to
//! the *thread* that started it: QEMU processes die with this thread, that is with the lab, even after `kill -9`; the namespace
//! dies with its last process, and every interface with the namespace.
//!
//! The bridge always has carrier, thanks to one end of a veth pair plugged into it: without any port up, a bridge has none, and IPv6 on it
//! would not start. Its link-local address is `fe80::1`, without duplicate address detection, so that router advertisements can be
//! sent from the first moment.

pub mod enter;
mod spawn;

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::sync::oneshot;

use crate::LabError;
use crate::config::NetworkConfig;

type Job = Box<dyn FnOnce() + Send>;

/// The bridge's own link-local address.
pub const BRIDGE_LINK_LOCAL: &str = "fe80::1";

/// A network namespace held by a thread. Dropping it ends the thread, and with it every process started inside.
#[derive(Debug)]
pub struct Namespace {
    jobs: mpsc::Sender<Job>,
    holder: i32,
}

impl Namespace {
    /// Makes the namespace with its bridge and taps.
    ///
    /// # Errors
    /// When the kernel refuses the namespace (not root, no user namespaces) or an interface.
    pub async fn create(network: &NetworkConfig, taps: Vec<String>) -> Result<Self, LabError> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, made) = oneshot::channel();
        let script = ip_script(network, &taps);
        thread::Builder::new()
            .name("lab-netns".to_owned())
            .spawn(move || {
                let outcome = enter_new(&script);
                let proceed = outcome.is_ok();
                if ready.send(outcome).is_err() || !proceed {
                    return;
                }
                // Ends when the Namespace is dropped.
                while let Ok(job) = inbox.recv() {
                    job();
                }
            })
            .map_err(|e| LabError::Network { step: "starting the namespace thread", detail: e.to_string() })?;
        let holder = made.await.map_err(|_| LabError::Network {
            step: "entering the namespace",
            detail: "the thread ended".to_owned(),
        })??;
        Ok(Self { jobs, holder })
    }

    /// Thread id of the holder: `/proc/<id>/ns/net` is the namespace, `nsenter -t <id> -n` enters it.
    #[must_use]
    pub fn holder(&self) -> i32 {
        self.holder
    }

    /// Processes inside the namespace: what was started by `exec` and still runs, and QEMU.
    fn occupants(&self) -> Vec<Pid> {
        let namespace = |id: &str| std::fs::read_link(format!("/proc/{id}/ns/net")).ok();
        let Some(own) = namespace(&self.holder.to_string()) else { return Vec::new() };
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        processes
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| namespace(&pid.to_string()).as_ref() == Some(&own))
            .map(Pid::from_raw)
            .collect()
    }

    /// Ends every process inside the namespace: asks first, then insists. They could do nothing useful in a network that is going
    /// away, and would keep it alive.
    pub(crate) async fn evict(&self) {
        for (signal, rounds) in [(Signal::SIGTERM, 30), (Signal::SIGKILL, 10)] {
            for pid in self.occupants() {
                tracing::info!(%pid, %signal, "ending a process inside the lab network");
                if let Err(error) = nix::sys::signal::kill(pid, signal) {
                    tracing::debug!(%pid, %error, "it has ended by itself");
                }
            }
            for _ in 0..rounds {
                if self.occupants().is_empty() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> std::io::Result<T> {
        let gone = || std::io::Error::other("the namespace thread has ended");
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move || {
            // The receiver is gone only when the caller stopped waiting.
            let _ = done.send(job());
        });
        self.jobs.send(job).map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }

    /// Starts a process inside the namespace; it is killed when this process or the namespace ends.
    pub(crate) async fn spawn(&self, command: Command) -> std::io::Result<tokio::process::Child> {
        let runtime = tokio::runtime::Handle::current();
        self.run(move || {
            let _in_runtime = runtime.enter();
            spawn::spawn_bound(command)
        })
        .await
    }

    /// Opens a TCP listener inside the namespace. The socket belongs there for good, whichever thread uses it.
    pub(crate) async fn listen(&self, address: SocketAddr) -> std::io::Result<TcpListener> {
        self.run(move || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
        .await
    }
}

/// Moves the calling thread into a new network namespace and fills it; returns the thread's id.
fn enter_new(script: &str) -> Result<i32, LabError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|e| LabError::Network {
        step: "making a network namespace",
        detail: format!("{e} (root, or unprivileged user namespaces, are needed)"),
    })?;
    ip_batch(script)?;
    Ok(nix::unistd::gettid().as_raw())
}

/// Commands for `ip -batch`.
fn ip_script(network: &NetworkConfig, taps: &[String]) -> String {
    let bridge = &network.bridge_name;
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("link add {bridge} address 02:76:6d:00:00:01 type bridge stp_state 0 forward_delay 0 mcast_snooping 0"),
        format!("link set {bridge} addrgenmode none"),
        "link add anchor0 type veth peer name anchor1".to_owned(),
        "link set anchor0 addrgenmode none".to_owned(),
        "link set anchor1 addrgenmode none".to_owned(),
        // The loose end must not answer ARP for the bridge's address: what a host sends to its MAC arrives on an interface
        // that no service is bound to.
        "link set anchor1 arp off".to_owned(),
        format!("link set anchor0 master {bridge}"),
        "link set anchor0 up".to_owned(),
        "link set anchor1 up".to_owned(),
        format!("link set {bridge} up"),
        format!("addr add {} brd + dev {bridge}", network.bridge),
        format!("addr add {BRIDGE_LINK_LOCAL}/64 dev {bridge} nodad"),
    ];
    for tap in taps {
        lines.push(format!("tuntap add {tap} mode tap"));
        lines.push(format!("link set {tap} addrgenmode none"));
        lines.push(format!("link set {tap} master {bridge}"));
        lines.push(format!("link set {tap} up"));
    }
    lines.join("\n") + "\n"
}

fn ip_batch(script: &str) -> Result<(), LabError> {
    let fail = |detail: String| LabError::Network { step: "`ip -batch`", detail };
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| fail(format!("cannot run ip (package iproute2): {e}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        use std::io::Write;
        stdin.write_all(script.as_bytes()).map_err(|e| fail(format!("cannot write to ip: {e}")))?;
    }
    let output = child.wait_with_output().map_err(|e| fail(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // ip reports "Command failed -:7": the line of the script.
    let line = said.rsplit("-:").next().and_then(|n| n.trim().parse::<usize>().ok());
    let command = line.and_then(|n| script.lines().nth(n.saturating_sub(1))).unwrap_or("?");
    Err(fail(format!("{} (ip {command})", said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_names_every_tap() {
        let Ok(bridge) = "172.22.0.1/24".parse() else { panic!("a valid network") };
        let network = NetworkConfig { bridge, bridge_name: "br0".to_owned() };
        let script = ip_script(&network, &["t0n0".to_owned(), "t1n0".to_owned()]);
        assert!(script.contains("addr add 172.22.0.1/24 brd + dev br0\n"));
        assert!(script.contains("tuntap add t1n0 mode tap\n"));
    }
}
