//! What a lost part of the database's history must not undo: rows of replicas, announcements, and what
//! was obeyed.

use std::time::{Duration, Instant};

use rolecall::ids::Revision;
use sqlx::Executor;
use tonic::Code;

use crate::{
    proxy::Mode,
    run::{Plan, Scene},
    scenes::{Caller, PATIENCE},
};

/// A change that is repeated, as another one, until it is acknowledged.
async fn insist(caller: &Caller, replica: usize) -> Revision {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        match caller.change(replica, 0).await {
            Ok(revision) => return revision.parse().unwrap(),
            Err(status) => assert!(Instant::now() < patience, "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether it obeys or answers nothing.
async fn obeys(caller: &Caller, replica: usize, acknowledged: Revision) -> bool {
    match caller.check(replica, 0, None).await {
        Ok(answer) => answer.revision.parse::<Revision>().unwrap() >= acknowledged,
        Err(status) => status.code() == Code::Unavailable,
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes its time: `make torture`"]
async fn a_replica_whose_row_a_failover_lost_answers_nothing_old() {
    let mut scene = Scene::set(&Plan { lease: 10, tenants: 1, ..Plan::asked() }).await;
    let caller = Caller::of(&scene);
    scene.cluster.add_standby(false).await;
    let newcomer = scene.stage.replicas[2].clone();
    newcomer.stop().await;
    caller.change(0, 0).await.unwrap();
    scene.cluster.caught_up().await;
    scene.cluster.isolate_standby();
    newcomer.launch("").await;
    newcomer.ready().await;
    for n in 0..40 {
        caller.change(n % 3, 0).await.unwrap();
    }
    caller.check(2, 0, None).await.unwrap();
    newcomer.proxy.set(Mode::Hold);
    let begun = Instant::now();
    scene.cluster.crash().await;
    scene.cluster.promote().await;
    for replica in &scene.stage.replicas[..2] {
        replica.proxy.lead_to(scene.cluster.port);
        replica.proxy.cut();
    }
    let acknowledged = insist(&caller, 1).await;
    println!("acknowledged after {:?}", begun.elapsed());
    assert!(obeys(&caller, 2, acknowledged).await, "STALE: its row is lost, its lease is not");
    newcomer.proxy.lead_to(scene.cluster.port);
    newcomer.proxy.set(Mode::Pass);
    newcomer.proxy.cut();
    for n in 0..35 {
        let acknowledged = insist(&caller, 1).await;
        assert!(obeys(&caller, 2, acknowledged).await, "STALE: change {n} in the new epoch");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    caller.check(2, 0, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes its time: `make torture`"]
async fn a_crash_of_the_database_loses_no_announcement() {
    let mut scene = Scene::set(&Plan { lease: 5, tenants: 1, ..Plan::asked() }).await;
    let caller = Caller::of(&scene);
    caller.all_answer().await;
    let mut conn = scene.cluster.connect().await;
    // What nobody waits for is stored late.
    for set in ["alter system set wal_writer_delay = '10s'", "select pg_reload_conf()"] {
        conn.execute(set).await.unwrap();
    }
    let held = scene.stage.replicas[2].clone();
    held.proxy.set(Mode::Hold);
    let begun = Instant::now();
    while sqlx::query_scalar::<_, i64>("select count(*) from replicas where name = 'r2'")
        .fetch_one(&mut conn)
        .await
        .unwrap()
        > 0
    {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Its row is gone for good.
    caller.change(0, 0).await.unwrap();
    held.proxy.set(Mode::Pass);
    let begun = Instant::now();
    while caller.check(2, 0, None).await.is_err() {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Until a renewal that did not wait for a connection.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    held.proxy.set(Mode::Hold);
    let begun = Instant::now();
    scene.cluster.crash().await;
    scene.cluster.restart().await;
    let acknowledged = insist(&caller, 0).await;
    println!("acknowledged {:?} after the crash", begun.elapsed());
    assert!(obeys(&caller, 2, acknowledged).await, "STALE: its announcement was lost");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes its time: `make torture`"]
async fn what_was_obeyed_in_a_history_that_was_lost_counts_for_nothing() {
    let mut scene = Scene::set(&Plan { tenants: 1, ..Plan::asked() }).await;
    let caller = Caller::of(&scene);
    scene.cluster.add_standby(false).await;
    for replica in &scene.stage.replicas {
        replica.stop().await;
    }
    scene.cluster.caught_up().await;
    scene.cluster.isolate_standby();
    for replica in &scene.stage.replicas {
        replica.launch("").await;
        replica.ready().await;
    }
    for _ in 0..40 {
        insist(&caller, 0).await;
    }
    scene.cluster.crash().await;
    scene.cluster.promote().await;
    for replica in &scene.stage.replicas {
        replica.proxy.lead_to(scene.cluster.port);
        replica.proxy.cut();
    }
    for n in 0..35 {
        let acknowledged = insist(&caller, 1).await;
        for replica in 0..3 {
            // Of what is in memory from the beginning: a tenant would have to be loaded first.
            let asked = Caller {
                tenants: vec![("system".into(), caller.tenants[0].1.clone())],
                ..caller.clone()
            };
            assert!(obeys(&asked, replica, acknowledged).await, "STALE: r{replica}, change {n}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    caller.all_answer().await;
}
