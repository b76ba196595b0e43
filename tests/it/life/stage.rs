//! Where the verbs are done: two fresh tenants of one server, and people with addresses of their own.

use std::time::Duration;

use rolecall::proto::{self as pb, accept_invitation_request::Account};
use secrecy::ExposeSecret;
use tonic::{Code, Status};

use super::{
    model::{DATED, DAY, Model},
    shown::{Listed, Question, Seats, Shown, ShownTenant, Subject},
    verbs::{PEOPLE, Place, Role, TENANTS, Verb, Who},
};
use crate::{
    checks::item,
    world::{Api, Auth, PASSWORD, World, accept, invite, reason, role_on},
};

/// In seconds.
const HOUR: i64 = 3_600;

pub struct Stage<'w> {
    world: &'w World,
    n: u32,
    /// The time of the model's beginning, in seconds.
    began: i64,
    /// The ids of what the model knows by number.
    people: [Option<String>; PEOPLE],
    invitations: [Vec<String>; TENANTS],
    sessions: Vec<String>,
}

impl<'w> Stage<'w> {
    /// Nobody has joined yet: the first two people are invited as administrators, each of one tenant.
    pub async fn build(world: &'w World, n: u32) -> Self {
        let mut stage = Self {
            world,
            n,
            began: world.server.app.clock.now().timestamp(),
            people: Default::default(),
            invitations: Default::default(),
            sessions: Vec::new(),
        };
        for at in 0..TENANTS {
            stage.furnish(at).await;
        }
        stage
    }

    async fn furnish(&mut self, at: Place) {
        let (tenant, by) = (self.tenant(at), &self.world.operator);
        let administrator = pb::TenantAdministrator { email: self.email(at), ..Default::default() };
        let create = pb::CreateTenantRequest {
            key: tenant.clone(),
            display_name: "Life".into(),
            administrator: Some(administrator),
            plan: "premium".into(),
            ..Default::default()
        };
        let created = by.tenants().create_tenant(create).await.unwrap().into_inner();
        self.invitations[at].push(created.invitation_id);
        self.make_role(at, Role::Boss, "iam.administer").await.unwrap();
        self.make_role(at, Role::Reader, "files.read").await.unwrap();
        let group = pb::CreateGroupRequest {
            tenant,
            key: "team".into(),
            display_name: "Team".into(),
            ..Default::default()
        };
        by.groups().create_group(group).await.unwrap();
    }

    fn tenant(&self, at: Place) -> String {
        format!("life{}-{at}", self.n)
    }

    fn email(&self, who: Who) -> String {
        format!("p{who}@life{}.example", self.n)
    }

    fn user(&self, who: Who) -> String {
        self.people[who].clone().unwrap()
    }

    fn scope(place: Option<usize>) -> String {
        place.map_or_else(String::new, |n| format!("workspaces/w{n}"))
    }

    /// On the newest workspace; one that there never was, when there was none.
    fn on(model: &Model, at: Place, role: Role, there: bool) -> pb::AssignRole {
        let newest = model.tenants[at].workspace().unwrap_or(0);
        role_on(role.key(), &Self::scope(there.then_some(newest)))
    }

    fn by_session(&self, n: usize) -> Api {
        let auth = Auth::of(&self.sessions[n]);
        Api { channel: self.world.operator.channel.clone(), auth }
    }

    async fn make_role(&self, at: Place, role: Role, permission: &str) -> Result<(), Status> {
        let new = pb::CreateRoleRequest {
            tenant: self.tenant(at),
            key: role.key().into(),
            display_names: [("en".to_owned(), role.key().to_owned())].into(),
            permissions: vec![permission.into()],
            ..Default::default()
        };
        self.world.operator.roles().create_role(new).await.map(drop)
    }

