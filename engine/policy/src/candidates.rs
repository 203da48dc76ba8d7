//! What is kept of each candidate: the verdicts in words, for the few that somebody reads about.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use vmetal_policy_sdk as sdk;

use crate::columns::View;
use crate::decision::Candidate;
use crate::feasibility::gates::{self, Gates};
use crate::feasibility::{self, Rejection};
use crate::input::Offer;
use crate::round::Except;
use crate::symbols::Symbols;

/// The verdicts of one decision and what they are to be read with.
pub(crate) struct Rows<'a> {
    pub(crate) symbols: &'a Symbols,
    pub(crate) info: &'a sdk::Info,
    pub(crate) verdicts: &'a [sdk::Verdict],
}

impl Rows<'_> {
    /// One candidate in words: the engine's where its rules speak, the policy's where it narrowed further.
    pub(crate) fn candidate(&self, row: usize, name: &str, rejections: &[Rejection], chosen: bool) -> Candidate {
        let verdict = self.verdicts[row];
        let (reason, topic) = match rejections.first() {
            Some(first) => {
                let all: Vec<_> = rejections.iter().map(Rejection::to_string).collect();
                (all.join("; "), first.topic())
            }
            None if verdict.code != sdk::gate::OPEN => {
                let text = self.own_reason(&verdict);
                (text.clone(), text)
            }
            None if chosen => ("chosen".to_owned(), String::new()),
            None => ("fits".to_owned(), String::new()),
        };
        Candidate {
            name: name.to_owned(),
            feasible: verdict.code == sdk::gate::OPEN,
            code: verdict.code,
            score: verdict.score,
            cost: None,
            reason,
            topic,
            lacks: None,
        }
    }

    fn own_reason(&self, verdict: &sdk::Verdict) -> String {
        let Some(reason) = self.info.reasons.iter().find(|reason| reason.code == verdict.code) else {
            return format!("code {} of {}", verdict.code, self.info.name);
        };
        match reason.arg {
            sdk::Arg::None => reason.text.clone(),
            sdk::Arg::Number => reason.text.replace("{}", &verdict.arg.to_string()),
            sdk::Arg::Sym => reason.text.replace("{}", self.symbols.text(verdict.arg)),
        }
    }
}

/// The hosts of one decision.
pub(crate) struct Fleet<'a> {
    pub(crate) offer: &'a Offer,
    pub(crate) fleet: &'a View,
    pub(crate) gates: &'a Gates,
    pub(crate) except: Except<'a>,
}

impl Fleet<'_> {
    /// So many candidates: the chosen ones, then those that fit, the best first, then the others by name.
    pub(crate) fn candidates(&self, rows: &Rows<'_>, picks: &[u32], keep: usize) -> Vec<Candidate> {
        let chosen: Vec<usize> = picks.iter().map(|row| *row as usize).collect();
        let mut order = chosen.clone();
        let ranks = &self.fleet.table.cells.rank;
        let fitting = rows
            .verdicts
            .iter()
            .zip(ranks)
            .enumerate()
            .filter(|(row, (verdict, _))| verdict.code == sdk::gate::OPEN && !chosen.contains(row));
        let fitting = fitting.map(|(row, (verdict, rank))| (Reverse(verdict.score), *rank, row));
        order.extend(smallest(keep, fitting).into_iter().map(|(_, _, row)| row));
        let others = self.fleet.table.order.iter().map(|slot| *slot as usize);
        let excluded = others.filter(|row| rows.verdicts[*row].code != sdk::gate::OPEN);
        let missing = keep.saturating_sub(order.len());
        order.extend(excluded.take(missing));
        order.truncate(keep.max(chosen.len()));
        let candidate = |(at, row): (usize, usize)| {
            let name = self.fleet.table.symbols.text(self.fleet.table.cells.name[row]);
            let found = match self.gates.codes[row] {
                sdk::gate::OPEN => Vec::new(),
                _ => gates::rejections(self.offer, self.fleet, row, self.except),
            };
            rows.candidate(row, name, &found, at < chosen.len())
        };
        order.into_iter().enumerate().map(candidate).collect()
    }

    /// One sentence about all of them.
    pub(crate) fn summary(&self, rows: &Rows<'_>, wanted: u32, chosen: &[String]) -> String {
        let total = rows.verdicts.len();
        let feasible = rows.verdicts.iter().filter(|verdict| verdict.code == sdk::gate::OPEN).count();
        if !chosen.is_empty() {
            return format!("{} chosen among {feasible} that fit ({total} considered)", chosen.join(", "));
        }
        if total == 0 {
            return "0 of 0 hosts: none is declared".to_owned();
        }
        let mut own: HashMap<(u32, u32), usize> = HashMap::new();
        let narrowed = rows
            .verdicts
            .iter()
            .zip(&self.gates.codes)
            .filter(|(verdict, gate)| **gate == sdk::gate::OPEN && verdict.code != sdk::gate::OPEN);
        for (verdict, _) in narrowed {
            *own.entry((verdict.code, verdict.arg)).or_default() += 1;
        }
        let own =
            own.into_iter().map(|((code, arg), count)| (rows.own_reason(&sdk::Verdict { code, arg, score: 0 }), count));
        let rules = self.gates.topics(self.offer, self.except.bars, None);
        let counts = feasibility::count_topics(rules.into_iter().chain(own));
        let needed = if wanted > 1 { format!(" ({wanted} wanted)") } else { String::new() };
        format!("{feasible} of {total} hosts{needed}: {counts}")
    }
}

