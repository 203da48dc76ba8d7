//! The columns themselves.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use vmetal_model::agent::EraseLevel;
use vmetal_model::bmc::PowerState;
use vmetal_model::inventory::Inventory;
use vmetal_model::{Host, HostPhase, HostStatus, PciId, StandbyWish};
use vmetal_policy_sdk as sdk;
use vmetal_policy_sdk::Sym;

use super::{Work, digest};
use crate::input::{self, ACCELERATORS, Hardware, HostRow};
use crate::symbols::Symbols;

/// What is known of one host, as it comes in.
pub(crate) struct Fact<'a> {
    name: &'a str,
    deleted: bool,
    phase: HostPhase,
    claimed_by: Option<&'a str>,
    labels: &'a BTreeMap<String, String>,
    hardware: Option<Seen<'a>>,
    last_release: u64,
    last_tenant: &'a str,
    provisions: u32,
    power: PowerState,
    erased: Option<EraseLevel>,
    failures: u32,
    held: bool,
    revision: u64,
}

/// What inspection found.
struct Seen<'a> {
    threads: u32,
    memory_bytes: u64,
    accelerators: [u32; ACCELERATORS.len()],
    model: Model<'a>,
}

/// Of which model the accelerators are. Devices say it in two numbers, which become text only where a symbol is made.
enum Model<'a> {
    Named(&'a str),
    Device(PciId, PciId),
}

impl<'a> Seen<'a> {
    fn from_model(inventory: &'a Inventory) -> Self {
        let (accelerators, first) = input::accelerators(inventory);
        Seen {
            threads: inventory.cpu.threads,
            memory_bytes: inventory.memory_bytes,
            accelerators,
            model: first.map_or(Model::Named(""), |first| Model::Device(first.vendor, first.device)),
        }
    }

    fn from_row(hardware: &'a Hardware) -> Self {
        Seen {
            threads: hardware.threads,
            memory_bytes: hardware.memory_bytes,
            accelerators: ACCELERATORS
                .map(|(_, resource)| hardware.accelerators.get(resource).copied().unwrap_or_default()),
            model: Model::Named(hardware.gpu_model.as_deref().unwrap_or_default()),
        }
    }
}

/// Whether somebody holds the host back, it is about to leave standby, or a tenant's data is still on it, whatever its phase
/// says.
fn is_held(status: &HostStatus) -> bool {
    [&status.pause, &status.maintenance, &status.quarantine, &status.detach].iter().any(|hold| hold.is_some())
        || status.unerased.is_some()
        || status.standby.as_ref().is_some_and(|standby| standby.wish == StandbyWish::GiveBack)
}

impl<'a> Fact<'a> {
    pub(crate) fn from_model(host: &'a Host) -> Self {
        let status = &host.status;
        Fact {
            name: host.name(),
            deleted: host.is_deleted(),
            phase: status.phase,
            claimed_by: status.claim.as_ref().map(|claim| claim.node.as_str()),
            labels: &host.metadata.labels,
            hardware: status.inventory.as_ref().map(Seen::from_model),
            last_release: status.erase.as_ref().map_or(0, |erase| u64::try_from(erase.at.as_second()).unwrap_or(0)),
            last_tenant: status.tenancies.last_cluster.as_deref().unwrap_or_default(),
            provisions: status.tenancies.count,
            power: status.power,
            erased: status.erase.as_ref().map(|erase| erase.level),
            failures: status.retry.failures + u32::from(status.failure.is_some()),
            held: is_held(status),
            revision: host.metadata.revision,
        }
    }

    pub(crate) fn from_row(row: &'a HostRow) -> Self {
        Fact {
            name: &row.name,
            deleted: row.deleted,
            phase: row.phase,
            claimed_by: row.claimed_by.as_deref(),
            labels: &row.labels,
            hardware: row.hardware.as_ref().map(Seen::from_row),
            last_release: row.last_release,
            last_tenant: &row.last_tenant,
            provisions: row.provisions,
            power: row.power,
            erased: row.erased,
            failures: row.failures,
            held: row.held,
            revision: 0,
        }
    }
}

