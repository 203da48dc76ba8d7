//! The installer's side of the engine: who calls, what it may hear, what it is to do. Paths and bodies are those of
//! [`vmetal_model::agent`].

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use vmetal_api::netboot::{AgentReply, AgentRequest};
use vmetal_lifecycle::host::Change;
use vmetal_lifecycle::host::agent::{self, Claimed, Hearing, OrderKind, Refusal};
use vmetal_lifecycle::node::{self, View};
use vmetal_model::agent::{Action, EraseOrder, Hello, InstallOrder, Order, Report, ReportBody, Seed};
use vmetal_model::{Failure, Host};
use vmetal_store::CommitError;

use crate::engine::Engine;
use crate::ledger::Batch;
use crate::ownership::Author;

/// The longest that a question for an order is held.
const LONGEST_WAIT: u64 = 30;
/// How old the record of an installer's last word may get before a mere sign of life is worth a commit.
const HEARTBEAT_RECORD: SignedDuration = SignedDuration::from_secs(20);

/// A refusal with its HTTP status.
struct Refused(u16, String);

impl From<CommitError> for Refused {
    fn from(error: CommitError) -> Self {
        Refused(503, format!("the engine's store does not take the report now: {error}"))
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::StaleAttempt(_) | Refusal::UnknownOrder(_) => 403,
            Refusal::WrongMachine(_) => 409,
        };
        Refused(status, refusal.to_string())
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Refused(503, failure.to_string())
    }
}

fn body<T: DeserializeOwned>(request: &AgentRequest) -> Result<T, Refused> {
    serde_json::from_slice(&request.body)
        .map_err(|error| Refused(400, format!("the body is not what is expected: {error}")))
}

fn json(value: &impl Serialize) -> Result<AgentReply, Refused> {
    let body = serde_json::to_vec(value).map_err(|error| Refused(500, error.to_string()))?;
    Ok(AgentReply { status: 200, body })
}

fn parameter<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
}

impl Engine {
    /// Answers one request of an installer or an installed system.
    pub(crate) async fn answer_agent(&self, request: AgentRequest) -> AgentReply {
        match self.agent_request(&request).await {
            Ok(reply) => reply,
            Err(Refused(status, message)) => {
                tracing::info!(peer = %request.peer, path = request.path.split('?').next(), status, "{message}");
                let body = serde_json::json!({ "error": message }).to_string().into_bytes();
                AgentReply { status, body }
            }
        }
    }

    async fn agent_request(&self, request: &AgentRequest) -> Result<AgentReply, Refused> {
        let host = self.caller(&request.bearer_token)?;
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        match (request.method.as_str(), path) {
            ("POST", "/agent/v1/hello") => self.hello(&host, &body(request)?).await,
            ("GET", "/agent/v1/order") => {
                let after = parameter(query, "after").unwrap_or_default().to_owned();
                let wait = parameter(query, "wait").and_then(|text| text.parse().ok()).unwrap_or(0);
                self.order(&host, &after, wait).await
            }
            ("POST", "/agent/v1/report") => self.report(&host, &body(request)?).await,
            ("GET", "/agent/v1/claim") => {
                let wait = parameter(query, "wait").and_then(|text| text.parse().ok()).unwrap_or(0);
                self.claim_for(&host, wait).await
            }
            ("POST", "/agent/v1/phone-home") => {
                let instance = parameter(query, "instance");
                let decide = |host: &Host| agent::phone_home(host, &self.limits, instance, self.now());
                self.change_host(Author::Outside, host.name(), decide, |_, _| {}).await?;
                Ok(AgentReply { status: 204, body: Vec::new() })
            }
            ("POST", "/agent/v1/join-failed") => self.join_failed(&host, &String::from_utf8_lossy(&request.body)).await,
            _ => Err(Refused(404, format!("there is no {} {path}", request.method))),
        }
    }

    /// The host whose open boot attempt has this token.
    fn caller(&self, token: &str) -> Result<Arc<Host>, Refused> {
        if token.is_empty() {
            return Err(Refused(401, "a boot token is required".to_owned()));
        }
        let digest = hex::encode(Sha256::digest(token.as_bytes()));
        self.fleet.caller(&digest).ok_or_else(|| Refused(401, "the boot token is not, or no longer, known".to_owned()))
    }

