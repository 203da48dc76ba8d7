//! Waiting for the members of a pool, on one stream.

use std::{collections::BTreeMap, time::Duration};

use futures::StreamExt as _;
use tfplugin::{Ctx, Diagnostic, Diagnostics};
use tokio::time::{Instant, sleep, sleep_until};
use vmetal_api::{ApiError, Client, WatchItem, WatchQuery};
use vmetal_model::{Failure, Kind as ModelKind, TenantNode, Uid};

use crate::{
    explain::circumstances,
    kind::{Kind, Verdict},
    provider::Engine,
    tenant_node::TenantNodes,
};

/// The pause before a broken stream is opened again.
const REOPEN: Duration = Duration::from_secs(1);

/// How a wait ended.
pub(super) enum Ended {
    /// No member is on its way any more: each is there, gone, or stuck.
    Settled,
    /// The user asked to stop.
    Cancelled,
    /// Time is up.
    Deadline,
    /// The engine refuses to be asked.
    Refused(ApiError),
}

/// Where a member is.
enum Standing {
    /// On its way to what is waited for.
    Going(String),
    /// Not on its way, and stuck unless that changes in time.
    Doubtful(Failure, Instant),
    /// There.
    Done,
    /// The engine has given up on it.
    Stuck(Failure),
    /// On its way out.
    Leaving,
    /// It no longer exists, though nobody here asked for that.
    Lost,
}

struct Member {
    node: TenantNode,
    standing: Standing,
}

/// The members of a pool, by name.
pub(super) struct Members {
    by_name: BTreeMap<String, Member>,
    wait_for: String,
}

impl Members {
    /// Those that are to get somewhere, and those that are to go.
    pub(super) fn new(staying: Vec<TenantNode>, leaving: Vec<TenantNode>, wait_for: &str) -> Self {
        let mut members = Self { by_name: BTreeMap::new(), wait_for: wait_for.to_owned() };
        let going = |node: TenantNode| Member { node, standing: Standing::Leaving };
        members.by_name.extend(leaving.into_iter().map(|node| (node.metadata.name.clone(), going(node))));
        for node in staying {
            let standing = members.judged(&node, None);
            members.by_name.insert(node.metadata.name.clone(), Member { node, standing });
        }
        members
    }

    fn judged(&self, node: &TenantNode, before: Option<&Standing>) -> Standing {
        match TenantNodes::judge(node, &self.wait_for) {
            Verdict::Done => Standing::Done,
            Verdict::Stuck(failure) => Standing::Stuck(failure),
            Verdict::Going(what) => Standing::Going(what),
            Verdict::Doubtful(failure, grace) => match before {
                Some(Standing::Doubtful(old, until)) if old.cause == failure.cause => {
                    Standing::Doubtful(failure, *until)
                }
                _ => Standing::Doubtful(failure, Instant::now() + grace),
            },
        }
    }

    /// The members that stay, as last seen.
    pub(super) fn nodes(&self) -> Vec<TenantNode> {
        let staying =
            self.by_name.values().filter(|member| !matches!(member.standing, Standing::Leaving | Standing::Lost));
        staying.map(|member| member.node.clone()).collect()
    }

    fn is_settled(&self) -> bool {
        let settled = |member: &Member| matches!(member.standing, Standing::Done | Standing::Stuck(_) | Standing::Lost);
        self.by_name.values().all(settled)
    }

    /// Waits until no member is on its way any more.
    pub(super) async fn wait(&mut self, ctx: &Ctx<Engine>, client: &Client, within: Duration) -> Ended {
        let deadline = Instant::now() + within;
        while !self.is_settled() {
            let query = WatchQuery { kind: Some(ModelKind::TenantNode), name: None };
            let opened = tokio::select! {
                opened = client.watch(query) => opened,
                () = ctx.cancelled().cancelled() => return Ended::Cancelled,
                () = sleep_until(deadline) => return Ended::Deadline,
            };
            let ended = match opened {
                Ok(stream) => self.follow(ctx, stream, deadline).await,
                Err(error) if error.is_transient() => None,
                Err(error) => Some(Ended::Refused(error)),
            };
            if let Some(ended) = ended {
                return ended;
            }
            tokio::select! {
                () = sleep(REOPEN) => {}
                () = ctx.cancelled().cancelled() => return Ended::Cancelled,
                () = sleep_until(deadline) => return Ended::Deadline,
            }
        }
        Ended::Settled
    }

