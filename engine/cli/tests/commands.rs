//! The commands and the binary against an engine that keeps its objects in memory, over a real socket.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser as _;
use futures::channel::mpsc;
use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::net::TcpListener;
use vmetal_api::types::Follow;
use vmetal_api::{
    Annotate, AnyObject, Apply, Backend, BackendError, BmcCredential, Caller, EventEntry, EventsQuery, JoinToken,
    JoinTokenRequest, Listing, ObjectRef, Secret, Secrets, ServerConfig, TokenStore, WatchItem, WatchQuery, serve,
    token,
};
use vmetal_cli::CliError;
use vmetal_cli::args::Cli;
use vmetal_model::{Decision, Event, FieldError, HostAction, Kind, Metadata, Severity, TenantNodeSpec, Timestamp, Uid};

const TOKEN: &str = "vmt_test";

#[derive(Default)]
struct Engine {
    objects: Mutex<BTreeMap<(Kind, String), AnyObject>>,
    secrets: Mutex<Secrets>,
    orders: Mutex<Vec<(String, HostAction)>>,
    watchers: Mutex<Vec<mpsc::UnboundedSender<Result<WatchItem, BackendError>>>>,
}

impl Engine {
    fn tell(&self, item: &WatchItem) {
        self.watchers.lock().unwrap().retain(|watcher| watcher.unbounded_send(Ok(item.clone())).is_ok());
    }
}

fn missing(kind: Kind, name: &str) -> BackendError {
    BackendError::NotFound { object: ObjectRef { kind, name: name.into() } }
}

impl Backend for Engine {
    fn version(&self) -> String {
        "9.9.9".into()
    }

    async fn get(&self, kind: Kind, name: &str) -> Result<AnyObject, BackendError> {
        self.objects.lock().unwrap().get(&(kind, name.to_owned())).cloned().ok_or_else(|| missing(kind, name))
    }

    async fn list(&self, kind: Kind, labels: &BTreeMap<String, String>) -> Result<Listing, BackendError> {
        let objects = self.objects.lock().unwrap();
        let matches =
            |o: &&AnyObject| o.kind == kind && labels.iter().all(|(k, v)| o.metadata.labels.get(k) == Some(v));
        Ok(Listing { objects: objects.values().filter(matches).cloned().collect(), revision: 1 })
    }

    async fn apply(&self, _: &Caller, apply: Apply) -> Result<AnyObject, BackendError> {
        if apply.spec.get("source").is_none() {
            return Err(BackendError::Invalid { errors: vec![FieldError::new("spec.source", "is missing")] });
        }
        let mut objects = self.objects.lock().unwrap();
        let old = objects.get(&(apply.kind, apply.name.clone()));
        let generation = match old {
            Some(old) if old.spec == apply.spec => old.metadata.generation,
            Some(old) => old.metadata.generation + 1,
            None => 1,
        };
        let object = AnyObject {
            kind: apply.kind,
            metadata: Metadata {
                name: apply.name.clone(),
                uid: Uid(format!("uid-{}", apply.name)),
                generation,
                revision: old.map_or(1, |old| old.metadata.revision + 1),
                labels: apply.labels,
                annotations: apply.annotations,
                created: Timestamp::UNIX_EPOCH,
                deleted: None,
            },
            spec: apply.spec,
            status: serde_json::json!({"phase": "pending"}),
        };
        self.secrets.lock().unwrap().extend(apply.secrets);
        objects.insert((apply.kind, apply.name), object.clone());
        self.tell(&WatchItem::Changed(object.clone()));
        Ok(object)
    }

    async fn create_join_token(&self, _: &Caller, request: &JoinTokenRequest) -> Result<JoinToken, BackendError> {
        Err(missing(Kind::TenantCluster, &request.cluster))
    }

    async fn revoke_join_token(&self, _: &Caller, cluster: &str, _: &str) -> Result<(), BackendError> {
        Err(missing(Kind::TenantCluster, cluster))
    }

    async fn rotate_bmc_password(
        &self,
        _: &Caller,
        host: &str,
        password: &Secret,
        reason: &str,
    ) -> Result<AnyObject, BackendError> {
        assert_eq!(reason, "a leaver");
        self.secrets.lock().unwrap().insert(format!("{host} next"), password.clone());
        self.get(Kind::Host, host).await
    }

    async fn bmc_credential(&self, _: &Caller, host: &str, _: &str) -> Result<BmcCredential, BackendError> {
        Err(missing(Kind::Host, host))
    }

    async fn preview_placement(&self, _: &TenantNodeSpec, _: u32) -> Result<Vec<Decision>, BackendError> {
        Ok(Vec::new())
    }

