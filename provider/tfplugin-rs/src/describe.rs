//! What a provider offers, as the JSON that `terraform providers schema -json` prints, and what of a change to it breaks
//! its users.
//!
//! The document needs neither a terraform nor a socket, so a provider can keep it beside its source: as a golden file that
//! a test compares with ([`breaking`] says which differences break configurations and states that work today), and as what
//! its documentation is made from. It has everything a provider can offer, also what the terraform at hand is too old to
//! print.

mod breaking;

pub use breaking::breaking;

use std::collections::HashMap;

use serde_json::{Map, Value as Json, json};

use crate::{resource::Provider, server::ProviderService, wire};

/// The format of the document: that of Terraform's and OpenTofu's own.
const FORMAT: &str = "1.0";

/// Describes a provider. `address` is its source address, `registry.terraform.io/vmetal/vmetal`.
pub fn describe<P: Provider>(provider: P, address: &str) -> Json {
    let service = ProviderService::new(provider);
    let (schemas, identities) = service.description();
    json!({ "format_version": FORMAT, "provider_schemas": { address: document(&schemas, &identities) } })
}

fn document(schemas: &wire::GetProviderSchemaResponse, identities: &wire::GetResourceIdentitySchemasResponse) -> Json {
    let actions = schemas.action_schemas.iter().filter_map(|(name, action)| Some((name, action.schema.as_ref()?)));
    let mut document = Object::default();
    document.set("provider", schemas.provider.as_ref().map(schema));
    document.set("resource_schemas", each(&schemas.resource_schemas, schema));
    document.set("data_source_schemas", each(&schemas.data_source_schemas, schema));
    document.set("ephemeral_resource_schemas", each(&schemas.ephemeral_resource_schemas, schema));
    document.set("list_resource_schemas", each(&schemas.list_resource_schemas, schema));
    document.set("action_schemas", named(actions.map(|(name, schema)| (name, action(schema)))));
    document.set("functions", each(&schemas.functions, function));
    document.set("resource_identity_schemas", each(&identities.identity_schemas, identity));
    document.finish()
}

/// An object from which empty members are left out, as Go's `omitempty` does.
#[derive(Default)]
struct Object(Map<String, Json>);

impl Object {
    fn set(&mut self, name: &str, value: impl Into<Option<Json>>) {
        let Some(value) = value.into() else { return };
        let empty = match &value {
            Json::Null => true,
            Json::Bool(flag) => !flag,
            Json::String(text) => text.is_empty(),
            Json::Array(items) => items.is_empty(),
            Json::Object(members) => members.is_empty(),
            Json::Number(_) => false,
        };
        if !empty {
            self.0.insert(name.to_owned(), value);
        }
    }

    fn finish(self) -> Json {
        Json::Object(self.0)
    }
}

fn named<'a>(items: impl Iterator<Item = (&'a String, Json)>) -> Json {
    Json::Object(items.map(|(name, item)| (name.clone(), item)).collect())
}

fn each<T>(items: &HashMap<String, T>, one: impl Fn(&T) -> Json) -> Json {
    named(items.iter().map(|(name, item)| (name, one(item))))
}

fn kind(kind: i32) -> Json {
    let markdown = kind == i32::from(wire::StringKind::Markdown);
    Json::from(if markdown { "markdown" } else { "plain" })
}

/// The type as its description has it. What travels is JSON already.
fn of_type(bytes: &[u8]) -> Json {
    serde_json::from_slice(bytes).unwrap_or_default()
}

fn schema(schema: &wire::Schema) -> Json {
    json!({ "version": schema.version, "block": schema.block.as_ref().map(block) })
}

fn action(schema: &wire::Schema) -> Json {
    json!({ "block": schema.block.as_ref().map(block) })
}

fn block(block: &wire::schema::Block) -> Json {
    let mut object = Object::default();
    object.set("attributes", attributes(&block.attributes));
    object.set("description", Json::from(block.description.as_str()));
    object.set("description_kind", kind(block.description_kind));
    object.set("deprecated", Json::from(block.deprecated));
    object.finish()
}

fn attributes(attributes: &[wire::schema::Attribute]) -> Json {
    named(attributes.iter().map(|one| (&one.name, attribute(one))))
}

fn attribute(attribute: &wire::schema::Attribute) -> Json {
    let mut object = Object::default();
    match &attribute.nested_type {
        Some(nested) => object.set("nested_type", nested_type(nested)),
        None => object.set("type", of_type(&attribute.r#type)),
    }
    object.set("description", Json::from(attribute.description.as_str()));
    object.set("description_kind", kind(attribute.description_kind));
    for (name, flag) in [
        ("required", attribute.required),
        ("optional", attribute.optional),
        ("computed", attribute.computed),
        ("sensitive", attribute.sensitive),
        ("write_only", attribute.write_only),
        ("deprecated", attribute.deprecated),
    ] {
        object.set(name, Json::from(flag));
    }
    object.set("deprecation_message", Json::from(attribute.deprecation_message.as_str()));
    object.finish()
}

fn nested_type(nested: &wire::schema::Object) -> Json {
    use wire::schema::object::NestingMode;
    let mode = match nested.nesting() {
        NestingMode::Single => "single",
        NestingMode::List => "list",
        NestingMode::Set => "set",
        NestingMode::Map => "map",
        NestingMode::Invalid => "invalid",
    };
    json!({ "attributes": attributes(&nested.attributes), "nesting_mode": mode })
}

fn function(function: &wire::Function) -> Json {
    let mut object = Object::default();
    object.set("description", Json::from(function.description.as_str()));
    object.set("summary", Json::from(function.summary.as_str()));
    object.set("deprecation_message", Json::from(function.deprecation_message.as_str()));
    object.set("return_type", function.r#return.as_ref().map(|returned| of_type(&returned.r#type)));
    object.set("parameters", function.parameters.iter().map(parameter).collect::<Json>());
    object.set("variadic_parameter", function.variadic_parameter.as_ref().map(parameter));
    object.finish()
}

fn parameter(parameter: &wire::function::Parameter) -> Json {
    let mut object = Object::default();
    object.set("name", Json::from(parameter.name.as_str()));
    object.set("description", Json::from(parameter.description.as_str()));
    object.set("is_nullable", Json::from(parameter.allow_null_value));
    object.set("type", of_type(&parameter.r#type));
    object.finish()
}

fn identity(identity: &wire::ResourceIdentitySchema) -> Json {
    let attribute = |attribute: &wire::resource_identity_schema::IdentityAttribute| {
        let mut object = Object::default();
        object.set("type", of_type(&attribute.r#type));
        object.set("description", Json::from(attribute.description.as_str()));
        object.set("required_for_import", Json::from(attribute.required_for_import));
        object.set("optional_for_import", Json::from(attribute.optional_for_import));
        object.finish()
    };
    let attributes = identity.identity_attributes.iter().map(|one| (&one.name, attribute(one)));
    json!({ "version": identity.version, "attributes": named(attributes) })
}
