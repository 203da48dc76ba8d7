//! Tells the engine what was seen on the network, in batches, without ever holding up an answer.
//!
//! While the engine is away the newest events are kept and told afterwards; when there are too many, the oldest go and their
//! number is told instead.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
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

/// Where events are put. Cheap to clone; never blocks.
#[derive(Debug, Clone)]
pub struct Recorder {
    sender: mpsc::Sender<BootEvent>,
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
        (Recorder { sender }, Events { receiver })
    }

    /// Notes one event, now.
    pub fn note(&self, mac: MacAddr, host: Option<String>, what: String) {
        tracing::info!(%mac, host = host.as_deref().unwrap_or("-"), "{what}");
        let event = BootEvent { mac, host, what, at: Timestamp::now() };
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
