//! The OCI distribution API, version 1.1: the part that fetching and publishing one small artifact needs.
//!
//! A registry is not believed: every answer is bounded while it is read, and what has a digest is held against it. Passwords
//! and tokens go over TLS, or to a registry that may be spoken to in the clear: one on loopback, or one that the operator names.

mod challenge;
mod error;

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use url::Url;

use crate::credentials::{Credentials, Login};
use crate::digest::Digest;
use crate::reference::Reference;
use challenge::Challenge;
pub use error::RegistryError;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a registry may be silent.
const SILENCE: Duration = Duration::from_secs(30);
/// How long one request may take in all: 32 MiB over a slow line.
const REQUEST: Duration = Duration::from_secs(300);
/// The most bytes of a manifest, which is what registries take at least.
pub(crate) const MOST_MANIFEST: u64 = 4 << 20;
/// The most bytes of a token or of an explanation.
const MOST_ANSWER: u64 = 64 << 10;

/// Which kinds of manifest are understood, if only to say what they are.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                         application/vnd.docker.distribution.manifest.v2+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json";

/// Registries, as this machine reaches them.
#[derive(Debug)]
pub struct Registries {
    /// Made when they are first needed: to read all the certificates that the system trusts takes a while.
    secure: OnceLock<reqwest::Client>,
    plain: OnceLock<reqwest::Client>,
    /// Host and port of registries that are spoken to in the clear, besides those on loopback.
    in_clear: Vec<String>,
    credentials: Credentials,
}

impl Registries {
    /// With these credentials; nothing is asked of anybody. `in_clear` are registries (`HOST:PORT`) without TLS.
    pub fn new(credentials: Credentials, in_clear: Vec<String>) -> Self {
        Registries { secure: OnceLock::new(), plain: OnceLock::new(), in_clear, credentials }
    }

    /// Begins to talk about one repository.
    pub(crate) fn session<'a>(&'a self, reference: &'a Reference, access: Access) -> Session<'a> {
        Session { registries: self, reference, access, authorization: None }
    }

    /// Whether this host may be spoken to without TLS.
    fn is_in_clear(&self, host: &str) -> bool {
        is_loopback(host) || self.in_clear.iter().any(|known| known == host)
    }

    fn client(&self, url: &Url) -> Result<&reqwest::Client, RegistryError> {
        let secure = url.scheme() != "http";
        let place = if secure { &self.secure } else { &self.plain };
        if let Some(client) = place.get() {
            return Ok(client);
        }
        // One TLS library for everything; an error means that the program has chosen it already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder().connect_timeout(CONNECT).read_timeout(SILENCE).timeout(REQUEST);
        // What began under TLS is not sent on to where there is none.
        let client = client.https_only(secure).build().map_err(RegistryError::Client)?;
        Ok(place.get_or_init(|| client))
    }
}

