//! Networks: what is counted of them.

use vmetal_lifecycle::Note;
use vmetal_model::{Kind, NetworkStatus};
use vmetal_network::Pool;
use vmetal_store::CommitError;

use crate::engine::{Engine, ObjectKey};
use crate::ledger::Batch;
use crate::ownership::Author;

impl Engine {
    pub(super) async fn reconcile_network(&self, name: &str) -> Result<(), CommitError> {
        let Some(hold) = self.ownership.hold(&ObjectKey::new(Kind::Network, name)) else { return Ok(()) };
        let Some(network) = self.fleet.network(name) else { return Ok(()) };
        if network.is_deleted() {
            return self.remove_unused(hold, &*network, &[]).await.map(|_| ());
        }
        let pool = Pool::of(&network.spec);
        let (inside, outside): (Vec<_>, Vec<_>) =
            self.fleet.leased(name).into_iter().partition(|address| pool.contains(*address));
        let status = NetworkStatus {
            addresses: pool.size(),
            used: inside.len() as u64,
            outside,
            observed_generation: network.metadata.generation,
        };
        if status == network.status {
            return Ok(());
        }
        let mut batch = Batch::by(Author::Owner(hold));
        if status.outside != network.status.outside && !status.outside.is_empty() {
            let list: Vec<_> = status.outside.iter().map(ToString::to_string).collect();
            let message = format!(
                "hosts have addresses that nodes may not be given any more: {}; they keep them until they are erased",
                list.join(", ")
            );
            batch.notes(&*network, self.now(), [Note::warning("outside", message)]);
        }
        let mut changed = (*network).clone();
        changed.status = status;
        batch.replace(changed);
        self.ledger.commit(batch).await.map(|_| ())
    }
}
