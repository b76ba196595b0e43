//! What a change may ask while it runs, and what must hold when it ends.

use super::Change;
use crate::{
    access::Demand,
    decision::{
        Gift, MemberKind, Permission, PermissionSet, Record, Refusal, Resource, Role, Subject,
        TenantFacts, TenantStatus, Time, scope_text, vouches,
    },
    error::{Error, Result},
    ids::{GroupId, Holder, Key, RoleId, SubjectId, TenantId, WorkspaceId},
    replica::load,
};

/// Whether it is something that a tenant consists of.
pub(super) const fn lasts(record: &Record) -> bool {
    match record {
        Record::Workspace(_)
        | Record::Role(_)
        | Record::Group(_)
        | Record::GroupMember(_)
        | Record::Member(_)
        | Record::Assignment(_)
        | Record::Invitation(_) => true,
        // Their last states, too, come when they end.
        Record::Tenant(_) | Record::ApiKey(_) | Record::Account(_) | Record::SessionEnd(_) => false,
    }
}

/// Where an assignment holds, with its workspace found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    pub workspace: Option<WorkspaceId>,
    pub path: String,
    pub text: String,
}

impl Change {
    /// The facts of the tenant as far as this change has read and changed them.
    ///
    /// # Errors
    /// Before the change was authorised.
    pub fn facts(&self) -> Result<&TenantFacts> {
        let tenant = self.facts.tenant(self.tenant.id);
        tenant.map(|t| &**t).ok_or_else(|| Error::internal("the slice was not read"))
    }

