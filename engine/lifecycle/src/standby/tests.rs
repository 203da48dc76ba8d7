#![allow(clippy::unwrap_used, reason = "tests")]
use proptest::prelude::*;
use vmetal_model::{Claim, ClaimState, Uid};

use super::*;
use crate::host::tests::host;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn free(name: &str) -> Host {
    let mut host = host();
    host.metadata.name = name.into();
    host.metadata.uid = Uid(format!("uid-{name}"));
    host.metadata.labels = BTreeMap::from([("class".to_owned(), "a".to_owned())]);
    host.status.phase = HostPhase::Available;
    host
}

fn kept(name: &str, phase: HostPhase) -> Host {
    let mut host = free(name);
    host.status = install(&host, wish(name, "new")).unwrap().0;
    host.status.phase = phase;
    host
}

fn wish(name: &str, image: &str) -> Standby {
    Standby {
        uid: Uid(format!("standby-{name}")),
        node_type: "t".into(),
        image: image.into(),
        wish: StandbyWish::Keep,
        since: at(0),
    }
}

fn failed(name: &str, cause: Cause, when: i64) -> Host {
    let mut host = kept(name, HostPhase::Quarantined);
    host.status.failure = Some(crate::host::tests::failure_at(cause, at(when)));
    host
}

fn planned(wanted: u32, image: Option<&str>, hosts: &[Host], now: i64) -> (Vec<String>, Option<StandbyTrouble>) {
    let selector = BTreeMap::from([("class".to_owned(), "a".to_owned())]);
    let class = Class { name: "t", selector: &selector, wanted, image };
    let plan = plan(class, hosts, hosts, &Limits::default(), at(now));
    let word = |order: &Order<'_>| match order {
        Order::Install(host) => format!("+{}", host.name()),
        Order::GiveBack(host) => format!("-{}", host.name()),
    };
    (plan.orders.iter().map(word).collect(), plan.trouble)
}

fn orders(wanted: u32, image: Option<&str>, hosts: &[Host]) -> Vec<String> {
    planned(wanted, image, hosts, 0).0
}

#[test]
fn the_number_is_filled_up_with_the_least_used_hosts_and_kept() {
    let mut hosts = vec![free("a"), free("b"), free("c"), free("d")];
    hosts[0].status.tenancies.count = 3;
    assert_eq!(orders(2, Some("new"), &hosts), ["+b", "+c"]);
    hosts[1] = kept("b", HostPhase::Provisioning);
    hosts[2] = kept("c", HostPhase::Standby);
    assert!(orders(2, Some("new"), &hosts).is_empty(), "there are two");
    assert_eq!(orders(9, Some("new"), &hosts), ["+d", "+a"], "as many as there are");
}

#[test]
fn a_claimed_host_is_replaced() {
    let mut taken = kept("a", HostPhase::Standby);
    taken.status.claim = Some(Claim {
        node: "n".into(),
        uid: Uid("n".into()),
        state: ClaimState::Reserved,
        since: at(0),
        image: None,
        lease: None,
    });
    assert_eq!(orders(1, Some("new"), &[taken, free("b")]), ["+b"]);
}

#[test]
fn what_is_too_many_goes_back_and_what_is_under_way_first() {
    let mut hosts =
        vec![kept("a", HostPhase::Standby), kept("b", HostPhase::Provisioning), kept("c", HostPhase::Standby)];
    hosts[2].status.standby.as_mut().unwrap().since = at(5);
    assert_eq!(orders(2, Some("new"), &hosts), ["-b"]);
    assert_eq!(orders(1, Some("new"), &hosts), ["-b", "-c"]);
    assert_eq!(orders(0, Some("new"), &hosts), ["-a", "-b", "-c"]);
    let back = give_back(&hosts[0]).unwrap().0;
    hosts[0].status = back;
    assert!(give_back(&hosts[0]).is_none(), "ordered once");
    assert_eq!(orders(2, Some("new"), &hosts), Vec::<String>::new());
}

#[test]
fn another_image_another_label_or_no_image_at_all() {
    let mut hosts = vec![kept("a", HostPhase::Standby), kept("b", HostPhase::Standby)];
    assert_eq!(orders(2, Some("newer"), &hosts), ["-a", "-b"]);
    assert!(orders(2, None, &hosts).is_empty(), "while the image is being imported nothing is lost");
    assert!(orders(3, None, &[free("c")]).is_empty(), "and nothing is begun");
    hosts[0].metadata.labels.clear();
    assert_eq!(orders(2, Some("new"), &hosts), ["-a"]);
}

