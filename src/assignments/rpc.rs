//! Role assignments in and out of generated types, for every service that gives or shows them.

use super::{NewAssignment, Shown};
use crate::{
    error::{Error, Result},
    proto as pb,
};

/// The most roles that one request gives.
const MAX_GIVEN: usize = 100;

impl NewAssignment {
    /// Reads the roles that a request gives in the list `field`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for too many, or a time outside the calendar.
    pub fn read(field: &str, roles: Vec<pb::AssignRole>) -> Result<Vec<Self>> {
        if roles.len() > MAX_GIVEN {
            return Err(Error::invalid(field, format!("at most {MAX_GIVEN}; make several calls")));
        }
        let read = |(at, role): (usize, pb::AssignRole)| {
            let field = format!("{field}[{at}]");
            Ok(Self {
                role: role.role,
                scope: role.scope,
                starts: pb::time(&format!("{field}.start_time"), role.start_time)?,
                ends: pb::time(&format!("{field}.end_time"), role.end_time)?,
                field,
            })
        };
        roles.into_iter().enumerate().map(read).collect()
    }
}

impl From<Shown> for pb::RoleAssignment {
    fn from(shown: Shown) -> Self {
        Self {
            id: shown.id.to_string(),
            role: shown.role,
            scope: shown.scope,
            start_time: shown.starts.map(pb::timestamp),
            end_time: shown.ends.map(pb::timestamp),
            group: shown.group,
        }
    }
}
