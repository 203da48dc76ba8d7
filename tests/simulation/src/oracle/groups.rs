//! Groups get all their hosts in one commit, or none.

use std::collections::BTreeMap;
use std::sync::Arc;

use vmetal_model::{TenantNode, TenantNodePhase};

use crate::world::World;

/// Judges a commit that gave hosts to these claims; `nodes` are all claims after it.
pub(super) fn seated(world: &World, nodes: &BTreeMap<String, Arc<TenantNode>>, seated: &[Arc<TenantNode>]) {
    for node in seated {
        let Some(group) = &node.spec.group else { continue };
        let members = nodes.values().filter(|other| {
            !other.is_deleted()
                && other.spec.cluster == node.spec.cluster
                && other.spec.group.as_ref().is_some_and(|theirs| theirs.name == group.name)
        });
        let (mut there, mut left) = (0, Vec::new());
        for member in members {
            there += 1;
            if member.status.phase == TenantNodePhase::Pending {
                left.push(member.name());
            }
        }
        if there < group.size {
            let size = group.size;
            world.violated(node.name(), format!("has a host though {there} of {size} members of its group are there"));
        }
        if !left.is_empty() {
            world.violated(node.name(), format!("has a host, and {left:?} of its group have none"));
        }
    }
}
