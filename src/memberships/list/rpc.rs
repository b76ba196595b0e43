//! The list of people in and out of generated types.

use super::{
    Filter, Listed, Order, Person, StatusFilter,
    filter::{self, Term},
};
use crate::{
    decision::{MemberKind, MemberStatus, Time},
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
            Ok(MembershipStatus::Removed) => Some(StatusFilter::Member(MemberStatus::Removed)),
            Err(_) => {
                let wanted = "expected PENDING, ACTIVE, SUSPENDED or REMOVED";
                return Err(Error::invalid("status", wanted));
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
        let mut filter = Self {
            status,
            kind: read_kind("kind", request.kind)?,
            role: word("role", &request.role)?,
            workspace: word("workspace", &request.workspace)?,
            department: word("department", &request.department)?,
            external_id: None,
            last_sign_in_before: None,
            query: word("query", &request.query)?,
            order,
            descending: request.descending,
            now,
        };
        if request.filter.len() > MAX_FILTER {
            return Err(filter::wrong(format!("at most {MAX_FILTER} bytes")));
        }
        for term in filter::parse(&request.filter)? {
            filter.narrow(term)?;
        }
        Ok(filter)
    }

    fn narrow(&mut self, Term { field, before, value }: Term) -> Result<()> {
        // As what it is compared with was stored.
        let value = text::line("filter", &value, text::MAX_TEXT)?;
        let wrong = |wanted: &str| Err(filter::wrong(format!("`{field}` is `{value}`; {wanted}")));
        if before != (field == "last_sign_in_time") {
            return Err(filter::wrong(filter::FIELDS.to_owned()));
        }
        let twice = match field.as_str() {
            "status" => {
                let status = match value.as_str() {
                    "PENDING" => StatusFilter::Pending,
                    "ACTIVE" => StatusFilter::Member(MemberStatus::Active),
                    "SUSPENDED" => StatusFilter::Member(MemberStatus::Suspended),
                    "REMOVED" => StatusFilter::Member(MemberStatus::Removed),
                    _ => return wrong("expected PENDING, ACTIVE, SUSPENDED or REMOVED"),
                };
                self.status.replace(status).is_some()
            }
            "kind" => {
                let kind = match value.as_str() {
                    "INTERNAL" => MemberKind::Internal,
                    "EXTERNAL" => MemberKind::External,
                    _ => return wrong("expected INTERNAL or EXTERNAL"),
                };
                self.kind.replace(kind).is_some()
            }
            "last_sign_in_time" => match chrono::DateTime::parse_from_rfc3339(&value) {
                Ok(time) => self.last_sign_in_before.replace(time.to_utc()).is_some(),
                Err(_) => return wrong("expected a time such as `2026-12-31T00:00:00Z`"),
            },
            "role" => self.role.replace(value).is_some(),
            "workspace" => self.workspace.replace(value).is_some(),
            "department" => self.department.replace(value).is_some(),
            "external_id" if value.is_empty() => return wrong("expected one that somebody has"),
            "external_id" => self.external_id.replace(value).is_some(),
            _ => return Err(filter::wrong(format!("`{field}` is no field; {}", filter::FIELDS))),
        };
        if twice {
            let wanted = format!("`{field}` is given beside it; leave one of them out");
            return Err(filter::wrong(wanted));
        }
        Ok(())
    }
}

/// The longest filter, in bytes.
const MAX_FILTER: usize = 2_000;

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
