//! Everything that is not a managed resource, called in process with messages as cores send them.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../examples/notes.rs"]
#[allow(dead_code, unreachable_pub, reason = "the example's main is not used here")]
mod notes;

use futures::StreamExt as _;
use tfplugin::{
    Type, Value, codec,
    resource::Resource,
    server::ProviderService,
    wire::{self, invoke_action_event::Event, provider_client::ProviderClient, provider_server::ProviderServer},
};

type Client = ProviderClient<ProviderServer<ProviderService<notes::Notes>>>;

async fn client(dir: &std::path::Path) -> Client {
    let mut client = ProviderClient::new(ProviderServer::new(ProviderService::new(notes::Notes)));
    let ty = Type::object([("dir", Type::String)]);
    let config = Some(codec::to_wire(&Value::object([("dir", dir.display().to_string())]), &ty));
    let request = wire::ConfigureProviderRequest { config, ..Default::default() };
    assert!(client.configure_provider(request).await.unwrap().into_inner().diagnostics.is_empty());
    client
}

fn write(dir: &std::path::Path, title: &str, text: &str) {
    let note = serde_json::json!({ "text": text, "mood": "calm", "secret_length": "0" });
    std::fs::write(dir.join(format!("{title}.json")), note.to_string()).unwrap();
}

fn strings<const N: usize>(names: [&'static str; N]) -> Type {
    Type::object(names.map(|name| (name, Type::String)))
}

fn pack(value: &Value, ty: &Type) -> Option<wire::DynamicValue> {
    Some(codec::to_wire(value, ty))
}

fn identity(title: &str) -> Option<wire::ResourceIdentityData> {
    let ty = strings(["title"]);
    Some(wire::ResourceIdentityData { identity_data: pack(&Value::object([("title", title)]), &ty) })
}

#[tokio::test]
async fn a_data_source_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = client(dir.path()).await;
    for title in ["a1", "a2", "b1"] {
        write(dir.path(), title, "x");
    }
    let ty = Type::object([("prefix", Type::String), ("number", Type::Number)]);
    let config = pack(&Value::object([("prefix", Value::from("a")), ("number", Value::Null)]), &ty);
    let request = wire::ReadDataSourceRequest { type_name: "notes_count".into(), config, ..Default::default() };
    let reply = client.read_data_source(request).await.unwrap().into_inner();
    assert!(reply.diagnostics.is_empty(), "{:?}", reply.diagnostics);
    let state = codec::from_wire(reply.state.as_ref(), &ty).unwrap();
    assert_eq!(state, Value::object([("prefix", Value::from("a")), ("number", Value::from(2u64))]));
}

#[tokio::test]
async fn a_function_takes_what_its_signature_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = client(dir.path()).await;
    let signatures = client.get_functions(wire::GetFunctionsRequest {}).await.unwrap().into_inner().functions;
    assert_eq!(signatures["join"].parameters[0].name, "separator");
    assert_eq!(signatures["join"].variadic_parameter.as_ref().unwrap().name, "lines");
    let mut call = async |arguments: &[Value]| {
        let arguments = arguments.iter().map(|argument| codec::to_wire(argument, &Type::String)).collect();
        let request = wire::CallFunctionRequest { name: "join".into(), arguments };
        client.call_function(request).await.unwrap().into_inner()
    };
    let joined = call(&["-".into(), "a".into(), "b".into()]).await;
    assert_eq!(codec::from_wire(joined.result.as_ref(), &Type::String).unwrap(), Value::from("a-b"));
    let nothing = call(&["-".into()]).await.error.unwrap();
    assert_eq!((nothing.text.as_str(), nothing.function_argument), ("There is nothing to join.", Some(0)));
    assert!(call(&[]).await.error.unwrap().text.contains("takes 1 arguments"));
    assert!(call(&["panic".into(), "x".into()]).await.error.unwrap().text.contains("report it"));
}

#[tokio::test]
async fn an_ephemeral_value_is_opened_renewed_and_closed() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = client(dir.path()).await;
    let ty = strings(["owner", "key"]);
    let mut open = async |owner: &str| {
        let config = pack(&Value::object([("owner", Value::from(owner)), ("key", Value::Null)]), &ty);
        let request =
            wire::OpenEphemeralResourceRequest { type_name: "notes_lock".into(), config, ..Default::default() };
        client.open_ephemeral_resource(request).await.unwrap().into_inner()
    };
    let opened = open("me").await;
    let liar = open("liar").await;
    assert_eq!(liar.diagnostics[0].summary, "The provider made an inconsistent ephemeral value");
    assert!(liar.result.is_none() && !dir.path().join("liar.lock").exists(), "what is not handed over is closed");
    let result = codec::from_wire(opened.result.as_ref(), &ty).unwrap();
    assert_eq!(result.attr("key"), &Value::from("key of me"));
    assert_eq!(opened.renew_at.unwrap().seconds, 0);
    assert!(dir.path().join("me.lock").exists());

    let type_name = || "notes_lock".to_owned();
    let request = wire::RenewEphemeralResourceRequest { type_name: type_name(), private: opened.private };
    let renewed = client.renew_ephemeral_resource(request).await.unwrap().into_inner();
    assert!(renewed.diagnostics.is_empty() && renewed.renew_at.is_none());
    let request = wire::CloseEphemeralResourceRequest { type_name: type_name(), private: renewed.private };
    let closed = client.close_ephemeral_resource(request).await.unwrap().into_inner();
    assert!(closed.diagnostics.is_empty(), "{:?}", closed.diagnostics);
    assert!(!dir.path().join("me.lock").exists());
}

