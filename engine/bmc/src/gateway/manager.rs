//! Restarting the BMC itself: the `Manager` resource (DSP0268) and its action `#Manager.Reset`.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Gateway, uncancelled};
use crate::error::BmcError;
use crate::redfish::path::ResourcePath;
use crate::redfish::system::{Reset, texts};
use crate::transport::Request;

/// What a BMC is asked for, best first. `ForceRestart` does without the BMC's own idea of an orderly end.
const RESET_TYPES: &[&str] = &["GracefulRestart", "ForceRestart"];

/// The reset action of a manager, if it has one.
fn reset_of(manager: &Value) -> Option<Reset> {
    let reset = &manager["Actions"]["#Manager.Reset"];
    let target = reset["target"].as_str().and_then(ResourcePath::parse)?;
    Some(Reset { target, types: texts(&reset["ResetType@Redfish.AllowableValues"]) })
}

impl Gateway {
    /// Restarts the BMC and returns once it has taken the order. The server goes on as it is; the BMC is away for minutes
    /// and forgets its sessions.
    ///
    /// # Errors
    /// [`BmcError::Protocol`] when the system names no manager, or the manager cannot be restarted; else any [`BmcError`].
    pub async fn reset_bmc(&self) -> Result<(), BmcError> {
        let this = self.clone();
        uncancelled(async move { this.reset_manager().await }).await
    }

    async fn reset_manager(&self) -> Result<(), BmcError> {
        let _alone = self.known.transport.link.writes.lock().await;
        let system = self.system().await?;
        self.same_machine(&system)?;
        let missing = |request: String, expected: &str, seen: String| BmcError::Protocol {
            origin: self.known.transport.origin.clone(),
            request,
            expected: expected.into(),
            seen,
        };
        let Some(path) = &system.manager else {
            let request = format!("restart of the BMC of {}", system.path);
            return Err(missing(request, "a manager in Links.ManagedBy", "none".into()));
        };
        let (manager, _) = self.read(Request::get(path)).await?;
        let Some(reset) = reset_of(&manager) else {
            return Err(missing(format!("restart of {path}"), "the action #Manager.Reset", "no such action".into()));
        };
        let Some(kind) = reset.choose(RESET_TYPES) else {
            let seen = format!("an offer of {} only", reset.types.join(", "));
            return Err(missing(format!("restart of {path}"), "the reset type GracefulRestart or ForceRestart", seen));
        };
        let body = json!({ "ResetType": kind });
        let post = Request { method: Method::POST, body: Some(&body), ..Request::get(&reset.target) };
        let answer = self.send(post).await?;
        match answer.status.is_success() {
            true => Ok(()),
            false => {
                Err(self.known.transport.unexpected(&format!("POST {kind} to {}", reset.target), "HTTP 2xx", &answer))
            }
        }
    }
}
