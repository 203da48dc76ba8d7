//! The network boot socket, both sides.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt as _};
use tokio::sync::{oneshot, watch};
use vmetal_api::ServeError;
use vmetal_api::netboot::{AgentReply, AgentRequest, BootFeed, NetbootBackend, NetbootClient, serve};
use vmetal_model::Timestamp;
use vmetal_model::boot::{BootEvent, BootNews, BootTable};

struct Engine {
    table: watch::Receiver<BootTable>,
    seen: Mutex<Vec<BootEvent>>,
}

impl NetbootBackend for Engine {
    fn watch_boot(&self) -> BoxStream<'static, BootNews> {
        tokio_stream::wrappers::WatchStream::new(self.table.clone()).map(BootNews::Whole).boxed()
    }

    async fn agent(&self, request: AgentRequest) -> AgentReply {
        let body = format!("{} {} {} {}", request.method, request.path, request.bearer_token, request.peer);
        AgentReply { status: 409, body: [body.into_bytes(), request.body].concat() }
    }

    async fn record(&self, events: Vec<BootEvent>) {
        self.seen.lock().unwrap().extend(events);
    }
}

fn engine() -> (watch::Sender<BootTable>, Arc<Engine>) {
    let (sender, table) = watch::channel(BootTable { revision: 1, entries: Vec::new() });
    (sender, Arc::new(Engine { table, seen: Mutex::new(Vec::new()) }))
}

fn start(path: &Path, engine: Arc<Engine>) -> (oneshot::Sender<()>, tokio::task::JoinHandle<Result<(), ServeError>>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let path = path.to_owned();
    let task = tokio::spawn(async move {
        serve(&path, engine, async {
            let _ = stopped.await;
        })
        .await
    });
    (stop, task)
}

async fn until_there(path: &Path) {
    for _ in 0..6_000 {
        if tokio::net::UnixStream::connect(path).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} did not appear", path.display());
}

#[tokio::test]
async fn the_three_calls_cross_a_private_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("netboot.sock");
    let (table, engine) = engine();
    let (stop, task) = start(&path, Arc::clone(&engine));
    until_there(&path).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing but the socket is left");

    let client = NetbootClient::connect(&path);
    let mut boot = client.watch_boot().await.unwrap();
    assert_eq!(boot.next().await.unwrap().unwrap(), BootNews::Whole(BootTable { revision: 1, entries: Vec::new() }));
    table.send_replace(BootTable { revision: 2, entries: Vec::new() });
    assert_eq!(boot.next().await.unwrap().unwrap(), BootNews::Whole(BootTable { revision: 2, entries: Vec::new() }));

    let request = AgentRequest {
        method: "POST".into(),
        path: "/agent/v1/hello?a=b".into(),
        bearer_token: "secret".into(),
        peer: "172.22.0.9".into(),
        body: vec![0, 255],
    };
    assert!(!format!("{request:?}").contains("secret"));
    let reply = client.agent(request).await.unwrap();
    assert_eq!((reply.status, reply.body), (409, b"POST /agent/v1/hello?a=b secret 172.22.0.9\x00\xff".to_vec()));

    let event = BootEvent {
        mac: "52:54:00:00:00:01".parse().unwrap(),
        host: Some("a".into()),
        what: "DHCP offer".into(),
        at: Timestamp::UNIX_EPOCH,
    };
    client.record(std::slice::from_ref(&event)).await.unwrap();
    assert_eq!(*engine.seen.lock().unwrap(), [event]);

    stop.send(()).unwrap();
    task.await.unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("netboot.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dropped listener leaves its socket, as a dead process does");
    let (_table, engine) = engine();
    let (stop, task) = start(&path, Arc::clone(&engine));
    until_there(&path).await;
    let second = serve(&path, Arc::clone(&engine), std::future::pending()).await.unwrap_err();
    assert!(matches!(second, ServeError::InUse { .. }), "{second:?}");
    NetbootClient::connect(&path).record(&[]).await.unwrap();
    stop.send(()).unwrap();
    task.await.unwrap().unwrap();

    std::fs::write(&path, "precious").unwrap();
    let error = serve(&path, engine, std::future::pending()).await.unwrap_err();
    assert!(error.to_string().contains("not a socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn the_feed_tells_an_outage_once_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("netboot.sock");
    let (table, engine) = engine();
    let mut feed = NetbootClient::connect(&path).follow_boot();
    assert!(matches!(feed.next().await.unwrap(), BootFeed::Away(_)));
    let (stop, task) = start(&path, Arc::clone(&engine));
    assert!(matches!(feed.next().await.unwrap(), BootFeed::Table(t) if t.revision == 1));
    stop.send(()).unwrap();
    task.await.unwrap().unwrap();
    assert!(matches!(feed.next().await.unwrap(), BootFeed::Away(_)));
    table.send_replace(BootTable { revision: 5, entries: Vec::new() });
    let (_stop, task) = start(&path, engine);
    assert!(matches!(feed.next().await.unwrap(), BootFeed::Table(t) if t.revision == 5));
    task.abort();
}

/// Only meaningful as root, which may become anybody; anybody else cannot even try.
#[tokio::test]
async fn a_process_of_another_user_is_turned_away() {
    if std::fs::metadata("/proc/self").map(|m| std::os::unix::fs::MetadataExt::uid(&m)).unwrap() != 0 {
        println!("SKIPPED: needs root to run a process as another user");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = dir.path().join("netboot.sock");
    let (_table, engine) = engine();
    let (stop, task) = start(&path, engine);
    until_there(&path).await;
    // As if an administrator had opened the mode by mistake: the check of the peer still holds.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\ns.settimeout(5)\n\
                  s.sendall(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n'+bytes(3)+b'\\x04'+bytes(5))\n\
                  sys.exit(0 if s.recv(9) else 7)\n";
    let answer = |uid: u32| {
        let path = path.clone();
        async move {
            let mut command = tokio::process::Command::new("python3");
            command.args(["-c", script]).arg(path).uid(uid).gid(uid).stderr(std::process::Stdio::null());
            command.status().await.unwrap().code()
        }
    };
    assert_eq!(answer(0).await, Some(0), "our own user is answered");
    assert_ne!(answer(65534).await, Some(0), "another user is turned away");
    stop.send(()).unwrap();
    task.await.unwrap().unwrap();
}