/// Columns with one cell for each host: what has to be written, moved and dropped together is named once.
macro_rules! cells {
    ($($name:ident: $type:ty,)*) => {
        /// One list per fact.
        #[derive(Debug, Clone, Default)]
        pub(crate) struct Cells { $(pub(crate) $name: Vec<$type>,)* }

        struct Row { $($name: $type,)* }

        impl Cells {
            fn push(&mut self, row: Row) { $(self.$name.push(row.$name);)* }
            fn set(&mut self, slot: usize, row: Row) { $(self.$name[slot] = row.$name;)* }
            fn swap_remove(&mut self, slot: usize) { $(self.$name.swap_remove(slot);)* }
        }
    };
}

cells! {
    name: Sym,
    rank: u32,
    cpu_milli: u64,
    memory_bytes: u64,
    gpus: u32,
    gpu_model: Sym,
    last_tenant: Sym,
    last_release: u64,
    provisions: u32,
    power: u64,
    erased: u64,
    failures: u64,
    occupied: u64,
    attested: u64,
    // What only the engine's rules look at.
    phase: HostPhase,
    deleted: bool,
    holder: Sym,
    inspected: bool,
    held: bool,
    accelerators: [u32; ACCELERATORS.len()],
    revision: u64,
    // Whether the digest is that of the row as it is now.
    hashed: bool,
    digest: digest::Hash,
}

/// All hosts as columns. A host's slot is its row; it changes only when another host goes.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) levels: Vec<String>,
    level_syms: Vec<Sym>,
    attested_at: Sym,
    pub(crate) symbols: Arc<Symbols>,
    /// The slot of a host by the symbol of its name, [`NO_SLOT`] for symbols that name none.
    slots: Vec<u32>,
    pub(crate) cells: Cells,
    domains: Vec<Sym>,
    label_at: Vec<u32>,
    label_key: Vec<Sym>,
    label_value: Vec<Sym>,
    /// Labels that do not fit where the row's labels were.
    misfits: HashMap<u32, Vec<(Sym, Sym)>>,
    /// Slots in the order of names; valid once settled.
    pub(crate) order: Vec<u32>,
    disordered: bool,
    /// Slots whose rows are to be hashed; as soon as there are more than rows, all rows are looked at.
    unhashed: Vec<u32>,
    tree: digest::Tree,
    scratch: Scratch,
}

/// Memory that one change after the other uses.
#[derive(Debug, Clone, Default)]
struct Scratch {
    /// The labels of the row that was written last: neighbours are often alike.
    labels: Vec<(Sym, Sym)>,
    /// The model of the accelerators that were met last, and its symbol: neighbours have the same.
    model: Option<(PciId, PciId, Sym)>,
    bytes: Vec<u8>,
}

/// What the hashing of one row leaves for the next.
struct Hashing {
    bytes: Vec<u8>,
    /// The row whose labels were hashed last, and their hash.
    labels: Option<(usize, digest::Hash)>,
}

/// No row has this number: rows are counted in 32 bits.
const NO_SLOT: u32 = u32::MAX;

/// A symbol, copying the strings only when there is a new one.
fn sym(symbols: &mut Arc<Symbols>, text: &str) -> Sym {
    match symbols.known(text) {
        Some(known) => known,
        None => Arc::make_mut(symbols).sym(text),
    }
}

/// The same where the symbol is likely to be a certain one: comparing costs less than looking up.
fn sym_like(symbols: &mut Arc<Symbols>, guess: Sym, text: &str) -> Sym {
    if symbols.text(guess) == text { guess } else { sym(symbols, text) }
}

/// Rows are counted in 32 bits, as the boundary has them. Four thousand million hosts do not fit into memory.
fn short(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}

