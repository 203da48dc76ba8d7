//! The client and the server against each other over real sockets, with an engine that keeps its objects in memory.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::StreamExt as _;
use tokio::net::TcpListener;
use vmetal_api::types::Follow;
use vmetal_api::{
    Annotate, ApiError, Apply, Client, ClientConfig, EventsQuery, JoinTokenRequest, Precondition, Secret, ServerConfig,
    TlsIdentity, TokenSource, TokenStore, WatchItem, WatchQuery, client, serve, token,
};
use vmetal_model::{FieldError, HostAction, Kind, NodeType, NodeTypeSpec, TenantNodeSpec, Uid};

#[path = "support/memory.rs"]
mod memory;

use memory::{Memory, Running, TOKEN, client_with, node_type};

/// Longer than anything takes that happens at all.
const PATIENT: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn nothing_is_open_without_a_known_token() {
    let server = Running::start(Memory::new(), "127.0.0.1:0").await;
    for wrong in ["vmt_other", "vmt_tes", "vmt_testt"] {
        let client = client_with(server.address, wrong);
        for error in [
            client.version().await.unwrap_err(),
            client.get(Kind::Host, "a").await.unwrap_err(),
            client.list(Kind::Host, &BTreeMap::new()).await.unwrap_err(),
            client.apply(node_type("a")).await.unwrap_err(),
            client.delete(Kind::Host, "a", None).await.unwrap_err(),
            client.watch(WatchQuery::default()).await.map(|_| ()).unwrap_err(),
            client.events(EventsQuery::default()).await.map(|_| ()).unwrap_err(),
        ] {
            assert!(matches!(error, ApiError::Unauthenticated { .. }), "{error:?}");
            assert!(error.advice().contains("VMETAL_TOKEN"));
        }
    }
    let error = client_with(server.address, "  ").version().await.unwrap_err();
    assert!(matches!(&error, ApiError::Config { message, .. } if message.contains("empty")), "{error:?}");
    assert_eq!(server.client().version().await.unwrap().version, "1.2.3");
    server.stop().await;
}

#[tokio::test]
async fn a_token_file_is_read_again_when_it_changes() {
    let server = Running::start(Memory::new(), "127.0.0.1:0").await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let client =
        Client::connect_lazy(ClientConfig::new(format!("http://{}", server.address), TokenSource::File(file.clone())))
            .unwrap();
    let error = client.version().await.unwrap_err();
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    std::fs::write(&file, "old\n").unwrap();
    assert!(matches!(client.version().await.unwrap_err(), ApiError::Unauthenticated { .. }));
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    client.version().await.unwrap();
    server.stop().await;
}

/// Forty objects of a megabyte each: more than twice what one message may have.
#[tokio::test]
async fn a_listing_may_be_larger_than_a_message() {
    let server = Running::start(Memory::new(), "127.0.0.1:0").await;
    let client = server.client();
    let names: Vec<String> = (0..40).map(|number| format!("large-{number:02}")).collect();
    for name in &names {
        let large = [("text".to_owned(), "x".repeat(1 << 20))].into();
        client.apply(node_type(name).labels(large)).await.unwrap();
    }
    let listing = client.list(Kind::NodeType, &BTreeMap::new()).await.unwrap();
    let listed: Vec<_> = listing.objects.iter().map(|object| object.metadata.name.clone()).collect();
    assert_eq!((listed, listing.revision), (names, 40));
}

#[tokio::test]
async fn objects_cross_the_wire_typed_and_untyped() {
    let backend = Memory::new();
    let server = Running::start(Arc::clone(&backend), "127.0.0.1:0").await;
    let client = server.client();
    assert_eq!(client.get(Kind::NodeType, "small").await.unwrap(), None);
    let labels: BTreeMap<_, _> = [("tier".to_owned(), "a".to_owned())].into();
    let apply = node_type("small").labels(labels.clone()).secret("bmc.password", Secret::new("hunter2"));
    assert!(!format!("{apply:?}").contains("hunter2"), "a secret must not be shown");
    let made: NodeType = client.apply_as(apply).await.unwrap();
    assert_eq!((made.status.cost, made.metadata.revision), (7, 1));
    assert_eq!(client.get_as::<NodeType>("small").await.unwrap(), Some(made));
    let any = client.get(Kind::NodeType, "small").await.unwrap().unwrap();
    assert_eq!(any.status["of_a_later_release"], true, "what this program does not know is kept");
    assert!(any.typed::<vmetal_model::Host>().unwrap_err().to_string().contains("not a host"));
    assert_eq!(client.list(Kind::NodeType, &labels).await.unwrap().objects, [any]);
    let other = [("tier".to_owned(), "b".to_owned())].into();
    assert!(client.list(Kind::NodeType, &other).await.unwrap().objects.is_empty());
    assert!(
        client.list(Kind::Host, &BTreeMap::new()).await.unwrap().revision > 0,
        "an empty listing has a revision too"
    );
    {
        let state = backend.state.lock().unwrap();
        assert_eq!(&*state.callers[0].token, "admin");
        assert_eq!(state.secrets["bmc.password"].expose(), "hunter2");
    }
    assert!(client.delete(Kind::NodeType, "small", None).await.unwrap().is_some());
    assert!(client.delete(Kind::NodeType, "small", None).await.unwrap().is_none());
    server.stop().await;
}

