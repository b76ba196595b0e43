//! Tenants: isolated customers, and the installation itself (`system`). Owns their settings and
//! whether they are open; people, roles and invitations belong to their own modules.

mod closing;
mod rpc;
mod sql;

use std::collections::BTreeMap;

use serde::Serialize;

pub use closing::{activate, condemn, delete, due, erase, reactivate, restore, suspend};

use crate::{
    access::Claim,
    accounts,
    app::App,
    assignments,
    caller::Call,
    catalogue::Words,
    change::{self, Change, Event, Options, Scope},
    decision::{self, MemberKind, MemberStatus, Record, TenantStatus, Time},
    edit::check_etag,
    error::{Error, Result},
    ids::{Holder, Key, RoleId, SubjectId, TenantId, UserId},
    memberships::{self, NewMember, Profile},
    roles,
};

/// How long an invitation can be accepted when the tenant does not say: a week.
const INVITATION_LIFETIME_SECONDS: i64 = 7 * 86_400;
/// How long the data of people who left is kept when the tenant does not say.
const RETENTION_SECONDS: i64 = 30 * 86_400;
/// How long a session lasts, used or not, when the tenant does not say.
const SESSION_SECONDS: i64 = 30 * 86_400;

#[derive(Debug, Clone)]
pub struct Tenant {
    pub id: TenantId,
    pub key: Key,
    pub display_name: String,
    pub status: TenantStatus,
    pub default_role: Option<RoleId>,
    pub default_role_key: String,
    pub invitation_lifetime_seconds: i64,
    /// How long the data of people who left is kept.
    pub retention_seconds: i64,
    /// Whether it is then erased without anybody asking.
    pub purge_automatically: bool,
    /// How long a session lasts, however it is used, and how long unused.
    pub session_lifetime_seconds: i64,
    pub session_idle_seconds: i64,
    pub language: String,
    pub allowed_email_domains: Vec<String>,
    pub permission_words: Words,
    pub external_id: String,
    pub metadata: BTreeMap<String, String>,
    /// When it first had an administrator.
    pub opened_at: Option<Time>,
    /// What a deleted one will be when it is restored, and from when it may be erased.
    pub status_before: Option<TenantStatus>,
    pub purge_at: Option<Time>,
    pub version: i64,
    pub created_at: Time,
    pub updated_at: Time,
}

impl Tenant {
    fn record(&self) -> Record {
        Record::Tenant(decision::Tenant {
            id: self.id,
            key: self.key.clone(),
            status: self.status,
            default_role: self.default_role,
        })
    }
}

#[derive(Debug, Clone)]
pub struct NewTenant {
    pub key: Key,
    pub display_name: String,
    pub language: String,
    pub external_id: String,
    pub metadata: BTreeMap<String, String>,
    /// Pending until its first administrator accepts, or active: then [`appoint`] one at once.
    pub status: TenantStatus,
}

/// Creates a tenant with its built-in roles; the change goes on in it.
///
/// # Errors
/// `ALREADY_EXISTS` when the key is or once was in use.
pub async fn create(change: &mut Change, new: NewTenant) -> Result<Tenant> {
    let mut tenant = Tenant {
        id: change.id()?,
        key: new.key,
        display_name: new.display_name,
        status: new.status,
        default_role: None,
        default_role_key: String::new(),
        invitation_lifetime_seconds: INVITATION_LIFETIME_SECONDS,
        retention_seconds: RETENTION_SECONDS,
        purge_automatically: false,
        session_lifetime_seconds: SESSION_SECONDS,
        session_idle_seconds: SESSION_SECONDS,
        language: new.language,
        allowed_email_domains: Vec::new(),
        permission_words: Words::Checked,
        external_id: new.external_id,
        metadata: new.metadata,
        opened_at: (new.status == TenantStatus::Active).then(|| change.now()),
        status_before: None,
        purge_at: None,
        version: 1,
        created_at: change.now(),
        updated_at: change.now(),
    };
    sql::insert(change, &tenant).await?;
    change.enter(tenant.id).await?;
    let plan = roles::plan_builtin(change, false)?;
    tenant.default_role = plan.default_role;
    change.record(created(&tenant))?;
    roles::add_builtin(change, &plan).await?;
    sql::update(change, &tenant).await?;
    sql::find_in(change).await
}

fn created(tenant: &Tenant) -> Event {
    Event::new("tenant.created", &tenant.key)
        .after(tenant.record())
        .change("display_name", &"", &tenant.display_name.as_str())
        .change("language", &"", &tenant.language.as_str())
        .change("external_id", &"", &tenant.external_id.as_str())
        .change("metadata", &BTreeMap::new(), &tenant.metadata)
}

