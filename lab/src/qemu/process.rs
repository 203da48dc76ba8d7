//! One QEMU process and its QMP channel (QEMU Machine Protocol, JSON lines).

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{QemuHost, args};
use crate::LabError;
use crate::config::BootDevice;
use crate::machine::{GuestAction, GuestEvent};

/// How long QEMU may take to greet and to answer. Generous: test machines are loaded.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running QEMU.
#[derive(Debug)]
pub(crate) struct Process {
    host: String,
    child: Child,
    qmp: ChildStdin,
}

impl Process {
    pub(super) async fn start(
        host: &QemuHost,
        boot: u64,
        order: &[BootDevice],
        events: mpsc::UnboundedSender<GuestEvent>,
    ) -> Result<Self, LabError> {
        let fail = |detail: String| LabError::Qemu { host: host.config.name.clone(), detail };
        let stderr_path = host.stderr_path();
        let stderr = std::fs::File::create(&stderr_path).map_err(LabError::file("create", &stderr_path))?;
        let mut command = std::process::Command::new(&host.qemu.binary);
        command.args(args::build(host, order)).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let binary = host.qemu.binary.display().to_string();
        let mut child = host
            .namespace
            .spawn(command)
            .await
            .map_err(|e| fail(format!("cannot run {binary}: {e}; `vmetal-lab doctor` says how to install it")))?;
        let (Some(qmp), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(fail("no QMP channel to the new process".to_owned()));
        };
        let mut process = Self { host: host.config.name.clone(), child, qmp };
        let mut lines = BufReader::new(stdout).lines();
        if let Err(detail) = process.greet(&mut lines).await {
            process.kill().await;
            let said = std::fs::read_to_string(&stderr_path).unwrap_or_default();
            return Err(fail(format!("QEMU did not start: {detail}; it said: {}", said.trim())));
        }
        tokio::spawn(follow(lines, boot, host.config.name.clone(), events));
        Ok(process)
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    async fn greet(&mut self, lines: &mut Lines<BufReader<ChildStdout>>) -> Result<(), String> {
        let greeting = next(lines).await?;
        if greeting.get("QMP").is_none() {
            return Err(format!("expected a QMP greeting, got {greeting}"));
        }
        for command in ["qmp_capabilities", "cont"] {
            self.send(command).await.map_err(|e| format!("cannot send {command}: {e}"))?;
            loop {
                let answer = next(lines).await?;
                if answer.get("return").is_some() {
                    break;
                }
                if let Some(error) = answer.get("error") {
                    return Err(format!("{command} was refused: {error}"));
                }
            }
        }
        Ok(())
    }

    async fn send(&mut self, command: &str) -> std::io::Result<()> {
        let line = format!("{}\n", json!({"execute": command}));
        self.qmp.write_all(line.as_bytes()).await
    }

    /// Presses the ACPI power button. Whether anything happens is up to the guest.
    pub(crate) async fn press_power_button(&mut self) -> Result<(), LabError> {
        self.send("system_powerdown").await.map_err(|error| LabError::Qemu {
            host: self.host.clone(),
            detail: format!("cannot press the power button: {error}"),
        })
    }

    /// Ends the process and waits until it is gone, so that its disks and tap are free.
    pub(crate) async fn kill(mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::warn!(host = self.host, %error, "cannot end QEMU");
        }
    }
}

async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<Value, String> {
    match timeout(PATIENCE, lines.next_line()).await {
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        Ok(Err(error)) => Err(format!("cannot read QMP: {error}")),
        Ok(Ok(None)) => Err("the process ended".to_owned()),
        Ok(Ok(Some(line))) => serde_json::from_str(&line).map_err(|e| format!("not JSON ({e}): {line}")),
    }
}

/// What an event says about the guest, if anything.
fn guest_action(message: &Value) -> Option<GuestAction> {
    if message.get("event").and_then(Value::as_str) != Some("SHUTDOWN") {
        return None;
    }
    match message.pointer("/data/reason").and_then(Value::as_str) {
        Some("guest-reset") => Some(GuestAction::Reset),
        Some("guest-shutdown" | "guest-panic") => Some(GuestAction::Shutdown),
        _ => None,
    }
}

async fn follow(
    mut lines: Lines<BufReader<ChildStdout>>,
    boot: u64,
    host: String,
    events: mpsc::UnboundedSender<GuestEvent>,
) {
    // A send fails only when the machine is gone; then nobody wants to know.
    while let Ok(Some(line)) = lines.next_line().await {
        let message: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
        tracing::debug!(host, boot, %message, "qmp");
        if let Some(error) = message.get("error") {
            tracing::warn!(host, %error, "QEMU refused a command");
        }
        if let Some(action) = guest_action(&message) {
            let _ = events.send(GuestEvent { boot, action });
        }
    }
    let _ = events.send(GuestEvent { boot, action: GuestAction::Died });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart() {
        let event = |reason: &str| json!({"event": "SHUTDOWN", "data": {"guest": true, "reason": reason}});
        assert_eq!(guest_action(&event("guest-reset")), Some(GuestAction::Reset));
        assert_eq!(guest_action(&event("guest-shutdown")), Some(GuestAction::Shutdown));
        assert_eq!(guest_action(&event("host-signal")), None);
        assert_eq!(guest_action(&json!({"event": "STOP"})), None);
        assert_eq!(guest_action(&json!({"return": {}})), None);
    }
}