    async fn act_on_host(
        &self,
        caller: &Caller,
        name: &str,
        _: Option<&Uid>,
        action: &HostAction,
    ) -> Result<AnyObject, BackendError> {
        if name != "rack1-01" {
            return Err(missing(Kind::Host, name));
        }
        if *action == HostAction::Retry {
            let advice = "there is nothing to try again".into();
            return Err(BackendError::Precondition { message: "host rack1-01 does not pause".into(), advice });
        }
        self.orders.lock().unwrap().push((caller.token.to_string(), action.clone()));
        let metadata = Metadata {
            name: name.into(),
            uid: Uid("u".into()),
            generation: 1,
            revision: 1,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            created: Timestamp::UNIX_EPOCH,
            deleted: None,
        };
        let status = serde_json::json!({ "phase": "maintenance" });
        Ok(AnyObject { kind: Kind::Host, metadata, spec: serde_json::json!({}), status })
    }

    async fn delete(&self, _: &Caller, kind: Kind, name: &str, _: Option<&Uid>) -> Result<AnyObject, BackendError> {
        let gone = self.objects.lock().unwrap().remove(&(kind, name.to_owned()));
        let gone = gone.ok_or_else(|| missing(kind, name))?;
        self.tell(&WatchItem::Deleted(gone.clone()));
        Ok(gone)
    }

    async fn annotate(&self, _: &Caller, annotate: Annotate) -> Result<(), BackendError> {
        Err(missing(annotate.kind, &annotate.name))
    }

    fn follow(&self, _: AnyObject) -> BoxStream<'static, Result<WatchItem, BackendError>> {
        stream::empty().boxed()
    }

    fn watch(&self, query: WatchQuery) -> BoxStream<'static, Result<WatchItem, BackendError>> {
        let (watcher, changes) = mpsc::unbounded();
        let objects = self.objects.lock().unwrap();
        let mine = |o: &&AnyObject| query.name.as_deref().is_none_or(|name| name == o.name());
        let mut present: Vec<_> = objects.values().filter(mine).cloned().map(|o| Ok(WatchItem::Sync(o))).collect();
        present.push(Ok(WatchItem::Bookmark { revision: 1 }));
        self.watchers.lock().unwrap().push(watcher);
        stream::iter(present).chain(changes).boxed()
    }

    fn events(&self, query: EventsQuery) -> BoxStream<'static, Result<EventEntry, BackendError>> {
        assert_eq!(query.follow, Follow::No);
        let event = |uid: &str, message: &str| Event {
            at: Timestamp::UNIX_EPOCH,
            kind: Kind::Image,
            name: "debian".into(),
            uid: Uid(uid.into()),
            severity: Severity::Info,
            reason: "phase_changed".into(),
            message: message.into(),
        };
        let events = [event("uid-of-before", "imported long ago"), event("uid-debian", "import began")];
        stream::iter(events).map(|event| Ok(EventEntry { revision: 1, event })).boxed()
    }
}

async fn start() -> (Arc<Engine>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let engine = Arc::new(Engine::default());
    let tokens = TokenStore::new([("admin", token::hash(TOKEN))]);
    tokio::spawn(serve(listener, Arc::clone(&engine), tokens, ServerConfig::default(), std::future::pending()));
    (engine, endpoint)
}

fn parse(endpoint: &str, args: &[&str]) -> Cli {
    let fixed = ["vmetal", "--endpoint", endpoint, "--token", TOKEN];
    Cli::try_parse_from(fixed.iter().chain(args)).unwrap()
}

async fn vmetal(endpoint: &str, args: &[&str]) -> Result<String, CliError> {
    let mut out = Vec::new();
    vmetal_cli::run(parse(endpoint, args), || Timestamp::UNIX_EPOCH, &mut out).await?;
    Ok(String::from_utf8(out).unwrap())
}

const MANIFEST: &str = "kind: image\nmetadata: {name: debian, labels: {os: linux}}\nspec: {source: /srv/a.raw}\n\
                        secrets: {x: hidden}\n---\nkind: image\nmetadata: {name: other}\nspec: {source: /srv/b.raw}\n";

