//! Between the wire's messages and the public types.

use std::sync::Arc;

use vmetal_model::{Kind, Uid};

use crate::error::BackendError;
use crate::proto;
use crate::resource::{AnyObject, Resource};
use crate::types::{
    Annotate, Apply, EventEntry, EventsQuery, Follow, LogPart, Precondition, Secret, WatchItem, WatchQuery,
};

/// A message that is not what the contract says.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(crate) String);

impl From<Malformed> for BackendError {
    fn from(error: Malformed) -> Self {
        BackendError::Precondition {
            message: format!("the request is malformed: {error}"),
            advice: "engine and client are of different releases: update the older one".into(),
        }
    }
}

pub(crate) fn kind(text: &str) -> Result<Kind, Malformed> {
    text.parse().map_err(|error: vmetal_model::meta::UnknownKind| Malformed(error.to_string()))
}

pub(crate) fn action(json: &[u8]) -> Result<vmetal_model::HostAction, Malformed> {
    serde_json::from_slice(json).map_err(|error| Malformed(format!("the order does not read as one: {error}")))
}

pub(crate) fn wish(json: &[u8]) -> Result<vmetal_model::TenantNodeSpec, Malformed> {
    serde_json::from_slice(json).map_err(|error| Malformed(format!("the tenant node does not read as one: {error}")))
}

pub(crate) fn decision(json: &[u8]) -> Result<vmetal_model::Decision, Malformed> {
    serde_json::from_slice(json).map_err(|error| Malformed(format!("a decision does not read as one: {error}")))
}

pub(crate) fn read<T: serde::de::DeserializeOwned>(what: &str, json: &[u8]) -> Result<T, Malformed> {
    serde_json::from_slice(json).map_err(|error| Malformed(format!("the {what} does not read as one: {error}")))
}

/// A component as it is sent: what it is in the first part, then the bytes.
pub(crate) fn component_parts(
    sha256: String,
    bytes: Arc<[u8]>,
) -> impl Iterator<Item = proto::ComponentPart> + Send + 'static {
    let size_bytes = bytes.len() as u64;
    let head = proto::ComponentPart { sha256, size_bytes, data: Vec::new() };
    let part = move |at: usize| {
        let end = bytes.len().min(at + crate::COMPONENT_PART);
        proto::ComponentPart { data: bytes[at..end].to_vec(), ..proto::ComponentPart::default() }
    };
    let starts = (0..usize::try_from(size_bytes).unwrap_or(usize::MAX)).step_by(crate::COMPONENT_PART);
    std::iter::once(head).chain(starts.map(part))
}

fn optional_kind(text: &str) -> Result<Option<Kind>, Malformed> {
    if text.is_empty() { Ok(None) } else { kind(text).map(Some) }
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl From<&AnyObject> for proto::Object {
    fn from(object: &AnyObject) -> Self {
        proto::Object {
            kind: object.kind.as_str().into(),
            name: object.metadata.name.clone(),
            uid: object.metadata.uid.0.clone(),
            revision: object.metadata.revision,
            json: written(object),
        }
    }
}

/// An object's JSON, from its parts as they are.
fn written(object: &AnyObject) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Parts<'a> {
        metadata: &'a vmetal_model::Metadata,
        spec: &'a serde_json::Value,
        status: &'a serde_json::Value,
    }
    let AnyObject { metadata, spec, status, .. } = object;
    // Plain data with string keys: it always serialises.
    serde_json::to_vec(&Parts { metadata, spec, status }).unwrap_or_default()
}

#[derive(serde::Deserialize)]
struct ObjectJson<S = serde_json::Value, T = serde_json::Value> {
    metadata: vmetal_model::Metadata,
    spec: S,
    status: T,
}

