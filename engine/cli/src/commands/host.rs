//! Orders about one host.

use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use vmetal_api::{Client, Secret};
use vmetal_model::{HostAction, PowerWish};

use crate::args::{Because, HostCommand, Power};
use crate::error::CliError;
use crate::text::clean;

/// Gives the order, and says how the host is then.
pub(super) async fn order(
    client: &Client,
    command: HostCommand,
    now: Timestamp,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let (name, action) = match order_of(command, now)? {
        Order::Action(name, action) => (name, action),
        Order::Password { name, reason, file } => {
            client.rotate_bmc_password(&name, &password(&file)?, &reason).await?;
            writeln!(out, "host {0}  a new BMC password ordered; see: vmetal events host {0}", clean(&name))?;
            return Ok(out.flush()?);
        }
    };
    let host = client.act_on_host(&name, None, &action).await?;
    let phase = host.status["phase"].as_str().unwrap_or("unknown");
    writeln!(out, "host {}  {} ordered; it is {}", clean(&name), action.verb(), clean(phase))?;
    Ok(out.flush()?)
}

/// What a command asks the engine for.
enum Order {
    Action(String, HostAction),
    Password { name: String, reason: String, file: PathBuf },
}

/// The password in a file, or on standard input; the newline at its end does not belong to it.
fn password(path: &Path) -> Result<Secret, CliError> {
    let file = |source| CliError::File { path: path.to_owned(), source };
    let mut text = String::new();
    match path.to_str() {
        Some("-") => drop(std::io::stdin().read_to_string(&mut text).map_err(file)?),
        _ => text = std::fs::read_to_string(path).map_err(file)?,
    }
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}

fn order_of(command: HostCommand, now: Timestamp) -> Result<Order, CliError> {
    let because = |because: Because, action: fn(String) -> HostAction| (because.name, action(because.reason));
    let (name, action) = match command {
        HostCommand::RotatePassword { because: Because { name, reason }, password_file: file } => {
            return Ok(Order::Password { name, reason, file });
        }
        HostCommand::Pause(why) => because(why, |reason| HostAction::Pause { reason }),
        HostCommand::Resume { name } => (name, HostAction::Resume),
        HostCommand::Maintenance { because: Because { name, reason }, until } => {
            let until = until.map(|text| time(&text, now)).transpose()?;
            (name, HostAction::Maintenance { reason, until })
        }
        HostCommand::Quarantine(why) => because(why, |reason| HostAction::Quarantine { reason }),
        HostCommand::Unquarantine(why) => because(why, |reason| HostAction::Unquarantine { reason }),
        HostCommand::Inspect(why) => because(why, |reason| HostAction::Inspect { reason }),
        HostCommand::Retry { name } => (name, HostAction::Retry),
        // clap insists on --force.
        HostCommand::Release { because: why, force: _ } => because(why, |reason| HostAction::ForceRelease { reason }),
        HostCommand::Power { because: Because { name, reason }, power } => {
            let power = match power {
                Power::On => PowerWish::On,
                Power::Off => PowerWish::Off,
                Power::Cycle => PowerWish::Cycle,
            };
            (name, HostAction::Power { power, reason })
        }
        HostCommand::Detach(why) => because(why, |reason| HostAction::Detach { reason }),
        HostCommand::Retire(why) => because(why, |reason| HostAction::Retire { reason }),
    };
    Ok(Order::Action(name, action))
}

/// A point in time, or a span from now.
fn time(text: &str, now: Timestamp) -> Result<Timestamp, CliError> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    // A day is 24 hours here: the time zone of whoever types it is not known to the engine.
    let days = text.strip_suffix('d').and_then(|days| days.parse::<i64>().ok()).map(|days| days.saturating_mul(24));
    let span = match days {
        Some(hours) => hours.checked_mul(3600).map(SignedDuration::from_secs),
        None => text.parse::<SignedDuration>().ok(),
    };
    span.filter(|span| span.is_positive()).and_then(|span| now.checked_add(span).ok()).ok_or_else(|| CliError::Usage {
        message: format!("{text:?} is neither a time nor a span"),
        advice: "give --until as 2026-11-22T06:00:00Z, or as 90m, 4h or 2d from now".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_end_is_a_time_or_a_span_from_now() {
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(time("1970-01-01T01:00:00Z", now).unwrap(), time("1h", now).unwrap());
        assert_eq!(time("2d", now).unwrap().as_second(), 2 * 86_400);
        for bad in ["", "soon", "-1h", "0s", "99999999999999d"] {
            assert!(time(bad, now).is_err(), "{bad:?}");
        }
    }
}
