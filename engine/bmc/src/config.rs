//! How BMCs are reached and protected.

use std::time::Duration;

use crate::guard::AddressGuard;

/// How BMCs are reached and protected. [`Config::new`] gives the defaults that each field names.
#[derive(Debug, Clone)]
pub struct Config {
    /// The addresses that may be reached. Nothing else is, whatever an operator or a BMC says.
    pub allow: AddressGuard,
    /// Roots to trust besides the system's, in DER.
    pub extra_roots: Vec<Vec<u8>>,
    /// How long a connection may take to come about: 5 s.
    pub connect_timeout: Duration,
    /// How long one request may take in all: 30 s. Also the longest that a dropped engine may still be acting.
    pub request_timeout: Duration,
    /// How long power may take to read back as wanted: 90 s (a forced off is quick, but some BMCs tell it late).
    pub power_timeout: Duration,
    /// The pause between two readings while waiting: 1 s.
    pub poll: Duration,
    /// Requests per second to one BMC, in the long run: 2.
    pub rate_per_second: f64,
    /// Requests that may follow each other at once: 16. A registration is 13 (identify, set a network boot, power on, power
    /// off, each read back), one after the other, and sessions add a few.
    pub burst: u32,
    /// Failures in a row on the network after which a BMC is left alone: 5.
    pub breaker_failures: u32,
    /// For how long, the first time; doubles up to [`Config::breaker_longest`]: 30 s.
    pub breaker_pause: Duration,
    /// The longest pause: 15 minutes.
    pub breaker_longest: Duration,
    /// The most bytes of one answer: 8 MiB.
    pub max_body: usize,
}

impl Config {
    /// The defaults, with these addresses allowed.
    pub fn new(allow: AddressGuard) -> Self {
        Config {
            allow,
            extra_roots: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            power_timeout: Duration::from_secs(90),
            poll: Duration::from_secs(1),
            rate_per_second: 2.0,
            burst: 16,
            breaker_failures: 5,
            breaker_pause: Duration::from_secs(30),
            breaker_longest: Duration::from_secs(900),
            max_body: 8 * 1024 * 1024,
        }
    }
}
