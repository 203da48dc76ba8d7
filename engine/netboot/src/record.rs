//! Tells the engine what was seen on the network, in batches, without ever holding up an answer.
//!
//! While the engine is away the newest events are kept and told afterwards; when there are too many, the oldest go and their
//! number is told instead. What an interface does again and again is told once per [`REPEAT`]: a machine that asks without
//! end must not fill the engine's record.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use vmetal_api::netboot::NetbootClient;
use vmetal_model::boot::BootEvent;
use vmetal_model::net::MacAddr;

/// Events on their way to the task that tells them; more than this at once are dropped and logged.
const QUEUE: usize = 4096;
/// Events kept while the engine is away.
const KEPT: usize = 8192;
/// Events per call.
const BATCH: usize = 256;
/// A moment for the events of one exchange to gather.
const GATHER: Duration = Duration::from_millis(50);
/// The pause before events are told again.
const RETRY: Duration = Duration::from_secs(2);

/// The same event of the same interface is not told again within this time.
pub const REPEAT: Duration = Duration::from_secs(10);
/// Events remembered in order to recognise repetitions.
const REMEMBERED: usize = 4096;

/// What was told lately.
#[derive(Debug, Default)]
struct Lately(HashMap<(MacAddr, String), Instant>);

impl Lately {
    /// True unless the same was told within [`REPEAT`].
    fn is_news(&mut self, mac: MacAddr, what: &str, now: Instant) -> bool {
        let key = (mac, what.to_owned());
        if self.0.get(&key).is_some_and(|&told| now.saturating_duration_since(told) < REPEAT) {
            return false;
        }
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, told| now.saturating_duration_since(*told) < REPEAT);
        }
        if self.0.len() < REMEMBERED {
            self.0.insert(key, now);
        }
        true
    }
}

/// Where events are put. Cheap to clone; never blocks.
#[derive(Debug, Clone)]
pub struct Recorder {
    sender: mpsc::Sender<BootEvent>,
    lately: Arc<Mutex<Lately>>,
}

/// The other end of a [`Recorder`].
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<BootEvent>,
}

impl Recorder {
    /// A recorder and the events that come out of it.
    pub fn new() -> (Recorder, Events) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Recorder { sender, lately: Arc::default() }, Events { receiver })
    }

    /// Notes one event, now.
    pub fn note(&self, mac: MacAddr, host: Option<String>, what: String) {
        let news = self.lately.lock().unwrap_or_else(PoisonError::into_inner).is_news(mac, &what, crate::clock::now());
        if !news {
            tracing::debug!(%mac, "again: {what}");
            return;
        }
        tracing::info!(%mac, host = host.as_deref().unwrap_or("-"), "{what}");
        let event = BootEvent { mac, host, what, at: crate::clock::timestamp() };
        if let Err(error) = self.sender.try_send(event) {
            tracing::warn!(%error, "a boot event was dropped");
        }
    }
}

impl Events {
    /// The next event; `None` when every recorder is gone.
    pub async fn next(&mut self) -> Option<BootEvent> {
        self.receiver.recv().await
    }

    /// Tells the engine everything, until every recorder is gone.
    pub async fn tell(mut self, engine: NetbootClient) {
        let mut kept: VecDeque<BootEvent> = VecDeque::new();
        let mut lost: u64 = 0;
        loop {
            if kept.is_empty() {
                let Some(event) = self.next().await else { return };
                kept.push_back(event);
                tokio::time::sleep(GATHER).await;
            }
            while let Ok(event) = self.receiver.try_recv() {
                if kept.len() == KEPT {
                    kept.pop_front();
                    lost += 1;
                }
                kept.push_back(event);
            }
            let count = kept.len().min(BATCH);
            let batch = &kept.make_contiguous()[..count];
            match engine.record(batch).await {
                Ok(()) => {
                    kept.drain(..count);
                    if lost > 0 {
                        tracing::warn!(lost, "boot events were lost while the engine was away");
                        lost = 0;
                    }
                }
                Err(error) if error.is_transient() => tokio::time::sleep(RETRY).await,
                Err(error) => {
                    tracing::error!(%error, count, "the engine does not take these boot events; they are dropped");
                    kept.drain(..count);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

    #[test]
    fn a_repetition_is_told_once_in_a_while() {
        let now = crate::clock::now();
        let mut lately = Lately::default();
        assert!(lately.is_news(MAC, "a", now));
        assert!(lately.is_news(MAC, "b", now));
        assert!(!lately.is_news(MAC, "a", now + REPEAT / 2));
        assert!(lately.is_news(MacAddr([2; 6]), "a", now));
        assert!(lately.is_news(MAC, "a", now + REPEAT));
    }

    #[test]
    fn memory_is_bounded_and_news_is_told_all_the_same() {
        let now = crate::clock::now();
        let mut lately = Lately::default();
        assert!((0..REMEMBERED + 10).all(|n| lately.is_news(MAC, &n.to_string(), now)));
        assert_eq!(lately.0.len(), REMEMBERED);
        assert!(lately.is_news(MAC, "later", now + REPEAT));
        assert_eq!(lately.0.len(), 1, "what is old is forgotten");
    }

    #[tokio::test]
    async fn events_arrive_in_order() {
        let (recorder, mut events) = Recorder::new();
        for what in ["one", "one", "two"] {
            recorder.note(MAC, None, what.to_owned());
        }
        drop(recorder);
        let mut heard = Vec::new();
        while let Some(event) = events.next().await {
            heard.push(event.what);
        }
        assert_eq!(heard, ["one", "two"]);
    }
}
