//! Entering namespaces from a process that has one thread: the `exec` command, and labs without root.

use std::fs::{self, File};
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid};

use crate::LabError;

fn network_error(step: &'static str) -> impl Fn(std::io::Error) -> LabError {
    move |e| LabError::Network { step, detail: e.to_string() }
}

/// Moves this process into the namespaces of thread `holder`: its user namespace, where that is another one, and its network
/// namespace. Call before any thread is started.
///
/// # Errors
/// When the thread is gone or the kernel refuses.
pub fn join(holder: i32) -> Result<(), LabError> {
    let namespace = |kind: &str| format!("/proc/{holder}/ns/{kind}");
    let open = |kind: &str| {
        let path = namespace(kind);
        File::open(&path).map_err(LabError::file("open", path))
    };
    let same_user = fs::read_link(namespace("user")).ok() == fs::read_link("/proc/self/ns/user").ok();
    if !same_user {
        setns(open("user")?, CloneFlags::CLONE_NEWUSER)
            .map_err(|e| network_error("joining the lab's user namespace")(e.into()))?;
    }
    setns(open("net")?, CloneFlags::CLONE_NEWNET)
        .map_err(|e| network_error("joining the lab's network namespace")(e.into()))
}

/// Without root: makes a user namespace in which this process is root, as far as new network namespaces are concerned. Call
/// before any thread is started. Does nothing for root.
///
/// # Errors
/// When the kernel does not allow unprivileged user namespaces.
pub fn become_root_of_a_user_namespace() -> Result<(), LabError> {
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(|e| network_error("making a user namespace (this is needed without root)")(e.into()))?;
    let write = |file: &str, text: String| {
        let path = Path::new("/proc/self").join(file);
        fs::write(&path, text).map_err(LabError::file("write", path))
    };
    write("uid_map", format!("0 {uid} 1"))?;
    write("setgroups", "deny".to_owned())?;
    write("gid_map", format!("0 {gid} 1"))
}
