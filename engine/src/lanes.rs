//! How much of each kind of work goes on at the same time in this engine: exact, first come first served.

mod places;

use std::sync::Arc;

use serde::Deserialize;
use vmetal_lifecycle::node::Effect;
use vmetal_model::OperationKind;
use vmetal_runtime::{Lane, LaneCounts};

pub use places::{Place, PlacedLane, Urgency};

/// The widths of the lanes. Each engine has its own; with several, the fleet sees their sum.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Widths {
    /// Calls to BMCs at the same time. Each holds a connection, so it is at most a quarter of the files that the process may
    /// have open, whatever is said here. Default 4,096: BMCs that do not answer hold a place until their call times out, and
    /// the others are not to wait for them.
    pub bmc: usize,
    /// Hosts that are being registered. Default 512: a fleet that is declared all at once is worked through host by host, and
    /// the first are in the pool before the last are looked at. Whoever pauses because a BMC does not answer holds no place.
    pub register: usize,
    /// Of those, servers being switched on or off: what a power feed must stand. Default 256.
    pub power: usize,
    /// Of those, BMCs being restarted, as for firmware: each is away for minutes. Default 16.
    pub firmware: usize,
    /// Servers that boot or run the installer. Default 1,024: so many fetch kernel and installer, 60 MiB each, and write
    /// images at the same time.
    pub boot: usize,
    /// Images being fetched and imported. Default 2.
    pub image: usize,
    /// Calls to tenants' API servers. Default 64.
    pub join: usize,
}

impl Default for Widths {
    fn default() -> Self {
        Widths { bmc: 4_096, register: 512, power: 256, firmware: 16, boot: 1_024, image: 2, join: 64 }
    }
}

impl Widths {
    /// The key of a lane that is closed: nothing would ever go through it.
    pub fn closed(&self) -> Option<&'static str> {
        let Widths { bmc, register, power, firmware, boot, image, join } = self;
        let all = [
            ("lanes.bmc", bmc),
            ("lanes.register", register),
            ("lanes.power", power),
            ("lanes.firmware", firmware),
            ("lanes.boot", boot),
            ("lanes.image", image),
            ("lanes.join", join),
        ];
        all.into_iter().find(|(_, width)| **width == 0).map(|(key, _)| key)
    }
}

/// The lanes.
#[derive(Debug, Clone)]
pub struct Lanes {
    bmc: Lane,
    register: Arc<PlacedLane>,
    power: Lane,
    firmware: Lane,
    boot: Arc<PlacedLane>,
    image: Lane,
    join: Lane,
}

/// Places in every lane that some work needs; given back when dropped.
#[must_use = "dropping it gives the places back"]
pub struct Turn {
    _places: [Option<vmetal_runtime::Permit>; 2],
}

impl Lanes {
    /// Lanes of these widths.
    pub fn new(widths: &Widths) -> Self {
        Lanes {
            bmc: Lane::new("bmc", widths.bmc),
            register: Arc::new(PlacedLane::new("register", widths.register)),
            power: Lane::new("power", widths.power),
            firmware: Lane::new("firmware", widths.firmware),
            boot: Arc::new(PlacedLane::new("boot", widths.boot)),
            image: Lane::new("image", widths.image),
            join: Lane::new("join", widths.join),
        }
    }

    /// Waits for what an operation on a host needs. The narrow lane first: whoever waits for it takes no place from those who
    /// could go on, which is why a wider lane never slows anything down.
    pub async fn operation(&self, kind: OperationKind) -> Turn {
        let (narrow, wide) = match kind {
            OperationKind::AllocateAddress | OperationKind::OpenBoot => (None, None),
            OperationKind::ProbeBmc
            | OperationKind::ReadPower
            | OperationKind::SetNetworkBoot
            | OperationKind::ChangePassword => (None, Some(&self.bmc)),
            OperationKind::PowerOn | OperationKind::PowerOff => (Some(&self.power), Some(&self.bmc)),
            OperationKind::ResetBmc => (Some(&self.firmware), Some(&self.bmc)),
        };
        Turn { _places: [place(narrow).await, place(wide).await] }
    }

    /// Waits for what an effect for a claim needs.
    pub async fn effect(&self, effect: Effect) -> Turn {
        let lane = match effect {
            Effect::Decide => None,
            _ => Some(&self.join),
        };
        Turn { _places: [place(lane).await, None] }
    }

    /// Waits for what an import needs.
    pub async fn import(&self) -> Turn {
        Turn { _places: [place(Some(&self.image)).await, None] }
    }

    /// Where hosts have a place while they are registered.
    pub fn register(&self) -> &PlacedLane {
        &self.register
    }

    /// Where servers have a place while the installer boots and runs on them.
    pub fn boot(&self) -> &PlacedLane {
        &self.boot
    }

