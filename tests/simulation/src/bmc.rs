//! BMCs: the line to them, with all that goes wrong on it, and the Redfish service behind it.

mod service;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use reqwest::header::{self, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use vmetal_bmc::wire::{Dial, Wire, WireAnswer, WireError, WireRequest};
use vmetal_model::{ClaimState, HostPhase, OperationKind, OperationState, TenantNodePhase, TlsTrust};

use crate::fault::{BmcFault, Step};
use crate::incarnation::{Incarnation, Who};
use crate::machine::{Open, Running};
use crate::scenario::{Defect, HostPlan};
use crate::world::World;
use service::{MANAGER, answer, credentials, serve};

/// The client's patience for one request ([`vmetal_bmc::Config::request_timeout`]).
const PATIENCE: Duration = Duration::from_secs(30);
/// The client's patience for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// The lines of one process of an engine.
pub struct Lines {
    world: Arc<World>,
    process: Arc<Incarnation>,
}

impl Lines {
    /// The lines of this process.
    pub fn new(world: &Arc<World>, process: &Arc<Incarnation>) -> Self {
        Lines { world: Arc::clone(world), process: Arc::clone(process) }
    }
}

impl Dial for Lines {
    fn dial(&self, origin: &str, _trust: Option<&TlsTrust>) -> Result<Arc<dyn Wire>, String> {
        let machine = HostPlan::index_of(origin).filter(|index| *index < self.world.scenario.hosts.len());
        let (world, process) = (Arc::clone(&self.world), Arc::clone(&self.process));
        Ok(Arc::new(Line { world, process, machine }))
    }

    fn jitter(&self) -> f64 {
        self.world.chance.unit()
    }
}

struct Line {
    world: Arc<World>,
    process: Arc<Incarnation>,
    machine: Option<usize>,
}

impl Wire for Line {
    fn exchange(&self, request: WireRequest) -> BoxFuture<'_, Result<WireAnswer, WireError>> {
        Box::pin(async move {
            self.process.alive().await;
            let answer = self.send(request).await;
            self.process.alive().await;
            answer
        })
    }

    fn fingerprint(&self) -> Option<String> {
        None
    }
}

fn lost(reason: &str) -> WireError {
    WireError::Lost { reason: reason.to_owned() }
}

async fn timeout(began: Instant) -> WireError {
    tokio::time::sleep_until(began + PATIENCE).await;
    lost("no complete answer within 30 s")
}

impl Line {
    async fn send(&self, request: WireRequest) -> Result<WireAnswer, WireError> {
        let (world, who, began) = (&self.world, self.process.who, Instant::now());
        if !world.effort() {
            std::future::pending::<()>().await;
        }
        let Some(index) = self.machine else { return Err(lost("connection refused")) };
        let changing = request.method != Method::GET;
        if changing {
            world.crash_point(who, Step::BeforeCall);
            self.process.alive().await;
        }
        let (cut_off, away, fault) = {
            let mut inner = world.inner();
            let cut_off = inner.engines[who.engine].bmcs_away.is_some_and(|until| until > began);
            let machine = &mut inner.machines[index];
            let away = machine.bmc_away.is_some_and(|until| until > began) || machine.bmc_link.is_down(began);
            let fault = if cut_off || away { None } else { machine.take_bmc_fault(changing) };
            (cut_off, away, fault)
        };
        if cut_off || away {
            sleep(CONNECT).await;
            return Err(lost("no connection within 5 s"));
        }
        if let Some(fault) = &fault {
            let name = &world.scenario.hosts[index].name;
            world.say(name, format!("BMC: {fault:?} on {} {}", request.method, request.url.path()));
        }
        sleep(world.chance.between(Duration::from_millis(2), Duration::from_millis(120))).await;
        // What was sent before the end may arrive after it.
        if !self.process.is_alive() && world.chance.one_in(2) {
            std::future::pending::<()>().await;
        }
        let told = match fault {
            None => self.perform(index, &request, Stray::No, began).await,
            Some(fault) => self.perform_badly(index, request, fault, began).await,
        };
        let cut = world.inner().machines[index].bmc_link.is_down(Instant::now());
        if cut { Err(timeout(began).await) } else { told }
    }