#[tokio::test]
async fn an_object_is_known_and_imported_by_its_identity() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = client(dir.path()).await;
    write(dir.path(), "diary", "dear");
    let request = wire::GetResourceIdentitySchemasRequest {};
    let schemas = client.get_resource_identity_schemas(request).await.unwrap().into_inner().identity_schemas;
    assert!(schemas["notes_note"].identity_attributes[0].required_for_import);

    let request = wire::ImportResourceStateRequest {
        type_name: "notes_note".into(),
        identity: identity("diary"),
        ..Default::default()
    };
    let imported = client.import_resource_state(request).await.unwrap().into_inner();
    assert!(imported.diagnostics.is_empty(), "{:?}", imported.diagnostics);
    let imported = &imported.imported_resources[0];
    assert_eq!(imported.identity, identity("diary"));
    let request = wire::ReadResourceRequest {
        type_name: "notes_note".into(),
        current_state: imported.state.clone(),
        ..Default::default()
    };
    assert_eq!(client.read_resource(request).await.unwrap().into_inner().new_identity, identity("diary"));

    let raw = |json: &str| Some(wire::RawState { json: json.as_bytes().to_vec(), ..Default::default() });
    let mut upgrade = async |version, json| {
        let request =
            wire::UpgradeResourceIdentityRequest { type_name: "notes_note".into(), version, raw_identity: raw(json) };
        client.upgrade_resource_identity(request).await.unwrap().into_inner()
    };
    assert_eq!(upgrade(0, r#"{"title":"diary"}"#).await.upgraded_identity, identity("diary"));
    assert!(upgrade(9, r#"{"title":"diary"}"#).await.diagnostics[0].detail.contains("newer version"));
}

#[tokio::test]
async fn a_list_names_what_can_be_imported() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = client(dir.path()).await;
    for title in ["a1", "a2", "a3", "b1"] {
        write(dir.path(), title, "x");
    }
    let config = pack(&Value::object([("prefix", "a")]), &strings(["prefix"]));
    let request =
        wire::ListResourceRequest { type_name: "notes_note".into(), config, include_resource_object: true, limit: 2 };
    let events: Vec<_> = client.list_resource(request).await.unwrap().into_inner().collect().await;
    let events: Vec<wire::ListResourceEvent> = events.into_iter().map(Result::unwrap).collect();
    assert_eq!(events.iter().map(|event| event.display_name.as_str()).collect::<Vec<_>>(), ["a1", "a2"]);
    assert_eq!(events[0].identity, identity("a1"));
    let ty = Resource::schema(&notes::Note).value_type();
    let object = codec::from_wire(events[0].resource_object.as_ref(), &ty).unwrap();
    assert_eq!(object.attr("text"), &Value::from("x"));
}

#[tokio::test]
async fn an_action_says_how_far_it_is_and_ends_with_its_diagnostics() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = client(dir.path()).await;
    write(dir.path(), "poem", "one\ntwo\nthree");
    let ty = strings(["title"]);
    let config = |title: Value| pack(&Value::object([("title", title)]), &ty);
    let mut plan = async |title: Value| {
        let request =
            wire::PlanActionRequest { action_type: "notes_recite".into(), config: config(title), ..Default::default() };
        client.plan_action(request).await.unwrap().into_inner().diagnostics
    };
    assert!(plan(Value::unknown()).await.is_empty());
    assert_eq!(plan("poem".into()).await[0].summary, "It will be loud");
    let mut invoke = async |action_type: &str, title: Value| {
        let request =
            wire::InvokeActionRequest { action_type: action_type.into(), config: config(title), ..Default::default() };
        let events: Vec<_> = client.invoke_action(request).await.unwrap().into_inner().collect().await;
        events.into_iter().map(|event| event.unwrap().event.unwrap()).collect::<Vec<_>>()
    };
    let events = invoke("notes_recite", "poem".into()).await;
    let said: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Progress(progress) => Some(progress.message.as_str()),
            Event::Completed(_) => None,
        })
        .collect();
    assert_eq!(said, ["one", "two", "three"]);
    let Some(Event::Completed(completed)) = events.last() else { panic!("no end: {events:?}") };
    assert!(completed.diagnostics.is_empty());
    let missing = invoke("notes_recite", "prose".into()).await;
    let [Event::Completed(completed)] = missing.as_slice() else { panic!("{missing:?}") };
    assert_eq!(completed.diagnostics[0].summary, "No such note");
    let lost = invoke("notes_recite", Value::Null).await;
    let [Event::Completed(completed)] = lost.as_slice() else { panic!("{lost:?}") };
    assert_eq!(completed.diagnostics[0].summary, "title did not arrive");
    let unknown = invoke("notes_shout", "poem".into()).await;
    let [Event::Completed(completed)] = unknown.as_slice() else { panic!("{unknown:?}") };
    assert_eq!(completed.diagnostics[0].summary, "Unknown action notes_shout");
}
