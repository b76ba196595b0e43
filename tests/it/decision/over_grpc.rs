//! Runs the cases over gRPC: the same worlds, made through the API on a real PostgreSQL.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use prost::Message;
use rolecall::{
    ids::{InvitationId, TenantId},
    proto::{self as pb, accept_invitation_request::Account as Choice},
};
use secrecy::ExposeSecret;

use super::cases::{self, Account, Case, MemberKind, MemberStatus, TenantStatus, World as Wanted};
use crate::{
    checks::{BATCH, CHECK, ask_both_ways, frame, item, streamed},
    world::{Api, PASSWORD, World, accept, check, invite},
};

const ADMINISTRATOR: &str = "first@acme.example";

struct Maker<'w> {
    world: &'w World,
    start: DateTime<Utc>,
    /// By alias: `usr_…` or `svc_…`.
    subjects: HashMap<String, String>,
}

impl Maker<'_> {
    fn time(&self, offset: Option<TimeDelta>) -> Option<prost_types::Timestamp> {
        offset.map(|offset| pb::timestamp(self.start + offset))
    }

    fn assignments(&self, wanted: &[cases::Assignment]) -> Vec<pb::AssignRole> {
        let assign = |a: &cases::Assignment| pb::AssignRole {
            role: a.role.clone(),
            scope: a.scope.clone(),
            start_time: self.time(a.starts),
            end_time: self.time(a.ends),
        };
        wanted.iter().map(assign).collect()
    }

    fn email(alias: &str) -> String {
        format!("{alias}@people.example")
    }

    fn tenant_id(&self, key: &str) -> TenantId {
        self.world.server.app.replica.facts().directory.tenants[key].id
    }

    /// Accepts as in the mail; a person who has an account already proves it.
    async fn accept(&mut self, tenant: &str, alias: &str, invitation: &str) {
        let id: InvitationId = invitation.parse().unwrap();
        let keys = &self.world.server.app.keys;
        let token = keys.invitation_token(self.tenant_id(tenant), id, 1);
        let mut request = accept(token.expose_secret());
        if self.subjects.contains_key(alias) {
            let account = pb::ExistingAccount { password: PASSWORD.into() };
            request.account = Some(Choice::ExistingAccount(account));
        }
        let accepted = self.world.anonymous().await.invitations().accept_invitation(request).await;
        self.subjects.insert(alias.to_owned(), accepted.unwrap().into_inner().user_id);
    }

    async fn create_tenant(&mut self, key: &str, status: TenantStatus) -> Option<Api> {
        let operator = &self.world.operator;
        let administrator = pb::TenantAdministrator {
            email: ADMINISTRATOR.replace("acme", key),
            first_name: "First".into(),
            last_name: "Administrator".into(),
            ..Default::default()
        };
        let create = pb::CreateTenantRequest {
            key: key.into(),
            display_name: key.into(),
            administrator: Some(administrator),
            plan: "premium".into(),
            ..Default::default()
        };
        let created = operator.tenants().create_tenant(create).await.unwrap().into_inner();
        if status == TenantStatus::Pending {
            return None;
        }
        self.accept(key, &format!("the first of {key}"), &created.invitation_id).await;
        Some(self.world.sign_in(key, &ADMINISTRATOR.replace("acme", key)).await)
    }

    async fn make(&mut self, tenant: &str, wanted: &Wanted, by: &Api) {
        for sector in &wanted.sectors {
            let install = pb::InstallRoleTemplatesRequest {
                tenant: tenant.into(),
                sector: sector.clone(),
                ..Default::default()
            };
            by.roles().install_role_templates(install).await.unwrap();
        }
        for key in &wanted.workspaces {
            let create = pb::CreateWorkspaceRequest {
                tenant: tenant.into(),
                key: key.clone(),
                display_name: key.clone(),
                ..Default::default()
            };
            by.workspaces().create_workspace(create).await.unwrap();
        }
        for role in &wanted.roles {
            let create = pb::CreateRoleRequest {
                tenant: tenant.into(),
                key: role.key.clone(),
                display_names: [("en".to_owned(), role.key.clone())].into(),
                permissions: role.permissions.clone(),
                includes: role.includes.clone(),
                reach: match role.reach.as_str() {
                    "here" => pb::Reach::Here,
                    "joined" => pb::Reach::Joined,
                    _ => pb::Reach::Everywhere,
                }
                .into(),
                ..Default::default()
            };
            by.roles().create_role(create).await.unwrap();
        }
        for group in &wanted.groups {
            let create = pb::CreateGroupRequest {
                tenant: tenant.into(),
                key: group.key.clone(),
                display_name: group.key.clone(),
                ..Default::default()
            };
            by.groups().create_group(create).await.unwrap();
            if group.assignments.is_empty() {
                continue;
            }
            let add = pb::UpdateGroupRolesRequest {
                tenant: tenant.into(),
                group: group.key.clone(),
                add: self.assignments(&group.assignments),
                ..Default::default()
            };
            by.groups().update_group_roles(add).await.unwrap();
        }
        for member in &wanted.members {
            self.member(tenant, member, by).await;
        }
        for service in &wanted.service_accounts {
            let create = pb::CreateServiceAccountRequest {
                tenant: tenant.into(),
                key: service.id.clone(),
                display_name: service.id.clone(),
                ..Default::default()
            };
            let created = by.service_accounts().create_service_account(create).await.unwrap();
            let id = created.into_inner().service_account.unwrap().id;
            self.set_roles(tenant, &id, &service.assignments, by).await;
            self.subjects.insert(service.id.clone(), id);
        }
    }

    async fn member(&mut self, tenant: &str, member: &cases::Member, by: &Api) {
        let mut new = invite(tenant, &Self::email(&member.id), &[]);
        if member.kind == MemberKind::External {
            new.kind = pb::MemberKind::External.into();
        }
        let invited = by.invitations().create_invitation(new).await.unwrap().into_inner();
        self.accept(tenant, &member.id, &invited.invitation.unwrap().id).await;
        let user = self.subjects[&member.id].clone();
        for group in &member.groups {
            let add = pb::AddGroupMembersRequest {
                tenant: tenant.into(),
                group: group.clone(),
                user_ids: vec![user.clone()],
                ..Default::default()
            };
            by.groups().add_group_members(add).await.unwrap();
        }
        self.set_roles(tenant, &user, &member.assignments, by).await;
    }

    async fn set_roles(&self, tenant: &str, subject: &str, wanted: &[cases::Assignment], by: &Api) {
        if wanted.is_empty() {
            return;
        }
        let update = pb::UpdateMemberRolesRequest {
            tenant: tenant.into(),
            subject: subject.into(),
            add: self.assignments(wanted),
            ..Default::default()
        };
        by.memberships().update_member_roles(update).await.unwrap();
    }

    async fn set_statuses(&self, tenant: &str, wanted: &Wanted, by: &Api) {
        for member in &wanted.members {
            let (tenant, user_id) = (tenant.to_owned(), self.subjects[&member.id].clone());
            match member.status {
                MemberStatus::Active => {}
                MemberStatus::Suspended => {
                    let request =
                        pb::SuspendMembershipRequest { tenant, user_id, ..Default::default() };
                    by.memberships().suspend_membership(request).await.unwrap();
                }
                MemberStatus::Removed => {
                    let request =
                        pb::RemoveMembershipRequest { tenant, user_id, ..Default::default() };
                    by.memberships().remove_membership(request).await.unwrap();
                }
            }
        }
    }

    async fn set_accounts(&self, accounts: Vec<(String, Account)>) {
        for (alias, account) in accounts {
            if account == Account::Disabled {
                let user_id = self.subjects[&alias].clone();
                let request = pb::DisableUserRequest { user_id, ..Default::default() };
                self.world.operator.users().disable_user(request).await.unwrap();
            }
        }
    }
}

