//! What the run is about: some tenants, who may do what in them, and everything that can be switched.

use std::time::{Duration, Instant};

use rolecall::{ids::TenantId, proto as pb};
use sqlx::PgConnection;

use crate::{
    reference::{Question, Switch, Who},
    replica::{Replica, mails},
    world::{Api, accept, invite, role_on, token_of},
};

const SERVICES: usize = 16;
const ONCE: usize = 16;
const PERMISSIONS: [&str; 3] = ["files.read", "files.write", "desk.use"];
const PLACES: [&str; 4] = ["", "workspaces/w1", "workspaces/w2", "workspaces/w2/folders/7/files/1"];
/// What a service account is given and loses again.
const ROLES: [(&str, &str); 4] = [
    ("reader", ""),
    ("writer", "workspaces/w1"),
    ("writer", "workspaces/w2/folders/7"),
    ("basic", ""),
];

/// A tenant, and where its questions and switches stand.
#[derive(Debug, Clone)]
pub struct Place {
    pub key: String,
    pub id: TenantId,
    pub questions: std::ops::Range<usize>,
    pub switches: std::ops::Range<usize>,
}

#[derive(Default)]
pub struct Setting {
    pub places: Vec<Place>,
    pub questions: Vec<Question>,
    /// The subject of each question, as callers write it.
    pub subjects: Vec<String>,
    pub switches: Vec<Switch>,
}

impl Setting {
    pub fn place(&self, question: usize) -> &Place {
        self.places.iter().find(|place| place.questions.contains(&question)).unwrap()
    }

    fn ask(&mut self, tenant: TenantId, who: Who, subject: &str, all: bool) {
        for permission in PERMISSIONS.into_iter().take(if all { 3 } else { 1 }) {
            for resource in PLACES.into_iter().take(if all { 4 } else { 1 }) {
                self.questions.push(Question { tenant, who, permission, resource });
                self.subjects.push(subject.to_owned());
            }
        }
    }
}

pub struct Maker<'a> {
    pub replica: &'a Replica,
    pub folder: &'a std::path::Path,
    pub conn: &'a mut PgConnection,
    pub operator: &'a Api,
}

