//! What protects the engine from BMCs and BMCs from the engine: each error by its name.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use support::*;
use vmetal_bmc::error::{Asked, CertificateProblem};
use vmetal_bmc::{AddressGuard, BmcError, Config, Fence, Fenced, Gateways, tls};
use vmetal_model::{Cause, TlsTrust};

#[tokio::test]
async fn a_refused_password_is_sent_twice_and_then_only_after_a_change() {
    let bmc = Fake::start(|seen| match seen.authorization.as_deref() {
        Some("Basic YWRtaW46c2VjcmV0") | None if seen.path != "/redfish/v1/" => status(401, json!({})),
        _ => tree(seen, system("On", json!({}))),
    })
    .await;
    let gateways = gateways();
    let mut target = bmc.target();
    target.system_path = Some(SYSTEM.into());
    let gateway = gateways.for_host(&target, alone()).unwrap();
    for _ in 0..2 {
        let error = gateway.power().await.unwrap_err();
        assert!(matches!(error, BmcError::Credentials { asked: Asked::Yes, .. }), "{error:?}");
        assert_eq!(error.cause(), Cause::BmcCredentials);
    }
    assert_eq!(bmc.count(), 2);
    for _ in 0..5 {
        let error = gateway.power().await.unwrap_err();
        assert!(matches!(error, BmcError::Credentials { asked: Asked::No, .. }), "{error:?}");
        assert!(error.to_string().contains("\"admin\"") && !error.to_string().contains("secret"), "{error}");
    }
    assert_eq!(bmc.count(), 2, "the BMC was asked a third time");
    // Not even a new gateway asks again; a new version of the password does, and so does another password.
    assert!(gateways.for_host(&target, alone()).unwrap().power().await.is_err());
    assert_eq!(bmc.count(), 2);
    target.password_version = "2".into();
    assert!(gateways.for_host(&target, alone()).unwrap().power().await.is_err());
    assert_eq!(bmc.count(), 3);
    target.password = "right".into();
    gateways.for_host(&target, alone()).unwrap().power().await.unwrap();
}

#[tokio::test]
async fn an_account_without_the_right_is_named_with_the_bmcs_words() {
    let bmc = Fake::start(|seen| {
        if seen.method == "POST" {
            status(403, json!({"error": {"message": "no login to power"}}))
        } else {
            tree(seen, system("On", json!({})))
        }
    })
    .await;
    let error = gateways().for_host(&bmc.target(), alone()).unwrap().power_off().await.unwrap_err();
    assert!(matches!(&error, BmcError::Privilege { said, .. } if said == "no login to power"), "{error:?}");
    assert!(error.to_string().contains(RESET), "{error}");
}

#[tokio::test]
async fn forbidden_addresses_are_never_dialled_not_even_by_name() {
    let bmc = Fake::start(|seen| tree(seen, system("On", json!({})))).await;
    let mut config = config();
    config.allow = AddressGuard::parse(["10.0.0.0/8", "0.0.0.0/0"]).unwrap();
    let gateways = Gateways::new(config);
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let target = target(&format!("redfish+http://{host}:{}", bmc.address.port()));
        let error = gateways.for_host(&target, alone()).unwrap().probe().await.unwrap_err();
        assert!(matches!(error, BmcError::Forbidden { .. }), "{host}: {error:?}");
        assert!(error.to_string().contains("loopback"), "{error}");
    }
    assert_eq!(bmc.count(), 0);
}

