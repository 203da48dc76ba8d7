//! Starting a process that cannot outlive the thread that started it.

#![allow(unsafe_code, reason = "pre_exec is the only way to set the parent-death signal between fork and exec")]

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};

/// Starts `command` with SIGKILL as its parent-death signal. Must be called inside a tokio runtime context.
pub(super) fn spawn_bound(mut command: Command) -> std::io::Result<tokio::process::Child> {
    let parent = getpid();
    // SAFETY: between fork and exec the closure makes two system calls (prctl, getppid), which are async-signal-safe, and
    // neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the signal was set.
            if getppid() == parent { Ok(()) } else { Err(std::io::Error::from_raw_os_error(nix::libc::ESRCH)) }
        });
    }
    tokio::process::Command::from(command).kill_on_drop(true).spawn()
}
