//! Everything this crate does, against a real kube-apiserver and kube-controller-manager.
//!
//! The nodes are hollow: the test plays the kubelet by creating the Node and reporting its status. What a kubelet and
//! kubeadm make of our user data is shown by the acceptance tests, which boot the node image.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests, which wait for a real server in real time")]

mod harness;

use std::time::{Duration, Instant};

use harness::{NODE_ENDPOINT, TestCluster};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};
use vmetal_model::{Taint, TaintEffect};
use vmetal_tenant::{
    CordonOutcome, DeleteOutcome, DrainMode, DrainOptions, JoinGrant, JoinRequest, NodeExpectation, NodeState,
    TenantClient, TenantError, TokenRevocation,
};

/// A cluster takes a few seconds to start, so all is shown on one.
#[tokio::test]
async fn a_real_cluster_takes_a_node_and_gives_it_back() {
    let Some(cluster) = TestCluster::start() else { return };
    let tenant = TenantClient::connect(&cluster.kubeconfig).await.unwrap();
    let admin = client(&cluster.kubeconfig).await;

    facts_are_those_of_the_cluster(&tenant).await;
    unusable_credentials_are_told_apart(&cluster).await;
    let grant = a_claim_has_one_token(&tenant, &admin).await;
    the_token_opens_the_cluster_until_it_is_revoked(&cluster, &tenant, &grant).await;
    a_token_of_somebody_else_is_left_alone(&tenant, &admin).await;
    let uid = a_node_is_ready_when_it_is_ours_and_complete(&tenant, &admin).await;
    a_budget_holds_its_pods_and_a_drain_says_so(&tenant, &admin).await;
    a_node_is_deleted_by_uid(&tenant, &admin, &uid).await;
    a_cluster_that_nodes_cannot_join_is_a_named_error(&tenant, &admin).await;
}

async fn client(kubeconfig: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
    Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()).unwrap()
}

/// Polls until `look` gives a value.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource + serde::de::DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

async fn facts_are_those_of_the_cluster(tenant: &TenantClient) {
    let facts = tenant.facts().await.unwrap();
    assert!(facts.version.starts_with("v1."), "{facts:?}");
    assert_eq!(facts.endpoint, NODE_ENDPOINT);
    assert_eq!(facts.ca_cert_hash.len(), "sha256:".len() + 64, "{facts:?}");
}

async fn unusable_credentials_are_told_apart(cluster: &TestCluster) {
    let wrong_token = cluster.kubeconfig_with(|k| k["users"][0]["user"] = json!({ "token": "wrong" }));
    let error = TenantClient::connect(&wrong_token).await.unwrap().facts().await.unwrap_err();
    assert!(matches!(error, TenantError::Unauthorized { .. }), "{error}");

    let wrong_authority = cluster.kubeconfig_with(|k| {
        k["clusters"][0]["cluster"].as_object_mut().unwrap().remove("certificate-authority-data");
    });
    let error = TenantClient::connect(&wrong_authority).await.unwrap().facts().await.unwrap_err();
    assert!(matches!(error, TenantError::Certificate { .. }), "{error:?}");

    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody =
        cluster.kubeconfig_with(|k| k["clusters"][0]["cluster"]["server"] = json!(format!("https://127.0.0.1:{port}")));
    let error = TenantClient::connect(&nobody).await.unwrap().facts().await.unwrap_err();
    assert!(matches!(error, TenantError::Unreachable { .. }), "{error:?}");
}

fn request(claim_uid: &str, entropy: u8) -> JoinRequest {
    JoinRequest {
        claim_uid: claim_uid.into(),
        claim_name: format!("claim-{claim_uid}"),
        ttl: SignedDuration::from_hours(1),
        now: Timestamp::now(),
        entropy: [entropy; 32],
    }
}

