//! The HTTP server as clients see it, with an engine double behind a real socket.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests, which measure real time")]

mod support;

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::{FakeEngine, agent, host};
use vmetal_api::netboot::NetbootClient;
use vmetal_model::boot::{BootEntry, BootTable, BootTarget};
use vmetal_netboot::assets::Assets;
use vmetal_netboot::dhcp::boot::HttpBase;
use vmetal_netboot::http::HttpServer;
use vmetal_netboot::record::Recorder;
use vmetal_netboot::session::{MAX_ROUNDS, Stage, Who};
use vmetal_netboot::shared::Shared;
use vmetal_netboot::table::Table;

const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Longer than anything takes that happens at all.
const PATIENT: Duration = Duration::from_mins(1);

struct World {
    address: SocketAddr,
    shared: Arc<Shared>,
    engine: Arc<FakeEngine>,
    socket: PathBuf,
    _dir: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Debug)]
struct Reply {
    status: u16,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Reply {
    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    fn error(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        json["error"].as_str().unwrap().to_owned()
    }
}

/// Host `a` at 127.0.0.1 boots the installer, `b` at 127.0.0.3 its disk.
fn entries() -> Vec<BootEntry> {
    let mut a = host("a", 1, agent("attempt-1", "token-1"));
    a.address = Ipv4Addr::LOCALHOST;
    let mut b = host("b", 2, BootTarget::LocalDisk);
    b.address = Ipv4Addr::new(127, 0, 0, 3);
    vec![a, b]
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        support::assets(dir.path());
        let image = dir.path().join("images").join(DIGEST);
        std::fs::create_dir_all(image.join("chunks")).unwrap();
        std::fs::write(image.join("manifest.json"), b"{}").unwrap();
        std::fs::write(image.join("chunks/00ff"), b"0123456789").unwrap();
        std::fs::write(dir.path().join("images/secret"), b"secret").unwrap();
        let socket = dir.path().join("engine.sock");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (recorder, events) = Recorder::new();
        let shared = Arc::new(Shared::new(recorder));
        shared.tables.store(Table::new(BootTable { revision: 3, entries: entries() }).0);
        let engine = FakeEngine::new(entries());
        let address = runtime.block_on(async {
            let client = NetbootClient::connect(&socket);
            tokio::spawn(events.tell(client.clone()));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = HttpServer {
                base: HttpBase { address: Ipv4Addr::LOCALHOST, port: address.port() },
                assets: Arc::new(Assets::load(dir.path()).unwrap()),
                images: dir.path().join("images"),
                kernel_args: "console=ttyS0".to_owned(),
                engine: client,
                shared: Arc::clone(&shared),
            };
            tokio::spawn(server.serve(listener));
            address
        });
        World { address, shared, engine, socket, _dir: dir, _runtime: runtime }
    }

