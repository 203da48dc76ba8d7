//! One request and its answer: everything that holds for every call to a BMC.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::config::Config;
use crate::error::{Asked, BmcError};
use crate::fence::Fence;
use crate::guard::{AddressGuard, Denied};
use crate::link::{Link, PASSWORD_TRIES, Pause, Verdict};
use crate::quirks;
use crate::redfish::path::ResourcePath;
use crate::wire::{Dial, Wire, WireAnswer, WireError, WireRequest};

/// How long a busy BMC is left alone when it does not say.
const BUSY_PAUSE: Duration = Duration::from_secs(10);
/// The same when its sessions are used up: iDRAC times idle ones out after half an hour.
const SESSIONS_PAUSE: Duration = Duration::from_secs(120);
/// The longest pause that a BMC can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(900);
/// As much of a BMC's own words as an error repeats.
const SAID_CHARS: usize = 300;

/// Account and password, and a digest that stands for them in bookkeeping.
pub(crate) struct Credentials {
    pub(crate) username: String,
    password: String,
    pub(crate) digest: [u8; 32],
}

impl Credentials {
    pub(crate) fn new(username: &str, password: &str, version: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [username, password, version] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        Credentials { username: username.to_owned(), password: password.to_owned(), digest: hash.finalize().into() }
    }

    /// The value of `Authorization` (RFC 7617 section 2), marked so that nothing prints it.
    fn basic(&self) -> HeaderValue {
        let pair = format!("{}:{}", self.username, self.password);
        let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        // Base64 has no character that a header may not have.
        let mut value = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("Basic"));
        value.set_sensitive(true);
        value
    }
}

/// Whether a request carries the credentials. The service root needs none (DSP0266 section 13.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Auth {
    Basic,
    None,
}

pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a ResourcePath,
    pub(crate) auth: Auth,
    pub(crate) body: Option<&'a Value>,
    pub(crate) if_match: Option<&'a str>,
}

impl<'a> Request<'a> {
    pub(crate) fn get(path: &'a ResourcePath) -> Self {
        Request { method: Method::GET, path, auth: Auth::Basic, body: None, if_match: None }
    }

    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// An answer that arrived whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) etag: Option<String>,
    /// The body; `Null` when there is none.
    pub(crate) body: Body,
}

#[derive(Debug)]
pub(crate) enum Body {
    Empty,
    Json(Value),
    /// What it began with.
    NotJson(String),
}

pub(crate) struct Transport {
    pub(crate) origin: String,
    url: url::Url,
    wire: Arc<dyn Wire>,
    dial: Arc<dyn Dial>,
    credentials: Credentials,
    guard: AddressGuard,
    config: Arc<Config>,
    pub(crate) link: Arc<Link>,
}

impl Transport {
    /// `wire` is the line to `origin` that `dial` made.
    pub(crate) fn new(
        origin: &str,
        credentials: Credentials,
        (dial, wire): (Arc<dyn Dial>, Arc<dyn Wire>),
        config: Arc<Config>,
        link: Arc<Link>,
    ) -> Result<Self, BmcError> {
        let setup = |reason: String| BmcError::Setup { origin: origin.to_owned(), reason };
        let url = url::Url::parse(origin).map_err(|e| setup(e.to_string()))?;
        let guard = config.allow.clone();
        Ok(Transport { origin: origin.to_owned(), url, wire, dial, credentials, guard, config, link })
    }

    pub(crate) fn username(&self) -> &str {
        &self.credentials.username
    }

    /// The fingerprint of the certificate that the last handshake showed.
    pub(crate) fn fingerprint(&self) -> Option<String> {
        self.wire.fingerprint()
    }

