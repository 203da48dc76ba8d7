//! Faults as data: a selector, an action, and how often.
//!
//! Real BMCs answer 401 for a while after a restart, 503 under load, accept a boot override and forget it, or report a power state
//! that is not so. Each of those is one line here, armed from `lab.toml` or while the lab runs. Faults are tried in the order in which
//! they were added. All that match a request take effect together, except that the first one which ends the request (`status`, `drop`,
//! `hang`, `ignore`) is the last one to count.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A fault: which requests, what happens, how often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct FaultSpec {
    /// Hosts concerned; `*` stands for any characters
    #[arg(long, default_value = "*")]
    #[serde(default = "any")]
    pub host: String,
    /// HTTP methods concerned, for example `GET`; `*` for all
    #[arg(long, default_value = "*")]
    #[serde(default = "any")]
    pub method: String,
    /// Paths concerned, for example `/redfish/v1/Systems/*`; `*` also matches slashes
    #[arg(long, default_value = "*")]
    #[serde(default = "any")]
    pub path: String,
    /// Matching requests that pass unharmed before the fault begins
    #[arg(long, default_value_t = 0)]
    #[serde(default)]
    pub skip: u32,
    /// How many requests it strikes; without it, every one until cleared
    #[arg(long)]
    #[serde(default)]
    pub remaining: Option<u32>,
    /// What happens
    #[command(subcommand)]
    pub action: FaultAction,
}

/// What a fault does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Subcommand)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum FaultAction {
    /// Answers this status at once, with a Redfish error body
    Status {
        /// HTTP status, 400 to 599
        code: u16,
        /// Adds `Retry-After` with these seconds
        #[arg(long)]
        #[serde(default)]
        retry_after_s: Option<u32>,
    },
    /// Waits before the request is handled
    Latency {
        /// Milliseconds
        ms: u64,
    },
    /// Closes the connection without an answer
    Drop,
    /// Accepts the request and never answers
    Hang,
    /// Merges this JSON into the answer (RFC 7386): a BMC that lies
    Merge {
        /// The merge patch, for example '{"PowerState":"On"}'
        #[arg(value_parser = parse_json)]
        json: Value,
    },
    /// Answers 204 to a change and does nothing
    Ignore,
    /// Forgets the boot override at the next boot (selector: host only; each boot of the host counts)
    LoseOverride,
}

fn any() -> String {
    "*".to_owned()
}

fn parse_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))
}

impl FaultSpec {
    /// A fault on every request of every host, until cleared. Narrow it with the fields.
    #[must_use]
    pub fn always(action: FaultAction) -> Self {
        Self { host: any(), method: any(), path: any(), skip: 0, remaining: None, action }
    }

    /// The same fault for this method and path only.
    #[must_use]
    pub fn on(mut self, method: &str, path: &str) -> Self {
        self.method = method.to_owned();
        self.path = path.to_owned();
        self
    }

    /// The same fault for this many requests only.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.remaining = Some(times);
        self
    }

    pub(crate) fn validate(&self) -> Result<(), String> {
        match &self.action {
            FaultAction::Status { code, .. } if !(400..=599).contains(code) => {
                Err(format!("fault status {code} is not an error status (400 to 599)"))
            }
            FaultAction::Merge { json } if !json.is_object() => Err("fault merge needs a JSON object".to_owned()),
            _ => Ok(()),
        }
    }

    fn matches(&self, host: &str, method: &str, path: &str) -> bool {
        glob(&self.host, host) && glob(&self.method, method) && glob(&self.path, path)
    }

    /// Counts one matching event; true when the fault strikes.
    fn strike(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        match &mut self.remaining {
            None => true,
            Some(0) => false,
            Some(n) => {
                *n -= 1;
                true
            }
        }
    }
}

/// An armed fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Number that `fault clear` takes.
    pub id: u64,
    /// The fault; counters are what is left.
    #[serde(flatten)]
    pub spec: FaultSpec,
}

/// The armed faults of a lab, shared by all its BMCs.
#[derive(Debug, Default)]
pub struct FaultSet {
    inner: Mutex<(u64, Vec<Fault>)>,
}

/// How a request ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Status { code: u16, retry_after_s: Option<u32> },
    Drop,
    Hang,
    Ignore,
}

/// What the faults that struck one request ask for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Effect {
    /// Id of the last fault that struck.
    pub(crate) id: Option<u64>,
    pub(crate) latency_ms: u64,
    pub(crate) end: Option<End>,
    pub(crate) merges: Vec<Value>,
}

impl FaultSet {
    fn lock(&self) -> MutexGuard<'_, (u64, Vec<Fault>)> {
        // Counters are single stores: a panic elsewhere leaves the set consistent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Arms a fault and returns its id.
    ///
    /// # Errors
    /// When the fault makes no sense, with the reason.
    pub fn add(&self, spec: FaultSpec) -> Result<u64, String> {
        spec.validate()?;
        let mut inner = self.lock();
        inner.0 += 1;
        let id = inner.0;
        inner.1.push(Fault { id, spec });
        Ok(id)
    }

