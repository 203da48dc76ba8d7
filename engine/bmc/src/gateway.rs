//! The gateway: what the engine can ask of a BMC.

mod account;
mod manager;

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;
use vmetal_model::bmc::BmcScheme;
use vmetal_model::inventory::Identity;
use vmetal_model::{BmcAddress, BmcFacts, BootMode, Inventory, PowerState, TlsTrust};

use crate::config::Config;
use crate::error::BmcError;
use crate::fence::Fence;
use crate::link::Link;
use crate::quirks;
use crate::redfish::inventory;
use crate::redfish::path::ResourcePath;
use crate::redfish::system::{self, HasMode, System, text};
use crate::transport::{Answer, Auth, Body, Credentials, Request, Transport};
use crate::wire::{Dial, HttpDial};

/// The most members of one collection that are read.
const MAX_MEMBERS: usize = 256;
/// The most pages of one collection.
const MAX_PAGES: usize = 16;

/// One BMC as the engine knows it.
#[derive(Clone, PartialEq, Eq)]
pub struct BmcTarget {
    /// Where it is.
    pub address: BmcAddress,
    /// The account.
    pub username: String,
    /// The password.
    pub password: String,
    /// Changes when the operator says that the password is right now, even if its text is the same.
    pub password_version: String,
    /// How its certificate is trusted.
    pub tls: TlsTrust,
    /// The system to use when the address names none: [`BmcFacts::system_path`] of an earlier probe.
    pub system_path: Option<String>,
}

impl fmt::Debug for BmcTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {:?} (password redacted)", self.address, self.username)
    }
}

/// All gateways of one engine: one per BMC system, sharing what protects the BMC.
pub struct Gateways {
    config: Arc<Config>,
    dial: Arc<dyn Dial>,
    table: Mutex<Table>,
}

impl fmt::Debug for Gateways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateways").field("known", &self.table().gateways.len()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Table {
    /// By [`BmcAddress::identity`].
    gateways: HashMap<String, Way>,
    /// By [`BmcAddress::origin`].
    links: HashMap<String, Arc<Link>>,
}

/// A gateway, what it was made for, and when it was last asked for.
struct Way {
    target: BmcTarget,
    known: Arc<Known>,
    used: Instant,
}

impl Gateways {
    /// Reads the trusted roots and starts with no gateways.
    pub fn new(config: Config) -> Self {
        let dial = HttpDial::new(&config);
        Self::over(config, Arc::new(dial))
    }

