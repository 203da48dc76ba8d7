//! What the tests of several modules need.

use vmetal_model::{Metadata, Timestamp, Uid};

/// The metadata of an object that was just made. Its name is its id.
pub(crate) fn metadata(name: &str) -> Metadata {
    Metadata {
        name: name.to_owned(),
        uid: Uid(name.to_owned()),
        generation: 1,
        revision: 1,
        labels: Default::default(),
        annotations: Default::default(),
        created: Timestamp::UNIX_EPOCH,
        deleted: None,
    }
}
