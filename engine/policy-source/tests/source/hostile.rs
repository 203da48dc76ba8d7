//! Registries that are not what they should be, and those that send us elsewhere: scripted, answer by answer.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use vmetal_policy_source::{
    Credentials, Digest, Origin, Reference, Registries, RegistryError, SourceError, Sources, Trust,
};

/// A server that gives its answers in order, one for each connection, and tells what it was asked.
struct Scripted {
    host: String,
    asked: Receiver<Asked>,
}

/// A request.
#[derive(Debug)]
struct Asked {
    line: String,
    authorization: Option<String>,
}

/// What follows the status line of an answer.
struct Answer {
    status: &'static str,
    headers: String,
    body: Body,
}

enum Body {
    Whole(Vec<u8>),
    /// Bytes without end, or until nobody listens.
    Endless,
}

impl Answer {
    fn new(status: &'static str, headers: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Answer { status, headers: headers.into(), body: Body::Whole(body.into()) }
    }

    fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new("200 OK", "", body)
    }

    fn endless() -> Self {
        Answer { body: Body::Endless, ..Self::ok("") }
    }
}

impl Scripted {
    /// Of answers that may name the host itself.
    fn new(answers: impl FnOnce(&str) -> Vec<Answer>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (tell, asked) = channel();
        let answers = answers(&host);
        std::thread::spawn(move || {
            for answer in answers {
                // The client may be gone before it has everything; what it makes of that is its affair.
                let Ok((stream, _)) = listener.accept() else { return };
                let _ = give(stream, answer, &tell);
            }
        });
        Scripted { host, asked }
    }

    fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.host).parse().unwrap()
    }

    fn asked(&self) -> Asked {
        self.asked.recv_timeout(std::time::Duration::from_secs(60)).unwrap()
    }
}

fn give(stream: TcpStream, answer: Answer, tell: &Sender<Asked>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let header = |name: &str| {
        let found =
            lines.iter().filter_map(|line| line.split_once(':')).find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_owned())
    };
    let length = header("content-length").map_or(0, |length| length.parse().unwrap());
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    let line = lines.first().cloned().unwrap_or_default();
    // Nobody may be left to be told.
    let _ = tell.send(Asked { line, authorization: header("authorization") });
    let mut stream = stream;
    let Answer { status, headers, body } = answer;
    match body {
        Body::Whole(body) => {
            let length = body.len();
            write!(stream, "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n")?;
            stream.write_all(&body)
        }
        Body::Endless => {
            write!(stream, "HTTP/1.1 {status}\r\n{headers}Connection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[b' '; 1 << 16])?;
            }
        }
    }
}

fn registries(credentials: Option<String>) -> Registries {
    let variable = |name: &str| credentials.clone().filter(|_| name == "DOCKER_AUTH_CONFIG").map(Into::into);
    Registries::new(Credentials::from_environment(variable).unwrap(), Vec::new())
}

async fn take(registries: Registries, reference: &Reference) -> Result<Vec<u8>, SourceError> {
    let sources = Sources::new(Trust::Anyone, registries, None);
    Ok(sources.component(&Origin::Oci(reference.clone())).await?.bytes.to_vec())
}

fn registry_error(error: SourceError) -> RegistryError {
    match error {
        SourceError::Registry { source, .. } => *source,
        other => panic!("{other}"),
    }
}

/// A manifest of one layer.
fn manifest(media_type: &str, digest: Digest, size: u64) -> String {
    format!(
        "{{\"schemaVersion\":2,\"layers\":[{{\"mediaType\":{media_type:?},\"digest\":\"{digest}\",\"size\":{size}}}]}}"
    )
}

#[tokio::test]
async fn what_never_ends_is_not_read_to_the_end() {
    let scripted = Scripted::new(|_| vec![Answer::endless()]);
    let error = take(registries(None), &scripted.reference(&format!("a@{}", Digest::of(b"")))).await.unwrap_err();
    assert!(matches!(registry_error(error), RegistryError::TooLarge { what: "the manifest", most: 4_194_304 }));

    // It says one byte and gives more than anybody asked for.
    let text = manifest("application/wasm", Digest::of(b"x"), 1);
    let digest = Digest::of(text.as_bytes());
    let scripted = Scripted::new(|_| vec![Answer::ok(text), Answer::endless()]);
    let error = take(registries(None), &scripted.reference(&format!("a@{digest}"))).await.unwrap_err();
    assert!(matches!(registry_error(error), RegistryError::TooLarge { what: "a blob", most: 1 }));
}