    async fn perform_badly(
        &self,
        index: usize,
        request: WireRequest,
        fault: BmcFault,
        began: Instant,
    ) -> Result<WireAnswer, WireError> {
        let plain = |status: u16, body: Value| Ok(answer(status, body));
        match fault {
            BmcFault::Timeout => Err(timeout(began).await),
            BmcFault::Refused => Err(lost("connection refused")),
            BmcFault::AnswerLost => {
                self.perform(index, &request, Stray::No, began).await?;
                Err(timeout(began).await)
            }
            BmcFault::Late(by) => {
                let late =
                    Line { world: Arc::clone(&self.world), process: Arc::clone(&self.process), machine: self.machine };
                tokio::spawn(async move {
                    sleep(PATIENCE + by).await;
                    // Nobody waits for this answer.
                    let _ = late.perform(index, &request, Stray::Yes, began).await;
                });
                Err(timeout(began).await)
            }
            BmcFault::Doubled => {
                self.perform(index, &request, Stray::No, began).await?;
                sleep(Duration::from_millis(300)).await;
                self.perform(index, &request, Stray::No, began).await
            }
            BmcFault::Status(status) => plain(status, json!({ "error": { "message": "not now" } })),
            BmcFault::RetryAfter(status, seconds) => {
                let mut busy = answer(status, json!({ "error": { "message": "the service is busy" } }));
                busy.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
                Ok(busy)
            }
            BmcFault::NoSessions => plain(
                503,
                json!({ "error": { "@Message.ExtendedInfo": [{
                    "MessageId": "IDRAC.2.8.RAC0218",
                    "Message": "The maximum number of user sessions is reached."
                }] } }),
            ),
            BmcFault::Truncated => {
                let mut whole = self.perform(index, &request, Stray::No, began).await?;
                whole.body.truncate(whole.body.len() / 2);
                Ok(whole)
            }
            BmcFault::Hostile => {
                let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
                let bodies = ["null", "[]", "{\"PowerState\":{},\"Boot\":7,\"Actions\":[]}", "\"On\"", deep.as_str()];
                let mut answer = answer(200, Value::Null);
                answer.body = self.world.chance.pick(&bodies).as_bytes().to_vec();
                Ok(answer)
            }
            BmcFault::LyingPower => {
                let mut told = self.perform(index, &request, Stray::No, began).await?;
                if let Ok(mut body) = serde_json::from_slice::<Value>(&told.body)
                    && body.get("PowerState").is_some()
                {
                    self.world.inner().machines[index].lied = true;
                    body["PowerState"] = if body["PowerState"] == "On" { "Off".into() } else { "On".into() };
                    told.body = body.to_string().into_bytes();
                }
                Ok(told)
            }
            BmcFault::ResetIgnored if request.method == Method::POST => plain(204, Value::Null),
            BmcFault::OverrideLost => {
                let told = self.perform(index, &request, Stray::No, began).await?;
                if request.method == Method::PATCH {
                    let (world, index) = (Arc::clone(&self.world), index);
                    tokio::spawn(async move {
                        sleep(Duration::from_millis(1500)).await;
                        world.inner().machines[index].network_next = false;
                    });
                }
                Ok(told)
            }
            BmcFault::Restart(time) => {
                let mut inner = self.world.inner();
                inner.machines[index].bmc_away = Some(Instant::now() + time);
                inner.machines[index].network_next = false;
                Err(lost("connection reset by peer"))
            }
            BmcFault::RestartMidReset(time) => {
                let told = self.perform(index, &request, Stray::No, began).await?;
                let drops = self.world.chance.one_in(2);
                let machine = &mut self.world.inner().machines[index];
                machine.bmc_away = Some(Instant::now() + time);
                if drops {
                    machine.drop_reset();
                }
                Ok(told)
            }
            BmcFault::StuckReset(time) => {
                self.world.inner().machines[index].next_reset_hangs = Some(time);
                self.perform(index, &request, Stray::No, began).await
            }
            BmcFault::ResetIgnored => self.perform(index, &request, Stray::No, began).await,
        }
    }

    /// The request arrives and is performed.
    async fn perform(
        &self,
        index: usize,
        request: &WireRequest,
        stray: Stray,
        sent: Instant,
    ) -> Result<WireAnswer, WireError> {
        let (world, who) = (&self.world, self.process.who);
        let changing = request.method != Method::GET;
        let number = world.efforts();
        if changing {
            self.arrive(index, request, number, stray, sent);
        }
        sleep(world.chance.between(Duration::from_millis(3), Duration::from_millis(400))).await;
        let told = serve(world, index, request);
        if told.status == StatusCode::UNAUTHORIZED && stray == Stray::No {
            self.refused(index, request);
        }
        if changing {
            let name = world.scenario.hosts[index].name.clone();
            let body = request.body.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            world.say(
                &name,
                format!("BMC: {who:?} {} {} {body} -> {}", request.method, request.url.path(), told.status),
            );
            world.inner().machines[index].open.retain(|open| open.number != number);
            world.crash_point(who, Step::AfterCall);
        }
        sleep(world.chance.between(Duration::from_millis(1), Duration::from_millis(60))).await;
        Ok(told)
    }

