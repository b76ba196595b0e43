//! Where races are run: two servers over one database, a tenant `race`, and people who have an account
//! through the tenant `home`. What must hold is asked of the tables, not of the servers.

use rolecall::{proto as pb, server::Server};
use tonic::Status;

use crate::world::{Api, PASSWORD, World, invite, role_on, settings};

pub const TENANT: &str = "race";

pub struct Person {
    pub id: String,
    pub email: String,
    /// Their session in `home`, which nothing in the race ends.
    pub home: String,
}

pub struct Stage {
    pub world: World,
    pub second: Server,
    /// The operator, at either server.
    pub at: [Api; 2],
    pub people: Vec<Person>,
}

impl Stage {
    pub async fn build() -> Self {
        let mut world = World::start().await;
        world.tenant("home").await;
        world.tenant(TENANT).await;
        let operator = world.operator.clone();
        let mut people = Vec::new();
        for name in ["ann", "ben", "cem"] {
            let email = format!("{name}@race.example");
            let id = world.member(&operator, "home", &email, &[]).await;
            let home = world.session("home", &email).await;
            people.push(Person { id, email, home });
        }
        let keys = rolecall::secret::Keys::parse(&world.keys).unwrap();
        let mail = format!("file://{}", std::env::temp_dir().join("rolecall-races").display());
        let second = Server::start(settings(&world.database, keys, &mail)).await.unwrap();
        let at = [operator.clone(), operator.at(&second).await];
        let stage = Self { world, second, at, people };
        stage.furnish().await;
        stage
    }

