//! The threads that read.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::schema;
use crate::error::{OpenError, ReadError};

/// Two, so that a long list or a backup does not hold up a get.
const READERS: usize = 2;
/// Reads that may wait; whoever comes next waits for a place.
const QUEUE: usize = 1_024;

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// The callers' end of the readers.
#[derive(Debug)]
pub(super) struct Pool {
    jobs: Option<mpsc::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    pub(super) fn start(path: &Path) -> Result<Self, OpenError> {
        let (jobs, queue) = mpsc::channel::<Job>(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        let mut threads = Vec::new();
        for number in 0..READERS {
            let connection = schema::open_reader(path)?;
            let queue = Arc::clone(&queue);
            let work = move || {
                loop {
                    // Held while waiting: the other readers wait for the lock instead.
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
                    let Some(job) = job else { break };
                    job(&connection);
                }
            };
            let thread = std::thread::Builder::new().name(format!("store-reader-{number}")).spawn(work);
            threads.push(thread.map_err(|source| OpenError::Io { path: path.to_owned(), source })?);
        }
        Ok(Self { jobs: Some(jobs), threads })
    }

    /// Runs `query` in a snapshot taken now.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let stopped = || ReadError::Unavailable { reason: "the store's readers have stopped".to_owned(), source: None };
        let (reply, result) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // A caller that has gone away is not worth a query.
            if !reply.is_closed() {
                let _ = reply.send(in_snapshot(connection, query));
            }
        });
        self.jobs.as_ref().ok_or_else(stopped)?.send(job).await.map_err(|_| stopped())?;
        result.await.map_err(|_| stopped())?
    }

    /// Waits until the readers have ended.
    pub(super) fn close(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a reader of the store panicked");
            }
        }
    }
}

/// All statements of a query see one state of the store.
fn in_snapshot<T>(
    connection: &Connection,
    query: impl FnOnce(&Connection) -> Result<T, ReadError>,
) -> Result<T, ReadError> {
    let snapshot = connection.unchecked_transaction()?;
    let result = query(&snapshot);
    snapshot.finish()?;
    result
}
