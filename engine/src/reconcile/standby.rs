//! Hosts that are kept installed ahead of claims: what the plan of a class says is ordered, host by host.

use std::sync::Arc;

use vmetal_lifecycle::Note;
use vmetal_lifecycle::standby::{self, Class, Order};
use vmetal_model::{
    Host, HostStatus, ImagePhase, Kind, NodeType, Standby, StandbyTrouble, StandbyWish, Timestamp, Uid,
};
use vmetal_policy::open_hosts;
use vmetal_store::CommitError;

use crate::engine::{Engine, ObjectKey};
use crate::ledger::Batch;
use crate::ownership::{Author, Hold};

impl Engine {
    /// Orders what is missing and gives back what is too much. Says what stands in the way.
    pub(super) async fn keep_standby(
        &self,
        hold: Hold,
        node_type: &NodeType,
        hosts: &[Arc<Host>],
    ) -> Result<Option<StandbyTrouble>, CommitError> {
        let name = node_type.name();
        let wanted = if node_type.is_deleted() { 0 } else { node_type.spec.standby };
        let ours = |host: &Host| host.status.on_standby().is_some_and(|standby| standby.node_type == name);
        if wanted == 0 && !hosts.iter().any(|host| ours(host)) {
            return Ok(None);
        }
        let image = self.standby_image(node_type);
        let class = Class { name, selector: &node_type.spec.selector, wanted, image: image.as_deref() };
        let open = if wanted > 0 { open_hosts(node_type, &self.fleet.view()) } else { Vec::new() };
        let open: Vec<Arc<Host>> = open.iter().filter_map(|name| self.fleet.host(name)).collect();
        let now = self.now();
        let (kept, free) = (hosts.iter().map(|host| &**host), open.iter().map(|host| &**host));
        let plan = standby::plan(class, kept, free, &self.limits, now);
        for order in plan.orders {
            match order {
                Order::GiveBack(host) => {
                    self.order_standby(hold, node_type, host, standby::give_back(host), now).await?;
                }
                Order::Install(host) => {
                    let standby = Standby {
                        uid: Uid::from_random(self.random()),
                        node_type: name.to_owned(),
                        image: image.clone().unwrap_or_default(),
                        wish: StandbyWish::Keep,
                        since: now,
                    };
                    self.order_standby(hold, node_type, host, standby::install(host, standby).ok(), now).await?;
                }
            }
        }
        // Once it has passed, what is missing is a free host, which is news by itself.
        if let Some(next) = plan.trouble.as_ref().and_then(|trouble| trouble.next).filter(|next| *next > now) {
            self.wake_at(ObjectKey::new(Kind::NodeType, name), next);
        }
        Ok(plan.trouble)
    }

    /// The digest of the class's image, once it can be installed.
    fn standby_image(&self, node_type: &NodeType) -> Option<String> {
        let image = self.fleet.image(node_type.spec.image.as_deref()?)?;
        let ready = image.status.phase == ImagePhase::Ready && !vmetal_model::Object::is_deleted(&*image);
        image.status.digest.clone().filter(|_| ready)
    }

    /// Commits one order, under the revisions of host and class. Whoever was faster with the host is right: the plan is made
    /// anew on what it is then.
    async fn order_standby(
        &self,
        hold: Hold,
        node_type: &NodeType,
        host: &Host,
        ordered: Option<(HostStatus, Note)>,
        now: Timestamp,
    ) -> Result<(), CommitError> {
        let Some((status, note)) = ordered else { return Ok(()) };
        let mut batch = Batch::by(Author::Owner(hold));
        batch.needs(Kind::NodeType, node_type.name(), node_type.metadata.revision);
        batch.notes(host, now, [note]);
        batch.replace(Host { status, ..host.clone() });
        match self.ledger.commit(batch).await {
            Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