    /// Does what the verb says, as the model before it stands; the reason of a refusal.
    pub async fn act(&mut self, model: &Model, verb: Verb) -> Result<(), String> {
        let done = match verb {
            Verb::Wait { days } => {
                let seconds = (days * DAY * HOUR).unsigned_abs();
                self.world.advance(Duration::from_secs(seconds));
                Ok(())
            }
            Verb::Invite { .. }
            | Verb::Resend { .. }
            | Verb::Cancel { .. }
            | Verb::Accept { .. }
            | Verb::Decline { .. } => self.act_on_invitation(model, verb).await,
            Verb::Give { .. }
            | Verb::Take { .. }
            | Verb::JoinGroup { .. }
            | Verb::LeaveGroup { .. }
            | Verb::GiveGroup { .. }
            | Verb::TakeGroup { .. } => self.act_on_holding(model, verb).await,
            Verb::Suspend { at, who, .. }
            | Verb::Reactivate { at, who }
            | Verb::Remove { at, who }
            | Verb::Leave { at, who }
            | Verb::Purge { at, who, .. }
            | Verb::SetKind { at, who, .. } => self.act_on_member(model, verb, at, who).await,
            Verb::SignIn { at, who }
            | Verb::OpenSession { at, who }
            | Verb::EndSessions { at, who } => self.act_on_sessions(verb, at, who).await,
            Verb::DeleteAccount { who } | Verb::Disable { who } | Verb::Enable { who } => {
                self.act_on_account(verb, who).await
            }
            _ => self.act_on_tenant(model, verb).await,
        };
        done.map_err(|refused| match reason(&refused) {
            reason if reason.is_empty() => refused.to_string(),
            reason => reason,
        })
    }

    async fn act_on_invitation(&mut self, model: &Model, verb: Verb) -> Result<(), Status> {
        let mut invitations = self.world.operator.invitations();
        match verb {
            Verb::Invite { at, by, who, kind, role, there } => {
                if let Some(by) = by {
                    let session = model.newest_session(at, by).unwrap();
                    invitations = self.by_session(session).invitations();
                }
                let roles = role.map(|role| Self::on(model, at, role, there));
                let new = pb::CreateInvitationRequest {
                    kind: kind.shown().into(),
                    roles: roles.into_iter().collect(),
                    ..invite(&self.tenant(at), &self.email(who), &[])
                };
                let created = invitations.create_invitation(new).await?.into_inner();
                self.invitations[at].push(created.invitation.unwrap().id);
                Ok(())
            }
            Verb::Resend { at, who, nth } => {
                let (tenant, invitation_id) = (self.tenant(at), self.named(model, at, who, nth).0);
                let again =
                    pb::ResendInvitationRequest { tenant, invitation_id, ..Default::default() };
                invitations.resend_invitation(again).await.map(drop)
            }
            Verb::Cancel { at, who, nth } => {
                let (tenant, invitation_id) = (self.tenant(at), self.named(model, at, who, nth).0);
                let end =
                    pb::CancelInvitationRequest { tenant, invitation_id, ..Default::default() };
                invitations.cancel_invitation(end).await.map(drop)
            }
            Verb::Decline { at, who, nth, old } => {
                let token = self.link(model, at, who, nth, old);
                let no = pb::DeclineInvitationRequest { token };
                invitations.decline_invitation(no).await.map(drop)
            }
            Verb::Accept { at, who, nth, old } => {
                let token = self.link(model, at, who, nth, old);
                self.accept(model, who, token).await
            }
            _ => unreachable!("{verb:?} is about no invitation"),
        }
    }

    fn named(&self, model: &Model, at: Place, who: Who, nth: usize) -> (String, i32) {
        let n = model.invitation(at, who, nth).unwrap();
        (self.invitations[at][n].clone(), model.tenants[at].invitations[n].generation)
    }

    fn link(&self, model: &Model, at: Place, who: Who, nth: usize, old: bool) -> String {
        let (id, generation) = self.named(model, at, who, nth);
        let app = &self.world.server.app;
        let tenant = app.replica.facts().directory.tenants.get(&*self.tenant(at)).unwrap().id;
        let generation = generation - i32::from(old);
        app.keys
            .invitation_token(tenant, id.parse().unwrap(), generation)
            .expose_secret()
            .to_owned()
    }

