//! What each interface was last seen doing: the memory that breaks boot loops.
//!
//! Firmware, boot loader and installer ask the same DHCP server from the same MAC, and the loader does not always say
//! what it is. An answer that depends on the packet alone can therefore send a machine round in circles for ever: the
//! loader is given itself, or a kernel that dies is booted again and again. So each interface has a session: which rung of
//! the ladder firmware -> loader -> script -> kernel -> installer it was last seen on, for which attempt, and how many
//! times it has begun at the bottom without reaching the installer. Sessions are not stored: after a restart the worst
//! outcome is a few more rounds.
//!
//! Everything here is pure; time is passed in.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use vmetal_model::net::MacAddr;

/// Beginnings of one attempt, without the installer calling, after which an interface counts as looping.
pub const MAX_ROUNDS: u32 = 5;
/// How long after a loader was delivered a request that does not identify itself is taken to come from that loader.
pub const LOADER_WINDOW: Duration = Duration::from_secs(20);
/// A session that saw nothing for this long starts afresh.
pub const SESSION_IDLE: Duration = Duration::from_secs(15 * 60);
/// How often an unknown interface is reported.
pub const UNKNOWN_EVERY: Duration = Duration::from_secs(60);
/// At most this many unknown interfaces are remembered; a flood of invented MACs must not cost memory.
const UNKNOWN_LIMIT: usize = 4096;

/// The rungs of the ladder, as seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing of this boot was seen yet.
    Idle,
    /// Firmware was told which loader to fetch.
    LoaderOffered,
    /// The loader was delivered whole.
    LoaderServed,
    /// The loader was told where its script is.
    ScriptOffered,
    /// The script was delivered.
    ScriptServed,
    /// The kernel or the initramfs was delivered.
    KernelServed,
    /// The installer called with its token.
    AgentSeen,
}

#[derive(Debug, Clone)]
struct Session {
    attempt: String,
    stage: Stage,
    since: Instant,
    rounds: u32,
    reported: bool,
}

/// Who a request is about: the interface and the attempt its host is to boot now.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// The interface.
    pub mac: MacAddr,
    /// The current boot attempt.
    pub attempt: &'a str,
}

/// What a beginning at the bottom of the ladder means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// Go on.
    Allowed,
    /// One too many; report it.
    LoopFound {
        /// How many beginnings there were.
        rounds: u32,
    },
    /// One too many, already reported.
    StillLooping,
}

#[derive(Debug, Clone, Copy)]
struct Hold {
    mac: MacAddr,
    until: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Unknown {
    reported: Instant,
    count: u32,
}

/// All sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    by_mac: HashMap<MacAddr, Session>,
    holds: HashMap<Ipv4Addr, Hold>,
    unknown: HashMap<MacAddr, Unknown>,
}

impl Sessions {
    /// Where the interface is on the ladder of its current attempt, and since when.
    pub fn stage(&self, who: Who<'_>, now: Instant) -> (Stage, Duration) {
        match self.by_mac.get(&who.mac) {
            Some(session) if session.attempt == who.attempt => {
                let age = now.saturating_duration_since(session.since);
                if age < SESSION_IDLE { (session.stage, age) } else { (Stage::Idle, age) }
            }
            _ => (Stage::Idle, Duration::ZERO),
        }
    }

    /// Notes that the interface reached a stage.
    pub fn reached(&mut self, who: Who<'_>, stage: Stage, now: Instant) {
        let session = self.session(who, now);
        session.stage = stage;
        session.since = now;
        if stage == Stage::AgentSeen {
            session.rounds = 0;
            session.reported = false;
        }
    }

    /// Notes that the interface begins at the bottom again, and says whether it may. Called once per acknowledged lease
    /// that carries a boot file, not per packet.
    pub fn begin_round(&mut self, who: Who<'_>, stage: Stage, now: Instant) -> Round {
        let session = self.session(who, now);
        session.rounds = session.rounds.saturating_add(1);
        session.stage = stage;
        session.since = now;
        if session.rounds <= MAX_ROUNDS {
            Round::Allowed
        } else if session.reported {
            Round::StillLooping
        } else {
            session.reported = true;
            Round::LoopFound { rounds: session.rounds }
        }
    }

    /// True while the interface has used up its beginnings.
    pub fn is_looping(&self, who: Who<'_>, now: Instant) -> bool {
        self.by_mac.get(&who.mac).is_some_and(|session| {
            session.attempt == who.attempt
                && session.rounds > MAX_ROUNDS
                && now.saturating_duration_since(session.since) < SESSION_IDLE
        })
    }

    fn session(&mut self, who: Who<'_>, now: Instant) -> &mut Session {
        let fresh =
            || Session { attempt: who.attempt.to_owned(), stage: Stage::Idle, since: now, rounds: 0, reported: false };
        let session = self.by_mac.entry(who.mac).or_insert_with(fresh);
        if session.attempt != who.attempt || now.saturating_duration_since(session.since) >= SESSION_IDLE {
            *session = fresh();
        }
        session
    }

    /// The other interface of the same host that has the address now, if its lease has not run out.
    pub fn held_by_other(&self, address: Ipv4Addr, mac: MacAddr, now: Instant) -> Option<MacAddr> {
        self.holds.get(&address).filter(|hold| hold.mac != mac && hold.until > now).map(|hold| hold.mac)
    }

    /// The interface that was last given the address, if it is one of these.
    pub fn holder(&self, address: Ipv4Addr, macs: &[MacAddr]) -> Option<MacAddr> {
        self.holds.get(&address).map(|hold| hold.mac).filter(|mac| macs.contains(mac))
    }

