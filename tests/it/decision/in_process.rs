//! Runs the cases through `decide`, over facts that were made of records alone.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rolecall::{
    decision::{self as d, Facts, Permission, Record, Resource, Subject, TenantFacts, Transition},
    ids::{Holder, SubjectId, TenantId, UserId},
    roles::templates::{self, Template},
};
use uuid::Uuid;

use super::cases::{self, Account, Case, MemberKind, MemberStatus, TenantStatus, World};

const TENANT: TenantId = TenantId::from_uuid(Uuid::from_u128(1));

struct Builder {
    facts: Facts,
    ids: HashMap<String, Uuid>,
    start: DateTime<Utc>,
}

impl Builder {
    fn id<T: From<Uuid>>(&mut self, name: &str) -> T {
        let next = Uuid::from_u128(1_000 + self.ids.len() as u128);
        T::from(*self.ids.entry(name.to_owned()).or_insert(next))
    }

    fn put(&mut self, tenant: TenantId, record: Record) {
        self.facts.apply(&Transition { tenant, before: None, after: Some(record) });
    }

    fn world(&mut self, id: TenantId, key: &str, world: &World) {
        let status = match world.status {
            TenantStatus::Active => d::TenantStatus::Active,
            TenantStatus::Pending => d::TenantStatus::Pending,
            TenantStatus::Suspended => d::TenantStatus::Suspended,
            TenantStatus::Deleted => d::TenantStatus::Deleted,
        };
        let key = key.parse().unwrap();
        self.put(id, Record::Tenant(d::Tenant { id, key, status, default_role: None }));
        self.facts.insert_tenant(TenantFacts::new(id));
        let shipped = templates::builtin(id == TenantId::SYSTEM).iter();
        let sectors = world.sectors.iter().flat_map(|s| &templates::sector(s).unwrap().roles);
        for template in shipped.chain(sectors) {
            self.role(id, &from_template(template));
        }
        for role in &world.roles {
            self.role(id, role);
        }
        for workspace in &world.workspaces {
            let workspace = d::Workspace {
                id: self.id(&format!("{id}/workspace/{workspace}")),
                key: workspace.parse().unwrap(),
            };
            self.put(id, Record::Workspace(workspace));
        }
        for group in &world.groups {
            let group_id = self.id(&format!("{id}/group/{}", group.key));
            let key = group.key.parse().unwrap();
            self.put(id, Record::Group(d::Group { id: group_id, key }));
            self.assign(id, Holder::Group(group_id), &group.assignments);
        }
        for member in &world.members {
            self.member(id, member);
        }
        for service in &world.service_accounts {
            let subject = SubjectId::Service(self.id(&service.id));
            let (kind, status) = (d::MemberKind::Service, d::MemberStatus::Active);
            self.put(id, Record::Member(d::Member { subject, kind, status, epoch: 0 }));
            self.assign(id, Holder::Subject(subject), &service.assignments);
        }
    }

    fn role(&mut self, tenant: TenantId, role: &cases::Role) {
        let includes =
            role.includes.iter().map(|key| self.id(&format!("{tenant}/role/{key}"))).collect();
        let record = d::Role {
            id: self.id(&format!("{tenant}/role/{}", role.key)),
            key: role.key.parse().unwrap(),
            permissions: role.permissions.iter().map(Into::into).collect(),
            includes,
            reach: match role.reach.as_str() {
                "here" => d::Reach::Here,
                "joined" => d::Reach::Joined,
                "everywhere" => d::Reach::Everywhere,
                other => panic!("no reach {other}"),
            },
            may_grant: vec![],
            exclusive_set: None,
            max_duration_seconds: None,
            locked: false,
        };
        self.put(tenant, Record::Role(record));
    }

    fn member(&mut self, tenant: TenantId, member: &cases::Member) {
        let user: UserId = self.id(&member.id);
        let subject = SubjectId::User(user);
        let kind = match member.kind {
            MemberKind::Internal => d::MemberKind::Internal,
            MemberKind::External => d::MemberKind::External,
        };
        let status = match member.status {
            MemberStatus::Active => d::MemberStatus::Active,
            MemberStatus::Suspended => d::MemberStatus::Suspended,
            MemberStatus::Removed => d::MemberStatus::Removed,
        };
        self.put(tenant, Record::Member(d::Member { subject, kind, status, epoch: 0 }));
        for group in &member.groups {
            let group = self.id(&format!("{tenant}/group/{group}"));
            self.put(tenant, Record::GroupMember(d::GroupMember { group, user }));
        }
        self.assign(tenant, Holder::Subject(subject), &member.assignments);
        self.account(&member.id, member.account);
    }

