//! What goes wrong, as data: where, what, when, how often.

use std::time::Duration;

use crate::link::Flapping;

/// How one request to a BMC goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum BmcFault {
    /// No answer within the client's patience; the request is not taken in.
    Timeout,
    /// The connection is refused at once.
    Refused,
    /// The request is performed, the answer is lost.
    AnswerLost,
    /// The request is performed, but only this long after the client has given up.
    Late(Duration),
    /// The request is performed twice: a proxy in between that repeats. Never part of a scenario; a defect for the oracle to
    /// find.
    Doubled,
    /// Another status.
    Status(u16),
    /// Too busy (503) or asked too often (429), and says for how long (seconds).
    RetryAfter(u16, u32),
    /// All sessions are in use, in iDRAC's words.
    NoSessions,
    /// The answer's body is cut off in the middle.
    Truncated,
    /// A body that is JSON, but not what is expected.
    Hostile,
    /// The power state is told wrong.
    LyingPower,
    /// A reset is answered with success and not performed.
    ResetIgnored,
    /// A boot override is taken and forgotten before the next start.
    OverrideLost,
    /// The BMC restarts: away for this long, and the boot override is forgotten.
    Restart(Duration),
    /// The BMC restarts in the middle of a reset that it has accepted, which may or may not be performed.
    RestartMidReset(Duration),
    /// The next reset is accepted and hangs for this long before it is performed; until then the BMC takes no other.
    StuckReset(Duration),
}

/// How one start of a machine goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum MachineFault {
    /// The firmware takes this much longer.
    SlowFirmware(Duration),
    /// The network boot fails, and the firmware goes on to the disk.
    NoNetworkBoot,
    /// The installer never calls.
    NeverCalls,
    /// The installer stops in the middle of its work.
    Hangs,
    /// The installer is this many times slower.
    Slow(u32),
    /// The work fails, and the installer says so.
    WorkFails,
    /// The installed system does not come up.
    NoFirstBoot,
    /// The installed system comes up and cannot join.
    JoinFails,
    /// The machine loses power in the middle of the work and stays off.
    PowerLoss,
}

/// How an engine goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum EngineFault {
    /// It is killed, and started again after this long.
    Crash(Duration),
    /// It is killed at the next step of this kind, and started again after this long.
    CrashAt(Step, Duration),
    /// Its store is away for this long.
    StoreAway(Duration),
    /// The outcome of this many commits stays unknown; every other one was applied.
    UnknownCommits(u32),
    /// Its store answers this much later, for this long.
    SlowStore(Duration, Duration),
    /// It cannot reach any BMC for this long.
    NoBmcs(Duration),
    /// Installers cannot reach it for this long.
    NoInstallers(Duration),
    /// Its wall clock jumps by this many seconds.
    ClockJump(i64),
}

/// Where an engine can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Before a commit reaches the store.
    BeforeCommit,
    /// After the store has applied a commit, before the engine knows.
    AfterCommit,
    /// Before a request that changes something reaches a BMC.
    BeforeCall,
    /// After a BMC has performed such a request, before the engine knows.
    AfterCall,
}

/// How the tenant's cluster goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum ClusterFault {
    /// Its API server is away for this long.
    Away(Duration),
    /// It answers this many requests with this status.
    Status(u16, u32),
    /// Disruption budgets hold all pods for this long.
    Budgets(Duration),
}

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// With the BMC of a host: so many requests, or all that change something.
    Bmc {
        /// Which host.
        host: usize,
        /// How.
        fault: BmcFault,
        /// How many requests it hits.
        times: u32,
        /// Only requests that change something.
        changing: Scope,
    },
    /// With a machine, at its next starts.
    Machine {
        /// Which host.
        host: usize,
        /// How.
        fault: MachineFault,
        /// How many starts it hits.
        times: u32,
    },
    /// With an engine.
    Engine {
        /// Which.
        engine: usize,
        /// How.
        fault: EngineFault,
    },
    /// With the tenant's cluster.
    Cluster(ClusterFault),
    /// With a network link.
    Link {
        /// Which host's.
        host: usize,
        /// Which of its links.
        side: Side,
        /// How.
        how: Flapping,
    },
}

/// Which link of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Its BMC's.
    Bmc,
    /// Its boot interface's.
    Boot,
}

/// Which requests a fault of a BMC hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// Those that change something.
    Changing,
}

/// Something that goes wrong, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// From the beginning.
    pub at: Duration,
    /// What.
    pub what: What,
}
