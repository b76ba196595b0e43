//! Plans and seats: who takes one, who none, and that nobody takes one too many.

use std::time::Duration;

use rolecall::proto as pb;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::world::{Api, World, invite, reason};

const DAY: Duration = Duration::from_secs(86_400);

async fn choose(by: &Api, plan: &str, seat_limit: Option<i64>) -> Result<pb::SeatUsage, Status> {
    let request = pb::SetTenantPlanRequest {
        tenant: "acme".into(),
        plan: plan.into(),
        seat_limit,
        ..Default::default()
    };
    Ok(by.plans().set_tenant_plan(request).await?.into_inner().usage.unwrap())
}

async fn usage(by: &Api) -> pb::SeatUsage {
    let request = pb::GetSeatUsageRequest { tenant: "acme".into() };
    by.plans().get_seat_usage(request).await.unwrap().into_inner().usage.unwrap()
}

/// Internal, external, invited.
fn parts(usage: &pb::SeatUsage) -> (i64, i64, i64) {
    (usage.internal_members, usage.external_members, usage.open_invitations)
}

async fn ask(by: &Api, email: &str, kind: pb::MemberKind) -> Result<String, Status> {
    let request = pb::CreateInvitationRequest { kind: kind.into(), ..invite("acme", email, &[]) };
    let created = by.invitations().create_invitation(request).await?.into_inner();
    Ok(created.invitation.unwrap().id)
}

async fn suspend(by: &Api, user: &str) {
    let request = pb::SuspendMembershipRequest {
        tenant: "acme".into(),
        user_id: user.into(),
        ..Default::default()
    };
    by.memberships().suspend_membership(request).await.unwrap();
}

async fn reactivate(by: &Api, user: &str) -> Result<(), Status> {
    let request = pb::ReactivateMembershipRequest {
        tenant: "acme".into(),
        user_id: user.into(),
        ..Default::default()
    };
    by.memberships().reactivate_membership(request).await.map(drop)
}

async fn resend(by: &Api, invitation: &str) -> Result<(), Status> {
    let request = pb::ResendInvitationRequest {
        tenant: "acme".into(),
        invitation_id: invitation.into(),
        ..Default::default()
    };
    by.invitations().resend_invitation(request).await.map(drop)
}

fn exhausted(refused: &Status) -> std::collections::HashMap<String, String> {
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert_eq!(reason(refused), "SEATS_EXHAUSTED");
    refused.get_details_error_info().unwrap().metadata
}