#[tokio::test]
async fn other_bytes_than_those_of_the_digest_are_not_taken() {
    let text = manifest("application/wasm", Digest::of(b"right"), 5);
    let digest = Digest::of(text.as_bytes());
    let scripted = Scripted::new(|_| vec![Answer::ok(text.replace("right", "wrong") + " ")]);
    let error = take(registries(None), &scripted.reference(&format!("a@{digest}"))).await.unwrap_err();
    assert!(matches!(registry_error(error), RegistryError::OtherBytes { what: "the manifest", .. }));
    let scripted = Scripted::new(|_| vec![Answer::ok(text), Answer::ok("wrong")]);
    let error = take(registries(None), &scripted.reference(&format!("a@{digest}"))).await.unwrap_err();
    let error = registry_error(error);
    assert!(matches!(error, RegistryError::OtherBytes { what: "a blob", .. }), "{error}");
    assert!(error.to_string().ends_with("do not trust it"), "{error}");
}

#[tokio::test]
async fn an_artifact_that_is_no_component_is_told_what_it_is() {
    let empty = Digest::of(b"");
    for (text, says) in [
        ("{}".to_owned(), "cannot be read"),
        ("\u{1}".to_owned(), "cannot be read"),
        ("{\"schemaVersion\":2,\"layers\":[]}".to_owned(), "it has 0 layers"),
        ("{\"schemaVersion\":2,\"manifests\":[{},{}]}".to_owned(), "it is a list of 2 artifacts, name one of them"),
        (manifest("application/vnd.oci.image.layer.v1.tar+gzip", empty, 0), "expected \"application/wasm\""),
        (manifest("application/wasm", empty, 1 << 40), "is 1099511627776 bytes large"),
    ] {
        let digest = Digest::of(text.as_bytes());
        let scripted = Scripted::new(|_| vec![Answer::ok(text.clone())]);
        let error = take(registries(None), &scripted.reference(&format!("a@{digest}"))).await.unwrap_err();
        assert!(matches!(error, SourceError::NotAPolicy { .. } | SourceError::TooLarge { .. }), "{text}: {error}");
        assert!(error.to_string().contains(says), "{text}: {error}");
    }
}

#[tokio::test]
async fn a_token_is_fetched_with_the_login_and_shown_to_the_registry_only() {
    let component = b"a component";
    let text = manifest("application/wasm", Digest::of(component), component.len() as u64);
    let digest = Digest::of(text.as_bytes());
    let storage = Scripted::new(|_| vec![Answer::ok(*component)]);
    let elsewhere = format!("Location: http://{}/blob\r\n", storage.host);
    let scripted = Scripted::new(|host| {
        let asks = format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"here\",scope=\"x\"\r\n");
        vec![
            Answer::new("401 Unauthorized", asks, ""),
            Answer::ok("{\"token\":\"t0ken\"}"),
            Answer::ok(text),
            // Large registries keep blobs elsewhere.
            Answer::new("307 Temporary Redirect", elsewhere, ""),
        ]
    });
    let login = format!("{{\"auths\":{{{:?}:{{\"auth\":\"dXNlcjpwYXNz\"}}}}}}", scripted.host);
    let taken = take(registries(Some(login)), &scripted.reference(&format!("a/b@{digest}"))).await.unwrap();
    assert_eq!(taken, component);
    assert_eq!(scripted.asked().authorization, None);
    let token = scripted.asked();
    assert_eq!(token.line, "GET /token?service=here&scope=repository%3Aa%2Fb%3Apull HTTP/1.1");
    assert_eq!(token.authorization.as_deref(), Some("Basic dXNlcjpwYXNz"));
    for line in [
        format!("GET /v2/a/b/manifests/{digest} HTTP/1.1"),
        format!("GET /v2/a/b/blobs/{} HTTP/1.1", Digest::of(component)),
    ] {
        let asked = scripted.asked();
        assert_eq!((asked.line, asked.authorization.as_deref()), (line, Some("Bearer t0ken")));
    }
    assert_eq!(storage.asked().authorization, None, "the token was shown to another server");
}

#[tokio::test]
async fn a_password_goes_nowhere_without_tls() {
    let login = |host: &str| Some(format!("{{\"auths\":{{{host:?}:{{\"auth\":\"dXNlcjpwYXNz\"}}}}}}"));
    let scripted = Scripted::new(|_| {
        let asks = "WWW-Authenticate: Bearer realm=\"http://registry.example/token\"\r\n";
        vec![Answer::new("401 Unauthorized", asks, "")]
    });
    let reference = scripted.reference(&format!("a@{}", Digest::of(b"")));
    let error = registry_error(take(registries(login(&scripted.host)), &reference).await.unwrap_err());
    assert!(error.to_string().contains("\"http://registry.example/token\" is without TLS"), "{error}");
}