    /// All faults, also those that are used up.
    #[must_use]
    pub fn list(&self) -> Vec<Fault> {
        self.lock().1.clone()
    }

    /// Removes one fault, or all; returns how many went.
    pub fn clear(&self, id: Option<u64>) -> usize {
        let mut inner = self.lock();
        let before = inner.1.len();
        inner.1.retain(|f| id.is_some_and(|id| f.id != id));
        before - inner.1.len()
    }

    pub(crate) fn on_request(&self, host: &str, method: &str, path: &str) -> Effect {
        let changes = !matches!(method, "GET" | "HEAD");
        let mut effect = Effect::default();
        for fault in &mut self.lock().1 {
            let applies = match fault.spec.action {
                FaultAction::LoseOverride => false,
                FaultAction::Ignore => changes,
                _ => true,
            };
            if effect.end.is_some() || !applies || !fault.spec.matches(host, method, path) || !fault.spec.strike() {
                continue;
            }
            effect.id = Some(fault.id);
            match &fault.spec.action {
                FaultAction::Status { code, retry_after_s } => {
                    effect.end = Some(End::Status { code: *code, retry_after_s: *retry_after_s });
                }
                FaultAction::Latency { ms } => effect.latency_ms += ms,
                FaultAction::Drop => effect.end = Some(End::Drop),
                FaultAction::Hang => effect.end = Some(End::Hang),
                FaultAction::Merge { json } => effect.merges.push(json.clone()),
                FaultAction::Ignore => effect.end = Some(End::Ignore),
                FaultAction::LoseOverride => {}
            }
        }
        effect
    }

    /// True when a boot of this host forgets its override.
    pub(crate) fn override_is_lost(&self, host: &str) -> bool {
        self.lock()
            .1
            .iter_mut()
            .any(|f| f.spec.action == FaultAction::LoseOverride && glob(&f.spec.host, host) && f.spec.strike())
    }
}

/// Applies a JSON merge patch (RFC 7386) to `target`.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(map) = target {
        for (key, value) in patch {
            if value.is_null() {
                map.remove(key);
            } else {
                merge(map.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

/// `*` matches any run of characters, everything else itself.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut rest = rest;
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "/a/b", true),
            ("GET", "GET", true),
            ("GET", "GETS", false),
            ("/a/*/c", "/a/b/x/c", true),
            ("/a/*/c", "/a/b/x/d", false),
            ("*Systems*", "/redfish/v1/Systems/1", true),
            ("a*a", "a", false),
            ("*ab", "aab", true),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn skip_then_strike_then_spent() {
        let set = FaultSet::default();
        let mut spec = FaultSpec::always(FaultAction::Drop).on("GET", "/x").times(2);
        spec.skip = 1;
        set.add(spec).unwrap();
        let seen: Vec<bool> = (0..5).map(|_| set.on_request("h", "GET", "/x").end.is_some()).collect();
        assert_eq!(seen, [false, true, true, false, false]);
        assert_eq!(set.on_request("h", "GET", "/y"), Effect::default());
    }

    #[test]
    fn a_fault_after_the_end_is_not_spent() {
        let set = FaultSet::default();
        set.add(FaultSpec::always(FaultAction::Status { code: 503, retry_after_s: Some(1) }).times(1)).unwrap();
        set.add(FaultSpec::always(FaultAction::Drop).times(1)).unwrap();
        assert_eq!(set.on_request("h", "GET", "/").end, Some(End::Status { code: 503, retry_after_s: Some(1) }));
        assert_eq!(set.on_request("h", "GET", "/").end, Some(End::Drop));
        assert_eq!(set.on_request("h", "GET", "/").end, None);
    }

    #[test]
    fn ignoring_a_read_makes_no_sense_and_costs_nothing() {
        let set = FaultSet::default();
        set.add(FaultSpec::always(FaultAction::Ignore).times(1)).unwrap();
        assert_eq!(set.on_request("h", "GET", "/").end, None);
        assert_eq!(set.on_request("h", "PATCH", "/").end, Some(End::Ignore));
    }

    #[test]
    fn merge_patch_follows_the_rfc() {
        let mut value = json!({"a": "b", "c": {"d": "e", "f": "g"}});
        merge(&mut value, &json!({"a": "z", "c": {"f": null}}));
        assert_eq!(value, json!({"a": "z", "c": {"d": "e"}}));
    }

    #[test]
    fn faults_read_from_toml() {
        let text = "method = \"GET\"\npath = \"/redfish/*\"\nremaining = 2\naction = { kind = \"status\", code = 503, retry_after_s = 1 }";
        let spec: FaultSpec = toml::from_str(text).unwrap();
        assert_eq!(spec.remaining, Some(2));
        assert_eq!(spec.action, FaultAction::Status { code: 503, retry_after_s: Some(1) });
        assert!(toml::from_str::<FaultSpec>("action = { kind = \"latency\", ms = 5, s = 1 }").is_err());
        assert!(
            FaultSet::default().add(FaultSpec::always(FaultAction::Status { code: 200, retry_after_s: None })).is_err()
        );
    }
}
