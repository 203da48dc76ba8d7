//! The commands: ask, render, write.

mod host;
mod token;

use std::collections::BTreeMap;
use std::io::{Read as _, Write};
use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use vmetal_api::types::Follow;
use vmetal_api::{
    AnyObject, ApiError, Client, ClientConfig, EventEntry, EventsQuery, ObjectRef, Secret, TokenSource, WatchItem,
    WatchQuery,
};
use vmetal_model::{Kind, NodeType, TenantCluster, TenantNode};

use crate::args::{Cli, Command, Connection, Output, PolicyCommand};
use crate::error::CliError;
use crate::manifest;
use crate::render::rows::{Width, header, row};
use crate::render::{One, describe, events, explain, json, json_line, yaml};
use crate::text::{Table, clean};

/// How many events `describe` shows.
const RECENT: u32 = 15;
/// How many events the boot timeline is made of.
const TIMELINE: u32 = 500;

/// Runs one command. `now` tells the time, for ages.
///
/// # Errors
/// [`CliError`].
pub async fn run(cli: Cli, now: impl Fn() -> Timestamp, out: &mut impl Write) -> Result<(), CliError> {
    if let Command::Store { command } = cli.command {
        return crate::store::run(command, out).await;
    }
    if let Command::Policy(command) = cli.command {
        return match command {
            PolicyCommand::Logged(command) => {
                crate::policy::log::run(command, &connect(&cli.connection)?, now(), out).await
            }
            PolicyCommand::Distribution(command) => crate::policy::distribution::run(command, out).await,
            PolicyCommand::Install(args) => crate::policy::install::run(args, &connect(&cli.connection)?, out).await,
            command => crate::policy::run(command, now, out),
        };
    }
    let client = connect(&cli.connection)?;
    match cli.command {
        // Need no engine; see above.
        Command::Store { .. } | Command::Policy(_) => Ok(()),
        Command::Get { kind, name, output, labels, watch } => {
            let filter = Filter { kind, name, labels: labels.into_iter().collect() };
            if watch {
                follow(&client, &filter, output, now, out).await
            } else {
                get(&client, &filter, output, now(), out).await
            }
        }
        Command::Describe { kind, name, boot } => {
            let what = if boot { Events::Boot } else { Events::Recent };
            if boot && kind != Kind::Host {
                return Err(CliError::Usage {
                    message: format!("--boot shows the network boots of a host, not of a {kind}"),
                    advice: "describe the host; `vmetal describe tenant-node` names it".into(),
                });
            }
            show(&client, kind, &name, what, now(), out).await
        }
        Command::Explain { node, json } => {
            let found = client.explain_placement(&node).await?;
            let text = match json {
                true => serde_json::to_string_pretty(&found).map_err(unwritable)? + "\n",
                false => explain::explanation(&found, now()),
            };
            out.write_all(text.as_bytes())?;
            Ok(out.flush()?)
        }
        Command::Events { kind, name, follow, limit } => {
            let query = EventsQuery {
                kind,
                name,
                follow: if follow { Follow::Yes } else { Follow::No },
                after_revision: 0,
                limit: (limit > 0).then_some(limit),
            };
            tell_events(&client, query, out).await
        }
        Command::Apply { file } => apply(&client, &file, out).await,
        Command::Delete { kind, name, wait } => delete(&client, kind, &name, wait, out).await,
        Command::Host(order) => host::order(&client, order, now(), out).await,
        Command::Token(command) => token::run(&client, command, out).await,
        Command::Version => version(&client, out).await,
    }
}

fn connect(connection: &Connection) -> Result<Client, CliError> {
    let token = match (&connection.token, &connection.token_file) {
        (Some(token), _) => TokenSource::Literal(Secret::new(token)),
        (None, Some(path)) => TokenSource::File(path.clone()),
        (None, None) => {
            return Err(CliError::Usage {
                message: "no token is given".into(),
                advice: "set VMETAL_TOKEN_FILE to the file that vmetald wrote at its first start, or VMETAL_TOKEN"
                    .into(),
            });
        }
    };
    let mut config = ClientConfig::new(connection.endpoint.as_str(), token);
    // A person waits at the other end: a short restart is bridged, more is not.
    config.patience = Duration::from_secs(3);
    if let Some(path) = &connection.ca_file {
        let pem = std::fs::read(path).map_err(|source| CliError::File { path: path.clone(), source })?;
        config.ca_pem = Some(pem);
    }
    Ok(Client::connect_lazy(config)?)
}

struct Filter {
    kind: Kind,
    name: Option<String>,
    labels: BTreeMap<String, String>,
}