#[tokio::test]
async fn what_is_applied_is_shown_and_what_is_shown_can_be_applied() {
    let (engine, endpoint) = start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("images.yaml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, MANIFEST).unwrap();
    assert_eq!(vmetal(&endpoint, &["get", "images"]).await.unwrap(), "there is no image\n");
    let applied = vmetal(&endpoint, &["apply", "-f", path]).await.unwrap();
    assert_eq!(applied, "image debian  created\nimage other  created\n");
    assert_eq!(engine.secrets.lock().unwrap()["x"].expose(), "hidden");
    let table = vmetal(&endpoint, &["get", "images", "-l", "os=linux"]).await.unwrap();
    assert_eq!(table, "NAME    PHASE    SIZE  STORED  AGE  NOTE\ndebian  pending  -     -       0s\n");

    let yaml = vmetal(&endpoint, &["get", "images", "-o", "yaml"]).await.unwrap();
    assert!(!yaml.contains("hidden"));
    std::fs::write(&file, yaml.replace("/srv/b.raw", "/srv/c.raw")).unwrap();
    let applied = vmetal(&endpoint, &["apply", "-f", path]).await.unwrap();
    assert_eq!(applied, "image debian  unchanged\nimage other  changed\n");
    let one = vmetal(&endpoint, &["get", "image", "other", "-o", "json"]).await.unwrap();
    let one: serde_json::Value = serde_json::from_str(&one).unwrap();
    assert_eq!((one["kind"].as_str(), one["spec"]["source"].as_str()), (Some("image"), Some("/srv/c.raw")));
}

#[tokio::test]
async fn describe_shows_only_the_events_of_this_very_object() {
    let (_, endpoint) = start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("images.yaml");
    std::fs::write(&file, MANIFEST).unwrap();
    vmetal(&endpoint, &["apply", "-f", file.to_str().unwrap()]).await.unwrap();
    let text = vmetal(&endpoint, &["describe", "image", "debian"]).await.unwrap();
    assert!(text.starts_with("image debian\n  uid ") && text.contains("/srv/a.raw"), "{text}");
    assert!(text.ends_with("Last events\n  AGE  REASON         WHAT\n  0s   phase_changed  import began\n"), "{text}");
    let error = vmetal(&endpoint, &["describe", "image", "debian", "--boot"]).await.unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let all = vmetal(&endpoint, &["events"]).await.unwrap();
    assert_eq!(all.lines().count(), 2);
}

#[tokio::test]
async fn a_wrong_document_is_named_with_its_fields_and_a_wrong_file_changes_nothing() {
    let (engine, endpoint) = start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f.yaml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "kind: image\nmetadata: {name: a}\nspec: {}\n").unwrap();
    let error = vmetal(&endpoint, &["apply", "-f", path]).await.unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert_eq!(error.lines()[..2], ["error: image \"a\" is not valid", "  spec.source: is missing"]);
    std::fs::write(&file, format!("{MANIFEST}---\nkind: nonsense\n")).unwrap();
    assert_eq!(vmetal(&endpoint, &["apply", "-f", path]).await.unwrap_err().exit_code(), 2);
    assert!(engine.objects.lock().unwrap().is_empty());
}

#[tokio::test]
async fn orders_reach_the_engine_with_their_reason() {
    let (engine, endpoint) = start().await;
    let said = vmetal(&endpoint, &["host", "maintenance", "rack1-01", "--reason", "new DIMMs", "--until", "4h"]).await;
    assert_eq!(said.unwrap(), "host rack1-01  maintenance ordered; it is maintenance\n");
    vmetal(&endpoint, &["host", "release", "rack1-01", "--force", "--reason", "board burnt"]).await.unwrap();
    let orders = engine.orders.lock().unwrap().clone();
    assert!(orders.iter().all(|(by, _)| by == "admin"), "{orders:?}");
    assert!(
        matches!(&orders[0].1, HostAction::Maintenance { reason, until: Some(until) }
        if reason == "new DIMMs" && until.as_second() == 4 * 3600),
        "{orders:?}"
    );
    assert_eq!(orders[1].1, HostAction::ForceRelease { reason: "board burnt".into() });
    vmetal(&endpoint, &["host", "power", "rack1-01", "cycle", "--reason", "hangs"]).await.unwrap();
    let power = engine.orders.lock().unwrap()[2].1.clone();
    assert_eq!(power, HostAction::Power { power: vmetal_model::PowerWish::Cycle, reason: "hangs".into() });
    // The new password comes from a file, without the newline at its end.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("next");
    std::fs::write(&file, "another one\n").unwrap();
    std::fs::write(dir.path().join("h.yaml"), "kind: host\nmetadata: {name: rack1-01}\nspec: {source: x}\n").unwrap();
    vmetal(&endpoint, &["apply", "-f", dir.path().join("h.yaml").to_str().unwrap()]).await.unwrap();
    let rotate = ["host", "rotate-password", "rack1-01", "--reason", "a leaver", "--password-file"];
    let said = vmetal(&endpoint, &[&rotate[..], &[file.to_str().unwrap()]].concat()).await.unwrap();
    assert!(said.contains("a new BMC password ordered") && !said.contains("another one"), "{said}");
    assert_eq!(engine.secrets.lock().unwrap()["rack1-01 next"].expose(), "another one");
    let refused = vmetal(&endpoint, &["host", "retry", "rack1-01"]).await.unwrap_err();
    assert_eq!(refused.exit_code(), 1);
    assert!(refused.lines().join("\n").contains("there is nothing to try again"), "{:?}", refused.lines());
    assert!(vmetal(&endpoint, &["host", "resume", "nobody"]).await.is_err());
    // A release without --force, and an order without a reason, are not even sent.
    for args in [&["host", "release", "rack1-01", "--reason", "x"][..], &["host", "pause", "rack1-01"]] {
        assert!(Cli::try_parse_from(std::iter::once("vmetal").chain(args.iter().copied())).is_err());
    }
}

