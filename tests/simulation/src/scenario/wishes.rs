//! What is asked for.

use std::time::Duration;

use super::{First, Order, Wish, s};
use crate::chance::Chance;

/// The last time at which something is asked for; what it leads to may come a little later.
const UNTIL: Duration = s(70 * 60);

/// Draws all that is asked for, in the order of time.
pub(super) fn draw(chance: &Chance, hosts: usize) -> Vec<(Duration, Wish)> {
    let mut wishes = Vec::new();
    for n in 0..1 + chance.below(hosts as u64 + 1) {
        claim(chance, &mut wishes, format!("node-{n}"));
    }
    if chance.one_in(4) {
        group(chance, &mut wishes, hosts);
    }
    if chance.one_in(4) {
        let host = chance.below(hosts as u64) as usize;
        wishes.push((chance.between(s(60), s(60 * 60)), Wish::Touch { host }));
    }
    // Half of all operators leave their hosts alone.
    for _ in 0..chance.below(8).saturating_sub(3) {
        let host = chance.below(hosts as u64) as usize;
        about_a_host(chance, &mut wishes, host);
    }
    wishes.sort_by_key(|(at, _)| *at);
    wishes
}

fn claim(chance: &Chance, wishes: &mut Vec<(Duration, Wish)>, name: String) {
    let at = chance.between(s(30), s(50 * 60));
    let drain = if chance.one_in(3) { 60 } else { 900 };
    wishes.push((at, Wish::Claim { name: name.clone(), drain }));
    if chance.one_in(2) {
        let at = at + chance.between(s(10), s(45 * 60));
        wishes.push((at, Wish::Release { name: name.clone() }));
        // The same name again: another claim, which has no right to what the first one had.
        if chance.one_in(2) {
            wishes.push((at + chance.between(s(60), s(20 * 60)), Wish::Claim { name, drain }));
        }
    }
}

/// A group, mostly one that the fleet can hold; some of its members are given back.
fn group(chance: &Chance, wishes: &mut Vec<(Duration, Wish)>, hosts: usize) {
    let size = (1 + chance.below(hosts as u64)).max(2);
    let at = chance.between(s(30), s(50 * 60));
    wishes.push((at, Wish::Group { name: "crew".to_owned(), size: size as u32, drain: 60 }));
    for n in 0..size {
        if chance.one_in(3) {
            let at = at + chance.between(s(10), s(40 * 60));
            wishes.push((at, Wish::Release { name: member("crew", n as u32) }));
        }
    }
}

/// The name of a group's member.
pub(crate) fn member(group: &str, number: u32) -> String {
    format!("node-{group}-{number}")
}

/// What an operator does about a host, and how he ends it.
fn about_a_host(chance: &Chance, wishes: &mut Vec<(Duration, Wish)>, host: usize) {
    let at = chance.between(s(30), UNTIL);
    let later = at + chance.between(s(5), s(20 * 60));
    let order = |order| Wish::Order { host, order };
    let mut course = |first, then: Option<Wish>| {
        wishes.push((at, first));
        wishes.extend(then.map(|wish| (later, wish)));
    };
    match chance.below(14) {
        0 | 1 => course(order(Order::Pause), Some(order(Order::Resume))),
        2 => course(order(Order::Maintenance(Some(later - at))), None),
        3 => {
            course(order(Order::Maintenance(None)), Some(order(Order::Resume)));
            wishes.push((at + (later - at) / 2, order(Order::PowerCycle)));
        }
        4 => course(order(Order::Quarantine), Some(order(Order::Unquarantine))),
        5 => course(order(Order::Inspect), None),
        6 => course(order(Order::Retry), None),
        7 | 8 => course(order(Order::ForceRelease), Some(order(Order::Unquarantine))),
        9 => course(order(Order::Detach), Some(Wish::Touch { host })),
        10 => course(Wish::Delete { host }, Some(Wish::Touch { host })),
        11 | 12 => course(order(Order::Retire), Some(Wish::Touch { host })),
        _ => {
            let first = *chance.pick(&[First::Bmc, First::Declaration]);
            course(Wish::Rotate { host, first, then: chance.between(s(1), s(300)) }, None);
        }
    }
}