    /// Reads subjects into the facts, with their assignments and groups.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn load(&mut self, subjects: &[SubjectId]) -> Result<()> {
        let facts = self.facts()?.clone();
        let facts = load::add_subjects(self.conn(), facts, subjects).await?;
        self.facts.insert_tenant(facts);
        Ok(())
    }

    /// Finds the workspace that a scope names.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` naming `field` for a malformed scope or an unknown workspace.
    pub async fn scope(&mut self, field: &str, text: &str) -> Result<Scope> {
        let resource = Resource::parse(text).map_err(|error| Error::invalid(field, error))?;
        let workspace = match resource.workspace {
            None => None,
            Some(key) => {
                let tenant = self.tenant.id;
                let id = sqlx::query_scalar!(
                    "select id from workspaces
                     where tenant_id = $1 and key = $2 and deleted_at is null",
                    tenant as TenantId,
                    key
                )
                .fetch_optional(self.conn())
                .await?;
                let unknown = || {
                    let remedy = "create it first, or correct the name";
                    Error::invalid(field, format!("no workspace `{key}` in this tenant; {remedy}"))
                };
                let id: WorkspaceId = id.ok_or_else(unknown)?.into();
                let key = key.parse::<Key>().map_err(|error| Error::invalid(field, error))?;
                self.learn_workspace(id, key);
                Some(id)
            }
        };
        let path = resource.path.to_owned();
        Ok(Scope { workspace, path, text: scope_text(resource.workspace, resource.path) })
    }

    /// The key of a workspace that exists; reads it into the facts, so that permissions can be asked on
    /// it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn workspace_key(&mut self, id: WorkspaceId) -> Result<String> {
        if let Some(key) = self.facts()?.workspace_key(id) {
            return Ok(key.to_owned());
        }
        let tenant = self.tenant.id;
        let key = sqlx::query_scalar!(
            "select key from workspaces where tenant_id = $1 and id = $2",
            tenant as TenantId,
            id as WorkspaceId
        )
        .fetch_one(self.conn())
        .await?;
        self.learn_workspace(id, key.parse().map_err(Error::internal)?);
        Ok(key)
    }

    /// The key of a group that exists.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn group_key(&mut self, id: GroupId) -> Result<String> {
        if let Some((_, key)) = self.group.as_ref().filter(|(known, _)| *known == id) {
            return Ok(key.clone());
        }
        let tenant = self.tenant.id;
        let key = sqlx::query_scalar!(
            "select key from groups where tenant_id = $1 and id = $2",
            tenant as TenantId,
            id as GroupId
        );
        let key = key.fetch_one(self.conn()).await?;
        self.group = Some((id, key.clone()));
        Ok(key)
    }

    fn learn_workspace(&mut self, id: WorkspaceId, key: Key) {
        let record = Record::Workspace(crate::decision::Workspace { id, key });
        super::learn(&mut self.facts, record, self.tenant.id);
    }

    /// A role of the tenant by its key.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` naming `field`, with the nearest names.
    pub fn role(&self, field: &str, key: &str) -> Result<Role> {
        let facts = self.facts()?;
        let found = facts.role_named(key);
        found.map(|role| Role::clone(role)).ok_or_else(|| {
            let names = nearest(key, facts.roles().map(|r| r.key.as_str()));
            let remedy = match names.as_slice() {
                [] => "list the roles of the tenant".to_owned(),
                names => format!("did you mean `{}`?", names.join("`, `")),
            };
            Error::invalid(field, format!("no role `{key}` in this tenant; {remedy}"))
        })
    }

    /// Refuses unless the caller holds the permission on the scope of the tenant. For what the claim
    /// could not know before the lock.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub fn require(&self, permission: &'static str, scope: &str) -> Result<()> {
        let Some(authority) = self.call.authority() else { return Ok(()) };
        let tenant = self.tenant.key.as_str();
        let demand = Demand { tenant, permission, scope, or: &[] };
        let resource = Resource::parse(scope).map_err(|e| Error::invalid("scope", e))?;
        let word = Permission::parse(permission).map_err(Error::internal)?;
        let may = authority
            .may(&self.facts, demand.tenant, word, resource, self.now)
            .map_err(|_| Error::internal("the slice was not read"))?;
        may.map_err(|refusal: Refusal| crate::access::denied(demand, refusal))
    }

    /// Refuses unless the role is the caller's to give there and so long.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` with the reason `ROLE_NOT_GRANTABLE`.
    pub fn require_gift(&self, role: RoleId, scope: &Scope, ends: Option<Time>) -> Result<()> {
        let Some(authority) = self.call.authority() else { return Ok(()) };
        let gift = gift(role, scope, ends);
        if authority.may_give(&self.facts, self.facts()?, &gift, self.now) {
            return Ok(());
        }
        Err(Error::Denied {
            reason: "ROLE_NOT_GRANTABLE",
            message: format!(
                "role `{}` is not yours to give here: you do not hold all that it allows as far and \
                 as long, and no role of yours lists it; ask an administrator",
                self.role_key(role)?
            ),
        })
    }

    /// Refuses to raise whoever calls: what a role of theirs lists as to be given is for others.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` with the reason `ROLE_NOT_GRANTABLE`.
    pub fn require_no_raise(
        &self,
        holder: Holder,
        role: RoleId,
        scope: &Scope,
        ends: Option<Time>,
    ) -> Result<()> {
        let facts = self.facts()?;
        let reaches = |caller: SubjectId| match holder {
            Holder::Subject(subject) => subject == caller,
            Holder::Group(group) => facts.groups_of(caller).any(|own| own == group),
        };
        if self.may_have(role, scope, ends, reaches)? {
            return Ok(());
        }
        Err(Error::Denied {
            reason: "ROLE_NOT_GRANTABLE",
            message: format!(
                "role `{}` is not yours to give to yourself: you do not hold all that it allows as \
                 far and as long; ask an administrator",
                self.role_key(role)?
            ),
        })
    }

    /// Whether whoever calls, where the role reaches them, holds all of it already.
    ///
    /// # Errors
    /// Before the change was authorised.
    pub fn may_have(
        &self,
        role: RoleId,
        scope: &Scope,
        ends: Option<Time>,
        reaches: impl Fn(SubjectId) -> bool,
    ) -> Result<bool> {
        let Some(authority) = self.call.authority() else { return Ok(true) };
        let gift = gift(role, scope, ends);
        Ok(authority.may_have(&self.facts, self.facts()?, &gift, reaches, self.now))
    }

    /// The key of a role of the tenant.
    ///
    /// # Errors
    /// Before the change was authorised.
    pub fn role_key(&self, role: RoleId) -> Result<String> {
        Ok(self.facts()?.role(role).map_or_else(String::new, |role| role.key.to_string()))
    }

    /// Refuses unless the caller holds all of these patterns on the whole tenant, without an end.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` with the reason `ROLE_NOT_GRANTABLE`.
    pub fn require_all(&self, permissions: &PermissionSet) -> Result<()> {
        let Some(authority) = self.call.authority() else { return Ok(()) };
        if authority.holds(&self.facts, self.facts()?, permissions, self.now) {
            return Ok(());
        }
        Err(Error::Denied {
            reason: "ROLE_NOT_GRANTABLE",
            message: format!(
                "you do not hold all of `{}` on the whole tenant, so a role with it is not yours to \
                 make or change; ask an administrator",
                permissions.patterns().join("`, `")
            ),
        })
    }

    /// What must hold whatever the change did.
    pub(super) async fn check_rules(&mut self) -> Result<()> {
        self.check_seats(0).await?;
        self.check_administrators().await
    }

    /// Refuses what makes no sense in a tenant that was deleted, whoever asks for it. Operators may put
    /// right there what keeps it from being restored.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` `TENANT_DELETED` or `TENANT_PURGED`.
    pub fn require_kept(&self) -> Result<()> {
        if self.tenant.status == TenantStatus::Deleted {
            let message = "the tenant was deleted; restore it first";
            return Err(Error::precondition("TENANT_DELETED", &self.tenant.key, message));
        }
        self.require_unpurged()
    }

    /// # Errors
    /// `FAILED_PRECONDITION` `TENANT_PURGED`.
    pub fn require_unpurged(&self) -> Result<()> {
        if self.tenant.status == TenantStatus::Purged {
            let message = "the tenant is erased for good; create another";
            return Err(Error::precondition("TENANT_PURGED", &self.tenant.key, message));
        }
        Ok(())
    }

    pub(super) fn status(&self) -> Option<TenantStatus> {
        self.facts.directory.tenants.get(self.tenant.key.as_str()).map(|entry| entry.status)
    }

    /// Whether somebody who is not calling could do this on these scopes, and give these roles, by the
    /// rows as this change has left them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn vouches(
        &mut self,
        who: SubjectId,
        permission: &'static str,
        gifts: &[(RoleId, Scope, Option<Time>)],
    ) -> Result<bool> {
        let (tenant, now) = (self.tenant.clone(), self.now);
        let mut facts = self.facts.clone();
        super::load_accounts(self.conn(), &mut facts, &[who]).await?;
        let workspaces: Vec<String> = gifts
            .iter()
            .filter_map(|(_, scope, _)| Resource::parse(&scope.text).ok()?.workspace)
            .map(str::to_owned)
            .collect();
        for home in [TenantId::SYSTEM, tenant.id] {
            facts.insert_tenant(load::slice(self.conn(), home, &[who], &workspaces).await?);
        }
        let subject = match who {
            SubjectId::User(user) => Subject::User(user),
            SubjectId::Service(service) => Subject::Service(service),
        };
        let permission = Permission::parse(permission).map_err(Error::internal)?;
        let mut scopes = Vec::with_capacity(gifts.len().max(1));
        for (_, scope, _) in gifts {
            scopes.push(Resource::parse(&scope.text).map_err(Error::internal)?);
        }
        if scopes.is_empty() {
            scopes.push(Resource::TENANT);
        }
        let gifts: Vec<Gift<'_>> =
            gifts.iter().map(|(role, scope, ends)| gift(*role, scope, *ends)).collect();
        let Some(there) = facts.tenant(tenant.id) else {
            return Err(Error::internal("the slice was not read"));
        };
        let place = (tenant.key.as_str(), &**there);
        vouches(&facts, place, subject, (permission, &scopes), &gifts, now)
            .map_err(|missing| Error::internal(format!("{} is not in the slice", missing.0)))
    }

    /// Whether the member is a person of the tenant's own.
    #[must_use]
    pub fn kind_of(&self, subject: SubjectId) -> Option<MemberKind> {
        let facts = self.facts().ok()?;
        facts.member(subject).map(|member| member.kind)
    }
}

/// The names most like a mistyped one, at most three.
#[must_use]
pub fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut near: Vec<(f64, &str)> =
        names.map(|name| (strsim::jaro_winkler(wrong, name), name)).collect();
    near.retain(|(likeness, _)| *likeness > 0.8);
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

fn gift(role: RoleId, scope: &Scope, ends: Option<Time>) -> Gift<'_> {
    let (workspace, path) = (scope.workspace, scope.path.as_str());
    Gift { role, workspace, path, ends, to_oneself: false }
}
