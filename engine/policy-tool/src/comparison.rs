//! The comparison of shipped policies that docs/policies.md shows, made anew from its seed: by `make docs` to write it down,
//! and by a test to see that it is still true.

use crate::error::ToolError;
use crate::simulate::{Levels, simulate, table};
use crate::spec::Spec;
use crate::{plot, synthetic};

/// The policies, the first of which the others are compared with.
const POLICIES: [&str; 3] = ["place-first-fit", "place-balanced", r#"place-gang-topology{"prefer":true}"#];
const SEED: u64 = 1;
const SIZE: synthetic::Size = synthetic::Size { racks: 16, claims: 300, load: 85 };

/// What stands before and after the table on the page.
const MARKS: [&str; 2] = ["<!-- comparison: made by `make docs` -->\n", "<!-- end of comparison -->\n"];

/// Table and picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// For the page, in Markdown.
    pub table: String,
    /// For the page, beside it.
    pub svg: String,
}

/// Replays the trace for each policy.
///
/// # Errors
/// When a policy fails.
pub fn comparison() -> Result<Comparison, ToolError> {
    let (fleet, trace) = (synthetic::fleet(SEED, SIZE.racks), synthetic::trace(SEED, SIZE));
    let outcomes = simulate(&POLICIES.map(Spec::read), &fleet, &trace, &Levels::default())?;
    let title = format!("{} claims over {} hosts in racks of 18, seed {SEED}", trace.claims.len(), fleet.hosts.len());
    let header = std::iter::once(String::new()).chain(POLICIES.iter().map(|policy| format!("`{policy}`")));
    let mut rows: Vec<Vec<String>> = vec![header.collect(), vec!["---".to_owned(); POLICIES.len() + 1]];
    rows.extend(table(&outcomes));
    let line = |cells: &Vec<String>| format!("| {} |\n", cells.join(" | "));
    let command = format!(
        "```text\nvmetal policy simulate {} --synthetic {SEED} --racks {} --claims {} --load {} --plot comparison.svg\n```\n",
        POLICIES.map(|policy| if policy.contains('{') { format!("'{policy}'") } else { policy.to_owned() }).join(" "),
        SIZE.racks,
        SIZE.claims,
        SIZE.load,
    );
    let table = format!("{command}\n{}\n", rows.iter().map(line).collect::<String>());
    Ok(Comparison { table, svg: plot::svg(&outcomes, &title) })
}

/// The page with another table between the marks; none when the marks are not there.
pub fn placed_in(page: &str, table: &str) -> Option<String> {
    let [begin, end] = MARKS;
    let (before, rest) = page.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}{table}{end}{after}"))
}
