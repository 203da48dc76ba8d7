//! A network link that flaps: down and up in a rhythm, for a while.

use std::time::Duration;

use tokio::time::Instant;

/// How a link flaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flapping {
    /// How long it is down each time; it begins with that.
    pub down: Duration,
    /// How long it is then up.
    pub up: Duration,
    /// When it is over.
    pub lasts: Duration,
}

/// A link; it carries, unless it flaps.
#[derive(Debug, Default)]
pub struct Link(Option<(Instant, Flapping)>);

impl Link {
    /// Begins to flap.
    pub fn flap(&mut self, now: Instant, how: Flapping) {
        self.0 = Some((now, how));
    }

    /// Carries again for good.
    pub fn mend(&mut self) {
        self.0 = None;
    }

    /// Whether nothing gets through at this moment.
    pub fn is_down(&self, now: Instant) -> bool {
        let Some((since, Flapping { down, up, lasts })) = self.0 else { return false };
        let passed = now.saturating_duration_since(since);
        passed < lasts && passed.as_millis() % (down + up).as_millis().max(1) < down.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_down_and_up_in_turns_and_then_carries() {
        let (start, s) = (Instant::now(), Duration::from_secs);
        let mut link = Link::default();
        assert!(!link.is_down(start));
        link.flap(start, Flapping { down: s(2), up: s(3), lasts: s(11) });
        let down: Vec<u64> = (0..20).filter(|at| link.is_down(start + s(*at))).collect();
        assert_eq!(down, [0, 1, 5, 6, 10]);
        link.mend();
        assert!(!link.is_down(start));
    }
}
