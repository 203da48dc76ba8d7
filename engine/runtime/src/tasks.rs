//! Effects in flight.
//!
//! A call that changes a machine must not be dropped half-way: nobody could say what it has done. So effects run in
//! tasks of their own, owned by a [`Tasks`], which never aborts one. Their owner collects what became of them, also of
//! those that panicked. Shutting down is waiting, up to a deadline, and then saying which ones were still on their way;
//! their intent records stay open in the store, so that the next start looks before it acts.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

/// Tasks that each have a tag (what they are for) and a result.
#[derive(Debug)]
pub struct Tasks<G, T: 'static> {
    set: JoinSet<T>,
    tags: HashMap<Id, G>,
}

/// A task that has ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Finished<G, T> {
    /// What it was for.
    pub tag: G,
    /// What it returned, or why it did not.
    pub result: Result<T, TaskError>,
}

/// Why a task returned nothing. What it had set out to do may or may not have happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// A defect in the code of the task.
    #[error("the task panicked: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// The runtime was shut down under it.
    #[error("the task was cut off by the end of the runtime")]
    Cancelled,
}

/// The end of a [`Tasks`].
#[derive(Debug, PartialEq, Eq)]
pub struct Drained<G, T> {
    /// Tasks that ended in time.
    pub finished: Vec<Finished<G, T>>,
    /// What the tasks were for that did not; they run on for as long as the process lives.
    pub unfinished: Vec<G>,
}

impl<G, T: Send + 'static> Tasks<G, T> {
    /// None yet.
    pub fn new() -> Self {
        Self { set: JoinSet::new(), tags: HashMap::new() }
    }

    /// Starts a task. Must be called inside a tokio runtime.
    pub fn spawn(&mut self, tag: G, task: impl Future<Output = T> + Send + 'static) {
        let id = self.set.spawn(task).id();
        self.tags.insert(id, tag);
    }

    /// How many have not been collected.
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether all have been collected.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// What the tasks that have not been collected are for, in no order.
    pub fn tags(&self) -> impl Iterator<Item = &G> {
        self.tags.values()
    }

    /// Waits for the next task to end; `None` if there is none. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Finished<G, T>> {
        loop {
            let ended = self.set.join_next_with_id().await?;
            let id = match &ended {
                Ok((id, _)) => *id,
                Err(error) => error.id(),
            };
            // Every task was given a tag in the call that started it.
            if let Some(tag) = self.tags.remove(&id) {
                return Some(Finished { tag, result: ended.map(|(_, value)| value).map_err(failure) });
            }
        }
    }

    /// Waits for all tasks, but no longer than `patience`.
    pub async fn drain(mut self, patience: Duration) -> Drained<G, T> {
        let deadline = Instant::now() + patience;
        let mut finished = Vec::new();
        while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, self.next()).await {
            finished.push(ended);
        }
        let unfinished = std::mem::take(&mut self.tags).into_values().collect();
        Drained { finished, unfinished }
    }
}

impl<G, T: Send + 'static> Default for Tasks<G, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<G, T: 'static> Drop for Tasks<G, T> {
    fn drop(&mut self) {
        if !self.tags.is_empty() {
            tracing::warn!(tasks = self.tags.len(), "effects are left to themselves; nobody will see their outcome");
        }
        // A join set aborts what it holds when it is dropped.
        self.set.detach_all();
    }
}

fn failure(error: JoinError) -> TaskError {
    match error.try_into_panic() {
        Ok(panic) => TaskError::Panicked { message: message(panic.as_ref()) },
        Err(_) => TaskError::Cancelled,
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_a_value_and_harms_nobody_else() {
        let mut tasks = Tasks::new();
        tasks.spawn("bad", async { panic!("disk {} is on fire", 7) });
        tasks.spawn("good", async {
            tokio::time::sleep(SECOND).await;
            7
        });
        assert_eq!(tasks.len(), 2);
        let panicked = Err(TaskError::Panicked { message: "disk 7 is on fire".to_owned() });
        assert_eq!(tasks.next().await, Some(Finished { tag: "bad", result: panicked }));
        assert_eq!(tasks.tags().collect::<Vec<_>>(), [&"good"]);
        assert_eq!(tasks.next().await, Some(Finished { tag: "good", result: Ok(7) }));
        assert_eq!(tasks.next().await, None);
        assert!(tasks.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn draining_waits_to_its_deadline_and_names_what_is_left() {
        let completed = Arc::new(AtomicBool::new(false));
        let mut tasks = Tasks::new();
        tasks.spawn("short", async { tokio::time::sleep(SECOND).await });
        tasks.spawn("long", {
            let completed = Arc::clone(&completed);
            async move {
                tokio::time::sleep(20 * SECOND).await;
                completed.store(true, Ordering::SeqCst);
            }
        });
        let start = Instant::now();
        let drained = tasks.drain(10 * SECOND).await;
        assert_eq!(start.elapsed(), 10 * SECOND);
        assert_eq!(
            drained,
            Drained { finished: vec![Finished { tag: "short", result: Ok(()) }], unfinished: vec!["long"] }
        );
        tokio::time::sleep(15 * SECOND).await;
        assert!(completed.load(Ordering::SeqCst), "it was not cut off");
    }

    #[tokio::test(start_paused = true)]
    async fn draining_what_ends_early_does_not_wait() {
        let mut tasks = Tasks::new();
        tasks.spawn(1, async { tokio::time::sleep(SECOND).await });
        let start = Instant::now();
        assert!(tasks.drain(60 * SECOND).await.unfinished.is_empty());
        assert_eq!(start.elapsed(), SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_owner_does_not_cut_off_an_effect() {
        let (send, receive) = tokio::sync::oneshot::channel();
        let mut tasks = Tasks::new();
        tasks.spawn("effect", async move {
            tokio::time::sleep(SECOND).await;
            send.send("done").unwrap();
        });
        drop(tasks);
        assert_eq!(receive.await.unwrap(), "done");
    }
}
