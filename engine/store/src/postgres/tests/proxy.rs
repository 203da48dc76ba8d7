//! A way to the database that breaks when it is told to.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::PostgresUrl;

/// Listens on a unix socket of its own and passes everything on to another one.
pub(super) struct Proxy {
    dir: TempDir,
    state: Arc<State>,
}

struct State {
    /// Bytes that still pass to the server and from it before all connections are cut; negative: no end.
    left: [AtomicI64; 2],
    cuts: AtomicU64,
    /// Whether the next answer to a commit is lost with all connections.
    at_commit: AtomicBool,
    mode: watch::Sender<Mode>,
    /// Grows with each cut; connections of an earlier age end.
    age: watch::Sender<u64>,
    /// What has been swallowed.
    swallowed: Mutex<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Open,
    /// The server's answers to commits are not passed on.
    Swallowing,
    Closed,
}

const TO_SERVER: usize = 0;
const FROM_SERVER: usize = 1;

impl Proxy {
    pub(super) async fn start(server: PathBuf) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(server.file_name().unwrap())).unwrap();
        let state = Arc::new(State {
            left: [AtomicI64::new(-1), AtomicI64::new(-1)],
            cuts: AtomicU64::new(0),
            at_commit: AtomicBool::new(false),
            mode: watch::Sender::new(Mode::Open),
            age: watch::Sender::new(0),
            swallowed: Mutex::default(),
        });
        let accepting = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *accepting.mode.borrow() == Mode::Closed {
                    continue;
                }
                let Ok(server) = UnixStream::connect(&server).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let age = accepting.age.subscribe();
                tokio::spawn(Arc::clone(&accepting).pass(TO_SERVER, from_client, to_server, age.clone()));
                tokio::spawn(Arc::clone(&accepting).pass(FROM_SERVER, from_server, to_client, age));
            }
        });
        Self { dir, state }
    }

    /// Sends the connections of a URL this way.
    pub(super) fn reroute(&self, url: &mut PostgresUrl) {
        let mut config = tokio_postgres::Config::new();
        config.user(url.config.get_user().unwrap()).dbname(url.config.get_dbname().unwrap());
        config.host_path(self.dir.path()).ssl_mode(tokio_postgres::config::SslMode::Disable);
        config.connect_timeout(Duration::from_secs(60));
        url.config = config;
    }

    /// Cuts all connections after so many bytes more to the server, or from it.
    pub(super) fn cut_after(&self, to_server: bool, bytes: u64) {
        let way = if to_server { TO_SERVER } else { FROM_SERVER };
        self.state.left[way].store(bytes as i64, Ordering::SeqCst);
    }

    /// Cuts all connections when the server has made the next commit, and before anyone hears of it.
    pub(super) fn cut_at_commit(&self) {
        self.state.at_commit.store(true, Ordering::SeqCst);
    }

    pub(super) fn cuts(&self) -> u64 {
        self.state.cuts.load(Ordering::SeqCst)
    }

    /// From now on nobody hears that a commit was made.
    pub(super) fn swallow_answers(&self) {
        self.state.mode.send_replace(Mode::Swallowing);
    }

    /// Cuts everything and lets nobody in, if an answer to a commit has been swallowed.
    pub(super) async fn close_once_committed(&self) {
        let swallowed = answers_commit(&self.state.swallowed.lock().unwrap());
        if swallowed && *self.state.mode.borrow() == Mode::Swallowing {
            self.state.mode.send_replace(Mode::Closed);
            self.state.cut();
        }
    }

    pub(super) fn open_again(&self) {
        self.state.mode.send_replace(Mode::Open);
    }
}

fn answers_commit(bytes: &[u8]) -> bool {
    bytes.windows(7).any(|window| window == b"COMMIT\0")
}

impl State {
    fn cut(&self) {
        self.left.iter().for_each(|left| left.store(-1, Ordering::SeqCst));
        self.cuts.fetch_add(1, Ordering::SeqCst);
        self.age.send_modify(|age| *age += 1);
    }

    async fn pass(
        self: Arc<Self>,
        way: usize,
        mut from: tokio::net::unix::OwnedReadHalf,
        mut to: tokio::net::unix::OwnedWriteHalf,
        mut age: watch::Receiver<u64>,
    ) {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let read = tokio::select! {
                read = from.read(&mut buffer) => read,
                _ = age.changed() => return,
            };
            let Ok(count @ 1..) = read else { return };
            let mut bytes = &buffer[..count];
            // The answer to the statements before the commit is in the same packet, or in one that has passed.
            if way == FROM_SERVER && answers_commit(bytes) {
                if *self.mode.borrow() == Mode::Swallowing {
                    self.swallowed.lock().unwrap().extend_from_slice(bytes);
                    continue;
                }
                if self.at_commit.swap(false, Ordering::SeqCst) {
                    self.cut();
                    return;
                }
            }
            let left = self.left[way].load(Ordering::SeqCst);
            if left >= 0 {
                let passing = bytes.len().min(left as usize);
                bytes = &bytes[..passing];
                self.left[way].store(left - passing as i64, Ordering::SeqCst);
            }
            let _ = to.write_all(bytes).await;
            if left >= 0 && left <= count as i64 {
                self.cut();
                return;
            }
        }
    }
}
