//! Watching and reading the record.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::future;
use futures::stream::{self, BoxStream};
use vmetal_api::types::Follow;
use vmetal_api::{AnyObject, BackendError, EventEntry, EventsQuery, WatchItem, WatchQuery};
use vmetal_model::Kind;
use vmetal_store::{Change, ObjectChange, Revision, Selector, Store, WatchError};

use super::show;
use crate::engine::Engine;
use crate::fleet::{Entry, Fleet, Present, Update};
use crate::ledger::{decode_change, decode_news, key};

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

/// The present state, a bookmark, then every change after it. Nothing falls between memory and store: the changes are told from
/// the revision up to which memory lacks nothing, but for those that memory has shown already.
pub(super) fn watch(engine: Arc<Engine>, query: WatchQuery) -> BoxStream<'static, Result<WatchItem, BackendError>> {
    let kinds: Vec<Kind> = query.kind.map_or_else(|| Kind::ALL.to_vec(), |kind| vec![kind]);
    let named = |name: &str| query.name.as_ref().is_none_or(|wanted| wanted == name);
    let Present { revision, entries, removed } = engine.fleet.present(&kinds);
    let present: Vec<Entry> = entries.into_iter().filter(|entry| named(&entry.metadata().name)).collect();
    let mut told: Told = removed.into_iter().map(|(of, revision)| (of, (revision, None))).collect();
    told.extend(present.iter().map(|entry| {
        let metadata = entry.metadata();
        ((entry.kind(), metadata.name.clone()), (metadata.revision, Some(entry.clone())))
    }));
    let sync: Vec<_> = present.iter().map(|entry| Ok(WatchItem::Sync(show(entry)))).collect();
    let bookmark = stream::iter([Ok(WatchItem::Bookmark { revision })]);
    let changes = engine.ledger.store().watch(selector(query.kind, query.name.as_ref()), Revision(revision));
    let news = changes.flat_map(move |change| {
        let items = match change {
            Ok(Change::Committed(committed)) => {
                let updates = committed.objects.iter().map(decode_change);
                updates.filter_map(|update| item(&engine.fleet, committed.revision.0, update, &mut told)).collect()
            }
            Ok(Change::Progress(_)) => Vec::new(),
            Err(error) => vec![Err(unavailable(error))],
        };
        stream::iter(items)
    });
    stream::iter(sync).chain(bookmark).chain(news).boxed()
}

/// One object from what is known of it on, whenever it changes, until it is gone. Who follows one object wants to know where it
/// is, not each step on the way there: what memory has passed already is left out, and memory's own entry is not read again.
pub(super) fn follow(engine: Arc<Engine>, known: AnyObject) -> BoxStream<'static, Result<WatchItem, BackendError>> {
    let at = Selector::Key(key(known.kind, known.name()));
    let changes = engine.ledger.store().watch(at, Revision(known.metadata.revision));
    let following = Following { engine, revision: known.metadata.revision, last: Some(Last::Known(Box::new(known))) };
    changes.scan(following, |following, change| future::ready(following.hear(change))).flat_map(stream::iter).boxed()
}

struct Following {
    engine: Arc<Engine>,
    /// The revision at which it was told last.
    revision: u64,
    /// As it was told last; `None` once it is gone.
    last: Option<Last>,
}

enum Last {
    /// What the watcher came with.
    Known(Box<AnyObject>),
    Entry(Entry),
}

impl Following {
    fn hear(&mut self, change: Result<Change, WatchError>) -> Option<Vec<Result<WatchItem, BackendError>>> {
        self.last.as_ref()?;
        let committed = match change {
            Ok(Change::Committed(committed)) => committed,
            Ok(Change::Progress(_)) => return Some(Vec::new()),
            Err(error) => return Some(vec![Err(unavailable(error))]),
        };
        Some(committed.objects.iter().filter_map(|change| self.tell(committed.revision.0, change)).collect())
    }

