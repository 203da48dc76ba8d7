#![allow(clippy::unwrap_used, reason = "tests")]
use std::convert::Infallible;

use base64::Engine as _;
use http::{Request, Response};
use kube::client::Body;
use serde_json::json;

use super::*;

/// Two self-signed authorities made with `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 36500`, and
/// the first's pin by `openssl x509 -pubkey | openssl pkey -pubin -outform DER | sha256sum`.
const FIRST: &str = include_str!("first-ca.pem");
const SECOND: &str = include_str!("second-ca.pem");
const FIRST_PIN: &str = "sha256:b2ead084d9714410c58e19ffefc7d0611b59b376532b20b18bcd4de3dc3b9f36";

fn info(server: &str, ca: &str) -> String {
    let ca = base64::engine::general_purpose::STANDARD.encode(ca);
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: \"\"\n  cluster:\n    certificate-authority-data: {ca}\n    server: {server}\n"
    )
}

fn configuration(endpoint: &str) -> String {
    format!(
        "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\ncontrolPlaneEndpoint: \"{endpoint}\"\nkubernetesVersion: v1.36.3\n"
    )
}

#[test]
fn the_pin_is_what_openssl_computes() {
    let found = target(FIRST, &info("https://10.0.0.1:6443", FIRST), &configuration("10.0.0.1:6443")).unwrap();
    assert_eq!(found, JoinTarget { endpoint: "10.0.0.1:6443".into(), ca_cert_hash: FIRST_PIN.into() });
}

#[test]
fn endpoints_are_compared_by_meaning() {
    for (server, configured, expected) in [
        ("https://10.0.0.1", "10.0.0.1:6443", "10.0.0.1:6443"),
        ("https://API.example.com:443", "api.example.com:443", "api.example.com:443"),
        ("https://[fd00::1]:6443", "[fd00::1]", "[fd00::1]:6443"),
        ("https://10.0.0.1:6443", "", "10.0.0.1:6443"),
    ] {
        let found = target(FIRST, &info(server, FIRST), &configuration(configured)).unwrap();
        assert_eq!(found.endpoint, expected, "{server} and {configured:?}");
    }
}

#[test]
fn two_addresses_are_an_error_that_names_both() {
    let error = target(FIRST, &info("https://10.0.0.1:6443", FIRST), &configuration("10.0.0.2:6443")).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("10.0.0.1:6443") && text.contains("10.0.0.2:6443"), "{text}");
}

#[test]
fn the_authority_must_be_one_and_the_same() {
    let server = "https://10.0.0.1:6443";
    let both = format!("{FIRST}{SECOND}");
    let error = target(&both, &info(server, &both), &configuration("")).unwrap_err();
    assert!(matches!(error, TenantError::SeveralAuthorities { count: 2 }), "{error}");
    let error = target("", &info(server, FIRST), &configuration("")).unwrap_err();
    assert!(matches!(error, TenantError::SeveralAuthorities { count: 0 }), "{error}");
    let error = target(FIRST, &info(server, SECOND), &configuration("")).unwrap_err();
    assert!(matches!(&error, TenantError::AuthorityMismatch { pin } if pin == FIRST_PIN), "{error}");
    // A rotation that has reached cluster-info already: the pinned one is among them, so nodes accept it.
    target(FIRST, &info(server, &both), &configuration("")).unwrap();
}

#[test]
fn garbage_is_named() {
    let good = info("https://10.0.0.1:6443", FIRST);
    for (root, info, configuration, object) in [
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", good.clone(), configuration(""), ROOT_CA),
        (FIRST, "clusters: 7".into(), configuration(""), CLUSTER_INFO),
        (FIRST, "clusters: []".into(), configuration(""), CLUSTER_INFO),
        (FIRST, info("http://10.0.0.1:6443", FIRST), configuration(""), CLUSTER_INFO),
        (FIRST, good.clone(), "controlPlaneEndpoint: [1]".into(), KUBEADM_CONFIG),
        (FIRST, good, configuration("a b"), KUBEADM_CONFIG),
    ] {
        let error = target(root, &info, &configuration).unwrap_err();
        assert!(matches!(&error, TenantError::MalformedObject { object: o, .. } if o == object), "{error}");
    }
}

/// A server whose cluster-info carries the signature for `signed` and no other.
fn server(signed: &str) -> TenantClient {
    let info = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "cluster-info" },
        "data": { "kubeconfig": "…", format!("jws-kubeconfig-{signed}"): "header..signature" },
    });
    let service = tower::service_fn(move |_: Request<Body>| {
        let answer = Response::new(Body::from(info.to_string().into_bytes()));
        async { Ok::<_, Infallible>(answer) }
    });
    TenantClient::over(kube::Client::new(service, "default"), "https://test")
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_signs_nothing_is_given_up_on_by_name() {
    let limit = Duration::from_secs(30);
    let started = Instant::now();
    let error = wait_until_signed(&server("fedcba"), "abcdef", limit).await.unwrap_err();
    assert!(matches!(&error, TenantError::NoBootstrapSigner { token_id, .. } if token_id == "abcdef"), "{error}");
    assert!(error.advice().contains("bootstrapsigner"), "{}", error.advice());
    let waited = started.elapsed();
    assert!(waited <= limit && waited >= limit - Duration::from_secs(1), "{waited:?}");

    wait_until_signed(&server("abcdef"), "abcdef", limit).await.unwrap();
    assert_eq!(started.elapsed(), waited);
}