    /// With a new account, by a session of the person's own, or with the password.
    async fn accept(&mut self, model: &Model, who: Who, token: String) -> Result<(), Status> {
        let session = model.own_session(who).map(|n| self.by_session(n));
        let (request, api) = match (model.accounts[who].is_some(), session) {
            (false, _) => (accept(&token), self.by_nobody()),
            (true, Some(api)) => (pb::AcceptInvitationRequest { token, account: None }, api),
            (true, None) => {
                let password = pb::ExistingAccount { password: PASSWORD.into() };
                let account = Some(Account::ExistingAccount(password));
                (pb::AcceptInvitationRequest { token, account }, self.by_nobody())
            }
        };
        let accepted = api.invitations().accept_invitation(request).await?.into_inner();
        self.people[who] = Some(accepted.user_id);
        Ok(())
    }

    fn by_nobody(&self) -> Api {
        Api { channel: self.world.operator.channel.clone(), auth: Auth::of("") }
    }

    async fn act_on_member(
        &self,
        model: &Model,
        verb: Verb,
        at: Place,
        who: Who,
    ) -> Result<(), Status> {
        let (tenant, user_id) = (self.tenant(at), self.user(who));
        let mut memberships = self.world.operator.memberships();
        match verb {
            Verb::Suspend { purgeable, .. } => {
                let retention = match purgeable {
                    true => pb::Retention::Purgeable,
                    false => pb::Retention::Keep,
                };
                let suspend = pb::SuspendMembershipRequest {
                    tenant,
                    user_id,
                    retention: retention.into(),
                    ..Default::default()
                };
                memberships.suspend_membership(suspend).await.map(drop)
            }
            Verb::Reactivate { .. } => {
                let back =
                    pb::ReactivateMembershipRequest { tenant, user_id, ..Default::default() };
                memberships.reactivate_membership(back).await.map(drop)
            }
            Verb::Remove { .. } => {
                let remove = pb::RemoveMembershipRequest { tenant, user_id, ..Default::default() };
                memberships.remove_membership(remove).await.map(drop)
            }
            Verb::Leave { .. } => {
                let own = self.by_session(model.newest_session(at, who).unwrap());
                let leave = pb::LeaveTenantRequest { tenant, ..Default::default() };
                own.memberships().leave_tenant(leave).await.map(drop)
            }
            Verb::Purge { preview: validate_only, .. } => {
                let purge =
                    pb::PurgeMemberRequest { tenant, user_id, validate_only, ..Default::default() };
                memberships.purge_member(purge).await.map(drop)
            }
            Verb::SetKind { kind, .. } => {
                let kind = kind.shown().into();
                let edit =
                    pb::UpdateMembershipRequest { tenant, user_id, kind, ..Default::default() };
                memberships.update_membership(edit).await.map(drop)
            }
            _ => unreachable!("{verb:?} is about no member"),
        }
    }