impl Maker<'_> {
    pub async fn make(&mut self, tenants: usize) -> Setting {
        let mut setting = Setting::default();
        for n in 0..tenants {
            self.tenant(&mut setting, &format!("t{n}")).await;
        }
        setting
    }

    async fn token_to(&self, email: &str) -> String {
        let patience = Instant::now() + Duration::from_secs(20);
        while Instant::now() < patience {
            for entry in std::fs::read_dir(mails(self.folder)).unwrap() {
                let text = std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
                if text.lines().any(|line| line.starts_with("To:") && line.contains(email)) {
                    return token_of(&text);
                }
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("no mail to {email}");
    }

    async fn join(&self, email: &str) -> String {
        let token = self.token_to(email).await;
        let accepted = self.replica.api("").invitations().accept_invitation(accept(&token)).await;
        accepted.unwrap().into_inner().user_id
    }

    async fn tenant(&mut self, setting: &mut Setting, key: &str) {
        let (operator, tenant) = (self.operator, key.to_owned());
        let email = format!("admin@{key}.example");
        let create = pb::CreateTenantRequest {
            key: tenant.clone(),
            display_name: tenant.clone(),
            administrator: Some(pb::TenantAdministrator {
                email: email.clone(),
                first_name: "Ada".into(),
                last_name: "Admin".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        operator.tenants().create_tenant(create).await.unwrap();
        let administrator = self.join(&email).await;
        let id: TenantId = sqlx::query_scalar("select id from tenants where key = $1")
            .bind(key)
            .fetch_one(&mut *self.conn)
            .await
            .unwrap();
        let (question, switch) = (setting.questions.len(), setting.switches.len());
        self.roles(key).await;
        self.people(setting, key, id).await;
        self.services(setting, key, id).await;
        self.keys(setting, key, id).await;
        self.sessions(setting, key, id, &administrator).await;
        setting.places.push(Place {
            key: tenant,
            id,
            questions: question..setting.questions.len(),
            switches: switch..setting.switches.len(),
        });
    }

    async fn roles(&self, tenant: &str) {
        for key in ["w1", "w2"] {
            let create = pb::CreateWorkspaceRequest {
                tenant: tenant.into(),
                key: key.into(),
                display_name: key.into(),
                ..Default::default()
            };
            self.operator.workspaces().create_workspace(create).await.unwrap();
        }
        for (key, permissions, includes, reach) in [
            ("reader", vec!["files.read"], vec![], pb::Reach::Everywhere),
            ("writer", vec!["files.write"], vec!["reader"], pb::Reach::Everywhere),
            ("basic", vec!["desk.use"], vec![], pb::Reach::Joined),
        ] {
            let create = pb::CreateRoleRequest {
                tenant: tenant.into(),
                key: key.into(),
                display_names: [("en".to_owned(), key.to_owned())].into(),
                permissions: permissions.into_iter().map(str::to_owned).collect(),
                includes: includes.into_iter().map(str::to_owned).collect(),
                reach: reach.into(),
                ..Default::default()
            };
            self.operator.roles().create_role(create).await.unwrap();
        }
    }

    /// One who joins a group and leaves it, and one who is suspended now and then.
    async fn people(&self, setting: &mut Setting, key: &str, tenant: TenantId) {
        let create = pb::CreateGroupRequest {
            tenant: key.into(),
            key: "team".into(),
            display_name: "Team".into(),
            ..Default::default()
        };
        self.operator.groups().create_group(create).await.unwrap();
        let add = pb::UpdateGroupRolesRequest {
            tenant: key.into(),
            group: "team".into(),
            add: vec![role_on("writer", "workspaces/w1")],
            ..Default::default()
        };
        self.operator.groups().update_group_roles(add).await.unwrap();
        for name in ["joiner", "leaver"] {
            let email = format!("{name}@{key}.example");
            let new = invite(key, &email, &[("reader", "workspaces/w2")]);
            self.operator.invitations().create_invitation(new).await.unwrap();
            let id = self.join(&email).await;
            let user = id.parse().unwrap();
            setting.ask(tenant, Who::Subject(id.parse().unwrap()), &id, true);
            setting.switches.push(match name {
                "joiner" => Switch::InGroup { tenant, user },
                _ => Switch::Active { tenant, user },
            });
        }
    }

    async fn service(&self, tenant: &str, key: &str, roles: &[(&str, &str)]) -> String {
        let create = pb::CreateServiceAccountRequest {
            tenant: tenant.into(),
            key: key.into(),
            display_name: key.into(),
            ..Default::default()
        };
        let created =
            self.operator.service_accounts().create_service_account(create).await.unwrap();
        let subject = created.into_inner().service_account.unwrap().id;
        if !roles.is_empty() {
            let add = pb::UpdateMemberRolesRequest {
                tenant: tenant.into(),
                subject: subject.clone(),
                add: roles.iter().map(|(role, scope)| role_on(role, scope)).collect(),
                ..Default::default()
            };
            self.operator.memberships().update_member_roles(add).await.unwrap();
        }
        subject
    }

    async fn services(&self, setting: &mut Setting, key: &str, tenant: TenantId) {
        for n in 0..SERVICES {
            let id = self.service(key, &format!("s{n}"), &[]).await;
            let subject = id.parse().unwrap();
            setting.ask(tenant, Who::Subject(subject), &id, true);
            for (role, scope) in ROLES {
                setting.switches.push(Switch::Role { tenant, subject, role, scope });
            }
        }
    }

    async fn keys(&self, setting: &mut Setting, key: &str, tenant: TenantId) {
        let account = self.service(key, "keys", &[("reader", "")]).await;
        for n in 0..ONCE {
            let create = pb::CreateApiKeyRequest {
                tenant: key.into(),
                service_account_id: account.clone(),
                display_name: format!("key {n}"),
                ..Default::default()
            };
            let created = self.operator.service_accounts().create_api_key(create).await.unwrap();
            let created = created.into_inner();
            let id = created.api_key.unwrap().id.parse().unwrap();
            setting.ask(tenant, Who::Key(id), &created.secret, false);
            setting.switches.push(Switch::Key { tenant, key: id });
        }
    }

    async fn sessions(&self, setting: &mut Setting, key: &str, tenant: TenantId, user: &str) {
        let add = pb::UpdateMemberRolesRequest {
            tenant: key.into(),
            subject: user.into(),
            add: vec![role_on("reader", "")],
            ..Default::default()
        };
        self.operator.memberships().update_member_roles(add).await.unwrap();
        for _ in 0..ONCE {
            let create = pb::CreateSessionRequest {
                tenant: key.into(),
                user_id: user.into(),
                ..Default::default()
            };
            let created = self.operator.sessions().create_session(create).await.unwrap();
            let created = created.into_inner();
            let session = created.session.unwrap().id.parse().unwrap();
            let who = Who::Session(session, user.parse().unwrap());
            setting.ask(tenant, who, &created.token, false);
            setting.switches.push(Switch::Session { tenant, session });
        }
    }
}
