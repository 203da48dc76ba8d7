//! Operators' orders: decided by the lifecycle, committed with the event that names who gave them and why.

use vmetal_api::{AnyObject, BackendError, Caller};
use vmetal_lifecycle::host::operator;
use vmetal_model::{HostAction, Kind, Uid};
use vmetal_store::CommitError;

use super::{commit_error, reference, show};
use crate::engine::Engine;
use crate::fleet::Entry;
use crate::ledger::Batch;
use crate::ownership::Author;

impl Engine {
    /// Takes an order about a host, deciding again on the newest state until the commit wins.
    pub(super) async fn act_on_host(
        &self,
        caller: &Caller,
        name: &str,
        uid: Option<&Uid>,
        action: &HostAction,
    ) -> Result<AnyObject, BackendError> {
        let object = reference(Kind::Host, name);
        loop {
            let Some(host) = self.fleet.host(name) else { return Err(BackendError::NotFound { object }) };
            if let Some(uid) = uid.filter(|uid| **uid != host.metadata.uid) {
                let (expected, found) = (format!("uid {uid}"), format!("uid {}", host.metadata.uid));
                return Err(BackendError::Conflict { object, expected, found });
            }
            let now = self.now();
            let change = operator::act(&host, &self.limits, action, &caller.token, now)
                .map_err(|refused| BackendError::Precondition { message: refused.message, advice: refused.advice })?;
            let mut changed = (*host).clone();
            changed.status = change.status;
            if action.deletes() {
                changed.metadata.deleted.get_or_insert(now);
            }
            let mut batch = Batch::by(Author::Outside);
            batch.notes(&*host, now, change.notes);
            batch.replace(changed.clone());
            match self.ledger.commit(batch).await {
                Ok(_) => {
                    // A detached host may be gone already: then this was its last state.
                    let now = self.fleet.entry(Kind::Host, name).unwrap_or_else(|| Entry::Host(changed.into()));
                    return Ok(show(&now));
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(commit_error(error, object, |_| String::new())),
            }
        }
    }
}
