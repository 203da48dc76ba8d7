#![allow(clippy::unwrap_used, reason = "tests")]
//! What is imported is what was declared: for any object of the engine, the state made from it declares the same object.

use std::fmt::Debug;

use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
};
use tfplugin::{
    codec,
    plan::{consistency, propose},
};
use vmetal_model::{
    BmcSpec, BootMode, DeclaredMaintenance, HostSpec, HostStatus, MacAddr, Metadata, NodeTypeSpec, Object, OnDelete,
    Operator, Quantity, Requirement, RootDeviceHints, Taint, TaintEffect, TenantNodeSpec, TenantNodeStatus, Timestamp,
    TlsTrust,
    agent::EraseLevel,
    tenant_node::{DrainSpec, DrainTimeout},
};

use super::*;
use crate::{host::Hosts, node_type::NodeTypes, tenant_node::TenantNodes};

fn word() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9]{0,6}"
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(word(), word(), 0..3)
}

fn resources() -> impl Strategy<Value = BTreeMap<String, Quantity>> {
    btree_map(word(), (1u64..1 << 40).prop_map(Quantity::from_milli), 0..3)
}

fn host_spec() -> impl Strategy<Value = HostSpec> {
    let tls = prop_oneof![
        Just(TlsTrust::Verify),
        Just(TlsTrust::Insecure),
        any::<[u8; 32]>().prop_map(|bytes| TlsTrust::Fingerprint(hex::encode(bytes))),
    ];
    let hints = (option::of(word()), option::of(word()), option::of(1u64..1000), option::of(any::<bool>())).prop_map(
        |(serial, model, min_size_gib, rotational)| RootDeviceHints {
            serial,
            model,
            min_size_gib,
            rotational,
            ..RootDeviceHints::default()
        },
    );
    let bmc =
        (select(vec!["redfish://10.0.0.7", "redfish+http://[fd00::1]:8000/redfish/v1/Systems/1"]), word(), word(), tls)
            .prop_map(|(address, username, password_version, tls)| BmcSpec {
                address: address.parse().unwrap(),
                username,
                password_version,
                tls,
            });
    let erase = select(vec![EraseLevel::Metadata, EraseLevel::Discard, EraseLevel::Overwrite]);
    let mode = select(vec![BootMode::Uefi, BootMode::Bios]);
    let until = option::of((0i64..4_000_000_000).prop_map(|second| Timestamp::from_second(second).unwrap()));
    let maintenance = option::of((word(), until).prop_map(|(reason, until)| DeclaredMaintenance { reason, until }));
    let on_delete = select(vec![OnDelete::Clean, OnDelete::Orphan]);
    (bmc, any::<[u8; 5]>(), mode, hints, option::of(any::<[u8; 4]>()), erase, maintenance, on_delete).prop_map(
        |(bmc, [a, b, c, d, e], boot_mode, root_device, address, erase, maintenance, on_delete)| HostSpec {
            bmc,
            boot_mac: MacAddr([0x52, a, b, c, d, e]),
            boot_mode,
            root_device,
            address: address.map(Into::into),
            erase,
            maintenance,
            on_delete,
        },
    )
}

fn node_spec() -> impl Strategy<Value = TenantNodeSpec> {
    let operators =
        vec![Operator::In, Operator::NotIn, Operator::Exists, Operator::DoesNotExist, Operator::Gt, Operator::Lt];
    let requirement = (word(), select(operators), vec(word(), 0..3)).prop_map(|(key, operator, values)| Requirement {
        key,
        operator,
        values,
    });
    let effects = vec![TaintEffect::NoSchedule, TaintEffect::PreferNoSchedule, TaintEffect::NoExecute];
    let taint = (word(), prop_oneof![Just(String::new()).boxed(), word().boxed()], select(effects))
        .prop_map(|(key, value, effect)| Taint { key, value, effect });
    let drain = (1u32..100_000, any::<bool>()).prop_map(|(timeout_seconds, force)| DrainSpec {
        timeout_seconds,
        on_timeout: if force { DrainTimeout::Force } else { DrainTimeout::Wait },
    });
    let drain = prop_oneof![Just(DrainSpec::default()).boxed(), drain.boxed()];
    let names = (word(), option::of(word()), option::of(word()), option::of(word()));
    (names, vec(requirement, 0..3), resources(), labels(), vec(taint, 0..3), drain, word()).prop_map(
        |((cluster, node_type, image, network), requirements, resources, labels, taints, drain, user_data_version)| {
            TenantNodeSpec {
                cluster,
                node_type,
                requirements,
                resources,
                image,
                network,
                labels,
                taints,
                user_data_version,
                drain,
                group: None,
            }
        },
    )
}