/// Whether a registry, host and perhaps port, is this machine.
fn is_loopback(registry: &str) -> bool {
    let Ok(url) = Url::parse(&format!("http://{registry}/")) else { return false };
    match url.host() {
        Some(url::Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(url::Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// What is done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Pull,
    Push,
}

impl Access {
    fn scope(self, repository: &str) -> String {
        let actions = match self {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        format!("repository:{repository}:{actions}")
    }
}

/// A few requests about one repository, with the permission that the first of them got.
pub(crate) struct Session<'a> {
    registries: &'a Registries,
    reference: &'a Reference,
    access: Access,
    authorization: Option<HeaderValue>,
}

/// A manifest as the registry has it.
pub(crate) struct Fetched {
    pub(crate) digest: Digest,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Session<'_> {
    /// The manifest that the reference names; none when there is none.
    pub(crate) async fn manifest(&mut self, reference: &Reference) -> Result<Option<Fetched>, RegistryError> {
        let url = self.url(&format!("manifests/{}", reference.version()))?;
        let answer = self.send(Method::GET, &url, |request| request.header(ACCEPT, MANIFESTS)).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let bytes = read(successful(answer).await?, "the manifest", MOST_MANIFEST).await?;
        let digest = Digest::of(&bytes);
        match reference.digest() {
            Some(expected) if expected != digest => {
                Err(RegistryError::OtherBytes { what: "the manifest", expected, seen: digest })
            }
            _ => Ok(Some(Fetched { digest, bytes })),
        }
    }

    /// A blob with this digest, of no more than so many bytes.
    pub(crate) async fn blob(&mut self, digest: Digest, most: u64) -> Result<Vec<u8>, RegistryError> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let answer = successful(self.send(Method::GET, &url, |request| request).await?).await?;
        let bytes = read(answer, "a blob", most).await?;
        match Digest::of(&bytes) {
            seen if seen == digest => Ok(bytes),
            seen => Err(RegistryError::OtherBytes { what: "a blob", expected: digest, seen }),
        }
    }

    /// Sees that the registry has a blob.
    pub(crate) async fn push_blob(&mut self, bytes: &Bytes) -> Result<Digest, RegistryError> {
        let digest = Digest::of(bytes);
        let there = self.url(&format!("blobs/{digest}"))?;
        if self.send(Method::HEAD, &there, |request| request).await?.status() == StatusCode::OK {
            return Ok(digest);
        }
        let begin = self.url("blobs/uploads/")?;
        let answer = successful(self.send(Method::POST, &begin, |request| request.body(Bytes::new())).await?).await?;
        let mut place = self.location(answer.headers(), &begin)?;
        place.query_pairs_mut().append_pair("digest", &digest.to_string());
        let octets =
            |request: RequestBuilder| request.header(CONTENT_TYPE, "application/octet-stream").body(bytes.clone());
        successful(self.send(Method::PUT, &place, octets).await?).await?;
        Ok(digest)
    }

    /// Publishes a manifest under the tag or digest that the reference names.
    pub(crate) async fn push_manifest(
        &mut self,
        reference: &Reference,
        media_type: &str,
        bytes: &Bytes,
    ) -> Result<(), RegistryError> {
        let url = self.url(&format!("manifests/{}", reference.version()))?;
        let manifest = |request: RequestBuilder| request.header(CONTENT_TYPE, media_type).body(bytes.clone());
        successful(self.send(Method::PUT, &url, manifest).await?).await.map(drop)
    }

    fn url(&self, what: &str) -> Result<Url, RegistryError> {
        let registry = self.reference.registry();
        let scheme = if self.registries.is_in_clear(registry) { "http" } else { "https" };
        // What people call docker.io answers elsewhere.
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let url = format!("{scheme}://{host}/v2/{}/{what}", self.reference.repository());
        Url::parse(&url).map_err(|error| RegistryError::Malformed { what: "its address", reason: error.to_string() })
    }

    /// Where an upload goes on: at the same registry and no less protected.
    fn location(&self, headers: &HeaderMap, asked: &Url) -> Result<Url, RegistryError> {
        let wrong = |reason: String| RegistryError::Malformed { what: "where to upload", reason };
        let text = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let url = asked.join(text.ok_or_else(|| wrong("it does not say".to_owned()))?);
        let url = url.map_err(|error| wrong(error.to_string()))?;
        if url.scheme() == "http" && asked.scheme() == "https" {
            return Err(wrong(format!("{url} is without TLS")));
        }
        Ok(url)
    }

    /// Sends a request, and again with the permission that is asked for.
    async fn send(
        &mut self,
        method: Method,
        url: &Url,
        with: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let at_home = url.origin() == self.url("")?.origin();
        let client = self.registries.client(url)?;
        let request = |authorization: Option<&HeaderValue>| {
            let request = with(client.request(method.clone(), url.clone()));
            // An upload may go to another host, which is not shown who we are.
            match authorization.filter(|_| at_home) {
                Some(authorization) => request.header(AUTHORIZATION, authorization.clone()),
                None => request,
            }
        };
        let answer = request(self.authorization.as_ref()).send().await.map_err(RegistryError::unreachable)?;
        if answer.status() != StatusCode::UNAUTHORIZED || self.authorization.is_some() || !at_home {
            return self.permitted(answer).await;
        }
        self.authorization = Some(self.authorize(answer.headers()).await?);
        let answer = request(self.authorization.as_ref()).send().await.map_err(RegistryError::unreachable)?;
        self.permitted(answer).await
    }

    async fn permitted(&self, answer: Response) -> Result<Response, RegistryError> {
        match answer.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let status = answer.status();
                Err(self.denied(status, explanation(answer).await))
            }
            _ => Ok(answer),
        }
    }

    fn denied(&self, status: StatusCode, explanation: String) -> RegistryError {
        let credentials = &self.registries.credentials;
        let registry = self.reference.registry().to_owned();
        let place = credentials.place().to_owned();
        match credentials.of(&registry) {
            Some(Login { user, .. }) => RegistryError::Denied { user: user.clone(), place, status, explanation },
            None => RegistryError::Unknown { registry, place, status, explanation },
        }
    }

    /// What to show, as the registry asks for it (RFC 9110, section 11.6.1; Docker's token authentication).
    async fn authorize(&self, headers: &HeaderMap) -> Result<HeaderValue, RegistryError> {
        let asked = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let mut challenges: Vec<Challenge> = asked.flat_map(Challenge::read).collect();
        // A token is worth less to a thief than a password.
        challenges.sort_by_key(|challenge| matches!(challenge, Challenge::Basic));
        let login = self.registries.credentials.of(self.reference.registry());
        match challenges.into_iter().next() {
            Some(Challenge::Bearer { realm, service }) => {
                let token = self.token(&realm, service.as_deref(), login).await?;
                secret(format!("Bearer {token}"))
            }
            Some(Challenge::Basic) => match login {
                Some(login) => secret(challenge::basic(login)),
                None => Err(self.denied(StatusCode::UNAUTHORIZED, String::new())),
            },
            None => Err(RegistryError::Malformed {
                what: "how it wants to know us",
                reason: "it asks for neither Basic nor Bearer".to_owned(),
            }),
        }
    }

    /// A token for this repository from the server that the registry trusts.
    async fn token(&self, realm: &str, service: Option<&str>, login: Option<&Login>) -> Result<String, RegistryError> {
        let wrong = |reason: String| RegistryError::Malformed { what: "where to get a token", reason };
        let mut url = Url::parse(realm).map_err(|error| wrong(format!("{realm:?}: {error}")))?;
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let protected = url.scheme() == "https" || (url.scheme() == "http" && self.registries.is_in_clear(host));
        if !protected {
            return Err(wrong(format!("{realm:?} is without TLS")));
        }
        let scope = self.access.scope(self.reference.repository());
        let pairs = service.map(|service| ("service", service)).into_iter().chain([("scope", scope.as_str())]);
        url.query_pairs_mut().extend_pairs(pairs);
        let mut request = self.registries.client(&url)?.get(url.clone());
        if let Some(login) = login {
            request = request.header(AUTHORIZATION, secret(challenge::basic(login))?);
        }
        let answer = request.send().await.map_err(RegistryError::unreachable)?;
        let answer = successful(self.permitted(answer).await?).await?;
        let text = read(answer, "a token", MOST_ANSWER).await?;
        let token: Option<Token> = serde_json::from_slice(&text).ok();
        let token = token.and_then(|token| token.token.or(token.access_token));
        token.ok_or_else(|| RegistryError::Malformed { what: "a token", reason: "there is none in it".to_owned() })
    }
}

