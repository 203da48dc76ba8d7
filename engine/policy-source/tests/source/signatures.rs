//! Signed files.

use std::path::{Path, PathBuf};

use vmetal_policy_source::{
    Credentials, Digest, Origin, PublicKey, Registries, SigningKey, SourceError, Sources, Trust, beside,
};

use super::openssl::{Algorithm, Pair, openssl};

/// Which component is here, and who is trusted.
struct Place {
    directory: tempfile::TempDir,
    file: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mine.wasm");
        std::fs::write(&file, b"a component, for all that signatures care").unwrap();
        Place { directory, file }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn pair(&self, name: &'static str, algorithm: Algorithm) -> Pair {
        Pair::new(self.path(), name, algorithm)
    }

    async fn take(&self, trust: &Trust) -> Result<Option<PublicKey>, SourceError> {
        self.take_from(Origin::file(&self.file), trust).await
    }

    async fn take_from(&self, origin: Origin, trust: &Trust) -> Result<Option<PublicKey>, SourceError> {
        let registries = Registries::new(Credentials::default(), Vec::new());
        let component = Sources::new(trust.clone(), registries, None).component(&origin).await?;
        assert_eq!(Digest::of(&component.bytes), component.digest);
        Ok(component.signer)
    }
}

fn trust(pairs: &[&Pair]) -> Trust {
    Trust::of(Some(&pairs.iter().map(|pair| pair.setting()).collect::<Vec<_>>())).unwrap()
}

