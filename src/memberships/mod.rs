//! Memberships: people in a tenant, with kind, status, profile and roles. Owns who belongs and whether
//! they have access; the account belongs to `users`, an open invitation to `invitations`.

mod list;
mod rpc;
mod sql;

use std::collections::BTreeMap;

pub use list::{Filter, Invited, Listed, Order, Person, SortKey, StatusFilter, page};
pub use rpc::{answer_now, read_kind};

use chrono::TimeDelta;
use sqlx::PgPool;

use crate::{
    assignments::{self, NewAssignment, Shown},
    change::{Change, Event},
    decision::{Member, MemberKind, MemberStatus, Record, Time},
    edit::check_etag,
    error::{Error, Result},
    groups,
    ids::{AssignmentId, GroupId, Holder, Key, SubjectId, UserId},
    service_accounts,
    text::Email,
};

/// The longest field of a profile, in characters.
pub const MAX_PROFILE: usize = 100;

/// What a tenant knows about a person.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Profile {
    pub first_name: String,
    pub last_name: String,
    pub department: String,
    pub job_title: String,
    pub phone: String,
    pub location: String,
}

#[derive(Debug, Clone)]
pub struct Membership {
    pub user: UserId,
    pub email: String,
    pub kind: MemberKind,
    pub status: MemberStatus,
    pub epoch: i32,
    pub profile: Profile,
    pub external_id: String,
    pub metadata: BTreeMap<String, String>,
    pub last_sign_in_at: Option<Time>,
    pub last_active_at: Option<Time>,
    /// From when the data may be erased.
    pub purge_at: Option<Time>,
    pub version: i64,
    pub created_at: Time,
    pub updated_at: Time,
}

impl Membership {
    fn member(&self) -> Member {
        let subject = SubjectId::User(self.user);
        Member { subject, kind: self.kind, status: self.status, epoch: self.epoch }
    }

    fn record(&self) -> Record {
        Record::Member(self.member())
    }
}

#[derive(Debug, Clone)]
pub struct NewMember {
    pub user: UserId,
    pub kind: MemberKind,
    pub profile: Profile,
}

/// The member as the tenant last knew them, also after they were removed.
///
/// # Errors
/// When the database does not answer.
pub async fn find(change: &mut Change, user: UserId) -> Result<Option<Member>> {
    Ok(sql::lock(change, user).await?.map(|membership| membership.member()))
}

/// Makes somebody an active member without roles. Who was removed comes back with a new profile, and
/// their old sessions stay ended.
///
/// # Errors
/// `ALREADY_EXISTS` for somebody who is active or suspended here.
pub async fn add(change: &mut Change, new: NewMember) -> Result<Member> {
    let former = sql::lock(change, new.user).await?;
    if let Some(former) = &former
        && former.status != MemberStatus::Removed
    {
        return Err(Error::AlreadyExists {
            kind: "member",
            name: new.user.to_string(),
            remedy: "change the roles they have, or reactivate them",
        });
    }
    let (epoch, version) = former.as_ref().map_or((0, 1), |m| (m.epoch + 1, m.version + 1));
    let subject = SubjectId::User(new.user);
    let member = Member { subject, kind: new.kind, status: MemberStatus::Active, epoch };
    sql::upsert(change, &member, &new, version).await?;
    let event = Event::new("member.added", new.user).after(Record::Member(member));
    change.record(tell_profile(event, new.user, &Profile::default(), &new.profile))?;
    Ok(member)
}

/// What to change; `None` leaves a field as it is.
#[derive(Debug, Clone)]
pub struct MembershipEdit {
    pub user: UserId,
    pub profile: ProfileEdit,
    pub kind: Option<MemberKind>,
    pub external_id: Option<String>,
    pub metadata: Option<BTreeMap<String, String>>,
    pub etag: String,
}

#[derive(Debug, Clone)]
pub struct ProfileEdit {
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    pub department: Option<String>,
    pub job_title: Option<String>,
    pub phone: Option<String>,
    pub location: Option<String>,
}

impl MembershipEdit {
    /// Whether it changes only what is the person's own to change.
    #[must_use]
    pub fn is_of_profile(&self) -> bool {
        self.kind.is_none() && self.external_id.is_none() && self.metadata.is_none()
    }
}

impl ProfileEdit {
    fn apply(self, to: &mut Profile) {
        for (field, edit) in [
            (&mut to.first_name, self.first_name),
            (&mut to.last_name, self.last_name),
            (&mut to.department, self.department),
            (&mut to.job_title, self.job_title),
            (&mut to.phone, self.phone),
            (&mut to.location, self.location),
        ] {
            if let Some(edit) = edit {
                *field = edit;
            }
        }
    }
}