/// So many of the smallest, in order. Few of many are wanted: nearly all are done with after one comparison.
fn smallest<T: Ord>(keep: usize, all: impl Iterator<Item = T>) -> Vec<T> {
    let mut kept = BinaryHeap::new();
    for next in all {
        if kept.len() < keep {
            kept.push(next);
        } else if let Some(mut largest) = kept.peek_mut().filter(|largest| next < **largest) {
            *largest = next;
        }
    }
    kept.into_sorted_vec()
}

/// One sentence about node types.
pub(crate) fn summarise_types(candidates: &[Candidate], chosen: Option<usize>) -> String {
    let shown = |candidate: &Candidate| candidate.cost.unwrap_or_default().to_string();
    match chosen.and_then(|row| candidates.get(row)) {
        Some(winner) => {
            let feasible = candidates.iter().filter(|candidate| candidate.feasible).count();
            let of = if feasible == 1 { "the only".to_owned() } else { format!("the best of {feasible}") };
            format!("{} costs {} and is {of} that fits ({} considered)", winner.name, shown(winner), candidates.len())
        }
        None if candidates.is_empty() => "no node type fits: none is declared".to_owned(),
        None => format!("no node type fits; {}", unfit_types(candidates)),
    }
}

/// Types shown one by one where none fits; the others are counted by cause.
const TYPES_SHOWN: usize = 3;

/// Why none fits. A type that would fit if a host were free says most; types that the claim does not name say nothing.
fn unfit_types(candidates: &[Candidate]) -> String {
    let named: Vec<_> = candidates.iter().filter(|row| row.code != sdk::gate::NOT_NAMED).collect();
    let considered: Vec<_> = if named.is_empty() { candidates.iter().collect() } else { named };
    let (over, considered): (Vec<_>, Vec<_>) =
        considered.into_iter().partition(|row| matches!(row.code, sdk::gate::QUOTA | sdk::gate::ADDRESS));
    let (mut full, rest): (Vec<_>, Vec<_>) = considered.into_iter().partition(|row| row.code == sdk::gate::NO_CAPACITY);
    if over.is_empty() && full.is_empty() && rest.len() == 1 {
        return format!("{}: {}", rest[0].name, rest[0].reason);
    }
    let uncounted = full.split_off(full.len().min(TYPES_SHOWN));
    let others: Vec<_> = uncounted.into_iter().chain(rest).collect();
    let mut lines = by_reason(&over);
    lines.extend(full.iter().map(|row| format!("{}: {}", row.name, row.reason)));
    if !others.is_empty() {
        let counts = feasibility::count_topics(others.iter().map(|row| (row.topic.clone(), 1)));
        let which = match (lines.is_empty(), others.len()) {
            (true, _) => "types",
            (false, 1) => "other",
            (false, _) => "others",
        };
        lines.push(format!("{} {which}: {counts}", others.len()));
    }
    lines.join("; ")
}

/// The types that a quota or a network keeps from being chosen: often all of them for one reason, which is told once.
fn by_reason(rows: &[&Candidate]) -> Vec<String> {
    let mut types: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in rows {
        let first = row.reason.split_once("; ").map_or(row.reason.as_str(), |(first, _)| first);
        types.entry(first).or_default().push(&row.name);
    }
    let line = |(reason, names): (&str, Vec<&str>)| match names.as_slice() {
        [one] => format!("{one}: {reason}"),
        _ => format!("{} types: {reason}", names.len()),
    };
    types.into_iter().map(line).collect()
}