/// Makes somebody a member of the tenant of this change, and its administrator for good.
///
/// # Errors
/// `NOT_FOUND` for an account that is not there; `ALREADY_EXISTS` for a member.
pub async fn appoint(change: &mut Change, user: UserId) -> Result<()> {
    let account = accounts::find(change.conn(), user).await?;
    let account = account.ok_or_else(|| Error::not_found("user", user))?.user;
    let profile = Profile {
        first_name: account.first_name,
        last_name: account.last_name,
        ..Default::default()
    };
    memberships::add(change, NewMember { user, kind: MemberKind::Internal, profile }).await?;
    make_administrator(change, user).await
}

async fn make_administrator(change: &mut Change, user: UserId) -> Result<()> {
    let administrator = role(change, roles::ADMINISTRATOR)?;
    let given = assignments::unchosen(change, administrator)?;
    assignments::give(change, Holder::Subject(SubjectId::User(user)), &given).await?;
    Ok(())
}

/// Makes somebody the administrator of a tenant that has none, whether they are a member, suspended, or
/// not yet one.
///
/// # Errors
/// `NOT_FOUND` for an account that is not there; `FAILED_PRECONDITION` for a disabled one, for a tenant
/// that has an administrator or waits for its first, and for the installation.
pub async fn repair(change: &mut Change, user: UserId) -> Result<Tenant> {
    let (id, key) = (change.tenant().id, change.tenant().key.clone());
    let refuse = |reason, message: &str| Err(Error::precondition(reason, &key, message));
    if id == TenantId::SYSTEM {
        return refuse(
            "TENANT_RESERVED",
            "tenant `system` is the installation; invite an operator",
        );
    }
    change.require_unpurged()?;
    if change.tenant().status == TenantStatus::Pending {
        let message = "the tenant waits for its first administrator; resend that invitation, or \
                       invite another administrator";
        return refuse("TENANT_NOT_ACTIVE", message);
    }
    if !change.administrators(id, 1).await?.is_empty() {
        let message = "the tenant has an administrator, who can appoint others; ask them";
        return refuse("HAS_ADMINISTRATOR", message);
    }
    // Held, so that who disables it finds it here.
    if accounts::lock(change, user).await?.user.disabled {
        return refuse("ACCOUNT_DISABLED", "the account is disabled; enable it, or name another");
    }
    match memberships::find(change, user).await? {
        Some(member) if member.status != MemberStatus::Removed => {
            memberships::instate(change, user).await?;
            make_administrator(change, user).await?;
        }
        Some(_) | None => appoint(change, user).await?,
    }
    change.record(Event::new("tenant.administrator_appointed", &key).change(
        "administrator",
        &None,
        &Some(user),
    ))?;
    let tenant = sql::find_in(change).await?;
    let opened_at = tenant.opened_at.or_else(|| Some(change.now()));
    let tenant = Tenant { opened_at, ..tenant };
    sql::update(change, &tenant).await?;
    Ok(tenant)
}

fn role(change: &Change, key: &str) -> Result<RoleId> {
    change.facts()?.role_named(key).map(|role| role.id).ok_or_else(|| Error::not_found("role", key))
}

/// Which tenants to list.
#[derive(Debug, Clone, Serialize)]
pub struct Filter {
    /// `None`: all that are not deleted.
    pub status: Option<TenantStatus>,
    pub key_prefix: String,
}

/// What to change; `None` leaves a field as it is.
#[derive(Debug, Clone)]
pub struct TenantEdit {
    pub display_name: Option<String>,
    pub default_role: Option<String>,
    pub invitation_lifetime_seconds: Option<i64>,
    pub retention_seconds: Option<i64>,
    pub purge_automatically: Option<bool>,
    pub session_lifetime_seconds: Option<i64>,
    pub session_idle_seconds: Option<i64>,
    pub language: Option<String>,
    pub allowed_email_domains: Option<Vec<String>>,
    pub permission_words: Option<Words>,
    pub external_id: Option<String>,
    pub metadata: Option<BTreeMap<String, String>>,
    pub etag: String,
}