fn node_type_spec() -> impl Strategy<Value = NodeTypeSpec> {
    (labels(), resources(), option::of(0..1u64 << 60), option::of(word()), option::of(word()), 0..3u32, labels())
        .prop_map(|(selector, resources, cost, image, network, standby, properties)| NodeTypeSpec {
            selector,
            resources,
            cost,
            image,
            network,
            standby,
            properties,
        })
}

fn object<S, T>(spec: S, status: T, labels: BTreeMap<String, String>) -> Object<S, T> {
    let metadata = Metadata {
        name: "a".into(),
        uid: Uid("u".into()),
        generation: 1,
        revision: 1,
        labels,
        annotations: BTreeMap::new(),
        created: Timestamp::UNIX_EPOCH,
        deleted: None,
    };
    Object { metadata, spec, status }
}

/// The value as it is after a journey to Terraform and back: with every attribute present.
fn carried<K: Kind>(value: &Value) -> Value {
    let ty = K::schema().value_type();
    codec::from_msgpack(&codec::to_msgpack(value, &ty), &ty).unwrap()
}

/// Imports the object, declares it again from that state, and plans the state as its own configuration.
fn check<K: Kind>(object: &K::Object, labels: BTreeMap<String, String>)
where
    <K::Object as ModelResource>::Spec: PartialEq + Debug,
{
    let mut state = empty_object(&K::schema());
    if let Some(default) = K::WAIT_FOR {
        state.set("wait_for", default);
    }
    Managed::<K>::describe(&mut state, object);
    let state = carried::<K>(&state);
    let Ok(declared) = K::declare(&state) else { panic!("the state declares nothing: {state:?}") };
    assert_eq!(declared.spec, object.object().spec);
    assert_eq!(declared.labels, labels);
    // Reading it once more changes nothing, and a configuration that says the same plans nothing.
    let mut again = state.clone();
    Managed::<K>::describe(&mut again, object);
    assert_eq!(carried::<K>(&again), state);
    let schema = K::schema();
    let mut config = state.clone();
    for name in schema.attributes().keys() {
        if schema.attributes()[name].is_read_only() {
            config.set(name, Value::Null);
        }
    }
    let plan = propose(&schema, state.clone(), config.clone(), &state, Private::default());
    assert_eq!(plan.planned, state);
    assert_eq!(consistency::plan(&schema, &state, &config, &plan.planned), []);
    assert_eq!(consistency::state(&schema, &state), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn imported_hosts_declare_themselves(spec in host_spec(), labels in labels()) {
        let host = object(spec, HostStatus::new(Timestamp::UNIX_EPOCH), labels.clone());
        check::<Hosts>(&host, labels);
    }

    #[test]
    fn imported_tenant_nodes_declare_themselves(spec in node_spec()) {
        check::<TenantNodes>(&object(spec, TenantNodeStatus::new(Timestamp::UNIX_EPOCH), BTreeMap::new()), BTreeMap::new());
    }

    #[test]
    fn imported_node_types_declare_themselves(spec in node_type_spec()) {
        check::<NodeTypes>(&object(spec, Default::default(), BTreeMap::new()), BTreeMap::new());
    }
}