impl Table {
    pub(super) fn new(levels: Vec<String>) -> Self {
        let mut symbols = Arc::new(Symbols::default());
        let level_syms = levels.iter().map(|level| sym(&mut symbols, level)).collect();
        let attested_at = sym(&mut symbols, super::ATTESTED_AT);
        Table {
            levels,
            level_syms,
            attested_at,
            symbols,
            slots: Vec::new(),
            cells: Cells::default(),
            domains: Vec::new(),
            label_at: vec![0],
            label_key: Vec::new(),
            label_value: Vec::new(),
            misfits: HashMap::new(),
            order: Vec::new(),
            disordered: true,
            unhashed: Vec::new(),
            tree: digest::Tree::default(),
            scratch: Scratch::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.cells.name.len()
    }

    /// The name of a row's host.
    pub(crate) fn name(&self, slot: usize) -> &str {
        self.symbols.text(self.cells.name[slot])
    }

    /// The row of a host.
    pub(crate) fn slot(&self, name: &str) -> Option<usize> {
        self.slot_of(self.symbols.known(name)?)
    }

    fn slot_of(&self, name: Sym) -> Option<usize> {
        self.slots.get(name as usize).filter(|slot| **slot != NO_SLOT).map(|slot| *slot as usize)
    }

    fn set_slot(&mut self, name: Sym, slot: u32) {
        let at = name as usize;
        if self.slots.len() <= at {
            self.slots.resize(at + 1, NO_SLOT);
        }
        self.slots[at] = slot;
    }

    /// The row has to be hashed.
    fn soil(&mut self, slot: usize) {
        self.cells.hashed[slot] = false;
        if self.unhashed.len() <= self.len() {
            self.unhashed.push(short(slot));
        }
    }

    pub(super) fn digest(&self) -> digest::Hash {
        self.tree.root()
    }

    pub(super) fn put(&mut self, fact: &Fact<'_>) {
        let name = sym(&mut self.symbols, fact.name);
        let mut labels = std::mem::take(&mut self.scratch.labels);
        labels.resize(fact.labels.len(), (0, 0));
        for (label, (key, value)) in labels.iter_mut().zip(fact.labels) {
            let symbols = &mut self.symbols;
            *label = (sym_like(symbols, label.0, key), sym_like(symbols, label.1, value));
        }
        let attested =
            labels.iter().find(|(key, _)| *key == self.attested_at).map_or("", |(_, at)| self.symbols.text(*at));
        let attested = attested.parse().unwrap_or(0);
        let row = self.cells_of(name, fact, attested);
        let slot = match self.slot_of(name) {
            Some(slot) => {
                // Of a row that waits to be hashed already it is known where it is.
                let (rank, hashed) = (self.cells.rank[slot], self.cells.hashed[slot]);
                self.cells.set(slot, Row { rank, hashed, ..row });
                self.relabel(slot, &labels);
                slot
            }
            None => {
                let slot = self.len();
                self.set_slot(name, short(slot));
                self.cells.push(Row { hashed: true, ..row });
                self.domains.resize(self.domains.len() + self.level_syms.len(), 0);
                self.append_labels(&labels);
                self.disordered = true;
                slot
            }
        };
        let at = slot * self.level_syms.len();
        for (domain, level) in self.domains[at..].iter_mut().zip(&self.level_syms) {
            *domain = labels.iter().find(|(key, _)| key == level).map_or(0, |(_, value)| *value);
        }
        if self.cells.hashed[slot] {
            self.soil(slot);
        }
        self.scratch.labels = labels;
    }

    fn cells_of(&mut self, name: Sym, fact: &Fact<'_>, attested: u64) -> Row {
        let hardware = fact.hardware.as_ref();
        let accelerators = hardware.map(|h| h.accelerators).unwrap_or_default();
        let (symbols, last) = (&mut self.symbols, &mut self.scratch.model);
        let gpu_model = match hardware.map(|h| &h.model) {
            None => 0,
            Some(Model::Named(name)) => sym(symbols, name),
            Some(Model::Device(vendor, device)) => match *last {
                Some((a, b, known)) if (a, b) == (*vendor, *device) => known,
                _ => {
                    let known = sym(symbols, &input::gpu_model(*vendor, *device));
                    *last = Some((*vendor, *device, known));
                    known
                }
            },
        };
        Row {
            name,
            rank: 0,
            cpu_milli: hardware.map_or(0, |h| u64::from(h.threads) * 1000),
            memory_bytes: hardware.map_or(0, |h| h.memory_bytes),
            gpus: accelerators.iter().sum(),
            gpu_model,
            last_tenant: sym(symbols, fact.last_tenant),
            last_release: fact.last_release,
            provisions: fact.provisions,
            power: match fact.power {
                PowerState::On => sdk::column::power::ON,
                PowerState::Off => sdk::column::power::OFF,
                PowerState::Unknown | PowerState::PoweringOn | PowerState::PoweringOff => sdk::column::power::UNKNOWN,
            },
            erased: match fact.erased {
                None => sdk::column::erase::NEVER,
                Some(EraseLevel::Metadata) => sdk::column::erase::METADATA,
                Some(EraseLevel::Discard) => sdk::column::erase::DISCARD,
                Some(EraseLevel::Overwrite) => sdk::column::erase::OVERWRITE,
            },
            failures: u64::from(fact.failures),
            occupied: u64::from(fact.claimed_by.is_some()),
            attested,
            phase: fact.phase,
            deleted: fact.deleted,
            // No tenant node has an empty name.
            holder: sym(symbols, fact.claimed_by.unwrap_or_default()),
            inspected: hardware.is_some(),
            held: fact.held,
            accelerators,
            revision: fact.revision,
            hashed: false,
            digest: digest::Hash::default(),
        }
    }

    fn append_labels(&mut self, labels: &[(Sym, Sym)]) {
        self.label_key.extend(labels.iter().map(|(key, _)| *key));
        self.label_value.extend(labels.iter().map(|(_, value)| *value));
        self.label_at.push(short(self.label_key.len()));
    }

    fn label_range(&self, slot: usize) -> std::ops::Range<usize> {
        self.label_at[slot] as usize..self.label_at[slot + 1] as usize
    }

    /// In place when there are as many as before; otherwise put off.
    fn relabel(&mut self, slot: usize, labels: &[(Sym, Sym)]) {
        let range = self.label_range(slot);
        if range.len() != labels.len() {
            self.misfits.insert(short(slot), labels.to_vec());
            return;
        }
        if !self.misfits.is_empty() {
            self.misfits.remove(&short(slot));
        }
        for (at, (key, value)) in range.zip(labels) {
            self.label_key[at] = *key;
            self.label_value[at] = *value;
        }
    }

    /// The labels of a row, wherever they are.
    fn labels(&self, slot: usize) -> impl Iterator<Item = (Sym, Sym)> + '_ {
        let misfit = if self.misfits.is_empty() { None } else { self.misfits.get(&short(slot)) };
        let range = if misfit.is_some() { 0..0 } else { self.label_range(slot) };
        let (keys, values) = (&self.label_key[range.clone()], &self.label_value[range]);
        misfit.into_iter().flatten().copied().chain(keys.iter().copied().zip(values.iter().copied()))
    }