#[tokio::test]
async fn a_dead_bmc_is_left_alone_after_five_failures_and_asked_a_harmless_question_first() {
    // A port that is ours and refuses until somebody listens.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let target = target(&format!("redfish+http://{}{SYSTEM}", socket.local_addr().unwrap()));
    let failed_five_times = async |pause| {
        let gateways = Gateways::new(Config { breaker_pause: pause, breaker_longest: pause, ..config() });
        let gateway = gateways.for_host(&target, alone()).unwrap();
        for _ in 0..5 {
            let error = gateway.power().await.unwrap_err();
            assert!(matches!(&error, BmcError::Unreachable { reason, .. } if reason.contains("refused")), "{error:?}");
        }
        gateway
    };
    let error = failed_five_times(Duration::from_hours(1)).await.power().await.unwrap_err();
    assert!(matches!(error, BmcError::CircuitOpen { failures: 5, .. }), "{error:?}");
    assert!(error.to_string().contains("refused") && error.retry_in().is_some(), "{error}");
    let gateway = failed_five_times(Duration::from_millis(1)).await;
    tokio::time::sleep(Duration::from_millis(20)).await;

    // It is back: the first thing it is asked is its root, without credentials.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let server = {
        let seen = seen.clone();
        let listener = socket.listen(16).unwrap();
        let app = axum::Router::new().fallback(move |request: axum::extract::Request| {
            seen.lock()
                .unwrap()
                .push((request.uri().path().to_owned(), request.headers().contains_key("authorization")));
            async move { axum::Json(json!({"PowerState": "On"})) }
        });
        tokio::spawn(async move { axum::serve(listener, app).await })
    };
    gateway.power().await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [("/redfish/v1/".to_owned(), false), (SYSTEM.to_owned(), true)]);
    server.abort();
}

#[tokio::test]
async fn a_bmc_that_hangs_costs_no_more_than_the_deadline() {
    let bmc = Fake::start(|seen| tree(seen, system("On", json!({}))).after(Duration::from_secs(60))).await;
    let mut config = config();
    config.request_timeout = Duration::from_millis(150);
    let gateway = Gateways::new(config).for_host(&bmc.target(), alone()).unwrap();
    let error = gateway.power().await.unwrap_err();
    assert!(matches!(&error, BmcError::Unreachable { reason, .. } if reason.contains("within 0.15 s")), "{error:?}");
}

#[tokio::test]
async fn a_busy_bmc_is_obeyed_and_not_asked_meanwhile() {
    let bmc = Fake::start(|seen| match seen.path.as_str() {
        "/redfish/v1/" => json_reply(root()),
        _ => status(503, json!({"error": {"@Message.ExtendedInfo": [{"MessageId": "IDRAC.2.8.RAC0218"}]}})),
    })
    .await;
    let gateways = gateways();
    let gateway = gateways.for_host(&bmc.target(), alone()).unwrap();
    let error = gateway.power().await.unwrap_err();
    assert!(matches!(&error, BmcError::Busy { status: 503, said, .. } if said.contains("RAC0218")), "{error:?}");
    assert!(error.retry_in().unwrap() >= Duration::from_secs(100), "used-up sessions need longer: {error}");
    let asked = bmc.count();
    assert!(matches!(gateway.power().await.unwrap_err(), BmcError::Busy { .. }));
    assert_eq!(bmc.count(), asked, "it was asked during the pause");
}

#[tokio::test]
async fn retry_after_ends_the_pause() {
    let first = AtomicUsize::new(0);
    let bmc = Fake::start(move |seen| {
        if first.fetch_add(1, Ordering::SeqCst) == 0 {
            empty(429).header("retry-after", "1")
        } else {
            tree(seen, system("On", json!({})))
        }
    })
    .await;
    let gateway = gateways().for_host(&bmc.target(), alone()).unwrap();
    let error = gateway.power().await.unwrap_err();
    assert_eq!(error.retry_in(), Some(Duration::from_secs(1)));
    tokio::time::sleep(Duration::from_millis(1050)).await;
    gateway.power().await.unwrap();
}