/// # Errors
/// `NOT_FOUND`; `ABORTED` for a stale etag; what a change of kind is refused for.
pub async fn update(change: &mut Change, edit: MembershipEdit) -> Result<Membership> {
    let before = lock(change, edit.user).await?;
    check_etag(&edit.etag, before.version)?;
    let mut after = before.clone();
    edit.profile.apply(&mut after.profile);
    after.kind = edit.kind.unwrap_or(after.kind);
    after.external_id = edit.external_id.unwrap_or(after.external_id);
    after.metadata = edit.metadata.unwrap_or(after.metadata);
    let user = after.user;
    let mut event =
        tell_profile(Event::new("member.updated", user), user, &before.profile, &after.profile)
            .personal(user, "external_id", &before.external_id, &after.external_id)
            .personal(user, "metadata", &before.metadata, &after.metadata);
    if after.kind != before.kind {
        require_kind_change(change, &before, after.kind).await?;
        event = event.before(before.record()).after(after.record());
    }
    if !event.changes_anything() {
        return Ok(before);
    }
    after.version += 1;
    after.updated_at = change.now();
    sql::update(change, &after).await?;
    change.record(event)?;
    Ok(after)
}

async fn require_kind_change(
    change: &mut Change,
    before: &Membership,
    kind: MemberKind,
) -> Result<()> {
    let invitation = match kind {
        MemberKind::External => "iam.members.invite.external",
        MemberKind::Internal | MemberKind::Service => "iam.members.invite.internal",
    };
    change.require(invitation, "")?;
    change.require(removal(before.kind), "")?;
    require_domain(change, kind, &Email::parse("email", &before.email)?)?;
    require_outranked(change, before.user).await
}

/// Refuses an inside person whose address is outside the domains that the tenant allows.
///
/// # Errors
/// `FAILED_PRECONDITION` with the reason `EMAIL_DOMAIN_NOT_ALLOWED`.
pub fn require_domain(change: &Change, kind: MemberKind, email: &Email) -> Result<()> {
    let allowed = &change.tenant().allowed_email_domains;
    let fits = allowed.is_empty() || allowed.iter().any(|domain| domain == email.domain());
    if kind != MemberKind::Internal || fits {
        return Ok(());
    }
    let message = format!(
        "internal members of tenant `{}` have addresses of `{}`, and this one is of `{}`; make \
         them external, or let an administrator allow the domain",
        change.tenant().key,
        allowed.join("`, `"),
        email.domain()
    );
    Err(Error::precondition("EMAIL_DOMAIN_NOT_ALLOWED", &change.tenant().key, message))
}

/// Which roles to give to whom, and which to take away.
#[derive(Debug, Clone)]
pub struct RolesEdit {
    pub subject: SubjectId,
    pub add: Vec<NewAssignment>,
    pub remove: Vec<AssignmentId>,
    pub etag: String,
}

/// Gives and takes roles, all or none; returns what the subject has now, and its new version.
///
/// # Errors
/// As [`assignments::resolve`], [`assignments::give`] and [`assignments::remove`].
pub async fn update_roles(change: &mut Change, edit: RolesEdit) -> Result<(Vec<Shown>, i64)> {
    let holder = Holder::Subject(edit.subject);
    let version = match edit.subject {
        SubjectId::User(user) => lock(change, user).await?.version,
        SubjectId::Service(id) => service_accounts::lock_version(change, id).await?,
    };
    check_etag(&edit.etag, version)?;
    let before = assignments::shown_now(change, edit.subject).await?;
    // By what the caller may do at the start: whoever hands over may give up what they give by.
    let mut resolved = Vec::with_capacity(edit.add.len());
    for new in &edit.add {
        resolved.push(assignments::resolve(change, new).await?);
    }
    assignments::remove(change, holder, &edit.remove).await?;
    for new in &resolved {
        assignments::give(change, holder, new).await?;
    }
    let after = assignments::shown_now(change, edit.subject).await?;
    if after == before {
        return Ok((after, version));
    }
    match edit.subject {
        SubjectId::User(user) => {
            let (membership, updated_at) = (lock(change, user).await?, change.now());
            let version = version + 1;
            sql::update(change, &Membership { version, updated_at, ..membership }).await?;
        }
        SubjectId::Service(id) => service_accounts::set_version(change, id, version + 1).await?,
    }
    Ok((after, version + 1))
}

/// What becomes of the data of somebody who is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// It stays until somebody decides otherwise.
    Keep,
    /// It may be erased from this time on; none: when the tenant's retention is over.
    PurgeableFrom(Option<Time>),
}

