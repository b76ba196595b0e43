//! Races: every pair of paths that together could break what must always hold, at once on two servers,
//! where only the locks of the database stand between them. Taking out the tenant's lock breaks it.

mod paths;
mod stage;

use std::time::Instant;

use paths::{Kept, Path};
use stage::Stage;

/// Two paths that start at once, and from which state.
#[derive(Debug, Clone, Copy)]
struct Pair {
    start: Kept,
    first: (Path, usize),
    second: (Path, usize),
}

/// What takes the last administrator away, alone or with another.
const ENDS: [Path; 6] =
    [Path::Demote, Path::Suspend, Path::Remove, Path::Leave, Path::External, Path::Date];

fn pairs() -> Vec<Pair> {
    let mut pairs = Vec::new();
    // Ann and Ben are the administrators.
    for (n, first) in ENDS.into_iter().enumerate() {
        for second in &ENDS[n..] {
            let (first, second) = ((first, 0), (*second, 1));
            pairs.push(Pair { start: Kept::TwoAdministrators, first, second });
        }
        for (start, second) in [(Kept::ByRole, Path::EditRole), (Kept::ByGroup, Path::LeaveGroup)] {
            pairs.push(Pair { start, first: (first, 0), second: (second, 1) });
        }
    }
    // Cem is the third; one seat is left.
    for (start, first, second) in [
        (Kept::OneSeat, Path::Invite("dan@race.example"), Path::Invite("eve@race.example")),
        (Kept::OneSeatTwoSuspended, Path::Reactivate(1), Path::Reactivate(2)),
        (Kept::OneSeatOneSuspended, Path::Reactivate(2), Path::Invite("dan@race.example")),
        (Kept::OneSeat, Path::Invite("dan@race.example"), Path::Invite("DAN@race.example")),
        (Kept::Invited, Path::Accept, Path::Cancel),
        (Kept::Invited, Path::Accept, Path::Accept),
        (Kept::Invited, Path::Accept, Path::Resend),
        (Kept::Invited, Path::Cancel, Path::Resend),
        (Kept::Invited, Path::Accept, Path::Invite("cem@race.example")),
        (Kept::Invited, Path::Accept, Path::Invite("dan@race.example")),
        (Kept::Member, Path::Suspend, Path::SignIn),
        (Kept::Member, Path::Remove, Path::SignIn),
        (Kept::Member, Path::EndSessions, Path::SignIn),
        (Kept::Member, Path::Remove, Path::Assign("reader")),
        (Kept::Member, Path::Remove, Path::JoinGroup),
        (Kept::Member, Path::Suspend, Path::Remove),
        (Kept::Member, Path::DeleteRole, Path::Assign("passing")),
        (Kept::Member, Path::DeleteWorkspace, Path::AssignThere),
    ] {
        pairs.push(Pair { start, first: (first, 2), second: (second, 2) });
    }
    pairs
}

/// Runs every pair so many times, on so many stages at once, and returns what broke. Says each pair as
/// it ends.
async fn race(rounds: usize, stages: usize) -> Vec<String> {
    let all = (0..stages).map(async |n| {
        let stage = Stage::build().await;
        let mut broken = Vec::new();
        for pair in pairs().into_iter().skip(n).step_by(stages) {
            let (before, began) = (broken.len(), Instant::now());
            for round in 0..rounds {
                let wrong = once(&stage, pair).await;
                if !wrong.is_empty() {
                    broken.push(format!("{pair:?}, round {round}: {wrong:?}"));
                    stage.mend().await;
                }
            }
            let (wrong, took) = (broken.len() - before, began.elapsed().as_secs());
            println!("{pair:?}: {rounds} rounds, {wrong} broken, {took} s");
        }
        stage.stop().await;
        broken
    });
    futures::future::join_all(all).await.concat()
}

async fn once(stage: &Stage, Pair { start, first, second }: Pair) -> Vec<String> {
    stage.keep(start).await;
    let outcomes = tokio::join!(
        stage.run(0, &first.0, &stage.people[first.1]),
        stage.run(1, &second.0, &stage.people[second.1])
    );
    let mut wrong = stage.broken().await;
    wrong.extend(stage.broken_by(&outcomes).await);
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_paths_at_once_break_what_must_hold() {
    assert!(pairs().len() >= 30);
    let broken = race(2, 1).await;
    assert!(broken.is_empty(), "{broken:#?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a thousand rounds of every pair: an hour, optimised"]
async fn no_two_paths_at_once_break_what_must_hold_a_thousand_times() {
    let broken = race(1_000, 6).await;
    assert!(broken.is_empty(), "{} broken: {:#?}", broken.len(), &broken[..broken.len().min(20)]);
}
