//! Actions and ephemeral resources over the plugin protocol, in process: what happens in the middle of an action, and what a client
//! is too quick for. A real client runs actions in `newest.rs`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests watch the real clock")]

#[path = "support/engine.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod engine;
#[path = "support/plugin.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod plugin;

use engine::{Engine, JOIN_SECRET, PASSWORD, TOKEN};
use futures::StreamExt as _;
use plugin::{Plugin, plugin, plugin_with};
use provider_vmetal::Vmetal;
use tfplugin::{
    Provider as _, Value, codec,
    testing::packed,
    wire::{self, invoke_action_event::Event},
};
use vmetal_api::{Apply, Client, ClientConfig, Secret, TokenSource};
use vmetal_model::{HostAction, Kind, PowerWish};

/// What the action said, and how it ended.
async fn invoke(plugin: &mut Plugin, name: &str, fields: &[(&str, Value)]) -> (Vec<String>, Vec<wire::Diagnostic>) {
    let (_, action) = Vmetal::new().actions().into_iter().find(|(known, _)| *known == name).unwrap();
    let config = packed(&action.schema(), fields);
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

async fn come_about(done: impl Fn() -> bool) {
    while !done() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
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
        client.wait_for(Kind::Host, "h1", std::time::Duration::from_secs(600), available).await.unwrap();
        let mut plugin = plugin(&engine).await;
        let text = |text: &str| Value::from(text);

        let until = "2030-01-01T00:00:00Z";
        let fields = [("host", text("h1")), ("reason", text("new DIMMs")), ("until", text(until))];
        let (said, told) = invoke(&mut plugin, "vmetal_set_maintenance", &fields).await;
        assert!(told.is_empty() && said.iter().any(|line| line.contains("maintenance")), "{said:?} {told:?}");
        let fields = [("host", text("h1")), ("wait", true.into()), ("timeout", text("10m"))];
        // It stays where it is inspected until somebody looks: what nobody sees is not told.
        engine.world.hold("h1");
        engine.world.calls();
        let seen = async {
            come_about(|| engine.world.calls().contains_key("watch")).await;
            come_about(|| engine.world.get(Kind::Host, "h1").unwrap().status["phase"] == "inspecting").await;
            engine.world.release("h1");
        };
        let ((said, told), ()) = tokio::join!(invoke(&mut plugin, "vmetal_end_maintenance", &fields), seen);
        assert!(told.is_empty(), "{told:?}");
        assert!(said.iter().any(|line| line.contains("inspecting")), "it says how far it is: {said:?}");
        let phase = engine.world.get(Kind::Host, "h1").unwrap().status["phase"].clone();
        assert_eq!(phase, "available", "it was waited for");
        let fields = [("host", text("h1")), ("power", text("cycle")), ("reason", text("hangs")), ("wait", true.into())];
        let (_, told) = invoke(&mut plugin, "vmetal_power", &fields).await;
        assert!(told.is_empty(), "{told:?}");
        assert_eq!(engine.world.get(Kind::Host, "h1").unwrap().status["power"], "on", "it was waited for");
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
                HostAction::Power { power: PowerWish::Cycle, reason: "hangs".into() },
                HostAction::Inspect { reason: reason.clone() },
                HostAction::Unquarantine { reason },
            ]
        );

        // What the engine gave up is told, with what to do.
        let spec = engine.world.get(Kind::Host, "h1").unwrap().spec;
        let mut other = spec.clone();
        other["boot_mac"] = "52:54:00:00:00:02".into();
        client.apply(Apply::from_json(Kind::Host, "stuck", other)).await.unwrap();
        let fields = [("host", text("stuck")), ("power", text("on")), ("reason", text("x")), ("wait", true.into())];
        let (_, told) = invoke(&mut plugin, "vmetal_power", &fields).await;
        assert_eq!(told[0].summary, "Host \"stuck\" failed");
        assert!(told[0].detail.contains("Pull the plug"), "{}", told[0].detail);
        let fields = |host: &str| {
            let next = ("password", text("another password"));
            [("host", text(host)), next, ("reason", text("a leaver")), ("wait", true.into())]
        };
        let (said, told) = invoke(&mut plugin, "vmetal_rotate_credentials", &fields("h1")).await;
        assert!(told.is_empty() && !format!("{said:?}").contains("another password"), "{said:?} {told:?}");
        let kept = engine.world.secret(Kind::Host, "h1", "bmc.password");
        assert_eq!(kept.as_deref(), Some("another password"));
        let (_, told) = invoke(&mut plugin, "vmetal_rotate_credentials", &fields("stuck")).await;
        assert!(told[0].detail.contains("Order a longer one"), "{told:?}");
        let fields = [("host", text("h1")), ("power", text("sideways")), ("reason", text("x"))];
        let (_, told) = invoke(&mut plugin, "vmetal_power", &fields).await;
        assert!(told[0].detail.contains("on, off, cycle"), "{told:?}");

        let (_, told) =
            invoke(&mut plugin, "vmetal_inspect", &[("host", text("nowhere")), ("reason", text("x"))]).await;
        assert_eq!(told[0].summary, "The object does not exist");
        let fields = [("host", text("h1")), ("reason", text("x")), ("until", text("soon"))];
        let (_, told) = invoke(&mut plugin, "vmetal_set_maintenance", &fields).await;
        assert_eq!(told[0].summary, "Invalid time");
    });
}