    /// Sends one request. Answers below 500 that are the request's own affair (404, 409, 412 …) are answers; what
    /// concerns the BMC as a whole (credentials, busy, network, redirects) is an error.
    pub(crate) async fn send(&self, request: Request<'_>, fence: &dyn Fence) -> Result<Answer, BmcError> {
        self.admit(&request)?;
        let verdict = self.link.state().breaker.ask(Instant::now(), self.config.request_timeout);
        match verdict {
            Verdict::Closed => {}
            Verdict::HalfOpen => {
                let root = ResourcePath::root();
                let probe = Request { auth: Auth::None, ..Request::get(&root) };
                match self.exchange(&probe, fence).await {
                    // A BMC that wants credentials even here is there, which is all that was asked.
                    Ok(_) | Err(BmcError::Credentials { .. } | BmcError::Privilege { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Verdict::Open { failures, last, retry_in } => {
                return Err(BmcError::CircuitOpen { origin: self.origin.clone(), failures, last, retry_in });
            }
        }
        self.exchange(&request, fence).await
    }

    /// What can be refused without asking the BMC.
    fn admit(&self, request: &Request<'_>) -> Result<(), BmcError> {
        // A name is judged when it is resolved; an address never gets there.
        let literal: Option<IpAddr> = match self.url.host() {
            Some(url::Host::Ipv4(v4)) => Some(v4.into()),
            Some(url::Host::Ipv6(v6)) => Some(v6.into()),
            _ => None,
        };
        if let Some(Err(denied)) = literal.map(|address| self.guard.check(address)) {
            return Err(self.forbidden(&denied));
        }
        let mut state = self.link.state();
        if request.auth == Auth::Basic && state.refused.count(&self.credentials.digest) >= PASSWORD_TRIES {
            return Err(self.refused(Asked::No));
        }
        let now = Instant::now();
        match &state.pause {
            Some(Pause { until, status, said }) if *until > now => Err(BmcError::Busy {
                origin: self.origin.clone(),
                status: *status,
                said: said.clone(),
                retry_in: *until - now,
            }),
            _ => {
                state.pause = None;
                Ok(())
            }
        }
    }

    async fn exchange(&self, request: &Request<'_>, fence: &dyn Fence) -> Result<Answer, BmcError> {
        // Reads share two permits; a changing call is alone by the caller's lock and needs none of them.
        let _permit = match request.method {
            Method::GET => self.link.reads.acquire().await.ok(),
            _ => None,
        };
        let wait = self.link.state().pace.reserve(Instant::now());
        tokio::time::sleep(wait).await;
        let url = request.path.on(&self.url).ok_or_else(|| BmcError::Setup {
            origin: self.origin.clone(),
            reason: format!("{} leads away from the BMC", request.path),
        })?;
        let call = WireRequest {
            method: request.method.clone(),
            url,
            headers: self.headers(request)?,
            body: request.body.map(|body| body.to_string().into_bytes()),
        };
        // After the last wait for a turn: from here to the socket nothing of ours waits.
        fence.check().map_err(|why| BmcError::Fenced { origin: self.origin.clone(), why: why.to_string() })?;
        match self.wire.exchange(call).await {
            Ok(answer) => {
                self.link.state().breaker.succeeded();
                self.judge(request, &answer)
            }
            Err(error) => Err(self.lost(request, error)),
        }
    }

    fn headers(&self, request: &Request<'_>) -> Result<HeaderMap, BmcError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        // DSP0266 section 6.5: clients shall name the protocol version they speak.
        headers.insert("OData-Version", HeaderValue::from_static("4.0"));
        if request.auth == Auth::Basic {
            headers.insert(header::AUTHORIZATION, self.credentials.basic());
        }
        if request.body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(etag) = request.if_match {
            let etag = HeaderValue::from_str(etag)
                .map_err(|_| self.protocol(request, "an ETag that is a header value", format!("{etag:?}")))?;
            headers.insert(header::IF_MATCH, etag);
        }
        Ok(headers)
    }

    /// What it means that there is no whole answer.
    fn lost(&self, request: &Request<'_>, error: WireError) -> BmcError {
        match error {
            WireError::Denied(denied) => self.forbidden(&denied),
            WireError::Certificate { problem, fingerprint } => {
                BmcError::Certificate { origin: self.origin.clone(), problem, fingerprint }
            }
            WireError::TooLarge => {
                self.link.state().breaker.succeeded();
                let seen = format!("more than {} bytes", self.config.max_body);
                self.protocol(request, "a smaller body", seen)
            }
            WireError::Lost { reason } => {
                self.link.state().breaker.failed(Instant::now(), reason.clone(), self.dial.jitter());
                BmcError::Unreachable { origin: self.origin.clone(), request: request.name(), reason }
            }
        }
    }

    fn judge(&self, request: &Request<'_>, answer: &WireAnswer) -> Result<Answer, BmcError> {
        let WireAnswer { status, headers, body: bytes } = answer;
        let body = match serde_json::from_slice(bytes) {
            Ok(value) => Body::Json(value),
            Err(_) if bytes.iter().all(u8::is_ascii_whitespace) => Body::Empty,
            Err(_) => Body::NotJson(plain(&String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SAID_CHARS)]))),
        };
        let said = || match &body {
            Body::Json(value) => message(value),
            _ => String::new(),
        };
        if request.auth == Auth::Basic && *status != StatusCode::UNAUTHORIZED {
            // Anything else means that the account was accepted (busy answers may come from before the check).
            if status.is_success() {
                self.link.state().refused.accepted(&self.credentials.digest);
            }
        }
        match *status {
            StatusCode::UNAUTHORIZED => {
                if request.auth == Auth::Basic {
                    self.link.state().refused.refused(&self.credentials.digest);
                }
                Err(self.refused(Asked::Yes))
            }
            StatusCode::FORBIDDEN => Err(BmcError::Privilege {
                origin: self.origin.clone(),
                username: self.username().to_owned(),
                request: request.name(),
                said: said(),
            }),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let said = said();
                let usual = if quirks::sessions_are_used_up(&said) { SESSIONS_PAUSE } else { BUSY_PAUSE };
                let retry_in = retry_after(headers).unwrap_or(usual).min(LONGEST_PAUSE);
                let pause = Pause { until: Instant::now() + retry_in, status: status.as_u16(), said: said.clone() };
                self.link.state().pause = Some(pause);
                Err(BmcError::Busy { origin: self.origin.clone(), status: status.as_u16(), said, retry_in })
            }
            status if status.is_redirection() => {
                let to = headers.get(header::LOCATION).map(|to| plain(&String::from_utf8_lossy(to.as_bytes())));
                let seen = format!("a redirect to {}", to.unwrap_or_else(|| "nowhere".into()));
                Err(self.protocol(request, "an answer (redirects are not followed)", seen))
            }
            status => {
                let etag = headers.get(header::ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
                Ok(Answer { status, etag, body })
            }
        }
    }

    fn forbidden(&self, denied: &Denied) -> BmcError {
        BmcError::Forbidden { origin: self.origin.clone(), why: denied.to_string() }
    }

    fn refused(&self, asked: Asked) -> BmcError {
        BmcError::Credentials { origin: self.origin.clone(), username: self.username().to_owned(), asked }
    }

    fn protocol(&self, request: &Request<'_>, expected: &str, seen: String) -> BmcError {
        BmcError::Protocol { origin: self.origin.clone(), request: request.name(), expected: expected.to_owned(), seen }
    }

    /// An answer whose status was not the wanted one.
    pub(crate) fn unexpected(&self, request: &str, expected: &str, answer: &Answer) -> BmcError {
        let said = match &answer.body {
            Body::Json(value) => message(value),
            Body::NotJson(text) => format!("text beginning {text:?}"),
            Body::Empty => String::new(),
        };
        let said = if said.is_empty() { said } else { format!(": {said}") };
        BmcError::Protocol {
            origin: self.origin.clone(),
            request: request.to_owned(),
            expected: expected.to_owned(),
            seen: format!("HTTP {}{said}", answer.status.as_u16()),
        }
    }
}

/// `Retry-After` in seconds, or as a date relative to the answer's own `Date` (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok();
    let value = text(header::RETRY_AFTER)?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp());
    let span = date(value)?.duration_since(date(text(header::DATE)?)?);
    Duration::try_from(span).ok()
}