/// A message with an object of a type that is known, read without a detour.
pub(crate) fn typed<R: Resource>(object: &proto::Object) -> Result<R, Malformed> {
    let kind = kind(&object.kind)?;
    if kind != R::KIND {
        return Err(Malformed(format!("{:?} is a {kind}, not a {}", object.name, R::KIND)));
    }
    let bad = |e| Malformed(format!("{kind} {:?} has a shape this program does not know: {e}", object.name));
    let ObjectJson { mut metadata, spec, status } = serde_json::from_slice(&object.json).map_err(bad)?;
    metadata.revision = object.revision;
    Ok(R::from_object(vmetal_model::Object { metadata, spec, status }))
}

impl TryFrom<proto::Object> for AnyObject {
    type Error = Malformed;
    fn try_from(object: proto::Object) -> Result<Self, Malformed> {
        let kind = kind(&object.kind)?;
        let bad = |e| Malformed(format!("{kind} {:?} does not read as an object: {e}", object.name));
        let ObjectJson { mut metadata, spec, status } = serde_json::from_slice(&object.json).map_err(bad)?;
        metadata.revision = object.revision;
        Ok(AnyObject { kind, metadata, spec, status })
    }
}

impl From<Apply> for proto::ApplyRequest {
    fn from(apply: Apply) -> Self {
        use proto::apply_request::Precondition as Wire;
        proto::ApplyRequest {
            kind: apply.kind.as_str().into(),
            name: apply.name,
            spec_json: apply.spec.to_string().into_bytes(),
            labels: apply.labels,
            annotations: apply.annotations,
            secrets: apply.secrets.into_iter().map(|(field, value)| (field, value.expose().to_owned())).collect(),
            precondition: match apply.precondition {
                Precondition::None => None,
                Precondition::MustNotExist => Some(Wire::MustNotExist(true)),
                Precondition::Revision(revision) => Some(Wire::Revision(revision)),
                Precondition::Uid(uid) => Some(Wire::Uid(uid.0)),
                Precondition::Declared { uid, generation } => {
                    Some(Wire::Declared(proto::Declared { uid: uid.0, generation }))
                }
            },
            request_id: apply.request_id,
        }
    }
}

impl TryFrom<proto::ApplyRequest> for Apply {
    type Error = Malformed;
    fn try_from(apply: proto::ApplyRequest) -> Result<Self, Malformed> {
        use proto::apply_request::Precondition as Wire;
        Ok(Apply {
            kind: kind(&apply.kind)?,
            name: apply.name,
            spec: serde_json::from_slice(&apply.spec_json)
                .map_err(|e| Malformed(format!("the spec is not JSON: {e}")))?,
            labels: apply.labels,
            annotations: apply.annotations,
            secrets: apply.secrets.into_iter().map(|(field, value)| (field, Secret::new(value))).collect(),
            precondition: match apply.precondition {
                None | Some(Wire::MustNotExist(false)) => Precondition::None,
                Some(Wire::MustNotExist(true)) => Precondition::MustNotExist,
                Some(Wire::Revision(revision)) => Precondition::Revision(revision),
                Some(Wire::Uid(uid)) => Precondition::Uid(Uid(uid)),
                Some(Wire::Declared(proto::Declared { uid, generation })) => {
                    Precondition::Declared { uid: Uid(uid), generation }
                }
            },
            request_id: apply.request_id,
        })
    }
}

impl From<&Annotate> for proto::AnnotateRequest {
    fn from(annotate: &Annotate) -> Self {
        proto::AnnotateRequest {
            kind: annotate.kind.as_str().into(),
            name: annotate.name.clone(),
            uid: annotate.uid.as_ref().map(|uid| uid.0.clone()).unwrap_or_default(),
            set: annotate.set.clone(),
            remove: annotate.remove.clone(),
        }
    }
}

impl TryFrom<proto::AnnotateRequest> for Annotate {
    type Error = Malformed;
    fn try_from(annotate: proto::AnnotateRequest) -> Result<Self, Malformed> {
        let proto::AnnotateRequest { kind: of, name, uid, set, remove } = annotate;
        Ok(Annotate { kind: kind(&of)?, name, uid: non_empty(uid).map(Uid), set, remove })
    }
}

impl From<&WatchQuery> for proto::WatchRequest {
    fn from(query: &WatchQuery) -> Self {
        proto::WatchRequest {
            kind: query.kind.map(Kind::as_str).unwrap_or_default().into(),
            name: query.name.clone().unwrap_or_default(),
        }
    }
}

