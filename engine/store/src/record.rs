//! What readers get.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use bytes::Bytes;

use crate::error::ReadError;
use crate::key::{Key, Kind, Selector};
use crate::time::StoreTime;
use crate::txn::Revision;

/// An object as one commit left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub key: Key,
    /// The commit that wrote this value.
    pub revision: Revision,
    /// The commit that created the object; a new one after delete and create.
    pub created: Revision,
    /// When this value was written, by store time. For display; order by `revision`.
    pub written_at: StoreTime,
    /// The value.
    pub value: Bytes,
}

/// An event as it was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The commit it belongs to.
    pub revision: Revision,
    /// Its place within that commit, from 0.
    pub ordinal: u32,
    /// When it was committed, by store time.
    pub at: StoreTime,
    /// The object it is about.
    pub subject: Key,
    /// What happened.
    pub value: Bytes,
}

/// What a commit did to one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectChange {
    /// It was created or replaced.
    Put(Stored),
    /// It was removed.
    Deleted(Key),
}

impl ObjectChange {
    /// The object that changed.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(stored) => &stored.key,
            Self::Deleted(key) => key,
        }
    }
}

/// The part of one commit that a watcher selected. A commit is never split over two of these, so its revision is a safe
/// place to resume from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The commit.
    pub revision: Revision,
    /// When it was made, by store time.
    pub at: StoreTime,
    /// Objects that changed, ordered by key.
    pub objects: Vec<ObjectChange>,
    /// Events about selected subjects, in order.
    pub events: Vec<Event>,
}

impl Committed {
    /// The part that `selector` points at, or `None` if that is nothing.
    pub(crate) fn select(&self, selector: &Selector) -> Option<Self> {
        let objects: Vec<_> = self.objects.iter().filter(|change| selector.matches(change.key())).cloned().collect();
        let events: Vec<_> = self.events.iter().filter(|event| selector.matches(&event.subject)).cloned().collect();
        (!objects.is_empty() || !events.is_empty()).then_some(Self {
            revision: self.revision,
            at: self.at,
            objects,
            events,
        })
    }

    /// An estimate of the memory this takes, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let objects = self.objects.iter().map(|change| match change {
            ObjectChange::Put(stored) => 128 + stored.key.name.len() + stored.value.len(),
            ObjectChange::Deleted(key) => 64 + key.name.len(),
        });
        let events = self.events.iter().map(|event| 128 + event.subject.name.len() + event.value.len());
        64 + objects.chain(events).sum::<usize>()
    }
}

/// One item of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A commit that touched something selected.
    Committed(Committed),
    /// Nothing selected happened up to this revision that was not delivered: resume from here. Sent once when the
    /// stream has first caught up with the store and from time to time afterwards.
    Progress(Revision),
}

impl Change {
    /// The revision to resume from after having handled this.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Committed(committed) => committed.revision,
            Self::Progress(revision) => *revision,
        }
    }
}

/// Which part of a list to return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Most objects to return; at most [`Page::MOST`] are, and no more than fit into [`Page::BYTES`].
    pub limit: NonZeroUsize,
    /// Where the last page ended; `None` starts a new snapshot.
    pub token: Option<PageToken>,
}

impl Page {
    /// No page has more objects than this.
    pub const MOST: usize = 5_000;
    /// The values on a page have no more bytes than this together, unless it is a single one.
    pub const BYTES: usize = 16 << 20;

    /// The first page of a snapshot of the present.
    pub fn first(limit: NonZeroUsize) -> Self {
        Self { limit, token: None }
    }

    /// The page that `token` points at.
    pub fn after(limit: NonZeroUsize, token: PageToken) -> Self {
        Self { limit, token: Some(token) }
    }

    pub(crate) fn take(&self) -> usize {
        self.limit.get().min(Self::MOST)
    }

    /// Makes the page out of the objects that follow its token in the snapshot at `revision`.
    pub(crate) fn fill<E>(&self, revision: Revision, rest: impl Iterator<Item = Result<Stored, E>>) -> Result<List, E> {
        let (mut items, mut bytes): (Vec<Stored>, usize) = (Vec::new(), 0);
        for stored in rest {
            let stored = stored?;
            bytes += stored.value.len();
            if items.len() == self.take() || (bytes > Self::BYTES && !items.is_empty()) {
                let next = items.last().map(|last| PageToken { revision, after: last.key.clone() });
                return Ok(List { items, revision, next });
            }
            items.push(stored);
        }
        Ok(List { items, revision, next: None })
    }
}

impl Default for Page {
    /// The first page, with 500 objects.
    fn default() -> Self {
        Self { limit: NonZeroUsize::new(500).unwrap_or(NonZeroUsize::MIN), token: None }
    }
}

/// A place in a snapshot. Its text form is opaque to clients and checked when it comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken {
    /// The snapshot's revision.
    pub(crate) revision: Revision,
    /// The last object already returned.
    pub(crate) after: Key,
}

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}/{}/{}", self.revision, self.after.kind, self.after.name);
        write!(f, "{:08x}", crc32fast::hash(text.as_bytes()))?;
        text.bytes().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for PageToken {
    type Err = ReadError;

    fn from_str(token: &str) -> Result<Self, ReadError> {
        Self::parse(token).ok_or(ReadError::BadToken)
    }
}

impl PageToken {
    fn parse(token: &str) -> Option<Self> {
        let digits = token.as_bytes();
        let bytes = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|p| p.len() == 2)?, 16).ok())
            .collect::<Option<Vec<u8>>>()?;
        let (checksum, text) = bytes.split_first_chunk::<4>()?;
        if u32::from_be_bytes(*checksum) != crc32fast::hash(text) {
            return None;
        }
        let mut parts = std::str::from_utf8(text).ok()?.splitn(3, '/');
        let revision = Revision(parts.next()?.parse().ok()?);
        let kind = Kind::from(parts.next()?.to_owned());
        Some(Self { revision, after: Key::new(kind, parts.next()?) })
    }
}

/// One page of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Objects ordered by key.
    pub items: Vec<Stored>,
    /// The snapshot's revision, the same on every page: watch from here to follow on without a gap.
    pub revision: Revision,
    /// Where the next page starts; `None` on the last one.
    pub next: Option<PageToken>,
}

/// Events in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPage {
    /// Events ordered by revision and ordinal.
    pub events: Vec<Event>,
    /// Events at or before this revision have been forgotten.
    pub forgotten: Revision,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_token_survives_its_text_form_and_nothing_else_does() {
        let token = PageToken { revision: Revision(42), after: Key::new("host", "rack/1ä") };
        let text = token.to_string();
        assert_eq!(text.parse::<PageToken>().unwrap(), token);
        for place in 0..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[place] = if wrong[place] == b'0' { b'1' } else { b'0' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert!(matches!(wrong.parse::<PageToken>(), Err(ReadError::BadToken)), "{wrong}");
        }
        for wrong in ["", "zz", "123", "é", "00000000"] {
            assert!(matches!(wrong.parse::<PageToken>(), Err(ReadError::BadToken)), "{wrong}");
        }
    }
}