/// Takes the access away and ends the sessions; profile and roles stay. Who is suspended already only
/// gets the other retention.
///
/// # Errors
/// `NOT_FOUND`; `ABORTED` for a stale etag; `PERMISSION_DENIED` `MEMBER_OUTRANKS_CALLER`;
/// `INVALID_ARGUMENT` for a time that is past.
pub async fn suspend(
    change: &mut Change,
    user: UserId,
    retention: Retention,
    etag: &str,
) -> Result<Membership> {
    let before = lock(change, user).await?;
    check_etag(etag, before.version)?;
    require_outranked(change, user).await?;
    let purge_at = match retention {
        Retention::Keep => None,
        Retention::PurgeableFrom(None) => Some(end_of_retention(change)),
        Retention::PurgeableFrom(Some(from)) if from > change.now() => Some(from),
        Retention::PurgeableFrom(Some(_)) => {
            let wanted = "it is past; leave it out for the tenant's retention";
            return Err(Error::invalid("purge_time", wanted));
        }
    };
    let status = MemberStatus::Suspended;
    if before.status == status {
        let same = before.purge_at == purge_at || retention == Retention::PurgeableFrom(None);
        if same && before.purge_at.is_some() == purge_at.is_some() {
            return Ok(before);
        }
        let after = Membership { purge_at, ..before.clone() };
        return replace(change, "member.retention_changed", &before, after).await;
    }
    let after = Membership { status, purge_at, epoch: before.epoch + 1, ..before.clone() };
    replace(change, "member.suspended", &before, after).await
}

fn end_of_retention(change: &Change) -> Time {
    change.now() + TimeDelta::seconds(change.tenant().retention_seconds)
}

/// Gives a suspended member the access back; the sessions stay ended.
///
/// # Errors
/// `NOT_FOUND`; `ABORTED` for a stale etag; `PERMISSION_DENIED` `ROLE_NOT_GRANTABLE`.
pub async fn reactivate(change: &mut Change, user: UserId, etag: &str) -> Result<Membership> {
    let before = lock(change, user).await?;
    check_etag(etag, before.version)?;
    if before.status == MemberStatus::Active {
        return Ok(before);
    }
    let subject = SubjectId::User(user);
    assignments::require_gifts(change, Holder::Subject(subject)).await?;
    change.load(&[subject]).await?;
    let groups: Vec<GroupId> = change.facts()?.groups_of(subject).collect();
    for group in groups {
        assignments::require_gifts(change, Holder::Group(group)).await?;
    }
    let after = Membership { status: MemberStatus::Active, purge_at: None, ..before.clone() };
    replace(change, "member.reactivated", &before, after).await
}

/// Makes an inside person with access of somebody who was a guest, or suspended.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn instate(change: &mut Change, user: UserId) -> Result<()> {
    let before = lock(change, user).await?;
    let (kind, status) = (MemberKind::Internal, MemberStatus::Active);
    if (before.kind, before.status) != (kind, status) {
        let after = Membership { kind, status, purge_at: None, ..before.clone() };
        replace(change, "member.instated", &before, after).await?;
    }
    Ok(())
}

async fn replace(
    change: &mut Change,
    verb: &'static str,
    before: &Membership,
    mut after: Membership,
) -> Result<Membership> {
    after.version += 1;
    after.updated_at = change.now();
    sql::update(change, &after).await?;
    let event = Event::new(verb, after.user).before(before.record()).after(after.record()).change(
        "purge_time",
        &before.purge_at,
        &after.purge_at,
    );
    change.record(event)?;
    Ok(after)
}

/// Ends somebody's membership with its roles, groups and sessions.
///
/// # Errors
/// `NOT_FOUND`; `ABORTED` for a stale etag; `PERMISSION_DENIED` `MEMBER_OUTRANKS_CALLER`.
pub async fn remove(change: &mut Change, user: UserId, etag: &str) -> Result<Membership> {
    let before = lock(change, user).await?;
    change.require(removal(before.kind), "")?;
    check_etag(etag, before.version)?;
    require_outranked(change, user).await?;
    end(change, "member.removed", before).await
}

/// Ends one's own membership.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn leave(change: &mut Change, user: UserId) -> Result<Membership> {
    let before = lock(change, user).await?;
    end(change, "member.left", before).await
}

async fn end(change: &mut Change, verb: &'static str, before: Membership) -> Result<Membership> {
    let user = before.user;
    assignments::remove_all(change, Holder::Subject(SubjectId::User(user))).await?;
    groups::leave_all(change, user).await?;
    let purge_at = Some(end_of_retention(change));
    let event = Event::new(verb, user).before(before.record()).change(
        "purge_time",
        &before.purge_at,
        &purge_at,
    );
    let after = Membership {
        status: MemberStatus::Removed,
        purge_at,
        epoch: before.epoch + 1,
        // So that somebody else may have it; it is not part of what comes back.
        external_id: String::new(),
        version: before.version + 1,
        updated_at: change.now(),
        ..before
    };
    sql::update(change, &after).await?;
    change.record(event)?;
    Ok(after)
}

