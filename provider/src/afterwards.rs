//! What is left to do when Terraform has its answer: it does not wait for it, and before the provider ends it has a moment.

use std::{future::Future, time::Duration};

use tokio_util::task::TaskTracker;

/// How long the end of the provider waits. Terraform kills one that is still there two seconds after it was asked to end.
const MOMENT: Duration = Duration::from_millis(1500);

/// Work that nobody waits for.
#[derive(Debug, Default)]
pub(crate) struct Afterwards(TaskTracker);

impl Afterwards {
    /// Does it, some time soon.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(work);
    }

    /// Waits until all is done, or the moment is over.
    pub(crate) async fn settle(&self) {
        self.0.close();
        if tokio::time::timeout(MOMENT, self.0.wait()).await.is_err() {
            tracing::warn!(open = self.0.len(), "the provider ends before all that was left to do is done");
        }
    }
}