    fn tell(&mut self, revision: u64, change: &ObjectChange) -> Option<Result<WatchItem, BackendError>> {
        if self.revision >= revision {
            return None;
        }
        let fleet = &self.engine.fleet;
        let update = match decode_news(change, fleet) {
            Ok(update) => update?,
            Err(error) => return Some(Err(unavailable(error))),
        };
        // Memory has it first: who hears of it and asks is not to be shown what was before.
        fleet.catch_up(revision, || update.clone());
        match update {
            Update::Put(entry) => {
                let shown = show(&entry);
                self.revision = shown.metadata.revision;
                self.last = Some(Last::Entry(entry));
                Some(Ok(WatchItem::Changed(shown)))
            }
            Update::Gone(..) => self.last.take().map(|last| match last {
                Last::Known(object) => Ok(WatchItem::Deleted(*object)),
                Last::Entry(entry) => Ok(WatchItem::Deleted(show(&entry))),
            }),
        }
    }
}

/// What a watcher was told of last: at which revision, and the object unless it is gone.
type Told = HashMap<(Kind, String), (u64, Option<Entry>)>;

/// What is told of a change. Memory has it first: who hears of it and asks is not to be shown what was before. And nobody is
/// taken back: what is present may be newer than the revision that the changes are told from.
fn item(
    fleet: &Fleet,
    revision: u64,
    update: Result<Option<Update>, vmetal_store::ReadError>,
    told: &mut Told,
) -> Option<Result<WatchItem, BackendError>> {
    let update = match update {
        Ok(update) => update?,
        Err(error) => return Some(Err(unavailable(error))),
    };
    let of = match &update {
        Update::Put(entry) => (entry.kind(), entry.metadata().name.clone()),
        Update::Gone(kind, name) => (*kind, name.clone()),
    };
    if told.get(&of).is_some_and(|(known, _)| *known >= revision) {
        return None;
    }
    fleet.catch_up(revision, || update.clone());
    match update {
        Update::Put(entry) => {
            let shown = show(&entry);
            told.insert(of, (revision, Some(entry)));
            Some(Ok(WatchItem::Changed(shown)))
        }
        Update::Gone(..) => {
            let (_, entry) = told.remove(&of)?;
            Some(Ok(WatchItem::Deleted(show(&entry?))))
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use vmetal_model::{ImageSpec, ImageStatus, Object, Timestamp};

    use super::*;

    fn image(revision: u64) -> Entry {
        named("i", revision)
    }

    fn named(name: &str, revision: u64) -> Entry {
        let mut metadata = crate::ledger::new_metadata(name, [0; 16], Timestamp::UNIX_EPOCH);
        metadata.revision = revision;
        let spec = ImageSpec { source: "/i".to_owned(), checksum: None, format: None };
        Entry::Image(Arc::new(Object { metadata, spec, status: ImageStatus::default() }))
    }

    #[test]
    fn a_watcher_is_never_taken_back() {
        let fleet = Fleet::default();
        // As at the start of a watch whose changes are told from an older revision than what is present.
        let of = |name: &str| (Kind::Image, name.to_owned());
        let mut known = Told::from([(of("i"), (5, Some(image(5)))), (of("gone"), (5, None))]);
        let mut told = |revision: u64, update: Update| match item(&fleet, revision, Ok(Some(update)), &mut known) {
            None => "nothing",
            Some(Ok(WatchItem::Changed(_))) => "changed",
            Some(Ok(WatchItem::Deleted(_))) => "deleted",
            Some(other) => panic!("{other:?}"),
        };
        assert_eq!(told(3, Update::Put(image(3))), "nothing");
        assert_eq!(told(4, Update::Gone(Kind::Image, "i".to_owned())), "nothing");
        assert_eq!(told(5, Update::Put(image(5))), "nothing", "it was shown");
        assert_eq!(told(6, Update::Put(image(6))), "changed");
        assert_eq!(told(7, Update::Gone(Kind::Image, "i".to_owned())), "deleted");
        assert_eq!(told(8, Update::Put(image(8))), "changed", "another one of the name");
        assert_eq!(told(4, Update::Put(named("gone", 4))), "nothing", "what is known to be gone does not come back");
        assert_eq!(told(5, Update::Gone(Kind::Image, "gone".to_owned())), "nothing");
        assert_eq!(told(9, Update::Put(named("gone", 9))), "changed");
    }
}