#[tokio::test]
async fn what_openssl_signs_is_taken_raw_and_in_base64() {
    let place = Place::new();
    let pairs = [place.pair("a", Algorithm::P256), place.pair("b", Algorithm::Ed25519)];
    let both = trust(&[&pairs[0], &pairs[1]]);
    for pair in &pairs {
        let signature = beside(&place.file);
        pair.sign(&place.file, &signature);
        let by = place.take(&both).await.unwrap().unwrap();
        assert!(by.to_string().starts_with(&pair.setting()), "{by}");
        // As cosign writes it, and as `openssl base64` does, in lines.
        for form in [&["base64", "-A"][..], &["base64"]] {
            let [from, to] = [&signature, &place.path().join("text")].map(|path| path.to_str().unwrap().to_owned());
            openssl(place.path(), &[form, &["-in", &from, "-out", &to]].concat());
            let origin =
                Origin::File { path: place.file.clone(), sha256: None, signature: Some(place.path().join("text")) };
            assert!(place.take_from(origin, &both).await.unwrap().is_some());
        }
        // The key as text does as well.
        let text = std::fs::read_to_string(pair.public()).unwrap();
        assert!(place.take(&Trust::of(Some(&[text])).unwrap()).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn what_we_sign_openssl_takes() {
    let place = Place::new();
    let sec1 = place.path().join("sec1.key");
    openssl(place.path(), &["ecparam", "-name", "prime256v1", "-genkey", "-out", sec1.to_str().unwrap()]);
    for pair in [place.pair("a", Algorithm::P256), place.pair("b", Algorithm::Ed25519)] {
        let made = SigningKey::from_file(&pair.private()).unwrap().sign(&std::fs::read(&place.file).unwrap()).unwrap();
        std::fs::write(beside(&place.file), made).unwrap();
        pair.verify(&place.file, &beside(&place.file));
        assert!(place.take(&trust(&[&pair])).await.unwrap().is_some());
    }
    // The older form of the file, with the curve's parameters in front.
    SigningKey::from_file(&sec1).unwrap();
}

#[tokio::test]
async fn each_way_not_to_be_signed_has_its_own_name() {
    let place = Place::new();
    let [ours, theirs] = [place.pair("ours", Algorithm::P256), place.pair("theirs", Algorithm::P256)];
    let trusted = trust(&[&ours]);
    let signature = beside(&place.file);
    let refused = async || place.take(&trusted).await.unwrap_err();

    let error = refused().await;
    assert!(matches!(&error, SourceError::Unsigned { .. }), "{error}");
    assert!(error.to_string().contains("mine.wasm.sig; sign it with one of them"), "{error}");
    assert!(place.take(&Trust::Anyone).await.unwrap().is_none());

    theirs.sign(&place.file, &signature);
    let error = refused().await;
    assert!(matches!(&error, SourceError::WrongSignature { .. }), "{error}");
    assert!(error.to_string().contains(&ours.setting()), "{error}");

    let other = Pair::new(place.path(), "other", Algorithm::Ed25519);
    other.sign(&place.file, &signature);
    assert!(matches!(refused().await, SourceError::WrongSignature { .. }));

    for garbage in [&b""[..], b"\n", b"-----BEGIN SIGNATURE-----", &[0x30; 100], &[0; 63], &[b'A'; 200]] {
        std::fs::write(&signature, garbage).unwrap();
        assert!(matches!(refused().await, SourceError::NotASignature { .. }), "{garbage:?}");
    }

    std::fs::remove_file(&signature).unwrap();
    std::fs::create_dir(&signature).unwrap();
    assert!(matches!(refused().await, SourceError::UnreadableSignature { .. }));
    std::fs::remove_dir(&signature).unwrap();

    ours.sign(&place.file, &signature);
    place.take(&trusted).await.unwrap();
    // Each single byte counts, of the component and of the signature.
    let whole = std::fs::read(&place.file).unwrap();
    for at in [0, whole.len() / 2, whole.len() - 1] {
        let mut tampered = whole.clone();
        tampered[at] ^= 1;
        std::fs::write(&place.file, &tampered).unwrap();
        assert!(matches!(refused().await, SourceError::WrongSignature { .. }));
    }
    std::fs::write(&place.file, [&whole[..], b"\0"].concat()).unwrap();
    assert!(matches!(refused().await, SourceError::WrongSignature { .. }));
    std::fs::write(&place.file, &whole).unwrap();
    let made = std::fs::read(&signature).unwrap();
    for at in 0..made.len() {
        let mut tampered = made.clone();
        tampered[at] ^= 1;
        std::fs::write(&signature, &tampered).unwrap();
        let error = refused().await;
        assert!(
            matches!(error, SourceError::WrongSignature { .. } | SourceError::NotASignature { .. }),
            "byte {at}: {error}"
        );
    }
}

#[tokio::test]
async fn a_pin_holds_and_size_is_bounded_whoever_signed() {
    let place = Place::new();
    let pinned = |sha256| Origin::File { path: place.file.clone(), sha256: Some(sha256), signature: None };
    let right = Digest::of(&std::fs::read(&place.file).unwrap());
    place.take_from(pinned(right), &Trust::Anyone).await.unwrap();
    let error = place.take_from(pinned(Digest::of(b"")), &Trust::Anyone).await.unwrap_err();
    assert!(matches!(error, SourceError::DigestMismatch { seen, .. } if seen == right));
    // Holes: it takes no room on disk.
    std::fs::File::create(&place.file).unwrap().set_len(100 << 20).unwrap();
    let error = place.take(&Trust::Anyone).await.unwrap_err();
    assert!(matches!(&error, SourceError::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains("is 104857600 bytes large, at most 33554432 are allowed"), "{error}");
    std::fs::remove_file(&place.file).unwrap();
    assert!(matches!(place.take(&Trust::Anyone).await.unwrap_err(), SourceError::Unreadable { .. }));
}

#[test]
fn what_is_no_key_is_told_what_it_is() {
    let place = Place::new();
    let ours = place.pair("ours", Algorithm::P256);
    let file = |name: &str, arguments: &[&str]| {
        openssl(place.path(), &[arguments, &["-out", name]].concat());
        place.path().join(name)
    };
    let key = ours.private();
    let key = key.to_str().unwrap();
    let certificate = file("certificate", &["req", "-x509", "-new", "-key", key, "-subj", "/CN=x", "-days", "1"]);
    let p384 = file("p384.key", &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]);
    let p384 = file("p384.pub", &["pkey", "-pubout", "-in", p384.to_str().unwrap()]);
    let locked = file("locked", &["pkey", "-in", key, "-aes256", "-passout", "pass:x"]);
    let text = place.path().join("text");
    std::fs::write(&text, "no key at all").unwrap();

    let public = |path: &Path| PublicKey::from_file(path).unwrap_err();
    for (path, says) in [
        (&certificate, "it is a certificate"),
        (&ours.private(), "it is a private key"),
        (&p384, "it is neither a P-256 nor an Ed25519 key"),
        (&text, "there is no PEM block in it"),
    ] {
        let error = public(path);
        assert!(matches!(&error, SourceError::NotAKey { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains(says) && error.contains(path.to_str().unwrap()), "{error}");
    }
    assert!(matches!(public(&place.path().join("nowhere")), SourceError::UnreadableKey { .. }));
    assert!(matches!(Trust::of(Some(&[])), Err(SourceError::NoKeys)));

    let private = |path: &Path| SigningKey::from_file(path).unwrap_err().to_string();
    assert!(private(&locked).contains("it has a passphrase"), "{}", private(&locked));
    assert!(private(&ours.public()).contains("there is no private key in it"), "{}", private(&ours.public()));
    assert!(private(&text).contains("there is no private key in it"));
}
