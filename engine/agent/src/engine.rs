//! The installer's side of the protocol with the engine (`vmetal_model::agent`).
//!
//! Plain HTTP to an address on the provisioning network; every request carries the boot attempt's token. Whether a
//! failure may pass ([`CallError::Away`]) or an answer is final ([`CallError::Refused`]) is decided here, once; how long
//! to go on is the caller's.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use vmetal_model::agent::{Hello, Order, Report, ReportBody};

use crate::clock;
use crate::console::say;

/// How patient the installer is. Tests are less so.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Wait after the first failed call; doubles with each further one.
    pub retry_min: Duration,
    /// Longest wait between tries.
    pub retry_max: Duration,
    /// How long the engine may hold a call for the next order.
    pub hold: Duration,
    /// Silence after which a heartbeat is sent.
    pub heartbeat: Duration,
    /// Between two reports of progress.
    pub progress: Duration,
    /// How long the image server may give nothing before the installation fails.
    pub image_patience: Duration,
    /// Longest time without a byte on an open connection.
    pub stall: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            retry_min: Duration::from_millis(500),
            retry_max: Duration::from_secs(10),
            hold: Duration::from_secs(20),
            heartbeat: Duration::from_secs(5),
            progress: Duration::from_secs(1),
            image_patience: Duration::from_secs(900),
            stall: Duration::from_secs(30),
        }
    }
}

impl Pace {
    /// The wait before try number `tries` + 1.
    pub fn backoff(&self, tries: u32) -> Duration {
        self.retry_min.saturating_mul(1 << tries.min(10)).min(self.retry_max)
    }
}

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection, no answer in time, or the engine says that it is away or busy: try again.
    #[error("{what} did not answer: {reason}")]
    Away {
        /// The request.
        what: String,
        /// Why.
        reason: String,
    },
    /// An answer that another try will not change.
    #[error("{what} was refused with {status}: {reason}")]
    Refused {
        /// The request.
        what: String,
        /// HTTP status.
        status: u16,
        /// The engine's words.
        reason: String,
    },
    /// An answer that makes no sense.
    #[error("{what} gave an answer that cannot be read: {reason}")]
    Nonsense {
        /// The request.
        what: String,
        /// Why.
        reason: String,
    },
}

/// The engine's error body.
#[derive(Deserialize)]
struct ErrorBody {
    error: String,
}

/// Longest answer other than image data.
const MAX_ANSWER: u64 = 64 << 20;

/// A connection to the engine; shared by all threads.
pub struct Engine {
    http: ureq::Agent,
    url: String,
    authorization: String,
    pace: Pace,
    /// Number of the last report. Held while a report is under way, so that reports arrive in their order.
    sequence: Mutex<u64>,
}

impl Engine {
    /// To the engine at `url` (`http://ADDRESS:PORT`).
    pub fn new(url: &str, token: &str, pace: Pace) -> Self {
        let http = ureq::Agent::new_with_config(
            ureq::Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .proxy(None)
                .user_agent(concat!("vmetal-agent/", env!("CARGO_PKG_VERSION")))
                .timeout_connect(Some(Duration::from_secs(5)))
                .timeout_recv_response(Some(pace.hold + pace.stall))
                .timeout_per_read(Some(pace.hold + pace.stall))
                .timeout_send_body(Some(pace.stall))
                .max_idle_connections_per_host(8)
                .build(),
        );
        Engine { http, url: url.to_owned(), authorization: format!("Bearer {token}"), pace, sequence: Mutex::new(0) }
    }

