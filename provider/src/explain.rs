//! Diagnostics in the words of the person who runs Terraform.
//!
//! Every one answers: what failed, on which object, where that is, what the engine last said about it, and what to do.

use std::time::Duration;

use futures::StreamExt as _;
use tfplugin::{Diagnostic, Diagnostics};
use vmetal_api::{ApiError, Client, EventsQuery, Resource};
use vmetal_model::{Failure, FieldError};

use crate::{convert::sentence, fields::path_of, kind::Kind};

/// How long the last event may take to be fetched: it decorates a message and must not delay it.
const EVENT_PATIENCE: Duration = Duration::from_secs(3);

/// `host "a"`.
pub(crate) fn title<K: Kind>(name: &str) -> String {
    format!("{} {name:?}", K::NOUN)
}

/// A call to the engine failed while `doing` something.
pub(crate) fn refused<K: Kind>(doing: &str, error: ApiError) -> Diagnostics {
    if let ApiError::Invalid(errors) = &error {
        let one = |error| located::<K>("The engine does not accept this value", error);
        if !errors.is_empty() {
            return errors.iter().map(one).collect();
        }
    }
    let summary = match &error {
        ApiError::Config { .. } => "The vmetal provider is not set up correctly",
        ApiError::EngineUnreachable { .. } => "The vmetal engine cannot be reached",
        ApiError::Timeout { .. } | ApiError::Unavailable { .. } => "The vmetal engine is not answering",
        ApiError::Unauthenticated { .. } => "The vmetal engine refused the token",
        ApiError::Forbidden { .. } => "The token is not for this",
        ApiError::Unique { .. } => "The value belongs to another object already",
        ApiError::AlreadyExists { .. } => "The object exists already",
        ApiError::NotFound { .. } => "The object does not exist",
        ApiError::Conflict { .. } => "The object was changed by somebody else",
        ApiError::Precondition { .. } => "The engine cannot do this now",
        ApiError::Invalid(_) => "The engine does not accept this",
        ApiError::Incompatible { .. } => "The provider and the engine are of different releases",
        ApiError::Other { .. } => "The vmetal engine failed",
    };
    let detail = format!(
        "{}: {}\n\n{}",
        sentence(doing).trim_end_matches('.'),
        sentence(&error.to_string()),
        sentence(&error.advice())
    );
    let diagnostic = Diagnostic::error(summary, detail);
    match &error {
        ApiError::Unique { field, .. } => match path_of(&K::schema(), field, K::attribute_of) {
            Some(path) => diagnostic.at(path).into(),
            None => diagnostic.into(),
        },
        _ => diagnostic.into(),
    }
}

/// A field error of the model, at its attribute.
pub(crate) fn invalid<K: Kind>(error: &FieldError) -> Diagnostic {
    located::<K>("Invalid value", error)
}

/// `cluster: is empty; expected ...`. A longer path is put in front of the detail by the diagnostic itself.
fn located<K: Kind>(summary: &str, error: &FieldError) -> Diagnostic {
    let message = format!("{}.", error.message.trim_end_matches('.'));
    match path_of(&K::schema(), &error.path, K::attribute_of) {
        Some(path) if path.steps().len() > 1 => Diagnostic::error(summary, message).at(path),
        Some(path) => Diagnostic::error(summary, format!("{path}: {message}")).at(path),
        None => Diagnostic::error(summary, format!("{}: {message}", error.path)),
    }
}

/// The object is there, and it is not ours.
pub(crate) fn exists<K: Kind>(name: &str, uid: &str) -> Diagnostic {
    let title = title::<K>(name);
    Diagnostic::error(
        format!("The {title} exists already"),
        format!(
            "The engine has a {title} (id {uid}) that this configuration did not make, so it is left alone.\n\nTo manage it \
             here, import it: terraform import {}.<name> {name}\nOtherwise choose another name, or delete it first.",
            K::TYPE
        ),
    )
    .at(tfplugin::Path::attr("name"))
}

/// The rest of a message about one object: what the engine shows, where it is, and the last event.
pub(crate) async fn circumstances<K: Kind>(client: &Client, object: &K::Object, shown: Option<&Failure>) -> String {
    let mut lines = Vec::new();
    match shown.or_else(|| K::failure(object)) {
        Some(failure) => {
            lines.push(sentence(&failure.message));
            if !failure.advice.is_empty() {
                lines.push(format!("What to do: {}", sentence(&failure.advice)));
            }
        }
        None => lines.push(format!("Now: {}", sentence(&K::doing(object)))),
    }
    lines.extend(K::whereabouts(object));
    // The failure's own event would say the same again.
    let said = K::failure(object).map(|failure| failure.message.clone());
    lines.extend(last_event::<K>(client, object, said.as_deref()).await);
    lines.join("\n")
}

async fn last_event<K: Kind>(client: &Client, object: &K::Object, said: Option<&str>) -> Option<String> {
    let query = EventsQuery {
        kind: Some(K::Object::KIND),
        name: Some(object.object().metadata.name.clone()),
        limit: Some(1),
        ..EventsQuery::default()
    };
    let client = client.with_patience(Duration::ZERO);
    let fetch = async {
        let mut events = client.events(query).await.ok()?;
        let mut last = None;
        while let Some(Ok(entry)) = events.next().await {
            last = Some(entry.event);
        }
        last
    };
    let event = tokio::time::timeout(EVENT_PATIENCE, fetch).await.ok()??;
    if said == Some(event.message.as_str()) {
        return None;
    }
    Some(format!("Last event, {:.0}: {}", event.at, event.message))
}

/// How long, for people.
pub(crate) fn span(within: Duration) -> String {
    let seconds = within.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, 0) => format!("{m} min"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, 0, _) => format!("{h} h"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

#[cfg(test)]
mod tests {
    use vmetal_api::ObjectRef;
    use vmetal_model::Kind as ModelKind;

    use super::*;
    use crate::host::Hosts;

    #[test]
    fn both_owners_of_a_value_are_named_at_the_attribute() {
        let object = |name: &str| ObjectRef { kind: ModelKind::Host, name: name.into() };
        let error = ApiError::Unique {
            field: "spec.boot_mac".into(),
            value: "52:54:00:00:00:01".into(),
            object: object("b"),
            holder: object("a"),
        };
        let found: Vec<_> = refused::<Hosts>("creating host \"b\"", error).into_iter().collect();
        assert_eq!(found[0].path.as_ref().map(ToString::to_string).as_deref(), Some("boot_mac"));
        assert!(
            found[0].detail.contains("host \"a\"") && found[0].detail.contains("host \"b\""),
            "{}",
            found[0].detail
        );
    }

    #[test]
    fn spans_read_well() {
        let all = [45, 60, 90, 3600, 5400].map(|s| span(Duration::from_secs(s)));
        assert_eq!(all, ["45 s", "1 min", "1 min 30 s", "1 h", "1 h 30 min"]);
    }
}
