//! Storms of sign-ins: how many at once, and that how long one takes tells nothing.

use std::time::{Duration, Instant};

use rolecall::proto as pb;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::world::{Api, PASSWORD, World, check, reason};

async fn sign_in(api: &Api, email: &str, password: &str) -> Result<(), Status> {
    let request =
        pb::SignInRequest { tenant: "acme".into(), email: email.into(), password: password.into() };
    api.sessions().sign_in(request).await.map(drop)
}

/// So many sign-ins at once, and how long checks took beside them.
async fn storm(sign_ins: usize) -> (Vec<Result<(), Status>>, Vec<Duration>) {
    let mut world = World::start().await;
    let (_, user) = world.tenant("acme").await;
    let anonymous = world.anonymous().await;
    let all = (0..sign_ins).map(|_| {
        let api = anonymous.clone();
        tokio::spawn(async move { sign_in(&api, "admin@acme.example", PASSWORD).await })
    });
    let storm = tokio::spawn(futures::future::join_all(all.collect::<Vec<_>>()));
    let mut checks = Vec::new();
    while !storm.is_finished() || checks.is_empty() {
        let begun = Instant::now();
        let question = check("acme", &user, "anything.goes", "");
        let answer = world.operator.permissions().check_permission(question).await.unwrap();
        assert!(answer.into_inner().allowed);
        checks.push(begun.elapsed());
    }
    let outcomes = storm.await.unwrap().into_iter().map(Result::unwrap).collect();
    // Those that were refused were not tried, so nobody is held up by them.
    sign_in(&anonymous, "admin@acme.example", PASSWORD).await.unwrap();
    world.stop().await;
    (outcomes, checks)
}

#[tokio::test(flavor = "multi_thread")]
async fn more_sign_ins_than_can_wait_are_told_when_to_come_again() {
    let (outcomes, _) = storm(200).await;
    let (good, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert!(!good.is_empty() && !refused.is_empty(), "{} and {}", good.len(), refused.len());
    for status in refused.into_iter().map(Result::unwrap_err) {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(["TOO_MANY_SIGN_INS", "TOO_MANY_ATTEMPTS"].contains(&reason(&status).as_str()));
        assert!(status.get_details_retry_info().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures: wants an optimised build and an idle machine"]
async fn checks_do_not_wait_for_a_thousand_sign_ins() {
    let (outcomes, mut checks) = storm(1_000).await;
    checks.sort_unstable();
    let p99 = checks[checks.len() * 99 / 100];
    let good = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    println!("{good} of 1000 signed in; p99 of {} checks is {p99:?}", checks.len());
    assert!(p99 < Duration::from_millis(5), "{p99:?}");
}

/// Welch's t of two series.
fn welch(one: &[f64], two: &[f64]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "there are some thousand")]
    let of = |series: &[f64]| {
        let n = series.len() as f64;
        let mean = series.iter().sum::<f64>() / n;
        let variance = series.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, variance / n)
    };
    let ((first, noise), (second, more)) = (of(one), of(two));
    (first - second) / (noise + more).sqrt()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures: five thousand samples of each kind take a quarter of an hour"]
async fn how_long_a_refused_sign_in_or_a_reset_takes_tells_nothing() {
    const SAMPLES: usize = 5_000;
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let user_id = world.member(&admin, "acme", "gone@acme.example", &[]).await;
    let suspend =
        pb::SuspendMembershipRequest { tenant: "acme".into(), user_id, ..Default::default() };
    admin.memberships().suspend_membership(suspend).await.unwrap();
    let api = world.anonymous().await;
    let kinds = [
        ("wrong password", "admin@acme.example", "wrong wrong wrong"),
        ("unknown", "nobody@acme.example", "wrong wrong wrong"),
        ("suspended", "gone@acme.example", PASSWORD),
        ("empty", "admin@acme.example", ""),
    ];
    let mut took = [const { Vec::new() }; 6];
    for n in 0..SAMPLES {
        // Nobody is held up, and the order changes from sample to sample.
        world.advance(Duration::from_secs(400));
        for turn in 0..6 {
            let kind = (n + turn) % 6;
            let begun = Instant::now();
            if let Some((_, email, password)) = kinds.get(kind) {
                sign_in(&api, email, password).await.unwrap_err();
            } else {
                let email = if kind == 4 { "gone@acme.example" } else { "nobody@acme.example" };
                let request = pb::RequestPasswordResetRequest { email: email.into() };
                api.users().request_password_reset(request).await.unwrap();
            }
            took[kind].push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    let mut told = Vec::new();
    for (kind, (name, ..)) in kinds.iter().enumerate().skip(1) {
        told.push((*name, welch(&took[0], &took[kind])));
    }
    told.push(("reset", welch(&took[4], &took[5])));
    println!("{told:?}");
    assert!(told.iter().all(|(_, t)| t.abs() < 4.5), "{told:?}");
    world.server.stop().await;
}
