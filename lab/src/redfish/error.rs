//! Error answers, in the shape of DSP0266 clause 8.6 with messages of the Base registry (DSP8011).

use http::{Method, StatusCode};
use serde_json::{Value, json};

/// Version of the Base message registry that message ids refer to.
const REGISTRY: &str = "Base.1.18";

/// An answer that says no.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    /// Methods for the `Allow` header of 405.
    pub(crate) allow: Option<&'static str>,
    details: Box<Details>,
}

/// What the body says.
#[derive(Debug)]
struct Details {
    message_id: &'static str,
    message: String,
    args: Vec<String>,
    related: Option<String>,
    resolution: &'static str,
}

impl ApiError {
    fn new(status: StatusCode, id: &'static str, message: String, args: &[&str], resolution: &'static str) -> Self {
        let args = args.iter().map(|&a| a.to_owned()).collect();
        let details = Details { message_id: id, message, args, related: None, resolution };
        Self { status, allow: None, details: Box::new(details) }
    }

    fn about(mut self, property: &str) -> Self {
        self.details.related = Some(format!("#/{}", property.replace('.', "/")));
        self
    }

    /// The body: `error` with one extended message.
    pub(crate) fn body(&self) -> Value {
        let Details { message_id, message, args, related, resolution } = &*self.details;
        let mut info = json!({
            "@odata.type": "#Message.v1_2_1.Message",
            "MessageId": format!("{REGISTRY}.{}", message_id),
            "Message": message,
            "MessageArgs": args,
            "MessageSeverity": if self.status.is_server_error() { "Critical" } else { "Warning" },
            "Resolution": resolution,
        });
        if let Some(related) = related {
            info["RelatedProperties"] = json!([related]);
        }
        json!({"error": {
            "code": format!("{REGISTRY}.{}", message_id),
            "message": message,
            "@Message.ExtendedInfo": [info],
        }})
    }

    pub(crate) fn unauthorized() -> Self {
        let message = "The service could not authenticate this request: no valid credentials were sent.".to_owned();
        Self::new(
            StatusCode::UNAUTHORIZED,
            "NoValidSession",
            message,
            &[],
            "Send basic authentication or the token of a session.",
        )
    }

    pub(crate) fn not_found(path: &str) -> Self {
        let message = format!("The requested resource of type Resource named '{path}' was not found.");
        Self::new(
            StatusCode::NOT_FOUND,
            "ResourceNotFound",
            message,
            &["Resource", path],
            "Follow links from the service root rather than composing paths.",
        )
    }