#[tokio::test]
async fn a_token_for_a_while_is_made_listed_and_ended() {
    let (_, endpoint) = start().await;
    let made = vmetal(&endpoint, &["token", "create", "--reason", "the night shift"]).await.unwrap();
    let with =
        |token: &str| Cli::try_parse_from(["vmetal", "--endpoint", &endpoint, "--token", token, "version"]).unwrap();
    vmetal_cli::run(with(made.trim()), || Timestamp::UNIX_EPOCH, &mut Vec::new()).await.unwrap();
    let listed = vmetal(&endpoint, &["token", "list"]).await.unwrap();
    let row: Vec<_> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert!(row[1] == "reader" && row[3] == "admin" && listed.contains("the night shift"), "{listed}");
    assert!(!listed.contains(made.trim()), "{listed}");
    vmetal(&endpoint, &["token", "revoke", row[0]]).await.unwrap();
    assert!(vmetal_cli::run(with(made.trim()), || Timestamp::UNIX_EPOCH, &mut Vec::new()).await.is_err());
}

#[tokio::test]
async fn deleting_waits_if_asked_and_a_missing_object_is_an_error() {
    let (_, endpoint) = start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f.yaml");
    std::fs::write(&file, MANIFEST).unwrap();
    vmetal(&endpoint, &["apply", "-f", file.to_str().unwrap()]).await.unwrap();
    assert_eq!(
        vmetal(&endpoint, &["delete", "image", "debian", "--wait", "60"]).await.unwrap(),
        "image debian  deleted\n"
    );
    let asked = vmetal(&endpoint, &["delete", "image", "other"]).await.unwrap();
    assert_eq!(asked, "image other  deletion asked for\n");
    for args in [["delete", "image", "debian"], ["get", "image", "debian"], ["describe", "image", "debian"]] {
        let error = vmetal(&endpoint, &args).await.unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().as_str()), (1, "image \"debian\" does not exist"));
    }
}

/// A writer whose contents can be read while it is written.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn watching_prints_the_present_and_then_every_change() {
    let (_, endpoint) = start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f.yaml");
    std::fs::write(&file, MANIFEST).unwrap();
    let path = file.to_str().unwrap();
    vmetal(&endpoint, &["apply", "-f", path]).await.unwrap();
    let shown = Shared::default();
    let watching = tokio::spawn({
        let (cli, mut out) = (parse(&endpoint, &["get", "images", "--watch"]), shown.clone());
        async move { vmetal_cli::run(cli, || Timestamp::UNIX_EPOCH, &mut out).await.map_err(|e| e.to_string()) }
    });
    let text = || String::from_utf8(shown.0.lock().unwrap().clone()).unwrap();
    let until = async |wanted: &str| {
        for _ in 0..6_000 {
            if text() == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("expected\n{wanted}\nseen\n{}", text());
    };
    let mut wanted = "NAME    PHASE    SIZE  STORED  AGE  NOTE\ndebian  pending  -     -       0s\nother   pending  -     -       0s\n".to_owned();
    until(&wanted).await;
    vmetal(&endpoint, &["delete", "image", "other"]).await.unwrap();
    wanted += "other  deleted\n";
    until(&wanted).await;
    vmetal(&endpoint, &["apply", "-f", path]).await.unwrap();
    wanted += "debian  pending  -     -       0s\nother   pending  -     -       0s\n";
    until(&wanted).await;
    watching.abort();
}

fn binary(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmetal"));
    command.args(args).env_clear().envs(env.iter().copied()).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binary_speaks_through_its_exit_code_and_standard_error() {
    let (_, endpoint) = start().await;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let good = binary(&["version"], &[("VMETAL_ENDPOINT", endpoint.as_str()), ("VMETAL_TOKEN", TOKEN)]);
    assert_eq!(good.status.code(), Some(0));
    assert!(text(&good.stdout).contains("engine  9.9.9"), "{good:?}");
    let no_token = binary(&["get", "hosts"], &[("VMETAL_ENDPOINT", endpoint.as_str())]);
    assert_eq!(no_token.status.code(), Some(2));
    assert!(text(&no_token.stderr).contains("VMETAL_TOKEN_FILE"), "{no_token:?}");
    let refused = binary(&["get", "hosts"], &[("VMETAL_ENDPOINT", endpoint.as_str()), ("VMETAL_TOKEN", "wrong")]);
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0));
    assert!(text(&refused.stderr).starts_with("error: the engine at "), "{refused:?}");
    assert_eq!(binary(&["get", "machines"], &[]).status.code(), Some(2));
}
