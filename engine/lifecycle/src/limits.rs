//! Deadlines and retry counts, all in one place. What they are used for is in [`crate::ladder`].

use jiff::SignedDuration;
use vmetal_model::{Timestamp, Uid};

/// How long each step may take and how often it is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From power-on to the installer's first request. Servers with much memory spend minutes in firmware.
    pub call_in: SignedDuration,
    /// The longest silence of a working installer (it speaks every 5 s).
    pub silence: SignedDuration,
    /// Since when this engine listens. Before, nobody could be heard: after a restart everyone has [`Limits::silence`] to be
    /// heard again, and no installer is restarted for a silence that was the engine's.
    pub listening_since: Timestamp,
    /// The whole of an inspection.
    pub inspect: SignedDuration,
    /// The whole of an installation.
    pub install: SignedDuration,
    /// The whole of an erasure: overwriting a large disk takes hours.
    pub erase: SignedDuration,
    /// The longest silence of a system on standby (it asks for a claim twice a minute).
    pub standby_silence: SignedDuration,
    /// How often the power of a host on standby is read.
    pub standby_check: SignedDuration,
    /// How long a system must have stood by for its loss not to count as one more failed attempt of the same installation.
    pub standby_steady: SignedDuration,
    /// On how many hosts installing ahead of claims may fail, with none of the image's on standby, before no other is tried.
    pub standby_hosts: usize,
    /// From the claim's first-boot data being ready to the first word of the system on standby that runs with it. What is not
    /// taken over by then is installed as if there had been no standby.
    pub hand_over: SignedDuration,
    /// From the end of the installation to the installed system's first request.
    pub first_boot: SignedDuration,
    /// From the reservation of a host to join token and user data, or since the last thing began that keeps them from being
    /// made; the import of an image has its own limit.
    pub seed: SignedDuration,
    /// How long a reserved host waits for the import of its image.
    pub import: SignedDuration,
    /// A stage in which a BMC is to be brought to something, with all its retries.
    pub bmc: SignedDuration,
    /// A stage that only needs the engine itself.
    pub local: SignedDuration,
    /// How long a BMC is left alone after it was told to restart.
    pub bmc_restart: SignedDuration,
    /// How long a server is left without power when that is to help.
    pub drain: SignedDuration,
    /// How long a claim stays with a server that cannot be brought to install, where the cause may go away by itself.
    pub claim_patience: SignedDuration,
    /// How long the deletion of a Node is tried once its host is off. After that the host is erased all the same: without its
    /// disk it can never come back as that Node. Also how long a tenant's cluster must have been silent, after the drain
    /// deadline, before its pods are no longer waited for.
    pub node_removal: SignedDuration,
    /// From the first request of the installed system to a Ready node. Exceeds kubeadm's own limits (5 min discovery, 5 min
    /// TLS bootstrap, 4 min kubelet health).
    pub join: SignedDuration,
    /// Network boots per phase before the host goes to `error`.
    pub attempts: u32,
    /// Failed effects in a row, for one cause, before the host goes to `error`.
    pub failures: u32,
    /// How often a host in `error` is tried again where the cause may go away by itself.
    pub error_retry: SignedDuration,
    /// The shortest and the longest pause after a failed effect.
    pub backoff: (SignedDuration, SignedDuration),
    /// How often a joining node is looked at.
    pub join_poll: SignedDuration,
    /// How long a power command of an engine that has died may still be on its way: so long after a restart the power that a
    /// BMC tells is not believed.
    pub settle: SignedDuration,
    /// How often a ready node is looked at.
    pub ready_poll: SignedDuration,
    /// How often a claim without a host is decided again, if nothing changes before.
    pub decide_again: SignedDuration,
    /// How many hosts are tried for one claim before it stays `failed`, the first included.
    pub hosts_per_claim: usize,
    /// How long a declaration or a reservation that is judged against others waits for the store's news of those before it.
    pub news: SignedDuration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            call_in: SignedDuration::from_mins(15),
            silence: SignedDuration::from_secs(90),
            listening_since: Timestamp::MIN,
            inspect: SignedDuration::from_mins(15),
            install: SignedDuration::from_hours(2),
            erase: SignedDuration::from_hours(24),
            standby_silence: SignedDuration::from_mins(5),
            standby_check: SignedDuration::from_mins(5),
            standby_steady: SignedDuration::from_hours(24),
            standby_hosts: 3,
            hand_over: SignedDuration::from_mins(5),
            first_boot: SignedDuration::from_mins(20),
            seed: SignedDuration::from_mins(30),
            import: SignedDuration::from_hours(6),
            bmc: SignedDuration::from_mins(30),
            local: SignedDuration::from_mins(10),
            bmc_restart: SignedDuration::from_secs(90),
            drain: SignedDuration::from_secs(30),
            claim_patience: SignedDuration::from_mins(60),
            node_removal: SignedDuration::from_mins(10),
            join: SignedDuration::from_mins(20),
            attempts: 3,
            failures: 5,
            error_retry: SignedDuration::from_mins(5),
            backoff: (SignedDuration::from_secs(2), SignedDuration::from_mins(2)),
            join_poll: SignedDuration::from_secs(2),
            settle: SignedDuration::from_secs(10),
            ready_poll: SignedDuration::from_secs(60),
            decide_again: SignedDuration::from_secs(60),
            hosts_per_claim: 3,
            news: SignedDuration::from_secs(2),
        }
    }
}

impl Limits {
    /// The pause after the given number of failures in a row: doubling, with half of it spread by the object's identity so
    /// that a rack that failed together does not come back together. Pure: the same object waits the same.
    pub fn pause(&self, failures: u32, uid: &Uid) -> SignedDuration {
        let (shortest, longest) = self.backoff;
        let doubled = shortest.as_millis_i64().saturating_mul(1i64 << failures.saturating_sub(1).min(20));
        let full = doubled.min(longest.as_millis_i64()).max(2);
        let spread = uid
            .0
            .bytes()
            .chain(failures.to_le_bytes())
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let half = full / 2;
        SignedDuration::from_millis(half + i64::try_from(spread % u64::try_from(half).unwrap_or(1).max(1)).unwrap_or(0))
    }
}

trait Millis {
    fn as_millis_i64(&self) -> i64;
}

impl Millis for SignedDuration {
    fn as_millis_i64(&self) -> i64 {
        i64::try_from(self.as_millis()).unwrap_or(i64::MAX)
    }
}

/// `at + duration`, staying inside the representable range.
pub(crate) fn after(at: Timestamp, duration: SignedDuration) -> Timestamp {
    at.saturating_add(duration).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_differ_between_hosts() {
        let limits = Limits::default();
        let pause = |n, uid: &str| limits.pause(n, &Uid(uid.into())).as_millis_i64();
        assert!((1000..2000).contains(&pause(1, "a")));
        assert!((4000..8000).contains(&pause(3, "a")));
        assert!((60_000..120_000).contains(&pause(40, "a")));
        assert_eq!(pause(3, "a"), pause(3, "a"));
        assert!((0..20).map(|i| pause(6, &format!("host-{i}"))).collect::<std::collections::BTreeSet<_>>().len() > 15);
    }
}
