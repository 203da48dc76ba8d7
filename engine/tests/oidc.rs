//! An issuer of our own, its honest tokens, and everything that somebody else could try.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use aws_lc_rs::{hmac, rsa::KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vmetal_api::Role;
use vmetal_api::identity::{Issuers as _, Refusal, Verified};
use vmetal_runtime::ManualClock;
use vmetald::config::Oidc;
use vmetald::oidc::{SKEW, Trusted};

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://issuer.example";

static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
static EC: LazyLock<EcdsaKeyPair> = LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Modulus and exponent of a PKCS #1 public key: SEQUENCE { INTEGER, INTEGER }.
fn components(der: &[u8]) -> (Vec<u8>, Vec<u8>) {
    fn element(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, begin) = match der[1] {
            short @ 0..0x80 => (usize::from(short), 2),
            long => {
                let count = usize::from(long & 0x7f);
                (der[2..2 + count].iter().fold(0, |n, b| n * 256 + usize::from(*b)), 2 + count)
            }
        };
        (&der[begin..begin + length], &der[begin + length..])
    }
    let (sequence, _) = element(der);
    let (n, rest) = element(sequence);
    let (e, _) = element(rest);
    (n.iter().copied().skip_while(|b| *b == 0).collect(), e.to_vec())
}

fn jwks() -> Value {
    let (n, e) = components(RSA.public_key().as_ref());
    let point = EC.public_key().as_ref();
    json!({ "keys": [
        { "kty": "RSA", "kid": "r", "use": "sig", "alg": "RS256", "n": b64(n), "e": b64(e) },
        { "kty": "EC", "kid": "e", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..]) },
        { "kty": "oct", "kid": "s", "k": "c2VjcmV0" },
        { "kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": "AA" },
    ]})
}

fn signed(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", b64(signature))
}

fn rs256(message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; RSA.public_modulus_len()];
    RSA.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

