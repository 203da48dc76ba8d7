//! An engine that says what it was told to say and remembers what it heard, on a real unix socket.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, reason = "each test binary uses its part")]

use std::future::Future;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::watch;
use vmetal_api::netboot::{AgentReply, AgentRequest, NetbootBackend};
use vmetal_model::boot::{BootEntry, BootEvent, BootNews, BootTable, BootTarget};
use vmetal_model::meta::Uid;

/// The engine.
pub(crate) struct FakeEngine {
    table: watch::Sender<BootTable>,
    pub(crate) events: Mutex<Vec<BootEvent>>,
    pub(crate) requests: Mutex<Vec<AgentRequest>>,
}

impl FakeEngine {
    pub(crate) fn new(entries: Vec<BootEntry>) -> Arc<Self> {
        let (table, _) = watch::channel(BootTable { revision: 1, entries });
        Arc::new(FakeEngine { table, events: Mutex::default(), requests: Mutex::default() })
    }

    pub(crate) fn set(&self, entries: Vec<BootEntry>) {
        self.table.send_modify(|table| *table = BootTable { revision: table.revision + 1, entries });
    }

    /// What was recorded, as text.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.events.lock().unwrap().iter().map(|event| event.what.clone()).collect()
    }

    /// Serves in a thread of its own until the process ends.
    pub(crate) fn serve(self: &Arc<Self>, socket: &Path) {
        std::mem::forget(self.serve_until_dropped(socket));
    }

    /// Serves in a thread of its own.
    pub(crate) fn serve_until_dropped(self: &Arc<Self>, socket: &Path) -> Serving {
        let (this, socket) = (Arc::clone(self), socket.to_owned());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let stopped = async { _ = stopped.await };
            runtime.block_on(async { vmetal_api::netboot::serve(&socket, this, stopped).await }).unwrap();
        });
        Serving { stop: Some(stop), thread: Some(thread) }
    }
}

/// An engine that is there.
pub(crate) struct Serving {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl NetbootBackend for FakeEngine {
    fn watch_boot(&self) -> BoxStream<'static, BootNews> {
        let mut receiver = self.table.subscribe();
        receiver.mark_changed();
        futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.changed().await.ok()?;
            let table = receiver.borrow_and_update().clone();
            Some((BootNews::Whole(table), receiver))
        })
        .boxed()
    }

    fn agent(&self, request: AgentRequest) -> impl Future<Output = AgentReply> + Send {
        let status = if request.path.ends_with("/phone-home") { 204 } else { 200 };
        let body = if status == 204 { Vec::new() } else { br#"{"id":"1","action":{"kind":"wait"}}"#.to_vec() };
        self.requests.lock().unwrap().push(request);
        std::future::ready(AgentReply { status, body })
    }

    fn record(&self, events: Vec<BootEvent>) -> impl Future<Output = ()> + Send {
        self.events.lock().unwrap().extend(events);
        std::future::ready(())
    }
}

/// Host number `n` has MAC `…:n` and address `172.22.0.(10+n)`.
pub(crate) fn host(name: &str, number: u8, target: BootTarget) -> BootEntry {
    BootEntry {
        host: name.to_owned(),
        uid: Uid(format!("uid-{number}")),
        macs: vec![format!("52:54:00:00:00:{number:02x}").parse().unwrap()],
        address: Ipv4Addr::new(172, 22, 0, 10 + number),
        target,
    }
}

pub(crate) fn agent(attempt: &str, token: &str) -> BootTarget {
    BootTarget::Agent { attempt: attempt.to_owned(), token: token.to_owned() }
}

/// An assets directory with recognisable contents.
pub(crate) fn assets(dir: &Path) {
    use vmetal_netboot::assets::{FileEntry, INITRD, KERNEL, LOADERS, MANIFEST, Manifest, sha256};
    let mut files = std::collections::BTreeMap::new();
    for name in [KERNEL, INITRD].into_iter().chain(LOADERS) {
        let contents = contents(name);
        std::fs::write(dir.join(name), &contents).unwrap();
        files.insert(name.to_owned(), FileEntry { sha256: sha256(&contents), size: contents.len() as u64 });
    }
    let manifest =
        Manifest { inputs: "x".into(), kernel_release: "6.1-test".into(), modules: vec![], absent: vec![], files };
    std::fs::write(dir.join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
}

/// What [`assets`] writes: 700,000 bytes that differ by name and place.
pub(crate) fn contents(name: &str) -> Vec<u8> {
    (0..700_000usize).map(|i| (i % 251) as u8 ^ name.as_bytes()[i % name.len()]).collect()
}
