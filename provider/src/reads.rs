//! One listing for all reads of a run.
//!
//! Terraform reads each object of its state by itself, ten at a time. The first few are asked for one by one, because a state
//! may hold few of the many objects that the engine has. From then on what is listed serves each of its objects once, and only
//! for a moment: a second read of the same object, or one that comes late, asks again. That something is gone is never
//! concluded from a listing.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Mutex, time::Instant};
use vmetal_api::{ApiError, Client, Resource};
use vmetal_model::Kind;

/// So many objects of a kind are asked for one by one.
pub(crate) const SINGLE: usize = 32;
/// How long a listing is true.
const FRESH: Duration = Duration::from_secs(5);

/// What was read in one run.
#[derive(Debug, Default)]
pub(crate) struct Reads(StdMutex<BTreeMap<Kind, Arc<Mutex<Slot>>>>);

#[derive(Debug, Default)]
struct Slot {
    asked: usize,
    listed: Option<(Instant, Box<dyn Any + Send>)>,
}

impl Reads {
    /// The object of this name, if it exists.
    pub(crate) async fn read<R: Resource>(&self, client: &Client, name: &str) -> Result<Option<R>, ApiError> {
        match self.listed(client, name).await {
            Some(object) => Ok(Some(object)),
            None => client.get_as(name).await,
        }
    }

    /// What a listing says of it; `None` when it has to be asked for.
    async fn listed<R: Resource>(&self, client: &Client, name: &str) -> Option<R> {
        let slot = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(R::KIND).or_default());
        // Held while the listing is on its way: those who come meanwhile want to read it, too.
        let mut slot = slot.lock().await;
        slot.asked += 1;
        if slot.asked <= SINGLE {
            return None;
        }
        if slot.listed.as_ref().is_none_or(|(at, _)| at.elapsed() > FRESH) {
            // Where it fails, the question for the object itself will tell why.
            let all = client.list_as::<R>(&BTreeMap::new()).await.ok()?;
            let by_name = |object: R| (object.object().metadata.name.clone(), object);
            let all: HashMap<String, R> = all.into_iter().map(by_name).collect();
            slot.listed = Some((Instant::now(), Box::new(all)));
        }
        let (_, all) = slot.listed.as_mut()?;
        all.downcast_mut::<HashMap<String, R>>()?.remove(name)
    }
}
