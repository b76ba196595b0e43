//! How long it takes until a change is obeyed everywhere, and how many changes there can be.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    run::{Plan, Scene},
    scenes::Caller,
};

/// How many durations were at most so long, in seconds, by the names of the metrics.
type Histograms = BTreeMap<String, BTreeMap<String, u64>>;

const BARRIER: &str = "rolecall_barrier_wait_seconds";
const FEED: &str = "rolecall_feed_delay_seconds";

/// What all replicas have measured together.
async fn measured(scene: &Scene) -> Histograms {
    let mut all = Histograms::new();
    for replica in &scene.stage.replicas {
        for line in replica.metrics().await.lines() {
            let Some((name, rest)) = line.split_once("_bucket{le=\"") else { continue };
            let Some((bound, count)) = rest.split_once("\"} ") else { continue };
            let bounds = all.entry(name.to_owned()).or_default();
            *bounds.entry(bound.to_owned()).or_default() += count.parse::<u64>().unwrap();
        }
    }
    all
}

/// The bound, in seconds, under which that share of what came since `before` is.
fn share(before: &Histograms, after: &Histograms, name: &str, percent: u64) -> f64 {
    let since = after[name].iter().map(|(bound, count)| {
        let earlier = before.get(name).and_then(|bounds| bounds.get(bound)).copied();
        (bound.parse::<f64>().unwrap(), count - earlier.unwrap_or_default())
    });
    let mut since: Vec<(f64, u64)> = since.collect();
    since.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all = since.last().unwrap().1;
    assert!(all > 0, "{name} was not measured");
    since.into_iter().find(|(_, count)| count * 100 >= all * percent).unwrap().0
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

/// Changes one after the other in every tenant, as fast as they are acknowledged; how many a second.
async fn busy(caller: &Caller, seconds: u64) -> u64 {
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut writers = JoinSet::new();
    for writer in 0..4 * caller.tenants.len() {
        let caller = caller.clone();
        writers.spawn(async move {
            let mut done = 0;
            while Instant::now() < until {
                let (replica, tenant) = (writer % caller.apis.len(), writer % caller.tenants.len());
                caller.change(replica, tenant).await.unwrap();
                done += 1;
            }
            done
        });
    }
    writers.join_all().await.into_iter().sum::<u64>() / seconds
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures: wants an optimised build and an idle machine"]
async fn how_long_changes_wait_and_how_many_there_can_be() {
    let plan = Plan { tenants: 5, ..Plan::asked() };
    let mut scene = Scene::set(&plan).await;
    let caller = Caller::of(&scene);
    caller.all_answer().await;
    let before = measured(&scene).await;
    let mut beat = tokio::time::interval(Duration::from_millis(20));
    let mut changes = JoinSet::new();
    for n in 0..usize::try_from(plan.seconds).unwrap() * 50 {
        beat.tick().await;
        let caller = caller.clone();
        let (replica, tenant) = (n % caller.apis.len(), n % caller.tenants.len());
        changes.spawn(async move { caller.timed(replica, tenant).await });
    }
    let mut took = Vec::new();
    for (duration, outcome) in changes.join_all().await {
        outcome.unwrap();
        took.push(duration);
    }
    took.sort_unstable();
    let after = measured(&scene).await;
    println!("{} changes at 50 a second with {} replicas:", took.len(), plan.replicas);
    println!("  whole call   p50 {:?}, p99 {:?}", percentile(&took, 50), percentile(&took, 99));
    for (what, name) in [("barrier     ", BARRIER), ("propagation ", FEED)] {
        let under = |percent| 1_000.0 * share(&before, &after, name, percent);
        println!("  {what} p50 under {} ms, p99 under {} ms", under(50), under(99));
    }
    println!("  at the most {} changes a second", busy(&caller, 10).await);
    scene.cluster.add_standby(true).await;
    println!("  with a standby that confirms them {}", busy(&caller, 10).await);
}
