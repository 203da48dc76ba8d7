//! The way to an engine: to whichever answers.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use vmetal_api::netboot::{AgentReply, AgentRequest, NetbootClient};
use vmetal_model::boot::{BootNews, BootTable};

/// An engine that says nothing for so long is taken to be away. Longer than a question for an order is held.
const PATIENCE: Duration = Duration::from_secs(8);

/// One or more engines, of which one is asked until it does not answer.
pub(super) struct Line {
    engines: Vec<NetbootClient>,
    at: Cell<usize>,
}

impl Line {
    pub(super) fn new(sockets: &[PathBuf]) -> Self {
        Line { engines: sockets.iter().map(|socket| NetbootClient::connect(socket)).collect(), at: Cell::new(0) }
    }

    fn engine(&self) -> &NetbootClient {
        &self.engines[self.at.get() % self.engines.len()]
    }

    fn next(&self) {
        self.at.set(self.at.get() + 1);
    }

    /// One request of an installer; `None` when it was not answered. The next one goes to the next engine then.
    pub(super) async fn agent(&self, request: AgentRequest) -> Option<AgentReply> {
        let answered = tokio::time::timeout(PATIENCE, self.engine().agent(request)).await;
        match answered {
            Ok(Ok(reply)) if reply.status != 503 => Some(reply),
            _ => {
                self.next();
                None
            }
        }
    }

    /// What the engine has its hosts boot now; `None` when it does not say.
    pub(super) async fn table(&self) -> Option<BootTable> {
        let asked = async {
            match self.engine().watch_boot().await.ok()?.next().await?.ok()? {
                BootNews::Whole(table) => Some(table),
                _ => None,
            }
        };
        let table = tokio::time::timeout(PATIENCE, asked).await.ok().flatten();
        if table.is_none() {
            self.next();
        }
        table
    }
}