    /// What the BMC sees when a request arrives that changes something.
    fn arrive(&self, index: usize, request: &WireRequest, number: u64, stray: Stray, sent: Instant) {
        let (world, who) = (&self.world, self.process.who);
        let mut inner = world.inner();
        let intent = inner.intents.get(&world.scenario.hosts[index].name).copied();
        let machine = &mut inner.machines[index];
        let name = machine.name.clone();
        let others: Vec<Open> = machine.open.iter().filter(|open| open.who.engine != who.engine).copied().collect();
        machine.open.push(Open { who, number });
        // Sent before another's call arrived: whoever made that one must have known that no such call can come any more.
        // Two processes of one engine that is alone may both set the same boot override.
        let newer = machine.last.filter(|(last, at)| {
            let same = last.engine == who.engine;
            *at > sent && *last != who && (!same || request.method == Method::POST)
        });
        let running = machine.running.clone();
        let lied = machine.lied;
        let alive = self.process.is_alive();
        machine.last = Some((who, Instant::now()));
        drop(inner);
        let call = format!("{who:?} {} {}", request.method, request.url.path());
        if stray == Stray::Yes {
            return;
        }
        if let Some(other) = others.first() {
            world.violated(&name, format!("{call} while a call of {:?} is under way", other.who));
        }
        if let Some((newer, _)) = newer {
            world.violated(&name, format!("{call}, though {newer:?} drives the BMC since"));
        }
        if alive {
            self.check_intent(index, request, intent, &call);
        }
        if let (Running::System(claim), false) = (running, lied) {
            self.check_disruption(index, request, &claim, &call);
        }
    }

    /// Credentials that were refused are not sent a third time before somebody has declared others, or has said that the same
    /// are right now: a BMC might lock the account.
    fn refused(&self, index: usize, request: &WireRequest) {
        let (world, who) = (&self.world, self.process.who);
        let name = &world.scenario.hosts[index].name;
        let version = world.host(name).map(|host| host.spec.bmc.password_version.clone()).unwrap_or_default();
        let key = (who, credentials(request).to_owned(), version);
        let count = {
            let mut inner = world.inner();
            let count = inner.machines[index].refused.entry(key).or_default();
            *count += 1;
            *count
        };
        if count > 2 {
            world.violated(name, format!("{who:?} sends a refused password for the {count}th time"));
        }
    }

    /// Nothing is changed without an intent of this very engine that is open.
    fn check_intent(&self, index: usize, request: &WireRequest, intent: Option<(u64, Who)>, call: &str) {
        let (world, who) = (&self.world, self.process.who);
        let name = &world.scenario.hosts[index].name;
        let Some(host) = world.host(name) else {
            return world.violated(name, format!("{call} for a host that does not exist"));
        };
        let Some(operation) = host.status.operation.as_ref() else {
            return world.violated(name, format!("{call} without an intent"));
        };
        if operation.state != OperationState::Intended {
            let state = &operation.state;
            return world.violated(name, format!("{call}, but operation {} is {state:?}", operation.id));
        }
        let body: Value = request.body.as_deref().and_then(|b| serde_json::from_slice(b).ok()).unwrap_or_default();
        let reset = body["ResetType"].as_str().unwrap_or_default().to_owned();
        let fits = match operation.kind {
            OperationKind::PowerOn => reset == "On",
            OperationKind::PowerOff => reset == "ForceOff" || reset == "GracefulShutdown",
            OperationKind::SetNetworkBoot => request.method == Method::PATCH,
            OperationKind::ResetBmc => request.url.path().starts_with(MANAGER),
            _ => false,
        };
        if !fits {
            world.violated(name, format!("{call} {reset}, but the intent is {:?}", operation.kind));
        }
        match intent {
            Some((id, author)) if id == operation.id && author != who => {
                world.violated(name, format!("{call}, but operation {id} was intended by {author:?}"));
            }
            _ => {}
        }
        if request.method == Method::POST {
            let key = (host.metadata.uid.0.clone(), operation.id, reset.clone());
            let count = {
                let mut inner = world.inner();
                let count = inner.machines[index].resets.entry(key).or_default();
                *count += 1;
                *count
            };
            if count > 1 {
                world.violated(name, format!("{call}: {reset} for the {count}th time for operation {}", operation.id));
            }
        }
    }

    /// A tenant that holds the host is not disturbed.
    fn check_disruption(&self, index: usize, request: &WireRequest, claim: &str, call: &str) {
        let world = &self.world;
        let name = &world.scenario.hosts[index].name;
        let Some(host) = world.host(name) else { return };
        let Some(held) = host.status.claim.as_ref().filter(|held| held.uid.0 == claim) else { return };
        let node = world.node(&held.node).filter(|node| node.metadata.uid == held.uid);
        let at_work =
            node.is_some_and(|node| matches!(node.status.phase, TenantNodePhase::Joining | TenantNodePhase::Ready));
        let keeps = held.state == ClaimState::Install && host.status.phase == HostPhase::Provisioned && at_work;
        if keeps && request.method == Method::POST {
            world.violated(name, format!("{call} while tenant node {} uses the host", held.node));
        }
    }
}

/// Whether a request has been given up by who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stray {
    No,
    Yes,
}

/// Doubles the next resets of every BMC, if the scenario asks for that defect.
pub fn sabotage(world: &World) {
    if world.scenario.defect == Some(Defect::CallsDoubled) {
        for machine in &mut world.inner().machines {
            machine.bmc_faults.push((BmcFault::Doubled, 40, crate::fault::Scope::Changing));
        }
    }
}
