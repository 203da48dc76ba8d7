//! The JSON boundary: what crosses, and the policy behind it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::score::{Facts, score};

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct Question<'a> {
    /// Seconds since 1970-01-01 UTC.
    pub now: u64,
    /// How many hosts are wanted.
    pub count: usize,
    /// The candidates.
    #[serde(borrow)]
    pub hosts: Vec<Host<'a>>,
}

/// One candidate.
#[derive(Debug, Serialize, Deserialize)]
pub struct Host<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Zero, or the engine's code for the rule that it fails.
    pub gate: u32,
    /// Processors, in thousandths.
    pub cpu_milli: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Accelerators.
    pub gpus: u32,
    /// Their model.
    #[serde(borrow)]
    pub gpu_model: Cow<'a, str>,
    /// The tenant cluster that had it last.
    #[serde(borrow)]
    pub last_tenant: Cow<'a, str>,
    /// When it was released, in seconds since 1970-01-01 UTC.
    pub last_release: u64,
    /// How often it was provisioned.
    pub provisions: u32,
    /// Where it is, by the label of the level.
    #[serde(borrow)]
    pub domains: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    /// Power, as in the SDK.
    pub power: u64,
    /// Erase level, as in the SDK.
    pub erase_level: u64,
    /// Failures in a row.
    pub failures: u64,
    /// Free hosts that it leaves over in its narrowest domain, or that are missing there.
    pub misfit: u32,
}

/// What is answered.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Rows of the chosen hosts, best first.
    pub picks: Vec<u32>,
    /// One for each host.
    pub verdicts: Vec<Verdict>,
}

/// What was found about one host.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Verdict {
    /// Zero, or why not.
    pub code: u32,
    /// A detail.
    pub arg: u32,
    /// The larger the better.
    pub score: i64,
}

/// The policy.
pub fn place(question: &Question<'_>) -> Answer {
    let verdict = |host: &Host<'_>| {
        let facts = Facts {
            power: host.power,
            erase_level: host.erase_level,
            failures: host.failures,
            provisions: host.provisions,
            last_release: host.last_release,
            misfit: host.misfit,
        };
        Verdict { code: host.gate, arg: 0, score: score(facts, question.now) }
    };
    let verdicts: Vec<Verdict> = question.hosts.iter().map(verdict).collect();
    let mut open: Vec<u32> = (0u32..).zip(&verdicts).filter(|(_, v)| v.code == 0).map(|(row, _)| row).collect();
    let key = |row: &u32| (std::cmp::Reverse(verdicts[*row as usize].score), &question.hosts[*row as usize].name);
    if open.len() < question.count || question.count == 0 {
        open.clear();
    } else {
        open.select_nth_unstable_by(question.count - 1, |a, b| key(a).cmp(&key(b)));
        open.truncate(question.count);
        open.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
    }
    Answer { picks: open, verdicts }
}

/// Text in, text out; an empty answer for what cannot be read.
pub fn answer(question: &[u8]) -> Vec<u8> {
    let answer = serde_json::from_slice::<Question<'_>>(question).map(|question| place(&question)).unwrap_or_default();
    serde_json::to_vec(&answer).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_best_open_host_is_chosen_and_equal_ones_by_name() {
        let host = |name: &'static str, gate: u32, failures: u64| {
            serde_json::json!({ "name": name, "gate": gate, "cpu_milli": 1, "memory_bytes": 1, "gpus": 0, "gpu_model": "",
                "last_tenant": "", "last_release": 0, "provisions": 0, "domains": { "rack": "r1" }, "power": 1,
                "erase_level": 0, "failures": failures, "misfit": 2 })
        };
        let hosts = [host("c", 0, 0), host("b", 0, 0), host("a", 2, 0), host("d", 0, 1)];
        let text = serde_json::json!({ "now": 0, "count": 1, "hosts": hosts }).to_string();
        let answer: Answer = serde_json::from_slice(&answer(text.as_bytes())).unwrap();
        assert_eq!(answer.picks, [1]);
        // Thirty days of rest, two free hosts left over beside it.
        assert_eq!(answer.verdicts.iter().map(|v| v.score).collect::<Vec<_>>(), [-1970, -1970, -1970, -201_970]);
    }
}