/// Refuses to erase what must be kept still.
///
/// # Errors
/// `NOT_FOUND` for who never was here or was purged; `FAILED_PRECONDITION` with the reason
/// `NOT_PURGEABLE`.
pub async fn require_purgeable(change: &mut Change, user: UserId) -> Result<()> {
    let found = sql::lock_unpurged(change, user).await?.ok_or_else(|| unknown(user))?;
    let refuse = |message: String| Err(Error::precondition("NOT_PURGEABLE", user, message));
    match (found.status, found.purge_at) {
        (MemberStatus::Active, _) => {
            refuse(format!("{user} is an active member; suspend them as PURGEABLE, or remove them"))
        }
        (_, None) => refuse(format!(
            "{user} is suspended and the data kept; suspend them as PURGEABLE, or remove them"
        )),
        (_, Some(from)) if from > change.now() => {
            let from = from.format("%Y-%m-%dT%H:%M:%SZ");
            refuse(format!("the data of {user} is kept until {from}; purge it then"))
        }
        (_, Some(_)) => Ok(()),
    }
}

/// Ends the membership of somebody who is about to be erased, if it has not ended.
///
/// # Errors
/// `NOT_FOUND` for who never was here or was purged.
pub async fn dismiss(change: &mut Change, user: UserId) -> Result<()> {
    let before = sql::lock_unpurged(change, user).await?.ok_or_else(|| unknown(user))?;
    if before.status != MemberStatus::Removed {
        end(change, "member.removed", before).await?;
    }
    Ok(())
}

/// Blanks what the tenant knows about somebody who left it; whether no other tenant knows them, and
/// nothing of them is left at all.
///
/// # Errors
/// When the database does not answer.
pub async fn erase(change: &mut Change, user: UserId) -> Result<bool> {
    sql::erase(change, user).await?;
    if sql::is_known(change, user).await? {
        return Ok(false);
    }
    sql::delete_purged(change, user).await?;
    Ok(true)
}

/// Whose time is over in tenants that want them purged then.
///
/// # Errors
/// When the database does not answer.
pub async fn due(pool: &PgPool, now: Time) -> Result<Vec<(Key, UserId)>> {
    sql::due(pool, now).await
}

/// The tenants that know something about a person, also those they have left.
///
/// # Errors
/// When the database does not answer.
pub async fn tenants_of(pool: &PgPool, user: UserId) -> Result<Vec<Key>> {
    sql::tenants_of(pool, user).await
}

/// Follows a change of the account's address, so that lists find the person by it.
///
/// # Errors
/// When the database does not answer.
pub async fn set_email(change: &mut Change, user: UserId, email: &Email) -> Result<()> {
    sql::set_email(change, user, email).await
}

/// The permission that removing such a member takes.
fn removal(kind: MemberKind) -> &'static str {
    match kind {
        MemberKind::External => "iam.members.remove.external",
        MemberKind::Internal | MemberKind::Service => "iam.members.remove.internal",
    }
}

/// Nobody acts on those above them; on oneself everybody may.
async fn require_outranked(change: &mut Change, user: UserId) -> Result<()> {
    if change.call().is_oneself(user) {
        return Ok(());
    }
    assignments::require_outranked(change, SubjectId::User(user)).await
}

/// Ends every session that the member has in this tenant.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn end_sessions(change: &mut Change, user: UserId) -> Result<()> {
    let before = lock(change, user).await?;
    let mut after = before.clone();
    after.epoch += 1;
    sql::update(change, &after).await?;
    let event = Event::new("member.sessions_ended", user);
    change.record(event.before(before.record()).after(after.record()))
}

/// The membership, locked; who was removed is unknown.
async fn lock(change: &mut Change, user: UserId) -> Result<Membership> {
    let membership = sql::lock(change, user).await?;
    membership.filter(|m| m.status != MemberStatus::Removed).ok_or_else(|| unknown(user))
}

fn tell_profile(mut event: Event, user: UserId, before: &Profile, after: &Profile) -> Event {
    for (field, before, after) in [
        ("first_name", &before.first_name, &after.first_name),
        ("last_name", &before.last_name, &after.last_name),
        ("department", &before.department, &after.department),
        ("job_title", &before.job_title, &after.job_title),
        ("phone", &before.phone, &after.phone),
        ("location", &before.location, &after.location),
    ] {
        event = event.personal(user, field, before, after);
    }
    event
}

fn unknown(user: impl ToString) -> Error {
    Error::not_found("member", user)
}
