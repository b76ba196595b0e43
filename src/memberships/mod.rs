//! Memberships: people in a tenant, with kind, status, profile and roles. Owns who belongs and whether
//! they have access; the account belongs to `users`, an open invitation to `invitations`.

mod list;
mod rpc;
mod sql;
mod standing;

use std::collections::BTreeMap;

pub use list::{Filter, Invited, Listed, Order, Person, SortKey, StatusFilter, page};
pub use rpc::{answer_now, read_kind};
pub use standing::{
    Retention, count_unpurged, dismiss, due, end_sessions, erase, instate, leave, reactivate,
    remove, require_purgeable, some_unpurged, suspend,
};

use sqlx::PgPool;

use crate::{
    assignments::{self, NewAssignment, Shown},
    change::{Change, Event},
    decision::{Member, MemberKind, MemberStatus, Record, Time},
    edit::check_etag,
    error::{Error, Result},
    ids::{AssignmentId, Holder, Key, SubjectId, UserId},
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
    let resolved = assignments::resolve_for(change, holder, &edit.add).await?;
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
pub async fn set_email(
    change: &mut Change,
    user: UserId,
    before: &Email,
    email: &Email,
) -> Result<()> {
    sql::set_email(change, user, email).await?;
    let event = Event::new("member.email_changed", user);
    tell(change, user, &event.personal(user, "email", &before.as_str(), &email.as_str())).await
}

/// Tells every tenant that somebody belongs to what became of the account, which is not theirs.
///
/// # Errors
/// When the database does not answer.
pub async fn tell(change: &mut Change, user: UserId, event: &Event) -> Result<()> {
    for tenant in sql::homes(change, user).await? {
        change.tell(tenant, event)?;
    }
    Ok(())
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
