//! An issuer's keys (JSON Web Key Set, RFC 7517): from a file, or over HTTPS and remembered.
//!
//! Issuers change their keys. So keys are fetched again after [`FRESH`], and at once when a token names one that is not known,
//! but never more often than every [`PAUSE`], because anybody can write any name into a token. While the issuer cannot be
//! reached, what is remembered counts for [`STALE`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use tokio::sync::Mutex;
use vmetal_api::identity::Refusal;
use vmetal_runtime::{Clock, Monotonic};

use super::jws::Key;
use crate::causes::whole;
use crate::config::Oidc;

/// How long keys are used without asking again.
const FRESH: Duration = Duration::from_secs(60 * 60);
/// How long they are used when asking fails.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// The least time between two questions to the issuer.
const PAUSE: Duration = Duration::from_secs(30);
/// How long the issuer may take for an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The most bytes of an answer; usual are 1 to 10 KiB.
const MOST_BYTES: usize = 256 * 1024;

/// The keys of one issuer.
#[derive(Debug)]
pub(super) struct Keys {
    issuer: String,
    place: Place,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
enum Place {
    File(PathBuf),
    Url { url: String, http: reqwest::Client, remembered: Mutex<Remembered> },
}

#[derive(Debug, Default)]
struct Remembered {
    set: KeySet,
    fetched: Option<Monotonic>,
    asked: Option<Monotonic>,
}

impl Keys {
    pub(super) fn new(config: &Oidc, clock: Arc<dyn Clock>) -> Result<Self, reqwest::Error> {
        let place = match (&config.jwks_url, &config.jwks_file) {
            (Some(url), _) => {
                let http = reqwest::Client::builder()
                    .timeout(ANSWER)
                    .redirect(reqwest::redirect::Policy::none())
                    .https_only(url.starts_with("https://"))
                    .build()?;
                Place::Url { url: url.clone(), http, remembered: Mutex::default() }
            }
            (None, file) => Place::File(file.clone().unwrap_or_default()),
        };
        Ok(Self { issuer: config.issuer.clone(), place, clock })
    }

    /// The key of this name.
    pub(super) async fn key(&self, id: &str) -> Result<Key, Refusal> {
        let found = match &self.place {
            Place::File(path) => {
                let failed = |why: String| self.unavailable(&path.display().to_string(), &why);
                let text = tokio::fs::read(path).await.map_err(|e| failed(e.to_string()))?;
                KeySet::parse(&text).map_err(failed)?.0.remove(id)
            }
            Place::Url { url, http, remembered } => self.remembered(id, url, http, remembered).await?,
        };
        let unknown = || format!("it names the key {id:?}, which is not among those of {}", self.issuer);
        found.ok_or_else(|| Refusal::NotBelieved(unknown()))
    }

    async fn remembered(
        &self,
        id: &str,
        url: &str,
        http: &reqwest::Client,
        remembered: &Mutex<Remembered>,
    ) -> Result<Option<Key>, Refusal> {
        // Held while the issuer is asked: whoever comes meanwhile needs the same answer.
        let mut remembered = remembered.lock().await;
        let now = self.clock.monotonic();
        let within = |since: Option<Monotonic>, time| since.is_some_and(|since| now.duration_since(since) < time);
        let known = remembered.set.0.get(id).cloned();
        if known.is_some() && within(remembered.fetched, FRESH) {
            return Ok(known);
        }
        let mut failure = None;
        if !within(remembered.asked, PAUSE) {
            remembered.asked = Some(now);
            match fetch(http, url).await {
                Ok(set) => {
                    *remembered = Remembered { set, fetched: Some(now), asked: Some(now) };
                    return Ok(remembered.set.0.get(id).cloned());
                }
                Err(why) => failure = Some(why),
            }
        }
        let usable = within(remembered.fetched, STALE);
        match (known, failure) {
            (Some(key), failure) if usable => {
                if let Some(why) = failure {
                    tracing::warn!(
                        issuer = self.issuer,
                        url,
                        why,
                        "the issuer's keys cannot be had; using those of before"
                    );
                }
                Ok(Some(key))
            }
            (_, Some(why)) => Err(self.unavailable(url, &why)),
            // Asked a moment ago: the issuer was heard and has no such key, or was not heard at all.
            (_, None) if usable => Ok(None),
            (_, None) => Err(self.unavailable(url, "it did not answer a moment ago; trying again soon")),
        }
    }

    fn unavailable(&self, place: &str, why: &str) -> Refusal {
        Refusal::Unavailable(format!("the keys of {} cannot be had from {place}: {why}", self.issuer))
    }
}

async fn fetch(http: &reqwest::Client, url: &str) -> Result<KeySet, String> {
    let causes = |error: reqwest::Error| whole(&error.without_url());
    let mut answer = http.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(causes)?;
    if answer.status() != reqwest::StatusCode::OK {
        return Err(format!("the answer was {}", answer.status()));
    }
    let mut text = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(causes)? {
        text.extend_from_slice(&piece);
        if text.len() > MOST_BYTES {
            return Err(format!("the answer has more than {MOST_BYTES} bytes"));
        }
    }
    KeySet::parse(&text)
}

/// Keys by name. What cannot verify our two algorithms is left out: it is no fault of an issuer to have more.
#[derive(Debug, Default)]
struct KeySet(BTreeMap<String, Key>);

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    fn parse(text: &[u8]) -> Result<Self, String> {
        let jwks: Jwks = serde_json::from_slice(text).map_err(|e| format!("that is no JSON Web Key Set: {e}"))?;
        let mut set = BTreeMap::new();
        for jwk in jwks.keys {
            let Ok(jwk) = serde_json::from_value::<Jwk>(jwk) else { continue };
            let Some(key) = jwk.key() else { continue };
            if set.insert(jwk.kid.clone(), key.clone()).is_some_and(|other| other != key) {
                return Err(format!("two keys have the name {:?}", jwk.kid));
            }
        }
        Ok(Self(set))
    }
}

impl Jwk {
    fn key(&self) -> Option<Key> {
        let for_us = |algorithm| {
            self.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
                && self.alg.as_deref().is_none_or(|named| named == algorithm)
        };
        let bytes = |part: &Option<String>| URL_SAFE_NO_PAD.decode(part.as_deref()?).ok();
        match self.kty.as_str() {
            "RSA" if for_us("RS256") => Some(Key::Rsa { n: bytes(&self.n)?, e: bytes(&self.e)? }),
            "EC" if for_us("ES256") && self.crv.as_deref() == Some("P-256") => {
                let (x, y) = (bytes(&self.x)?, bytes(&self.y)?);
                // RFC 7518, section 6.2.1.2: always the full length of a coordinate.
                (x.len() == 32 && y.len() == 32).then(|| Key::P256([&[4], x.as_slice(), &y].concat()))
            }
            _ => None,
        }
    }
}
