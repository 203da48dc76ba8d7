//! HTTP on the provisioning network: scripts, kernel and initramfs, images, and the way to the engine.
//!
//! | path | for whom | what |
//! |---|---|---|
//! | `/boot/MAC/script.ipxe` | the declared host, from its reserved address | the script of its state |
//! | `/boot/MAC/ipxe.efi` | the same | the loader, for UEFI HTTP boot |
//! | `/assets/kernel`, `/assets/initrd` | anyone | the installer; holds no secret |
//! | `/images/DIGEST/…` | a current boot token | image chunks |
//! | `/agent/v1/…` | passed to the engine, which decides | |
//! | `/healthz` | anyone | whether a boot table is there |
//!
//! A script carries the boot token. It is given only to the address that DHCP gave to that host: a MAC in a URL proves
//! nothing. Whoever can take over a host's address on the provisioning network can take its token; that network must be
//! one that tenants cannot reach.
//!
//! Errors are JSON: `{"error": "text"}`.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::net::TcpListener;
use vmetal_api::netboot::{AgentRequest, NetbootClient};
use vmetal_model::boot::BootTarget;
use vmetal_model::net::MacAddr;

use crate::assets::Assets;
use crate::dhcp::boot::{HttpBase, LOCAL_DISK};
use crate::session::{Stage, Who};
use crate::shared::{Peer, Shared};
use crate::table::attempt;
use files::OpenFile;
use script::Script;

pub mod files;
pub mod script;

/// The largest body an installer may send: an inventory of a large server is some hundred KiB.
pub const MAX_BODY: usize = 4 * 1024 * 1024;
/// Longer than any request the engine holds (60 s).
const RELAY_DEADLINE: Duration = Duration::from_secs(75);

/// What the HTTP server answers from.
#[derive(Debug)]
pub struct HttpServer {
    /// How clients reach it.
    pub base: HttpBase,
    /// Kernel, initramfs, loaders.
    pub assets: Arc<Assets>,
    /// The image store: `<digest>/manifest.json`, `<digest>/chunks/<chunk>`.
    pub images: PathBuf,
    /// Put on the kernel command line after ours.
    pub kernel_args: String,
    /// The engine.
    pub engine: NetbootClient,
    /// Tables, sessions, recorder.
    pub shared: Arc<Shared>,
}

type Server = State<Arc<HttpServer>>;
type From = ConnectInfo<SocketAddr>;

impl HttpServer {
    /// Serves for ever. Dropping it breaks connections off; every client of ours asks again.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        let app = self.router().into_make_service_with_connect_info::<SocketAddr>();
        axum::serve(listener, app).await
    }

    fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(healthz))
            .route("/boot/{mac}/{file}", get(boot))
            .route("/assets/{name}", get(asset))
            .route("/images/{*path}", get(image))
            .route("/agent/{*path}", any(agent))
            .fallback(|| async { Failure::new(StatusCode::NOT_FOUND, "no such path") })
            .method_not_allowed_fallback(|| async { Failure::new(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD") })
            .with_state(Arc::new(self))
    }

    fn peer(&self, from: SocketAddr) -> Option<Peer> {
        self.shared.peer(from.ip())
    }
}

/// An error as clients read it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    status: StatusCode,
    message: String,
}

impl Failure {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Failure { status, message: message.into() }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.message }).to_string();
        let mut response = json(self.status, Body::from(body));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}

fn json(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn healthz(State(server): Server) -> Response {
    let table = server.shared.tables.load();
    let body = serde_json::json!({ "revision": table.revision(), "hosts": table.len() }).to_string();
    // Revision 0 is the empty table of the beginning: the engine has not been reached yet.
    let status = if table.revision() == 0 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    json(status, Body::from(body))
}

async fn boot(
    State(server): Server,
    ConnectInfo(from): From,
    Path((mac, file)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let mac: MacAddr = mac.parse().map_err(|error| Failure::new(StatusCode::NOT_FOUND, format!("{error}")))?;
    let table = server.shared.tables.load();
    let entry = table
        .by_mac(mac)
        .ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, format!("{mac} belongs to no declared host")))?;
    if from.ip().to_canonical() != IpAddr::V4(entry.address) {
        let what = format!(
            "HTTP: {from} asked for the boot files of this host and was refused; only {} gets them",
            entry.address
        );
        server.shared.recorder.note(mac, Some(entry.host.clone()), what);
        let text = format!("boot files of {mac} are only given to the address that is reserved for it");
        return Err(Failure::new(StatusCode::FORBIDDEN, text));
    }
    let peer = Peer { entry: entry.clone(), mac };
    if file == "script.ipxe" {
        return boot_script(&server, &peer, &method);
    }
    if file == LOCAL_DISK && attempt(&peer.entry).is_none() {
        server.shared.note(&peer, "HTTP: told the firmware to go on to its own disk".to_owned());
        return Err(Failure::new(StatusCode::NOT_FOUND, "this host boots from its own disk"));
    }
    let loader = server.assets.loader_file(&file);
    let loader =
        loader.ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, format!("there is no boot file {file:?}")))?;
    let sent = sent_event(&server, &peer, &file, loader.len(), Stage::LoaderServed);
    Ok(loader.respond(&method, &headers, Some(sent)))
}

