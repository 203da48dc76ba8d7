//! What only newer clients ask for, over the plugin protocol, in process: lists for `terraform query`, imports by identity and
//! schemas of actions, each answer in all its parts. A real client asks in `newest.rs`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests watch the real clock")]

#[path = "support/engine.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod engine;
#[path = "support/plugin.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod plugin;

use std::collections::BTreeSet;

use engine::{Engine, PASSWORD, TOKEN};
use futures::StreamExt as _;
use plugin::{Plugin, plugin, unconfigured};
use provider_vmetal::Vmetal;
use serde_json::json;
use tfplugin::{Provider as _, Type, Value, codec, testing::packed, wire};
use vmetal_api::{Apply, Client, ClientConfig, Secret, TokenSource};
use vmetal_model::Kind;

/// Resource types with the name of one that is there.
const THERE: [(&str, &str); 8] = [
    ("vmetal_host", "h1"),
    ("vmetal_image", "debian"),
    ("vmetal_network", "tenants"),
    ("vmetal_node_pool", "workers"),
    ("vmetal_node_type", "small"),
    ("vmetal_policy", "place"),
    ("vmetal_tenant_cluster", "acme"),
    ("vmetal_tenant_node", "workers-0"),
];

/// One object of each type, declared by somebody else.
async fn declare(engine: &Engine) {
    let config = ClientConfig::new(engine.endpoint(), TokenSource::Literal(Secret::new(TOKEN)));
    let client = Client::connect_lazy(config).unwrap();
    let host = json!({
        "bmc": { "address": "redfish://10.0.0.1/redfish/v1/Systems/1", "username": "root", "tls": "verify" },
        "boot_mac": "52:54:00:00:00:01",
    });
    let component = b"\0asm\x0d\0\x01\0 mine".to_vec();
    let sha256 = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&component));
    client.put_component(&sha256, component.into()).await.unwrap();
    let mut member = Apply::from_json(Kind::TenantNode, "workers-0", json!({ "cluster": "acme" }));
    member.labels.insert("vmetal.io/node-pool".to_owned(), "workers".to_owned());
    for apply in [
        Apply::from_json(Kind::Host, "h1", host).secret("bmc.password", Secret::new(PASSWORD)),
        Apply::from_json(Kind::Image, "debian", json!({ "source": "/srv/debian.qcow2" })),
        Apply::from_json(Kind::Network, "tenants", json!({ "cidr": "10.40.0.0/24" })),
        Apply::from_json(Kind::NodeType, "small", json!({ "selector": { "a": "b" }, "resources": { "cpu": "4" } })),
        Apply::from_json(
            Kind::Policy,
            "place",
            json!({ "kind": "placement", "sha256": sha256, "origin": "mine.wasm" }),
        ),
        Apply::from_json(Kind::TenantCluster, "acme", json!({})).secret("kubeconfig", Secret::new("secret")),
        member,
    ] {
        client.apply(apply).await.unwrap();
    }
}

fn identity(name: &str) -> Option<wire::ResourceIdentityData> {
    let data = codec::to_wire(&Value::object([("name", name)]), &Type::object([("name", Type::String)]));
    Some(wire::ResourceIdentityData { identity_data: Some(data) })
}

async fn import(
    plugin: &mut Plugin,
    type_name: &str,
    id: &str,
    by: Option<wire::ResourceIdentityData>,
) -> wire::ImportedResource {
    let request = wire::ImportResourceStateRequest {
        type_name: type_name.into(),
        id: id.into(),
        identity: by,
        ..Default::default()
    };
    let mut answer = plugin.import_resource_state(request).await.unwrap().into_inner();
    assert!(answer.diagnostics.is_empty(), "{type_name}: {:?}", answer.diagnostics);
    answer.imported_resources.remove(0)
}

#[test]
fn what_is_there_is_listed_and_imported_by_its_identity() {
    let engine = Engine::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(listed_and_imported(&engine));
}