    /// How full they are.
    pub fn counts(&self) -> [LaneCounts; 7] {
        let [bmc, power, firmware, image, join] =
            [&self.bmc, &self.power, &self.firmware, &self.image, &self.join].map(Lane::counts);
        [bmc, self.register.counts(), power, firmware, self.boot.counts(), image, join]
    }
}

async fn place(lane: Option<&Lane>) -> Option<vmetal_runtime::Permit> {
    match lane {
        Some(lane) => Some(lane.acquire().await),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::{Instant, sleep};

    use super::*;

    /// A call to a cluster.
    const EFFECT: Effect = Effect::CheckNode;

    /// Virtual time that the work of 500 hosts takes, in each lane and across them: a host reads, switches, reads, and has its
    /// BMC restarted; a claim calls its cluster; an image is fetched. One BMC in twenty is fifty times as slow.
    async fn work(widths: &Widths) -> Duration {
        let (lanes, start) = (Lanes::new(widths), Instant::now());
        let mut all = JoinSet::new();
        for number in 0..500_u32 {
            let lanes = lanes.clone();
            all.spawn(async move {
                let slow = if number % 20 == 0 { 50 } else { 1 };
                for (kind, takes) in [
                    (OperationKind::ProbeBmc, 20),
                    (OperationKind::PowerOn, 100),
                    (OperationKind::ReadPower, 10),
                    (OperationKind::ResetBmc, 40),
                ] {
                    let turn = lanes.operation(kind).await;
                    sleep(Duration::from_millis(takes * slow)).await;
                    drop(turn);
                }
                let turn = lanes.effect(EFFECT).await;
                sleep(Duration::from_millis(60)).await;
                drop(turn);
                let turn = lanes.import().await;
                sleep(Duration::from_millis(60)).await;
                drop(turn);
            });
        }
        all.join_all().await;
        start.elapsed()
    }

    /// One lane of calls, by what it is set to. How the places of hosts are given is tested where they are.
    type Knob = (&'static str, fn(&mut Widths) -> &mut usize);
    const KNOBS: [Knob; 5] = [
        ("bmc", |widths| &mut widths.bmc),
        ("power", |widths| &mut widths.power),
        ("firmware", |widths| &mut widths.firmware),
        ("image", |widths| &mut widths.image),
        ("join", |widths| &mut widths.join),
    ];

    /// Each knob at one, four and sixteen times as much, while the others are narrow, alike and wide: whichever is the bottleneck,
    /// no step costs more than a tenth of the throughput.
    #[tokio::test(start_paused = true)]
    async fn raising_any_knob_never_lowers_throughput() {
        for others in [2, 8, 64] {
            for (name, knob) in KNOBS {
                let mut before: Option<Duration> = None;
                for times in [1, 4, 16] {
                    let mut widths = Widths {
                        bmc: others,
                        power: others,
                        firmware: others,
                        image: others,
                        join: others,
                        ..Widths::default()
                    };
                    *knob(&mut widths) = 2 * times;
                    let now = work(&widths).await;
                    let best = before.map_or(now, |before| before.min(now));
                    assert!(
                        now.as_secs_f64() <= best.as_secs_f64() * 1.1,
                        "{name} at {}, the others at {others}: {now:?}, and {before:?} with less",
                        2 * times
                    );
                    before = Some(best);
                }
            }
        }
    }

    /// What the test above would find: the places that a knob adds are used.
    #[tokio::test(start_paused = true)]
    async fn the_knob_that_is_the_bottleneck_raises_throughput() {
        let wide = Widths { bmc: 4_096, power: 64, firmware: 64, image: 64, join: 64, ..Widths::default() };
        for (name, knob) in KNOBS {
            let mut narrow = wide.clone();
            *knob(&mut narrow) = 1;
            let (few, many) = (work(&narrow).await, work(&wide).await);
            assert!(few > many * 2, "{name}: {few:?} with one place, {many:?} with many");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lanes_are_exact_and_those_who_wait_for_power_hold_no_connection() {
        let lanes = Lanes::new(&Widths { bmc: 4, power: 1, ..Widths::default() });
        let first = lanes.operation(OperationKind::PowerOff).await;
        let waiting = tokio::spawn({
            let lanes = lanes.clone();
            async move { lanes.operation(OperationKind::PowerOn).await }
        });
        sleep(Duration::from_millis(1)).await;
        let counts = lanes.counts();
        assert_eq!((counts[0].in_use, counts[2].in_use, counts[2].waiting), (1, 1, 1));
        drop(first);
        let _second = waiting.await.unwrap();
        assert_eq!(Widths { image: 0, ..Widths::default() }.closed(), Some("lanes.image"));
        assert_eq!(Widths::default().closed(), None);
    }
}