/// A header that is not shown in logs.
fn secret(text: String) -> Result<HeaderValue, RegistryError> {
    let wrong = |_| RegistryError::Malformed { what: "a token", reason: "it does not fit into a header".to_owned() };
    let mut value = HeaderValue::try_from(text).map_err(wrong)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The answer, if it is what was asked for.
async fn successful(answer: Response) -> Result<Response, RegistryError> {
    match answer.status() {
        status if status.is_success() => Ok(answer),
        StatusCode::NOT_FOUND => Err(RegistryError::NotFound { explanation: explanation(answer).await }),
        status => Err(RegistryError::Refused { status, explanation: explanation(answer).await }),
    }
}

/// What the registry says of a failure (distribution specification, "Error Codes"), in one line.
async fn explanation(answer: Response) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(text) = read(answer, "an explanation", MOST_ANSWER).await else { return String::new() };
    let errors = serde_json::from_slice(&text).map_or(Vec::new(), |Errors { errors }| errors);
    let errors: Vec<String> = errors.into_iter().map(|one| format!(": {} {}", one.code, one.message)).collect();
    errors.concat().chars().filter(|c| !c.is_control()).take(400).collect()
}

/// Reads an answer of no more than so many bytes.
async fn read(mut answer: Response, what: &'static str, most: u64) -> Result<Vec<u8>, RegistryError> {
    let too_large = || RegistryError::TooLarge { what, most };
    if answer.content_length().is_some_and(|length| length > most) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(RegistryError::unreachable)? {
        bytes.extend_from_slice(&piece);
        if bytes.len() as u64 > most {
            return Err(too_large());
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_in_the_clear_unless_it_is_said() {
        for yes in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.8.8", "[::1]:5000"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in
            ["registry.example", "10.0.0.1:5000", "localhost.example", "127.0.0.1.example", "[::2]", "0.0.0.0:5000"]
        {
            assert!(!is_loopback(no), "{no}");
        }
    }
}