    /// Roles, a group and a workspace that paths use; and the tenant's first administrator leaves.
    async fn furnish(&self) {
        let by = &self.at[0];
        for (key, permission) in [("boss", "iam.administer"), ("reader", "files.read")] {
            let role = pb::CreateRoleRequest {
                tenant: TENANT.into(),
                key: key.into(),
                display_names: [("en".to_owned(), key.to_owned())].into(),
                permissions: vec![permission.into()],
                ..Default::default()
            };
            by.roles().create_role(role).await.unwrap();
        }
        let group = pb::CreateGroupRequest {
            tenant: TENANT.into(),
            key: "chiefs".into(),
            display_name: "Chiefs".into(),
            ..Default::default()
        };
        by.groups().create_group(group).await.unwrap();
        let roles = pb::UpdateGroupRolesRequest {
            tenant: TENANT.into(),
            group: "chiefs".into(),
            add: vec![role_on("administrator", "")],
            ..Default::default()
        };
        by.groups().update_group_roles(roles).await.unwrap();
        for person in &self.people {
            self.join(person).await;
        }
        self.become_administrator(&self.people[0], "administrator").await;
        let first = self
            .rows("select user_id::text from memberships m join users u on u.id = m.user_id
                   join tenants t on t.id = m.tenant_id where t.key = 'race' and u.email like 'admin@%'")
            .await;
        let user_id = format!("usr_{}", first[0].replace('-', ""));
        let remove =
            pb::RemoveMembershipRequest { tenant: TENANT.into(), user_id, ..Default::default() };
        by.memberships().remove_membership(remove).await.unwrap();
    }

    /// The first column of what is asked, as text.
    pub async fn rows(&self, query: &str) -> Vec<String> {
        let query = sqlx::AssertSqlSafe(query.to_owned());
        sqlx::query_scalar::<_, String>(query).fetch_all(&self.world.server.app.pool).await.unwrap()
    }

    pub async fn join(&self, person: &Person) {
        let by = &self.at[0];
        let created = by.invitations().create_invitation(invite(TENANT, &person.email, &[])).await;
        let id = created.unwrap().into_inner().invitation.unwrap().id;
        self.accept(0, person, &id).await.unwrap();
    }

    /// By the session that a person has elsewhere, and the link of the first generation.
    pub async fn accept(&self, at: usize, person: &Person, id: &str) -> Result<(), Status> {
        self.accept_generation(at, person, id, 1).await
    }

    pub async fn accept_generation(
        &self,
        at: usize,
        person: &Person,
        id: &str,
        generation: i32,
    ) -> Result<(), Status> {
        let app = &self.world.server.app;
        let tenant = app.replica.facts().directory.tenants.get(TENANT).unwrap().id;
        let token = app.keys.invitation_token(tenant, id.parse().unwrap(), generation);
        let token = secrecy::ExposeSecret::expose_secret(&token).to_owned();
        let join = pb::AcceptInvitationRequest { token, account: None };
        self.as_person(at, person).await.invitations().accept_invitation(join).await.map(drop)
    }

    pub async fn as_person(&self, at: usize, person: &Person) -> Api {
        self.with(at, &person.home).await
    }

    pub async fn with(&self, at: usize, credential: &str) -> Api {
        match at {
            0 => self.world.with(credential).await,
            _ => Api::connect(&self.second, credential).await,
        }
    }

    pub async fn sign_in(&self, at: usize, person: &Person) -> Result<String, Status> {
        let request = pb::SignInRequest {
            tenant: TENANT.into(),
            email: person.email.clone(),
            password: PASSWORD.into(),
        };
        let api = self.as_person(at, person).await;
        Ok(api.sessions().sign_in(request).await?.into_inner().token)
    }

    async fn member(&self, person: &Person) -> Option<pb::Membership> {
        let get = pb::GetMembershipRequest { tenant: TENANT.into(), user_id: person.id.clone() };
        let found = self.at[0].memberships().get_membership(get).await;
        found.ok().and_then(|found| found.into_inner().membership)
    }

    /// An active inside member with this role on the tenant for good, whatever they were; no role is
    /// none.
    pub async fn become_administrator(&self, person: &Person, role: &str) {
        let by = &self.at[0];
        let user_id = person.id.clone();
        let tenant = TENANT.to_owned();
        let member = match self.member(person).await {
            Some(member) => member,
            None => {
                self.join(person).await;
                self.member(person).await.unwrap()
            }
        };
        if member.status() == pb::MembershipStatus::Suspended {
            let back = pb::ReactivateMembershipRequest {
                tenant: tenant.clone(),
                user_id: user_id.clone(),
                ..Default::default()
            };
            by.memberships().reactivate_membership(back).await.unwrap();
        }
        if member.kind() == pb::MemberKind::External {
            let inside = pb::UpdateMembershipRequest {
                tenant: tenant.clone(),
                user_id: user_id.clone(),
                kind: pb::MemberKind::Internal.into(),
                ..Default::default()
            };
            by.memberships().update_membership(inside).await.unwrap();
        }
        let own = member.roles.iter().filter(|held| held.group.is_empty());
        let (kept, other): (Vec<_>, Vec<_>) =
            own.partition(|held| held.role == role && held.end_time.is_none());
        let add = match kept.is_empty() && !role.is_empty() {
            true => vec![role_on(role, "")],
            false => Vec::new(),
        };
        let remove: Vec<String> = other.iter().map(|held| held.id.clone()).collect();
        if !add.is_empty() || !remove.is_empty() {
            let edit = pb::UpdateMemberRolesRequest {
                tenant,
                subject: user_id,
                add,
                // Giving it anew without an end replaces the one that has an end.
                remove: remove
                    .into_iter()
                    .filter(|id| !other.iter().any(|held| held.role == role && held.id == *id))
                    .collect(),
                ..Default::default()
            };
            by.memberships().update_member_roles(edit).await.unwrap();
        }
    }

    /// What does not hold of the tenant, whatever was raced.
    pub async fn broken(&self) -> Vec<String> {
        self.rows(INVARIANTS).await
    }

    pub async fn stop(self) {
        self.second.stop().await;
        self.world.server.stop().await;
    }
}

/// Each row says what is broken.
const INVARIANTS: &str = "
    with t as (select id from tenants where key = 'race'),
    administrators as (
        select distinct m.user_id from memberships m, t
        where m.tenant_id = t.id and m.status = 'active' and m.kind = 'internal'
          and exists (
            select from role_assignments a join roles r on r.tenant_id = a.tenant_id and r.id = a.role_id
            where a.tenant_id = t.id and a.workspace_id is null and a.path = '' and a.ends_at is null
              and r.permissions && array['*', 'iam.*', 'iam.administer']
              and (a.user_id = m.user_id
                   or a.group_id in (select group_id from group_members g
                                     where g.tenant_id = t.id and g.user_id = m.user_id)))),
    used as (
        select (select count(*) from memberships m where m.tenant_id = t.id and m.status = 'active')
             + (select count(*) from invitations i where i.tenant_id = t.id and i.status = 'pending'
                and i.expires_at > now()) n from t)
    select 'no administrator' where not exists (select from administrators)
    union all
    select 'administrators are noted as ' || c.count from administrator_counts c, t
    where c.tenant_id = t.id and c.count <> (select least(count(*), 2) from administrators)
    union all
    select 'members are counted as ' || sum(c.count) from member_counts c, t
    where c.tenant_id = t.id
    having sum(c.count) <> (select count(*) from memberships m, t where m.tenant_id = t.id)
    union all
    select 'holders are counted as ' || coalesce(c.count, 0) || ', not ' || coalesce(h.count, 0)
    from (
        select p.place, standing, count(distinct user_id) from role_assignments a
        join t on t.id = a.tenant_id
        cross join lateral (values (a.role_id), (a.workspace_id)) p (place)
        where user_id is not null and p.place is not null and ends_at is null group by 1, 2
    ) h
    full join (select c.* from holder_counts c join t on t.id = c.tenant_id where c.count <> 0) c
    on c.place_id = h.place and c.standing = h.standing
    where coalesce(c.count, 0) <> coalesce(h.count, 0)
    union all
    select n || ' seats are taken' from used, t join tenant_plans p on p.tenant_id = t.id
    where n > p.seat_limit
    union all
    select 'two open invitations of ' || email_canonical from invitations i, t
    where i.tenant_id = t.id and i.status = 'pending' group by email_canonical having count(*) > 1
    union all
    select 'accepted, and nobody joined' from invitations i, t
    where i.tenant_id = t.id and i.status = 'accepted' and not exists (
        select from memberships m where m.tenant_id = t.id and m.user_id = i.accepted_by)
    union all
    select 'who was removed has a role' from memberships m, t
    where m.tenant_id = t.id and m.status = 'removed' and (
        exists (select from role_assignments a where a.tenant_id = t.id and a.user_id = m.user_id)
        or exists (select from group_members g where g.tenant_id = t.id and g.user_id = m.user_id))
    union all
    select 'a role on a workspace that is gone' from role_assignments a, t, workspaces w
    where a.tenant_id = t.id and w.tenant_id = t.id and w.id = a.workspace_id
      and w.deleted_at is not null";
