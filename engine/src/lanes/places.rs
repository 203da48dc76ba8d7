//! How many hosts do the same thing at the same time, where that takes many steps.
//!
//! A place is held from the decision to begin until the last step, and must outlive a restart of the engine. So there is no
//! permit that somebody keeps: who is inside follows from the hosts themselves, told at every look at one of them. Besides
//! protecting what serves them, this has a fleet worked through host by host instead of stage by stage: the first are in the
//! pool before the last are looked at, and most connections to BMCs are used from a host's first step to its last.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmetal_model::Timestamp;
use vmetal_runtime::LaneCounts;

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Somebody waits for the server.
    Claimed,
    /// Everything else.
    Pool,
}

/// What a host that is to begin is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Go on.
    Inside,
    /// Wait: [`PlacedLane::leave`] of somebody else names you.
    Queued {
        /// When it asked first.
        since: Timestamp,
    },
}

/// First come, first served within each urgency. All operations take logarithmic time.
#[derive(Debug)]
pub struct PlacedLane {
    name: &'static str,
    width: usize,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    hosts: HashMap<String, Standing>,
    queue: BTreeMap<Ticket, String>,
    tickets: u64,
}

type Ticket = (Urgency, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Inside,
    Queued(Ticket, Timestamp),
}

impl Places {
    fn inside(&self) -> usize {
        self.hosts.len() - self.queue.len()
    }

    fn admit(&mut self, host: &str) {
        if let Some(Standing::Queued(ticket, _)) = self.hosts.insert(host.to_owned(), Standing::Inside) {
            self.queue.remove(&ticket);
        }
    }
}

impl PlacedLane {
    pub(super) fn new(name: &'static str, width: usize) -> Self {
        PlacedLane { name, width, places: Mutex::default() }
    }

    /// Never held across an await; each change is complete before anything could panic.
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A host is to begin. Asking again keeps its place in the queue.
    pub fn enter(&self, host: &str, urgency: Urgency, now: Timestamp) -> Place {
        let mut places = self.places();
        let mut since = now;
        match places.hosts.get(host).copied() {
            Some(Standing::Inside) => return Place::Inside,
            Some(Standing::Queued((before, _), since)) if before <= urgency => return Place::Queued { since },
            Some(Standing::Queued(ticket, asked)) => {
                // A claim came while it waited.
                since = asked;
                places.hosts.remove(host);
                places.queue.remove(&ticket);
            }
            None => {}
        }
        // Whoever leaves fills the place at once, so there is a queue only while the lane is full.
        if places.inside() < self.width {
            places.admit(host);
            return Place::Inside;
        }
        let ticket = (urgency, places.tickets);
        places.tickets += 1;
        places.hosts.insert(host.to_owned(), Standing::Queued(ticket, since));
        places.queue.insert(ticket, host.to_owned());
        Place::Queued { since }
    }

    /// A host has begun, whether it was let in or not: after a restart, or when it came from another engine.
    pub fn resume(&self, host: &str) {
        let mut places = self.places();
        if places.hosts.get(host) != Some(&Standing::Inside) {
            places.admit(host);
        }
    }

    /// A host has ended, or is not to begin. The one that now has its place, to be looked at.
    pub fn leave(&self, host: &str) -> Option<String> {
        let mut places = self.places();
        match places.hosts.remove(host)? {
            Standing::Queued(ticket, _) => {
                places.queue.remove(&ticket);
                None
            }
            Standing::Inside if places.inside() < self.width => {
                let (_, next) = places.queue.pop_first()?;
                places.hosts.insert(next.clone(), Standing::Inside);
                Some(next)
            }
            Standing::Inside => None,
        }
    }

    /// How full it is.
    pub fn counts(&self) -> LaneCounts {
        let places = self.places();
        LaneCounts { name: self.name, width: self.width, in_use: places.inside(), waiting: places.queue.len() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::HashSet;

    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;
    const QUEUED: Place = Place::Queued { since: NOW };

    #[test]
    fn it_is_exact_in_order_and_claims_go_first() {
        let lane = PlacedLane::new("boot", 2);
        assert_eq!([lane.enter("a", Urgency::Pool, NOW), lane.enter("b", Urgency::Pool, NOW)], [Place::Inside; 2]);
        for name in ["c", "d", "e", "c"] {
            assert_eq!(lane.enter(name, Urgency::Pool, NOW), QUEUED, "{name}");
        }
        assert_eq!(lane.enter("f", Urgency::Claimed, NOW), QUEUED);
        let later = NOW + jiff::SignedDuration::from_secs(9);
        assert_eq!(lane.enter("c", Urgency::Pool, later), QUEUED, "it is told since when it waits");
        assert_eq!(lane.enter("e", Urgency::Claimed, later), QUEUED, "it was claimed while it waited");
        assert_eq!((lane.counts().in_use, lane.counts().waiting), (2, 4));
        assert_eq!(lane.leave("d"), None, "who gives up its place in the queue frees nothing");
        assert_eq!(lane.leave("a").as_deref(), Some("f"));
        assert_eq!(lane.enter("f", Urgency::Claimed, NOW), Place::Inside);
        assert_eq!(lane.leave("a"), None, "once is enough");
        assert_eq!(["b", "f", "e"].map(|name| lane.leave(name)).map(Option::unwrap_or_default), ["e", "c", ""]);
        assert_eq!(lane.leave("c"), None);
        assert_eq!((lane.counts().in_use, lane.counts().waiting), (0, 0));
    }

    #[test]
    fn what_boots_already_has_a_place_even_where_there_is_none() {
        let lane = PlacedLane::new("boot", 1);
        lane.resume("a");
        lane.resume("b");
        assert_eq!(lane.enter("c", Urgency::Pool, NOW), QUEUED);
        assert_eq!(lane.leave("a"), None, "one is still inside, which is as many as may be");
        assert_eq!(lane.leave("b").as_deref(), Some("c"));
    }

    #[test]
    fn whatever_comes_and_goes_nobody_is_forgotten_and_nobody_is_too_many() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let width = random.random_range(1..5);
            let lane = PlacedLane::new("boot", width);
            let (mut inside, mut queued) = (HashSet::new(), HashSet::new());
            for _ in 0..400 {
                let host = format!("h{}", random.random_range(0..12));
                let urgency = if random.random() { Urgency::Claimed } else { Urgency::Pool };
                if random.random_bool(0.6) {
                    match lane.enter(&host, urgency, NOW) {
                        Place::Inside => _ = (queued.remove(&host), inside.insert(host)),
                        Place::Queued { .. } => _ = queued.insert(host),
                    }
                } else {
                    queued.remove(&host);
                    inside.remove(&host);
                    if let Some(next) = lane.leave(&host) {
                        assert!(queued.remove(&next), "seed {seed}: {next} did not wait");
                        inside.insert(next);
                    }
                }
                let counts = lane.counts();
                assert_eq!((counts.in_use, counts.waiting), (inside.len(), queued.len()), "seed {seed}");
                assert!(inside.len() <= width, "seed {seed}: {} inside", inside.len());
                assert!(queued.is_empty() || inside.len() == width, "seed {seed}: they wait for a free place");
            }
        }
    }
}