/// Opens an ephemeral resource: its result, what it wants to be given back, and when it wants to be renewed.
async fn open(
    plugin: &mut Plugin,
    name: &str,
    fields: &[(&str, Value)],
) -> Result<(Value, Option<Vec<u8>>, Option<i64>), Vec<wire::Diagnostic>> {
    let (_, ephemeral) = Vmetal::new().ephemerals().into_iter().find(|(known, _)| *known == name).unwrap();
    let config = packed(&ephemeral.schema(), fields);
    let check = wire::ValidateEphemeralResourceConfigRequest { type_name: name.into(), config: config.clone() };
    let faults = plugin.validate_ephemeral_resource_config(check).await.unwrap().into_inner().diagnostics;
    if !faults.is_empty() {
        return Err(faults);
    }
    let request = wire::OpenEphemeralResourceRequest { type_name: name.into(), config, ..Default::default() };
    let opened = plugin.open_ephemeral_resource(request).await.unwrap().into_inner();
    if !opened.diagnostics.is_empty() {
        return Err(opened.diagnostics);
    }
    let result = codec::from_wire(opened.result.as_ref(), &ephemeral.schema().value_type()).unwrap();
    Ok((result, opened.private, opened.renew_at.map(|at| at.seconds)))
}

#[test]
fn credentials_live_as_long_as_they_are_used() {
    let engine = Engine::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let token = TokenSource::Literal(Secret::new(TOKEN));
        let client = Client::connect_lazy(ClientConfig::new(engine.endpoint(), token)).unwrap();
        client.apply(Apply::from_json(Kind::TenantCluster, "acme", serde_json::json!({}))).await.unwrap();
        let host = serde_json::json!({
            "bmc": { "address": "redfish://10.0.0.1/redfish/v1/Systems/1", "username": "root", "tls": "verify" },
            "boot_mac": "52:54:00:00:00:01",
        });
        let host = Apply::from_json(Kind::Host, "h1", host).secret("bmc.password", Secret::new(PASSWORD));
        client.apply(host).await.unwrap();
        let mut plugin = plugin(&engine).await;
        let text = |text: &str| Value::from(text);

        let name = "vmetal_join_token";
        let fields = [("cluster", text("acme")), ("reason", text("a test")), ("ttl", text("30m"))];
        let (token, private, renew_at) = open(&mut plugin, name, &fields).await.unwrap();
        let secret = format!("t00000.{JOIN_SECRET}");
        assert_eq!((token.attr("token"), token.attr("token_id")), (&text(&secret), &text("t00000")));
        let command = format!("kubeadm join 10.0.0.1:6443 --token {secret} --discovery-token-ca-cert-hash sha256:00ff");
        assert_eq!(token.attr("join_command"), &text(&command));
        assert_eq!(renew_at, Some(20 * 60), "when a third of its life is left");
        let notes = String::from_utf8(private.clone().unwrap()).unwrap();
        assert!(!notes.contains(JOIN_SECRET), "{notes}");
        let request = wire::RenewEphemeralResourceRequest { type_name: name.into(), private };
        let renewed = plugin.renew_ephemeral_resource(request).await.unwrap().into_inner();
        assert!(renewed.diagnostics.is_empty() && renewed.renew_at.is_some(), "{:?}", renewed.diagnostics);
        assert_eq!(engine.world.tokens(), (vec![("t00000".to_owned(), 2)], vec![]), "prolonged, not doubled");
        let request = wire::CloseEphemeralResourceRequest { type_name: name.into(), private: renewed.private };
        let closed = plugin.close_ephemeral_resource(request).await.unwrap().into_inner();
        assert!(closed.diagnostics.is_empty(), "{:?}", closed.diagnostics);
        assert_eq!(engine.world.tokens().1, ["t00000"]);

        let name = "vmetal_api_token";
        let fields = [("role", text("operator")), ("reason", text("a test")), ("ttl", text("30m"))];
        let (made, private, renew_at) = open(&mut plugin, name, &fields).await.unwrap();
        let secret = made.attr("token").as_str().unwrap().to_owned();
        assert!(made.attr("name").as_str().unwrap().starts_with("tests (token "), "{made:?}");
        let ahead = renew_at.unwrap() - vmetal_model::Timestamp::now().as_second();
        assert!((19 * 60..=20 * 60).contains(&ahead), "when a third of its life is left: {ahead} s");
        let notes = String::from_utf8(private.clone().unwrap()).unwrap();
        assert!(!notes.contains(&secret), "{notes}");
        assert!(engine.tokens.identify(&secret).is_some());
        let request = wire::RenewEphemeralResourceRequest { type_name: name.into(), private };
        let renewed = plugin.renew_ephemeral_resource(request).await.unwrap().into_inner();
        assert!(renewed.diagnostics.is_empty() && renewed.renew_at.is_some(), "{:?}", renewed.diagnostics);
        let request = wire::CloseEphemeralResourceRequest { type_name: name.into(), private: renewed.private.clone() };
        let closed = plugin.close_ephemeral_resource(request).await.unwrap().into_inner();
        assert!(closed.diagnostics.is_empty() && engine.tokens.identify(&secret).is_none());
        let request = wire::RenewEphemeralResourceRequest { type_name: name.into(), private: renewed.private };
        let late = plugin.renew_ephemeral_resource(request).await.unwrap().into_inner().diagnostics;
        assert!(late[0].detail.contains("There is no token"), "{late:?}");
        // Who only looks makes no token that does more.
        let reader = vmetal_api::Holder { name: "eyes".into(), role: vmetal_api::Role::Reader };
        let eyes = engine.tokens.grant(reader, std::time::Duration::from_secs(600)).unwrap();
        let mut looking = plugin_with(&engine, eyes.expose()).await;
        let told = open(&mut looking, name, &fields).await.unwrap_err();
        assert!(
            told[0].summary == "The token is not for this" && told[0].detail.contains("makes no operator"),
            "{told:?}"
        );
        assert!(open(&mut looking, name, &fields[1..2]).await.is_ok(), "without a role it is one for looking");

        let name = "vmetal_join_token";
        let fields = [("host", text("h1")), ("reason", text("a test"))];
        let (credential, _, _) = open(&mut plugin, "vmetal_bmc_credential", &fields).await.unwrap();
        assert_eq!(
            ["origin", "username", "password"].map(|part| credential.attr(part).clone()),
            ["https://10.0.0.1", "root", PASSWORD].map(Value::from)
        );
        let fields = [("cluster", text("nowhere")), ("reason", text("a test"))];
        let told = open(&mut plugin, name, &fields).await.unwrap_err();
        assert_eq!(told[0].summary, "There is no tenant cluster \"nowhere\"");
        let fields = [("cluster", text("acme")), ("reason", text("a test")), ("ttl", text("5s"))];
        let told = open(&mut plugin, name, &fields).await.unwrap_err();
        assert!(told[0].detail.contains("between 1m and 24h"), "{told:?}");
    });
}