    async fn hello(&self, host: &Host, hello: &Hello) -> Result<AgentReply, Refused> {
        let refusal = std::sync::Mutex::new(None);
        let set = |value| *refusal.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = value;
        let decide = |host: &Host| match agent::hello(host, &self.limits, hello, self.now()) {
            Hearing::Welcome(change) => {
                set(None);
                Some(*change)
            }
            Hearing::Refused { why, change } => {
                set(Some(why));
                change.map(|change| *change)
            }
        };
        self.change_host(Author::Outside, host.name(), decide, |_, _| {}).await?;
        if let Some(refusal) = refusal.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            return Err(refusal.into());
        }
        self.order(host, "", 0).await
    }

    /// The present order; held until there is another than `after`, for at most `wait` seconds.
    async fn order(&self, host: &Host, after: &str, wait: u64) -> Result<AgentReply, Refused> {
        match self.held(host, wait, |now| Some(agent::order(now)).filter(|(id, _)| id != after)).await? {
            Some((current, (id, kind))) => json(&Order { id, action: self.action(&current, kind).await? }),
            None => json(&Order { id: after.to_owned(), action: Action::Wait }),
        }
    }

    /// Looks at the caller's host at each of its changes until there is an answer; `None` after `wait` seconds without one.
    async fn held<T>(
        &self,
        host: &Host,
        wait: u64,
        answer: impl Fn(&Host) -> Option<T>,
    ) -> Result<Option<(Arc<Host>, T)>, Refused> {
        let until = tokio::time::sleep(Duration::from_secs(wait.min(LONGEST_WAIT)));
        tokio::pin!(until);
        let bell = self.fleet.bell(host.name());
        loop {
            // Before the look: what changes meanwhile counts.
            let changed = bell.rung();
            let current = self.same_attempt(host)?;
            if let Some(answer) = answer(&current) {
                return Ok(Some((current, answer)));
            }
            // In this order, not in one drawn by chance: a simulation must be able to repeat itself.
            tokio::select! {
                biased;
                () = &mut until => return Ok(None),
                () = changed => {}
            }
        }
    }

    /// The host as it is now, if its boot attempt is still the caller's.
    fn same_attempt(&self, host: &Host) -> Result<Arc<Host>, Refused> {
        let current = self.fleet.host(host.name()).filter(|now| now.metadata.uid == host.metadata.uid);
        let Some(current) = current else { return Err(Refused(403, "the host was removed".to_owned())) };
        let attempt = |host: &Host| host.status.boot.as_ref().map(|boot| boot.id.clone());
        if attempt(&current) != attempt(host) {
            return Err(Refused(403, "the boot attempt is over".to_owned()));
        }
        Ok(current)
    }

    /// The first-boot data of the claim that has the host, for the system that waits on standby there; the question is held
    /// until there is one, for at most `wait` seconds.
    async fn claim_for(&self, host: &Host, wait: u64) -> Result<AgentReply, Refused> {
        self.change_host(Author::Outside, host.name(), |host| agent::waits(host, &self.limits, self.now()), |_, _| {})
            .await?;
        let claimed = |now: &Host| (agent::claimed(now) == Claimed::Yes).then_some(());
        let Some((current, ())) = self.held(host, wait, claimed).await? else {
            return Ok(AgentReply { status: 204, body: Vec::new() });
        };
        let node = self.fleet.holder(&current);
        let node = node.ok_or_else(|| Refused(503, "the tenant node that claims the host is gone".to_owned()))?;
        json(&self.seed(&node, &current).await?)
    }

    async fn action(&self, host: &Host, kind: OrderKind) -> Result<Action, Refused> {
        let expected_serial = host.status.inventory.as_ref().and_then(|inventory| inventory.identity.serial.clone());
        Ok(match kind {
            OrderKind::Wait => Action::Wait,
            OrderKind::Inspect => Action::Inspect,
            OrderKind::Reboot => Action::Reboot,
            OrderKind::Erase => Action::Erase(EraseOrder { level: agent::erase_level(host), expected_serial }),
            OrderKind::Install => {
                let (image_digest, seed) = self.installed(host).await?;
                let root_device = host.spec.root_device.clone();
                let boot_label = "vmetal".to_owned();
                Action::Install(Box::new(InstallOrder { image_digest, root_device, expected_serial, seed, boot_label }))
            }
        })
    }

    /// What is installed on a host: its claim's image with the claim's first-boot data, or what waits for a claim.
    async fn installed(&self, host: &Host) -> Result<(String, Seed), Refused> {
        if let Some(standby) = host.status.on_standby() {
            return Ok((standby.image.clone(), self.standby_seed(standby, host)?));
        }
        let node = self.fleet.holder(host);
        let node = node.ok_or_else(|| Refused(503, "the tenant node that claims the host is gone".to_owned()))?;
        let image = self.image_for(&node)?;
        Ok((image.status.digest.clone().unwrap_or_default(), self.seed(&node, host).await?))
    }

    async fn report(&self, host: &Host, report: &Report) -> Result<AgentReply, Refused> {
        let refusal = std::sync::Mutex::new(None);
        let decide = |host: &Host| match agent::report(host, &self.limits, report, self.now()) {
            Ok(change) => worth_recording(host, report, change),
            Err(why) => {
                *refusal.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(why);
                None
            }
        };
        self.change_host(Author::Outside, host.name(), decide, |_, _| {}).await?;
        match refusal.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(refusal) => Err(refusal.into()),
            None => Ok(AgentReply { status: 204, body: Vec::new() }),
        }
    }

    async fn join_failed(&self, host: &Host, log: &str) -> Result<AgentReply, Refused> {
        while let Some(node) = self.fleet.holder(host) {
            let Some(decision) =
                node::join_failed(View { node: &node, host: Some(host) }, &self.limits, log, self.now())
            else {
                break;
            };
            let mut batch = Batch::by(Author::Outside);
            batch.notes(&*node, self.now(), decision.notes);
            let mut changed = (*node).clone();
            changed.status = decision.status;
            batch.replace(changed);
            match self.ledger.commit(batch).await {
                Ok(_) => break,
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(AgentReply { status: 204, body: Vec::new() })
    }
}

/// Drops what would only say "still alive" soon after it was last said: ten thousand installers must not write ten thousand
/// records every five seconds.
fn worth_recording(host: &Host, report: &Report, change: Change) -> Option<Change> {
    if !matches!(report.body, ReportBody::Heartbeat) {
        return Some(change);
    }
    let at = |status: &vmetal_model::HostStatus| status.boot.as_ref().and_then(|boot| boot.last_seen);
    match (at(&host.status), at(&change.status)) {
        (Some(before), Some(now)) if now.duration_since(before) < HEARTBEAT_RECORD => None,
        _ => Some(change),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_whole_name() {
        assert_eq!(parameter("after=a/wait&wait=20", "wait"), Some("20"));
        assert_eq!(parameter("await=1", "wait"), None);
        assert_eq!(parameter("", "after"), None);
    }
}