async fn a_claim_has_one_token(tenant: &TenantClient, admin: &Client) -> JoinGrant {
    let first = tenant.prepare_join(&request("uid-1", 1)).await.unwrap();
    assert_eq!(first.api_endpoint, NODE_ENDPOINT);
    assert_eq!(first.ca_cert_hash, tenant.facts().await.unwrap().ca_cert_hash);
    assert!(first.expires_at > Timestamp::now());

    // The engine died after the call and asks again, with other random bytes and a later time.
    let later = JoinRequest { now: Timestamp::now() + SignedDuration::from_mins(5), ..request("uid-1", 2) };
    let second = tenant.prepare_join(&later).await.unwrap();
    assert_eq!((&first.token_id, &first.token_secret), (&second.token_id, &second.token_secret));
    assert!(second.expires_at > first.expires_at);

    // Somebody broke the Secret's content; the server lets that happen.
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), "kube-system");
    let name = format!("bootstrap-token-{}", first.token_id);
    let broken = json!({ "stringData": { "token-secret": "too-short", "usage-bootstrap-signing": "false" } });
    secrets.patch(&name, &PatchParams::default(), &Patch::Merge(broken)).await.unwrap();
    let third = tenant.prepare_join(&request("uid-1", 3)).await.unwrap();
    assert_eq!(third.token_id, first.token_id);
    assert_ne!(third.token_secret, first.token_secret);

    let other = tenant.prepare_join(&request("uid-2", 3)).await.unwrap();
    assert_ne!(other.token_id, third.token_id);
    assert_eq!(tenant.revoke_token(&other.token_id).await.unwrap(), TokenRevocation::Revoked);
    third
}

async fn the_token_opens_the_cluster_until_it_is_revoked(
    cluster: &TestCluster,
    tenant: &TenantClient,
    grant: &JoinGrant,
) {
    let token = format!("{}.{}", grant.token_id, grant.token_secret.expose());
    let kubeconfig = cluster.kubeconfig_with(|k| k["users"][0]["user"] = json!({ "token": token }));
    let node = client(&kubeconfig).await;
    let config_maps: Api<ConfigMap> = Api::namespaced(node, "kube-system");
    config_maps.get("kubeadm-config").await.unwrap();

    // The same credentials, used for something that they do not allow.
    let error = TenantClient::connect(&kubeconfig).await.unwrap().delete_node("any", "uid").await.unwrap_err();
    assert!(
        matches!(&error, TenantError::Forbidden { message, .. } if message.contains("system:bootstrap:")),
        "{error}"
    );

    assert_eq!(tenant.revoke_token(&grant.token_id).await.unwrap(), TokenRevocation::Revoked);
    assert_eq!(tenant.revoke_token(&grant.token_id).await.unwrap(), TokenRevocation::AlreadyGone);
    eventually("the token to be refused", || async {
        matches!(config_maps.get("kubeadm-config").await, Err(kube::Error::Api(status)) if status.code == 401)
            .then_some(())
    })
    .await;
}

async fn a_token_of_somebody_else_is_left_alone(tenant: &TenantClient, admin: &Client) {
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), "kube-system");
    let mine = tenant.prepare_join(&request("uid-3", 4)).await.unwrap();
    tenant.revoke_token(&mine.token_id).await.unwrap();
    let name = format!("bootstrap-token-{}", mine.token_id);
    let foreign = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "type": "bootstrap.kubernetes.io/token" });
    eventually("the Secret's name to be free", || async {
        secrets.create(&PostParams::default(), &serde_json::from_value(foreign.clone()).unwrap()).await.ok()
    })
    .await;

    let evaded = tenant.prepare_join(&request("uid-3", 5)).await.unwrap();
    assert_ne!(evaded.token_id, mine.token_id);
    let error = tenant.revoke_token(&mine.token_id).await.unwrap_err();
    assert!(matches!(error, TenantError::ForeignToken { .. }), "{error}");
    assert!(secrets.get_opt(&name).await.unwrap().is_some());
    assert!(matches!(tenant.revoke_token("UPPER!").await, Err(TenantError::BadTokenId(_))));
    tenant.revoke_token(&evaded.token_id).await.unwrap();
}

