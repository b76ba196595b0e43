//! Breadth first through every state, so that the first mistake found is the shortest.

use std::collections::{HashMap, HashSet};

use crate::{
    protocol::{Protocol, Step},
    state::{State, Wrong},
};

type Hasher = foldhash::fast::FixedState;

pub struct Found {
    pub states: usize,
    /// What must never happen, and the steps that lead there.
    pub wrong: Option<(Wrong, Vec<Step>)>,
}

/// Visits everything; what differs only in who is who is visited once.
pub fn exhaust(protocol: &Protocol) -> Found {
    let mut seen: HashSet<u128, Hasher> = HashSet::default();
    let mut frontier = vec![protocol.start().sorted().pack()];
    seen.insert(frontier[0]);
    let (mut deeper, mut next) = (Vec::new(), Vec::new());
    while !frontier.is_empty() {
        for packed in frontier.drain(..) {
            protocol.next(&State::unpack(packed), &mut next);
            for (_, state) in next.drain(..) {
                if state.wrong != Wrong::Nothing {
                    return trace(protocol);
                }
                let packed = state.sorted().pack();
                if seen.insert(packed) {
                    deeper.push(packed);
                }
            }
        }
        std::mem::swap(&mut frontier, &mut deeper);
    }
    Found { states: seen.len(), wrong: None }
}

/// Visits until something is wrong, and remembers how it came there.
pub fn trace(protocol: &Protocol) -> Found {
    let mut from: HashMap<u128, (u128, Step), Hasher> = HashMap::default();
    let start = protocol.start().pack();
    from.insert(start, (start, Step::Tick));
    let mut frontier = vec![start];
    let (mut deeper, mut next) = (Vec::new(), Vec::new());
    while !frontier.is_empty() {
        for packed in frontier.drain(..) {
            protocol.next(&State::unpack(packed), &mut next);
            for (step, state) in next.drain(..) {
                let then = state.pack();
                if from.contains_key(&then) {
                    continue;
                }
                from.insert(then, (packed, step));
                if state.wrong == Wrong::Nothing {
                    deeper.push(then);
                    continue;
                }
                let mut steps = Vec::new();
                let mut at = then;
                while at != start {
                    let (before, step) = from[&at];
                    steps.push(step);
                    at = before;
                }
                steps.reverse();
                return Found { states: from.len(), wrong: Some((state.wrong, steps)) };
            }
        }
        std::mem::swap(&mut frontier, &mut deeper);
    }
    Found { states: from.len(), wrong: None }
}
