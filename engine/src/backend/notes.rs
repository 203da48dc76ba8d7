//! Annotations, beside a declaration: nothing is declared anew, so the generation stays what it is.

use std::sync::Arc;

use vmetal_api::{Annotate, BackendError, Caller};
use vmetal_lifecycle::Note;
use vmetal_store::CommitError;

use super::admission::{Find, Rules};
use super::{commit_error, reference};
use crate::engine::Engine;
use crate::ledger::Batch;
use crate::ownership::Author;

impl Engine {
    /// Writes them, deciding again on the newest state until the commit wins.
    pub(super) async fn annotate_as<R: Rules + Find>(
        &self,
        caller: &Caller,
        annotate: &Annotate,
    ) -> Result<(), BackendError> {
        let object = reference(R::KIND, &annotate.name);
        loop {
            let Some(current) = R::find(&self.fleet, &annotate.name) else {
                return Err(BackendError::NotFound { object });
            };
            let metadata = current.metadata();
            if let Some(uid) = annotate.uid.as_ref().filter(|uid| **uid != metadata.uid) {
                let (expected, found) = (format!("uid {uid}"), format!("uid {}", metadata.uid));
                return Err(BackendError::Conflict { object, expected, found });
            }
            let Some(annotations) = annotate.of(&metadata.annotations) else { return Ok(()) };
            let mut changed = Arc::unwrap_or_clone(current);
            changed.metadata_mut().annotations = annotations;
            let mut batch = Batch::by(Author::Outside);
            batch.notes(&changed, self.now(), [Note::info("annotated", told(caller, annotate))]);
            batch.replace(changed);
            match self.ledger.commit(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(commit_error(error, object, |_| String::new())),
            }
        }
    }
}

/// What was done, by name: values may be anything.
fn told(caller: &Caller, annotate: &Annotate) -> String {
    let set: Vec<_> = annotate.set.keys().map(String::as_str).collect();
    let parts = [("written", set.join(", ")), ("removed", annotate.remove.join(", "))];
    let parts = parts.iter().filter(|(_, names)| !names.is_empty()).map(|(verb, names)| format!("{verb}: {names}"));
    format!("annotations {} by {}", parts.collect::<Vec<_>>().join("; "), caller.token)
}