async fn run(case: &Case) -> Vec<String> {
    let world = World::start().await;
    let operator = world.operator.clone();
    let start = world.server.app.clock.now();
    let mut maker = Maker { world: &world, start, subjects: HashMap::new() };
    let administrator = maker.create_tenant("acme", case.tenant.status).await;
    maker.make("system", &case.system, &operator).await;
    maker.make("acme", &case.tenant, administrator.as_ref().unwrap_or(&operator)).await;
    if !case.outsiders.is_empty() {
        let elsewhere = maker.create_tenant("elsewhere", TenantStatus::Active).await.unwrap();
        for outsider in &case.outsiders {
            let new = invite("elsewhere", &Maker::email(&outsider.id), &[]);
            let invited = elsewhere.invitations().create_invitation(new).await.unwrap();
            let id = invited.into_inner().invitation.unwrap().id;
            maker.accept("elsewhere", &outsider.id, &id).await;
        }
    }
    maker.set_statuses("acme", &case.tenant, administrator.as_ref().unwrap_or(&operator)).await;
    maker.set_statuses("system", &case.system, &operator).await;
    let mut accounts = Vec::new();
    for member in case.tenant.members.iter().chain(&case.system.members) {
        accounts.push((member.id.clone(), member.account));
    }
    for outsider in &case.outsiders {
        accounts.push((outsider.id.clone(), outsider.account));
    }
    maker.set_accounts(accounts).await;
    let tenant = "acme".to_owned();
    match case.tenant.status {
        TenantStatus::Active | TenantStatus::Pending => {}
        TenantStatus::Suspended => {
            let suspend = pb::SuspendTenantRequest { tenant, ..Default::default() };
            operator.tenants().suspend_tenant(suspend).await.unwrap();
        }
        TenantStatus::Deleted => {
            let delete = pb::DeleteTenantRequest { tenant, ..Default::default() };
            operator.tenants().delete_tenant(delete).await.unwrap();
        }
    }
    let wrong = ask(case, &maker).await;
    world.server.stop().await;
    wrong
}

