//! The tenant's cluster: as much of an API server as the engine talks to, and the kubelets that register with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use vmetal_model::{Host, TenancyEnd};
use vmetal_tenant::{TenantClient, TenantError};
use vmetald::tenants::Connect;

use crate::incarnation::Incarnation;
use crate::machine::{Running, System};
use crate::world::World;

/// The cluster's authority. Its key was thrown away.
const AUTHORITY: &str = include_str!("ca.pem");
const SERVER: &str = "https://10.1.0.1:6443";

/// A pod.
#[derive(Debug, Clone)]
struct Pod {
    name: String,
    uid: String,
    /// When it will be gone.
    gone: Option<Instant>,
}

/// A Node.
#[derive(Debug, Clone)]
pub struct Node {
    uid: String,
    /// The provider id.
    pub provider_id: String,
    unschedulable: bool,
    ready: Instant,
    machine: usize,
    start: u64,
    pods: Vec<Pod>,
}

/// What the cluster holds.
#[derive(Default)]
pub struct Cluster {
    /// Until when it is away.
    pub away: Option<Instant>,
    /// A status that it gives instead of answers, and how often still.
    pub refusing: Option<(u16, u32)>,
    /// Until when disruption budgets hold every pod.
    pub budgets: Option<Instant>,
    /// Bootstrap tokens: labels and fields by the Secret's name.
    pub tokens: BTreeMap<String, (Value, BTreeMap<String, String>)>,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    uids: u64,
}

impl Cluster {
    fn uid(&mut self) -> String {
        self.uids += 1;
        format!("00000000-0000-4000-8000-{:012}", self.uids)
    }

    /// Whether a join token works.
    pub fn knows_token(&self, token: &str) -> bool {
        let Some((id, secret)) = token.split_once('.') else { return false };
        let known = self.tokens.get(&format!("bootstrap-token-{id}"));
        known.is_some_and(|(_, fields)| fields.get("token-secret").is_some_and(|known| known == secret))
    }

    /// The tenant gives up whatever ran on a machine that was taken from him.
    pub fn forget_machine(&mut self, machine: usize) {
        self.nodes.retain(|_, node| node.machine != machine);
    }

    /// A kubelet registers, or comes back.
    pub fn register(&mut self, system: &System, machine: usize, start: u64, ready: Instant, pods: u64) {
        match self.nodes.get_mut(&system.node) {
            Some(node) if node.provider_id == system.provider_id => {
                (node.machine, node.start, node.ready) = (machine, start, ready);
            }
            // Somebody else's Node: a kubelet cannot change its provider id.
            Some(_) => {}
            None => {
                let uid = self.uid();
                let pods = (0..pods).map(|n| Pod { name: format!("{}-{n}", system.node), uid: self.uid(), gone: None });
                let pods = pods.collect();
                let provider_id = system.provider_id.clone();
                let node = Node { uid, provider_id, unschedulable: false, ready, machine, start, pods };
                self.nodes.insert(system.node.clone(), node);
            }
        }
    }
}

/// Connects one process of an engine with the cluster.
pub struct Clusters {
    world: Arc<World>,
    process: Arc<Incarnation>,
}

impl Clusters {
    /// The connections of this process.
    pub fn new(world: &Arc<World>, process: &Arc<Incarnation>) -> Self {
        Clusters { world: Arc::clone(world), process: Arc::clone(process) }
    }
}

impl Connect for Clusters {
    fn connect<'a>(&'a self, _kubeconfig: &'a str) -> BoxFuture<'a, Result<TenantClient, TenantError>> {
        let (world, process) = (Arc::clone(&self.world), Arc::clone(&self.process));
        let service = tower::service_fn(move |request: Request<Body>| {
            let (world, process) = (Arc::clone(&world), Arc::clone(&process));
            async move {
                process.alive().await;
                let answer = exchange(&world, request).await;
                process.alive().await;
                answer
            }
        });
        let client = TenantClient::over(kube::Client::new(service, "default"), SERVER);
        Box::pin(std::future::ready(Ok(client)))
    }
}

