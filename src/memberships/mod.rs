//! Memberships: people in a tenant, with kind, status, profile and roles. Owns who belongs and whether
//! they have access; the account belongs to `users`, an open invitation to `invitations`.

mod sql;

use std::collections::BTreeMap;

use crate::{
    change::{Change, Event},
    decision::{Member, MemberKind, MemberStatus, Record, Time},
    error::{Error, Result},
    ids::{SubjectId, UserId},
};

/// What a tenant knows about a person.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
