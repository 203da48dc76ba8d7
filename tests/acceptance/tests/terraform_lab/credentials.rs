//! Credentials through everything there is: actions and ephemeral resources by the provider's own protocol (only newer clients
//! can run actions), the real engine, the lab's BMCs and the real API server.

use kube::api::PostParams;
use kube::{Api, Client, Config};
use serde_json::json;
use tfplugin::server::ProviderService;
use tfplugin::testing::packed;
use tfplugin::wire::provider_client::ProviderClient;
use tfplugin::wire::provider_server::ProviderServer;
use tfplugin::wire::{self, invoke_action_event::Event};
use tfplugin::{Provider as _, Value, codec};

use futures::StreamExt as _;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use provider_vmetal::Vmetal;
use vmetal_acceptance::{Place, cluster, knock};

use crate::support::{HostBlock, journal, object, password, vmetal};

type Plugin = ProviderClient<ProviderServer<ProviderService<Vmetal>>>;

/// The provider in this process, with the engine's address and token.
async fn plugin(place: &Place) -> Plugin {
    let mut plugin = ProviderClient::new(ProviderServer::new(ProviderService::new(Vmetal::new())));
    let token = place.token_file().display().to_string();
    let fields = [("endpoint", place.endpoint().into()), ("token_file", token.into())];
    let config = packed(&Vmetal::new().schema(), &fields);
    let request = wire::ConfigureProviderRequest { config, ..Default::default() };
    assert!(plugin.configure_provider(request).await.unwrap().into_inner().diagnostics.is_empty());
    plugin
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The BMC of a tenant's server gets another password by the action. Afterwards it opens with that one only, and the engine
/// works with it; the tenant notices nothing.
pub(crate) fn rotated(place: &Place, host: &str) -> String {
    let (old, new) = (password(host), format!("rotated-secret-of-{host}-91c4"));
    let address = HostBlock::of(place, host).address;
    let runtime = runtime();
    let opens = |password: &str| runtime.block_on(knock::opens(&address, "admin", password)).unwrap();
    assert!(opens(&old) && !opens(&new), "before");
    let before = object(place, "host", host);
    runtime.block_on(async {
        let mut plugin = plugin(place).await;
        let name = "vmetal_rotate_credentials";
        let (_, action) = Vmetal::new().actions().into_iter().find(|(known, _)| *known == name).unwrap();
        let text = |text: &str| Value::from(text);
        let fields =
            [("host", text(host)), ("password", text(&new)), ("reason", text("a leaver")), ("wait", true.into())];
        let config = packed(&action.schema(), &fields);
        let planned =
            wire::PlanActionRequest { action_type: name.into(), config: config.clone(), ..Default::default() };
        let planned = plugin.plan_action(planned).await.unwrap().into_inner();
        assert!(planned.diagnostics.is_empty() && planned.deferred.is_none(), "{planned:?}");
        let request = wire::InvokeActionRequest { action_type: name.into(), config, ..Default::default() };
        let events: Vec<_> = plugin.invoke_action(request).await.unwrap().into_inner().collect().await;
        let told = format!("{events:?}");
        assert!(!told.contains(&old) && !told.contains(&new), "{told}");
        match events.into_iter().last().unwrap().unwrap().event {
            Some(Event::Completed(completed)) => assert!(completed.diagnostics.is_empty(), "{told}"),
            _ => panic!("the action has no end: {told}"),
        }
    });
    assert!(!opens(&old) && opens(&new), "the new password holds, and the old one no longer");
    let after = object(place, "host", host);
    assert_eq!(after["status"]["phase"], before["status"]["phase"]);
    assert_eq!(after["status"]["claim"], before["status"]["claim"]);
    assert!(after["status"]["rotation"].is_null(), "{after:#}");
    let accounts = |entry: &&serde_json::Value| entry["path"].as_str().is_some_and(|path| path.contains("/Accounts/"));
    assert_eq!(journal(place, host).iter().filter(accounts).count(), 1, "it was given once");
    new
}

/// A token to join by: made by the real API server's rules, good there for what a node needs and for nothing else, and gone
/// when it is closed.
pub(crate) fn join_token(place: &Place) -> String {
    runtime().block_on(async {
        let admin = cluster::client(&place.kubeconfig()).await.unwrap();
        let tokens = async || cluster::join_tokens(&admin).await.unwrap();
        let before = tokens().await;
        let mut plugin = plugin(place).await;
        let name = "vmetal_join_token";
        let (_, ephemeral) = Vmetal::new().ephemerals().into_iter().find(|(known, _)| *known == name).unwrap();
        let fields = [("cluster", Value::from("tenant")), ("reason", "a machine of another room".into())];
        let config = packed(&ephemeral.schema(), &fields);
        let request = wire::OpenEphemeralResourceRequest { type_name: name.into(), config, ..Default::default() };
        let opened = plugin.open_ephemeral_resource(request).await.unwrap().into_inner();
        assert!(opened.diagnostics.is_empty(), "{:?}", opened.diagnostics);
        let result = codec::from_wire(opened.result.as_ref(), &ephemeral.schema().value_type()).unwrap();
        let text = |name: &str| result.attr(name).as_str().unwrap().to_owned();
        let (token, id) = (text("token"), text("token_id"));
        assert_eq!(tokens().await.len(), before.len() + 1, "it is one of the cluster's own");
        assert!(text("join_command").contains(&format!("--token {token} --discovery-token-ca-cert-hash sha256:")));
        // The API server knows whose it is.
        let whoami = async || {
            let mut config = Config::from_custom_kubeconfig(
                kube::config::Kubeconfig::read_from(place.kubeconfig()).unwrap(),
                &kube::config::KubeConfigOptions::default(),
            )
            .await
            .unwrap();
            config.auth_info = kube::config::AuthInfo { token: Some(token.clone().into()), ..Default::default() };
            let who: Api<SelfSubjectReview> = Api::all(Client::try_from(config).unwrap());
            let question: SelfSubjectReview = serde_json::from_value(json!({})).unwrap();
            who.create(&PostParams::default(), &question).await
        };
        let user = whoami().await.unwrap().status.unwrap().user_info.unwrap();
        assert_eq!(user.username, Some(format!("system:bootstrap:{id}")));
        let request = wire::CloseEphemeralResourceRequest { type_name: name.into(), private: opened.private };
        let closed = plugin.close_ephemeral_resource(request).await.unwrap().into_inner();
        assert!(closed.diagnostics.is_empty(), "{:?}", closed.diagnostics);
        assert_eq!(tokens().await, before, "revoked");
        let events = vmetal(place, &["events", "tenant-cluster", "tenant"]);
        for part in [format!("join token {id} made for"), format!("join token {id} revoked by")] {
            assert!(events.contains(&part), "{part:?} is not in:\n{events}");
        }
        token
    })
}
