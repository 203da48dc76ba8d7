//! What every host should boot, kept up to date one host at a time, and told to followers as changes: the whole of it goes
//! out once per connection, not with every step of ten thousand hosts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::watch;
use vmetal_model::boot::{BootChange, BootEntry, BootNews, BootTable, BootTarget};
use vmetal_model::{Host, HostPhase, Stage};

use crate::fleet::Fleet;

/// Followers that have been away for more removals than this, and than there are hosts, get the whole table again.
const REMOVALS_KEPT: usize = 1_024;

/// The boot table and its recent changes.
pub struct Boots {
    state: Mutex<State>,
    news: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// The store revision of the last change.
    revision: u64,
    /// Counts changes.
    stamp: u64,
    /// What each host should boot, and with which change that was said.
    entries: BTreeMap<String, (u64, BootEntry)>,
    /// Hosts that have no entry any more, and with which change that was said.
    gone: BTreeMap<String, u64>,
    /// Names by their last change.
    order: BTreeMap<u64, String>,
    /// Whoever has not heard up to here needs the whole table.
    forgotten: u64,
}

impl Default for Boots {
    fn default() -> Self {
        Boots { state: Mutex::default(), news: watch::Sender::new(0) }
    }
}

impl Boots {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two steps that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in all hosts, and forgets those that are not there.
    pub fn fill(&self, fleet: &Fleet) {
        let revision = fleet.revision();
        let known: Vec<String> = self.lock().entries.keys().cloned().collect();
        for name in known.iter().filter(|name| fleet.host(name).is_none()) {
            self.remove(name, revision);
        }
        for host in fleet.hosts() {
            self.update(&host, fleet, revision);
        }
    }

    /// Takes in a host as it is now.
    pub fn update(&self, host: &Host, fleet: &Fleet, revision: u64) {
        self.put(host.name(), entry(host, fleet), revision);
    }

    /// Forgets a host.
    pub fn remove(&self, name: &str, revision: u64) {
        self.put(name, None, revision);
    }

    fn put(&self, name: &str, entry: Option<BootEntry>, revision: u64) {
        let stamp = {
            let mut state = self.lock();
            if state.entries.get(name).map(|(_, known)| known) == entry.as_ref() {
                return;
            }
            state.put(name, entry);
            state.revision = state.revision.max(revision);
            state.stamp
        };
        self.news.send_replace(stamp);
    }

    /// What there is to tell to somebody who heard everything up to a change; `None` when nothing.
    fn since(&self, heard: Option<u64>) -> Option<(u64, BootNews)> {
        let state = self.lock();
        let news = match heard {
            Some(heard) if heard == state.stamp => return None,
            Some(heard) if heard >= state.forgotten => {
                let mut change = BootChange { revision: state.revision, ..BootChange::default() };
                for (_, name) in state.order.range(heard + 1..) {
                    match state.entries.get(name) {
                        Some((_, entry)) => change.entries.push(entry.clone()),
                        None => change.gone.push(name.clone()),
                    }
                }
                BootNews::Change(change)
            }
            _ => {
                let entries = state.entries.values().map(|(_, entry)| entry.clone()).collect();
                BootNews::Whole(BootTable { revision: state.revision, entries })
            }
        };
        Some((state.stamp, news))
    }

    /// The table, whole, at once; then what changes.
    pub fn follow(self: &Arc<Self>) -> BoxStream<'static, BootNews> {
        let start = (Arc::clone(self), self.news.subscribe(), None);
        futures::stream::unfold(start, |(boots, mut news, heard)| async move {
            loop {
                news.mark_unchanged();
                if let Some((stamp, told)) = boots.since(heard) {
                    return Some((told, (boots, news, Some(stamp))));
                }
                news.changed().await.ok()?;
            }
        })
        .boxed()
    }
}

