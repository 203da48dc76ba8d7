//! What is asked and answered, in the model's terms. The same types serve the client and the engine's side.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use vmetal_model::{Event, Kind, Uid};

use crate::resource::{AnyObject, DecodeError, Resource};

/// A value that must not be shown: a password, a kubeconfig, user data. `Debug` says nothing about it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The value. Each use of this is a place to look at in a review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// Write-only values by field: `bmc.password` (host), `kubeconfig` (tenant cluster), `user_data` (tenant node).
pub type Secrets = BTreeMap<String, Secret>;

/// What must be so for an [`Apply`] to act.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Precondition {
    /// Create or replace, whatever is there.
    #[default]
    None,
    /// The object must not exist.
    MustNotExist,
    /// The object must be at this store revision.
    Revision(u64),
    /// The object must exist and be this one.
    Uid(Uid),
    /// The object must be this one, and declared as it was: what the engine itself has written since does not count.
    Declared {
        /// Which.
        uid: Uid,
        /// Its `metadata.generation`.
        generation: u64,
    },
}

/// Creates or replaces the spec, labels and annotations of one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Apply {
    /// The kind.
    pub kind: Kind,
    /// The name.
    pub name: String,
    /// The spec as the kind's `Spec` serialises.
    pub spec: Value,
    /// Operator's labels: what selectors match.
    pub labels: BTreeMap<String, String>,
    /// Free notes.
    pub annotations: BTreeMap<String, String>,
    /// Write-only values. An absent one is left as it is.
    pub secrets: Secrets,
    /// What must be so for the call to act.
    pub precondition: Precondition,
    /// Repeating a call with the same id has no further effect and returns the same object. The client makes one when it
    /// is empty.
    pub request_id: String,
}

impl Apply {
    /// An apply of a typed spec, without labels, secrets or precondition.
    ///
    /// # Errors
    /// [`DecodeError::Shape`] when the spec cannot be serialised.
    pub fn new<R: Resource>(name: impl Into<String>, spec: &R::Spec) -> Result<Self, DecodeError> {
        let name = name.into();
        match serde_json::to_value(spec) {
            Ok(spec) => Ok(Self::from_json(R::KIND, name, spec)),
            Err(source) => Err(DecodeError::Shape { kind: R::KIND, name, source }),
        }
    }

    /// An apply of a spec in JSON, without labels, secrets or precondition.
    pub fn from_json(kind: Kind, name: impl Into<String>, spec: Value) -> Self {
        Apply {
            kind,
            name: name.into(),
            spec,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            secrets: Secrets::new(),
            precondition: Precondition::None,
            request_id: String::new(),
        }
    }

    /// With these labels.
    #[must_use]
    pub fn labels(mut self, labels: BTreeMap<String, String>) -> Self {
        self.labels = labels;
        self
    }

    /// With one write-only value.
    #[must_use]
    pub fn secret(mut self, field: impl Into<String>, value: Secret) -> Self {
        self.secrets.insert(field.into(), value);
        self
    }

    /// With a precondition.
    #[must_use]
    pub fn precondition(mut self, precondition: Precondition) -> Self {
        self.precondition = precondition;
        self
    }
}

/// Writes or removes annotations of one object, beside its declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotate {
    /// The kind.
    pub kind: Kind,
    /// The name.
    pub name: String,
    /// When given, only this very object.
    pub uid: Option<Uid>,
    /// What is written.
    pub set: BTreeMap<String, String>,
    /// What is removed; what is not there is no error.
    pub remove: Vec<String>,
}

impl Annotate {
    /// The annotations as they are afterwards; `None` when nothing changes.
    pub fn of(&self, annotations: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
        let mut after = annotations.clone();
        after.extend(self.set.clone());
        self.remove.iter().for_each(|name| drop(after.remove(name)));
        (after != *annotations).then_some(after)
    }
}

/// Objects of one kind at one store revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// The objects, by name.
    pub objects: Vec<AnyObject>,
    /// The revision that the listing shows.
    pub revision: u64,
}

/// What to watch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatchQuery {
    /// One kind, or all.
    pub kind: Option<Kind>,
    /// One name, or all.
    pub name: Option<String>,
}

/// What a watch tells: the present state as `Sync`, then one `Bookmark`, then every change in order.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchItem<O = AnyObject> {
    /// An object as it is now.
    Sync(O),
    /// The present state is complete as of this revision.
    Bookmark {
        /// The revision.
        revision: u64,
    },
    /// An object was created or changed.
    Changed(O),
    /// An object is gone; this is its last state.
    Deleted(O),
}

impl<O> WatchItem<O> {
    /// The object, if the item has one.
    pub fn object(&self) -> Option<&O> {
        match self {
            WatchItem::Sync(object) | WatchItem::Changed(object) | WatchItem::Deleted(object) => Some(object),
            WatchItem::Bookmark { .. } => None,
        }
    }
}

/// Which events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventsQuery {
    /// One kind, or all.
    pub kind: Option<Kind>,
    /// One name, or all.
    pub name: Option<String>,
    /// Whether to go on with new events as they happen.
    pub follow: Follow,
    /// Only events after this store revision; 0 for all.
    pub after_revision: u64,
    /// At most this many of the newest; `None` for all.
    pub limit: Option<u32>,
}

/// Whether a stream of events ends with the present or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Follow {
    /// Ends with the newest event.
    #[default]
    No,
    /// Goes on until either side ends it.
    Yes,
}

/// One event and the store revision it was committed at.
#[derive(Debug, Clone, PartialEq)]
pub struct EventEntry {
    /// The store revision.
    pub revision: u64,
    /// What happened.
    pub event: Event,
}

/// A part of a round of the log of decisions, as the engine keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPart {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether the round ends with them.
    pub ends_round: bool,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionInfo {
    /// The engine's version.
    pub version: String,
    /// Its protocol level, see [`crate::API_LEVEL`].
    pub level: u32,
}
