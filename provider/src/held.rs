//! Removing what is still in use: a host that a tenant node holds, and a node type, an image or a cluster that tenant nodes need.
//!
//! The engine refuses that: the tenant node goes first. Where the configuration does not say so (`depends_on`), Terraform asks
//! for both at once or for the host first, and it has ten turns for everything. A host that waits for its tenant node would
//! keep the turn that the tenant node needs, so none of them ever waits for what Terraform has yet to ask for:
//!
//! * a tenant node that is on its way out is waited for, because the engine goes on with that by itself;
//! * for one that is not, a few hosts wait for a moment, because its turn may come next;
//! * then, where all that the state has is destroyed, the engine is told to remove the host as soon as it is free
//!   ([`HostAction::Retire`]), and Terraform goes on. That takes nothing from anybody: a tenant node that is not part of the
//!   state keeps its server, and the warning names it. The wish stands in the engine; it is not lost with the state;
//! * everywhere else (a part is destroyed, a resource is no longer declared) the refusal stands: that the host should go while
//!   its tenant node stays is more likely a mistake.
//!
//! What is not a host is few, and is asked for again and again from places of its own, while tenant nodes are on their way out.
//!
//! Whether all is destroyed is known when that is planned, and travels with the plan, which may be carried out elsewhere.

use std::{collections::BTreeMap, time::Duration};

use tfplugin::{Ctx, Diagnostic, Diagnostics, Private};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};
use vmetal_api::{ApiError, Client, Resource as _};
use vmetal_model::{Claim, Host, HostAction, Kind as ModelKind, TenantNode, Uid};

use crate::{
    errand::Errand,
    explain::{refused, title},
    host::Hosts,
    kind::{Kind, Verdict},
    provider::Engine,
    wait::{Ended, Wait},
};

/// The private note of a planned destruction that is one of everything.
const ERRAND: &str = "errand";
const ALL: &str = "destroy all";

/// How many hosts may wait at the same time for a tenant node that nobody has asked to go: fewer than Terraform has turns.
const PLACES: usize = 4;
static WAITING: Semaphore = Semaphore::const_new(PLACES);

/// How long one of them waits.
const MOMENT: Duration = Duration::from_secs(3);

/// How many other objects may wait for those that use them.
const OTHERS: usize = 2;
static OTHERS_WAITING: Semaphore = Semaphore::const_new(OTHERS);
/// How often their removal is asked for.
const AGAIN: Duration = Duration::from_millis(500);
/// How long they wait with no tenant node on its way out, where everything is destroyed.
const LULL: Duration = Duration::from_secs(30);

/// Notes with a planned destruction what it belongs to.
pub(crate) fn note(errand: Errand, private: &mut Private) {
    match errand {
        Errand::DestroyAll => private.set(ERRAND, ALL),
        Errand::DestroySome | Errand::Other => private.remove(ERRAND),
    }
}

/// A removal that the engine refused.
pub(crate) struct Removal<'a> {
    pub(crate) ctx: &'a Ctx<Engine>,
    pub(crate) client: &'a Client,
    pub(crate) name: &'a str,
    pub(crate) uid: &'a Uid,
    /// The notes of the plan.
    pub(crate) private: &'a Private,
    pub(crate) within: Duration,
}

/// What became of it.
pub(crate) enum Parting {
    /// The engine removes the object now; that is to be waited for, from a place among those that wait where there is one.
    Going(Option<SemaphorePermit<'static>>),
    /// The engine removes it once it can, and nobody waits for that.
    Later(Diagnostic),
}

impl Removal<'_> {
    /// What is done about a host that cannot go now.
    pub(crate) async fn of_host(self, refusal: ApiError) -> Result<Parting, Diagnostics> {
        let until = Instant::now() + self.within;
        let mut refusal = refusal;
        loop {
            let ApiError::Precondition { .. } = refusal else { return Err(self.told::<Hosts>(refusal)) };
            let Some(host) = self.host().await? else { return Ok(Parting::Going(None)) };
            if let Some(claim) = &host.status.claim {
                if self.private.get(ERRAND) == Some(ALL) {
                    return self.retire(claim).await;
                }
                if !self.leaves(claim, WAITING.try_acquire().ok().as_ref()).await || !self.let_go(claim, until).await? {
                    return Err(self.told::<Hosts>(refusal));
                }
            }
            match self.client.delete(ModelKind::Host, self.name, Some(self.uid)).await {
                Ok(_) | Err(ApiError::Conflict { .. }) => return Ok(Parting::Going(None)),
                // Nobody holds it: it is refused for another reason.
                Err(error) if host.status.claim.is_none() => return Err(self.told::<Hosts>(error)),
                Err(error) => refusal = error,
            }
        }
    }