    /// Follows one stream; `None` when it broke.
    async fn follow(
        &mut self,
        ctx: &Ctx<Engine>,
        mut stream: impl futures::Stream<Item = Result<WatchItem, ApiError>> + Unpin,
        deadline: Instant,
    ) -> Option<Ended> {
        // What the stream shows of the present, to know what is not there any more.
        let mut present: Option<BTreeMap<String, Uid>> = Some(BTreeMap::new());
        while !self.is_settled() {
            let doubt = self.by_name.values().filter_map(|member| match &member.standing {
                Standing::Doubtful(_, until) => Some(*until),
                _ => None,
            });
            let alarm = doubt.min().unwrap_or(deadline).min(deadline);
            let item = tokio::select! {
                item = stream.next() => item?,
                () = ctx.cancelled().cancelled() => return Some(Ended::Cancelled),
                () = sleep_until(alarm) => {
                    self.despair(alarm);
                    if alarm >= deadline {
                        return Some(Ended::Deadline);
                    }
                    continue;
                }
            };
            match item {
                Ok(WatchItem::Sync(object)) => {
                    if let Some(present) = &mut present {
                        present.insert(object.metadata.name.clone(), object.metadata.uid.clone());
                    }
                    self.seen(ctx, &object.metadata.name.clone(), object.typed().ok());
                }
                Ok(WatchItem::Changed(object)) => self.seen(ctx, &object.metadata.name.clone(), object.typed().ok()),
                Ok(WatchItem::Deleted(object)) => self.gone(&object.metadata.name, &object.metadata.uid),
                Ok(WatchItem::Bookmark { .. }) => {
                    let there = present.take().unwrap_or_default();
                    let all =
                        self.by_name.iter().map(|(name, member)| (name.clone(), member.node.metadata.uid.clone()));
                    let missing: Vec<_> = all.filter(|(name, uid)| there.get(name) != Some(uid)).collect();
                    missing.into_iter().for_each(|(name, uid)| self.gone(&name, &uid));
                }
                Err(error) if error.is_transient() => return None,
                Err(error) => return Some(Ended::Refused(error)),
            }
        }
        Some(Ended::Settled)
    }

    fn seen(&mut self, ctx: &Ctx<Engine>, name: &str, node: Option<TenantNode>) {
        let Some((node, member)) = node.zip(self.by_name.get(name)) else { return };
        if node.metadata.uid != member.node.metadata.uid || matches!(member.standing, Standing::Leaving) {
            return;
        }
        let standing = self.judged(&node, Some(&member.standing));
        if let Standing::Going(what) = &standing
            && !matches!(&member.standing, Standing::Going(before) if before == what)
        {
            ctx.progress(&format!("tenant node {name:?}: {what}"));
        }
        self.by_name.insert(name.to_owned(), Member { node, standing });
    }

    fn gone(&mut self, name: &str, uid: &Uid) {
        let Some(member) = self.by_name.get_mut(name).filter(|member| member.node.metadata.uid == *uid) else { return };
        match member.standing {
            Standing::Leaving => drop(self.by_name.remove(name)),
            _ => member.standing = Standing::Lost,
        }
    }

    /// Doubts that have stood until now are believed.
    fn despair(&mut self, now: Instant) {
        for member in self.by_name.values_mut() {
            if let Standing::Doubtful(failure, until) = &member.standing
                && *until <= now
            {
                member.standing = Standing::Stuck(failure.clone());
            }
        }
    }

    /// What members that are still on their way are doing; so many of them.
    pub(super) fn open(&self, most: usize) -> String {
        let doing = |(name, member): (&String, &Member)| match &member.standing {
            Standing::Going(what) => Some(format!("- {name}: {what}")),
            Standing::Doubtful(failure, _) => Some(format!("- {name}: {}", failure.message)),
            Standing::Leaving => Some(format!("- {name}: {}", TenantNodes::doing(&member.node))),
            Standing::Done | Standing::Stuck(_) | Standing::Lost => None,
        };
        let all: Vec<String> = self.by_name.iter().filter_map(doing).collect();
        let more = all.len().saturating_sub(most);
        let mut lines: Vec<String> = all.into_iter().take(most).collect();
        lines.extend((more > 0).then(|| format!("- and {more} more")));
        lines.join("\n")
    }

    /// What became of members that will not get there; the first ones at length.
    pub(super) async fn failures(&self, client: &Client, pool: &str, most: usize) -> Diagnostics {
        let mut told = Diagnostics::new();
        let mut more = Vec::new();
        for (name, member) in &self.by_name {
            let detail = match &member.standing {
                Standing::Stuck(_) | Standing::Lost if told.iter().count() >= most => {
                    more.push(name.as_str());
                    continue;
                }
                Standing::Stuck(failure) => circumstances::<TenantNodes>(client, &member.node, Some(failure)).await,
                Standing::Lost => "It was deleted by somebody else. Apply again to create it anew.".to_owned(),
                _ => continue,
            };
            told.push(Diagnostic::error(format!("Tenant node {name:?} of node pool {pool:?} failed"), detail));
        }
        if !more.is_empty() {
            let detail = format!("{}.\nTheir reasons: vmetal describe tenant_node <name>", more.join(", "));
            told.push(Diagnostic::error(
                format!("{} more tenant nodes of node pool {pool:?} failed", more.len()),
                detail,
            ));
        }
        told
    }
}
