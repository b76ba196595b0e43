//! Every interleaving of the lease protocol of `src/replica`, and every mistake in it that we could think
//! of: the protocol must have none that breaks its promises, and each mistake must be found.
//!
//! The large scopes want an optimised build: `make model`.
#![cfg(test)]
#![expect(clippy::cast_possible_truncation, reason = "nothing here is larger than a few bits")]

mod protocol;
mod search;
mod state;

use std::time::Instant;

use protocol::{Mutant, Protocol, Scope, Standby};

const ONE: Scope =
    Scope { replicas: 1, writers: 1, crashes: 1, failover: None, check: false, ticks: 2 };
const QUORUM: Option<Standby> = Some(Standby::Quorum);
const ASYNCHRONOUS: Option<Standby> = Some(Standby::Asynchronous);

fn hold(scopes: &[Scope]) {
    for &scope in scopes {
        let begun = Instant::now();
        let found = search::exhaust(&Protocol { scope, mutant: None });
        assert!(found.wrong.is_none(), "{scope:?}: {:?}", found.wrong);
        println!("{scope:?}: {} states, none wrong, {:.1?}", found.states, begun.elapsed());
    }
}

#[test]
fn the_protocol_keeps_its_promises_in_small_scopes() {
    hold(&[
        Scope { failover: QUORUM, check: true, ..ONE },
        Scope { failover: ASYNCHRONOUS, check: true, ..ONE },
        Scope { replicas: 2, writers: 2, crashes: 0, ..ONE },
        Scope { writers: 2, failover: QUORUM, ..ONE },
        Scope { replicas: 2, failover: QUORUM, ..ONE },
    ]);
}

#[test]
#[ignore = "takes minutes, and longer unoptimised: `make model`"]
fn the_protocol_keeps_its_promises_in_large_scopes() {
    let two = Scope { replicas: 2, writers: 2, ..ONE };
    hold(&[
        Scope { replicas: 2, failover: QUORUM, ticks: 3, ..ONE },
        Scope { replicas: 2, failover: QUORUM, check: true, ..ONE },
        Scope { replicas: 2, failover: ASYNCHRONOUS, check: true, ..ONE },
        Scope { check: true, ..two },
        Scope { failover: QUORUM, ..two },
        Scope { failover: ASYNCHRONOUS, ..two },
    ]);
}

#[test]
fn every_mistake_is_found() {
    let two = Scope { writers: 2, ..ONE };
    let pair = Scope { replicas: 2, ..ONE };
    let check = Scope { check: true, ..ONE };
    let quorum = Scope { failover: QUORUM, ..two };
    let asynchronous = Scope { failover: ASYNCHRONOUS, ..two };
    let mistakes = [
        (Mutant::AckBeforeSwap, ONE),
        (Mutant::AckWithoutEpoch, asynchronous),
        (Mutant::AsynchronousRenewals, ONE),
        (Mutant::CachedClock, check),
        (Mutant::CommitNotAwaited, quorum),
        (Mutant::LeaseAcrossTimelines, Scope { replicas: 2, writers: 1, ..asynchronous }),
        (Mutant::LeaseFromReply, ONE),
        (Mutant::LeaseReadAfterFacts, check),
        (Mutant::LeaseWithoutCatchingUp, ONE),
        (Mutant::NoFenceWait, Scope { replicas: 2, writers: 1, ..asynchronous }),
        (Mutant::NoMargin, ONE),
        (Mutant::NoOpSkipsBarrier, two),
        (Mutant::NoOpWithoutCommit, quorum),
        (Mutant::NoReload, asynchronous),
        (Mutant::PredecessorWithoutProof, ONE),
        (Mutant::ReadBeforeAnnouncing, ONE),
        (Mutant::ReapIgnoresSequence, two),
        (Mutant::ReapTooEarly, ONE),
        (Mutant::ReplaySkipsBarrier, ONE),
        (Mutant::ReplayWithoutCommit, quorum),
        (Mutant::RowDeletedBeforeStop, ONE),
        (Mutant::RowsReadBeforeCommit, ONE),
        (Mutant::SealNotFenced, asynchronous),
        (Mutant::TokenByNumber, asynchronous),
        (Mutant::ZeroRowsIgnored, pair),
    ];
    let mut missed = Vec::new();
    for (mutant, scope) in mistakes {
        let protocol = Protocol { scope, mutant: Some(mutant) };
        match search::trace(&protocol) {
            search::Found { states, wrong: Some((wrong, steps)) } => {
                println!(
                    "{mutant:?}: {wrong:?} in {} steps, {states} states: {steps:?}",
                    steps.len()
                );
            }
            found => missed.push((mutant, found.states)),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
