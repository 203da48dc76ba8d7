//! Artifacts in a real registry.

use std::path::Path;

use bytes::Bytes;
use vmetal_policy_source::artifact::{self, Label};
use vmetal_policy_source::{
    Credentials, Digest, Origin, Reference, Registries, RegistryError, SigningKey, SourceError, Sources, Trust, cosign,
};
use vmetal_test_registry::{Guests, Registry, USER};

use super::openssl::{Algorithm, Pair};

const COMPONENT: &[u8] = b"\0asm, or what a registry takes for it";

fn label() -> Label {
    let of = |name: &str| vec![format!("vmetal:policy/{name}@0.1.0")];
    Label { name: "place-mine".to_owned(), version: "1.2.3".to_owned(), imports: of("log"), exports: of("placement") }
}

fn anybody() -> Registries {
    Registries::new(Credentials::default(), Vec::new())
}

fn known(registry: &Registry) -> Registries {
    let config = registry.docker_config();
    let variable = |name: &str| (name == "DOCKER_AUTH_CONFIG").then(|| config.clone().into());
    Registries::new(Credentials::from_environment(variable).unwrap(), Vec::new())
}

fn reference(registry: &Registry, rest: &str) -> Reference {
    format!("{}/{rest}", registry.host()).parse().unwrap()
}

async fn push(registries: &Registries, reference: &Reference, bytes: &'static [u8]) -> Reference {
    artifact::push(registries, reference, Bytes::from_static(bytes), &label()).await.unwrap()
}

async fn take(registries: Registries, trust: &Trust, reference: &Reference) -> Result<Vec<u8>, SourceError> {
    let sources = Sources::new(trust.clone(), registries, None);
    let component = sources.component(&Origin::Oci(reference.clone())).await?;
    assert_eq!((component.digest, component.name.as_str()), (Digest::of(&component.bytes), &*reference.to_string()));
    assert_eq!(component.signer.is_some(), !trust.keys().is_empty());
    Ok(component.bytes.to_vec())
}