#[test]
fn only_what_a_claim_could_have_is_taken() {
    let unfit: [fn(&mut Host); 6] = [
        |host| host.status.phase = HostPhase::Error,
        |host| host.metadata.deleted = Some(at(1)),
        |host| host.status.standby = Some(wish("x", "old")),
        |host| {
            let hold = vmetal_model::Hold { reason: "r".into(), by: "b".into(), since: at(0), until: None };
            host.status.pause = Some(hold);
        },
        |host| {
            let maintenance = vmetal_model::DeclaredMaintenance { reason: "r".into(), until: None };
            host.spec.maintenance = Some(maintenance);
        },
        |host| {
            let (since, image) = (at(0), None);
            host.status.claim = Some(Claim {
                node: "n".into(),
                uid: Uid("n".into()),
                state: ClaimState::Install,
                since,
                image,
                lease: None,
            });
        },
    ];
    for (n, spoil) in unfit.into_iter().enumerate() {
        let mut host = free("a");
        spoil(&mut host);
        let ordered = orders(1, Some("new"), std::slice::from_ref(&host));
        assert!(!ordered.iter().any(|order| order.starts_with('+')), "{n}: {ordered:?}");
        assert!(install(&host, wish("a", "new")).is_err(), "{n}");
    }
}

#[test]
fn a_broken_image_costs_three_hosts_and_says_why() {
    let spare: Vec<Host> = ["v", "w", "x", "y", "z"].map(free).into();
    let with = |more: &[Host]| [spare.clone(), more.to_vec()].concat();
    assert_eq!(orders(5, Some("new"), &spare), ["+v", "+w", "+x"], "not all at once before one has come up");
    let one = with(&[failed("a", Cause::BootSilent, 100)]);
    let (ordered, trouble) = planned(5, Some("new"), &one, 120);
    let trouble = trouble.unwrap();
    assert!(ordered.is_empty(), "there is a pause");
    assert_eq!((trouble.failed, trouble.failure.cause, trouble.next), (1, Cause::BootSilent, Some(at(400))));
    assert_eq!(planned(5, Some("new"), &one, 400).0, ["+v"], "then one more");
    let again = with(&[failed("a", Cause::BootSilent, 100), kept("b", HostPhase::Provisioning)]);
    assert!(planned(5, Some("new"), &again, 9_000).0.is_empty(), "which is waited for");
    let three = with(&["a", "b", "c"].map(|name| failed(name, Cause::BootSilent, 100)));
    let (ordered, trouble) = planned(5, Some("new"), &three, 1_000_000);
    assert_eq!((ordered.is_empty(), trouble.map(|trouble| trouble.next)), (true, Some(None)));
    let newer = planned(2, Some("newer"), &three, 1_000_000).0;
    assert_eq!(newer, ["-a", "-b", "-c", "+v", "+w"], "another image is another chance");
}

#[test]
fn hosts_that_fail_by_themselves_are_replaced() {
    let hosts = [failed("a", Cause::BmcUnreachable, 0), failed("b", Cause::WrongMachine, 0), free("c"), free("d")];
    assert_eq!(orders(2, Some("new"), &hosts), ["+c", "+d"]);
    let proven = [failed("a", Cause::BootSilent, 0), kept("b", HostPhase::Standby), free("c")];
    assert_eq!(orders(2, Some("new"), &proven), ["+c"], "the image is known to be good");
}

proptest! {
    /// Obeyed again and again, a plan comes to rest at the number that is wanted, or at all that there are.
    #[test]
    fn plans_come_to_rest(
        phases in prop::collection::vec(0u8..4, 0..8), first in 0u32..6, then in 0u32..6, image in prop::bool::ANY,
    ) {
        let mut hosts: Vec<Host> = phases.iter().enumerate().map(|(n, phase)| match phase {
            0 => kept(&format!("h{n}"), HostPhase::Standby),
            1 => kept(&format!("h{n}"), HostPhase::Provisioning),
            _ => free(&format!("h{n}")),
        }).collect();
        for (wanted, image) in [(first, "new"), (then, if image { "newer" } else { "new" })] {
            for round in 0.. {
                prop_assert!(round < 20, "no rest");
                let (ordered, _) = planned(wanted, Some(image), &hosts, 0);
                if ordered.is_empty() && hosts.iter().all(|host| host.status.phase != HostPhase::Provisioning) {
                    break;
                }
                for host in &mut hosts {
                    if ordered.contains(&format!("+{}", host.name())) {
                        host.status = install(host, wish(host.name(), image)).unwrap().0;
                    }
                    if ordered.contains(&format!("-{}", host.name())) {
                        host.status.phase = HostPhase::Available;
                        host.status.standby = None;
                    } else if host.status.standby.is_some() {
                        host.status.phase = HostPhase::Standby;
                    }
                }
            }
            let waiting = hosts.iter().filter(|host| host.status.phase == HostPhase::Standby).count();
            prop_assert_eq!(waiting, (wanted as usize).min(hosts.len()));
        }
    }
}
