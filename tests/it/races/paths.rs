//! The paths that are raced, and the states from which they start.

use rolecall::proto as pb;
use tonic::Status;

use super::stage::{Person, Stage, TENANT};
use crate::world::{check, invite, role_on};

#[derive(Debug, Clone, Copy)]
pub enum Path {
    Demote,
    Suspend,
    Remove,
    Leave,
    External,
    /// Gives the administrator's role anew, with an end.
    Date,
    /// The role that makes an administrator no longer does.
    EditRole,
    LeaveGroup,
    Invite(&'static str),
    Reactivate(usize),
    Accept,
    Cancel,
    Resend,
    SignIn,
    EndSessions,
    Assign(&'static str),
    AssignThere,
    JoinGroup,
    DeleteRole,
    DeleteWorkspace,
}

/// The state from which a pair starts: Ann administers, and beside her …
#[derive(Debug, Clone, Copy)]
pub enum Kept {
    /// … Ben by the same role.
    TwoAdministrators,
    /// … Ben by a role that can be edited.
    ByRole,
    /// … Ben by a group.
    ByGroup,
    /// … two members, and a fourth seat.
    OneSeat,
    /// … two who are suspended, and a second seat.
    OneSeatTwoSuspended,
    OneSeatOneSuspended,
    /// … Cem, who is invited, on the last seat.
    Invited,
    /// … Cem, a member; a role and a workspace that can be deleted.
    Member,
}

/// What a path came to; a session when it opened one.
pub type Outcome = Result<Option<String>, Status>;

impl Stage {
    pub async fn keep(&self, state: Kept) {
        self.seats(None).await;
        let [ann, ben, cem] = self.people.as_slice() else { panic!("three people") };
        self.become_administrator(ann, "administrator").await;
        self.end_open().await;
        match state {
            Kept::TwoAdministrators => self.become_administrator(ben, "administrator").await,
            Kept::ByRole => {
                self.edit_boss(0, "iam.administer").await.unwrap();
                self.become_administrator(ben, "boss").await;
            }
            Kept::ByGroup => {
                self.become_administrator(ben, "").await;
                self.group(0, ben, true).await.unwrap();
            }
            Kept::OneSeat => {
                self.become_administrator(ben, "").await;
                self.become_administrator(cem, "").await;
                self.seats(Some(4)).await;
            }
            Kept::OneSeatTwoSuspended => {
                for person in [ben, cem] {
                    self.become_administrator(person, "").await;
                    self.run(0, &Path::Suspend, person).await.unwrap();
                }
                self.seats(Some(2)).await;
            }
            Kept::OneSeatOneSuspended => {
                for person in [ben, cem] {
                    self.become_administrator(person, "").await;
                }
                self.run(0, &Path::Suspend, cem).await.unwrap();
                self.seats(Some(3)).await;
            }
            Kept::Invited => {
                self.become_administrator(ben, "").await;
                let _ = self.run(0, &Path::Remove, cem).await;
                let new = invite(TENANT, &cem.email, &[]);
                self.at[0].invitations().create_invitation(new).await.unwrap();
                self.seats(Some(3)).await;
            }
            Kept::Member => {
                self.become_administrator(cem, "").await;
                self.passing().await;
            }
        }
    }

    /// After an invariant broke: an administrator by hand, so that the next pair starts from one.
    pub async fn mend(&self) {
        let appoint = pb::AppointAdministratorRequest {
            tenant: TENANT.into(),
            user_id: self.people[0].id.clone(),
            ..Default::default()
        };
        let _ = self.at[0].tenants().appoint_administrator(appoint).await;
        let recount = "update administrator_counts set count = 1
                       where tenant_id = (select id from tenants where key = 'race')
                       returning 'done'";
        self.rows(recount).await;
    }

    async fn seats(&self, seat_limit: Option<i64>) {
        let plan = pb::SetTenantPlanRequest {
            tenant: TENANT.into(),
            plan: "premium".into(),
            seat_limit,
            ..Default::default()
        };
        self.at[0].plans().set_tenant_plan(plan).await.unwrap();
    }

    /// Ends the invitations that the round before left open.
    async fn end_open(&self) {
        for id in self.open().await {
            let cancel = pb::CancelInvitationRequest {
                tenant: TENANT.into(),
                invitation_id: id,
                ..Default::default()
            };
            self.at[0].invitations().cancel_invitation(cancel).await.unwrap();
        }
    }

    async fn open(&self) -> Vec<String> {
        self.rows(
            "select 'inv_' || replace(i.id::text, '-', '') from invitations i
             join tenants t on t.id = i.tenant_id where t.key = 'race' and i.status = 'pending'",
        )
        .await
    }

    /// The newest invitation of a person.
    async fn newest(&self, person: &Person) -> String {
        let newest = format!(
            "select 'inv_' || replace(i.id::text, '-', '') from invitations i
             join tenants t on t.id = i.tenant_id
             where t.key = 'race' and i.email = '{}' order by i.id desc limit 1",
            person.email
        );
        self.rows(&newest).await.remove(0)
    }

    /// Makes the role and the workspace that may have been deleted.
    async fn passing(&self) {
        let role = pb::CreateRoleRequest {
            tenant: TENANT.into(),
            key: "passing".into(),
            display_names: [("en".to_owned(), "Passing".to_owned())].into(),
            permissions: vec!["files.read".into()],
            ..Default::default()
        };
        let _ = self.at[0].roles().create_role(role).await;
        // A key is never given again, so each round has a workspace of its own.
        let count = self.rows("select count(*)::text from workspaces").await.remove(0);
        let workspace = pb::CreateWorkspaceRequest {
            tenant: TENANT.into(),
            key: format!("w{count}"),
            display_name: "Passing".into(),
            ..Default::default()
        };
        self.at[0].workspaces().create_workspace(workspace).await.unwrap();
    }

    async fn workspace(&self) -> String {
        let newest = "select key from workspaces order by id desc limit 1";
        self.rows(newest).await.remove(0)
    }

    async fn edit_boss(&self, at: usize, permission: &str) -> Result<(), Status> {
        let edit = pb::UpdateRoleRequest {
            tenant: TENANT.into(),
            role: "boss".into(),
            permissions: vec![permission.into()],
            ..Default::default()
        };
        self.at[at].roles().update_role(edit).await.map(drop)
    }

    async fn group(&self, at: usize, person: &Person, joins: bool) -> Result<(), Status> {
        let (tenant, group) = (TENANT.to_owned(), "chiefs".to_owned());
        let user_ids = vec![person.id.clone()];
        let mut groups = self.at[at].groups();
        if joins {
            let add = pb::AddGroupMembersRequest { tenant, group, user_ids, ..Default::default() };
            groups.add_group_members(add).await.map(drop)
        } else {
            let remove =
                pb::RemoveGroupMembersRequest { tenant, group, user_ids, ..Default::default() };
            groups.remove_group_members(remove).await.map(drop)
        }
    }

    async fn edit_roles(
        &self,
        at: usize,
        person: &Person,
        add: Vec<pb::AssignRole>,
        remove: Vec<String>,
    ) -> Result<(), Status> {
        let edit = pb::UpdateMemberRolesRequest {
            tenant: TENANT.into(),
            subject: person.id.clone(),
            add,
            remove,
            ..Default::default()
        };
        self.at[at].memberships().update_member_roles(edit).await.map(drop)
    }

    /// Runs a path at one of the servers.
    pub async fn run(&self, at: usize, path: &Path, person: &Person) -> Outcome {
        let (tenant, user_id) = (TENANT.to_owned(), person.id.clone());
        let api = &self.at[at];
        let done = match *path {
            Path::Demote | Path::Date | Path::Assign(_) | Path::AssignThere => {
                self.run_assignment(at, path, person).await
            }
            Path::Suspend => {
                let suspend =
                    pb::SuspendMembershipRequest { tenant, user_id, ..Default::default() };
                api.memberships().suspend_membership(suspend).await.map(drop)
            }
            Path::Reactivate(who) => {
                let user_id = self.people[who].id.clone();
                let back =
                    pb::ReactivateMembershipRequest { tenant, user_id, ..Default::default() };
                api.memberships().reactivate_membership(back).await.map(drop)
            }
            Path::Remove => {
                let remove = pb::RemoveMembershipRequest { tenant, user_id, ..Default::default() };
                api.memberships().remove_membership(remove).await.map(drop)
            }
            Path::Leave => {
                let leave = pb::LeaveTenantRequest { tenant, ..Default::default() };
                let home = self.as_person(at, person).await;
                let switch = pb::SwitchTenantRequest { tenant: TENANT.into() };
                let own = home.sessions().switch_tenant(switch).await?.into_inner().token;
                self.with(at, &own).await.memberships().leave_tenant(leave).await.map(drop)
            }
            Path::External => {
                let kind = pb::MemberKind::External.into();
                let outside =
                    pb::UpdateMembershipRequest { tenant, user_id, kind, ..Default::default() };
                api.memberships().update_membership(outside).await.map(drop)
            }
            Path::EditRole => self.edit_boss(at, "files.read").await,
            Path::JoinGroup => self.group(at, person, true).await,
            Path::LeaveGroup => self.group(at, person, false).await,
            Path::SignIn => return self.sign_in(at, person).await.map(Some),
            Path::EndSessions => {
                let end = pb::RevokeSessionRequest { tenant, user_id, ..Default::default() };
                api.sessions().revoke_session(end).await.map(drop)
            }
            Path::DeleteRole => {
                let role = "passing".to_owned();
                let delete = pb::DeleteRoleRequest { tenant, role, ..Default::default() };
                api.roles().delete_role(delete).await.map(drop)
            }
            Path::DeleteWorkspace => {
                let workspace = self.workspace().await;
                let delete = pb::DeleteWorkspaceRequest { tenant, workspace, ..Default::default() };
                api.workspaces().delete_workspace(delete).await.map(drop)
            }
            Path::Invite(_) | Path::Accept | Path::Cancel | Path::Resend => {
                self.run_invitation(at, path, person).await
            }
        };
        done.map(|()| None)
    }

    async fn run_assignment(&self, at: usize, path: &Path, person: &Person) -> Result<(), Status> {
        match *path {
            Path::Demote => {
                let held = self.held(person).await;
                self.edit_roles(at, person, Vec::new(), held).await
            }
            Path::Date => {
                let now = self.world.server.app.clock.now();
                let end_time = Some(pb::timestamp(now + chrono::TimeDelta::days(1)));
                let dated = pb::AssignRole { end_time, ..role_on("administrator", "") };
                self.edit_roles(at, person, vec![dated], Vec::new()).await
            }
            Path::Assign(role) => {
                self.edit_roles(at, person, vec![role_on(role, "")], Vec::new()).await
            }
            Path::AssignThere => {
                let scope = format!("workspaces/{}", self.workspace().await);
                self.edit_roles(at, person, vec![role_on("reader", &scope)], Vec::new()).await
            }
            _ => unreachable!("{path:?} is about no assignment"),
        }
    }

    async fn run_invitation(&self, at: usize, path: &Path, person: &Person) -> Result<(), Status> {
        let (tenant, api) = (TENANT.to_owned(), &self.at[at]);
        match *path {
            Path::Invite(email) => {
                api.invitations().create_invitation(invite(TENANT, email, &[])).await.map(drop)
            }
            Path::Accept => {
                let id = self.newest(person).await;
                self.accept(at, person, &id).await
            }
            Path::Cancel => {
                let invitation_id = self.newest(person).await;
                let cancel =
                    pb::CancelInvitationRequest { tenant, invitation_id, ..Default::default() };
                api.invitations().cancel_invitation(cancel).await.map(drop)
            }
            Path::Resend => {
                let invitation_id = self.newest(person).await;
                let resend =
                    pb::ResendInvitationRequest { tenant, invitation_id, ..Default::default() };
                api.invitations().resend_invitation(resend).await.map(drop)
            }
            _ => unreachable!("{path:?} is about no invitation"),
        }
    }

    /// The person's own assignments on the tenant.
    async fn held(&self, person: &Person) -> Vec<String> {
        let id = person.id.strip_prefix("usr_").unwrap();
        let held = format!(
            "select 'asg_' || replace(a.id::text, '-', '') from role_assignments a
             join tenants t on t.id = a.tenant_id
             where t.key = 'race' and a.user_id = '{id}'::uuid and a.workspace_id is null"
        );
        self.rows(&held).await
    }

    /// A session that was opened while the access was taken away must not outlive it; and nothing may
    /// fail in a way that nobody foresaw.
    pub async fn broken_by(&self, outcomes: &(Outcome, Outcome)) -> Vec<String> {
        let mut wrong = Vec::new();
        let outcomes = [&outcomes.0, &outcomes.1];
        for outcome in outcomes {
            if let Err(status) = outcome
                && matches!(
                    status.code(),
                    tonic::Code::Internal | tonic::Code::Unknown | tonic::Code::DeadlineExceeded
                )
            {
                wrong.push(status.to_string());
            }
        }
        if let [Ok(None), Ok(Some(token))] = outcomes {
            let question = check(TENANT, token, "files.read", "");
            for at in &self.at {
                let answer = at.permissions().check_permission(question.clone()).await;
                let reason = answer.unwrap().into_inner().reason();
                let status = self
                    .rows(
                        "select m.status from memberships m join tenants t on t.id = m.tenant_id
                         join users u on u.id = m.user_id
                         where t.key = 'race' and u.email = 'cem@race.example'",
                    )
                    .await
                    .remove(0);
                // Ending the sessions of an active member leaves those that begin afterwards.
                if status != "active" && reason == pb::Reason::NoRole {
                    wrong.push(format!("a session of somebody {status} is {reason:?}"));
                }
            }
        }
        wrong
    }
}
