//! Several real replicas over one real PostgreSQL, real clients, and everything that can go wrong. What the
//! clients saw is then held against the events: nothing stale, nothing wrong, nothing lost.
//!
//! Run it with `make torture`; the settings are read in `run.rs`.
#![cfg(test)]

mod checker;
mod clients;
mod cluster;
mod dice;
mod faults;
mod history;
mod losses;
mod paces;
mod proxy;
mod reference;
mod replica;
mod run;
mod scenes;
mod setup;
#[expect(dead_code, reason = "most of it is for the tests of features")]
#[path = "../it/world.rs"]
mod world;

use faults::{EVERYDAY, Fault};
use run::{Plan, torture};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes its time: `make torture`"]
async fn nothing_is_stale_or_lost_whatever_goes_wrong() {
    let verdict = torture(Plan { faults: run::wanted(&EVERYDAY), ..Plan::asked() }).await;
    assert!(verdict.clean(), "{}", verdict.shown.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes its time: `make torture`"]
async fn without_barrier_and_lease_stale_answers_are_found() {
    let broken = "no-barrier,no-lease".to_owned();
    let faults = vec![Fault::Delay, Fault::LostNotifications, Fault::HalfOpen];
    let verdict = torture(Plan { broken, faults, ..Plan::asked() }).await;
    println!("{}", verdict.shown.join("\n"));
    assert!(verdict.stale > 1_000, "only {} stale answers were found", verdict.stale);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes its time: `make torture`"]
async fn a_full_disk_loses_nothing() {
    let Some(disk) = run::small_disk() else {
        println!("skipped: no small disk to fill; `make torture` mounts one where it may");
        return;
    };
    println!("the disk: {}", disk.display());
    let faults = vec![Fault::FullDisk, Fault::Kill];
    let verdict = torture(Plan { faults, disk: Some(disk), ..Plan::asked() }).await;
    assert!(verdict.clean(), "{}", verdict.shown.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes its time: `make torture`"]
async fn failovers_to_a_quorum_standby_lose_nothing() {
    let plan =
        Plan { faults: vec![Fault::Failover], quorum: true, calm: (2_000, 4_000), ..Plan::asked() };
    let verdict = torture(plan).await;
    assert!(verdict.clean(), "{}", verdict.shown.join("\n"));
    assert_eq!(verdict.lost_in_failover, 0, "a quorum had acknowledged them");
}
