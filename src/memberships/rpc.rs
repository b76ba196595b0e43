//! The MembershipService: generated types in and out.

use tonic::{Request, Response, Status};

use super::{
    Filter, Listed, MAX_PROFILE, Membership, MembershipEdit, Profile, ProfileEdit, Retention,
    RolesEdit, list, sql,
};
use crate::{
    access::{claim_any, permit},
    app::Rpc,
    assignments::{self, NewAssignment, Shown},
    caller::Call,
    change::{self, Change, Options},
    decision::{MemberKind, MemberStatus},
    edit::{Mask, etag},
    erasure::{self, Erased},
    error::{Error, Result},
    ids::{SubjectId, UserId},
    page::Page,
    proto::{self as pb, membership_service_server::MembershipService},
    text,
};

#[tonic::async_trait]
impl MembershipService for Rpc {
    async fn get_membership(
        &self,
        request: Request<pb::GetMembershipRequest>,
    ) -> Result<Response<pb::GetMembershipResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let user = person(&call, &request.user_id)?;
        let claim = call.claim_person(&request.tenant, user)?;
        let permit = permit(&self.0, &call, &claim).await?;
        let membership = sql::get(&self.0.pool, &permit, user).await?;
        let mut roles = assignments::shown(&self.0.pool, &permit, &[user.uuid()]).await?;
        let roles = roles.remove(&user.uuid()).unwrap_or_default();
        Ok(Response::new(pb::GetMembershipResponse {
            membership: Some(member(permit.tenant_key().as_str(), membership, roles)),
            revision: permit.revision().text(),
        }))
    }

    async fn list_memberships(
        &self,
        request: Request<pb::ListMembershipsRequest>,
    ) -> Result<Response<pb::ListMembershipsResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let claim = call.claim(&request.tenant)?;
        let permit = permit(&self.0, &call, &claim).await?;
        let binding = pb::ListMembershipsRequest {
            page_size: 0,
            page_token: String::new(),
            ..request.clone()
        };
        let binding = ("memberships", prost::Message::encode_to_vec(&binding));
        let page = Page::<list::Start>::read(
            &self.0.keys,
            &binding,
            request.page_size,
            &request.page_token,
        )?;
        let filter = Filter::read(&request, self.0.clock.now())?;
        let start = page.after.as_ref();
        let mut found = list::find(&self.0.pool, &permit, &filter, start, page.limit()).await?;
        let next = |row: &Listed| (row.key.clone(), found.total);
        let next_page_token = page.finish(&self.0.keys, &mut found.rows, next)?;
        let tenant = permit.tenant_key().as_str();
        Ok(Response::new(pb::ListMembershipsResponse {
            memberships: found.rows.into_iter().map(|row| list::wire(tenant, row)).collect(),
            next_page_token,
            total_count: found.total,
            revision: found.revision.text(),
        }))
    }

    async fn update_membership(
        &self,
        request: Request<pb::UpdateMembershipRequest>,
    ) -> Result<Response<pb::UpdateMembershipResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let user = person(&call, &request.user_id)?;
        let tenant = request.tenant.clone();
        let edit = MembershipEdit::read(user, request)?;
        let claim = if edit.is_of_profile() {
            call.claim_person(&tenant, user)?
        } else {
            call.claim_each(&tenant, "iam.members.update", [""])?
        };
        let answer = change::run(&self.0, &call, claim, options, edit, |change, edit| {
            Box::pin(async move {
                let membership = super::update(change, edit).await?;
                let membership = Some(as_changed(change, membership).await?);
                Ok(pb::UpdateMembershipResponse { membership, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn update_member_roles(
        &self,
        request: Request<pb::UpdateMemberRolesRequest>,
    ) -> Result<Response<pb::UpdateMemberRolesResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let edit = RolesEdit {
            subject: text::parse("subject", &request.subject)?,
            add: NewAssignment::read("add", request.add)?,
            remove: assignments::read_ids("remove", &request.remove)?,
            etag: request.etag,
        };
        let tenant = &request.tenant;
        let scopes = assignments::claimed_scopes(&self.0, tenant, &edit.add, &edit.remove).await?;
        let claim = call.claim_each(tenant, "iam.roles.assign", scopes)?;
        let answer = change::run(&self.0, &call, claim, options, edit, |change, edit| {
            Box::pin(async move {
                let (roles, version) = super::update_roles(change, edit).await?;
                let roles = roles.into_iter().map(Into::into).collect();
                let etag = etag(version);
                Ok(pb::UpdateMemberRolesResponse { roles, etag, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn suspend_membership(
        &self,
        request: Request<pb::SuspendMembershipRequest>,
    ) -> Result<Response<pb::SuspendMembershipResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let user = text::parse("user_id", &request.user_id)?;
        let claim = call.claim(&request.tenant)?;
        let input = (user, retention(&request)?, request.etag);
        let answer = change::run(
            &self.0,
            &call,
            claim,
            options,
            input,
            |change, (user, retention, etag)| {
                Box::pin(async move {
                    let membership = super::suspend(change, user, retention, &etag).await?;
                    let membership = Some(as_changed(change, membership).await?);
                    Ok(pb::SuspendMembershipResponse { membership, ..Default::default() })
                })
            },
        );
        Ok(Response::new(answer.await?))
    }

    async fn reactivate_membership(
        &self,
        request: Request<pb::ReactivateMembershipRequest>,
    ) -> Result<Response<pb::ReactivateMembershipResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let user = text::parse("user_id", &request.user_id)?;
        let claim = call.claim(&request.tenant)?;
        let input = (user, request.etag);
        let answer = change::run(&self.0, &call, claim, options, input, |change, (user, etag)| {
            Box::pin(async move {
                let membership = super::reactivate(change, user, &etag).await?;
                let membership = Some(as_changed(change, membership).await?);
                Ok(pb::ReactivateMembershipResponse { membership, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn remove_membership(
        &self,
        request: Request<pb::RemoveMembershipRequest>,
    ) -> Result<Response<pb::RemoveMembershipResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let user = text::parse("user_id", &request.user_id)?;
        let claim = claim_any(&self.0, &call, &request.tenant).await?;
        let input = (user, request.etag);
        let answer = change::run(&self.0, &call, claim, options, input, |change, (user, etag)| {
            Box::pin(async move {
                let roles = assignments::shown_now(change, SubjectId::User(user)).await?;
                let membership = super::remove(change, user, &etag).await?;
                let membership = Some(member(change.tenant().key.as_str(), membership, roles));
                Ok(pb::RemoveMembershipResponse { membership, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn leave_tenant(
        &self,
        request: Request<pb::LeaveTenantRequest>,
    ) -> Result<Response<pb::LeaveTenantResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let user = call.require_person()?;
        let claim = call.claim_oneself(&request.tenant)?;
        let answer = change::run(&self.0, &call, claim, options, user, |change, user| {
            Box::pin(async move {
                super::leave(change, user).await?;
                Ok(pb::LeaveTenantResponse::default())
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn purge_member(
        &self,
        request: Request<pb::PurgeMemberRequest>,
    ) -> Result<Response<pb::PurgeMemberResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let user = text::parse("user_id", &request.user_id)?;
        let claim = call.claim(&request.tenant)?;
        let answer = change::run(&self.0, &call, claim, options, user, |change, user| {
            Box::pin(async move {
                let erased = Some(erasure::purge(change, user).await?.into());
                Ok(pb::PurgeMemberResponse { erased, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }
}

/// What a request to suspend says about the data.
fn retention(request: &pb::SuspendMembershipRequest) -> Result<Option<Retention>> {
    let from = pb::time("purge_time", request.purge_time)?;
    match (pb::Retention::try_from(request.retention), from) {
        (Ok(pb::Retention::Unspecified), None) => Ok(None),
        (Ok(pb::Retention::Keep), None) => Ok(Some(Retention::Keep)),
        (Ok(pb::Retention::Unspecified | pb::Retention::Keep), Some(_)) => {
            Err(Error::invalid("purge_time", "it goes with the retention PURGEABLE only"))
        }
        (Ok(pb::Retention::Purgeable), from) => Ok(Some(Retention::PurgeableFrom(from))),
        (Err(_), _) => Err(Error::invalid("retention", "expected KEEP or PURGEABLE")),
    }
}

impl From<Erased> for pb::Erased {
    fn from(erased: Erased) -> Self {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        Self {
            sessions: count(erased.sessions),
            invitations: count(erased.invitations),
            mails: count(erased.mails),
            audit_values: count(erased.audit_values),
            answers: count(erased.answers),
            account: erased.account,
            imports: count(erased.imports),
        }
    }
}

fn person(call: &Call, user_id: &str) -> Result<UserId> {
    match user_id {
        "" => call.require_person(),
        user_id => text::parse("user_id", user_id),
    }
}

/// The membership of an active or suspended member, as answers carry it and this change has left it.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn answer_now(change: &mut Change, user: UserId) -> Result<pb::Membership> {
    let membership = super::lock(change, user).await?;
    as_changed(change, membership).await
}

async fn as_changed(change: &mut Change, membership: Membership) -> Result<pb::Membership> {
    let roles = assignments::shown_now(change, SubjectId::User(membership.user)).await?;
    Ok(member(change.tenant().key.as_str(), membership, roles))
}

/// A membership on the wire.
pub fn member(tenant: &str, membership: Membership, roles: Vec<Shown>) -> pb::Membership {
    pb::Membership {
        tenant: tenant.to_owned(),
        user_id: membership.user.to_string(),
        invitation_id: String::new(),
        email: membership.email,
        kind: pb::MemberKind::from(membership.kind).into(),
        status: pb::MembershipStatus::from(membership.status).into(),
        profile: Some(membership.profile.into()),
        roles: roles.into_iter().map(Into::into).collect(),
        last_sign_in_time: membership.last_sign_in_at.map(pb::timestamp),
        last_activity_time: membership.last_active_at.map(pb::timestamp),
        external_id: membership.external_id,
        metadata: membership.metadata,
        create_time: Some(pb::timestamp(membership.created_at)),
        update_time: Some(pb::timestamp(membership.updated_at)),
        etag: etag(membership.version),
        purge_time: membership.purge_at.map(pb::timestamp),
    }
}

impl MembershipEdit {
    fn read(user: UserId, request: pb::UpdateMembershipRequest) -> Result<Self> {
        let mask = Mask::read(
            request.update_mask,
            &[
                "profile",
                "profile.first_name",
                "profile.last_name",
                "profile.department",
                "profile.job_title",
                "profile.phone",
                "profile.location",
                "kind",
                "external_id",
                "metadata",
            ],
        )?;
        let profile = Profile::read("profile", request.profile)?;
        text::metadata("metadata", &request.metadata)?;
        let kind = mask.pick("kind", request.kind).map(|kind| read_kind("kind", kind));
        let external_id = mask.pick("external_id", request.external_id);
        Ok(Self {
            user,
            profile: ProfileEdit {
                first_name: mask.pick("profile.first_name", profile.first_name),
                last_name: mask.pick("profile.last_name", profile.last_name),
                department: mask.pick("profile.department", profile.department),
                job_title: mask.pick("profile.job_title", profile.job_title),
                phone: mask.pick("profile.phone", profile.phone),
                location: mask.pick("profile.location", profile.location),
            },
            kind: kind.transpose()?.map(|kind| kind.unwrap_or(MemberKind::Internal)),
            external_id: external_id
                .map(|id| text::line("external_id", &id, text::MAX_TEXT))
                .transpose()?,
            metadata: mask.pick("metadata", request.metadata),
            etag: request.etag,
        })
    }
}

impl Profile {
    /// Reads a profile that a request carries in `field`; a missing one is empty.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` naming the field of the profile.
    pub fn read(field: &str, profile: Option<pb::Profile>) -> Result<Self> {
        let profile = profile.unwrap_or_default();
        let line =
            |name: &str, text: &str| text::line(&format!("{field}.{name}"), text, MAX_PROFILE);
        Ok(Self {
            first_name: line("first_name", &profile.first_name)?,
            last_name: line("last_name", &profile.last_name)?,
            department: line("department", &profile.department)?,
            job_title: line("job_title", &profile.job_title)?,
            phone: text::phone(&format!("{field}.phone"), &profile.phone)?,
            location: line("location", &profile.location)?,
        })
    }
}

impl From<Profile> for pb::Profile {
    fn from(profile: Profile) -> Self {
        Self {
            first_name: profile.first_name,
            last_name: profile.last_name,
            department: profile.department,
            job_title: profile.job_title,
            phone: profile.phone,
            location: profile.location,
        }
    }
}

/// Reads whether a person is inside or outside; `None` when the request leaves it open.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field`.
pub fn read_kind(field: &str, kind: i32) -> Result<Option<MemberKind>> {
    match pb::MemberKind::try_from(kind) {
        Ok(pb::MemberKind::Unspecified) => Ok(None),
        Ok(pb::MemberKind::Internal) => Ok(Some(MemberKind::Internal)),
        Ok(pb::MemberKind::External) => Ok(Some(MemberKind::External)),
        Err(_) => Err(Error::invalid(field, "expected INTERNAL or EXTERNAL")),
    }
}

impl From<MemberKind> for pb::MemberKind {
    fn from(kind: MemberKind) -> Self {
        match kind {
            MemberKind::Internal => Self::Internal,
            MemberKind::External => Self::External,
            MemberKind::Service => Self::Unspecified,
        }
    }
}

impl From<MemberStatus> for pb::MembershipStatus {
    fn from(status: MemberStatus) -> Self {
        match status {
            MemberStatus::Active => Self::Active,
            MemberStatus::Suspended => Self::Suspended,
            MemberStatus::Removed => Self::Removed,
        }
    }
}
