//! Identity tokens: whom the engine believes, and what that is good for.
//!
//! A workload shows an ID token (OpenID Connect Core 1.0, section 2) that its platform signed. Whether to believe it is decided
//! in one order, and the first doubt ends it:
//!
//! 1. the form (`jws`): three parts, a bounded size, no critical extension (RFC 7515, section 4.1.11);
//! 2. the issuer it names is one of the configuration;
//! 3. the key it names is one of that issuer's (`keys`), and the algorithm it names is the one of that key, RS256 or ES256. The
//!    token never chooses how it is verified (RFC 8725, sections 3.1 and 3.2): `none` and HS256 belong to no key;
//! 4. the signature;
//! 5. audience, expiry and beginning, with [`SKEW`] for clocks that differ;
//! 6. a grant of the configuration whose claims are all there.
//!
//! What comes of it is a token of the API for a while ([`vmetal_api::identity`]). A platform's token may be shown as often as it
//! is good: one run of Terraform is several processes.

mod jws;
mod keys;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};
use vmetal_api::Holder;
use vmetal_api::identity::{Issuers, Refusal, Verified, Verifying};
use vmetal_runtime::Clock;

use crate::config::{Accepted, Grant, Oidc};
use jws::Jws;
use keys::Keys;

/// How far the issuer's clock and ours may be apart.
pub const SKEW: Duration = Duration::from_secs(60);
/// The most characters of a subject that go on the record.
const MOST_SUBJECT: usize = 160;

/// The issuers of the configuration.
#[derive(Debug)]
pub struct Trusted {
    issuers: Vec<Issuer>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct Issuer {
    config: Oidc,
    keys: Keys,
}

impl Trusted {
    /// Those that the configuration names. Nothing is asked of anybody before the first token comes.
    ///
    /// # Errors
    /// When no client for HTTPS can be made.
    pub fn new(issuers: &[Oidc], clock: Arc<dyn Clock>) -> Result<Self, reqwest::Error> {
        let issuer =
            |config: &Oidc| Ok(Issuer { config: config.clone(), keys: Keys::new(config, Arc::clone(&clock))? });
        let issuers = issuers.iter().map(issuer).collect::<Result<_, _>>()?;
        Ok(Self { issuers, clock })
    }

    async fn believed(&self, token: &str) -> Result<Verified, Refusal> {
        if self.issuers.is_empty() {
            return Err(Refusal::NobodyTrusted);
        }
        let token = Jws::parse(token)?;
        let named = text(token.unverified_claims(), "iss").unwrap_or_default();
        let issuer = self.issuers.iter().find(|issuer| issuer.config.issuer == named).ok_or_else(|| {
            Refusal::NotBelieved(format!("it is from {named:?}, which is not an issuer of the engine's configuration"))
        })?;
        let key = issuer.keys.key(token.key_id()).await?;
        let claims = token.verified(&key)?;
        issuer.config.check(&claims, self.clock.now())?;
        issuer.config.granted(&claims)
    }
}

impl Issuers for Trusted {
    fn verify<'a>(&'a self, identity_token: &'a str) -> Verifying<'a> {
        Box::pin(self.believed(identity_token))
    }
}

impl Oidc {
    /// Whether verified claims are for us and for now.
    fn check(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<(), Refusal> {
        let refuse = |reason: String| Err(Refusal::NotBelieved(reason));
        if text(claims, "iss") != Some(self.issuer.as_str()) {
            return refuse(format!("it is not from {:?}", self.issuer));
        }
        if !texts(claims.get("aud")).any(|audience| audience == self.audience) {
            let seen = claims.get("aud").unwrap_or(&Value::Null);
            return refuse(format!("it is made out for {seen}, expected {:?}", self.audience));
        }
        let (earliest, latest) = (now.saturating_sub(SKEW), now.saturating_add(SKEW));
        let (Ok(earliest), Ok(latest)) = (earliest, latest) else {
            return refuse("the engine's clock is out of range".to_owned());
        };
        match moment(claims, "exp")? {
            Some(expiry) if expiry > earliest => {}
            Some(expiry) => return refuse(format!("it expired at {expiry}, and it is {now}")),
            None => return refuse("it does not say when it expires (exp)".to_owned()),
        }
        for claim in ["nbf", "iat"] {
            if let Some(begin) = moment(claims, claim)?.filter(|begin| *begin > latest) {
                return refuse(format!("it is good from {begin} on ({claim}), and it is {now}"));
            }
        }
        Ok(())
    }

    fn granted(&self, claims: &Map<String, Value>) -> Result<Verified, Refusal> {
        let Some(subject) = text(claims, "sub").filter(|subject| !subject.is_empty()) else {
            return Err(Refusal::NotBelieved("it does not say whom it is about (sub)".to_owned()));
        };
        let grant = self.grants.iter().find(|grant| grant.fits(claims)).ok_or_else(|| {
            let reason = format!("no grant of the engine's configuration for {} fits {subject:?}", self.issuer);
            Refusal::NotBelieved(reason)
        })?;
        let subject: String = subject.chars().filter(|c| !c.is_control()).take(MOST_SUBJECT).collect();
        let holder = Holder { name: format!("{} ({subject})", grant.name).into(), role: grant.role };
        Ok(Verified { holder, lifetime: Duration::try_from(self.token_lifetime).unwrap_or_default() })
    }
}

impl Grant {
    fn fits(&self, claims: &Map<String, Value>) -> bool {
        let fits = |(claim, accepted): (&String, &Accepted)| texts(claims.get(claim)).any(|value| accepted.has(value));
        !self.claims.is_empty() && self.claims.iter().all(fits)
    }
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name).and_then(Value::as_str)
}

/// A claim that is one text or a list of them; nothing of anything else.
fn texts(claim: Option<&Value>) -> impl Iterator<Item = &str> {
    let list = match claim {
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    list.iter().filter_map(Value::as_str)
}

/// A claim that is a moment: seconds since 1970, perhaps with a fraction (RFC 7519, section 2).
fn moment(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, Refusal> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_i64().or_else(|| value.as_f64().filter(|s| s.is_finite()).map(|s| s.floor() as i64));
    let moment = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    moment.map(Some).ok_or_else(|| Refusal::NotBelieved(format!("{name} is {value}, which is no time")))
}