    async fn act_on_holding(&self, model: &Model, verb: Verb) -> Result<(), Status> {
        let mut memberships = self.world.operator.memberships();
        let mut groups = self.world.operator.groups();
        let group = "team".to_owned();
        match verb {
            Verb::Give { at, who, role, there, dated } => {
                let hours = chrono::TimeDelta::hours(DATED);
                let ends = dated.then(|| pb::timestamp(self.world.server.app.clock.now() + hours));
                let role = pb::AssignRole { end_time: ends, ..Self::on(model, at, role, there) };
                let edit = pb::UpdateMemberRolesRequest {
                    tenant: self.tenant(at),
                    subject: self.user(who),
                    add: vec![role],
                    ..Default::default()
                };
                memberships.update_member_roles(edit).await.map(drop)
            }
            Verb::Take { at, who, role, there } => {
                let (tenant, user_id) = (self.tenant(at), self.user(who));
                let get = pb::GetMembershipRequest { tenant: tenant.clone(), user_id };
                let member = memberships.get_membership(get).await?.into_inner().membership;
                let wanted = Self::on(model, at, role, there);
                let own = |held: &&pb::RoleAssignment| {
                    held.group.is_empty() && held.role == wanted.role && held.scope == wanted.scope
                };
                let remove = member.iter().flat_map(|m| &m.roles).filter(own);
                let edit = pb::UpdateMemberRolesRequest {
                    tenant,
                    subject: self.user(who),
                    remove: remove.map(|held| held.id.clone()).collect(),
                    ..Default::default()
                };
                memberships.update_member_roles(edit).await.map(drop)
            }
            Verb::JoinGroup { at, who } => {
                let (tenant, user_ids) = (self.tenant(at), vec![self.user(who)]);
                let add =
                    pb::AddGroupMembersRequest { tenant, group, user_ids, ..Default::default() };
                groups.add_group_members(add).await.map(drop)
            }
            Verb::LeaveGroup { at, who } => {
                let (tenant, user_ids) = (self.tenant(at), vec![self.user(who)]);
                let remove =
                    pb::RemoveGroupMembersRequest { tenant, group, user_ids, ..Default::default() };
                groups.remove_group_members(remove).await.map(drop)
            }
            Verb::GiveGroup { at, role } => {
                let (tenant, add) = (self.tenant(at), vec![role_on(role.key(), "")]);
                let edit = pb::UpdateGroupRolesRequest { tenant, group, add, ..Default::default() };
                groups.update_group_roles(edit).await.map(drop)
            }
            Verb::TakeGroup { at, role } => {
                let get = pb::GetGroupRequest { tenant: self.tenant(at), group: group.clone() };
                let found = groups.get_group(get).await?.into_inner().group.unwrap();
                let held = found.roles.iter().filter(|held| held.role == role.key());
                let edit = pb::UpdateGroupRolesRequest {
                    tenant: self.tenant(at),
                    group,
                    remove: held.map(|held| held.id.clone()).collect(),
                    ..Default::default()
                };
                groups.update_group_roles(edit).await.map(drop)
            }
            _ => unreachable!("{verb:?} is about no holding"),
        }
    }

    async fn act_on_sessions(&mut self, verb: Verb, at: Place, who: Who) -> Result<(), Status> {
        let (tenant, mut sessions) = (self.tenant(at), self.world.operator.sessions());
        let token = match verb {
            Verb::SignIn { .. } => {
                let (email, password) = (self.email(who), PASSWORD.into());
                let request = pb::SignInRequest { tenant, email, password };
                self.by_nobody().sessions().sign_in(request).await?.into_inner().token
            }
            Verb::OpenSession { .. } => {
                let user_id = self.user(who);
                let open = pb::CreateSessionRequest { tenant, user_id, ..Default::default() };
                sessions.create_session(open).await?.into_inner().token
            }
            Verb::EndSessions { .. } => {
                let user_id = self.user(who);
                let end = pb::RevokeSessionRequest { tenant, user_id, ..Default::default() };
                return sessions.revoke_session(end).await.map(drop);
            }
            _ => unreachable!("{verb:?} is about no session"),
        };
        self.sessions.push(token);
        Ok(())
    }

    async fn act_on_account(&mut self, verb: Verb, who: Who) -> Result<(), Status> {
        let (user_id, mut users) = (self.user(who), self.world.operator.users());
        match verb {
            Verb::DeleteAccount { .. } => {
                let email = self.email(who);
                let end = pb::DeleteUserRequest { user_id, email, ..Default::default() };
                users.delete_user(end).await.map(drop)
            }
            Verb::Disable { .. } => {
                let disable = pb::DisableUserRequest { user_id, ..Default::default() };
                users.disable_user(disable).await.map(drop)
            }
            Verb::Enable { .. } => {
                let enable = pb::EnableUserRequest { user_id, ..Default::default() };
                users.enable_user(enable).await.map(drop)
            }
            _ => unreachable!("{verb:?} is about no account"),
        }
    }

