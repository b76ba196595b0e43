//! Races: every pair of paths that together could break what must always hold, at once on two servers,
//! where only the locks of the database stand between them. Taking out the tenant's lock breaks it.

mod paths;
mod stage;

use paths::{Kept, Path};
use stage::Stage;

/// Two paths that start at once, and from which state.
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

/// Runs every pair so many times and returns what broke.
async fn race(rounds: usize) -> Vec<String> {
    let stage = Stage::build().await;
    let mut broken = Vec::new();
    for pair in pairs() {
        let ((first, one), (second, two)) = (&pair.first, &pair.second);
        for round in 0..rounds {
            stage.keep(pair.start).await;
            let outcomes = tokio::join!(
                stage.run(0, first, &stage.people[*one]),
                stage.run(1, second, &stage.people[*two])
            );
            let mut wrong = stage.broken().await;
            wrong.extend(stage.broken_by(&outcomes).await);
            if !wrong.is_empty() {
                broken.push(format!("{first:?} and {second:?}, round {round}: {wrong:?}"));
                stage.mend().await;
            }
        }
    }
    stage.stop().await;
    broken
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_paths_at_once_break_what_must_hold() {
    assert!(pairs().len() >= 30);
    let broken = race(2).await;
    assert!(broken.is_empty(), "{broken:#?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes hours: a thousand rounds of every pair"]
async fn no_two_paths_at_once_break_what_must_hold_a_thousand_times() {
    let broken = race(1_000).await;
    assert!(broken.is_empty(), "{} broken: {:#?}", broken.len(), &broken[..broken.len().min(20)]);
}