fn es256(message: &[u8]) -> Vec<u8> {
    EC.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "vmetal", "sub": "organization:acme:workspace:racks", "exp": NOW + 600, "nbf": NOW,
        "iat": NOW, "organization": "acme", "workspace": "racks", "groups": ["a", "b"],
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn honest(claims: &Value) -> String {
    signed(&json!({ "alg": "RS256", "kid": "r", "typ": "JWT" }), claims, rs256)
}

struct Bench {
    trusted: Trusted,
    clock: Arc<ManualClock>,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("jwks.json");
        std::fs::write(&file, jwks().to_string()).unwrap();
        Self::with_keys(&format!("jwks_file = {file:?}"), dir)
    }

    fn with_keys(keys: &str, dir: tempfile::TempDir) -> Self {
        let config: Oidc = toml::from_str(&format!(
            r#"
            issuer = "{ISSUER}"
            audience = "vmetal"
            {keys}
            token_lifetime = "15m"
            [[grants]]
            name = "plans"
            role = "reader"
            claims = {{ organization = "acme", phase = "plan" }}
            [[grants]]
            name = "racks"
            role = "operator"
            claims = {{ organization = "acme", workspace = ["racks", "lab"], groups = "b" }}
            "#
        ))
        .unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_second(NOW).unwrap()));
        let trusted = Trusted::new(&[config], clock.clone()).unwrap();
        Self { trusted, clock, _dir: dir }
    }

    async fn accepts(&self, token: &str) -> Verified {
        self.trusted.verify(token).await.unwrap()
    }

    async fn refuses(&self, token: &str, says: &str) {
        match self.trusted.verify(token).await {
            Err(Refusal::NotBelieved(reason)) => assert!(reason.contains(says), "{says}: {reason}"),
            other => panic!("{says}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_honest_token_is_worth_what_its_claims_are() {
    let bench = Bench::new();
    let verified = bench.accepts(&honest(&claims())).await;
    assert_eq!(&*verified.holder.name, "racks (organization:acme:workspace:racks)");
    assert_eq!((verified.holder.role, verified.lifetime), (Role::Operator, Duration::from_secs(900)));
    let by_ec = signed(&json!({ "alg": "ES256", "kid": "e" }), &claims(), es256);
    assert_eq!(bench.accepts(&by_ec).await, verified);
    assert_eq!(bench.accepts(&honest(&with("aud", json!(["other", "vmetal"])))).await, verified);
    assert_eq!(bench.accepts(&honest(&without("nbf"))).await, verified);
    // The first grant that fits counts.
    let plan = bench.accepts(&honest(&with("phase", json!("plan")))).await;
    assert_eq!((&*plan.holder.name, plan.holder.role), ("plans (organization:acme:workspace:racks)", Role::Reader));
}

#[tokio::test]
async fn what_is_on_the_record_has_a_bounded_length_and_one_line() {
    let bench = Bench::new();
    let name = bench.accepts(&honest(&with("sub", json!(format!("a\nb{}", "x".repeat(500)))))).await.holder.name;
    assert!(name.starts_with("racks (abxx") && name.len() < 200, "{name}");
}

#[tokio::test]
async fn who_fits_no_grant_gets_nothing() {
    let bench = Bench::new();
    for claims in [
        with("workspace", json!("other")),
        with("workspace", json!("rack")),
        with("workspace", json!({ "racks": true })),
        with("organization", json!("acme2")),
        with("groups", json!(["a"])),
        without("groups"),
    ] {
        bench.refuses(&honest(&claims), "no grant").await;
    }
    for claims in [without("sub"), with("sub", json!("")), with("sub", json!(7))] {
        bench.refuses(&honest(&claims), "(sub)").await;
    }
}

#[tokio::test]
async fn what_is_for_another_time_place_or_engine_is_refused() {
    let bench = Bench::new();
    let skew = i64::try_from(SKEW.as_secs()).unwrap();
    bench.accepts(&honest(&with("exp", json!(NOW - skew + 1)))).await;
    bench.refuses(&honest(&with("exp", json!(NOW - skew))), "expired").await;
    bench.refuses(&honest(&without("exp")), "(exp)").await;
    for no_time in [json!("1900000000"), json!(null), json!([NOW + 600]), json!(1e300)] {
        bench.refuses(&honest(&with("exp", no_time)), "exp is").await;
    }
    bench.accepts(&honest(&with("exp", json!(NOW as f64 + 0.5)))).await;
    bench.accepts(&honest(&with("nbf", json!(NOW + skew)))).await;
    bench.refuses(&honest(&with("nbf", json!(NOW + skew + 1))), "(nbf)").await;
    bench.refuses(&honest(&with("iat", json!(NOW + skew + 1))), "(iat)").await;
    for audience in [json!("vmetal2"), json!(["other"]), json!([]), json!(null), json!({ "vmetal": 1 })] {
        bench.refuses(&honest(&with("aud", audience)), "expected \"vmetal\"").await;
    }
    bench.refuses(&honest(&without("aud")), "expected \"vmetal\"").await;
    for issuer in [json!("https://evil.example"), json!(format!("{ISSUER}/")), json!(null)] {
        bench.refuses(&honest(&with("iss", issuer)), "not an issuer").await;
    }
    // What was good is not good for ever.
    let token = honest(&claims());
    bench.accepts(&token).await;
    bench.clock.advance(Duration::from_secs(661));
    bench.refuses(&token, "expired").await;
}

/// The key decides how its tokens are verified; what a token says of it must only agree.
#[tokio::test]
async fn a_token_does_not_choose_how_it_is_verified() {
    let bench = Bench::new();
    let unsigned = |_: &[u8]| Vec::new();
    for alg in ["none", "None", "NONE", ""] {
        bench.refuses(&signed(&json!({ "alg": alg, "kid": "r" }), &claims(), unsigned), "is for RS256").await;
    }
    // HMAC with what everybody knows, the public key, in each form that a careless verifier could take as the secret.
    let (n, _) = components(RSA.public_key().as_ref());
    let spki = RSA.public_key().as_der().unwrap();
    for secret in [RSA.public_key().as_ref(), &n, spki.as_ref(), jwks()["keys"][0].to_string().as_bytes()] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let mac = |message: &[u8]| hmac::sign(&key, message).as_ref().to_vec();
        bench.refuses(&signed(&json!({ "alg": "HS256", "kid": "r" }), &claims(), mac), "is for RS256").await;
        bench.refuses(&signed(&json!({ "alg": "RS256", "kid": "r" }), &claims(), mac), "signature").await;
    }
    // A symmetric key in the issuer's set is no key for us.
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
    let mac = |message: &[u8]| hmac::sign(&key, message).as_ref().to_vec();
    bench.refuses(&signed(&json!({ "alg": "HS256", "kid": "s" }), &claims(), mac), "not among those").await;
    // The other key's algorithm, and the other key's name.
    bench.refuses(&signed(&json!({ "alg": "ES256", "kid": "r" }), &claims(), es256), "is for RS256").await;
    bench.refuses(&signed(&json!({ "alg": "RS256", "kid": "e" }), &claims(), rs256), "is for ES256").await;
    bench.refuses(&signed(&json!({ "alg": "RS384", "kid": "r" }), &claims(), rs256), "is for RS256").await;
    // A key that comes with the token is not looked at.
    let own = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = own.public_key().as_ref().to_vec();
    let jwk = json!({ "kty": "EC", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..]) });
    let by_own = |message: &[u8]| own.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
    let header = json!({ "alg": "ES256", "kid": "e", "jwk": jwk, "jku": "https://evil.example/jwks" });
    bench.refuses(&signed(&header, &claims(), by_own), "signature").await;
}

