//! Where a process can die and it matters: between deciding, remembering and acting.
//!
//! For tests only, and only in builds with debug assertions: in others [`reached`] does nothing and reads nothing. A test that
//! starts the real program sets
//!
//! * `VMETALD_TEST_BOUNDARIES` to a file, to which a line is added at each boundary: its number, and which it is;
//! * `VMETALD_TEST_KILL_AT` to a number, at which the process kills itself with SIGKILL: no destructor runs, nothing is
//!   flushed, exactly as if somebody had done it from outside at that very moment.

/// A boundary between two steps of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    /// A commit is about to be sent to the store.
    BeforeCommit,
    /// A commit is durable; nobody knows yet.
    AfterCommit,
    /// The intent is committed; the effect has not begun.
    BeforeEffect,
    /// The effect has ended; its outcome is not committed.
    AfterEffect,
}

/// Says that a boundary is reached. `what` is for people.
pub fn reached(boundary: Boundary, what: &dyn std::fmt::Display) {
    #[cfg(debug_assertions)]
    test::reached(boundary, what);
    #[cfg(not(debug_assertions))]
    let _ = (boundary, what);
}

#[cfg(debug_assertions)]
mod test {
    use std::io::Write as _;
    use std::path::PathBuf;
    use std::sync::{Mutex, OnceLock, PoisonError};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::Boundary;

    struct Switch {
        log: Option<PathBuf>,
        kill_at: Option<u64>,
        passed: Mutex<u64>,
    }

    static SWITCH: OnceLock<Switch> = OnceLock::new();

    pub(super) fn reached(boundary: Boundary, what: &dyn std::fmt::Display) {
        let switch = SWITCH.get_or_init(|| Switch {
            log: std::env::var_os("VMETALD_TEST_BOUNDARIES").map(PathBuf::from),
            kill_at: std::env::var("VMETALD_TEST_KILL_AT").ok().and_then(|text| text.parse().ok()),
            passed: Mutex::new(0),
        });
        if switch.log.is_none() && switch.kill_at.is_none() {
            return;
        }
        // One at a time: nobody gets past a boundary while another dies at one.
        let mut passed = switch.passed.lock().unwrap_or_else(PoisonError::into_inner);
        *passed += 1;
        if let Some(log) = &switch.log {
            let line = format!("{passed} {boundary:?} {what}\n");
            let file = std::fs::File::options().create(true).append(true).open(log);
            if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
                tracing::error!(%error, "cannot write the test's list of boundaries");
            }
        }
        if switch.kill_at == Some(*passed) {
            // It cannot fail for one's own process; should it, the test sees a process that lives.
            let _ = kill(Pid::this(), Signal::SIGKILL);
            loop {
                std::thread::park();
            }
        }
    }
}
