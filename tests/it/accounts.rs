//! Accounts: one's own, and what an operator does with anybody's.

use prost_types::FieldMask;
use rolecall::proto as pb;
use tonic::Code;

use crate::world::{PASSWORD, World, check, field, reason};

#[tokio::test(flavor = "multi_thread")]
async fn changing_a_password_ends_the_other_sessions_and_keeps_this_one() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    world.member(&admin, "acme", "bob@acme.example", &[]).await;
    let (here, there) = (
        world.sign_in("acme", "bob@acme.example").await,
        world.sign_in("acme", "bob@acme.example").await,
    );
    let change = |current: &str, new: &str| pb::ChangePasswordRequest {
        current_password: current.into(),
        new_password: new.into(),
        ..Default::default()
    };
    let new = "another horse, another staple";
    for weak in ["short", "qwertyuiop", &"x".repeat(1025)] {
        let refused = here.users().change_password(change(PASSWORD, weak)).await.unwrap_err();
        assert_eq!(field(&refused), "new_password", "{weak}");
    }
    let refused = here.users().change_password(change("wrong", new)).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unauthenticated, "PASSWORD_WRONG")
    );
    let request_id = uuid::Uuid::from_u128(7).to_string();
    let request = pb::ChangePasswordRequest { request_id, ..change(PASSWORD, new) };
    let first = here.users().change_password(request.clone()).await.unwrap().into_inner();
    let again = here.users().change_password(request).await.unwrap().into_inner();
    assert_eq!(first.revision, again.revision, "said twice, done once");

    let mine = || pb::ListMyTenantsRequest::default();
    here.users().list_my_tenants(mine()).await.unwrap();
    let refused = there.users().list_my_tenants(mine()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let sign_in = |password: &str| pb::SignInRequest {
        tenant: "acme".into(),
        email: "bob@acme.example".into(),
        password: password.into(),
    };
    let anonymous = world.anonymous().await;
    anonymous.sessions().sign_in(sign_in(PASSWORD)).await.unwrap_err();
    anonymous.sessions().sign_in(sign_in(new)).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_at_the_current_password_is_limited() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let guess = |n: usize| pb::ChangePasswordRequest {
        current_password: format!("guess {n}"),
        new_password: "another horse, another staple".into(),
        ..Default::default()
    };
    let mut limited = false;
    for n in 0..40 {
        let refused = admin.users().change_password(guess(n)).await.unwrap_err();
        limited = refused.code() == Code::ResourceExhausted;
        if limited {
            assert_eq!(reason(&refused), "TOO_MANY_ATTEMPTS");
            break;
        }
    }
    assert!(limited);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_its_owners_to_edit_and_an_operators_to_read() {
    let mut world = World::start().await;
    let (admin, first) = world.tenant("acme").await;
    let bob = world.member(&admin, "acme", "bob@acme.example", &[]).await;
    let get = |user_id: &str| pb::GetUserRequest { user_id: user_id.into() };
    let me = admin.users().get_user(get("")).await.unwrap().into_inner().user.unwrap();
    assert_eq!((me.id.as_str(), me.email.as_str()), (first.as_str(), "admin@acme.example"));
    let refused = admin.users().get_user(get(&bob)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    world.operator.users().get_user(get(&bob)).await.unwrap();

    let edit = |user_id: &str, etag: &str| pb::UpdateUserRequest {
        user_id: user_id.into(),
        first_name: "Augusta".into(),
        language: "fr".into(),
        etag: etag.into(),
        ..Default::default()
    };
    let refused = admin.users().update_user(edit(&bob, "")).await.unwrap_err();
    assert_eq!(reason(&refused), "PERMISSION_MISSING");
    let changed = admin.users().update_user(edit("", &me.etag)).await.unwrap().into_inner();
    let changed = changed.user.unwrap();
    assert_eq!((changed.first_name.as_str(), changed.language.as_str()), ("Augusta", "fr"));
    let refused = admin.users().update_user(edit(&first, &me.etag)).await.unwrap_err();
    assert_eq!(reason(&refused), "ETAG_MISMATCH");
    let refused = world.operator.users().update_user(edit("", "")).await.unwrap_err();
    assert_eq!(reason(&refused), "NOT_A_PERSON");
    world.stop().await;
}

fn known_as(user_id: &str, external_id: &str) -> pb::UpdateUserRequest {
    pb::UpdateUserRequest {
        user_id: user_id.into(),
        external_id: external_id.into(),
        metadata: [("plan".to_owned(), "gold".to_owned())].into(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_carries_the_installations_own_name_and_notes() {
    let mut world = World::start().await;
    let (admin, first) = world.tenant("acme").await;
    let bob = world.member(&admin, "acme", "bob@acme.example", &[]).await;
    let own = world.sign_in("acme", "bob@acme.example").await;
    let operator = world.operator.clone();
    let named = operator.users().update_user(known_as(&bob, "crm-7")).await.unwrap().into_inner();
    let named = named.user.unwrap();
    assert_eq!((named.external_id.as_str(), named.metadata["plan"].as_str()), ("crm-7", "gold"));
    let again = operator.users().update_user(known_as(&bob, "crm-7")).await.unwrap().into_inner();
    assert_eq!(again.user.unwrap().etag, named.etag, "nothing changed");

    // The person sees them, and neither they nor their tenant may look for them or change them.
    let seen = own.users().get_user(pb::GetUserRequest::default()).await.unwrap().into_inner();
    assert_eq!(seen.user.unwrap(), named);
    let find = pb::FindUserRequest { external_id: "crm-7".into(), ..Default::default() };
    for by in [&own, &admin] {
        let refused = by.users().find_user(find.clone()).await.unwrap_err();
        assert_eq!(reason(&refused), "PERMISSION_MISSING");
        for user in [&bob, &first] {
            for edit in [known_as(user, "mine"), nameless(user)] {
                let refused = by.users().update_user(edit).await.unwrap_err();
                assert_eq!(reason(&refused), "PERMISSION_MISSING");
            }
        }
    }
    let rename = |user_id: &str, name: &str| pb::UpdateUserRequest {
        user_id: user_id.into(),
        first_name: name.into(),
        ..Default::default()
    };
    let renamed = own.users().update_user(rename("", "Robert")).await.unwrap().into_inner();
    let renamed = renamed.user.unwrap();
    assert_eq!((renamed.first_name.as_str(), renamed.external_id.as_str()), ("Robert", "crm-7"));
    let renamed = operator.users().update_user(rename(&bob, "Bob")).await.unwrap().into_inner();
    assert_eq!(renamed.user.unwrap().first_name, "Bob");
    world.stop().await;
}

fn nameless(user_id: &str) -> pb::UpdateUserRequest {
    pb::UpdateUserRequest {
        user_id: user_id.into(),
        update_mask: Some(FieldMask { paths: vec!["external_id".into(), "metadata".into()] }),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_account_has_the_installations_name_until_it_is_taken_from_it() {
    let mut world = World::start().await;
    let (admin, first) = world.tenant("acme").await;
    let bob = world.member(&admin, "acme", "bob@acme.example", &[]).await;
    let operator = world.operator.clone();
    operator.users().update_user(known_as(&bob, "crm-7")).await.unwrap();
    let taken = operator.users().update_user(known_as(&first, "crm-7")).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    assert!(taken.message().contains("crm-7"), "{}", taken.message());
    let stale = pb::UpdateUserRequest { etag: "v1".into(), ..nameless(&bob) };
    let stale = operator.users().update_user(stale).await.unwrap_err();
    assert_eq!(reason(&stale), "ETAG_MISMATCH");
    let cleared = operator.users().update_user(nameless(&bob)).await.unwrap().into_inner();
    let cleared = cleared.user.unwrap();
    assert_eq!((cleared.external_id.as_str(), cleared.metadata.len()), ("", 0));
    operator.users().update_user(known_as(&first, "crm-7")).await.unwrap();
    for (user, external_id) in [(&bob, "x".repeat(201)), (&bob, "hid\u{200b}den".into())] {
        let refused = operator.users().update_user(known_as(user, &external_id)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_find_an_account_by_its_name_or_address_however_they_are_typed() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let bob = world.member(&admin, "acme", "bob@acme.example", &[]).await;
    let operator = world.operator.clone();
    // Stored in its composed form, without what stands around it.
    operator.users().update_user(known_as(&bob, " Zoe\u{308}-7 ")).await.unwrap();
    let find = |external_id: &str, email: &str| pb::FindUserRequest {
        external_id: external_id.into(),
        email: email.into(),
    };
    for (external_id, email) in
        [("Zo\u{eb}-7", ""), (" Zoe\u{308}-7", ""), ("", "BOB@acme.example")]
    {
        let found = operator.users().find_user(find(external_id, email)).await;
        assert_eq!(found.unwrap().into_inner().user.unwrap().id, bob);
    }
    for (external_id, email, code) in [
        ("zo\u{eb}-7", "", Code::NotFound),
        ("", "eve@acme.example", Code::NotFound),
        ("", "", Code::InvalidArgument),
        (" ", "", Code::InvalidArgument),
        ("", "bob", Code::InvalidArgument),
        ("Zo\u{eb}-7", "bob@acme.example", Code::InvalidArgument),
    ] {
        let refused = operator.users().find_user(find(external_id, email)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{external_id:?} {email:?}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ones_own_is_nobody_elses_to_do() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let bob = world.member(&admin, "acme", "bob@acme.example", &[]).await;
    let change = pb::ChangePasswordRequest {
        user_id: bob.clone(),
        current_password: PASSWORD.into(),
        new_password: "another horse, another staple".into(),
        ..Default::default()
    };
    let refused = admin.users().change_password(change.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), "NOT_YOURS");
    // Nor does a service do it that may act for the person.
    let acting = world.operator.on_behalf_of(&bob);
    let rename = pb::UpdateUserRequest { first_name: "Eve".into(), ..Default::default() };
    for refused in [
        acting.users().get_user(pb::GetUserRequest::default()).await.unwrap_err(),
        acting.users().update_user(rename).await.unwrap_err(),
        acting.users().change_password(change).await.unwrap_err(),
    ] {
        assert_eq!(reason(&refused), "NOT_YOURS");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_see_their_tenants_with_status_kind_and_roles() {
    let mut world = World::start().await;
    let (acme, _) = world.tenant("acme").await;
    let (zeta, _) = world.tenant("zeta").await;
    let bob = world.member(&acme, "acme", "bob@acme.example", &[]).await;
    let mut invite = crate::world::invite("zeta", "bob@acme.example", &[("administrator", "")]);
    invite.kind = pb::MemberKind::External.into();
    zeta.invitations().create_invitation(invite).await.unwrap();
    let token = world.token_to("bob@acme.example").await;
    let himself = world.sign_in("acme", "bob@acme.example").await;
    let accept = pb::AcceptInvitationRequest { token, account: None };
    himself.invitations().accept_invitation(accept).await.unwrap();
    let (tenant, user_id) = ("zeta".to_owned(), bob);
    let suspend = pb::SuspendMembershipRequest { tenant, user_id, ..Default::default() };
    zeta.memberships().suspend_membership(suspend).await.unwrap();

    let first = pb::ListMyTenantsRequest { page_size: 1, ..Default::default() };
    let first = himself.users().list_my_tenants(first).await.unwrap().into_inner();
    let next = pb::ListMyTenantsRequest { page_token: first.next_page_token, page_size: 0 };
    let next = himself.users().list_my_tenants(next).await.unwrap().into_inner();
    assert!(next.next_page_token.is_empty());
    let tenants = [first.tenants, next.tenants].concat();
    let [acme, zeta] = tenants.as_slice() else { panic!("{tenants:?}") };
    assert_eq!((acme.tenant.as_str(), zeta.tenant.as_str()), ("acme", "zeta"));
    assert_eq!(acme.roles[0].role, "member");
    assert_eq!(zeta.status(), pb::MembershipStatus::Suspended);
    assert_eq!(zeta.kind(), pb::MemberKind::External);
    assert_eq!(zeta.roles[0].role, "administrator", "{:?}", zeta.roles);
    let own = pb::ListMyTenantsRequest::default();
    let own = world.operator.users().list_my_tenants(own).await.unwrap().into_inner();
    assert_eq!(own.tenants[0].tenant, "system");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disabling_is_never_refused_and_tells_which_tenants_lose_their_last_administrator() {
    let mut world = World::start().await;
    let (admin, first) = world.tenant("acme").await;
    let (zeta, _) = world.tenant("zeta").await;
    world.member(&zeta, "zeta", "second@zeta.example", &[("administrator", "")]).await;
    let refused = pb::DisableUserRequest { user_id: first.clone(), ..Default::default() };
    let refused = admin.users().disable_user(refused).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let disable = || pb::DisableUserRequest { user_id: first.clone(), ..Default::default() };
    let closed = world.operator.users().disable_user(disable()).await.unwrap().into_inner();
    assert_eq!(closed.tenants_without_administrator, ["acme"]);
    assert_eq!(closed.user.unwrap().status(), pb::UserStatus::Disabled);
    let refused = admin.users().get_user(pb::GetUserRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let question = check("acme", &first, "anything.goes", "");
    let answer = world.operator.permissions().check_permission(question).await.unwrap();
    assert_eq!(answer.into_inner().reason().as_str_name(), "REASON_ACCOUNT_DISABLED");
    let again = world.operator.users().disable_user(disable()).await.unwrap().into_inner();
    assert!(again.tenants_without_administrator.is_empty(), "nothing changed");

    let enable = pb::EnableUserRequest { user_id: first.clone(), ..Default::default() };
    world.operator.users().enable_user(enable).await.unwrap();
    let refused = admin.users().get_user(pb::GetUserRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "an ended session stays ended");
    world.sign_in("acme", "admin@acme.example").await;
    let people = pb::ListMembershipsRequest { tenant: "zeta".into(), ..Default::default() };
    let people = world.operator.memberships().list_memberships(people).await.unwrap();
    let people = people.into_inner().memberships;
    let user_id = people.iter().find(|m| m.email.starts_with("second")).unwrap().user_id.clone();
    let spared = pb::DisableUserRequest { user_id, ..Default::default() };
    let spared = world.operator.users().disable_user(spared).await.unwrap().into_inner();
    assert!(spared.tenants_without_administrator.is_empty(), "zeta has another");
    world.stop().await;
}