    /// Notes that the interface has the address until then.
    pub fn hold(&mut self, address: Ipv4Addr, mac: MacAddr, until: Instant) {
        self.holds.insert(address, Hold { mac, until });
    }

    /// The interface gave the address back.
    pub fn release(&mut self, address: Ipv4Addr, mac: MacAddr) {
        if self.holds.get(&address).is_some_and(|hold| hold.mac == mac) {
            self.holds.remove(&address);
        }
    }

    /// Counts a packet of an interface nobody declared. `Some(count)` when it is time to report it.
    pub fn count_unknown(&mut self, mac: MacAddr, now: Instant) -> Option<u32> {
        if let Some(unknown) = self.unknown.get_mut(&mac) {
            unknown.count = unknown.count.saturating_add(1);
            if now.saturating_duration_since(unknown.reported) < UNKNOWN_EVERY {
                return None;
            }
            let count = unknown.count;
            *unknown = Unknown { reported: now, count: 0 };
            return Some(count);
        }
        if self.unknown.len() >= UNKNOWN_LIMIT {
            self.unknown.retain(|_, unknown| now.saturating_duration_since(unknown.reported) < UNKNOWN_EVERY);
            if self.unknown.len() >= UNKNOWN_LIMIT {
                return None;
            }
        }
        self.unknown.insert(mac, Unknown { reported: now, count: 0 });
        Some(1)
    }

    /// Forgets interfaces that no table knows any more and sessions that ended long ago.
    pub fn forget(&mut self, known: impl Fn(MacAddr) -> bool, now: Instant) {
        self.by_mac.retain(|&mac, session| known(mac) && now.saturating_duration_since(session.since) < SESSION_IDLE);
        self.holds.retain(|_, hold| known(hold.mac) && hold.until > now);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

    fn who(attempt: &str) -> Who<'_> {
        Who { mac: MAC, attempt }
    }

    #[test]
    fn a_loop_is_found_once_and_ends_with_the_attempt_the_installer_or_a_long_silence() {
        let now = crate::clock::now();
        let mut sessions = Sessions::default();
        for _ in 0..MAX_ROUNDS {
            assert_eq!(sessions.begin_round(who("1"), Stage::LoaderOffered, now), Round::Allowed);
        }
        assert!(!sessions.is_looping(who("1"), now));
        assert_eq!(
            sessions.begin_round(who("1"), Stage::LoaderOffered, now),
            Round::LoopFound { rounds: MAX_ROUNDS + 1 }
        );
        assert_eq!(sessions.begin_round(who("1"), Stage::LoaderOffered, now), Round::StillLooping);
        assert!(sessions.is_looping(who("1"), now));
        assert!(!sessions.is_looping(who("2"), now), "another attempt is another chance");
        assert!(!sessions.is_looping(who("1"), now + SESSION_IDLE));
        sessions.reached(who("1"), Stage::AgentSeen, now);
        assert!(!sessions.is_looping(who("1"), now));
    }

    #[test]
    fn the_stage_belongs_to_one_attempt() {
        let now = crate::clock::now();
        let mut sessions = Sessions::default();
        sessions.reached(who("1"), Stage::LoaderServed, now);
        let later = now + Duration::from_secs(3);
        assert_eq!(sessions.stage(who("1"), later), (Stage::LoaderServed, Duration::from_secs(3)));
        assert_eq!(sessions.stage(who("2"), later).0, Stage::Idle);
        sessions.reached(who("2"), Stage::LoaderOffered, later);
        assert_eq!(sessions.stage(who("1"), later).0, Stage::Idle);
    }

    #[test]
    fn an_address_is_held_by_one_interface_of_a_host_until_its_lease_ends() {
        let now = crate::clock::now();
        let address = Ipv4Addr::new(172, 22, 0, 11);
        let other = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
        let mut sessions = Sessions::default();
        sessions.hold(address, MAC, now + Duration::from_secs(60));
        assert_eq!(sessions.held_by_other(address, other, now), Some(MAC));
        assert_eq!(sessions.held_by_other(address, MAC, now), None);
        assert_eq!(sessions.held_by_other(address, other, now + Duration::from_secs(60)), None);
        sessions.release(address, other);
        assert_eq!(sessions.held_by_other(address, other, now), Some(MAC), "only the holder releases");
        sessions.release(address, MAC);
        assert_eq!(sessions.held_by_other(address, other, now), None);
    }

    #[test]
    fn an_unknown_interface_is_reported_at_once_then_once_a_minute_with_its_count() {
        let now = crate::clock::now();
        let mut sessions = Sessions::default();
        assert_eq!(sessions.count_unknown(MAC, now), Some(1));
        for second in 1..60 {
            assert_eq!(sessions.count_unknown(MAC, now + Duration::from_secs(second)), None);
        }
        assert_eq!(sessions.count_unknown(MAC, now + UNKNOWN_EVERY), Some(60));
    }

    #[test]
    fn a_flood_of_invented_interfaces_is_bounded() {
        let now = crate::clock::now();
        let mut sessions = Sessions::default();
        let mac = |n: u32| {
            let [a, b, c, d] = n.to_be_bytes();
            MacAddr([2, 0, a, b, c, d])
        };
        let reported = (0..10_000).filter(|&n| sessions.count_unknown(mac(n), now).is_some()).count();
        assert_eq!(reported, UNKNOWN_LIMIT);
        assert_eq!(sessions.unknown.len(), UNKNOWN_LIMIT);
        assert_eq!(sessions.count_unknown(mac(20_000), now + UNKNOWN_EVERY), Some(1), "room again a minute later");
    }
}
