//! Those who wait for news of one host: ten thousand installers wait, and each host's news is for one of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// The bells, by host.
#[derive(Default)]
pub(super) struct Waiting(Mutex<HashMap<String, (usize, Arc<Notify>)>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, (usize, Arc<Notify>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn bell(&self, host: &str) -> Bell<'_> {
        let mut bells = self.lock();
        let (count, notify) = bells.entry(host.to_owned()).or_default();
        *count += 1;
        Bell { all: self, host: host.to_owned(), notify: Arc::clone(notify) }
    }

    /// Rings for those who wait for this host, and nobody else.
    pub(super) fn ring(&self, host: &str) {
        let notify = self.lock().get(host).map(|(_, notify)| Arc::clone(notify));
        if let Some(notify) = notify {
            notify.notify_waiters();
        }
    }

    /// How many hosts are waited for.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}

/// Rings with every change of one host.
pub struct Bell<'a> {
    all: &'a Waiting,
    host: String,
    notify: Arc<Notify>,
}

impl Bell<'_> {
    /// Completes with the host's next change after this call.
    pub fn rung(&self) -> Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Bell<'_> {
    fn drop(&mut self) {
        let mut bells = self.all.lock();
        if let Some((count, _)) = bells.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                bells.remove(&self.host);
            }
        }
    }
}