impl Filter {
    fn one(&self) -> One {
        if self.name.is_some() { One::Yes } else { One::No }
    }

    fn matches(&self, object: &AnyObject) -> bool {
        self.labels.iter().all(|(key, value)| object.metadata.labels.get(key) == Some(value))
    }
}

fn missing(kind: Kind, name: &str) -> CliError {
    CliError::Api(ApiError::NotFound { object: ObjectRef { kind, name: name.to_owned() } })
}

fn unwritable(error: impl std::fmt::Display) -> CliError {
    CliError::Output(std::io::Error::other(error.to_string()))
}

fn width(output: Output) -> Width {
    if output == Output::Wide { Width::Wide } else { Width::Usual }
}

async fn get(
    client: &Client,
    filter: &Filter,
    output: Output,
    now: Timestamp,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let objects = match &filter.name {
        Some(name) => {
            let object = client.get(filter.kind, name).await?.ok_or_else(|| missing(filter.kind, name))?;
            Vec::from_iter(filter.matches(&object).then_some(object))
        }
        None => client.list(filter.kind, &filter.labels).await?.objects,
    };
    let text = match output {
        Output::Json => json(&objects, filter.one()).map_err(unwritable)?,
        Output::Yaml => yaml(&objects).map_err(unwritable)?,
        Output::Table | Output::Wide if objects.is_empty() => format!("there is no {}\n", filter.kind),
        Output::Table | Output::Wide => table(filter.kind, &objects, width(output), now)?.render(),
    };
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn table(kind: Kind, objects: &[AnyObject], width: Width, now: Timestamp) -> Result<Table, CliError> {
    let mut table = Table::new(&header(kind, width));
    for object in objects {
        table.row(row(object, width, now).map_err(ApiError::from)?);
    }
    Ok(table)
}

/// Shows the present state, then every change, and comes back by itself when the engine was away.
async fn follow(
    client: &Client,
    filter: &Filter,
    output: Output,
    now: impl Fn() -> Timestamp,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let mut shown: Option<Table> = None;
    // What was printed last of each object, so that a new connection repeats nothing.
    let mut printed: BTreeMap<String, u64> = BTreeMap::new();
    let client = client.with_patience(Duration::from_secs(300));
    loop {
        let query = WatchQuery { kind: Some(filter.kind), name: filter.name.clone() };
        let mut stream = client.watch(query).await?;
        let mut present: Vec<AnyObject> = Vec::new();
        while let Some(item) = stream.next().await {
            let (fresh, gone) = match item {
                Ok(WatchItem::Sync(object)) => {
                    present.push(object);
                    continue;
                }
                Ok(WatchItem::Bookmark { .. }) => (std::mem::take(&mut present), None),
                Ok(WatchItem::Changed(object)) => (vec![object], None),
                Ok(WatchItem::Deleted(object)) => (Vec::new(), Some(object)),
                Err(error) if error.is_transient() => {
                    eprintln!("{error}; waiting for it to come back");
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            let known = |o: &AnyObject| printed.get(o.name()) == Some(&o.metadata.revision);
            let fresh: Vec<AnyObject> = fresh.into_iter().filter(|o| filter.matches(o) && !known(o)).collect();
            for object in &fresh {
                printed.insert(object.name().to_owned(), object.metadata.revision);
            }
            let text = match output {
                Output::Json => {
                    let lines: Result<String, _> = fresh.iter().chain(&gone).map(json_line).collect();
                    lines.map_err(unwritable)?
                }
                Output::Yaml => fresh
                    .iter()
                    .chain(&gone)
                    .map(|object| Ok(format!("---\n{}", yaml(std::slice::from_ref(object)).map_err(unwritable)?)))
                    .collect::<Result<String, CliError>>()?,
                Output::Table | Output::Wide => match &mut shown {
                    None => {
                        let table = table(filter.kind, &fresh, width(output), now())?;
                        shown.insert(table).render()
                    }
                    Some(table) => {
                        let mut text = String::new();
                        for object in &fresh {
                            let cells = row(object, width(output), now()).map_err(ApiError::from)?;
                            text += &(table.further_line(cells) + "\n");
                        }
                        text
                    }
                },
            };
            out.write_all(text.as_bytes())?;
            if let Some(object) = gone {
                printed.remove(object.name());
                if matches!(output, Output::Table | Output::Wide) && filter.matches(&object) {
                    writeln!(out, "{}  deleted", clean(object.name()))?;
                }
            }
            out.flush()?;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Events {
    Recent,
    Boot,
}

async fn show(
    client: &Client,
    kind: Kind,
    name: &str,
    what: Events,
    now: Timestamp,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let object = client.get(kind, name).await?.ok_or_else(|| missing(kind, name))?;
    let query = EventsQuery {
        kind: Some(kind),
        name: Some(name.to_owned()),
        limit: Some(if what == Events::Boot { TIMELINE } else { RECENT }),
        ..EventsQuery::default()
    };
    let mut stream = client.events(query).await?;
    let mut entries: Vec<EventEntry> = Vec::new();
    while let Some(entry) = stream.next().await {
        entries.push(entry?);
    }
    // A host of the same name that was deleted before has its own events.
    entries.retain(|entry| entry.event.uid == object.metadata.uid);
    let mut text = describe::describe(&object, now).map_err(ApiError::from)?;
    if kind == Kind::TenantCluster {
        text += &quota(client, &object.typed().map_err(ApiError::from)?).await?;
    }
    match what {
        Events::Recent => write!(out, "{text}\nLast events\n{}", events::recent(&entries, now))?,
        Events::Boot => write!(out, "{text}\nBoot timeline (UTC)\n{}", events::timeline(&entries))?,
    }
    Ok(out.flush()?)
}

/// What a cluster holds of its quota; who holds and who waits are objects of their own.
async fn quota(client: &Client, cluster: &TenantCluster) -> Result<String, CliError> {
    if cluster.spec.quota.is_unlimited() {
        return Ok(String::new());
    }
    let node_types = client.list_as::<NodeType>(&BTreeMap::new()).await?;
    let nodes = client.list_as::<TenantNode>(&BTreeMap::new()).await?;
    Ok(describe::quota(cluster, &node_types, &nodes))
}

async fn tell_events(client: &Client, mut query: EventsQuery, out: &mut impl Write) -> Result<(), CliError> {
    let client = client.with_patience(if query.follow == Follow::Yes {
        Duration::from_secs(300)
    } else {
        Duration::from_secs(3)
    });
    loop {
        let mut stream = client.events(query.clone()).await?;
        while let Some(entry) = stream.next().await {
            match entry {
                Ok(entry) => {
                    out.write_all(events::line(&entry).as_bytes())?;
                    out.flush()?;
                    query.after_revision = query.after_revision.max(entry.revision);
                }
                Err(error) if query.follow == Follow::Yes && error.is_transient() => {
                    eprintln!("{error}; waiting for it to come back");
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if query.follow == Follow::No {
            return Ok(());
        }
        // Everything after the last one that was told, however much it is.
        query.limit = None;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn apply(client: &Client, path: &Path, out: &mut impl Write) -> Result<(), CliError> {
    let file = |source| CliError::File { path: path.to_owned(), source };
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map_err(file)?;
    } else {
        text = std::fs::read_to_string(path).map_err(file)?;
    }
    // Everything is read before anything is sent: a typing error in the last document changes nothing.
    for apply in manifest::read(path, &text, |name| std::env::var(name).ok())? {
        let what = ObjectRef { kind: apply.kind, name: apply.name.clone() };
        let before = client.get(apply.kind, &apply.name).await?;
        let after = client
            .apply(apply)
            .await
            .map_err(|source| CliError::Object { what: what.to_string(), source: Box::new(source) })?;
        let word = match before {
            None => "created",
            Some(before) if before.metadata.uid != after.metadata.uid => "created",
            Some(before) if before.metadata.generation == after.metadata.generation => "unchanged",
            Some(_) => "changed",
        };
        writeln!(out, "{} {}  {word}", what.kind, clean(&what.name))?;
    }
    Ok(out.flush()?)
}

async fn delete(
    client: &Client,
    kind: Kind,
    name: &str,
    wait: Option<u64>,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let object = client.delete(kind, name, None).await?.ok_or_else(|| missing(kind, name))?;
    match wait {
        Some(seconds) => {
            client.wait_gone(kind, name, &object.metadata.uid, Duration::from_secs(seconds)).await?;
            writeln!(out, "{kind} {}  deleted", clean(name))?;
        }
        None => writeln!(out, "{kind} {}  deletion asked for", clean(name))?,
    }
    Ok(out.flush()?)
}

async fn version(client: &Client, out: &mut impl Write) -> Result<(), CliError> {
    writeln!(out, "vmetal  {}", env!("CARGO_PKG_VERSION"))?;
    out.flush()?;
    let engine = client.version().await?;
    writeln!(out, "engine  {} (API level {}) at {}", engine.version, engine.level, client.endpoint())?;
    Ok(out.flush()?)
}