    pub(super) fn remove(&mut self, name: &str) {
        let Some(slot) = self.slot(name) else { return };
        let last = self.len() - 1;
        let moved: Vec<(Sym, Sym)> = self.labels(last).collect();
        self.set_slot(self.cells.name[slot], NO_SLOT);
        self.cells.swap_remove(slot);
        let width = self.level_syms.len();
        self.domains.copy_within(last * width.., slot * width);
        self.domains.truncate(last * width);
        if slot != last {
            self.set_slot(self.cells.name[slot], short(slot));
            self.relabel(slot, &moved);
            self.soil(slot);
        }
        self.misfits.remove(&short(last));
        self.label_at.truncate(last + 1);
        let end = self.label_at[last] as usize;
        self.label_key.truncate(end);
        self.label_value.truncate(end);
        self.disordered = true;
    }

    pub(super) fn is_stale(&self) -> bool {
        self.disordered || !self.misfits.is_empty() || !self.unhashed.is_empty()
    }

    /// Does what was put off.
    pub(super) fn settle(&mut self, work: &mut Work) {
        if !self.misfits.is_empty() {
            self.move_labels();
            work.moved += self.len() as u64;
        }
        if self.disordered {
            self.sort();
            work.ordered += self.len() as u64;
        }
        let mut unhashed = std::mem::take(&mut self.unhashed);
        if unhashed.len() > self.len() {
            unhashed.clear();
            unhashed.extend(0..short(self.len()));
        }
        let mut hashing = Hashing { bytes: std::mem::take(&mut self.scratch.bytes), labels: None };
        // A row may be named twice, or be gone since.
        for slot in unhashed.iter().map(|slot| *slot as usize) {
            if self.cells.hashed.get(slot) != Some(&false) {
                continue;
            }
            self.cells.digest[slot] = self.hash(slot, &mut hashing);
            self.cells.hashed[slot] = true;
            self.tree.touch(self.cells.rank[slot]);
            work.hashed += 1;
        }
        unhashed.clear();
        (self.unhashed, self.scratch.bytes) = (unhashed, hashing.bytes);
        let Table { tree, order, cells, .. } = self;
        tree.grow(order, &cells.digest);
        self.disordered = false;
    }