    /// How patient to be.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Says hello and gets the first order.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn hello(&self, hello: &Hello) -> Result<Order, CallError> {
        let body = serde_json::to_vec(hello).map_err(nonsense("hello"))?;
        parse("hello", &self.post("/agent/v1/hello", "hello", &body)?)
    }

    /// Waits for another order than `after`. The engine may answer with the same one when there is none.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn order(&self, after: &str) -> Result<Order, CallError> {
        let path = format!("/agent/v1/order?after={}&wait={}", percent(after), self.pace.hold.as_secs());
        parse("asking for orders", &self.get(&path, "asking for orders", MAX_ANSWER)?)
    }

    /// Reports once. For heartbeats and progress: the next one makes up for a lost one.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn report(&self, order: &str, body: ReportBody) -> Result<(), CallError> {
        let mut sequence = self.sequence.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *sequence += 1;
        self.send_report(&Report { order: order.to_owned(), sequence: *sequence, body })
    }

    /// Reports until it is taken, or refused for good. For results: losing one would lose the work.
    ///
    /// # Errors
    /// [`CallError::Refused`] or [`CallError::Nonsense`]; the engine does not want this report.
    pub fn report_surely(&self, order: &str, body: ReportBody) -> Result<(), CallError> {
        let mut sequence = self.sequence.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *sequence += 1;
        let report = Report { order: order.to_owned(), sequence: *sequence, body };
        let mut tries = 0;
        loop {
            match self.send_report(&report) {
                Err(error @ CallError::Away { .. }) => {
                    say(&format!("{error}; trying again"));
                    thread::sleep(self.pace.backoff(tries));
                    tries += 1;
                }
                other => return other,
            }
        }
    }

    fn send_report(&self, report: &Report) -> Result<(), CallError> {
        let body = serde_json::to_vec(report).map_err(nonsense("report"))?;
        self.post("/agent/v1/report", "report", &body).map(drop)
    }

    /// Fetches at most `limit` bytes.
    ///
    /// # Errors
    /// [`CallError`]; more than `limit` bytes is an answer that cannot be read.
    pub fn get(&self, path: &str, what: &str, limit: u64) -> Result<Vec<u8>, CallError> {
        let request = self.http.get(format!("{}{path}", self.url)).header("Authorization", &self.authorization);
        answer(what, limit, request.call())
    }

    fn post(&self, path: &str, what: &str, body: &[u8]) -> Result<Vec<u8>, CallError> {
        let request = self
            .http
            .post(format!("{}{path}", self.url))
            .header("Authorization", &self.authorization)
            .header("Content-Type", "application/json");
        answer(what, MAX_ANSWER, request.send(body))
    }
}

fn answer(
    what: &str,
    limit: u64,
    result: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<Vec<u8>, CallError> {
    let away = |reason: String| CallError::Away { what: what.to_owned(), reason };
    let mut response = result.map_err(|e| match e {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => nonsense(what)(e),
        other => away(other.to_string()),
    })?;
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(limit).read_to_vec().map_err(|e| match e {
        ureq::Error::BodyExceedsLimit(_) => nonsense(what)(e),
        other => away(other.to_string()),
    })?;
    if (200..300).contains(&status) {
        return Ok(body);
    }
    let reason = match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(body) => body.error,
        Err(_) => String::from_utf8_lossy(&body).chars().take(200).collect::<String>().trim().to_owned(),
    };
    // Busy, timed out or gone for a moment: the engine is being restarted.
    if status >= 500 || matches!(status, 408 | 425 | 429) {
        Err(away(format!("status {status}: {reason}")))
    } else {
        Err(CallError::Refused { what: what.to_owned(), status, reason })
    }
}

fn parse<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(body).map_err(nonsense(what))
}

fn nonsense<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> CallError {
    let what = what.to_owned();
    move |error| CallError::Nonsense { what, reason: error.to_string() }
}

/// Percent-encodes everything but the unreserved characters (RFC 3986 section 2.3).
fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Sleeps, but not past `stop`.
pub(crate) fn sleep_unless(stop: &AtomicBool, time: Duration) {
    const STEP: Duration = Duration::from_millis(50);
    let end = clock::now() + time;
    while !stop.load(Ordering::Acquire) {
        let left = end.saturating_duration_since(clock::now());
        if left.is_zero() {
            break;
        }
        thread::sleep(left.min(STEP));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit() {
        let pace = Pace::default();
        assert_eq!(pace.backoff(0), Duration::from_millis(500));
        assert_eq!(pace.backoff(2), Duration::from_secs(2));
        assert_eq!(pace.backoff(40), Duration::from_secs(10));
    }

    #[test]
    fn ids_are_safe_in_a_query() {
        assert_eq!(percent("a-1_b.c~"), "a-1_b.c~");
        assert_eq!(percent("a b&c=ü/"), "a%20b%26c%3D%C3%BC%2F");
    }
}
