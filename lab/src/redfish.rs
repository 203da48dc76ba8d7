//! The Redfish service of one BMC (DSP0266 1.20, schemas of DSP8010).
//!
//! One service, one computer system, one chassis, one manager. A request goes through the same steps whatever it asks: faults,
//! authentication, routing, the journal for everything that is not a read, and the faults that rewrite answers. Answers to mistakes are as
//! the specification wants them (clause 8.6, error responses): an `error` object with `@Message.ExtendedInfo` from the Base registry.

mod auth;
mod error;
mod resources;
mod server;
mod system;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, ETAG, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use crate::fault::{End, FaultSet, merge};
use crate::journal::{Journal, Record, redact};
use crate::machine::Machine;

pub(crate) use error::ApiError;
pub(crate) use server::{Running, start};

/// Version of the Redfish specification that the service claims.
const REDFISH_VERSION: &str = "1.20.0";

/// How long a `hang` fault keeps a connection open when the client does not give up.
const HANG: Duration = Duration::from_secs(3600);

/// A request, read whole.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Value>,
}

impl Reply {
    pub(crate) fn ok(body: Value) -> Self {
        let mut reply = Self { status: StatusCode::OK, headers: HeaderMap::new(), body: Some(body) };
        let etag = reply.body.as_ref().and_then(|b| b.get("@odata.etag")).and_then(Value::as_str);
        if let Some(etag) = etag.and_then(|e| HeaderValue::from_str(e).ok()) {
            reply.headers.insert(ETAG, etag);
        }
        reply
    }

    pub(crate) fn no_content() -> Self {
        Self { status: StatusCode::NO_CONTENT, headers: HeaderMap::new(), body: None }
    }

    pub(crate) fn created(location: &str, body: Value) -> Self {
        let mut reply = Self::ok(body).header(LOCATION, location);
        reply.status = StatusCode::CREATED;
        reply
    }

    pub(crate) fn header(mut self, name: http::HeaderName, value: &str) -> Self {
        // Values are made by us from printable ASCII; one that is not is left out rather than sent broken.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

impl From<ApiError> for Reply {
    fn from(error: ApiError) -> Self {
        let mut reply = Self { status: error.status, headers: HeaderMap::new(), body: Some(error.body()) };
        if let Some(allow) = error.allow {
            reply = reply.header(ALLOW, allow);
        }
        if error.status == StatusCode::UNAUTHORIZED {
            reply = reply.header(WWW_AUTHENTICATE, "Basic realm=\"Redfish\"");
        }
        reply
    }
}

/// The BMC of one machine.
#[derive(Debug)]
pub(crate) struct Bmc {
    pub(crate) machine: Arc<Machine>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) faults: Arc<FaultSet>,
    sessions: auth::Sessions,
}

impl Bmc {
    pub(crate) fn new(machine: Arc<Machine>, journal: Arc<Journal>, faults: Arc<FaultSet>) -> Self {
        Self { machine, journal, faults, sessions: auth::Sessions::default() }
    }

    /// Answers a request; `None` drops the connection.
    pub(crate) async fn handle(&self, request: Request) -> Option<Reply> {
        let host = &self.machine.config().name;
        let effect = self.faults.on_request(host, request.method.as_str(), &request.path);
        if effect.latency_ms > 0 {
            tokio::time::sleep(Duration::from_millis(effect.latency_ms)).await;
        }
        let reply = match effect.end {
            Some(End::Drop) => None,
            Some(End::Hang) => {
                // Recorded first: the client may leave, which drops this future.
                self.record(&request, None, effect.id);
                tokio::time::sleep(HANG).await;
                return None;
            }
            Some(End::Status { code, retry_after_s }) => Some(injected(code, retry_after_s)),
            Some(End::Ignore) => Some(match self.sessions.check(&request.headers, &self.machine.config().bmc) {
                Ok(()) => Reply::no_content(),
                Err(error) => error.into(),
            }),
            None => Some(self.answer(&request).await.unwrap_or_else(Reply::from)),
        };
        let reply = reply.map(|mut reply| {
            if let Some(body) = &mut reply.body {
                effect.merges.iter().for_each(|patch| merge(body, patch));
            }
            reply.header(http::HeaderName::from_static("odata-version"), "4.0")
        });
        self.record(&request, reply.as_ref().map(|r| r.status.as_u16()), effect.id);
        reply
    }

    fn record(&self, request: &Request, status: Option<u16>, fault: Option<u64>) {
        let is_read = matches!(request.method, Method::GET | Method::HEAD);
        // A read with a refused password is recorded all the same: real BMCs count those, and lock accounts.
        let is_refused = status == Some(StatusCode::UNAUTHORIZED.as_u16())
            && request.headers.contains_key(http::header::AUTHORIZATION);
        if is_read && !is_refused {
            return;
        }
        let mut body = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        redact(&mut body);
        let (method, path) = (request.method.to_string(), request.path.clone());
        self.journal.record(Record::Request { method, path, body, status, fault });
    }

    async fn answer(&self, request: &Request) -> Result<Reply, ApiError> {
        let segments: Vec<&str> = request.path.split('/').filter(|s| !s.is_empty()).collect();
        let method = if request.method == Method::HEAD { &Method::GET } else { &request.method };
        let is_open = matches!(
            (method, segments.as_slice()),
            (&Method::GET, ["redfish"] | ["redfish", "v1"] | ["redfish", "v1", "odata"])
                | (&Method::POST, ["redfish", "v1", "SessionService", "Sessions"])
        );
        if !is_open {
            self.sessions.check(&request.headers, &self.machine.config().bmc)?;
        }
        if let Some(option) = request.query.as_deref().and_then(query_option) {
            return Err(ApiError::query_not_supported(option));
        }
        match segments.as_slice() {
            ["redfish"] => read_only(method, || json!({"v1": "/redfish/v1/"})),
            ["redfish", "v1", rest @ ..] => self.route(method, rest, request).await,
            _ => Err(ApiError::not_found(&request.path)),
        }
    }