    fn move_labels(&mut self) {
        let rows: Vec<Vec<(Sym, Sym)>> = (0..self.len()).map(|slot| self.labels(slot).collect()).collect();
        self.misfits.clear();
        self.label_at.truncate(1);
        self.label_key.clear();
        self.label_value.clear();
        rows.iter().for_each(|labels| self.append_labels(labels));
    }

    fn sort(&mut self) {
        // What was in order stays so but for what came and went: the sort finds long runs and needs few comparisons.
        let rows = short(self.len());
        let mut seen = vec![false; self.len()];
        self.order.retain(|slot| *slot < rows && !std::mem::replace(&mut seen[*slot as usize], true));
        self.order.extend((0..rows).filter(|slot| !seen[*slot as usize]));
        let (symbols, names) = (&self.symbols, &self.cells.name);
        self.order.sort_by(|a, b| symbols.text(names[*a as usize]).cmp(symbols.text(names[*b as usize])));
        for (rank, slot) in (0u32..).zip(&self.order) {
            self.cells.rank[*slot as usize] = rank;
        }
        self.tree.forget();
    }

    fn hash(&self, slot: usize, hashing: &mut Hashing) -> digest::Hash {
        let labels = self.hash_labels(slot, hashing);
        let cells = &self.cells;
        let mut row = digest::Row::in_memory(&mut hashing.bytes);
        for text in [cells.name[slot], cells.gpu_model[slot], cells.last_tenant[slot], cells.holder[slot]] {
            row.text(self.symbols.text(text));
        }
        row.text(cells.phase[slot].as_str());
        for number in [
            cells.cpu_milli[slot],
            cells.memory_bytes[slot],
            cells.last_release[slot],
            u64::from(cells.provisions[slot]),
            cells.power[slot],
            cells.erased[slot],
            cells.failures[slot],
            u64::from(cells.deleted[slot]),
            u64::from(cells.inspected[slot]),
            u64::from(cells.held[slot]),
        ] {
            row.number(number);
        }
        cells.accelerators[slot].iter().for_each(|count| row.number(u64::from(*count)));
        row.hash(&labels);
        row.finish()
    }

    /// Labels have a hash of their own: hosts of a rack often have the same, and those are most of what is known of them.
    fn hash_labels(&self, slot: usize, hashing: &mut Hashing) -> digest::Hash {
        if let Some((like, hash)) = hashing.labels
            && self.labels(like).eq(self.labels(slot))
        {
            return hash;
        }
        let mut labels = digest::Row::in_memory(&mut hashing.bytes);
        for (key, value) in self.labels(slot) {
            labels.text(self.symbols.text(key));
            labels.text(self.symbols.text(value));
        }
        let hash = labels.finish();
        hashing.labels = Some((slot, hash));
        hash
    }