    async fn act_on_tenant(&self, model: &Model, verb: Verb) -> Result<(), Status> {
        let by = &self.world.operator;
        match verb {
            Verb::MakeBoss { at } => self.make_role(at, Role::Boss, "iam.administer").await,
            Verb::EditBoss { at, administers } => {
                let permission = if administers { "iam.administer" } else { "files.read" };
                let edit = pb::UpdateRoleRequest {
                    tenant: self.tenant(at),
                    role: Role::Boss.key().into(),
                    permissions: vec![permission.into()],
                    ..Default::default()
                };
                by.roles().update_role(edit).await.map(drop)
            }
            Verb::DeleteBoss { at } => {
                let (tenant, role) = (self.tenant(at), Role::Boss.key().to_owned());
                let delete = pb::DeleteRoleRequest { tenant, role, ..Default::default() };
                by.roles().delete_role(delete).await.map(drop)
            }
            Verb::MakeWorkspace { at } => {
                let new = pb::CreateWorkspaceRequest {
                    tenant: self.tenant(at),
                    key: format!("w{}", model.tenants[at].workspace().map_or(0, |n| n + 1)),
                    display_name: "Workspace".into(),
                    ..Default::default()
                };
                by.workspaces().create_workspace(new).await.map(drop)
            }
            Verb::DeleteWorkspace { at } => {
                let (tenant, newest) = (self.tenant(at), model.tenants[at].workspace().unwrap());
                let workspace = format!("w{newest}");
                let delete = pb::DeleteWorkspaceRequest { tenant, workspace, ..Default::default() };
                by.workspaces().delete_workspace(delete).await.map(drop)
            }
            Verb::SetSeats { at, limit: seat_limit } => {
                let (tenant, plan) = (self.tenant(at), "premium".to_owned());
                let set =
                    pb::SetTenantPlanRequest { tenant, plan, seat_limit, ..Default::default() };
                by.plans().set_tenant_plan(set).await.map(drop)
            }
            Verb::SuspendTenant { at } => {
                let close =
                    pb::SuspendTenantRequest { tenant: self.tenant(at), ..Default::default() };
                by.tenants().suspend_tenant(close).await.map(drop)
            }
            Verb::ReactivateTenant { at } => {
                let open =
                    pb::ReactivateTenantRequest { tenant: self.tenant(at), ..Default::default() };
                by.tenants().reactivate_tenant(open).await.map(drop)
            }
            Verb::DeleteTenant { at } => {
                let delete =
                    pb::DeleteTenantRequest { tenant: self.tenant(at), ..Default::default() };
                by.tenants().delete_tenant(delete).await.map(drop)
            }
            Verb::RestoreTenant { at } => {
                let restore =
                    pb::RestoreTenantRequest { tenant: self.tenant(at), ..Default::default() };
                by.tenants().restore_tenant(restore).await.map(drop)
            }
            Verb::Appoint { at, who } => {
                let (tenant, user_id) = (self.tenant(at), self.user(who));
                let appoint =
                    pb::AppointAdministratorRequest { tenant, user_id, ..Default::default() };
                by.tenants().appoint_administrator(appoint).await.map(drop)
            }
            _ => unreachable!("{verb:?} is about no tenant"),
        }
    }

    /// What the server shows of all that the model knows of.
    pub async fn shown(&self, model: &Model) -> Shown {
        let accounts = (0..PEOPLE).map(|who| self.shown_account(who));
        let tenants = (0..TENANTS).map(|at| self.shown_tenant(model, at));
        let (accounts, tenants) =
            futures::join!(futures::future::join_all(accounts), futures::future::join_all(tenants));
        Shown { accounts, tenants }
    }