#[tokio::test]
async fn what_was_changed_after_signing_is_refused() {
    let bench = Bench::new();
    let token = honest(&with("workspace", json!("other")));
    let parts: Vec<&str> = token.split('.').collect();
    let better = b64(claims().to_string());
    bench.refuses(&format!("{}.{better}.{}", parts[0], parts[2]), "signature").await;
    let header = b64(json!({ "alg": "RS256", "kid": "r", "typ": "jwt" }).to_string());
    bench.refuses(&format!("{header}.{}.{}", parts[1], parts[2]), "signature").await;
    let good = honest(&claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    for index in [0, 100, 255] {
        bytes[index] ^= 1;
        bench.refuses(&format!("{message}.{}", b64(&bytes)), "signature").await;
        bytes[index] ^= 1;
    }
    bench.refuses(&format!("{message}.{}", b64(&bytes[..255])), "signature").await;
    bench.refuses(&format!("{message}."), "signature").await;
    bench.accepts(&good).await;
}

#[tokio::test]
async fn what_is_no_token_is_refused_without_a_look_at_keys() {
    let bench = Bench::new();
    let good = honest(&claims());
    let header = |header: Value| signed(&header, &claims(), rs256);
    for (token, says) in [
        (String::new(), "no signature"),
        ("a.b".to_owned(), "less than three"),
        (format!("{good}.QQ"), "readable claims"),
        (format!("{good}="), "base64url"),
        (format!(" {good}"), "readable header"),
        ("x".repeat(20_000), "longer"),
        (header(json!({ "alg": "RS256" })), "(kid)"),
        (header(json!({ "kid": "r" })), "(alg)"),
        (header(json!({ "alg": "RS256", "kid": "r", "crit": ["exp"], "exp": 1 })), "critical"),
        (header(json!({ "alg": "RS256", "kid": "r", "typ": "at+jwt" })), "another type"),
        (header(json!({ "alg": "RS256", "kid": "gone" })), "not among those"),
        (header(json!(["RS256"])), "readable header"),
    ] {
        bench.refuses(&token, says).await;
    }
}

#[tokio::test]
async fn with_no_issuer_nobody_is_believed() {
    let trusted = Trusted::new(&[], Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH))).unwrap();
    assert_eq!(trusted.verify(&honest(&claims())).await, Err(Refusal::NobodyTrusted));
}

/// What the example of a workspace says to the engine.
#[test]
fn the_example_is_a_configuration() {
    let example = include_str!("../../examples/terraform/terraform-cloud/vmetald-oidc.toml");
    let network = "[network]\nrange_start = \"10.0.0.10\"\nrange_end = \"10.0.0.99\"\nurl = \"http://10.0.0.1:8080\"\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{network}\n{example}")).unwrap();
    let config = vmetald::Config::read(file.path()).unwrap();
    let roles: Vec<_> = config.oidc[0].grants.iter().map(|grant| (grant.name.as_str(), grant.role)).collect();
    assert_eq!(roles, [("hcp-plan", Role::Reader), ("hcp-apply", Role::Operator)]);
}

