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

/// So many people with the password of the administrator.
const PEOPLE: &[&str] = &[
    "insert into users (id, email, email_canonical, first_name, last_name, created_at, updated_at,
                        password_hash)
     select md5('storm' || n)::uuid, 's' || n || '@acme.example', 's' || n || '@acme.example', '', '',
            now(), now(), u.password_hash
     from users u, generate_series(1, 1000) n where u.email = 'admin@acme.example'",
    "insert into memberships (tenant_id, user_id, kind, status, created_at, updated_at, email_canonical)
     select t.id, md5('storm' || n)::uuid, 'internal', 'active', now(), now(), 's' || n || '@acme.example'
     from tenants t, generate_series(1, 1000) n where t.key = 'acme'",
];

/// So many people who sign in at once, how long checks took beside them, and by how many bytes this
/// process, which is server and clients, grew at most.
async fn storm(sign_ins: usize) -> (Vec<Result<(), Status>>, Vec<Duration>, u64) {
    let mut world = World::start().await;
    let (_, user) = world.tenant("acme").await;
    let mut owner = world.owner().await;
    for statement in PEOPLE {
        sqlx::query(*statement).execute(&mut owner).await.unwrap();
    }
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(world.anonymous().await);
    }
    let before = peak_after_reset();
    let all = (1..=sign_ins).map(|n| {
        let api = clients[n % clients.len()].clone();
        tokio::spawn(async move { sign_in(&api, &format!("s{n}@acme.example"), PASSWORD).await })
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
    let outcomes: Vec<_> = storm.await.unwrap().into_iter().map(Result::unwrap).collect();
    let grown = peak().saturating_sub(before);
    // Those that were refused were not tried, so nobody is held up by them.
    let refused = outcomes.iter().position(Result::is_err).unwrap_or_default() + 1;
    sign_in(&clients[0], &format!("s{refused}@acme.example"), PASSWORD).await.unwrap();
    world.stop().await;
    (outcomes, checks, grown)
}

/// The most memory that this process had at once, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or_default() << 10
}

fn peak_after_reset() -> u64 {
    // Not on every system; then it is the peak since the start.
    std::fs::write("/proc/self/clear_refs", "5").ok();
    peak()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_sign_ins_than_can_wait_are_told_when_to_come_again() {
    let (outcomes, ..) = storm(200).await;
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
    let (outcomes, mut checks, grown) = storm(1_000).await;
    checks.sort_unstable();
    let p99 = checks[checks.len() * 99 / 100];
    let good = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let told = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    let told = told.filter(|status| status.code() == Code::ResourceExhausted).count();
    println!("{good} signed in, {told} were told to come again; {} MiB more", grown >> 20);
    println!("p99 of {} checks is {p99:?}", checks.len());
    assert_eq!(good + told, 1_000);
    assert!(p99 < Duration::from_millis(5) && grown < 256 << 20, "{p99:?}, {grown} bytes");
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

/// One of the 720 orders of six.
fn permutation(number: usize) -> Vec<usize> {
    let (mut rest, mut left) = (number * 277 % 720, vec![0, 1, 2, 3, 4, 5]);
    (1..=6)
        .rev()
        .map(|among| {
            let chosen = left.remove(rest % among);
            rest /= among;
            chosen
        })
        .collect()
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
        // Nobody is held up, and each kind comes after every other: what was done just before counts.
        world.advance(Duration::from_secs(400));
        for kind in permutation(n) {
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