    fn with_engine() -> World {
        let world = World::new();
        world.engine.serve(&world.socket);
        let deadline = Instant::now() + PATIENT;
        while !world.socket.exists() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(10));
        }
        world
    }

    fn ask(&self, request: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENT)).unwrap();
        let mut head =
            format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses a large body may close before it has read all of it.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let split = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8(answer[..split].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Reply { status, headers, body: answer[split + 4..].to_vec() }
    }

    fn get(&self, path: &str) -> Reply {
        self.ask(&format!("GET {path}"), &[], b"")
    }

    fn eventually(&self, what: &str) {
        let deadline = Instant::now() + PATIENT;
        while !self.engine.heard().iter().any(|event| event.contains(what)) {
            assert!(Instant::now() < deadline, "{what:?} was not recorded: {:?}", self.engine.heard());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_script_is_given_to_the_reserved_address_alone() {
    let world = World::with_engine();
    for path in ["/boot/52-54-00-00-00-01/script.ipxe", "/boot/52:54:00:00:00:01/script.ipxe"] {
        let reply = world.get(path);
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.text().contains("vmetal.token=token-1"));
        assert_eq!(reply.headers["cache-control"], "no-store");
    }
    world.eventually("HTTP script: installer");
    // Host b lives at another address: we are not it.
    let refused = world.get("/boot/52-54-00-00-00-02/script.ipxe");
    assert_eq!(refused.status, 403);
    assert!(!refused.text().contains("#!ipxe"));
    world.eventually("asked for the boot files of this host and was refused");
    assert_eq!(world.get("/boot/52-54-00-00-00-77/script.ipxe").status, 404);
    assert_eq!(world.get("/boot/nonsense/script.ipxe").status, 404);
    assert_eq!(world.get("/boot/52-54-00-00-00-01/vmlinuz").status, 404);
}

#[test]
fn a_looping_host_is_told_to_stop() {
    let world = World::new();
    let who = Who { mac: entries()[0].macs[0], attempt: "attempt-1" };
    for _ in 0..=MAX_ROUNDS {
        world.shared.sessions().begin_round(who, Stage::ScriptOffered, Instant::now());
    }
    let text = world.get("/boot/52-54-00-00-00-01/script.ipxe").text();
    assert!(text.contains("poweroff") && !text.contains("token-1"), "{text}");
}

#[test]
fn kernel_and_initramfs_with_head_ranges_and_etags() {
    let world = World::with_engine();
    let wanted = support::contents("vmlinuz");
    let whole = world.get("/assets/kernel");
    assert_eq!((whole.status, &whole.body), (200, &wanted));
    assert_eq!(whole.headers["content-length"], "700000");
    assert!(!whole.headers.contains_key("transfer-encoding"), "firmware wants exact sizes");
    world.eventually("HTTP kernel 684 KiB in");
    let head = world.ask("HEAD /assets/kernel", &[], b"");
    assert_eq!((head.status, head.headers["content-length"].as_str(), head.body.len()), (200, "700000", 0));
    let part = world.ask("GET /assets/initrd", &[("Range", "bytes=300000-599999")], b"");
    assert_eq!(part.status, 206);
    assert_eq!(part.headers["content-range"], "bytes 300000-599999/700000");
    assert_eq!(part.body, support::contents("initrd.img")[300_000..600_000]);
    assert_eq!(world.ask("GET /assets/kernel", &[("Range", "bytes=700000-")], b"").status, 416);
    let etag = whole.headers["etag"].as_str();
    assert_eq!(world.ask("GET /assets/kernel", &[("If-None-Match", etag)], b"").status, 304);
    let stale = [("Range", "bytes=0-9"), ("If-Range", "\"other\"")];
    assert_eq!(world.ask("GET /assets/kernel", &stale, b"").status, 200, "a range of another file is not mixed in");
    assert_eq!(world.get("/assets/manifest.json").status, 404);
}

#[test]
fn http_boot_firmware_gets_its_loader_after_asking_for_the_size() {
    let world = World::with_engine();
    let head = world.ask("HEAD /boot/52-54-00-00-00-01/ipxe.efi", &[], b"");
    assert_eq!((head.status, head.headers["content-length"].as_str()), (200, "700000"));
    let who = Who { mac: entries()[0].macs[0], attempt: "attempt-1" };
    assert_eq!(world.shared.sessions().stage(who, Instant::now()).0, Stage::Idle, "asking is not getting");
    assert_eq!(world.get("/boot/52-54-00-00-00-01/ipxe.efi").body, support::contents("ipxe.efi"));
    world.eventually("HTTP ipxe.efi 684 KiB");
    assert_eq!(world.shared.sessions().stage(who, Instant::now()).0, Stage::LoaderServed);
}

#[test]
fn images_need_the_token_of_a_current_attempt_and_nothing_outside_is_reached() {
    let world = World::new();
    let good = [("Authorization", "Bearer token-1")];
    let chunk = format!("/images/{DIGEST}/chunks/00ff");
    assert_eq!(world.get(&chunk).status, 401);
    assert_eq!(world.ask(&format!("GET {chunk}"), &[("Authorization", "Bearer token-2")], b"").status, 401);
    assert_eq!(world.ask(&format!("GET {chunk}"), &good, b"").body, b"0123456789");
    let range = [good[0], ("Range", "bytes=4-5")];
    assert_eq!(world.ask(&format!("GET {chunk}"), &range, b"").body, b"45");
    assert_eq!(world.ask(&format!("GET /images/{DIGEST}/manifest.json"), &good, b"").body, b"{}");
    for path in [
        "/images/secret".to_owned(),
        format!("/images/{DIGEST}"),
        format!("/images/{DIGEST}/chunks"),
        format!("/images/{DIGEST}/chunks/../../secret"),
        format!("/images/{DIGEST}/chunks/..%2f..%2fsecret"),
        format!("/images/{DIGEST}/chunks/%2e%2e"),
        format!("/images/{DIGEST}/../secret"),
        "/images/..%2fsecret".to_owned(),
        "/images/ABC/manifest.json".to_owned(),
    ] {
        let reply = world.ask(&format!("GET {path}"), &good, b"");
        assert_eq!(reply.status, 404, "{path}: {}", reply.text());
    }
    // The attempt is over: so is the token.
    world.shared.tables.store(Table::new(BootTable { revision: 4, entries: entries()[1..].to_vec() }).0);
    assert_eq!(world.ask(&format!("GET {chunk}"), &good, b"").status, 401);
}

#[test]
fn the_installers_calls_are_passed_on_with_token_peer_and_query() {
    let world = World::with_engine();
    assert_eq!(world.ask("POST /agent/v1/hello", &[], b"{}").status, 401);
    let token = [("Authorization", "Bearer token-1")];
    let reply = world.ask("POST /agent/v1/hello", &token, b"{\"version\":\"1\"}");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["content-type"], "application/json");
    let reply = world.ask("GET /agent/v1/order?after=1&wait=20", &token, b"");
    assert_eq!(reply.text(), r#"{"id":"1","action":{"kind":"wait"}}"#);
    let requests = world.engine.requests.lock().unwrap().clone();
    assert_eq!((requests[0].method.as_str(), requests[0].path.as_str()), ("POST", "/agent/v1/hello"));
    assert_eq!(requests[0].body, b"{\"version\":\"1\"}");
    assert_eq!((requests[0].bearer_token.as_str(), requests[0].peer.as_str()), ("token-1", "127.0.0.1"));
    assert_eq!(requests[1].path, "/agent/v1/order?after=1&wait=20");
    world.eventually("the installer of attempt attempt-1 called");
    let calls = world.engine.heard().iter().filter(|event| event.contains("called")).count();
    assert_eq!(calls, 1, "told once per attempt");
    assert_eq!(world.ask("POST /agent/v2/hello", &token, b"").status, 404);
}

#[test]
fn an_installed_system_phones_home_with_a_token_we_do_not_know() {
    let world = World::with_engine();
    let reply = world.ask("POST /agent/v1/phone-home", &[("Authorization", "Bearer another-token")], b"instance_id=x");
    assert_eq!((reply.status, reply.body.len()), (204, 0), "the engine decides");
    assert_eq!(world.engine.requests.lock().unwrap()[0].bearer_token, "another-token");
}

#[test]
fn bodies_are_bounded() {
    let world = World::with_engine();
    let token = [("Authorization", "Bearer token-1")];
    let body = vec![b'x'; vmetal_netboot::http::MAX_BODY + 1];
    assert_eq!(world.ask("POST /agent/v1/report", &token, &body).status, 413);
    assert!(world.engine.requests.lock().unwrap().is_empty());
    assert_eq!(world.ask("POST /agent/v1/report", &token, &body[1..]).status, 200);
}

#[test]
fn while_the_engine_is_away_installers_are_told_to_ask_again_and_everything_else_goes_on() {
    let world = World::new();
    let token = [("Authorization", "Bearer token-1")];
    let reply = world.ask("POST /agent/v1/hello", &token, b"{}");
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(reply.error().starts_with("try again"), "{}", reply.error());
    assert_eq!(reply.headers["retry-after"], "2");
    assert_eq!(world.get("/boot/52-54-00-00-00-01/script.ipxe").status, 200);
    assert_eq!(world.get("/assets/kernel").status, 200);
    // It comes back: the same process serves on, and what happened meanwhile is told.
    world.engine.serve(&world.socket);
    world.eventually("HTTP script: installer");
    assert_eq!(world.ask("POST /agent/v1/hello", &token, b"{}").status, 200);
}

#[test]
fn health_and_errors_are_json() {
    let world = World::new();
    let healthy = world.get("/healthz");
    assert_eq!((healthy.status, healthy.text().as_str()), (200, r#"{"hosts":2,"revision":3}"#));
    world.shared.tables.store(Table::default());
    assert_eq!(world.get("/healthz").status, 503, "no table yet");
    assert_eq!(world.get("/nowhere").error(), "no such path");
    let refused = world.ask("POST /assets/kernel", &[], b"");
    assert_eq!((refused.status, refused.error().as_str()), (405, "only GET and HEAD"));
}