async fn listed_and_imported(engine: &Engine) {
    declare(engine).await;
    let mut plugin = plugin(engine).await;
    let all: BTreeSet<_> = Vmetal::new().resources().into_iter().map(|(name, _)| name).collect();
    assert_eq!(all, THERE.map(|(name, _)| name).into(), "every resource type is tried");
    for (type_name, resource) in Vmetal::new().resources() {
        let (_, name) = THERE.into_iter().find(|(known, _)| *known == type_name).unwrap();
        let ty = resource.schema().value_type();
        let [by_id, by_identity] = [
            import(&mut plugin, type_name, name, None).await,
            import(&mut plugin, type_name, "", identity(name)).await,
        ];
        assert_eq!((&by_identity.identity, &by_id.identity), (&identity(name), &identity(name)), "{type_name}");
        let read = async |plugin: &mut Plugin, state: Option<wire::DynamicValue>| {
            let current = identity(name);
            let request = wire::ReadResourceRequest {
                type_name: type_name.into(),
                current_state: state,
                current_identity: current.clone(),
                ..Default::default()
            };
            let answer = plugin.read_resource(request).await.unwrap().into_inner();
            assert!(answer.diagnostics.is_empty() && answer.new_identity == current, "{type_name}: {answer:?}");
            codec::from_wire(answer.new_state.as_ref(), &ty).unwrap()
        };
        // What happens in between is in both.
        let states = [read(&mut plugin, by_id.state).await, read(&mut plugin, by_identity.state).await];
        let known = |state: &Value| (state.attr("id").clone(), state.attr("name").clone());
        assert_eq!(known(&states[0]), known(&states[1]), "{type_name}");
        assert_eq!(states[0].attr("name"), &Value::from(name));

        let Some((_, lister)) = Vmetal::new().lists().into_iter().find(|(known, _)| *known == type_name) else {
            assert_eq!(type_name, "vmetal_node_pool", "a pool is no object of the engine's; its members are listed");
            continue;
        };
        let config = packed(&lister.schema(), &[]);
        let check = wire::ValidateListResourceConfigRequest {
            type_name: type_name.into(),
            config: config.clone(),
            ..Default::default()
        };
        let checked = plugin.validate_list_resource_config(check).await.unwrap().into_inner();
        assert!(checked.diagnostics.is_empty(), "{type_name}: {:?}", checked.diagnostics);
        let request =
            wire::ListResourceRequest { type_name: type_name.into(), config, include_resource_object: true, limit: 10 };
        let events: Vec<_> = plugin.list_resource(request).await.unwrap().into_inner().collect().await;
        let listed = events.into_iter().map(Result::unwrap).collect::<Vec<_>>();
        let [one] = listed.as_slice() else { panic!("{type_name}: {listed:?}") };
        assert!(one.diagnostic.is_empty(), "{type_name}: {:?}", one.diagnostic);
        assert_eq!((one.display_name.as_str(), &one.identity), (name, &identity(name)));
        let object = codec::from_wire(one.resource_object.as_ref(), &ty).unwrap();
        assert_eq!(known(&object), known(&states[0]), "{type_name}");
    }
}

/// What a client expects of schemas of actions: they are configured and leave nothing, so nothing in them is computed.
#[tokio::test]
async fn actions_are_told_with_what_they_take() {
    let mut plugin = unconfigured();
    let schemas = plugin.get_provider_schema(wire::GetProviderSchemaRequest {}).await.unwrap().into_inner();
    let told: BTreeSet<_> = schemas.action_schemas.keys().cloned().collect();
    assert_eq!(told, Vmetal::new().actions().into_iter().map(|(name, _)| name.to_owned()).collect());
    for (name, action) in schemas.action_schemas {
        let block = action.schema.unwrap().block.unwrap();
        assert!(block.block_types.is_empty() && !block.attributes.is_empty(), "{name}");
        for attribute in block.attributes {
            assert!(!attribute.computed && attribute.required != attribute.optional, "{name}: {attribute:?}");
            assert!(!attribute.r#type.is_empty() && !attribute.description.is_empty(), "{name}: {attribute:?}");
            assert_eq!(attribute.write_only, attribute.name == "password", "{name}: {attribute:?}");
        }
    }
}