fn expectation() -> NodeExpectation {
    NodeExpectation {
        name: "worker-1".into(),
        provider_id: "vmetal://h1".into(),
        not_uid: None,
        labels: [("rack", "r1"), ("node-role.kubernetes.io/worker", "")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        taints: vec![Taint { key: "gpu".into(), value: String::new(), effect: TaintEffect::NoSchedule }],
    }
}

async fn a_node_is_ready_when_it_is_ours_and_complete(tenant: &TenantClient, admin: &Client) -> String {
    let expectation = expectation();
    assert_eq!(tenant.observe_node(&expectation).await.unwrap(), NodeState::Absent);

    // What a kubelet does first: it may set the one label and not the other.
    let nodes: Api<Node> = Api::all(admin.clone());
    let node = create(
        &nodes,
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": "worker-1", "labels": { "rack": "r1" } },
            "spec": { "providerID": "vmetal://h1", "taints": [{ "key": "gpu", "effect": "NoSchedule" }] },
        }),
    )
    .await;
    let uid = node.uid().unwrap();
    let NodeState::NotReady { reasons, .. } = tenant.node_state(&expectation).await.unwrap() else {
        panic!("not NotReady")
    };
    assert!(reasons.iter().any(|reason| reason.contains("node-role.kubernetes.io/worker= is missing")), "{reasons:?}");
    // The second look sets the label. The not-ready taint may be there or not: admission sets it, and the node controller
    // takes it away again while there is no condition. What always tells is that the kubelet has not reported.
    let NodeState::NotReady { reasons, .. } = tenant.observe_node(&expectation).await.unwrap() else {
        panic!("not NotReady")
    };
    assert!(reasons.iter().any(|reason| reason.contains("its kubelet has not reported")), "{reasons:?}");
    assert!(!reasons.iter().any(|reason| reason.contains("label")), "{reasons:?}");

    let ready = json!({ "status": { "conditions": [{
        "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "hollow",
        "lastHeartbeatTime": Timestamp::now().to_string(), "lastTransitionTime": Timestamp::now().to_string(),
    }]}});
    nodes.patch_status("worker-1", &PatchParams::default(), &Patch::Strategic(ready)).await.unwrap();
    let found = eventually("the Node to be ready", || async {
        match tenant.observe_node(&expectation).await.unwrap() {
            NodeState::Ready { uid } => Some(uid),
            _ => None,
        }
    })
    .await;
    assert_eq!(found, uid);

    let other_machine = NodeExpectation { provider_id: "vmetal://h2".into(), ..expectation.clone() };
    assert!(matches!(tenant.observe_node(&other_machine).await.unwrap(), NodeState::Foreign { .. }));
    let earlier = NodeExpectation { not_uid: Some(uid.clone()), ..expectation };
    assert!(matches!(tenant.observe_node(&earlier).await.unwrap(), NodeState::Foreign { .. }));

    // Applying to a Node that does not exist must not make one.
    let error = tenant.apply_restricted_labels("ghost", "no-such-uid", &earlier.labels).await.unwrap_err();
    assert!(matches!(error, TenantError::Refused { code: 409, .. }), "{error}");
    assert!(nodes.get_opt("ghost").await.unwrap().is_none());
    uid
}

fn pod(name: &str, annotations: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": "web" }, "annotations": annotations },
        "spec": { "nodeName": "worker-1", "containers": [{ "name": "c", "image": "localhost/pause:1" }] },
    })
}