    /// The value of a label of a row.
    pub(crate) fn label(&self, slot: usize, key: Sym) -> Option<Sym> {
        let range = self.label_range(slot);
        let at = self.label_key[range.clone()].iter().position(|found| *found == key)?;
        self.label_value.get(range.start + at).copied()
    }

    /// A row in words.
    pub(crate) fn row(&self, slot: usize) -> HostRow {
        let (cells, text) = (&self.cells, |sym: Sym| self.symbols.text(sym).to_owned());
        let some = |sym: Sym| (sym != 0).then(|| text(sym));
        let hardware = cells.inspected[slot].then(|| Hardware {
            threads: u32::try_from(cells.cpu_milli[slot] / 1000).unwrap_or(u32::MAX),
            memory_bytes: cells.memory_bytes[slot],
            accelerators: ACCELERATORS
                .iter()
                .zip(cells.accelerators[slot])
                .filter(|(_, count)| *count > 0)
                .map(|((_, resource), count)| ((*resource).to_owned(), count))
                .collect(),
            gpu_model: some(cells.gpu_model[slot]),
        });
        HostRow {
            name: text(cells.name[slot]),
            deleted: cells.deleted[slot],
            held: cells.held[slot],
            phase: cells.phase[slot],
            claimed_by: some(cells.holder[slot]),
            labels: self.labels(slot).map(|(key, value)| (text(key), text(value))).collect(),
            hardware,
            last_release: cells.last_release[slot],
            last_tenant: text(cells.last_tenant[slot]),
            provisions: cells.provisions[slot],
            power: match cells.power[slot] {
                sdk::column::power::ON => PowerState::On,
                sdk::column::power::OFF => PowerState::Off,
                _ => PowerState::Unknown,
            },
            erased: match cells.erased[slot] {
                sdk::column::erase::METADATA => Some(EraseLevel::Metadata),
                sdk::column::erase::DISCARD => Some(EraseLevel::Discard),
                sdk::column::erase::OVERWRITE => Some(EraseLevel::Overwrite),
                _ => None,
            },
            failures: u32::try_from(cells.failures[slot]).unwrap_or(u32::MAX),
        }
    }

    /// The columns as a policy is lent them. `promised` are rows that a tenant cluster has been promised since.
    pub(crate) fn lend(&self, gate: Vec<u32>, promised: &[(usize, Sym)]) -> sdk::Hosts<'_> {
        let cells = &self.cells;
        let (mut occupied, mut last_tenant) = (Cow::Borrowed(&*cells.occupied), Cow::Borrowed(&*cells.last_tenant));
        for (slot, cluster) in promised {
            occupied.to_mut()[*slot] = 1;
            last_tenant.to_mut()[*slot] = *cluster;
        }
        let extra = [
            (sdk::column::POWER, Cow::Borrowed(&*cells.power)),
            (sdk::column::ERASE_LEVEL, Cow::Borrowed(&*cells.erased)),
            (sdk::column::FAILURES, Cow::Borrowed(&*cells.failures)),
            (sdk::column::OCCUPIED, occupied),
            (sdk::column::ATTESTED, Cow::Borrowed(&*cells.attested)),
        ];
        sdk::Hosts {
            n: short(self.len()),
            name: Cow::Borrowed(&cells.name),
            rank: Cow::Borrowed(&cells.rank),
            gate: Cow::Owned(gate),
            cpu_milli: Cow::Borrowed(&cells.cpu_milli),
            memory_bytes: Cow::Borrowed(&cells.memory_bytes),
            gpus: Cow::Borrowed(&cells.gpus),
            gpu_model: Cow::Borrowed(&cells.gpu_model),
            last_tenant,
            last_release: Cow::Borrowed(&cells.last_release),
            provisions: Cow::Borrowed(&cells.provisions),
            levels: Cow::Borrowed(&self.level_syms),
            domains: Cow::Borrowed(&self.domains),
            label_at: Cow::Borrowed(&self.label_at),
            label_key: Cow::Borrowed(&self.label_key),
            label_value: Cow::Borrowed(&self.label_value),
            extra: extra.map(|(number, cells)| sdk::Column { number, cells }).into(),
        }
    }
}