    async fn shown_account(&self, who: Who) -> Option<pb::UserStatus> {
        let get = pb::GetUserRequest { user_id: self.people[who].clone()? };
        match self.world.operator.users().get_user(get).await {
            Ok(found) => Some(found.into_inner().user.unwrap().status()),
            Err(unknown) if unknown.code() == Code::NotFound => None,
            Err(failure) => panic!("{failure}"),
        }
    }

    async fn shown_tenant(&self, model: &Model, at: Place) -> ShownTenant {
        let (tenant, by) = (self.tenant(at), &self.world.operator);
        let get = pb::GetTenantRequest { tenant: tenant.clone() };
        let found = by.tenants().get_tenant(get).await.unwrap().into_inner().tenant.unwrap();
        let get = pb::GetSeatUsageRequest { tenant: tenant.clone() };
        let seats = by.plans().get_seat_usage(get).await.unwrap().into_inner().usage.unwrap();
        let uses = model.sessions_of(at).map(|(n, _)| async move { (n, self.used(at, n).await) });
        ShownTenant {
            status: found.status(),
            administrators: found.administrator_count.try_into().unwrap(),
            warnings: found.warnings,
            seats: Seats {
                limit: seats.seat_limit,
                internal: seats.internal_members,
                external: seats.external_members,
                invited: seats.open_invitations,
                over: seats.over_limit,
            },
            members: self.shown_members(at).await,
            invitations: self.shown_invitations(at).await,
            answers: self.answers(at, model.questions(at)).await,
            uses: futures::future::join_all(uses).await,
        }
    }

    async fn shown_members(&self, at: Place) -> Vec<Listed> {
        let tenant = self.tenant(at);
        let list = pb::ListMembershipsRequest { tenant, page_size: 500, ..Default::default() };
        let listed = self.world.operator.memberships().list_memberships(list).await.unwrap();
        let listed = listed.into_inner();
        assert_eq!(listed.total_count, i64::try_from(listed.memberships.len()).unwrap());
        let who = |email: &str| (0..PEOPLE).find(|who| self.email(*who) == email).unwrap();
        let members = listed.memberships.iter().map(|member| {
            let purge = member.purge_time.map(|at| (at.seconds - self.began) / HOUR);
            (who(&member.email), member.status(), member.kind(), purge)
        });
        let mut shown: Vec<_> = members.collect();
        shown.sort_unstable();
        shown
    }

    async fn shown_invitations(&self, at: Place) -> Vec<(usize, pb::InvitationStatus)> {
        let tenant = self.tenant(at);
        let list = pb::ListInvitationsRequest { tenant, page_size: 500, ..Default::default() };
        let listed = self.world.operator.invitations().list_invitations(list).await.unwrap();
        let number = |id: &str| self.invitations[at].iter().position(|own| own == id).unwrap();
        let listed = listed.into_inner().invitations;
        let shown = listed.iter().rev();
        shown.map(|invitation| (number(&invitation.id), invitation.status())).collect()
    }

    async fn answers(&self, at: Place, asked: Vec<Question>) -> Vec<(Question, pb::Reason)> {
        if asked.is_empty() {
            return Vec::new();
        }
        let items = asked.iter().map(|Question { subject, word, place }| {
            let subject = match subject {
                Subject::Person(who) => self.user(*who),
                Subject::Session(n) => self.sessions[*n].clone(),
            };
            item(&subject, word, &Self::scope(*place))
        });
        let batch = pb::BatchCheckPermissionsRequest {
            tenant: self.tenant(at),
            items: items.collect(),
            consistency: None,
        };
        let answer = self.world.operator.permissions().batch_check_permissions(batch).await;
        let results = answer.unwrap().into_inner().results;
        asked.into_iter().zip(results.iter().map(pb::CheckPermissionResult::reason)).collect()
    }

    async fn used(&self, at: Place, session: usize) -> String {
        let mine = pb::GetMembershipRequest { tenant: self.tenant(at), ..Default::default() };
        match self.by_session(session).memberships().get_membership(mine).await {
            Ok(_) => "OK".to_owned(),
            Err(refused) => reason(&refused),
        }
    }
}