/// The BMC's own words in a Redfish error (DSP0266 section 8.6): the extended messages, else the general one.
fn message(body: &Value) -> String {
    let error = &body["error"];
    let extended: Vec<String> = error["@Message.ExtendedInfo"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|info| {
            let text = info["Message"].as_str().filter(|text| !text.trim().is_empty());
            let id = info["MessageId"].as_str().filter(|id| !id.trim().is_empty());
            match (text, id) {
                (Some(text), Some(id)) => Some(format!("{} ({id})", text.trim())),
                (text, id) => text.or(id).map(str::to_owned),
            }
        })
        .collect();
    let words = if extended.is_empty() {
        error["message"].as_str().unwrap_or_default().to_owned()
    } else {
        extended.join("; ")
    };
    plain(&words)
}

/// Text of a stranger, fit for a log line: no control characters, not long.
fn plain(text: &str) -> String {
    let tame: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let tame = tame.trim();
    match tame.char_indices().nth(SAID_CHARS) {
        Some((end, _)) => format!("{}…", &tame[..end]),
        None => tame.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        assert_eq!(retry_after(&headers(&[("retry-after", "7")])), Some(Duration::from_secs(7)));
        let date =
            headers(&[("date", "Fri, 20 Nov 2026 10:00:00 GMT"), ("retry-after", "Fri, 20 Nov 2026 10:01:30 GMT")]);
        assert_eq!(retry_after(&date), Some(Duration::from_secs(90)));
        let past =
            headers(&[("date", "Fri, 20 Nov 2026 10:00:00 GMT"), ("retry-after", "Fri, 20 Nov 2026 09:00:00 GMT")]);
        assert_eq!(retry_after(&past), None);
        assert_eq!(retry_after(&headers(&[("retry-after", "soon")])), None);
    }

    #[test]
    fn a_bmcs_words_are_found_and_tamed() {
        let body = serde_json::json!({"error": {"message": "general", "@Message.ExtendedInfo": [
            {"MessageId": "IDRAC.2.8.RAC0218", "Message": "The maximum number of user sessions is reached.\n"},
        ]}});
        assert_eq!(message(&body), "The maximum number of user sessions is reached. (IDRAC.2.8.RAC0218)");
        assert_eq!(message(&serde_json::json!({"error": {"message": "general\u{7}"}})), "general");
        assert_eq!(message(&serde_json::json!([1])), "");
        assert_eq!(plain(&"x".repeat(1000)).chars().count(), SAID_CHARS + 1);
    }

    #[test]
    fn another_version_of_a_password_is_another_credential() {
        let digest = |user: &str, password: &str, version: &str| Credentials::new(user, password, version).digest;
        assert_eq!(digest("a", "b", "1"), digest("a", "b", "1"));
        assert_ne!(digest("a", "b", "1"), digest("a", "b", "2"));
        assert_ne!(digest("ab", "c", ""), digest("a", "bc", ""));
    }
}
