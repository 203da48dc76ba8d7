//! The network boot process' questions: what to boot, and what installers say.

use futures::stream::BoxStream;
use vmetal_api::netboot::{AgentReply, AgentRequest, NetbootBackend};
use vmetal_lifecycle::Note;
use vmetal_model::Severity;
use vmetal_model::boot::{BootEvent, BootNews};

use crate::engine::Engine;
use crate::ledger::Batch;
use crate::ownership::Author;

impl NetbootBackend for Engine {
    fn watch_boot(&self) -> BoxStream<'static, BootNews> {
        self.boots.follow()
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
