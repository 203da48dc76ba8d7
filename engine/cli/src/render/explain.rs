//! Decisions, explained and taken again.

use jiff::Timestamp;
use vmetal_model::{Basis, Explained, Explanation, Replay};

use crate::text::{Fields, Table, age, clean};

/// A decision with every candidate, what prices and scores are the sum of, and what it would take to have others.
pub(crate) fn explanation(found: &Explanation, now: Timestamp) -> String {
    let decision = &found.decision;
    let mut fields = Fields::default();
    fields.add("tenant node", found.node.clone());
    fields.add("node type", decision.node_type.clone().unwrap_or_else(|| "none".to_owned()));
    fields.add("host", decision.host.clone().unwrap_or_else(|| "none".to_owned()));
    fields.add("reason", decision.reason.clone());
    fields.add("policies", decision.policies.join("\n"));
    let basis = match found.basis {
        Basis::Log => format!("the fleet as it was {} ago, by the log", age(decision.at, now)),
        Basis::Present => "the fleet as it is now; the decision itself is not in the log".to_owned(),
    };
    fields.add("explained by", basis);
    fields.maybe("decision", decision.log.clone());
    let mut text = fields.render();
    let types = candidates(&found.node_types, "COST", price);
    let hosts = candidates(&found.hosts, "SCORE", |score| score.to_string());
    for (title, table) in [("Node types", types), ("Hosts", hosts)] {
        if !table.is_empty() {
            text += &format!("\n{title}\n{table}");
        }
    }
    if !found.nearest.is_empty() {
        text += "\nWhat it would take to have others\n";
        for change in &found.nearest {
            let of = change.node_type.as_ref().map_or_else(String::new, |of| format!(" as {}", clean(of)));
            text += &format!("  {}{of}: {}\n", clean(&change.candidate), clean(&change.steps.join("; ")));
        }
    }
    text
}

fn candidates(rows: &[Explained], value: &str, shown: impl Fn(i64) -> String) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["NAME", value, "FITS", "REASON", "MADE OF"]);
    for row in rows {
        let term = |term: &vmetal_model::Term| format!("{} {}", shown(term.amount), term.label);
        let terms: Vec<String> = row.terms.iter().filter(|term| term.amount != 0).map(term).collect();
        table.row(vec![
            row.name.clone(),
            shown(row.value),
            if row.feasible { "yes" } else { "no" }.to_owned(),
            row.reason.clone(),
            terms.join(", "),
        ]);
    }
    table.render_indented()
}

/// Millionths of a cost unit, as people write them.
fn price(micro: i64) -> String {
    let (sign, micro) = (if micro < 0 { "-" } else { "" }, micro.unsigned_abs());
    let fraction = format!("{:06}", micro % 1_000_000);
    match fraction.trim_end_matches('0') {
        "" => format!("{sign}{}", micro / 1_000_000),
        digits => format!("{sign}{}.{digits}", micro / 1_000_000),
    }
}

/// What came of taking a decision again.
pub(crate) fn replay(replay: &Replay, now: Timestamp) -> String {
    let mut fields = Fields::default();
    fields.add("decision", replay.decision.clone());
    fields.add("tenant node", replay.node.clone());
    fields.add("taken", format!("{} ago", age(replay.at, now)));
    fields.add("policies", replay.policies.join("\n"));
    fields.add("inputs", replay.inputs.join("\n"));
    fields.add("host", replay.host.clone().unwrap_or_else(|| "none".to_owned()));
    fields.add("reason", replay.reason.clone());
    fields.add("answer", replay.logged.clone());
    let verdict = if replay.is_same() {
        "the same, byte for byte".to_owned()
    } else {
        let host = replay.replayed_host.as_deref().unwrap_or("none");
        format!("DIFFERENT: host {host}, answer {}", replay.replayed)
    };
    fields.add("taken again", verdict);
    fields.render()
}

/// The name in `tenant-node/NAME`.
pub(crate) fn subject(text: &str) -> Result<String, String> {
    let (kind, name) = text.split_once('/').unwrap_or(("tenant-node", text));
    match kind.parse::<vmetal_model::Kind>() {
        Ok(vmetal_model::Kind::TenantNode) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err("expected tenant-node/NAME: decisions are taken on tenant nodes".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use vmetal_model::{Decision, Remedy, Term};

    fn explained(name: &str, feasible: bool, value: i64, terms: &[(&str, i64)]) -> Explained {
        let term = |(label, amount): &(&str, i64)| Term { label: (*label).to_owned(), amount: *amount };
        let terms = terms.iter().map(term).collect();
        Explained { name: name.into(), feasible, reason: "fits".into(), value, terms }
    }

    #[test]
    fn an_explanation_reads_as_a_sum_and_ends_with_what_it_would_take() {
        let decision = Decision {
            node_type: Some("gpu".into()),
            host: Some("h1".into()),
            cost: Some(29),
            reason: "gpu costs 28.5".into(),
            node_types: vec![],
            hosts: vec![],
            policies: vec!["place-balanced@0.1.0 native".into()],
            input_digest: "d".into(),
            at: Timestamp::UNIX_EPOCH,
            log: Some("c.0-1".into()),
        };
        let nearest = Remedy { candidate: "h2".into(), node_type: Some("gpu".into()), steps: vec!["wait".into()] };
        let found = Explanation {
            node: "web-1".into(),
            decision,
            basis: Basis::Log,
            node_types: vec![explained("gpu", true, 28_500_000, &[("cpu", 20_000_000), ("memory", 8_500_000)])],
            hosts: vec![explained("h1", true, 20, &[("on already", 0), ("days since release", 30), ("wear", -10)])],
            nearest: vec![nearest],
        };
        let text = explanation(&found, Timestamp::from_second(60).unwrap());
        for wanted in
            ["28.5", "20 cpu, 8.5 memory", "30 days since release, -10 wear", "c.0-1", "1m0s ago", "h2 as gpu: wait"]
        {
            assert!(text.contains(wanted), "{wanted} in:\n{text}");
        }
        assert!(!text.contains("on already"), "terms of nothing are left out:\n{text}");
    }

    #[test]
    fn only_tenant_nodes_are_decided_on() {
        assert_eq!(subject("tenant_node/web-1"), Ok("web-1".to_owned()));
        assert_eq!(subject("tenant-node/web-1"), Ok("web-1".to_owned()));
        assert_eq!(subject("web-1"), Ok("web-1".to_owned()));
        assert!(subject("host/h1").is_err() && subject("tenant-node/").is_err());
    }
}
