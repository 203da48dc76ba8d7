//! Plays the engine and its image server, with faults. HTTP/1.1, one request per connection.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vmetal_agent::engine::Pace;
use vmetal_image::ImageStore;
use vmetal_model::agent::{Hello, Order, Report, ReportBody};

pub(crate) const TOKEN: &str = "token-of-this-attempt";

/// Longer than anything takes that happens at all.
const PATIENT: Duration = Duration::from_mins(1);

/// What goes wrong with a request. A fault is used up by the first request whose path contains its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// 503 with the engine's error body.
    Unavailable,
    /// The connection is closed without an answer.
    Reset,
    /// Half of the body, then the connection is closed.
    Cut,
    /// One bit of the body is wrong.
    Corrupt,
    /// The request is carried out and the answer is lost.
    LostAnswer,
    /// The answer waits until progress has been reported.
    Held,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) orders: VecDeque<Order>,
    pub(crate) current: Option<Order>,
    pub(crate) faults: Vec<(&'static str, Fault)>,
    pub(crate) hellos: Vec<Hello>,
    pub(crate) reports: Vec<Report>,
    pub(crate) refused: usize,
    pub(crate) hits: HashMap<String, usize>,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<(Mutex<State>, Condvar)>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(images: PathBuf, orders: Vec<Order>, faults: Vec<(&'static str, Fault)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { orders: orders.into(), faults, ..State::default() };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (shared, stop) = (shared.clone(), stop.clone());
            thread::spawn(move || {
                let store = ImageStore::new(images);
                for stream in listener.incoming() {
                    if stop.load(Ordering::Acquire) {
                        return;
                    }
                    let (store, shared) = (store.clone(), shared.clone());
                    thread::spawn(move || drop(serve(stream.unwrap(), &store, &shared)));
                }
            })
        };
        Server { address, shared, stop, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.0.lock().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
        self.thread.take().unwrap().join().unwrap();
    }
}

/// As the real thing, only less patient.
pub(crate) fn pace() -> Pace {
    Pace {
        retry_min: Duration::from_millis(5),
        retry_max: Duration::from_millis(40),
        hold: Duration::from_secs(1),
        heartbeat: Duration::from_millis(100),
        progress: Duration::from_millis(20),
        image_patience: PATIENT,
        stall: PATIENT,
    }
}

fn serve(mut stream: TcpStream, store: &ImageStore, shared: &(Mutex<State>, Condvar)) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut length, mut authorized) = (0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let header = header.trim();
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').unwrap();
        match name.to_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "authorization" => authorized = value.trim() == format!("Bearer {TOKEN}"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;

    let fault = {
        let mut state = shared.0.lock().unwrap();
        *state.hits.entry(path.split('?').next().unwrap().to_owned()).or_default() += 1;
        let at = state.faults.iter().position(|(part, _)| path.contains(part));
        at.map(|at| state.faults.remove(at).1)
    };
    let (status, mut answer) = match fault {
        Some(Fault::Unavailable) => (503, br#"{"error":"engine away"}"#.to_vec()),
        Some(Fault::Reset) => return stream.shutdown(Shutdown::Both),
        Some(Fault::Held) => {
            await_progress(shared);
            answer(&path, &body, store, shared)
        }
        _ if !authorized => {
            shared.0.lock().unwrap().refused += 1;
            (401, br#"{"error":"unknown token"}"#.to_vec())
        }
        _ => answer(&path, &body, store, shared),
    };
    match fault {
        Some(Fault::LostAnswer) => return stream.shutdown(Shutdown::Both),
        Some(Fault::Corrupt) => {
            let middle = answer.len() / 2;
            answer[middle] ^= 1;
        }
        _ => {}
    }
    let sent = if fault == Some(Fault::Cut) { answer.len() / 2 } else { answer.len() };
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(&answer[..sent])?;
    stream.shutdown(Shutdown::Both)
}

fn await_progress((lock, changed): &(Mutex<State>, Condvar)) {
    let none = |state: &mut State| !state.reports.iter().any(|r| matches!(r.body, ReportBody::Progress(_)));
    drop(changed.wait_timeout_while(lock.lock().unwrap(), PATIENT, none).unwrap());
}

fn answer(path: &str, body: &[u8], store: &ImageStore, shared: &(Mutex<State>, Condvar)) -> (u16, Vec<u8>) {
    let (lock, changed) = shared;
    if let Some(file) = path.strip_prefix("/images/") {
        return match store.resolve(file).map(std::fs::read) {
            Some(Ok(bytes)) => (200, bytes),
            _ => (404, br#"{"error":"no such image"}"#.to_vec()),
        };
    }
    if path == "/agent/v1/hello" {
        let mut state = lock.lock().unwrap();
        state.hellos.push(serde_json::from_slice(body).unwrap());
        let order = state.orders.pop_front().unwrap();
        state.current = Some(order.clone());
        return (200, serde_json::to_vec(&order).unwrap());
    }
    if path == "/agent/v1/report" {
        let report: Report = serde_json::from_slice(body).unwrap();
        let mut state = lock.lock().unwrap();
        state.reports.push(report);
        changed.notify_all();
        return (204, Vec::new());
    }
    if let Some(after) = path.strip_prefix("/agent/v1/order?after=").and_then(|rest| rest.split('&').next()) {
        // Held for a little while, as the engine does.
        let idle = |state: &mut State| {
            state.orders.is_empty() && state.current.as_ref().is_some_and(|order| order.id == after)
        };
        let mut state = changed.wait_timeout_while(lock.lock().unwrap(), Duration::from_millis(50), idle).unwrap().0;
        if state.current.as_ref().is_some_and(|order| order.id == after)
            && let Some(next) = state.orders.pop_front()
        {
            state.current = Some(next);
        }
        return (200, serde_json::to_vec(&state.current).unwrap());
    }
    (404, br#"{"error":"no such path"}"#.to_vec())
}