impl TryFrom<proto::WatchRequest> for WatchQuery {
    type Error = Malformed;
    fn try_from(query: proto::WatchRequest) -> Result<Self, Malformed> {
        Ok(WatchQuery { kind: optional_kind(&query.kind)?, name: non_empty(query.name) })
    }
}

impl From<&WatchItem> for proto::WatchEvent {
    fn from(item: &WatchItem) -> Self {
        use proto::watch_event::Type;
        let (r#type, revision) = match item {
            WatchItem::Sync(object) => (Type::Sync, object.metadata.revision),
            WatchItem::Bookmark { revision } => (Type::Bookmark, *revision),
            WatchItem::Changed(object) => (Type::Changed, object.metadata.revision),
            WatchItem::Deleted(object) => (Type::Deleted, object.metadata.revision),
        };
        proto::WatchEvent { r#type: r#type.into(), object: item.object().map(Into::into), revision }
    }
}

impl TryFrom<proto::WatchEvent> for WatchItem {
    type Error = Malformed;
    fn try_from(event: proto::WatchEvent) -> Result<Self, Malformed> {
        watched(event, AnyObject::try_from)
    }
}

/// What a watch told, with its object read by `read`.
pub(crate) fn watched<O>(
    event: proto::WatchEvent,
    read: impl Fn(proto::Object) -> Result<O, Malformed>,
) -> Result<WatchItem<O>, Malformed> {
    use proto::watch_event::Type;
    let r#type = event.r#type();
    let object = || match event.object {
        Some(object) => read(object),
        None => Err(Malformed("a change came without its object".into())),
    };
    match r#type {
        Type::Sync => object().map(WatchItem::Sync),
        Type::Bookmark => Ok(WatchItem::Bookmark { revision: event.revision }),
        Type::Changed => object().map(WatchItem::Changed),
        Type::Deleted => object().map(WatchItem::Deleted),
        Type::Unspecified => Err(Malformed("a change of unknown type came".into())),
    }
}

impl From<&EventsQuery> for proto::EventsRequest {
    fn from(query: &EventsQuery) -> Self {
        proto::EventsRequest {
            kind: query.kind.map(Kind::as_str).unwrap_or_default().into(),
            name: query.name.clone().unwrap_or_default(),
            follow: query.follow == Follow::Yes,
            after_revision: query.after_revision,
            limit: query.limit.unwrap_or(0),
        }
    }
}

impl TryFrom<proto::EventsRequest> for EventsQuery {
    type Error = Malformed;
    fn try_from(query: proto::EventsRequest) -> Result<Self, Malformed> {
        Ok(EventsQuery {
            kind: optional_kind(&query.kind)?,
            name: non_empty(query.name),
            follow: if query.follow { Follow::Yes } else { Follow::No },
            after_revision: query.after_revision,
            limit: (query.limit > 0).then_some(query.limit),
        })
    }
}

impl TryFrom<&EventEntry> for proto::EventEntry {
    type Error = Malformed;
    fn try_from(entry: &EventEntry) -> Result<Self, Malformed> {
        let json =
            serde_json::to_vec(&entry.event).map_err(|e| Malformed(format!("an event does not serialise: {e}")))?;
        Ok(proto::EventEntry { revision: entry.revision, json })
    }
}

impl TryFrom<proto::DecisionLogPart> for LogPart {
    type Error = Malformed;
    fn try_from(part: proto::DecisionLogPart) -> Result<Self, Malformed> {
        Ok(LogPart { bytes: part.data, ends_round: part.ends_round })
    }
}

impl TryFrom<proto::EventEntry> for EventEntry {
    type Error = Malformed;
    fn try_from(entry: proto::EventEntry) -> Result<Self, Malformed> {
        let event =
            serde_json::from_slice(&entry.json).map_err(|e| Malformed(format!("an event does not read: {e}")))?;
        Ok(EventEntry { revision: entry.revision, event })
    }
}
