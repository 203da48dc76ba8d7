//! Authentication: HTTP basic, and sessions with `X-Auth-Token` (DSP0266 clause 13, security details).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{ApiError, Reply};
use crate::config::BmcConfig;

/// Idle time after which a session ends, in seconds (`SessionTimeout`).
pub(super) const SESSION_TIMEOUT_S: u64 = 1800;

const TOKEN_HEADER: &str = "x-auth-token";
const COLLECTION: &str = "/redfish/v1/SessionService/Sessions";

#[derive(Debug)]
struct Session {
    token: String,
    user: String,
    used: Instant,
}

/// The open sessions of a BMC.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    inner: Mutex<(u64, BTreeMap<u64, Session>)>,
    /// The password that the account was given, in the place of the configured one.
    given: Mutex<Option<String>>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Session>)> {
        // Every change is one map operation.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = Duration::from_secs(SESSION_TIMEOUT_S);
        inner.1.retain(|_, session| session.used.elapsed() < limit);
        inner
    }

    /// The account has another password from now on; sessions that are open stay.
    pub(super) fn give(&self, password: &str) {
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = Some(password.to_owned());
    }

    fn opens(&self, user: &str, password: &str, bmc: &BmcConfig) -> bool {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        user == bmc.username && password == given.as_deref().unwrap_or(&bmc.password)
    }

    /// Accepts a request with the right basic credentials or the token of an open session.
    pub(super) fn check(&self, headers: &HeaderMap, bmc: &BmcConfig) -> Result<(), ApiError> {
        if let Some(token) = headers.get(TOKEN_HEADER).and_then(|v| v.to_str().ok()) {
            let mut inner = self.lock();
            return match inner.1.values_mut().find(|s| s.token == token) {
                Some(session) => {
                    session.used = Instant::now();
                    Ok(())
                }
                None => Err(ApiError::unauthorized()),
            };
        }
        match basic(headers) {
            Some((user, password)) if self.opens(&user, &password, bmc) => Ok(()),
            _ => Err(ApiError::unauthorized()),
        }
    }

    pub(super) fn create(&self, body: &[u8], bmc: &BmcConfig) -> Result<Reply, ApiError> {
        let body: Value = serde_json::from_slice(body).map_err(|_| ApiError::malformed_json())?;
        let text = |name: &str| {
            body.get(name)
                .and_then(Value::as_str)
                .ok_or_else(|| ApiError::parameter_missing("SessionCollection.Create", name))
        };
        if !self.opens(text("UserName")?, text("Password")?, bmc) {
            return Err(ApiError::unauthorized());
        }
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(|e| ApiError::internal(&format!("no randomness for a token: {e}")))?;
        let token = hex::encode(bytes);
        let mut inner = self.lock();
        inner.0 += 1;
        let id = inner.0;
        inner.1.insert(id, Session { token: token.clone(), user: bmc.username.clone(), used: Instant::now() });
        let reply = Reply::created(&format!("{COLLECTION}/{id}"), resource(id, &bmc.username));
        Ok(reply.header(http::HeaderName::from_static(TOKEN_HEADER), &token))
    }

    pub(super) fn collection(&self) -> Value {
        let members: Vec<Value> =
            self.lock().1.keys().map(|id| json!({"@odata.id": format!("{COLLECTION}/{id}")})).collect();
        json!({
            "@odata.id": COLLECTION,
            "@odata.type": "#SessionCollection.SessionCollection",
            "Name": "Sessions",
            "Members@odata.count": members.len(),
            "Members": members,
        })
    }

    pub(super) fn get(&self, id: &str, path: &str) -> Result<Value, ApiError> {
        let inner = self.lock();
        let found = id.parse().ok().and_then(|id| inner.1.get(&id).map(|s| resource(id, &s.user)));
        found.ok_or_else(|| ApiError::not_found(path))
    }

    pub(super) fn delete(&self, id: &str, path: &str) -> Result<Reply, ApiError> {
        let removed = id.parse().ok().and_then(|id: u64| self.lock().1.remove(&id));
        removed.map(|_| Reply::no_content()).ok_or_else(|| ApiError::not_found(path))
    }

    /// Ends all sessions, as a restart of a BMC does.
    pub(super) fn end_all(&self) {
        self.lock().1.clear();
    }
}

fn resource(id: u64, user: &str) -> Value {
    json!({
        "@odata.id": format!("{COLLECTION}/{id}"),
        "@odata.type": "#Session.v1_7_0.Session",
        "Id": id.to_string(),
        "Name": "Session",
        "UserName": user,
    })
}

/// User and password of an `Authorization: Basic` header (RFC 7617).
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, encoded) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
