//! The list of people in and out of generated types.

use super::{Filter, Listed, Order, Person, StatusFilter};
use crate::{
    decision::{MemberStatus, Time},
    error::{Error, Result},
    memberships::{read_kind, rpc::member},
    proto as pb, text,
};

impl Filter {
    /// Reads what a request asks for.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` naming the field.
    pub fn read(request: &pb::ListMembershipsRequest, now: Time) -> Result<Self> {
        use pb::{MembershipOrder, MembershipStatus};
        let status = match MembershipStatus::try_from(request.status) {
            Ok(MembershipStatus::Unspecified) => None,
            Ok(MembershipStatus::Pending) => Some(StatusFilter::Pending),
            Ok(MembershipStatus::Active) => Some(StatusFilter::Member(MemberStatus::Active)),
            Ok(MembershipStatus::Suspended) => Some(StatusFilter::Member(MemberStatus::Suspended)),
            Ok(MembershipStatus::Removed) | Err(_) => {
                return Err(Error::invalid("status", "expected PENDING, ACTIVE or SUSPENDED"));
            }
        };
        let order = match MembershipOrder::try_from(request.order) {
            Ok(MembershipOrder::Unspecified | MembershipOrder::Name) => Order::Name,
            Ok(MembershipOrder::Email) => Order::Email,
            Ok(MembershipOrder::LastSignInTime) => Order::LastSignIn,
            Ok(MembershipOrder::CreateTime) => Order::Created,
            Err(_) => {
                let wanted = "expected NAME, EMAIL, LAST_SIGN_IN_TIME or CREATE_TIME";
                return Err(Error::invalid("order", wanted));
            }
        };
        let word = |field: &str, text: &str| {
            let line = text::line(field, text, text::MAX_TEXT);
            line.map(|text| (!text.is_empty()).then_some(text))
        };
        Ok(Self {
            status,
            kind: read_kind("kind", request.kind)?,
            role: word("role", &request.role)?,
            workspace: word("workspace", &request.workspace)?,
            department: word("department", &request.department)?,
            query: word("query", &request.query)?,
            order,
            descending: request.descending,
            now,
        })
    }
}

/// One row of the list on the wire.
pub fn wire(tenant: &str, row: Listed) -> pb::Membership {
    match row.person {
        Person::Member(membership) => member(tenant, *membership, row.roles),
        Person::Invited(person) => pb::Membership {
            tenant: tenant.to_owned(),
            invitation_id: person.invitation.to_string(),
            email: person.email,
            kind: pb::MemberKind::from(person.kind).into(),
            status: pb::MembershipStatus::Pending.into(),
            profile: Some(person.profile.into()),
            roles: row.roles.into_iter().map(Into::into).collect(),
            create_time: Some(pb::timestamp(person.created_at)),
            update_time: Some(pb::timestamp(person.updated_at)),
            ..Default::default()
        },
    }
}
