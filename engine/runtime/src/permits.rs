//! At most so many at a time.
//!
//! Every kind of load that can hurt something shared (a boot server, an image link, a breaker panel, an API server) has
//! a lane of its own, so that one cannot starve the other, and its width is exact: a permit lives as long as the work.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One lane. Clones share it.
#[derive(Clone, Debug)]
pub struct Lane(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    name: &'static str,
    width: usize,
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// The right to be in a lane; given back when dropped.
#[derive(Debug)]
#[must_use = "dropping the permit gives it back"]
pub struct Permit {
    _held: OwnedSemaphorePermit,
}

/// How full a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneCounts {
    /// Its name.
    pub name: &'static str,
    /// How many may be in it.
    pub width: usize,
    /// How many are.
    pub in_use: usize,
    /// How many wait for a place.
    pub waiting: usize,
}

impl Lane {
    /// A lane for `width` at a time. With a width of zero nothing ever goes through: the lane is closed.
    pub fn new(name: &'static str, width: usize) -> Self {
        let width = width.min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Shared { name, width, free: Arc::new(Semaphore::new(width)), waiting: AtomicUsize::new(0) }))
    }

    /// A place, if there is one now and nobody has waited longer.
    pub fn try_acquire(&self) -> Option<Permit> {
        Arc::clone(&self.0.free).try_acquire_owned().ok().map(|held| Permit { _held: held })
    }

    /// A place, in the order of asking. Dropping the future gives up the turn.
    pub async fn acquire(&self) -> Permit {
        let _waiting = Waiting::new(&self.0.waiting);
        match Arc::clone(&self.0.free).acquire_owned().await {
            Ok(held) => Permit { _held: held },
            // The semaphore is never closed; if it were, nobody would get in.
            Err(_) => std::future::pending().await,
        }
    }

    /// How full it is.
    pub fn counts(&self) -> LaneCounts {
        let Shared { name, width, free, waiting } = &*self.0;
        LaneCounts {
            name,
            width: *width,
            in_use: width.saturating_sub(free.available_permits()),
            waiting: waiting.load(Ordering::Relaxed),
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn places_are_given_in_the_order_of_asking() {
        let (lane, other) = (Lane::new("boot", 1), Lane::new("image", 2));
        let first = lane.try_acquire().unwrap();
        assert!(lane.try_acquire().is_none());
        assert!(other.try_acquire().is_some(), "lanes do not share");

        let waiting = tokio::spawn({
            let lane = lane.clone();
            async move { lane.acquire().await }
        });
        tokio::task::yield_now().await;
        assert_eq!(lane.counts(), LaneCounts { name: "boot", width: 1, in_use: 1, waiting: 1 });
        drop(first);
        assert!(lane.try_acquire().is_none(), "the place belongs to the one who waits");
        let second = waiting.await.unwrap();
        assert_eq!(lane.counts(), LaneCounts { name: "boot", width: 1, in_use: 1, waiting: 0 });
        drop(second);
        assert_eq!(lane.counts().in_use, 0);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Try,
        Wait,
        /// Polls those that wait, and so lets them in.
        Poll,
        GiveUp(usize),
        Return(usize),
    }

    proptest! {
        #[test]
        fn a_lane_is_never_wider_than_it_is(width in 0..4_usize, steps in proptest::collection::vec(prop_oneof![
            Just(Step::Try), Just(Step::Wait), Just(Step::Poll), (0..8_usize).prop_map(Step::GiveUp), (0..8_usize).prop_map(Step::Return)
        ], 0..100)) {
            let lane = Lane::new("lane", width);
            let (mut inside, mut outside) = (Vec::new(), Vec::new());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            for step in steps {
                match step {
                    Step::Try => inside.extend(lane.try_acquire()),
                    Step::Wait => {
                        let lane = lane.clone();
                        outside.push(Box::pin(async move { lane.acquire().await }));
                    }
                    Step::Poll => outside.retain_mut(|waiter| match waiter.as_mut().poll(&mut context) {
                        std::task::Poll::Ready(permit) => {
                            inside.push(permit);
                            false
                        }
                        std::task::Poll::Pending => true,
                    }),
                    Step::GiveUp(which) if which < outside.len() => drop(outside.remove(which)),
                    Step::Return(which) if which < inside.len() => drop(inside.remove(which)),
                    Step::GiveUp(_) | Step::Return(_) => {}
                }
                prop_assert!(inside.len() <= width);
                prop_assert!(lane.counts().in_use >= inside.len());
            }
            drop((inside, outside));
            prop_assert_eq!(lane.counts(), LaneCounts { name: "lane", width, in_use: 0, waiting: 0 });
        }
    }
}