/// The failure of a registry, under the name of what was wanted of it.
fn registry_error(error: SourceError) -> RegistryError {
    match error {
        SourceError::Registry { source, .. } => *source,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn what_is_pushed_is_taken_by_its_digest_and_a_tag_tells_it() {
    let registry = Registry::start(Guests::Everybody);
    let tag = reference(&registry, "policies/place-mine:1.2.3");
    let pinned = push(&anybody(), &tag, COMPONENT).await;
    assert_eq!(take(anybody(), &Trust::Anyone, &pinned).await.unwrap(), COMPONENT);
    // The same again is the same, under whichever tag, or none.
    assert_eq!(push(&anybody(), &reference(&registry, "policies/place-mine:latest"), COMPONENT).await, pinned);
    assert_eq!(push(&anybody(), &pinned, COMPONENT).await, pinned);
    let other = artifact::push(&anybody(), &pinned, Bytes::from_static(b"other"), &label()).await;
    assert!(matches!(other, Err(SourceError::DigestMismatch { .. })));

    let error = take(anybody(), &Trust::Anyone, &tag).await.unwrap_err();
    assert!(error.to_string().contains(&format!("at this moment it is {pinned}")), "{error}");
    assert!(matches!(error, SourceError::NotPinned { pinned: told, .. } if *told == pinned));

    for missing in [format!("policies/place-mine@{}", Digest::of(b"")), "policies/place-other:1".to_owned()] {
        let error = take(anybody(), &Trust::Anyone, &reference(&registry, &missing)).await.unwrap_err();
        assert!(matches!(registry_error(error), RegistryError::NotFound { .. }));
    }
    // What the disk below the registry makes of it is noticed.
    std::fs::write(registry.blob(&Digest::of(COMPONENT).hex()), b"\0asm, or what a registry takes for IT").unwrap();
    let error = registry_error(take(anybody(), &Trust::Anyone, &pinned).await.unwrap_err());
    assert!(matches!(error, RegistryError::OtherBytes { what: "a blob", .. }), "{error}");
}

#[tokio::test]
async fn credentials_are_shown_where_they_are_asked_for() {
    let registry = Registry::start(Guests::Known);
    let tag = reference(&registry, "policies/place-mine:1");
    let pinned = push(&known(&registry), &tag, COMPONENT).await;
    assert_eq!(take(known(&registry), &Trust::Anyone, &pinned).await.unwrap(), COMPONENT);
    let error = registry_error(take(anybody(), &Trust::Anyone, &pinned).await.unwrap_err());
    assert!(error.to_string().contains(&format!("`docker login {}`", registry.host())), "{error}");
    let wrong = registry.docker_config().replace("cHVzaGVyOnMzY3JldDp4", "cHVzaGVyOndyb25n");
    let wrong = Credentials::from_environment(|name| (name == "DOCKER_AUTH_CONFIG").then(|| wrong.clone().into()));
    let wrong = Registries::new(wrong.unwrap(), Vec::new());
    let error = registry_error(take(wrong, &Trust::Anyone, &pinned).await.unwrap_err());
    assert!(matches!(&error, RegistryError::Denied { user, .. } if user == USER), "{error}");
    assert!(error.to_string().contains("401") && !error.to_string().contains("wrong"), "{error}");
}

#[tokio::test]
async fn an_artifact_is_signed_as_cosign_does_it() {
    let registry = Registry::start(Guests::Everybody);
    let directory = tempfile::tempdir().unwrap();
    let pair = |name| Pair::new(directory.path(), name, Algorithm::P256);
    let [ours, theirs] = [pair("ours"), pair("theirs")];
    let trust = Trust::of(Some(&[ours.setting()])).unwrap();
    let tag = reference(&registry, "policies/place-mine:1");
    let pinned = push(&anybody(), &tag, COMPONENT).await;
    let sign = async |reference: &Reference, key: &Path| {
        cosign::sign(&anybody(), reference, &SigningKey::from_file(key).unwrap()).await.unwrap()
    };

    let error = take(anybody(), &trust, &pinned).await.unwrap_err();
    assert!(matches!(error, SourceError::Unsigned { .. }), "{error}");
    let place = sign(&pinned, &theirs.private()).await;
    let digest = pinned.digest().unwrap();
    assert_eq!(place, reference(&registry, &format!("policies/place-mine:sha256-{}.sig", digest.hex())));
    let error = take(anybody(), &trust, &pinned).await.unwrap_err();
    assert!(matches!(error, SourceError::WrongSignature { .. }), "{error}");
    // Several may sign; one of the trusted ones is enough.
    sign(&pinned, &ours.private()).await;
    assert_eq!(take(anybody(), &trust, &pinned).await.unwrap(), COMPONENT);
    take(anybody(), &Trust::of(Some(&[theirs.setting()])).unwrap(), &pinned).await.unwrap();

    // A true signature of another artifact says nothing of this one: the manifest with the signatures is laid beside it.
    let newer = push(&anybody(), &tag, b"newer").await;
    sign_as(&registry, &place, &newer);
    let error = take(anybody(), &trust, &newer).await.unwrap_err();
    assert!(matches!(&error, SourceError::SignedAnother { claimed, .. } if *claimed == digest.to_string()), "{error}");
}

/// Moves the tag of signatures, on the registry's disk, so that it belongs to another artifact.
fn sign_as(registry: &Registry, from: &Reference, to: &Reference) {
    let tags = registry.tags(from.repository());
    let (from, to) = (from.version().to_string(), format!("sha256-{}.sig", to.digest().unwrap().hex()));
    std::fs::rename(tags.join(from), tags.join(to)).unwrap();
}

#[tokio::test]
async fn openssl_made_the_signature_of_the_document_that_lies_there() {
    let registry = Registry::start(Guests::Everybody);
    let directory = tempfile::tempdir().unwrap();
    let ours = Pair::new(directory.path(), "ours", Algorithm::P256);
    let pinned = push(&anybody(), &reference(&registry, "a/b:1"), COMPONENT).await;
    cosign::sign(&anybody(), &pinned, &SigningKey::from_file(&ours.private()).unwrap()).await.unwrap();
    // What cosign itself would read, taken from the registry's disk by hand.
    let manifest = registry.tagged("a/b", &format!("sha256-{}.sig", pinned.digest().unwrap().hex()));
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let [layer] = manifest["layers"].as_array().unwrap().as_slice() else { panic!("{manifest}") };
    assert_eq!(layer["mediaType"], "application/vnd.dev.cosign.simplesigning.v1+json");
    let payload = registry.blob(layer["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap());
    let [text, signature] = ["text", "signature"].map(|name| directory.path().join(name));
    std::fs::write(&text, layer["annotations"]["dev.cosignproject.cosign/signature"].as_str().unwrap()).unwrap();
    let [from, to] = [&text, &signature].map(|path| path.to_str().unwrap());
    super::openssl::openssl(directory.path(), &["base64", "-d", "-A", "-in", from, "-out", to]);
    ours.verify(&payload, &signature);
    let payload: serde_json::Value = serde_json::from_slice(&std::fs::read(payload).unwrap()).unwrap();
    assert_eq!(
        payload,
        serde_json::json!({
            "critical": {
                "identity": { "docker-reference": format!("{}/a/b", registry.host()) },
                "image": { "docker-manifest-digest": pinned.digest().unwrap().to_string() },
                "type": "cosign container image signature",
            },
            "optional": null,
        })
    );
}

#[tokio::test]
async fn what_was_fetched_once_needs_no_registry_and_is_checked_each_time() {
    let registry = Registry::start(Guests::Everybody);
    let directory = tempfile::tempdir().unwrap();
    let [ours, theirs] = ["ours", "theirs"].map(|name| Pair::new(directory.path(), name, Algorithm::Ed25519));
    let pinned = push(&anybody(), &reference(&registry, "a/b:1"), COMPONENT).await;
    cosign::sign(&anybody(), &pinned, &SigningKey::from_file(&ours.private()).unwrap()).await.unwrap();
    let kept = directory.path().join("kept");
    let take = async |pair: &Pair| {
        let trust = Trust::of(Some(&[pair.setting()])).unwrap();
        let sources = Sources::new(trust, anybody(), Some(kept.clone()));
        sources.component(&Origin::Oci(pinned.clone())).await.map(|component| component.bytes.to_vec())
    };
    // What is not trusted is not kept.
    take(&theirs).await.unwrap_err();
    assert!(!kept.exists());
    assert_eq!(take(&ours).await.unwrap(), COMPONENT);
    drop(registry);
    assert_eq!(take(&ours).await.unwrap(), COMPONENT);
    // Keys that are trusted no more are not, whatever is kept.
    assert!(matches!(registry_error(take(&theirs).await.unwrap_err()), RegistryError::Unreachable(_)));
    // What was changed on disk is not taken.
    let file = kept.join(Digest::of(COMPONENT).hex());
    std::fs::write(&file, b"something else").unwrap();
    assert!(matches!(registry_error(take(&ours).await.unwrap_err()), RegistryError::Unreachable(_)));
}