    fn account(&mut self, alias: &str, account: Account) {
        if account == Account::Disabled {
            let user = self.id(alias);
            let record = Record::Account(d::Account { user, disabled: true, epoch: 0 });
            self.put(TenantId::SYSTEM, record);
        }
    }

    fn assign(&mut self, tenant: TenantId, holder: Holder, assignments: &[cases::Assignment]) {
        for given in assignments {
            let scope = Resource::parse(&given.scope).unwrap();
            let workspace =
                scope.workspace.map(|key| self.id(&format!("{tenant}/workspace/{key}")));
            let record = d::Assignment {
                id: self.id(&format!("{tenant}/{holder}/{given:?}")),
                holder,
                role: self.id(&format!("{tenant}/role/{}", given.role)),
                workspace,
                path: scope.path.to_owned(),
                starts: given.starts.map(|offset| self.start + offset),
                ends: given.ends.map(|offset| self.start + offset),
            };
            self.put(tenant, Record::Assignment(record));
        }
    }
}

fn from_template(template: &Template) -> cases::Role {
    cases::Role {
        key: template.key.clone(),
        permissions: template.permissions.clone(),
        includes: template.includes.clone(),
        reach: match template.reach {
            d::Reach::Here => "here",
            d::Reach::Joined => "joined",
            d::Reach::Everywhere => "everywhere",
        }
        .to_owned(),
    }
}

/// The name of a reason in the API, which is how the cases write it.
pub fn reason_name(reason: d::Reason) -> &'static str {
    match reason {
        d::Reason::Allowed => "ALLOWED",
        d::Reason::TenantUnknown => "TENANT_UNKNOWN",
        d::Reason::TenantPending => "TENANT_PENDING",
        d::Reason::TenantSuspended => "TENANT_SUSPENDED",
        d::Reason::TenantDeleted => "TENANT_DELETED",
        d::Reason::WorkspaceUnknown => "WORKSPACE_UNKNOWN",
        d::Reason::SubjectUnknown => "SUBJECT_UNKNOWN",
        d::Reason::NotAMember => "NOT_A_MEMBER",
        d::Reason::MembershipSuspended => "MEMBERSHIP_SUSPENDED",
        d::Reason::AccountDisabled => "ACCOUNT_DISABLED",
        d::Reason::SessionEnded => "SESSION_ENDED",
        d::Reason::SessionExpired => "SESSION_EXPIRED",
        d::Reason::SessionElsewhere => "SESSION_ELSEWHERE",
        d::Reason::KeyRevoked => "KEY_REVOKED",
        d::Reason::KeyExpired => "KEY_EXPIRED",
        d::Reason::NoRole => "NO_ROLE",
        d::Reason::AssignmentExpired => "ASSIGNMENT_EXPIRED",
        d::Reason::AssignmentNotStarted => "ASSIGNMENT_NOT_STARTED",
        d::Reason::Narrowed => "NARROWED",
    }
}

fn run(case: &Case) -> Vec<String> {
    let start = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let mut builder = Builder { facts: Facts::default(), ids: HashMap::new(), start };
    builder.world(TenantId::SYSTEM, "system", &case.system);
    builder.world(TENANT, "acme", &case.tenant);
    for outsider in &case.outsiders {
        builder.account(&outsider.id, outsider.account);
    }
    let services: Vec<_> = [&case.tenant, &case.system]
        .iter()
        .flat_map(|world| world.service_accounts.iter().map(|s| s.id.clone()))
        .collect();
    let mut wrong = Vec::new();
    for asked in &case.questions {
        let subject = if services.contains(&asked.subject) {
            Subject::Service(builder.id(&asked.subject))
        } else {
            Subject::User(builder.id(&asked.subject))
        };
        let question = d::Question {
            tenant: asked.tenant.as_deref().unwrap_or("acme"),
            subject,
            permission: Permission::parse(&asked.permission).unwrap(),
            resource: Resource::parse(&asked.resource).unwrap(),
            now: start + asked.at,
        };
        let decision = d::decide(&builder.facts, &question).unwrap();
        let explanation = d::explain(&builder.facts, &question).unwrap();
        assert_eq!(explanation.decision, decision, "explain must tell of the same decision");
        let told = cases::Expected {
            allowed: decision.allowed(),
            reason: reason_name(decision.reason).to_owned(),
        };
        if told != asked.expect {
            wrong.push(format!("{}: {asked:?}: got {told:?}", case.case));
        }
    }
    wrong
}

#[test]
fn every_case_is_decided_in_process_as_it_says() {
    let mut asked = 0;
    let mut wrong = Vec::new();
    for (file, cases) in cases::all() {
        for case in &cases {
            asked += case.questions.len();
            wrong.extend(run(case).into_iter().map(|line| format!("{file}: {line}")));
        }
    }
    assert!(wrong.is_empty(), "{} of {asked} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(asked > 300, "only {asked} questions");
}
