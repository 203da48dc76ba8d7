//! The formula of `place-balanced` with its default settings, over the facts of one host.

const DAY: u64 = 86_400;
const ON: u64 = 2;

/// What the formula looks at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts {
    /// The SDK's number for the power state.
    pub power: u64,
    /// The SDK's number for the erase level.
    pub erase_level: u64,
    /// Failures in a row.
    pub failures: u64,
    /// How often it was provisioned.
    pub provisions: u32,
    /// When it was last released, in seconds since 1970-01-01 UTC, or 0.
    pub last_release: u64,
    /// Free hosts that it leaves over in its narrowest domain, or that are missing there.
    pub misfit: u32,
}

/// The score in points.
pub fn score(host: Facts, now: u64) -> i64 {
    let rested = match host.last_release {
        0 if host.provisions == 0 => 30,
        0 => 0,
        at => (now.saturating_sub(at) / DAY).min(30),
    };
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    300 * i64::from(host.power == ON) + 50 * count(host.erase_level)
        - 200_000 * count(host.failures.min(100))
        - 1000 * i64::from(host.misfit)
        - 2 * i64::from(host.provisions.min(100))
        + count(rested)
}