impl State {
    fn put(&mut self, name: &str, entry: Option<BootEntry>) {
        self.stamp += 1;
        let before = match &entry {
            Some(_) => self.gone.remove(name),
            None => self.gone.insert(name.to_owned(), self.stamp),
        };
        let known = match entry {
            Some(entry) => self.entries.insert(name.to_owned(), (self.stamp, entry)),
            None => self.entries.remove(name),
        };
        for stamp in before.into_iter().chain(known.map(|(stamp, _)| stamp)) {
            self.order.remove(&stamp);
        }
        self.order.insert(self.stamp, name.to_owned());
        if self.gone.len() > REMOVALS_KEPT.max(self.entries.len()) {
            for stamp in std::mem::take(&mut self.gone).into_values() {
                self.order.remove(&stamp);
            }
            self.forgotten = self.stamp;
        }
    }
}

/// What one host should boot; `None` until it has an address.
fn entry(host: &Host, fleet: &Fleet) -> Option<BootEntry> {
    let status = &host.status;
    let booting = matches!(status.stage, Stage::BootDevice | Stage::On | Stage::Agent | Stage::Work)
        && status.phase != HostPhase::Error;
    let attempt = status.boot.as_ref().filter(|boot| booting && boot.work_done.is_none());
    let target = match (attempt, fleet.token(&host.metadata.uid)) {
        (Some(boot), Some(token)) => BootTarget::Agent { attempt: boot.id.clone(), token },
        _ => BootTarget::LocalDisk,
    };
    Some(BootEntry {
        host: host.name().to_owned(),
        uid: host.metadata.uid.clone(),
        macs: vec![host.spec.boot_mac],
        address: status.address?,
        target,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use futures::FutureExt as _;

    fn disk(name: &str, number: u8) -> BootEntry {
        BootEntry {
            host: name.to_owned(),
            uid: vmetal_model::Uid(name.to_owned()),
            macs: Vec::new(),
            address: [10, 0, 0, number].into(),
            target: BootTarget::LocalDisk,
        }
    }

    fn told(news: BootNews) -> (&'static str, Vec<String>, Vec<String>) {
        let names = |entries: Vec<BootEntry>| entries.into_iter().map(|entry| entry.host).collect();
        match news {
            BootNews::Whole(table) => ("whole", names(table.entries), Vec::new()),
            BootNews::Change(change) => ("change", names(change.entries), change.gone),
        }
    }

    #[tokio::test]
    async fn the_table_is_told_once_and_then_only_what_changed() {
        let boots = Arc::new(Boots::default());
        boots.put("a", Some(disk("a", 1)), 1);
        boots.put("b", Some(disk("b", 2)), 2);
        let mut follower = boots.follow();
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(told(follower.next().await.unwrap()), ("whole", all(&["a", "b"]), all(&[])));
        boots.put("a", Some(disk("a", 1)), 3);
        assert!(follower.next().now_or_never().is_none(), "nothing changed");
        boots.put("a", Some(disk("a", 3)), 4);
        boots.put("c", Some(disk("c", 4)), 5);
        boots.put("c", Some(disk("c", 5)), 6);
        boots.put("b", None, 7);
        assert_eq!(told(follower.next().await.unwrap()), ("change", all(&["a", "c"]), all(&["b"])));
        boots.put("b", Some(disk("b", 2)), 8);
        assert_eq!(told(follower.next().await.unwrap()), ("change", all(&["b"]), all(&[])));
        assert_eq!(told(boots.follow().next().await.unwrap()).1, all(&["a", "b", "c"]));
    }

    #[tokio::test]
    async fn removals_are_not_kept_for_ever() {
        let boots = Arc::new(Boots::default());
        boots.put("stays", Some(disk("stays", 1)), 1);
        let mut follower = boots.follow();
        follower.next().await.unwrap();
        for number in 0..=REMOVALS_KEPT {
            boots.put(&format!("h{number}"), Some(disk("h", 2)), 2);
            boots.put(&format!("h{number}"), None, 3);
        }
        assert_eq!(told(follower.next().await.unwrap()), ("whole", vec!["stays".to_owned()], Vec::new()));
        let state = boots.lock();
        assert!(state.gone.is_empty() && state.order.len() == 1);
    }
}