    async fn retire(&self, claim: &Claim) -> Result<Parting, Diagnostics> {
        let reason = "destroyed with everything else in a Terraform state".to_owned();
        let ordered = self.client.act_on_host(self.name, Some(self.uid), &HostAction::Retire { reason }).await;
        match ordered {
            Ok(_) => {}
            // Gone meanwhile, or another one of that name.
            Err(ApiError::NotFound { .. } | ApiError::Conflict { .. }) => return Ok(Parting::Going(None)),
            Err(error) => return Err(self.told::<Hosts>(error)),
        }
        let place = WAITING.try_acquire().ok();
        if place.is_some() && self.leaves(claim, place.as_ref()).await {
            return Ok(Parting::Going(place));
        }
        Ok(Parting::Later(Diagnostic::warning(
            // The same words each time: Terraform shows them once, with the number of the others.
            "A host is removed once its tenant node has gone",
            format!(
                "Tenant node {:?} holds {}. The engine removes the host as soon as that is released and erased, and gives it to \
                 nobody else. Where the tenant node is destroyed as well there is nothing to do; where it belongs to another \
                 configuration, it keeps the server until it is destroyed there.",
                claim.node,
                title::<Hosts>(self.name)
            ),
        )))
    }

    /// Whether the tenant node is on its way out, or soon is, if there is a place to wait for that.
    async fn leaves(&self, claim: &Claim, place: Option<&SemaphorePermit<'static>>) -> bool {
        let within = if place.is_some() { MOMENT } else { Duration::ZERO };
        let leaving = |node: Option<&vmetal_api::AnyObject>| {
            let stays = node.is_some_and(|node| node.metadata.uid == claim.uid && node.metadata.deleted.is_none());
            (!stays).then_some(())
        };
        if matches!(self.client.get(ModelKind::TenantNode, &claim.node).await, Ok(node) if leaving(node.as_ref()).is_some())
        {
            return true;
        }
        tokio::select! {
            // Time is up, or the engine is away: it is not known to leave.
            seen = self.client.wait_for(ModelKind::TenantNode, &claim.node, within, leaving) => seen.is_ok(),
            () = self.ctx.cancelled().cancelled() => false,
        }
    }

    /// Waits until this claim holds the host no more; false when it is not waited for any longer.
    async fn let_go(&self, claim: &Claim, until: Instant) -> Result<bool, Diagnostics> {
        let within = until.saturating_duration_since(Instant::now());
        let Self { ctx, client, name, uid, .. } = self;
        let wait = Wait { client, name, uid, within, cancelled: ctx.cancelled() };
        let free = |host: &Host| match &host.status.claim {
            Some(now) if now.uid == claim.uid => Verdict::Going(Hosts::doing(host)),
            _ => Verdict::Done,
        };
        match wait.until(free, |what| ctx.progress(&format!("{}: {what}", title::<Hosts>(name)))).await {
            Ended::Done(_) | Ended::Gone => Ok(true),
            Ended::Stuck(..) | Ended::Cancelled(_) | Ended::Deadline(_) => Ok(false),
            Ended::Refused(_, error) => Err(self.told::<Hosts>(error)),
        }
    }

    async fn host(&self) -> Result<Option<Host>, Diagnostics> {
        let found = self.client.get_as::<Host>(self.name).await.map_err(|error| self.told::<Hosts>(error))?;
        Ok(found.filter(|host| host.metadata.uid == *self.uid))
    }

    /// What is done about anything else that is in use.
    pub(crate) async fn of_used<K: Kind>(self, refusal: ApiError) -> Result<Parting, Diagnostics> {
        let mut refusal = refusal;
        let Ok(_place) = OTHERS_WAITING.try_acquire() else { return Err(self.told::<K>(refusal)) };
        let lull = if self.private.get(ERRAND) == Some(ALL) { LULL } else { MOMENT };
        let until = Instant::now() + self.within;
        let mut quiet = Instant::now();
        loop {
            let ApiError::Precondition { .. } = refusal else { return Err(self.told::<K>(refusal)) };
            let over = quiet.elapsed() > lull || Instant::now() > until || self.ctx.cancelled().is_cancelled();
            if over {
                return Err(self.told::<K>(refusal));
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = self.ctx.cancelled().cancelled() => {}
            }
            match self.client.delete(K::Object::KIND, self.name, Some(self.uid)).await {
                Ok(_) | Err(ApiError::Conflict { .. }) => return Ok(Parting::Going(None)),
                Err(error) => refusal = error,
            }
            let nodes = self.client.list_as::<TenantNode>(&BTreeMap::new()).await;
            if nodes.is_ok_and(|nodes| nodes.iter().any(TenantNode::is_deleted)) {
                quiet = Instant::now();
            }
        }
    }

    /// The refusal, in the words of the person who runs Terraform.
    fn told<K: Kind>(&self, error: ApiError) -> Diagnostics {
        refused::<K>(&format!("removing {}", title::<K>(self.name)), error)
    }
}