async fn exchange(world: &Arc<World>, request: Request<Body>) -> Result<Response<Body>, std::io::Error> {
    if !world.effort() {
        std::future::pending::<()>().await;
    }
    sleep(world.chance.between(Duration::from_millis(1), Duration::from_millis(60))).await;
    if world.inner().cluster.away.is_some_and(|until| until > Instant::now()) {
        sleep(Duration::from_secs(10)).await;
        return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "deadline has elapsed"));
    }
    let (parts, body) = request.into_parts();
    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let (status, answer) = handle(world, parts.method.as_str(), parts.uri.path(), &query, &body);
    sleep(world.chance.between(Duration::from_millis(1), Duration::from_millis(40))).await;
    let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    Ok(response)
}

fn failure(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message });
    (code, status)
}

fn absent() -> (u16, Value) {
    failure(404, "NotFound", "not found")
}

fn handle(world: &Arc<World>, method: &str, path: &str, query: &str, body: &Value) -> (u16, Value) {
    {
        let cluster = &mut world.inner().cluster;
        if let Some((status, left)) = cluster.refusing {
            cluster.refusing = (left > 1).then_some((status, left - 1));
            return failure(status, "InternalError", "the simulated API server refuses");
        }
    }
    if path == "/version" {
        let version = json!({ "major": "1", "minor": "36", "gitVersion": "v1.36.3", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": "" });
        return (200, version);
    }
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["api", "v1", "namespaces", _, "configmaps", name] => config_map(world, name),
        ["api", "v1", "namespaces", "kube-system", "secrets", rest @ ..] => {
            secrets(&mut world.inner().cluster, method, rest.first().copied(), body)
        }
        ["api", "v1", "nodes", name] => node(world, method, name, body),
        ["api", "v1", "pods"] => pods(world, query),
        ["api", "v1", "namespaces", "default", "pods", name, "eviction"] => evict(world, name),
        ["api", "v1", "namespaces", "default", "pods", name] if method == "DELETE" => evict(world, name),
        _ => absent(),
    }
}

fn config_map(world: &World, name: &str) -> (u16, Value) {
    let authority = base64::engine::general_purpose::STANDARD.encode(AUTHORITY);
    let data = match name {
        "kube-root-ca.crt" => json!({ "ca.crt": AUTHORITY }),
        "kubeadm-config" => json!({ "ClusterConfiguration": "controlPlaneEndpoint: 10.1.0.1:6443\n" }),
        "cluster-info" => {
            let kubeconfig = format!(
                "clusters:\n- name: ''\n  cluster: {{server: '{SERVER}', certificate-authority-data: '{authority}'}}\n"
            );
            let mut data = json!({ "kubeconfig": kubeconfig });
            for name in world.inner().cluster.tokens.keys() {
                data[format!("jws-kubeconfig-{}", name.trim_start_matches("bootstrap-token-"))] = "signed".into();
            }
            data
        }
        _ => return absent(),
    };
    (200, json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data }))
}

