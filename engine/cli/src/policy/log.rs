//! The engine's log of decisions: listed, taken again, and tried with another policy.

use std::io::Write;

use jiff::Timestamp;
use vmetal_api::Client;
use vmetal_policy_tool::diff::{Diff, diff, entries};

use super::print_json;
use crate::args::LogCommand;
use crate::error::CliError;
use crate::render::explain;
use crate::text::{NONE, Table};

/// Runs one command.
pub(crate) async fn run(
    command: LogCommand,
    client: &Client,
    now: Timestamp,
    out: &mut impl Write,
) -> Result<(), CliError> {
    match command {
        LogCommand::Log { last, json } => {
            let found = entries(&client.decision_log().await?, last)?;
            if json {
                print_json(&found, out)?;
            } else {
                let mut table = Table::new(&["DECISION", "AT", "TENANT NODE", "TYPE", "HOST", "REASON"]);
                for one in found {
                    let or_none = |name: Option<String>| name.unwrap_or_else(|| NONE.to_owned());
                    let chosen = (or_none(one.node_type), or_none(one.host));
                    table.row(vec![one.decision, one.at, one.node, chosen.0, chosen.1, one.reason]);
                }
                out.write_all(table.render().as_bytes())?;
            }
        }
        LogCommand::Replay { decision, json } => {
            let found = client.replay_decision(&decision).await?;
            if json {
                print_json(&found, out)?
            } else {
                out.write_all(explain::replay(&found, now).as_bytes())?
            }
            if !found.is_same() {
                out.flush()?;
                return Err(CliError::PolicyFails { what: "the decision comes out differently".to_owned() });
            }
        }
        LogCommand::Diff { policy, last, json } => {
            let rounds = client.decision_log().await?;
            let found = diff(&policy, &rounds, last)?;
            if json { print_json(&found, out)? } else { out.write_all(differences(&found).as_bytes())? }
        }
    }
    Ok(out.flush()?)
}

fn differences(found: &Diff) -> String {
    let mut text = format!(
        "{} would choose the same {} in {} of {} logged decisions\n",
        found.policy, found.chooses, found.same, found.decisions
    );
    if found.differences.is_empty() {
        return text;
    }
    let mut table = Table::new(&["DECISION", "TENANT NODE", "WAS", "WOULD BE", "REASON"]);
    for one in &found.differences {
        let or_none = |name: &Option<String>| name.clone().unwrap_or_else(|| NONE.to_owned());
        let names = (or_none(&one.before), or_none(&one.after));
        table.row(vec![one.decision.clone(), one.node.clone(), names.0, names.1, one.reason.clone()]);
    }
    text.push('\n');
    text + &table.render()
}
