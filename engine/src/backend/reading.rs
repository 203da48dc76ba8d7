//! Watching and reading the record.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use vmetal_api::types::Follow;
use vmetal_api::{BackendError, EventEntry, EventsQuery, WatchItem, WatchQuery};
use vmetal_model::Kind;
use vmetal_store::{Change, Revision, Selector, Store};

use super::show;
use crate::engine::Engine;
use crate::fleet::{Entry, Fleet, Update};
use crate::ledger::{decode_change, key};

fn unavailable(error: impl std::fmt::Display) -> BackendError {
    BackendError::Unavailable { message: error.to_string() }
}

fn selector(kind: Option<Kind>, name: Option<&String>) -> Selector {
    match (kind, name) {
        (Some(kind), Some(name)) => Selector::Key(key(kind, name)),
        (Some(kind), None) => Selector::Kind(kind.as_str().into()),
        (None, _) => Selector::All,
    }
}

/// The present state, a bookmark, then every change after it. Memory and store are read so that nothing falls between them:
/// the revision is taken first, and a change that the snapshot already shows is only told again.
pub(super) fn watch(engine: Arc<Engine>, query: WatchQuery) -> BoxStream<'static, Result<WatchItem, BackendError>> {
    let revision = engine.fleet.revision();
    let kinds: Vec<Kind> = query.kind.map_or_else(|| Kind::ALL.to_vec(), |kind| vec![kind]);
    let named = |entry: &Entry| query.name.as_ref().is_none_or(|name| *name == entry.metadata().name);
    let present: Vec<Entry> = kinds.iter().flat_map(|kind| engine.fleet.entries(*kind)).filter(named).collect();
    let mut last: HashMap<(Kind, String), Entry> =
        present.iter().map(|entry| ((entry.kind(), entry.metadata().name.clone()), entry.clone())).collect();
    let sync: Vec<_> = present.iter().map(|entry| Ok(WatchItem::Sync(show(entry)))).collect();
    let bookmark = stream::iter([Ok(WatchItem::Bookmark { revision })]);
    let changes = engine.ledger.store().watch(selector(query.kind, query.name.as_ref()), Revision(revision));
    let told = changes.flat_map(move |change| {
        let items = match change {
            Ok(Change::Committed(committed)) => {
                let updates = committed.objects.iter().map(decode_change);
                updates.filter_map(|update| item(&engine.fleet, committed.revision.0, update, &mut last)).collect()
            }
            Ok(Change::Progress(_)) => Vec::new(),
            Err(error) => vec![Err(unavailable(error))],
        };
        stream::iter(items)
    });
    stream::iter(sync).chain(bookmark).chain(told).boxed()
}

/// What is told of a change. Memory has it first: who hears of it and asks is not to be shown what was before.
fn item(
    fleet: &Fleet,
    revision: u64,
    update: Result<Option<Update>, vmetal_store::ReadError>,
    last: &mut HashMap<(Kind, String), Entry>,
) -> Option<Result<WatchItem, BackendError>> {
    match update {
        Ok(Some(Update::Put(entry))) => {
            fleet.catch_up(revision, || Update::Put(entry.clone()));
            last.insert((entry.kind(), entry.metadata().name.clone()), entry.clone());
            Some(Ok(WatchItem::Changed(show(&entry))))
        }
        Ok(Some(Update::Gone(kind, name))) => {
            fleet.catch_up(revision, || Update::Gone(kind, name.clone()));
            last.remove(&(kind, name)).map(|entry| Ok(WatchItem::Deleted(show(&entry))))
        }
        Ok(None) => None,
        Err(error) => Some(Err(unavailable(error))),
    }
}

/// How many events are read at a time.
const PAGE: usize = 500;

fn entry(event: &vmetal_store::Event) -> Result<EventEntry, BackendError> {
    let event_revision = event.revision.0;
    match serde_json::from_slice(&event.value) {
        Ok(event) => Ok(EventEntry { revision: event_revision, event }),
        Err(error) => Err(BackendError::Internal {
            message: format!("an event at revision {event_revision} cannot be read: {error}"),
        }),
    }
}

/// Events so far, then, when asked for, those that come.
pub(super) fn events(engine: Arc<Engine>, query: EventsQuery) -> BoxStream<'static, Result<EventEntry, BackendError>> {
    let selector = selector(query.kind, query.name.as_ref());
    let past = stream::once(past(engine, selector, query));
    past.flat_map(|(items, live)| stream::iter(items).chain(live)).boxed()
}

type Events = BoxStream<'static, Result<EventEntry, BackendError>>;

async fn past(
    engine: Arc<Engine>,
    selector: Selector,
    query: EventsQuery,
) -> (Vec<Result<EventEntry, BackendError>>, Events) {
    let store = engine.ledger.store();
    let mut items = Vec::new();
    let mut after = query.after_revision;
    let read = async {
        // What is followed begins here unless more was read: the store may have given up what is between the last event and now.
        let head = store.revision().await?.0;
        if let (Some(limit), 0) = (query.limit, query.after_revision) {
            let page = store.latest_events(&selector, limit as usize).await?;
            after = page.events.last().map_or(head, |event| event.revision.0.max(head));
            items.extend(page.events.iter().map(entry));
            return Ok(());
        }
        loop {
            let page = store.events(&selector, Revision(after), PAGE).await?;
            let Some(last) = page.events.last() else {
                after = after.max(head);
                return Ok(());
            };
            after = last.revision.0;
            items.extend(page.events.iter().map(entry));
            if query.limit.is_some_and(|limit| items.len() >= limit as usize) {
                return Ok(());
            }
        }
    };
    let result: Result<(), vmetal_store::ReadError> = read.await;
    if let Err(error) = result {
        items.push(Err(unavailable(error)));
        return (items, stream::empty().boxed());
    }
    if query.follow == Follow::No {
        return (items, stream::empty().boxed());
    }
    let changes = store.watch(selector, Revision(after));
    let live = changes.flat_map(|change| {
        stream::iter(match change {
            Ok(Change::Committed(committed)) => committed.events.iter().map(entry).collect(),
            Ok(Change::Progress(_)) => Vec::new(),
            Err(error) => vec![Err(unavailable(error))],
        })
    });
    (items, live.boxed())
}