#[tokio::test(flavor = "multi_thread")]
async fn members_and_open_invitations_take_the_three_seats_of_the_free_plan() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let free = choose(&world.operator, "free", None).await.unwrap();
    assert_eq!((free.seat_limit, free.used, free.available), (Some(3), 1, Some(2)));

    let guest = ask(&admin, "guest@far.example", pb::MemberKind::External).await.unwrap();
    let bob = world.member(&admin, "acme", "bob@acme.example", &[]).await;
    world.mail_to("guest@far.example").await;
    assert_eq!(parts(&usage(&admin).await), (2, 0, 1));
    let refused = ask(&admin, "eve@acme.example", pb::MemberKind::Internal).await.unwrap_err();
    let numbers = exhausted(&refused);
    for (name, number) in [("seat_limit", "3"), ("seats_used", "3"), ("seats_wanted", "1")] {
        assert_eq!(numbers[name], number, "{name}");
    }
    assert!(refused.message().contains("cancel open invitations"), "{}", refused.message());

    // One who is suspended takes none, and needs one to come back.
    suspend(&admin, &bob).await;
    let eve = ask(&admin, "eve@acme.example", pb::MemberKind::Internal).await.unwrap();
    exhausted(&reactivate(&admin, &bob).await.unwrap_err());

    // What expired takes none, and is listed still; to renew it takes one.
    world.advance(8 * DAY);
    let admin = world.sign_in("acme", "admin@acme.example").await;
    assert_eq!(parts(&usage(&admin).await), (1, 0, 0));
    reactivate(&admin, &bob).await.unwrap();
    resend(&admin, &guest).await.unwrap();
    exhausted(&resend(&admin, &eve).await.unwrap_err());
    world.accept("guest@far.example").await;
    assert_eq!(parts(&usage(&admin).await), (2, 1, 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_plan_takes_nothing_away_and_refuses_only_new_seats() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    assert_eq!(usage(&admin).await.seat_limit, None);
    for name in ["ann", "bob", "cem"] {
        world.member(&admin, "acme", &format!("{name}@acme.example"), &[]).await;
    }
    let dan = ask(&admin, "dan@acme.example", pb::MemberKind::Internal).await.unwrap();
    world.mail_to("dan@acme.example").await;
    let over = choose(&world.operator, "free", None).await.unwrap();
    assert!(over.over_limit && over.used == 5 && over.available == Some(0), "{over:?}");
    exhausted(&ask(&admin, "eve@acme.example", pb::MemberKind::Internal).await.unwrap_err());
    // The seat of whoever was invited is theirs, with a new link too.
    resend(&admin, &dan).await.unwrap();
    world.accept("dan@acme.example").await;
    assert_eq!(parts(&usage(&admin).await), (5, 0, 0));

    let more = choose(&world.operator, "premium", Some(6)).await.unwrap();
    assert_eq!((more.seat_limit, more.available, more.over_limit), (Some(6), Some(1), false));
    ask(&admin, "eve@acme.example", pb::MemberKind::Internal).await.unwrap();
    world.mail_to("eve@acme.example").await;
    exhausted(&ask(&admin, "fay@acme.example", pb::MemberKind::Internal).await.unwrap_err());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_invite_at_once_take_no_seat_too_many() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    choose(&world.operator, "premium", Some(8)).await.unwrap();
    let all = (0..20).map(|n| {
        let admin = admin.clone();
        async move {
            let email = format!("p{n}@acme.example");
            let kind = pb::MemberKind::Internal;
            ask(&admin, &email, kind).await.map(|_| email)
        }
    });
    let (invited, refused): (Vec<_>, Vec<_>) =
        futures::future::join_all(all).await.into_iter().partition(Result::is_ok);
    assert_eq!((invited.len(), refused.len()), (7, 13));
    refused.iter().for_each(|one| drop(exhausted(one.as_ref().unwrap_err())));
    for email in invited {
        world.mail_to(&email.unwrap()).await;
    }
    assert_eq!(usage(&admin).await.used, 8);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_are_the_operators_and_their_tenants_follow_them() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let refused = choose(&admin, "premium", None).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let unknown = choose(&world.operator, "gold", None).await.unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument);
    let zero = choose(&world.operator, "premium", Some(0)).await.unwrap_err();
    assert_eq!(crate::world::field(&zero), "seat_limit");

    let put = |seats: Option<i64>, etag: &str| pb::PutPlanRequest {
        key: "gold".into(),
        display_names: [("en".to_owned(), "Gold".to_owned())].into(),
        seat_limit: seats,
        etag: etag.into(),
        ..Default::default()
    };
    let mut plans = world.operator.plans();
    let misspelt = plans.put_plan(put(Some(2), "v1")).await.unwrap_err();
    assert_eq!(reason(&misspelt), "ETAG_MISMATCH", "of no plan");
    plans.put_plan(put(Some(2), "")).await.unwrap();
    choose(&world.operator, "gold", None).await.unwrap();
    assert_eq!(usage(&admin).await.available, Some(1));
    plans.put_plan(put(Some(1), "v1")).await.unwrap();
    exhausted(&ask(&admin, "bob@acme.example", pb::MemberKind::Internal).await.unwrap_err());
    let stale = plans.put_plan(put(None, "v1")).await.unwrap_err();
    assert_eq!(reason(&stale), "ETAG_MISMATCH");
    let listed = plans.list_plans(pb::ListPlansRequest {}).await.unwrap().into_inner().plans;
    let shown: Vec<_> = listed.iter().map(|p| (p.key.as_str(), p.seat_limit)).collect();
    assert_eq!(shown, [("free", Some(3)), ("gold", Some(1)), ("premium", None)]);

    // The installation has no plan, and as many seats as it likes.
    let request = pb::GetSeatUsageRequest { tenant: "system".into() };
    let usage = plans.get_seat_usage(request).await.unwrap().into_inner().usage.unwrap();
    let shown = (usage.plan.as_str(), usage.seat_limit, usage.available, usage.over_limit);
    assert_eq!(shown, ("", None, None, false));
    world.stop().await;
}