    pub(crate) fn method_not_allowed(method: &Method, path: &str, allow: &'static str) -> Self {
        let message = format!("The HTTP method {method} is not allowed on {path}.");
        let mut error = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "OperationNotAllowed",
            message,
            &[],
            "Use one of the methods in the Allow header.",
        );
        error.allow = Some(allow);
        error
    }

    pub(crate) fn query_not_supported(option: &str) -> Self {
        let message = format!("Querying is not supported by the implementation: {option}.");
        Self::new(StatusCode::NOT_IMPLEMENTED, "QueryNotSupported", message, &[], "Repeat without query options.")
    }

    pub(crate) fn malformed_json() -> Self {
        let message = "The request body submitted was malformed JSON and could not be parsed.".to_owned();
        Self::new(StatusCode::BAD_REQUEST, "MalformedJSON", message, &[], "Send a JSON object.")
    }

    pub(crate) fn empty_object() -> Self {
        let message = "The request body submitted contained an empty JSON object.".to_owned();
        Self::new(StatusCode::BAD_REQUEST, "EmptyJSON", message, &[], "Name at least one property.")
    }

    pub(crate) fn property_unknown(property: &str) -> Self {
        let message = format!("The property {property} is not in the list of valid properties for the resource.");
        Self::new(StatusCode::BAD_REQUEST, "PropertyUnknown", message, &[property], "Remove the property.")
            .about(property)
    }

    pub(crate) fn property_not_writable(property: &str) -> Self {
        let message = format!("The property {property} is a read-only property and cannot be assigned a value.");
        Self::new(StatusCode::BAD_REQUEST, "PropertyNotWritable", message, &[property], "Remove the property.")
            .about(property)
    }

    pub(crate) fn property_type(property: &str, value: &Value) -> Self {
        let value = value.to_string();
        let message =
            format!("The value '{value}' for the property {property} is not a type that the property accepts.");
        let args = [value.as_str(), property];
        Self::new(StatusCode::BAD_REQUEST, "PropertyValueTypeError", message, &args, "Correct the type.")
            .about(property)
    }

    pub(crate) fn property_not_in_list(property: &str, value: &str) -> Self {
        let message =
            format!("The value '{value}' for the property {property} is not in the list of acceptable values.");
        Self::new(
            StatusCode::BAD_REQUEST,
            "PropertyValueNotInList",
            message,
            &[value, property],
            "Choose one of the AllowableValues.",
        )
        .about(property)
    }

    pub(crate) fn parameter_missing(action: &str, parameter: &str) -> Self {
        let message =
            format!("The action {action} requires the parameter {parameter} to be present in the request body.");
        let args = [action, parameter];
        Self::new(StatusCode::BAD_REQUEST, "ActionParameterMissing", message, &args, "Supply the parameter.")
    }

    pub(crate) fn parameter_unknown(action: &str, parameter: &str) -> Self {
        let message = format!("The action {action} was submitted with the invalid parameter {parameter}.");
        let args = [action, parameter];
        Self::new(StatusCode::BAD_REQUEST, "ActionParameterUnknown", message, &args, "Remove the parameter.")
    }

    pub(crate) fn parameter_not_in_list(action: &str, parameter: &str, value: &str) -> Self {
        let message = format!(
            "The value '{value}' for the parameter {parameter} in the action {action} is not in the list of acceptable values."
        );
        Self::new(
            StatusCode::BAD_REQUEST,
            "ActionParameterValueNotInList",
            message,
            &[value, parameter, action],
            "Choose one of the AllowableValues of the action.",
        )
    }

    pub(crate) fn conflict(why: &str) -> Self {
        let message = format!(
            "The change to the requested resource failed because the resource is in use or in transition: {why}."
        );
        Self::new(
            StatusCode::CONFLICT,
            "ResourceInUse",
            message,
            &[],
            "Read the power state and decide again whether the action is still wanted.",
        )
    }

    pub(crate) fn precondition_failed() -> Self {
        let message = "The ETag supplied did not match the ETag required to change this resource.".to_owned();
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "PreconditionFailed",
            message,
            &[],
            "Read the resource and try again.",
        )
    }

    pub(crate) fn precondition_required() -> Self {
        let message = "A precondition header or annotation is required to change this resource.".to_owned();
        Self::new(
            StatusCode::PRECONDITION_REQUIRED,
            "PreconditionRequired",
            message,
            &[],
            "Send If-Match with the ETag of the resource.",
        )
    }

    pub(crate) fn internal(detail: &str) -> Self {
        let message = format!("The request failed due to an internal service error: {detail}.");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message, &[], "See the log of the lab.")
    }

    pub(crate) fn unavailable(retry_after_s: Option<u32>) -> Self {
        let seconds = retry_after_s.unwrap_or_default().to_string();
        let message = format!("The service is temporarily unavailable. Retry in {seconds} seconds.");
        let args = [seconds.as_str()];
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceTemporarilyUnavailable", message, &args, "Wait, then retry.")
    }

    pub(crate) fn injected(status: StatusCode) -> Self {
        let message = format!("A general error has occurred: a fault of the lab asked for status {}.", status.as_u16());
        Self::new(status, "GeneralError", message, &[], "Clear the fault.")
    }
}
