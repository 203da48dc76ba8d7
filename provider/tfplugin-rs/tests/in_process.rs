//! The service called without sockets, by the client a Terraform core would generate.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../examples/notes.rs"]
#[allow(dead_code, unreachable_pub, reason = "the example's main is not used here")]
mod notes;

use tfplugin::{
    Schema, Type, Value, codec,
    plan::empty_object,
    resource::Resource,
    server::ProviderService,
    wire::{self, provider_client::ProviderClient, provider_server::ProviderServer},
};
use tonic::Code;

type Client = ProviderClient<ProviderServer<ProviderService<notes::Notes>>>;

const NOTE: &str = "notes_note";

fn schema() -> Schema {
    notes::Note.schema()
}

fn ty() -> Type {
    schema().value_type()
}

fn pack(value: &Value) -> Option<wire::DynamicValue> {
    Some(codec::to_wire(value, &ty()))
}

fn unpack(value: Option<wire::DynamicValue>) -> Value {
    codec::from_wire(value.as_ref(), &ty()).unwrap()
}

async fn client(dir: &std::path::Path) -> Client {
    let mut client = ProviderClient::new(ProviderServer::new(ProviderService::new(notes::Notes)));
    let config_type = Type::object([("dir", Type::String)]);
    let config = Value::object([("dir", dir.display().to_string())]);
    let config = Some(codec::to_wire(&config, &config_type));
    let request = wire::ConfigureProviderRequest { config, ..Default::default() };
    assert!(client.configure_provider(request).await.unwrap().into_inner().diagnostics.is_empty());
    client
}

fn note(fields: &[(&str, Value)]) -> Value {
    let mut note = empty_object(&schema());
    for (name, value) in fields {
        note.set(name, value.clone());
    }
    note
}

async fn plan(client: &mut Client, prior: &Value, config: &Value) -> wire::PlanResourceChangeResponse {
    let request = wire::PlanResourceChangeRequest {
        type_name: NOTE.into(),
        prior_state: pack(prior),
        proposed_new_state: pack(config),
        config: pack(config),
        ..Default::default()
    };
    client.plan_resource_change(request).await.unwrap().into_inner()
}

async fn create(client: &mut Client, config: &Value) -> wire::ApplyResourceChangeResponse {
    let planned = plan(client, &Value::Null, config).await;
    assert!(planned.diagnostics.is_empty(), "{:?}", planned.diagnostics);
    let request = wire::ApplyResourceChangeRequest {
        type_name: NOTE.into(),
        prior_state: pack(&Value::Null),
        planned_state: planned.planned_state,
        config: pack(config),
        planned_private: planned.planned_private,
        ..Default::default()
    };
    client.apply_resource_change(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn the_schema_says_what_terraform_needs() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = client(dir.path()).await;
    let reply = client.get_provider_schema(wire::GetProviderSchemaRequest {}).await.unwrap().into_inner();
    assert!(reply.provider.is_some());
    let block = reply.resource_schemas[NOTE].block.clone().unwrap();
    let secret = block.attributes.iter().find(|a| a.name == "secret").unwrap();
    assert!(secret.write_only && secret.optional && !secret.computed);
    let mood = block.attributes.iter().find(|a| a.name == "mood").unwrap();
    assert!(mood.optional && mood.computed, "a default makes an attribute computed too");
    let caps = reply.server_capabilities.unwrap();
    assert!(caps.plan_destroy && caps.get_provider_schema_optional && !caps.move_resource_state);
    assert_eq!(schema().faults(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_not_there_is_unimplemented_or_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = client(dir.path()).await;
    let code = |status: tonic::Status| status.code();
    let moved = client.move_resource_state(wire::MoveResourceStateRequest::default()).await;
    assert_eq!(moved.map_err(code).unwrap_err(), Code::Unimplemented);
    let generated = client.generate_resource_config(wire::GenerateResourceConfigRequest::default()).await;
    assert_eq!(generated.map_err(code).unwrap_err(), Code::Unimplemented);
    let data =
        client.read_data_source(wire::ReadDataSourceRequest { type_name: "notes_no".into(), ..Default::default() });
    assert_eq!(data.await.unwrap().into_inner().diagnostics[0].summary, "Unknown data source notes_no");
}

#[tokio::test]
async fn write_only_values_reach_the_apply_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = client(dir.path()).await;
    let config = note(&[("title", "a".into()), ("secret", "hunter2".into())]);
    let planned = plan(&mut client, &Value::Null, &config).await;
    assert!(unpack(planned.planned_state).attr("secret").is_null());
    let reply = create(&mut client, &config).await;
    let state = unpack(reply.new_state);
    assert_eq!(state.attr("secret_length"), &Value::from(7i64), "the apply saw it");
    assert!(state.attr("secret").is_null(), "the state did not");
    // A core that would store it is told so.
    let request = wire::ValidateResourceConfigRequest {
        type_name: NOTE.into(),
        config: pack(&config),
        client_capabilities: None,
    };
    let found = client.validate_resource_config(request).await.unwrap().into_inner().diagnostics;
    assert_eq!(found.len(), 1);
    assert!(found[0].summary.contains("1.11"), "{found:?}");
}

#[tokio::test]
async fn a_panic_keeps_what_was_made() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = client(dir.path()).await;
    let config = note(&[("title", "boom".into()), ("fault", "panic".into())]);
    let reply = create(&mut client, &config).await;
    assert_eq!(reply.diagnostics.len(), 1);
    assert!(reply.diagnostics[0].detail.contains("the note asked for it"), "{:?}", reply.diagnostics);
    assert_eq!(unpack(reply.new_state).attr("id"), &Value::from("boom"), "the checkpoint is saved");
    assert!(!reply.private.is_empty(), "and so are the private notes");
    // The process goes on.
    let again = create(&mut client, &note(&[("title", "fine".into())])).await;
    assert!(again.diagnostics.is_empty(), "{:?}", again.diagnostics);
}

#[tokio::test]
async fn stop_ends_the_wait_keeps_the_state_and_spares_the_next_operation() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = client(dir.path()).await;
    let mut other = client.clone();
    let slow = note(&[("title", "slow".into()), ("delay", Value::from(600i64))]);
    let waiting = tokio::spawn(async move { create(&mut other, &slow).await });
    let file = dir.path().join("slow.json");
    while !file.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    client.stop_provider(wire::StopProviderRequest {}).await.unwrap();
    let reply = waiting.await.unwrap();
    assert_eq!(reply.diagnostics[0].summary, "Stopped waiting");
    assert_eq!(unpack(reply.new_state).attr("id"), &Value::from("slow"));
    let after = create(&mut client, &note(&[("title", "next".into()), ("delay", Value::from(0i64))])).await;
    assert!(after.diagnostics.is_empty(), "{:?}", after.diagnostics);
}

