//! The line to one BMC: one HTTP request, one whole answer. Everything above it (retries, breaker, credentials, parsing,
//! reading back) is the same whatever the line is made of: [`HttpDial`] makes lines of sockets and TLS; a simulation makes
//! its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use vmetal_model::TlsTrust;

use crate::config::Config;
use crate::error::CertificateProblem;
use crate::guard::{AddressGuard, Denied};
use crate::tls::{self, Anchors, Witness};

/// A request as it goes over the line.
#[derive(Debug, Clone)]
pub struct WireRequest {
    /// What is asked.
    pub method: Method,
    /// Of which resource; always on the origin that the line was made for.
    pub url: url::Url,
    /// All headers but those of the connection itself.
    pub headers: HeaderMap,
    /// JSON, or nothing.
    pub body: Option<Vec<u8>>,
}

/// An answer that arrived whole.
#[derive(Debug, Clone)]
pub struct WireAnswer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, at most [`Config::max_body`] bytes.
    pub body: Vec<u8>,
}

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The name leads to an address that may not be reached.
    #[error(transparent)]
    Denied(Denied),
    /// The peer's certificate is not trusted.
    #[error("the certificate {fingerprint} is not trusted")]
    Certificate {
        /// What is wrong with it.
        problem: CertificateProblem,
        /// SHA-256 of its DER form, in hexadecimal.
        fingerprint: String,
    },
    /// The answer has more bytes than are taken.
    #[error("the answer is too large")]
    TooLarge,
    /// The network: no connection, no answer in time, or one that broke off. The request may have arrived.
    #[error("{reason}")]
    Lost {
        /// What happened, for people.
        reason: String,
    },
}

/// The line to one BMC. Must give up by itself within [`Config::request_timeout`].
pub trait Wire: Send + Sync {
    /// Sends one request and takes its whole answer. Redirects are answers.
    fn exchange(&self, request: WireRequest) -> BoxFuture<'_, Result<WireAnswer, WireError>>;

    /// The fingerprint of the certificate that the last handshake showed; `None` without TLS.
    fn fingerprint(&self) -> Option<String>;
}

/// Makes lines.
pub trait Dial: Send + Sync {
    /// The line to this origin; no connection is made yet. `trust` is `None` for clear text.
    ///
    /// # Errors
    /// A sentence, when the line cannot be set up as asked (a pin that is not a fingerprint).
    fn dial(&self, origin: &str, trust: Option<&TlsTrust>) -> Result<Arc<dyn Wire>, String>;

    /// Chance, evenly in 0..=1: how far apart the retries of many BMCs behind one dead switch lie. Decides nothing else.
    fn jitter(&self) -> f64 {
        use std::hash::{BuildHasher as _, RandomState};
        // Each RandomState has fresh keys.
        let random = RandomState::new().hash_one(0u8);
        (random >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// How long a connection is kept for the next call. Calls come in bursts; between them lie minutes in firmware.
const POOL_IDLE: Duration = Duration::from_secs(5);

/// Lines of TCP, TLS and HTTP/1.1.
pub struct HttpDial {
    anchors: Anchors,
    guard: AddressGuard,
    connect_timeout: Duration,
    request_timeout: Duration,
    max_body: usize,
}

impl HttpDial {
    /// Reads the trusted roots.
    pub fn new(config: &Config) -> Self {
        HttpDial {
            anchors: Anchors::new(&config.extra_roots),
            guard: config.allow.clone(),
            connect_timeout: config.connect_timeout,
            request_timeout: config.request_timeout,
            max_body: config.max_body,
        }
    }
}

impl Dial for HttpDial {
    fn dial(&self, _origin: &str, trust: Option<&TlsTrust>) -> Result<Arc<dyn Wire>, String> {
        // Even a client for clear text is built with a TLS side; it is never used.
        let (config, witness) = tls::client_config(trust.unwrap_or(&TlsTrust::Verify), &self.anchors)?;
        let witness = trust.is_some().then_some(witness);
        let http = reqwest::Client::builder()
            .user_agent(concat!("vmetal/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .http1_only()
            .connect_timeout(self.connect_timeout)
            .timeout(self.request_timeout)
            .pool_max_idle_per_host(2)
            .pool_idle_timeout(POOL_IDLE)
            .dns_resolver(Arc::new(GuardedResolver(self.guard.clone())))
            .tls_backend_preconfigured(config)
            .build()
            .map_err(|error| deepest(&error))?;
        Ok(Arc::new(HttpWire {
            http,
            witness,
            connect_timeout: self.connect_timeout,
            request_timeout: self.request_timeout,
            max_body: self.max_body,
        }))
    }
}

struct HttpWire {
    http: reqwest::Client,
    witness: Option<Witness>,
    connect_timeout: Duration,
    request_timeout: Duration,
    max_body: usize,
}

impl Wire for HttpWire {
    fn exchange(&self, request: WireRequest) -> BoxFuture<'_, Result<WireAnswer, WireError>> {
        Box::pin(async move {
            let mut call = self.http.request(request.method, request.url).headers(request.headers);
            if let Some(body) = request.body {
                call = call.body(body);
            }
            let mut response = call.send().await.map_err(|error| self.failure(&error))?;
            let (status, headers) = (response.status(), response.headers().clone());
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|error| self.failure(&error))? {
                if body.len() + chunk.len() > self.max_body {
                    return Err(WireError::TooLarge);
                }
                body.extend_from_slice(&chunk);
            }
            Ok(WireAnswer { status, headers, body })
        })
    }

    fn fingerprint(&self) -> Option<String> {
        tls::seen(self.witness.as_ref()?).fingerprint
    }
}

impl HttpWire {
    fn failure(&self, error: &reqwest::Error) -> WireError {
        if let Some(denied) = find::<Denied>(error) {
            return WireError::Denied(denied.clone());
        }
        // Only a failed handshake leaves a problem behind; a later good one clears it.
        let seen = self.witness.as_ref().map(tls::seen).unwrap_or_default();
        if let (true, Some(problem), Some(fingerprint)) = (error.is_connect(), seen.problem, seen.fingerprint) {
            return WireError::Certificate { problem, fingerprint };
        }
        let reason = if error.is_timeout() && error.is_connect() {
            format!("no connection within {} s", self.connect_timeout.as_secs_f32())
        } else if error.is_timeout() {
            format!("no complete answer within {} s", self.request_timeout.as_secs_f32())
        } else {
            deepest(error)
        };
        WireError::Lost { reason }
    }
}

/// Resolves names and lets only allowed addresses through, at the moment of dialling.
struct GuardedResolver(AddressGuard);

impl reqwest::dns::Resolve for GuardedResolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let guard = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed = guard.filter(found)?;
            Ok(Box::new(allowed.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        // An I/O error hides what it wraps from `source`: it names the inner one's source as its own.
        match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        }
    })
}

fn find<T: std::error::Error + 'static>(error: &reqwest::Error) -> Option<&T> {
    chain(error).find_map(|error| error.downcast_ref())
}

/// The innermost reason: `connection refused` rather than `error sending request`.
fn deepest(error: &reqwest::Error) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}
