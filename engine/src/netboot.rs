//! The network boot process' questions: what to boot, and what installers say.

use std::collections::BTreeMap;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio_stream::wrappers::WatchStream;
use vmetal_api::netboot::{AgentReply, AgentRequest, NetbootBackend};
use vmetal_lifecycle::Note;
use vmetal_model::boot::{BootEntry, BootEvent, BootTable, BootTarget};
use vmetal_model::{Host, HostPhase, Severity, Stage};

use crate::engine::Engine;
use crate::fleet::Fleet;
use crate::ledger::Batch;
use crate::ownership::Author;

/// The boot table, kept up to date one host at a time.
pub struct Table {
    entries: BTreeMap<String, BootEntry>,
}

impl Table {
    /// The table of all hosts.
    pub fn new(fleet: &Fleet) -> Self {
        let hosts = fleet.hosts();
        let entries = hosts.iter().filter_map(|host| Some((host.name().to_owned(), entry(host, fleet)?))).collect();
        Table { entries }
    }

    /// Takes in a host as it is now; true when the table changed.
    pub fn update(&mut self, host: &Host, fleet: &Fleet) -> bool {
        match entry(host, fleet) {
            Some(new) if self.entries.get(host.name()) == Some(&new) => false,
            Some(new) => {
                self.entries.insert(host.name().to_owned(), new);
                true
            }
            None => self.entries.remove(host.name()).is_some(),
        }
    }

    /// Forgets a host; true when the table changed.
    pub fn remove(&mut self, name: &str) -> bool {
        self.entries.remove(name).is_some()
    }

    /// The table as it is sent.
    pub fn publish(&self, revision: u64) -> BootTable {
        BootTable { revision, entries: self.entries.values().cloned().collect() }
    }
}

/// What one host should boot; `None` until it has an address.
fn entry(host: &Host, fleet: &Fleet) -> Option<BootEntry> {
    let status = &host.status;
    let booting = matches!(status.stage, Stage::BootDevice | Stage::On | Stage::Agent | Stage::Work)
        && status.phase != HostPhase::Error;
    let attempt = status.boot.as_ref().filter(|boot| booting && boot.work_done.is_none());
    let target = match (attempt, fleet.token(&host.metadata.uid)) {
        (Some(boot), Some(token)) => BootTarget::Agent { attempt: boot.id.clone(), token },
        _ => BootTarget::LocalDisk,
    };
    Some(BootEntry {
        host: host.name().to_owned(),
        uid: host.metadata.uid.clone(),
        macs: vec![host.spec.boot_mac],
        address: status.address?,
        target,
    })
}

impl NetbootBackend for Engine {
    fn watch_boot(&self) -> BoxStream<'static, BootTable> {
        WatchStream::new(self.boot.subscribe()).boxed()
    }

    async fn agent(&self, request: AgentRequest) -> AgentReply {
        self.answer_agent(request).await
    }

    async fn record(&self, events: Vec<BootEvent>) {
        let mut batch = Batch::by(Author::Outside);
        for event in events {
            let host = event.host.as_ref().and_then(|name| self.fleet.host(name));
            match host {
                Some(host) => {
                    let note = Note { severity: Severity::Info, reason: "boot", message: event.what };
                    batch.notes(&*host, event.at, [note]);
                }
                None => tracing::info!(mac = %event.mac, "{}", event.what),
            }
        }
        if batch.is_empty() {
            return;
        }
        if let Err(error) = self.ledger.commit(batch).await {
            tracing::warn!(%error, "boot events could not be recorded");
        }
    }
}
