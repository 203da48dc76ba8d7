//! Actions over the plugin protocol, in process: the clients at hand are too old to run them (Terraform 1.14 can).
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests watch the real clock")]

#[path = "support/engine.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod engine;

use engine::{Engine, PASSWORD, TOKEN};
use futures::StreamExt as _;
use provider_vmetal::Vmetal;
use tfplugin::{
    Provider as _, Schema, Value, codec,
    plan::empty_object,
    server::ProviderService,
    wire::{self, invoke_action_event::Event, provider_client::ProviderClient, provider_server::ProviderServer},
};
use vmetal_api::{Apply, Client, ClientConfig, Secret, TokenSource};
use vmetal_model::{HostAction, Kind};

type Plugin = ProviderClient<ProviderServer<ProviderService<Vmetal>>>;

fn pack(schema: &Schema, fields: &[(&str, Value)]) -> Option<wire::DynamicValue> {
    let mut value = empty_object(schema);
    for (name, field) in fields {
        value.set(name, field.clone());
    }
    Some(codec::to_wire(&value, &schema.value_type()))
}

async fn plugin(engine: &Engine) -> Plugin {
    let mut plugin = ProviderClient::new(ProviderServer::new(ProviderService::new(Vmetal::new())));
    let fields = [("endpoint", engine.endpoint().into()), ("token", TOKEN.into())];
    let config = pack(&Vmetal::new().schema(), &fields);
    let request = wire::ConfigureProviderRequest { config, ..Default::default() };
    assert!(plugin.configure_provider(request).await.unwrap().into_inner().diagnostics.is_empty());
    plugin
}

/// What the action said, and how it ended.
async fn invoke(plugin: &mut Plugin, name: &str, fields: &[(&str, Value)]) -> (Vec<String>, Vec<wire::Diagnostic>) {
    let (_, action) = Vmetal::new().actions().into_iter().find(|(known, _)| *known == name).unwrap();
    let config = pack(&action.schema(), fields);
    let check = wire::ValidateActionConfigRequest { type_name: name.into(), config: config.clone() };
    let faults = plugin.validate_action_config(check).await.unwrap().into_inner().diagnostics;
    if !faults.is_empty() {
        return (Vec::new(), faults);
    }
    let request = wire::InvokeActionRequest { action_type: name.into(), config, ..Default::default() };
    let events: Vec<_> = plugin.invoke_action(request).await.unwrap().into_inner().collect().await;
    let mut said = Vec::new();
    for event in events {
        match event.unwrap().event.unwrap() {
            Event::Progress(progress) => said.push(progress.message),
            Event::Completed(completed) => return (said, completed.diagnostics),
        }
    }
    panic!("the action has no end: {said:?}");
}

#[test]
fn orders_reach_the_engine_and_are_waited_for() {
    let engine = Engine::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let token = TokenSource::Literal(Secret::new(TOKEN));
        let client = Client::connect_lazy(ClientConfig::new(engine.endpoint(), token)).unwrap();
        let spec = serde_json::json!({
            "bmc": { "address": "redfish://10.0.0.1", "username": "root", "password_version": "1", "tls": "verify" },
            "boot_mac": "52:54:00:00:00:01",
        });
        client
            .apply(Apply::from_json(Kind::Host, "h1", spec).secret("bmc.password", Secret::new(PASSWORD)))
            .await
            .unwrap();
        let available =
            |object: Option<&vmetal_api::AnyObject>| object.filter(|o| o.status["phase"] == "available").map(drop);
        client.wait_for(Kind::Host, "h1", std::time::Duration::from_secs(30), available).await.unwrap();
        let mut plugin = plugin(&engine).await;
        let text = |text: &str| Value::from(text);

        let until = "2030-01-01T00:00:00Z";
        let fields = [("host", text("h1")), ("reason", text("new DIMMs")), ("until", text(until))];
        let (said, told) = invoke(&mut plugin, "vmetal_set_maintenance", &fields).await;
        assert!(told.is_empty() && said.iter().any(|line| line.contains("maintenance")), "{said:?} {told:?}");
        let fields = [("host", text("h1")), ("wait", true.into()), ("timeout", text("30s"))];
        let (said, told) = invoke(&mut plugin, "vmetal_end_maintenance", &fields).await;
        assert!(told.is_empty(), "{told:?}");
        assert!(said.iter().any(|line| line.contains("inspecting")), "it says how far it is: {said:?}");
        let phase = engine.world.get(Kind::Host, "h1").unwrap().status["phase"].clone();
        assert_eq!(phase, "available", "it was waited for");
        for name in ["vmetal_inspect", "vmetal_release_from_quarantine"] {
            let (_, told) = invoke(&mut plugin, name, &[("host", text("h1")), ("reason", text("mended"))]).await;
            assert!(told.is_empty(), "{told:?}");
        }
        let orders: Vec<_> = engine.world.orders().into_iter().map(|(_, order)| order).collect();
        let reason = "mended".to_owned();
        assert_eq!(
            orders,
            [
                HostAction::Maintenance { reason: "new DIMMs".into(), until: Some(until.parse().unwrap()) },
                HostAction::Resume,
                HostAction::Inspect { reason: reason.clone() },
                HostAction::Unquarantine { reason },
            ]
        );

        let (_, told) =
            invoke(&mut plugin, "vmetal_inspect", &[("host", text("nowhere")), ("reason", text("x"))]).await;
        assert_eq!(told[0].summary, "The object does not exist");
        let fields = [("host", text("h1")), ("reason", text("x")), ("until", text("soon"))];
        let (_, told) = invoke(&mut plugin, "vmetal_set_maintenance", &fields).await;
        assert_eq!(told[0].summary, "Invalid time");
    });
}
