//! Breadth first, so that a counterexample is a shortest one; then backwards from the good ends, to find states from which
//! none can be reached any more.

use std::collections::HashMap;

use crate::model::{Setting, State, World};

/// States after which a search is given up: a change that makes the space this large must be seen.
const MOST: usize = 400_000;

/// What a search found.
pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) moves: usize,
    pub(crate) counterexample: Option<String>,
}

/// Explores everything that can happen.
pub(crate) fn explore(setting: Setting) -> Found {
    let mut world = World::new(setting);
    let start = world.start();
    let mut known: HashMap<State, u32> = HashMap::from([(start.clone(), 0)]);
    let mut states = vec![start];
    // Where each state was first come from.
    let mut came: Vec<u32> = vec![0];
    let mut moves: Vec<(u32, u32)> = Vec::new();
    let mut next = 0;
    while next < states.len() {
        let state = states[next].clone();
        let from = u32::try_from(next).unwrap();
        if let Some(wrong) = world.wrong(&state) {
            let counterexample = Some(trace(&mut world, &states, &came, from, &wrong));
            return Found { states: states.len(), moves: moves.len(), counterexample };
        }
        for (_, state) in world.moves(&state) {
            let to = *known.entry(state.clone()).or_insert_with(|| {
                states.push(state);
                came.push(from);
                u32::try_from(states.len() - 1).unwrap()
            });
            moves.push((from, to));
        }
        assert!(states.len() < MOST, "more than {MOST} states: bound {setting:?}");
        next += 1;
    }
    let stuck = setting.hosts_move.then(|| stuck(&world, &states, &moves)).flatten();
    let counterexample = stuck.map(|state| {
        let at = world.show(&states[state as usize]);
        trace(&mut world, &states, &came, state, &format!("from here the hosts cannot all come back to the pool: {at}"))
    });
    Found { states: states.len(), moves: moves.len(), counterexample }
}

/// The first state from which no good end can be reached.
fn stuck(world: &World, states: &[State], moves: &[(u32, u32)]) -> Option<u32> {
    let mut before: Vec<Vec<u32>> = vec![Vec::new(); states.len()];
    for (from, to) in moves {
        before[*to as usize].push(*from);
    }
    let mut reaches = vec![false; states.len()];
    let mut open: Vec<usize> = (0..states.len()).filter(|i| world.good(&states[*i])).collect();
    while let Some(state) = open.pop() {
        if std::mem::replace(&mut reaches[state], true) {
            continue;
        }
        open.extend(before[state].iter().map(|from| *from as usize));
    }
    reaches.iter().position(|reaches| !reaches).map(|state| u32::try_from(state).unwrap())
}

fn trace(world: &mut World, states: &[State], came: &[u32], mut at: u32, wrong: &str) -> String {
    let mut lines = vec![wrong.to_owned()];
    while at != 0 {
        let from = came[at as usize];
        lines.push(format!("  {}", world.tell(&states[from as usize], &states[at as usize])));
        at = from;
    }
    lines[1..].reverse();
    lines.join("\n")
}