#[tokio::test]
async fn strange_answers_are_errors_and_never_more() {
    let deep = || "[".repeat(100_000).into_bytes();
    type Answer = Box<dyn Fn() -> Reply + Send + Sync>;
    let cases: Vec<(Answer, &str)> = vec![
        (Box::new(|| empty(302).header("location", "http://169.254.169.254/")), "redirects are not followed"),
        (Box::new(|| Reply { body: b"<html>login</html>".to_vec(), ..empty(200) }), "text beginning \"<html>login"),
        (Box::new(move || Reply { body: deep(), ..empty(200) }), "expected JSON"),
        (Box::new(|| Reply { body: vec![b' '; 9 << 20], ..empty(200) }), "more than 8388608 bytes"),
        (Box::new(|| json_reply(json!({"Systems": {"@odata.id": "http://evil/redfish"}}))), "same origin"),
        (Box::new(|| json_reply(json!({"Systems": {"@odata.id": "//evil/redfish"}}))), "same origin"),
        (Box::new(|| json_reply(Value::Null)), "same origin"),
        (Box::new(|| empty(500)), "HTTP 500"),
        (Box::new(|| empty(204)), "expected JSON"),
    ];
    for (reply, words) in cases {
        let bmc = Fake::start(move |_| reply()).await;
        let error = gateways().for_host(&bmc.target(), alone()).unwrap().probe().await.unwrap_err();
        assert!(matches!(error, BmcError::Protocol { .. }), "{error:?}");
        assert!(error.to_string().contains(words), "{error} lacks {words}");
        assert_eq!(bmc.count(), 1);
    }
}

#[tokio::test]
async fn one_gateway_per_bmc_until_something_changes() {
    let gateways = gateways();
    let first = gateways.for_host(&target("redfish://BMC.example/"), alone()).unwrap();
    let same = gateways.for_host(&target("redfish://BMC.example/"), alone()).unwrap();
    assert!(first.is(&same));
    let mut changed = target("redfish://BMC.example/");
    changed.password = "new".into();
    assert!(!first.is(&gateways.for_host(&changed, alone()).unwrap()));
    let mut bad = target("redfish://other.example/");
    bad.tls = TlsTrust::Fingerprint("ab".into());
    let error = gateways.for_host(&bad, alone()).unwrap_err();
    assert!(matches!(&error, BmcError::Setup { reason, .. } if reason.contains("64 hexadecimal digits")), "{error:?}");
    assert!(!format!("{:?} {first:?}", target("redfish://x")).contains("secret"));
}

struct Tls {
    config: rustls::ServerConfig,
    fingerprint: String,
    root: Vec<u8>,
}

enum Issuer {
    Itself,
    Authority,
}

