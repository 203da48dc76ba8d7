//! What `vmetal policy` prints, made of data.

use vmetal_policy_tool::bench::Timing;
use vmetal_policy_tool::explain::Explanation;
use vmetal_policy_tool::fuzz::Fuzzed;
use vmetal_policy_tool::inspect::Inspection;
use vmetal_policy_tool::simulate::{self, Outcome};
use vmetal_policy_tool::trial::Trial;

use crate::text::{Fields, NONE, Table, bytes};

pub(super) fn inspection(seen: &Inspection) -> String {
    let mut fields = Fields::default();
    fields.add("kind", seen.kind).add("boundary", seen.boundary.clone());
    match &seen.component {
        Some(component) => {
            fields.add("sha256", component.sha256.clone()).add("size", bytes(component.size as u64));
            fields.add("imports", component.imports.join("\n")).add("exports", component.exports.join("\n"));
            let (base, per_row) = (component.fuel_base, component.fuel_per_row);
            fields.add("fuel", format!("{base} and {per_row} for each candidate"));
        }
        None => {
            fields.add("runs", "as compiled into this program");
        }
    }
    let reasons: Vec<String> = seen.reasons.iter().map(|reason| format!("{}  {}", reason.code, reason.text)).collect();
    fields.add("reasons", reasons.join("\n")).add("cases", seen.cases.join("\n"));
    let mut text = format!("{} {}\n{}", seen.name, seen.version, fields.render());
    let settings = seen.listed_settings();
    if settings.is_empty() {
        return text + "no settings\n";
    }
    let mut table = Table::new(&["SETTING", "VALUES", "DEFAULT", "MEANING"]);
    for setting in settings {
        let default = if setting.default.is_empty() { NONE.to_owned() } else { setting.default };
        table.row(vec![setting.name, setting.values, default, setting.description]);
    }
    text += "\n";
    text + &table.render()
}

pub(super) fn trial(done: &Trial) -> String {
    let mut text = format!("{}\n", done.policy);
    for run in &done.runs {
        let verdict = if run.problems.is_empty() { "ok    " } else { "FAILED" };
        let fuel = run.fuel.map_or_else(String::new, |fuel| format!(", fuel {fuel}"));
        text += &format!("  {verdict}  {} ({}{fuel})\n", run.case, run.on);
        text.extend(run.problems.iter().map(|problem| format!("          {problem}\n")));
    }
    text
}

pub(super) fn explanation(told: &Explanation, limit: usize) -> String {
    let mut fields = Fields::default();
    fields.add("policy", told.policy.clone()).maybe("node type", told.node_type.clone());
    fields.add("chosen", told.chosen.join(" ")).maybe("fuel", told.fuel.map(|fuel| fuel.to_string()));
    let mut text = format!("{}\n{}\n", told.summary, fields.render());
    let priced = told.kind == "cost";
    let mut table = Table::new(&["CANDIDATE", if priced { "COST" } else { "SCORE" }, "VERDICT", "MADE OF"]);
    for row in told.candidates.iter().take(limit) {
        let score = row.cost.clone().unwrap_or_else(|| row.score.to_string());
        let code = if row.code == 0 { String::new() } else { format!(" (code {})", row.code) };
        let part = |(label, amount): &(String, i64)| match priced {
            true => format!("{label} {}", units(*amount)),
            false => format!("{label} {amount:+}"),
        };
        let parts: Vec<String> = row.terms.iter().filter(|(_, amount)| *amount != 0).map(part).collect();
        table.row(vec![row.name.clone(), score, format!("{}{code}", row.reason), parts.join(", ")]);
    }
    text += &table.render();
    if told.candidates.len() > limit {
        text += &format!("and {} more\n", told.candidates.len() - limit);
    }
    if !told.nearest.is_empty() {
        text += "\nnearest to fitting:\n";
        text.extend(told.nearest.iter().map(|near| format!("  {}: {}\n", near.name, near.changes.join("; "))));
    }
    text
}

/// Millionths of a cost unit, for people.
fn units(micro: i64) -> String {
    let (sign, micro) = (if micro < 0 { "-" } else { "" }, micro.unsigned_abs());
    let fraction = format!("{:06}", micro % 1_000_000);
    match fraction.trim_end_matches('0') {
        "" => format!("{sign}{}", micro / 1_000_000),
        digits => format!("{sign}{}.{digits}", micro / 1_000_000),
    }
}

pub(super) fn outcomes(outcomes: &[Outcome]) -> String {
    let header: Vec<&str> = std::iter::once("").chain(outcomes.iter().map(|one| one.policy.as_str())).collect();
    let mut table = Table::new(&header);
    simulate::table(outcomes).into_iter().for_each(|row| table.row(row));
    let note = if outcomes.len() > 1 { "in parentheses: the ratio to the first\n" } else { "" };
    table.render() + note
}

pub(super) fn fuzzed(done: &Fuzzed, seed: u64) -> String {
    let Fuzzed { policy, tried, chosen, fuel_per_row, failure } = done;
    let verdict = if failure.is_some() { "the last one fails" } else { "all hold" };
    let fuel = if *fuel_per_row > 0 { format!(", at most {fuel_per_row} fuel a candidate") } else { String::new() };
    format!("{policy}\n  seed {seed}: {tried} fleets and claims, a choice in {chosen}{fuel}; {verdict}\n")
}

pub(super) fn timing(timing: &Timing) -> String {
    let mut text = format!("{}\n  loaded in {} us", timing.policy, timing.load_us);
    if let Some(micros) = timing.instantiate_us {
        text += &format!("; a fresh instance with an empty call takes {micros} us");
    }
    text += "\n\n";
    let mut table =
        Table::new(&["HOSTS", "MEDIAN US", "P99 US", "DECISIONS/S", "FUEL/HOST", "NATIVE TWIN US", "RATIO"]);
    for one in &timing.decisions {
        let or_none = |number: Option<u64>| number.map_or_else(|| NONE.to_owned(), |number| number.to_string());
        let ratio = one.twin_us.map_or_else(|| NONE.to_owned(), |twin| simulate::ratio(one.median_us, twin));
        table.row(vec![
            one.hosts.to_string(),
            one.median_us.to_string(),
            one.p99_us.to_string(),
            one.per_second.to_string(),
            or_none(one.fuel_per_host),
            or_none(one.twin_us),
            ratio,
        ]);
    }
    text + &table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_read_as_people_write_them() {
        assert_eq!((units(28_500_000).as_str(), units(-1).as_str(), units(0).as_str()), ("28.5", "-0.000001", "0"));
    }
}