fn boot_script(server: &HttpServer, peer: &Peer, method: &Method) -> Result<Response, Failure> {
    let script = match attempt(&peer.entry) {
        None => Script::LocalDisk,
        Some(attempt) => {
            let who = Who { mac: peer.mac, attempt };
            if server.shared.sessions().is_looping(who, crate::clock::now()) {
                Script::Looping
            } else {
                Script::Installer
            }
        }
    };
    let text = script::render(script, &peer.entry, peer.mac, &server.base, &server.kernel_args).map_err(|error| {
        tracing::error!(%error, "no script");
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    })?;
    if method != Method::HEAD {
        let what = match script {
            Script::Installer => "HTTP script: installer",
            Script::LocalDisk => "HTTP script: own disk",
            Script::Looping => "HTTP script: looping, power off",
        };
        server.shared.note(peer, what.to_owned());
        server.shared.reached(peer, Stage::ScriptServed);
    }
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// What to record when a boot file was delivered, with the time it took.
fn sent_event(server: &Arc<HttpServer>, peer: &Peer, name: &str, size: u64, stage: Stage) -> files::OnSent {
    let (shared, peer, name, started) =
        (Arc::clone(&server.shared), peer.clone(), name.to_owned(), crate::clock::now());
    Box::new(move || {
        shared.reached(&peer, stage);
        let seconds = started.elapsed().as_secs_f64();
        shared.note(&peer, format!("HTTP {name} {} KiB in {seconds:.1} s", size.div_ceil(1024)));
    })
}

async fn asset(
    State(server): Server,
    ConnectInfo(from): From,
    Path(name): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let file = match name.as_str() {
        "kernel" => &server.assets.kernel,
        "initrd" => &server.assets.initrd,
        _ => return Err(Failure::new(StatusCode::NOT_FOUND, format!("there is no asset {name:?}"))),
    };
    let sent = server.peer(from).map(|peer| sent_event(&server, &peer, &name, file.len(), Stage::KernelServed));
    Ok(file.respond(&method, &headers, sent))
}

async fn image(
    State(server): Server,
    Path(path): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let token = bearer(&headers).ok_or_else(|| Failure::new(StatusCode::UNAUTHORIZED, "a boot token is required"))?;
    if server.shared.tables.load().by_token(token).is_none() {
        return Err(Failure::new(StatusCode::UNAUTHORIZED, "this is not the token of a current boot attempt"));
    }
    let missing = || Failure::new(StatusCode::NOT_FOUND, format!("there is no image file {path:?}"));
    let relative = image_path(&path).ok_or_else(missing)?;
    let full = server.images.join(&relative);
    let opened = tokio::task::spawn_blocking(move || {
        // Image files never change: their path is their digest.
        File::open(full).and_then(|file| OpenFile::new(file, &relative.replace('/', "."), "application/octet-stream"))
    });
    match opened.await {
        Ok(Ok(file)) => Ok(file.respond(&method, &headers, None)),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Err(missing()),
        Ok(Err(error)) => {
            tracing::error!(%error, path, "an image file cannot be opened");
            Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the image file cannot be opened: {error}")))
        }
        Err(error) => Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

/// `DIGEST/manifest.json` or `DIGEST/chunks/NAME`, and nothing that leaves the directory.
fn image_path(path: &str) -> Option<String> {
    let mut parts = path.split('/');
    let digest = parts.next()?;
    if digest.is_empty() || !digest.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
        return None;
    }
    match (parts.next()?, parts.next(), parts.next()) {
        ("manifest.json", None, None) => {}
        ("chunks", Some(name), None)
            if !name.is_empty()
                && !name.starts_with('.')
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) => {}
        _ => return None,
    }
    Some(path.to_owned())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

async fn agent(State(server): Server, ConnectInfo(from): From, request: Request) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or_else(|| parts.uri.path().to_owned(), ToString::to_string);
    if !path.starts_with("/agent/v1/") {
        return Err(Failure::new(StatusCode::NOT_FOUND, "only /agent/v1/ is served"));
    }
    let Some(token) = bearer(&parts.headers) else {
        return Err(Failure::new(StatusCode::UNAUTHORIZED, "a boot token is required"));
    };
    let body = axum::body::to_bytes(body, MAX_BODY).await.map_err(|_| {
        let text = format!("the body was not received whole, or is longer than {MAX_BODY} bytes");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    })?;
    installer_called(&server, token, from);
    let request = AgentRequest {
        method: parts.method.to_string(),
        path,
        bearer_token: token.to_owned(),
        peer: from.ip().to_canonical().to_string(),
        body: body.into(),
    };
    let away = |why: String| Failure::new(StatusCode::SERVICE_UNAVAILABLE, format!("try again: {why}"));
    let reply = tokio::time::timeout(RELAY_DEADLINE, server.engine.agent(request)).await;
    let reply = reply.map_err(|_| away("the engine did not answer in time".to_owned()))?;
    let reply = reply.map_err(|error| away(error.to_string()))?;
    let status = StatusCode::from_u16(reply.status)
        .map_err(|_| away(format!("the engine answered with the impossible status {}", reply.status)))?;
    if reply.body.is_empty() {
        return Ok(status.into_response());
    }
    Ok(json(status, Body::from(reply.body)))
}

/// The top of the ladder: the boot did not loop. Told once per attempt.
fn installer_called(server: &HttpServer, token: &str, from: SocketAddr) {
    let table = server.shared.tables.load();
    let Some(entry) = table.by_token(token) else { return };
    let BootTarget::Agent { attempt, .. } = &entry.target else { return };
    let mac = match server.peer(from) {
        Some(peer) if peer.entry.uid == entry.uid => peer.mac,
        _ => match entry.macs.first() {
            Some(&mac) => mac,
            None => return,
        },
    };
    let who = Who { mac, attempt };
    let now = crate::clock::now();
    let before = server.shared.sessions().stage(who, now).0;
    server.shared.sessions().reached(who, Stage::AgentSeen, now);
    if before != Stage::AgentSeen {
        let what = format!("HTTP: the installer of attempt {attempt} called from {}", from.ip().to_canonical());
        server.shared.recorder.note(mac, Some(entry.host.clone()), what);
    }
}
