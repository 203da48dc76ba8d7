//! How many files the process may have open: each connection to a BMC is one, and a shell's default is 1,024.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Files that are needed for other things: the store, clients of the API, images.
const OTHERS: u64 = 256;
/// The least, so that something goes on even where files are few.
const LEAST_CALLS: u64 = 64;

/// Raises the limit of open files as far as the system lets us, and tells it.
pub(crate) fn raise_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1_024 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::warn!(soft, hard, %error, "the limit of open files cannot be raised");
            soft
        }
    }
}

/// How many calls to BMCs may be made at the same time at most with so many open files: a call has a connection, and the
/// connections of calls that have just ended are kept for a moment for the next ones.
pub(crate) fn bmc_calls(limit: u64) -> usize {
    let calls = (limit.saturating_sub(OTHERS) / 4).max(LEAST_CALLS);
    usize::try_from(calls).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_leave_files_for_the_rest() {
        assert_eq!(bmc_calls(1_024), 192);
        assert_eq!(bmc_calls(20_256), 5_000);
        assert_eq!(bmc_calls(0), 64);
    }
}
