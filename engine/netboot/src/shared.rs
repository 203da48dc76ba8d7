//! What the servers of one process share.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmetal_model::boot::BootEntry;
use vmetal_model::net::MacAddr;

use crate::record::Recorder;
use crate::session::{Sessions, Stage, Who};
use crate::table::{Tables, attempt};

/// Tables, sessions and the recorder.
#[derive(Debug)]
pub struct Shared {
    /// The newest boot table.
    pub tables: Tables,
    /// Where events go.
    pub recorder: Recorder,
    sessions: Mutex<Sessions>,
}

impl Shared {
    /// Nothing known yet.
    pub fn new(recorder: Recorder) -> Self {
        Shared { tables: Tables::default(), recorder, sessions: Mutex::default() }
    }

    /// The sessions. Held only for the moment of a decision, never across an await.
    pub fn sessions(&self) -> MutexGuard<'_, Sessions> {
        // A panic while the lock was held leaves at worst one stage unwritten: go on with what there is.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host an address is reserved for, with the interface that has it: where a TFTP or HTTP request comes from.
    pub fn peer(&self, address: IpAddr) -> Option<Peer> {
        let IpAddr::V4(address) = address.to_canonical() else { return None };
        let table = self.tables.load();
        let entry = table.by_address(address)?;
        let mac = self.sessions().holder(address, &entry.macs).or_else(|| entry.macs.first().copied())?;
        Some(Peer { entry: entry.clone(), mac })
    }

    /// Notes how far the peer's boot has come.
    pub fn reached(&self, peer: &Peer, stage: Stage) {
        if let Some(attempt) = attempt(&peer.entry) {
            self.sessions().reached(Who { mac: peer.mac, attempt }, stage, crate::clock::now());
        }
    }

    /// Records an event of the peer.
    pub fn note(&self, peer: &Peer, what: String) {
        self.recorder.note(peer.mac, Some(peer.entry.host.clone()), what);
    }
}

/// A declared host that is talking to us.
#[derive(Debug, Clone)]
pub struct Peer {
    /// What it should boot.
    pub entry: BootEntry,
    /// The interface it talks through.
    pub mac: MacAddr,
}