async fn ask(case: &Case, maker: &Maker<'_>) -> Vec<String> {
    let clock = &maker.world.server.app.clock;
    let mut wrong = Vec::new();
    for asked in &case.questions {
        // An instant past it: the world was made over some moments.
        let target = maker.start + asked.at;
        if asked.at > TimeDelta::zero() && clock.now() < target {
            clock.advance((target - clock.now()).to_std().unwrap());
        }
        let unknown = format!("usr_{}", "0".repeat(32));
        let subject = maker.subjects.get(&asked.subject).unwrap_or(&unknown);
        let tenant = asked.tenant.as_deref().unwrap_or("acme");
        let question = check(tenant, subject, &asked.permission, &asked.resource);
        all_agree(&maker.world.operator, &question).await;
        let answer = maker.world.operator.permissions().check_permission(question).await;
        let told = match answer.map(tonic::Response::into_inner) {
            Ok(answer) => cases::Expected {
                allowed: answer.allowed,
                reason: answer.reason().as_str_name().trim_start_matches("REASON_").to_owned(),
            },
            Err(status) => cases::Expected { allowed: false, reason: status.message().to_owned() },
        };
        if told != asked.expect {
            wrong.push(format!("{}: {asked:?}: got {told:?}", case.case));
        }
    }
    wrong
}

/// One question, a batch and a stream, below the router and through it, give one answer.
async fn all_agree(api: &Api, question: &pb::CheckPermissionRequest) {
    let body = frame(&question.encode_to_vec());
    let one = ask_both_ways(api, CHECK, body).await;
    let one = pb::CheckPermissionResponse::decode(one.body.slice(5..)).unwrap();
    let item = item(&question.subject, &question.permission, &question.resource);
    let batch = pb::BatchCheckPermissionsRequest {
        tenant: question.tenant.clone(),
        items: vec![item.clone(), pb::CheckPermissionItem::default(), item],
        consistency: None,
    };
    let batch = ask_both_ways(api, BATCH, frame(&batch.encode_to_vec())).await;
    let batch = pb::BatchCheckPermissionsResponse::decode(batch.body.slice(5..)).unwrap();
    let [first, malformed, last] = &batch.results[..] else { panic!("{batch:?}") };
    assert_eq!((first.allowed, first.reason), (one.allowed, one.reason), "{question:?}");
    assert_eq!(first, last);
    assert_eq!(malformed.error.as_ref().unwrap().field, "subject");
    let questions = tokio_stream::iter([streamed(7, question.clone())]);
    let answers = api.permissions().check_permission_stream(questions).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    assert_eq!(
        (answer.allowed, answer.reason, answer.correlation_id),
        (one.allowed, one.reason, 7),
        "{question:?}"
    );
}

#[test]
fn every_case_is_answered_over_grpc_as_it_says() {
    let files = cases::all().into_iter().map(|(file, cases)| {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            let mut wrong = Vec::new();
            for case in &cases {
                let told = runtime.block_on(async {
                    let minute = Duration::from_secs(60);
                    tokio::time::timeout(minute, run(case))
                        .await
                        .unwrap_or_else(|_| vec![format!("{}: took a minute", case.case)])
                });
                wrong.extend(told.into_iter().map(|line| format!("{file}: {line}")));
            }
            wrong
        })
    });
    let files: Vec<_> = files.collect();
    let wrong: Vec<String> = files.into_iter().flat_map(|file| file.join().unwrap()).collect();
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