/// How many evictions the API server was asked for, by its own count, which may be a moment late.
async fn evictions(admin: &Client) -> u64 {
    let metrics = admin.request_text(http::Request::get("/metrics").body(Vec::new()).unwrap()).await.unwrap();
    let counts = metrics
        .lines()
        .filter(|line| line.starts_with("apiserver_request_total{") && line.contains("subresource=\"eviction\""));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

async fn a_budget_holds_its_pods_and_a_drain_says_so(tenant: &TenantClient, admin: &Client) {
    let nodes: Api<Node> = Api::all(admin.clone());
    let uid = nodes.get("worker-1").await.unwrap().uid().unwrap();
    assert_eq!(tenant.cordon("worker-1", "another-uid").await.unwrap(), CordonOutcome::Replaced);
    assert_eq!(tenant.cordon("worker-1", &uid).await.unwrap(), CordonOutcome::Cordoned);
    assert_eq!(tenant.cordon("worker-1", &uid).await.unwrap(), CordonOutcome::Cordoned);
    assert_eq!(tenant.cordon("ghost", &uid).await.unwrap(), CordonOutcome::AlreadyGone);
    assert_eq!(nodes.get("worker-1").await.unwrap().spec.unwrap().unschedulable, Some(true));
    assert!(tenant.drain_pass("worker-1", &DrainOptions::default()).await.unwrap().done());

    let pods: Api<Pod> = Api::namespaced(admin.clone(), "default");
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(admin.clone(), "default");
    create(
        &budgets,
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "web-budget" },
            "spec": { "minAvailable": 2, "selector": { "matchLabels": { "app": "web" } } },
        }),
    )
    .await;
    let running = json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
    for name in ["web-1", "web-2"] {
        create(&pods, pod(name, json!({}))).await;
        pods.patch_status(name, &PatchParams::default(), &Patch::Strategic(running.clone())).await.unwrap();
    }
    create(&pods, pod("static", json!({ "kubernetes.io/config.mirror": "hash" }))).await;
    eventually("the budget to count both pods", || async {
        (budgets.get("web-budget").await.unwrap().status?.current_healthy == Some(2)).then_some(())
    })
    .await;

    // The first answer of each: the client must not wait for the budget by itself.
    let options = DrainOptions { mode: DrainMode::Evict, grace_period_seconds: Some(7) };
    let progress = tenant.drain_pass("worker-1", &options).await.unwrap();
    let asked = eventually("both evictions to be counted", || async {
        let asked = evictions(admin).await;
        (asked >= 2).then_some(asked)
    });
    assert_eq!(asked.await, 2, "each pod is asked once");
    let blocked: Vec<&str> = progress.blocked_by_budget.iter().map(|blocked| blocked.pod.name.as_str()).collect();
    assert_eq!(blocked, ["web-1", "web-2"], "{progress:?}");
    assert!(progress.blocked_by_budget[0].reason.contains("web-budget"), "{progress:?}");
    assert_eq!((progress.staying, progress.done()), (1, false));
    assert!(pods.get("web-1").await.unwrap().metadata.deletion_timestamp.is_none());

    // The tenant makes room for one.
    let room = json!({ "spec": { "minAvailable": 1 } });
    budgets.patch("web-budget", &PatchParams::default(), &Patch::Merge(room)).await.unwrap();
    let first = eventually("one pod to be let go", || async {
        let progress = tenant.drain_pass("worker-1", &options).await.unwrap();
        progress.evicted.first().map(|pod| pod.name.clone())
    })
    .await;
    // The delete options arrived, which those of the library's own eviction do not.
    assert_eq!(pods.get(&first).await.unwrap().metadata.deletion_grace_period_seconds, Some(7));
    let progress = tenant.drain_pass("worker-1", &options).await.unwrap();
    assert_eq!(progress.waiting.iter().map(|pod| &pod.name).collect::<Vec<_>>(), [&first], "{progress:?}");
    assert_eq!(progress.blocked_by_budget.len(), 1, "{progress:?}");

    // The claim's deadline has passed and says force.
    let force = DrainOptions { mode: DrainMode::Delete, grace_period_seconds: Some(0) };
    let progress = tenant.drain_pass("worker-1", &force).await.unwrap();
    assert_eq!(progress.evicted.len(), 1, "{progress:?}");
    // The kubelet, if there were one, would confirm the other.
    pods.delete(&first, &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.unwrap();
    eventually("the node to be empty", || async {
        tenant.drain_pass("worker-1", &options).await.unwrap().done().then_some(())
    })
    .await;
    assert!(pods.get_opt("static").await.unwrap().is_some());
}

async fn a_node_is_deleted_by_uid(tenant: &TenantClient, admin: &Client, uid: &str) {
    let nodes: Api<Node> = Api::all(admin.clone());
    assert_eq!(tenant.delete_node("worker-1", "another-uid").await.unwrap(), DeleteOutcome::Replaced);
    assert!(nodes.get_opt("worker-1").await.unwrap().is_some());
    assert_eq!(tenant.delete_node("worker-1", uid).await.unwrap(), DeleteOutcome::Deleted);
    assert_eq!(tenant.delete_node("worker-1", uid).await.unwrap(), DeleteOutcome::AlreadyGone);
}

/// Last, because it spoils the cluster.
async fn a_cluster_that_nodes_cannot_join_is_a_named_error(tenant: &TenantClient, admin: &Client) {
    let config_maps: Api<ConfigMap> = Api::namespaced(admin.clone(), "kube-system");
    let elsewhere = json!({ "data": { "ClusterConfiguration": "controlPlaneEndpoint: 192.0.2.2:6443\n" } });
    config_maps.patch("kubeadm-config", &PatchParams::default(), &Patch::Merge(elsewhere)).await.unwrap();
    let error = tenant.prepare_join(&request("uid-4", 6)).await.unwrap_err();
    assert!(matches!(error, TenantError::EndpointMismatch { .. }), "{error}");

    config_maps.delete("kubeadm-config", &DeleteParams::default()).await.unwrap();
    let error = tenant.prepare_join(&request("uid-4", 6)).await.unwrap_err();
    assert!(
        matches!(&error, TenantError::MissingObject { object, .. } if object.contains("kubeadm-config")),
        "{error}"
    );
}