fn certificate(names: &[&str], issuer: Issuer, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Tls {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    change(&mut params);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut root_params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    root_params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root_key = rcgen::KeyPair::generate().unwrap();
    let root = root_params.self_signed(&root_key).unwrap();
    let leaf = match issuer {
        Issuer::Itself => params.self_signed(&key).unwrap(),
        Issuer::Authority => params.signed_by(&key, &rcgen::Issuer::from_params(&root_params, &root_key)).unwrap(),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    Tls { config, fingerprint: tls::fingerprint(leaf.der()), root: root.der().to_vec() }
}

fn script(seen: &Seen) -> Reply {
    tree(seen, system("On", json!({})))
}

#[tokio::test]
async fn a_self_signed_certificate_is_refused_with_its_fingerprint_and_works_once_pinned() {
    let certificate = certificate(&["127.0.0.1"], Issuer::Itself, |_| {});
    let fingerprint = certificate.fingerprint.clone();
    let bmc = Fake::start_tls(certificate.config, script).await;
    let gateways = gateways();
    let mut target = bmc.target();
    let error = gateways.for_host(&target, alone()).unwrap().probe().await.unwrap_err();
    assert!(matches!(&error, BmcError::Certificate { problem: CertificateProblem::UnknownIssuer, .. }), "{error:?}");
    assert!(
        error.to_string().contains(&fingerprint)
            && error
                .advice()
                .contains(&format!("bmc.tls.fingerprint (Terraform: tls_fingerprint = \"{fingerprint}\")"))
    );
    assert_eq!((bmc.count(), error.cause()), (0, Cause::BmcCertificate), "no request, no password was sent");

    target.tls = TlsTrust::Fingerprint(fingerprint.clone());
    let facts = gateways.for_host(&target, alone()).unwrap().probe().await.unwrap();
    assert_eq!(facts.certificate.as_deref(), Some(fingerprint.as_str()));

    target.tls = TlsTrust::Fingerprint("ab".repeat(32));
    let error = gateways.for_host(&target, alone()).unwrap().probe().await.unwrap_err();
    let pinned = CertificateProblem::NotThePinned { pinned: "ab".repeat(32) };
    assert!(
        matches!(&error, BmcError::Certificate { problem, fingerprint: f, .. } if *problem == pinned && *f == fingerprint)
    );
    assert!(error.advice().contains("somebody may be in between"));

    target.tls = TlsTrust::Insecure;
    let facts = gateways.for_host(&target, alone()).unwrap().probe().await.unwrap();
    assert_eq!(facts.certificate, Some(fingerprint), "what is accepted blindly is shown at least");
}

#[tokio::test]
async fn a_certificate_of_a_trusted_issuer_is_accepted_for_its_name_and_dates_only() {
    let trusting = |root: &[u8]| {
        let mut config = config();
        config.extra_roots = vec![root.to_vec()];
        Gateways::new(config)
    };
    let good = certificate(&["127.0.0.1"], Issuer::Authority, |_| {});
    let (gateways, fingerprint) = (trusting(&good.root), good.fingerprint.clone());
    let bmc = Fake::start_tls(good.config, script).await;
    let facts = gateways.for_host(&bmc.target(), alone()).unwrap().probe().await.unwrap();
    assert_eq!(facts.certificate, Some(fingerprint));

    let other_name = certificate(&["bmc.example"], Issuer::Authority, |_| {});
    let expired = certificate(&["127.0.0.1"], Issuer::Authority, |params| {
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let authority = certificate(&["127.0.0.1"], Issuer::Itself, |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    for (bad, words) in [(other_name, "another name"), (expired, "expired"), (authority, "self-signed")] {
        let gateways = trusting(&bad.root);
        let bmc = Fake::start_tls(bad.config, script).await;
        let error = gateways.for_host(&bmc.target(), alone()).unwrap().probe().await.unwrap_err();
        assert!(matches!(error, BmcError::Certificate { .. }), "{error:?}");
        assert!(error.to_string().contains(words), "{error} lacks {words}");
        assert_eq!(bmc.count(), 0);
    }
}

#[tokio::test]
async fn a_refused_certificate_does_not_count_as_a_dead_bmc() {
    let certificate = certificate(&["127.0.0.1"], Issuer::Itself, |_| {});
    let bmc = Fake::start_tls(certificate.config, script).await;
    let gateway = gateways().for_host(&bmc.target(), alone()).unwrap();
    for _ in 0..8 {
        assert!(matches!(gateway.power().await.unwrap_err(), BmcError::Certificate { .. }));
    }
}

/// A fence that lets so many requests through.
struct Closes(AtomicUsize);

impl Fence for Closes {
    fn check(&self) -> Result<(), Fenced> {
        let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(|_| ()).map_err(|_| Fenced("the host belongs to another engine now".into()))
    }
}

#[tokio::test]
async fn nothing_is_sent_once_the_fence_is_closed_not_even_in_the_middle() {
    let bmc = Fake::start(|seen| tree(seen, system("Off", json!({})))).await;
    let gateways = gateways();
    let mut target = bmc.target();
    target.system_path = Some(SYSTEM.into());
    // The state is read; the command that would follow is not sent, and neither is what a second gateway would ask.
    let fence = Arc::new(Closes(AtomicUsize::new(1)));
    let error = gateways.for_host(&target, fence.clone()).unwrap().power_on().await.unwrap_err();
    assert!(matches!(&error, BmcError::Fenced { why, .. } if why.contains("another engine")), "{error:?}");
    assert_eq!(bmc.count(), 1);
    assert!(gateways.for_host(&target, fence).unwrap().probe().await.is_err());
    assert_eq!(bmc.count(), 1);
    // The same gateway behind an open fence goes on.
    gateways.for_host(&target, alone()).unwrap().power().await.unwrap();
    assert_eq!(bmc.count(), 2);
}