/// Changes the settings of the tenant of this change.
///
/// # Errors
/// `INVALID_ARGUMENT` for an unknown default role; `PERMISSION_DENIED` for one that the caller may not give;
/// `ABORTED` for a stale etag; `FAILED_PRECONDITION` for a purged tenant.
pub async fn update(change: &mut Change, edit: TenantEdit) -> Result<Tenant> {
    let before = sql::find_in(change).await?;
    change.require_unpurged()?;
    check_etag(&edit.etag, before.version)?;
    let mut after = before.clone();
    after.display_name = edit.display_name.unwrap_or(after.display_name);
    if let Some(key) = edit.default_role.filter(|key| *key != before.default_role_key) {
        let role = change.role("default_role", &key)?.id;
        require_gift(change, role)?;
        (after.default_role, after.default_role_key) = (Some(role), key);
    }
    after.invitation_lifetime_seconds =
        edit.invitation_lifetime_seconds.unwrap_or(after.invitation_lifetime_seconds);
    after.retention_seconds = edit.retention_seconds.unwrap_or(after.retention_seconds);
    after.purge_automatically = edit.purge_automatically.unwrap_or(after.purge_automatically);
    after.session_lifetime_seconds =
        edit.session_lifetime_seconds.unwrap_or(after.session_lifetime_seconds);
    after.session_idle_seconds = edit.session_idle_seconds.unwrap_or(after.session_idle_seconds);
    after.language = edit.language.unwrap_or(after.language);
    after.allowed_email_domains = edit.allowed_email_domains.unwrap_or(after.allowed_email_domains);
    after.permission_words = edit.permission_words.unwrap_or(after.permission_words);
    after.external_id = edit.external_id.unwrap_or(after.external_id);
    after.metadata = edit.metadata.unwrap_or(after.metadata);
    rewrite(change, "tenant.updated", before, after).await
}

/// Makes a role the one that joins without being chosen.
///
/// # Errors
/// `PERMISSION_DENIED` for one that the caller may not give.
pub async fn set_default_role(change: &mut Change, role: RoleId) -> Result<Tenant> {
    let before = sql::find_in(change).await?;
    if before.default_role == Some(role) {
        return Ok(before);
    }
    require_gift(change, role)?;
    let key = change.facts()?.role(role).map(|role| role.key.to_string());
    let (default_role, default_role_key) = (Some(role), key.unwrap_or_default());
    let after = Tenant { default_role, default_role_key, ..before.clone() };
    rewrite(change, "tenant.updated", before, after).await
}

/// Whoever sets the default role gives it to all who will join.
fn require_gift(change: &Change, role: RoleId) -> Result<()> {
    let tenant = Scope { workspace: None, path: String::new(), text: String::new() };
    change.require_gift(role, &tenant, None)
}

async fn rewrite(
    change: &mut Change,
    verb: &'static str,
    before: Tenant,
    mut after: Tenant,
) -> Result<Tenant> {
    let event = Event::new(verb, &after.key)
        .before(before.record())
        .after(after.record())
        .change("display_name", &before.display_name, &after.display_name)
        .change("default_role_key", &before.default_role_key, &after.default_role_key)
        .change(
            "invitation_lifetime_seconds",
            &before.invitation_lifetime_seconds,
            &after.invitation_lifetime_seconds,
        )
        .change("retention_seconds", &before.retention_seconds, &after.retention_seconds)
        .change("purge_automatically", &before.purge_automatically, &after.purge_automatically)
        .change(
            "session_lifetime_seconds",
            &before.session_lifetime_seconds,
            &after.session_lifetime_seconds,
        )
        .change("session_idle_seconds", &before.session_idle_seconds, &after.session_idle_seconds)
        .change("language", &before.language, &after.language)
        .change(
            "allowed_email_domains",
            &before.allowed_email_domains,
            &after.allowed_email_domains,
        )
        .change("permission_words", &before.permission_words, &after.permission_words)
        .change("external_id", &before.external_id, &after.external_id)
        .change("metadata", &before.metadata, &after.metadata)
        .change("purge_time", &before.purge_at, &after.purge_at);
    if !event.changes_anything() {
        return Ok(before);
    }
    after.version += 1;
    after.updated_at = change.now();
    sql::update(change, &after).await?;
    change.record(event)?;
    Ok(after)
}

/// Gives the installation the built-in roles that it has not yet. Processes that start at once take
/// turns by its lock, and the later ones find nothing to do.
///
/// # Errors
/// When the database does not answer.
pub async fn bootstrap(app: &App) -> Result<()> {
    let call = Call::installation();
    let claim = Claim::installation(&call, Key::SYSTEM)?;
    change::run(app, &call, claim, Options::default(), (), |change, ()| {
        Box::pin(async move {
            let plan = roles::plan_builtin(change, true)?;
            let before = sql::find_in(change).await?;
            if before.default_role.is_none() {
                let tenant = Tenant { default_role: plan.default_role, ..before.clone() };
                change.record(created(&tenant))?;
            }
            roles::add_builtin(change, &plan).await?;
            if before.default_role.is_none() {
                sql::update(change, &Tenant { default_role: plan.default_role, ..before }).await?;
            }
            Ok(())
        })
    })
    .await
}
