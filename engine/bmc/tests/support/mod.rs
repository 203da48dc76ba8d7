//! A BMC that does what a test scripts, over clear text or TLS, and remembers what it was asked.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "tests; not every test file uses everything")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use vmetal_bmc::{AddressGuard, Alone, BmcTarget, Config, Gateways};
use vmetal_model::TlsTrust;

/// The fence of a test: it lets everything through.
pub fn alone() -> Arc<Alone> {
    Arc::new(Alone)
}

/// What was asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub authorization: Option<String>,
    pub if_match: Option<String>,
    pub body: Value,
}

/// What is answered.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub delay: Duration,
}

pub fn json_reply(value: Value) -> Reply {
    status(200, value)
}

pub fn status(status: u16, value: Value) -> Reply {
    Reply { status, headers: Vec::new(), body: value.to_string().into_bytes(), delay: Duration::ZERO }
}

pub fn empty(status: u16) -> Reply {
    Reply { status, headers: Vec::new(), body: Vec::new(), delay: Duration::ZERO }
}

impl Reply {
    pub fn header(mut self, name: &'static str, value: &str) -> Reply {
        self.headers.push((name, value.into()));
        self
    }

    pub fn after(mut self, delay: Duration) -> Reply {
        self.delay = delay;
        self
    }
}

pub type Script = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

pub struct Fake {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    pub most_at_once: Arc<AtomicUsize>,
    scheme: &'static str,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Fake {
        Self::serve(Arc::new(script), None).await
    }

    pub async fn start_tls(tls: rustls::ServerConfig, script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Fake {
        Self::serve(Arc::new(script), Some(tls)).await
    }

    async fn serve(script: Script, tls: Option<rustls::ServerConfig>) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "redfish+https" } else { "redfish+http" };
        let (seen, most, now) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)), Arc::default());
        let app = {
            let (seen, most, now): (_, _, Arc<AtomicUsize>) = (Arc::clone(&seen), Arc::clone(&most), now);
            axum::Router::new().fallback(move |request: Request| {
                let (script, seen, most, now) = (script.clone(), seen.clone(), most.clone(), now.clone());
                async move {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let asked = read(request).await;
                    seen.lock().unwrap().push(asked.clone());
                    let reply = script(&asked);
                    tokio::time::sleep(reply.delay).await;
                    now.fetch_sub(1, Ordering::SeqCst);
                    let mut response = Response::builder().status(reply.status);
                    for (name, value) in reply.headers {
                        response = response.header(name, value);
                    }
                    response.body(Body::from(reply.body)).unwrap()
                }
            })
        };
        let tls = tls.map(|tls| tokio_rustls::TlsAcceptor::from(Arc::new(tls)));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (app, tls) = (app.clone(), tls.clone());
                tokio::spawn(async move {
                    let service = hyper_util::service::TowerToHyperService::new(app);
                    let http = hyper::server::conn::http1::Builder::new();
                    match tls {
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            let _ = http.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
                        }
                        None => {
                            let _ = http.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
                        }
                    }
                });
            }
        });
        Fake { address, seen, most_at_once: most, scheme, task }
    }

    /// A target without a system path.
    pub fn target(&self) -> BmcTarget {
        target(&format!("{}://{}", self.scheme, self.address))
    }

    pub fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|s| format!("{} {}", s.method, s.path)).collect()
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

async fn read(request: Request) -> Seen {
    let (parts, body) = request.into_parts();
    let text = |name: &str| Some(parts.headers.get(name)?.to_str().unwrap().to_owned());
    let (authorization, if_match) = (text("authorization"), text("if-match"));
    let (method, path) = (parts.method.to_string(), parts.uri.to_string());
    let bytes = to_bytes(body, 1 << 20).await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Seen { method, path, authorization, if_match, body }
}

pub fn target(address: &str) -> BmcTarget {
    BmcTarget {
        address: address.parse().unwrap(),
        username: "admin".into(),
        password: "secret".into(),
        password_version: "1".into(),
        tls: TlsTrust::Verify,
        system_path: None,
    }
}

/// Loopback allowed, everything quick but what gives up: that is for the tests in which something never comes.
pub fn config() -> Config {
    let mut config = Config::new(AddressGuard::parse(["127.0.0.0/8", "::1/128"]).unwrap());
    config.rate_per_second = 10_000.0;
    config.burst = 1000;
    config.poll = Duration::from_millis(5);
    config.power_timeout = Duration::from_hours(1);
    config.request_timeout = Duration::from_mins(1);
    config
}

pub fn gateways() -> Gateways {
    Gateways::new(config())
}

/// For systems that never reach the power state they are asked for.
pub fn impatient() -> Gateways {
    Gateways::new(Config { power_timeout: Duration::from_millis(400), ..config() })
}

pub fn root() -> Value {
    json!({"RedfishVersion": "1.17.0", "Systems": {"@odata.id": "/redfish/v1/Systems"}})
}

pub fn systems(paths: &[&str]) -> Value {
    let members: Vec<Value> = paths.iter().map(|path| json!({ "@odata.id": path })).collect();
    json!({ "Members": members })
}

pub const SYSTEM: &str = "/redfish/v1/Systems/1";
pub const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";

/// A system that is in this state.
pub fn system(power: &str, boot: Value) -> Value {
    json!({
        "Manufacturer": " Acme ", "Model": "M1", "SerialNumber": "S1", "UUID": "AB", "PowerState": power, "Boot": boot,
        "Links": {"ManagedBy": [{"@odata.id": "/redfish/v1/Managers/1"}]},
        "Actions": {"#ComputerSystem.Reset": {"target": RESET, "ResetType@Redfish.AllowableValues": ["On", "ForceOff"]}},
    })
}

/// The usual tree around one system.
pub fn tree(seen: &Seen, system: Value) -> Reply {
    match (seen.method.as_str(), seen.path.as_str()) {
        ("GET", "/redfish/v1/") => json_reply(root()),
        ("GET", "/redfish/v1/Systems") => json_reply(systems(&[SYSTEM])),
        ("GET", SYSTEM) => json_reply(system),
        ("GET", "/redfish/v1/Managers/1") => json_reply(json!({"FirmwareVersion": "7.10"})),
        _ => status(404, json!({})),
    }
}