    /// Starts with no gateways; BMCs are reached over these lines. For simulations.
    pub fn over(config: Config, dial: Arc<dyn Dial>) -> Self {
        Gateways { config: Arc::new(config), dial, table: Mutex::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The gateway of this BMC, behind this fence. The same one every time, until address, account, password or trust change;
    /// what protects the BMC (rate, breaker, pauses, refused passwords) outlives such a change.
    ///
    /// # Errors
    /// [`BmcError::Setup`] when the pinned fingerprint or the system path is not one.
    pub fn for_host(&self, target: &BmcTarget, fence: Arc<dyn Fence>) -> Result<Gateway, BmcError> {
        let (identity, origin) = (target.address.identity(), target.address.origin());
        let mut table = self.table();
        if let Some(way) = table.gateways.get_mut(&identity)
            && way.serves(target)
        {
            way.used = Instant::now();
            return Ok(Gateway { known: Arc::clone(&way.known), fence, expected: Identity::default() });
        }
        let setup = |reason| BmcError::Setup { origin: origin.clone(), reason };
        let parse = |path: String| {
            ResourcePath::parse(&path).ok_or_else(|| setup(format!("{path:?} is not the path of a system")))
        };
        let system_path = match (target.address.system_path(), &target.system_path) {
            (Some(declared), _) => SystemPath::Declared(parse(declared)?),
            (None, Some(found)) => SystemPath::Found(parse(found.clone())?),
            (None, None) => SystemPath::Unknown,
        };
        let link = table.links.entry(origin.clone()).or_insert_with(|| Arc::new(Link::new(&self.config)));
        let link = Arc::clone(link);
        let trust = match target.address.scheme() {
            BmcScheme::RedfishHttps => Some(&target.tls),
            BmcScheme::RedfishHttp => None,
        };
        let wire = self.dial.dial(&origin, trust).map_err(setup)?;
        let credentials = Credentials::new(&target.username, &target.password, &target.password_version);
        let transport = Transport::new(
            &origin,
            credentials,
            (Arc::clone(&self.dial), wire),
            Arc::clone(&self.config),
            Arc::clone(&link),
        )?;
        let known =
            Arc::new(Known { transport, config: Arc::clone(&self.config), system_path: Mutex::new(system_path) });
        let way = Way { target: target.clone(), known: Arc::clone(&known), used: Instant::now() };
        table.gateways.insert(identity, way);
        Ok(Gateway { known, fence, expected: Identity::default() })
    }

    /// Forgets a BMC whose host is gone. Calls under way finish.
    pub fn forget(&self, address: &BmcAddress) {
        let mut table = self.table();
        table.gateways.remove(&address.identity());
        let origin = address.origin();
        // Another system of the same BMC may still need it.
        if table.links.get(&origin).is_some_and(|link| Arc::strong_count(link) == 1) {
            table.links.remove(&origin);
        }
    }

    /// Drops gateways that no call was made through for this long, with their connections and TLS sessions. What protects a
    /// BMC stays for as long as it has something to remember.
    pub fn drop_idle(&self, idle: Duration) {
        let now = Instant::now();
        let mut table = self.table();
        table.gateways.retain(|_, way| now.duration_since(way.used) < idle || Arc::strong_count(&way.known) > 1);
        table.links.retain(|_, link| Arc::strong_count(link) > 1 || !link.is_clean(now));
        table.gateways.shrink_to_fit();
        table.links.shrink_to_fit();
    }

    /// How many gateways there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.table().gateways.len()
    }
}

impl Way {
    /// Whether the gateway serves this target too: it is the same, or names the system that the gateway found itself.
    fn serves(&self, target: &BmcTarget) -> bool {
        let found = match &*self.known.system_path.lock().unwrap_or_else(PoisonError::into_inner) {
            SystemPath::Found(path) => Some(path.as_str().trim_end_matches('/').to_owned()),
            SystemPath::Declared(_) | SystemPath::Unknown => None,
        };
        let same_system =
            self.target.system_path == target.system_path || found.is_some() && found == target.system_path;
        let BmcTarget { address, username, password, password_version, tls, system_path: _ } = target;
        let mine = &self.target;
        same_system
            && (address, username, password, password_version, tls)
                == (&mine.address, &mine.username, &mine.password, &mine.password_version, &mine.tls)
    }
}

/// The only way to one BMC system. Changing calls run to their own end even if the caller's future is dropped, or until the
/// fence closes.
#[derive(Clone)]
pub struct Gateway {
    known: Arc<Known>,
    fence: Arc<dyn Fence>,
    expected: Identity,
}

/// What is known of one BMC system, whoever asks.
struct Known {
    transport: Transport,
    config: Arc<Config>,
    system_path: Mutex<SystemPath>,
}

/// Which system of the BMC is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SystemPath {
    /// The operator says so. It stays, even when the BMC does not have it.
    Declared(ResourcePath),
    /// It was the only one. Looked for again when it is gone: a replaced board may be known by another path.
    Found(ResourcePath),
    /// To be looked for.
    Unknown,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gateway({})", self.known.transport.origin)
    }
}