/// A place on the web that gives what it is told to, and counts how often it is asked.
#[derive(Default)]
struct Web {
    answer: Mutex<String>,
    asked: AtomicUsize,
}

impl Web {
    async fn start(answer: &Value) -> (Arc<Self>, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        let web = Arc::new(Self { answer: Mutex::new(ok(answer)), asked: AtomicUsize::new(0) });
        let serving = Arc::clone(&web);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                serving.asked.fetch_add(1, Ordering::Relaxed);
                let answer = serving.answer.lock().unwrap().clone();
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (web, url)
    }

    fn says(&self, answer: String) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn ok(answer: &Value) -> String {
    let body = answer.to_string();
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn only(kid: &str) -> Value {
    let mut all = jwks();
    all["keys"].as_array_mut().unwrap().retain(|key| key["kid"] == kid);
    all
}

/// Keys are remembered, a new one is found soon, an old one that is taken back is forgotten, and no token makes us ask often.
#[tokio::test]
async fn keys_on_the_web_come_and_go() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (web, url) = Web::start(&only("r")).await;
    let bench = Bench::with_keys(&format!("jwks_url = {url:?}"), tempfile::tempdir().unwrap());
    // The days that pass here are for the keys.
    let mut far = claims();
    far["exp"] = json!(NOW + 1_000_000);
    let by_rsa = honest(&far);
    let by_ec = signed(&json!({ "alg": "ES256", "kid": "e" }), &far, es256);
    for _ in 0..3 {
        bench.accepts(&by_rsa).await;
    }
    assert_eq!(web.asked(), 1);
    // A name that nobody has does not make us ask again at once.
    bench.refuses(&by_ec, "not among those").await;
    assert_eq!(web.asked(), 1);
    // The issuer has a new key: found after the pause.
    web.says(ok(&jwks()));
    bench.clock.advance(Duration::from_secs(31));
    bench.accepts(&by_ec).await;
    assert_eq!(web.asked(), 2);
    // It takes the old one back: known within the hour.
    web.says(ok(&only("e")));
    bench.accepts(&by_rsa).await;
    bench.clock.advance(Duration::from_secs(3600));
    bench.refuses(&by_rsa, "not among those").await;
    bench.accepts(&by_ec).await;
    // It cannot be reached: what is remembered counts for a day, and what was taken back stays so.
    web.says("HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned());
    bench.clock.advance(Duration::from_secs(4 * 3600));
    bench.accepts(&by_ec).await;
    bench.refuses(&by_rsa, "not among those").await;
    bench.clock.advance(Duration::from_secs(24 * 3600));
    let refusal = bench.trusted.verify(&by_ec).await.unwrap_err();
    assert!(matches!(&refusal, Refusal::Unavailable(why) if why.contains("503")), "{refusal:?}");
}

#[tokio::test]
async fn an_answer_that_is_no_key_set_is_not_taken() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let redirect =
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let mut twice = jwks();
    let mut other = twice["keys"][1].clone();
    other["kid"] = json!("r");
    twice["keys"].as_array_mut().unwrap().push(other);
    for (answer, says) in [
        (redirect.to_owned(), "302"),
        (ok(&json!({ "keys": "x" })), "no JSON Web Key Set"),
        (ok(&json!({ "keys": ["x".repeat(300_000)] })), "more than"),
        (ok(&twice), "two keys"),
    ] {
        let (web, url) = Web::start(&json!({})).await;
        web.says(answer);
        let bench = Bench::with_keys(&format!("jwks_url = {url:?}"), tempfile::tempdir().unwrap());
        let refusal = bench.trusted.verify(&honest(&claims())).await.unwrap_err();
        assert!(matches!(&refusal, Refusal::Unavailable(why) if why.contains(says)), "{says}: {refusal:?}");
    }
}