    async fn route(&self, method: &Method, path: &[&str], request: &Request) -> Result<Reply, ApiError> {
        let config = self.machine.config();
        if let ["Systems", id, rest @ ..] = path
            && *id == config.bmc.system_id
        {
            match (method, rest) {
                (&Method::PATCH, []) => return system::patch(&self.machine, request),
                (_, ["Actions", "ComputerSystem.Reset"]) => {
                    return match *method {
                        Method::POST => system::reset(&self.machine, request).await,
                        _ => Err(ApiError::method_not_allowed(method, &request.path, "POST")),
                    };
                }
                (&Method::GET, []) => return Ok(Reply::ok(system::resource(&self.machine))),
                (_, []) => return Err(ApiError::method_not_allowed(method, &request.path, "GET, HEAD, PATCH")),
                _ => {}
            }
        }
        if let ["Managers", "1", "Actions", "Manager.Reset"] = path {
            return match *method {
                Method::POST => self.restart(request),
                _ => Err(ApiError::method_not_allowed(method, &request.path, "POST")),
            };
        }
        if let (&Method::PATCH, ["AccountService", "Accounts", "1"]) = (method, path) {
            return self.change_account(request);
        }
        if let ["SessionService", "Sessions", rest @ ..] = path {
            match (method, rest) {
                (&Method::POST, []) => return self.sessions.create(&request.body, &config.bmc),
                (&Method::GET, []) => return Ok(Reply::ok(self.sessions.collection())),
                (&Method::GET, [id]) => return self.sessions.get(id, &request.path).map(Reply::ok),
                (&Method::DELETE, [id]) => return self.sessions.delete(id, &request.path),
                (_, []) => return Err(ApiError::method_not_allowed(method, &request.path, "GET, HEAD, POST")),
                (_, [_]) => return Err(ApiError::method_not_allowed(method, &request.path, "GET, HEAD, DELETE")),
                _ => {}
            }
        }
        self.read_resource(method, path, request)
    }

    /// `POST .../Actions/Manager.Reset`: the BMC forgets its sessions; the machine goes on as it is. That it is away for a
    /// while is a fault to be armed.
    fn restart(&self, request: &Request) -> Result<Reply, ApiError> {
        const ACTION: &str = "Manager.Reset";
        let asked = system::reset_type(ACTION, request)?;
        if !resources::MANAGER_RESETS.contains(&asked.as_str()) {
            return Err(ApiError::parameter_not_in_list(ACTION, "ResetType", &asked));
        }
        self.sessions.end_all();
        Ok(Reply::no_content())
    }

    /// `PATCH` of the account: its password can be changed, and nothing else.
    fn change_account(&self, request: &Request) -> Result<Reply, ApiError> {
        let body: Value = serde_json::from_slice(&request.body).map_err(|_| ApiError::malformed_json())?;
        let fields = body.as_object().ok_or_else(ApiError::malformed_json)?;
        if let Some(other) = fields.keys().find(|name| *name != "Password" && !name.starts_with('@')) {
            return Err(ApiError::property_not_writable(other));
        }
        let given = fields.get("Password").ok_or_else(ApiError::empty_object)?;
        let allowed = resources::MIN_PASSWORD..=resources::MAX_PASSWORD;
        match given.as_str().filter(|text| allowed.contains(&text.len())) {
            Some(password) => self.sessions.give(password),
            // Careless as real ones are: the value comes back in the message.
            None => return Err(ApiError::property_type("Password", given)),
        }
        Ok(Reply::no_content())
    }

    fn read_resource(&self, method: &Method, path: &[&str], request: &Request) -> Result<Reply, ApiError> {
        match resources::get(self.machine.config(), &self.machine.view(), path) {
            Some(body) if *method == Method::GET => Ok(Reply::ok(body)),
            Some(_) => Err(ApiError::method_not_allowed(method, &request.path, "GET, HEAD")),
            None => Err(ApiError::not_found(&request.path)),
        }
    }
}

fn read_only(method: &Method, body: impl FnOnce() -> Value) -> Result<Reply, ApiError> {
    match *method {
        Method::GET => Ok(Reply::ok(body())),
        _ => Err(ApiError::method_not_allowed(method, "/redfish", "GET, HEAD")),
    }
}

/// The first query option that asks for something: we support none, and DSP0266 wants 501 for those that start with `$`.
fn query_option(query: &str) -> Option<&str> {
    query.split('&').map(|pair| pair.split('=').next().unwrap_or(pair)).find(|name| name.starts_with('$'))
}

fn injected(code: u16, retry_after_s: Option<u32>) -> Reply {
    // The code was checked to be 400 to 599 when the fault was armed.
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = Reply::from(match status {
        StatusCode::UNAUTHORIZED => ApiError::unauthorized(),
        StatusCode::SERVICE_UNAVAILABLE => ApiError::unavailable(retry_after_s),
        _ => ApiError::injected(status),
    });
    if let Some(seconds) = retry_after_s {
        reply = reply.header(RETRY_AFTER, &seconds.to_string());
    }
    reply
}

/// The content type of every answer with a body.
pub(crate) fn json_content_type() -> (http::HeaderName, HeaderValue) {
    (CONTENT_TYPE, HeaderValue::from_static("application/json;odata.metadata=minimal;charset=utf-8"))
}