fn secrets(cluster: &mut Cluster, method: &str, name: Option<&str>, body: &Value) -> (u16, Value) {
    let fields = |body: &Value| -> BTreeMap<String, String> {
        let given = body["stringData"].as_object().into_iter().flatten();
        given.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
    };
    let show = |name: &str, (labels, fields): &(Value, BTreeMap<String, String>)| {
        let encode = |text: &String| base64::engine::general_purpose::STANDARD.encode(text);
        let data: BTreeMap<&String, String> = fields.iter().map(|(key, value)| (key, encode(value))).collect();
        json!({ "apiVersion": "v1", "kind": "Secret", "data": data,
            "metadata": { "name": name, "uid": format!("uid-{name}"), "labels": labels } })
    };
    match (method, name) {
        ("POST", None) => {
            let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            if cluster.tokens.contains_key(&name) {
                return failure(409, "AlreadyExists", "it exists");
            }
            let token = (body["metadata"]["labels"].clone(), fields(body));
            let shown = show(&name, &token);
            cluster.tokens.insert(name, token);
            (201, shown)
        }
        ("GET", Some(name)) => cluster.tokens.get(name).map_or_else(absent, |token| (200, show(name, token))),
        ("PATCH", Some(name)) => match cluster.tokens.get_mut(name) {
            Some(token) => {
                token.1.extend(fields(body));
                (200, show(name, token))
            }
            None => absent(),
        },
        ("DELETE", Some(name)) => match cluster.tokens.remove(name) {
            Some(_) => (200, json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" })),
            None => absent(),
        },
        _ => absent(),
    }
}

fn node(world: &Arc<World>, method: &str, name: &str, body: &Value) -> (u16, Value) {
    let now = Instant::now();
    let mut inner = world.inner();
    let inner = &mut *inner;
    let Some(found) = inner.cluster.nodes.get_mut(name) else { return absent() };
    let machine = &inner.machines[found.machine];
    let runs = machine.on && machine.starts == found.start && matches!(machine.running, Running::System(_));
    match method {
        "PATCH" => {
            if body["metadata"]["uid"].as_str().is_some_and(|uid| uid != found.uid) {
                return failure(409, "Conflict", "the uid is another one");
            }
            found.unschedulable |= body["spec"]["unschedulable"] == true;
        }
        "DELETE" => {
            if body["preconditions"]["uid"].as_str().is_some_and(|uid| uid != found.uid) {
                return failure(409, "Conflict", "the uid is another one");
            }
            // A host that was taken by force, or is left as it is, is not known to be off.
            let (excused, host) = (machine.lied || machine.left, machine.name.clone());
            inner.cluster.nodes.remove(name);
            let world = Arc::clone(world);
            let text = format!("Node {name} was deleted while its server runs");
            let name = name.to_owned();
            // After this call has let the world go.
            tokio::spawn(async move {
                world.say("cluster", format!("Node {name} deleted"));
                let forced = |host: Arc<Host>| {
                    host.status.unerased.as_ref().is_some_and(|ended| ended.end == TenancyEnd::Forced)
                };
                if runs && !excused && !world.host(&host).is_some_and(forced) {
                    world.violated(&host, text);
                }
            });
            return (200, json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }));
        }
        _ => {}
    }
    let (status, reason) = match (runs, now >= found.ready) {
        (true, true) => ("True", "KubeletReady"),
        (true, false) => ("False", "KubeletNotReady"),
        (false, _) => ("Unknown", "NodeStatusUnknown"),
    };
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "uid": found.uid },
        "spec": { "providerID": found.provider_id, "unschedulable": found.unschedulable },
        "status": { "conditions": [{ "type": "Ready", "status": status, "reason": reason, "message": "" }] },
    });
    (200, node)
}

fn pods(world: &World, query: &str) -> (u16, Value) {
    let now = Instant::now();
    let wanted = query.replace("%3D", "=");
    let mut inner = world.inner();
    let mut items = Vec::new();
    for (name, node) in &mut inner.cluster.nodes {
        node.pods.retain(|pod| pod.gone.is_none_or(|gone| gone > now));
        if !wanted.split('&').any(|part| part == format!("fieldSelector=spec.nodeName={name}")) {
            continue;
        }
        for pod in &node.pods {
            let mut metadata = json!({ "name": pod.name, "namespace": "default", "uid": pod.uid });
            if pod.gone.is_some() {
                metadata["deletionTimestamp"] = "2026-06-01T00:00:00Z".into();
            }
            items.push(json!({ "metadata": metadata, "spec": { "nodeName": name, "containers": [] } }));
        }
    }
    (200, json!({ "apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items }))
}

fn evict(world: &World, name: &str) -> (u16, Value) {
    let now = Instant::now();
    let stay = world.chance.between(Duration::from_secs(1), Duration::from_secs(40));
    let mut inner = world.inner();
    if inner.cluster.budgets.is_some_and(|until| until > now) {
        return failure(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.");
    }
    let pod = inner.cluster.nodes.values_mut().flat_map(|node| &mut node.pods).find(|pod| pod.name == name);
    let Some(pod) = pod else { return absent() };
    pod.gone.get_or_insert(now + stay);
    (201, json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }))
}