impl Gateway {
    /// Whether this is the gateway that `other` is: the same account of the same BMC, whatever their fences.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.known, &other.known)
    }

    /// Signs in, finds the system and reads who it is. [`BmcFacts::read`] is left to the caller, who has the clock.
    ///
    /// # Errors
    /// Any [`BmcError`] but [`BmcError::NotApplied`].
    pub async fn probe(&self) -> Result<BmcFacts, BmcError> {
        let root_path = ResourcePath::root();
        let root = self.read(Request { auth: Auth::None, ..Request::get(&root_path) }).await?.0;
        let system = self.system_from(Some(&root)).await?;
        let mut facts = system.facts;
        facts.redfish_version = text(&root, "RedfishVersion");
        facts.certificate = self.known.transport.fingerprint();
        if let Some(manager) = &system.manager {
            // The version is for display and quirks: a manager that does not answer is no reason to refuse the host.
            match self.read(Request::get(manager)).await {
                Ok((manager, _)) => facts.firmware = text(&manager, "FirmwareVersion"),
                Err(BmcError::Protocol { .. } | BmcError::Privilege { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(facts)
    }

    /// The power state as the BMC tells it now.
    ///
    /// # Errors
    /// Any [`BmcError`] but [`BmcError::NotApplied`].
    pub async fn power(&self) -> Result<PowerState, BmcError> {
        let system = self.system().await?;
        self.same_machine(&system)?;
        Ok(system.facts.power)
    }

    /// Powers on, if the system is off, and waits until the BMC says so.
    ///
    /// # Errors
    /// [`BmcError::NotApplied`] when it stays off; else any [`BmcError`].
    pub async fn power_on(&self) -> Result<(), BmcError> {
        let this = self.clone();
        uncancelled(async move {
            this.reset(&["On", "ForceOn"], |p| matches!(p, PowerState::On | PowerState::PoweringOn), "On").await
        })
        .await
    }

    /// Powers off at once, without asking the operating system, if the system is not off, and waits until the BMC says so.
    ///
    /// # Errors
    /// [`BmcError::NotApplied`] when it stays on; else any [`BmcError`].
    pub async fn power_off(&self) -> Result<(), BmcError> {
        let this = self.clone();
        uncancelled(async move { this.reset(&["ForceOff"], |p| p == PowerState::Off, "Off").await }).await
    }

    /// Boots from the network at the next start, and only then, in this mode; reads the setting back.
    ///
    /// # Errors
    /// [`BmcError::NotApplied`] when it reads back different; else any [`BmcError`].
    pub async fn set_network_boot_once(&self, mode: BootMode) -> Result<(), BmcError> {
        let this = self.clone();
        uncancelled(async move { this.network_boot_once(mode).await }).await
    }

    /// What the BMC knows of the hardware.
    ///
    /// # Errors
    /// Any [`BmcError`] but [`BmcError::NotApplied`].
    pub async fn inventory(&self) -> Result<Inventory, BmcError> {
        let system = self.system().await?;
        let processors = self.members(system.links.processors.as_ref()).await?;
        let nics = self.members(system.links.nics.as_ref()).await?;
        let mut drives = Vec::new();
        // One drive may hang on several controllers.
        let mut known = BTreeSet::new();
        for storage in self.members(system.links.storage.as_ref()).await? {
            for link in storage["Drives"].as_array().into_iter().flatten().filter_map(ResourcePath::link) {
                if known.len() < MAX_MEMBERS && known.insert(link.clone()) {
                    drives.push(self.read(Request::get(&link)).await?.0);
                }
            }
        }
        Ok(inventory::assemble(&system, &processors, &drives, &nics))
    }

    /// The same gateway, knowing which machine is to be behind this BMC. Every power reading and every change checks it on
    /// the same reading of the system that it acts on, and touches nothing when another machine answers. Serial number or
    /// UUID: one that is the same is enough, and what either side does not tell is not compared.
    #[must_use]
    pub fn expecting(self, machine: Identity) -> Self {
        Gateway { expected: machine, ..self }
    }

    fn same_machine(&self, system: &System) -> Result<(), BmcError> {
        let (serial, uuid) = (system.facts.serial.clone(), system.facts.uuid.clone());
        let seen = Identity { serial, uuid, ..Identity::default() };
        if self.expected.may_be(&seen) {
            return Ok(());
        }
        let origin = self.known.transport.origin.clone();
        Err(BmcError::WrongMachine { origin, expected: self.expected.describe(), seen: seen.describe() })
    }

    async fn reset(
        &self,
        types: &[&'static str],
        reached: impl Fn(PowerState) -> bool,
        wanted: &str,
    ) -> Result<(), BmcError> {
        let _alone = self.known.transport.link.writes.lock().await;
        let system = self.system().await?;
        self.same_machine(&system)?;
        if reached(system.facts.power) {
            return Ok(());
        }
        let request = format!("reset of {}", system.path);
        let missing = |expected: String, seen: String| BmcError::Protocol {
            origin: self.known.transport.origin.clone(),
            request: request.clone(),
            expected,
            seen,
        };
        let Some(reset) = &system.reset else {
            return Err(missing("the action #ComputerSystem.Reset".into(), "no such action".into()));
        };
        let Some(kind) = reset.choose(types) else {
            let seen = format!("an offer of {} only", reset.types.join(", "));
            return Err(missing(format!("the reset type {}", types.join(" or ")), seen));
        };
        let body = json!({ "ResetType": kind });
        let post = Request { method: Method::POST, body: Some(&body), ..Request::get(&reset.target) };
        let answer = self.send(post).await?;
        if !answer.status.is_success() {
            // Many BMCs refuse a reset that has nothing to do any more: what counts is the state.
            if reached(self.system().await?.facts.power) {
                return Ok(());
            }
            return Err(self.known.transport.unexpected(
                &format!("POST {kind} to {}", reset.target),
                "HTTP 2xx",
                &answer,
            ));
        }
        let deadline = Instant::now() + self.known.config.power_timeout;
        loop {
            let power = self.system().await?.facts.power;
            if reached(power) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.not_applied(
                    "power",
                    wanted,
                    &format!("{power:?} after {} s", self.known.config.power_timeout.as_secs_f32()),
                ));
            }
            tokio::time::sleep(self.known.config.poll).await;
        }
    }

    async fn network_boot_once(&self, mode: BootMode) -> Result<(), BmcError> {
        let _alone = self.known.transport.link.writes.lock().await;
        let mut system = self.system().await?;
        self.same_machine(&system)?;
        if !system.boot.targets.is_empty() && !system.boot.targets.iter().any(|target| target == "Pxe") {
            return Err(BmcError::Protocol {
                origin: self.known.transport.origin.clone(),
                request: format!("network boot of {}", system.path),
                expected: "the boot target Pxe".into(),
                seen: format!("an offer of {} only", system.boot.targets.join(", ")),
            });
        }
        let mode = system::mode(mode);
        let send_mode =
            system.boot.has_mode == HasMode::Yes || quirks::boot_mode_is_forgotten_unless_sent(&system.facts);
        let mut boot = json!({ "BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Once" });
        if send_mode {
            boot["BootSourceOverrideMode"] = mode.into();
        }
        let body = json!({ "Boot": boot });
        let name = format!("PATCH {}", system.path);
        let answer = self.patch(&system, &body).await?;
        let answer = match answer.status {
            // Somebody else changed the system in between, or the BMC wants a precondition and offered none: read again, once.
            StatusCode::PRECONDITION_FAILED | StatusCode::PRECONDITION_REQUIRED => {
                system = self.system().await?;
                if system.etag.is_none() {
                    system.etag = Some("*".into());
                }
                self.patch(&system, &body).await?
            }
            _ => answer,
        };
        if !answer.status.is_success() {
            return Err(self.known.transport.unexpected(&name, "HTTP 2xx", &answer));
        }
        let seen = self.system().await?.boot;
        let check = |setting: &str, wanted: &str, seen: Option<&String>| match seen.map(String::as_str) {
            Some(seen) if seen == wanted => Ok(()),
            seen => Err(self.not_applied(setting, wanted, seen.unwrap_or("nothing"))),
        };
        check("BootSourceOverrideTarget", "Pxe", seen.target.as_ref())?;
        check("BootSourceOverrideEnabled", "Once", seen.enabled.as_ref())?;
        match seen.mode {
            Some(_) if send_mode => check("BootSourceOverrideMode", mode, seen.mode.as_ref()),
            _ => Ok(()),
        }
    }

    async fn patch(&self, system: &System, body: &Value) -> Result<Answer, BmcError> {
        let request = Request {
            method: Method::PATCH,
            body: Some(body),
            if_match: system.etag.as_deref(),
            ..Request::get(&system.path)
        };
        self.send(request).await
    }

    fn not_applied(&self, setting: &str, wanted: &str, seen: &str) -> BmcError {
        BmcError::NotApplied {
            origin: self.known.transport.origin.clone(),
            setting: setting.into(),
            wanted: wanted.into(),
            seen: seen.into(),
        }
    }

    async fn system(&self) -> Result<System, BmcError> {
        self.system_from(None).await
    }

    fn system_path(&self) -> MutexGuard<'_, SystemPath> {
        self.known.system_path.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the system. `root` is the service root, if it was read already.
    async fn system_from(&self, root: Option<&Value>) -> Result<System, BmcError> {
        let known = self.system_path().clone();
        let path = match &known {
            SystemPath::Declared(path) | SystemPath::Found(path) => path.clone(),
            SystemPath::Unknown => self.only_system(root).await?,
        };
        let answer = self.send(Request::get(&path)).await?;
        if answer.status != StatusCode::NOT_FOUND {
            return self.read_system(path, answer);
        }
        if matches!(known, SystemPath::Found(_)) {
            let path = self.only_system(root).await?;
            let answer = self.send(Request::get(&path)).await?;
            return self.read_system(path, answer);
        }
        let available = self.systems(root).await?;
        if let Some(shown) = available.iter().find(|other| other.same(&path)) {
            return Err(self.known.transport.unexpected(
                &format!("GET {shown}"),
                "a system that it lists itself",
                &answer,
            ));
        }
        Err(BmcError::NoSuchSystem {
            origin: self.known.transport.origin.clone(),
            path: path.to_string(),
            available: available.iter().map(ToString::to_string).collect(),
        })
    }

    fn read_system(&self, path: ResourcePath, answer: Answer) -> Result<System, BmcError> {
        let (value, etag) = self.json(&format!("GET {path}"), answer)?;
        let system = System::read(&path, &value, etag).ok_or_else(|| BmcError::Protocol {
            origin: self.known.transport.origin.clone(),
            request: format!("GET {path}"),
            expected: "a JSON object".into(),
            seen: "other JSON".into(),
        })?;
        let mut known = self.system_path();
        if !matches!(*known, SystemPath::Declared(_)) {
            *known = SystemPath::Found(path);
        }
        Ok(system)
    }

    async fn only_system(&self, root: Option<&Value>) -> Result<ResourcePath, BmcError> {
        match <[ResourcePath; 1]>::try_from(self.systems(root).await?) {
            Ok([only]) => Ok(only),
            Err(systems) => Err(BmcError::AmbiguousSystem {
                origin: self.known.transport.origin.clone(),
                available: systems.iter().map(ToString::to_string).collect(),
            }),
        }
    }

    /// The paths of all systems.
    async fn systems(&self, root: Option<&Value>) -> Result<Vec<ResourcePath>, BmcError> {
        let root_path = ResourcePath::root();
        let read;
        let root = match root {
            Some(root) => root,
            None => {
                read = self.read(Request { auth: Auth::None, ..Request::get(&root_path) }).await?.0;
                &read
            }
        };
        let systems = ResourcePath::link(&root["Systems"]).ok_or_else(|| BmcError::Protocol {
            origin: self.known.transport.origin.clone(),
            request: format!("GET {root_path}"),
            expected: "a link to Systems on the same origin".into(),
            seen: root["Systems"].to_string().chars().take(200).collect(),
        })?;
        self.collection(&systems).await
    }

    /// The member links of a collection, over its pages.
    async fn collection(&self, path: &ResourcePath) -> Result<Vec<ResourcePath>, BmcError> {
        let mut members = Vec::new();
        let mut next = Some(path.clone());
        for _ in 0..MAX_PAGES {
            let Some(page) = next.take() else { break };
            let (value, _) = self.read(Request::get(&page)).await?;
            members.extend(value["Members"].as_array().into_iter().flatten().filter_map(ResourcePath::link));
            next = value["Members@odata.nextLink"].as_str().and_then(ResourcePath::parse);
        }
        members.truncate(MAX_MEMBERS);
        Ok(members)
    }

    /// The members of a collection; none when the BMC does not have it.
    async fn members(&self, path: Option<&ResourcePath>) -> Result<Vec<Value>, BmcError> {
        let Some(path) = path else { return Ok(Vec::new()) };
        let mut values = Vec::new();
        for member in self.collection(path).await? {
            values.push(self.read(Request::get(&member)).await?.0);
        }
        Ok(values)
    }

    pub(super) async fn send(&self, request: Request<'_>) -> Result<Answer, BmcError> {
        self.known.transport.send(request, &*self.fence).await
    }

    async fn read(&self, request: Request<'_>) -> Result<(Value, Option<String>), BmcError> {
        let name = format!("GET {}", request.path);
        let answer = self.send(request).await?;
        self.json(&name, answer)
    }

    fn json(&self, request: &str, answer: Answer) -> Result<(Value, Option<String>), BmcError> {
        if !answer.status.is_success() {
            return Err(self.known.transport.unexpected(request, "HTTP 200", &answer));
        }
        match answer.body {
            Body::Json(value) => Ok((value, answer.etag)),
            Body::Empty | Body::NotJson(_) => Err(self.known.transport.unexpected(request, "JSON", &answer)),
        }
    }
}

/// Runs an effect to its end whatever becomes of the caller: half a reset is worse than one that nobody waits for.
async fn uncancelled<T: Send + 'static>(effect: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(effect).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels the task, and then nothing runs any more, this future included.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use futures::future::BoxFuture;

    use super::*;
    use crate::fence::Alone;
    use crate::guard::AddressGuard;
    use crate::wire::{Wire, WireAnswer, WireError, WireRequest};

    /// Lines that lead to a BMC which refuses every password.
    struct Refusing;

    impl Dial for Refusing {
        fn dial(&self, _: &str, _: Option<&TlsTrust>) -> Result<Arc<dyn Wire>, String> {
            Ok(Arc::new(Refusing))
        }
    }

    impl Wire for Refusing {
        fn exchange(&self, _: WireRequest) -> BoxFuture<'_, Result<WireAnswer, WireError>> {
            let answer = WireAnswer { status: StatusCode::UNAUTHORIZED, headers: Default::default(), body: Vec::new() };
            Box::pin(std::future::ready(Ok(answer)))
        }

        fn fingerprint(&self) -> Option<String> {
            None
        }
    }

    fn target(number: u8) -> BmcTarget {
        BmcTarget {
            address: format!("redfish://10.0.0.{number}/redfish/v1/Systems/1").parse().unwrap(),
            username: "u".to_owned(),
            password: "p".to_owned(),
            password_version: String::new(),
            tls: TlsTrust::Insecure,
            system_path: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_gateways_go_and_what_protects_a_bmc_stays() {
        let allow = AddressGuard::parse(["10.0.0.0/8"]).unwrap();
        let gateways = Gateways::over(Config::new(allow), Arc::new(Refusing));
        let idle = Duration::from_secs(15);
        let busy = gateways.for_host(&target(1), Arc::new(Alone)).unwrap();
        drop(gateways.for_host(&target(2), Arc::new(Alone)).unwrap());
        let refused = gateways.for_host(&target(3), Arc::new(Alone)).unwrap();
        assert!(matches!(refused.power().await, Err(BmcError::Credentials { .. })));
        drop(refused);
        gateways.drop_idle(idle);
        assert_eq!(gateways.len(), 3, "none is idle yet");
        tokio::time::advance(idle * 4).await;
        gateways.drop_idle(idle);
        assert_eq!(gateways.len(), 1, "one is in use");
        assert!(Arc::ptr_eq(&busy.known, &gateways.for_host(&target(1), Arc::new(Alone)).unwrap().known));
        let links = |gateways: &Gateways| gateways.table().links.len();
        assert_eq!(links(&gateways), 2, "the refused password is remembered");
        gateways.forget(&target(3).address);
        assert_eq!(links(&gateways), 1);
    }

    #[tokio::test]
    async fn a_system_that_was_found_needs_no_other_gateway() {
        let allow = AddressGuard::parse(["10.0.0.0/8"]).unwrap();
        let gateways = Gateways::over(Config::new(allow), Arc::new(Refusing));
        let unknown = BmcTarget { address: "redfish://10.0.0.1".parse().unwrap(), ..target(1) };
        let found = BmcTarget { system_path: Some("/redfish/v1/Systems/1".to_owned()), ..unknown.clone() };
        let gateway = gateways.for_host(&unknown, Arc::new(Alone)).unwrap();
        *gateway.system_path() = SystemPath::Found(ResourcePath::parse("/redfish/v1/Systems/1").unwrap());
        assert!(Arc::ptr_eq(&gateway.known, &gateways.for_host(&found, Arc::new(Alone)).unwrap().known));
        let elsewhere = BmcTarget { system_path: Some("/redfish/v1/Systems/2".to_owned()), ..found.clone() };
        assert!(!Arc::ptr_eq(&gateway.known, &gateways.for_host(&elsewhere, Arc::new(Alone)).unwrap().known));
        let gateway = gateways.for_host(&found, Arc::new(Alone)).unwrap();
        let other = BmcTarget { password: "q".to_owned(), ..found };
        assert!(!Arc::ptr_eq(&gateway.known, &gateways.for_host(&other, Arc::new(Alone)).unwrap().known));
    }
}