#[tokio::test]
async fn nonsense_is_a_diagnostic_not_a_status() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = client(dir.path()).await;
    let garbage = Some(wire::DynamicValue { msgpack: vec![0xc1, 0xff], json: Vec::new() });
    let request = wire::ApplyResourceChangeRequest {
        type_name: NOTE.into(),
        prior_state: garbage.clone(),
        planned_state: garbage.clone(),
        config: garbage,
        ..Default::default()
    };
    let reply = client.apply_resource_change(request).await.unwrap().into_inner();
    assert_eq!(reply.diagnostics.len(), 1);
    let unknown = wire::ReadResourceRequest { type_name: "notes_other".into(), ..Default::default() };
    let reply = client.read_resource(unknown).await.unwrap().into_inner();
    assert!(reply.diagnostics[0].summary.contains("notes_other"));
}

#[tokio::test]
async fn old_states_are_upgraded() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = client(dir.path()).await;
    let upgrade = |version, json: &str| wire::UpgradeResourceStateRequest {
        type_name: NOTE.into(),
        version,
        raw_state: Some(wire::RawState { json: json.as_bytes().to_vec(), flatmap: Default::default() }),
    };
    let reply = client.upgrade_resource_state(upgrade(0, r#"{"title":"a","body":"b","gone":[1]}"#)).await;
    let reply = reply.unwrap().into_inner();
    assert!(reply.diagnostics.is_empty(), "{:?}", reply.diagnostics);
    assert_eq!(unpack(reply.upgraded_state).attr("text"), &Value::from("b"));
    let newer = client.upgrade_resource_state(upgrade(2, "{}")).await.unwrap().into_inner();
    assert!(newer.diagnostics[0].detail.contains("newer version"), "{:?}", newer.diagnostics);
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_wait_but_not_the_operation() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = client(dir.path()).await;
    let mut other = client.clone();
    let slow = note(&[("title", "left".into()), ("delay", Value::from(600i64)), ("fault", "tell".into())]);
    let waiting = tokio::spawn(async move { create(&mut other, &slow).await });
    let (file, told) = (dir.path().join("left.json"), dir.path().join("left.abandoned"));
    while !file.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    waiting.abort();
    while !told.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let after = create(&mut client, &note(&[("title", "next".into())])).await;
    assert!(after.diagnostics.is_empty(), "{:?}", after.diagnostics);
}
