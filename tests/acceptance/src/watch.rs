//! Watching the engine from outside: its record of events as it grows, and its objects, over restarts of the engine.

#![allow(clippy::disallowed_methods, reason = "tells real time to people")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt as _;
use tokio::runtime::Runtime;
use vmetal_api::{Client, ClientConfig, EventEntry, EventsQuery, Resource, TokenSource};
use vmetal_model::{Event, Kind};

use crate::stack::Place;

const PAUSE: Duration = Duration::from_millis(200);

/// Says things with the time since the start, so that a log shows where a long run is.
#[derive(Debug, Clone, Copy)]
pub struct Narrator {
    start: Instant,
}

impl Default for Narrator {
    fn default() -> Self {
        Narrator { start: Instant::now() }
    }
}

impl Narrator {
    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Prints one line.
    pub fn say(&self, text: &str) {
        let seconds = self.elapsed().as_secs();
        println!("[{:2}:{:02}] {text}", seconds / 60, seconds % 60);
    }
}

/// The engine seen from outside. Events are printed by a thread of its own as they come, until this is dropped.
///
/// Each look asks for what is newer than the last one and is taken whole or not at all, so that an engine that is killed in
/// between costs neither a gap nor a repetition.
#[derive(Debug)]
pub struct Watch {
    runtime: Runtime,
    client: Client,
    stop: Arc<AtomicBool>,
    follower: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to watch.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn start(place: &Place, narrator: Narrator) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = connect(place, &runtime)?;
        let own = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let followed = connect(place, &own)?.with_patience(Duration::ZERO);
        let stop = Arc::new(AtomicBool::new(false));
        let ended = stop.clone();
        let follower = std::thread::Builder::new().name("events".to_owned()).spawn(move || {
            let mut seen = 0;
            while !ended.load(Ordering::Relaxed) {
                // While the engine is away there is nothing to see; it is asked again.
                for entry in own.block_on(newer(&followed, seen)).unwrap_or_default() {
                    let EventEntry { revision, event } = entry;
                    narrator.say(&format!("  {}/{}  {}", event.kind, event.name, event.message));
                    seen = seen.max(revision);
                }
                std::thread::sleep(PAUSE);
            }
        })?;
        Ok(Watch { runtime, client, stop, follower: Some(follower) })
    }

    /// Every event so far, oldest first. Waits for an engine that is away.
    ///
    /// # Errors
    /// What the engine says, or that it stays away.
    pub fn events(&self) -> Result<Vec<Event>> {
        let entries = self.runtime.block_on(newer(&self.client, 0)).context("cannot read the events")?;
        Ok(entries.into_iter().map(|entry| entry.event).collect())
    }

    /// One object as it is now, if it exists. Waits for an engine that is away.
    ///
    /// # Errors
    /// What the engine says, or that it stays away.
    pub fn get<R: Resource>(&self, name: &str) -> Result<Option<R>> {
        self.runtime.block_on(self.client.get_as(name)).with_context(|| format!("cannot read {} {name}", R::KIND))
    }

    /// The names of all objects, as `kind/name`.
    ///
    /// # Errors
    /// What the engine says, or that it stays away.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for kind in Kind::ALL {
            let listing = self.runtime.block_on(self.client.list(kind, &BTreeMap::new()))?;
            names.extend(listing.objects.iter().map(|object| format!("{kind}/{}", object.name())));
        }
        Ok(names)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(follower) = self.follower.take() {
            // It panics only where printing does.
            let _ = follower.join();
        }
    }
}

fn connect(place: &Place, runtime: &Runtime) -> Result<Client> {
    let _inside = runtime.enter();
    Ok(Client::connect_lazy(ClientConfig::new(place.endpoint(), TokenSource::File(place.token_file())))?)
}

async fn newer(client: &Client, after_revision: u64) -> Result<Vec<EventEntry>> {
    let mut stream = client.events(EventsQuery { after_revision, ..EventsQuery::default() }).await?;
    let mut entries = Vec::new();
    while let Some(entry) = stream.next().await {
        entries.push(entry?);
    }
    Ok(entries)
}