#[tokio::test]
async fn errors_arrive_as_what_they_are() {
    let server = Running::start(Memory::new(), "127.0.0.1:0").await;
    let client = server.client();
    let invalid = Apply::from_json(Kind::NodeType, "a", serde_json::json!({}));
    let expected = vec![FieldError::new("spec.selector", "is missing"), FieldError::new("spec.resources", "too")];
    assert_eq!(client.apply(invalid).await.unwrap_err(), ApiError::Invalid(expected));
    client.apply(node_type("a")).await.unwrap();
    let again = node_type("a").precondition(Precondition::MustNotExist);
    assert!(matches!(client.apply(again).await.unwrap_err(), ApiError::AlreadyExists { .. }));
    let stale = node_type("a").precondition(Precondition::Revision(99));
    let error = client.apply(stale).await.unwrap_err().to_string();
    assert!(error.contains("expected revision 99, found revision 1"), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn credentials_are_handed_out_and_taken_back() {
    let server = Running::start(Memory::new(), "127.0.0.1:0").await;
    let client = server.client();
    let request = JoinTokenRequest {
        cluster: "acme".into(),
        ttl: Duration::from_secs(600),
        reason: "a test".into(),
        request_id: client.new_request_id().unwrap(),
    };
    let made = client.create_join_token(&request).await.unwrap();
    assert_eq!((made.id(), made.expires_at.as_second()), ("abcdef", 600));
    assert_eq!(client.create_join_token(&request).await.unwrap(), made, "the same request, the same token");
    let other = JoinTokenRequest { request_id: String::new(), ..request };
    assert_ne!(client.create_join_token(&other).await.unwrap().token, made.token);
    assert!(!format!("{made:?}").contains(made.token.expose()), "{made:?}");
    client.revoke_join_token("acme", made.id()).await.unwrap();
    assert!(matches!(client.revoke_join_token("acme", "zzzzzz").await, Err(ApiError::Precondition { .. })));
    let mut host = node_type("h1");
    host.kind = Kind::Host;
    client.apply(host).await.unwrap();
    let rotated = client.rotate_bmc_password("h1", &Secret::new("another"), "a test").await.unwrap();
    assert_eq!(rotated.status["by"], "admin");
    let credential = client.bmc_credential("10.0.0.1", "a test").await.unwrap();
    assert_eq!((credential.username.as_str(), credential.password.expose()), ("root", "hidden"));
    assert!(!format!("{credential:?}").contains("hidden"), "{credential:?}");
    server.stop().await;
}

#[tokio::test]
async fn an_order_carries_who_gave_it() {
    let server = Running::start(Memory::new(), "127.0.0.1:0").await;
    let client = server.client();
    let mut apply = node_type("h1");
    apply.kind = Kind::Host;
    client.apply(apply).await.unwrap();
    let action = HostAction::Maintenance { reason: "new DIMMs".into(), until: None };
    let host = client.act_on_host("h1", Some(&Uid("u1".into())), &action).await.unwrap();
    assert_eq!(host.status["action"], serde_json::json!({ "action": "maintenance", "reason": "new DIMMs" }));
    assert_eq!(host.status["uid"], "u1");
    assert!(host.status["by"].as_str().is_some_and(|by| !by.is_empty()));
    let refused = client.act_on_host("h1", None, &HostAction::Resume).await.unwrap_err();
    assert!(matches!(&refused, ApiError::Precondition { message, .. } if message == "it is not paused"), "{refused:?}");
    assert!(matches!(client.act_on_host("h2", None, &action).await, Err(ApiError::NotFound { .. })));
    server.stop().await;
}

#[tokio::test]
async fn a_preview_carries_a_decision_for_each() {
    let server = Running::start(Memory::new(), "127.0.0.1:0").await;
    let client = server.client();
    let spec = TenantNodeSpec { cluster: "c".into(), node_type: Some("small".into()), ..Default::default() };
    let hosts = async |count| -> Vec<_> {
        let decisions = client.preview_placement(&spec, count).await.unwrap();
        assert!(decisions.iter().all(|decision| decision.node_type.as_deref() == Some("small")));
        decisions.into_iter().filter_map(|decision| decision.host).collect()
    };
    assert_eq!(hosts(2).await, ["h0", "h1"]);
    assert_eq!(hosts(0).await, ["h0"], "none is one");
    let refused = client.preview_placement(&TenantNodeSpec::default(), 1).await.unwrap_err();
    assert!(matches!(&refused, ApiError::Invalid(errors) if errors[0].path == "spec.cluster"), "{refused:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_repeated_request_acts_once() {
    let server = Running::start(Memory::new(), "127.0.0.1:0").await;
    let client = server.client();
    let mut apply = node_type("a").precondition(Precondition::MustNotExist);
    apply.request_id = "r1".into();
    let first = client.apply(apply.clone()).await.unwrap();
    assert_eq!(client.apply(apply).await.unwrap(), first);
    server.stop().await;
}

#[tokio::test]
async fn a_change_is_made_though_the_client_goes_away_and_a_panic_is_an_answer() {
    let backend = Memory::new();
    let server = Running::start(Arc::clone(&backend), "127.0.0.1:0").await;
    let gone = server.client();
    tokio::select! {
        answer = gone.apply(node_type("slow")) => panic!("it is not to be done yet: {answer:?}"),
        () = backend.slow.began.notified() => {}
    }
    // Comes after the end of that call on the same line, so the server has heard that nobody waits.
    gone.version().await.unwrap();
    drop(gone);
    backend.slow.go_on.notify_one();
    let client = server.client();
    let there = client.wait_for(Kind::NodeType, "slow", PATIENT, |object| object.map(|_| ()));
    there.await.unwrap();
    let error = client.apply(node_type("panic")).await.unwrap_err();
    assert!(matches!(&error, ApiError::Other { message, .. } if message.contains("did not finish")), "{error:?}");
    client.version().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_watch_shows_the_present_then_every_change() {
    // What ends the stop is that the watch ends, not the end of the grace.
    let config = ServerConfig { grace: HOUR, ..ServerConfig::default() };
    let tokens = TokenStore::new([("admin", token::hash(TOKEN))]);
    let server = Running::start_with(Memory::new(), "127.0.0.1:0", tokens, config).await;
    let client = server.client();
    client.apply(node_type("a")).await.unwrap();
    let mut watch = client.watch(WatchQuery { kind: Some(Kind::NodeType), name: None }).await.unwrap();
    assert!(matches!(watch.next().await.unwrap().unwrap(), WatchItem::Sync(o) if o.name() == "a"));
    assert_eq!(watch.next().await.unwrap().unwrap(), WatchItem::Bookmark { revision: 1 });
    client.apply(node_type("b")).await.unwrap();
    assert!(matches!(watch.next().await.unwrap().unwrap(), WatchItem::Changed(o) if o.name() == "b"));
    client.delete(Kind::NodeType, "a", None).await.unwrap();
    assert!(matches!(watch.next().await.unwrap().unwrap(), WatchItem::Deleted(o) if o.name() == "a"));
    // A stop ends an open watch at once, and says so.
    tokio::time::timeout(PATIENT, server.stop()).await.expect("the stop waited for the watch");
    let error = watch.next().await.unwrap().unwrap_err();
    assert!(matches!(&error, ApiError::Unavailable { reason, .. } if reason.contains("stopping")), "{error:?}");
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn what_is_applied_is_followed_in_the_same_call() {
    let server = Running::start(Memory::new(), "127.0.0.1:0").await;
    let client = server.client();
    // Read as its type, so it has to be a whole one.
    let spec = NodeTypeSpec { resources: [("cpu".to_owned(), "4".parse().unwrap())].into(), ..NodeTypeSpec::default() };
    let apply = Apply::new::<NodeType>("a", &spec).unwrap().precondition(Precondition::MustNotExist);
    let (made, mut news) = client.apply_and_follow::<NodeType>(apply.clone()).await.unwrap();
    assert_eq!((made.metadata.name.as_str(), made.metadata.revision), ("a", 1));
    client.apply(node_type("b")).await.unwrap();
    let note = Annotate {
        kind: Kind::NodeType,
        name: "a".into(),
        uid: Some(made.metadata.uid.clone()),
        set: [("note".to_owned(), "x".to_owned())].into(),
        remove: vec!["not there".into()],
    };
    client.annotate(&note).await.unwrap();
    let Some(Ok(WatchItem::Changed(changed))) = news.next().await else { panic!("expected a change") };
    assert_eq!(
        (changed.metadata.annotations, changed.metadata.revision),
        (note.set.clone(), 3),
        "and nothing of others"
    );
    client.annotate(&note).await.unwrap();
    client.delete(Kind::NodeType, "a", None).await.unwrap();
    assert!(matches!(news.next().await, Some(Ok(WatchItem::Deleted(last))) if last.metadata.revision == 3));
    assert!(matches!(client.annotate(&note).await, Err(ApiError::NotFound { .. })));
    // What is wrong is an error of the call and not of the stream.
    client.apply(apply.clone()).await.unwrap();
    let refused = client.apply_and_follow::<NodeType>(Apply { request_id: String::new(), ..apply }).await.map(|_| ());
    assert!(matches!(refused, Err(ApiError::AlreadyExists { .. })), "{refused:?}");
    server.stop().await;
}

#[tokio::test]
async fn events_carry_query_and_revision() {
    let server = Running::start(Memory::new(), "127.0.0.1:0").await;
    let query = EventsQuery { kind: Some(Kind::Host), follow: Follow::Yes, limit: Some(5), ..EventsQuery::default() };
    let entries: Vec<_> = server.client().events(query).await.unwrap().collect().await;
    let entry = entries[0].as_ref().unwrap();
    assert_eq!((entries.len(), entry.revision, entry.event.message.as_str()), (1, 9, "power on failed"));
    server.stop().await;
}

#[tokio::test]
async fn waiting_outlives_a_restart_of_the_engine() {
    let backend = Memory::new();
    let first = Running::start(Arc::clone(&backend), "127.0.0.1:0").await;
    let address = first.address.to_string();
    let client = first.client().with_patience(Duration::from_secs(20));
    let waiting = tokio::spawn({
        let client = client.clone();
        async move {
            client.wait_for(Kind::NodeType, "late", Duration::from_secs(20), |o| o.map(|o| o.metadata.revision)).await
        }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    first.stop().await;
    let second = Running::start(backend, &address).await;
    client.apply(node_type("late")).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
    second.stop().await;
}

#[tokio::test]
async fn a_wait_that_is_over_tells_the_last_state() {
    let server = Running::start(Memory::new(), "127.0.0.1:0").await;
    let client = server.client();
    let made = client.apply(node_type("a")).await.unwrap();
    let seen = tokio::sync::Notify::new();
    let wait = client.wait_for(Kind::NodeType, "a", HOUR, |object| {
        seen.notify_one();
        object.is_none().then_some(())
    });
    let pass_the_hour = async {
        seen.notified().await;
        tokio::time::pause();
        tokio::time::advance(HOUR).await;
        tokio::time::resume();
    };
    let (waited, ()) = tokio::join!(wait, pass_the_hour);
    let Err(client::WaitError::Deadline { last: Some(last), .. }) = waited else { panic!("expected a deadline") };
    assert_eq!(*last, made);
    client.delete(Kind::NodeType, "a", None).await.unwrap();
    client.wait_gone(Kind::NodeType, "a", &made.metadata.uid, PATIENT).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn an_engine_that_is_away_is_named_with_its_endpoint() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = client_with(address, TOKEN).version().await.unwrap_err();
    let ApiError::EngineUnreachable { endpoint, reason } = &error else { panic!("{error:?}") };
    assert_eq!(*endpoint, format!("http://{address}"));
    assert!(reason.contains("refused"), "{reason}");
}

#[tokio::test]
async fn over_tls_only_the_given_authority_is_trusted() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let tls = TlsIdentity { certificate_pem: cert.pem().into(), key_pem: signing_key.serialize_pem().into() };
    let config = ServerConfig { tls: Some(tls), ..ServerConfig::default() };
    let tokens = TokenStore::new([("admin", token::hash(TOKEN))]);
    let task = tokio::spawn(serve(listener, Memory::new(), tokens, config, std::future::pending()));
    let client = |ca_pem: String| {
        let mut config = ClientConfig::new(endpoint.as_str(), TokenSource::Literal(Secret::new(TOKEN)));
        config.ca_pem = Some(ca_pem.into());
        config.patience = Duration::ZERO;
        Client::connect_lazy(config).unwrap()
    };
    assert_eq!(client(cert.pem()).version().await.unwrap().version, "1.2.3");
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let error = client(other.cert.pem()).version().await.unwrap_err();
    assert!(
        matches!(&error, ApiError::EngineUnreachable { reason, .. } if reason.contains("certificate")),
        "{error:?}"
    );
    task.abort();
}

#[tokio::test]
async fn a_wrong_endpoint_is_told_before_anything_is_sent() {
    for (endpoint, word) in
        [("ftp://x", "scheme"), ("http://", "endpoint"), ("http://x/v1", "nothing else"), ("https://x", "CA")]
    {
        let config = ClientConfig::new(endpoint, TokenSource::Literal(Secret::new("t")));
        let error = Client::connect_lazy(config).unwrap_err();
        assert!(error.to_string().contains(word), "{endpoint}: {error}");
    }
}
