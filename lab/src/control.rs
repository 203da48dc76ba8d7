//! The control socket: how `status`, `power`, `fault` and `down` reach a running lab.
//!
//! One JSON object per line in each direction, one exchange per connection. The socket is for this machine's user only (mode 0600).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::LabError;
use crate::fault::FaultSpec;
use crate::lab::Bmcs;
use crate::machine::ResetType;

/// A command to a running lab.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// State of every host.
    Status,
    /// Does to a host what its BMC would do.
    Power {
        /// The host.
        host: String,
        /// The reset.
        reset: ResetType,
    },
    /// Arms a fault; answers its id.
    FaultAdd {
        /// The fault.
        fault: Box<FaultSpec>,
    },
    /// Lists faults with what is left of them.
    FaultList,
    /// Removes one fault or all; answers how many.
    FaultClear {
        /// The fault; all without it.
        id: Option<u64>,
    },
    /// Ends the lab.
    Stop,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Ok(Value),
    Error(String),
}

/// Serves the socket at `path` on `tasks`.
pub(crate) fn serve(path: &Path, bmcs: Arc<Bmcs>, stop: Arc<Notify>, tasks: &mut JoinSet<()>) -> Result<(), LabError> {
    // A socket left behind by a killed lab; a living lab was ruled out by the caller.
    if path.exists() {
        std::fs::remove_file(path).map_err(LabError::file("remove", path))?;
    }
    let listener = UnixListener::bind(path)
        .map_err(LabError::file("open the control socket (at most 107 characters of path)", path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(LabError::file("restrict", path))?;
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let (bmcs, stop) = (bmcs.clone(), stop.clone());
                        connections.spawn(async move {
                            if let Err(error) = exchange(stream, &bmcs, &stop).await {
                                tracing::debug!(%error, "control connection ended");
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a control connection");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    });
    Ok(())
}

async fn exchange(stream: UnixStream, bmcs: &Bmcs, stop: &Notify) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let command = serde_json::from_str(&line);
    let stopping = matches!(command, Ok(Command::Stop));
    let answer = match command {
        Ok(command) => run(command, bmcs).await.map_or_else(Answer::Error, Answer::Ok),
        Err(error) => Answer::Error(format!("not a command: {error}")),
    };
    let text = serde_json::to_string(&answer).map_err(std::io::Error::other)?;
    stream.get_mut().write_all(format!("{text}\n").as_bytes()).await?;
    if stopping {
        stop.notify_one();
    }
    Ok(())
}

async fn run(command: Command, bmcs: &Bmcs) -> Result<Value, String> {
    match command {
        Command::Status => Ok(Value::Array(bmcs.running.iter().map(|r| status(&r.bmc.machine)).collect())),
        Command::Power { host, reset } => {
            let machine = bmcs.machine(&host).ok_or_else(|| format!("no host is named {host}"))?;
            machine.reset(reset).await.map_err(|e| e.to_string())?;
            Ok(status(machine))
        }
        Command::FaultAdd { fault } => bmcs.faults.add(*fault).map(Value::from),
        Command::FaultList => serde_json::to_value(bmcs.faults.list()).map_err(|e| e.to_string()),
        Command::FaultClear { id } => match (id, bmcs.faults.clear(id)) {
            (Some(id), 0) => Err(format!("there is no fault {id}")),
            (_, cleared) => Ok(Value::from(cleared)),
        },
        Command::Stop => Ok(Value::Null),
    }
}

fn status(machine: &crate::machine::Machine) -> Value {
    let view = machine.view();
    json!({
        "host": machine.config().name,
        "backend": machine.config().backend,
        "power": view.power,
        "boot_override": view.boot_override,
        "boots": view.boots,
        "qemu_pid": view.qemu_pid,
    })
}

/// Sends a command to the lab whose control socket is at `path`.
///
/// # Errors
/// When the socket does not answer, or the lab refuses.
pub async fn send(path: &Path, command: &Command) -> Result<Value, LabError> {
    let fail = || LabError::file("talk to the control socket", path);
    let line = serde_json::to_string(command).map_err(|e| LabError::Refused(e.to_string()))?;
    let stream = UnixStream::connect(path).await.map_err(fail())?;
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(format!("{line}\n").as_bytes()).await.map_err(fail())?;
    let mut answer = String::new();
    stream.read_line(&mut answer).await.map_err(fail())?;
    match serde_json::from_str(&answer) {
        Ok(Answer::Ok(value)) => Ok(value),
        Ok(Answer::Error(why)) => Err(LabError::Refused(why)),
        Err(error) => Err(LabError::Refused(format!("it answered {answer:?}: {error}"))),
    }
}
